//! The client of a remote detector against servers on the loopback: the API itself, and ones that fail in
//! chosen ways.

#[path = "support/process.rs"]
mod process;
#[path = "support/mod.rs"]
mod support;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lapwing::api::{self, ApiOptions};
use lapwing::config::Settings;
use lapwing::detector::{Boundary, ErrorCode, Granularity, Impute, Options, Workspace};
use lapwing::remote::{OnFailure, RemoteDetector, RemoteError, endpoint_url};
use lapwing::series::Timestamp;
use tokio::net::TcpListener;

const KEY: &str = "0123456789abcdef";

/// Serves `router` until the runtime ends; its URL ends in a slash, as those of the portal did.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/")
}

fn remote(endpoint: &str, on_failure: OnFailure) -> RemoteDetector {
    let url = endpoint_url(endpoint).unwrap();
    RemoteDetector::new(url, KEY, Duration::from_secs(20), on_failure).unwrap()
}

/// Answers with what it is told, in turn, and remembers what it was asked.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<(VecDeque<Response>, Vec<String>)>>);

impl Script {
    async fn start(responses: impl IntoIterator<Item = Response>) -> (Self, String) {
        let script = Self::default();
        script.0.lock().unwrap().0.extend(responses);
        let router = Router::new()
            .fallback(Self::answer)
            .with_state(script.clone());
        let url = serve(router).await;
        (script, url)
    }

    async fn answer(State(script): State<Self>, request: Request) -> Response {
        let mut script = script.0.lock().unwrap();
        let key = request.headers().get("ocp-apim-subscription-key").unwrap();
        assert_eq!(key, KEY);
        script.1.push(request.uri().path().to_owned());
        script.0.pop_front().expect("a response for every request")
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().1.clone()
    }
}

fn json(status: u16, body: &'static str) -> Response {
    let head = [("content-type", "application/json"), ("model-id", "20")];
    (StatusCode::from_u16(status).unwrap(), head, body).into_response()
}

const VERDICT: &str = r#"{"period": 7, "suggestedWindow": 29, "expectedValue": 1.5, "upperMargin": 0.5,
    "lowerMargin": 0.25, "isAnomaly": true, "isNegativeAnomaly": false, "isPositiveAnomaly": true, "severity": 0.5}"#;

fn window() -> (Vec<Timestamp>, Vec<f64>, Options) {
    let start = Timestamp::parse("2014-03-01").unwrap().micros();
    let timestamps = (0..60).map(|i| Timestamp::from_micros(start + i * 300_000_000));
    let values = (0..60).map(|i| {
        if i == 59 {
            90.0
        } else {
            f64::from(i * 37 % 23) / 10.0
        }
    });
    let options = Options {
        granularity: Granularity::Minutely,
        custom_interval: NonZeroU32::new(5).unwrap(),
        ..Options::v1_1()
    };
    (timestamps.collect(), values.collect(), options)
}

#[tokio::test]
async fn another_lapwing_says_what_the_embedded_detector_says() {
    let settings = Settings::from_pairs([("Api__Key1", KEY)]);
    let options = ApiOptions::from_settings(&settings).unwrap();
    let url = serve(api::public_router(options).unwrap()).await;
    let remote = remote(&url, OnFailure::Fail);
    let (timestamps, values, options) = window();
    let mut workspace = Workspace::new();
    for options in [
        options,
        Options {
            boundary: Boundary::V1,
            ..options
        },
        Options {
            period: Some(12),
            impute: Impute::Fixed(1.5),
            ..options
        },
        Options {
            max_anomaly_ratio: 0.1,
            impute: Impute::NotFill,
            ..options
        },
    ] {
        let last = remote
            .last("cpu", &timestamps, &values, &options)
            .await
            .unwrap();
        let mut embedded = workspace.last(&timestamps, &values, &options).unwrap();
        embedded.model = last.model;
        assert_eq!(last, embedded);
        let entire = remote.entire(&timestamps, &values, &options).await.unwrap();
        let embedded = workspace.entire(&timestamps, &values, &options).unwrap();
        assert_eq!(
            (entire.points, entire.period),
            (embedded.points, embedded.period)
        );
    }
    let refused = remote
        .last("cpu", &timestamps[..5], &values[..5], &options)
        .await;
    assert!(matches!(refused, Err(RemoteError::Refused(e)) if e.code == ErrorCode::InvalidSeries));
}

#[tokio::test]
async fn a_passing_failure_is_tried_again() {
    let (script, url) =
        Script::start([json(503, "{}"), json(500, "oops"), json(200, VERDICT)]).await;
    let (timestamps, values, options) = window();
    let verdict = remote(&url, OnFailure::Fail)
        .last("cpu", &timestamps, &values, &options)
        .await
        .unwrap();
    assert!(verdict.is_anomaly && verdict.period == 7 && verdict.lower_margin == 0.25);
    assert_eq!(
        script.asked(),
        ["/anomalydetector/v1.1/timeseries/last/detect"; 3]
    );
}

