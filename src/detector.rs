//! The univariate anomaly detector: a series and options in, verdicts out. Pure: no I/O, no clock.
//!
//! It gives the verdicts of the retired Azure AI Anomaly Detector. The stages live in one file each,
//! listed in the order in which data flows through them; [`Workspace`] owns their scratch memory.

mod error;
mod options;

// The stages, in the order in which data flows through them, each after the tools it needs.
pub mod grid;
mod majority;
mod stats;

mod fill;
mod spline;

mod fourier;
mod sliding_median;
mod theil_sen;
mod trend;

mod gcv;
mod period;

mod esd;
mod sort;
mod student;

mod decomposition;
mod dynamic_threshold;
mod result;
mod seasonal;
mod spectral_residual;
mod stl;

mod differencing;
mod stationarity;

mod margins;

mod change_point;

pub use change_point::{ChangePointOptions, ChangePoints};
pub use error::{DetectError, ErrorCode};
pub use options::{
    Boundary, Granularity, Impute, InvalidSensitivity, Manual, Options, Sensitivity,
    UnknownGranularity,
};

use crate::series::Timestamp;
use differencing::Differencing;
use dynamic_threshold::Initial;
use esd::Outliers;
use fill::Gaps;
use fourier::Fourier;
use margins::Margins;
use period::Periods;
use result::Judged;
use seasonal::Seasonal;
use spectral_residual::SpectralResidual;
use trend::Trend;

/// Fewest points of a series.
pub const MIN_POINTS: usize = 12;
/// Most points of a series.
pub const MAX_POINTS: usize = 8640;
/// Largest magnitude of a value.
pub const MAX_MAGNITUDE: f64 = 1e100;
/// Share of missing points up to which a series can be seasonal.
const MOST_MISSING: f64 = 0.5;

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
    filled: Vec<f64>,
    periods: Periods,
    seasonal: Seasonal,
    spectral_residual: SpectralResidual,
    differencing: Differencing,
    tools: Tools,
    judged: Judged,
    margins: Margins,
}

/// What several models use.
#[derive(Debug, Default)]
struct Tools {
    outliers: Outliers,
    trend: Trend,
    fourier: Fourier,
}

