//! The spectral residual model (Ren and others, KDD 2019): what a spectrum shows beside its own running
//! mean, brought back into time, is salient.

use realfft::num_complex::Complex64;

use super::error::DetectError;
use super::fourier::Fourier;
use super::result::Judged;
use super::sort::{Ranked, argsort};
use super::stats::{self, is_close, median_of_sorted, quantile_of_sorted};
use super::{Model, Tools};

/// Points by which the series is extended before its transform.
const EXTENSION: usize = 5;
/// Points of the trailing mean that saliency is compared with.
const TRAILING: usize = 100;
/// Points of the trailing mean that smooths expected values.
const SMOOTHING: usize = 5;
/// Score from which a point near the end is left out when the last point is scored.
const DROP_SCORE: f64 = 1.5;
/// Standard deviations below which the last point is no anomaly, whatever its score.
const LEAST_DEVIATION: f64 = 1.5;
/// Score up to which a point speaks for what was to be expected.
const SKELETON_SCORE: f64 = 1.0;
/// Taken off the stored score. The reference means to rescale scores from 3.5..=15 to 0..=1, but divides
/// before it subtracts; margins are made of the result.
const SCORE_OFFSET: f64 = 3.5 / 11.5;

/// Judges by spectral residual; owns its scratch memory.
#[derive(Debug, Default)]
pub(super) struct SpectralResidual {
    spectrum: Vec<Complex64>,
    extended: Vec<f64>,
    sorted: Vec<f64>,
    saliency: Vec<f64>,
    prefix: Vec<f64>,
    scores: Vec<f64>,
    shortened: Vec<f64>,
    last_scores: Vec<f64>,
    candidates: Vec<f64>,
    positions: Vec<u32>,
    ranked: Vec<Ranked>,
    skeleton: Vec<(usize, f64)>,
}

impl SpectralResidual {
    /// Judges `x`. `with_trend`: the margins need one.
    pub(super) fn judge(
        &mut self,
        x: &[f64],
        (ratio, threshold): (f64, f64),
        last: bool,
        with_trend: bool,
        tools: &mut Tools,
        judged: &mut Judged,
    ) -> Result<(), DetectError> {
        let n = x.len();
        // Rounded down, where the other models round up.
        let most = ((n as f64 * ratio) as usize).max(1);
        let mut scores = std::mem::take(&mut self.scores);
        judged.model = Model::SpectralResidual;
        if last {
            if self.score_last(x, most, &mut tools.fourier, &mut scores) {
                judged.model = Model::SpectralResidualZScore;
            }
        } else {
            self.score(x, true, &mut tools.fourier, &mut scores);
        }
        self.flag(&scores, threshold, most, &mut judged.flags);
        judged.value.clear();
        judged.value.extend_from_slice(x);
        self.expect(x, &scores, last, &mut judged.expected);
        judged.trend.clear();
        if with_trend {
            tools.trend(&judged.expected, None, &mut judged.trend)?;
        }
        judged.score.clear();
        judged.score.extend(
            scores
                .iter()
                .map(|score| (score - SCORE_OFFSET).clamp(0.0, 1.0)),
        );
        judged.set_directions();
        self.scores = scores;
        Ok(())
    }

    /// Scores that tell about the last point: salient points shortly before it are left out when it is
    /// scored itself. True if it is so near the mean that its score is set to 0.
    fn score_last(
        &mut self,
        x: &[f64],
        most: usize,
        fourier: &mut Fourier,
        scores: &mut Vec<f64>,
    ) -> bool {
        let n = x.len();
        self.score(x, false, fourier, scores);
        let (mean, variance) = stats::moments(x);
        let kept = kept_before_last(n, most, scores);
        if ((x[n - 1] - mean) / variance.sqrt()).abs() < LEAST_DEVIATION {
            scores[kept..n - 1].fill(2.0 * SKELETON_SCORE);
            scores[n - 1] = 0.0;
            return true;
        }
        let mut shortened = std::mem::take(&mut self.shortened);
        shortened.clear();
        shortened.extend_from_slice(&x[..kept]);
        shortened.push(x[n - 1]);
        let mut last_scores = std::mem::take(&mut self.last_scores);
        self.score(&shortened, false, fourier, &mut last_scores);
        scores[kept..n - 1].fill(2.0 * SKELETON_SCORE);
        scores[n - 1] = last_scores[kept];
        self.shortened = shortened;
        self.last_scores = last_scores;
        false
    }

