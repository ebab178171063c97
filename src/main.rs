//! Lapwing binary.
fn main() {}
