//! The running handler against every payload form of the Functions host, built here by the host's encoding
//! rule around rows of the sample file: answers, records and stored windows.

#[path = "support/process.rs"]
mod process;
mod support;

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lapwing::config::Settings;
use lapwing::window::ShardId;
use process::{Handler, broker_time, many_binary, quoted};
use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use serde_json::{Value, json};
use support::{BROKER_START_MS, TOPIC, events, offsets};

const POINTS: usize = 24;

/// The first rows of the sample file as messages.
fn sample_rows(count: usize) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample_network_data.csv");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .skip(1)
        .take(count)
        .map(|line| {
            let (timestamp, value) = line.split_once(',').unwrap();
            json!({"timestamp": timestamp, "value": value}).to_string()
        })
        .collect()
}

struct App {
    folder: tempfile::TempDir,
    handler: Handler,
}

impl App {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let borrowed: Vec<(&str, &str)> = settings
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        let handler = Handler::start(&borrowed).await;
        Self { folder, handler }
    }

    fn records(&self) -> PathBuf {
        self.folder.path().join("records")
    }

    /// The stored window of a series of partition `partition`: timestamps and values.
    async fn window(&self, partition: i32, series: &str) -> Vec<(String, f64)> {
        let settings = Settings::from_pairs(settings(self.folder.path()));
        let store = lapwing::store::from_settings(&settings).unwrap();
        let id = ShardId {
            topic: TOPIC.to_owned(),
            partition,
        };
        let reading = lapwing::store::read(&*store, &id, POINTS)
            .await
            .unwrap()
            .expect("the shard is stored");
        let window = reading.shard.window(series).expect("the series is kept");
        window
            .iter()
            .map(|point| (point.timestamp.to_string(), point.value))
            .collect()
    }
}

fn settings(folder: &Path) -> Vec<(String, String)> {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut settings = vec![
        ("Window__Points".to_owned(), POINTS.to_string()),
        ("Store__Kind".to_owned(), "file".to_owned()),
        ("Store__Path".to_owned(), path("state")),
    ];
    for stream in ["Records", "DeadLetters", "Verdicts"] {
        settings.push((format!("{stream}__Kind"), "file".to_owned()));
        settings.push((format!("{stream}__Path"), path("records")));
    }
    settings
}

/// What a test expects of the rows that it sent, whatever the form: a window of the newest, a verdict for
/// each from the one that filled it on.
async fn check(app: &App, rows: &[String], series: &str) {
    let window = app.window(0, series).await;
    let expected: Vec<(String, f64)> = rows[rows.len() - POINTS..]
        .iter()
        .map(|row| {
            let row: Value = serde_json::from_str(row).unwrap();
            let timestamp = row["timestamp"].as_str().unwrap().replace(' ', "T") + "Z";
            (timestamp, row["value"].as_str().unwrap().parse().unwrap())
        })
        .collect();
    assert_eq!(window, expected);
    let verdicts = events(&app.records(), "verdicts");
    assert_eq!(
        offsets(&verdicts),
        (POINTS as i64 - 1..rows.len() as i64).collect::<Vec<_>>()
    );
    assert!(verdicts.iter().all(|verdict| verdict["subject"] == series));
}

fn assert_done(answer: &(u16, Value)) {
    let (status, body) = answer;
    assert_eq!(*status, 200, "{body}");
    assert!(
        body["Outputs"].is_object() && body["Logs"].is_array() && body["ReturnValue"].is_null(),
        "{body}"
    );
}

fn envelope(offset: i64, key: Option<&str>, value: Option<&str>) -> String {
    json!({
        "Offset": offset, "Partition": 0, "Topic": TOPIC, "Timestamp": broker_time(BROKER_START_MS + offset * 1000),
        "Value": value, "LeaderEpoch": 0, "IsPartitionEOF": false, "Key": key,
        "Headers": [{"Key": "trace", "Value": "YWJj"}],
    })
    .to_string()
}

fn sys() -> Value {
    json!({"MethodName": "detect", "UtcNow": "2026-08-21T14:58:02.4471032Z",
           "RandGuid": "4f0e3c52-3b7e-4b55-9c06-0f8d7f3f1f10"})
}

