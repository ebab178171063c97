//! Decompositions on top of STL: of the logarithm, with a safer end, and without outliers.

use super::stats;
use super::stl::Stl;

/// The parts of a series; they add up to what was decomposed.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    /// What repeats with the period.
    pub(super) seasonal: Vec<f64>,
    /// What changes slowly.
    pub(super) trend: Vec<f64>,
    /// What is left.
    pub(super) remainder: Vec<f64>,
}

/// Decomposes series; owns its scratch memory.
#[derive(Debug, Default)]
pub(super) struct Decomposition {
    stl: Stl,
    extended: Vec<f64>,
    extended_parts: Parts,
    cleaned: Vec<f64>,
    logarithms: Vec<f64>,
    column: Vec<f64>,
}

/// Which decomposition is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// Points per season.
    pub(super) period: usize,
    /// Season and trend multiply.
    pub(super) log: bool,
    /// The last point matters: look whether one more point makes its remainder smaller.
    pub(super) last: bool,
}

impl Decomposition {
    /// Decomposes `y`, and if that shows outliers, decomposes again without them: the parts then add up
    /// to the cleaned series.
    pub(super) fn robust(&mut self, y: &[f64], kind: Kind, parts: &mut Parts) {
        self.end_robust(y, kind, parts);
        let mut cleaned = std::mem::take(&mut self.cleaned);
        if self.remove_outliers(kind.period, parts, &mut cleaned) {
            self.end_robust(&cleaned, kind, parts);
        }
        self.cleaned = cleaned;
    }

    /// The series without outliers into `cleaned`: what is off the mean of season and remainder by three
    /// standard deviations takes the value before it, unless more than half of the cycles have an
    /// outlier at that phase: then it is seasonal. False if there are none.
    fn remove_outliers(&mut self, period: usize, parts: &Parts, cleaned: &mut Vec<f64>) -> bool {
        let n = parts.trend.len();
        cleaned.clear();
        cleaned.extend(
            parts
                .remainder
                .iter()
                .zip(&parts.seasonal)
                .map(|(remainder, seasonal)| remainder + seasonal),
        );
        let (mean, variance) = stats::moments(cleaned);
        let deviation = variance.sqrt();
        if deviation == 0.0 {
            return false;
        }
        let is_outlier = |value: f64| (value - mean).abs() / deviation >= 3.0;
        if !cleaned.iter().any(|value| is_outlier(*value)) {
            return false;
        }
        let most = ((n as f64 / period as f64) / 2.0) as usize;
        let mut removed = false;
        for phase in 0..period.min(n) {
            let outliers = cleaned[phase..]
                .iter()
                .step_by(period)
                .filter(|value| is_outlier(**value))
                .count();
            if outliers == 0 || outliers > most {
                continue;
            }
            for value in cleaned[phase..].iter_mut().step_by(period) {
                if is_outlier(*value) {
                    *value = f64::NAN;
                    removed = true;
                }
            }
        }
        if removed {
            hold(cleaned);
            for (value, trend) in cleaned.iter_mut().zip(&parts.trend) {
                *value += trend;
            }
        }
        removed
    }

    /// Judging the last point, the decomposition that explains it better: as it is, or followed by the
    /// median of its successor's phase.
    fn end_robust(&mut self, y: &[f64], kind: Kind, parts: &mut Parts) {
        let Kind { period, log, last } = kind;
        self.plain(y, period, log, parts);
        if !last {
            return;
        }
        let n = y.len();
        self.column.clear();
        self.column
            .extend(y.iter().rev().skip(period - 1).step_by(period));
        let mut extended = std::mem::take(&mut self.extended);
        extended.clear();
        extended.extend_from_slice(y);
        extended.push(stats::median(&mut self.column));
        let mut other = std::mem::take(&mut self.extended_parts);
        self.plain(&extended, period, log, &mut other);
        self.extended = extended;
        let better = parts.remainder[n - 1].abs() <= other.remainder[n - 1].abs();
        if !better {
            std::mem::swap(parts, &mut other);
            parts.seasonal.truncate(n);
            parts.trend.truncate(n);
            parts.remainder.truncate(n);
        }
        self.extended_parts = other;
    }

    fn plain(&mut self, y: &[f64], period: usize, log: bool, parts: &mut Parts) {
        let Parts {
            seasonal,
            trend,
            remainder,
        } = parts;
        remainder.clear();
        if !log {
            self.stl.decompose(y, period, seasonal, trend);
            remainder.extend(
                y.iter()
                    .zip(&*trend)
                    .zip(&*seasonal)
                    .map(|((y, trend), seasonal)| y - trend - seasonal),
            );
            return;
        }
        let least = stats::extent(y).0;
        // Shifted so that no logarithm is negative.
        let shifted = |y: f64| if least < 1.0 { (y - least) + 1.0 } else { y };
        self.logarithms.clear();
        self.logarithms.extend(y.iter().map(|y| shifted(*y).ln()));
        self.stl
            .decompose(&self.logarithms, period, seasonal, trend);
        for ((trend, seasonal), y) in trend.iter_mut().zip(seasonal).zip(y) {
            let level = trend.exp();
            *seasonal = (*trend + *seasonal).exp() - level;
            remainder.push(shifted(*y) - level - *seasonal);
            *trend = if least < 1.0 {
                (level - 1.0) + least
            } else {
                level
            };
        }
    }
}

/// Replaces NaN by the value before it, at the start by the one after it.
fn hold(x: &mut [f64]) {
    let Some(first) = x.iter().position(|value| !value.is_nan()) else {
        return;
    };
    let value = x[first];
    x[..first].fill(value);
    for i in first + 1..x.len() {
        if x[i].is_nan() {
            x[i] = x[i - 1];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::tests::series_b;

    #[test]
    fn the_parts_are_those_of_the_reference() {
        let mut found = Parts::default();
        let mut check = |log, last, robust, expected: &[(usize, f64, f64)]| {
            let kind = Kind {
                period: 7,
                log,
                last,
            };
            let mut decomposition = Decomposition::default();
            if robust {
                decomposition.robust(&series_b(), kind, &mut found);
            } else {
                decomposition.end_robust(&series_b(), kind, &mut found);
            }
            for (i, s, t) in expected {
                let (seasonal, trend) = (found.seasonal[*i], found.trend[*i]);
                assert!((seasonal - s).abs() < 1e-9, "{kind:?} {i}: {seasonal}");
                assert!((trend - t).abs() < 1e-9, "{kind:?} {i}: {trend}");
            }
        };
        let log = [
            (0, -0.4362127814869794, 10.43687847401256),
            (59, 2.84438282601913, 13.211565458804172),
        ];
        check(true, false, false, &log);
        let last = [
            (0, -0.7240261334087676, 10.539371260759559),
            (59, 2.340376901894909, 13.703722968860845),
        ];
        check(false, true, false, &last);
        let robust = [(59, 2.3416044910562315, 13.695175085024108)];
        check(false, false, true, &robust);
    }
}
