//! Lapwing: real-time anomaly detection on Kafka for Azure Functions.
//!
//! The modules in reading order; each knows those above it and nothing below.

pub mod series;

pub mod detector;
pub mod request;
pub mod contract;

pub mod message;
pub mod row;

pub mod config;
pub mod telemetry;

pub mod window;
pub mod store;

pub mod kafka;
pub mod record;

pub mod remote;
pub mod judge;

pub mod replay;
pub mod report;

pub mod api;

pub mod invocation;
pub mod functions;
pub mod handler;

pub mod host;
pub mod stage;

pub mod cli;
