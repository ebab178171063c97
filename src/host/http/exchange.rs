//! HTTP as JSON: the request object of an invocation, and a response made of an output's value.

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use crate::host::answer::{Answer, OutputValue};
use crate::host::dotnet;
use crate::host::function::{Function, Target};
use crate::host::wire::{Payload, Value, merge};

/// The payload of a request: `Data.{binding}` is all of it; the metadata repeats parameters, the query
/// and the members of a JSON body.
pub(super) fn payload(
    binding: &str,
    head: &Parts,
    parameters: &[(String, Option<String>)],
    body: Option<Bytes>,
) -> Payload {
    let query = query(head.uri.query().unwrap_or_default());
    let headers = headers(head);
    let text = |value: &Option<String>| value.clone().map_or(Value::Null, Value::Text);
    let host = super::asked_host(&head.headers);
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = vec![
        ("Url", Value::Text(format!("http://{host}{path}"))),
        ("Method", Value::text(head.method.as_str())),
        ("Query", texts(&query)),
        (
            "Headers",
            Value::object(headers.iter().map(|(name, values)| {
                let values = values.iter().map(Value::text).collect();
                (name.as_str(), Value::List(values))
            })),
        ),
        (
            "Params",
            Value::object(
                parameters
                    .iter()
                    .map(|(name, value)| (name.as_str(), text(value))),
            ),
        ),
        ("Identities", Value::List(vec![anonymous()])),
    ];
    let mut metadata: Vec<(String, Value)> = parameters
        .iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    // The function's key is not repeated by name.
    let named = query
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("code"));
    for (name, value) in named {
        if !metadata.iter().any(|(known, _)| known == name) {
            metadata.push((name.clone(), Value::text(value)));
        }
    }
    if let Some(body) = body {
        let content_type = head.headers.get(CONTENT_TYPE);
        let content_type = content_type
            .map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
        let content_type = content_type.unwrap_or_default();
        let is_binary = content_type.starts_with("application/octet-stream")
            || content_type.starts_with("multipart/");
        let text = match is_binary {
            true => STANDARD.encode(&body),
            false => String::from_utf8_lossy(&body).into_owned(),
        };
        if content_type.contains("json") {
            merge(&mut metadata, &text);
        }
        request.push(("Body", Value::Text(text)));
    }
    metadata.push(("Query".to_owned(), texts(&query)));
    let joined = headers
        .iter()
        .map(|(name, values)| (name.as_str(), Value::Text(values.join(", "))));
    metadata.push(("Headers".to_owned(), Value::object(joined)));
    Payload::with_metadata(binding, Value::object(request), metadata)
}

