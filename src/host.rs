//! A small Azure Functions host for one machine: as strict as the real one, so that what runs here runs there.

mod answer;
pub mod app;
pub mod config;
mod dotnet;
pub mod function;
mod http;
pub mod schedule;
mod section;
pub mod settings;
pub mod wire;
