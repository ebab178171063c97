//! JSON Lines as files and blobs hold them: what a file is called, and which event is its last.

use super::{Event, RecordId, Stream};

/// `<stream>/<topic>/<partition>`: the folder that an event lies in.
pub(crate) fn folder_of(event: &Event) -> String {
    let (stream, id) = (event.stream.name(), &event.id);
    format!("{stream}/{}/{}", id.topic, id.partition)
}

/// An event's line and its place in the order of its file.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) position: (u32, i64),
    pub(crate) text: String,
}

/// The lines of `events` by the day they are filed under, still in order; a batch seldom crosses
/// midnight.
pub(crate) fn by_day(events: &[Event]) -> Result<Vec<(String, Vec<Line>)>, serde_json::Error> {
    let mut days: Vec<(String, Vec<Line>)> = Vec::new();
    for event in events {
        let day = event.day();
        let line = Line {
            position: event.id.position(),
            text: event.to_line()?,
        };
        match days.iter_mut().find(|(known, _)| *known == day) {
            Some((_, lines)) => lines.push(line),
            None => days.push((day, vec![line])),
        }
    }
    Ok(days)
}

/// What a file's path says: `<stream>/<topic>/<partition>/<day>[-<n>].jsonl`. Its order is that of
/// the events.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileName {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) day: String,
    /// Of a day's second file 1, and so on.
    pub(crate) number: u32,
}

impl FileName {
    /// Reads a path below the root; `None` for one that is no file of `stream`.
    pub(crate) fn parse(path: &str, stream: Stream) -> Option<Self> {
        let path = path.strip_prefix(stream.name())?.strip_prefix('/')?;
        let mut parts = path.rsplitn(3, '/');
        let name = parts.next()?.strip_suffix(".jsonl")?;
        let partition = parts.next()?.parse().ok()?;
        let topic = parts.next()?.to_owned();
        // A day has two dashes of its own; `undated` has none.
        let (day, number) = match name.match_indices('-').nth(2) {
            Some((at, _)) => (&name[..at], name[at + 1..].parse().ok()?),
            None => match name.strip_prefix("undated-") {
                Some(number) => ("undated", number.parse().ok()?),
                None => (name, 0),
            },
        };
        Some(Self {
            topic,
            partition,
            day: day.to_owned(),
            number,
        })
    }
}

/// The file of a day within its folder.
pub(crate) fn name_of(day: &str, number: u32) -> String {
    match number {
        0 => format!("{day}.jsonl"),
        n => format!("{day}-{n}.jsonl"),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_it_was_written() {
        for (day, number) in [
            ("2026-08-21", 0),
            ("2026-08-21", 12),
            ("undated", 0),
            ("undated", 3),
        ] {
            let path = format!("dead-letters/net-1.in/7/{}", name_of(day, number));
            let name = FileName::parse(&path, Stream::DeadLetters).unwrap();
            assert_eq!((name.topic.as_str(), name.partition), ("net-1.in", 7));
            assert_eq!((name.day.as_str(), name.number), (day, number));
            assert_eq!(FileName::parse(&path, Stream::Anomalies), None);
        }
        for path in [
            "dead-letters/a/b/2026-08-21.jsonl",
            "dead-letters/a/1/x-1-2-3-4.jsonl",
        ] {
            assert_eq!(FileName::parse(path, Stream::DeadLetters), None, "{path}");
        }
    }
}
