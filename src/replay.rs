//! A CSV as a live feed: its rows, one tick after the other, as JSON messages keyed by series.
//!
//! A row is sent as it is (`{"timestamp":"2014-03-01 17:36:00","value":"42.0"}`), also one whose fields are
//! bad: what becomes of it is for the reader of the topic to say. How far the replay has come lies in the
//! store, so that the next tick, another instance and a restart go on where it stopped; the cursor's
//! documentation says what two ticks at once, or a crash, do.

mod carry;
mod cursor;
pub mod producer;
pub mod rows;
pub mod source;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use azure_storage_blob::BlobClient;
use rdkafka::ClientConfig;
use serde::Serialize;
use url::Url;

pub use self::cursor::CursorError;
use self::cursor::{Cursor, Found, Position};
use self::producer::{Message, ProduceError, Producer};
use self::rows::{CsvRow, Rows};
use self::source::{Source, SourceError};
use crate::config::{self, InvalidSetting, Settings};
use crate::kafka;
use crate::series::Timestamp;
use crate::store::WindowStore;
use crate::telemetry;

/// Longest wait for the acknowledgement of a row.
pub const DELIVERY_DEADLINE: Duration = Duration::from_secs(30);
/// Longest time that reading the rows of one tick may take.
const READ_DEADLINE: Duration = Duration::from_secs(60);
/// Most rows of one tick: they are held in memory, and have to arrive while the cursor is claimed.
const MOST_ROWS_PER_TICK: usize = 100_000;
/// The column that names the series, where a file has one.
pub const SERIES_COLUMN: &str = "series";

/// Sends the rows of a source, tick by tick.
#[derive(Debug)]
pub struct Replayer {
    source: Source,
    series: String,
    is_looping: bool,
    rows_per_tick: usize,
    cursor: Cursor,
    cluster: Cluster,
}

/// What one tick did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Sent rows, acknowledged by the brokers.
    Sent {
        /// How many.
        rows: usize,
        /// The last one, counted from 1 below the header.
        last_row: u64,
        /// Times round, from 0.
        round: u64,
        /// The topic.
        topic: String,
    },
    /// The file has no further row, and the replay does not loop.
    AtEnd {
        /// Rows sent since the top.
        rows: u64,
    },
    /// Another tick is sending; nothing was done.
    Elsewhere,
}

