//! An idempotent Kafka producer whose deliveries are awaited, with errors that say what to do.

use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::{DeliveryFuture, FutureProducer};
use rdkafka::producer::{FutureRecord, Producer as _};
use rdkafka::types::RDKafkaRespErr;

/// How long a cluster is asked for a topic at a time.
const METADATA_TRY: Duration = Duration::from_secs(5);
/// Rest between two questions.
const METADATA_PAUSE: Duration = Duration::from_millis(200);

/// Header that tells which row a message is, so that one which was sent twice can be recognised:
/// `<times round>/<row>`, both counted from 0.
pub const ROW_HEADER: &str = "lapwing-row";

/// Sends rows to one topic.
#[derive(Clone)]
pub struct Producer {
    inner: FutureProducer,
    brokers: String,
    topic: String,
    timeout: Duration,
}

/// A row on its way: key, JSON, and which row it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The message key: the series.
    pub key: String,
    /// The message value.
    pub value: Vec<u8>,
    /// Value of [`ROW_HEADER`].
    pub row: String,
}

/// A row that is queued; its delivery can be awaited.
pub struct Queued(DeliveryFuture);

/// Why rows did not arrive, by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// No broker answers.
    #[error(
        "no kafka broker answers at {brokers} within {seconds} s; start it or correct KafkaBrokers (--brokers)"
    )]
    BrokerDown {
        /// `host:port`, comma separated.
        brokers: String,
        /// The deadline.
        seconds: f64,
    },
    /// The brokers have no such topic.
    #[error(
        "topic {topic} does not exist at {brokers}; create it or correct KafkaTopic (--topic, --partitions)"
    )]
    TopicMissing {
        /// The topic.
        topic: String,
        /// `host:port`, comma separated.
        brokers: String,
    },
    /// The topic takes no message of this size.
    #[error(
        "row {row} is too large for topic {topic}: {bytes} bytes; raise the topic's max.message.bytes or shorten the row"
    )]
    TooLarge {
        /// Times round and row.
        row: String,
        /// Size of key and value.
        bytes: usize,
        /// The topic.
        topic: String,
    },
    /// The brokers do not let us in, or not write.
    #[error(
        "{brokers} refuses to let us write to topic {topic}; check KafkaUsername, KafkaPassword and the topic's permissions"
    )]
    Refused {
        /// The topic.
        topic: String,
        /// `host:port`, comma separated.
        brokers: String,
        /// What librdkafka said.
        source: Box<KafkaError>,
    },
    /// The producer cannot be built from its settings.
    #[error("the kafka producer cannot be made; check the Kafka settings")]
    Misconfigured(#[source] Box<KafkaError>),
    /// Anything else; trying again may help.
    #[error("rows cannot be delivered to topic {topic} at {brokers}")]
    Undelivered {
        /// The topic.
        topic: String,
        /// `host:port`, comma separated.
        brokers: String,
        /// What librdkafka said.
        source: Box<KafkaError>,
    },
}

