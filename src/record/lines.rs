//! The end of a file or blob of JSON Lines: which event is its last whole one.

use super::RecordId;

/// What the last bytes of a file say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Offset within the tail at which the last whole line ends, and the position of the last event
    /// up to there; `None` where the file holds none.
    Found(usize, Option<(u32, i64)>),
    /// No whole line with an event lies in it: a longer tail must be read.
    TooShort,
}

/// Reads the tail of a file; `is_whole` when it is all of it.
pub(crate) fn read_tail(tail: &[u8], is_whole: bool) -> Tail {
    let end = tail
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let mut lines = tail[..end]
        .split_inclusive(|byte| *byte == b'\n')
        .rev()
        .peekable();
    while let Some(line) = lines.next() {
        // The first line of a tail may have begun before it.
        if lines.peek().is_none() && !is_whole {
            break;
        }
        if let Some(position) = position_of(line) {
            return Tail::Found(end, Some(position));
        }
    }
    if is_whole {
        Tail::Found(end, None)
    } else {
        Tail::TooShort
    }
}

/// The position of the event on a line.
pub(crate) fn position_of(line: &[u8]) -> Option<(u32, i64)> {
    #[derive(serde::Deserialize)]
    struct Id {
        id: String,
    }
    let event: Id = serde_json::from_slice(line).ok()?;
    RecordId::position_of(&event.id)
}
