//! From a Kafka trigger's payload to messages, for each of its four forms: cardinality ONE or MANY,
//! `dataType` string or binary. The form is told from the payload itself, so that an operator may change
//! `function.json` without telling anyone else.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Datum, Invocation, PayloadError};
use crate::message::Message;
use crate::series::Timestamp;

/// The messages of a Kafka invocation, in the order that the host gives.
pub fn messages(invocation: &Invocation<'_>) -> Result<Vec<Message>, PayloadError> {
    let Datum::Text(text) = invocation.trigger()? else {
        return Err(PayloadError::new(
            "trigger",
            "it is an object; a Kafka trigger's value is a string",
        ));
    };
    // MANY is an array as text; ONE is a quoted envelope (string) or bare base64 (binary).
    match text.as_bytes().first() {
        Some(b'[') => many(invocation, text),
        Some(b'"' | b'{') => one_string(invocation, text).map(|message| vec![message]),
        _ => one_binary(invocation, text).map(|message| vec![message]),
    }
}

/// A message in string mode, as the Kafka extension describes it. Members that only newer extensions
/// send are optional, unknown ones ignored.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope<'a> {
    offset: i64,
    partition: i32,
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    key: Option<Value>,
}

fn one_string(invocation: &Invocation<'_>, text: &str) -> Result<Message, PayloadError> {
    // Quoted twice: the binding's value is a string that holds a JSON string that holds the envelope.
    // The documentation's samples are quoted once less, hence the early stop.
    let inner: Cow<'_, str> = if text.starts_with('"') {
        json("trigger", text)?
    } else {
        Cow::Borrowed(text)
    };
    match serde_json::from_str::<Envelope<'_>>(&inner) {
        Ok(envelope) => envelope.into_message("trigger"),
        // With a schema (Avro) there is no envelope: the text is the record, the rest is metadata.
        Err(error) if serde_json::from_str::<serde::de::IgnoredAny>(&inner).is_ok() => {
            Coordinates::of_one(invocation)
                .map_err(|_| {
                    PayloadError::new("trigger", format!("it is no Kafka envelope: {error}"))
                })?
                .message(Some(inner.into_owned().into_bytes()))
        }
        Err(error) => Err(PayloadError::new(
            "trigger",
            format!("it is no Kafka envelope: {error}"),
        )),
    }
}

fn one_binary(invocation: &Invocation<'_>, text: &str) -> Result<Message, PayloadError> {
    Coordinates::of_one(invocation)?.message(Some(decode("trigger", text)?))
}

fn many(invocation: &Invocation<'_>, text: &str) -> Result<Vec<Message>, PayloadError> {
    let elements: Vec<Cow<'_, str>> = serde_json::from_str::<Vec<Element<'_>>>(text)
        .map_err(|error| PayloadError::new("trigger", error))?
        .into_iter()
        .map(|element| element.0)
        .collect();
    // An envelope starts with a brace, which no base64 does.
    let enveloped = elements.first().is_some_and(|first| first.starts_with('{'));
    if enveloped {
        return elements
            .iter()
            .enumerate()
            .map(|(index, element)| {
                let what = format!("message {index}");
                serde_json::from_str::<Envelope<'_>>(element)
                    .map_err(|error| {
                        PayloadError::new(&what, format!("it is no Kafka envelope: {error}"))
                    })?
                    .into_message(&what)
            })
            .collect();
    }
    let coordinates = Coordinates::of_many(invocation, elements.len())?;
    std::iter::zip(elements, coordinates)
        .enumerate()
        .map(|(index, (element, coordinates))| {
            coordinates.message(Some(decode(&format!("message {index}"), &element)?))
        })
        .collect()
}

/// Borrows an array element that has no escapes.
#[derive(Deserialize)]
struct Element<'a>(#[serde(borrow)] Cow<'a, str>);

