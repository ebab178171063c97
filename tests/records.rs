//! Records and dead letters in real places: every sink against the real protocol on loopback.
//!
//! Blob and table run against Azurite when `LAPWING_AZURITE` names its blob endpoint.

use std::sync::Arc;

use lapwing::record::{Data, DeadLetterData, Event, Place, RecordId, Stream};
use lapwing::series::Timestamp;

#[path = "records/kafka.rs"]
mod kafka;
#[path = "records/webhook.rs"]
mod webhook;

/// When the broker took every message here: 2026-08-21T11:38:01.123Z.
const BROKER_TIME_MS: i64 = 1_787_312_281_123;

/// A dead letter of partition 3 of the topic `metrics`.
fn dead_letter(offset: i64, value: &str) -> Event {
    let topic: Arc<str> = Arc::from("metrics");
    let series = Some(Arc::from("host/cpu #1"));
    let id = RecordId {
        topic: Arc::clone(&topic),
        epoch: 0,
        partition: 3,
        offset,
    };
    let data = DeadLetterData {
        reason: "late",
        detail: "it is older than the newest point".to_owned(),
        series: series.clone(),
        place: Place {
            topic,
            partition: 3,
            offset,
            epoch: 0,
        },
        key_base64: Some("a2V5".to_owned()),
        value: Some(value.to_owned()),
        value_base64: None,
        value_cut_from: None,
        broker_time_ms: Some(BROKER_TIME_MS),
    };
    Event::new(
        Stream::DeadLetters,
        id,
        Some(Timestamp::parse("2014-03-01 17:36:00").unwrap()),
        series,
        Some(BROKER_TIME_MS),
        Data::DeadLetter(Box::new(data)),
    )
}

fn dead_letters(offsets: impl IntoIterator<Item = i64>) -> Vec<Event> {
    offsets
        .into_iter()
        .map(|offset| dead_letter(offset, "{}"))
        .collect()
}