#[tokio::test]
async fn what_no_try_cures_is_tried_once() {
    let (timestamps, values, options) = window();
    let refused = r#"{"code": "InvalidSeries", "message": "no"}"#;
    let denied = r#"{"error": {"code": "401", "message": "who are you"}}"#;
    for (status, body, says) in [
        (400, refused, "InvalidSeries: no"),
        (401, denied, "who are you"),
        (404, "<html>", "<html>"),
        (410, "", "410"),
        (400, r#"{"code": "Strange", "message": "hm"}"#, "Strange"),
        (200, "{}", "no verdict"),
        (200, "<html>", "no verdict"),
    ] {
        let (script, url) = Script::start([json(status, body)]).await;
        let error = remote(&url, OnFailure::Fail)
            .last("cpu", &timestamps, &values, &options)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(says), "{status} {body}: {error}");
        assert_eq!(script.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_dead_detector_is_left_alone_after_a_while() {
    let (timestamps, values, options) = window();
    let failures = (0..12).map(|_| json(503, r#"{"error": {"code": "503", "message": "tired"}}"#));
    let (script, url) = Script::start(failures).await;
    let remote = remote(&url, OnFailure::Fail);
    for _ in 0..3 {
        let error = remote
            .last("cpu", &timestamps, &values, &options)
            .await
            .unwrap_err();
        assert!(matches!(error, RemoteError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("tired"), "{error}");
    }
    assert_eq!(script.asked().len(), 12, "four tries each");
    let error = remote
        .last("cpu", &timestamps, &values, &options)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("left alone"), "{error}");
    assert_eq!(script.asked().len(), 12);
}

#[tokio::test]
async fn the_embedded_detector_steps_in_where_that_is_asked_for() {
    let (timestamps, values, options) = window();
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let stands_in = remote(&nobody, OnFailure::Embedded);
    let verdict = stands_in
        .last("cpu", &timestamps, &values, &options)
        .await
        .unwrap();
    let embedded = Workspace::new()
        .last(&timestamps, &values, &options)
        .unwrap();
    assert_eq!(verdict, embedded);
    let error = remote(&nobody, OnFailure::Fail)
        .last("cpu", &timestamps, &values, &options)
        .await
        .unwrap_err();
    assert!(matches!(error, RemoteError::Unavailable { .. }), "{error}");

    let (_, url) =
        Script::start([json(400, r#"{"code": "InvalidSeries", "message": "no"}"#)]).await;
    let refused = remote(&url, OnFailure::Embedded)
        .last("cpu", &timestamps, &values, &options)
        .await;
    assert!(
        matches!(refused, Err(RemoteError::Refused(_))),
        "a refusal is final"
    );
}

#[test]
fn settings_name_it() {
    let from = |pairs: &[(&str, &str)]| {
        RemoteDetector::from_settings(&Settings::from_pairs(pairs.iter().copied()))
    };
    assert!(from(&[]).unwrap().is_none());
    let set = ("ANOMALY_DETECTOR_ENDPOINT", "https://example.com/");
    let remote = from(&[set, ("ANOMALY_DETECTOR_KEY", KEY)])
        .unwrap()
        .unwrap();
    assert_eq!(remote.on_failure(), OnFailure::Fail);
    let embedded = from(&[set, ("Remote__OnFailure", "embedded")])
        .unwrap()
        .unwrap();
    assert_eq!(embedded.on_failure(), OnFailure::Embedded);
    for (name, value) in [
        ("ANOMALY_DETECTOR_ENDPOINT", "example.com"),
        ("ANOMALY_DETECTOR_ENDPOINT", "ftp://example.com"),
        ("Remote__OnFailure", "shrug"),
        ("Remote__Deadline", "20"),
    ] {
        let error = from(&[set, (name, value)]).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn detect_takes_its_verdicts_from_the_remote_detector() {
    const POINTS: usize = 24;
    let messages: Vec<(i64, Vec<u8>)> = (0..30)
        .map(|slot| {
            (
                slot,
                support::row(slot, support::value(slot, &[])).into_bytes(),
            )
        })
        .collect();
    let body = process::many_binary(support::TOPIC, 0, support::BROKER_START_MS, &messages);
    // Ordinary points all; the remote detector calls every one of them an anomaly, six times, and then dies.
    let judged = messages.len() - POINTS + 1;
    let (script, url) = Script::start((0..judged).map(|_| json(200, VERDICT))).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = app_settings(&url, folder.path(), POINTS);
    let handler = start(&settings).await;
    let (status, answer) = handler.invoke("detect", &body).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(script.asked().len(), judged);
    let summary = answer["Logs"][0].as_str().unwrap();
    assert!(
        summary.contains(&format!("{judged} anomalies")),
        "{summary}"
    );

    // The same on a detector that is not there: the batch fails and comes again, unless the embedded
    // detector may step in.
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for (on_failure, expected) in [("fail", 500), ("embedded", 200)] {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = app_settings(&nobody, folder.path(), POINTS);
        settings.push(("Remote__OnFailure".to_owned(), on_failure.to_owned()));
        let handler = start(&settings).await;
        let (status, answer) = handler.invoke("detect", &body).await.unwrap();
        assert_eq!(status, expected, "{on_failure}: {answer}");
    }
}

fn app_settings(endpoint: &str, folder: &std::path::Path, points: usize) -> Vec<(String, String)> {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut settings = vec![
        ("ANOMALY_DETECTOR_ENDPOINT".to_owned(), endpoint.to_owned()),
        ("ANOMALY_DETECTOR_KEY".to_owned(), KEY.to_owned()),
        ("Window__Points".to_owned(), points.to_string()),
        ("Store__Kind".to_owned(), "file".to_owned()),
        ("Store__Path".to_owned(), path("state")),
    ];
    for stream in ["Records", "DeadLetters", "Verdicts"] {
        settings.push((format!("{stream}__Kind"), "file".to_owned()));
        settings.push((format!("{stream}__Path"), path("records")));
    }
    settings
}

async fn start(settings: &[(String, String)]) -> process::Handler {
    let borrowed: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    process::Handler::start(&borrowed).await
}
