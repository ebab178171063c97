//! The HTTP trigger and the host's own pages, on one loopback port.

mod admin;
mod exchange;
pub(crate) mod route;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::app::App;
use super::config::HttpMode;
use super::counters::add;
use super::event::{Event, Invoked, Level};
use super::function::{Function, HttpTrigger, Trigger};
use super::invoke::{AGENT, Invoker, host_headers};
use super::timer::Timer;

/// Largest request body that the host takes, in bytes.
const LARGEST_BODY: usize = 104_857_600;
const CATEGORY: &str = "Host.Http";

/// What the front needs to answer.
pub(crate) struct Front {
    pub(crate) app: Arc<App>,
    pub(crate) invoker: Arc<Invoker>,
    pub(crate) timers: Arc<BTreeMap<String, Timer>>,
    started: Instant,
    client: reqwest::Client,
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Begins to answer on `listener`.
    pub(crate) fn start(
        listener: TcpListener,
        app: Arc<App>,
        invoker: Arc<Invoker>,
        timers: Arc<BTreeMap<String, Timer>>,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(std::io::Error::other)?;
        let front = Arc::new(Front {
            app,
            invoker,
            timers,
            started: Instant::now(),
            client,
        });
        let router = axum::Router::new().fallback(answer).with_state(front);
        let task = tokio::spawn(async move {
            // It serves until it is aborted; accepting errors are retried inside.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, task })
    }
}

async fn answer(State(front): State<Arc<Front>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    if let Some(rest) = path.strip_prefix("/admin/") {
        return admin::answer(&front, request.method(), rest).await;
    }
    match front.find(&path, request.method().as_str()) {
        Some(found) => front.run(found, request).await,
        // A known route under another method is unknown to the host as well: 404, never 405.
        None => admin::unrouted(&front, request.method(), &path),
    }
}

/// A function that a request goes to, and what its route took from the path.
struct Found<'a> {
    function: &'a Function,
    trigger: &'a HttpTrigger,
    parameters: Vec<(String, Option<String>)>,
}

impl Front {
    fn find(&self, path: &str, method: &str) -> Option<Found<'_>> {
        let path = below(path, &self.app.config.route_prefix)?;
        let mut found: Vec<Found<'_>> = self
            .app
            .functions
            .iter()
            .filter(|function| !self.app.is_disabled(&function.name))
            .filter_map(|function| match &function.trigger {
                Trigger::Http(trigger) => Some((function, trigger)),
                Trigger::Kafka(_) | Trigger::Timer(_) => None,
            })
            .filter(|(_, trigger)| {
                trigger.methods.is_empty() || trigger.methods.iter().any(|m| m == method)
            })
            .filter_map(|(function, trigger)| {
                let parameters = trigger.route.matches(path)?;
                Some(Found {
                    function,
                    trigger,
                    parameters,
                })
            })
            .collect();
        found.sort_by(|a, b| a.trigger.route.precedence(&b.trigger.route));
        found.into_iter().next()
    }

    async fn run(&self, found: Found<'_>, request: Request) -> Response {
        match found.trigger.mode {
            HttpMode::Invocation => self.invoke(found, request).await,
            mode => {
                self.pass_on(found.function, request, mode == HttpMode::Proxying)
                    .await
            }
        }
    }

    /// Hands the request over as JSON and makes the answer of the output's value.
    async fn invoke(&self, found: Found<'_>, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = match announced_length(&head.headers) {
            None => None,
            Some(length) if length > LARGEST_BODY as u64 => {
                return StatusCode::PAYLOAD_TOO_LARGE.into_response();
            }
            Some(_) => match to_bytes(body, LARGEST_BODY).await {
                Ok(bytes) => Some(bytes),
                Err(_) => return StatusCode::BAD_REQUEST.into_response(),
            },
        };
        let payload = exchange::payload(&found.function.binding, &head, &found.parameters, body);
        let id = Uuid::new_v4();
        match self
            .invoker
            .attempt(found.function, &payload, id, None)
            .await
        {
            Ok(answer) => exchange::response(found.function, &answer),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }

