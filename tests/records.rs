//! Records and dead letters in real places: every sink against the real protocol on loopback.
//!
//! Blob and table run against Azurite when `LAPWING_AZURITE` names its blob endpoint.

use std::sync::Arc;

use lapwing::record::file::FileSink;
use lapwing::record::{Data, DeadLetterData, Event, Place, RecordId, Stream};
use lapwing::series::Timestamp;

#[path = "records/azurite.rs"]
mod azurite;
#[path = "records/blob.rs"]
mod blob;
#[path = "records/deadletters.rs"]
mod deadletters;
#[path = "records/kafka.rs"]
mod kafka;
#[path = "records/once.rs"]
mod once;
#[path = "records/webhook.rs"]
mod webhook;

/// What a test wants to vary of a dead letter of the topic `metrics`.
struct Shape<'a> {
    partition: i32,
    epoch: u32,
    offset: i64,
    series: Option<&'a str>,
    value: &'a str,
    reason: &'static str,
    broker_time_ms: i64,
}

impl Default for Shape<'_> {
    fn default() -> Self {
        Self {
            partition: 3,
            epoch: 0,
            offset: 0,
            series: Some("host/cpu #1"),
            value: "{}",
            reason: "late",
            broker_time_ms: 1_787_312_281_123, // 2026-08-21T11:38:01.123Z
        }
    }
}

impl Shape<'_> {
    fn event(self) -> Event {
        let topic: Arc<str> = Arc::from("metrics");
        let series: Option<Arc<str>> = self.series.map(Arc::from);
        let id = RecordId {
            topic: Arc::clone(&topic),
            epoch: self.epoch,
            partition: self.partition,
            offset: self.offset,
        };
        let data = DeadLetterData {
            reason: self.reason,
            detail: "it is older than the newest point".to_owned(),
            series: series.clone(),
            place: Place {
                topic,
                partition: self.partition,
                offset: self.offset,
                epoch: self.epoch,
            },
            key_base64: Some("a2V5".to_owned()),
            value: Some(self.value.to_owned()),
            value_base64: None,
            value_cut_from: None,
            broker_time_ms: Some(self.broker_time_ms),
        };
        Event::new(
            Stream::DeadLetters,
            id,
            Some(Timestamp::parse("2014-03-01 17:36:00").unwrap()),
            series,
            Some(self.broker_time_ms),
            Data::DeadLetter(Box::new(data)),
        )
    }
}

/// A dead letter of partition 3.
fn dead_letter(offset: i64, value: &str) -> Event {
    Shape {
        offset,
        value,
        ..Shape::default()
    }
    .event()
}

fn dead_letters(offsets: impl IntoIterator<Item = i64>) -> Vec<Event> {
    offsets
        .into_iter()
        .map(|offset| dead_letter(offset, "{}"))
        .collect()
}

#[tokio::test]
async fn a_folder_has_every_event_once() {
    let folder = tempfile::tempdir().unwrap();
    once::every_event_is_there_once(&|| Box::new(FileSink::new(folder.path()))).await;
}
