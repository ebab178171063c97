//! What a running host counts, for its metrics page.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts by function, fixed when the host starts.
#[derive(Debug, Default)]
pub struct Counters {
    functions: BTreeMap<String, FunctionCounters>,
    /// Times that the handler was started.
    pub handler_starts: AtomicU64,
}

/// Counts of one function.
#[derive(Debug, Default)]
pub struct FunctionCounters {
    /// Invocations that ended, every attempt counted.
    pub invocations: AtomicU64,
    /// Those that failed.
    pub failures: AtomicU64,
    /// Batches or messages that a Kafka trigger is done with.
    pub batches: AtomicU64,
    /// Messages among those.
    pub messages: AtomicU64,
    /// Executions of a batch or message after its first.
    pub redeliveries: AtomicU64,
    /// Messages behind the end of the partitions held here, when last known.
    pub lag: AtomicU64,
}

impl Counters {
    pub(crate) fn new<'a>(functions: impl IntoIterator<Item = &'a str>) -> Self {
        let functions = functions.into_iter();
        Self {
            functions: functions
                .map(|name| (name.to_owned(), FunctionCounters::default()))
                .collect(),
            handler_starts: AtomicU64::new(0),
        }
    }

    /// The counts of every function, by name.
    pub fn functions(&self) -> impl Iterator<Item = (&str, &FunctionCounters)> {
        self.functions
            .iter()
            .map(|(name, counts)| (name.as_str(), counts))
    }

    /// Changes the counts of `function`; unknown names count nothing.
    pub(crate) fn of(&self, function: &str, change: impl FnOnce(&FunctionCounters)) {
        if let Some(counts) = self.functions.get(function) {
            change(counts);
        }
    }

    /// The counts in the text format of Prometheus.
    pub fn prometheus(&self) -> String {
        use std::fmt::Write;
        type Pick = fn(&FunctionCounters) -> &AtomicU64;
        let metrics: [(&str, &str, &str, Pick); 6] = [
            (
                "lapwing_host_invocations_total",
                "counter",
                "Invocations that ended, every attempt counted",
                |c| &c.invocations,
            ),
            (
                "lapwing_host_failures_total",
                "counter",
                "Invocations that failed",
                |c| &c.failures,
            ),
            (
                "lapwing_host_batches_total",
                "counter",
                "Kafka batches or single messages done with",
                |c| &c.batches,
            ),
            (
                "lapwing_host_messages_total",
                "counter",
                "Kafka messages done with",
                |c| &c.messages,
            ),
            (
                "lapwing_host_redeliveries_total",
                "counter",
                "Executions of a Kafka batch or message after its first",
                |c| &c.redeliveries,
            ),
            (
                "lapwing_host_lag_messages",
                "gauge",
                "Messages behind the end of the partitions held here",
                |c| &c.lag,
            ),
        ];
        let mut text = String::new();
        for (name, kind, help, pick) in metrics {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (function, counts) in self.functions() {
                let value = pick(counts).load(Ordering::Relaxed);
                let _ = writeln!(text, "{name}{{function=\"{function}\"}} {value}");
            }
        }
        let starts = self.handler_starts.load(Ordering::Relaxed);
        let name = "lapwing_host_handler_starts_total";
        let _ = writeln!(
            text,
            "# HELP {name} Times that the handler was started\n# TYPE {name} counter\n{name} {starts}"
        );
        text
    }
}

pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_shown_by_function() {
        let counters = Counters::new(["detect"]);
        counters.of("detect", |counts| add(&counts.messages, 64));
        counters.of("unknown", |counts| add(&counts.messages, 1));
        let text = counters.prometheus();
        assert!(
            text.contains("lapwing_host_messages_total{function=\"detect\"} 64\n"),
            "{text}"
        );
        assert!(!text.contains("unknown"));
    }
}