/// Why a tick failed. The cursor stands behind the last row that arrived.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The rows cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Reading took too long.
    #[error("{place} did not give the next rows within {seconds} s; try again")]
    SlowSource {
        /// The source.
        place: String,
        /// The deadline.
        seconds: u64,
    },
    /// The file is not the one that the cursor is about.
    #[error(
        "{place} changed: row {row} is not the one that was sent; give the new file another name, or remove {cursor} to begin from its top"
    )]
    Changed {
        /// The source.
        place: String,
        /// The row sent last, counted from 1 below the header.
        row: u64,
        /// Name of the document.
        cursor: String,
    },
    /// A file to loop over has no rows at all.
    #[error("{place} has a header and no rows; there is nothing to send")]
    NoRows {
        /// The source.
        place: String,
    },
    /// The rows did not arrive.
    #[error(transparent)]
    Produce(#[from] ProduceError),
    /// The cursor cannot be read or stored.
    #[error(transparent)]
    Cursor(#[from] CursorError),
}

/// A row and where the replay stands once it has arrived.
struct Step {
    message: Message,
    after: Position,
}

impl Replayer {
    /// A replay as the settings say, with its cursor in `store`. `blob` gives the client of a URL that the
    /// app has credentials for. Nothing is opened yet.
    pub fn from_settings(
        settings: &Settings,
        store: Arc<dyn WindowStore>,
        blob: impl FnOnce(&Url) -> Option<BlobClient>,
    ) -> Result<Self, InvalidSetting> {
        let name: String = settings.required(&config::REPLAY_SOURCE)?;
        let source = Source::parse(&name, blob).map_err(|error| {
            let shown = config::without_query(&name);
            InvalidSetting::new(&config::REPLAY_SOURCE, &shown, error)
        })?;
        let rows_per_tick: usize = settings.required(&config::REPLAY_ROWS_PER_TICK)?;
        if !(1..=MOST_ROWS_PER_TICK).contains(&rows_per_tick) {
            let value = rows_per_tick.to_string();
            let reason = format!("expected 1 to {MOST_ROWS_PER_TICK}");
            return Err(InvalidSetting::new(
                &config::REPLAY_ROWS_PER_TICK,
                &value,
                reason,
            ));
        }
        let topic: String = settings.required(&config::KAFKA_TOPIC)?;
        let series = settings.get(&config::REPLAY_SERIES).unwrap_or(&topic);
        Ok(Self {
            series: series.to_owned(),
            is_looping: settings.required(&config::REPLAY_LOOP)?,
            rows_per_tick,
            cursor: Cursor::new(store, &source.place(), &topic),
            cluster: Cluster {
                config: kafka::cluster(settings)?,
                topic,
                timeout: DELIVERY_DEADLINE,
                producer: Mutex::new(None),
            },
            source,
        })
    }

    /// Sends the next rows, waits until the brokers have them, and stores how far it came.
    ///
    /// # Errors
    /// When a row cannot be read nothing is sent. When one does not arrive, the cursor is stored behind
    /// the last one before it that did.
    pub async fn tick(&self) -> Result<Progress, ReplayError> {
        let Found::Free(position, tag) = self.cursor.load(now()).await? else {
            return Ok(Progress::Elsewhere);
        };
        let steps = tokio::time::timeout(READ_DEADLINE, self.next_steps(&position))
            .await
            .map_err(|_| ReplayError::SlowSource {
                place: self.source.place(),
                seconds: READ_DEADLINE.as_secs(),
            })??;
        if steps.is_empty() {
            return Ok(Progress::AtEnd {
                rows: position.rows,
            });
        }
        let producer = self.cluster.producer().await?;
        let claimed = self.cursor.claim(&position, tag.as_ref(), now()).await?;
        let Some(claimed) = claimed else {
            return Ok(Progress::Elsewhere);
        };
        let (arrived, failure) = send(&producer, &steps).await;
        telemetry::ROWS_SENT.inc_by(arrived as u64);
        let reached = arrived
            .checked_sub(1)
            .map_or(&position, |last| &steps[last].after);
        let stored = claimed.finish(reached).await;
        if let Some(failure) = failure {
            self.cluster.forget_producer();
            if let Err(error) = stored {
                tracing::warn!(%error, "The cursor was not stored either; its claim runs out by itself.");
            }
            return Err(failure.into());
        }
        stored?;
        Ok(Progress::Sent {
            rows: arrived,
            last_row: reached.rows,
            round: reached.rounds,
            topic: producer.topic().to_owned(),
        })
    }

    /// Up to so many rows as a tick sends, from `position` on.
    async fn next_steps(&self, position: &Position) -> Result<Vec<Step>, ReplayError> {
        let mut steps = Vec::new();
        let mut position = position.clone();
        let mut rows = self.rows_after(&position).await?;
        while steps.len() < self.rows_per_tick {
            if let Some(row) = rows.next().await? {
                let after = position.after(&row, rows.columns());
                let message = message(
                    &row,
                    row.series.as_deref().unwrap_or(&self.series),
                    position.carried_micros,
                    format!("{}/{}", position.rounds, position.rows),
                );
                steps.push(Step { message, after });
                position = steps[steps.len() - 1].after.clone();
            } else if !self.is_looping {
                break;
            } else if position.rows == 0 {
                return Err(ReplayError::NoRows {
                    place: self.source.place(),
                });
            } else {
                position = position.next_round();
                rows = Rows::begin(&self.source, SERIES_COLUMN).await?;
            }
        }
        Ok(steps)
    }

    /// The rows below the one sent last, which is read once more to see that it is still the same.
    async fn rows_after(&self, position: &Position) -> Result<Rows, ReplayError> {
        let Some(last) = position.last else {
            return Ok(Rows::begin(&self.source, SERIES_COLUMN).await?);
        };
        let changed = || ReplayError::Changed {
            place: self.source.place(),
            row: position.rows,
            cursor: self.cursor.place(),
        };
        let mut rows = Rows::resume(&self.source, last.columns, last.place).await?;
        match rows.next().await {
            Ok(Some(row)) if row.fingerprint() == last.fingerprint => Ok(rows),
            Ok(_) | Err(SourceError::NotCsv { .. }) => Err(changed()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The message that a row is sent as: JSON with the fields as they are in the file, except that
/// timestamps are carried on by `micros`. `series` is the key; `which` tells the row from every other.
pub fn message(row: &CsvRow, series: &str, micros: i64, which: String) -> Message {
    #[derive(Serialize)]
    struct Json<'a> {
        timestamp: &'a str,
        value: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        series: Option<&'a str>,
    }
    let json = Json {
        timestamp: &carry::carried(&row.timestamp, micros),
        value: &row.value,
        series: row.series.as_deref(),
    };
    Message {
        key: series.to_owned(),
        value: serde_json::to_vec(&json).expect("three strings are always json"),
        row: which,
    }
}

/// Sends every message; gives how many arrived before the first that did not, and why it did not.
async fn send(producer: &Producer, steps: &[Step]) -> (usize, Option<ProduceError>) {
    let mut queued = Vec::with_capacity(steps.len());
    let mut failure = None;
    for step in steps {
        match producer.queue(&step.message) {
            Ok(delivery) => queued.push(delivery),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    let (mut arrived, mut is_unbroken) = (0, true);
    // Those behind a lost one are awaited too: nothing is under way once the cursor is free again.
    for (delivery, step) in queued.iter_mut().zip(steps) {
        match producer.delivered(delivery, &step.message).await {
            Ok(_) if is_unbroken => arrived += 1,
            Ok(_) => {}
            Err(error) => {
                if is_unbroken {
                    failure = Some(error);
                }
                is_unbroken = false;
            }
        }
    }
    (arrived, failure)
}

/// The cluster and topic, and the producer once there is one.
struct Cluster {
    config: ClientConfig,
    topic: String,
    timeout: Duration,
    producer: Mutex<Option<Producer>>,
}

impl Cluster {
    /// The live producer, or a new one whose topic was found.
    async fn producer(&self) -> Result<Producer, ProduceError> {
        if let Some(live) = self.lock().clone() {
            return Ok(live);
        }
        let made = Producer::new(&self.config, &self.topic, self.timeout)?;
        made.check().await?;
        *self.lock() = Some(made.clone());
        Ok(made)
    }

    /// After a failure: the next tick makes a new one, because this one may be broken for good, and asks
    /// for the topic again, because a row that timed out does not say why.
    fn forget_producer(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Producer>> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration may hold a password.
        f.debug_struct("Cluster")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent {
                rows,
                last_row,
                round: 0,
                topic,
            } => write!(f, "{rows} rows sent to {topic}, up to row {last_row}"),
            Self::Sent {
                rows,
                last_row,
                round,
                topic,
            } => write!(
                f,
                "{rows} rows sent to {topic}, up to row {last_row} of round {}",
                round + 1
            ),
            Self::AtEnd { rows } => write!(
                f,
                "at the end after {rows} rows; nothing sent (Replay__Loop=true begins again)"
            ),
            Self::Elsewhere => f.write_str("another tick is sending; nothing sent"),
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_micros(chrono::Utc::now().timestamp_micros())
}
