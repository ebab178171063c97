//! The HTTP trigger.

pub(crate) mod route;
