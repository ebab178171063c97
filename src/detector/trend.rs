//! Trend: a least-squares spline whose ends are straightened by robust slopes, and the guess of a
//! period that sets its stiffness.
//!
//! The frame is that of the `seasonal` package's trend estimate, which the reference builds on.

use super::error::DetectError;
use super::fourier::Fourier;
use super::sliding_median::SlidingMedian;
use super::spline::SmoothingSpline;
use super::theil_sen::TheilSen;

/// Longest period that is guessed, in points.
const LONGEST_GUESS: usize = 512;
/// Shortest period that the periodogram may show, in points.
const SHORTEST_PEAK: usize = 4;
/// Share of the highest peak from which another one counts.
const PEAK_SHARE: f64 = 0.9;

/// Estimates trends; owns its scratch memory.
#[derive(Debug, Default)]
pub(super) struct Trend {
    median: SlidingMedian,
    theil_sen: TheilSen,
    spline: SmoothingSpline,
    filtered: Vec<f32>,
    broad: Vec<f32>,
    smooth: Vec<f64>,
    residual: Vec<f64>,
    power: Vec<f64>,
    peaks: Vec<(usize, f64)>,
}

impl Trend {
    /// The trend of `x` into `out`. `period` sets how far it looks: 0 or 1 as far as it can, `None` as far
    /// as a guess says.
    pub(super) fn estimate(
        &mut self,
        x: &[f64],
        period: Option<usize>,
        fourier: &mut Fourier,
        out: &mut Vec<f64>,
    ) -> Result<(), DetectError> {
        let n = x.len();
        let period = match period {
            Some(period) => period,
            None => self.guess(x, fourier)?,
        };
        let window = if period <= 1 {
            (n / 3).min(LONGEST_GUESS)
        } else {
            2 * period - 1
        };
        let segments = n / (2 * window) + 1;
        self.spline.smooth(x, segments, &mut self.smooth);
        let first = self.theil_sen.slope(&self.smooth[..window]);
        let last = self.theil_sen.slope(&self.smooth[n - window..]);
        straighten(&self.smooth, window, first, last, out);
        Ok(())
    }

    /// The period that the periodogram suggests: the mean of its highest peaks, or the longest possible
    /// one without a peak.
    pub(super) fn guess(&mut self, x: &[f64], fourier: &mut Fourier) -> Result<usize, DetectError> {
        let n = x.len();
        let longest = (n / 3).min(LONGEST_GUESS);
        let window = 2 * longest - 1;
        self.median.filter(x, window, &mut self.filtered);
        // In binary32 throughout, slopes' differences too: large values lose their small changes here,
        // and the guess is made on what is left.
        let first = self.theil_sen.slope_f32(&self.filtered[..window]);
        let last = self.theil_sen.slope_f32(&self.filtered[n - window..]);
        straighten_f32(&self.filtered, window, first, last, &mut self.broad);
        if self.broad.iter().any(|value| !value.is_finite()) {
            return Err(DetectError::value_overflow());
        }
        self.residual.clear();
        self.residual.extend(
            x.iter()
                .zip(&self.broad)
                .map(|(x, broad)| x - f64::from(*broad)),
        );
        self.find_peaks(fourier);
        if self.peaks.is_empty() {
            return Ok(longest);
        }
        let weight: f64 = self.peaks.iter().map(|(_, power)| power).sum();
        let weighted: f64 = self
            .peaks
            .iter()
            .map(|(period, power)| *period as f64 * power)
            .sum();
        Ok((weighted / weight).round_ties_even() as usize)
    }

