//! A store for tests and trials: everything is gone with the process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::{Loaded, StoreError, Tag, Version, WindowStore};
use crate::window::ShardId;

/// Shards and documents in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    shards: BTreeMap<ShardId, Loaded>,
    documents: BTreeMap<String, (Bytes, Tag)>,
    writes: u64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No write leaves anything by halves.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn conflict(&self, what: impl ToString) -> StoreError {
        StoreError::Conflict {
            what: what.to_string(),
            place: self.place(),
        }
    }
}

impl Inner {
    fn tag(&mut self) -> Tag {
        self.writes += 1;
        Tag(self.writes.to_string())
    }
}

#[async_trait]
impl WindowStore for MemoryStore {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn load(&self, id: &ShardId) -> Result<Option<Loaded>, StoreError> {
        Ok(self.lock().shards.get(id).cloned())
    }

    async fn version(&self, id: &ShardId) -> Result<Option<Version>, StoreError> {
        Ok(self.lock().shards.get(id).map(|s| s.version.clone()))
    }

    async fn append(
        &self,
        id: &ShardId,
        entry: Bytes,
        expected: &Version,
    ) -> Result<Version, StoreError> {
        let mut inner = self.lock();
        let tag = inner.tag();
        let shard = inner
            .shards
            .get_mut(id)
            .filter(|shard| shard.version == *expected)
            .ok_or_else(|| self.conflict(id))?;
        let mut log = BytesMut::from(std::mem::take(&mut shard.log));
        log.extend_from_slice(&entry);
        shard.log = log.freeze();
        shard.version.log_bytes += entry.len() as u64;
        shard.version.log_entries += 1;
        shard.version.tag = tag;
        Ok(shard.version.clone())
    }

    async fn replace(
        &self,
        id: &ShardId,
        snapshot: Bytes,
        expected: Option<&Version>,
    ) -> Result<Version, StoreError> {
        let mut inner = self.lock();
        if inner.shards.get(id).map(|shard| &shard.version) != expected {
            return Err(self.conflict(id));
        }
        let tag = inner.tag();
        let version = Version {
            snapshot: tag.0.clone(),
            log_bytes: 0,
            log_entries: 0,
            tag,
        };
        let loaded = Loaded {
            snapshot,
            log: Bytes::new(),
            version: version.clone(),
        };
        inner.shards.insert(id.clone(), loaded);
        Ok(version)
    }

    async fn list(&self) -> Result<Vec<ShardId>, StoreError> {
        Ok(self.lock().shards.keys().cloned().collect())
    }

    async fn remove(&self, id: &ShardId) -> Result<(), StoreError> {
        self.lock().shards.remove(id);
        Ok(())
    }

    async fn document(&self, name: &str) -> Result<Option<(Bytes, Tag)>, StoreError> {
        Ok(self.lock().documents.get(name).cloned())
    }

    async fn put_document(
        &self,
        name: &str,
        content: Bytes,
        expected: Option<&Tag>,
    ) -> Result<Tag, StoreError> {
        let mut inner = self.lock();
        if inner.documents.get(name).map(|(_, tag)| tag) != expected {
            return Err(self.conflict(name));
        }
        let tag = inner.tag();
        inner
            .documents
            .insert(name.to_owned(), (content, tag.clone()));
        Ok(tag)
    }
}
