//! What the API refuses, in the service's two shapes: flat for requests, nested for what its gateway said.
//!
//! Clients lean on the split, on a JSON body under every status, and on `Retry-After` only where
//! trying again helps.

use axum::http::StatusCode;

use crate::contract::{FlatError, NestedError};
use crate::detector::DetectError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Flat,
    Nested,
}

/// A refused call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    shape: Shape,
    error: FlatError,
    /// Seconds after which trying again makes sense.
    pub(crate) retry_after: Option<u64>,
    /// The methods of the route.
    pub(crate) allow: Option<&'static str>,
    /// The connection cannot serve on.
    pub(crate) close: bool,
}

impl ApiError {
    fn flat(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            shape: Shape::Flat,
            error: FlatError {
                code: code.to_owned(),
                message: message.into(),
            },
            retry_after: None,
            allow: None,
            close: false,
        }
    }

    fn nested(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            shape: Shape::Nested,
            ..Self::flat(status, status.as_str(), message)
        }
    }

    pub(crate) fn not_found() -> Self {
        let text = "Resource not found. Paths are anomalydetector/{version}/timeseries/{entire|last|changepoint}/detect with version v1.0, v1.1-preview, v1.1-preview.1 or v1.1.";
        Self::nested(StatusCode::NOT_FOUND, text)
    }

    pub(crate) fn method(allow: &'static str) -> Self {
        let text = format!("Method not allowed. This path takes {allow}.");
        Self {
            allow: Some(allow),
            ..Self::nested(StatusCode::METHOD_NOT_ALLOWED, text)
        }
    }

    pub(crate) fn wrong_key() -> Self {
        let text = "Access denied due to invalid subscription key. Send one of this server's keys in the header Ocp-Apim-Subscription-Key.";
        Self::nested(StatusCode::UNAUTHORIZED, text)
    }

    pub(crate) fn no_key_configured() -> Self {
        let text = "Access denied: this server has no key. Set Api__Key1, or Api__AllowAnonymous=true to serve without keys.";
        Self::nested(StatusCode::UNAUTHORIZED, text)
    }

    pub(crate) fn rate(retry_after: std::time::Duration) -> Self {
        let seconds = (retry_after.as_secs_f64().ceil() as u64).max(1);
        let text = format!("Rate limit is exceeded. Try again in {seconds} seconds.");
        Self {
            retry_after: Some(seconds),
            ..Self::nested(StatusCode::TOO_MANY_REQUESTS, text)
        }
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let text = format!("The request body is larger than {limit} bytes.");
        Self {
            close: true,
            ..Self::flat(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", text)
        }
    }

    pub(crate) fn encoding() -> Self {
        let text = "The request body has an unknown Content-Encoding. Send it as it is or as gzip.";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self::flat(status, "UnsupportedMediaType", text)
    }

    pub(crate) fn body_late() -> Self {
        Self {
            close: true,
            ..Self::nested(
                StatusCode::REQUEST_TIMEOUT,
                "The request body did not arrive in time.",
            )
        }
    }

    pub(crate) fn not_implemented() -> Self {
        let text = "Multivariate detection is not available here. Available are the univariate operations timeseries/entire/detect, timeseries/last/detect and timeseries/changepoint/detect.";
        Self::flat(StatusCode::NOT_IMPLEMENTED, "NotImplemented", text)
    }

    /// A defect of ours; `message` is for the caller.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::flat(status, "InternalServerError", message)
    }

    pub(crate) fn overloaded() -> Self {
        Self {
            retry_after: Some(1),
            ..Self::nested(
                StatusCode::SERVICE_UNAVAILABLE,
                "The server is overloaded. Try again in 1 second.",
            )
        }
    }

    pub(crate) fn unconfigured() -> Self {
        let text = "This server has no key. Set Api__Key1, or Api__AllowAnonymous=true to serve without keys.";
        Self {
            retry_after: Some(30),
            ..Self::nested(StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }

    /// The code that goes into `x-ms-error-code` too.
    pub(crate) fn flat_code(&self) -> Option<&str> {
        (self.shape == Shape::Flat).then_some(&self.error.code)
    }

    pub(crate) fn code(&self) -> &str {
        &self.error.code
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let body = match self.shape {
            Shape::Flat => serde_json::to_vec(&self.error),
            Shape::Nested => serde_json::to_vec(&NestedError {
                error: self.error.clone(),
            }),
        };
        body.expect("two strings are always JSON")
    }
}

impl From<DetectError> for ApiError {
    fn from(error: DetectError) -> Self {
        Self::flat(StatusCode::BAD_REQUEST, error.code.as_str(), error.message)
    }
}
