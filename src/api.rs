//! The REST API of the retired Azure AI Anomaly Detector, so that its clients change their endpoint and
//! nothing else. It knows the detector, and neither windows nor stores.
//!
//! A call passes, in this order: route (404), method (405), key (401), rate (429), size (413), and then
//! `detect`, on threads of its own. Whatever the status, the body is JSON: clients parse it before they
//! look at the status.

pub mod openapi;

mod body;
mod detect;
mod error;
mod keys;
mod pool;
mod route;
mod server;

pub use keys::Keys;
pub use server::{InvalidTls, Tls, serve_public};

use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use futures::FutureExt;

use self::body::Received;
use self::detect::Answer;
use self::error::ApiError;
use self::keys::RateLimit;
use self::pool::{NotDone, Pool};
use self::route::Route;
use crate::config::{
    API_ALLOW_ANONYMOUS, API_KEY, API_KEY1, API_KEY2, API_MAX_BODY_BYTES, API_RATE_LIMIT,
    InvalidSetting, Settings,
};
use crate::contract::{Health, KEY_HEADER, MODEL_HEADER};

/// How the API is served.
#[derive(Debug)]
pub struct ApiOptions {
    /// The keys that open it; none: every call is refused.
    pub keys: Keys,
    /// Answers without looking at keys.
    pub allow_anonymous: bool,
    /// Calls per second and key; `None`: no limit.
    pub rate_limit: Option<f64>,
    /// Largest request body, unpacked.
    pub max_body_bytes: usize,
    /// Threads that detect.
    pub threads: NonZeroUsize,
}

