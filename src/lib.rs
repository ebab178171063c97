//! Lapwing: real-time anomaly detection on Kafka for Azure Functions.
//!
//! The modules in reading order; each knows those above it and nothing below.

pub mod series;

pub mod detector;

pub mod message;
pub mod row;

pub mod telemetry;

pub mod record;
pub mod request;

pub mod config;

pub mod host;
pub mod invocation;
pub mod stage;

pub mod cli;
