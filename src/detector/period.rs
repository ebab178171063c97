//! Period detection: first the periods that a calendar suggests, each verified, then the correlogram.

use super::error::DetectError;
use super::fourier::Fourier;
use super::gcv::CrossValidation;
use super::options::Granularity;
use super::sliding_median::SlidingMedian;
use super::stats::{self, is_near_zero, normalize, smooth_spikes, variance};
use super::trend::Trend;

/// Periods are longer than this; the correlogram never gives it either.
const SHORTEST: usize = 4;
/// Longest lag of the correlogram, in points.
const LONGEST_LAG: usize = 5760;
/// Correlations below this end the search.
const LEAST_CORRELATION: f64 = 0.1;
/// Share of the variance that a period of the correlogram has to explain.
const LEAST_EXPLAINED: f64 = 0.2;
/// Normal quantile of 0.95: Bartlett's bound is two-sided at 90 %.
const BARTLETT: f64 = 1.644_853_626_951_472_2;

/// Detects periods; owns its scratch memory.
#[derive(Debug, Default)]
pub(super) struct Periods {
    median: SlidingMedian,
    cross_validation: CrossValidation,
    normal: Vec<f64>,
    smooth: Vec<f64>,
    detrended: Vec<f64>,
    filtered: Vec<f32>,
    single: Vec<f32>,
    bucket: Vec<f64>,
    bucket_single: Vec<f32>,
    correlations: Vec<f64>,
    lags: Vec<(usize, f64)>,
}

impl Periods {
    /// The period of `x` in points, 0 for none. `interval` is in granules.
    pub(super) fn detect(
        &mut self,
        x: &[f64],
        granularity: Granularity,
        interval: u32,
        trend: &mut Trend,
        fourier: &mut Fourier,
    ) -> Result<usize, DetectError> {
        match self.by_calendar(x, granularity, interval) {
            Some(period) => Ok(period),
            None => self.by_correlogram(x, trend, fourier),
        }
    }

    /// The first period of the calendar that the series bears out, or the calendar's standard one if
    /// that is a multiple of it and fits twice: a verified day so becomes a week.
    fn by_calendar(&mut self, x: &[f64], granularity: Granularity, interval: u32) -> Option<usize> {
        let (candidates, standard) = calendar(granularity, interval as usize);
        let n = x.len();
        let fits = |period: usize| period >= SHORTEST && n > 2 * period;
        if !candidates.iter().any(|period| fits(*period)) {
            return None;
        }
        normalize(x, &mut self.normal);
        self.smooth.clear();
        self.smooth.extend_from_slice(&self.normal);
        smooth_spikes(&mut self.smooth);
        let spread = variance(&self.smooth);
        if is_near_zero(spread) {
            return None;
        }
        let period = candidates
            .into_iter()
            .find(|period| fits(*period) && self.bears_out(*period, spread))?;
        let promoted = n > 2 * standard && standard.is_multiple_of(period);
        Some(if promoted { standard } else { period })
    }

    /// Whether the normalised series repeats with `period`, as it is or without its sliding median.
    fn bears_out(&mut self, period: usize, spread: f64) -> bool {
        let (plain, detrended) = match period {
            ..=24 => (0.35, 0.35),
            25..=168 => (0.15, 0.65),
            169.. => (0.10, 0.70),
        };
        if explained(
            &mut self.cross_validation,
            &mut self.single,
            &self.smooth,
            spread,
            period,
        ) > plain
        {
            return true;
        }
        self.median
            .filter_to_the_ends(&self.normal, period, &mut self.filtered);
        self.detrended.clear();
        self.detrended.extend(
            self.normal
                .iter()
                .zip(&self.filtered)
                .map(|(x, median)| x - f64::from(*median)),
        );
        smooth_spikes(&mut self.detrended);
        self.clip_phases(period);
        let spread = variance(&self.detrended);
        !is_near_zero(spread)
            && explained(
                &mut self.cross_validation,
                &mut self.single,
                &self.detrended,
                spread,
                period,
            ) > detrended
    }

