//! `lapwing deadletters` on a folder of dead letters, and a mock cluster that they are sent to again.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use lapwing::record::Sink;
use lapwing::record::file::FileSink;
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;

use super::Shape;

/// A folder with three late letters, a repeated one, and a line that is none.
async fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink::new(folder.path());
    let letter = |offset, value| Shape {
        partition: 1,
        offset,
        value,
        ..Shape::default()
    };
    let events = [
        letter(3, "{\"value\": 1}").event(),
        Shape {
            reason: "repeated",
            ..letter(5, "{\"value\": 2}")
        }
        .event(),
        letter(8, "{\"value\": 3}").event(),
        letter(9, "{\"value\": 4}").event(),
    ];
    sink.write(&events).await.unwrap();
    folder
}

async fn run(folder: &Path, brokers: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lapwing"));
    command
        .arg("deadletters")
        .args(args)
        .env_clear()
        .env("DeadLetters__Path", folder)
        .env("KafkaBrokers", brokers);
    // The mock cluster answers from this process.
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs a command that must succeed, and gives what it prints.
async fn printed(folder: &Path, brokers: &str, args: &[&str]) -> String {
    let output = run(folder, brokers, args).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

const NOWHERE: &str = "127.0.0.1:1";

#[tokio::test]
async fn letters_are_counted_by_reason() {
    let folder = folder().await;
    let list = printed(folder.path(), NOWHERE, &["list"]).await;
    let rows: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[1..],
        [
            vec!["metrics", "1", "2026-08-21", "late", "3"],
            vec!["metrics", "1", "2026-08-21", "repeated", "1"],
            vec!["4", "dead", "letters"],
        ]
    );
    let none = printed(folder.path(), NOWHERE, &["list", "--day", "2026-08-22"]).await;
    assert!(none.ends_with("\n0 dead letters\n"), "{none}");
}

#[tokio::test]
async fn a_damaged_line_is_told_and_passed_over() {
    let folder = folder().await;
    let file = folder
        .path()
        .join("dead-letters/metrics/1/2026-08-21.jsonl");
    let damaged = format!("not json\n{}", std::fs::read_to_string(&file).unwrap());
    std::fs::write(&file, damaged).unwrap();
    let output = run(folder.path(), NOWHERE, &["list"]).await;
    assert!(output.status.success());
    assert!(text(&output.stdout).ends_with("4 dead letters\n"));
    assert!(text(&output.stderr).contains("2026-08-21.jsonl:1: no dead letter"));
}

#[tokio::test]
async fn one_letter_is_shown_whole() {
    let folder = folder().await;
    let shown = printed(folder.path(), NOWHERE, &["show", "metrics/0/1/5"]).await;
    let event: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(event["data"]["reason"], "repeated");
    assert_eq!(event["data"]["value"], "{\"value\": 2}");
}

#[tokio::test]
async fn letters_go_to_their_partition_again_with_their_key() {
    let folder = folder().await;
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("metrics", 3, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let replay = ["replay", "--reason", "late", "--after", "metrics/0/1/3"];
    assert_eq!(printed(folder.path(), &brokers, &replay).await, "2 sent\n");
    let edited = ["replay", "metrics/0/1/5", "--value", "edited"];
    assert_eq!(printed(folder.path(), &brokers, &edited).await, "1 sent\n");

    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["metrics"]).unwrap();
    for (id, value) in [
        ("metrics/0/1/8", "{\"value\": 3}"),
        ("metrics/0/1/9", "{\"value\": 4}"),
        ("metrics/0/1/5", "edited"),
    ] {
        let message = tokio::time::timeout(Duration::from_secs(30), consumer.recv())
            .await
            .expect("the letters are in the topic")
            .unwrap();
        assert_eq!(message.partition(), 1);
        assert_eq!(message.key(), Some(&b"key"[..]));
        assert_eq!(message.payload(), Some(value.as_bytes()));
        let header = message.headers().unwrap().get(0);
        assert_eq!(header.key, "lapwing-replayed");
        assert_eq!(header.value, Some(id.as_bytes()));
    }
}

#[tokio::test]
async fn a_dry_run_sends_nothing() {
    let folder = folder().await;
    let replay = ["replay", "--all", "--dry-run"];
    let told = printed(folder.path(), NOWHERE, &replay).await;
    assert!(
        told.starts_with("metrics/0/1/3  late  12 bytes\n"),
        "{told}"
    );
    assert!(told.ends_with("\n4 would be sent\n"), "{told}");
}

#[tokio::test]
async fn a_mistake_is_one_line_with_a_remedy() {
    let folder = folder().await;
    let path = folder.path();
    let missing = path.join("missing");
    for (root, args, told) in [
        (
            path,
            &["replay"][..],
            "nothing is chosen: give ids, a filter, or --all",
        ),
        (
            path,
            &["show", "metrics/0/1/4"],
            "`lapwing deadletters list` says what is there",
        ),
        (
            path,
            &["show", "metrics"],
            "expected topic/epoch/partition/offset",
        ),
        (
            path,
            &["replay", "metrics/0/1/4", "--dry-run"],
            "not found: metrics/0/1/4",
        ),
        (
            path,
            &["replay", "--all", "--dry-run", "--after", "metrics/0/1/4"],
            "no dead letter metrics/0/1/4",
        ),
        (&missing, &["list"], "check that it exists and may be read"),
    ] {
        let output = run(root, NOWHERE, args).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains(told) && error.lines().count() == 1,
            "{error}"
        );
    }
}
