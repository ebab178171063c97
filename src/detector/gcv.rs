//! How well a period explains a series: cross-validation of the phase means.
//!
//! The score is the mean squared error of predicting each value by the mean of the *other* values of
//! its phase. It is computed in single precision, as the reference does, because the period with the
//! least score wins and near ties are common among multiples of a period.

/// Scores periods; owns the sums of the phases.
#[derive(Debug, Default)]
pub(super) struct CrossValidation {
    sums: Vec<f32>,
    squares: Vec<f32>,
}

impl CrossValidation {
    /// The score of `period` on `y`, which holds at least two whole periods.
    pub(super) fn score(&mut self, y: &[f32], period: usize) -> f32 {
        self.sums.clear();
        self.sums.resize(period, 0.0);
        self.squares.clear();
        self.squares.resize(period, 0.0);
        for cycle in y.chunks(period) {
            for ((sum, square), value) in self.sums.iter_mut().zip(&mut self.squares).zip(cycle) {
                *sum += value;
                *square += value * value;
            }
        }
        let (full, rest) = (y.len() / period, y.len() % period);
        let mut total = 0.0_f32;
        for (phases, count) in [(0..rest, full + 1), (rest..period, full)] {
            let ratio = count as f64 / (count as f64 - 1.0);
            let (scale, count) = (ratio * ratio, count as f32);
            for (sum, square) in self.sums[phases.clone()].iter().zip(&self.squares[phases]) {
                let deviation = square - sum * sum / count;
                total = (f64::from(total) + scale * f64::from(deviation)) as f32;
            }
        }
        let score = total / y.len() as f32;
        if f64::from(score).abs() <= 1e-8 {
            0.0
        } else {
            score
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::stats::normalize;
    use crate::detector::tests::{series_a, series_b};

    #[test]
    fn scores_are_those_of_the_reference() {
        for (x, period, score) in [
            (series_b(), 7, 0.009532392956316471),
            (series_a(), 5, 0.0527975969016552),
        ] {
            let mut normal = vec![];
            normalize(&x, &mut normal);
            let y: Vec<f32> = normal.iter().map(|value| *value as f32).collect();
            let found = CrossValidation::default().score(&y, period);
            assert_eq!(f64::from(found), score);
        }
    }
}