impl Envelope<'_> {
    fn into_message(self, what: &str) -> Result<Message, PayloadError> {
        // `Value` is the message's text as a JSON string: unquoted exactly once. Should a host nest the
        // payload itself, its own text is the message.
        let value = match self.value.map(RawValue::get) {
            None | Some("null") => None,
            Some(text) if text.starts_with('"') => {
                Some(json(what, text)?.into_owned().into_bytes())
            }
            Some(text) => Some(text.as_bytes().to_vec()),
        };
        Ok(Message {
            topic: Arc::from(self.topic),
            partition: self.partition,
            offset: self.offset,
            broker_time_ms: self
                .timestamp
                .as_deref()
                .map_or(Ok(None), |text| milliseconds(what, text))?,
            key: self.key.and_then(key_bytes),
            value,
        })
    }
}

/// Where a message of the binary forms stands: in the metadata, beside its bytes.
struct Coordinates {
    topic: String,
    partition: i32,
    offset: i64,
    broker_time_ms: Option<i64>,
    key: Option<Vec<u8>>,
}

impl Coordinates {
    /// ONE: `Partition` is `"0"` in binary mode and `"\"0\""` in string mode, so what is still a string
    /// after one parse is parsed again.
    fn of_one(invocation: &Invocation<'_>) -> Result<Self, PayloadError> {
        let scalar = |name: &str| -> Result<Option<Value>, PayloadError> {
            match invocation.metadata.get(name) {
                None => Ok(None),
                Some(Datum::Nested(value)) => Ok(Some(value.clone())),
                // The date of binary mode is bare text, not JSON.
                Some(Datum::Text(text)) => {
                    Ok(Some(serde_json::from_str(text).unwrap_or_else(|_| {
                        Value::String(text.clone().into_owned())
                    })))
                }
            }
        };
        let integer = |name: &str| -> Result<i64, PayloadError> {
            match scalar(name)? {
                Some(Value::Number(number)) => number.as_i64(),
                Some(Value::String(text)) => text.parse().ok(),
                _ => None,
            }
            .ok_or_else(|| {
                PayloadError::new(format!("metadata {name}"), "it is missing or no integer")
            })
        };
        let Some(Value::String(topic)) = scalar("Topic")? else {
            return Err(PayloadError::new(
                "metadata Topic",
                "it is missing or no string",
            ));
        };
        let broker_time_ms = match scalar("Timestamp")? {
            Some(Value::String(text)) => milliseconds("metadata Timestamp", &text)?,
            _ => None,
        };
        Ok(Self {
            topic,
            partition: partition(integer("Partition")?)?,
            offset: integer("Offset")?,
            broker_time_ms,
            key: scalar("Key")?.and_then(key_bytes),
        })
    }

    /// MANY: parallel arrays, each a string that holds a JSON array.
    fn of_many(invocation: &Invocation<'_>, count: usize) -> Result<Vec<Self>, PayloadError> {
        let required = |name: &'static str| {
            array(invocation, name, count)?
                .ok_or_else(|| PayloadError::new(format!("metadata {name}"), "it is missing"))
        };
        let topics = required("TopicArray")?;
        let partitions = required("PartitionArray")?;
        let offsets = required("OffsetArray")?;
        let mut times = array(invocation, "TimestampArray", count)?;
        let mut keys = array(invocation, "KeyArray", count)?;
        (0..count)
            .map(|i| {
                let integer = |value: &Value, name: &str| {
                    value.as_i64().ok_or_else(|| {
                        PayloadError::new(format!("metadata {name}[{i}]"), "it is no integer")
                    })
                };
                let time = times.as_mut().map(|times| times[i].take());
                Ok(Self {
                    topic: topics[i]
                        .as_str()
                        .ok_or_else(|| {
                            PayloadError::new(
                                format!("metadata TopicArray[{i}]"),
                                "it is no string",
                            )
                        })?
                        .to_owned(),
                    partition: partition(integer(&partitions[i], "PartitionArray")?)?,
                    offset: integer(&offsets[i], "OffsetArray")?,
                    broker_time_ms: match time {
                        Some(Value::String(text)) => {
                            milliseconds("metadata TimestampArray", &text)?
                        }
                        _ => None,
                    },
                    key: keys.as_mut().and_then(|keys| key_bytes(keys[i].take())),
                })
            })
            .collect()
    }

    fn message(self, value: Option<Vec<u8>>) -> Result<Message, PayloadError> {
        Ok(Message {
            topic: Arc::from(self.topic),
            partition: self.partition,
            offset: self.offset,
            broker_time_ms: self.broker_time_ms,
            key: self.key,
            value,
        })
    }
}

