//! Gaps of the grid and what is put there while a series is judged.

use super::options::Impute;
use super::spline;
use super::stats::extent;

/// Longest series with its gaps filled; beyond it the points count as adjacent.
const LONGEST_FILLED: i64 = 17_280;
/// Longest gap that a spline may cross, in slots; it must not be longer than a quarter of a period
/// either.
const SPLINE_GAP: usize = 6;
/// Weights of the values one, two and three periods before a missing one, and of those after it.
const PHASE_WEIGHTS: [f64; 6] = [0.1, 0.3, 0.6, 0.6, 0.3, 0.1];

/// The gaps of a series on its grid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gaps<'a> {
    /// Slot of each point: from 0, strictly ascending.
    pub(super) indices: &'a [i64],
}

impl Gaps<'_> {
    /// Slots from the first point to the last.
    pub(super) fn slots(self) -> i64 {
        self.indices.last().map_or(0, |last| last + 1)
    }

    fn missing(self) -> i64 {
        self.slots() - self.indices.len() as i64
    }

    /// Share of the slots that have no point.
    pub(super) fn missing_ratio(self) -> f64 {
        self.missing() as f64 / self.slots() as f64
    }

    /// There is something to fill, and not too much.
    pub(super) fn fillable(self) -> bool {
        self.missing() > 0 && self.slots() <= LONGEST_FILLED
    }

    /// The points `values` with the gaps filled, one per slot, into `out`. `how` is not
    /// [`Impute::NotFill`], `period` matters to [`Impute::Auto`] alone and is above 1 there.
    pub(super) fn fill(self, values: &[f64], how: Impute, period: usize, out: &mut Vec<f64>) {
        out.clear();
        match how {
            Impute::Previous | Impute::NotFill => self.step(values, |before, _, _| before, out),
            Impute::Fixed(value) => self.step(values, |_, _, _| value, out),
            Impute::Linear => self.lines(values, out),
            Impute::Auto => self.seasonally(values, period, out),
        }
    }

    /// Points as they are, and between two of them what `between` makes of the one before, the rise to the
    /// next per slot, and the distance.
    fn step(self, values: &[f64], between: impl Fn(f64, f64, f64) -> f64, out: &mut Vec<f64>) {
        for (i, value) in values.iter().enumerate() {
            out.push(*value);
            if let Some(next) = values.get(i + 1) {
                let width = self.indices[i + 1] - self.indices[i];
                let slope = (next - value) / width as f64;
                out.extend((1..width).map(|step| between(*value, slope, step as f64)));
            }
        }
    }

    fn lines(self, values: &[f64], out: &mut Vec<f64>) {
        self.step(
            values,
            |before, slope, distance| slope * distance + before,
            out,
        );
    }

    /// Short gaps by a spline, longer ones by the same phase of the periods around, the rest by lines.
    fn seasonally(self, values: &[f64], period: usize, out: &mut Vec<f64>) {
        // The spline is taken at the known points too: their values become the spline's, equal up to
        // rounding.
        spline::interpolate(self.indices, values, out);
        let all = out.len();
        let mut missing = vec![false; all];
        let range = extent(values);
        for (point, pair) in self.indices.windows(2).enumerate() {
            let (start, end) = (pair[0] as usize + 1, pair[1] as usize);
            let length = end - start;
            if length == 0 {
                continue;
            }
            if length > SPLINE_GAP || length as f64 > period as f64 / 4.0 {
                missing[start..end].fill(true);
            } else {
                self.check_spline(values, point, out);
                for value in &mut out[start..end] {
                    *value = value.clamp(range.0, range.1);
                }
            }
        }
        if missing.contains(&true) {
            let unknown = fill_by_phase(&missing, period, out);
            if unknown {
                super::stats::fill_nan(out);
            }
        }
    }

    /// Where the points around the gap after `point` rise or fall steadily and the spline leaves their
    /// range, a line takes its place.
    fn check_spline(self, values: &[f64], point: usize, out: &mut [f64]) {
        let (start, end) = (
            self.indices[point] as usize + 1,
            self.indices[point + 1] as usize,
        );
        let is_known = |slot: usize| self.indices.binary_search(&(slot as i64)).is_ok();
        // The very first slot is never looked at.
        let around: Vec<f64> = [start.wrapping_sub(2), start - 1, end, end + 1]
            .into_iter()
            .filter(|slot| (1..out.len()).contains(slot) && is_known(*slot))
            .map(|slot| out[slot])
            .collect();
        let steady = around.is_sorted() || around.is_sorted_by(|a, b| a >= b);
        if around.len() < 3 || !steady {
            return;
        }
        let (low, high) = extent(&[around[0], around[around.len() - 1]]);
        if out[start..end]
            .iter()
            .all(|value| (low..=high).contains(value))
        {
            return;
        }
        let (before, after) = (values[point], values[point + 1]);
        let step = 1.0 / (end - start + 1) as f64;
        for (j, value) in (1..).zip(&mut out[start..end]) {
            *value = (after - before) * (f64::from(j) * step) + before;
        }
    }
}

