//! The body of an invocation: one rule, applied to every value by its .NET type.
//!
//! Objects are nested; everything else is a string, and, dates and bytes apart, that string has to be
//! parsed as JSON once more. The odd cases are the host's, not ours: it serializes what is no object
//! by itself and then sends the text as a JSON string.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, FixedOffset, Utc};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::dotnet;

/// A value as the host's bindings hold it. Members of objects keep their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// A bool.
    Bool(bool),
    /// Any whole number.
    Int(i64),
    /// A string.
    Text(String),
    /// A byte array.
    Bytes(Vec<u8>),
    /// A `DateTime` of kind UTC.
    DateTime(DateTime<Utc>),
    /// A `DateTimeOffset`.
    DateTimeOffset(DateTime<FixedOffset>),
    /// An array or list.
    List(Vec<Value>),
    /// Anything that serializes to a JSON object.
    Object(Vec<(String, Value)>),
    /// JSON that was parsed, such as a request's body.
    Json(serde_json::Value),
}

impl Value {
    /// A string.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// An object.
    pub fn object<K: Into<String>>(members: impl IntoIterator<Item = (K, Value)>) -> Self {
        Self::Object(members.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }

    /// The JSON text of this value alone, as Newtonsoft writes it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a value has only text keys")
    }
}

/// A value inside another one: plain JSON, bytes as base64, dates in full precision.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            Self::DateTime(time) => {
                serializer.serialize_str(&format!("{}Z", dotnet::iso(&time.naive_utc())))
            }
            Self::DateTimeOffset(time) => {
                let offset = time.format("%:z");
                serializer.serialize_str(&format!("{}{offset}", dotnet::iso(&time.naive_local())))
            }
            Self::List(elements) => {
                let mut list = serializer.serialize_seq(Some(elements.len()))?;
                for element in elements {
                    list.serialize_element(element)?;
                }
                list.end()
            }
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
            Self::Json(json) => json.serialize(serializer),
        }
    }
}

/// A value of `Data` or `Metadata`: the rule.
struct Wire<'a>(&'a Value);

impl Serialize for Wire<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Bytes(_) | Value::Object(_) | Value::Json(serde_json::Value::Object(_)) => {
                self.0.serialize(serializer)
            }
            Value::DateTime(time) => serializer.collect_str(&time.format("%Y-%m-%dT%H:%M:%S")),
            Value::DateTimeOffset(time) => {
                serializer.collect_str(&time.format("%Y-%m-%dT%H:%M:%S%:z"))
            }
            other => serializer.serialize_str(&other.to_json()),
        }
    }
}

/// What a trigger hands over, without what each attempt adds.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload {
    binding: String,
    value: Value,
    metadata: Vec<(String, Value)>,
}

/// How often a retry policy has repeated an invocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryContext {
    /// Attempts before this one.
    pub count: u64,
    /// Most attempts after the first; -1 without end.
    pub most: i64,
    /// Why the last one failed.
    pub failure: Option<String>,
}

impl Payload {
    /// The value of the trigger's binding and what the host knows beside it. When the value is text
    /// that holds a JSON object, the object's members join the metadata, as .NET strings, and win over
    /// equal names; arrays and nulls do not.
    pub fn new(
        binding: impl Into<String>,
        value: Value,
        binding_data: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Self {
        let mut metadata: Vec<(String, Value)> = binding_data
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        if let Value::Text(text) = &value {
            merge(&mut metadata, text);
        }
        Self::with_metadata(binding, value, metadata)
    }

    /// The same without merging, for a value whose members the caller has merged.
    pub fn with_metadata(
        binding: impl Into<String>,
        value: Value,
        mut metadata: Vec<(String, Value)>,
    ) -> Self {
        metadata.retain(|(name, value)| {
            *value != Value::Null && !name.to_ascii_lowercase().ends_with("trigger")
        });
        Self {
            binding: binding.into(),
            value,
            metadata,
        }
    }

    /// The body of one attempt at `function`, on one line.
    pub fn body(&self, function: &str, retry: Option<&RetryContext>) -> String {
        self.body_at(function, retry, Utc::now(), uuid::Uuid::new_v4())
    }

    /// The body with the moment and the random id of `sys` given.
    fn body_at(
        &self,
        function: &str,
        retry: Option<&RetryContext>,
        now: DateTime<Utc>,
        id: uuid::Uuid,
    ) -> String {
        let mut metadata = self.metadata.clone();
        let sys = [
            ("MethodName", Value::text(function)),
            ("UtcNow", Value::DateTime(now)),
            ("RandGuid", Value::text(id.to_string())),
        ];
        metadata.push(("sys".to_owned(), Value::object(sys)));
        if let Some(retry) = retry {
            metadata.push(("RetryContext".to_owned(), retry.value()));
        }
        let data = [(self.binding.clone(), self.value.clone())];
        let body = Body {
            data: Members(&data),
            metadata: Members(&metadata),
        };
        serde_json::to_string(&body).expect("a value has only text keys")
    }
}

impl RetryContext {
    fn value(&self) -> Value {
        let exception = self.failure.as_ref().map_or(Value::Null, |failure| {
            Value::object([
                ("ClassName", Value::text("System.Exception")),
                ("Message", Value::text(failure)),
            ])
        });
        Value::object([
            ("RetryCount", Value::Int(self.count as i64)),
            ("MaxRetryCount", Value::Int(self.most)),
            ("Exception", exception),
            ("Instance", Value::Null),
            ("State", Value::Object(Vec::new())),
        ])
    }
}

/// Puts the members of `text`, if it is a JSON object, into `metadata`.
pub(crate) fn merge(metadata: &mut Vec<(String, Value)>, text: &str) {
    if !text.trim_start().starts_with('{') {
        return;
    }
    let Ok(serde_json::Value::Object(members)) = serde_json::from_str(text) else {
        return;
    };
    for (name, value) in members {
        let value = match value {
            serde_json::Value::Null | serde_json::Value::Array(_) => continue,
            object @ serde_json::Value::Object(_) => Value::Json(object),
            scalar => Value::Text(dotnet::scalar_text(&scalar)),
        };
        match metadata.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => metadata.push((name, value)),
        }
    }
}