fn array(
    invocation: &Invocation<'_>,
    name: &str,
    count: usize,
) -> Result<Option<Vec<Value>>, PayloadError> {
    let what = || format!("metadata {name}");
    let values: Vec<Value> = match invocation.metadata.get(name) {
        None => return Ok(None),
        Some(Datum::Text(text)) => {
            serde_json::from_str(text).map_err(|error| PayloadError::new(what(), error))?
        }
        Some(Datum::Nested(Value::Array(values))) => values.clone(),
        Some(Datum::Nested(_)) => return Err(PayloadError::new(what(), "it is no array")),
    };
    if values.len() == count {
        Ok(Some(values))
    } else {
        Err(PayloadError::new(
            what(),
            format!("it has {} entries for {count} messages", values.len()),
        ))
    }
}

fn partition(number: i64) -> Result<i32, PayloadError> {
    i32::try_from(number)
        .map_err(|_| PayloadError::new("metadata Partition", format!("{number} is no partition")))
}

/// A key is text, or a number with `keyDataType` Int or Long.
fn key_bytes(key: Value) -> Option<Vec<u8>> {
    match key {
        Value::Null => None,
        Value::String(text) => Some(text.into_bytes()),
        other => Some(other.to_string().into_bytes()),
    }
}

/// A date-time of the payload as milliseconds since 1970; `None` for 1970 itself and before, which is
/// how a broker without timestamps shows. Merged metadata has the invariant form
/// `08/21/2026 14:58:01`, everything else ISO 8601.
fn milliseconds(what: &str, text: &str) -> Result<Option<i64>, PayloadError> {
    Timestamp::parse(text)
        .map(|timestamp| Some(timestamp.micros().div_euclid(1000)).filter(|ms| *ms > 0))
        .map_err(|error| PayloadError::new(what, format!("its timestamp {text:?} is {error}")))
}

