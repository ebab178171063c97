//! What a timer trigger tells. Dates are left alone: before the first run `Last` is a date in year 1,
//! with or without an offset, and the schedule status is null for schedules under a minute.

use serde::Deserialize;

use super::{Datum, Invocation, PayloadError};

/// The part of the host's `TimerInfo` that decides something here.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct Tick {
    /// The host found at its start that an occurrence had been missed.
    #[serde(default)]
    pub is_past_due: bool,
}

/// Reads the timer's tick.
pub fn tick(invocation: &Invocation<'_>) -> Result<Tick, PayloadError> {
    match invocation.trigger()? {
        Datum::Nested(value) => Tick::deserialize(value),
        Datum::Text(text) => serde_json::from_str(text),
    }
    .map_err(|error| PayloadError::new("trigger", format!("it is no timer: {error}")))
}
