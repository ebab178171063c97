//! What is kept in memory of a store's shards between calls, and when it may be believed.
//!
//! A shard in memory is used as it is only when the batch continues it at the next offset: had another
//! instance written meanwhile, it would have got that batch. Otherwise its version is compared with the
//! store's first. Whatever fails drops the shard from memory, so that the next batch starts from what is
//! stored.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;

use super::{Loaded, StoreError, Version, WindowStore, unreadable};
use crate::config::{self, InvalidSetting, Settings, Span};
use crate::telemetry;
use crate::window::codec::{self, Chain, Reading};
use crate::window::{Change, Rules, Shard, ShardId};

/// A log shorter than this is not worth a new snapshot.
const SMALL_LOG_BYTES: u64 = 256 << 10;
/// An append blob takes 50,000 blocks; a compaction that fails has the rest to be tried again.
const MOST_LOG_ENTRIES: u64 = 40_000;
/// Slower than this no connection is expected to be: bytes a second for which a deadline is extended.
const SLOWEST_BYTES_PER_SECOND: u64 = 2 << 20;
/// What a load is given time for, as its size is not known before: 100,000 full windows of 288 points, and
/// two minutes.
const MOST_LOADED_BYTES: u64 = 256 << 20;
/// How often a load is tried again because somebody else wrote meanwhile.
const LOAD_TRIES: usize = 4;

/// The shards of a store, cached.
#[derive(Debug)]
pub struct Ledger {
    store: Arc<dyn WindowStore>,
    rules: Rules,
    timeout: Duration,
    idle_after: Duration,
    slots: Mutex<HashMap<ShardId, Slot>>,
}

/// One shard's place in memory; its mutex is what makes batches of one partition go one by one.
#[derive(Debug)]
struct Slot {
    state: Arc<tokio::sync::Mutex<Option<Cached>>>,
    used: Instant,
}

#[derive(Debug)]
struct Cached {
    shard: Shard,
    chain: Chain,
    /// `None` while nothing is stored.
    version: Option<Version>,
    snapshot_bytes: u64,
}

impl Ledger {
    /// The shards of `store`, kept by `rules`; each request is given up after `timeout` (more when many
    /// bytes move), and a shard unused for `idle_after` leaves memory.
    pub fn new(
        store: Arc<dyn WindowStore>,
        rules: Rules,
        timeout: Duration,
        idle_after: Duration,
    ) -> Self {
        Self {
            store,
            rules,
            timeout,
            idle_after,
            slots: Mutex::default(),
        }
    }

    /// As [`new`](Self::new), with what the settings say.
    pub fn from_settings(
        store: Arc<dyn WindowStore>,
        settings: &Settings,
    ) -> Result<Self, InvalidSetting> {
        let Span(timeout) = settings.required(&config::STORE_TIMEOUT)?;
        let Span(idle_after) = settings.required(&config::WINDOW_IDLE_AFTER)?;
        let rules = Rules::from_settings(settings)?;
        Ok(Self::new(store, rules, timeout, idle_after))
    }

