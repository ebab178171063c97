//! The REST API as its callers see it: paths, keys, framing, bodies. What the published SDKs make of it is
//! for `scripts/conformance.sh` to find out.

#[path = "api/golden.rs"]
mod golden;
#[path = "api/wire.rs"]
mod wire;

use std::io::Write;
use std::path::Path;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use lapwing::api::{self, ApiOptions, openapi};
use lapwing::config::Settings;
use lapwing::contract::{Operation, Version, path};
use serde_json::{Value, json};
use tower::ServiceExt;

const LAST: &str = "/anomalydetector/v1.1/timeseries/last/detect";
const KEY: &str = "0123456789abcdef";

fn router(settings: &[(&str, &str)]) -> Router {
    let settings = Settings::from_pairs(settings.iter().copied());
    api::public_router(ApiOptions::from_settings(&settings).unwrap()).unwrap()
}

fn with_key() -> Router {
    router(&[("Api__Key1", KEY)])
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    fn is_flat(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["code"], code, "{}", self.body);
        assert!(!self.body["message"].as_str().unwrap().is_empty());
        assert_eq!(self.header("x-ms-error-code"), Some(code));
        assert_eq!(self.header("retry-after"), None, "no retry cures it");
    }

    #[track_caller]
    fn is_nested(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["error"]["code"], status.to_string());
        assert!(!self.body["error"]["message"].as_str().unwrap().is_empty());
        assert_eq!(self.header("x-ms-error-code"), None);
    }
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    let id = head.headers.get("apim-request-id").expect("an id");
    assert_eq!(id.len(), 36);
    let body = match head.headers.get("content-type").unwrap().to_str().unwrap() {
        "application/json" => serde_json::from_slice(&bytes).expect("JSON"),
        _ => Value::String(String::from_utf8(bytes.to_vec()).unwrap()),
    };
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    }
}

async fn post(router: &Router, path: &str, body: impl Into<Body>) -> Answer {
    let request = Request::post(path).header("Ocp-Apim-Subscription-Key", KEY);
    send(router, request.body(body.into()).unwrap()).await
}

async fn post_json(router: &Router, path: &str, body: &Value) -> Answer {
    post(router, path, body.to_string()).await
}

