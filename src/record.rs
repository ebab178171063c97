//! What leaves Lapwing: anomalies, dead letters and (where asked for) every verdict, as CloudEvents 1.0,
//! and the places that take them.
//!
//! An event is a function of the message it comes from: it holds no clock and no chance, so that one
//! that is written again after a crash is the same event, under the same `source` and `id`.

pub mod archive;
pub mod blob;
pub mod file;
pub mod kafka;
mod lines;
pub mod places;
pub mod python;
pub mod table;
pub mod webhook;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::series::Timestamp;
use crate::store::azure::without_signatures;
use crate::telemetry;

/// Bytes of its message that a cut dead letter keeps; a multiple of four.
const CUT_TO: usize = 16 * 1024;

/// The last millisecond of the year 9999, since 1970.
const LAST_MS: i64 = 253_402_300_799_999;

/// The streams of events; each goes to places of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Points judged anomalous.
    Anomalies,
    /// Messages and points that no window kept, with the reason.
    DeadLetters,
    /// Every judged point; off unless a place is set.
    Verdicts,
}

impl Stream {
    /// The stream's name in paths, tables and CloudEvents sources.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anomalies => "anomalies",
            Self::DeadLetters => "dead-letters",
            Self::Verdicts => "verdicts",
        }
    }

    const fn event_type(self) -> &'static str {
        match self {
            Self::Anomalies => "lapwing.anomaly.v1",
            Self::DeadLetters => "lapwing.dead-letter.v1",
            Self::Verdicts => "lapwing.verdict.v1",
        }
    }
}

/// Identity of an event: the message it comes from. `epoch` counts how often the partition began anew
/// (its topic was made again), because offsets then repeat.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordId {
    /// Topic of the message.
    pub topic: Arc<str>,
    /// Epoch of the partition, from 0.
    pub epoch: u32,
    /// Partition of the message.
    pub partition: i32,
    /// Offset of the message.
    pub offset: i64,
}

impl RecordId {
    /// Order of events of one partition.
    pub fn position(&self) -> (u32, i64) {
        (self.epoch, self.offset)
    }

    /// The position that an id's text ends in.
    pub fn position_of(id: &str) -> Option<(u32, i64)> {
        let mut parts = id.rsplitn(4, '/');
        let offset = parts.next()?.parse().ok()?;
        let _partition = parts.next()?;
        Some((parts.next()?.parse().ok()?, offset))
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}/{}",
            self.topic, self.epoch, self.partition, self.offset
        )
    }
}

impl Serialize for RecordId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A CloudEvent 1.0 in JSON's structured form.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    specversion: &'static str,
    #[serde(rename = "type")]
    event_type: &'static str,
    source: String,
    /// The message it comes from; unique within `source`.
    pub id: RecordId,
    /// When the point was measured; for a dead letter without one, when the broker took the message.
    #[serde(serialize_with = "as_text", skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// Name of the series, where it is known.
    #[serde(
        serialize_with = "shared_name",
        skip_serializing_if = "Option::is_none"
    )]
    pub subject: Option<Arc<str>>,
    datacontenttype: &'static str,
    /// The content.
    pub data: Data,
    /// Stream it belongs to.
    #[serde(skip)]
    pub stream: Stream,
    /// When the broker took the message, which decides the day an event is filed under.
    #[serde(skip)]
    pub broker_time_ms: Option<i64>,
}

impl Event {
    /// An event of `stream` about the message `id`.
    pub fn new(
        stream: Stream,
        id: RecordId,
        time: Option<Timestamp>,
        subject: Option<Arc<str>>,
        broker_time_ms: Option<i64>,
        data: Data,
    ) -> Self {
        Self {
            specversion: "1.0",
            event_type: stream.event_type(),
            source: format!("/lapwing/{}", stream.name()),
            id,
            time,
            subject,
            datacontenttype: "application/json",
            data,
            stream,
            broker_time_ms,
        }
    }