    /// Sends the request itself to the handler and its answer back, whatever it is. Without streaming
    /// the body goes along only when its length was announced: that of a chunked request is lost.
    async fn pass_on(&self, function: &Function, request: Request, streams: bool) -> Response {
        let began = Instant::now();
        let id = Uuid::new_v4();
        let (head, body) = request.into_parts();
        let mut headers = end_to_end(&head.headers);
        headers.extend(host_headers(id));
        headers.insert(USER_AGENT, agent(head.headers.get(USER_AGENT)));
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let length = announced_length(&head.headers);
        let is_chunked = head.headers.contains_key(TRANSFER_ENCODING);
        if is_chunked && !streams {
            let text = format!(
                "the chunked body of a request to {} is not forwarded",
                function.name
            );
            self.invoker
                .events
                .log_of(Some(id), Level::Warning, CATEGORY, text);
        }
        headers.remove(CONTENT_LENGTH);
        let mut outgoing = self.client.request(head.method, self.invoker.url(path));
        if streams && (length.is_some() || is_chunked) {
            if let Some(length) = length {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            outgoing = outgoing.body(reqwest::Body::wrap_stream(body.into_data_stream()));
        } else if length.is_some() {
            match to_bytes(body, LARGEST_BODY).await {
                Ok(bytes) => outgoing = outgoing.body(bytes),
                Err(_) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
            }
        }
        if !self.invoker.handler.ready().await {
            let text = "the handler is not ready and will not be; the host stops";
            self.invoker.events.send(Event::Fatal(text.to_owned()));
        }
        let answered = match self.invoker.timeout() {
            None => Ok(outgoing.headers(headers).send().await),
            Some(limit) => tokio::time::timeout(limit, outgoing.headers(headers).send()).await,
        };
        let (response, failure) = match answered {
            Ok(Ok(response)) => (returned(response), None),
            Ok(Err(error)) => {
                let status = if streams {
                    StatusCode::BAD_GATEWAY
                } else {
                    StatusCode::INTERNAL_SERVER_ERROR
                };
                (
                    status.into_response(),
                    Some(format!("the handler did not answer: {error}")),
                )
            }
            Err(_) => {
                self.invoker.handler.restart().await;
                let text =
                    "no answer within the function timeout; the handler is killed".to_owned();
                (
                    StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                    Some(text),
                )
            }
        };
        self.invoker.counters.of(&function.name, |counts| {
            add(&counts.invocations, 1);
            add(&counts.failures, usize::from(failure.is_some()));
        });
        if let Some(failure) = &failure {
            let text = format!("{} failed: {failure}", function.name);
            self.invoker
                .events
                .log_of(Some(id), Level::Error, CATEGORY, text);
        }
        self.invoker.events.send(Event::Invoked(Invoked {
            function: function.name.clone(),
            id,
            failure,
            elapsed: began.elapsed(),
        }));
        response
    }
}

/// `path` without the host's route prefix, compared without regard to case.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let path = path.trim_start_matches('/');
    if prefix.is_empty() {
        return Some(path);
    }
    let start = path.get(..prefix.len())?;
    let rest = &path[prefix.len()..];
    (start.eq_ignore_ascii_case(prefix) && (rest.is_empty() || rest.starts_with('/')))
        .then_some(rest)
}

/// The length that the client announced, when it is more than nothing.
fn announced_length(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    (length > 0).then_some(length)
}

/// The headers that are not about one connection only.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    let mut kept = headers.clone();
    for name in [
        CONNECTION,
        EXPECT,
        KEEP_ALIVE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        kept.remove(name);
    }
    kept
}

/// The client's agent with the host's behind it.
fn agent(client: Option<&HeaderValue>) -> HeaderValue {
    let joined = client
        .and_then(|value| value.to_str().ok())
        .and_then(|client| HeaderValue::from_str(&format!("{client} {AGENT}")).ok());
    joined.unwrap_or(HeaderValue::from_static(AGENT))
}

/// The handler's answer as the client's, streamed.
fn returned(answer: reqwest::Response) -> Response {
    let (status, headers) = (answer.status(), end_to_end(answer.headers()));
    let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The host that the client asked for, for URLs.
fn asked_host(headers: &HeaderMap) -> &str {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.unwrap_or("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_taken_off_whole() {
        assert_eq!(below("/api/score/x", "api"), Some("/score/x"));
        assert_eq!(below("/API", "api"), Some(""));
        assert_eq!(below("/apis/score", "api"), None);
        assert_eq!(below("/score", "api"), None);
        assert_eq!(below("/score", ""), Some("score"));
    }
}
