//! A circuit breaker: after some failures in a row nobody calls for a while, then one caller tries.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row that open the circuit. A call has made all its tries before it counts as one.
const FAILURES: u32 = 3;
/// How long it stays open.
const REST: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One caller is trying; the others still wait.
    Trying,
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// Leave to call. A call that is given up half-way, its permit dropped, counts for nothing.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    tries: bool,
    told: bool,
}

impl Breaker {
    /// Leave to call now, if there is any.
    pub(super) fn ask(&self, now: Instant) -> Option<Permit<'_>> {
        let mut state = self.state();
        let tries = match *state {
            State::Closed { .. } => false,
            State::Open { until } if now >= until => {
                *state = State::Trying;
                true
            }
            State::Open { .. } | State::Trying => return None,
        };
        drop(state);
        Some(Permit {
            breaker: self,
            tries,
            told: false,
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // One word, written at once: a panic elsewhere cannot leave it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    pub(super) fn succeeded(mut self) {
        self.told = true;
        *self.breaker.state() = State::default();
    }

    pub(super) fn failed(mut self, now: Instant) {
        self.told = true;
        let mut state = self.breaker.state();
        let failures = match *state {
            State::Closed { failures } => failures + 1,
            // A straggler that was let through before it opened.
            State::Open { .. } if !self.tries => return,
            State::Trying | State::Open { .. } => FAILURES,
        };
        *state = if failures >= FAILURES {
            State::Open { until: now + REST }
        } else {
            State::Closed { failures }
        };
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.tries && !self.told {
            // The next caller may try at once.
            *self.breaker.state() = State::Open {
                until: Instant::now(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_and_lets_one_try() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..FAILURES - 1 {
            breaker.ask(start).unwrap().failed(start);
        }
        breaker.ask(start).unwrap().succeeded();
        for _ in 0..FAILURES {
            breaker.ask(start).unwrap().failed(start);
        }
        assert!(breaker.ask(start).is_none());
        let later = start + REST;
        let trial = breaker.ask(later).unwrap();
        assert!(breaker.ask(later).is_none(), "one at a time");
        trial.failed(later);
        assert!(breaker.ask(later).is_none());
        breaker.ask(later + REST).unwrap().succeeded();
        breaker.ask(later + REST).unwrap().succeeded();
    }

    #[test]
    fn a_trial_given_up_leaves_the_next_one_free() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..FAILURES {
            breaker.ask(start).unwrap().failed(start);
        }
        drop(breaker.ask(start + REST).unwrap());
        assert!(breaker.ask(start + 2 * REST).is_some());
    }
}
