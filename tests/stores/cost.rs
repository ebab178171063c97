//! What windows cost: requests and bytes, counted below the client's own retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request};
use lapwing::series::{Point, Timestamp};
use lapwing::store::{BlobStore, Ledger, TableStore, WindowStore};
use lapwing::window::{Arrival, Change, Rules, ShardId, Window};

use super::azurite;

/// Points of a batch, each of another series.
const BATCH: usize = 64;
/// Enough for several compactions.
const BATCHES: usize = 1_000;

#[derive(Debug, Default)]
struct Count {
    requests: AtomicU64,
    bytes_sent: AtomicU64,
}

impl Count {
    /// Requests and bytes since the last call.
    fn take(&self) -> (u64, u64) {
        (
            self.requests.swap(0, Ordering::Relaxed),
            self.bytes_sent.swap(0, Ordering::Relaxed),
        )
    }
}

#[async_trait]
impl Policy for Count {
    async fn send(
        &self,
        ctx: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let bytes = request.body().len().unwrap_or_default();
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
        next[0].send(ctx, request, &next[1..]).await
    }
}

fn ledger(store: &Arc<dyn WindowStore>) -> Ledger {
    let patient = Duration::from_secs(120);
    Ledger::new(Arc::clone(store), Rules::default(), patient, patient)
}

fn id() -> ShardId {
    "metrics/0".parse().unwrap()
}

/// One batch: the next point of each of 64 series.
fn change(
    ledger: &Ledger,
    shard: &lapwing::window::Shard,
    names: &[String],
    batch: usize,
) -> Change {
    let arrivals: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(series, name)| {
            let offset = (batch * BATCH + series) as i64;
            let micros = (1_700_000_000 + 300 * batch as i64) * 1_000_000;
            let point = Point {
                timestamp: Timestamp::from_micros(micros),
                value: (offset as f64).sin(),
            };
            Arrival {
                offset,
                broker_ms: Some(1_700_000_000_000 + offset),
                point: Some((name.as_str(), point)),
            }
        })
        .collect();
    let mut plan = shard.plan(ledger.rules(), &arrivals);
    for work in &mut plan.work {
        work.run(ledger.rules(), |_, _, _| ());
    }
    Change::new(plan)
}

/// Requests a batch and bytes a point, compactions and all.
async fn warm(store: &Arc<dyn WindowStore>, count: &Count) -> (f64, f64) {
    let names: Vec<String> = (0..BATCH)
        .map(|series| format!("datacentre-7/rack-{series:03}/eth0/bytes-in"))
        .collect();
    let ledger = ledger(store);
    count.take();
    for batch in 0..BATCHES {
        let mut open = ledger.open(&id(), (batch * BATCH) as i64).await.unwrap();
        let change = change(&ledger, open.shard().unwrap(), &names, batch);
        open.commit(change).await.unwrap();
    }
    let generations = {
        let rules = ledger.rules();
        let reading = lapwing::store::read(&**store, &id(), rules.points).await;
        reading.unwrap().unwrap().chain.generation
    };
    assert!(
        generations > 3,
        "{generations} generations: no compaction was counted"
    );
    let (requests, bytes) = count.take();
    let batches = BATCHES as f64;
    (
        requests as f64 / batches,
        bytes as f64 / batches / BATCH as f64,
    )
}

/// Requests of the first open of a shard of 10,000 full windows with a log.
async fn cold(store: &Arc<dyn WindowStore>, count: &Count) -> u64 {
    let id: ShardId = "metrics/1".parse().unwrap();
    let rules = Rules::default();
    let mut window = Window::default();
    for slot in 0..288 {
        let timestamp = Timestamp::from_micros((1_700_000_000 + 300 * slot) * 1_000_000);
        window.push(
            &rules,
            Point {
                timestamp,
                value: slot as f64 / 7.0,
            },
        );
    }
    let names: Vec<String> = (0..10_000)
        .map(|series| format!("series {series}"))
        .collect();
    {
        let ledger = ledger(store);
        let mut open = ledger.open(&id, 0).await.unwrap();
        open.rewrite(|shard| {
            for name in &names {
                shard.set_window(name, Some(window.clone()));
            }
        })
        .await
        .unwrap();
        let change = change(&ledger, open.shard().unwrap(), &names[..BATCH], 288);
        open.commit(change).await.unwrap();
    }
    count.take();
    let ledger = ledger(store);
    let open = ledger.open(&id, 0).await.unwrap();
    assert_eq!(open.shard().unwrap().len(), 10_000);
    assert_eq!(
        open.shard().unwrap().window(&names[9_999]).unwrap().len(),
        288
    );
    count.take().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_cost_what_was_promised() {
    let Some((account, name)) = azurite() else {
        return;
    };
    let count = Arc::new(Count::default());
    let account = account.with_policy(Arc::clone(&count) as Arc<dyn Policy>);
    let store: Arc<dyn WindowStore> = Arc::new(BlobStore::new(account.container(&name).unwrap()));
    let (requests, bytes) = warm(&store, &count).await;
    let loads = cold(&store, &count).await;
    println!(
        "blob: {requests:.3} requests a batch, {bytes:.1} bytes a point, {loads} requests for a cold load"
    );
    assert!(requests <= 1.1, "{requests} requests a batch");
    assert!(bytes <= 64.0, "{bytes} bytes a point");
    assert!(loads <= 3, "{loads} requests for a cold load");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_cost_more_bytes_and_loads() {
    let Some((account, name)) = azurite() else {
        return;
    };
    let count = Arc::new(Count::default());
    let account = account.with_policy(Arc::clone(&count) as Arc<dyn Policy>);
    let store: Arc<dyn WindowStore> = Arc::new(TableStore::new(account.tables().unwrap(), &name));
    let (requests, bytes) = warm(&store, &count).await;
    let loads = cold(&store, &count).await;
    println!(
        "table: {requests:.3} requests a batch, {bytes:.1} bytes a point, {loads} requests for a cold load"
    );
    assert!(requests <= 1.1, "{requests} requests a batch");
    // Base64, and some 2 KB around every transaction.
    assert!(bytes <= 128.0, "{bytes} bytes a point");
}
