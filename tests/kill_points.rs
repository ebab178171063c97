//! The handler is killed at every named point of a batch, started again and given the batch again, with
//! other bounds, as Kafka does it: every verdict is there once, and the windows are as if nothing had
//! happened.

#[path = "support/process.rs"]
mod process;
mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use process::{Handler, many_binary};
use serde_json::Value;
use support::{BROKER_START_MS, TOPIC, events, row, value};

const SPIKES: [i64; 3] = [30, 45, 70];

fn settings(folder: &Path) -> Vec<(String, String)> {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut settings = vec![
        ("Window__Points".to_owned(), "24".to_owned()),
        ("Store__Kind".to_owned(), "file".to_owned()),
        ("Store__Path".to_owned(), path("state")),
    ];
    for stream in ["Records", "DeadLetters", "Verdicts"] {
        settings.push((format!("{stream}__Kind"), "file".to_owned()));
        settings.push((format!("{stream}__Path"), path("records")));
    }
    settings
}

async fn start(folder: &Path, kill_at: Option<&str>) -> Handler {
    let mut settings = settings(folder);
    settings.extend(kill_at.map(|name| ("LAPWING_KILL_AT".to_owned(), name.to_owned())));
    let borrowed: Vec<(&str, &str)> = settings
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    Handler::start(&borrowed).await
}

/// Messages with a spike here and there, and every seventh no row at all.
fn batch(offsets: std::ops::Range<i64>) -> Value {
    let messages: Vec<(i64, Vec<u8>)> = offsets
        .map(|offset| {
            let text = if offset % 7 == 3 {
                "no row".to_owned()
            } else {
                row(offset, value(offset, &SPIKES))
            };
            (offset, text.into_bytes())
        })
        .collect();
    many_binary(TOPIC, 0, BROKER_START_MS, &messages)
}

async fn ok(handler: &Handler, offsets: std::ops::Range<i64>) {
    let (status, body) = handler.invoke("detect", &batch(offsets)).await.unwrap();
    assert_eq!(status, 200, "{body}");
}

fn streams(folder: &Path) -> [Vec<Value>; 3] {
    ["anomalies", "dead-letters", "verdicts"].map(|stream| events(&folder.join("records"), stream))
}

/// What a run without any kill records.
async fn undisturbed() -> [Vec<Value>; 3] {
    let folder = tempfile::tempdir().unwrap();
    let handler = start(folder.path(), None).await;
    ok(&handler, 0..80).await;
    ok(&handler, 80..120).await;
    streams(folder.path())
}

/// Kills at `point` while the batch after `absorbed` messages is worked on.
async fn killed_at(point: &str, absorbed: i64, wanted: &[Vec<Value>; 3]) {
    let folder = tempfile::tempdir().unwrap();
    if absorbed > 0 {
        let handler = start(folder.path(), None).await;
        ok(&handler, 0..absorbed).await;
    }
    let mut handler = start(folder.path(), Some(point)).await;
    let answer = handler
        .invoke("detect", &batch(absorbed..absorbed + 20))
        .await;
    assert!(answer.is_err(), "{point} was not passed: {answer:?}");
    assert_eq!(handler.ended().await.signal(), Some(9), "{point}");

    let handler = start(folder.path(), None).await;
    ok(&handler, absorbed..80).await;
    ok(&handler, 80..120).await;
    let found = streams(folder.path());
    assert_eq!(&found, wanted, "after a kill at {point}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_point_loses_nothing_and_repeats_nothing() {
    let wanted = undisturbed().await;
    assert!(wanted.iter().all(|stream| !stream.is_empty()));
    for point in [
        "judge::before-record",
        "record::file::before-write",
        "judge::between-record-and-save",
        "store::file::append::before-write",
        "store::file::append::after-write",
        "store::file::append::after-sync",
        "judge::before-answer",
    ] {
        killed_at(point, 40, &wanted).await;
    }
    // The first save of a partition writes a snapshot.
    for point in [
        "store::file::replace::before-snapshot",
        "store::file::replace::after-snapshot",
        "store::file::replace::before-rename",
        "store::file::replace::after-rename",
        "store::file::replace::after-cleaning",
    ] {
        killed_at(point, 0, &wanted).await;
    }
}
