//! A detector at the other end of a URL: another Lapwing, or anything that speaks the retired service's
//! REST contract, in place of the embedded one.
//!
//! Every call has a deadline and a bounded number of tries; a detector that keeps failing is left alone
//! for a while (`breaker`), so that a dead one does not cost every batch its deadline.

mod breaker;

use std::cell::RefCell;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use azure_core::http::headers::HeaderName;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{
    ClientOptions, Context, ExponentialRetryOptions, Method, Pipeline, PipelineSendOptions,
    RawResponse, Request, RetryOptions, Transport, Url,
};

use self::breaker::Breaker;
use crate::config::{
    ANOMALY_DETECTOR_ENDPOINT, ANOMALY_DETECTOR_KEY, InvalidSetting, REMOTE_DEADLINE,
    REMOTE_ON_FAILURE, Settings, Span,
};
use crate::contract::{
    DetectRequest, EntireAnswer, FlatError, KEY_HEADER, LastAnswer, MODEL_HEADER, NestedError,
    Operation, Version, path,
};
use crate::detector::{
    Boundary, DetectError, EntireVerdict, ErrorCode, LastVerdict, Model, Options, Workspace,
};
use crate::series::Timestamp;

/// Tries of one call, the first included.
const TRIES: u32 = 4;
/// Longest time for a connection to stand.
const CONNECT: Duration = Duration::from_secs(5);

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::new(Workspace::new());
}

/// A detector at the other end of a URL.
#[derive(Debug)]
pub struct RemoteDetector {
    endpoint: Url,
    pipeline: Pipeline,
    deadline: Duration,
    breaker: Breaker,
    on_failure: OnFailure,
}

/// What happens to a point when the remote detector fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The embedded detector judges it.
    Embedded,
    /// The caller gets the error: a batch fails, and Kafka keeps it.
    Fail,
}

impl FromStr for OnFailure {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word.to_ascii_lowercase().as_str() {
            "embedded" => Ok(Self::Embedded),
            "fail" => Ok(Self::Fail),
            _ => Err("expected embedded or fail"),
        }
    }
}

/// Why the remote detector gave no verdict.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It refuses the series; so would any other try, and the embedded detector.
    #[error("the remote detector refuses the series: {0}")]
    Refused(#[from] DetectError),
    /// It refuses the caller: endpoint or key have to be set right.
    #[error(
        "the remote detector at {endpoint} refuses the call with status {status}: {message}; check ANOMALY_DETECTOR_ENDPOINT and ANOMALY_DETECTOR_KEY"
    )]
    Denied {
        /// Where it is.
        endpoint: Url,
        /// 401, 403, 404 and their like.
        status: u16,
        /// What it says.
        message: String,
    },
    /// It cannot be reached, does not answer in time or answers with a failure of its own, after all
    /// tries; later it may.
    #[error("the remote detector at {endpoint} is unavailable: {reason}; try again later")]
    Unavailable {
        /// Where it is.
        endpoint: Url,
        /// What happened last.
        reason: String,
    },
    /// It answers with something that is no verdict.
    #[error("the answer of the remote detector at {endpoint} is no verdict: {reason}")]
    Unintelligible {
        /// Where it is.
        endpoint: Url,
        /// What is wrong with it.
        reason: String,
    },
}

impl RemoteDetector {
    /// The remote detector that the settings name; `None` without `ANOMALY_DETECTOR_ENDPOINT`.
    pub fn from_settings(settings: &Settings) -> Result<Option<Self>, InvalidSetting> {
        let Some(endpoint) = settings.get(&ANOMALY_DETECTOR_ENDPOINT) else {
            return Ok(None);
        };
        let invalid =
            |reason: String| InvalidSetting::new(&ANOMALY_DETECTOR_ENDPOINT, endpoint, reason);
        let url = endpoint_url(endpoint).map_err(invalid)?;
        let key = settings.get(&ANOMALY_DETECTOR_KEY).unwrap_or_default();
        let Span(deadline) = settings.required(&REMOTE_DEADLINE)?;
        let on_failure = settings.required(&REMOTE_ON_FAILURE)?;
        let remote = Self::new(url, key, deadline, on_failure)
            .map_err(|error| InvalidSetting::new(&ANOMALY_DETECTOR_KEY, key, error))?;
        Ok(Some(remote))
    }

