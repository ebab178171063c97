//! Events as JSON Lines in append blobs: `<container>/<stream>/<topic>/<partition>/<day>[-<n>].jsonl`.
//!
//! Each append is conditional on the position where the blob should end, so that what is read at its
//! end and what is appended are one step. A refused position means that somebody else appended, or that
//! our own append arrived and its acknowledgement did not: either way the end is read again, and what
//! lies there already is left out. A block is whole lines, hence no line is ever torn.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use azure_core::http::{Etag, RequestContent, StatusCode};
use azure_storage_blob::BlobContainerClient;
use azure_storage_blob::models::{
    AppendBlobClientAppendBlockOptions, AppendBlobClientCreateOptions, BlobClientDownloadOptions,
    BlobContainerClientListBlobsOptions, HttpRange,
};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::archive::{Archive, Found, ReadError, Wanted};
use super::lines::{FileName, Line, Tail, by_day, folder_of, name_of, read_tail};
use super::{Event, Sink, SinkError};
use crate::store::azure::{error_code, without_signatures};
use crate::telemetry;

/// Bytes after which an append ends and the next begins; a longer line goes alone. Services before
/// 2022-11-02 take no block above 4 MiB.
const BLOCK_BYTES: usize = 4 * 1024 * 1024;
/// How often one write may find that the blob did not end where it should.
const MOST_REFUSALS: u32 = 8;
/// First look back from the end of a blob; dead letters hold their messages, so it may have to grow.
const LOOK_BACK: u64 = 64 * 1024;

/// Writes events to a container.
pub struct BlobSink {
    container: BlobContainerClient,
    name: String,
    /// Per folder the day written last and how its blob ends. Taken out while a write is under way,
    /// so that one that fails or is dropped leaves nothing wrong behind.
    ends: Mutex<HashMap<String, (String, End)>>,
}

/// How the last blob of a day ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    /// Of a day's second blob 1, and so on.
    number: u32,
    /// Its length in bytes.
    length: u64,
    /// Position of the day's last event.
    last: Option<(u32, i64)>,
    /// Somebody else left a line without its end.
    is_torn: bool,
}

impl BlobSink {
    /// Events go to `container`, which is made when the first one comes.
    pub fn new(container: BlobContainerClient) -> Self {
        let name = container
            .url()
            .path_segments()
            .and_then(|mut segments| segments.next_back())
            .unwrap_or_default()
            .to_owned();
        Self {
            container,
            name,
            ends: Mutex::new(HashMap::new()),
        }
    }

    /// Appends the lines that are past the day's last one; gives their number.
    async fn append(&self, folder: &str, day: &str, lines: &[Line]) -> azure_core::Result<usize> {
        let known = self.lock().remove(folder);
        let mut end = known.filter(|(known, _)| known == day).map(|(_, end)| end);
        let (mut written, mut refusals) = (0, 0);
        loop {
            let mut at = match end {
                Some(end) => end,
                None => self.find_end(folder, day).await?,
            };
            let fresh = lines
                .iter()
                .filter(|line| at.last.is_none_or(|last| line.position > last));
            let Some(block) = Block::of(fresh, at.is_torn) else {
                self.lock().insert(folder.to_owned(), (day.to_owned(), at));
                return Ok(written);
            };
            let blob = format!("{folder}/{}", name_of(day, at.number));
            let length = block.bytes.len() as u64;
            fail::fail_point!("record::blob::before-append");
            end = match self.append_block(&blob, at.length, block.bytes).await {
                Ok(()) => {
                    fail::fail_point!("record::blob::after-append");
                    written += block.lines;
                    Some(End {
                        length: at.length + length,
                        last: Some(block.last),
                        is_torn: false,
                        ..at
                    })
                }
                Err(error) => match Obstacle::of(&error) {
                    Obstacle::NoBlob if at.length == 0 && refusals < MOST_REFUSALS => {
                        refusals += 1;
                        // If another writer is making it, the append's condition sorts it out.
                        self.create(&blob).await?;
                        Some(at)
                    }
                    Obstacle::Full => {
                        tracing::info!(blob, "append blob has all its blocks; the next one begins");
                        at.number += 1;
                        at.length = 0;
                        at.is_torn = false;
                        Some(at)
                    }
                    Obstacle::Moved | Obstacle::NoBlob if refusals < MOST_REFUSALS => {
                        refusals += 1;
                        None
                    }
                    _ => return Err(error),
                },
            };
        }
    }

