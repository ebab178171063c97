//! Timestamps of a window, stored as arithmetic runs: a gap-free series needs one, whatever its length.

use std::collections::VecDeque;

use crate::series::Timestamp;

/// Equally spaced timestamps: `start`, `start + step`, and so on, `count` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) start: i64,
    /// Microseconds, above 0; 0 while `count` is 1.
    pub(crate) step: i64,
    /// At least 1.
    pub(crate) count: u32,
}

impl Run {
    pub(crate) fn last(self) -> i64 {
        self.start + self.step * (i64::from(self.count) - 1)
    }
}

/// Strictly increasing timestamps, appended at the end and dropped from the front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timeline(VecDeque<Run>);

impl Timeline {
    pub(crate) fn first(&self) -> Option<Timestamp> {
        self.0.front().map(|run| Timestamp::from_micros(run.start))
    }

    pub(crate) fn newest(&self) -> Option<Timestamp> {
        self.0.back().map(|run| Timestamp::from_micros(run.last()))
    }

    /// Appends a timestamp; it has to be after the newest.
    pub(crate) fn push(&mut self, at: Timestamp) {
        let micros = at.micros();
        match self.0.back_mut() {
            Some(run) if run.count == 1 => {
                run.step = micros - run.start;
                run.count = 2;
            }
            Some(run) if run.last() + run.step == micros => run.count += 1,
            _ => self.push_run(Run {
                start: micros,
                step: 0,
                count: 1,
            }),
        }
    }

    /// Appends a whole run as it was stored.
    pub(crate) fn push_run(&mut self, run: Run) {
        if self.0.len() == self.0.capacity() {
            // One run is the rule: the queue's own growth would start with room for four.
            self.0.reserve_exact(self.0.len().max(1));
        }
        self.0.push_back(run);
    }

    pub(crate) fn pop_front(&mut self) {
        if let Some(run) = self.0.front_mut() {
            if run.count == 1 {
                self.0.pop_front();
            } else {
                run.start += run.step;
                run.count -= 1;
                if run.count == 1 {
                    run.step = 0;
                }
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn contains(&self, at: Timestamp) -> bool {
        let micros = at.micros();
        self.0.iter().any(|run| match micros - run.start {
            0 => true,
            after => {
                run.step > 0
                    && after > 0
                    && after % run.step == 0
                    && after / run.step < i64::from(run.count)
            }
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Timestamp> + '_ {
        self.0.iter().flat_map(|run| {
            (0..i64::from(run.count)).map(|i| Timestamp::from_micros(run.start + i * run.step))
        })
    }

    pub(crate) fn runs(&self) -> &VecDeque<Run> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gap_free_series_is_one_run() {
        let mut timeline = Timeline::default();
        (0..500).for_each(|i| timeline.push(Timestamp::from_micros(i * 300)));
        (0..212).for_each(|_| timeline.pop_front());
        assert_eq!(timeline.runs().len(), 1);
        assert_eq!(timeline.runs().capacity(), 1);
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_queue(
            steps in prop::collection::vec((1_i64..4, any::<bool>()), 1..200)
        ) {
            let (mut timeline, mut plain, mut at) = (Timeline::default(), VecDeque::new(), -50);
            for (step, pop) in steps {
                at += step;
                timeline.push(Timestamp::from_micros(at));
                plain.push_back(at);
                if pop {
                    timeline.pop_front();
                    plain.pop_front();
                }
                prop_assert!(timeline.iter().map(Timestamp::micros).eq(plain.iter().copied()));
                prop_assert_eq!(timeline.first().map(Timestamp::micros), plain.front().copied());
                prop_assert_eq!(timeline.newest().map(Timestamp::micros), plain.back().copied());
                for candidate in at - 12..at + 2 {
                    prop_assert_eq!(
                        timeline.contains(Timestamp::from_micros(candidate)),
                        plain.contains(&candidate)
                    );
                }
            }
        }
    }
}
