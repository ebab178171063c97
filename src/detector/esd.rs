//! Ranking outliers: the generalised ESD test and the z-score, and how their lists are merged.
//!
//! Rosner's test (Technometrics 25, 1983) in a robust form. Comparisons are in single precision, as in
//! the reference.

use super::sort::{Ranked, argsort};
use super::stats::{EPS, Q34, is_close, is_near_zero, mad, median_of_sorted, moments};
use super::student::CriticalValues;

/// Which end of the sorted values is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    Upper,
    Lower,
}

/// A series that is ranked: sorted once, read from both ends by every test.
#[derive(Debug, Default)]
struct Sorted {
    ranked: Vec<Ranked>,
    keys: Vec<f64>,
    /// The value that more than half of the points have, if it lies inside their range.
    majority: Option<f64>,
}

/// What a selection may take and how it is tested.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most points per tail.
    pub(super) most: usize,
    /// Significance of the ESD test.
    pub(super) alpha: f64,
    /// Only whether the last point is an outlier matters.
    pub(super) last: bool,
}

/// Selects outliers; owns its scratch memory.
#[derive(Debug, Default)]
pub(super) struct Outliers {
    data: Sorted,
    remainder: Sorted,
    esd: Esd,
    critical: CriticalValues,
    lists: [Vec<u32>; 3],
    merged: Merge,
    scratch: Vec<f64>,
}

impl Outliers {
    /// Outliers of `data`, and of `remainder` if there is one, both normalised, into `flags`, which are
    /// as many as the values. True when one of them has a majority value.
    pub(super) fn select(
        &mut self,
        data: &[f64],
        remainder: Option<&[f64]>,
        limits: Limits,
        flags: &mut Vec<bool>,
    ) -> bool {
        let n = data.len();
        self.data.load(data, &mut self.scratch);
        if let Some(remainder) = remainder {
            self.remainder.load(remainder, &mut self.scratch);
        }
        flags.clear();
        flags.resize(n, false);
        let (center, spread) = z_scale(&self.data.keys, &mut self.scratch);
        for tail in [Tail::Upper, Tail::Lower] {
            for list in &mut self.lists {
                list.clear();
            }
            let [first, second, third] = &mut self.lists;
            self.esd
                .select(&self.data, tail, limits, &mut self.critical, first);
            z_score(&self.data, tail, limits.most, center, spread, second);
            if remainder.is_some() {
                self.esd
                    .select(&self.remainder, tail, limits, &mut self.critical, third);
            }
            for index in self.merged.merge(&self.lists, n, limits.most) {
                flags[index as usize] = true;
            }
        }
        self.data.majority.is_some() || remainder.is_some() && self.remainder.majority.is_some()
    }
}

impl Sorted {
    fn load(&mut self, values: &[f64], scratch: &mut Vec<f64>) {
        argsort(values, &mut self.ranked);
        self.keys.clear();
        self.keys
            .extend(self.ranked.iter().map(|ranked| ranked.key));
        self.majority = majority(&self.keys, scratch);
    }

    /// The values from the most extreme one inwards.
    fn inwards(&self, tail: Tail, i: usize) -> Ranked {
        match tail {
            Tail::Upper => self.ranked[self.ranked.len() - 1 - i],
            Tail::Lower => self.ranked[i],
        }
    }
}

/// The majority value of values in ascending order. It must not be the least or the greatest; the test
/// for that is lopsided, being measured by the value at the end: 1e-8 at 0, but 1.001e-5 at 1.
fn majority(sorted: &[f64], scratch: &mut Vec<f64>) -> Option<f64> {
    if !is_near_zero(mad(sorted, scratch)) {
        return None;
    }
    let n = sorted.len();
    let candidate = sorted[(n - 1) / 2];
    (!is_close(candidate, sorted[0]) && !is_close(candidate, sorted[n - 1])).then_some(candidate)
}

