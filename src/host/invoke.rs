//! One invocation: sent, timed, judged, and repeated by the function's retry policy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use uuid::Uuid;

use super::answer::{Answer, Response, Verdict, judge};
use super::app::App;
use super::config::{RetryDelay, RetryPolicy};
use super::counters::{Counters, add};
use super::event::{Event, Events, Invoked, Level};
use super::function::{Function, Target};
use super::kafka::output::Sender;
use super::process::Handler;
use super::wire::{Payload, RetryContext};

/// The version that this host claims: the one whose behaviour it reproduces.
pub(crate) const HOST_VERSION: &str = "4.1037.0.0";

/// How faithful and how talkative.
#[derive(Clone, Copy, Debug, Default)]
pub struct Strictness {
    /// Make failures of what the real host would quietly misread or wait for.
    pub strict: bool,
    /// Send bodies with a length, as under Core Tools, and not chunked, as in Azure.
    pub content_length: bool,
}

/// Why an invocation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(pub(crate) String);

/// Sends invocations to the handler.
#[derive(Debug)]
pub(crate) struct Invoker {
    pub(crate) handler: Handler,
    pub(crate) events: Events,
    pub(crate) counters: Arc<Counters>,
    client: reqwest::Client,
    /// Producers by function and output.
    senders: BTreeMap<(String, String), Sender>,
    timeout: Option<Duration>,
    strictness: Strictness,
}

impl Invoker {
    pub(crate) fn new(
        app: &App,
        handler: Handler,
        strictness: Strictness,
        events: Events,
        counters: Arc<Counters>,
    ) -> Result<Self, Failure> {
        // The client's own limit is a minute longer than the function's.
        let timeout = app.config.function_timeout;
        let longest = Duration::from_secs(2_142_720);
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(timeout.map_or(longest, |limit| limit + Duration::from_secs(60)))
            .build()
            .map_err(|error| Failure(format!("cannot make an HTTP client: {error}")))?;
        let mut senders = BTreeMap::new();
        for function in &app.functions {
            for output in &function.outputs {
                if let Target::Kafka(kafka) = &output.target {
                    let sender = Sender::new(kafka, events.clone()).map_err(|error| {
                        Failure(format!(
                            "{} cannot write to {}: {error}",
                            function.name, kafka.topic
                        ))
                    })?;
                    senders.insert((function.name.clone(), output.name.clone()), sender);
                }
            }
        }
        Ok(Self {
            handler,
            events,
            counters,
            client,
            senders,
            timeout,
            strictness,
        })
    }

