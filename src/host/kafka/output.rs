//! The Kafka output: what the host makes messages of, handed to a producer that nobody waits for.
//!
//! As under the real host an invocation has succeeded before its messages are delivered; a failed
//! delivery is a line in the log.

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use serde_json::Value;

use crate::host::answer::OutputValue;
use crate::host::dotnet;
use crate::host::event::{Events, Level};
use crate::host::function::KafkaOutput;

/// A producer for one output binding.
pub(crate) struct Sender {
    topic: String,
    producer: ThreadedProducer<Context>,
}

/// A message to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outgoing {
    key: Option<String>,
    value: String,
    headers: Vec<(String, String)>,
}

impl Sender {
    pub(crate) fn new(output: &KafkaOutput, events: Events) -> Result<Self, KafkaError> {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &output.brokers)
            .set("linger.ms", "5")
            .set("message.timeout.ms", "300000");
        for (property, value) in &output.client {
            client.set(*property, value);
        }
        let context = Context {
            topic: output.topic.clone(),
            events,
        };
        Ok(Self {
            topic: output.topic.clone(),
            producer: client.create_with_context(context)?,
        })
    }

    /// Queues the messages of `value`; an error means that they did not get that far.
    pub(crate) fn send(&self, value: &OutputValue) -> Result<(), KafkaError> {
        for message in messages(value) {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &message.headers {
                headers = headers.insert(Header {
                    key,
                    value: Some(value),
                });
            }
            let mut record: BaseRecord<'_, String, String> = BaseRecord::to(&self.topic)
                .payload(&message.value)
                .headers(headers);
            record.key = message.key.as_ref();
            self.producer.send(record).map_err(|(error, _)| error)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

struct Context {
    topic: String,
    events: Events,
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {
        // What matters of it comes back as a failed delivery.
    }

    fn error(&self, _error: KafkaError, _reason: &str) {
        // The same.
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let text = format!(
                "a message to {} was not delivered and is lost: {error}",
                self.topic
            );
            self.events.log(Level::Error, "Host.Kafka", text);
        }
    }
}

/// The messages that the host makes of an output's value: everything passes through a collector of
/// strings.
fn messages(value: &OutputValue) -> Vec<Outgoing> {
    match value {
        OutputValue::Bytes(_) => vec![unwrapped("System.Byte[]".to_owned())],
        OutputValue::Json(Value::Array(elements)) => elements.iter().map(element).collect(),
        OutputValue::Json(other) => vec![element(other)],
        OutputValue::Text(text) => {
            let trimmed = text.trim();
            let looks_like = |open, close| trimmed.starts_with(open) && trimmed.ends_with(close);
            if !looks_like('{', '}') && !looks_like('[', ']') {
                return vec![unwrapped(text.clone())];
            }
            match serde_json::from_str(trimmed) {
                Ok(Value::Array(elements)) => elements.iter().map(element).collect(),
                Ok(object) => vec![element(&dotnet::rewritten(&object))],
                Err(_) => vec![unwrapped(text.clone())],
            }
        }
    }
}

/// One element: text unchanged, structures as indented JSON, scalars as .NET writes them.
fn element(value: &Value) -> Outgoing {
    unwrapped(match value {
        Value::Object(_) | Value::Array(_) => format!("{value:#}"),
        scalar => dotnet::scalar_text(scalar),
    })
}

/// The message that `text` describes, if it is an envelope with all six members; otherwise the text.
fn unwrapped(text: String) -> Outgoing {
    envelope(&text).unwrap_or(Outgoing {
        value: text,
        ..Outgoing::default()
    })
}

fn envelope(text: &str) -> Option<Outgoing> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let Ok(Value::Object(members)) = serde_json::from_str(text) else {
        return None;
    };
    members.get("Offset")?.as_i64()?;
    members.get("Partition")?.as_i64()?;
    members.get("Topic")?.as_str()?;
    dotnet::Date::detect(members.get("Timestamp")?.as_str()?)?;
    let key = match members.get("Key") {
        None | Some(Value::Null) => None,
        Some(Value::Object(_) | Value::Array(_)) => return None,
        Some(scalar) => Some(dotnet::scalar_text(scalar)),
    };
    let value = match members.get("Value")? {
        Value::Null | Value::Array(_) => return None,
        object @ Value::Object(_) if key.is_some() => object.to_string(),
        Value::Object(_) => return None,
        scalar => dotnet::scalar_text(scalar),
    };
    let headers = members.get("Headers")?.as_array()?.iter().map(|header| {
        let text = |name: &str| header.get(name)?.as_str().map(str::to_owned);
        Some((text("Key")?, text("Value")?))
    });
    Some(Outgoing {
        key,
        value,
        headers: headers.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(value: OutputValue) -> Vec<String> {
        messages(&value)
            .into_iter()
            .map(|message| message.value)
            .collect()
    }

    /// The table of the Kafka output, row by row.
    #[test]
    fn everything_becomes_text() {
        let json = |value| values(OutputValue::Json(value));
        let text = |text: &str| values(OutputValue::Text(text.to_owned()));
        assert_eq!(json(json!(["{\"a\":1}", "plain"])), ["{\"a\":1}", "plain"]);
        assert_eq!(json(json!([{"a": 1}])), ["{\n  \"a\": 1\n}"]);
        assert_eq!(text("plain words"), ["plain words"]);
        assert_eq!(text("{\"a\":1}"), ["{\n  \"a\": 1\n}"]);
        assert_eq!(text("[\"x\",\"y\"]"), ["x", "y"]);
        assert_eq!(text("{broken}"), ["{broken}"]);
        assert_eq!(values(OutputValue::Bytes(vec![1])), ["System.Byte[]"]);
        assert_eq!(json(json!({"a": 1})), ["{\n  \"a\": 1\n}"]);
        assert_eq!(
            json(json!([null, true, "2026-08-21T14:58:01Z"])),
            ["", "True", "08/21/2026 14:58:01"]
        );
    }

    #[test]
    fn an_envelope_is_unwrapped_only_when_whole() {
        let whole = json!({
            "Offset": 0, "Partition": 0, "Topic": "", "Timestamp": "2026-08-21T14:58:02Z",
            "Key": "host-1", "Value": "{\"value\":1.5}", "Headers": [{"Key": "trace", "Value": "abc"}],
        });
        let message = unwrapped(whole.to_string());
        assert_eq!(message.key.as_deref(), Some("host-1"));
        assert_eq!(message.value, "{\"value\":1.5}");
        assert_eq!(message.headers, [("trace".to_owned(), "abc".to_owned())]);
        for (name, value) in [
            ("Timestamp", json!("soon")),
            ("Partition", json!("0")),
            ("Value", Value::Null),
            ("Headers", json!([{"Key": "trace", "Value": null}])),
        ] {
            let mut broken = whole.clone();
            broken[name] = value;
            let text = broken.to_string();
            assert_eq!(unwrapped(text.clone()).value, text);
        }
        let mut short = whole;
        short.as_object_mut().unwrap().remove("Offset");
        assert_eq!(unwrapped(short.to_string()).key, None);
    }
}