    /// The detector at `endpoint`, the part of its URL before `/anomalydetector`. A call takes at most
    /// `deadline`, all tries together.
    pub fn new(
        endpoint: Url,
        key: &str,
        deadline: Duration,
        on_failure: OnFailure,
    ) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT.min(deadline))
            .read_timeout(deadline)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let options = ClientOptions {
            retry: RetryOptions::exponential(ExponentialRetryOptions {
                max_retries: TRIES - 1,
                max_delay: azure_core::time::Duration::seconds(2),
                ..ExponentialRetryOptions::default()
            }),
            transport: Some(Transport::new(Arc::new(client))),
            ..ClientOptions::default()
        };
        let key = Arc::new(KeyPolicy(key.to_owned()));
        let pipeline = Pipeline::new(
            option_env!("CARGO_PKG_NAME"),
            option_env!("CARGO_PKG_VERSION"),
            options,
            Vec::new(),
            vec![key],
            None,
        );
        Ok(Self {
            endpoint,
            pipeline,
            deadline,
            breaker: Breaker::default(),
            on_failure,
        })
    }

    /// What happens when it fails.
    pub fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    /// Judges the last point of the series called `series`, whose points are `values` at `timestamps`.
    /// Where the remote detector fails and [`OnFailure::Embedded`] holds, the embedded one judges on a
    /// thread for blocking work; refusals are final either way.
    pub async fn last(
        &self,
        series: &str,
        timestamps: &[Timestamp],
        values: &[f64],
        options: &Options,
    ) -> Result<LastVerdict, RemoteError> {
        match self.last_remote(timestamps, values, options).await {
            Err(RemoteError::Refused(refusal)) => Err(refusal.into()),
            Err(error) if self.on_failure == OnFailure::Embedded => {
                tracing::warn!(series, %error, "Judged by the embedded detector instead.");
                let (timestamps, values) = (timestamps.to_vec(), values.to_vec());
                let options = *options;
                let judged = tokio::task::spawn_blocking(move || {
                    WORKSPACE.with_borrow_mut(|w| w.last(&timestamps, &values, &options))
                });
                match judged.await {
                    Ok(verdict) => Ok(verdict?),
                    Err(defect) => std::panic::resume_unwind(defect.into_panic()),
                }
            }
            other => other,
        }
    }

    /// [`RemoteDetector::last`] without the embedded detector's help.
    pub async fn last_remote(
        &self,
        timestamps: &[Timestamp],
        values: &[f64],
        options: &Options,
    ) -> Result<LastVerdict, RemoteError> {
        let response = self
            .call(Operation::Last, timestamps, values, options)
            .await?;
        let answer: LastAnswer = self.read(&response)?;
        Ok(answer.into_verdict(model(&response)))
    }

    /// Judges every point of a series.
    pub async fn entire(
        &self,
        timestamps: &[Timestamp],
        values: &[f64],
        options: &Options,
    ) -> Result<EntireVerdict, RemoteError> {
        let response = self
            .call(Operation::Entire, timestamps, values, options)
            .await?;
        let answer: EntireAnswer = self.read(&response)?;
        let n = values.len();
        answer.into_verdict(n, model(&response)).ok_or_else(|| {
            self.unintelligible(format!("its lists are not as long as the series, {n}"))
        })
    }

    /// One call, through the breaker and within the deadline.
    async fn call(
        &self,
        operation: Operation,
        timestamps: &[Timestamp],
        values: &[f64],
        options: &Options,
    ) -> Result<RawResponse, RemoteError> {
        let Some(permit) = self.breaker.ask(Instant::now()) else {
            let reason = "it failed too often lately and is left alone for a while";
            return Err(self.unavailable(reason));
        };
        let sent = self.send(operation, timestamps, values, options);
        let result = match tokio::time::timeout(self.deadline, sent).await {
            Ok(result) => result,
            Err(_) => {
                let seconds = self.deadline.as_secs_f64();
                Err(self.unavailable(format!("no answer within {seconds} s")))
            }
        };
        match &result {
            Err(RemoteError::Unavailable { .. }) => permit.failed(Instant::now()),
            _ => permit.succeeded(),
        }
        result
    }

    async fn send(
        &self,
        operation: Operation,
        timestamps: &[Timestamp],
        values: &[f64],
        options: &Options,
    ) -> Result<RawResponse, RemoteError> {
        let version = match options.boundary {
            // The previews compute as v1.0 does and tell the severity too.
            Boundary::V1 => Version::V1_1Preview1,
            Boundary::V2 | Boundary::V3 => Version::V1_1,
        };
        let mut url = self.endpoint.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&(base + &path(version, operation)));
        let mut request = Request::new(url, Method::Post);
        request.insert_header("content-type", "application/json");
        request.insert_header("accept", "application/json");
        let body = serde_json::to_vec(&DetectRequest::new(timestamps, values, options)).map_err(
            |error| self.unintelligible(format!("the request cannot be written: {error}")),
        )?;
        request.set_body(body);
        let options = PipelineSendOptions {
            skip_checks: true,
            ..PipelineSendOptions::default()
        };
        let response = self
            .pipeline
            .send(&Context::new(), &mut request, Some(options))
            .await
            .map_err(|error| self.unavailable(crate::telemetry::one_line(&error)))?;
        let status = u16::from(response.status());
        match status {
            200 => Ok(response),
            408 | 429 | 500.. => Err(self.unavailable(format!(
                "status {status}: {}",
                told(response.body().as_ref()).1
            ))),
            400 | 413 => {
                let (code, message) = told(response.body().as_ref());
                match error_code(&code) {
                    Some(code) => Err(DetectError::new(code, message).into()),
                    None => Err(self.unintelligible(format!("status {status}, {code}: {message}"))),
                }
            }
            _ => Err(RemoteError::Denied {
                endpoint: self.endpoint.clone(),
                status,
                message: told(response.body().as_ref()).1,
            }),
        }
    }

    fn read<T: serde::de::DeserializeOwned>(
        &self,
        response: &RawResponse,
    ) -> Result<T, RemoteError> {
        serde_json::from_slice(response.body().as_ref())
            .map_err(|error| self.unintelligible(error.to_string()))
    }

    fn unavailable(&self, reason: impl Into<String>) -> RemoteError {
        RemoteError::Unavailable {
            endpoint: self.endpoint.clone(),
            reason: reason.into(),
        }
    }

    fn unintelligible(&self, reason: String) -> RemoteError {
        RemoteError::Unintelligible {
            endpoint: self.endpoint.clone(),
            reason,
        }
    }
}

