//! What `docs/delivery.md` promises of stores and places that fail, offsets that go back and clocks that
//! jump; and that every test which that page names is there.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lapwing::config::Settings;
use lapwing::judge::{JudgeError, Pipeline};
use lapwing::message::Message;
use lapwing::record::places::Places;
use lapwing::record::{Event, Sink, SinkError, Stream};
use lapwing::store::{Ledger, Loaded, MemoryStore, StoreError, Tag, Version, WindowStore, read};
use lapwing::window::ShardId;
use support::{TOPIC, message, row, value};

const SPIKES: [i64; 3] = [30, 45, 70];
const POINTS: usize = 24;

/// What is done to the next requests of a store, one by one; when there is no more, it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It is not reached.
    Down,
    /// It writes, and the answer is lost.
    AnswerLost,
    /// It has no room.
    Full,
}

/// A store in memory that has troubles.
#[derive(Debug, Default)]
struct Troubled {
    store: MemoryStore,
    troubles: Mutex<Vec<Trouble>>,
    requests: AtomicU32,
}

impl Troubled {
    fn will(&self, troubles: &[Trouble]) {
        *self.troubles.lock().unwrap() = troubles.iter().rev().copied().collect();
    }

    async fn meet<T>(
        &self,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let trouble = self.troubles.lock().unwrap().pop();
        let unavailable = || StoreError::Unavailable {
            place: self.place(),
            doing: "testing".to_owned(),
            source: "trouble".into(),
        };
        match trouble {
            None => request.await,
            Some(Trouble::Down) => Err(unavailable()),
            Some(Trouble::AnswerLost) => {
                request.await?;
                Err(unavailable())
            }
            Some(Trouble::Full) => Err(StoreError::Full {
                place: self.place(),
                source: "no room".into(),
            }),
        }
    }
}

#[async_trait]
impl WindowStore for Troubled {
    fn place(&self) -> String {
        "a troubled store".to_owned()
    }
    fn kind(&self) -> &'static str {
        self.store.kind()
    }
    async fn load(&self, id: &ShardId) -> Result<Option<Loaded>, StoreError> {
        self.meet(self.store.load(id)).await
    }
    async fn version(&self, id: &ShardId) -> Result<Option<Version>, StoreError> {
        self.meet(self.store.version(id)).await
    }
    async fn append(
        &self,
        id: &ShardId,
        entry: Bytes,
        expected: &Version,
    ) -> Result<Version, StoreError> {
        self.meet(self.store.append(id, entry, expected)).await
    }
    async fn replace(
        &self,
        id: &ShardId,
        snapshot: Bytes,
        expected: Option<&Version>,
    ) -> Result<Version, StoreError> {
        self.meet(self.store.replace(id, snapshot, expected)).await
    }
    async fn list(&self) -> Result<Vec<ShardId>, StoreError> {
        self.store.list().await
    }
    async fn remove(&self, id: &ShardId) -> Result<(), StoreError> {
        self.store.remove(id).await
    }
    async fn document(&self, name: &str) -> Result<Option<(Bytes, Tag)>, StoreError> {
        self.store.document(name).await
    }
    async fn put_document(
        &self,
        name: &str,
        content: Bytes,
        expected: Option<&Tag>,
    ) -> Result<Tag, StoreError> {
        self.store.put_document(name, content, expected).await
    }
}

/// A place that keeps each event once, by its id, and can be down for some writes.
#[derive(Clone, Debug, Default)]
struct Place(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    lines: Vec<(String, String)>,
    down_for: u32,
}

