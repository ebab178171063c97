//! The univariate anomaly detector: a series and options in, verdicts out. Pure: no I/O, no clock.
//!
//! It gives the verdicts of the retired Azure AI Anomaly Detector. The stages live in one file each,
//! listed in the order in which data flows through them; [`Workspace`] owns their scratch memory.

mod error;
mod options;

pub mod grid;

pub use error::{DetectError, ErrorCode};
pub use options::{
    Boundary, Granularity, Impute, InvalidSensitivity, Manual, Options, Sensitivity,
    UnknownGranularity,
};

use crate::series::Timestamp;

/// Fewest points of a series.
pub const MIN_POINTS: usize = 12;
/// Most points of a series.
pub const MAX_POINTS: usize = 8640;
/// Largest magnitude of a value.
pub const MAX_MAGNITUDE: f64 = 1e100;

/// A series to judge: points in ascending order.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// One instant per value; not looked at, and may be empty, without a granularity.
    pub timestamps: &'a [Timestamp],
    /// Minutes east of UTC in which each timestamp was written; months and years are counted in it.
    /// `None`: UTC.
    pub offsets: Option<&'a [i16]>,
    /// The measurements.
    pub values: &'a [f64],
}

/// Which of the detector's models judged a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub enum Model {
    AnomalyDetector,
    AnomalyDetectorMad,
    DynamicThreshold,
    DynamicThresholdMad,
    SpectralResidual,
    SpectralResidualZScore,
}

impl Model {
    /// The name that the service gave it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AnomalyDetector => "AnomalyDetector",
            Self::AnomalyDetectorMad => "AnomalyDetectorMad",
            Self::DynamicThreshold => "DynamicThreshold",
            Self::DynamicThresholdMad => "DynamicThresholdMad",
            Self::SpectralResidual => "SpectralResidual",
            Self::SpectralResidualZScore => "SpectralResidual_ZScore",
        }
    }
}

/// What is said of one point.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PointVerdict {
    /// It is an anomaly; positive or negative, never both.
    pub is_anomaly: bool,
    /// It lies above what was expected.
    pub is_positive_anomaly: bool,
    /// It lies below what was expected.
    pub is_negative_anomaly: bool,
    /// The value that the series led to expect.
    pub expected_value: f64,
    /// Step of the band above the expected value; the band ends `100 - margin scale` steps off it.
    pub upper_margin: f64,
    /// Step of the band below it.
    pub lower_margin: f64,
    /// How far off it is: 0..=1.
    pub severity: f64,
}

/// The verdict on the last point of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LastVerdict {
    /// It is an anomaly; positive or negative, never both.
    pub is_anomaly: bool,
    /// It lies above what was expected.
    pub is_positive_anomaly: bool,
    /// It lies below what was expected.
    pub is_negative_anomaly: bool,
    /// The value that the series led to expect.
    pub expected_value: f64,
    /// Step of the band above the expected value; the band ends `100 - margin scale` steps off it.
    pub upper_margin: f64,
    /// Step of the band below it.
    pub lower_margin: f64,
    /// How far off it is: 0..=1.
    pub severity: f64,
    /// Points per season; 0: none.
    pub period: u32,
    /// Points to send next time.
    pub suggested_window: u32,
    /// Which model judged.
    pub model: Model,
}

/// The verdict on every point of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct EntireVerdict {
    /// One per point of the series, in its order.
    pub points: Vec<PointVerdict>,
    /// Points per season; 0: none.
    pub period: u32,
    /// Which model judged.
    pub model: Model,
}

/// The scratch memory of the detector: make one per thread and keep it, so that a warm verdict
/// allocates next to nothing.
#[derive(Debug, Default)]
pub struct Workspace {
    indices: Vec<i64>,
}

impl Workspace {
    /// Empty scratch memory; it grows to what the first verdicts need.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges the last point of the series whose points are `values` at `timestamps`.
    pub fn last(
        &mut self,
        timestamps: &[Timestamp],
        values: &[f64],
        options: &Options,
    ) -> Result<LastVerdict, DetectError> {
        self.last_of(
            Series {
                timestamps,
                offsets: None,
                values,
            },
            options,
        )
    }

    /// Judges every point of the series whose points are `values` at `timestamps`.
    pub fn entire(
        &mut self,
        timestamps: &[Timestamp],
        values: &[f64],
        options: &Options,
    ) -> Result<EntireVerdict, DetectError> {
        self.entire_of(
            Series {
                timestamps,
                offsets: None,
                values,
            },
            options,
        )
    }

    /// [`Workspace::last`] for a series that may carry the offsets it was written in.
    pub fn last_of(
        &mut self,
        series: Series<'_>,
        options: &Options,
    ) -> Result<LastVerdict, DetectError> {
        self.validate(&series, options)?;
        Err(DetectError::new(
            ErrorCode::BadArgument,
            "not available on this branch yet",
        ))
    }

    /// [`Workspace::entire`] for a series that may carry the offsets it was written in.
    pub fn entire_of(
        &mut self,
        series: Series<'_>,
        options: &Options,
    ) -> Result<EntireVerdict, DetectError> {
        self.validate(&series, options)?;
        Err(DetectError::new(
            ErrorCode::BadArgument,
            "not available on this branch yet",
        ))
    }

    /// The checks of options and series, in the service's order; leaves the grid positions behind.
    fn validate(&mut self, series: &Series<'_>, options: &Options) -> Result<(), DetectError> {
        options.validate()?;
        let (values, n) = (series.values, series.values.len());
        if n == 0 {
            return Err(DetectError::no_data());
        }
        if n < MIN_POINTS {
            return Err(DetectError::too_few_points());
        }
        if n > MAX_POINTS {
            return Err(DetectError::too_many_points());
        }
        let on_grid = options.granularity != Granularity::None;
        let offsets_fit = series.offsets.is_none_or(|offsets| offsets.len() == n);
        if on_grid && (series.timestamps.len() != n || !offsets_fit) {
            return Err(DetectError::series_format());
        }
        if values.iter().any(|value| value.abs() > MAX_MAGNITUDE) {
            return Err(DetectError::value_overflow());
        }
        if values.iter().any(|value| value.is_nan()) {
            return Err(DetectError::value_missing());
        }
        if !on_grid {
            self.indices.clear();
            self.indices.extend(0..n as i64);
            return Ok(());
        }
        for pair in series.timestamps.windows(2) {
            match pair[0].cmp(&pair[1]) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Err(DetectError::duplicate_timestamp()),
                std::cmp::Ordering::Greater => return Err(DetectError::series_order()),
            }
        }
        grid::indices(
            options.granularity,
            options.custom_interval,
            series.timestamps,
            series.offsets,
            &mut self.indices,
        )?;
        let slots = self.indices[n - 1] as i128 + 1;
        if let Some(period) = options.period {
            let needed = 2 * i128::from(period) + 1;
            if slots < needed || options.impute == Impute::NotFill && (n as i128) < needed {
                return Err(DetectError::insufficient_points());
            }
        }
        Ok(())
    }
}