    /// CloudEvents `type`.
    pub fn event_type(&self) -> &'static str {
        self.event_type
    }

    /// CloudEvents `source`.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The time that an event is filed under: the broker's, else the point's, because both are the
    /// same when the message is delivered again. A producer can choose the broker's; one that lies
    /// before 1970 or after 9999 is none.
    pub fn filed_at(&self) -> Option<Timestamp> {
        let broker = self
            .broker_time_ms
            .filter(|ms| (0..=LAST_MS).contains(ms))
            .map(|ms| Timestamp::from_micros(ms * 1000));
        broker.or(self.time)
    }

    /// The day of [`Self::filed_at`] in UTC, `2026-08-21`; `undated` without one.
    pub fn day(&self) -> String {
        self.filed_at().map_or_else(
            || "undated".to_owned(),
            |time| time.to_string()[..10].to_owned(),
        )
    }

    /// A dead letter without the bulk of its message, for a place that takes no event of its size;
    /// `None` where there is nothing to leave out. The message itself is still in its topic.
    pub fn cut(&self) -> Option<Self> {
        let Data::DeadLetter(whole) = &self.data else {
            return None;
        };
        let text = whole.value.as_ref().or(whole.value_base64.as_ref())?;
        if text.len() <= CUT_TO {
            return None;
        }
        let mut data = whole.clone();
        data.value_cut_from = Some(text.len());
        // Base64 is cut where a group of four ends, text where a character does.
        let end = text.floor_char_boundary(CUT_TO);
        for text in [&mut data.value, &mut data.value_base64]
            .into_iter()
            .flatten()
        {
            text.truncate(end);
        }
        Some(Self {
            data: Data::DeadLetter(data),
            ..self.clone()
        })
    }

    /// The structured JSON form, on one line.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// Content of an event.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Data {
    /// Of an anomaly or any other verdict.
    Verdict(Box<VerdictData>),
    /// Of a dead letter.
    DeadLetter(Box<DeadLetterData>),
}

/// Where in Kafka the message stands.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// Topic.
    #[serde(serialize_with = "shared")]
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Epoch of the partition.
    pub epoch: u32,
}

/// A judged point; expected value and margins are in the unit of the series.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerdictData {
    /// Name of the series.
    #[serde(serialize_with = "shared")]
    pub series: Arc<str>,
    /// When the point was measured; after snapping, the slot it went to.
    #[serde(serialize_with = "as_text")]
    pub timestamp: Option<Timestamp>,
    /// What was measured.
    pub value: f64,
    /// The verdict, or why there is none.
    #[serde(flatten)]
    pub verdict: VerdictFields,
    /// How it was judged.
    #[serde(serialize_with = "shared")]
    pub detector: Arc<DetectorData>,
    /// Where the message stands.
    #[serde(flatten)]
    pub place: Place,
    /// The row as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<Box<RawValue>>,
}

/// What the detector said.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum VerdictFields {
    /// It judged.
    #[serde(rename_all = "camelCase")]
    Judged {
        /// Flagged, on either side.
        is_anomaly: bool,
        /// Flagged above the expected value.
        is_positive_anomaly: bool,
        /// Flagged below the expected value.
        is_negative_anomaly: bool,
        /// What the value should have been.
        expected_value: f64,
        /// Upper boundary = expected value + (100 - margin scale) × upper margin.
        upper_margin: f64,
        /// Lower boundary = expected value - (100 - margin scale) × lower margin.
        lower_margin: f64,
        /// How far off, 0 to 1.
        severity: f64,
        /// Points per season; 0 for none.
        period: u32,
        /// Which of the detector's models answered.
        model: &'static str,
    },
    /// The detector refused the window.
    #[serde(rename_all = "camelCase")]
    NotJudged {
        /// The detector's error code.
        not_judged: &'static str,
        /// Its message.
        reason: String,
    },
}

