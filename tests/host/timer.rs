//! Timers, and through them what every invocation has in common.

use lapwing::host::Strictness;
use serde_json::{Value, json};

use super::{Bench, by_hand};

fn body(request: &Value) -> Value {
    serde_json::from_str(request["body"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn an_invocation_is_the_hosts() {
    let bench = Bench::new("sweep", by_hand());
    let mut running = bench.start().await;
    running.host.fire("sweep");
    assert_eq!(running.invoked().await, None);
    let request = &bench.requests()[0];
    assert_eq!(request["method"], "POST");
    assert_eq!(request["path"], "/sweep");
    let headers = &request["headers"];
    assert_eq!(headers["content-type"], "application/json; charset=utf-8");
    assert_eq!(headers["transfer-encoding"], "chunked");
    assert!(headers.get("content-length").is_none());
    assert!(
        headers["user-agent"]
            .as_str()
            .unwrap()
            .starts_with("Azure-Functions-Host/")
    );
    assert!(headers["x-azure-functions-hostversion"].is_string());
    assert_eq!(
        headers["x-azure-functions-invocationid"]
            .as_str()
            .unwrap()
            .len(),
        36
    );
    let body = body(request);
    let tick = &body["Data"]["tick"];
    assert_eq!(tick["IsPastDue"], false);
    assert_eq!(tick["Schedule"]["AdjustForDST"], true);
    assert_eq!(tick["ScheduleStatus"]["Last"], "0001-01-01T00:00:00");
    assert_eq!(body["Metadata"]["sys"]["MethodName"], "sweep");
    assert!(body["Metadata"].get("RetryContext").is_none());
    running.stop().await;
}

#[tokio::test]
async fn bodies_can_have_a_length() {
    let bench = Bench::new("sweep", by_hand());
    let mut running = bench
        .start_with(|options| {
            options.strictness = Strictness {
                content_length: true,
                ..Strictness::default()
            }
        })
        .await;
    running.host.fire("sweep");
    running.invoked().await;
    let headers = &bench.requests()[0]["headers"];
    assert!(headers.get("transfer-encoding").is_none() && headers["content-length"].is_string());
    running.stop().await;
}

#[tokio::test]
async fn a_retry_policy_repeats_under_the_same_id() {
    let mut function = by_hand();
    function["retry"] =
        json!({"strategy": "fixedDelay", "maxRetryCount": 2, "delayInterval": "00:00:00.05"});
    let bench = Bench::new("sweep", function).script(json!([{"status": 500}]));
    let mut running = bench.start().await;
    running.host.fire("sweep");
    for _ in 0..3 {
        assert!(running.invoked().await.is_some());
    }
    let requests = bench.requests();
    assert_eq!(requests.len(), 3);
    for (count, request) in requests.iter().enumerate() {
        let id = |request: &Value| request["headers"]["x-azure-functions-invocationid"].clone();
        assert_eq!(id(request), id(&requests[0]));
        let retry = &body(request)["Metadata"]["RetryContext"];
        assert_eq!(retry["RetryCount"], count);
        assert_eq!(retry["MaxRetryCount"], 2);
        assert_eq!(retry["Exception"].is_null(), count == 0);
    }
    running.stop().await;
}

#[tokio::test]
async fn an_empty_answer_hangs_until_the_timeout_kills_the_handler() {
    let bench = Bench::new("sweep", by_hand())
        .host("functionTimeout", "00:00:01")
        .script(json!([{"body": ""}, {}]));
    let mut running = bench.start().await;
    let first = running.ready().await;
    running.host.fire("sweep");
    let failure = running.invoked().await.unwrap();
    assert!(failure.contains("function timeout"), "{failure}");
    assert_ne!(running.ready().await, first);
    running.host.fire("sweep");
    assert_eq!(running.invoked().await, None);
    running.stop().await;
}

#[tokio::test]
async fn strictness_fails_an_empty_answer_at_once() {
    let bench = Bench::new("sweep", by_hand()).script(json!([{"body": ""}]));
    let mut running = bench
        .start_with(|options| {
            options.strictness = Strictness {
                strict: true,
                ..Strictness::default()
            }
        })
        .await;
    running.host.fire("sweep");
    let failure = running.invoked().await.unwrap();
    assert!(failure.contains("the body is empty"), "{failure}");
    running.stop().await;
}

#[tokio::test]
async fn logs_of_the_answer_carry_the_invocation() {
    let bench =
        Bench::new("sweep", by_hand()).script(json!([{"body": r#"{"Logs": ["two rows"]}"#}]));
    let mut running = bench.start().await;
    running.host.fire("sweep");
    running.logged("two rows").await;
    running.stop().await;
}

#[tokio::test]
async fn every_second_means_every_second() {
    let function =
        json!({"bindings": [{"type": "timerTrigger", "name": "tick", "schedule": "* * * * * *"}]});
    let bench = Bench::new("sweep", function);
    let mut running = bench.start().await;
    for _ in 0..2 {
        assert_eq!(running.invoked().await, None);
    }
    let tick = &body(&bench.requests()[0])["Data"]["tick"];
    assert!(tick["ScheduleStatus"].is_null());
    running.stop().await;
}

#[tokio::test]
async fn a_missed_run_is_made_up_for_once() {
    let bench = Bench::new("sweep", by_hand());
    let mut running = bench.start().await;
    running.ready().await;
    running.stop().await;
    let file = bench.folder.path().join(".lapwing/timers/sweep.json");
    let mut status: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    status["Next"] = json!("2020-01-01T00:00:00+00:00");
    std::fs::write(&file, status.to_string()).unwrap();
    let mut running = bench.start().await;
    assert_eq!(running.invoked().await, None);
    assert_eq!(
        body(&bench.requests()[0])["Data"]["tick"]["IsPastDue"],
        true
    );
    running.stop().await;
    let mut running = bench.start().await;
    running.ready().await;
    running.host.fire("sweep");
    running.invoked().await;
    let last = body(bench.requests().last().unwrap());
    assert_eq!(last["Data"]["tick"]["IsPastDue"], false);
    assert_eq!(bench.requests().len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn a_timer_can_be_made_past_due() {
    let bench = Bench::new("sweep", by_hand());
    let mut running = bench
        .start_with(|options| options.past_due = vec!["sweep".to_owned()])
        .await;
    running.invoked().await;
    assert_eq!(
        body(&bench.requests()[0])["Data"]["tick"]["IsPastDue"],
        true
    );
    running.stop().await;
}

#[tokio::test]
async fn a_disabled_timer_is_not_there() {
    let bench = Bench::new("sweep", by_hand()).setting("AzureWebJobs.sweep.Disabled", "true");
    let running = bench.start().await;
    assert!(!running.host.fire("sweep"));
    running.stop().await;
}
