//! The state of a consumer's link to its brokers: what is wrong, said once; how far behind it is; and
//! when nothing is left to do.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;

use crate::host::counters::Counters;
use crate::host::event::{Event, Events, Level};
use crate::host::function::KafkaTrigger;

const CATEGORY: &str = "Host.Kafka";

/// What is known of the link, shared by the reader, the executor and the client's callbacks.
#[derive(Debug)]
pub(super) struct Link {
    function: String,
    brokers: String,
    topic: String,
    group: String,
    events: Events,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    trouble: Option<Trouble>,
    /// The client's last words about a connection, which say why.
    reason: String,
    held: BTreeSet<i32>,
    at_end: BTreeSet<i32>,
    /// The last fault of no other consequence than a line in the log.
    said: Option<RDKafkaErrorCode>,
    /// Messages read and not yet done with.
    open: usize,
    announced: bool,
}

/// What keeps messages from coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    NoBroker,
    NoTopic,
    Refused,
}

impl Link {
    pub(super) fn new(
        function: &str,
        trigger: &KafkaTrigger,
        events: Events,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            function: function.to_owned(),
            brokers: trigger.brokers.clone(),
            topic: trigger.topic.clone(),
            group: trigger.group.clone(),
            events,
            counters,
            state: Mutex::default(),
        }
    }

    /// A message of `partition` was read.
    pub(super) fn read(&self, partition: i32) {
        let mut state = self.state();
        state.at_end.remove(&partition);
        state.open += 1;
        state.announced = false;
        self.well(&mut state);
    }

    /// `count` messages are done with.
    pub(super) fn done(&self, count: usize) {
        let mut state = self.state();
        state.open = state.open.saturating_sub(count);
        self.announce(&mut state);
    }

    /// The end of `partition` was reached.
    pub(super) fn at_end(&self, partition: i32) {
        let mut state = self.state();
        state.at_end.insert(partition);
        self.well(&mut state);
        self.announce(&mut state);
    }

    /// A message was skipped because it could not be read.
    pub(super) fn skipped(&self, partition: i32, offset: i64, reason: &str) {
        let text = format!(
            "consume error: {} partition {partition} offset {offset} is skipped: {reason}",
            self.topic
        );
        self.events.log(Level::Error, CATEGORY, text);
    }

    /// The client reported an error.
    pub(super) fn failed(&self, error: &KafkaError) {
        self.reported(error, "");
    }

    fn reported(&self, error: &KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        let mut state = self.state();
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => {
                let why = match state.reason.as_str() {
                    "" => String::new(),
                    reason => format!(" ({reason})"),
                };
                let text = format!(
                    "brokers {} do not answer{why}; start them or set KafkaBrokers, trying again",
                    self.brokers
                );
                self.ill(&mut state, Trouble::NoBroker, text);
            }
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                let text = format!(
                    "topic {} does not exist at {}; make it or set KafkaTopic, trying again",
                    self.topic, self.brokers
                );
                self.ill(&mut state, Trouble::NoTopic, text);
            }
            Some(
                Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::SSL,
            ) => {
                let text = format!(
                    "brokers {} refuse this client ({error} {reason}); check protocol, user and password, trying again",
                    self.brokers
                );
                self.ill(&mut state, Trouble::Refused, text.replace(" )", ")"));
            }
            Some(Code::PollExceeded) => {
                let text = "a batch took longer than maxPollIntervalMs: the partitions go to another consumer and its messages are delivered again";
                self.events.log(Level::Warning, CATEGORY, text);
            }
            // One connection of several; the client goes on by itself, its words are kept.
            Some(Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut) => {
                state.reason = shortened(reason);
            }
            // The end of a partition is no fault; the reader hears of it, too.
            Some(Code::PartitionEOF) => {}
            // The client tells most faults twice, here and as the outcome of a poll.
            code if code.is_some() && code == state.said => {}
            code => {
                state.said = code;
                let text = format!("{error} {reason}");
                self.events.log(Level::Warning, CATEGORY, text.trim_end());
            }
        }
    }

    fn ill(&self, state: &mut State, trouble: Trouble, text: String) {
        if state.trouble != Some(trouble) {
            state.trouble = Some(trouble);
            self.events.log(Level::Error, CATEGORY, text);
        }
    }

    fn well(&self, state: &mut State) {
        state.said = None;
        if state.trouble.take().is_some() {
            let text = format!("reading {} from {} again", self.topic, self.brokers);
            self.events.log(Level::Information, CATEGORY, text);
        }
    }

    fn announce(&self, state: &mut State) {
        let is_at_end = !state.held.is_empty() && state.held.is_subset(&state.at_end);
        if is_at_end && state.open == 0 && !state.announced {
            state.announced = true;
            self.events.send(Event::CaughtUp {
                function: self.function.clone(),
            });
        }
    }

    fn assigned(&self, held: BTreeSet<i32>, is_revoked: bool) {
        let mut state = self.state();
        if is_revoked {
            state.held.retain(|partition| !held.contains(partition));
            state.at_end.retain(|partition| !held.contains(partition));
        } else {
            state.held.extend(&held);
            state.announced = false;
            self.well(&mut state);
        }
        let verb = if is_revoked { "gave up" } else { "holds" };
        let text = format!(
            "group {} {verb} partitions {held:?} of {}",
            self.group, self.topic
        );
        self.events.log(Level::Information, CATEGORY, text);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client's way to tell the link.
#[derive(Debug)]
pub(super) struct Context(pub(super) Arc<Link>);

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {
        // Errors come through `error`; the client's chatter would only repeat them.
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.reported(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.0.topic) else {
            return;
        };
        let held = self.0.state().held.clone();
        let lags = topic
            .partitions
            .iter()
            .filter(|(partition, _)| held.contains(partition));
        let lag: i64 = lags
            .map(|(_, partition)| partition.consumer_lag_stored.max(0))
            .sum();
        self.0.counters.of(&self.0.function, |counts| {
            counts.lag.store(lag.unsigned_abs(), Ordering::Relaxed);
        });
    }
}

impl ConsumerContext for Context {
    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let partitions = |list: &rdkafka::TopicPartitionList| {
            list.elements()
                .iter()
                .map(|element| element.partition())
                .collect()
        };
        match rebalance {
            Rebalance::Assign(list) => self.0.assigned(partitions(list), false),
            Rebalance::Revoke(list) => self.0.assigned(partitions(list), true),
            Rebalance::Error(error) => self.0.failed(error),
        }
    }
}

/// The reason without the client's name and timing at its ends.
fn shortened(reason: &str) -> String {
    let reason = reason.split(" (after ").next().unwrap_or(reason);
    let reason = reason.split_once(": ").map_or(reason, |(_, rest)| rest);
    reason.to_owned()
}
