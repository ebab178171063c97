//! Table entities: per shard one partition, in it one row `head` and the rows of snapshot and log.
//!
//! `head` names the snapshot and counts its rows and the log's; rows that it does not count do not exist. An
//! append is one transaction that inserts the entry's rows and moves `head` on, conditional on its ETag. A new
//! snapshot goes into rows of its own name first; moving `head` to it is the moment that decides.
//!
//! Each write puts a name of its own into `head`, by which one whose answer was lost recognises itself.

use async_trait::async_trait;
use azure_core::http::{Pipeline, StatusCode, Url};
use azure_core::time::{OffsetDateTime, to_rfc3339};
use bytes::Bytes;

use super::azure::sort_answer;
use super::azure::tables::{
    ENTITY_BYTES, Entity, MOST_OPERATIONS, Operation, PROPERTY_BYTES, TRANSACTION_BYTES, Table,
    TableError,
};
use super::names::{escape, unescape};
use super::{Loaded, StoreError, Tag, Version, WindowStore, unreadable};
use crate::window::ShardId;

const HEAD: &str = "head";
const SNAPSHOT: &str = "Snapshot";
const SNAPSHOT_ROWS: &str = "SnapshotRows";
const LOG_ROWS: &str = "LogRows";
const LOG_BYTES: &str = "LogBytes";
const LOG_ENTRIES: &str = "LogEntries";
/// Which write an entity is from.
const WRITE: &str = "Write";
/// The partition of documents.
const DOCUMENTS: &str = "d";
/// Rows that no head counts are an interrupted replacement's, or one in progress: the latter are younger.
const STRAY_AFTER_HOURS: i64 = 24;
/// How often a load is tried again because the snapshot was replaced in the middle of it.
const LOAD_TRIES: usize = 4;

/// Shards and documents in a table.
#[derive(Clone, Debug)]
pub struct TableStore {
    table: Table,
}

/// What `head` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    version: Version,
    snapshot_rows: u64,
    log_rows: u64,
    write: String,
}

impl TableStore {
    /// The store in the table `name` of an account; it is made with the first write.
    pub fn new(account: (Url, Pipeline), name: &str) -> Self {
        Self {
            table: Table::new(account, name),
        }
    }

    fn failed(&self, doing: String) -> impl Fn(TableError) -> StoreError {
        let place = self.place();
        move |error| sort_answer(place.clone(), doing.clone(), error)
    }

    fn conflict(&self, what: impl ToString) -> StoreError {
        StoreError::Conflict {
            what: what.to_string(),
            place: self.place(),
        }
    }

    async fn head(&self, id: &ShardId) -> Result<Option<Head>, TableError> {
        let found = self.table.get(&partition(id), HEAD).await?;
        Ok(found.map(|(entity, etag)| {
            let number = |name| entity.number(name).unwrap_or_default();
            let text = |name| entity.text(name).unwrap_or_default().to_owned();
            Head {
                version: Version {
                    snapshot: text(SNAPSHOT),
                    log_bytes: number(LOG_BYTES),
                    log_entries: number(LOG_ENTRIES),
                    tag: head_tag(&etag, number(SNAPSHOT_ROWS), number(LOG_ROWS)),
                },
                snapshot_rows: number(SNAPSHOT_ROWS),
                log_rows: number(LOG_ROWS),
                write: text(WRITE),
            }
        }))
    }

    /// Moves the head together with other changes of its partition; whether it was at `expected` still.
    async fn move_head(
        &self,
        id: &ShardId,
        head: Head,
        expected: Option<&Version>,
        mut with: Vec<Operation>,
    ) -> Result<Option<Version>, TableError> {
        let entity = Entity::new(&partition(id), HEAD)
            .with_text(SNAPSHOT, &head.version.snapshot)
            .with_number(SNAPSHOT_ROWS, head.snapshot_rows)
            .with_number(LOG_ROWS, head.log_rows)
            .with_number(LOG_BYTES, head.version.log_bytes)
            .with_number(LOG_ENTRIES, head.version.log_entries)
            .with_text(WRITE, &head.write);
        with.push(match expected {
            None => Operation::Insert(entity),
            Some(version) => Operation::Replace {
                entity,
                etag: parts_of(&version.tag).0.to_owned(),
            },
        });
        match self.table.transact(&with).await {
            Ok(etag) => Ok(Some(Version {
                tag: head_tag(&etag, head.snapshot_rows, head.log_rows),
                ..head.version
            })),
            Err(error) if is_refused(&error) => {
                // Refused, or done and told to nobody.
                let found = self.head(id).await?;
                Ok(found
                    .filter(|found| found.write == head.write)
                    .map(|found| found.version))
            }
            Err(error) => Err(error),
        }
    }

