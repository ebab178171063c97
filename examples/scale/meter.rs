//! What a run costs: processor time and memory of this process, and what goes to the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lapwing::store::{Loaded, StoreError, Tag, Version, WindowStore};
use lapwing::window::ShardId;

/// Processor time of this process so far, on all cores.
pub(crate) fn processor_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        used.tv_sec.unsigned_abs(),
        used.tv_nsec.unsigned_abs() as u32,
    )
}

/// Resident memory of this process in bytes: now, and the most so far.
pub(crate) fn resident() -> std::io::Result<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let of = |name: &str| {
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse()
                    .ok()
            })
            .map(|kib: u64| kib * 1024)
            .ok_or_else(|| std::io::Error::other(format!("no {name} in /proc/self/status")))
    };
    Ok((of("VmRSS:")?, of("VmHWM:")?))
}

/// The value below which a share `q` of the durations lies.
pub(crate) fn quantile(sorted: &[Duration], q: f64) -> Duration {
    let index = (sorted.len() as f64 * q) as usize;
    sorted
        .get(index.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// What went through a store.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Appends to logs.
    pub(crate) appends: AtomicU64,
    /// Bytes of those.
    pub(crate) appended_bytes: AtomicU64,
    /// Snapshots written.
    pub(crate) snapshots: AtomicU64,
    /// Bytes of those.
    pub(crate) snapshot_bytes: AtomicU64,
    /// Shards read whole.
    pub(crate) loads: AtomicU64,
    /// Versions asked for.
    pub(crate) versions: AtomicU64,
}

impl Traffic {
    /// Begins to count anew.
    pub(crate) fn reset(&self) {
        for count in [
            &self.appends,
            &self.appended_bytes,
            &self.snapshots,
            &self.snapshot_bytes,
            &self.loads,
            &self.versions,
        ] {
            count.store(0, Ordering::Relaxed);
        }
    }
}

/// A store that counts what goes through it.
#[derive(Debug)]
pub(crate) struct Metered {
    /// The store behind.
    pub(crate) store: Arc<dyn WindowStore>,
    /// What went through.
    pub(crate) traffic: Arc<Traffic>,
}

fn add(count: &AtomicU64, amount: usize) {
    count.fetch_add(amount as u64, Ordering::Relaxed);
}

#[async_trait]
impl WindowStore for Metered {
    fn place(&self) -> String {
        self.store.place()
    }

    fn kind(&self) -> &'static str {
        self.store.kind()
    }

    fn most_entry_bytes(&self) -> usize {
        self.store.most_entry_bytes()
    }

    async fn load(&self, id: &ShardId) -> Result<Option<Loaded>, StoreError> {
        add(&self.traffic.loads, 1);
        self.store.load(id).await
    }

    async fn version(&self, id: &ShardId) -> Result<Option<Version>, StoreError> {
        add(&self.traffic.versions, 1);
        self.store.version(id).await
    }

    async fn append(
        &self,
        id: &ShardId,
        entry: Bytes,
        expected: &Version,
    ) -> Result<Version, StoreError> {
        add(&self.traffic.appends, 1);
        add(&self.traffic.appended_bytes, entry.len());
        self.store.append(id, entry, expected).await
    }

    async fn replace(
        &self,
        id: &ShardId,
        snapshot: Bytes,
        expected: Option<&Version>,
    ) -> Result<Version, StoreError> {
        add(&self.traffic.snapshots, 1);
        add(&self.traffic.snapshot_bytes, snapshot.len());
        self.store.replace(id, snapshot, expected).await
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
