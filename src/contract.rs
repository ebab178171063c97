//! The REST contract of the retired service as both ends need it: versions, paths, bodies. The server is
//! [`crate::api`], the client [`crate::remote`].

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::detector::{Boundary, Model};

mod model;
mod schema;

pub use model::{
    ChangePointAnswer, ChangePointRequest, DetectRequest, EntireAnswer, Health, LastAnswer,
    SeriesPoint,
};

/// The header that carries a key.
pub const KEY_HEADER: &str = "ocp-apim-subscription-key";

/// The header that carries the number of the model that judged.
pub const MODEL_HEADER: &str = "model-id";

/// A version of the API; it decides margins and severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the service's")]
pub enum Version {
    V1_0,
    V1_1Preview,
    V1_1Preview1,
    V1_1,
}

impl Version {
    /// All versions, the oldest first.
    pub const ALL: [Self; 4] = [
        Self::V1_0,
        Self::V1_1Preview,
        Self::V1_1Preview1,
        Self::V1_1,
    ];

    /// Its segment of the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_0 => "v1.0",
            Self::V1_1Preview => "v1.1-preview",
            Self::V1_1Preview1 => "v1.1-preview.1",
            Self::V1_1 => "v1.1",
        }
    }

    /// How margins and severity are computed.
    pub fn boundary(self) -> Boundary {
        match self {
            Self::V1_0 | Self::V1_1Preview | Self::V1_1Preview1 => Boundary::V1,
            Self::V1_1 => Boundary::V2,
        }
    }

    /// Whether answers carry a severity.
    pub fn has_severity(self) -> bool {
        self != Self::V1_0
    }

    /// The version of a segment of a path, in any case.
    pub fn parse(segment: &str) -> Option<Self> {
        if segment.eq_ignore_ascii_case("v1.1-preview.2") {
            return Some(Self::V1_1Preview1);
        }
        Self::ALL
            .into_iter()
            .find(|version| segment.eq_ignore_ascii_case(version.as_str()))
    }
}

/// What is asked about a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Judge every point, by one model of the whole series.
    Entire,
    /// Judge the last point by all points before it.
    Last,
    /// Find where the trend changes.
    ChangePoint,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 3] = [Self::Entire, Self::Last, Self::ChangePoint];

    /// Its segment of the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Entire => "entire",
            Self::Last => "last",
            Self::ChangePoint => "changepoint",
        }
    }
}

/// The path of `operation` in `version`, below the endpoint.
pub fn path(version: Version, operation: Operation) -> String {
    let (version, operation) = (version.as_str(), operation.as_str());
    format!("/anomalydetector/{version}/timeseries/{operation}/detect")
}

/// Body of an error in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlatError {
    /// What programs match on.
    pub code: String,
    /// What people read.
    pub message: String,
}

/// Body of an error about route, key, rate or availability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NestedError {
    /// Its code is the status, as text.
    pub error: FlatError,
}

/// The number by which the service named the model that judged; it is known for two of them.
pub fn model_id(model: Model) -> Option<&'static str> {
    match model {
        Model::AnomalyDetector | Model::AnomalyDetectorMad => Some("10"),
        Model::SpectralResidual | Model::SpectralResidualZScore => Some("20"),
        Model::DynamicThreshold | Model::DynamicThresholdMad => None,
    }
}