    async fn append_block(
        &self,
        blob: &str,
        position: u64,
        bytes: Vec<u8>,
    ) -> azure_core::Result<()> {
        let length = bytes.len() as u64;
        let options = AppendBlobClientAppendBlockOptions {
            append_position: Some(i64::try_from(position).unwrap_or(i64::MAX)),
            ..Default::default()
        };
        self.container
            .blob_client(blob)
            .append_blob_client()
            .append_block(RequestContent::from(bytes), length, Some(options))
            .await
            .map(drop)
    }

    async fn create(&self, blob: &str) -> azure_core::Result<()> {
        let options = || AppendBlobClientCreateOptions {
            if_none_match: Some(Etag::from("*")),
            blob_content_type: Some("application/x-ndjson; charset=utf-8".to_owned()),
            ..Default::default()
        };
        let client = self.container.blob_client(blob).append_blob_client();
        let mut made = client.create(Some(options())).await.map(drop);
        if made
            .as_ref()
            .is_err_and(|error| error_code(error) == Some("ContainerNotFound"))
        {
            allow(self.container.create(None).await, "ContainerAlreadyExists")?;
            made = client.create(Some(options())).await.map(drop);
        }
        allow(made, "BlobAlreadyExists")
    }

    /// Finds the last blob of a day and reads its end.
    async fn find_end(&self, folder: &str, day: &str) -> azure_core::Result<End> {
        let mut numbers: Vec<(u32, u64)> = self
            .list(&format!("{folder}/{day}"))
            .await?
            .into_iter()
            .filter_map(|(path, length)| {
                let name = path.strip_prefix(folder)?.strip_prefix('/')?;
                let rest = name.strip_prefix(day)?.strip_suffix(".jsonl")?;
                match rest.strip_prefix('-') {
                    Some(number) => Some((number.parse().ok()?, length)),
                    None => rest.is_empty().then_some((0, length)),
                }
            })
            .collect();
        numbers.sort_unstable();
        let mut end = End {
            number: numbers.last().map_or(0, |(number, _)| *number),
            length: numbers.last().map_or(0, |(_, length)| *length),
            last: None,
            is_torn: false,
        };
        // A blob may be made and still empty: then the one before it has the last event.
        for (number, length) in numbers.into_iter().rev() {
            let blob = format!("{folder}/{}", name_of(day, number));
            let (last, is_torn) = self.read_end(&blob, length).await?;
            end.is_torn |= is_torn && number == end.number;
            if last.is_some() {
                end.last = last;
                break;
            }
        }
        Ok(end)
    }

    /// Position of the last event of a blob of `length` bytes, and whether a torn line follows it.
    async fn read_end(
        &self,
        blob: &str,
        length: u64,
    ) -> azure_core::Result<(Option<(u32, i64)>, bool)> {
        if length == 0 {
            return Ok((None, false));
        }
        let mut reach = LOOK_BACK;
        loop {
            let start = length.saturating_sub(reach);
            let options = BlobClientDownloadOptions {
                range: Some(HttpRange::new(start, length - start)),
                ..Default::default()
            };
            let client = self.container.blob_client(blob);
            let tail = client.download(Some(options)).await?.body.collect().await?;
            if let Tail::Found(end, last) = read_tail(&tail, start == 0) {
                return Ok((last, end < tail.len()));
            }
            reach = reach.saturating_mul(8);
        }
    }

