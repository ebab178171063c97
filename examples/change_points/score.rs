//! Precision, recall and false alarms of found change points against labelled ones.

use crate::labelled::{Change, Kind};

/// How near to a labelled level shift a found change point has to be, in points.
pub(crate) const SHIFT_TOLERANCE: usize = 5;
/// The same for a break of slope, which shows only some points after it.
pub(crate) const BREAK_TOLERANCE: usize = 12;

/// Counts over a set of series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Score {
    /// Labelled changes that were found.
    pub(crate) hits: usize,
    /// Labelled changes that were not.
    pub(crate) misses: usize,
    /// Found change points that belong to no label.
    pub(crate) false_alarms: usize,
    /// Points looked at.
    pub(crate) points: usize,
}

impl Score {
    /// Adds what was `found` in a series of `points` points; each label takes the nearest change point
    /// within its tolerance that no earlier label took.
    pub(crate) fn add(&mut self, changes: &[Change], found: &[usize], points: usize) {
        let mut free: Vec<usize> = found.to_vec();
        for change in changes {
            let tolerance = match change.kind {
                Kind::Shift => SHIFT_TOLERANCE,
                Kind::Break => BREAK_TOLERANCE,
            };
            let nearest = (0..free.len()).min_by_key(|k| free[*k].abs_diff(change.at));
            match nearest {
                Some(k) if free[k].abs_diff(change.at) <= tolerance => {
                    free.remove(k);
                    self.hits += 1;
                }
                _ => self.misses += 1,
            }
        }
        self.false_alarms += free.len();
        self.points += points;
    }

    /// Share of the found change points that are labelled; 1 if none was found.
    pub(crate) fn precision(&self) -> f64 {
        share(self.hits, self.hits + self.false_alarms)
    }

    /// Share of the labelled changes that were found; 1 if there are none.
    pub(crate) fn recall(&self) -> f64 {
        share(self.hits, self.hits + self.misses)
    }

    /// Harmonic mean of precision and recall.
    pub(crate) fn f1(&self) -> f64 {
        share(
            2 * self.hits,
            2 * self.hits + self.misses + self.false_alarms,
        )
    }

    /// False alarms in a thousand points.
    pub(crate) fn false_alarms_per_thousand(&self) -> f64 {
        1000.0 * self.false_alarms as f64 / self.points.max(1) as f64
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        1.0
    } else {
        part as f64 / whole as f64
    }
}
