//! Timestamps carried on: in its second round a file goes on where its first one ended.

use serde::{Deserialize, Serialize};

use crate::series::{Timestamp, Zoned};

/// What the rows so far say of the time that a file covers.
///
/// The step is that of more than half of the rows (Boyer and Moore's majority vote, which needs two
/// numbers), so that rows off the grid, repeated or missing do not spoil it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    first_micros: Option<i64>,
    newest_micros: Option<i64>,
    step_micros: i64,
    votes: u64,
}

impl Span {
    /// Takes the next row's timestamp into account.
    pub(crate) fn include(&mut self, timestamp: Timestamp) {
        let at = timestamp.micros();
        self.first_micros.get_or_insert(at);
        let Some(newest) = self.newest_micros else {
            self.newest_micros = Some(at);
            return;
        };
        let step = at.saturating_sub(newest);
        if step <= 0 {
            return;
        }
        self.newest_micros = Some(at);
        if self.votes == 0 {
            self.step_micros = step;
        }
        if self.step_micros == step {
            self.votes += 1;
        } else {
            self.votes -= 1;
        }
    }

    /// From the first row to where the first row of the next round belongs: whole steps, at least one;
    /// 0 for a file without two timestamps.
    pub(crate) fn micros(&self) -> i64 {
        match (self.first_micros, self.newest_micros) {
            (Some(first), Some(newest)) if self.step_micros > 0 => {
                let steps = (newest - first) / self.step_micros + 1;
                steps.saturating_mul(self.step_micros)
            }
            _ => 0,
        }
    }
}

/// `text` moved on by `micros`, in the form it has as far as that is one with a date, a time and at most
/// a `Z`; otherwise in ISO 8601 and UTC. What is no timestamp, or would leave the years 1 to 9999, stays
/// as it is.
pub(crate) fn carried(text: &str, micros: i64) -> String {
    if micros == 0 {
        return text.to_owned();
    }
    let Ok(Zoned { instant, .. }) = Zoned::parse(text) else {
        return text.to_owned();
    };
    let moved = instant
        .micros()
        .checked_add(micros)
        .map(|micros| Timestamp::from_micros(micros).to_string());
    // What is out of range prints as another year than it is; it does not read back.
    let Some(moved) = moved.filter(|moved| {
        Timestamp::parse(moved).is_ok_and(|read| read.micros() - instant.micros() == micros)
    }) else {
        return text.to_owned();
    };
    let has_digit_or_z = |c: char| c.is_ascii_digit() || c == 'Z';
    match text.as_bytes().get(10) {
        Some(separator @ (b' ' | b'T')) if text.len() >= 19 && text.ends_with(has_digit_or_z) => {
            // A zone other than `Z` has a sign after the time.
            if text[19..].contains(['+', '-']) {
                return moved;
            }
            let without_zone = moved.trim_end_matches('Z');
            let zone = if text.ends_with('Z') { "Z" } else { "" };
            let (date, time) = without_zone.split_at(10);
            format!("{date}{}{}{zone}", char::from(*separator), &time[1..])
        }
        _ => moved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(timestamps: &[&str]) -> i64 {
        let mut span = Span::default();
        for text in timestamps {
            span.include(Timestamp::parse(text).unwrap());
        }
        span.micros() / 1_000_000
    }

    #[test]
    fn a_span_is_whole_steps_whatever_is_off_the_grid() {
        assert_eq!(span(&[]), 0);
        assert_eq!(span(&["2014-03-01"]), 0);
        assert_eq!(
            span(&["2014-03-01", "2014-03-02", "2014-03-03"]),
            3 * 86_400
        );
        let rows = [
            "2014-03-01 00:01:00",
            "2014-03-01 00:06:00",
            "2014-03-01 00:08:17",
            "2014-03-01 00:11:00",
            "2014-03-01 00:16:00",
            "2014-03-01 00:16:00",
            "2014-03-01 00:06:00",
            "2014-03-01 00:21:00",
            "2014-03-01 00:26:00",
            "2014-03-01 00:41:00",
            "2014-03-01 00:42:00",
        ];
        assert_eq!(span(&rows), 45 * 60);
    }

    #[test]
    fn texts_keep_their_form() {
        let day = 86_400_000_000;
        let cases = [
            ("2014-03-01 17:36:00", "2014-03-02 17:36:00"),
            ("2014-03-01T17:36:00", "2014-03-02T17:36:00"),
            ("2014-03-01T17:36:00Z", "2014-03-02T17:36:00Z"),
            ("2014-03-01T17:36:00.250Z", "2014-03-02T17:36:00.250Z"),
            ("2014-02-28T23:36:00+02:00", "2014-03-01T21:36:00Z"),
            ("3/1/2014 5:36:00 PM", "2014-03-02T17:36:00Z"),
            ("2014-03-01", "2014-03-02T00:00:00Z"),
            ("2014-03-10 25:26:00", "2014-03-10 25:26:00"),
            ("", ""),
            ("9999-12-31 17:36:00", "9999-12-31 17:36:00"),
        ];
        for (text, expected) in cases {
            assert_eq!(carried(text, day), expected, "{text}");
            assert_eq!(carried(text, 0), text);
        }
    }
}
