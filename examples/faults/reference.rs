//! The same input without any trouble: straight through the pipeline, over a store in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lapwing::config::Settings;
use lapwing::judge::Pipeline;
use lapwing::message::Message;
use lapwing::record::archive::{Found, Wanted};
use lapwing::record::places::{Places, archive};
use lapwing::record::{Event, Sink, SinkError, Stream};
use lapwing::store::{Ledger, MemoryStore, WindowStore, read};
use lapwing::window::codec::encode_snapshot;
use lapwing::window::{Rules, Shard};

use crate::compare::Expected;
use crate::input::Sent;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The streams of events.
const STREAMS: [Stream; 3] = [Stream::Anomalies, Stream::DeadLetters, Stream::Verdicts];

/// Messages of one batch here; the hosts' batches have other bounds, and it must not matter.
const BATCH: usize = 5_003;

/// What a run without faults leaves behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Every anomaly, dead letter and verdict, by `source id`.
    pub(crate) events: Expected,
    /// Every window and fence, by shard and series.
    pub(crate) windows: Expected,
}

/// Runs `messages` of `topic` through a pipeline with these settings.
pub(crate) async fn run(
    settings: &Settings,
    topic: &str,
    messages: &[Sent],
) -> Result<Outcome, Failure> {
    let store: Arc<dyn WindowStore> = Arc::new(MemoryStore::new());
    let ledger = Ledger::from_settings(Arc::clone(&store), settings)?;
    let events = Arc::new(Mutex::new(Expected::new()));
    let places = STREAMS.map(|stream| {
        let kept: Box<dyn Sink> = Box::new(Kept(Arc::clone(&events)));
        (stream, vec![kept])
    });
    let places = Places::new(places, Duration::from_secs(60));
    let pipeline = Pipeline::new(settings, ledger, places)?;
    let topic: Arc<str> = Arc::from(topic);
    let mut offsets: BTreeMap<i32, i64> = BTreeMap::new();
    for part in messages.chunks(BATCH) {
        let batch = part
            .iter()
            .map(|sent| message(&topic, sent, offsets.entry(sent.partition).or_default()))
            .collect();
        pipeline.absorb(batch).await?;
    }
    drop(pipeline);
    let windows = windows(&*store, settings).await?;
    let events = std::mem::take(&mut *events.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Outcome { events, windows })
}

/// Every window and fence of a store. A window is shown as the bytes of a snapshot that holds it alone,
/// which are the same for the same state, bit for bit.
pub(crate) async fn windows(
    store: &dyn WindowStore,
    settings: &Settings,
) -> Result<Expected, Failure> {
    let points = Rules::from_settings(settings)?.points;
    let mut windows = Expected::new();
    for id in store.list().await? {
        let reading = read(store, &id, points)
            .await?
            .ok_or_else(|| format!("{id} is listed and not there"))?;
        // Expected by nobody, so that it counts.
        if let Some(damage) = reading.damage {
            windows.insert(format!("{id} damage"), format!("{damage:?}"));
        }
        windows.insert(
            format!("{id} fence"),
            format!("{:?}", reading.shard.fence()),
        );
        for (name, window) in reading.shard.iter() {
            let mut alone = Shard::default();
            alone.set_window(name, Some(window.clone()));
            let (bytes, _) = encode_snapshot(&alone, 1);
            windows.insert(format!("{id} {name}"), hex(&bytes));
        }
    }
    Ok(windows)
}

/// Every event that lies in the places of the settings, copies included, by name.
pub(crate) async fn stored_events(settings: &Settings) -> Result<Vec<(String, String)>, Failure> {
    let mut events = Vec::new();
    for stream in STREAMS {
        let wanted = Wanted {
            stream,
            topic: None,
            partition: None,
            day: None,
        };
        let place = archive(settings, stream, None)?;
        let (sender, mut found) = tokio::sync::mpsc::channel::<Found>(1_000);
        let collect = async {
            while let Some(event) = found.recv().await {
                let head: Head = serde_json::from_str(&event.json)
                    .map_err(|error| format!("{} is no event: {error}", event.at))?;
                events.push((name_of(&head.source, &head.id), event.json));
            }
            Ok::<_, Failure>(())
        };
        let (read, collected) = tokio::join!(place.read(&wanted, sender), collect);
        read?;
        collected?;
    }
    Ok(events)
}

/// What names an event.
#[derive(serde::Deserialize)]
struct Head {
    source: String,
    id: String,
}

/// The name under which events are compared.
fn name_of(source: &str, id: &str) -> String {
    format!("{source} {id}")
}

fn message(topic: &Arc<str>, sent: &Sent, next: &mut i64) -> Message {
    let offset = *next;
    *next += 1;
    Message {
        topic: Arc::clone(topic),
        partition: sent.partition,
        offset,
        broker_time_ms: Some(sent.time_ms),
        key: Some(sent.key.clone().into_bytes()),
        value: Some(sent.value.clone()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A place that keeps events in memory, by name.
#[derive(Debug)]
struct Kept(Arc<Mutex<Expected>>);

#[async_trait]
impl Sink for Kept {
    async fn write(&self, events: &[Event]) -> Result<usize, SinkError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            let line = event.to_line().map_err(|error| SinkError::Refused {
                stream: event.stream.name(),
                place: self.place(),
                source: error.into(),
            })?;
            kept.insert(name_of(event.source(), &event.id.to_string()), line);
        }
        Ok(events.len())
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}