    /// The rules that windows are kept by.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn WindowStore> {
        &self.store
    }

    /// Opens a shard for a batch that begins with `first_offset`; no other batch has it until the result is
    /// dropped.
    pub async fn open(&self, id: &ShardId, first_offset: i64) -> Result<OpenShard<'_>, StoreError> {
        let mut held = self.slot(id).lock_owned().await;
        let current = match &*held {
            None => false,
            Some(cached) if cached.is_continued_by(first_offset) => true,
            Some(cached) => {
                let version = self.store.version(id);
                let stored = self.within(id, Operation::Version, 0, version).await;
                let current = stored.as_ref().is_ok_and(|v| *v == cached.version);
                if !current {
                    *held = None;
                }
                stored?;
                current
            }
        };
        if !current {
            *held = Some(self.load(id).await?);
        }
        Ok(OpenShard {
            ledger: self,
            id: id.clone(),
            held,
        })
    }

    /// Shards and series in memory, as far as no batch has them just now.
    pub fn in_memory(&self) -> (usize, usize) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let held: Vec<usize> = slots
            .values()
            .filter_map(|slot| Some(slot.state.try_lock().ok()?.as_ref()?.shard.len()))
            .collect();
        (held.len(), held.iter().sum())
    }

    /// The shard's slot; drops those that were idle for long.
    fn slot(&self, id: &ShardId) -> Arc<tokio::sync::Mutex<Option<Cached>>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        slots.retain(|other, slot| {
            let busy = Arc::strong_count(&slot.state) > 1;
            busy || other == id || now.duration_since(slot.used) < self.idle_after
        });
        let slot = slots.entry(id.clone()).or_insert_with(|| Slot {
            state: Arc::default(),
            used: now,
        });
        slot.used = now;
        Arc::clone(&slot.state)
    }

    async fn load(&self, id: &ShardId) -> Result<Cached, StoreError> {
        let mut tries = 1;
        loop {
            let load = self.store.load(id);
            let stored = self
                .within(id, Operation::Load, MOST_LOADED_BYTES, load)
                .await?;
            let Some(stored) = stored else {
                return Ok(Cached {
                    shard: Shard::default(),
                    chain: codec::encode_snapshot(&Shard::default(), 0).1,
                    version: None,
                    snapshot_bytes: 0,
                });
            };
            let reading = decode(&*self.store, id, &stored, self.rules.points)?;
            let damaged = warn_of_damage(&*self.store, id, &reading);
            let cached = Cached {
                shard: reading.shard,
                chain: reading.chain,
                version: Some(stored.version),
                snapshot_bytes: stored.snapshot.len() as u64,
            };
            if !damaged {
                return Ok(cached);
            }
            // Nothing can be appended behind the damage: what is left becomes the next snapshot.
            match self.write_snapshot(id, cached).await {
                Err(error) if error.is_conflict() && tries < LOAD_TRIES => tries += 1,
                repaired => return repaired,
            }
        }
    }

    /// Writes the whole shard as a new snapshot.
    async fn write_snapshot(&self, id: &ShardId, cached: Cached) -> Result<Cached, StoreError> {
        let generation = cached.chain.generation + 1;
        let (bytes, chain) = codec::encode_snapshot(&cached.shard, generation);
        let snapshot_bytes = bytes.len() as u64;
        let write = self
            .store
            .replace(id, Bytes::from(bytes), cached.version.as_ref());
        let version = self
            .within(id, Operation::Replace, snapshot_bytes, write)
            .await?;
        Ok(Cached {
            shard: cached.shard,
            chain,
            version: Some(version),
            snapshot_bytes,
        })
    }

    async fn append(
        &self,
        id: &ShardId,
        mut cached: Cached,
        version: &Version,
        change: &Change,
    ) -> Result<Cached, StoreError> {
        let (entry, chain) = codec::encode_entry(change, rand::random::<[u8; 8]>(), cached.chain);
        let bytes = entry.len() as u64;
        if entry.len() > self.store.most_entry_bytes() {
            cached.shard.apply(change, &self.rules);
            return self.write_snapshot(id, cached).await;
        }
        let newest = self.fence_off(id).await;
        let version = newest.as_ref().unwrap_or(version);
        let write = self.store.append(id, Bytes::from(entry), version);
        let version = self.within(id, Operation::Append, bytes, write).await?;
        cached.shard.apply(change, &self.rules);
        cached.version = Some(version);
        cached.chain = chain;
        Ok(cached)
    }

    /// The version to append at when a test has switched the fence off: whatever is newest, so that no
    /// writer is ever refused. Tests show with it that they would notice.
    async fn fence_off(&self, id: &ShardId) -> Option<Version> {
        let is_off = || {
            fail::fail_point!("store::fence-off", |_| true);
            false
        };
        if !is_off() {
            return None;
        }
        // A store that does not answer now refuses the append as well.
        self.store.version(id).await.ok().flatten()
    }

    /// Gives a request that moves `bytes` up after its deadline.
    async fn within<T>(
        &self,
        id: &ShardId,
        operation: Operation,
        bytes: u64,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let extra = Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND);
        let since = Instant::now();
        let done = match tokio::time::timeout(self.timeout + extra, request).await {
            Ok(done) => done,
            Err(elapsed) => Err(StoreError::Unavailable {
                place: self.store.place(),
                doing: format!("{} {id}", operation.doing()),
                source: Box::new(elapsed),
            }),
        };
        let outcome = done.as_ref().map_or_else(StoreError::kind, |_| "done");
        telemetry::STORE_SECONDS
            .with_label_values(&[self.store.kind(), operation.name(), outcome])
            .observe(since.elapsed().as_secs_f64());
        done
    }
}

/// What is asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Load,
    Version,
    Append,
    Replace,
}

impl Operation {
    /// As metrics call it.
    fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Version => "version",
            Self::Append => "append",
            Self::Replace => "replace",
        }
    }

    /// As an error says it.
    fn doing(self) -> &'static str {
        match self {
            Self::Load => "loading",
            Self::Version => "reading the version of",
            Self::Append => "appending to the log of",
            Self::Replace => "writing a snapshot of",
        }
    }
}

impl Cached {
    fn is_continued_by(&self, first_offset: i64) -> bool {
        self.shard
            .fence()
            .is_some_and(|fence| fence.reached.offset.checked_add(1) == Some(first_offset))
    }

    /// Whether the log is long enough for a new snapshot to pay: what snapshots cost is then never more
    /// than what the log costs, and a cold load reads at most twice what it has to.
    fn wants_compaction(&self) -> bool {
        self.version.as_ref().is_some_and(|version| {
            version.log_bytes > self.snapshot_bytes.max(SMALL_LOG_BYTES)
                || self.chain.entries >= MOST_LOG_ENTRIES
        })
    }
}

