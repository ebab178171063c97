//! Where shards are kept between calls, and the one trait that every place has to keep.
//!
//! A store moves bytes: what they mean is [`window::codec`](crate::window::codec)'s business, and what is
//! kept in memory between calls is the [`Ledger`]'s. Per shard it holds one snapshot and an append log of
//! what changed since. Every write names the [`Version`] that it was made from and is refused with
//! [`StoreError::Conflict`] when that is not the newest one any more: this is the fence between two
//! instances that believe they own the same partition.

pub mod azure;
mod blob;
#[doc(hidden)]
pub mod conformance;
mod file;
mod ledger;
mod memory;
mod names;
mod table;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::config::{self, InvalidSetting, Settings};
use crate::window::ShardId;

use azure::Account;
pub use blob::BlobStore;
pub use file::FileStore;
pub use ledger::{Ledger, OpenShard, decode, read};
pub use memory::MemoryStore;
pub use table::TableStore;

/// The store that the settings ask for. Nothing is connected yet.
pub fn from_settings(settings: &Settings) -> Result<Arc<dyn WindowStore>, InvalidSetting> {
    let account = Account::from_settings(settings)?;
    let by_default = if account.is_some() { "blob" } else { "file" };
    let kind = settings.get(&config::STORE_KIND).unwrap_or(by_default);
    let wrong = |reason: &str| InvalidSetting::new(&config::STORE_KIND, kind, reason);
    let account = || account.ok_or_else(|| wrong("it needs AzureWebJobsStorage; set it as well"));
    let unusable = |reason: String| InvalidSetting::new(&config::STORAGE, "", reason);
    match kind.to_ascii_lowercase().as_str() {
        "memory" => Ok(Arc::new(MemoryStore::new())),
        "file" => {
            // Set by App Service and Azure Functions, whose disks do not last.
            if settings.raw("WEBSITE_INSTANCE_ID").is_some() {
                return Err(wrong("disks do not last inside Azure; use blob or table"));
            }
            let path: String = settings.required(&config::STORE_PATH)?;
            Ok(Arc::new(FileStore::new(path)))
        }
        "blob" => {
            let name: String = settings.required(&config::STORE_CONTAINER)?;
            let container = account()?.container(&name).map_err(unusable)?;
            Ok(Arc::new(BlobStore::new(container)))
        }
        "table" => {
            let name: String = settings.required(&config::STORE_TABLE)?;
            let tables = account()?.tables().map_err(unusable)?;
            Ok(Arc::new(TableStore::new(tables, &name)))
        }
        _ => Err(wrong("expected blob, table, file or memory")),
    }
}

/// What holds windows, and small documents beside them.
///
/// Every method may be called again after a failure; none waits longer than its client's own deadlines
/// (the [`Ledger`] sets one on top).
#[async_trait]
pub trait WindowStore: fmt::Debug + Send + Sync {
    /// Where it is, for people: no secret in it.
    fn place(&self) -> String;

    /// What kind of store it is, as `Store__Kind` calls it.
    fn kind(&self) -> &'static str;

    /// Bytes that one entry may have; a longer one has to go into a snapshot.
    fn most_entry_bytes(&self) -> usize {
        usize::MAX
    }

    /// Snapshot and log of a shard, with their version; `None` for a shard never written.
    async fn load(&self, id: &ShardId) -> Result<Option<Loaded>, StoreError>;

    /// The version of a shard, at the price of one small request.
    async fn version(&self, id: &ShardId) -> Result<Option<Version>, StoreError>;

    /// Appends `entry` to the log of a shard that is still at `expected`.
    ///
    /// The entry is there as a whole or not at all. No two entries have the same bytes: a write that
    /// arrived while its answer was lost is recognised by them and succeeds.
    async fn append(
        &self,
        id: &ShardId,
        entry: Bytes,
        expected: &Version,
    ) -> Result<Version, StoreError>;

    /// Puts `snapshot` with an empty log in the place of what is at `expected` (`None`: nothing).
    ///
    /// Whatever happens meanwhile, the shard is the old one or the new one.
    async fn replace(
        &self,
        id: &ShardId,
        snapshot: Bytes,
        expected: Option<&Version>,
    ) -> Result<Version, StoreError>;

    /// Every shard, sorted.
    async fn list(&self) -> Result<Vec<ShardId>, StoreError>;

    /// Removes a shard, whatever its version; one that is not there is removed already.
    async fn remove(&self, id: &ShardId) -> Result<(), StoreError>;

    /// A small document and its version, or `None`.
    async fn document(&self, name: &str) -> Result<Option<(Bytes, Tag)>, StoreError>;

    /// Writes a small document (up to 64 KiB) over the one at `expected` (`None`: over none).
    async fn put_document(
        &self,
        name: &str,
        content: Bytes,
        expected: Option<&Tag>,
    ) -> Result<Tag, StoreError>;
}

/// The version of a document: opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(pub(crate) String);

/// The version of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Name of the snapshot; no two snapshots share one.
    pub snapshot: String,
    /// Bytes in the log.
    pub log_bytes: u64,
    /// Entries in the log, as far as the store counts them; else 0.
    pub log_entries: u64,
    pub(crate) tag: Tag,
}

/// A shard as it is stored.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The snapshot.
    pub snapshot: Bytes,
    /// The log since, in the order of its writes.
    pub log: Bytes,
    /// What a write has to name.
    pub version: Version,
}

/// Why a store did not do it, by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote: load again and redo.
    #[error("{what} in {place} changed underneath us; load it again and redo")]
    Conflict {
        /// Shard or document.
        what: String,
        /// The store.
        place: String,
    },
    /// The store did not answer, or asked to come later. Nothing is known to be written: load again, then
    /// retry.
    #[error("{place} is unavailable while {doing}; retry")]
    Unavailable {
        /// The store.
        place: String,
        /// What was being done.
        doing: String,
        /// What the store or its client said.
        source: Failure,
    },
    /// What is stored cannot be used; a person has to look.
    #[error("{what} in {place} is unreadable: {reason}; {remedy}")]
    Corrupt {
        /// The blob, file or entity.
        what: String,
        /// The store.
        place: String,
        /// What is wrong with it.
        reason: String,
        /// What helps.
        remedy: String,
    },
    /// The store knows us and says no, or does not know us: retrying does not help.
    #[error("{place} refuses {doing}; {remedy}")]
    Refused {
        /// The store.
        place: String,
        /// What was being done.
        doing: String,
        /// What helps.
        remedy: String,
        /// What the store or its client said.
        source: Failure,
    },
    /// There is no room left.
    #[error("{place} is full; make room, then retry")]
    Full {
        /// The store.
        place: String,
        /// What the store said.
        source: Failure,
    },
}

/// The cause of a [`StoreError`].
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

impl StoreError {
    /// Whether another writer was faster.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// The kind of error in one word, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::Unavailable { .. } => "unavailable",
            Self::Corrupt { .. } => "corrupt",
            Self::Refused { .. } => "refused",
            Self::Full { .. } => "full",
        }
    }
}

/// What helps against a shard that cannot be read.
pub(crate) fn unreadable(
    store: &dyn WindowStore,
    id: &ShardId,
    what: String,
    reason: impl fmt::Display,
) -> StoreError {
    StoreError::Corrupt {
        what,
        place: store.place(),
        reason: reason.to_string(),
        remedy: format!("restore it from a backup, or start anew with `lapwing state reset {id}`"),
    }
}