    /// Inserts rows of a name that is in use nowhere else.
    async fn insert_rows(&self, rows: Vec<Entity>) -> Result<(), TableError> {
        for rows in rows.chunks(TRANSACTION_BYTES / ENTITY_BYTES) {
            let inserts: Vec<_> = rows.iter().cloned().map(Operation::Insert).collect();
            match self.table.transact(&inserts).await {
                // A repeat of a transaction whose answer was lost: the name is ours alone.
                Err(error) if error.is("EntityAlreadyExists") => {}
                done => {
                    done?;
                }
            }
        }
        Ok(())
    }

    async fn row_keys(&self, filter: &str) -> Result<Vec<String>, TableError> {
        let mut keys = Vec::new();
        let keep = |entity: Entity| {
            keys.extend(entity.text("RowKey").map(str::to_owned));
            Ok(())
        };
        self.table.query(filter, "RowKey", keep).await?;
        Ok(keys)
    }

    async fn delete_rows(&self, id: &ShardId, keys: &[String]) -> Result<(), TableError> {
        for keys in keys.chunks(MOST_OPERATIONS) {
            let deletes: Vec<_> = keys
                .iter()
                .map(|row| Operation::Delete {
                    partition: partition(id),
                    row: row.clone(),
                })
                .collect();
            match self.table.transact(&deletes).await {
                // Somebody else cleans as well.
                Err(error) if error.is("ResourceNotFound") => {}
                done => {
                    done?;
                }
            }
        }
        Ok(())
    }

    /// Removes what `old` counted, and strays. A failure costs room only.
    async fn clean(&self, id: &ShardId, old: Option<&Version>, current: &str) {
        let clean = async {
            let mut keys = match old {
                Some(old) => self.row_keys(&rows_of(id, &old.snapshot)).await?,
                None => Vec::new(),
            };
            let born_before = to_rfc3339(
                &(OffsetDateTime::now_utc() - azure_core::time::Duration::hours(STRAY_AFTER_HOURS)),
            );
            let strays = format!(
                "PartitionKey eq '{}' and RowKey lt '{HEAD}' and Timestamp lt datetime'{born_before}'",
                partition(id)
            );
            keys.extend(self.row_keys(&strays).await?);
            keys.retain(|key| !key.starts_with(current));
            keys.sort_unstable();
            keys.dedup();
            self.delete_rows(id, &keys).await
        };
        if let Err(error) = clean.await {
            let error = self.failed("removing old rows".to_owned())(error);
            tracing::warn!(shard = %id, %error, "Old rows could not be removed; they take room and do nothing else.");
        }
    }

    /// The rows that `head` counts, as snapshot and log; `None` if some are missing.
    async fn rows(&self, id: &ShardId, head: &Head) -> Result<Option<(Bytes, Bytes)>, TableError> {
        let (mut snapshot, mut log) = (Vec::new(), Vec::new());
        let (mut snapshot_rows, mut log_rows) = (0, 0);
        let name = &head.version.snapshot;
        let visit = |entity: Entity| {
            let key = entity.text("RowKey").unwrap_or_default();
            // In the order of their keys: a row out of its turn follows a gap.
            if log_rows < head.log_rows && key == log_row(name, log_rows) {
                log_rows += 1;
                entity.bytes(&mut log)?;
            } else if key == snapshot_row(name, snapshot_rows) {
                snapshot_rows += 1;
                entity.bytes(&mut snapshot)?;
            }
            Ok(())
        };
        self.table.query(&rows_of(id, name), "", visit).await?;
        let complete = (snapshot_rows, log_rows) == (head.snapshot_rows, head.log_rows)
            && log.len() as u64 == head.version.log_bytes;
        Ok(complete.then(|| (snapshot.into(), log.into())))
    }
}

#[async_trait]
impl WindowStore for TableStore {
    fn place(&self) -> String {
        format!("table {}", self.table.url())
    }

