//! Keys of entities: any series' name as a partition's, time and id as a row's.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::super::Event;

/// Longest name that is kept as it is, in UTF-16 units; the service takes keys of 512.
const MOST_UNITS: usize = 400;
/// What is kept of a longer one, in characters, before its hash.
const KEPT_CHARS: usize = 120;

/// The series' name, escaped. Events without a series lie under `!-<topic>-<partition>`, which no
/// name can become.
pub(super) fn partition_key(event: &Event) -> String {
    match &event.subject {
        None => format!("!-{}-{}", escaped(&event.id.topic), event.id.partition),
        Some(name) if name.is_empty() => "!0".to_owned(),
        Some(name) => {
            let whole = escaped(name);
            if whole.encode_utf16().count() <= MOST_UNITS {
                return whole;
            }
            let kept: String = whole.chars().take(KEPT_CHARS).collect();
            format!("{kept}!.{}", hex(&Sha256::digest(name.as_bytes())))
        }
    }
}

/// `<time>_<stream>_<topic>_<partition>_<epoch>_<offset>`: the time that decides the event's day, then
/// what makes it one event. Numbers have leading zeros, so that rows of one time are in order too.
pub(super) fn row_key(event: &Event) -> String {
    let id = &event.id;
    let time = event.filed_at().map_or_else(
        || "undated".to_owned(),
        |time| fixed_width(&time.to_string()),
    );
    format!(
        "{time}_{}_{}_{:010}_{:010}_{:019}",
        event.stream.name(),
        escaped(&id.topic),
        id.partition,
        id.epoch,
        id.offset
    )
}

/// Key of the row that goes on where the one before ends; 0 is the event's own.
pub(super) fn further(row: &str, number: usize) -> String {
    match number {
        0 => row.to_owned(),
        n => format!("{row}_{n:04}"),
    }
}

/// The day that a row is filed under.
pub(super) fn day(row: &str) -> &str {
    let time = row.split('_').next().unwrap_or(row);
    time.split('T').next().unwrap_or(time)
}

/// A timestamp's text with six digits of fraction.
fn fixed_width(time: &str) -> String {
    let time = time.trim_end_matches('Z');
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
    format!("{seconds}.{fraction:0<6}Z")
}

/// `!xx` for each byte of a character that a key may not have or that clients stumble over.
fn escaped(name: &str) -> String {
    let mut key = String::with_capacity(name.len());
    for c in name.chars() {
        let is_plain = c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '=' | '@' | ',');
        if is_plain {
            key.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                write!(key, "!{byte:02X}").expect("a string takes what is written");
            }
        }
    }
    key
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_name_has_nothing_that_a_key_may_not_have() {
        assert_eq!(escaped("host/cpu #1"), "host!2Fcpu!20!231");
        assert_eq!(escaped("Größe!%"), "Größe!21!25");
        assert_eq!(escaped("\u{85}"), "!C2!85");
    }

    #[test]
    fn times_sort_as_texts() {
        assert_eq!(
            fixed_width("2026-08-21T11:38:01Z"),
            "2026-08-21T11:38:01.000000Z"
        );
        assert_eq!(
            fixed_width("2026-08-21T11:38:01.123Z"),
            "2026-08-21T11:38:01.123000Z"
        );
        assert_eq!(
            day("2026-08-21T11:38:01.123000Z_dead-letters_a_b"),
            "2026-08-21"
        );
        assert_eq!(day("undated_dead-letters_a_b"), "undated");
    }
}
