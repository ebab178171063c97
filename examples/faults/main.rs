//! stub while parts are made
mod compare;
mod input;
mod plan;
mod proxy;
fn main() {}
