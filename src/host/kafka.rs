//! The Kafka trigger: a reader that collects batches and an executor that runs them one at a time.
//!
//! Offsets are stored after an execution has ended and committed in the background. What is stored on
//! failure, and how often a failure is repeated, is what `host.json` says: by default a failed batch is
//! lost, as under the real host.

mod link;
pub(crate) mod output;
pub mod payload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use self::link::{Context, Link};
use self::payload::{Message, batch_payload, key};
use super::config::KafkaConfig;
use super::counters::add;
use super::event::{Batch, Event, Level};
use super::function::{Function, KafkaTrigger, Trigger};
use super::invoke::Invoker;

const CATEGORY: &str = "Host.Kafka";

/// A running Kafka trigger.
#[derive(Debug)]
pub(crate) struct Listener {
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    executor: tokio::task::JoinHandle<()>,
}

impl Listener {
    /// Subscribes and begins to run batches.
    pub(crate) fn start(
        function: Arc<Function>,
        config: &KafkaConfig,
        invoker: Arc<Invoker>,
    ) -> Result<Self, KafkaError> {
        let Trigger::Kafka(trigger) = function.trigger.clone() else {
            return Err(KafkaError::ClientCreation(format!(
                "{} has no Kafka trigger",
                function.name
            )));
        };
        let link = Arc::new(Link::new(
            &function.name,
            &trigger,
            invoker.events.clone(),
            Arc::clone(&invoker.counters),
        ));
        let consumer: BaseConsumer<Context> =
            client_config(&trigger, config).create_with_context(Context(Arc::clone(&link)))?;
        consumer.subscribe(&[&trigger.topic])?;
        let consumer = Arc::new(consumer);
        let (sender, batches) = mpsc::channel(config.executor_channel_capacity);
        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            consumer: Arc::clone(&consumer),
            link: Arc::clone(&link),
            trigger: (*trigger).clone(),
            config: config.clone(),
            batches: sender,
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new().name(format!("kafka {}", function.name));
        let reader = thread.spawn(move || reader.run()).map_err(|error| {
            KafkaError::ClientCreation(format!("no thread to read with: {error}"))
        })?;
        let executor = Executor {
            consumer,
            link,
            function,
            trigger: *trigger,
            config: config.clone(),
            invoker,
        };
        Ok(Self {
            stop,
            reader: Some(reader),
            executor: tokio::spawn(executor.run(batches)),
        })
    }

    /// Stops: what runs is cut off and not stored, so it is delivered again.
    pub(crate) async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.executor.abort();
        // An aborted task ends with an error that says so.
        let _ = (&mut self.executor).await;
        if let Some(reader) = self.reader.take() {
            // Leaving the group and the last commit happen as the consumer goes, which blocks.
            let ended = tokio::task::spawn_blocking(move || reader.join());
            let _ = tokio::time::timeout(Duration::from_secs(10), ended).await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.executor.abort();
    }
}

fn client_config(trigger: &KafkaTrigger, config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &trigger.brokers)
        .set("group.id", &trigger.group)
        .set("enable.auto.commit", "true")
        .set("enable.auto.offset.store", "false")
        .set(
            "auto.commit.interval.ms",
            config.auto_commit_interval_ms.to_string(),
        )
        .set("auto.offset.reset", config.auto_offset_reset)
        .set("session.timeout.ms", config.session_timeout_ms.to_string())
        .set(
            "max.poll.interval.ms",
            config.max_poll_interval_ms.to_string(),
        )
        .set("enable.partition.eof", "true")
        .set("statistics.interval.ms", "2000")
        // So that a topic made after the host started is found soon.
        .set("topic.metadata.refresh.interval.ms", "3000");
    for (property, value) in config.client.iter().chain(&trigger.client) {
        client.set(*property, value);
    }
    client
}

