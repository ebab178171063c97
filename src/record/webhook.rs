//! Events as HTTP requests: CloudEvents in JSON's batch form, signed as Standard Webhooks describes.
//!
//! A receiver cannot be asked what it has, so a batch that is written again after a crash is sent
//! again: same `source`, `id` and content, hence droppable. What differs from one attempt to the next
//! is the signature's time, and it stands in a header.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac};
use rand::RngExt;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url, redirect};
use sha2::Sha256;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Event, Sink, SinkError};

/// Attempts for one request, the first included.
const ATTEMPTS: u32 = 6;
/// Pause before the second attempt at most; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause that is our own choice; a receiver may ask for more with `Retry-After`.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// One attempt may take so long, connecting included.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Events of one request, and the bytes after which the next one begins: what common gateways take.
const MOST_EVENTS: usize = 500;
const MOST_BYTES: usize = 512 * 1024;
/// How much of a refusal's text is told.
const MOST_TOLD: usize = 200;

/// Posts events to a URL.
#[derive(Debug)]
pub struct WebhookSink {
    url: Url,
    place: String,
    secret: Secret,
    client: Client,
    timeout: Duration,
}

impl WebhookSink {
    /// Events go to `url` (http or https), signed with `secret`: `whsec_` and base64 as Standard
    /// Webhooks writes secrets, otherwise the text's own bytes. A write ends within `timeout`, all its
    /// attempts included. Nothing is sent yet.
    pub fn new(url: &str, secret: &str, timeout: Duration) -> Result<Self, InvalidWebhook> {
        let url = Url::parse(url).map_err(InvalidWebhook::Url)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidWebhook::Scheme);
        }
        let client = Client::builder()
            // A redirect would carry events and signature to a place that nobody set.
            .redirect(redirect::Policy::none())
            .timeout(ATTEMPT_TIMEOUT)
            .user_agent(concat!("lapwing/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(InvalidWebhook::Client)?;
        Ok(Self {
            place: shown(&url),
            url,
            secret: Secret::parse(secret)?,
            client,
            timeout,
        })
    }

    /// Posts one array until it is taken, refused, or out of attempts or time.
    async fn post(&self, body: Vec<u8>, deadline: Instant) -> Result<(), Refusal> {
        // The same batch has the same message id, whoever sends it and however often.
        let message = Uuid::new_v5(&Uuid::NAMESPACE_URL, &body).to_string();
        let body = Bytes::from(body);
        let mut attempt = 1;
        loop {
            let (wait, why) = match self.attempt(&message, body.clone(), deadline).await {
                Ok(()) => return Ok(()),
                Err(Failure::Final(refusal)) => return Err(refusal),
                Err(Failure::Passing(wait, why)) => (wait, why),
            };
            let pause = wait.unwrap_or_else(|| jittered(attempt));
            if attempt == ATTEMPTS || Instant::now() + pause >= deadline {
                return Err(Refusal::GaveUp(GaveUp {
                    attempt,
                    pause_seconds: pause.as_secs_f64(),
                    source: why,
                }));
            }
            tracing::debug!(
                place = self.place,
                attempt,
                why,
                "webhook will be tried again"
            );
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// What a receiver finds too large together goes alone, and what it finds too large alone goes
    /// without the bulk of its message: a poison message must not stop its partition.
    async fn post_singly(&self, events: &[Event], deadline: Instant) -> Result<(), Refusal> {
        for event in events {
            let mut sent = self.post_one(event, deadline).await;
            if let (Err(Refusal::TooLarge), Some(cut)) = (&sent, event.cut()) {
                sent = self.post_one(&cut, deadline).await;
            }
            sent?;
        }
        Ok(())
    }

    async fn post_one(&self, event: &Event, deadline: Instant) -> Result<(), Refusal> {
        let (_, body) = body_of(std::slice::from_ref(event), 1).map_err(Refusal::Unwritable)?;
        self.post(body, deadline).await
    }

    async fn attempt(&self, message: &str, body: Bytes, deadline: Instant) -> Result<(), Failure> {
        let now = Utc::now();
        let left = deadline.saturating_duration_since(Instant::now());
        let sent = self
            .client
            .post(self.url.clone())
            .timeout(left.min(ATTEMPT_TIMEOUT))
            .header(
                CONTENT_TYPE,
                "application/cloudevents-batch+json; charset=UTF-8",
            )
            .header("webhook-id", message)
            .header("webhook-timestamp", now.timestamp())
            .header(
                "webhook-signature",
                self.secret.sign(message, now.timestamp(), &body),
            )
            .body(body)
            .send()
            .await;
        let response = match sent {
            Ok(response) => response,
            // The URL may hold a key: what is told never does.
            Err(error) => return Err(Failure::Passing(None, error.without_url().into())),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let passing = status.is_server_error()
            || matches!(
                status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
            );
        if passing {
            let wait = retry_after(response.headers(), now);
            return Err(Failure::Passing(
                wait,
                format!("it answers {status}").into(),
            ));
        }
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            return Err(Failure::Final(Refusal::TooLarge));
        }
        if status.is_redirection() {
            return Err(Failure::Final(Refusal::Refused(format!(
                "it answers {status}, and redirects are not followed: set the final url"
            ))));
        }
        let told = beginning(response).await;
        Err(Failure::Final(Refusal::Refused(format!(
            "it answers {status}{told}"
        ))))
    }
}

#[async_trait]
impl Sink for WebhookSink {
    async fn write(&self, events: &[Event]) -> Result<usize, SinkError> {
        let Some(first) = events.first() else {
            return Ok(0);
        };
        let stream = first.stream.name();
        let deadline = Instant::now() + self.timeout;
        // One after the other: a receiver sees a partition's events in their order.
        let mut rest = events;
        while !rest.is_empty() {
            let (count, body) = body_of(rest, MOST_EVENTS).map_err(|error| SinkError::Refused {
                stream,
                place: self.place(),
                source: error.into(),
            })?;
            let sent = match self.post(body, deadline).await {
                Err(Refusal::TooLarge) => self.post_singly(&rest[..count], deadline).await,
                sent => sent,
            };
            sent.map_err(|refusal| match refusal {
                Refusal::GaveUp(why) => SinkError::Unavailable {
                    stream,
                    place: self.place(),
                    source: why.into(),
                },
                refusal => SinkError::Refused {
                    stream,
                    place: self.place(),
                    source: refusal.into(),
                },
            })?;
            rest = &rest[count..];
        }
        Ok(events.len())
    }

    fn place(&self) -> String {
        format!("webhook {}", self.place)
    }
}

/// Why a webhook cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InvalidWebhook {
    /// Not a URL.
    #[error("it is no url: {0}")]
    Url(url::ParseError),
    /// Neither http nor https.
    #[error("a webhook's url begins with https:// or http://")]
    Scheme,
    /// The secret cannot be used.
    #[error("{0}")]
    Secret(&'static str),
    /// The HTTP client cannot start.
    #[error("the http client cannot start: {0}")]
    Client(reqwest::Error),
}

/// Key of the signatures; never shown.
struct Secret(Vec<u8>);

impl Secret {
    fn parse(text: &str) -> Result<Self, InvalidWebhook> {
        let key = match text.strip_prefix("whsec_") {
            Some(encoded) => BASE64_STANDARD
                .decode(encoded)
                .map_err(|_| InvalidWebhook::Secret("after whsec_ comes the key in base64"))?,
            None => text.as_bytes().to_vec(),
        };
        // The length of the shortest key that Standard Webhooks allows is 24; anything that can be
        // tried out is no secret.
        if key.len() < 16 {
            return Err(InvalidWebhook::Secret(
                "a webhook's secret has at least 16 bytes; `openssl rand -base64 32` makes one",
            ));
        }
        Ok(Self(key))
    }

    /// `v1,` and the base64 of HMAC-SHA256 over `<id>.<seconds>.<body>`.
    fn sign(&self, message: &str, seconds: i64, body: &[u8]) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(format!("{message}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// What came of one attempt that did not succeed.
enum Failure {
    /// Trying again may help, not before the given pause.
    Passing(Option<Duration>, BoxError),
    Final(Refusal),
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// Somebody has to change something.
    #[error("{0}")]
    Refused(String),
    #[error("it answers 413 to a single event: raise the size that it takes")]
    TooLarge,
    #[error(transparent)]
    Unwritable(serde_json::Error),
    #[error(transparent)]
    GaveUp(GaveUp),
}

/// Out of attempts or of time.
#[derive(Debug, thiserror::Error)]
#[error("gave up at attempt {attempt} of {ATTEMPTS}, {pause_seconds:.1} s before the next")]
struct GaveUp {
    attempt: u32,
    pause_seconds: f64,
    #[source]
    source: BoxError,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// As many of the first events as one request takes, at least one, as a JSON array; and their number.
fn body_of(events: &[Event], most_events: usize) -> Result<(usize, Vec<u8>), serde_json::Error> {
    let mut body = vec![b'['];
    let mut count = 0;
    for event in events.iter().take(most_events) {
        let line = event.to_line()?;
        if count > 0 {
            if body.len() + line.len() > MOST_BYTES {
                break;
            }
            body.push(b',');
        }
        body.extend_from_slice(line.as_bytes());
        count += 1;
    }
    body.push(b']');
    Ok((count, body))
}

/// A pause of up to twice as long with each attempt, anywhere in its second half, so that many
/// instances do not come back at once.
fn jittered(attempt: u32) -> Duration {
    let longest = FIRST_PAUSE
        .saturating_mul(1 << attempt.min(16))
        .min(LONGEST_PAUSE);
    longest.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// `Retry-After` in both of its forms: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    Some((date.to_utc() - now).to_std().unwrap_or(Duration::ZERO))
}

/// The beginning of a refusal's body, for the person who has to change something.
async fn beginning(mut response: reqwest::Response) -> String {
    let mut told = Vec::new();
    while told.len() < MOST_TOLD {
        match response.chunk().await {
            Ok(Some(chunk)) => told.extend_from_slice(&chunk),
            // The status alone says enough.
            Ok(None) | Err(_) => break,
        }
    }
    told.truncate(MOST_TOLD);
    let text = String::from_utf8_lossy(&told);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        text
    } else {
        format!(": {text}")
    }
}

/// A URL without what may be secret in it: user, password, query, fragment.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_that_standard_webhooks_gives_as_its_example() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(
            secret.sign(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_secret_is_neither_short_nor_shown() {
        assert!(Secret::parse("hunter2").is_err());
        assert!(Secret::parse("whsec_???").is_err());
        let sink = WebhookSink::new(
            "https://user:pass@example.org/hook?code=abc",
            "0123456789abcdef",
            Duration::from_secs(1),
        )
        .unwrap();
        assert_eq!(sink.place(), "webhook https://example.org/hook");
        assert!(!format!("{:?}", sink.secret).contains("0123"));
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-08-21T10:00:00Z")
            .unwrap()
            .to_utc();
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            of("Fri, 21 Aug 2026 10:00:30 GMT"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(of("Fri, 21 Aug 2026 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(of("soon"), None);
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        for attempt in 1..40 {
            let pause = jittered(attempt);
            assert!(pause >= FIRST_PAUSE && pause <= LONGEST_PAUSE, "{pause:?}");
        }
    }
}
