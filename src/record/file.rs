//! Events as JSON Lines in a folder: `<root>/<stream>/<topic>/<partition>/<day>.jsonl`.
//!
//! A file has its events in ascending order of position, so its last whole line says which of a batch
//! are there already. A line that a crash cut off was never acknowledged: it is cut away and written
//! anew. An exclusive lock makes reading the end and appending one step between processes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::archive::{Archive, Found, ReadError, Wanted};
use super::lines::{FileName, Line, Tail, by_day, folder_of, name_of, read_tail};
use super::{Event, Sink, SinkError};

/// How long another process may hold a file before the write fails (and is tried again by the host).
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Writes events below a folder.
#[derive(Debug)]
pub struct FileSink {
    root: PathBuf,
}

impl FileSink {
    /// Events go below `root`, which is made when the first one comes.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn write(&self, events: &[Event]) -> Result<usize, SinkError> {
        let Some(first) = events.first() else {
            return Ok(0);
        };
        let stream = first.stream.name();
        let place = self.place();
        let folder = self.root.join(folder_of(first));
        let days = by_day(events).map_err(|error| SinkError::Refused {
            stream,
            place: place.clone(),
            source: error.into(),
        })?;
        let files: Vec<_> = days
            .into_iter()
            .map(|(day, lines)| (folder.join(name_of(&day, 0)), lines))
            .collect();
        let written = tokio::task::spawn_blocking(move || {
            files.iter().try_fold(0, |written, (path, lines)| {
                append(path, lines)
                    .map(|count| written + count)
                    .map_err(|error| naming(path, &error))
            })
        })
        .await;
        let unavailable = |source| SinkError::Unavailable {
            stream,
            place: place.clone(),
            source,
        };
        match written {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(SinkError::Refused {
                    stream,
                    place,
                    source: error.into(),
                })
            }
            Ok(Err(error)) => Err(unavailable(error.into())),
            Err(panic) => Err(unavailable(panic.into())),
        }
    }

    fn place(&self) -> String {
        format!("folder {}", self.root.display())
    }
}

#[async_trait]
impl Archive for FileSink {
    async fn read(&self, wanted: &Wanted, found: mpsc::Sender<Found>) -> Result<(), ReadError> {
        let (root, wanted) = (self.root.clone(), wanted.clone());
        let read = tokio::task::spawn_blocking(move || {
            for (name, path) in files_of(&root, &wanted)? {
                read_lines(&name, &path, &found).map_err(|error| naming(&path, &error))?;
                if found.is_closed() {
                    break;
                }
            }
            Ok::<_, io::Error>(())
        })
        .await;
        let unreadable = |source| ReadError {
            place: self.place(),
            source,
        };
        read.map_err(|panic| unreadable(panic.into()))?
            .map_err(|error| unreadable(error.into()))
    }
}

/// The wanted files, in the order of their events.
fn files_of(root: &Path, wanted: &Wanted) -> io::Result<Vec<(FileName, PathBuf)>> {
    let stream = root.join(wanted.stream.name());
    let mut files = Vec::new();
    if !stream.exists() && root.is_dir() {
        return Ok(files); // nothing of this stream was ever written
    }
    for topic in entries(&stream)?.into_iter().filter(|path| path.is_dir()) {
        for partition in entries(&topic)?.into_iter().filter(|path| path.is_dir()) {
            for path in entries(&partition)? {
                let below = path.strip_prefix(root).ok().and_then(Path::to_str);
                let name = below.and_then(|path| FileName::parse(path, wanted.stream));
                match name {
                    Some(name) if wanted.includes(&name.topic, name.partition, &name.day) => {
                        files.push((name, path));
                    }
                    _ => {}
                }
            }
        }
    }
    files.sort();
    Ok(files)
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::read_dir(folder)
        .map_err(|error| naming(folder, &error))?
        .map(|entry| Ok(entry?.path()))
        .collect()
}

fn read_lines(name: &FileName, path: &Path, found: &mpsc::Sender<Found>) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        // A line without its end was never acknowledged.
        if reader.read_until(b'\n', &mut text)? == 0 || text.last() != Some(&b'\n') {
            break;
        }
        let event = Found {
            at: format!("{}:{number}", path.display()),
            day: name.day.clone(),
            json: String::from_utf8_lossy(&text[..text.len() - 1]).into_owned(),
        };
        if found.blocking_send(event).is_err() {
            break;
        }
    }
    Ok(())
}

fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Appends the lines that are past the file's last one; gives their number.
fn append(path: &Path, lines: &[Line]) -> io::Result<usize> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let is_new = !path.exists();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    lock(&file)?;
    let (end, last) = whole_lines(&mut file)?;
    let fresh = lines
        .iter()
        .filter(|line| last.is_none_or(|last| line.position > last));
    let mut text = Vec::new();
    let mut count = 0;
    for line in fresh {
        text.extend_from_slice(line.text.as_bytes());
        text.push(b'\n');
        count += 1;
    }
    if count > 0 {
        fail::fail_point!("record::file::before-write");
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        file.write_all(&text)?;
        file.sync_data()?;
        if is_new {
            sync_folders(folder)?;
        }
    }
    Ok(count)
}

fn lock(file: &File) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_WAIT => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "another process holds it",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Where the last whole line ends, and the position it holds.
fn whole_lines(file: &mut File) -> io::Result<(u64, Option<(u32, i64)>)> {
    let length = file.metadata()?.len();
    let mut tail = Vec::new();
    // A line is some hundred bytes, but a dead letter holds its message: the look-back grows until a
    // whole line is in it.
    let mut reach = 16 * 1024;
    loop {
        let start = length.saturating_sub(reach);
        tail.resize(usize::try_from(length - start).unwrap_or(usize::MAX), 0);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut tail)?;
        if let Tail::Found(end, position) = read_tail(&tail, start == 0) {
            return Ok((start + end as u64, position));
        }
        reach *= 8;
    }
}

/// Makes the names durable: a new file's entry lies in its folder, a new folder's in its own.
fn sync_folders(folder: &Path) -> io::Result<()> {
    for ancestor in folder
        .ancestors()
        .take(4)
        .filter(|path| !path.as_os_str().is_empty())
    {
        File::open(ancestor)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::super::lines::position_of;
    use super::super::{Data, DeadLetterData, Place, RecordId, Stream};
    use super::*;

    pub(in super::super) fn event(offset: i64, detail: &str) -> Event {
        let topic: Arc<str> = Arc::from("metrics");
        let id = RecordId {
            topic: Arc::clone(&topic),
            epoch: 0,
            partition: 3,
            offset,
        };
        let data = DeadLetterData {
            reason: "late",
            detail: detail.to_owned(),
            series: None,
            place: Place {
                topic,
                partition: 3,
                offset,
                epoch: 0,
            },
            key_base64: None,
            value: None,
            value_base64: None,
            value_cut_from: None,
            broker_time_ms: None,
        };
        let broker_time_ms = Some(1_787_324_281_123);
        Event::new(
            Stream::DeadLetters,
            id,
            None,
            None,
            broker_time_ms,
            Data::DeadLetter(Box::new(data)),
        )
    }

    fn offsets(path: &Path) -> Vec<i64> {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines()
            .map(|line| position_of(line.as_bytes()).unwrap().1)
            .collect()
    }

    #[tokio::test]
    async fn a_repeated_batch_adds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let sink = FileSink::new(folder.path());
        let path = folder
            .path()
            .join("dead-letters/metrics/3/2026-08-21.jsonl");
        assert_eq!(sink.write(&[event(1, ""), event(4, "")]).await.unwrap(), 2);
        assert_eq!(
            sink.write(&[event(1, ""), event(4, ""), event(5, "")])
                .await
                .unwrap(),
            1
        );
        assert_eq!(sink.write(&[event(4, "")]).await.unwrap(), 0);
        assert_eq!(offsets(&path), [1, 4, 5]);
    }

    #[tokio::test]
    async fn a_line_that_was_cut_off_anywhere_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let sink = FileSink::new(folder.path());
        let path = folder
            .path()
            .join("dead-letters/metrics/3/2026-08-21.jsonl");
        let long = "x".repeat(20_000); // longer than the first look-back
        sink.write(&[event(1, &long), event(2, &long)])
            .await
            .unwrap();
        let whole = std::fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in [
            0,
            1,
            first / 2,
            first - 1,
            first,
            first + 1,
            first + 9_000,
            whole.len() - 1,
            whole.len(),
        ] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            sink.write(&[event(1, &long), event(2, &long), event(3, "")])
                .await
                .unwrap();
            assert_eq!(offsets(&path), [1, 2, 3], "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn an_unwritable_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("blocked");
        std::fs::write(&blocked, "a file, no folder").unwrap();
        let error = FileSink::new(&blocked)
            .write(&[event(1, "")])
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot write dead-letters to folder "),
            "{error}"
        );
    }
}
