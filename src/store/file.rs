//! The embedded store: a folder on a disk that lasts.
//!
//! Per shard a folder with `log`, which names the snapshot that it goes on from, and `snapshot-…`. An
//! append is one write and one fsync at the end of `log`. A new snapshot is written and fsynced under a name
//! of its own before a new, empty `log` that names it is renamed over the old: the rename is the moment that
//! decides, so that a kill at any instant leaves the old state or the new one. An append cut short by one is
//! the codec's to notice.
//!
//! The comparison of versions and the write after it are one step between processes too: they hold an
//! advisory lock on `lock`, which the system releases when a process dies.

mod disk;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;

use super::names::{escape, unescape};
use super::{Loaded, StoreError, Tag, Version, WindowStore};
use crate::window::ShardId;
use disk::Disk;

/// What every log begins with; the last byte is the version of the form.
const LOG_MAGIC: [u8; 5] = *b"LAPL\x01";
/// Hexadecimal digits that name a snapshot.
const NAME_BYTES: usize = 16;
const HEADER_BYTES: usize = LOG_MAGIC.len() + NAME_BYTES + 4;
/// How long another process may hold a shard's lock: it does so for the time of one write.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);

/// Shards and documents in a folder.
#[derive(Clone, Debug)]
pub struct FileStore {
    root: Arc<Path>,
    disk: Disk,
}

