//! A small Azure Functions host for one machine: as strict as the real one, so that what runs here runs there.

pub mod app;
pub mod config;
pub mod function;
mod http;
pub mod schedule;
mod section;
pub mod settings;
