//! Blobs: per shard one append blob `log`, whose metadata names the snapshot that it goes on from.
//!
//! An append is one Append Block, conditional on the log's ETag and on the position where it has to land. A
//! new snapshot is uploaded under a name of its own; then a new, empty log that names it is put over the old,
//! conditional on the old one's ETag. That request is the moment that decides: before it nobody knows the new
//! snapshot, after it nobody asks for the old.
//!
//! A write may arrive while its answer is lost, and the client's own retry is refused then. What is there is
//! read before anything is called a conflict.

use std::collections::HashMap;
use std::num::NonZero;

use async_trait::async_trait;
use azure_core::http::{Etag, StatusCode};
use azure_core::time::OffsetDateTime;
use azure_storage_blob::models::{
    AppendBlobClientAppendBlockOptions, AppendBlobClientAppendBlockResultHeaders,
    AppendBlobClientCreateOptions, AppendBlobClientCreateResultHeaders, BlobClientDownloadOptions,
    BlobClientGetPropertiesResultHeaders, BlobContainerClientListBlobsOptions,
    BlockBlobClientUploadOptions, HttpRange,
};
use azure_storage_blob::{BlobClient, BlobContainerClient};
use bytes::Bytes;
use futures::TryStreamExt;

use super::azure::{error_code, sort_error};
use super::names::{escape, unescape};
use super::{Loaded, StoreError, Tag, Version, WindowStore, unreadable};
use crate::window::ShardId;

/// Metadata of a log: the name of its snapshot.
const SNAPSHOT: &str = "snapshot";
/// A shard comes in one request and not in the client's 4 MiB parts: each part is a request that is paid for.
const DOWNLOAD_PART: NonZero<usize> = NonZero::new(1 << 30).expect("not zero");
/// Snapshots go up in parts of this size: one request for most, and no request that takes minutes to repeat.
const UPLOAD_PART: NonZero<u64> = NonZero::new(64 << 20).expect("not zero");
/// The service takes 100 MiB in one block; this is for a connection that breaks in the middle of one.
const MOST_BLOCK_BYTES: usize = 32 << 20;
/// A snapshot that no log names is an interrupted replacement's, or one in progress: the latter is younger.
const STRAY_AFTER_HOURS: i64 = 24;
/// How often a load is tried again because the snapshot was replaced in the middle of it.
const LOAD_TRIES: usize = 4;

/// Shards and documents in a container.
pub struct BlobStore {
    container: BlobContainerClient,
    place: String,
}

impl std::fmt::Debug for BlobStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BlobStore").field(&self.place).finish()
    }
}

impl BlobStore {
    /// The store in `container`, which is made with the first write.
    pub fn new(container: BlobContainerClient) -> Self {
        let mut url = container.url().clone();
        url.set_query(None);
        Self {
            container,
            place: format!("container {url}"),
        }
    }

    fn blob(&self, name: &str) -> BlobClient {
        self.container.blob_client(name)
    }

    fn failed(&self, doing: String) -> impl Fn(azure_core::Error) -> StoreError {
        let place = self.place.clone();
        move |error| sort_error(place.clone(), doing.clone(), &error)
    }

    fn conflict(&self, what: impl ToString) -> StoreError {
        StoreError::Conflict {
            what: what.to_string(),
            place: self.place.clone(),
        }
    }

    /// Does a write, and makes the container first if that is what is missing.
    async fn with_container<T, F: Future<Output = azure_core::Result<T>>>(
        &self,
        write: impl Fn() -> F,
    ) -> azure_core::Result<T> {
        match write().await {
            Err(error) if error_code(&error) == Some("ContainerNotFound") => {
                match self.container.create(None).await {
                    Err(error) if error_code(&error) != Some("ContainerAlreadyExists") => {
                        Err(error)
                    }
                    _ => write().await,
                }
            }
            done => done,
        }
    }

    /// The log's version by its properties; `None` without a log.
    async fn log_version(&self, id: &ShardId) -> azure_core::Result<Option<Version>> {
        let properties = match self.blob(&log_name(id)).get_properties(None).await {
            Err(error) if is_missing(&error) => return Ok(None),
            properties => properties?,
        };
        Ok(Some(Version {
            snapshot: properties.metadata()?.remove(SNAPSHOT).unwrap_or_default(),
            log_bytes: properties.content_length()?.unwrap_or_default(),
            log_entries: count(properties.blob_committed_block_count()?),
            tag: tag(properties.etag()?),
        }))
    }