    /// Replaces what lies far above the median of its phase by that median.
    ///
    /// The reference means three median absolute deviations, but takes the median of the *signed*
    /// deviations, which is nothing but rounding: so every value above its phase's median is clipped
    /// (or, when the rounding came out negative, every value below). Periods are accepted by what is
    /// left.
    fn clip_phases(&mut self, period: usize) {
        for phase in 0..period {
            self.bucket.clear();
            self.bucket
                .extend(self.detrended[phase..].iter().step_by(period));
            let center = self.median_of_bucket();
            for value in &mut self.bucket {
                *value -= center;
            }
            let scale = 1.4826 * self.median_of_bucket() + 1e-8;
            for (value, deviation) in self.detrended[phase..]
                .iter_mut()
                .step_by(period)
                .zip(&self.bucket)
            {
                if deviation / scale >= 3.0 {
                    *value = center;
                }
            }
        }
    }

    /// Median of the bucket in binary32.
    fn median_of_bucket(&mut self) -> f64 {
        let values = &mut self.bucket_single;
        values.clear();
        values.extend(self.bucket.iter().map(|value| *value as f32));
        let n = values.len();
        let (below, middle, _) = values.select_nth_unstable_by(n / 2, f32::total_cmp);
        if n % 2 == 1 {
            return f64::from(*middle);
        }
        let lower = below.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        f64::from(0.5 * (lower + *middle))
    }

    /// The period that the correlogram shows, its multiples tried by thinning the series out.
    fn by_correlogram(
        &mut self,
        x: &[f64],
        trend: &mut Trend,
        fourier: &mut Fourier,
    ) -> Result<usize, DetectError> {
        normalize(x, &mut self.normal);
        let mut thinned = std::mem::take(&mut self.normal);
        let mut found = self.strongest_period(&thinned, trend, fourier);
        let mut period = 0;
        while let Ok(factor @ 1..) = found {
            period = if period == 0 { factor } else { period * factor };
            let kept = thinned.len().div_ceil(factor);
            for i in 0..kept {
                thinned[i] = thinned[i * factor];
            }
            thinned.truncate(kept);
            found = self.strongest_period(&thinned, trend, fourier);
        }
        self.normal = thinned;
        found.map(|_| period)
    }

    fn strongest_period(
        &mut self,
        y: &[f64],
        trend: &mut Trend,
        fourier: &mut Fourier,
    ) -> Result<usize, DetectError> {
        let n = y.len();
        if n < super::MIN_POINTS {
            return Ok(0);
        }
        self.smooth.clear();
        self.smooth.extend_from_slice(y);
        smooth_spikes(&mut self.smooth);
        trend.estimate(&self.smooth, None, fourier, &mut self.detrended)?;
        for (trend, value) in self.detrended.iter_mut().zip(&self.smooth) {
            *trend = value - *trend;
        }
        let (mean, spread) = stats::moments(&self.detrended);
        if is_near_zero(spread) {
            return Ok(0);
        }
        let longest = (n / 3).min(LONGEST_LAG);
        fourier.autocorrelation(&self.detrended, mean, longest, &mut self.correlations);
        self.single.clear();
        self.single
            .extend(self.detrended.iter().map(|value| *value as f32));
        self.list_lags(n);
        let mut best = (f32::INFINITY, 0);
        for (lag, _) in &self.lags {
            // The scan can be stopped by lags that it would never accept (1 to 4, and the longest), but
            // does not choose them.
            if *lag > SHORTEST && *lag < longest {
                let score = self.cross_validation.score(&self.single, *lag);
                if best.1 == 0 || score < best.0 {
                    best = (score, *lag);
                }
            }
        }
        let (score, period) = best;
        if period == 0 || n / period < 3 {
            return Ok(0);
        }
        let accepted = score == 0.0 || 1.0 - f64::from(score) / spread >= LEAST_EXPLAINED;
        Ok(if accepted { period } else { 0 })
    }

