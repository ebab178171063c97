//! How much of a series is one value: the fullest of twenty equal bins. A last point is judged more
//! sparingly when most of its window stands still.

use super::stats::extent;

const BINS: usize = 20;
/// Share of one bin from which the cap on anomalies shrinks.
const MAJORITY: f64 = 0.6;
/// The cap does not shrink below this.
const LEAST_RATIO: f64 = 0.05;

/// The share of points that may be flagged when the last one is judged, given the one asked for.
pub(super) fn refined_ratio(values: &[f64], ratio: f64) -> f64 {
    let share = majority(values);
    if share > MAJORITY {
        ((1.0 - share) * ratio).max(LEAST_RATIO.min(ratio))
    } else {
        ratio
    }
}

/// Share of the points in the fullest bin between the least and the greatest value.
fn majority(values: &[f64]) -> f64 {
    let counts = histogram(values);
    let most = counts.into_iter().max().unwrap_or(0);
    f64::from(most) / values.len() as f64
}

/// numpy's histogram: the bin is computed, then corrected by its edges.
fn histogram(values: &[f64]) -> [u32; BINS] {
    let (mut low, mut high) = extent(values);
    if low == high {
        (low, high) = (low - 0.5, high + 0.5);
    }
    let step = (high - low) / BINS as f64;
    let edge = |k: usize| {
        if k == BINS {
            high
        } else {
            low + k as f64 * step
        }
    };
    let mut counts = [0; BINS];
    for value in values {
        let mut bin = ((value - low) / (high - low) * BINS as f64) as usize;
        bin = bin.min(BINS - 1);
        if *value < edge(bin) {
            bin -= 1;
        } else if bin != BINS - 1 && *value >= edge(bin + 1) {
            bin += 1;
        }
        counts[bin] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_those_of_the_reference() {
        let values: Vec<f64> = (0..30).map(|i| f64::from(i % 7)).collect();
        let expected = [5, 0, 0, 5, 0, 0, 4, 0, 0, 0, 4, 0, 0, 4, 0, 0, 4, 0, 0, 4];
        assert_eq!(histogram(&values), expected);
        assert_eq!(majority(&[3.0; 12]), 1.0);
    }

    #[test]
    fn the_cap_shrinks_with_the_majority_down_to_a_floor() {
        let mut values = vec![1.0; 10];
        values[..3].copy_from_slice(&[0.0, 5.0, 9.0]);
        assert!((refined_ratio(&values, 0.25) - 0.3 * 0.25).abs() < 1e-12);
        values[1] = 1.0;
        values[0] = 1.0;
        assert_eq!(refined_ratio(&values, 0.25), 0.05);
        assert_eq!(refined_ratio(&values, 0.01), 0.01);
    }
}