/// The options that a verdict was made with.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DetectorData {
    /// Version of Lapwing.
    pub version: &'static str,
    /// Unit of the grid.
    pub granularity: &'static str,
    /// Granules between points.
    pub custom_interval: u32,
    /// 0 to 100.
    pub sensitivity: u8,
    /// Cap on the flagged share of a window.
    pub max_anomaly_ratio: f64,
    /// Margin profile.
    pub boundary_version: &'static str,
    /// Points of a full window.
    pub window_points: usize,
}

/// A message that no window kept, whole.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterData {
    /// The reason in one word: `late`, `repeated`, `off-grid`, `bad-value`, …
    pub reason: &'static str,
    /// The reason for a person.
    pub detail: String,
    /// Name of the series, where it is known.
    #[serde(
        serialize_with = "shared_name",
        skip_serializing_if = "Option::is_none"
    )]
    pub series: Option<Arc<str>>,
    /// Where the message stands.
    #[serde(flatten)]
    pub place: Place,
    /// The message key, base64; absent for a null key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The message as text, where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The message's bytes, base64, where it is no text; absent for a null value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// Bytes that `value` or `valueBase64` has when it is whole; absent where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_cut_from: Option<usize>,
    /// When the broker took it, milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_time_ms: Option<i64>,
}

fn as_text<S: Serializer>(timestamp: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match timestamp {
        Some(timestamp) => serializer.collect_str(timestamp),
        None => serializer.serialize_none(),
    }
}

fn shared<T: Serialize + ?Sized, S: Serializer>(
    value: &Arc<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.as_ref().serialize(serializer)
}

fn shared_name<S: Serializer>(name: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    name.as_deref().serialize(serializer)
}

/// A place that takes events.
#[async_trait]
pub trait Sink: fmt::Debug + Send + Sync {
    /// Writes events of one stream and one topic-partition, given in ascending order of position, and
    /// returns once they are durable. Events that are there already are left out, so that a batch may
    /// come again after a crash. Gives the number written.
    async fn write(&self, events: &[Event]) -> Result<usize, SinkError>;

    /// Where the events go, for people: a path, a container, a topic.
    fn place(&self) -> String;
}

/// Why events could not be written. Nothing may be assumed about which of them were: write them again.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The place does not answer; trying again helps.
    #[error("cannot write {stream} to {place}")]
    Unavailable {
        /// The stream's name.
        stream: &'static str,
        /// Where they should have gone.
        place: String,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The place refuses them; somebody has to change something.
    #[error("{place} refuses {stream}; check its settings and permissions")]
    Refused {
        /// The stream's name.
        stream: &'static str,
        /// Where they should have gone.
        place: String,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SinkError {
    /// An answer of Azure that says "not you" or "not so" needs somebody; anything else may pass.
    fn of_azure(stream: &'static str, place: String, error: azure_core::Error) -> Self {
        let status = error.http_status().map_or(0, u16::from);
        let source = without_signatures(&telemetry::one_line(&error)).into();
        if matches!(error.kind(), ErrorKind::Credential) {
            return Self::Refused {
                stream,
                place,
                source,
            };
        }
        Self::of_status(stream, place, status, source)
    }

    fn of_status(
        stream: &'static str,
        place: String,
        status: u16,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> Self {
        // 404 is a container being deleted, 408 and 429 are haste, 409 and 412 are other writers.
        match status {
            400..=499 if !matches!(status, 404 | 408 | 409 | 412 | 429) => Self::Refused {
                stream,
                place,
                source,
            },
            _ => Self::Unavailable {
                stream,
                place,
                source,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_epoch_and_offset_even_when_the_topic_has_slashes() {
        let id = RecordId {
            topic: Arc::from("a/b"),
            epoch: 2,
            partition: 3,
            offset: 41,
        };
        assert_eq!(id.to_string(), "a/b/2/3/41");
        assert_eq!(RecordId::position_of("a/b/2/3/41"), Some(id.position()));
        assert_eq!(RecordId::position_of("41"), None);
    }
}
