fn main() {}
mod fleet;
mod meter;
