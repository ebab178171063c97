//! Reading a request's body: within a size, within a time, and unpacked.

use std::borrow::Cow;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use futures::StreamExt;

use super::error::ApiError;
use crate::detector::{DetectError, ErrorCode};

/// Longest time for a body to arrive in full.
const ARRIVAL: Duration = Duration::from_secs(60);
/// Longest time spent on a body that is not going to be read, only taken off the connection.
const DISCARD: Duration = Duration::from_secs(10);
/// Bytes of all bodies held at once; beyond it callers are told to try again.
const ALL_BODIES: usize = 512 << 20;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// A body as it came, counted while it lives.
#[derive(Debug)]
pub(crate) struct Received {
    bytes: Vec<u8>,
    is_gzip: bool,
    limit: usize,
}

impl Received {
    /// Reads `body` to its end: at most `limit` bytes.
    pub(crate) async fn read(
        headers: &HeaderMap,
        body: Body,
        limit: usize,
    ) -> Result<Self, ApiError> {
        let is_gzip = match headers.get(header::CONTENT_ENCODING) {
            None => false,
            Some(encoding) => match encoding.to_str().unwrap_or("?").trim() {
                "" => false,
                name if name.eq_ignore_ascii_case("identity") => false,
                name if name.eq_ignore_ascii_case("gzip") => true,
                name if name.eq_ignore_ascii_case("x-gzip") => true,
                _ => {
                    discard(headers, body, limit).await;
                    return Err(ApiError::encoding());
                }
            },
        };
        if announced(headers).is_some_and(|bytes| bytes > limit as u64) {
            discard(headers, body, limit).await;
            return Err(ApiError::too_large(limit));
        }
        let mut received = Self {
            bytes: Vec::new(),
            is_gzip,
            limit,
        };
        let mut chunks = body.into_data_stream();
        let arrival = async {
            while let Some(chunk) = chunks.next().await {
                // A connection that broke: whatever is answered, nobody reads it.
                let chunk = chunk.map_err(|_| ApiError::body_late())?;
                if received.bytes.len() + chunk.len() > limit {
                    return Err(ApiError::too_large(limit));
                }
                received.hold(&chunk)?;
            }
            Ok(())
        };
        let arrived = tokio::time::timeout(ARRIVAL, arrival)
            .await
            .unwrap_or_else(|_| Err(ApiError::body_late()));
        if arrived.as_ref().is_err_and(|error| error.close) {
            drain(chunks, limit).await;
        }
        arrived.map(|()| received)
    }

    /// The body, unpacked.
    pub(crate) fn unpacked(&self) -> Result<Cow<'_, [u8]>, ApiError> {
        if !self.is_gzip {
            return Ok(Cow::Borrowed(&self.bytes));
        }
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(self.bytes.as_slice())
            .take(self.limit as u64 + 1)
            .read_to_end(&mut plain)
            .map_err(|error| {
                let text = format!("Invalid Json Format: the body is no gzip: {error}.");
                DetectError::new(ErrorCode::InvalidJsonFormat, text)
            })?;
        if plain.len() > self.limit {
            return Err(ApiError::too_large(self.limit));
        }
        Ok(Cow::Owned(plain))
    }

    fn hold(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        if HELD.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len() > ALL_BODIES {
            HELD.fetch_sub(chunk.len(), Ordering::Relaxed);
            return Err(ApiError::overloaded());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        HELD.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Takes a body off the connection that is refused unread. A client that is still writing when the
/// connection closes would see it broken, and not the answer.
pub(crate) async fn discard(headers: &HeaderMap, body: Body, limit: usize) {
    // Such a client waits for the answer before it writes.
    if !headers.contains_key(header::EXPECT) {
        drain(body.into_data_stream(), limit).await;
    }
}

async fn drain(mut chunks: axum::body::BodyDataStream, limit: usize) {
    let all = async {
        // Somewhat more than would have been read: enough for an honest mistake.
        let mut left = limit.saturating_mul(4);
        while let Some(Ok(chunk)) = chunks.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    // When the time is up the connection is closed, and that is all there is to do.
    let _ = tokio::time::timeout(DISCARD, all).await;
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