    /// How far the saliency of each point lies off its trailing mean, relative to that.
    fn score(&mut self, x: &[f64], clean: bool, fourier: &mut Fourier, scores: &mut Vec<f64>) {
        let n = x.len();
        let extension = if clean {
            self.clean_extension(x)
        } else {
            extension([6, 5, 4, 3, 2, 1].map(|back| x[n - 1 - back]))
        };
        self.extended.clear();
        self.extended.extend_from_slice(x);
        self.extended.extend([extension; EXTENSION]);
        fourier.full_spectrum(&self.extended, &mut self.spectrum);
        flatten(&mut self.spectrum);
        fourier.inverse(&mut self.spectrum);
        self.saliency.clear();
        self.saliency.extend(
            self.spectrum[..n]
                .iter()
                .map(|value| value.norm_sqr().sqrt()),
        );
        self.prefix.clear();
        let mut sum = 0.0;
        self.prefix.extend(self.saliency.iter().map(|value| {
            sum += value;
            sum
        }));
        let full = TRAILING.min(n);
        scores.clear();
        scores.extend((0..n).map(|i| {
            let (value, prefix) = (self.saliency[i], self.prefix[i]);
            let mean = if i == 0 {
                value
            } else if i < full {
                // A past that is missing counts as the mean of what there is.
                let before = (prefix - value) / i as f64;
                let absent = TRAILING as f64 - i as f64 - 1.0;
                (prefix + before * absent) / TRAILING as f64
            } else {
                (prefix - self.prefix[i - full]) / full as f64
            };
            let mean = if is_close(mean, stats::EPS) {
                stats::EPS
            } else {
                mean
            };
            (value - mean).abs() / mean
        }));
    }

    /// The extension from the last values within Tukey's fences.
    fn clean_extension(&mut self, x: &[f64]) -> f64 {
        self.sorted.clear();
        self.sorted.extend_from_slice(x);
        self.sorted.sort_unstable_by(f64::total_cmp);
        let [q25, q50, q75] = [0.25, 0.5, 0.75].map(|q| quantile_of_sorted(&self.sorted, q));
        let reach = 1.5 * (q75 - q25);
        let mut values = [q50; 6];
        let within = x
            .iter()
            .rev()
            .filter(|value| (q25 - reach..=q75 + reach).contains(*value));
        for (place, value) in values.iter_mut().rev().zip(within) {
            *place = *value;
        }
        extension(values)
    }

    /// Flags the `most` highest scores from the threshold on.
    fn flag(&mut self, scores: &[f64], threshold: f64, most: usize, flags: &mut Vec<bool>) {
        flags.clear();
        flags.extend(scores.iter().map(|score| *score >= threshold));
        // Sorted descending as the reference does it: the reversed list ascending, read backwards. It
        // decides which of equal scores go first.
        self.positions.clear();
        self.positions.extend(
            (0..)
                .zip(&*flags)
                .filter(|(_, flag)| **flag)
                .map(|(i, _)| i),
        );
        if self.positions.len() <= most {
            return;
        }
        self.positions.reverse();
        self.candidates.clear();
        self.candidates
            .extend(self.positions.iter().map(|i| scores[*i as usize]));
        argsort(&self.candidates, &mut self.ranked);
        for ranked in &self.ranked[..self.ranked.len() - most] {
            flags[self.positions[ranked.index as usize] as usize] = false;
        }
    }