impl Producer {
    /// A producer for `topic` of `cluster` (brokers, security), whose messages are acknowledged by all
    /// in-sync replicas within `timeout` or failed. Nothing is sent yet.
    pub fn new(
        cluster: &ClientConfig,
        topic: impl Into<String>,
        timeout: Duration,
    ) -> Result<Self, ProduceError> {
        let inner = cluster
            .clone()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", timeout.as_millis().to_string())
            // What Java clients do with a key, so that a series keeps its partition beside them.
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .create()
            .map_err(|error| ProduceError::Misconfigured(Box::new(error)))?;
        Ok(Self {
            inner,
            brokers: cluster
                .get("bootstrap.servers")
                .unwrap_or_default()
                .to_owned(),
            topic: topic.into(),
            timeout,
        })
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Makes the topic with so many partitions, unless it is there.
    pub async fn create_topic(
        &self,
        cluster: &ClientConfig,
        partitions: i32,
    ) -> Result<(), ProduceError> {
        let admin: AdminClient<_> = cluster
            .create()
            .map_err(|error| ProduceError::Misconfigured(Box::new(error)))?;
        let topic = NewTopic::new(&self.topic, partitions, TopicReplication::Fixed(-1));
        let options = AdminOptions::new()
            .request_timeout(Some(self.timeout))
            .operation_timeout(Some(self.timeout));
        let made = admin.create_topics([&topic], &options).await;
        let made = made.map_err(|error| self.failed(error, None))?;
        match made.into_iter().next() {
            None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => Err(self.failed(KafkaError::AdminOp(code), None)),
        }
    }

    /// Asks the brokers for the topic, until it is there or the deadline over; gives the number of its
    /// partitions. A message to a topic that is missing would only time out, without a reason.
    pub async fn check(&self) -> Result<usize, ProduceError> {
        let deadline = tokio::time::Instant::now() + self.timeout;
        loop {
            let (client, topic) = (self.inner.clone(), self.topic.clone());
            let wait = METADATA_TRY.min(self.timeout);
            let asked = tokio::task::spawn_blocking(move || {
                let metadata = client.client().fetch_metadata(Some(&topic), wait)?;
                let topics = metadata.topics();
                Ok(topics.first().map(|t| (t.error(), t.partitions().len())))
            });
            let answer: Result<_, KafkaError> = asked.await.unwrap_or(Err(KafkaError::Canceled));
            let error = match answer {
                Ok(Some((None, partitions))) if partitions > 0 => return Ok(partitions),
                // A topic that the brokers make by themselves has no leader at first.
                Ok(Some((Some(code), _))) => KafkaError::MetadataFetch(code_of(code)),
                Ok(_) => KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition),
                Err(error) => error,
            };
            let failure = self.failed(error, None);
            let is_final = matches!(failure, ProduceError::Refused { .. });
            if is_final || tokio::time::Instant::now() + METADATA_PAUSE >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(METADATA_PAUSE).await;
        }
    }

    /// Puts `message` into the producer's queue, which holds 100,000.
    pub fn queue(&self, message: &Message) -> Result<Queued, ProduceError> {
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header {
            key: ROW_HEADER,
            value: Some(&message.row),
        });
        let record = FutureRecord::to(&self.topic)
            .key(&message.key)
            .payload(&message.value)
            .headers(headers);
        self.inner
            .send_result(record)
            .map(Queued)
            .map_err(|(error, _)| self.failed(error, Some(message)))
    }

    /// Waits until a queued message is acknowledged; gives its partition and offset. Ends within the
    /// producer's deadline, which librdkafka keeps.
    pub async fn delivered(
        &self,
        queued: &mut Queued,
        message: &Message,
    ) -> Result<(i32, i64), ProduceError> {
        match (&mut queued.0).await {
            Ok(Ok(delivery)) => Ok((delivery.partition, delivery.offset)),
            Ok(Err((error, _))) => Err(self.failed(error, Some(message))),
            Err(_) => Err(self.failed(KafkaError::Canceled, Some(message))),
        }
    }

    fn failed(&self, error: KafkaError, message: Option<&Message>) -> ProduceError {
        use RDKafkaErrorCode::*;
        let (topic, brokers) = (self.topic.clone(), self.brokers.clone());
        match (error.rdkafka_error_code(), message) {
            (Some(MessageSizeTooLarge | InvalidMessageSize), Some(message)) => {
                ProduceError::TooLarge {
                    row: message.row.clone(),
                    bytes: message.key.len() + message.value.len(),
                    topic,
                }
            }
            (
                Some(
                    AllBrokersDown
                    | BrokerTransportFailure
                    | OperationTimedOut
                    | MessageTimedOut
                    | Resolve,
                ),
                _,
            ) => ProduceError::BrokerDown {
                brokers,
                seconds: self.timeout.as_secs_f64(),
            },
            (Some(UnknownTopic | UnknownTopicOrPartition | UnknownPartition), _) => {
                ProduceError::TopicMissing { topic, brokers }
            }
            (
                Some(
                    Authentication
                    | SaslAuthenticationFailed
                    | TopicAuthorizationFailed
                    | ClusterAuthorizationFailed,
                ),
                _,
            ) => ProduceError::Refused {
                topic,
                brokers,
                source: Box::new(error),
            },
            _ => ProduceError::Undelivered {
                topic,
                brokers,
                source: Box::new(error),
            },
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration may hold a password.
        f.debug_struct("Producer")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

fn code_of(code: RDKafkaRespErr) -> RDKafkaErrorCode {
    code.into()
}
