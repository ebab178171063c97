//! Starting, restarting and stopping the handler.

use std::collections::BTreeSet;

use lapwing::host::event::Level;
use lapwing::host::{Host, HostError, HostOptions};
use serde_json::json;

use super::{Bench, by_hand};

#[tokio::test]
async fn the_handler_gets_five_variables_and_split_arguments() {
    let bench = Bench::new("sweep", by_hand()).host(
        "customHandler__description__arguments",
        r#"["fake_handler --exact", "--nocapture", "%NOBODY%"]"#,
    );
    let mut running = bench.start().await;
    let pid = running.ready().await;
    let started = &bench.starts()[0];
    assert_eq!(
        started["args"],
        json!(["fake_handler", "--exact", "--nocapture"])
    );
    let root = bench.folder.path().canonicalize().unwrap();
    assert_eq!(started["folder"], json!(root));
    assert_eq!(started["pid"], pid);
    let environment = &started["environment"];
    assert_eq!(
        environment["FUNCTIONS_APP_ROOT_PATH"],
        json!(bench.folder.path())
    );
    assert_eq!(
        environment["FUNCTIONS_CUSTOMHANDLER_PORT"],
        environment["FUNCTIONS_HTTPWORKER_PORT"]
    );
    assert_eq!(
        environment["FUNCTIONS_CUSTOMHANDLER_WORKER_ID"],
        environment["FUNCTIONS_HTTPWORKER_ID"]
    );
    assert_eq!(environment["REACHED"], "by %name%");
    assert_eq!(running.host.handler_pid(), Some(pid));
    running.stop().await;
    assert!(!alive(pid));
}

#[tokio::test]
async fn streams_have_their_levels() {
    let bench = Bench::new("sweep", by_hand());
    let mut running = bench.start().await;
    let (level, _) = running.logged("a line on stdout").await;
    assert_eq!(level, Level::Information);
    running.stop().await;
    let bench = Bench::new("sweep", by_hand());
    let mut running = bench.start().await;
    let (level, _) = running.logged("a line on stderr").await;
    assert_eq!(level, Level::Error);
    running.stop().await;
}

#[tokio::test]
async fn exit_0_is_final() {
    let bench = Bench::new("sweep", by_hand()).script(json!([{"exit": 0}]));
    let mut running = bench.start().await;
    running.ready().await;
    running.host.fire("sweep");
    assert!(running.invoked().await.is_some());
    running.logged("exited with 0").await;
    running.host.fire("sweep");
    let failure = running.invoked().await.unwrap();
    assert!(failure.contains("refused the connection"), "{failure}");
    assert_eq!(bench.starts().len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn exit_200_restarts_on_the_same_port_and_counts_for_nothing() {
    let bench = Bench::new("sweep", by_hand()).setting(
        "FAKE_STARTS",
        json!([{"exit": 200}, {"exit": 200}, {"exit": 200}, {"exit": 200}, {}]),
    );
    let mut running = bench.start().await;
    running.ready().await;
    let ports: BTreeSet<String> = bench
        .starts()
        .iter()
        .map(|start| start["environment"]["FUNCTIONS_CUSTOMHANDLER_PORT"].to_string())
        .collect();
    assert_eq!((bench.starts().len(), ports.len()), (5, 1));
    running.stop().await;
}

#[tokio::test]
async fn the_third_crash_stops_the_host() {
    let bench = Bench::new("sweep", by_hand())
        .setting("FAKE_STARTS", json!([{"exit": 3, "say": "no store"}]));
    let mut running = bench.start().await;
    let reason = running.fatal().await;
    assert!(
        reason.contains("3 times") && reason.contains("no store"),
        "{reason}"
    );
    assert_eq!(bench.starts().len(), 3);
    running.stop().await;
}

#[tokio::test]
async fn a_crash_in_an_invocation_fails_it_and_starts_the_handler_anew() {
    let bench = Bench::new("sweep", by_hand()).script(json!([{"exit": 1}, {}]));
    let mut running = bench.start().await;
    let first = running.ready().await;
    running.host.fire("sweep");
    assert!(running.invoked().await.is_some());
    let second = running.ready().await;
    assert_ne!(first, second);
    running.host.fire("sweep");
    assert_eq!(running.invoked().await, None);
    running.stop().await;
}

#[tokio::test]
async fn a_binary_that_cannot_be_launched_is_tried_once() {
    let bench = Bench::new("sweep", by_hand()).host(
        "customHandler__description__defaultExecutablePath",
        "no-such",
    );
    let mut running = bench.start().await;
    let (level, text) = running.logged("failed to start").await;
    assert_eq!(level, Level::Error);
    assert!(text.contains("no-such"), "{text}");
    running.stop().await;
}

#[tokio::test]
async fn a_handler_that_does_not_answer_in_time_counts_as_crashed() {
    let bench = Bench::new("sweep", by_hand())
        .host("customHandler__initializationTimeout", "00:00:00.3")
        .setting("FAKE_STARTS", json!([{"sleep": 60_000}]));
    let mut running = bench.start().await;
    let reason = running.fatal().await;
    assert!(reason.contains("did not answer GET /"), "{reason}");
    running.stop().await;
}

#[tokio::test]
async fn an_app_without_functions_is_refused_with_the_reasons() {
    let bench = Bench::new("sweep", json!({"bindings": []}));
    let options = HostOptions {
        app: bench.folder.path().to_owned(),
        ..HostOptions::default()
    };
    let error = Host::start(options).await.unwrap_err();
    assert!(matches!(error, HostError::NoFunctions { .. }));
    let text = error.to_string();
    assert!(text.contains("sweep: ") && !text.contains('\n'), "{text}");
}

#[tokio::test]
async fn a_taken_port_is_said_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = Bench::new("sweep", by_hand());
    let options = HostOptions {
        app: bench.folder.path().to_owned(),
        port: Some(taken.local_addr().unwrap().port()),
        ..HostOptions::default()
    };
    let text = Host::start(options).await.unwrap_err().to_string();
    assert!(text.contains("--port") && !text.contains('\n'), "{text}");
}

/// Whether the process runs; a killed one that nobody reaped does not count.
fn alive(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.contains(") Z "),
        Err(_) => false,
    }
}
