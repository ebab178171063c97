//! stub while parts are made
mod compare;
mod input;
mod plan;
mod platform;
mod proxy;
mod services;
mod topic;
mod watch;
fn main() {}
