//! The Theil-Sen slope: the median of the slopes between all pairs of points.

/// Finds Theil-Sen slopes; owns the slopes it chooses among.
#[derive(Debug, Default)]
pub(super) struct TheilSen {
    slopes: Vec<f64>,
}

impl TheilSen {
    /// The median of `(y_j - y_i)/(j - i)` over all `i < j`.
    pub(super) fn slope(&mut self, y: &[f64]) -> f64 {
        self.median_slope(y.len(), |i, j| y[j] - y[i])
    }

    /// The same for binary32 values, whose differences are rounded to binary32 before the division.
    pub(super) fn slope_f32(&mut self, y: &[f32]) -> f64 {
        self.median_slope(y.len(), |i, j| f64::from(y[j] - y[i]))
    }

    fn median_slope(&mut self, n: usize, rise: impl Fn(usize, usize) -> f64) -> f64 {
        self.slopes.clear();
        for i in 0..n {
            self.slopes
                .extend((i + 1..n).map(|j| rise(i, j) / (j - i) as f64));
        }
        super::stats::median(&mut self.slopes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_outlier_does_not_move_the_slope() {
        let mut y: Vec<f64> = (0..30).map(|i| 2.5 * f64::from(i)).collect();
        y[7] = 1e6;
        assert_eq!(TheilSen::default().slope(&y), 2.5);
        let y: Vec<f32> = y.iter().map(|value| *value as f32).collect();
        assert_eq!(TheilSen::default().slope_f32(&y), 2.5);
    }
}
