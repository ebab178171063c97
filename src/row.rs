//! From a message's bytes to a point of a series, strictly: whatever is not clearly a row is refused
//! with a reason that a person understands. (The script that this replaces `eval`ed its messages.)

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::message::Message;
use crate::series::{Point, Timestamp};

/// Largest message that is read as a row, in bytes. A row is some fifty bytes; what is over this was
/// never one, and goes to the dead letters unparsed.
pub const MAX_ROW_BYTES: usize = 64 * 1024;

/// Longest name of a series, in bytes, so that every store can make a key of it.
pub const MAX_SERIES_BYTES: usize = 512;

/// Largest magnitude of a value that the detector takes.
const MAX_MAGNITUDE: f64 = 1e100;

/// A row: which series it belongs to, and its point.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The row's own `series`, otherwise the message key, otherwise the topic.
    pub series: Arc<str>,
    /// Timestamp and value.
    pub point: Point,
}

/// Why a message is no row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Null or empty value.
    #[error(
        "the message has no value; send a JSON object such as {{\"timestamp\": \"2014-03-01 17:36:00\", \"value\": \"42.0\"}}"
    )]
    Empty,
    /// Over [`MAX_ROW_BYTES`].
    #[error("the message has {bytes} bytes; a row has at most {MAX_ROW_BYTES}")]
    TooLarge {
        /// Size of the message value.
        bytes: usize,
    },
    /// Not JSON, or JSON but no object.
    #[error("the message is no JSON object: {0}")]
    NotJson(String),
    /// No usable timestamp.
    #[error("timestamp: {0}")]
    Timestamp(String),
    /// No usable value.
    #[error("value: {0}")]
    Value(String),
    /// No usable series name.
    #[error("series: {0}")]
    Series(String),
}

impl RowError {
    /// The reason in one word, for dead letters and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLarge { .. } => "too-large",
            Self::NotJson(_) => "not-json",
            Self::Timestamp(_) => "bad-timestamp",
            Self::Value(_) => "bad-value",
            Self::Series(_) => "bad-series",
        }
    }
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    series: Option<&'a RawValue>,
}

impl Row {
    /// Reads the row that `message` carries. Members other than `timestamp`, `value` and `series` are
    /// ignored.
    pub fn parse(message: &Message) -> Result<Self, RowError> {
        let bytes = message
            .value
            .as_deref()
            .filter(|value| !value.is_empty())
            .ok_or(RowError::Empty)?;
        if bytes.len() > MAX_ROW_BYTES {
            return Err(RowError::TooLarge { bytes: bytes.len() });
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let text =
            std::str::from_utf8(bytes).map_err(|error| RowError::NotJson(error.to_string()))?;
        if !text.trim_start().starts_with('{') {
            return Err(RowError::NotJson(format!(
                "it starts with {:?}",
                text.chars().take(12).collect::<String>()
            )));
        }
        let members: Members<'_> =
            serde_json::from_str(text).map_err(|error| RowError::NotJson(error.to_string()))?;
        let timestamp = timestamp(members.timestamp)?;
        let value = value(members.value)?;
        Ok(Self {
            series: series(members.series, message)?,
            point: Point { timestamp, value },
        })
    }
}

fn timestamp(raw: Option<&RawValue>) -> Result<Timestamp, RowError> {
    let raw = raw.ok_or_else(|| RowError::Timestamp("the member is missing".to_owned()))?;
    let text = string(raw)
        .ok_or_else(|| RowError::Timestamp(format!("{} is no string", shorten(raw.get()))))?;
    Timestamp::parse(&text)
        .map_err(|error| RowError::Timestamp(format!("{} is {error}", shorten(raw.get()))))
}

fn value(raw: Option<&RawValue>) -> Result<f64, RowError> {
    let raw = raw.ok_or_else(|| RowError::Value("the member is missing".to_owned()))?;
    let no_number = || RowError::Value(format!("{} is no number", shorten(raw.get())));
    let text = match raw.get().as_bytes().first() {
        Some(b'"') => string(raw).ok_or_else(no_number)?,
        Some(b'-' | b'0'..=b'9') => Cow::Borrowed(raw.get()),
        _ => return Err(no_number()),
    };
    let number: f64 = text.trim().parse().map_err(|_| no_number())?;
    if !number.is_finite() {
        // A number that is written out and still infinite is out of range; the words are no numbers.
        let written_out = text.bytes().any(|b| b.is_ascii_digit());
        return Err(if written_out {
            out_of_range(raw)
        } else {
            no_number()
        });
    }
    if number.abs() > MAX_MAGNITUDE {
        Err(out_of_range(raw))
    } else {
        Ok(number)
    }
}

fn out_of_range(raw: &RawValue) -> RowError {
    RowError::Value(format!(
        "{} is out of range; the largest magnitude is 1e100",
        shorten(raw.get())
    ))
}

fn series(raw: Option<&RawValue>, message: &Message) -> Result<Arc<str>, RowError> {
    let name: Cow<'_, str> = match raw {
        Some(raw) => string(raw)
            .filter(|name| !name.is_empty())
            .ok_or_else(|| RowError::Series(format!("{} is no name", shorten(raw.get()))))?,
        None => match message.key.as_deref().filter(|key| !key.is_empty()) {
            // Bytes that are no text are escaped, never replaced: two keys must not become one series.
            Some(key) => match std::str::from_utf8(key) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => Cow::Owned(key.escape_ascii().to_string()),
            },
            None => return Ok(Arc::clone(&message.topic)),
        },
    };
    if name.len() > MAX_SERIES_BYTES {
        return Err(RowError::Series(format!(
            "the name has {} bytes; at most {MAX_SERIES_BYTES} are kept",
            name.len()
        )));
    }
    Ok(Arc::from(name))
}

fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    if !text.starts_with('"') {
        return None;
    }
    if text.contains('\\') {
        return serde_json::from_str::<String>(text).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(&text[1..text.len() - 1]))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: Option<&[u8]>, value: &[u8]) -> Message {
        Message {
            topic: Arc::from("aws-cloudwatch-network"),
            partition: 0,
            offset: 7,
            broker_time_ms: None,
            key: key.map(<[u8]>::to_vec),
            value: Some(value.to_vec()),
        }
    }

    fn parse(value: &str) -> Result<Row, RowError> {
        Row::parse(&message(None, value.as_bytes()))
    }

    #[test]
    fn reads_the_tutorials_row() {
        let row = parse(r#"{"timestamp": "2014-03-01 17:36:00", "value": "42.0"}"#).unwrap();
        assert_eq!(&*row.series, "aws-cloudwatch-network");
        assert_eq!(row.point.timestamp.to_string(), "2014-03-01T17:36:00Z");
        assert_eq!(row.point.value, 42.0);
    }

    #[test]
    fn reads_numbers_and_numeric_strings() {
        for (text, value) in [
            ("42", 42.0),
            ("-4.2e1", -42.0),
            ("\" 42 \"", 42.0),
            ("\"+42\"", 42.0),
            ("\"4\\u0032\"", 42.0),
        ] {
            let row = parse(&format!(r#"{{"value":{text},"timestamp":"2014-03-01"}}"#)).unwrap();
            assert_eq!(row.point.value, value, "{text}");
        }
    }

    #[test]
    fn names_the_series_by_member_then_key_then_topic() {
        let bare = br#"{"timestamp":"2014-03-01","value":1}"#;
        let named = br#"{"timestamp":"2014-03-01","value":1,"series":"eth0"}"#;
        assert_eq!(
            &*Row::parse(&message(Some(b"host-1"), named)).unwrap().series,
            "eth0"
        );
        assert_eq!(
            &*Row::parse(&message(Some(b"host-1"), bare)).unwrap().series,
            "host-1"
        );
        assert_eq!(
            &*Row::parse(&message(Some(b""), bare)).unwrap().series,
            "aws-cloudwatch-network"
        );
        assert_eq!(
            &*Row::parse(&message(Some(b"\xff\x01"), bare))
                .unwrap()
                .series,
            "\\xff\\x01"
        );
    }

    #[test]
    fn refuses_what_is_no_row_and_says_why() {
        let cases = [
            ("", "empty"),
            ("42", "not-json"),
            ("{'timestamp': '2014-03-01'}", "not-json"),
            (r#"["timestamp"]"#, "not-json"),
            (r#"{"value":1}"#, "bad-timestamp"),
            (r#"{"timestamp":1393695360,"value":1}"#, "bad-timestamp"),
            (r#"{"timestamp":"yesterday","value":1}"#, "bad-timestamp"),
            (r#"{"timestamp":"2014-03-01"}"#, "bad-value"),
            (r#"{"timestamp":"2014-03-01","value":null}"#, "bad-value"),
            (r#"{"timestamp":"2014-03-01","value":true}"#, "bad-value"),
            (r#"{"timestamp":"2014-03-01","value":""}"#, "bad-value"),
            (r#"{"timestamp":"2014-03-01","value":"NaN"}"#, "bad-value"),
            (r#"{"timestamp":"2014-03-01","value":"inf"}"#, "bad-value"),
            (r#"{"timestamp":"2014-03-01","value":NaN}"#, "not-json"),
            (r#"{"timestamp":"2014-03-01","value":"1e999"}"#, "bad-value"),
            (r#"{"timestamp":"2014-03-01","value":1e101}"#, "bad-value"),
            (
                r#"{"timestamp":"2014-03-01","value":1,"series":""}"#,
                "bad-series",
            ),
            (
                r#"{"timestamp":"2014-03-01","value":1,"series":7}"#,
                "bad-series",
            ),
        ];
        for (text, reason) in cases {
            assert_eq!(parse(text).unwrap_err().reason(), reason, "{text}");
        }
        let long = format!(
            r#"{{"timestamp":"2014-03-01","value":1,"series":"{}"}}"#,
            "x".repeat(513)
        );
        assert_eq!(parse(&long).unwrap_err().reason(), "bad-series");
        assert_eq!(
            parse(&" ".repeat(MAX_ROW_BYTES + 1)).unwrap_err().reason(),
            "too-large"
        );
        let out_of_range = parse(r#"{"timestamp":"2014-03-01","value":"1e999"}"#).unwrap_err();
        assert_eq!(
            out_of_range.to_string(),
            "value: \"1e999\" is out of range; the largest magnitude is 1e100"
        );
    }
}
