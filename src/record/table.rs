//! Events as entities of a table: partition by series, row by time, so that a series' records of a day
//! are one range of one partition.
//!
//! A row's key ends in the event's id, hence the service itself refuses a repeat, and "exists" means
//! "is there already". Events of one series go in one transaction; when a part of them is there
//! already, each goes alone. An event too large for an entity has further rows; the row that counts as
//! the event is written last.

mod key;
mod rest;

use std::fmt::{self, Write};

use async_trait::async_trait;
use azure_core::http::{Pipeline, Url};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use self::key::{partition_key, row_key};
use self::rest::{Insert, Rest, TableError};
use super::archive::{Archive, Found, ReadError, Wanted};
use super::{Data, Event, RecordId, Sink, SinkError, VerdictFields};
use crate::series::Timestamp;
use crate::store::azure::without_signatures;
use crate::telemetry;

/// UTF-16 units of one text property; the service takes 32 Ki (64 KiB).
const PROPERTY_UNITS: usize = 32_000;
/// Text properties of one entity, so that it stays below 1 MiB with its keys and other properties.
const PROPERTIES: usize = 14;
/// Entities of one transaction, and the bytes of its entities; the service takes 100 and 4 MiB.
const MOST_ENTITIES: usize = 100;
const MOST_BYTES: usize = 3 * 1024 * 1024;
/// Requests under way at once.
const CONCURRENCY: usize = 16;
/// Characters of the series' name in the property `subject`; the event has all of it.
const SUBJECT_CHARS: usize = 1_000;

/// Writes events to a table.
pub struct TableSink {
    rest: Rest,
}

impl TableSink {
    /// Events go to the table `name` of the account at `endpoint`; it is made when the first one
    /// comes. `pipeline` signs the requests.
    pub fn new(pipeline: Pipeline, endpoint: Url, name: impl Into<String>) -> Self {
        Self {
            rest: Rest::new(pipeline, endpoint, name.into()),
        }
    }

    /// Inserts the rows of events of one series; gives the number of events that were not there.
    async fn insert(&self, rows: Vec<Rows>) -> Result<usize, TableError> {
        if let [one] = rows.as_slice() {
            return self.insert_one(one).await;
        }
        let entities: Vec<&str> = rows.iter().map(|rows| rows.head.as_str()).collect();
        match self.rest.insert_all(&entities).await? {
            Insert::Done => Ok(rows.len()),
            // A batch that was cut differently the last time.
            Insert::Exists => {
                let mut written = 0;
                for rows in &rows {
                    written += self.insert_one(rows).await?;
                }
                Ok(written)
            }
        }
    }

    async fn insert_one(&self, rows: &Rows) -> Result<usize, TableError> {
        for further in &rows.further {
            // The same event has the same rows: one that exists holds what it should.
            self.rest.insert(further).await?;
        }
        Ok(match self.rest.insert(&rows.head).await? {
            Insert::Done => 1,
            Insert::Exists => 0,
        })
    }

    async fn read_event(&self, found: &Key) -> Result<String, TableError> {
        let mut json = String::new();
        for number in 0..=found.further {
            let row = key::further(&found.row, number);
            let entity = self.rest.get(&found.partition, &row).await?;
            for name in property_names() {
                match entity.get(&name).and_then(Value::as_str) {
                    Some(text) => json.push_str(text),
                    None => break,
                }
            }
        }
        Ok(json)
    }
}

#[async_trait]
impl Sink for TableSink {
    async fn write(&self, events: &[Event]) -> Result<usize, SinkError> {
        let Some(first) = events.first() else {
            return Ok(0);
        };
        let stream = first.stream.name();
        let transactions = transactions(events).map_err(|error| SinkError::Refused {
            stream,
            place: self.place(),
            source: error.into(),
        })?;
        stream::iter(transactions)
            .map(|rows| self.insert(rows))
            .buffer_unordered(CONCURRENCY)
            .try_fold(0, |written, more| async move { Ok(written + more) })
            .await
            .map_err(|error| error.into_sink_error(stream, self.place()))
    }

    fn place(&self) -> String {
        format!("table {}", self.rest.table())
    }
}

