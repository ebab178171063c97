//! What the tests of the pipeline and the handler share: messages, and what was recorded of them.

#![allow(dead_code, reason = "each test file uses its part of this")]

use std::path::Path;
use std::sync::Arc;

use lapwing::message::Message;
use serde_json::Value;

pub(crate) const TOPIC: &str = "aws-cloudwatch-network";

/// 2026-08-21T14:58:01Z, when the broker took the message with offset 0; the others follow by seconds.
pub(crate) const BROKER_START_MS: i64 = 1_787_324_281_000;

/// A message of partition 0 with a null key.
pub(crate) fn message(offset: i64, value: &str) -> Message {
    Message {
        topic: Arc::from(TOPIC),
        partition: 0,
        offset,
        broker_time_ms: Some(BROKER_START_MS + offset * 1000),
        key: None,
        value: Some(value.as_bytes().to_vec()),
    }
}

/// The tutorial's row: slot `slot` of a five-minute grid from 2014-03-01T00:00:00Z.
pub(crate) fn row(slot: i64, value: f64) -> String {
    row_at(slot * 300, value)
}

/// A row so many seconds after 2014-03-01T00:00:00Z.
pub(crate) fn row_at(seconds: i64, value: f64) -> String {
    let start = lapwing::series::Timestamp::parse("2014-03-01")
        .unwrap()
        .micros();
    let at = lapwing::series::Timestamp::from_micros(start + seconds * 1_000_000);
    let text = at.to_string().replace('T', " ").replace('Z', "");
    format!(r#"{{"timestamp": "{text}", "value": "{value:?}"}}"#)
}

/// A quiet series with a ripple, and a spike wherever `spikes` says.
pub(crate) fn value(slot: i64, spikes: &[i64]) -> f64 {
    let ripple = ((slot * 37) % 23) as f64 / 10.0;
    if spikes.contains(&slot) {
        500.0 + ripple
    } else {
        40.0 + ripple
    }
}

/// Every event of a stream below `folder`, in the order of topics, partitions, days and lines.
pub(crate) fn events(folder: &Path, stream: &str) -> Vec<Value> {
    let mut files = Vec::new();
    let mut folders = vec![folder.join(stream)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path)
            } else {
                files.push(path)
            }
        }
    }
    files.sort();
    files
        .iter()
        .flat_map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect::<Vec<Value>>()
        })
        .collect()
}

/// The offsets of events, in their order.
pub(crate) fn offsets(events: &[Value]) -> Vec<i64> {
    events
        .iter()
        .map(|event| event["data"]["offset"].as_i64().unwrap())
        .collect()
}

/// The reasons of dead letters by offset.
pub(crate) fn reasons(events: &[Value]) -> Vec<(i64, String)> {
    events
        .iter()
        .map(|event| {
            let data = &event["data"];
            (
                data["offset"].as_i64().unwrap(),
                data["reason"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}
