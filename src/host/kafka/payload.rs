//! From messages to the payloads of the four forms: cardinality ONE or MANY, `dataType` string or
//! binary.

use chrono::{DateTime, Utc};

use crate::host::function::KeyType;
use crate::host::wire::{Payload, Value};

/// A message as it was consumed.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The broker's or the producer's timestamp.
    pub timestamp: DateTime<Utc>,
    /// The key, as `keyDataType` reads it; null when there is none.
    pub key: Value,
    /// The bytes; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Name and bytes of each header, in order; names may repeat.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The leader's epoch, when the client knows it.
    pub leader_epoch: Option<i32>,
}

/// The key as `key_type` reads it, or why the message is skipped.
pub fn key(bytes: Option<&[u8]>, key_type: KeyType) -> Result<Value, &'static str> {
    let number = "the key is no number of the size that keyDataType says";
    match (key_type, bytes) {
        (KeyType::Text, None) | (KeyType::Binary, None) => Ok(Value::Null),
        (KeyType::Text, Some(bytes)) => Ok(lossy(bytes)),
        (KeyType::Binary, Some(bytes)) => Ok(Value::Bytes(bytes.to_vec())),
        (KeyType::Int, Some(bytes)) => match bytes.try_into() {
            Ok(bytes) => Ok(Value::Int(i64::from(i32::from_be_bytes(bytes)))),
            Err(_) => Err(number),
        },
        (KeyType::Long, Some(bytes)) => match bytes.try_into() {
            Ok(bytes) => Ok(Value::Int(i64::from_be_bytes(bytes))),
            Err(_) => Err(number),
        },
        (KeyType::Int | KeyType::Long, None) => Err(number),
    }
}

impl Message {
    /// The payload of this message alone.
    pub fn payload(&self, binding: &str, is_binary: bool) -> Payload {
        let value = match is_binary {
            true => Value::Bytes(self.value.clone().unwrap_or_default()),
            false => Value::Text(self.envelope()),
        };
        let data = [
            ("Key", self.key.clone()),
            ("Partition", Value::Int(i64::from(self.partition))),
            ("Topic", Value::text(&self.topic)),
            ("Timestamp", Value::DateTime(self.timestamp)),
            ("Offset", Value::Int(self.offset)),
            ("Headers", self.header_list()),
            ("LeaderEpoch", self.epoch()),
            ("IsPartitionEOF", Value::Bool(false)),
        ];
        Payload::new(binding, value, data)
    }

    /// The text form: everything about the message, its value as text.
    fn envelope(&self) -> String {
        let value = self.value.as_deref().map_or(Value::Null, lossy);
        Value::object([
            ("Offset", Value::Int(self.offset)),
            ("Partition", Value::Int(i64::from(self.partition))),
            ("Topic", Value::text(&self.topic)),
            ("Timestamp", Value::DateTime(self.timestamp)),
            ("Value", value),
            ("LeaderEpoch", self.epoch()),
            ("IsPartitionEOF", Value::Bool(false)),
            ("Key", self.key.clone()),
            ("Headers", self.header_list()),
        ])
        .to_json()
    }

    fn epoch(&self) -> Value {
        self.leader_epoch
            .map_or(Value::Null, |epoch| Value::Int(i64::from(epoch)))
    }

    fn header_list(&self) -> Value {
        let header = |(name, bytes): &(String, Option<Vec<u8>>)| {
            let bytes = bytes.clone().map_or(Value::Null, Value::Bytes);
            Value::object([("Key", Value::text(name)), ("Value", bytes)])
        };
        Value::List(self.headers.iter().map(header).collect())
    }
}

/// The payload of a batch: parallel arrays, no merging.
pub fn batch_payload(messages: &[Message], binding: &str, is_binary: bool) -> Payload {
    let list = |each: &dyn Fn(&Message) -> Value| Value::List(messages.iter().map(each).collect());
    let values = list(&|message| match is_binary {
        true => Value::Bytes(message.value.clone().unwrap_or_default()),
        false => Value::Text(message.envelope()),
    });
    let data = [
        (
            "PartitionArray",
            list(&|m| Value::Int(i64::from(m.partition))),
        ),
        ("OffsetArray", list(&|m| Value::Int(m.offset))),
        ("TimestampArray", list(&|m| Value::DateTime(m.timestamp))),
        ("TopicArray", list(&|m| Value::text(&m.topic))),
        ("KeyArray", list(&|m| m.key.clone())),
        ("HeadersArray", list(&Message::header_list)),
        ("LeaderEpochArray", list(&Message::epoch)),
        ("IsPartitionEOFArray", list(&|_| Value::Bool(false))),
    ];
    Payload::new(binding, values, data)
}