    /// What was to be expected, from the skeleton: points of low score.
    fn expect(&mut self, x: &[f64], scores: &[f64], last: bool, expected: &mut Vec<f64>) {
        let n = x.len();
        expected.clear();
        expected.extend_from_slice(x);
        let is_skeleton = |i: usize| scores[i] <= SKELETON_SCORE;
        if last {
            self.candidates.clear();
            self.candidates
                .extend((0..n).filter(|i| is_skeleton(*i)).map(|i| x[i]));
            let half = &self.candidates[self.candidates.len() / 2..];
            expected[n - 1] = stats::mean(half);
            return;
        }
        // Count and sum of the skeleton points before each position.
        self.skeleton.clear();
        self.skeleton.push((0, 0.0));
        self.prefix.clear();
        self.prefix.push(0.0);
        for (i, value) in x.iter().enumerate() {
            let (count, sum) = self.skeleton[i];
            let taken = if is_skeleton(i) {
                (1, *value)
            } else {
                (0, 0.0)
            };
            self.skeleton.push((count + taken.0, sum + taken.1));
            self.prefix.push(self.prefix[i] + value);
        }
        for i in (0..n).filter(|i| !is_skeleton(*i)) {
            let (from, to) = (self.skeleton[i / 2], self.skeleton[i + 1]);
            expected[i] = if to.0 == from.0 {
                self.prefix[i + 1] / (i + 1) as f64
            } else {
                (to.1 - from.1) / (to.0 - from.0) as f64
            };
        }
        self.prefix.clear();
        let mut sum = 0.0;
        self.prefix.extend(expected.iter().map(|value| {
            sum += value;
            sum
        }));
        for (i, value) in expected.iter_mut().enumerate() {
            *value = if i < SMOOTHING {
                self.prefix[i] / (i + 1) as f64
            } else {
                (self.prefix[i] - self.prefix[i - SMOOTHING]) / SMOOTHING as f64
            };
        }
    }
}

/// How many points from the start are kept when the last one is scored.
fn kept_before_last(n: usize, most: usize, scores: &[f64]) -> usize {
    let share = |share: f64| (n as f64 * share) as usize;
    let drop = most.max(share(0.1)).min(share(0.45));
    (n - drop..n)
        .find(|i| scores[*i] >= DROP_SCORE)
        .unwrap_or(n - 1)
}

/// The value that continues six: their median, moved along the mean slope from each to the last.
fn extension(values: [f64; 6]) -> f64 {
    let last = values[5];
    let slopes: f64 = (0..5).map(|i| (last - values[i]) / (5 - i) as f64).sum();
    let mut sorted = values;
    sorted.sort_unstable_by(f64::total_cmp);
    median_of_sorted(&sorted) + slopes * 0.5 * 7.0 / 5.0
}

/// Divides every line of the spectrum by the geometric mean of its magnitude and the two before it.
///
/// The mean trails instead of being centred, zeros are skipped without changing its exponent, and it is
/// a running product that may overflow; all of that is the reference's, and the scores depend on it.
fn flatten(spectrum: &mut [Complex64]) {
    let mut product = 1.0;
    let mut before = [0.0; 3];
    for (k, line) in spectrum.iter_mut().enumerate() {
        let magnitude = line.norm_sqr().sqrt();
        if magnitude > 0.0 {
            product *= magnitude;
        }
        let leaving = before[k % 3];
        if k >= 3 && leaving > 0.0 {
            product /= leaving;
        }
        before[k % 3] = magnitude;
        let mean = match k {
            0 => product,
            1 => product.sqrt(),
            _ => product.powf(1.0 / 3.0),
        };
        *line = if mean == 0.0 {
            Complex64::default()
        } else {
            *line / mean
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::tests::series_a;

    fn scores(x: &[f64], clean: bool) -> Vec<f64> {
        let mut out = vec![];
        SpectralResidual::default().score(x, clean, &mut Fourier::default(), &mut out);
        out
    }

    #[test]
    fn scores_are_those_of_the_reference() {
        let a = series_a();
        let mut c = a.clone();
        c[20] += 60.0;
        c[39] += 45.0;
        let cases = [
            (
                &a,
                true,
                [
                    (1, 0.9867683830634254),
                    (10, 0.3453610398482972),
                    (39, 0.7417636895873017),
                ],
            ),
            (
                &a,
                false,
                [
                    (1, 0.9088078477439993),
                    (10, 0.3283247926949255),
                    (39, 1.8851812497063052),
                ],
            ),
            (
                &c,
                true,
                [
                    (1, 0.48986089706834884),
                    (20, 7.453840017983437),
                    (39, 6.300724689762083),
                ],
            ),
        ];
        for (x, clean, expected) in cases {
            let found = scores(x, clean);
            assert_eq!(found[0], 0.0);
            for (i, score) in expected {
                assert!((found[i] - score).abs() < 1e-10, "{i}: {}", found[i]);
            }
        }
    }

    #[test]
    fn extensions_are_those_of_the_reference() {
        let a = series_a();
        let clean = SpectralResidual::default().clean_extension(&a);
        assert!((clean - 30.40666666666666).abs() < 1e-12);
        let plain = extension([33, 34, 35, 36, 37, 38].map(|i| a[i]));
        assert!((plain + 2.2183333333333337).abs() < 1e-12);
    }
}
