//! Verdicts and dead letters as the events that are recorded of them.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use crate::detector::{DetectError, LastVerdict};
use crate::message::Message;
use crate::record::{
    Data, DeadLetterData, DetectorData, Event, Place, RecordId, Stream, VerdictData, VerdictFields,
};
use crate::series::{Point, Timestamp};

/// The event about the verdict on `point`, which `message` brought.
pub(super) fn verdict(
    stream: Stream,
    message: &Message,
    epoch: u32,
    series: &Arc<str>,
    point: Point,
    verdict: &Result<LastVerdict, DetectError>,
    detector: &Arc<DetectorData>,
) -> Event {
    let fields = match verdict {
        Ok(verdict) => VerdictFields::Judged {
            is_anomaly: verdict.is_anomaly,
            is_positive_anomaly: verdict.is_positive_anomaly,
            is_negative_anomaly: verdict.is_negative_anomaly,
            expected_value: verdict.expected_value,
            upper_margin: verdict.upper_margin,
            lower_margin: verdict.lower_margin,
            severity: verdict.severity,
            period: verdict.period,
            model: verdict.model.as_str(),
        },
        Err(error) => VerdictFields::NotJudged {
            not_judged: error.code.as_str(),
            reason: error.message.clone(),
        },
    };
    let data = VerdictData {
        series: Arc::clone(series),
        timestamp: Some(point.timestamp),
        value: point.value,
        verdict: fields,
        detector: Arc::clone(detector),
        place: place(message, epoch),
        row: message.value.as_deref().and_then(row),
    };
    event(
        stream,
        message,
        epoch,
        Some(point.timestamp),
        Some(Arc::clone(series)),
        Data::Verdict(Box::new(data)),
    )
}

/// The event about a message or point that no window kept.
pub(super) fn dead_letter(
    message: &Message,
    epoch: u32,
    series: Option<Arc<str>>,
    time: Option<Timestamp>,
    reason: &'static str,
    detail: String,
) -> Event {
    let (value, value_base64) = match message.value.as_deref() {
        None => (None, None),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(bytes))),
        },
    };
    let data = DeadLetterData {
        reason,
        detail,
        series: series.clone(),
        place: place(message, epoch),
        key_base64: message.key.as_deref().map(|key| STANDARD.encode(key)),
        value,
        value_base64,
        value_cut_from: None,
        broker_time_ms: message.broker_time_ms,
    };
    event(
        Stream::DeadLetters,
        message,
        epoch,
        time,
        series,
        Data::DeadLetter(Box::new(data)),
    )
}

fn event(
    stream: Stream,
    message: &Message,
    epoch: u32,
    time: Option<Timestamp>,
    subject: Option<Arc<str>>,
    data: Data,
) -> Event {
    let id = RecordId {
        topic: Arc::clone(&message.topic),
        epoch,
        partition: message.partition,
        offset: message.offset,
    };
    // A dead letter without a point of its own is dated by the broker.
    let time = time.or_else(|| {
        message
            .broker_time_ms
            .map(|ms| Timestamp::from_micros(ms.saturating_mul(1000)))
    });
    Event::new(stream, id, time, subject, message.broker_time_ms, data)
}

fn place(message: &Message, epoch: u32) -> Place {
    Place {
        topic: Arc::clone(&message.topic),
        partition: message.partition,
        offset: message.offset,
        epoch,
    }
}

/// The row as it was sent, on one line: a line break in JSON can only stand between tokens.
fn row(bytes: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(bytes)
        .ok()?
        .trim_start_matches('\u{feff}');
    RawValue::from_string(text.trim().replace(['\n', '\r'], " ")).ok()
}