/// Fills missing slots by the weighted mean of the same phase in up to three periods on either side. A
/// slot without any becomes NaN; true if there is one.
fn fill_by_phase(missing: &[bool], period: usize, x: &mut [f64]) -> bool {
    let all = x.len();
    // First and last slot of the run of missing slots around each missing one.
    let mut runs = vec![(0, 0); all];
    let mut slot = 0;
    while slot < all {
        let start = slot;
        while slot < all && missing[slot] {
            slot += 1;
        }
        runs[start..slot].fill((start, slot));
        slot += 1;
    }
    let mut unknown = false;
    let mut sources: Vec<f64> = Vec::with_capacity(6);
    // Every mean is made of known values, never of one made here.
    let known = x.to_vec();
    for slot in (0..all).filter(|slot| missing[*slot]) {
        sources.clear();
        let mut at = slot as i64 - period as i64;
        for _ in 0..3 {
            if at < 0 {
                break;
            }
            let k = at as usize;
            if missing[k] {
                // A run of missing slots takes one try, however many periods it covers.
                at -= ((k - runs[k].0) / period * period) as i64;
            } else {
                sources.push(known[k]);
            }
            at -= period as i64;
        }
        sources.reverse();
        let before = sources.len();
        let mut at = slot + period;
        for _ in 0..3 {
            if at >= all {
                break;
            }
            if missing[at] {
                at += ((runs[at].1 - at).div_ceil(period) - 1) * period;
            } else {
                sources.push(known[at]);
            }
            at += period;
        }
        if sources.is_empty() {
            x[slot] = f64::NAN;
            unknown = true;
            continue;
        }
        // A shorter list takes the weights nearest to the gap, whatever its real distance.
        let weights = &PHASE_WEIGHTS[3 - before..3 - before + sources.len()];
        let total: f64 = weights.iter().sum();
        let sum: f64 = weights.iter().zip(&sources).map(|(w, x)| w * x).sum();
        x[slot] = sum / total;
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::tests::series_a;

    fn filled(how: Impute, period: usize) -> Vec<f64> {
        let gone = |i: i64| [5, 6, 11].contains(&i) || (20..=28).contains(&i);
        let indices: Vec<i64> = (0..40).filter(|i| !gone(*i)).collect();
        let a = series_a();
        let values: Vec<f64> = indices.iter().map(|i| a[*i as usize]).collect();
        let mut out = vec![];
        let gaps = Gaps { indices: &indices };
        assert!(gaps.fillable());
        assert_eq!(gaps.missing_ratio(), 12.0 / 40.0);
        gaps.fill(&values, how, period, &mut out);
        assert_eq!(out.len(), 40);
        out
    }

    #[test]
    fn seasonal_filling_is_that_of_the_reference() {
        let slots = [5, 6, 11, 20, 24, 28];
        let by_five = [
            2.0999999999999996,
            9.514790828582564,
            0.38697707145641214,
            6.75,
            16.4,
            14.55,
        ];
        let by_seven = [
            10.433333333333335,
            21.33333333333334,
            0.38697707145641214,
            20.850000000000005,
            12.921052631578947,
            10.899999999999999,
        ];
        for (period, expected) in [(5, by_five), (7, by_seven)] {
            let out = filled(Impute::Auto, period);
            for (slot, value) in slots.into_iter().zip(expected) {
                assert!(
                    (out[slot] - value).abs() < 1e-9,
                    "{period} {slot}: {}",
                    out[slot]
                );
            }
        }
    }

    #[test]
    fn the_other_ways_do_what_they_say() {
        let a = series_a();
        assert_eq!(filled(Impute::Previous, 0)[28], a[19]);
        assert_eq!(filled(Impute::Fixed(-3.0), 0)[11], -3.0);
        let line = filled(Impute::Linear, 0);
        assert!((line[11] - (a[10] + a[12]) / 2.0).abs() < 1e-12);
    }
}