    /// The lags of strong correlation, strongest first, up to the first one within Bartlett's bound.
    fn list_lags(&mut self, n: usize) {
        self.lags.clear();
        let mut squares = 0.0;
        for (lag, r) in (1..).zip(&self.correlations) {
            if *r >= LEAST_CORRELATION {
                // A lag that is visited but not significant ends the list; it is marked by NaN.
                let deviation = ((1.0 + 2.0 * squares) / n as f64).sqrt();
                let deviation = if lag == 1 {
                    (1.0 / n as f64).sqrt()
                } else {
                    deviation
                };
                let bound = (r + BARTLETT * deviation) - r;
                self.lags.push((if *r < bound { 0 } else { lag }, *r));
            }
            squares += r * r;
        }
        // Sorting keeps the order of equals, so the smaller lag of two goes first.
        self.lags.sort_by(|a, b| b.1.total_cmp(&a.1));
        if let Some(end) = self.lags.iter().position(|(lag, _)| *lag == 0) {
            self.lags.truncate(end);
        }
    }
}

/// Share of the variance `spread` of `y` that `period` explains.
fn explained(
    cross_validation: &mut CrossValidation,
    single: &mut Vec<f32>,
    y: &[f64],
    spread: f64,
    period: usize,
) -> f64 {
    single.clear();
    single.extend(y.iter().map(|value| *value as f32));
    match cross_validation.score(single, period) {
        0.0 => 1.0,
        score => 1.0 - f64::from(score) / spread,
    }
}

/// The periods that a granularity suggests, in the order in which they are tried, and its standard one.
fn calendar(granularity: Granularity, interval: usize) -> ([usize; 3], usize) {
    let per = |total: usize| total / interval;
    match granularity {
        Granularity::Yearly | Granularity::None => ([0; 3], 0),
        Granularity::Monthly => ([12, 0, 0], 12),
        Granularity::Weekly => ([12, 4, 0], 12),
        Granularity::Daily => ([7, 0, 0], 7),
        Granularity::Hourly => ([per(168), per(24), 0], per(168)),
        Granularity::Minutely => ([per(10_080), per(1_440), per(2_880)], per(10_080)),
        Granularity::Secondly => ([per(604_800), per(86_400), per(172_800)], per(604_800)),
        // The reference has no standard period here and fails once 1000 is borne out.
        Granularity::Microsecond => ([1_000, 0, 0], 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::tests::series_b;

    fn correlogram(x: &[f64]) -> usize {
        Periods::default()
            .by_correlogram(x, &mut Trend::default(), &mut Fourier::default())
            .unwrap()
    }

    #[test]
    fn both_ways_find_the_week() {
        let calendar = Periods::default().by_calendar(&series_b(), Granularity::Daily, 1);
        assert_eq!(calendar, Some(7));
        assert_eq!(correlogram(&series_b()), 7);
    }

    // Lags up to 4 are never chosen: short periods are found as multiples.
    #[test]
    fn periods_of_four_or_less_are_reported_as_multiples() {
        let of = |period: usize, n: usize| -> Vec<f64> {
            let shape = [0.0, 3.0, 1.0, 5.0];
            (0..n).map(|i| shape[i % period]).collect()
        };
        assert_eq!(correlogram(&of(4, 60)), 8);
        assert_eq!(correlogram(&of(4, 200)), 24);
        assert_eq!(correlogram(&of(3, 60)), 6);
    }

    #[test]
    fn a_verified_day_becomes_a_week_when_two_weeks_are_there() {
        let hours = |n: u32| -> Vec<f64> {
            (0..n)
                .map(|i| f64::from(i % 24 * 5 % 24) + f64::from(i * 7 % 11) / 10.0)
                .collect()
        };
        let found = |n| Periods::default().by_calendar(&hours(n), Granularity::Hourly, 1);
        assert_eq!(found(336), Some(24));
        assert_eq!(found(337), Some(168));
    }
}