/// Collects batches: full ones at once, others when the subscriber's interval is over.
struct Reader {
    consumer: Arc<BaseConsumer<Context>>,
    link: Arc<Link>,
    trigger: KafkaTrigger,
    config: KafkaConfig,
    batches: mpsc::Sender<Vec<Message>>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    fn run(self) {
        let mut batch = Vec::new();
        let mut closes = Instant::now() + self.config.subscriber_interval;
        while !self.stop.load(Ordering::Relaxed) {
            let wait = closes.saturating_duration_since(Instant::now());
            match self.consumer.poll(wait.min(Duration::from_millis(100))) {
                None => {}
                Some(Ok(message)) => batch.extend(self.taken(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => self.link.at_end(partition),
                Some(Err(error)) => self.link.failed(&error),
            }
            let is_full = batch.len() >= self.config.max_batch_size;
            if is_full || Instant::now() >= closes {
                if !batch.is_empty() && !self.pass_on(std::mem::take(&mut batch)) {
                    return;
                }
                closes = Instant::now() + self.config.subscriber_interval;
            }
        }
    }

    /// Copies a message out of the client; one whose key cannot be read is skipped.
    fn taken(&self, message: &BorrowedMessage<'_>) -> Option<Message> {
        let key = match key(message.key(), self.trigger.key_type) {
            Ok(key) => key,
            Err(reason) => {
                self.link
                    .skipped(message.partition(), message.offset(), reason);
                return None;
            }
        };
        self.link.read(message.partition());
        let millis = message.timestamp().to_millis().unwrap_or_default();
        let headers = message.headers().map(|headers| {
            let header = |header: rdkafka::message::Header<'_, &[u8]>| {
                (header.key.to_owned(), header.value.map(<[u8]>::to_vec))
            };
            headers.iter().map(header).collect()
        });
        Some(Message {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            timestamp: DateTime::<Utc>::from_timestamp_millis(millis).unwrap_or_default(),
            key,
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
            leader_epoch: None,
        })
    }

    /// Hands a batch to the executor. While that is full the broker is not polled, so that a batch that
    /// takes longer than `maxPollIntervalMs` costs the partitions, as it does under the real host.
    fn pass_on(&self, mut batch: Vec<Message>) -> bool {
        loop {
            match self.batches.try_send(batch) {
                Ok(()) => return true,
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(back)) => {
                    if self.stop.load(Ordering::Relaxed) {
                        return false;
                    }
                    batch = back;
                    std::thread::sleep(self.config.channel_full_retry_interval);
                }
            }
        }
    }
}

/// Runs batches, one at a time.
struct Executor {
    consumer: Arc<BaseConsumer<Context>>,
    link: Arc<Link>,
    function: Arc<Function>,
    trigger: KafkaTrigger,
    config: KafkaConfig,
    invoker: Arc<Invoker>,
}

impl Executor {
    async fn run(self, mut batches: mpsc::Receiver<Vec<Message>>) {
        while let Some(batch) = batches.recv().await {
            if self.trigger.is_batch {
                let payload = batch_payload(&batch, &self.function.binding, self.trigger.is_binary);
                self.run_to_the_end(&batch, &payload).await;
                continue;
            }
            let mut partitions: BTreeMap<i32, Vec<Message>> = BTreeMap::new();
            for message in batch {
                partitions
                    .entry(message.partition)
                    .or_default()
                    .push(message);
            }
            // The next batch waits for all of them, so one slow partition holds up the rest.
            futures::future::join_all(partitions.into_values().map(|messages| async {
                for message in messages {
                    let payload = message.payload(&self.function.binding, self.trigger.is_binary);
                    self.run_to_the_end(&[message], &payload).await;
                }
            }))
            .await;
        }
    }

    /// Executes until it succeeds or is given up, then stores the offsets.
    async fn run_to_the_end(&self, messages: &[Message], payload: &super::wire::Payload) {
        let mut repeats = 0;
        let succeeded = loop {
            let Err(failure) = self.invoker.execute(&self.function, payload).await else {
                break true;
            };
            if self.config.commit_on_failure {
                let text = format!(
                    "{} messages failed ({failure}) and are committed all the same: commitOnFailure is true",
                    messages.len()
                );
                self.invoker.events.log(Level::Error, CATEGORY, text);
                break false;
            }
            if self.config.max_retries >= 0 && repeats >= self.config.max_retries {
                let text = format!(
                    "{} messages failed {} times and are skipped: {failure}",
                    messages.len(),
                    repeats + 1
                );
                self.invoker.events.log(Level::Error, CATEGORY, text);
                break false;
            }
            // No pause: that is the retry policy's business.
            repeats += 1;
            self.invoker
                .counters
                .of(&self.function.name, |counts| add(&counts.redeliveries, 1));
        };
        self.store(messages, succeeded);
    }

    fn store(&self, messages: &[Message], succeeded: bool) {
        let mut last: BTreeMap<i32, i64> = BTreeMap::new();
        for message in messages {
            last.insert(message.partition, message.offset);
        }
        for (partition, offset) in &last {
            if let Err(error) = self
                .consumer
                .store_offset(&self.trigger.topic, *partition, *offset)
            {
                let text = format!(
                    "commit error: offset {offset} of {} partition {partition} cannot be stored, another consumer may read it again: {error}",
                    self.trigger.topic
                );
                self.invoker.events.log(Level::Warning, CATEGORY, text);
            }
        }
        let count = messages.len();
        self.invoker.counters.of(&self.function.name, |counts| {
            add(&counts.batches, 1);
            add(&counts.messages, count);
        });
        self.invoker.events.send(Event::Batch(Batch {
            function: self.function.name.clone(),
            messages: count,
            succeeded,
            next_offsets: last
                .into_iter()
                .map(|(partition, offset)| (partition, offset + 1))
                .collect(),
        }));
        self.link.done(count);
    }
}
