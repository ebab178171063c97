//! Rows of a CSV, tick by tick.

use crate::config::{InvalidSetting, Settings};

/// Sends rows.
#[derive(Debug)]
pub struct Replayer {}

/// Why rows could not be sent.
#[derive(Debug, thiserror::Error)]
#[error("replay comes with the next merge")]
pub struct ReplayError;

impl Replayer {
    /// Reads the settings.
    pub fn from_settings(_settings: &Settings) -> Result<Self, InvalidSetting> {
        Ok(Self {})
    }

    /// Sends the rows of one tick.
    pub async fn tick(&self) -> Result<String, ReplayError> {
        Err(ReplayError)
    }
}