/// The URL of an endpoint as settings and arguments give it.
pub fn endpoint_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("expected a URL such as https://example.com".to_owned());
    }
    Ok(url)
}

/// Puts the key on every try.
struct KeyPolicy(String);

impl std::fmt::Debug for KeyPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyPolicy")
    }
}

#[async_trait]
impl Policy for KeyPolicy {
    async fn send(
        &self,
        context: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        request.insert_header(KEY_HEADER, self.0.clone());
        next[0].send(context, request, &next[1..]).await
    }
}

/// The model that judged, as far as the answer tells: it has numbers for two families, and none is
/// known of the third.
fn model(response: &RawResponse) -> Model {
    let id = HeaderName::from_static(MODEL_HEADER);
    match response.headers().get_optional_str(&id) {
        Some("10") => Model::AnomalyDetector,
        Some("20") => Model::SpectralResidual,
        _ => Model::DynamicThreshold,
    }
}

/// Code and message of an error's body, flat or nested; whatever it holds if it is neither.
fn told(body: &[u8]) -> (String, String) {
    let flat = serde_json::from_slice::<FlatError>(body);
    let nested = || serde_json::from_slice::<NestedError>(body).map(|body| body.error);
    match flat.or_else(|_| nested()) {
        Ok(error) => (error.code, error.message),
        Err(_) => {
            let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
            (String::new(), text.replace(['\r', '\n'], " "))
        }
    }
}

/// The codes that a request's series or options can be refused with.
fn error_code(name: &str) -> Option<ErrorCode> {
    [
        ErrorCode::BadArgument,
        ErrorCode::InvalidJsonFormat,
        ErrorCode::RequiredGranularity,
        ErrorCode::RequiredSeries,
        ErrorCode::InvalidGranularity,
        ErrorCode::InvalidCustomInterval,
        ErrorCode::InvalidPeriod,
        ErrorCode::InvalidModelArgument,
        ErrorCode::InvalidImputeMode,
        ErrorCode::InvalidImputeFixedValue,
        ErrorCode::InvalidSeries,
    ]
    .into_iter()
    .find(|code| code.as_str() == name)
}