fn json<'a>(what: &str, text: &'a str) -> Result<Cow<'a, str>, PayloadError> {
    serde_json::from_str::<Element<'a>>(text)
        .map(|element| element.0)
        .map_err(|error| PayloadError::new(what, error))
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, PayloadError> {
    STANDARD
        .decode(text)
        .map_err(|error| PayloadError::new(what, format!("it is no base64: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ROW: &str = r#"{"series":"cpu","value":1.5}"#;

    fn parse(body: &Value) -> Result<Vec<Message>, PayloadError> {
        let body = body.to_string();
        messages(&Invocation::parse(body.as_bytes()).unwrap())
    }

    fn envelope(offset: i64, partition: i32, key: Option<&str>, value: Option<&str>) -> String {
        json!({"Offset": offset, "Partition": partition, "Topic": "metrics", "Timestamp": "2026-08-21T14:58:01.123Z",
               "Value": value, "LeaderEpoch": 0, "IsPartitionEOF": false, "Key": key, "Headers": []})
        .to_string()
    }

    fn quoted(text: &str) -> String {
        Value::String(text.to_owned()).to_string()
    }

    fn expected(offset: i64, partition: i32, key: Option<&str>, value: Option<&str>) -> Message {
        Message {
            topic: Arc::from("metrics"),
            partition,
            offset,
            broker_time_ms: Some(1_787_324_281_123),
            key: key.map(|key| key.as_bytes().to_vec()),
            value: value.map(|value| value.as_bytes().to_vec()),
        }
    }

    #[test]
    fn one_string_is_quoted_twice() {
        let text = envelope(41, 0, Some("host-1"), Some(ROW));
        let wanted = vec![expected(41, 0, Some("host-1"), Some(ROW))];
        assert_eq!(
            parse(&json!({"Data": {"evt": quoted(&text)}})).unwrap(),
            wanted
        );
        // The documentation's samples are quoted once less.
        assert_eq!(parse(&json!({"Data": {"evt": text}})).unwrap(), wanted);
    }

    #[test]
    fn a_message_that_is_a_json_string_stays_one() {
        let payload = r#""{\"timestamp\":\"2014-03-01\",\"value\":1}""#;
        let text = envelope(41, 0, None, Some(payload));
        assert_eq!(
            parse(&json!({"Data": {"evt": quoted(&text)}})).unwrap(),
            [expected(41, 0, None, Some(payload))]
        );
    }

    #[test]
    fn many_string_is_an_array_of_envelopes_as_text() {
        let events = json!([
            envelope(41, 0, Some("host-1"), Some(ROW)),
            envelope(7, 1, None, None)
        ])
        .to_string();
        assert_eq!(
            parse(&json!({"Data": {"evts": events}})).unwrap(),
            [
                expected(41, 0, Some("host-1"), Some(ROW)),
                expected(7, 1, None, None)
            ]
        );
    }

    #[test]
    fn one_binary_has_its_place_in_the_metadata() {
        let metadata = json!({"Key": "\"host-1\"", "Partition": "0", "Topic": "\"metrics\"",
            "Timestamp": "2026-08-21T14:58:01", "Offset": "41", "sys": {"MethodName": "detect"}});
        let mut wanted = expected(41, 0, Some("host-1"), Some(ROW));
        wanted.broker_time_ms = Some(1_787_324_281_000);
        assert_eq!(
            parse(&json!({"Data": {"evt": STANDARD.encode(ROW)}, "Metadata": metadata})).unwrap(),
            [wanted]
        );
    }

    #[test]
    fn many_binary_has_parallel_arrays_in_the_metadata() {
        let events = json!([STANDARD.encode(ROW), ""]).to_string();
        let metadata = json!({"PartitionArray": "[0,1]", "OffsetArray": "[41,7]", "TopicArray": "[\"metrics\",\"metrics\"]",
            "TimestampArray": "[\"2026-08-21T14:58:01.123Z\",\"2026-08-21T14:58:01.123Z\"]",
            "KeyArray": "[\"host-1\",null]", "HeadersArray": "[[],[]]"});
        assert_eq!(
            parse(&json!({"Data": {"evts": events}, "Metadata": metadata})).unwrap(),
            [
                expected(41, 0, Some("host-1"), Some(ROW)),
                expected(7, 1, None, Some(""))
            ]
        );
        let short = json!({"PartitionArray": "[0]", "OffsetArray": "[41,7]", "TopicArray": "[\"metrics\",\"metrics\"]"});
        let error = parse(&json!({"Data": {"evts": events}, "Metadata": short})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the invocation's metadata PartitionArray: it has 1 entries for 2 messages"
        );
    }

    #[test]
    fn a_schema_takes_the_envelope_away() {
        let metadata = json!({"Partition": "\"3\"", "Topic": "\"metrics\"", "Timestamp": "\"08/21/2026 14:58:01\"", "Offset": "\"41\""});
        let mut wanted = expected(41, 3, None, Some(ROW));
        wanted.broker_time_ms = Some(1_787_324_281_000);
        assert_eq!(
            parse(&json!({"Data": {"evt": quoted(ROW)}, "Metadata": metadata})).unwrap(),
            [wanted]
        );
    }

    #[test]
    fn what_the_host_never_sends_is_an_error() {
        for data in [
            json!({}),
            json!({"evt": {"a": 1}}),
            json!({"evt": "!"}),
            json!({"evt": "[1]"}),
            json!({"a": "", "b": ""}),
        ] {
            assert!(
                parse(&json!({"Data": data, "Metadata": {}})).is_err(),
                "{data}"
            );
        }
    }
}
