//! What the host makes of a handler's answer.

use serde_json::{Map, Value};

use super::dotnet;
use super::function::{Function, Output};

/// An answer as it came over HTTP, redirects followed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    /// The status.
    pub(crate) status: u16,
    /// The content type, when there was one.
    pub(crate) content_type: Option<String>,
    /// Whether its length was announced, which an empty chunked body lacks.
    pub(crate) has_length: bool,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// What becomes of the invocation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It succeeded.
    Success(Answer),
    /// The host waits on until the function times out, for this reason.
    Never(&'static str),
    /// It failed, for this reason.
    Failure(String),
}

/// A successful answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// Values by name of the output binding; `None` when the answer had no `Outputs` at all.
    pub outputs: Option<Map<String, Value>>,
    /// Lines for the log of the invocation.
    pub logs: Vec<String>,
    /// The value for an output called `$return`.
    pub return_value: Value,
}

/// A value on its way to an output binding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OutputValue {
    /// A string that happened to be base64.
    Bytes(Vec<u8>),
    /// A string, dates rewritten.
    Text(String),
    /// Anything else.
    Json(Value),
}

/// Judges an answer of `function`. `strict` makes failures of what the host would quietly misread: an
/// empty body, an output that no binding has, text that would be taken for base64.
pub(crate) fn judge(response: &Response, function: &Function, strict: bool) -> Verdict {
    if !(200..300).contains(&response.status) {
        return Verdict::Failure(format!("the handler answered {}", response.status));
    }
    let is_empty = response.body.iter().all(u8::is_ascii_whitespace);
    let is_json = response.content_type.as_deref().is_some_and(is_json_type);
    if is_empty && (response.has_length || is_json) {
        return never("the body is empty", strict);
    }
    match &response.content_type {
        None => return Verdict::Failure("the answer has no content type".to_owned()),
        Some(other) if !is_json => {
            return Verdict::Failure(format!("the content type is {other}, not application/json"));
        }
        Some(_) => {}
    }
    let parsed = match decoded(response) {
        Ok(text) => serde_json::from_str(text.trim_start_matches('\u{feff}')),
        Err(reason) => return Verdict::Failure(reason),
    };
    let members = match parsed {
        Ok(Value::Null) => return never("the body is null", strict),
        Ok(Value::Object(members)) => members,
        Ok(_) => return Verdict::Failure("the body is no JSON object".to_owned()),
        Err(error) => return Verdict::Failure(format!("the body is no JSON: {error}")),
    };
    match read(members).and_then(|answer| match strict {
        true => strictly(answer, function),
        false => Ok(answer),
    }) {
        Ok(answer) => Verdict::Success(answer),
        Err(reason) => Verdict::Failure(reason),
    }
}

impl Answer {
    /// The value for the output binding `output`, converted as the host does; `None` when the answer
    /// has none, or null.
    pub(crate) fn output(&self, output: &Output, has_return: bool) -> Option<OutputValue> {
        let value = match (output.name.as_str(), &self.return_value) {
            ("$return", value) => value,
            // Without a binding `$return` the members of an object join the outputs, as they are.
            (name, Value::Object(members)) if !has_return && members.contains_key(name) => {
                return Some(OutputValue::Json(members[name].clone()));
            }
            (name, _) => self.outputs.as_ref()?.get(name)?,
        };
        match value {
            Value::Null => None,
            Value::String(text) if !output.is_binary => match dotnet::base64(text) {
                Some(bytes) => Some(OutputValue::Bytes(bytes)),
                None => Some(OutputValue::Text(dotnet::scalar_text(value))),
            },
            Value::String(_) => Some(OutputValue::Text(dotnet::scalar_text(value))),
            other => Some(OutputValue::Json(dotnet::rewritten(other))),
        }
    }
}

fn never(reason: &'static str, strict: bool) -> Verdict {
    match strict {
        true => Verdict::Failure(format!(
            "{reason}; a real host would wait until the function times out"
        )),
        false => Verdict::Never(reason),
    }
}