#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    data: Members<'a>,
    metadata: Members<'a>,
}

struct Members<'a>(&'a [(String, Value)]);

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, Wire(value))))
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn wire(value: &Value) -> serde_json::Value {
        serde_json::to_value(Wire(value)).unwrap()
    }

    /// The table of the encoding rule, row by row.
    #[test]
    fn every_type_goes_by_the_rule() {
        let time = Utc.with_ymd_and_hms(2026, 8, 21, 14, 58, 1).unwrap()
            + chrono::Duration::milliseconds(123);
        let rows = [
            (Value::Bytes(vec![1, 2]), r#""AQI=""#),
            (Value::DateTime(time), r#""2026-08-21T14:58:01""#),
            (
                Value::DateTimeOffset(time.fixed_offset()),
                r#""2026-08-21T14:58:01+00:00""#,
            ),
            (
                Value::object([("IsPastDue", Value::Bool(false))]),
                r#"{"IsPastDue":false}"#,
            ),
            (Value::text("hello"), r#""\"hello\"""#),
            (Value::text(r#"{"a":1}"#), r#""\"{\\\"a\\\":1}\"""#),
            (Value::Int(5), r#""5""#),
            (Value::Bool(true), r#""true""#),
            (Value::Null, r#""null""#),
            (
                Value::List(vec![Value::Int(0), Value::Int(1)]),
                r#""[0,1]""#,
            ),
            (
                Value::List(vec![Value::text("a"), Value::text("b")]),
                r#""[\"a\",\"b\"]""#,
            ),
            (
                Value::List(vec![Value::Bytes(vec![1, 2]), Value::Bytes(vec![])]),
                r#""[\"AQI=\",\"\"]""#,
            ),
            (
                Value::List(vec![Value::DateTime(time)]),
                r#""[\"2026-08-21T14:58:01.123Z\"]""#,
            ),
        ];
        for (value, expected) in rows {
            assert_eq!(serde_json::to_string(&Wire(&value)).unwrap(), expected);
        }
    }

    #[test]
    fn members_of_a_json_text_join_the_metadata() {
        let text = r#"{"n":5,"ok":false,"at":"2026-08-21T14:58:01.5Z","in":{"x":1},"list":[1],"no":null,"s":"plain"}"#;
        let payload = Payload::new("q", Value::text(text), [("n", Value::Int(1))]);
        let body: serde_json::Value = serde_json::from_str(&payload.body("f", None)).unwrap();
        let metadata = &body["Metadata"];
        assert_eq!(metadata["n"], "\"5\"");
        assert_eq!(metadata["ok"], "\"False\"");
        assert_eq!(metadata["at"], "\"08/21/2026 14:58:01\"");
        assert_eq!(metadata["in"], serde_json::json!({"x": 1}));
        assert_eq!(metadata["s"], "\"plain\"");
        assert!(metadata.get("list").is_none() && metadata.get("no").is_none());
    }

    #[test]
    fn nulls_and_trigger_names_stay_out_of_the_metadata() {
        let data = [
            ("Key", Value::Null),
            ("myTrigger", Value::Int(1)),
            ("x", Value::Int(1)),
        ];
        let payload = Payload::new("q", Value::Null, data);
        let body: serde_json::Value = serde_json::from_str(&payload.body("f", None)).unwrap();
        let names: Vec<&String> = body["Metadata"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["sys", "x"]);
        assert_eq!(body["Data"]["q"], "null");
    }

    #[test]
    fn a_retry_policy_shows_its_count() {
        let payload = Payload::new("q", Value::Null, []);
        let retry = RetryContext {
            count: 2,
            most: -1,
            failure: Some("store is down".to_owned()),
        };
        let body: serde_json::Value =
            serde_json::from_str(&payload.body("f", Some(&retry))).unwrap();
        let context = &body["Metadata"]["RetryContext"];
        assert_eq!(context["RetryCount"], 2);
        assert_eq!(context["MaxRetryCount"], -1);
        assert_eq!(context["Exception"]["Message"], "store is down");
        assert_eq!(context["State"], serde_json::json!({}));
        let first = serde_json::from_str::<serde_json::Value>(&payload.body(
            "f",
            Some(&RetryContext {
                most: -1,
                ..Default::default()
            }),
        ))
        .unwrap();
        assert!(first["Metadata"]["RetryContext"]["Exception"].is_null());
    }

    #[test]
    fn sys_says_when_and_which() {
        let now = Utc.with_ymd_and_hms(2026, 8, 21, 14, 58, 2).unwrap()
            + chrono::Duration::nanoseconds(447_103_200);
        let id = uuid::uuid!("4f0e3c52-3b7e-4b55-9c06-0f8d7f3f1f10");
        let body = Payload::new("q", Value::Null, []).body_at("detect", None, now, id);
        assert_eq!(
            body,
            r#"{"Data":{"q":"null"},"Metadata":{"sys":{"MethodName":"detect","UtcNow":"2026-08-21T14:58:02.4471032Z","RandGuid":"4f0e3c52-3b7e-4b55-9c06-0f8d7f3f1f10"}}}"#
        );
        assert_eq!(wire(&Value::Json(serde_json::json!([1]))), "[1]");
    }
}
