//! What can be asked of the detector; the defaults are the retired service's.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use super::error::{DetectError, ErrorCode};

/// Unit of the time grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// Calendar years.
    Yearly,
    /// Calendar months.
    Monthly,
    /// Seven days.
    Weekly,
    /// 86,400 seconds.
    Daily,
    /// 3,600 seconds.
    Hourly,
    /// 60 seconds.
    Minutely,
    /// One second.
    Secondly,
    /// One *millisecond*, its name notwithstanding: so the service counted.
    Microsecond,
    /// No grid: points count as evenly spaced and timestamps are not looked at.
    #[default]
    None,
}

impl Granularity {
    /// All nine, from the coarsest to none.
    pub const ALL: [Self; 9] = [
        Self::Yearly,
        Self::Monthly,
        Self::Weekly,
        Self::Daily,
        Self::Hourly,
        Self::Minutely,
        Self::Secondly,
        Self::Microsecond,
        Self::None,
    ];

    /// The contract's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yearly => "yearly",
            Self::Monthly => "monthly",
            Self::Weekly => "weekly",
            Self::Daily => "daily",
            Self::Hourly => "hourly",
            Self::Minutely => "minutely",
            Self::Secondly => "secondly",
            Self::Microsecond => "microsecond",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no granularity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected one of yearly, monthly, weekly, daily, hourly, minutely, secondly, microsecond, none"
)]
pub struct UnknownGranularity;

impl FromStr for Granularity {
    type Err = UnknownGranularity;

    /// The contract's word, in its exact case.
    fn from_str(word: &str) -> Result<Self, UnknownGranularity> {
        Self::ALL
            .into_iter()
            .find(|granularity| granularity.as_str() == word)
            .ok_or(UnknownGranularity)
    }
}

/// How readily a point counts as an anomaly: 0 to 100, both included; a larger one flags more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sensitivity(u8);

/// A number that is no sensitivity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an integer from 0 to 100")]
pub struct InvalidSensitivity;

impl Sensitivity {
    /// The number, 0..=100.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Sensitivity {
    fn default() -> Self {
        Self(99)
    }
}

impl TryFrom<i64> for Sensitivity {
    type Error = InvalidSensitivity;

    fn try_from(number: i64) -> Result<Self, InvalidSensitivity> {
        u8::try_from(number)
            .ok()
            .filter(|number| *number <= 100)
            .map(Self)
            .ok_or(InvalidSensitivity)
    }
}

impl FromStr for Sensitivity {
    type Err = InvalidSensitivity;

    fn from_str(text: &str) -> Result<Self, InvalidSensitivity> {
        text.parse::<i64>()
            .map_err(|_| InvalidSensitivity)
            .and_then(Self::try_from)
    }
}

/// What stands in for missing grid points while a series is judged. They are never reported.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Impute {
    /// Splines for short gaps and phase averages for long ones in a seasonal series; nothing in any other.
    #[default]
    Auto,
    /// The last value before the gap.
    Previous,
    /// The straight line across the gap.
    Linear,
    /// This value.
    Fixed(f64),
    /// Nothing: the points count as adjacent.
    NotFill,
}

/// How margins are made, and with them the final flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Boundary {
    /// A share of the expected value: API v1.0.
    #[default]
    V1,
    /// A unit taken from the trend: API v1.1.
    V2,
    /// The same as [`V2`](Self::V2); the service had two names for it.
    V3,
}

/// A model chosen by hand, with its parameters, instead of by the series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manual {
    /// Seasonal decomposition; needs a period above 0.
    Seasonal {
        /// Significance of the outlier test.
        alpha: f64,
        /// Most points that may be flagged, as a share.
        max_anomaly_ratio: f64,
    },
    /// Spectral residual.
    SpectralResidual {
        /// Least score of an anomaly.
        threshold: f64,
        /// Most points that may be flagged, as a share.
        max_anomaly_ratio: f64,
    },
    /// Dynamic threshold; needs period 0.
    DynamicThreshold {
        /// Significance of the outlier test.
        alpha: f64,
        /// Most points that may be flagged, as a share.
        max_anomaly_ratio: f64,
    },
}

impl Manual {
    /// The contract's name of the model.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seasonal { .. } => "seasonal_series",
            Self::SpectralResidual { .. } => "spectral_residual",
            Self::DynamicThreshold { .. } => "dynamic_threshold",
        }
    }
}

/// What can be asked of the detector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Unit of the time grid.
    pub granularity: Granularity,
    /// Granules from one point of the grid to the next.
    pub custom_interval: NonZeroU32,
    /// Points per season; 0 or 1: not seasonal; `None`: searched for.
    pub period: Option<u32>,
    /// Most points that may be flagged, as a share of the series: above 0, at most 0.49.
    pub max_anomaly_ratio: f64,
    /// Width of the margins.
    pub sensitivity: Sensitivity,
    /// Significance of the outlier test, above 0.
    pub alpha: f64,
    /// Least spectral residual score of an anomaly.
    pub threshold: f64,
    /// What stands in for missing points.
    pub impute: Impute,
    /// How margins are made.
    pub boundary: Boundary,
    /// A model chosen by hand; `None`: chosen by the series.
    pub manual: Option<Manual>,
}

impl Default for Options {
    /// What the service took for a request without options, with API v1.0's margins.
    fn default() -> Self {
        Self {
            granularity: Granularity::None,
            custom_interval: NonZeroU32::MIN,
            period: None,
            max_anomaly_ratio: 0.25,
            sensitivity: Sensitivity::default(),
            alpha: 0.05,
            threshold: 3.5,
            impute: Impute::Auto,
            boundary: Boundary::V1,
            manual: None,
        }
    }
}

impl Options {
    /// The defaults with API v1.1's margins, which are those that the tutorial's call got.
    pub fn v1_1() -> Self {
        Self {
            boundary: Boundary::V2,
            ..Self::default()
        }
    }

    /// Refuses numbers out of range, in the service's order.
    pub(crate) fn validate(&self) -> Result<(), DetectError> {
        if self.alpha.is_nan() || self.alpha <= 0.0 {
            return Err(DetectError::alpha());
        }
        if !(self.max_anomaly_ratio > 0.0 && self.max_anomaly_ratio <= 0.49) {
            return Err(DetectError::anomaly_ratio());
        }
        if self.threshold.is_nan() {
            return Err(DetectError::threshold());
        }
        if let Impute::Fixed(value) = self.impute
            && !value.is_finite()
        {
            return Err(DetectError::impute_value(
                ErrorCode::InvalidImputeFixedValue,
            ));
        }
        Ok(())
    }
}
