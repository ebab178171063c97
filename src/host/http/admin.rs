//! The host's own pages: what runs, and starting a function by hand.

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};

use super::Front;
use crate::host::function::{Function, Trigger};
use crate::host::invoke::HOST_VERSION;

/// Answers `/admin/{path}`.
pub(super) async fn answer(front: &Front, method: &Method, path: &str) -> Response {
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    match (method, parts.as_slice()) {
        (&Method::GET, ["host", "status"]) => Json(status(front)).into_response(),
        (_, ["host", "ping"]) => StatusCode::OK.into_response(),
        (&Method::GET, ["functions"]) => {
            let all: Vec<Value> = front
                .app
                .functions
                .iter()
                .map(|f| described(front, f))
                .collect();
            Json(all).into_response()
        }
        (&Method::GET, ["functions", name]) => match front.app.function(name) {
            Some(function) => Json(described(front, function)).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        (&Method::POST, ["functions", name]) => match front.timers.get(*name) {
            Some(timer) => {
                timer.fire();
                StatusCode::ACCEPTED.into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What no function's route takes: the start page, the metrics, or nothing.
pub(super) fn unrouted(front: &Front, method: &Method, path: &str) -> Response {
    match (method, path) {
        (&Method::GET, "/") => Html(
            "<!doctype html><title>Functions host</title><p>Your function app is up and running.",
        )
        .into_response(),
        (&Method::GET, "/metrics") => {
            let text = front.invoker.counters.prometheus();
            ([("content-type", "text/plain; version=0.0.4")], text).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn status(front: &Front) -> Value {
    let errors: Vec<String> = front
        .app
        .dropped
        .iter()
        .map(|dropped| format!("{}: {}", dropped.name, dropped.reason))
        .collect();
    json!({
        "id": "lapwing-local",
        "state": "Running",
        "version": HOST_VERSION,
        "versionDetails": format!("lapwing {}", env!("CARGO_PKG_VERSION")),
        "platformVersion": "",
        "instanceId": "",
        "computerName": "",
        "processUptime": front.started.elapsed().as_millis() as u64,
        "functionAppContentEditingState": "NotAllowed",
        "handler": {
            "port": front.invoker.handler.port(),
            "pid": front.invoker.handler.pid(),
        },
        "errors": errors,
    })
}

fn described(front: &Front, function: &Function) -> Value {
    let invoke_url = match &function.trigger {
        Trigger::Http(trigger) => {
            let parts = [front.app.config.route_prefix.as_str(), trigger.route.text()];
            let path: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            Value::String(format!("/{}", path.join("/")))
        }
        Trigger::Kafka(_) | Trigger::Timer(_) => Value::Null,
    };
    json!({
        "name": function.name,
        "script_root_path_href": function.folder,
        "config_href": function.folder.join("function.json"),
        "config": function.json,
        "invoke_url_template": invoke_url,
        "language": "custom",
        "isDisabled": front.app.is_disabled(&function.name),
    })
}