/// Whether the host has a JSON formatter for this content type; parameters do not matter.
fn is_json_type(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    ["application/json", "text/json"]
        .iter()
        .any(|json| media.eq_ignore_ascii_case(json))
}

/// The body as text: UTF-8, or UTF-16 when the content type says so.
fn decoded(response: &Response) -> Result<String, String> {
    let content_type = response.content_type.as_deref().unwrap_or_default();
    if content_type.to_ascii_lowercase().contains("charset=utf-16") {
        let (units, rest) = response.body.as_chunks::<2>();
        let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        return match (rest, String::from_utf16(&units)) {
            ([], Ok(text)) => Ok(text),
            _ => Err("the body is no UTF-16".to_owned()),
        };
    }
    Ok(String::from_utf8_lossy(&response.body).into_owned())
}

/// Reads the three members, whose names are matched without regard to case.
fn read(members: Map<String, Value>) -> Result<Answer, String> {
    let mut answer = Answer::default();
    for (name, value) in members {
        match name.to_ascii_lowercase().as_str() {
            "outputs" => match value {
                Value::Null => {}
                Value::Object(outputs) => answer.outputs = Some(outputs),
                _ => return Err("`Outputs` is no object".to_owned()),
            },
            "logs" => answer.logs = logs(value)?,
            "returnvalue" => answer.return_value = value,
            _ => {}
        }
    }
    Ok(answer)
}

fn logs(value: Value) -> Result<Vec<String>, String> {
    let lines = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(lines) => lines,
        _ => return Err("`Logs` is no array".to_owned()),
    };
    lines
        .iter()
        .map(|line| match line {
            Value::Array(_) | Value::Object(_) => {
                Err("`Logs` holds something that is no text".to_owned())
            }
            scalar => Ok(dotnet::scalar_text(scalar)),
        })
        .collect()
}

