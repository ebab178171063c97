//! Habits of .NET and Newtonsoft that show on the wire: dates found in strings, scalars as text, and
//! what counts as base64.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use chrono::{DateTime, FixedOffset, Local, NaiveDateTime, Timelike};

/// A date-time in the form of ISO 8601 without zone, its fraction only as long as needed.
pub(crate) fn iso(time: &NaiveDateTime) -> String {
    let mut text = time.format("%Y-%m-%dT%H:%M:%S").to_string();
    let ticks = time.nanosecond() % 1_000_000_000 / 100;
    if ticks > 0 {
        text.push('.');
        text.push_str(format!("{ticks:07}").trim_end_matches('0'));
    }
    text
}

/// A string that Newtonsoft takes for a date while it reads JSON.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Date {
    /// Without zone.
    Plain(NaiveDateTime),
    /// With `Z`.
    Utc(NaiveDateTime),
    /// With an offset; read as local time.
    Offset(DateTime<FixedOffset>),
}

impl Date {
    /// The date that `text` looks like.
    pub(crate) fn detect(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if !(19..=40).contains(&bytes.len()) || bytes[10] != b'T' {
            return None;
        }
        if let Some(plain) = text.strip_suffix('Z') {
            return naive(plain).map(Self::Utc);
        }
        match text[19..].find(['+', '-']) {
            None => naive(text).map(Self::Plain),
            Some(at) => {
                let (time, offset) = text.split_at(19 + at);
                naive(time)?;
                let digits = offset[1..].replace(':', "");
                let zone = match digits.len() {
                    2 => format!("{}{digits}00", &offset[..1]),
                    4 => format!("{}{digits}", &offset[..1]),
                    _ => return None,
                };
                let time = format!("{time}{zone}");
                DateTime::parse_from_str(&time, "%Y-%m-%dT%H:%M:%S%.f%z")
                    .ok()
                    .map(Self::Offset)
            }
        }
    }

    /// As `ToString` writes it under the invariant culture.
    pub(crate) fn text(self) -> String {
        let time = match self {
            Self::Plain(time) | Self::Utc(time) => time,
            Self::Offset(time) => time.with_timezone(&Local).naive_local(),
        };
        time.format("%m/%d/%Y %H:%M:%S").to_string()
    }

    /// As Newtonsoft writes it back inside JSON.
    pub(crate) fn json(self) -> String {
        match self {
            Self::Plain(time) => iso(&time),
            Self::Utc(time) => format!("{}Z", iso(&time)),
            Self::Offset(time) => {
                let local = time.with_timezone(&Local);
                format!("{}{}", iso(&local.naive_local()), local.format("%:z"))
            }
        }
    }
}

fn naive(text: &str) -> Option<NaiveDateTime> {
    // Exactly two digits each, as .NET reads them: chrono alone would take fewer.
    let digits = text.get(..19)?.bytes().enumerate().all(|(i, b)| match i {
        4 | 7 => b == b'-',
        10 => b == b'T',
        13 | 16 => b == b':',
        _ => b.is_ascii_digit(),
    });
    let fraction = &text[19..];
    let is_fraction = fraction.is_empty()
        || (fraction.len() > 1
            && fraction.starts_with('.')
            && fraction[1..].bytes().all(|b| b.is_ascii_digit()));
    if !digits || !is_fraction {
        return None;
    }
    NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()
}

/// A scalar as `ToString` writes it: `True`, `5`, dates in the American order.
pub(crate) fn scalar_text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::Bool(true) => "True".to_owned(),
        serde_json::Value::Bool(false) => "False".to_owned(),
        serde_json::Value::String(text) => {
            Date::detect(text).map_or_else(|| text.clone(), Date::text)
        }
        other => other.to_string(),
    }
}

/// JSON as it is after Newtonsoft read and wrote it: strings that look like dates are rewritten.
pub(crate) fn rewritten(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Json::String(text) => {
            Json::String(Date::detect(text).map_or_else(|| text.clone(), Date::json))
        }
        Json::Array(elements) => Json::Array(elements.iter().map(rewritten).collect()),
        Json::Object(members) => Json::Object(
            members
                .iter()
                .map(|(name, value)| (name.clone(), rewritten(value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// The bytes of a string that `Convert.FromBase64String` accepts: white space is skipped, the rest is
/// a multiple of four letters, padded.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let letters: String = text
        .chars()
        .filter(|c| !matches!(c, ' ' | '\t' | '\r' | '\n'))
        .collect();
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical);
    GeneralPurpose::new(&STANDARD, config).decode(letters).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dates_are_found_in_strings_and_written_differently() {
        let text = |text: &str| scalar_text(&json!(text));
        assert_eq!(text("2026-08-21T14:58:01Z"), "08/21/2026 14:58:01");
        assert_eq!(text("2026-08-21T14:58:01.123"), "08/21/2026 14:58:01");
        for plain in [
            "2026-08-21",
            "2026-08-21 14:58:01",
            "2026-13-21T14:58:01",
            "at 2026-08-21T14:58",
        ] {
            assert_eq!(text(plain), plain);
        }
        assert_eq!(
            rewritten(&json!({"at": ["2026-08-21T14:58:01.5000Z", "x"]})),
            json!({"at": ["2026-08-21T14:58:01.5Z", "x"]})
        );
    }

    #[test]
    fn an_offset_becomes_local_time() {
        let date = Date::detect("2026-08-21T14:58:01+02:00").unwrap();
        let Date::Offset(time) = date else {
            panic!("{date:?}")
        };
        assert_eq!(time.naive_utc().hour(), 12);
        assert_eq!(Date::detect("2026-08-21T14:58:01+0200"), Some(date));
        assert_eq!(Date::detect("2026-08-21T14:58:01+02"), Some(date));
    }

    #[test]
    fn ordinary_words_are_base64() {
        assert_eq!(base64("").unwrap(), b"");
        assert_eq!(base64("test").unwrap().len(), 3);
        assert_eq!(base64(" AQ I=\n").unwrap(), [1, 2]);
        for other in ["hello", "a", "{\"a\":1}", "te=t", "AQ"] {
            assert_eq!(base64(other), None, "{other}");
        }
    }
}
