//! Where rows come from: a file, an http(s) URL, or a blob; read as a stream from any byte on.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use azure_core::http::StatusCode;
use azure_storage_blob::BlobClient;
use azure_storage_blob::models::{BlobClientDownloadOptions, HttpRange};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use url::Url;

use crate::config::without_query;

/// The bytes of a source.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, SourceError>> + Send>>;

/// Longest wait for a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for the next bytes.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// What is read from a file at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// A place that rows come from.
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Anything behind http or https; a shared access signature is part of the URL.
    Http {
        /// The address.
        url: Url,
        /// Sends the requests.
        client: reqwest::Client,
    },
    /// A blob that is reached with the app's own credentials.
    Blob {
        /// The address, as it was given.
        url: Url,
        /// Has the credentials.
        client: Box<BlobClient>,
    },
}

/// Why a source cannot be read, by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is nothing; the name or the place has to change.
    #[error("{place} does not exist; name a csv file that does")]
    Missing {
        /// The source.
        place: String,
    },
    /// It may not be read; somebody has to change a permission or a credential.
    #[error("{place} cannot be read: {reason}; check its address, permissions and credentials")]
    Refused {
        /// The source.
        place: String,
        /// What was answered.
        reason: String,
    },
    /// It does not answer; trying again helps.
    #[error("{place} cannot be read now; try again")]
    Unavailable {
        /// The source.
        place: String,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is no such CSV; the file has to change.
    #[error("{place}, line {line}: {reason}")]
    NotCsv {
        /// The source.
        place: String,
        /// Counted from 1.
        line: u64,
        /// What is wrong and what would be right.
        reason: String,
    },
}

