//! The app files hold what at-least-once delivery and the REST front need: each line lost here would
//! lose messages or functions in Azure without a word.

use std::path::Path;
use std::time::Duration;

use lapwing::host::app::App;
use lapwing::host::config::{HttpMode, RetryDelay};
use lapwing::host::function::{KeyType, Trigger};
use lapwing::stage::{FUNCTIONS, HOST_JSON};
use serde_json::Value;

fn app() -> App {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("host.json"), HOST_JSON).unwrap();
    for (name, text) in FUNCTIONS {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("function.json"), text).unwrap();
    }
    let settings = [
        ("KafkaBrokers", "localhost:9092"),
        ("KafkaTopic", "aws-cloudwatch-network"),
        ("KafkaGroup", "anomaly-detection-group"),
        ("REPLAY_SCHEDULE", "0 */5 * * * *"),
    ];
    let settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned()));
    App::load(folder.path(), settings).unwrap()
}

#[test]
fn every_folder_of_the_repository_is_staged() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("functions");
    let mut folders: Vec<String> = std::fs::read_dir(source)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let staged: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
    assert_eq!(folders, staged);
}

#[test]
fn the_host_drops_none() {
    let app = app();
    assert_eq!(app.dropped, []);
    let names: Vec<&str> = app.functions.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["anomalydetector", "detect", "replay"]);
}

#[test]
fn a_bundle_that_ignores_commit_on_failure_does_not_load() {
    let host: Value = serde_json::from_str(HOST_JSON).unwrap();
    let bundle = &host["extensionBundle"];
    assert_eq!(bundle["id"], "Microsoft.Azure.Functions.ExtensionBundle");
    assert_eq!(bundle["version"], "[4.37.0, 5.0.0)");
}

#[test]
fn failures_are_never_committed_nor_given_up() {
    let app = app();
    let kafka = &app.config.kafka;
    assert!(!kafka.commit_on_failure);
    assert_eq!(kafka.max_retries, -1);
    assert_eq!(kafka.auto_offset_reset, "earliest");
    assert_eq!(kafka.max_batch_size, 64);
    let retry = app.function("detect").unwrap().retry.clone().unwrap();
    assert_eq!(retry.max_retry_count, -1);
    let pauses = RetryDelay::Exponential(Duration::from_secs(1), Duration::from_secs(60));
    assert_eq!(retry.delay, pauses);
}

#[test]
fn an_invocation_ends_before_the_broker_takes_the_partitions_away() {
    let config = app().config;
    let poll = Duration::from_millis(config.kafka.max_poll_interval_ms as u64);
    assert_eq!(config.function_timeout, Some(Duration::from_secs(300)));
    assert!(config.function_timeout.unwrap() < poll);
}

#[test]
fn detect_takes_batches_of_bytes() {
    let app = app();
    let Trigger::Kafka(kafka) = &app.function("detect").unwrap().trigger else {
        panic!("detect has no kafka trigger");
    };
    assert!(kafka.is_batch && kafka.is_binary);
    assert_eq!(kafka.key_type, KeyType::Text);
    assert_eq!(kafka.brokers, "localhost:9092");
    assert_eq!(kafka.topic, "aws-cloudwatch-network");
    assert_eq!(kafka.group, "anomaly-detection-group");
    let written = &app.function("detect").unwrap().json["bindings"][0];
    assert_eq!(written["brokerList"], "%KafkaBrokers%");
    assert_eq!(written["topic"], "%KafkaTopic%");
    assert_eq!(written["consumerGroup"], "%KafkaGroup%");
}

#[test]
fn replay_runs_by_its_setting_and_not_at_every_start() {
    let app = app();
    let function = app.function("replay").unwrap();
    let Trigger::Timer(timer) = &function.trigger else {
        panic!("replay has no timer");
    };
    assert!(timer.use_monitor && !timer.run_on_startup);
    assert_eq!(
        function.json["bindings"][0]["schedule"],
        "%REPLAY_SCHEDULE%"
    );
}

#[test]
fn the_rest_front_is_reached_by_the_retired_services_own_paths() {
    let app = app();
    assert_eq!(app.config.route_prefix, "");
    let function = app.function("anomalydetector").unwrap();
    let Trigger::Http(http) = &function.trigger else {
        panic!("anomalydetector has no http trigger");
    };
    assert_eq!(http.route.text(), "anomalydetector/{*rest}");
    assert!(http.methods.is_empty());
    assert_eq!(http.mode, HttpMode::Proxying);
    // The service's keys are checked by the handler; a host key on top would break its clients.
    assert_eq!(function.json["bindings"][0]["authLevel"], "anonymous");
    // Hosts that do not know proxying yet must still forward.
    let host: Value = serde_json::from_str(HOST_JSON).unwrap();
    assert_eq!(host["customHandler"]["enableForwardingHttpRequest"], true);
    assert_eq!(host["customHandler"]["enableProxyingHttpRequest"], true);
}

#[test]
fn the_handler_is_the_binary_at_the_root() {
    let handler = app().config.handler;
    assert_eq!(handler.executable, lapwing::stage::BINARY);
    assert_eq!(handler.arguments, ["serve"]);
    assert!(handler.stderr_is_for_errors);
}
