//! What goes wrong and when, decided by the seed before anything starts.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::proxy::{Outage, Weather};

/// Number of hosts in the consumer group.
pub(crate) const HOSTS: usize = 2;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// SIGKILL to the handler of a host, wherever it stands.
    KillHandler { host: usize },
    /// SIGKILL to the handler of a host when it next passes this step of a batch.
    KillHandlerAt { host: usize, step: &'static str },
    /// SIGKILL to a host; its handler is left behind, works on for `orphaned`, and is killed too.
    KillHost { host: usize, orphaned: Duration },
    /// A host and its handler stop (SIGSTOP) between record and save for longer than the group's
    /// session, and wake up as somebody who still believes to own the partitions.
    Freeze { host: usize, length: Duration },
    /// The store is out for one host, or for all of them.
    Outage {
        host: Option<usize>,
        kind: Outage,
        length: Duration,
    },
    /// SIGKILL to the broker, which is started again after `down`.
    KillBroker { down: Duration },
    /// Ambient trouble of every host's store connection from now on.
    Weather(Weather),
}

/// Faults by the time from the start at which they happen, ascending.
pub(crate) type Plan = Vec<(Duration, Fault)>;

/// Makes the plan for `length`; `steps` are the named steps of a batch at which a handler can be killed.
pub(crate) fn make(seed: u64, length: Duration, session: Duration, steps: &[&'static str]) -> Plan {
    let mut random = StdRng::seed_from_u64(seed ^ 0xfa17_fa17);
    let mut plan = Plan::new();
    // Mean distances, so that ten minutes hold well over 80 handler kills, 10 host kills and 20 outages.
    every(&mut random, length, 5.5, |random, at, number| {
        let host = random.random_range(0..HOSTS);
        // Two in three go for a step of a batch, taking turns so that a short run reaches many.
        let fault = match steps.is_empty() || number % 3 == 2 {
            true => Fault::KillHandler { host },
            false => Fault::KillHandlerAt {
                host,
                step: steps[(number - number / 3 + seed as usize) % steps.len()],
            },
        };
        plan.push((at, fault));
    });
    every(&mut random, length, 28.0, |random, at, _| {
        let fault = Fault::KillHost {
            host: random.random_range(0..HOSTS),
            orphaned: millis(random, 0..2_500),
        };
        plan.push((at, fault));
    });
    every(&mut random, length, 35.0, |random, at, _| {
        let fault = Fault::Freeze {
            host: random.random_range(0..HOSTS),
            length: session + millis(random, 5_000..10_000),
        };
        plan.push((at, fault));
    });
    every(&mut random, length, 17.0, |random, at, _| {
        let kinds = [
            Outage::Reset,
            Outage::Busy { retry_after_s: 1 },
            Outage::Silence,
        ];
        let fault = Fault::Outage {
            host: [None, Some(0), Some(1)].choose(random).copied().flatten(),
            kind: *kinds.choose(random).expect("there are three kinds"),
            length: millis(random, 500..6_000),
        };
        plan.push((at, fault));
    });
    every(&mut random, length, 140.0, |random, at, _| {
        let down = millis(random, 500..4_000);
        plan.push((at, Fault::KillBroker { down }));
    });
    every(&mut random, length, 15.0, |random, at, _| {
        let weathers = [Weather::CALM, Weather::GUSTY, Weather::STORM];
        let weather = *weathers.choose(random).expect("there are three weathers");
        plan.push((at, Fault::Weather(weather)));
    });
    plan.sort_by_key(|(at, _)| *at);
    plan
}

/// Calls `add` at times that are `mean_s` seconds apart, give or take half.
fn every(
    random: &mut StdRng,
    length: Duration,
    mean_s: f64,
    mut add: impl FnMut(&mut StdRng, Duration, usize),
) {
    let mut at = mean_s * random.random_range(0.2..0.6);
    let mut number = 0;
    while at < length.as_secs_f64() {
        add(random, Duration::from_secs_f64(at), number);
        at += mean_s * random.random_range(0.5..1.5);
        number += 1;
    }
}

fn millis(random: &mut StdRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.random_range(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [&str; 3] = ["before", "between", "after"];

    fn count(plan: &Plan, wanted: impl Fn(&Fault) -> bool) -> usize {
        plan.iter().filter(|(_, fault)| wanted(fault)).count()
    }

    #[test]
    fn ten_minutes_hold_what_the_acceptance_asks_for_whatever_the_seed() {
        for seed in 0..50 {
            let plan = make(
                seed,
                Duration::from_secs(600),
                Duration::from_secs(6),
                &STEPS,
            );
            let at_step = count(&plan, |f| matches!(f, Fault::KillHandlerAt { .. }));
            let kills = at_step + count(&plan, |f| matches!(f, Fault::KillHandler { .. }));
            assert!(kills >= 90 && at_step >= 55, "{kills} {at_step}");
            assert!(count(&plan, |f| matches!(f, Fault::KillHost { .. })) >= 12);
            assert!(count(&plan, |f| matches!(f, Fault::Outage { .. })) >= 25);
            assert!(count(&plan, |f| matches!(f, Fault::Freeze { .. })) >= 7);
            assert!(count(&plan, |f| matches!(f, Fault::KillBroker { .. })) >= 2);
            assert!(plan.is_sorted_by_key(|(at, _)| *at));
        }
    }

    #[test]
    fn a_short_run_has_some_of_each_and_the_seed_decides() {
        let length = Duration::from_secs(60);
        let plan = make(1, length, Duration::from_secs(6), &STEPS);
        assert_eq!(plan, make(1, length, Duration::from_secs(6), &STEPS));
        assert_ne!(plan, make(2, length, Duration::from_secs(6), &STEPS));
        for seed in 0..50 {
            let plan = make(seed, length, Duration::from_secs(6), &STEPS);
            for step in STEPS {
                let wanted =
                    |f: &Fault| matches!(f, Fault::KillHandlerAt { step: s, .. } if *s == step);
                assert!(count(&plan, wanted) >= 1, "{step}");
            }
            assert!(count(&plan, |f| matches!(f, Fault::KillHost { .. })) >= 1);
            assert!(count(&plan, |f| matches!(f, Fault::Freeze { .. })) >= 1);
        }
    }
}
