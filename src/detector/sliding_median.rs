//! Sliding median in single precision, as the reference filters.
//!
//! The window is kept sorted; moving it by one shifts what lies between the value that leaves and the
//! one that enters. Medians are order statistics of binary32 values, so any way of finding them gives
//! the same numbers.

/// Sliding median; owns its window.
#[derive(Debug, Default)]
pub(super) struct SlidingMedian {
    window: Vec<f32>,
}

impl SlidingMedian {
    /// The sliding median of `x` over `2·⌊window/2⌋ + 1` points into `out`, in binary32. The points at
    /// both ends that lack a full window keep their value.
    pub(super) fn filter(&mut self, x: &[f64], window: usize, out: &mut Vec<f32>) {
        let half = window / 2;
        let full = 2 * half + 1;
        out.clear();
        out.extend(x.iter().map(|value| *value as f32));
        if x.len() < full {
            return;
        }
        self.start(&x[..full]);
        for i in half..x.len() - half {
            if i > half {
                self.shift(x[i - half - 1] as f32, x[i + half] as f32);
            }
            out[i] = self.window[half];
        }
    }

    /// The same with the ends filtered over what there is of their windows.
    pub(super) fn filter_to_the_ends(&mut self, x: &[f64], window: usize, out: &mut Vec<f32>) {
        self.filter(x, window, out);
        let (n, half) = (x.len(), window / 2);
        let full = 2 * half + 1;
        if n < full {
            return;
        }
        self.right_end(x, half, out);
        self.window.clear();
        for value in &x[..half] {
            self.insert(*value as f32);
        }
        for i in 0..half {
            self.insert(x[i + half] as f32);
            out[i] = median_by_position(&self.window);
        }
    }

    /// The right end, where the reference takes the leaving value out of the sorted window by a
    /// search with the *unrounded* value among the rounded ones: when rounding had moved that value up,
    /// its smaller neighbour is taken out instead, and when it was the smallest, the last place of the
    /// window is written. Period verification sees these medians, so they decide verdicts.
    fn right_end(&mut self, x: &[f64], half: usize, out: &mut [f32]) {
        let n = x.len();
        let window = &mut self.window;
        let mut count = window.len();
        for i in n - half..n {
            let leaving = x[i - half - 1];
            let mut at = upper_bound(&window[..count], leaving);
            if at == 0 {
                let last = window.len() - 1;
                window[last] = window[0];
            } else {
                at -= 1;
            }
            window.copy_within(at + 1..count, at);
            count -= 1;
            out[i] = median_by_position(&window[..count]);
        }
    }

    fn start(&mut self, x: &[f64]) {
        self.window.clear();
        self.window.extend(x.iter().map(|value| *value as f32));
        self.window.sort_unstable_by(f32::total_cmp);
    }

    fn insert(&mut self, value: f32) {
        let at = self.window.partition_point(|inside| *inside < value);
        self.window.insert(at, value);
    }

    /// Takes `leaving`, which is inside, out and puts `entering` in.
    fn shift(&mut self, leaving: f32, entering: f32) {
        let window = &mut self.window;
        let from = window.partition_point(|inside| *inside < leaving);
        let to = window.partition_point(|inside| *inside < entering);
        if to > from {
            window.copy_within(from + 1..to, from);
            window[to - 1] = entering;
        } else {
            window.copy_within(to..from, to + 1);
            window[to] = entering;
        }
    }
}

/// How many of the leading elements are at most `x`, by bisection: `sorted` may have stopped being
/// sorted, and then it matters how it is searched.
fn upper_bound(sorted: &[f32], x: f64) -> usize {
    let (mut low, mut high) = (0, sorted.len());
    while low < high {
        let middle = (low + high) / 2;
        if x < f64::from(sorted[middle]) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

fn median_by_position(sorted: &[f32]) -> f32 {
    let n = sorted.len();
    if n % 2 == 1 {
        sorted[n / 2]
    } else {
        (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::stats::normalize;
    use crate::detector::tests::series_a;

    #[test]
    fn the_middle_is_the_median_of_the_window() {
        let x: Vec<f64> = (0..50).map(|i| f64::from(i * 17 % 23)).collect();
        let mut out = vec![];
        SlidingMedian::default().filter(&x, 9, &mut out);
        for i in 4..46 {
            let mut window = x[i - 4..=i + 4].to_vec();
            window.sort_by(f64::total_cmp);
            assert_eq!(f64::from(out[i]), window[4], "at {i}");
        }
        assert_eq!(out[3], x[3] as f32);
    }

    #[test]
    fn a_window_longer_than_the_series_changes_nothing() {
        let mut out = vec![];
        SlidingMedian::default().filter_to_the_ends(&[3.0, 1.0, 2.0], 5, &mut out);
        assert_eq!(out, [3.0, 1.0, 2.0]);
    }

    // The last values are those of the reference, whose right end is no median of what is left.
    #[test]
    fn both_ends_are_those_of_the_reference() {
        let mut x = vec![];
        normalize(&series_a(), &mut x);
        let mut out = vec![];
        SlidingMedian::default().filter_to_the_ends(&x, 7, &mut out);
        let expected = [
            (0, 0.392276406288147),
            (1, 0.42276424169540405),
            (3, 0.42276424169540405),
            (20, 0.45528456568717957),
            (36, 0.6382113695144653),
            (37, 0.7134146690368652),
            (38, 0.7886179089546204),
            (39, 0.8191057443618774),
        ];
        for (i, value) in expected {
            assert_eq!(f64::from(out[i]), value, "at {i}");
        }
    }
}
