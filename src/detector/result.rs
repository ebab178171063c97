//! What a model says of a series, before margins.

use super::Model;
use super::stats::EPS;

/// One model's result; each list has one element per point.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) model: Model,
    pub(super) value: Vec<f64>,
    pub(super) expected: Vec<f64>,
    /// The trend that V2 margins take their unit from; empty where it is not needed.
    pub(super) trend: Vec<f64>,
    /// Spectral residual score; empty for other models.
    pub(super) score: Vec<f64>,
    pub(super) flags: Vec<bool>,
    /// Whether a flagged point lies below what was expected.
    pub(super) negative: Vec<bool>,
    pub(super) scratch: Vec<f64>,
}

impl Default for Judged {
    fn default() -> Self {
        Self {
            model: Model::AnomalyDetector,
            value: Vec::new(),
            expected: Vec::new(),
            trend: Vec::new(),
            score: Vec::new(),
            flags: Vec::new(),
            negative: Vec::new(),
            scratch: Vec::new(),
        }
    }
}

impl Judged {
    /// Flagged points are negative where more was expected, else positive: equality counts as positive.
    pub(super) fn set_directions(&mut self) {
        self.negative.clear();
        self.negative
            .extend(self.expected.iter().zip(&self.value).map(|(e, v)| e > v));
    }

    /// Keeps the points at `slots` alone: what was filled in is never reported.
    pub(super) fn keep(&mut self, slots: &[i64]) {
        fn pick<T: Copy>(list: &mut Vec<T>, slots: &[i64]) {
            if list.is_empty() {
                return;
            }
            for (i, slot) in slots.iter().enumerate() {
                list[i] = list[*slot as usize];
            }
            list.truncate(slots.len());
        }
        for list in [
            &mut self.value,
            &mut self.expected,
            &mut self.trend,
            &mut self.score,
        ] {
            pick(list, slots);
        }
        pick(&mut self.flags, slots);
        pick(&mut self.negative, slots);
    }

    /// Points that are what was expected are no anomalies. The bound is absolute: a series scaled down
    /// far enough has none.
    pub(super) fn clear_expected(&mut self) {
        for ((flag, value), expected) in self.flags.iter_mut().zip(&self.value).zip(&self.expected)
        {
            if (value - expected).abs() < EPS {
                *flag = false;
            }
        }
    }

    pub(super) fn flagged(&self) -> usize {
        self.flags.iter().filter(|flag| **flag).count()
    }
}

/// Most outliers per tail of the ranking models: the share rounded up, but less than half.
pub(super) fn most_outliers(n: usize, ratio: f64) -> usize {
    ((n as f64 * ratio).ceil() as usize).max(1).min(n / 2 - 1)
}
