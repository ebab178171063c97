//! What the detector refuses: the retired service's codes and texts, which users match on.
//!
//! The spelling of every text is the service's own, mistakes included.

use std::fmt;
use std::num::NonZeroU32;

use super::options::Granularity;

/// The name of an error in the contract; clients match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(
    missing_docs,
    reason = "the names are the contract's; the messages beside them say what they mean"
)]
pub enum ErrorCode {
    BadArgument,
    InvalidJsonFormat,
    RequiredGranularity,
    RequiredSeries,
    InvalidGranularity,
    InvalidCustomInterval,
    InvalidPeriod,
    InvalidModelArgument,
    InvalidImputeMode,
    InvalidImputeFixedValue,
    InvalidFillUpMode,
    InvalidFixedValue,
    InvalidBoundaryVersion,
    MissingDetectorParameters,
    InvalidDetectorParameters,
    MissingDetectorName,
    InvalidDetector,
    InvalidSeries,
}

impl ErrorCode {
    /// The code as the contract writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadArgument => "BadArgument",
            Self::InvalidJsonFormat => "InvalidJsonFormat",
            Self::RequiredGranularity => "RequiredGranularity",
            Self::RequiredSeries => "RequiredSeries",
            Self::InvalidGranularity => "InvalidGranularity",
            Self::InvalidCustomInterval => "InvalidCustomInterval",
            Self::InvalidPeriod => "InvalidPeriod",
            Self::InvalidModelArgument => "InvalidModelArgument",
            Self::InvalidImputeMode => "InvalidImputeMode",
            Self::InvalidImputeFixedValue => "InvalidImputeFixedValue",
            Self::InvalidFillUpMode => "InvalidFillUpMode",
            Self::InvalidFixedValue => "InvalidFixedValue",
            Self::InvalidBoundaryVersion => "InvalidBoundaryVersion",
            Self::MissingDetectorParameters => "MissingDetectorParameters",
            Self::InvalidDetectorParameters => "InvalidDetectorParameters",
            Self::MissingDetectorName => "MissingDetectorName",
            Self::InvalidDetector => "InvalidDetector",
            Self::InvalidSeries => "InvalidSeries",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a series was not judged: a code of the contract and its text. The caller can only change the
/// request; trying again gives the same answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct DetectError {
    /// What clients match on.
    pub code: ErrorCode,
    /// What people read.
    pub message: String,
}