#[async_trait]
impl Sink for Place {
    async fn write(&self, events: &[Event]) -> Result<usize, SinkError> {
        let mut kept = self.0.lock().unwrap();
        let mut written = 0;
        for event in events {
            if kept.down_for > 0 {
                // In the middle of a write, as places like to do.
                kept.down_for -= 1;
                return Err(SinkError::Unavailable {
                    stream: event.stream.name(),
                    place: self.place(),
                    source: "down".into(),
                });
            }
            let id = format!("{} {}", event.source(), event.id);
            if kept.lines.iter().all(|(known, _)| *known != id) {
                kept.lines.push((id, event.to_line().unwrap()));
                written += 1;
            }
        }
        Ok(written)
    }

    fn place(&self) -> String {
        "a place".to_owned()
    }
}

impl Place {
    fn lines(&self) -> Vec<(String, String)> {
        let mut lines = self.0.lock().unwrap().lines.clone();
        lines.sort();
        lines
    }
}

/// The app, what it keeps and where it records.
struct App {
    store: Arc<Troubled>,
    place: Place,
    pipeline: Pipeline,
}

impl App {
    fn new() -> Self {
        Self::over(Arc::default(), Place::default())
    }

    fn over(store: Arc<Troubled>, place: Place) -> Self {
        let settings = Settings::from_pairs([("Window__Points", POINTS.to_string())]);
        let shared: Arc<dyn WindowStore> = store.clone();
        let ledger = Ledger::from_settings(shared, &settings).unwrap();
        let streams = [Stream::Anomalies, Stream::DeadLetters, Stream::Verdicts].map(|stream| {
            let sink: Box<dyn Sink> = Box::new(place.clone());
            (stream, vec![sink])
        });
        let places = Places::new(streams, Duration::from_secs(5));
        let pipeline = Pipeline::new(&settings, ledger, places).unwrap();
        Self {
            store,
            place,
            pipeline,
        }
    }

    /// The handler was killed and started again.
    fn restarted(self) -> Self {
        Self::over(self.store, self.place)
    }

    /// Everything that lasts: events, windows and fences.
    async fn remains(&self) -> (Vec<(String, String)>, String) {
        let id = ShardId {
            topic: TOPIC.to_owned(),
            partition: 0,
        };
        let reading = read(&self.store.store, &id, POINTS).await.unwrap().unwrap();
        assert_eq!(reading.damage, None);
        let windows: Vec<_> = reading
            .shard
            .iter()
            .map(|(name, window)| (name, window.iter().collect::<Vec<_>>()))
            .collect();
        let shown = format!("{:?} {windows:?}", reading.shard.fence());
        (self.place.lines(), shown)
    }
}

/// Messages of one series, with a spike here and there, and every seventh no row at all.
fn batch(offsets: std::ops::Range<i64>) -> Vec<Message> {
    offsets
        .map(|offset| match offset % 7 {
            3 => message(offset, "no row"),
            _ => message(offset, &row(offset, value(offset, &SPIKES))),
        })
        .collect()
}