fn strictly(answer: Answer, function: &Function) -> Result<Answer, String> {
    for (name, value) in answer.outputs.iter().flatten() {
        let Some(output) = function.outputs.iter().find(|output| output.name == *name) else {
            return Err(format!(
                "the output {name:?} has no binding; a real host would drop it"
            ));
        };
        if let Value::String(text) = value
            && !output.is_binary
            && dotnet::base64(text).is_some()
        {
            return Err(format!(
                "the output {name:?} is text that a real host would decode as base64"
            ));
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::host::function::{Target, TimerTrigger, Trigger};

    fn function() -> Function {
        let output = |name: &str, is_binary| Output {
            name: name.to_owned(),
            target: Target::Http,
            is_binary,
        };
        Function {
            name: "f".to_owned(),
            folder: Default::default(),
            binding: "tick".to_owned(),
            trigger: Trigger::Timer(TimerTrigger {
                schedule: "00:05:00".parse().unwrap(),
                run_on_startup: false,
                use_monitor: false,
            }),
            outputs: vec![output("alerts", false), output("raw", true)],
            retry: None,
            json: Value::Null,
        }
    }

    fn answer(status: u16, content_type: &str, body: &str) -> Response {
        Response {
            status,
            content_type: (!content_type.is_empty()).then(|| content_type.to_owned()),
            has_length: true,
            body: body.as_bytes().to_vec(),
        }
    }

    fn verdict(response: &Response) -> Verdict {
        judge(response, &function(), false)
    }

    const JSON: &str = "application/json";

    #[test]
    fn an_object_of_the_right_type_is_a_success() {
        let success = Verdict::Success(Answer::default());
        assert_eq!(verdict(&answer(200, JSON, "{}")), success);
        assert_eq!(
            verdict(&answer(204, "Application/JSON; charset=utf-8", "{}")),
            success
        );
        assert_eq!(
            verdict(&answer(200, "text/json", "{\"unknown\": 1}")),
            success
        );
    }

    #[test]
    fn nothing_hangs_the_invocation() {
        for (content_type, body) in [("", ""), (JSON, ""), (JSON, "null"), ("text/plain", "")] {
            let response = answer(200, content_type, body);
            assert!(
                matches!(verdict(&response), Verdict::Never(_)),
                "{response:?}"
            );
            let strictly = judge(&response, &function(), true);
            assert!(matches!(strictly, Verdict::Failure(_)), "{response:?}");
        }
        let chunked = |content_type| Response {
            has_length: false,
            ..answer(200, content_type, "")
        };
        assert!(matches!(verdict(&chunked(JSON)), Verdict::Never(_)));
        assert!(matches!(verdict(&chunked("")), Verdict::Failure(_)));
    }

    #[test]
    fn everything_else_is_a_failure() {
        for (status, content_type, body) in [
            (500, JSON, "{}"),
            (404, JSON, "{}"),
            (302, JSON, "{}"),
            (200, "", "{}"),
            (200, "text/plain", "{}"),
            (200, "application/problem+json", "{}"),
            (200, JSON, "[]"),
            (200, JSON, "{"),
            (200, JSON, "\"text\""),
            (200, JSON, "{\"Logs\": \"line\"}"),
            (200, JSON, "{\"Logs\": [{}]}"),
            (200, JSON, "{\"Outputs\": []}"),
        ] {
            let response = answer(status, content_type, body);
            assert!(
                matches!(verdict(&response), Verdict::Failure(_)),
                "{response:?}"
            );
        }
    }

    #[test]
    fn members_are_found_in_any_case_and_outputs_only_in_theirs() {
        let body = json!({"outputs": {"Alerts": ["x"]}, "LOGS": ["a", 1, true]}).to_string();
        let Verdict::Success(answer) = verdict(&answer(200, JSON, &body)) else {
            panic!("no success");
        };
        assert_eq!(answer.logs, ["a", "1", "True"]);
        assert_eq!(answer.output(&function().outputs[0], false), None);
    }

    #[test]
    fn strings_are_taken_for_base64_and_dates() {
        let converted = |value: Value, which: usize| {
            let outputs = json!({"alerts": value, "raw": value});
            let answer = Answer {
                outputs: outputs.as_object().cloned(),
                ..Answer::default()
            };
            answer.output(&function().outputs[which], false)
        };
        assert_eq!(converted(json!(""), 0), Some(OutputValue::Bytes(vec![])));
        assert_eq!(
            converted(json!("test"), 0),
            Some(OutputValue::Bytes(vec![0xb5, 0xeb, 0x2d]))
        );
        assert_eq!(
            converted(json!("test"), 1),
            Some(OutputValue::Text("test".into()))
        );
        assert_eq!(
            converted(json!({"a": 1}), 0),
            Some(OutputValue::Json(json!({"a": 1})))
        );
        assert_eq!(
            converted(json!(["x"]), 0),
            Some(OutputValue::Json(json!(["x"])))
        );
        assert_eq!(
            converted(json!("2026-08-21T14:58:01Z"), 0),
            Some(OutputValue::Text("08/21/2026 14:58:01".into()))
        );
        assert_eq!(converted(Value::Null, 0), None);
    }

    #[test]
    fn strictness_names_what_would_be_lost() {
        let strictly = |outputs: Value| {
            let body = json!({"Outputs": outputs}).to_string();
            judge(&answer(200, JSON, &body), &function(), true)
        };
        for wrong in [json!({"Alerts": ["x"]}), json!({"alerts": "test"})] {
            assert!(
                matches!(strictly(wrong.clone()), Verdict::Failure(_)),
                "{wrong}"
            );
        }
        for fine in [json!({"alerts": ["test"]}), json!({"raw": "test"})] {
            assert!(
                matches!(strictly(fine.clone()), Verdict::Success(_)),
                "{fine}"
            );
        }
    }

    #[test]
    fn an_object_as_return_value_joins_the_outputs() {
        let answer = Answer {
            return_value: json!({"alerts": "test"}),
            ..Answer::default()
        };
        let alerts = &function().outputs[0];
        assert_eq!(
            answer.output(alerts, false),
            Some(OutputValue::Json(json!("test")))
        );
        assert_eq!(answer.output(alerts, true), None);
    }
}