async fn get(router: &Router, path: &str) -> Answer {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

/// Daily points from 2018-03-01 on: a week's wave with a spike at its end.
fn series(points: usize) -> Vec<Value> {
    (0..points)
        .map(|i| {
            let micros = 1_519_862_400_000_000 + i as i64 * 86_400_000_000;
            let wave = [10, 12, 14, 15, 14, 12, 11][i % 7] + i as i32 % 3;
            let value = if i + 1 == points { 90 } else { wave };
            json!({"timestamp": lapwing::series::Timestamp::from_micros(micros).to_string(), "value": value})
        })
        .collect()
}

fn request() -> Value {
    json!({"granularity": "daily", "series": series(48)})
}

#[tokio::test]
async fn every_version_answers_with_its_members() {
    let router = with_key();
    for version in Version::ALL {
        for operation in Operation::ALL {
            let answer = post_json(&router, &path(version, operation), &request()).await;
            assert_eq!(
                answer.status, 200,
                "{version:?} {operation:?} {}",
                answer.body
            );
            let members = answer.body.as_object().unwrap();
            let mut expected = match operation {
                Operation::Entire => vec![
                    "expectedValues",
                    "isAnomaly",
                    "isNegativeAnomaly",
                    "isPositiveAnomaly",
                    "lowerMargins",
                    "period",
                    "severity",
                    "upperMargins",
                ],
                Operation::Last => vec![
                    "expectedValue",
                    "isAnomaly",
                    "isNegativeAnomaly",
                    "isPositiveAnomaly",
                    "lowerMargin",
                    "period",
                    "severity",
                    "suggestedWindow",
                    "upperMargin",
                ],
                Operation::ChangePoint => vec!["confidenceScores", "isChangePoint", "period"],
            };
            if version == Version::V1_0 {
                expected.retain(|member| *member != "severity");
            }
            assert_eq!(members.keys().collect::<Vec<_>>(), expected);
            assert!(answer.body["period"].is_u64());
            assert_eq!(
                answer.header("csp-billing-usage"),
                Some("CognitiveServices.AnomalyDetector.DataPoints=1")
            );
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        }
    }
}

#[tokio::test]
async fn the_version_chooses_the_margins() {
    let router = with_key();
    let mut body = request();
    body["sensitivity"] = json!(90);
    let mut margins = Vec::new();
    for version in [
        "v1.0",
        "v1.1-preview",
        "v1.1-preview.1",
        "v1.1-preview.2",
        "v1.1",
    ] {
        let path = format!("/anomalydetector/{version}/timeseries/last/detect");
        margins.push(post_json(&router, &path, &body).await.body["upperMargin"].clone());
    }
    assert!(margins[..4].iter().all(|margin| *margin == margins[0]));
    assert_ne!(margins[4], margins[0]);
}

#[tokio::test]
async fn route_method_and_key_are_looked_at_in_this_order() {
    let router = with_key();
    let ask = |method: Method, path: &str, key: Option<&str>| {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header("OCP-APIM-subscription-key", key);
        }
        request.body(Body::from("{")).unwrap()
    };
    for path in [
        "/nothing",
        "/detect",
        "/replay",
        "/anomalydetector/v2/timeseries/last/detect",
    ] {
        send(&router, ask(Method::POST, path, None))
            .await
            .is_nested(404);
    }
    for method in [
        Method::GET,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
    ] {
        let answer = send(&router, ask(method, LAST, None)).await;
        answer.is_nested(405);
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    for key in [
        None,
        Some(""),
        Some("x"),
        Some("0123456789abcde"),
        Some("0123456789abcdef0"),
    ] {
        let answer = send(&router, ask(Method::POST, LAST, key)).await;
        answer.is_nested(401);
        assert_eq!(answer.header("retry-after"), None);
    }
    send(&router, ask(Method::POST, LAST, Some(KEY)))
        .await
        .is_flat(400, "InvalidJsonFormat");
    let models = "/anomalydetector/v1.1/multivariate/models";
    send(&router, ask(Method::GET, models, Some("x")))
        .await
        .is_nested(401);
    send(&router, ask(Method::GET, models, Some(KEY)))
        .await
        .is_flat(501, "NotImplemented");
}

#[tokio::test]
async fn either_key_and_the_containers_open_the_api() {
    let both = router(&[("Api__Key1", "old"), ("Api__Key2", KEY)]);
    assert_eq!(post_json(&both, LAST, &request()).await.status, 200);
    let container = router(&[
        ("ApiKey", KEY),
        ("Eula", "accept"),
        ("Billing", "https://example.com"),
    ]);
    assert_eq!(post_json(&container, LAST, &request()).await.status, 200);
    assert_eq!(get(&container, "/status").await.status, 200);
}

#[tokio::test]
async fn without_a_key_every_call_is_refused_unless_allowed() {
    let closed = router(&[]);
    let answer = post_json(&closed, LAST, &request()).await;
    answer.is_nested(401);
    assert!(
        answer.body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("Api__Key1")
    );
    let status = get(&closed, "/status").await;
    status.is_nested(503);
    assert!(status.header("retry-after").is_some());
    let open = router(&[("Api__AllowAnonymous", "true"), ("Api__Key1", "other")]);
    for key in [None, Some(""), Some("anything")] {
        let mut request = Request::post(LAST);
        if let Some(key) = key {
            request = request.header("Ocp-Apim-Subscription-Key", key);
        }
        let body = Body::from(self::request().to_string());
        assert_eq!(
            send(&open, request.body(body).unwrap()).await.status,
            200,
            "{key:?}"
        );
    }
}

#[test]
fn settings_that_make_no_sense_are_named() {
    for (name, value) in [
        ("Api__RateLimit", "0"),
        ("Api__RateLimit", "many"),
        ("Api__RateLimit", "NaN"),
        ("Api__AllowAnonymous", "maybe"),
        ("Api__MaxBodyBytes", "8MB"),
    ] {
        let error = ApiOptions::from_settings(&Settings::from_pairs([(name, value)])).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn the_rate_limit_says_when_to_come_back() {
    let router = router(&[("Api__Key1", KEY), ("Api__RateLimit", "0.01")]);
    assert_eq!(post_json(&router, LAST, &request()).await.status, 200);
    let answer = post_json(&router, LAST, &request()).await;
    answer.is_nested(429);
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=100).contains(&seconds));
    assert_eq!(
        get(&router, "/ready").await.status,
        200,
        "the probes are free"
    );
}

#[tokio::test]
async fn bodies_of_every_habit_are_read() {
    let router = with_key();
    let plain = request().to_string();
    let expected = post(&router, LAST, plain.clone()).await.body;
    let marked = [b"\xef\xbb\xbf", plain.as_bytes()].concat();
    assert_eq!(post(&router, LAST, marked).await.body, expected);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(plain.as_bytes()).unwrap();
    let packed = gzip.finish().unwrap();
    let with = |encoding: &str, kind: &str, body: Vec<u8>| {
        Request::post(LAST)
            .header("Ocp-Apim-Subscription-Key", KEY)
            .header("Content-Encoding", encoding)
            .header("Content-Type", kind)
            .body(Body::from(body))
            .unwrap()
    };
    assert_eq!(
        send(&router, with("gzip", "text/json", packed.clone()))
            .await
            .body,
        expected
    );
    assert_eq!(
        send(
            &router,
            with("identity", "text/plain", plain.clone().into())
        )
        .await
        .body,
        expected
    );
    send(&router, with("br", "application/json", packed))
        .await
        .is_flat(415, "UnsupportedMediaType");
    let torn = send(
        &router,
        with("gzip", "application/json", b"\x1f\x8b\x08".to_vec()),
    )
    .await;
    torn.is_flat(400, "InvalidJsonFormat");

    // Any case of names, null for an option, members unknown, the last of a name given twice.
    let mut odd = request();
    for name in [
        "customInterval",
        "period",
        "maxAnomalyRatio",
        "sensitivity",
        "imputeMode",
    ] {
        odd[name] = Value::Null;
    }
    odd["comment"] = json!({"deep": [[1]]});
    assert_eq!(post_json(&router, LAST, &odd).await.body, expected);
    let twice = plain.replacen('{', "{\"granularity\": \"fortnightly\",", 1);
    assert_eq!(post(&router, LAST, twice).await.body, expected);
    let strings: Vec<Value> = series(48)
        .into_iter()
        .map(|point| json!({"TIMESTAMP": point["timestamp"], "VALUE": format!(" {}.0 ", point["value"])}))
        .collect();
    let body = json!({"GRANULARITY": "daily", "series": strings});
    assert_eq!(post_json(&router, LAST, &body).await.body, expected);
}

#[tokio::test]
async fn a_pascal_case_request_is_answered_in_kind() {
    let router = with_key();
    let points: Vec<Value> = series(48)
        .iter()
        .map(|point| json!({"Timestamp": point["timestamp"], "Value": point["value"]}))
        .collect();
    let mut body = json!({"Granularity": "daily", "Sensitivity": 95, "Series": points});
    let answer = post_json(&router, LAST, &body).await;
    assert_eq!(answer.body["IsAnomaly"], true, "{}", answer.body);
    let names = answer.body.as_object().unwrap().keys();
    assert!(
        names
            .into_iter()
            .all(|name| name.starts_with(char::is_uppercase))
    );
    body["Sensitivity"] = json!("95");
    post_json(&router, LAST, &body)
        .await
        .is_flat(400, "InvalidModelArgument");
}

#[tokio::test]
async fn the_first_failure_decides() {
    let router = with_key();
    let change = path(Version::V1_1, Operation::ChangePoint);
    let mut points = series(48);
    points[3]["timestamp"] = json!("soon");
    let mut huge = series(48);
    huge[5]["value"] = json!(1e101);
    huge[6]["timestamp"] = huge[5]["timestamp"].clone();
    let mut double = series(48);
    double[6]["timestamp"] = double[5]["timestamp"].clone();
    let mut back = series(48);
    back.swap(7, 8);
    let mut off = series(48);
    off[9]["timestamp"] = json!("2018-03-10T01:00:00Z");
    let with = |members: Value| {
        let mut body = request();
        for (name, value) in members.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let cases = [
        (
            LAST,
            json!({"granularity": "Daily", "customInterval": 0}),
            "InvalidGranularity",
            "",
        ),
        (
            LAST,
            json!({"granularity": "daily", "customInterval": 0, "period": -1}),
            "InvalidCustomInterval",
            "",
        ),
        (
            LAST,
            json!({"period": 1.5, "maxAnomalyRatio": 0.5}),
            "InvalidPeriod",
            "",
        ),
        (
            LAST,
            json!({"maxAnomalyRatio": 0.5, "sensitivity": 0}),
            "InvalidModelArgument",
            "",
        ),
        (
            LAST,
            json!({"sensitivity": 101, "imputeMode": "x"}),
            "InvalidModelArgument",
            "",
        ),
        (LAST, json!({"imputeMode": "last"}), "InvalidImputeMode", ""),
        (
            LAST,
            json!({"imputeMode": "fixed"}),
            "InvalidImputeFixedValue",
            "",
        ),
        (LAST, json!({"granularity": "daily"}), "RequiredSeries", ""),
        (LAST, json!({"series": null}), "BadArgument", ""),
        (LAST, json!({"series": []}), "InvalidSeries", "12"),
        (LAST, json!({"series": series(11)}), "InvalidSeries", "12"),
        (
            LAST,
            with(json!({"series": points})),
            "BadArgument",
            "index 3",
        ),
        (
            LAST,
            with(json!({"series": huge})),
            "InvalidSeries",
            "index 5",
        ),
        (
            LAST,
            with(json!({"series": double})),
            "InvalidSeries",
            "index 6",
        ),
        (
            LAST,
            with(json!({"series": back})),
            "InvalidSeries",
            "index 8",
        ),
        (
            LAST,
            with(json!({"series": off})),
            "InvalidSeries",
            "index 9",
        ),
        (
            LAST,
            with(json!({"period": 24})),
            "InvalidModelArgument",
            "",
        ),
        (
            &change,
            with(json!({"threshold": 1, "series": 5})),
            "InvalidModelArgument",
            "threshold",
        ),
        (
            &change,
            with(json!({"stableTrendWindow": 24})),
            "InvalidModelArgument",
            "stableTrendWindow",
        ),
        (
            &change,
            with(json!({"stableTrendWindow": 2, "period": 40})),
            "InvalidModelArgument",
            "stableTrendWindow",
        ),
        (
            &change,
            with(json!({"stableTrendWindow": 2, "series": 5})),
            "BadArgument",
            "",
        ),
    ];
    for (path, body, code, says) in cases {
        let answer = post_json(&router, path, &body).await;
        answer.is_flat(400, code);
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.contains(says), "{message:?} does not say {says:?}");
    }
    for text in [
        "",
        "{",
        "[]",
        "null",
        "{'series': []}",
        "{\"series\": [NaN]}",
        "{\"a\": 1,}",
        "{} {}",
    ] {
        post(&router, LAST, text)
            .await
            .is_flat(400, "InvalidJsonFormat");
    }
    post(&router, LAST, b"\xff\xfe{}".to_vec())
        .await
        .is_flat(400, "InvalidJsonFormat");
    let deep = "[".repeat(100_000);
    post(&router, LAST, format!("{{\"series\": {deep}"))
        .await
        .is_flat(400, "InvalidJsonFormat");
}

#[tokio::test]
async fn what_is_too_large_is_refused_packed_or_not() {
    let router = router(&[("Api__Key1", KEY), ("Api__MaxBodyBytes", "4096")]);
    let answer = post(&router, LAST, vec![b' '; 5000]).await;
    answer.is_flat(413, "RequestEntityTooLarge");
    assert_eq!(answer.header("connection"), Some("close"));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&vec![b' '; 1 << 20]).unwrap();
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 4096);
    let request = Request::post(LAST)
        .header("Ocp-Apim-Subscription-Key", KEY)
        .header("Content-Encoding", "gzip")
        .body(Body::from(bomb))
        .unwrap();
    send(&router, request)
        .await
        .is_flat(413, "RequestEntityTooLarge");
}