    /// The longest that an invocation may take.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Where the handler listens.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.handler.port())
    }

    /// One execution: the first attempt and those of the retry policy, all under one invocation id.
    pub(crate) async fn execute(
        &self,
        function: &Function,
        payload: &Payload,
    ) -> Result<Answer, Failure> {
        let id = Uuid::new_v4();
        let Some(policy) = &function.retry else {
            return self.attempt(function, payload, id, None).await;
        };
        let mut retry = RetryContext {
            most: policy.max_retry_count,
            ..RetryContext::default()
        };
        loop {
            let failure = match self.attempt(function, payload, id, Some(&retry)).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if policy.max_retry_count >= 0 && retry.count >= policy.max_retry_count as u64 {
                return Err(failure);
            }
            let pause = pause(policy, retry.count);
            retry.count += 1;
            retry.failure = Some(failure.0);
            let text = format!(
                "attempt {} of {} follows in {pause:?}",
                retry.count + 1,
                function.name
            );
            self.events
                .log_of(Some(id), Level::Information, "Host.Executor", text);
            tokio::time::sleep(pause).await;
        }
    }

    /// One request and what it came to.
    pub(crate) async fn attempt(
        &self,
        function: &Function,
        payload: &Payload,
        id: Uuid,
        retry: Option<&RetryContext>,
    ) -> Result<Answer, Failure> {
        if !self.handler.ready().await {
            // The real host begins to stop and sends this one anyway.
            let text = "the handler is not ready and will not be; the host stops";
            self.events.send(Event::Fatal(text.to_owned()));
        }
        let began = Instant::now();
        let result = match self.timeout {
            None => self.send(function, payload, id, retry).await,
            Some(limit) => {
                let sent = self.send(function, payload, id, retry);
                match tokio::time::timeout(limit, sent).await {
                    Ok(result) => result,
                    Err(_) => {
                        self.handler.restart().await;
                        Err(Failure(format!(
                            "no usable answer within the function timeout of {limit:?}; the handler is killed, and with it every other invocation"
                        )))
                    }
                }
            }
        };
        self.report(function, id, began.elapsed(), &result);
        result
    }

    async fn send(
        &self,
        function: &Function,
        payload: &Payload,
        id: Uuid,
        retry: Option<&RetryContext>,
    ) -> Result<Answer, Failure> {
        let body = payload.body(&function.name, retry);
        let body = match self.strictness.content_length {
            true => reqwest::Body::from(body),
            false => {
                reqwest::Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>(body)]))
            }
        };
        let mut headers = host_headers(id);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let response = self
            .client
            .post(self.url(&format!("/{}", function.name)))
            .headers(headers)
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .body(body)
            .send()
            .await
            .map_err(|error| Failure(unanswered(&error)))?;
        let header = |name| response.headers().get(name);
        let answered = Response {
            status: response.status().as_u16(),
            content_type: header(CONTENT_TYPE)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
            has_length: header(CONTENT_LENGTH).is_some() || response.status().as_u16() == 204,
            body: Vec::new(),
        };
        let body = response
            .bytes()
            .await
            .map_err(|error| Failure(unanswered(&error)))?;
        let answered = Response {
            body: body.to_vec(),
            ..answered
        };
        match judge(&answered, function, self.strictness.strict) {
            Verdict::Success(answer) => self.write_outputs(function, answer),
            Verdict::Failure(reason) => {
                let body = String::from_utf8_lossy(&answered.body);
                // The real host ignores the body; a developer wants to see it.
                let shown: String = body.chars().take(300).collect();
                Err(Failure(format!("{reason} ({})", shown.replace('\n', " "))))
            }
            Verdict::Never(reason) => {
                let text = format!(
                    "{reason}: the host waits until the function times out; answer {{}} at least"
                );
                self.events
                    .log_of(Some(id), Level::Warning, "Host.Executor", text);
                std::future::pending().await
            }
        }
    }

    /// Writes what goes elsewhere than back to the caller; a write that fails fails the invocation.
    fn write_outputs(&self, function: &Function, answer: Answer) -> Result<Answer, Failure> {
        let has_return = function
            .outputs
            .iter()
            .any(|output| output.name == "$return");
        for output in &function.outputs {
            let key = (function.name.clone(), output.name.clone());
            let value = answer.output(output, has_return);
            if let (Some(sender), Some(value)) = (self.senders.get(&key), value) {
                sender.send(&value).map_err(|error| {
                    Failure(format!("output {} cannot be written: {error}", output.name))
                })?;
            }
        }
        Ok(answer)
    }

    fn report(
        &self,
        function: &Function,
        id: Uuid,
        elapsed: Duration,
        result: &Result<Answer, Failure>,
    ) {
        let failure = result.as_ref().err();
        self.counters.of(&function.name, |counts| {
            add(&counts.invocations, 1);
            add(&counts.failures, usize::from(failure.is_some()));
        });
        match result {
            Ok(answer) => {
                let category = format!("Function.{}.User", function.name);
                for line in &answer.logs {
                    self.events
                        .log_of(Some(id), Level::Information, &category, line);
                }
            }
            Err(failure) => {
                let text = format!("{} failed: {failure}", function.name);
                self.events
                    .log_of(Some(id), Level::Error, "Host.Executor", text);
            }
        }
        self.events.send(Event::Invoked(Invoked {
            function: function.name.clone(),
            id,
            failure: failure.map(|failure| failure.0.clone()),
            elapsed,
        }));
    }
}

/// The headers that say which host and which invocation.
pub(crate) fn host_headers(id: Uuid) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        "X-Azure-Functions-HostVersion",
        HeaderValue::from_static(HOST_VERSION),
    );
    let id = HeaderValue::from_str(&id.to_string()).expect("a uuid is a header value");
    headers.insert("X-Azure-Functions-InvocationId", id);
    headers
}

/// The host's name in `User-Agent`.
pub(crate) const AGENT: &str = "Azure-Functions-Host/4.1037.0.0";

/// Why there is no answer, on one line.
fn unanswered(error: &reqwest::Error) -> String {
    let mut text = match error {
        error if error.is_connect() => "the handler refused the connection".to_owned(),
        error if error.is_timeout() => "the handler did not answer in time".to_owned(),
        _ => "the handler broke the connection off".to_owned(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.source().is_none() {
            text = format!("{text}: {inner}");
        }
        cause = inner.source();
    }
    text
}

/// The pause after the failed attempt number `count`, from 0.
fn pause(policy: &RetryPolicy, count: u64) -> Duration {
    match policy.delay {
        RetryDelay::Fixed(pause) => pause,
        RetryDelay::Exponential(least, most) => {
            let doubled = 2f64.powi(count.min(62) as i32) - 1.0;
            let jitter = 0.8 + 0.4 * rand::random::<f64>();
            let pause = least.as_secs_f64() * (1.0 + doubled * jitter);
            Duration::from_secs_f64(pause.min(most.as_secs_f64()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_the_least_to_the_most() {
        let seconds = Duration::from_secs;
        let policy = |delay| RetryPolicy {
            max_retry_count: -1,
            delay,
        };
        let fixed = policy(RetryDelay::Fixed(seconds(5)));
        assert_eq!(pause(&fixed, 9), seconds(5));
        let growing = policy(RetryDelay::Exponential(seconds(1), seconds(60)));
        assert_eq!(pause(&growing, 0), seconds(1));
        let third = pause(&growing, 2);
        assert!((3.4..=4.6).contains(&third.as_secs_f64()), "{third:?}");
        assert_eq!(pause(&growing, 63), seconds(60));
    }
}