impl DetectError {
    /// `code` with the text `message`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn no_data() -> Self {
        let text = "Invalid Input Format, input data is Empty.";
        Self::new(ErrorCode::BadArgument, text)
    }

    pub(crate) fn granularity() -> Self {
        let text = "The 'granularity' field can only be one of the following: ['daily', 'minutely', 'hourly', 'weekly', 'monthly', 'yearly', 'secondly', 'microsecond', 'none'].";
        Self::new(ErrorCode::InvalidGranularity, text)
    }

    pub(crate) fn custom_interval() -> Self {
        let text = "The 'customInterval' field must be an integer > 0.";
        Self::new(ErrorCode::InvalidCustomInterval, text)
    }

    pub(crate) fn period() -> Self {
        let text = "The 'period' field must be an integer >= 0.";
        Self::new(ErrorCode::InvalidPeriod, text)
    }

    pub(crate) fn alpha() -> Self {
        let text = "The 'alpha' field must > 0.";
        Self::new(ErrorCode::InvalidModelArgument, text)
    }

    pub(crate) fn anomaly_ratio() -> Self {
        let text = "The 'maxAnomalyRatio' field must be less than 50% of the series points (0 < maxAnomalyRatio < 0.5).";
        Self::new(ErrorCode::InvalidModelArgument, text)
    }

    pub(crate) fn sensitivity() -> Self {
        let text = "The 'sensitivity' field must be an integer between 0 and 99.";
        Self::new(ErrorCode::InvalidModelArgument, text)
    }

    pub(crate) fn threshold() -> Self {
        let text = "The 'threshold' field must be a float.";
        Self::new(ErrorCode::InvalidModelArgument, text)
    }

    pub(crate) fn impute_mode(code: ErrorCode) -> Self {
        let text = "The 'imputeMode' field is required and should be one of the following: ['last', 'no', 'auto', 'previous', 'linear', 'zero', 'fixed', 'notFill'].";
        Self::new(code, text)
    }

    pub(crate) fn impute_value(code: ErrorCode) -> Self {
        let text = "The 'imputeFixedValue' field must be a number.";
        Self::new(code, text)
    }

    pub(crate) fn boundary_version() -> Self {
        let text = "The 'boundaryVersion' field can only be one of the following: dict_keys(['V1', 'V2', 'V3']).";
        Self::new(ErrorCode::InvalidBoundaryVersion, text)
    }

    pub(crate) fn detector_parameters_missing() -> Self {
        let text = "The 'parameters' field is missing in 'detector' in request.";
        Self::new(ErrorCode::MissingDetectorParameters, text)
    }

    pub(crate) fn detector_parameters() -> Self {
        let text = "The 'parameters' field is malformed in request.";
        Self::new(ErrorCode::InvalidDetectorParameters, text)
    }

    pub(crate) fn detector_name_missing() -> Self {
        let text = "The 'name' field is missing in 'detector' in request.";
        Self::new(ErrorCode::MissingDetectorName, text)
    }

    pub(crate) fn detector_name() -> Self {
        let text = "The 'name' field is malformed in 'detector' in request.";
        Self::new(ErrorCode::InvalidDetector, text)
    }

    pub(crate) fn detector_combination(name: &str) -> Self {
        let text = format!("Illegal detector name '{name}' and parameter combination.");
        Self::new(ErrorCode::InvalidDetector, text)
    }

    pub(crate) fn series_type() -> Self {
        let text = "The 'series' field must be array/list type.";
        Self::new(ErrorCode::BadArgument, text)
    }

    pub(crate) fn too_few_points() -> Self {
        let text = "The 'series' field must have at least 12 points.";
        Self::new(ErrorCode::InvalidSeries, text)
    }

    pub(crate) fn too_many_points() -> Self {
        let text = "The 'series' field cannot have more than 8640 points.";
        Self::new(ErrorCode::InvalidSeries, text)
    }

    pub(crate) fn series_format() -> Self {
        let text = "'timestamp' or 'value' is malformed in 'series' Field.";
        Self::new(ErrorCode::BadArgument, text)
    }

    pub(crate) fn value_overflow() -> Self {
        let text = "The magnitude of data in 'value' in 'series' filed is too large.";
        Self::new(ErrorCode::InvalidSeries, text)
    }

    pub(crate) fn value_missing() -> Self {
        let text = "The 'series' field cannot have none values.";
        Self::new(ErrorCode::BadArgument, text)
    }

    pub(crate) fn series_order() -> Self {
        let text = "The 'series' field must be sorted by timestamp in ascending order.";
        Self::new(ErrorCode::InvalidSeries, text)
    }

    pub(crate) fn duplicate_timestamp() -> Self {
        let text = "The 'series' field cannot have duplicated timestamp.";
        Self::new(ErrorCode::InvalidSeries, text)
    }

    pub(crate) fn off_grid(index: usize, granularity: Granularity, interval: NonZeroU32) -> Self {
        let text = format!(
            "The 'timestamp' at index {index} is invalid in {granularity} granularity with {interval} gran as interval."
        );
        Self::new(ErrorCode::InvalidSeries, text)
    }

    pub(crate) fn insufficient_points() -> Self {
        let text = "The 'series' field must have more than 2 periods points";
        Self::new(ErrorCode::InvalidModelArgument, text)
    }

    pub(crate) fn too_many_gaps(wanted: u64, got: usize) -> Self {
        let text = format!(
            "Ratio of missing points should be less than 50% for seasonal timeseries. There should be at least {wanted} points, but got {got} points."
        );
        Self::new(ErrorCode::InvalidSeries, text)
    }
}