    fn kind(&self) -> &'static str {
        "table"
    }

    fn most_entry_bytes(&self) -> usize {
        TRANSACTION_BYTES - ENTITY_BYTES
    }

    async fn load(&self, id: &ShardId) -> Result<Option<Loaded>, StoreError> {
        let failed = self.failed(format!("reading {id}"));
        for _ in 0..LOAD_TRIES {
            let Some(head) = self.head(id).await.map_err(&failed)? else {
                return Ok(None);
            };
            if let Some((snapshot, log)) = self.rows(id, &head).await.map_err(&failed)? {
                return Ok(Some(Loaded {
                    snapshot,
                    log,
                    version: head.version,
                }));
            }
            // Replaced since the head was read, or damaged.
            if self.head(id).await.map_err(&failed)?.as_ref() == Some(&head) {
                let what = format!("partition {}", partition(id));
                let reason = "rows that its head counts are missing";
                return Err(unreadable(self, id, what, reason));
            }
        }
        Err(self.conflict(id))
    }

    async fn version(&self, id: &ShardId) -> Result<Option<Version>, StoreError> {
        let head = self.head(id).await;
        let head = head.map_err(self.failed(format!("reading the version of {id}")))?;
        Ok(head.map(|head| head.version))
    }

    async fn append(
        &self,
        id: &ShardId,
        entry: Bytes,
        expected: &Version,
    ) -> Result<Version, StoreError> {
        let (_, snapshot_rows, log_rows) = parts_of(&expected.tag);
        let rows: Vec<_> = (log_rows..)
            .zip(entry.chunks(ENTITY_BYTES))
            .map(|(row, part)| {
                let row = log_row(&expected.snapshot, row);
                Operation::Insert(Entity::new(&partition(id), &row).with_bytes(part))
            })
            .collect();
        let head = Head {
            version: Version {
                log_bytes: expected.log_bytes + entry.len() as u64,
                log_entries: expected.log_entries + 1,
                ..expected.clone()
            },
            snapshot_rows,
            log_rows: log_rows + rows.len() as u64,
            write: write_name(),
        };
        self.move_head(id, head, Some(expected), rows)
            .await
            .map_err(self.failed(format!("writing {id}")))?
            .ok_or_else(|| self.conflict(id))
    }

    async fn replace(
        &self,
        id: &ShardId,
        snapshot: Bytes,
        expected: Option<&Version>,
    ) -> Result<Version, StoreError> {
        let failed = self.failed(format!("writing a snapshot of {id}"));
        let name = write_name();
        let rows: Vec<_> = (0..)
            .zip(snapshot.chunks(ENTITY_BYTES))
            .map(|(row, part)| {
                Entity::new(&partition(id), &snapshot_row(&name, row)).with_bytes(part)
            })
            .collect();
        let head = Head {
            version: Version {
                snapshot: name.clone(),
                log_bytes: 0,
                log_entries: 0,
                tag: Tag(String::new()),
            },
            snapshot_rows: rows.len() as u64,
            log_rows: 0,
            write: name.clone(),
        };
        self.insert_rows(rows).await.map_err(&failed)?;
        let moved = self.move_head(id, head, expected, Vec::new()).await;
        let Some(version) = moved.map_err(&failed)? else {
            let keys = self.row_keys(&rows_of(id, &name)).await;
            let removed = match keys {
                Ok(keys) => self.delete_rows(id, &keys).await,
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                let error = failed(error);
                tracing::warn!(shard = %id, %error, "A snapshot that came too late could not be removed; it takes room and does nothing else.");
            }
            return Err(self.conflict(id));
        };
        self.clean(id, expected, &version.snapshot).await;
        Ok(version)
    }

    async fn list(&self) -> Result<Vec<ShardId>, StoreError> {
        let mut shards = Vec::new();
        let keep = |entity: Entity| {
            shards.extend(entity.text("PartitionKey").and_then(shard_of));
            Ok(())
        };
        // Every shard's key begins with `w.`; `/` is the character after the dot.
        let filter =
            format!("RowKey eq '{HEAD}' and PartitionKey ge 'w.' and PartitionKey lt 'w/'");
        self.table
            .query(&filter, "PartitionKey", keep)
            .await
            .map_err(self.failed("listing shards".to_owned()))?;
        shards.sort();
        Ok(shards)
    }

    async fn remove(&self, id: &ShardId) -> Result<(), StoreError> {
        let remove = async {
            // The head first: without it the rest does not count.
            self.delete_rows(id, &[HEAD.to_owned()]).await?;
            let filter = format!("PartitionKey eq '{}' and RowKey lt '{HEAD}'", partition(id));
            let keys = self.row_keys(&filter).await?;
            self.delete_rows(id, &keys).await
        };
        match remove.await {
            Err(error) if error.is("TableNotFound") => Ok(()),
            done => done.map_err(self.failed(format!("removing {id}"))),
        }
    }

    async fn document(&self, name: &str) -> Result<Option<(Bytes, Tag)>, StoreError> {
        let failed = self.failed(format!("reading {name}"));
        let found = self.table.get(DOCUMENTS, &escape(name)).await;
        let Some((entity, etag)) = found.map_err(&failed)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        entity.bytes(&mut content).map_err(&failed)?;
        Ok(Some((content.into(), Tag(etag))))
    }

    async fn put_document(
        &self,
        name: &str,
        content: Bytes,
        expected: Option<&Tag>,
    ) -> Result<Tag, StoreError> {
        debug_assert!(content.len() <= PROPERTY_BYTES, "documents are small");
        let write = write_name();
        let put = async {
            let entity = Entity::new(DOCUMENTS, &escape(name))
                .with_text(WRITE, &write)
                .with_bytes(&content);
            let operation = match expected {
                None => Operation::Insert(entity),
                Some(Tag(etag)) => Operation::Replace {
                    entity,
                    etag: etag.clone(),
                },
            };
            match self.table.transact(&[operation]).await {
                Err(error) if is_refused(&error) => {
                    let found = self.table.get(DOCUMENTS, &escape(name)).await?;
                    Ok(found
                        .filter(|(entity, _)| entity.text(WRITE) == Some(&write))
                        .map(|(_, etag)| etag))
                }
                done => done.map(Some),
            }
        };
        put.await
            .map_err(self.failed(format!("writing {name}")))?
            .map(Tag)
            .ok_or_else(|| self.conflict(name))
    }
}