    /// Names and lengths of the blobs whose name begins with `prefix`; none when there is no container.
    async fn list(&self, prefix: &str) -> azure_core::Result<Vec<(String, u64)>> {
        let options = BlobContainerClientListBlobsOptions {
            prefix: Some(prefix.to_owned()),
            ..Default::default()
        };
        let mut blobs = Vec::new();
        let mut pages = self.container.list_blobs(Some(options))?;
        loop {
            match pages.try_next().await {
                Ok(Some(blob)) => {
                    let length = blob.properties.and_then(|p| p.content_length);
                    if let (Some(name), Some(length)) = (blob.name, length) {
                        blobs.push((name, length));
                    }
                }
                Ok(None) => return Ok(blobs),
                Err(error) if error_code(&error) == Some("ContainerNotFound") => return Ok(blobs),
                Err(error) => return Err(error),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (String, End)>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Sink for BlobSink {
    async fn write(&self, events: &[Event]) -> Result<usize, SinkError> {
        let Some(first) = events.first() else {
            return Ok(0);
        };
        let stream = first.stream.name();
        let folder = folder_of(first);
        let days = by_day(events).map_err(|error| SinkError::Refused {
            stream,
            place: self.place(),
            source: error.into(),
        })?;
        let mut written = 0;
        for (day, lines) in days {
            written += self
                .append(&folder, &day, &lines)
                .await
                .map_err(|error| SinkError::of_azure(stream, self.place(), error))?;
        }
        Ok(written)
    }

    fn place(&self) -> String {
        format!("container {}", self.name)
    }
}

#[async_trait]
impl Archive for BlobSink {
    async fn read(&self, wanted: &Wanted, found: mpsc::Sender<Found>) -> Result<(), ReadError> {
        let unreadable = |error: azure_core::Error| ReadError {
            place: self.place(),
            source: without_signatures(&telemetry::one_line(&error)).into(),
        };
        let stream = wanted.stream.name();
        let prefix = match &wanted.topic {
            Some(topic) => format!("{stream}/{topic}/"),
            None => format!("{stream}/"),
        };
        let mut blobs: Vec<(FileName, String)> = self
            .list(&prefix)
            .await
            .map_err(unreadable)?
            .into_iter()
            .filter_map(|(path, _)| Some((FileName::parse(&path, wanted.stream)?, path)))
            .filter(|(name, _)| wanted.includes(&name.topic, name.partition, &name.day))
            .collect();
        blobs.sort();
        for (name, path) in blobs {
            if !self
                .read_lines(&name, &path, &found)
                .await
                .map_err(unreadable)?
            {
                break;
            }
        }
        Ok(())
    }
}

impl BlobSink {
    /// Sends the lines of a blob; `false` when nobody receives any more.
    async fn read_lines(
        &self,
        name: &FileName,
        path: &str,
        found: &mpsc::Sender<Found>,
    ) -> azure_core::Result<bool> {
        let mut body = self.container.blob_client(path).download(None).await?.body;
        let mut text: Vec<u8> = Vec::new();
        let mut number = 0;
        while let Some(piece) = body.next().await {
            text.extend_from_slice(&piece?);
            let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else {
                continue;
            };
            let rest = text.split_off(end + 1);
            for line in text[..end].split(|byte| *byte == b'\n') {
                number += 1;
                let event = Found {
                    at: format!("{}/{path}:{number}", self.name),
                    day: name.day.clone(),
                    json: String::from_utf8_lossy(line).into_owned(),
                };
                if found.send(event).await.is_err() {
                    return Ok(false);
                }
            }
            text = rest;
        }
        Ok(true)
    }
}

impl fmt::Debug for BlobSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobSink")
            .field("container", &self.name)
            .finish_non_exhaustive()
    }
}

/// What one append writes: whole lines, at least one.
struct Block {
    bytes: Vec<u8>,
    lines: usize,
    last: (u32, i64),
}

impl Block {
    fn of<'a>(lines: impl Iterator<Item = &'a Line>, after_torn: bool) -> Option<Self> {
        let mut block: Option<Self> = None;
        for line in lines {
            let block = match &mut block {
                Some(block) if block.bytes.len() + line.text.len() >= BLOCK_BYTES => break,
                Some(block) => block,
                None => block.insert(Self {
                    // A foreign torn line becomes a line of its own, which readers pass over.
                    bytes: if after_torn { vec![b'\n'] } else { Vec::new() },
                    lines: 0,
                    last: line.position,
                }),
            };
            block.bytes.extend_from_slice(line.text.as_bytes());
            block.bytes.push(b'\n');
            block.lines += 1;
            block.last = line.position;
        }
        block
    }
}

/// What a refused append means.
enum Obstacle {
    /// The blob does not end where it should.
    Moved,
    /// There is no such blob, or no container.
    NoBlob,
    /// It has as many blocks as a blob can have.
    Full,
    Other,
}

impl Obstacle {
    fn of(error: &azure_core::Error) -> Self {
        match error_code(error) {
            Some("AppendPositionConditionNotMet") => Self::Moved,
            Some("BlobNotFound" | "ContainerNotFound") => Self::NoBlob,
            Some("BlockCountExceedsLimit") => Self::Full,
            // A proxy may drop the code.
            _ if error.http_status() == Some(StatusCode::PreconditionFailed) => Self::Moved,
            _ => Self::Other,
        }
    }
}

/// Takes an error with `harmless` as success.
fn allow<T>(made: azure_core::Result<T>, harmless: &str) -> azure_core::Result<()> {
    match made {
        Ok(_) => Ok(()),
        Err(error) if error_code(&error) == Some(harmless) => Ok(()),
        Err(error) => Err(error),
    }
}