#[tokio::test(flavor = "multi_thread")]
async fn many_binary_is_judged() {
    let (app, rows) = (App::start().await, sample_rows(30));
    let messages: Vec<(i64, Vec<u8>)> = (0..)
        .zip(rows.iter().map(|row| row.clone().into_bytes()))
        .collect();
    let answer = app
        .handler
        .invoke("detect", &many_binary(TOPIC, 0, BROKER_START_MS, &messages))
        .await
        .unwrap();
    assert_done(&answer);
    assert_eq!(
        answer.1["Logs"][0].as_str().unwrap().split(',').next(),
        Some("30 messages: 30 kept")
    );
    check(&app, &rows, TOPIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_string_is_judged() {
    let (app, rows) = (App::start().await, sample_rows(30));
    let envelopes: Vec<String> = (0..)
        .zip(&rows)
        .map(|(offset, row)| envelope(offset, Some("host-1"), Some(row)))
        .collect();
    let column = |value: Value| quoted(vec![value; rows.len()]);
    let body = json!({
        "Data": {"evts": quoted(envelopes)},
        "Metadata": {"PartitionArray": column(json!(0)), "TopicArray": column(json!(TOPIC)), "sys": sys()},
    });
    assert_done(&app.handler.invoke("detect", &body).await.unwrap());
    check(&app, &rows, "host-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_string_is_judged() {
    let (app, rows) = (App::start().await, sample_rows(26));
    for (offset, row) in (0..).zip(&rows) {
        let body = json!({
            "Data": {"evt": quoted(envelope(offset, Some("host-1"), Some(row)))},
            "Metadata": {
                "Key": quoted("host-1"), "Partition": quoted("0"), "Topic": quoted(TOPIC), "Offset": quoted(offset.to_string()),
                "Timestamp": quoted("08/21/2026 14:58:01"), "Value": quoted(row.clone()), "sys": sys(),
            },
        });
        assert_done(&app.handler.invoke("detect", &body).await.unwrap());
    }
    check(&app, &rows, "host-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_binary_is_judged_under_a_retry_policy() {
    let (app, rows) = (App::start().await, sample_rows(26));
    for (offset, row) in (0..).zip(&rows) {
        let body = json!({
            "Data": {"evt": STANDARD.encode(row)},
            "Metadata": {
                "Partition": "0", "Topic": quoted(TOPIC), "Offset": offset.to_string(),
                "Timestamp": "2026-08-21T14:58:01", "Headers": "[]", "sys": sys(),
                "RetryContext": {"RetryCount": 2, "MaxRetryCount": -1, "Exception": {"Message": "x"}, "Instance": null, "State": {}},
            },
        });
        assert_done(&app.handler.invoke("detect", &body).await.unwrap());
    }
    check(&app, &rows, TOPIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn null_values_and_json_strings_are_dead_letters_as_they_were_sent() {
    let app = App::start().await;
    let payload = r#""{\"timestamp\": \"2014-03-01\", \"value\": 1}""#;
    let envelopes = vec![
        envelope(0, None, None),
        envelope(1, None, Some(payload)),
        envelope(2, None, Some("{}")),
    ];
    let body = json!({"Data": {"evts": quoted(envelopes)}, "Metadata": {"sys": sys()}});
    assert_done(&app.handler.invoke("detect", &body).await.unwrap());
    let letters = events(&app.records(), "dead-letters");
    assert_eq!(
        support::reasons(&letters),
        [
            (0, "empty".to_owned()),
            (1, "not-json".to_owned()),
            (2, "bad-timestamp".to_owned())
        ]
    );
    // A message that is a JSON string is one: it was unquoted by the host's counts, not until it gave in.
    assert_eq!(letters[1]["data"]["value"], payload);
    assert_eq!(letters[0]["data"].get("value"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_the_host_never_sends_fails_and_says_so() {
    let mut app = App::start().await;
    for body in [
        json!({}),
        json!({"Data": {"evts": "[\"AQI=\"]"}, "Metadata": {}}),
        json!([1]),
        json!({"Data": {"evts": "["}}),
    ] {
        let (status, answer) = app.handler.invoke("detect", &body).await.unwrap();
        assert_eq!(status, 500, "{body}");
        assert!(
            answer["Logs"][0]
                .as_str()
                .unwrap()
                .starts_with("the invocation's "),
            "{answer}"
        );
    }
    assert!(app.handler.is_running());
    let (status, health) = app.handler.get("/health").await;
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!((status, &health["status"]), (503, &json!("failing")));
    assert!(
        health["functions"]["detect"]["reason"]
            .as_str()
            .unwrap()
            .starts_with("the invocation's ")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_needs_nothing_and_health_shows_everything_but_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let secret = "UseDevelopmentStorage=true";
    // A store that is not there and a setting that is nonsense: the handler is up all the same.
    let path = folder.path().join("a file");
    std::fs::write(&path, "").unwrap();
    let path = path.join("state").display().to_string();
    let handler = Handler::start(&[
        ("Store__Kind", "file"),
        ("Store__Path", &path),
        ("AzureWebJobsStorage", secret),
    ])
    .await;
    assert_eq!(handler.get("/").await.0, 200);
    let messages = [(0, sample_rows(1)[0].clone().into_bytes())];
    let body = many_binary(TOPIC, 0, BROKER_START_MS, &messages);
    let (status, answer) = handler.invoke("detect", &body).await.unwrap();
    assert_eq!(status, 500, "{answer}");
    let reason = answer["Logs"][0].as_str().unwrap().to_owned();
    assert!(reason.contains(&path) && !reason.contains('\n'), "{reason}");
    let (_, health) = handler.get("/health").await;
    assert!(!health.contains(secret), "{health}");
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!(health["functions"]["detect"]["reason"], reason);
    assert_eq!(health["settings"]["Window__Points"], "288");

    let nonsense = Handler::start(&[("Window__Points", "many")]).await;
    assert_eq!(nonsense.get("/").await.0, 200);
    let (status, answer) = nonsense.invoke("detect", &body).await.unwrap();
    assert_eq!(status, 500);
    assert!(
        answer["Logs"][0]
            .as_str()
            .unwrap()
            .starts_with("setting Window__Points is \"many\""),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_is_durable() {
    let (app, rows) = (App::start().await, sample_rows(30));
    let messages: Vec<(i64, Vec<u8>)> = (0..)
        .zip(rows.iter().map(|row| row.clone().into_bytes()))
        .collect();
    let body = many_binary(TOPIC, 0, BROKER_START_MS, &messages);
    app.handler.invoke("detect", &body).await.unwrap();
    app.handler.invoke("detect", &body).await.unwrap();
    let (status, text) = app.handler.get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "lapwing_points_total 30",
        "lapwing_no_ops_total 30",
        "lapwing_invocations_total{function=\"detect\",outcome=\"ok\"} 2",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_invoke() {
    let app = App::start().await;
    let (status, _) = app.handler.get("/nothing").await;
    assert_eq!(status, 405);
    let (status, answer) = app.handler.invoke("nothing", &json!({})).await.unwrap();
    assert_eq!(status, 404, "{answer}");
    // The host names each invocation; who does not is not the host.
    let (status, answer) = app.handler.post("detect", &json!({}), None).await.unwrap();
    assert_eq!(status, 403, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_its_invocation_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.push((
        "LAPWING_PANIC_AT".to_owned(),
        "judge::before-record".to_owned(),
    ));
    let borrowed: Vec<(&str, &str)> = settings
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    let mut handler = Handler::start(&borrowed).await;
    let messages = [(0, sample_rows(1)[0].clone().into_bytes())];
    let body = many_binary(TOPIC, 0, BROKER_START_MS, &messages);
    let (status, answer) = handler.invoke("detect", &body).await.unwrap();
    assert_eq!(status, 500);
    let reason = answer["Logs"][0].as_str().unwrap();
    assert!(reason.starts_with("a defect of lapwing"), "{reason}");
    // The host brings the batch again, to the same process.
    assert_done(&handler.invoke("detect", &body).await.unwrap());
    assert!(handler.is_running());
}

/// A timer's payload, with the schedule status that the host sends or leaves out.
fn tick(status: Value) -> Value {
    let mut sys = sys();
    sys["MethodName"] = json!("replay");
    let tick =
        json!({"Schedule": {"AdjustForDST": true}, "ScheduleStatus": status, "IsPastDue": false});
    json!({"Data": {"tick": tick}, "Metadata": {"sys": sys}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_sends_the_next_rows_with_and_without_a_schedule_status() {
    let cluster: MockCluster<'static, DefaultProducerContext> = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample_network_data.csv");
    settings.extend([
        ("KafkaBrokers".to_owned(), cluster.bootstrap_servers()),
        ("Replay__Source".to_owned(), sample.display().to_string()),
        ("Replay__RowsPerTick".to_owned(), "10".to_owned()),
    ]);
    let borrowed: Vec<(&str, &str)> = settings
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    let first = Handler::start(&borrowed).await;
    // Before the first run `Last` is in year 1; schedules under a minute have no status at all.
    let never_ran = json!({"Last": "0001-01-01T00:00:00", "Next": "2026-08-21T15:00:00+00:00",
        "LastUpdated": "0001-01-01T00:00:00+00:00"});
    assert_done(&first.invoke("replay", &tick(never_ran)).await.unwrap());
    drop(first);
    // The cursor is stored: a handler that is started anew goes on where the other stopped.
    let second = Handler::start(&borrowed).await;
    let answer = second.invoke("replay", &tick(Value::Null)).await.unwrap();
    assert_done(&answer);
    assert!(
        answer.1["Logs"][0]
            .as_str()
            .unwrap()
            .contains("up to row 20"),
        "{}",
        answer.1
    );

    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "reader")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[TOPIC]).unwrap();
    let mut received = Vec::new();
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while received.len() < 20 && std::time::Instant::now() < patience {
        if let Some(message) = consumer.poll(std::time::Duration::from_millis(200)) {
            let message = message.unwrap();
            assert_eq!(message.key(), Some(TOPIC.as_bytes()));
            received.push(serde_json::from_slice::<Value>(message.payload().unwrap()).unwrap());
        }
    }
    let sent: Vec<Value> = sample_rows(20)
        .iter()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect();
    assert_eq!(received, sent);
}
