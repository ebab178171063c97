//! Reading back what a place holds, for the people who look after it. Nothing in the pipeline reads
//! records.

use std::error::Error;

use async_trait::async_trait;
use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Sink, Stream};

/// A place whose events can be read again.
#[async_trait]
pub trait Archive: Sink {
    /// Sends every wanted event: those of one topic-partition and day in ascending order of position.
    /// Ends early, without an error, when nobody receives any more.
    async fn read(&self, wanted: &Wanted, found: mpsc::Sender<Found>) -> Result<(), ReadError>;
}

/// Which events are read. What is `None` is not asked about.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Their stream.
    pub stream: Stream,
    /// Topic of the message.
    pub topic: Option<String>,
    /// Partition of the message.
    pub partition: Option<i32>,
    /// Day they are filed under, `2026-08-21`.
    pub day: Option<String>,
}

impl Wanted {
    /// Whether events of this topic, partition and day are wanted.
    pub fn includes(&self, topic: &str, partition: i32, day: &str) -> bool {
        self.topic.as_deref().is_none_or(|wanted| wanted == topic)
            && self.partition.is_none_or(|wanted| wanted == partition)
            && self.day.as_deref().is_none_or(|wanted| wanted == day)
    }
}

/// An event that a place holds, or what should have been one.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where exactly: file and line, blob and line, row.
    pub at: String,
    /// Day it is filed under.
    pub day: String,
    /// The event in CloudEvents' JSON form.
    pub json: String,
}

/// Why a place cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {place}; check that it exists and may be read")]
pub struct ReadError {
    /// What should have been read.
    pub place: String,
    /// What happened.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// A dead letter as it lies in its place.
#[derive(Clone, Debug, Deserialize)]
pub struct StoredDeadLetter {
    /// `topic/epoch/partition/offset`.
    pub id: String,
    /// When the point was measured, or the broker took the message.
    pub time: Option<String>,
    /// The content.
    pub data: StoredDeadLetterData,
}

/// Content of a stored dead letter; the fields are those of [`super::DeadLetterData`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    missing_docs,
    reason = "the fields are documented where they are written"
)]
pub struct StoredDeadLetterData {
    pub reason: String,
    pub detail: String,
    pub series: Option<String>,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub epoch: u32,
    pub key_base64: Option<String>,
    pub value: Option<String>,
    pub value_base64: Option<String>,
    pub value_cut_from: Option<usize>,
}

impl StoredDeadLetter {
    /// The message's key, as its producer sent it.
    pub fn key(&self) -> Result<Option<Vec<u8>>, base64::DecodeError> {
        let encoded = self.data.key_base64.as_ref();
        encoded.map(|key| BASE64_STANDARD.decode(key)).transpose()
    }

    /// The message's value, as its producer sent it.
    pub fn value(&self) -> Result<Option<Vec<u8>>, base64::DecodeError> {
        match (&self.data.value, &self.data.value_base64) {
            (Some(text), _) => Ok(Some(text.clone().into_bytes())),
            (None, encoded) => encoded
                .as_ref()
                .map(|value| BASE64_STANDARD.decode(value))
                .transpose(),
        }
    }
}
