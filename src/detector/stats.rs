//! Small statistics that every stage needs. Spreads are those of a population (divided by n).

/// Below this, differences of binary64 values count as none.
pub(super) const EPS: f64 = 1e-8;
/// Normal quantile of 0.75: makes the median absolute deviation an estimate of the standard deviation.
pub(super) const Q34: f64 = 0.674_489_750_196_081_7;

/// `a` is about `b`, measured by `b`: the asymmetric test of the reference, which decides verdicts.
pub(super) fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-8 + 1e-5 * b.abs()
}

/// `a` is about zero.
pub(super) fn is_near_zero(a: f64) -> bool {
    a.abs() <= 1e-8
}

/// Sum over eight running sums: as accurate as pairwise and open to vector units.
pub(super) fn sum(x: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let chunks = x.chunks_exact(8);
    let rest: f64 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    fold(lanes) + rest
}

/// Scalar product over eight running sums; the slices are equally long.
pub(super) fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let rest: f64 = xs
        .remainder()
        .iter()
        .zip(ys.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in xs.zip(ys) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    fold(lanes) + rest
}

fn fold(lanes: [f64; 8]) -> f64 {
    ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]))
        + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]))
}

pub(super) fn mean(x: &[f64]) -> f64 {
    sum(x) / x.len() as f64
}

/// Mean and variance.
pub(super) fn moments(x: &[f64]) -> (f64, f64) {
    let mean = mean(x);
    let mut lanes = [0.0; 8];
    let chunks = x.chunks_exact(8);
    let rest: f64 = chunks
        .remainder()
        .iter()
        .map(|value| (value - mean) * (value - mean))
        .sum();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += (value - mean) * (value - mean);
        }
    }
    (mean, (fold(lanes) + rest) / x.len() as f64)
}

pub(super) fn variance(x: &[f64]) -> f64 {
    moments(x).1
}

/// Least and greatest element; x is not empty and holds no NaN.
pub(super) fn extent(x: &[f64]) -> (f64, f64) {
    x.iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(*value), high.max(*value))
        })
}

/// `x` scaled to 0..=1 into `out`; a constant stays what it is.
pub(super) fn normalize(x: &[f64], out: &mut Vec<f64>) {
    let (low, high) = extent(x);
    out.clear();
    if low == high {
        out.extend_from_slice(x);
    } else {
        let width = high - low;
        out.extend(x.iter().map(|value| (value - low) / width));
    }
}

/// Median of values in ascending order.
pub(super) fn median_of_sorted(x: &[f64]) -> f64 {
    let n = x.len();
    if n % 2 == 1 {
        x[n / 2]
    } else {
        (x[n / 2 - 1] + x[n / 2]) / 2.0
    }
}

/// Median; reorders `x`.
pub(super) fn median(x: &mut [f64]) -> f64 {
    let n = x.len();
    let (below, middle, _) = x.select_nth_unstable_by(n / 2, f64::total_cmp);
    if n % 2 == 1 {
        *middle
    } else {
        let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (lower + *middle) / 2.0
    }
}

/// Median absolute deviation from the median, scaled to a standard deviation; `scratch` is overwritten.
pub(super) fn mad(x: &[f64], scratch: &mut Vec<f64>) -> f64 {
    scratch.clear();
    scratch.extend_from_slice(x);
    let center = median(scratch);
    for (deviation, value) in scratch.iter_mut().zip(x) {
        *deviation = ((value - center) / Q34).abs();
    }
    median(scratch)
}

/// The quantile `q` of values in ascending order, linear between neighbours.
pub(super) fn quantile_of_sorted(x: &[f64], q: f64) -> f64 {
    let position = q * (x.len() - 1) as f64;
    let index = position.floor() as usize;
    let share = position - position.floor();
    let low = x[index];
    let high = x[(index + 1).min(x.len() - 1)];
    if share < 0.5 {
        low + (high - low) * share
    } else {
        high - (high - low) * (1.0 - share)
    }
}

/// Replaces NaN by straight lines between its neighbours, at the ends by the nearest value. Where
/// everything is NaN nothing changes.
pub(super) fn fill_nan(x: &mut [f64]) {
    let Some(first) = x.iter().position(|value| !value.is_nan()) else {
        return;
    };
    let end = x[first];
    x[..first].fill(end);
    let mut known = first;
    for i in first + 1..x.len() {
        if x[i].is_nan() {
            continue;
        }
        if i > known + 1 {
            let slope = (x[i] - x[known]) / (i - known) as f64;
            for gap in known + 1..i {
                x[gap] = slope * (gap - known) as f64 + x[known];
            }
        }
        known = i;
    }
    let end = x[known];
    x[known + 1..].fill(end);
}

/// Replaces values three or more standard deviations off the mean by straight lines. At most one in
/// nine can be so far off.
pub(super) fn smooth_spikes(x: &mut [f64]) {
    let (mean, variance) = moments(x);
    let scale = variance.sqrt() + 1e-8;
    let mut spikes = false;
    for value in x.iter_mut() {
        if (*value - mean).abs() / scale >= 3.0 {
            *value = f64::NAN;
            spikes = true;
        }
    }
    if spikes {
        fill_nan(x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closeness_is_measured_by_the_second() {
        assert!(is_close(1.00001, 1.0));
        assert!(!is_close(1.0001, 1.0));
        assert!(is_close(0.0, 1e-8) && !is_close(2e-8, 0.0));
    }

    #[test]
    fn gaps_become_lines_and_ends_are_held() {
        let nan = f64::NAN;
        let mut x = [nan, 1.0, nan, nan, 4.0, nan];
        fill_nan(&mut x);
        assert_eq!(x, [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]);
    }

    #[test]
    fn medians_and_quantiles() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(quantile_of_sorted(&[1.0, 2.0, 3.0, 4.0], 0.25), 1.75);
        assert_eq!(mad(&[1.0, 1.0, 5.0], &mut vec![]), 0.0);
    }

    #[test]
    fn sums_take_every_element() {
        let x: Vec<f64> = (0..29).map(f64::from).collect();
        assert_eq!(sum(&x), 406.0);
        assert_eq!(dot(&x, &x), 7714.0);
        assert_eq!(moments(&x), (14.0, 70.0));
    }
}