impl Source {
    /// The source that `text` names: a path, or an `http://` or `https://` URL. `blob` gives the client of
    /// a URL that the app has credentials for.
    ///
    /// # Errors
    /// `Refused` for a URL that is none, or of another scheme.
    pub fn parse(
        text: &str,
        blob: impl FnOnce(&Url) -> Option<BlobClient>,
    ) -> Result<Self, SourceError> {
        let Some((scheme, _)) = text.split_once("://") else {
            return Ok(Self::File(PathBuf::from(text)));
        };
        let refused = |reason: String| SourceError::Refused {
            place: without_query(text),
            reason,
        };
        if !matches!(scheme, "http" | "https") {
            return Err(refused(format!("there is no way to read {scheme}://")));
        }
        let url = Url::parse(text).map_err(|error| refused(error.to_string()))?;
        if let Some(client) = blob(&url) {
            let client = Box::new(client);
            return Ok(Self::Blob { url, client });
        }
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_DEADLINE)
            .read_timeout(READ_DEADLINE)
            .build()
            .map_err(|error| refused(error.to_string()))?;
        Ok(Self::Http { url, client })
    }

    /// Where it is, for people: no secret in it.
    pub fn place(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Http { url, .. } | Self::Blob { url, .. } => without_query(url.as_str()),
        }
    }

    /// Its length in bytes, where that costs nothing to know.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::File(path) => Some(std::fs::metadata(path).ok()?.len()),
            _ => None,
        }
    }

    /// The bytes from `offset` on; none when there are no more than that.
    pub async fn open(&self, offset: u64) -> Result<ByteStream, SourceError> {
        match self {
            Self::File(path) => self.open_file(path, offset).await,
            Self::Http { url, client } => self.open_http(url, client, offset).await,
            Self::Blob { client, .. } => self.open_blob(client, offset).await,
        }
    }

    async fn open_file(&self, path: &PathBuf, offset: u64) -> Result<ByteStream, SourceError> {
        let place = self.place();
        let mut file = tokio::fs::File::open(path)
            .await
            .map_err(|error| of_io(place.clone(), error))?;
        file.seek(std::io::SeekFrom::Start(offset))
            .await
            .map_err(|error| of_io(place.clone(), error))?;
        let chunks = futures::stream::try_unfold(file, move |mut file| {
            let place = place.clone();
            async move {
                let mut chunk = vec![0; CHUNK_BYTES];
                let read = file.read(&mut chunk).await;
                let length = read.map_err(|error| of_io(place, error))?;
                chunk.truncate(length);
                Ok((length > 0).then(|| (Bytes::from(chunk), file)))
            }
        });
        Ok(Box::pin(chunks))
    }

    async fn open_http(
        &self,
        url: &Url,
        client: &reqwest::Client,
        offset: u64,
    ) -> Result<ByteStream, SourceError> {
        let place = self.place();
        // What reqwest says names the whole URL, signature and all.
        let unavailable = |error: reqwest::Error| SourceError::Unavailable {
            place: place.clone(),
            source: error.without_url().into(),
        };
        let mut request = client.get(url.clone());
        if offset > 0 {
            request = request.header("Range", format!("bytes={offset}-"));
        }
        // The client's own limits are per step; headers have to come in good time as a whole.
        let answer = tokio::time::timeout(READ_DEADLINE, request.send())
            .await
            .map_err(|late| SourceError::Unavailable {
                place: place.clone(),
                source: late.into(),
            })?
            .map_err(unavailable)?;
        let skip = match answer.status().as_u16() {
            200 => offset,
            206 => 0,
            416 => return Ok(Box::pin(futures::stream::empty())),
            status => return Err(of_status(place, status)),
        };
        let place = place.clone();
        let chunks = answer.bytes_stream().map_err(move |error| {
            let source = error.without_url().into();
            let place = place.clone();
            SourceError::Unavailable { place, source }
        });
        Ok(without_first(Box::pin(chunks), skip))
    }

    async fn open_blob(&self, client: &BlobClient, offset: u64) -> Result<ByteStream, SourceError> {
        let place = self.place();
        let options = BlobClientDownloadOptions {
            range: (offset > 0).then(|| HttpRange::from_offset(offset)),
            ..Default::default()
        };
        let answer = match client.download(Some(options)).await {
            Ok(answer) => answer,
            Err(error) => {
                return match error.http_status() {
                    Some(StatusCode::RequestedRangeNotSatisfiable) => {
                        Ok(Box::pin(futures::stream::empty()))
                    }
                    status => Err(match status.map(u16::from) {
                        Some(status @ 400..=499) if status != 408 && status != 429 => {
                            of_status(place, status)
                        }
                        _ => SourceError::Unavailable {
                            place,
                            source: error.into(),
                        },
                    }),
                };
            }
        };
        let chunks = answer.body.map(move |chunk| {
            chunk.map_err(|error| SourceError::Unavailable {
                place: place.clone(),
                source: error.into(),
            })
        });
        Ok(Box::pin(chunks))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.place())
    }
}

/// `stream` without its first `skip` bytes: for a server that knows no ranges.
fn without_first(stream: ByteStream, skip: u64) -> ByteStream {
    if skip == 0 {
        return stream;
    }
    let rest = stream.scan(skip, |left, chunk| {
        let kept = chunk.map(|chunk| {
            let cut = usize::try_from(*left).map_or(chunk.len(), |left| left.min(chunk.len()));
            *left -= cut as u64;
            chunk.slice(cut..)
        });
        futures::future::ready(Some(kept))
    });
    Box::pin(rest)
}

fn of_io(place: String, error: std::io::Error) -> SourceError {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => SourceError::Missing { place },
        ErrorKind::PermissionDenied | ErrorKind::IsADirectory => SourceError::Refused {
            place,
            reason: error.to_string(),
        },
        _ => SourceError::Unavailable {
            place,
            source: error.into(),
        },
    }
}

fn of_status(place: String, status: u16) -> SourceError {
    match status {
        404 | 410 => SourceError::Missing { place },
        408 | 429 | 500..=599 => SourceError::Unavailable {
            place,
            source: format!("it answered {status}").into(),
        },
        _ => SourceError::Refused {
            place,
            reason: format!("it answered {status}"),
        },
    }
}