/// A shard that this batch alone has.
#[derive(Debug)]
pub struct OpenShard<'a> {
    ledger: &'a Ledger,
    id: ShardId,
    held: OwnedMutexGuard<Option<Cached>>,
}

impl OpenShard<'_> {
    /// Which shard it is.
    pub fn id(&self) -> &ShardId {
        &self.id
    }

    /// The shard as of now; [`StoreError::Unavailable`] after a commit that failed, since what is stored is
    /// not known then.
    pub fn shard(&self) -> Result<&Shard, StoreError> {
        match &*self.held {
            Some(cached) => Ok(&cached.shard),
            None => Err(self.lost()),
        }
    }

    /// Saves a change and applies it.
    ///
    /// On [`StoreError::Conflict`] another instance wrote first: drop this, open the shard again and redo
    /// the batch. After any error the shard in memory is gone and what is stored counts.
    pub async fn commit(&mut self, mut change: Change) -> Result<(), StoreError> {
        if change.is_empty() {
            return Ok(());
        }
        // Taken out, so that an error, or a caller who stops waiting, leaves nothing half true behind.
        let mut cached = self.held.take().ok_or_else(|| self.lost())?;
        let (ledger, id) = (self.ledger, &self.id);
        change.time = cached
            .shard
            .time_at(seconds_now(), ledger.rules.forget_after);
        let cached = match cached.version.clone() {
            Some(version) => ledger.append(id, cached, &version, &change).await?,
            None => {
                cached.shard.apply(&change, &ledger.rules);
                ledger.write_snapshot(id, cached).await?
            }
        };
        let due = cached.wants_compaction();
        *self.held = Some(cached);
        if due && let Err(error) = self.compact().await {
            // The change itself is saved. The shard left memory; the next batch finds out what holds.
            tracing::warn!(shard = %self.id, %error, "the log could not be compacted; it will be tried again");
        }
        Ok(())
    }

    /// Writes the shard as a new snapshot, without the series that were silent for `Window__ForgetAfter`.
    pub async fn compact(&mut self) -> Result<(), StoreError> {
        let forget_after = self.ledger.rules.forget_after;
        self.rewrite(|shard| {
            let forgotten = shard.forget(forget_after);
            (forgotten > 0).then_some(forgotten)
        })
        .await
        .map(|forgotten| {
            if let Some(series) = forgotten {
                tracing::info!(shard = %self.id, series, "series that were silent for long are forgotten");
            }
        })
    }

    /// Changes the shard by hand and writes it as a new snapshot.
    pub async fn rewrite<T>(
        &mut self,
        edit: impl FnOnce(&mut Shard) -> T,
    ) -> Result<T, StoreError> {
        let mut cached = self.held.take().ok_or_else(|| self.lost())?;
        let result = edit(&mut cached.shard);
        let cached = self.ledger.write_snapshot(&self.id, cached).await?;
        *self.held = Some(cached);
        Ok(result)
    }

    fn lost(&self) -> StoreError {
        StoreError::Unavailable {
            place: self.ledger.store.place(),
            doing: format!("holding {}", self.id),
            source: "a write to it failed before; open it again".into(),
        }
    }
}

/// Reads a shard without caching, repairing or changing anything.
pub async fn read(
    store: &dyn WindowStore,
    id: &ShardId,
    points: usize,
) -> Result<Option<Reading>, StoreError> {
    let Some(stored) = store.load(id).await? else {
        return Ok(None);
    };
    let reading = decode(store, id, &stored, points)?;
    warn_of_damage(store, id, &reading);
    Ok(Some(reading))
}

/// Reads what was loaded; `points` is the most kept of a series.
pub fn decode(
    store: &dyn WindowStore,
    id: &ShardId,
    stored: &Loaded,
    points: usize,
) -> Result<Reading, StoreError> {
    codec::decode(&stored.snapshot, &stored.log, points).map_err(|reason| {
        let what = format!("snapshot {} of {id}", stored.version.snapshot);
        unreadable(store, id, what, reason)
    })
}

fn warn_of_damage(store: &dyn WindowStore, id: &ShardId, reading: &Reading) -> bool {
    let Some(damage) = &reading.damage else {
        return false;
    };
    let resume = reading
        .shard
        .fence()
        .map_or(0, |fence| fence.reached.offset.saturating_add(1));
    tracing::error!(
        shard = %id,
        place = store.place(),
        byte = damage.at,
        dropped_bytes = damage.dropped,
        entries_kept = reading.chain.entries,
        reason = damage.what,
        "the log is damaged and counts up to its last whole entry; to get back what was behind it, reset the consumer group's offset of this partition to {resume}"
    );
    true
}

fn seconds_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