impl FileStore {
    /// The store in the folder `root`, which is made with the first write.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into().into(),
            disk: Disk::default(),
        }
    }

    fn shard_folder(&self, id: &ShardId) -> PathBuf {
        let topic = escape(&id.topic);
        self.root
            .join("windows")
            .join(topic)
            .join(id.partition.to_string())
    }

    fn documents(&self) -> PathBuf {
        self.root.join("documents")
    }

    /// Runs file operations where they may block.
    async fn blocking<T: Send + 'static>(
        &self,
        doing: String,
        work: impl FnOnce(&Self) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        let trouble = match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(trouble)) => trouble,
            Err(panicked) => Trouble::Io(io::Error::other(panicked)),
        };
        Err(trouble.into_error(self.place(), doing))
    }

    /// The shard's newest version, and nothing for a shard that has no log.
    fn current(&self, id: &ShardId) -> Result<Option<Version>, Trouble> {
        let path = self.shard_folder(id).join("log");
        match File::open(&path) {
            Ok(mut log) => log_version(&mut log, &path, id).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn load_now(&self, id: &ShardId) -> Result<Option<Loaded>, Trouble> {
        let folder = self.shard_folder(id);
        let Some(_lock) = lock_existing(&folder)? else {
            return Ok(None);
        };
        let Some(version) = self.current(id)? else {
            return Ok(None);
        };
        let mut log = std::fs::read(folder.join("log"))?;
        log.drain(..HEADER_BYTES);
        let path = folder.join(snapshot_name(&version.snapshot));
        let snapshot = std::fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Trouble::Corrupt {
                path,
                reason: "the log goes on from it and it is not there",
                shard: Some(id.clone()),
            },
            _ => error.into(),
        })?;
        Ok(Some(Loaded {
            snapshot: snapshot.into(),
            log: log.into(),
            version,
        }))
    }

    fn append_now(
        &self,
        id: &ShardId,
        entry: &[u8],
        expected: &Version,
    ) -> Result<Version, Trouble> {
        let folder = self.shard_folder(id);
        let conflict = || Trouble::Conflict(id.to_string());
        let _lock = lock_existing(&folder)?.ok_or_else(conflict)?;
        if self.current(id)?.as_ref() != Some(expected) {
            return Err(conflict());
        }
        let path = folder.join("log");
        let length = HEADER_BYTES as u64 + expected.log_bytes;
        fail::fail_point!("store::file::append::before-write");
        self.disk.append(&path, length, entry)?;
        fail::fail_point!("store::file::append::after-sync");
        Ok(version_of(
            expected.snapshot.clone(),
            expected.log_bytes + entry.len() as u64,
        ))
    }

    fn replace_now(
        &self,
        id: &ShardId,
        snapshot: &[u8],
        expected: Option<&Version>,
    ) -> Result<Version, Trouble> {
        let folder = self.shard_folder(id);
        self.disk.make_folder(&self.root, &folder)?;
        let _lock = lock(&folder)?;
        if self.current(id)?.as_ref() != expected {
            return Err(Trouble::Conflict(id.to_string()));
        }
        let name = format!("{:016x}", rand::random::<u64>());
        fail::fail_point!("store::file::replace::before-snapshot");
        self.disk
            .create(&folder.join(snapshot_name(&name)), snapshot)?;
        // The name has to last before anything speaks of it.
        self.disk.sync_folder(&folder)?;
        fail::fail_point!("store::file::replace::after-snapshot");
        let fresh = folder.join("log.new");
        self.disk.create(&fresh, &log_header(&name))?;
        fail::fail_point!("store::file::replace::before-rename");
        self.disk.rename(&fresh, &folder.join("log"))?;
        fail::fail_point!("store::file::replace::after-rename");
        self.disk.sync_folder(&folder)?;
        self.remove_stray_snapshots(&folder, &name)?;
        fail::fail_point!("store::file::replace::after-cleaning");
        Ok(version_of(name, 0))
    }

    /// Removes what the new snapshot replaced, and what an interrupted replacement left behind.
    fn remove_stray_snapshots(&self, folder: &Path, current: &str) -> Result<(), Trouble> {
        let current = snapshot_name(current);
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_snapshot = name.to_str().is_some_and(|n| n.starts_with("snapshot-"));
            if is_snapshot && name != current.as_str() {
                self.disk.remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn remove_now(&self, id: &ShardId) -> Result<(), Trouble> {
        let folder = self.shard_folder(id);
        let Some(_lock) = lock_existing(&folder)? else {
            return Ok(());
        };
        // The log first: without it the rest does not count.
        self.disk.remove(&folder.join("log"))?;
        self.disk.sync_folder(&folder)?;
        self.remove_stray_snapshots(&folder, "")
    }

    fn list_now(&self) -> Result<Vec<ShardId>, Trouble> {
        let mut shards = Vec::new();
        for topic in folders_in(&self.root.join("windows"))? {
            let Some(name) = unescape(&topic) else {
                continue;
            };
            for partition in folders_in(&self.root.join("windows").join(&topic))? {
                let Ok(number) = partition.parse() else {
                    continue;
                };
                let id = ShardId {
                    topic: name.clone(),
                    partition: number,
                };
                if self.shard_folder(&id).join("log").exists() {
                    shards.push(id);
                }
            }
        }
        shards.sort();
        Ok(shards)
    }

    fn document_now(&self, name: &str) -> Result<Option<(Bytes, Tag)>, Trouble> {
        let path = self.documents().join(escape(name));
        let content = match std::fs::read(&path) {
            Ok(content) => Bytes::from(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let tag = content
            .get(..NAME_BYTES)
            .and_then(|tag| std::str::from_utf8(tag).ok());
        match tag {
            Some(tag) => Ok(Some((content.slice(NAME_BYTES..), Tag(tag.to_owned())))),
            None => Err(Trouble::Corrupt {
                path,
                reason: "it is shorter than any document",
                shard: None,
            }),
        }
    }

    fn put_document_now(
        &self,
        name: &str,
        content: &[u8],
        expected: Option<&Tag>,
    ) -> Result<Tag, Trouble> {
        let folder = self.documents();
        self.disk.make_folder(&self.root, &folder)?;
        let _lock = lock(&folder)?;
        if self.document_now(name)?.map(|(_, tag)| tag).as_ref() != expected {
            return Err(Trouble::Conflict(name.to_owned()));
        }
        let tag = format!("{:016x}", rand::random::<u64>());
        // `~new` is no escaped name, so that no document has it.
        let fresh = folder.join("~new");
        self.disk
            .create(&fresh, &[tag.as_bytes(), content].concat())?;
        fail::fail_point!("store::file::document::before-rename");
        self.disk.rename(&fresh, &folder.join(escape(name)))?;
        self.disk.sync_folder(&folder)?;
        Ok(Tag(tag))
    }
}

#[async_trait]
impl WindowStore for FileStore {
    fn place(&self) -> String {
        format!("folder {}", self.root.display())
    }

    fn kind(&self) -> &'static str {
        "file"
    }

    async fn load(&self, id: &ShardId) -> Result<Option<Loaded>, StoreError> {
        let id = id.clone();
        self.blocking(format!("reading {id}"), move |store| store.load_now(&id))
            .await
    }

    async fn version(&self, id: &ShardId) -> Result<Option<Version>, StoreError> {
        let id = id.clone();
        self.blocking(format!("reading the version of {id}"), move |store| {
            store.current(&id)
        })
        .await
    }

    async fn append(
        &self,
        id: &ShardId,
        entry: Bytes,
        expected: &Version,
    ) -> Result<Version, StoreError> {
        let (id, expected) = (id.clone(), expected.clone());
        self.blocking(format!("writing {id}"), move |store| {
            store.append_now(&id, &entry, &expected)
        })
        .await
    }

    async fn replace(
        &self,
        id: &ShardId,
        snapshot: Bytes,
        expected: Option<&Version>,
    ) -> Result<Version, StoreError> {
        let (id, expected) = (id.clone(), expected.cloned());
        self.blocking(format!("writing {id}"), move |store| {
            store.replace_now(&id, &snapshot, expected.as_ref())
        })
        .await
    }

    async fn list(&self) -> Result<Vec<ShardId>, StoreError> {
        self.blocking("listing shards".to_owned(), Self::list_now)
            .await
    }

    async fn remove(&self, id: &ShardId) -> Result<(), StoreError> {
        let id = id.clone();
        self.blocking(format!("removing {id}"), move |store| store.remove_now(&id))
            .await
    }

    async fn document(&self, name: &str) -> Result<Option<(Bytes, Tag)>, StoreError> {
        let name = name.to_owned();
        self.blocking(format!("reading {name}"), move |store| {
            store.document_now(&name)
        })
        .await
    }

    async fn put_document(
        &self,
        name: &str,
        content: Bytes,
        expected: Option<&Tag>,
    ) -> Result<Tag, StoreError> {
        let (name, expected) = (name.to_owned(), expected.cloned());
        self.blocking(format!("writing {name}"), move |store| {
            store.put_document_now(&name, &content, expected.as_ref())
        })
        .await
    }
}

/// What went wrong, before it is known to whom it is told.
#[derive(Debug)]
enum Trouble {
    Io(io::Error),
    Conflict(String),
    Locked(PathBuf),
    Corrupt {
        path: PathBuf,
        reason: &'static str,
        /// The shard that could be reset.
        shard: Option<ShardId>,
    },
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Trouble {
    fn into_error(self, place: String, doing: String) -> StoreError {
        use io::ErrorKind as Kind;
        match self {
            Self::Conflict(what) => StoreError::Conflict { what, place },
            Self::Corrupt {
                path,
                reason,
                shard,
            } => StoreError::Corrupt {
                what: path.display().to_string(),
                place,
                reason: reason.to_owned(),
                remedy: match shard {
                    Some(id) => format!(
                        "restore it from a backup, or start anew with `lapwing state reset {id}`"
                    ),
                    None => "restore it from a backup, or remove it to start anew".to_owned(),
                },
            },
            Self::Locked(path) => StoreError::Unavailable {
                place,
                doing,
                source: format!("another process holds {}", path.display()).into(),
            },
            Self::Io(source) => match source.kind() {
                Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => StoreError::Full {
                    place,
                    source: source.into(),
                },
                Kind::PermissionDenied
                | Kind::ReadOnlyFilesystem
                | Kind::NotADirectory
                | Kind::AlreadyExists => StoreError::Refused {
                    place,
                    doing,
                    remedy: "make it a folder that this process may write to, or set Store__Path"
                        .to_owned(),
                    source: source.into(),
                },
                _ => StoreError::Unavailable {
                    place,
                    doing,
                    source: source.into(),
                },
            },
        }
    }
}

fn snapshot_name(name: &str) -> String {
    format!("snapshot-{name}")
}

fn log_header(snapshot: &str) -> Vec<u8> {
    let mut header = [&LOG_MAGIC[..], snapshot.as_bytes()].concat();
    let checksum = crc32fast::hash(&header);
    header.extend_from_slice(&checksum.to_le_bytes());
    header
}

fn log_version(log: &mut File, path: &Path, id: &ShardId) -> Result<Version, Trouble> {
    let corrupt = |reason| Trouble::Corrupt {
        path: path.to_owned(),
        reason,
        shard: Some(id.clone()),
    };
    let mut header = [0; HEADER_BYTES];
    io::Read::read_exact(log, &mut header).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => corrupt("it is shorter than any log"),
        _ => error.into(),
    })?;
    let name = &header[LOG_MAGIC.len()..LOG_MAGIC.len() + NAME_BYTES];
    let name = std::str::from_utf8(name)
        .ok()
        .filter(|name| log_header(name) == header)
        .ok_or_else(|| corrupt("its first bytes are damaged"))?;
    let log_bytes = log.metadata()?.len() - HEADER_BYTES as u64;
    Ok(version_of(name.to_owned(), log_bytes))
}

fn version_of(snapshot: String, log_bytes: u64) -> Version {
    Version {
        tag: Tag(String::new()),
        snapshot,
        log_bytes,
        log_entries: 0,
    }
}

/// Holds the lock of a folder until the file is dropped.
fn lock(folder: &Path) -> Result<File, Trouble> {
    let path = folder.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(TryLockError::WouldBlock) => return Err(Trouble::Locked(path)),
            // Some network file systems have no locks: there the version check stands alone.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(file);
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
}

/// As [`lock`], and `None` for a folder that is not there.
fn lock_existing(folder: &Path) -> Result<Option<File>, Trouble> {
    match lock(folder) {
        Ok(lock) => Ok(Some(lock)),
        Err(Trouble::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

fn folders_in(folder: &Path) -> Result<Vec<String>, Trouble> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