    /// Log and its version, without the snapshot.
    async fn log(&self, id: &ShardId) -> azure_core::Result<Option<(Bytes, Version)>> {
        let found = match self.download(&log_name(id), None).await {
            Err(error) if is_missing(&error) => return Ok(None),
            found => found?,
        };
        let properties = found.properties;
        let log = found.body.collect().await?;
        let mut metadata = properties.metadata;
        let version = Version {
            snapshot: metadata.remove(SNAPSHOT).unwrap_or_default(),
            log_bytes: log.len() as u64,
            log_entries: count(properties.blob_committed_block_count),
            tag: tag(properties.etag),
        };
        Ok(Some((log, version)))
    }

    async fn download(
        &self,
        name: &str,
        range: Option<HttpRange>,
    ) -> azure_core::Result<azure_storage_blob::models::BlobClientDownloadResult> {
        let options = BlobClientDownloadOptions {
            parallel: NonZero::new(1),
            partition_size: Some(DOWNLOAD_PART),
            range,
            ..BlobClientDownloadOptions::default()
        };
        self.blob(name).download(Some(options)).await
    }

    /// The version behind an append that was refused, if it was refused because it is there already.
    async fn arrived(
        &self,
        id: &ShardId,
        entry: &Bytes,
        expected: &Version,
    ) -> azure_core::Result<Option<Version>> {
        let Some(found) = self.log_version(id).await? else {
            return Ok(None);
        };
        let end = expected.log_bytes + entry.len() as u64;
        // If more follows, somebody else has seen it: what is in memory here is old all the same.
        if found.snapshot != expected.snapshot || found.log_bytes != end {
            return Ok(None);
        }
        let range = HttpRange::new(expected.log_bytes, entry.len() as u64);
        let there = self.download(&log_name(id), Some(range)).await?;
        let unchanged = tag(there.properties.etag.clone()) == found.tag;
        let there = there.body.collect().await?;
        Ok((unchanged && there == *entry).then_some(found))
    }

    async fn names(
        &self,
        prefix: &str,
    ) -> azure_core::Result<Vec<(String, Option<OffsetDateTime>)>> {
        let options = BlobContainerClientListBlobsOptions {
            prefix: Some(prefix.to_owned()),
            ..BlobContainerClientListBlobsOptions::default()
        };
        let mut blobs = self.container.list_blobs(Some(options))?;
        let mut names = Vec::new();
        loop {
            match blobs.try_next().await {
                Ok(Some(blob)) => {
                    let modified = blob.properties.and_then(|p| p.last_modified);
                    names.extend(blob.name.map(|name| (name, modified)));
                }
                Ok(None) => return Ok(names),
                Err(error) if is_missing(&error) => return Ok(names),
                Err(error) => return Err(error),
            }
        }
    }

    async fn delete(&self, name: &str) -> azure_core::Result<()> {
        match self.blob(name).delete(None).await {
            Err(error) if is_missing(&error) => Ok(()),
            done => done.map(drop),
        }
    }

    /// Removes what `version` replaced: the snapshot before it, and strays. A failure costs room only.
    async fn clean(&self, id: &ShardId, old: Option<&Version>, current: &str) {
        let clean = async {
            if let Some(old) = old {
                self.delete(&snapshot_name(id, &old.snapshot)).await?;
            }
            let born_before =
                OffsetDateTime::now_utc() - azure_core::time::Duration::hours(STRAY_AFTER_HOURS);
            let current = snapshot_name(id, current);
            for (name, modified) in self.names(&snapshot_name(id, "")).await? {
                if name != current && modified.is_some_and(|at| at < born_before) {
                    self.delete(&name).await?;
                }
            }
            Ok(())
        };
        if let Err(error) = clean.await {
            let error = sort_error(
                self.place.clone(),
                "removing old snapshots".to_owned(),
                &error,
            );
            tracing::warn!(shard = %id, %error, "An old snapshot could not be removed; it takes room and does nothing else.");
        }
    }
}

