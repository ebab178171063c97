//! From messages to durable verdicts: the one place where windows, detector, records and store meet.
//!
//! The order is: judge, record, save, answer. Records are idempotent by the message they come from, and
//! the save is conditional on the version that was read. So whatever dies between two steps, the host
//! brings the batch again and every step that had happened is recognised: nothing is lost and nothing
//! is done twice.

mod batch;
mod detect;
mod events;
mod splits;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::config::{InvalidSetting, Settings};
use crate::message::Message;
use crate::record::places::Places;
use crate::record::{Data, SinkError, Stream};
use crate::remote::RemoteError;
use crate::row::{Row, RowError};
use crate::series::Timestamp;
use crate::store::{Ledger, StoreError};
use crate::telemetry;
use crate::window::ShardId;

/// How often a batch is redone after another writer was faster. Each time the state is read afresh, so
/// more than a few mean that two instances fight over a partition, and the host's retry is the better wait.
const MAX_CONFLICTS: u32 = 3;

/// Judges batches. Clones share everything.
#[derive(Clone, Debug)]
pub struct Pipeline(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    detector: detect::Detector,
    ledger: Ledger,
    places: Places,
    splits: splits::Splits,
}

/// What became of a batch.
#[derive(Clone, Debug, Default)]
pub struct Absorbed {
    /// Messages that came.
    pub messages: usize,
    /// Points that a window kept.
    pub kept: usize,
    /// Verdicts.
    pub judged: usize,
    /// Full windows that the detector refused.
    pub not_judged: usize,
    /// Messages and points that no window kept.
    pub dead_letters: usize,
    /// Messages whose offset had been absorbed before.
    pub no_ops: usize,
    /// The anomalies, in order per partition.
    pub anomalies: Vec<Anomaly>,
}

/// An anomaly, for logs.
#[derive(Clone, Debug, PartialEq)]
pub struct Anomaly {
    /// Name of the series.
    pub series: Arc<str>,
    /// When it was measured.
    pub timestamp: Timestamp,
    /// What was measured.
    pub value: f64,
    /// What should have been.
    pub expected_value: f64,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            series,
            timestamp,
            value,
            expected_value,
        } = self;
        write!(
            f,
            "anomaly in {series}: {value} at {timestamp}, expected {expected_value:.4}"
        )
    }
}

/// Why a batch is not durable. The batch may come again as it is.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The window store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A place for records failed.
    #[error(transparent)]
    Record(#[from] SinkError),
    /// Another instance keeps writing the same partition.
    #[error(
        "another instance keeps saving {shard}; gave up after {MAX_CONFLICTS} attempts, the host will bring the batch again"
    )]
    Contended {
        /// The topic-partition.
        shard: ShardId,
    },
    /// The remote detector failed; nothing of the partition is recorded or saved.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A defect: a part of the work ended without a result.
    #[error("a defect of lapwing: {0}")]
    Defect(#[from] tokio::task::JoinError),
}

impl Pipeline {
    /// A pipeline over this store and these places. Nothing is connected yet.
    pub fn new(
        settings: &Settings,
        ledger: Ledger,
        places: Places,
    ) -> Result<Self, InvalidSetting> {
        Ok(Self(Arc::new(Inner {
            detector: detect::Detector::from_settings(settings)?,
            ledger,
            places,
            splits: splits::Splits::default(),
        })))
    }

    /// Absorbs a batch of any topics and partitions; those of one partition in order. Returns once windows
    /// and records are durable. After an error some partitions may be saved: the batch comes again whole,
    /// and what was saved is recognised by its offsets.
    pub async fn absorb(&self, messages: Vec<Message>) -> Result<Absorbed, JudgeError> {
        let mut shards: BTreeMap<(Arc<str>, i32), Vec<Message>> = BTreeMap::new();
        for message in messages {
            shards
                .entry((Arc::clone(&message.topic), message.partition))
                .or_default()
                .push(message);
        }
        let mut tasks = JoinSet::new();
        let mut total = Absorbed::default();
        let mut failure = None;
        for ((topic, partition), messages) in shards {
            let inner = Arc::clone(&self.0);
            let shard = ShardId {
                topic: topic.to_string(),
                partition,
            };
            let span = tracing::Span::current();
            let work = async move { inner.absorb_shard(shard, &messages).await };
            tasks.spawn(tracing::Instrument::instrument(work, span));
        }
        while let Some(ended) = tasks.join_next().await {
            match ended.map_err(JudgeError::from).and_then(|result| result) {
                Ok(absorbed) => total.add(absorbed),
                // The other partitions go on: what they save need not be done again.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => {
                fail::fail_point!("judge::before-answer");
                Ok(total)
            }
        }
    }

