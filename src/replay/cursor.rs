//! How far a replay has come: a small document beside the windows.
//!
//! One tick at a time sends. Before it sends it *claims* the cursor by a conditional save, and with the
//! save that moves the cursor on it gives the claim up; an instance that ticks meanwhile finds the claim,
//! or loses the save, and sends nothing. A tick that died between the two leaves its claim behind, which
//! runs out: then its rows are sent again. So each row is sent at least once, never skipped, and a row
//! that was sent twice carries the same timestamp, key and [`ROW_HEADER`](super::producer::ROW_HEADER).

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::carry::Span;
use super::rows::{Columns, CsvRow, RowPlace};
use crate::series::{MICROS_PER_SECOND, Timestamp};
use crate::store::{StoreError, Tag, WindowStore};

/// Seconds that a claim holds: the producer's deadline twice, and then some for the store.
const CLAIM_SECONDS: i64 = 90;

/// Where a replay stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Rows sent since the top of the file.
    pub(crate) rows: u64,
    /// Times round before this one.
    pub(crate) rounds: u64,
    /// The row sent last.
    pub(crate) last: Option<LastRow>,
    /// What the rows so far say of the file's span.
    pub(crate) span: Span,
    /// How far the timestamps of this round are carried on, in microseconds.
    pub(crate) carried_micros: i64,
}

/// The row sent last: the next one is below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastRow {
    pub(crate) place: RowPlace,
    pub(crate) columns: Columns,
    /// Tells whether the file is still the one it was.
    pub(crate) fingerprint: u32,
}

/// The stored form.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    version: u32,
    /// For people who look into the store.
    source: String,
    topic: String,
    position: Position,
    /// Who sends, and until when, in microseconds since 1970.
    claim: Option<Claim>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    until_micros: i64,
    /// Makes every save another document, even by a clock that stands still.
    by: String,
}

/// The version of the stored form.
const VERSION: u32 = 1;

/// The cursor of one source and topic.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    store: Arc<dyn WindowStore>,
    name: String,
    source: String,
    topic: String,
}

/// A cursor that nobody else moves for now.
pub(crate) struct Claimed<'a> {
    cursor: &'a Cursor,
    tag: Tag,
}

/// What a load found.
pub(crate) enum Found {
    /// Where the replay stands, and what a claim has to name.
    Free(Position, Option<Tag>),
    /// Another tick is sending.
    Taken,
}

/// Why the cursor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else wrote it, or a later version.
    #[error(
        "the replay's cursor {name} in {place} is unreadable: {reason}; remove it to begin from the top"
    )]
    Unreadable {
        /// Name of the document.
        name: String,
        /// The store.
        place: String,
        /// What is wrong.
        reason: String,
    },
}

impl Position {
    /// The position after `row` was sent.
    pub(crate) fn after(&self, row: &CsvRow, columns: Columns) -> Self {
        let mut span = self.span;
        if let Ok(timestamp) = Timestamp::parse(&row.timestamp) {
            span.include(timestamp);
        }
        Self {
            rows: self.rows + 1,
            rounds: self.rounds,
            last: Some(LastRow {
                place: row.place,
                columns,
                fingerprint: row.fingerprint(),
            }),
            span,
            carried_micros: self.carried_micros,
        }
    }

    /// The top of the file, once more.
    pub(crate) fn next_round(&self) -> Self {
        Self {
            rounds: self.rounds + 1,
            carried_micros: self.carried_micros.saturating_add(self.span.micros()),
            ..Self::default()
        }
    }
}

impl Cursor {
    /// The cursor of what is sent from `source` (no secret in it) to `topic`.
    pub(crate) fn new(store: Arc<dyn WindowStore>, source: &str, topic: &str) -> Self {
        let digest = Sha256::digest(format!("{source}\n{topic}"));
        let hex: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
        Self {
            store,
            name: format!("replay-{hex}"),
            source: source.to_owned(),
            topic: topic.to_owned(),
        }
    }

    /// What it is called in the store, for people.
    pub(crate) fn place(&self) -> String {
        format!("{} in {}", self.name, self.store.place())
    }

    /// Where the replay stands, unless another tick is sending at the time `now`.
    pub(crate) async fn load(&self, now: Timestamp) -> Result<Found, CursorError> {
        let Some((bytes, tag)) = self.store.document(&self.name).await? else {
            return Ok(Found::Free(Position::default(), None));
        };
        let unreadable = |reason| CursorError::Unreadable {
            name: self.name.clone(),
            place: self.store.place(),
            reason,
        };
        let document: Document =
            serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        if document.version != VERSION {
            return Err(unreadable(format!(
                "it has version {}, this program knows {VERSION}",
                document.version
            )));
        }
        let now = now.micros();
        let longest = now.saturating_add(CLAIM_SECONDS * MICROS_PER_SECOND);
        // A claim from the future is that of a clock which went wrong.
        let is_taken = |claim: &Claim| (now..=longest).contains(&claim.until_micros);
        if document.claim.as_ref().is_some_and(is_taken) {
            return Ok(Found::Taken);
        }
        Ok(Found::Free(document.position, Some(tag)))
    }

    /// Claims the cursor from `now` on; `None` when somebody else was faster.
    pub(crate) async fn claim(
        &self,
        position: &Position,
        tag: Option<&Tag>,
        now: Timestamp,
    ) -> Result<Option<Claimed<'_>>, CursorError> {
        let claim = Claim {
            until_micros: now.micros() + CLAIM_SECONDS * MICROS_PER_SECOND,
            by: uuid::Uuid::new_v4().to_string(),
        };
        match self.save(position, Some(claim), tag).await {
            Ok(tag) => Ok(Some(Claimed { cursor: self, tag })),
            Err(CursorError::Store(StoreError::Conflict { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn save(
        &self,
        position: &Position,
        claim: Option<Claim>,
        tag: Option<&Tag>,
    ) -> Result<Tag, CursorError> {
        let document = Document {
            version: VERSION,
            source: self.source.clone(),
            topic: self.topic.clone(),
            position: position.clone(),
            claim,
        };
        let bytes =
            serde_json::to_vec_pretty(&document).map_err(|error| CursorError::Unreadable {
                name: self.name.clone(),
                place: self.store.place(),
                reason: error.to_string(),
            })?;
        Ok(self
            .store
            .put_document(&self.name, Bytes::from(bytes), tag)
            .await?)
    }
}

impl Claimed<'_> {
    /// Stores where the replay stands now, and gives the claim up.
    pub(crate) async fn finish(self, position: &Position) -> Result<(), CursorError> {
        self.cursor.save(position, None, Some(&self.tag)).await?;
        Ok(())
    }
}
