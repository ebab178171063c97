//! Events as messages of a topic: CloudEvents' binary mode, keyed by series, from an idempotent
//! producer.
//!
//! The producer's idempotence ends with its process: a batch that is written again after a crash is in
//! the topic twice, with the same `ce_source` and `ce_id`.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use tokio::time::Instant;

use super::{Event, Sink, SinkError};

/// Largest message that the producer itself lets through; the topic's own limit decides.
const MOST_MESSAGE_BYTES: &str = "100000000";
/// Memory for messages that wait, in KiB; beyond it a write waits for earlier ones.
const MOST_WAITING_KIB: &str = "131072";
/// How long a full queue is left alone when nothing of this write is in it.
const QUEUE_PAUSE: Duration = Duration::from_millis(50);

/// Writes events to a topic.
pub struct KafkaSink {
    config: ClientConfig,
    topic: String,
    timeout: Duration,
    /// Made by the first write; taken away when librdkafka calls it broken for good.
    producer: Mutex<Option<FutureProducer>>,
}

impl KafkaSink {
    /// Events go to `topic` of the cluster that `cluster` names (brokers, security), each acknowledged
    /// by all in-sync replicas within `timeout` or failed. Nothing connects before the first write.
    pub fn new(cluster: &ClientConfig, topic: impl Into<String>, timeout: Duration) -> Self {
        let mut config = cluster.clone();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            // What Java clients do with a key, so that a series keeps its partition beside them.
            .set("partitioner", "murmur2_random")
            .set("message.max.bytes", MOST_MESSAGE_BYTES)
            .set("queue.buffering.max.kbytes", MOST_WAITING_KIB)
            .set("message.timeout.ms", timeout.as_millis().to_string());
        Self {
            config,
            topic: topic.into(),
            timeout,
            producer: Mutex::new(None),
        }
    }

    fn producer(&self) -> Result<FutureProducer, KafkaError> {
        let mut producer = self.lock();
        if let Some(live) = &*producer {
            return Ok(live.clone());
        }
        let made: FutureProducer = self.config.create()?;
        *producer = Some(made.clone());
        Ok(made)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<FutureProducer>> {
        self.producer
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn send_all(&self, producer: &FutureProducer, events: &[Event]) -> Result<(), Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut waiting = VecDeque::new();
        for event in events {
            let message = Message::of(event)?;
            loop {
                match producer.send_result(message.record(&self.topic)) {
                    Ok(delivery) => {
                        waiting.push_back((event, delivery));
                        break;
                    }
                    Err((error, _)) if is(&error, RDKafkaErrorCode::QueueFull) => {
                        match waiting.pop_front() {
                            Some((event, delivery)) => {
                                self.delivered(producer, event, delivery).await?;
                            }
                            // Other partitions' writes fill the queue.
                            None => tokio::time::sleep(QUEUE_PAUSE).await,
                        }
                        if Instant::now() >= deadline {
                            return Err(error.into());
                        }
                    }
                    Err((error, _)) => return Err(error.into()),
                }
            }
        }
        for (event, delivery) in waiting {
            self.delivered(producer, event, delivery).await?;
        }
        Ok(())
    }

    /// Waits for one delivery. The broker refuses a whole batch for its size, so an event that was in
    /// one goes alone; one that is too large alone goes without the bulk of its message, because a
    /// poison message must not stop its partition.
    async fn delivered(
        &self,
        producer: &FutureProducer,
        event: &Event,
        delivery: DeliveryFuture,
    ) -> Result<(), Failure> {
        match delivery.await.map_err(|_| Failure::Closed)? {
            Ok(_) => return Ok(()),
            Err((error, _)) if is(&error, RDKafkaErrorCode::MessageSizeTooLarge) => {}
            Err((error, _)) => return Err(error.into()),
        }
        match self.send_alone(producer, event).await {
            Err(Failure::Kafka(error)) if is(&error, RDKafkaErrorCode::MessageSizeTooLarge) => {
                let cut = event.cut().ok_or(error)?;
                self.send_alone(producer, &cut).await
            }
            sent => sent,
        }
    }

    async fn send_alone(&self, producer: &FutureProducer, event: &Event) -> Result<(), Failure> {
        let message = Message::of(event)?;
        producer
            .send(message.record(&self.topic), self.timeout)
            .await
            .map(drop)
            .map_err(|(error, _)| error.into())
    }
}

#[async_trait]
impl Sink for KafkaSink {
    async fn write(&self, events: &[Event]) -> Result<usize, SinkError> {
        let Some(first) = events.first() else {
            return Ok(0);
        };
        let stream = first.stream.name();
        let refused = |source| SinkError::Refused {
            stream,
            place: self.place(),
            source,
        };
        let producer = self.producer().map_err(|error| refused(error.into()))?;
        let sent = tokio::time::timeout(self.timeout, self.send_all(&producer, events)).await;
        let failure = match sent {
            Ok(Ok(())) => return Ok(events.len()),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Late(self.timeout.as_secs_f64()),
        };
        if producer.client().fatal_error().is_some() {
            // It will never send again; the next write makes a new one.
            *self.lock() = None;
        }
        Err(if failure.needs_somebody() {
            refused(failure.into())
        } else {
            SinkError::Unavailable {
                stream,
                place: self.place(),
                source: failure.into(),
            }
        })
    }

