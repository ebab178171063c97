//! The topic of the harness: made, filled at a pace, and watched until its group has read it to the end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use crate::input::Sent;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const DEADLINE: Duration = Duration::from_secs(10);

/// Where the topic is.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    /// `host:port` of a broker.
    pub(crate) brokers: String,
    /// Its name.
    pub(crate) name: String,
    /// Number of partitions.
    pub(crate) partitions: i32,
    /// Consumer group of the hosts.
    pub(crate) group: String,
}

impl Topic {
    /// Makes the topic. Nothing in it expires: the timestamps of the input are those of its seed.
    pub(crate) async fn create(&self) -> Result<(), Failure> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let topic = NewTopic::new(&self.name, self.partitions, TopicReplication::Fixed(1))
            .set("retention.ms", "-1");
        let options = AdminOptions::new().operation_timeout(Some(DEADLINE));
        for made in admin.create_topics([&topic], &options).await? {
            made.map_err(|(name, code)| format!("topic {name} cannot be made: {code}"))?;
        }
        Ok(())
    }

    /// Sends `messages` in order, spread evenly over `length`; each must get the offset that it would
    /// have if nothing ever went wrong, because the fault-free run counted on it.
    pub(crate) async fn send(&self, messages: &[Sent], length: Duration) -> Result<(), Failure> {
        let producer: FutureProducer = self
            .client()
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .create()?;
        let started = Instant::now();
        let mut sent: Vec<i64> = vec![0; usize::try_from(self.partitions)?];
        // A tick's worth at a time: all are queued, then all are waited for.
        let ticks = (length.as_millis() / 50).max(1) as usize;
        for (tick, part) in messages.chunks(messages.len().div_ceil(ticks)).enumerate() {
            let due = started + Duration::from_millis(50) * u32::try_from(tick)?;
            tokio::time::sleep_until(due.into()).await;
            let mut deliveries = Vec::with_capacity(part.len());
            for message in part {
                let record = FutureRecord::to(&self.name)
                    .partition(message.partition)
                    .key(&message.key)
                    .payload(&message.value)
                    .timestamp(message.time_ms);
                let delivery = producer
                    .send_result(record)
                    .map_err(|(error, _)| format!("message not queued: {error}"))?;
                deliveries.push((message.partition, delivery));
            }
            for (partition, delivery) in deliveries {
                let delivered = delivery.await?.map_err(|(error, _)| error)?;
                let expected = &mut sent[usize::try_from(partition)?];
                if delivered.offset != *expected {
                    return Err(format!(
                        "partition {partition} gave offset {} where {expected} was due",
                        delivered.offset
                    )
                    .into());
                }
                *expected += 1;
            }
        }
        Ok(())
    }

    /// Messages that the group has not committed yet.
    pub(crate) fn lag(&self) -> Result<i64, KafkaError> {
        let consumer: BaseConsumer = self.client().set("group.id", &self.group).create()?;
        let mut partitions = TopicPartitionList::new();
        for partition in 0..self.partitions {
            partitions.add_partition(&self.name, partition);
        }
        let committed = consumer.committed_offsets(partitions, DEADLINE)?;
        committed.elements().iter().try_fold(0, |lag, element| {
            let (_, end) = consumer.fetch_watermarks(&self.name, element.partition(), DEADLINE)?;
            let done = match element.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            };
            Ok(lag + end - done)
        })
    }

    /// Sets the group back to the beginning of every partition, as soon as it has no members any more.
    pub(crate) fn reset(&self) -> Result<(), Failure> {
        let consumer: BaseConsumer = self.client().set("group.id", &self.group).create()?;
        let deadline = Instant::now() + 6 * DEADLINE;
        loop {
            let list = consumer.fetch_group_list(Some(&self.group), DEADLINE)?;
            let group = list
                .groups()
                .iter()
                .find(|found| found.name() == self.group);
            if group.is_none_or(|group| group.members().is_empty()) {
                break;
            }
            if Instant::now() > deadline {
                return Err("the group still has members; its offsets cannot be set".into());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        let mut beginning = TopicPartitionList::new();
        for partition in 0..self.partitions {
            beginning.add_partition_offset(&self.name, partition, Offset::Offset(0))?;
        }
        consumer.commit(&beginning, CommitMode::Sync)?;
        Ok(())
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.brokers)
            .set("log_level", "2");
        client
    }
}

/// Counts how often the members of the group changed: each time is a rebalance.
#[derive(Debug)]
pub(crate) struct Rebalances {
    count: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Rebalances {
    /// Begins to watch the group of `topic`.
    pub(crate) fn watch(topic: &Topic) -> Result<Self, Failure> {
        let consumer: BaseConsumer = topic.client().create()?;
        let (count, stop) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let group = topic.group.clone();
        let watching = (Arc::clone(&count), Arc::clone(&stop));
        std::thread::Builder::new()
            .name("rebalances".to_owned())
            .spawn(move || {
                let (count, stop) = watching;
                let mut members = BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    // A broker that is busy electing says nothing this time.
                    if let Some(now) = stable_members(&consumer, &group)
                        && now != members
                    {
                        members = now;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
            })?;
        Ok(Self { count, stop })
    }

    /// Changes so far; the first one is the group's beginning.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Rebalances {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Each member with what it was assigned, once the group has settled.
fn stable_members(consumer: &BaseConsumer, group: &str) -> Option<BTreeSet<(String, Vec<u8>)>> {
    let list = consumer.fetch_group_list(Some(group), DEADLINE).ok()?;
    let group = list.groups().iter().find(|found| found.name() == group)?;
    (group.state() == "Stable").then(|| {
        let member = |member: &rdkafka::groups::GroupMemberInfo| {
            let assigned = member.assignment().unwrap_or_default().to_vec();
            (member.id().to_owned(), assigned)
        };
        group.members().iter().map(member).collect()
    })
}