/// The generalised ESD test; owns its scratch memory.
#[derive(Debug, Default)]
struct Esd {
    /// The tail's values in binary32, most extreme first.
    values: Vec<f32>,
    squares: Vec<f32>,
    /// Sums and sums of squares of the values from each position on, about the middle one.
    sums: Vec<(f64, f64)>,
    middle: f64,
}

impl Esd {
    fn select(
        &mut self,
        series: &Sorted,
        tail: Tail,
        limits: Limits,
        critical: &mut CriticalValues,
        selected: &mut Vec<u32>,
    ) {
        let n = series.ranked.len();
        let mut length = n;
        if let Some(majority) = series.majority {
            // Only what lies beyond the majority's values is tested.
            while (series.inwards(tail, length - 1).key - majority).abs() >= EPS {
                length -= 1;
            }
        }
        let start = if limits.last {
            let last = n as u32 - 1;
            match (0..length).find(|i| series.inwards(tail, *i).index == last) {
                Some(rank) => rank,
                None => return,
            }
        } else {
            0
        };
        let end = limits.most.min(length);
        if start >= end {
            return;
        }
        self.load(series, tail, length);
        let critical = critical.for_alpha(limits.alpha);
        let mut hit = |k: usize| {
            let bound = critical.get(length - k);
            self.is_extreme(tail, k, bound)
        };
        // Everything at least as extreme as a hit is an outlier, whatever its own test said. Judging the
        // whole series the innermost hit counts, judging the last point the first one from it on.
        let found = if limits.last {
            (start..end).find(|k| hit(*k))
        } else {
            (start..end).rev().find(|k| hit(*k))
        };
        if let Some(k) = found {
            selected.extend((0..=k).map(|i| series.inwards(tail, i).index));
        }
    }

    fn load(&mut self, series: &Sorted, tail: Tail, length: usize) {
        self.values.clear();
        self.values
            .extend((0..length).map(|i| series.inwards(tail, i).key as f32));
        self.middle = f64::from(self.values[length / 2]);
        self.sums.clear();
        self.sums.resize(length, (0.0, 0.0));
        let mut running = (0.0, 0.0);
        for (sums, value) in self.sums.iter_mut().zip(&self.values).rev() {
            let off = f64::from(*value) - self.middle;
            running = (running.0 + off, running.1 + off * off);
            *sums = running;
        }
    }

    /// Whether the value at `k` is too far from the middle of those from `k` on: by median and median
    /// absolute deviation, or else by mean and standard deviation.
    fn is_extreme(&mut self, tail: Tail, k: usize, bound: f32) -> bool {
        let x = &self.values[k..];
        let extreme = x[0];
        let center = median_f32(x);
        let spread = median_deviation(x, center) / Q34 as f32;
        exceeds(tail, extreme, center, spread, bound) || self.exceeds_by_mean(tail, k, bound)
    }

    /// The test by mean and standard deviation. Sums in binary64 decide it unless it is so close that the
    /// rounding of the reference's binary32 sums matters; then those are made.
    fn exceeds_by_mean(&mut self, tail: Tail, k: usize, bound: f32) -> bool {
        let x = &self.values[k..];
        let m = x.len() as f64;
        let (sum, squares) = self.sums[k];
        let off = sum / m;
        let spread = (squares / m - off * off).max(0.0).sqrt();
        let distance = f64::from(x[0]) - (self.middle + off);
        let distance = if tail == Tail::Upper {
            distance
        } else {
            -distance
        };
        let (ratio, limit) = (distance / spread, f64::from(bound));
        let largest = f64::from(x[0].abs().max(x[x.len() - 1].abs()));
        let undecided = 1e-4 * limit + 1e-5 * largest / spread;
        if spread >= 1e-5 && (ratio - limit).abs() > undecided {
            return ratio > limit;
        }
        let mean = sum_f32(x) / x.len() as f32;
        self.squares.clear();
        self.squares
            .extend(x.iter().map(|value| (value - mean) * (value - mean)));
        let spread = (sum_f32(&self.squares) / x.len() as f32).sqrt();
        exceeds(tail, x[0], mean, spread, bound)
    }
}

