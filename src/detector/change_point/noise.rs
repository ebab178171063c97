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

#[cfg(test)]
mod tests {
    use super::*;

    /// Gaussian noise (Box and Muller on a Weyl sequence's mixed bits) with first-order correlation `phi`.
    fn noise(n: usize, phi: f64) -> Vec<f64> {
        let mut state = 42_u64;
        let mut unit = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
        };
        let mut last = 0.0;
        let mut draw = || {
            let radius = (-2.0 * unit().ln()).sqrt();
            let normal = radius * (std::f64::consts::TAU * unit()).cos();
            last = phi * last + (1.0 - phi * phi).sqrt() * normal;
            last
        };
        (0..n).map(|_| draw()).collect()
    }

    #[test]
    fn white_noise_is_measured_past_steps_slopes_and_outliers() {
        let mut y = noise(2000, 0.0);
        for (i, value) in y.iter_mut().enumerate() {
            *value += 0.05 * i as f64 + if i > 700 { 40.0 } else { 0.0 };
            if i % 97 == 0 {
                *value += 60.0;
            }
        }
        let variance = white_variance(&y);
        assert!((0.85..1.2).contains(&variance), "{variance}");
    }

    #[test]
    fn correlation_adds_to_the_variance_of_means() {
        let y = noise(4000, 0.5);
        let (counts, begins) = (vec![true; 4000], vec![false; 4000]);
        let variance = long_run_variance(&y, &counts, &begins, 1);
        assert!((2.6..3.4).contains(&variance), "{variance}");
        let white = long_run_variance(&noise(4000, 0.0), &counts, &begins, 1);
        assert!((0.9..1.15).contains(&white), "{white}");
    }

    #[test]
    fn parameters_spent_are_made_up_for() {
        let y = noise(60, 0.0);
        let (counts, begins) = (vec![true; 60], vec![false; 60]);
        let few = long_run_variance(&y, &counts, &begins, 0);
        let many = long_run_variance(&y, &counts, &begins, 20);
        assert!(many > 1.4 * few, "{few} {many}");
        assert_eq!(
            long_run_variance(&[0.0; 9], &[true; 9], &[false; 9], 2),
            0.0
        );
    }
}