    /// Periods and powers of the highest peaks of the residual's periodogram, highest first.
    fn find_peaks(&mut self, fourier: &mut Fourier) {
        let n = self.residual.len();
        let longest = (n / 3).min(LONGEST_GUESS);
        let length = (2 * longest).min(n / 2);
        fourier.welch(&self.residual, length, &mut self.power);
        // Neighbouring frequencies with the same whole period are one; the period of the whole segment
        // counts as none. Halves are rounded to even after a division of a product, which decides some.
        self.peaks.clear();
        for (k, power) in (1..).zip(&self.power) {
            let frequency = f64::from(k) * (1.0 / length as f64);
            let period = (1.0 / frequency).round_ties_even() as usize;
            match self.peaks.last_mut() {
                Some((last, highest)) if *last == period => *highest = highest.max(*power),
                _ => self.peaks.push((period, *power)),
            }
        }
        for (period, power) in &mut self.peaks {
            if *period == length {
                *power = 0.0;
            }
        }
        let start = self
            .peaks
            .iter()
            .rposition(|(period, _)| *period >= longest)
            .unwrap_or(0);
        let end = self
            .peaks
            .iter()
            .position(|(period, _)| *period < SHORTEST_PEAK)
            .unwrap_or(self.peaks.len());
        self.peaks.truncate(end);
        self.peaks.drain(..start.min(end));
        // An absolute bound: a series scaled down far enough has no peaks.
        if self.peaks.iter().all(|(_, power)| power.abs() <= 1e-8) {
            self.peaks.clear();
            return;
        }
        self.peaks.sort_by(|a, b| b.1.total_cmp(&a.1));
        let least = PEAK_SHARE * self.peaks[0].1;
        self.peaks.retain(|(_, power)| *power >= least);
    }
}

/// `x` with half a window at either end replaced by a straight line of the given slope.
fn straighten(x: &[f64], window: usize, first: f64, last: f64, out: &mut Vec<f64>) {
    let (n, half) = (x.len(), window / 2);
    out.clear();
    out.extend_from_slice(x);
    for (j, value) in out[..half].iter_mut().enumerate() {
        *value = (j as f64 - half as f64) * first + x[half];
    }
    for j in 1..=half {
        out[n - half - 1 + j] = j as f64 * last + x[n - half - 1];
    }
}

/// [`straighten`] for binary32: the lines are made in binary64 and stored rounded.
fn straighten_f32(x: &[f32], window: usize, first: f64, last: f64, out: &mut Vec<f32>) {
    let (n, half) = (x.len(), window / 2);
    out.clear();
    out.extend_from_slice(x);
    for (j, value) in out[..half].iter_mut().enumerate() {
        *value = ((j as f64 - half as f64) * first + f64::from(x[half])) as f32;
    }
    for j in 1..=half {
        out[n - half - 1 + j] = (j as f64 * last + f64::from(x[n - half - 1])) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::tests::{series_a, series_b};

    fn trend(x: &[f64], period: Option<usize>) -> Vec<f64> {
        let mut out = vec![];
        Trend::default()
            .estimate(x, period, &mut Fourier::default(), &mut out)
            .unwrap();
        out
    }

    #[test]
    fn guesses_are_those_of_the_reference() {
        let mut fourier = Fourier::default();
        let mut trend = Trend::default();
        assert_eq!(trend.guess(&series_a(), &mut fourier), Ok(5));
        assert_eq!(trend.peaks.len(), 1);
        assert_eq!(trend.peaks[0].0, 5);
        assert!((trend.peaks[0].1 - 8.405079004022461).abs() < 1e-12);
        let broad = [
            (0, 10.09999942779541),
            (1, 10.25),
            (12, 11.899999618530273),
            (20, 13.399999618530273),
            (39, 16.0),
        ];
        for (i, value) in broad {
            assert_eq!(f64::from(trend.broad[i]), value, "at {i}");
        }
        assert_eq!(trend.guess(&series_b(), &mut fourier), Ok(8));
    }

    #[test]
    fn trends_are_those_of_the_reference() {
        let wide = [
            (0, 9.256661103254379),
            (5, 11.56876374815803),
            (20, 13.155090052692868),
            (39, 15.783459559036618),
        ];
        let found = trend(&series_a(), Some(0));
        for (i, value) in wide {
            assert!((found[i] - value).abs() < 1e-12, "at {i}: {}", found[i]);
        }
        let guessed = [
            (0, 9.755678221153497),
            (5, 11.92792542627209),
            (20, 13.401158491408898),
            (39, 16.66485671456188),
        ];
        let found = trend(&series_a(), None);
        for (i, value) in guessed {
            assert!((found[i] - value).abs() < 1e-12, "at {i}: {}", found[i]);
        }
    }

    // The periodogram's smallest power is absolute: scaled down, the same series shows no peak.
    #[test]
    fn a_tiny_series_gets_the_longest_period() {
        let tiny: Vec<f64> = series_a().iter().map(|value| value * 1e-6).collect();
        let guess = Trend::default().guess(&tiny, &mut Fourier::default());
        assert_eq!(guess, Ok(13));
    }
}