impl Tools {
    fn trend(
        &mut self,
        x: &[f64],
        period: Option<usize>,
        out: &mut Vec<f64>,
    ) -> Result<(), DetectError> {
        self.trend.estimate(x, period, &mut self.fourier, out)
    }
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
        let period = self.judge(series, options, true)?;
        let points =
            self.margins
                .verdicts(&self.judged, options.boundary, options.sensitivity, true);
        let point = points[points.len() - 1];
        Ok(LastVerdict {
            is_anomaly: point.is_anomaly,
            is_positive_anomaly: point.is_positive_anomaly,
            is_negative_anomaly: point.is_negative_anomaly,
            expected_value: point.expected_value,
            upper_margin: point.upper_margin,
            lower_margin: point.lower_margin,
            severity: point.severity,
            period,
            suggested_window: suggested_window(period, options.granularity),
            model: self.judged.model,
        })
    }

    /// [`Workspace::entire`] for a series that may carry the offsets it was written in.
    pub fn entire_of(
        &mut self,
        series: Series<'_>,
        options: &Options,
    ) -> Result<EntireVerdict, DetectError> {
        let period = self.judge(series, options, false)?;
        let points =
            self.margins
                .verdicts(&self.judged, options.boundary, options.sensitivity, false);
        Ok(EntireVerdict {
            points: points.to_vec(),
            period,
            model: self.judged.model,
        })
    }

    /// Runs the model that the series asks for, or the one chosen by hand; leaves its result, on the
    /// points given, behind and returns the period.
    fn judge(
        &mut self,
        series: Series<'_>,
        options: &Options,
        last: bool,
    ) -> Result<u32, DetectError> {
        self.validate(&series, options)?;
        let values = series.values;
        let gaps = Gaps {
            indices: &self.indices,
        };
        let period = match options.period {
            Some(period) => period as usize,
            None if options.manual.is_some() || gaps.missing_ratio() > MOST_MISSING => 0,
            None => self.find_period(values, options)?,
        };
        let gaps = Gaps {
            indices: &self.indices,
        };
        if period > 1 && gaps.missing_ratio() > MOST_MISSING {
            let wanted = (0.5 * gaps.slots() as f64).ceil() as u64;
            return Err(DetectError::too_many_gaps(wanted, values.len()));
        }
        let fills = gaps.fillable()
            && match options.impute {
                Impute::NotFill => false,
                Impute::Auto => period > 1,
                Impute::Fixed(_) => true,
                // A model chosen by hand has no other gaps filled than a season's.
                Impute::Previous | Impute::Linear => period > 1 || options.manual.is_none(),
            };
        if fills {
            gaps.fill(values, options.impute, period, &mut self.filled);
        }
        let filled = std::mem::take(&mut self.filled);
        let x = if fills { &filled } else { values };
        let run = match options.manual {
            Some(manual) => self.run_manual(x, period, manual, options, last),
            None => {
                let ratio = if last {
                    majority::refined_ratio(values, options.max_anomaly_ratio)
                } else {
                    options.max_anomaly_ratio
                };
                self.run(x, period, ratio, options, last)
            }
        };
        self.filled = filled;
        run?;
        if fills {
            self.judged.keep(&self.indices);
        }
        self.judged.clear_expected();
        Ok(period as u32)
    }

    /// Searches the series for a period, with its gaps filled where they may be.
    fn find_period(&mut self, values: &[f64], options: &Options) -> Result<usize, DetectError> {
        let gaps = Gaps {
            indices: &self.indices,
        };
        let how = match options.impute {
            // Filling seasonally takes a period.
            Impute::Auto => Impute::Previous,
            other => other,
        };
        let x = if gaps.fillable() && how != Impute::NotFill {
            gaps.fill(values, how, 0, &mut self.filled);
            &self.filled
        } else {
            values
        };
        self.periods.detect(
            x,
            options.granularity,
            options.custom_interval.get(),
            &mut self.tools.trend,
            &mut self.tools.fourier,
        )
    }

    /// The model that fits the series.
    fn run(
        &mut self,
        x: &[f64],
        period: usize,
        ratio: f64,
        options: &Options,
        last: bool,
    ) -> Result<(), DetectError> {
        let tools = &mut self.tools;
        let judged = &mut self.judged;
        if period > 1 {
            return self.seasonal.judge(
                x,
                period,
                (ratio, options.alpha),
                last,
                &mut tools.outliers,
                judged,
            );
        }
        let interval = options.custom_interval.get();
        let fine = match options.granularity {
            Granularity::Minutely => interval < 60,
            Granularity::Secondly => interval < 3600,
            _ => false,
        };
        if fine && stats::mad(x, &mut judged.scratch).abs() >= stats::EPS {
            let with_trend = options.boundary != Boundary::V1;
            let mut model = |x: &[f64], ratio, judged: &mut Judged| {
                let limits = (ratio, options.threshold);
                self.spectral_residual
                    .judge(x, limits, last, with_trend, tools, judged)
            };
            model(x, ratio, judged)?;
            self.differencing.merge(x, ratio, judged, model)
        } else {
            let model = |x: &[f64], initial, ratio, tools: &mut Tools, judged: &mut Judged| {
                dynamic_threshold::judge(x, initial, (ratio, options.alpha), last, tools, judged)
            };
            model(x, Initial::Wide, ratio, tools, judged)?;
            self.differencing
                .merge(x, ratio, judged, |x, ratio, judged| {
                    model(x, Initial::Unneeded, ratio, tools, judged)
                })
        }
    }

    /// The model chosen by hand.
    fn run_manual(
        &mut self,
        x: &[f64],
        period: usize,
        manual: Manual,
        options: &Options,
        last: bool,
    ) -> Result<(), DetectError> {
        let (tools, judged) = (&mut self.tools, &mut self.judged);
        if options.period.is_none() {
            return Err(DetectError::detector_combination(manual.name()));
        }
        match manual {
            Manual::Seasonal {
                alpha,
                max_anomaly_ratio,
            } => {
                if period == 0 {
                    return Err(DetectError::detector_combination(manual.name()));
                }
                let limits = (max_anomaly_ratio, alpha);
                self.seasonal
                    .judge(x, period, limits, last, &mut tools.outliers, judged)
            }
            Manual::SpectralResidual {
                threshold,
                max_anomaly_ratio,
            } => {
                let with_trend = options.boundary != Boundary::V1;
                let limits = (max_anomaly_ratio, threshold);
                self.spectral_residual
                    .judge(x, limits, last, with_trend, tools, judged)
            }
            Manual::DynamicThreshold {
                alpha,
                max_anomaly_ratio,
            } => {
                if period != 0 {
                    return Err(DetectError::detector_combination(manual.name()));
                }
                let limits = (max_anomaly_ratio, alpha);
                dynamic_threshold::judge(x, Initial::Guessed, limits, last, tools, judged)
            }
        }
    }

    /// The checks of options and series, in the service's order; leaves the grid positions behind.
    fn validate(&mut self, series: &Series<'_>, options: &Options) -> Result<(), DetectError> {
        options.validate()?;
        let (values, n) = (series.values, series.values.len());
        check_length(n)?;
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

/// Refuses a series of too few or too many points.
pub(crate) fn check_length(points: usize) -> Result<(), DetectError> {
    if points < MIN_POINTS {
        Err(DetectError::too_few_points())
    } else if points > MAX_POINTS {
        Err(DetectError::too_many_points())
    } else {
        Ok(())
    }
}

/// How many points to send next time: four periods and one, or without a period what the granularity
/// suggests.
fn suggested_window(period: u32, granularity: Granularity) -> u32 {
    if period != 0 {
        return period.saturating_mul(4).saturating_add(1);
    }
    1 + match granularity {
        Granularity::Yearly | Granularity::Monthly | Granularity::Weekly => 12,
        Granularity::Daily => 28,
        Granularity::Hourly => 168,
        Granularity::Minutely | Granularity::Secondly | Granularity::None => 1440,
        Granularity::Microsecond => 1000,
    }
}

#[cfg(test)]
mod tests {
    /// A series whose stages the reference's were recorded for: no period, a slow rise.
    pub(super) fn series_a() -> Vec<f64> {
        (0..40)
            .map(|i| f64::from(37 * i % 23) + f64::from(i) / 10.0)
            .collect()
    }

    /// Another: period 7, a slow rise, noise, and a spike at 30.
    pub(super) fn series_b() -> Vec<f64> {
        (0..60)
            .map(|i: i32| {
                let season = [0.0, 2.0, 4.0, 3.0, 1.0, -2.0, -3.0][i as usize % 7];
                let noise = 3.0 * f64::from(13 * i % 11 - 5) / 50.0;
                let spike = if i == 30 { 15.0 } else { 0.0 };
                10.0 + season + f64::from(i) / 20.0 + noise + spike
            })
            .collect()
    }
}