#[tokio::test]
async fn the_callers_own_id_comes_back_when_asked_for() {
    let router = with_key();
    for (wanted, expected) in [("true", Some("mine")), ("false", None)] {
        let request = Request::post(LAST)
            .header("x-ms-client-request-id", "mine")
            .header("x-ms-return-client-request-id", wanted)
            .body(Body::empty())
            .unwrap();
        assert_eq!(
            send(&router, request)
                .await
                .header("x-ms-client-request-id"),
            expected
        );
    }
}

#[tokio::test]
async fn the_containers_routes_need_no_key() {
    let router = with_key();
    for path in ["/", "/status", "/ready", "//READY/"] {
        let answer = get(&router, path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body["status"].is_string());
    }
    let page = get(&router, "/swagger").await;
    assert!(page.body.as_str().unwrap().contains(LAST));
    let served = get(&router, "/openapi.json").await;
    assert_eq!(served.status, StatusCode::OK.as_u16());
    assert_eq!(
        served.body,
        serde_json::from_str::<Value>(openapi::json()).unwrap()
    );
}

/// `LAPWING_REWRITE=1 cargo test --test api` writes the document anew.
#[test]
fn the_description_is_the_committed_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if std::env::var_os("LAPWING_REWRITE").is_some() {
        std::fs::write(&path, openapi::json()).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        committed,
        openapi::json(),
        "write it anew with LAPWING_REWRITE=1"
    );
}