#[async_trait]
impl WindowStore for BlobStore {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn kind(&self) -> &'static str {
        "blob"
    }

    fn most_entry_bytes(&self) -> usize {
        MOST_BLOCK_BYTES
    }

    async fn load(&self, id: &ShardId) -> Result<Option<Loaded>, StoreError> {
        let failed = self.failed(format!("reading {id}"));
        for _ in 0..LOAD_TRIES {
            let Some((log, version)) = self.log(id).await.map_err(&failed)? else {
                return Ok(None);
            };
            let name = snapshot_name(id, &version.snapshot);
            let snapshot = match self.download(&name, None).await {
                // Replaced since the log was read: the new log names another.
                Err(error) if is_missing(&error) => {
                    if self.log_version(id).await.map_err(&failed)?.as_ref() != Some(&version) {
                        continue;
                    }
                    let reason = "its log goes on from it and it is not there";
                    return Err(unreadable(self, id, name, reason));
                }
                snapshot => snapshot.map_err(&failed)?,
            };
            let snapshot = snapshot.body.collect().await.map_err(&failed)?;
            return Ok(Some(Loaded {
                snapshot,
                log,
                version,
            }));
        }
        Err(self.conflict(id))
    }

    async fn version(&self, id: &ShardId) -> Result<Option<Version>, StoreError> {
        self.log_version(id)
            .await
            .map_err(self.failed(format!("reading the version of {id}")))
    }

    async fn append(
        &self,
        id: &ShardId,
        entry: Bytes,
        expected: &Version,
    ) -> Result<Version, StoreError> {
        let failed = self.failed(format!("writing {id}"));
        let options = AppendBlobClientAppendBlockOptions {
            if_match: Some(Etag::from(expected.tag.0.clone())),
            append_position: i64::try_from(expected.log_bytes).ok(),
            ..AppendBlobClientAppendBlockOptions::default()
        };
        let length = entry.len() as u64;
        let log = self.blob(&log_name(id)).append_blob_client();
        let content = entry.clone().into();
        match log.append_block(content, length, Some(options)).await {
            Ok(done) => Ok(Version {
                snapshot: expected.snapshot.clone(),
                log_bytes: expected.log_bytes + length,
                log_entries: count(done.blob_committed_block_count().map_err(&failed)?),
                tag: tag(done.etag().map_err(&failed)?),
            }),
            Err(error) if is_missing(&error) => Err(self.conflict(id)),
            Err(error) if is_refused(&error) => self
                .arrived(id, &entry, expected)
                .await
                .map_err(&failed)?
                .ok_or_else(|| self.conflict(id)),
            Err(error) => Err(failed(error)),
        }
    }

    async fn replace(
        &self,
        id: &ShardId,
        snapshot: Bytes,
        expected: Option<&Version>,
    ) -> Result<Version, StoreError> {
        let failed = self.failed(format!("writing a snapshot of {id}"));
        let name = uuid::Uuid::new_v4().simple().to_string();
        let blob = snapshot_name(id, &name);
        let upload = || {
            let options = BlockBlobClientUploadOptions {
                partition_size: Some(UPLOAD_PART),
                ..BlockBlobClientUploadOptions::default()
            };
            let content = snapshot.clone().into();
            let client = self.blob(&blob);
            async move { client.upload(content, Some(options)).await }
        };
        self.with_container(upload).await.map_err(&failed)?;

        let (if_match, if_none_match) = conditions(expected.map(|version| &version.tag));
        let options = AppendBlobClientCreateOptions {
            if_match,
            if_none_match,
            metadata: Some(HashMap::from([(SNAPSHOT.to_owned(), name.clone())])),
            ..AppendBlobClientCreateOptions::default()
        };
        let log = self.blob(&log_name(id)).append_blob_client();
        let version = match log.create(Some(options)).await {
            Ok(done) => Version {
                snapshot: name,
                log_bytes: 0,
                log_entries: 0,
                tag: tag(done.etag().map_err(&failed)?),
            },
            Err(error) if is_missing(&error) || is_refused(&error) => {
                let found = self.log_version(id).await.map_err(&failed)?;
                match found.filter(|found| found.snapshot == name) {
                    Some(ours) => ours,
                    None => {
                        if let Err(error) = self.delete(&blob).await {
                            let error = failed(error);
                            tracing::warn!(blob, %error, "A snapshot that came too late could not be removed; it takes room and does nothing else.");
                        }
                        return Err(self.conflict(id));
                    }
                }
            }
            Err(error) => return Err(failed(error)),
        };
        self.clean(id, expected, &version.snapshot).await;
        Ok(version)
    }

    async fn list(&self) -> Result<Vec<ShardId>, StoreError> {
        let names = self.names("windows/").await;
        let mut shards: Vec<_> = names
            .map_err(self.failed("listing shards".to_owned()))?
            .iter()
            .filter_map(|(name, _)| {
                let (topic, partition) = name
                    .strip_prefix("windows/")?
                    .strip_suffix("/log")?
                    .split_once('/')?;
                Some(ShardId {
                    topic: unescape(topic)?,
                    partition: partition.parse().ok()?,
                })
            })
            .collect();
        shards.sort();
        Ok(shards)
    }

    async fn remove(&self, id: &ShardId) -> Result<(), StoreError> {
        let remove = async {
            // The log first: without it the rest does not count.
            self.delete(&log_name(id)).await?;
            for (name, _) in self.names(&snapshot_name(id, "")).await? {
                self.delete(&name).await?;
            }
            Ok(())
        };
        remove.await.map_err(self.failed(format!("removing {id}")))
    }

    async fn document(&self, name: &str) -> Result<Option<(Bytes, Tag)>, StoreError> {
        let failed = self.failed(format!("reading {name}"));
        let found = match self.download(&document_name(name), None).await {
            Err(error) if is_missing(&error) => return Ok(None),
            found => found.map_err(&failed)?,
        };
        let tag = tag(found.properties.etag);
        let content = found.body.collect().await.map_err(&failed)?;
        Ok(Some((content, tag)))
    }

    async fn put_document(
        &self,
        name: &str,
        content: Bytes,
        expected: Option<&Tag>,
    ) -> Result<Tag, StoreError> {
        let failed = self.failed(format!("writing {name}"));
        // Tells this write from any other, should its answer be lost.
        let write = uuid::Uuid::new_v4().simple().to_string();
        let put = || {
            let (if_match, if_none_match) = conditions(expected);
            let options = BlockBlobClientUploadOptions {
                if_match,
                if_none_match,
                metadata: Some(HashMap::from([("write".to_owned(), write.clone())])),
                ..BlockBlobClientUploadOptions::default()
            };
            let content = content.clone().into();
            let client = self.blob(&document_name(name));
            async move { client.upload(content, Some(options)).await }
        };
        match self.with_container(put).await {
            Ok(done) => Ok(tag(done.etag)),
            Err(error) if is_missing(&error) || is_refused(&error) => {
                let found = self.blob(&document_name(name)).get_properties(None).await;
                let found = match found {
                    Err(error) if is_missing(&error) => return Err(self.conflict(name)),
                    found => found.map_err(&failed)?,
                };
                if found.metadata().map_err(&failed)?.get("write") == Some(&write) {
                    Ok(tag(found.etag().map_err(&failed)?))
                } else {
                    Err(self.conflict(name))
                }
            }
            Err(error) => Err(failed(error)),
        }
    }
}

