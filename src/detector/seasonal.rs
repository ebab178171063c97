//! The seasonal model: decompose, rank what is not season, and let the rest speak for the expected value.

use super::Model;
use super::decomposition::{Decomposition, Kind, Parts};
use super::error::DetectError;
use super::esd::{Limits, Outliers};
use super::result::{Judged, most_outliers};
use super::stats::{fill_nan, normalize};

/// Mean relative error above which the multiplicative decomposition is tried, and below which it is
/// taken.
const TRY_LOG: f64 = 0.10;
const TAKE_LOG: f64 = 0.05;

/// Judges seasonal series; owns its scratch memory.
#[derive(Debug, Default)]
pub(super) struct Seasonal {
    decomposition: Decomposition,
    parts: Parts,
    log_parts: Parts,
    deseasonalised: Vec<f64>,
    remainder: Vec<f64>,
}

impl Seasonal {
    /// Judges `x`; refuses one that is not longer than two periods.
    pub(super) fn judge(
        &mut self,
        x: &[f64],
        period: usize,
        (ratio, alpha): (f64, f64),
        last: bool,
        outliers: &mut Outliers,
        judged: &mut Judged,
    ) -> Result<(), DetectError> {
        let n = x.len();
        if period < 2 || n < 2 * period + 1 {
            return Err(DetectError::insufficient_points());
        }
        let ratio = ratio.max(1.0 / n as f64);
        let kind = Kind {
            period,
            log: false,
            last,
        };
        self.decomposition.robust(x, kind, &mut self.parts);
        // The error is that of the cleaned series, relative to the given one: a single exact 0 makes it
        // infinite, and the logarithm's is then infinite too.
        if relative_error(&self.parts.remainder, x) > TRY_LOG {
            let kind = Kind { log: true, ..kind };
            self.decomposition.robust(x, kind, &mut self.log_parts);
            if relative_error(&self.log_parts.remainder, x) < TAKE_LOG {
                std::mem::swap(&mut self.parts, &mut self.log_parts);
            }
        }
        let Parts {
            seasonal, trend, ..
        } = &mut self.parts;
        self.remainder.clear();
        self.remainder
            .extend(x.iter().zip(&*seasonal).map(|(x, seasonal)| x - seasonal));
        normalize(&self.remainder, &mut self.deseasonalised);
        for (value, trend) in self.remainder.iter_mut().zip(&*trend) {
            *value -= trend;
        }
        normalize(&self.remainder, &mut judged.scratch);
        let limits = Limits {
            most: most_outliers(n, ratio),
            alpha,
            last,
        };
        let majority = outliers.select(
            &self.deseasonalised,
            Some(&judged.scratch),
            limits,
            &mut judged.flags,
        );
        judged.model = if majority {
            Model::AnomalyDetectorMad
        } else {
            Model::AnomalyDetector
        };
        if judged.flags.contains(&true) {
            for (trend, flag) in trend.iter_mut().zip(&judged.flags) {
                if *flag {
                    *trend = f64::NAN;
                }
            }
            let end = n - period / 2;
            let flagged = judged.flags[end..].iter().filter(|flag| **flag).count();
            if flagged as f64 >= 0.5 * (period / 2) as f64 {
                trend[end..].fill(f64::NAN);
            }
            fill_nan(trend);
        }
        judged.value.clear();
        judged.value.extend_from_slice(x);
        judged.expected.clear();
        judged
            .expected
            .extend(trend.iter().zip(&*seasonal).map(|(t, s)| t + s));
        judged.trend.clear();
        judged.trend.extend_from_slice(trend);
        judged.score.clear();
        judged.set_directions();
        Ok(())
    }
}

/// Mean of `|remainder / x|`; 0/0 is left out.
fn relative_error(remainder: &[f64], x: &[f64]) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for (remainder, x) in remainder.iter().zip(x) {
        let error = (remainder / x).abs();
        if !error.is_nan() {
            sum += error;
            count += 1;
        }
    }
    sum / f64::from(count)
}