/// The response that the output's value describes.
pub(super) fn response(function: &Function, answer: &Answer) -> Response {
    let has_return = function
        .outputs
        .iter()
        .any(|output| output.name == "$return");
    let http = function
        .outputs
        .iter()
        .find(|output| matches!(output.target, Target::Http));
    let value = http.and_then(|output| answer.output(output, has_return));
    match value {
        None => match &answer.outputs {
            Some(outputs) if !outputs.is_empty() => {
                ([(CONTENT_TYPE, "text/plain; charset=utf-8")], "{}").into_response()
            }
            _ => StatusCode::OK.into_response(),
        },
        Some(OutputValue::Bytes(bytes)) => {
            ([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
        }
        Some(OutputValue::Text(text)) => match serde_json::from_str(&text) {
            Ok(object @ Json::Object(_)) => described(&dotnet::rewritten(&object)),
            _ => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response(),
        },
        Some(OutputValue::Json(object @ Json::Object(_))) => described(&object),
        Some(OutputValue::Json(other)) => {
            ([(CONTENT_TYPE, "text/plain; charset=utf-8")], shown(&other)).into_response()
        }
    }
}

/// A response from `{"statusCode": …, "headers": {…}, "body": …}`. `status` is no such member.
fn described(value: &Json) -> Response {
    let status = match &value["statusCode"] {
        Json::Null => Some(StatusCode::OK),
        Json::Number(number) => number.as_u64().and_then(status),
        Json::String(text) => text.parse().ok().and_then(status),
        _ => None,
    };
    let Some(status) = status else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut response = Response::new(Body::from(shown(&value["body"])));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    for (name, value) in value["headers"].as_object().into_iter().flatten() {
        if value.is_null() {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(&dotnet::scalar_text(value));
        match (name, value) {
            (Ok(name), Ok(value)) => response.headers_mut().insert(name, value),
            _ => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        };
    }
    response
}

fn status(code: u64) -> Option<StatusCode> {
    StatusCode::from_u16(u16::try_from(code).ok()?).ok()
}

/// A body: text as it is, structures as indented JSON, scalars as .NET writes them.
fn shown(value: &Json) -> String {
    match value {
        Json::Object(_) | Json::Array(_) => format!("{value:#}"),
        scalar => dotnet::scalar_text(scalar),
    }
}

/// The query's parameters in order; repeats are joined by commas.
fn query(query: &str) -> Vec<(String, String)> {
    let mut joined: Vec<(String, String)> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match joined.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => {
                values.push(',');
                values.push_str(&value);
            }
            None => joined.push((name.into_owned(), value.into_owned())),
        }
    }
    joined
}

/// Names as clients usually write them, with all values of each.
fn headers(head: &Parts) -> Vec<(String, Vec<String>)> {
    let values = |name| {
        let all = head.headers.get_all(name).iter();
        all.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    };
    head.headers
        .keys()
        .map(|name| (capitalized(name.as_str()), values(name)))
        .collect()
}

fn capitalized(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    name.split('-').map(word).collect::<Vec<_>>().join("-")
}

fn texts(pairs: &[(String, String)]) -> Value {
    Value::object(
        pairs
            .iter()
            .map(|(name, value)| (name.as_str(), Value::text(value))),
    )
}

/// A caller that nobody knows.
fn anonymous() -> Value {
    Value::object([
        ("AuthenticationType", Value::Null),
        ("IsAuthenticated", Value::Bool(false)),
        ("Claims", Value::List(Vec::new())),
        ("Name", Value::Null),
    ])
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use serde_json::json;

    use super::*;

    /// The request of a real host's sample, and the body that it made of it.
    #[test]
    fn a_request_becomes_the_hosts_object() {
        let request = Request::post("/api/score/cpu?x=1&code=secret")
            .header("host", "localhost:7071")
            .header("content-type", "application/json")
            .header("content-length", "22")
            .body(())
            .unwrap();
        let (head, ()) = request.into_parts();
        let parameters = [
            ("name".to_owned(), Some("cpu".to_owned())),
            ("unused".to_owned(), None),
        ];
        let body = Bytes::from_static(br#"{"series":"cpu","n":2}"#);
        let payload = payload("req", &head, &parameters, Some(body));
        let body: Json = serde_json::from_str(&payload.body("score", None)).unwrap();
        let request = &body["Data"]["req"];
        assert_eq!(
            request["Url"],
            "http://localhost:7071/api/score/cpu?x=1&code=secret"
        );
        assert_eq!(request["Method"], "POST");
        assert_eq!(request["Query"], json!({"x": "1", "code": "secret"}));
        assert_eq!(
            request["Headers"]["Content-Type"],
            json!(["application/json"])
        );
        assert_eq!(request["Headers"]["Host"], json!(["localhost:7071"]));
        assert_eq!(request["Params"], json!({"name": "cpu", "unused": null}));
        assert_eq!(request["Body"], "{\"series\":\"cpu\",\"n\":2}");
        let metadata = &body["Metadata"];
        assert_eq!(metadata["name"], "\"cpu\"");
        assert_eq!(metadata["x"], "\"1\"");
        assert_eq!(metadata["series"], "\"cpu\"");
        assert_eq!(metadata["n"], "\"2\"");
        assert_eq!(metadata["Headers"]["Content-Length"], "22");
        assert!(metadata.get("code").is_none() && metadata.get("unused").is_none());
    }

    #[test]
    fn repeated_parameters_are_joined() {
        let joined = query("a=1&b=x%20y&a=2");
        assert_eq!(
            joined,
            [("a".into(), "1,2".into()), ("b".into(), "x y".into())]
        );
    }

    #[test]
    fn only_status_code_is_the_status() {
        let status = |value: Json| described(&value).status().as_u16();
        assert_eq!(status(json!({"statusCode": 202})), 202);
        assert_eq!(status(json!({"statusCode": "404"})), 404);
        assert_eq!(status(json!({"status": 404})), 200);
        assert_eq!(status(json!({"headers": {"X": null}})), 500);
        let response = described(&json!({"body": {"ok": true}}));
        assert_eq!(
            response.headers()[CONTENT_TYPE],
            "text/plain; charset=utf-8"
        );
        assert_eq!(shown(&json!({"ok": true})), "{\n  \"ok\": true\n}");
        assert_eq!(shown(&json!(true)), "True");
    }
}
