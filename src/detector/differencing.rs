//! Merging with differences: what a non-seasonal model flags in the differenced series joins what it
//! flagged in the series itself.

use super::error::DetectError;
use super::result::Judged;
use super::stationarity::Stationarity;

/// Most times a series is differenced.
const MOST: usize = 2;

/// Differences series; owns its scratch memory.
#[derive(Debug, Default)]
pub(super) struct Differencing {
    stationarity: Stationarity,
    differenced: Vec<f64>,
    integrated: Vec<f64>,
    second: Judged,
}

impl Differencing {
    /// Adds to `judged`, a model's result on the series `x`, what the same model flags in the first
    /// stationary series of differences, as far as `ratio` leaves room. `model` judges a series with a
    /// ratio of its own.
    pub(super) fn merge(
        &mut self,
        x: &[f64],
        ratio: f64,
        judged: &mut Judged,
        model: impl FnOnce(&[f64], f64, &mut Judged) -> Result<(), DetectError>,
    ) -> Result<(), DetectError> {
        let n = x.len();
        let most = ((n as f64 * ratio) as usize).max(1);
        let flagged = judged.flagged();
        if flagged >= most {
            return Ok(());
        }
        let order = self.order(x);
        if order == 0 {
            return Ok(());
        }
        // In the model this share may round to one point more or less than the room there is.
        let share = (most - flagged) as f64 / n as f64;
        model(&self.differenced, share, &mut self.second)?;
        let second = &self.second;
        let mut new = (0..n)
            .filter(|i| second.flags[*i] && !judged.flags[*i])
            .peekable();
        if new.peek().is_none() {
            return Ok(());
        }
        let found: Vec<usize> = new.collect();
        let start = x[1] - x[0];
        for (original, differences) in [
            (&mut judged.expected, &second.expected),
            (&mut judged.trend, &second.trend),
        ] {
            if original.is_empty() {
                continue;
            }
            integrate(differences, order, start, &mut self.integrated);
            // On top of the *expected* value before, not of the value seen there. From the back, so that
            // each sees its neighbour as it was.
            for i in found.iter().rev().filter(|i| **i > 0) {
                original[*i] = original[i - 1] + self.integrated[*i];
            }
        }
        for i in found {
            judged.flags[i] = true;
            judged.negative[i] = judged.expected[i] >= judged.value[i];
            if !judged.score.is_empty() {
                judged.score[i] = second.score[i];
            }
        }
        Ok(())
    }

    /// How often `x` must be differenced to be stationary, 0 if never or if that does not help; leaves
    /// the differences behind, padded at the front to the length of `x`.
    fn order(&mut self, x: &[f64]) -> usize {
        self.differenced.clear();
        self.differenced.extend_from_slice(x);
        for order in 0..=MOST {
            if self.stationarity.holds(&self.differenced) {
                return order;
            }
            let z = &mut self.differenced;
            for i in (1..z.len()).rev() {
                z[i] -= z[i - 1];
            }
            let first = z[order + 1];
            z[..=order].fill(first);
        }
        0
    }
}

/// Undoes all but one differencing of `z`.
fn integrate(z: &[f64], order: usize, start: f64, out: &mut Vec<f64>) {
    out.clear();
    if order < 2 {
        out.extend_from_slice(z);
        return;
    }
    out.extend([start; 2]);
    for i in 2..z.len() {
        out.push(out[i - 1] + z[i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_those_of_the_reference() {
        let mut sum = 0.0;
        let walk: Vec<f64> = (0..60)
            .map(|i| {
                sum += f64::from(37 * i % 23) - 11.0;
                sum + if i >= 40 { 60.0 } else { 0.0 }
            })
            .collect();
        let mut differencing = Differencing::default();
        assert_eq!(differencing.order(&walk), 1);
        assert_eq!(differencing.differenced[0], walk[1] - walk[0]);
        assert_eq!(differencing.differenced[5], walk[5] - walk[4]);
        let square: Vec<f64> = (0..60)
            .map(|i| f64::from(i * i) + f64::from(37 * i % 23) / 10.0)
            .collect();
        assert_eq!(differencing.order(&square), 2);
        let second = |i: usize| square[i] - 2.0 * square[i - 1] + square[i - 2];
        for (i, from) in [(0, 2), (1, 2), (2, 2), (7, 7)] {
            assert!((differencing.differenced[i] - second(from)).abs() < 1e-9);
        }
    }
}
