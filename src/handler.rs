//! The custom handler's wire: what the Functions host sends and expects.

pub mod invocation;
pub mod kafka_trigger;
pub mod timer_trigger;