fn log_name(id: &ShardId) -> String {
    format!("windows/{}/{}/log", escape(&id.topic), id.partition)
}

fn snapshot_name(id: &ShardId, name: &str) -> String {
    format!(
        "windows/{}/{}/snapshot-{name}",
        escape(&id.topic),
        id.partition
    )
}

fn document_name(name: &str) -> String {
    format!("documents/{}", escape(name))
}

/// `If-Match` of a tag, or `If-None-Match: *` where nothing may be.
fn conditions(expected: Option<&Tag>) -> (Option<Etag>, Option<Etag>) {
    match expected {
        Some(tag) => (Some(Etag::from(tag.0.clone())), None),
        None => (None, Some(Etag::from("*"))),
    }
}

fn tag(etag: Option<Etag>) -> Tag {
    Tag(etag.map(|etag| etag.to_string()).unwrap_or_default())
}

fn count(blocks: Option<i32>) -> u64 {
    blocks
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or_default()
}

/// Neither the blob nor, perhaps, its container is there.
fn is_missing(error: &azure_core::Error) -> bool {
    error.http_status() == Some(StatusCode::NotFound)
}

/// A condition did not hold.
fn is_refused(error: &azure_core::Error) -> bool {
    match error.http_status() {
        Some(StatusCode::PreconditionFailed) => true,
        Some(StatusCode::Conflict) => error_code(error) == Some("BlobAlreadyExists"),
        _ => false,
    }
}