fn exceeds(tail: Tail, extreme: f32, center: f32, spread: f32, bound: f32) -> bool {
    let spread = spread.max(EPS as f32);
    let distance = match tail {
        Tail::Upper => extreme - center,
        Tail::Lower => center - extreme,
    };
    distance / spread > bound
}

/// Median of sorted values, ascending or descending.
fn median_f32(x: &[f32]) -> f32 {
    let n = x.len();
    if n % 2 == 1 {
        x[n / 2]
    } else {
        (x[n / 2 - 1] + x[n / 2]) / 2.0
    }
}

/// Median of the distances of sorted values from `center`, which lies among them: the distances fall
/// towards the middle from either side, so the wanted one is found by bisection over how many of it
/// come from the left.
fn median_deviation(x: &[f32], center: f32) -> f32 {
    let n = x.len();
    let split = n / 2;
    // Distances in ascending order: left of the split going outwards, and from the split on.
    let left = |i: usize| (x[split - 1 - i] - center).abs();
    let right = |i: usize| (x[split + i] - center).abs();
    let (left_count, right_count) = (split, n - split);
    // The `rank + 1` smallest distances take `from_left` from the left; the largest of these is wanted.
    let smallest = |rank: usize| -> f32 {
        let take = rank + 1;
        let (mut low, mut high) = (take.saturating_sub(right_count), take.min(left_count));
        while low < high {
            let from_left = (low + high) / 2;
            // One more from the left is right as long as it is smaller than the last from the right.
            if left(from_left) < right(take - from_left - 1) {
                low = from_left + 1;
            } else {
                high = from_left;
            }
        }
        let from_right = take - low;
        let of_left = if low > 0 { left(low - 1) } else { 0.0 };
        let of_right = if from_right > 0 {
            right(from_right - 1)
        } else {
            0.0
        };
        of_left.max(of_right)
    };
    if n % 2 == 1 {
        smallest(n / 2)
    } else {
        let sum = f64::from(smallest(n / 2 - 1)) + f64::from(smallest(n / 2));
        (sum / 2.0) as f32
    }
}

/// Sum in binary32 in the order of numpy's reductions: chunks of 8192, each by pairwise halves down to
/// 128 and eight running sums there.
fn sum_f32(x: &[f32]) -> f32 {
    x.chunks(8192)
        .fold(0.0, |total, chunk| total + pairwise(chunk))
}

fn pairwise(x: &[f32]) -> f32 {
    let n = x.len();
    if n < 8 {
        return x.iter().fold(0.0, |total, value| total + value);
    }
    if n > 128 {
        let half = n / 2 / 8 * 8;
        return pairwise(&x[..half]) + pairwise(&x[half..]);
    }
    let mut lanes = [0.0_f32; 8];
    let chunks = x.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    let total = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]))
        + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
    rest.iter().fold(total, |total, value| total + value)
}

/// Centre and spread of sorted values for the z-score: median and its deviation, or where that is 0 mean
/// and standard deviation.
fn z_scale(sorted: &[f64], scratch: &mut Vec<f64>) -> (f64, f64) {
    let spread = mad(sorted, scratch);
    if spread == 0.0 {
        let (mean, variance) = moments(sorted);
        (mean, variance.sqrt())
    } else {
        (median_of_sorted(sorted), spread)
    }
}

/// The points among the `most` most extreme of a tail that are more than three spreads off, on either
/// side.
fn z_score(
    series: &Sorted,
    tail: Tail,
    most: usize,
    center: f64,
    spread: f64,
    selected: &mut Vec<u32>,
) {
    if spread == 0.0 {
        return;
    }
    selected.extend(
        (0..most.min(series.ranked.len()))
            .map(|i| series.inwards(tail, i))
            .filter(|ranked| (ranked.key - center).abs() / spread > 3.0)
            .map(|ranked| ranked.index),
    );
}