async fn undisturbed() -> (Vec<(String, String)>, String) {
    let app = App::new();
    app.pipeline.absorb(batch(0..120)).await.unwrap();
    let remains = app.remains().await;
    assert!(remains.0.len() > 80);
    remains
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_down_every_batch_fails_and_afterwards_nothing_is_missing() {
    let app = App::new();
    app.pipeline.absorb(batch(0..40)).await.unwrap();
    // Ten minutes of the host's retries with a minute between them.
    app.store.will(&[Trouble::Down; 10]);
    let mut refused = 0;
    loop {
        match app.pipeline.absorb(batch(40..80)).await {
            Err(JudgeError::Store(StoreError::Unavailable { .. })) => refused += 1,
            other => break drop(other.unwrap()),
        }
    }
    assert_eq!(refused, 10);
    app.pipeline.absorb(batch(80..120)).await.unwrap();
    assert_eq!(app.remains().await, undisturbed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_arrived_while_its_answer_was_lost_is_not_done_twice() {
    let app = App::new();
    app.pipeline.absorb(batch(0..40)).await.unwrap();
    app.store.will(&[Trouble::AnswerLost]);
    app.pipeline.absorb(batch(40..80)).await.unwrap_err();
    let again = app.pipeline.absorb(batch(40..80)).await.unwrap();
    assert_eq!((again.no_ops, again.kept, again.dead_letters), (40, 0, 0));
    app.pipeline.absorb(batch(80..120)).await.unwrap();
    assert_eq!(app.remains().await, undisturbed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_fails_the_batch_and_says_so() {
    let app = App::new();
    app.pipeline.absorb(batch(0..40)).await.unwrap();
    app.store.will(&[Trouble::Full]);
    let error = app.pipeline.absorb(batch(40..80)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "a troubled store is full; make room, then retry"
    );
    app.pipeline.absorb(batch(40..120)).await.unwrap();
    assert_eq!(app.remains().await, undisturbed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_down_fails_the_batch_and_gets_every_event_once_later() {
    let app = App::new();
    app.pipeline.absorb(batch(0..40)).await.unwrap();
    app.place.0.lock().unwrap().down_for = 3;
    let mut refused = 0;
    while app.pipeline.absorb(batch(40..80)).await.is_err() {
        refused += 1;
        assert!(refused < 4);
    }
    assert!(refused > 0);
    app.pipeline.absorb(batch(80..120)).await.unwrap();
    assert_eq!(app.remains().await, undisturbed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_reset_to_the_beginning_are_no_ops_up_to_the_fence() {
    let mut app = App::new();
    app.pipeline.absorb(batch(0..80)).await.unwrap();
    // Once with the shard in memory, once without.
    for _ in 0..2 {
        let mut no_ops = 0;
        for start in (0..80).step_by(16) {
            let absorbed = app.pipeline.absorb(batch(start..start + 16)).await;
            no_ops += absorbed.unwrap().no_ops;
        }
        assert_eq!(no_ops, 80);
        app = app.restarted();
    }
    // One batch that holds what is known and what is new.
    let absorbed = app.pipeline.absorb(batch(60..120)).await.unwrap();
    assert_eq!(absorbed.no_ops, 20);
    assert_eq!(app.remains().await, undisturbed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bounds_of_batches_do_not_matter() {
    for size in [1, 7, 24, 64] {
        let mut app = App::new();
        for start in (0..120).step_by(size) {
            let end = (start + size as i64).min(120);
            app.pipeline.absorb(batch(start..end)).await.unwrap();
            app = app.restarted();
        }
        assert_eq!(
            app.remains().await,
            undisturbed().await,
            "batches of {size}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_clock_that_jumps_back_opens_no_epoch() {
    let jump = |offsets: std::ops::Range<i64>| -> Vec<Message> {
        let mut messages = batch(offsets);
        for message in &mut messages {
            if (50..70).contains(&message.offset) {
                message.broker_time_ms = message.broker_time_ms.map(|ms| ms - 3_600_000);
            }
        }
        messages
    };
    let app = App::new();
    for start in (0..120).step_by(8) {
        app.pipeline.absorb(jump(start..start + 8)).await.unwrap();
        // Delivered again, in the middle of the jump as well.
        let again = app.pipeline.absorb(jump(start..start + 8)).await.unwrap();
        assert_eq!(again.no_ops, 8);
    }
    let ids: Vec<String> = app.place.lines().into_iter().map(|(id, _)| id).collect();
    assert!(ids.iter().all(|id| id.contains("/0/0/")), "{ids:?}");
    let undisturbed: Vec<String> = undisturbed()
        .await
        .0
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(ids, undisturbed);
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/delivery.md")).unwrap();
    let mut named = 0;
    for quoted in page.split('`').skip(1).step_by(2) {
        let Some((file, test)) = quoted.split_once(".rs::") else {
            continue;
        };
        let path = root.join(format!("{file}.rs"));
        let source = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(source.contains(&format!("fn {test}(")), "{quoted}");
        named += 1;
    }
    assert!(named >= 10, "{named}");
}