#[test]
fn the_description_keeps_bounds_and_words() {
    let document: Value = serde_json::from_str(openapi::json()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let schemas = &document["components"]["schemas"];
    let detect = &schemas["DetectRequest"]["properties"];
    assert_eq!(
        (&detect["series"]["minItems"], &detect["series"]["maxItems"]),
        (&json!(12), &json!(8640))
    );
    assert_eq!(
        detect["granularity"]["enum"].as_array().unwrap().len(),
        10,
        "nine words and null"
    );
    assert_eq!(
        detect["imputeMode"]["enum"].as_array().unwrap().len(),
        7,
        "six words and null"
    );
    assert_eq!(
        (
            &detect["sensitivity"]["minimum"],
            &detect["sensitivity"]["maximum"]
        ),
        (&json!(0), &json!(100))
    );
    assert_eq!(detect["maxAnomalyRatio"]["exclusiveMinimum"], 0);
    assert_eq!(detect["maxAnomalyRatio"]["maximum"], 0.49);
    assert_eq!(schemas["DetectRequest"]["required"], json!(["series"]));
    assert_eq!(schemas["ChangePointRequest"]["required"], json!(["series"]));
    let change = &schemas["ChangePointRequest"]["properties"];
    assert_eq!(
        (
            &change["threshold"]["minimum"],
            &change["threshold"]["maximum"]
        ),
        (&json!(0.01), &json!(0.99))
    );
    let last = &schemas["LastAnswer"];
    assert_eq!(last["properties"]["severity"]["maximum"], 1);
    assert!(
        !last["required"]
            .as_array()
            .unwrap()
            .contains(&json!("severity")),
        "v1.0 has none"
    );
    assert_eq!(document["paths"].as_object().unwrap().len(), 14);
}
