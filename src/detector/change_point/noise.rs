//! How much a series varies around its pieces, as the mean of many points sees it.

use crate::detector::stats;

/// Share of the squared differences that is kept: changes and outliers are in the rest.
const KEPT: f64 = 0.8;
/// Mean square of the central 80 % of a standard normal variable.
const KEPT_VARIANCE: f64 = 0.437_7;
/// Largest autocorrelation that is believed: a random walk would leave no noise at all.
const LARGEST_CORRELATION: f64 = 0.9;

/// The variance of the noise of `y` if that is white, from the differences of neighbours, which
/// neither steps nor outliers, if rare, nor a slope reaches.
pub(super) fn white_variance(y: &[f64]) -> f64 {
    let mut squares: Vec<f64> = y.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let middle = stats::median(&mut squares.clone());
    squares
        .iter_mut()
        .for_each(|value| *value = (*value - middle).powi(2));
    squares.sort_unstable_by(f64::total_cmp);
    let kept = ((squares.len() as f64 * KEPT) as usize).max(1);
    0.5 * stats::mean(&squares[..kept]) / KEPT_VARIANCE
}

/// The variance that `residuals` bring into means over many points: that of a first-order
/// autoregression with their variance and correlation. Only residuals that count are looked at, and
/// neighbours only within a piece; `begins` marks where one begins. `fitted` parameters were spent on
/// the fit, and took variance and correlation away.
pub(super) fn long_run_variance(
    residuals: &[f64],
    counts: &[bool],
    begins: &[bool],
    fitted: usize,
) -> f64 {
    let (mut squares, mut products, mut number) = (0.0, 0.0, 0.0);
    for i in 0..residuals.len() {
        if !counts[i] {
            continue;
        }
        squares += residuals[i] * residuals[i];
        number += 1.0;
        if i > 0 && !begins[i] && counts[i - 1] {
            products += residuals[i] * residuals[i - 1];
        }
    }
    if squares == 0.0 {
        return 0.0;
    }
    let fitted = (fitted as f64).min(0.5 * number);
    let correlation = products / squares;
    let correlation =
        (correlation + fitted / number * (1.0 + correlation)).clamp(0.0, LARGEST_CORRELATION);
    squares / (number - fitted) * (1.0 + correlation) / (1.0 - correlation)
}