    fn place(&self) -> String {
        format!("topic {}", self.topic)
    }
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration may hold a password.
        f.debug_struct("KafkaSink")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// Why an event is not in the topic.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("the event cannot be written as json")]
    Json(#[from] serde_json::Error),
    #[error("no acknowledgement within {0} s")]
    Late(f64),
    #[error("the producer was closed")]
    Closed,
}

impl Failure {
    /// Whether trying again is of no use before somebody changes something.
    fn needs_somebody(&self) -> bool {
        use RDKafkaErrorCode::*;
        match self {
            Self::Json(_) => true,
            Self::Late(_) | Self::Closed => false,
            Self::Kafka(error) => matches!(
                error.rdkafka_error_code(),
                Some(
                    MessageSizeTooLarge
                        | TopicAuthorizationFailed
                        | ClusterAuthorizationFailed
                        | SaslAuthenticationFailed
                        | Authentication
                        | UnknownTopic
                        | UnknownTopicOrPartition
                        | InvalidTopic
                        | InvalidRecord
                        | PolicyViolation
                )
            ),
        }
    }
}

fn is(error: &KafkaError, code: RDKafkaErrorCode) -> bool {
    error.rdkafka_error_code() == Some(code)
}

/// An event in CloudEvents' binary mode: attributes as headers, content as value.
struct Message {
    key: String,
    value: Vec<u8>,
    headers: OwnedHeaders,
}

impl Message {
    fn of(event: &Event) -> Result<Self, serde_json::Error> {
        let id = event.id.to_string();
        let time = event.time.map(|time| time.to_string());
        let attributes = [
            ("ce_specversion", Some("1.0")),
            ("ce_type", Some(event.event_type())),
            ("ce_source", Some(event.source())),
            ("ce_id", Some(&id)),
            ("ce_time", time.as_deref()),
            ("ce_subject", event.subject.as_deref()),
            ("content-type", Some("application/json")),
        ];
        let mut headers = OwnedHeaders::new_with_capacity(attributes.len());
        for (key, value) in attributes {
            if value.is_some() {
                headers = headers.insert(Header { key, value });
            }
        }
        // Without a series, the message's own partition keeps its dead letters in order.
        let key = event.subject.as_deref().map_or_else(
            || format!("{}/{}", event.id.topic, event.id.partition),
            str::to_owned,
        );
        Ok(Self {
            key,
            value: serde_json::to_vec(&event.data)?,
            headers,
        })
    }

    fn record<'a>(&'a self, topic: &'a str) -> FutureRecord<'a, str, [u8]> {
        FutureRecord::to(topic)
            .key(self.key.as_str())
            .payload(self.value.as_slice())
            .headers(self.headers.clone())
    }
}