    /// The store of windows.
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Where windows and records go, for `/health`.
    pub fn places(&self) -> BTreeMap<String, Vec<String>> {
        let mut places: BTreeMap<String, Vec<String>> = self
            .0
            .places
            .describe()
            .into_iter()
            .map(|(stream, places)| (stream.to_owned(), places))
            .collect();
        places.insert("windows".to_owned(), vec![self.0.ledger.store().place()]);
        places
    }
}

impl Inner {
    async fn absorb_shard(
        &self,
        shard: ShardId,
        messages: &[Message],
    ) -> Result<Absorbed, JudgeError> {
        let rows: Vec<Result<Row, RowError>> = messages.iter().map(Row::parse).collect();
        self.splits.look(&shard, &rows);
        let rules = self.ledger.rules();
        let verdicts = self.places.takes(Stream::Verdicts);
        for _attempt in 0..MAX_CONFLICTS {
            let mut open = self.ledger.open(&shard, messages[0].offset).await?;
            // Judging is arithmetic on every core; the runtime goes on meanwhile.
            let shard_now = open.shard()?;
            let mut judged = tokio::task::block_in_place(|| {
                let _timer = telemetry::JUDGE_SECONDS.start_timer();
                batch::judge(shard_now, rules, &self.detector, messages, &rows, verdicts)
            })?;
            fail::fail_point!("judge::before-record");
            // Joined, not tried: a place that fails does not cut short what another is writing.
            let (anomalies, dead_letters, verdicts) = tokio::join!(
                self.places.write(Stream::Anomalies, &judged.anomalies),
                self.places.write(Stream::DeadLetters, &judged.dead_letters),
                self.places.write(Stream::Verdicts, &judged.verdicts),
            );
            anomalies.and(dead_letters).and(verdicts)?;
            fail::fail_point!("judge::between-record-and-save");
            if !judged.change.is_empty() {
                match open.commit(std::mem::take(&mut judged.change)).await {
                    Ok(()) => {}
                    Err(StoreError::Conflict { .. }) => {
                        telemetry::CONFLICTS.inc();
                        tracing::warn!(%shard, "Another instance saved this partition first; reading it again.");
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            count(&judged);
            return Ok(judged.absorbed);
        }
        Err(JudgeError::Contended { shard })
    }
}

impl Absorbed {
    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.kept += other.kept;
        self.judged += other.judged;
        self.not_judged += other.not_judged;
        self.dead_letters += other.dead_letters;
        self.no_ops += other.no_ops;
        self.anomalies.extend(other.anomalies);
    }
}

/// Counts what is durable now.
fn count(judged: &batch::Judged) {
    let absorbed = &judged.absorbed;
    telemetry::POINTS.inc_by(absorbed.kept as u64);
    telemetry::NO_OPS.inc_by(absorbed.no_ops as u64);
    let anomalies = absorbed.anomalies.len();
    let outcomes = [
        ("anomaly", anomalies),
        ("normal", absorbed.judged - anomalies),
        ("not-judged", absorbed.not_judged),
    ];
    for (outcome, count) in outcomes {
        telemetry::VERDICTS
            .with_label_values(&[outcome])
            .inc_by(count as u64);
    }
    for event in &judged.dead_letters {
        if let Data::DeadLetter(letter) = &event.data {
            telemetry::DEAD_LETTERS
                .with_label_values(&[letter.reason])
                .inc();
        }
    }
}