/// Bytes as .NET reads UTF-8: what is none becomes U+FFFD.
fn lossy(bytes: &[u8]) -> Value {
    Value::Text(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(partition: i32, offset: i64, millis: i64, value: &str) -> Message {
        Message {
            topic: "metrics".to_owned(),
            partition,
            offset,
            timestamp: DateTime::from_timestamp_millis(1_787_324_281_000 + millis).unwrap(),
            key: Value::text("host-1"),
            value: Some(value.as_bytes().to_vec()),
            headers: vec![("trace".to_owned(), Some(b"abc".to_vec()))],
            leader_epoch: Some(0),
        }
    }

    fn one() -> Message {
        message(0, 41, 123, r#"{"series":"cpu","value":1.5}"#)
    }

    fn two() -> Message {
        Message {
            key: Value::Null,
            headers: Vec::new(),
            ..message(1, 7, 500, r#"{"series":"cpu","value":9.75}"#)
        }
    }

    /// The body without `sys`, which no two invocations share.
    fn body(payload: &Payload) -> serde_json::Value {
        let mut body: serde_json::Value =
            serde_json::from_str(&payload.body("detect", None)).unwrap();
        body["Metadata"]
            .as_object_mut()
            .unwrap()
            .remove("sys")
            .unwrap();
        body
    }

    /// Bodies of a real host, for two messages of a topic `metrics`.
    #[test]
    fn the_four_forms_are_those_of_the_host() {
        let envelope = r#""{\"Offset\":41,\"Partition\":0,\"Topic\":\"metrics\",\"Timestamp\":\"2026-08-21T14:58:01.123Z\",\"Value\":\"{\\\"series\\\":\\\"cpu\\\",\\\"value\\\":1.5}\",\"LeaderEpoch\":0,\"IsPartitionEOF\":false,\"Key\":\"host-1\",\"Headers\":[{\"Key\":\"trace\",\"Value\":\"YWJj\"}]}""#;
        let text = body(&one().payload("evt", false));
        assert_eq!(text["Data"]["evt"], envelope);
        let expected = serde_json::json!({
            "Key": "\"host-1\"",
            "Partition": "\"0\"",
            "Topic": "\"metrics\"",
            "Timestamp": "\"08/21/2026 14:58:01\"",
            "Offset": "\"41\"",
            "Headers": "[{\"Key\":\"trace\",\"Value\":\"YWJj\"}]",
            "LeaderEpoch": "\"0\"",
            "IsPartitionEOF": "\"False\"",
            "Value": "\"{\\\"series\\\":\\\"cpu\\\",\\\"value\\\":1.5}\"",
        });
        assert_eq!(text["Metadata"], expected);

        let binary = body(&one().payload("evt", true));
        assert_eq!(
            binary["Data"]["evt"],
            "eyJzZXJpZXMiOiJjcHUiLCJ2YWx1ZSI6MS41fQ=="
        );
        let expected = serde_json::json!({
            "Key": "\"host-1\"",
            "Partition": "0",
            "Topic": "\"metrics\"",
            "Timestamp": "2026-08-21T14:58:01",
            "Offset": "41",
            "Headers": "[{\"Key\":\"trace\",\"Value\":\"YWJj\"}]",
            "LeaderEpoch": "0",
            "IsPartitionEOF": "false",
        });
        assert_eq!(binary["Metadata"], expected);

        let metadata = serde_json::json!({
            "PartitionArray": "[0,1]",
            "OffsetArray": "[41,7]",
            "TimestampArray": "[\"2026-08-21T14:58:01.123Z\",\"2026-08-21T14:58:01.5Z\"]",
            "TopicArray": "[\"metrics\",\"metrics\"]",
            "KeyArray": "[\"host-1\",null]",
            "HeadersArray": "[[{\"Key\":\"trace\",\"Value\":\"YWJj\"}],[]]",
            "LeaderEpochArray": "[0,0]",
            "IsPartitionEOFArray": "[false,false]",
        });
        let batch = [one(), two()];
        let binary = body(&batch_payload(&batch, "evts", true));
        assert_eq!(
            binary["Data"]["evts"],
            "[\"eyJzZXJpZXMiOiJjcHUiLCJ2YWx1ZSI6MS41fQ==\",\"eyJzZXJpZXMiOiJjcHUiLCJ2YWx1ZSI6OS43NX0=\"]"
        );
        assert_eq!(binary["Metadata"], metadata);

        let text = body(&batch_payload(&batch, "evts", false));
        let events: Vec<String> =
            serde_json::from_str(text["Data"]["evts"].as_str().unwrap()).unwrap();
        assert_eq!(events[0], serde_json::from_str::<String>(envelope).unwrap());
        assert!(
            events[1].ends_with(r#""IsPartitionEOF":false,"Key":null,"Headers":[]}"#),
            "{}",
            events[1]
        );
        assert_eq!(text["Metadata"], metadata);
    }

    #[test]
    fn a_tombstone_is_null_as_text_and_empty_as_bytes() {
        let tombstone = Message {
            value: None,
            ..one()
        };
        let text = body(&tombstone.payload("evt", false));
        assert!(
            text["Data"]["evt"]
                .as_str()
                .unwrap()
                .contains(r#"\"Value\":null"#)
        );
        assert!(text["Metadata"].get("Value").is_none());
        assert_eq!(body(&tombstone.payload("evt", true))["Data"]["evt"], "");
    }

    #[test]
    fn keys_are_read_by_their_type() {
        assert_eq!(key(Some(b"k"), KeyType::Text), Ok(Value::text("k")));
        assert_eq!(key(None, KeyType::Text), Ok(Value::Null));
        assert_eq!(key(Some(&[0, 0, 1, 0]), KeyType::Int), Ok(Value::Int(256)));
        assert_eq!(key(Some(&[255; 8]), KeyType::Long), Ok(Value::Int(-1)));
        assert_eq!(
            key(Some(&[1, 2]), KeyType::Binary),
            Ok(Value::Bytes(vec![1, 2]))
        );
        assert!(key(None, KeyType::Int).is_err() && key(Some(b"abc"), KeyType::Long).is_err());
        let binary = Message {
            key: Value::Bytes(vec![1, 2]),
            ..one()
        };
        assert_eq!(
            body(&binary.payload("evt", true))["Metadata"]["Key"],
            "AQI="
        );
    }
}