/// Merges ranked lists; owns its scratch memory.
#[derive(Debug, Default)]
struct Merge {
    /// Score of each listed point by its position in the series, and that position.
    scores: Vec<(usize, u32)>,
    /// Where a point stands in `scores`, plus one.
    places: Vec<u32>,
}

impl Merge {
    /// The points of best rank, at most `most`: a point's rank is the sum of its places in the lists, and
    /// being first listed in a later list costs `n` for each earlier one.
    fn merge<'a>(
        &'a mut self,
        lists: &[Vec<u32>],
        n: usize,
        most: usize,
    ) -> impl Iterator<Item = u32> + use<'a> {
        self.scores.clear();
        self.places.clear();
        self.places.resize(n, 0);
        for (list_number, list) in lists.iter().enumerate() {
            for (rank, index) in list.iter().enumerate() {
                let place = &mut self.places[*index as usize];
                if *place > 0 {
                    self.scores[*place as usize - 1].0 += rank;
                } else {
                    self.scores.push((rank + list_number * n, *index));
                    *place = self.scores.len() as u32;
                }
            }
        }
        if self.scores.len() > most {
            self.scores.sort_by_key(|(score, _)| *score);
        }
        self.scores.iter().take(most).map(|(_, index)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_by_bisection_are_those_by_sorting() {
        let mut state = 1_u32;
        for n in 1..60 {
            let mut x: Vec<f32> = (0..n)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as f32 / 7.0
                })
                .collect();
            x.sort_by(|a, b| b.total_cmp(a));
            let center = median_f32(&x);
            let mut all: Vec<f32> = x.iter().map(|value| (value - center).abs()).collect();
            all.sort_by(f32::total_cmp);
            let expected = if n % 2 == 1 {
                all[n / 2]
            } else {
                ((f64::from(all[n / 2 - 1]) + f64::from(all[n / 2])) / 2.0) as f32
            };
            assert_eq!(median_deviation(&x, center), expected, "{n}");
        }
    }

    fn flagged(x: &[f64], most: usize, last: bool) -> Vec<usize> {
        let mut flags = vec![];
        let limits = Limits {
            most,
            alpha: 0.05,
            last,
        };
        Outliers::default().select(x, None, limits, &mut flags);
        (0..x.len()).filter(|i| flags[*i]).collect()
    }

    fn with(outliers: &[(usize, f64)]) -> Vec<f64> {
        let mut x: Vec<f64> = (0..40).map(|i| f64::from(i * 37 % 23) / 100.0).collect();
        for (i, value) in outliers {
            x[*i] = *value;
        }
        x
    }

    // The cap holds for each tail on its own.
    #[test]
    fn both_tails_may_be_used_up() {
        let x = with(&[(3, 5.0), (9, 6.0), (20, -5.0), (30, -6.0), (31, 4.0)]);
        assert_eq!(flagged(&x, 2, false), [3, 9, 20, 30]);
    }

    // Judging the last point, everything more extreme than the first hit from it on is listed.
    #[test]
    fn the_last_point_brings_the_more_extreme_ones_with_it() {
        let x = with(&[(3, 5.0), (39, 4.0)]);
        assert_eq!(flagged(&x, 5, true), [3, 39]);
    }

    #[test]
    fn a_majority_value_at_the_edge_is_none() {
        let mut x = vec![0.5; 30];
        x[3] = 0.0;
        x[4] = 1.0;
        x.sort_by(f64::total_cmp);
        assert_eq!(majority(&x, &mut vec![]), Some(0.5));
        x[0] = 0.5;
        assert_eq!(majority(&x, &mut vec![]), None);
    }

    #[test]
    fn merging_adds_ranks_and_puts_later_lists_behind() {
        let lists = [vec![4, 2], vec![2, 7, 4], vec![]];
        let merged: Vec<u32> = Merge::default().merge(&lists, 10, 2).collect();
        assert_eq!(merged, [2, 4]);
    }
}