impl ApiOptions {
    /// The options that the settings `Api__*` and `ApiKey` ask for.
    pub fn from_settings(settings: &Settings) -> Result<Self, InvalidSetting> {
        let keys = [&API_KEY1, &API_KEY2, &API_KEY].map(|key| settings.get(key));
        let rate_limit = settings.parsed::<f64>(&API_RATE_LIMIT)?;
        if let Some(rate) = rate_limit.filter(|rate| !(0.001..=1e9).contains(rate)) {
            let reason = "expected calls per second, above 0, or nothing for no limit";
            return Err(InvalidSetting::new(
                &API_RATE_LIMIT,
                &rate.to_string(),
                reason,
            ));
        }
        let allow = settings.get(&API_ALLOW_ANONYMOUS).unwrap_or_default();
        let allow_anonymous = match allow.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => true,
            "false" | "0" | "" => false,
            _ => {
                let reason = "expected true or false";
                return Err(InvalidSetting::new(&API_ALLOW_ANONYMOUS, allow, reason));
            }
        };
        Ok(Self {
            keys: Keys::new(keys.into_iter().flatten()),
            allow_anonymous,
            rate_limit,
            max_body_bytes: settings.required(&API_MAX_BODY_BYTES)?,
            ..Self::closed()
        })
    }

    /// Without a key: every call is refused.
    pub fn closed() -> Self {
        Self {
            keys: Keys::new([]),
            allow_anonymous: false,
            rate_limit: None,
            max_body_bytes: 8 << 20,
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// The API's routes, with `/status`, `/ready`, `/swagger` and `/openapi.json`. It answers every path: a
/// path that is none of them with 404, so that another router can take it as its fallback.
///
/// The only error is that the operating system gives no threads.
pub fn public_router(options: ApiOptions) -> std::io::Result<Router> {
    let pool = Pool::new(options.threads.get()).map_err(std::io::Error::other)?;
    let callers = options.keys.len().max(1);
    let rate_limit = options
        .rate_limit
        .map(|rate| RateLimit::new(rate, callers, Instant::now()));
    let service = Arc::new(Service {
        options,
        pool,
        rate_limit,
    });
    Ok(Router::new().fallback(move |request: Request| {
        let service = Arc::clone(&service);
        async move { service.call(request).await }
    }))
}

#[derive(Debug)]
struct Service {
    options: ApiOptions,
    pool: Pool,
    rate_limit: Option<RateLimit>,
}

impl Service {
    async fn call(&self, request: Request) -> Response {
        let started = Instant::now();
        let id = uuid::Uuid::new_v4();
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let own_id = returned_id(request.headers());
        let trace = request.headers().get("traceparent").cloned();
        let result = AssertUnwindSafe(self.answer(request)).catch_unwind().await;
        let result = result.unwrap_or_else(|_| Err(defect()));
        let code = result.as_ref().err().map(ApiError::code).map(str::to_owned);
        let mut response = result.unwrap_or_else(|error| refused(&error));
        let headers = response.headers_mut();
        let text = HeaderValue::try_from(id.to_string());
        headers.insert(
            HeaderName::from_static("apim-request-id"),
            text.expect("a UUID is a header value"),
        );
        let nosniff = HeaderValue::from_static("nosniff");
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
        if let Some(own_id) = own_id {
            headers.insert("x-ms-client-request-id", own_id);
        }
        let status = response.status().as_u16();
        let trace = trace.as_ref().and_then(|trace| trace.to_str().ok());
        let (milliseconds, code) = (started.elapsed().as_millis() as u64, code.as_deref());
        match status {
            500 => {
                tracing::error!(%id, %method, path, status, code, milliseconds, trace, "Call failed.")
            }
            400.. => {
                tracing::info!(%id, %method, path, status, code, milliseconds, trace, "Call refused.")
            }
            _ => tracing::debug!(%id, %method, path, status, milliseconds, trace, "Call answered."),
        }
        response
    }

    async fn answer(&self, request: Request) -> Result<Response, ApiError> {
        let (head, body) = request.into_parts();
        let limit = self.options.max_body_bytes;
        let route = match self.admit(&head.method, head.uri.path(), &head.headers) {
            Ok(Route::Multivariate) => Err(ApiError::not_implemented()),
            Ok(route) => Ok(route),
            Err(refusal) => Err(refusal),
        };
        let route = match route {
            Ok(route) => route,
            Err(refusal) => {
                body::discard(&head.headers, body, limit).await;
                return Err(refusal);
            }
        };
        match route {
            Route::Univariate(version, operation) => {
                let body = Received::read(&head.headers, body, limit).await?;
                let work = move |workspace: &mut _| {
                    let json = body.unpacked()?;
                    detect::answer(&json, version, operation, workspace)
                };
                let answer = match self.pool.run(work).await {
                    Ok(answer) => answer?,
                    Err(NotDone::Overloaded) => return Err(ApiError::overloaded()),
                    Err(NotDone::Panicked) => return Err(defect()),
                };
                Ok(judged(answer))
            }
            Route::Multivariate => Err(ApiError::not_implemented()),
            Route::Root => Ok(health("running")),
            Route::Status if self.options.allow_anonymous || !self.options.keys.is_empty() => {
                Ok(health("ok"))
            }
            Route::Status => Err(ApiError::unconfigured()),
            Route::Ready if self.pool.has_room() => Ok(health("ready")),
            Route::Ready => Err(ApiError::overloaded()),
            Route::Swagger => Ok(page("text/html; charset=utf-8", openapi::page())),
            Route::OpenApi => Ok(page("application/json", openapi::json().to_owned())),
        }
    }

    /// Route, method, key and rate, in this order.
    fn admit(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<Route, ApiError> {
        let route = Route::parse(path).ok_or_else(ApiError::not_found)?;
        if let Some(methods) = route.methods()
            && !methods.split(", ").any(|allowed| method == allowed)
        {
            return Err(ApiError::method(methods));
        }
        if !route.is_guarded() {
            return Ok(route);
        }
        let options = &self.options;
        let key = headers.get(KEY_HEADER).map(HeaderValue::as_bytes);
        let position = options.keys.position(key.unwrap_or_default());
        let caller = match position {
            Some(caller) => caller,
            None if options.allow_anonymous => 0,
            None if options.keys.is_empty() => return Err(ApiError::no_key_configured()),
            None => return Err(ApiError::wrong_key()),
        };
        if let Some(limit) = &self.rate_limit {
            limit.take(caller, Instant::now()).map_err(ApiError::rate)?;
        }
        Ok(route)
    }
}

fn defect() -> ApiError {
    ApiError::internal("The request met a defect of the server; its log has the details.")
}

/// The caller's own id of the request, if it wants it back.
fn returned_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers.get("x-ms-return-client-request-id")?;
    wanted
        .as_bytes()
        .eq_ignore_ascii_case(b"true")
        .then(|| headers.get("x-ms-client-request-id").cloned())
        .flatten()
}

fn judged(answer: Answer) -> Response {
    let mut response = page("application/json", answer.body);
    let headers = response.headers_mut();
    // One unit per call, whatever the length of the series: so the service counted.
    headers.insert(
        "csp-billing-usage",
        HeaderValue::from_static("CognitiveServices.AnomalyDetector.DataPoints=1"),
    );
    if let Some(id) = answer.model_id {
        headers.insert(MODEL_HEADER, HeaderValue::from_static(id));
    }
    response
}

fn health(status: &str) -> Response {
    let health = Health {
        status: status.to_owned(),
    };
    let body = serde_json::to_vec(&health).expect("a string is JSON");
    page("application/json", body)
}

fn page(content_type: &'static str, body: impl Into<axum::body::Body>) -> Response {
    let mut response = Response::new(body.into());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn refused(error: &ApiError) -> Response {
    let mut response = page("application/json", error.body());
    *response.status_mut() = error.status;
    let headers = response.headers_mut();
    if let Some(code) = error.flat_code().and_then(|code| code.parse().ok()) {
        headers.insert("x-ms-error-code", code);
    }
    if let Some(seconds) = error.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(methods) = error.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    }
    if error.close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    debug_assert!(
        error.status != StatusCode::GONE,
        "what the retired service says"
    );
    response
}