/// The partition of a shard. Topics are escaped, so that the last dot is the one before the number.
fn partition(id: &ShardId) -> String {
    format!("w.{}.{}", escape(&id.topic), id.partition)
}

fn shard_of(partition: &str) -> Option<ShardId> {
    let (topic, number) = partition.strip_prefix("w.")?.rsplit_once('.')?;
    Some(ShardId {
        topic: unescape(topic)?,
        partition: number.parse().ok()?,
    })
}

fn log_row(snapshot: &str, row: u64) -> String {
    format!("{snapshot}-log-{row:010}")
}

fn snapshot_row(snapshot: &str, row: u64) -> String {
    format!("{snapshot}-snapshot-{row:010}")
}

/// The filter for all rows of a snapshot and its log; `.` is the character after the hyphen.
fn rows_of(id: &ShardId, snapshot: &str) -> String {
    format!(
        "PartitionKey eq '{}' and RowKey ge '{snapshot}-' and RowKey lt '{snapshot}.'",
        partition(id)
    )
}

/// A head's tag: its ETag, and how many rows it counts, which the next append goes on from.
fn head_tag(etag: &str, snapshot_rows: u64, log_rows: u64) -> Tag {
    Tag(format!("{snapshot_rows} {log_rows} {etag}"))
}

fn parts_of(tag: &Tag) -> (&str, u64, u64) {
    let mut parts = tag.0.splitn(3, ' ');
    let mut number = || {
        let digits = parts.next().unwrap_or_default();
        digits.parse().unwrap_or_default()
    };
    let (snapshot_rows, log_rows) = (number(), number());
    (parts.next().unwrap_or_default(), snapshot_rows, log_rows)
}

/// A name that is given once. Hexadecimal, hence before `head` in the order of keys.
fn write_name() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A condition did not hold.
fn is_refused(error: &TableError) -> bool {
    match error {
        TableError::Refused { status, code, .. } => {
            *status == StatusCode::PreconditionFailed
                || code == "EntityAlreadyExists"
                || code == "ResourceNotFound"
        }
        TableError::Failed(_) => false,
    }
}