#[async_trait]
impl Archive for TableSink {
    async fn read(&self, wanted: &Wanted, found: mpsc::Sender<Found>) -> Result<(), ReadError> {
        let unreadable = |error: TableError| ReadError {
            place: self.place(),
            source: match error {
                TableError::Request(error) => {
                    without_signatures(&telemetry::one_line(&error)).into()
                }
                error => error.into(),
            },
        };
        let source = format!("/lapwing/{}", wanted.stream.name());
        let mut filter = format!("source eq '{source}'");
        if let Some(day) = &wanted.day {
            // '~' comes after everything that a row's key can go on with.
            let day = day.replace('\'', "''");
            filter.push_str(&format!(" and RowKey ge '{day}' and RowKey lt '{day}~'"));
        }
        // Rows come by series; a partition's events are wanted in their order. The keys are small.
        let mut keys = self
            .rest
            .query(&filter, "PartitionKey,RowKey,id,further", |entity| {
                Key::of(entity).filter(|key| wanted.includes(&key.topic, key.in_topic, &key.day))
            })
            .await
            .map_err(unreadable)?;
        keys.sort_by(|a, b| a.order().cmp(&b.order()));
        let mut events = stream::iter(keys)
            .map(|key| async move {
                let json = self.read_event(&key).await;
                (key, json)
            })
            .buffered(CONCURRENCY);
        while let Some((key, json)) = events.next().await {
            let event = Found {
                at: format!("{} {} {}", self.rest.table(), key.partition, key.row),
                day: key.day.clone(),
                json: json.map_err(unreadable)?,
            };
            if found.send(event).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for TableSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableSink")
            .field("table", &self.rest.table())
            .finish_non_exhaustive()
    }
}

/// The entities of one event, as JSON.
struct Rows {
    partition: String,
    head: String,
    /// Rows for what is past the head's limit.
    further: Vec<String>,
}

impl Rows {
    fn of(event: &Event) -> Result<Self, serde_json::Error> {
        let (partition, row) = (partition_key(event), row_key(event));
        let text = event.to_line()?;
        let mut pieces = pieces(&text);
        let entity = |row: &str, pieces: &mut dyn Iterator<Item = &str>| {
            let mut entity = Map::new();
            entity.insert("PartitionKey".to_owned(), json!(partition));
            entity.insert("RowKey".to_owned(), json!(row));
            for (name, piece) in property_names().zip(pieces) {
                entity.insert(name, json!(piece));
            }
            entity
        };
        let mut head = entity(&row, &mut pieces);
        let mut further = Vec::new();
        loop {
            let mut held = (&mut pieces).take(PROPERTIES).peekable();
            if held.peek().is_none() {
                break;
            }
            let row = key::further(&row, further.len() + 1);
            further.push(ascii(&serde_json::to_string(&entity(&row, &mut held))?));
        }
        describe(event, &mut head);
        if !further.is_empty() {
            head.insert("further".to_owned(), json!(further.len()));
        }
        Ok(Self {
            head: ascii(&serde_json::to_string(&head)?),
            partition,
            further,
        })
    }
}

/// The properties to look for events by; all of it is in the event too.
fn describe(event: &Event, entity: &mut Map<String, Value>) {
    let mut set = |name: &str, value: Value| entity.insert(name.to_owned(), value);
    set("id", json!(event.id.to_string()));
    set("source", json!(event.source()));
    set("type", json!(event.event_type()));
    if let Some(subject) = &event.subject {
        let subject: String = subject.chars().take(SUBJECT_CHARS).collect();
        set("subject", json!(subject));
    }
    // The service's calendar begins in 1601.
    let first = Timestamp::from_micros(-11_644_473_600_000_000);
    if let Some(time) = event.time.filter(|time| *time >= first) {
        set("time@odata.type", json!("Edm.DateTime"));
        set("time", json!(time.to_string()));
    }
    match &event.data {
        Data::DeadLetter(letter) => {
            set("reason", json!(letter.reason));
        }
        Data::Verdict(verdict) => {
            let mut number = |name: &str, value: f64| {
                // Otherwise 90.0 becomes an integer.
                set(&format!("{name}@odata.type"), json!("Edm.Double"));
                set(name, json!(value));
            };
            number("value", verdict.value);
            if let VerdictFields::Judged {
                is_anomaly,
                expected_value,
                severity,
                ..
            } = verdict.verdict
            {
                number("expectedValue", expected_value);
                number("severity", severity);
                set("isAnomaly", json!(is_anomaly));
            }
        }
    }
}

/// `event`, `event1`, …: one entity's text properties.
fn property_names() -> impl Iterator<Item = String> {
    (0..PROPERTIES).map(|n| match n {
        0 => "event".to_owned(),
        n => format!("event{n}"),
    })
}

/// Cuts a text into what a property takes each.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut units = 0;
        let end = rest
            .char_indices()
            .find(|(_, c)| {
                units += c.len_utf16();
                units > PROPERTY_UNITS
            })
            .map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// JSON with every character beyond ASCII escaped: Azurite decodes a body piece by piece as it
/// arrives, and what lies across two pieces is lost.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(text, "\\u{unit:04x}").expect("a string takes what is written");
            }
        }
    }
    text
}

/// Groups events by series into what one transaction takes each; a large event goes alone.
fn transactions(events: &[Event]) -> Result<Vec<Vec<Rows>>, serde_json::Error> {
    // Of each partition the transaction that still takes rows, and its bytes.
    let mut open = std::collections::HashMap::<String, (usize, usize)>::new();
    let mut transactions: Vec<Vec<Rows>> = Vec::new();
    for event in events {
        let rows = Rows::of(event)?;
        if !rows.further.is_empty() {
            transactions.push(vec![rows]);
            continue;
        }
        let length = rows.head.len();
        match open.get_mut(&rows.partition) {
            Some((at, bytes))
                if transactions[*at].len() < MOST_ENTITIES && *bytes + length <= MOST_BYTES =>
            {
                *bytes += length;
                transactions[*at].push(rows);
            }
            _ => {
                open.insert(rows.partition.clone(), (transactions.len(), length));
                transactions.push(vec![rows]);
            }
        }
    }
    Ok(transactions)
}

/// Where a stored event stands.
struct Key {
    partition: String,
    row: String,
    further: usize,
    day: String,
    topic: String,
    in_topic: i32,
    position: (u32, i64),
}

impl Key {
    fn of(entity: &Value) -> Option<Self> {
        let id = entity["id"].as_str()?;
        let row = entity["RowKey"].as_str()?;
        let mut parts = id.rsplitn(4, '/');
        Some(Self {
            partition: entity["PartitionKey"].as_str()?.to_owned(),
            row: row.to_owned(),
            further: entity["further"].as_u64().unwrap_or(0) as usize,
            day: key::day(row).to_owned(),
            in_topic: parts.nth(1)?.parse().ok()?,
            topic: parts.nth(1)?.to_owned(),
            position: RecordId::position_of(id)?,
        })
    }

    fn order(&self) -> impl Ord + '_ {
        (&self.topic, self.in_topic, &self.day, self.position)
    }
}
