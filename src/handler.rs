//! The custom handler: a web server that the Functions host starts, invokes and kills.
//!
//! It answers `GET /` from the first moment (the host's readiness probe), never ends because something
//! outside is down (three ends stop the whole app), and answers every invocation with a JSON object: 200
//! when the work is durable, 500 with the reason when the host should bring it again. Nothing depends on
//! being told of a shutdown, because the host tells nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};
use tracing::Instrument;

use crate::functions::{self, Refusal};
use crate::invocation::{Invocation, Outcome};
use crate::judge::Pipeline;
use crate::replay::Replayer;
use crate::series::Timestamp;
use crate::telemetry;

/// Largest invocation that is read. A batch of 64 messages at Kafka's default limit of 1 MiB is some
/// 90 MiB after base64; a body over this limit could never be taken, so it is far above what a host
/// with sane batch settings sends.
const MAX_BODY_BYTES: usize = 1 << 30;

/// What the handler works with. A part whose settings cannot be used is there as the reason why: the
/// handler stays up and says it.
#[derive(Debug)]
pub struct Parts {
    /// Judges batches.
    pub detect: Result<Pipeline, String>,
    /// Sends rows.
    pub replay: Result<Replayer, String>,
    /// Every setting with the value that holds, secrets hidden.
    pub settings: BTreeMap<&'static str, String>,
}

#[derive(Debug)]
struct Server {
    parts: Parts,
    started: Instant,
    /// Per function what its latest invocations came to.
    latest: Mutex<BTreeMap<&'static str, Latest>>,
}

#[derive(Clone, Debug, Default)]
struct Latest {
    succeeded_at: Option<String>,
    failed_at: Option<String>,
    failure: Option<String>,
}

/// The handler's routes.
pub fn app(parts: Parts) -> Router {
    for (function, part) in [
        ("detect", parts.detect.as_ref().err()),
        ("replay", parts.replay.as_ref().err()),
    ] {
        if let Some(reason) = part {
            tracing::error!(function, %reason, "The function cannot work; every invocation of it will fail.");
        }
    }
    let server = Server {
        parts,
        started: Instant::now(),
        latest: Mutex::default(),
    };
    Router::new()
        .route("/", get(|| async { Json(json!({"status": "running"})) }))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/{function}", post(invoke))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Arc::new(server))
}

async fn invoke(
    State(server): State<Arc<Server>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let function = match function.as_str() {
        "detect" => "detect",
        "replay" => "replay",
        other => {
            return failure(
                StatusCode::NOT_FOUND,
                format!("there is no function {other:?} here"),
            );
        }
    };
    // The routes are the host's: it names every invocation, and nobody else has business here.
    let Some(id) = headers
        .get("x-azure-functions-invocationid")
        .and_then(|id| id.to_str().ok())
    else {
        let reason = "invocations come from the Functions host, which names each in X-Azure-Functions-InvocationId";
        return failure(StatusCode::FORBIDDEN, reason.to_owned());
    };
    let span = tracing::info_span!("invocation", id, function);
    // A task of its own: a panic ends this invocation alone, and a host that hangs up does not cut the
    // work in half.
    let work = {
        let server = Arc::clone(&server);
        tokio::spawn(async move { run(&server, function, &body).await }.instrument(span.clone()))
    };
    let (outcome, result) = match work.await {
        Ok(Ok(outcome)) => ("ok", Ok(outcome)),
        Ok(Err(refusal)) => ("failed", Err(telemetry::one_line(&refusal))),
        Err(error) => (
            "panicked",
            Err(format!("a defect of lapwing: {}", panic_text(error))),
        ),
    };
    telemetry::INVOCATIONS
        .with_label_values(&[function, outcome])
        .inc();
    let _entered = span.enter();
    server.note(function, result.as_ref().err());
    match result {
        Ok(outcome) => Json(outcome).into_response(),
        Err(reason) => {
            tracing::error!(%reason, "Invocation failed; the host will bring it again.");
            failure(StatusCode::INTERNAL_SERVER_ERROR, reason)
        }
    }
}

async fn run(server: &Server, function: &'static str, body: &[u8]) -> Result<Outcome, Refusal> {
    let invocation = Invocation::parse(body)?;
    let retry = invocation.retry_count();
    if retry > 0 {
        tracing::warn!(retry, "The host retries this invocation.");
    }
    match function {
        "detect" => {
            let pipeline = server
                .parts
                .detect
                .as_ref()
                .map_err(|reason| Refusal::Misconfigured(reason.clone()))?;
            let _in_progress = InProgress::start();
            functions::detect::detect(pipeline, &invocation).await
        }
        _ => {
            let replayer = server
                .parts
                .replay
                .as_ref()
                .map_err(|reason| Refusal::Misconfigured(reason.clone()))?;
            functions::replay::replay(replayer, &invocation).await
        }
    }
}

/// Shows the batch in progress, and its duration once it ends.
struct InProgress(Instant);

impl InProgress {
    fn start() -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        telemetry::BATCH_STARTED.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        Self(Instant::now())
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        telemetry::BATCH_STARTED.set(0);
        telemetry::BATCH_SECONDS.observe(self.0.elapsed().as_secs_f64());
    }
}

impl Server {
    fn note(&self, function: &'static str, failure: Option<&String>) {
        let now = Timestamp::from_micros(chrono::Utc::now().timestamp_micros()).to_string();
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = latest.entry(function).or_default();
        match failure {
            None => {
                entry.succeeded_at = Some(now);
                entry.failure = None;
            }
            Some(reason) => {
                entry.failed_at = Some(now);
                entry.failure = Some(reason.clone());
            }
        }
    }

    fn function_health(&self, function: &'static str, misconfigured: Option<&String>) -> Value {
        let latest = self
            .latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(function)
            .cloned()
            .unwrap_or_default();
        let failure = misconfigured.or(latest.failure.as_ref());
        json!({
            "status": if failure.is_some() { "failing" } else { "ok" },
            "reason": failure,
            "lastSuccess": latest.succeeded_at,
            "lastFailure": latest.failed_at,
        })
    }
}

/// The full state for people and probes; 503 while something fails, with the reason.
async fn health(State(server): State<Arc<Server>>) -> Response {
    let parts = &server.parts;
    let detect = server.function_health("detect", parts.detect.as_ref().err());
    let replay = server.function_health("replay", parts.replay.as_ref().err());
    let is_failing = [&detect, &replay]
        .iter()
        .any(|function| function["status"] == "failing");
    let places = parts
        .detect
        .as_ref()
        .map(Pipeline::places)
        .unwrap_or_default();
    let body = json!({
        "status": if is_failing { "failing" } else { "ok" },
        "version": env!("CARGO_PKG_VERSION"),
        "uptimeSeconds": server.started.elapsed().as_secs(),
        "functions": {"detect": detect, "replay": replay},
        "stores": places,
        "settings": parts.settings,
    });
    let status = if is_failing {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    (status, Json(body)).into_response()
}

async fn metrics() -> Response {
    match telemetry::prometheus_text() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => failure(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("metrics cannot be written: {error}"),
        ),
    }
}

/// The answer that makes the host try again; its body is for people who look at the wire.
fn failure(status: StatusCode, reason: String) -> Response {
    (status, Json(Outcome::logged(vec![reason]))).into_response()
}

fn panic_text(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".to_owned()),
        Err(cancelled) => cancelled.to_string(),
    }
}
