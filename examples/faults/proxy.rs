//! A reverse proxy in front of the store that does to its clients what networks and throttled accounts
//! do: it delays, drops before or after the store has acted, breaks answers off half-way, answers
//! 503 with Retry-After, or goes silent. One per host, so that a host can be cut off alone.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The store is not to be had at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// Every connection is closed without an answer.
    Reset,
    /// Every request is answered 503 Server Busy with Retry-After.
    Busy {
        /// The header's seconds.
        retry_after_s: u32,
    },
    /// Requests are taken and never answered while it lasts; then the connection is closed.
    Silence,
}

/// Chances, per request, of ambient trouble; the rest goes through.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Weather {
    /// Forwarded late.
    pub(crate) delay: f64,
    /// Longest delay in milliseconds; the shortest is 1.
    pub(crate) longest_delay_ms: u64,
    /// Connection closed before the store saw the request.
    pub(crate) drop_request: f64,
    /// Connection closed after the store acted: done, and the client does not know.
    pub(crate) drop_answer: f64,
    /// Half of the answer, then the connection is closed.
    pub(crate) break_answer: f64,
    /// 503 with Retry-After: 1; the store does not see the request.
    pub(crate) busy: f64,
}

impl Weather {
    /// Nothing happens.
    pub(crate) const CALM: Self = Self {
        delay: 0.0,
        longest_delay_ms: 0,
        drop_request: 0.0,
        drop_answer: 0.0,
        break_answer: 0.0,
        busy: 0.0,
    };
    /// Now and then.
    pub(crate) const GUSTY: Self = Self {
        delay: 0.10,
        longest_delay_ms: 150,
        drop_request: 0.01,
        drop_answer: 0.01,
        break_answer: 0.01,
        busy: 0.005,
    };
    /// All the time.
    pub(crate) const STORM: Self = Self {
        delay: 0.30,
        longest_delay_ms: 400,
        drop_request: 0.04,
        drop_answer: 0.04,
        break_answer: 0.03,
        busy: 0.02,
    };
}

/// What the proxy did, by kind.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Requests that came.
    pub(crate) requests: AtomicU64,
    /// Forwarded late.
    pub(crate) delayed: AtomicU64,
    /// Closed before the store saw them.
    pub(crate) dropped_requests: AtomicU64,
    /// Closed after the store had acted.
    pub(crate) dropped_answers: AtomicU64,
    /// Answers broken off.
    pub(crate) broken_answers: AtomicU64,
    /// Answered 503.
    pub(crate) busy: AtomicU64,
    /// Met an outage.
    pub(crate) in_outage: AtomicU64,
    /// Answered 412 by the store: a condition on the version did not hold.
    pub(crate) preconditions_failed: AtomicU64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        write!(
            f,
            "{} requests, {} delayed, {} dropped before and {} after the store acted, {} broken off, {} answered 503, {} in an outage, {} failed a condition",
            of(&self.requests),
            of(&self.delayed),
            of(&self.dropped_requests),
            of(&self.dropped_answers),
            of(&self.broken_answers),
            of(&self.busy),
            of(&self.in_outage),
            of(&self.preconditions_failed),
        )
    }
}

/// A running proxy; it stops when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    client: reqwest::Client,
    trouble: Mutex<Trouble>,
    counts: Counts,
}

#[derive(Debug)]
struct Trouble {
    weather: Weather,
    outage: Option<Outage>,
    random: StdRng,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Through,
    DropRequest,
    DropAnswer,
    BreakAnswer,
    Busy { retry_after_s: u32 },
    Silence,
}

type Body = BoxBody<Bytes, io::Error>;

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection closed on purpose")]
struct Hangup;

impl Proxy {
    /// Starts a proxy on a free port of the loopback in front of `upstream`.
    pub(crate) async fn start(upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .build()
            .map_err(io::Error::other)?;
        let state = Arc::new(State {
            upstream,
            client,
            trouble: Mutex::new(Trouble {
                weather: Weather::CALM,
                outage: None,
                random: StdRng::seed_from_u64(seed),
            }),
            counts: Counts::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            accepting,
        })
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the ambient trouble.
    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state.trouble().weather = weather;
    }

    /// Begins an outage, or ends it.
    pub(crate) fn set_outage(&self, outage: Option<Outage>) {
        self.state.trouble().outage = outage;
    }

    /// What it did so far.
    pub(crate) fn counts(&self) -> &Counts {
        &self.state.counts
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        // Nothing that holds it can leave it half-changed.
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fate of the next request, and how long it is held up before.
    fn draw(&self) -> (Fate, Duration) {
        let mut trouble = self.trouble();
        if let Some(outage) = trouble.outage {
            add(&self.counts.in_outage);
            let fate = match outage {
                Outage::Reset => Fate::DropRequest,
                Outage::Busy { retry_after_s } => Fate::Busy { retry_after_s },
                Outage::Silence => Fate::Silence,
            };
            return (fate, Duration::ZERO);
        }
        let weather = trouble.weather;
        let delay = if trouble.random.random_bool(weather.delay) {
            add(&self.counts.delayed);
            let longest = weather.longest_delay_ms.max(1);
            Duration::from_millis(trouble.random.random_range(1..=longest))
        } else {
            Duration::ZERO
        };
        let mut chance: f64 = trouble.random.random();
        let fates = [
            (
                weather.drop_request,
                Fate::DropRequest,
                &self.counts.dropped_requests,
            ),
            (
                weather.drop_answer,
                Fate::DropAnswer,
                &self.counts.dropped_answers,
            ),
            (
                weather.break_answer,
                Fate::BreakAnswer,
                &self.counts.broken_answers,
            ),
            (
                weather.busy,
                Fate::Busy { retry_after_s: 1 },
                &self.counts.busy,
            ),
        ];
        for (share, fate, count) in fates {
            if chance < share {
                add(count);
                return (fate, delay);
            }
            chance -= share;
        }
        (Fate::Through, delay)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Hangup> {
        add(&self.counts.requests);
        let (fate, delay) = self.draw();
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Hangup)?.to_bytes();
        tokio::time::sleep(delay).await;
        match fate {
            Fate::DropRequest => return Err(Hangup),
            Fate::Busy { retry_after_s } => return Ok(busy(retry_after_s)),
            Fate::Silence => {
                while self.trouble().outage == Some(Outage::Silence) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                return Err(Hangup);
            }
            Fate::Through | Fate::DropAnswer | Fate::BreakAnswer => {}
        }
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let answer = self
            .client
            .request(parts.method, format!("http://{}{path}", self.upstream))
            .headers(end_to_end(parts.headers))
            .body(body)
            .send()
            .await
            .map_err(|_| Hangup)?;
        let (status, headers) = (answer.status(), end_to_end(answer.headers().clone()));
        if status == StatusCode::PRECONDITION_FAILED {
            add(&self.counts.preconditions_failed);
        }
        let content = answer.bytes().await.map_err(|_| Hangup)?;
        if fate == Fate::DropAnswer {
            return Err(Hangup);
        }
        let body = if fate == Fate::BreakAnswer {
            if content.is_empty() {
                return Err(Hangup);
            }
            let half = content.slice(..content.len() / 2);
            let cut = io::Error::new(io::ErrorKind::ConnectionReset, Hangup);
            BodyExt::boxed(StreamBody::new(stream::iter([
                Ok(Frame::data(half)),
                Err(cut),
            ])))
        } else {
            full(content)
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Arc::clone(&state)));
            }
            // Out of descriptors for a moment: the client sees a slow network.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let service = hyper::service::service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { state.answer(request).await }
    });
    // An error here is a connection that was closed on purpose, by us or by the client.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The headers that are not about the connection alone; lengths are set anew from the bodies, but for
/// an answer to HEAD, which has a length and no body.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::HOST,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers
}

fn busy(retry_after_s: u32) -> Response<Body> {
    let text = "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>ServerBusy</Code><Message>The server is busy.</Message></Error>";
    let mut response = Response::new(full(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(
        header::RETRY_AFTER,
        header::HeaderValue::from(retry_after_s),
    );
    headers.insert(
        "x-ms-error-code",
        header::HeaderValue::from_static("ServerBusy"),
    );
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/xml"),
    );
    response
}

fn full(content: Bytes) -> Body {
    Full::new(content)
        .map_err(|never: Infallible| match never {})
        .boxed()
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_KIB: usize = 1024;

    /// A store that counts what it was asked to do and answers with a kibibyte.
    async fn store(status: StatusCode) -> (SocketAddr, Arc<AtomicU64>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&acted);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let count = Arc::clone(&count);
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let count = Arc::clone(&count);
                    async move {
                        let path = request.uri().to_string();
                        let sent = request.into_body().collect().await.unwrap().to_bytes();
                        add(&count);
                        let mut response =
                            Response::new(Full::new(Bytes::from(vec![b'x'; ONE_KIB])));
                        *response.status_mut() = status;
                        let echo = format!("{path} {}", String::from_utf8_lossy(&sent));
                        response
                            .headers_mut()
                            .insert("x-echo", echo.parse().unwrap());
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        (address, acted)
    }

    async fn put(proxy: &Proxy) -> Result<(StatusCode, HeaderMap, Bytes), reqwest::Error> {
        let url = format!(
            "http://{}/account/blob%20a?comp=appendblock",
            proxy.address()
        );
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answer = client.put(url).body("points").send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok((status, headers, answer.bytes().await?))
    }

    #[tokio::test]
    async fn in_calm_weather_requests_and_answers_pass_unchanged() {
        let (address, acted) = store(StatusCode::CREATED).await;
        let proxy = Proxy::start(address, 1).await.unwrap();
        let (status, headers, content) = put(&proxy).await.unwrap();
        assert_eq!((status, content.len()), (StatusCode::CREATED, ONE_KIB));
        assert_eq!(
            headers["x-echo"],
            "/account/blob%20a?comp=appendblock points"
        );
        assert_eq!(acted.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn each_trouble_does_what_its_name_says() {
        let (address, acted) = store(StatusCode::CREATED).await;
        let proxy = Proxy::start(address, 1).await.unwrap();
        let only = |change: fn(&mut Weather)| {
            let mut weather = Weather::CALM;
            change(&mut weather);
            proxy.set_weather(weather);
        };

        only(|w| w.drop_request = 1.0);
        assert!(put(&proxy).await.is_err());
        assert_eq!(acted.load(Ordering::Relaxed), 0, "the store saw nothing");

        only(|w| w.drop_answer = 1.0);
        assert!(put(&proxy).await.is_err());
        assert_eq!(acted.load(Ordering::Relaxed), 1, "the store acted");

        only(|w| w.break_answer = 1.0);
        assert!(put(&proxy).await.is_err());
        assert_eq!(acted.load(Ordering::Relaxed), 2);

        only(|w| w.busy = 1.0);
        let (status, headers, _) = put(&proxy).await.unwrap();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(headers[header::RETRY_AFTER], "1");
        assert_eq!(
            acted.load(Ordering::Relaxed),
            2,
            "a busy store does not act"
        );

        only(|w| (w.delay, w.longest_delay_ms) = (1.0, 5));
        assert!(put(&proxy).await.is_ok());
        let counts = proxy.counts().to_string();
        assert_eq!(
            counts,
            "5 requests, 1 delayed, 1 dropped before and 1 after the store acted, 1 broken off, 1 answered 503, 0 in an outage, 0 failed a condition"
        );
    }

    #[tokio::test]
    async fn an_outage_ends_when_it_is_told_to() {
        let (address, acted) = store(StatusCode::PRECONDITION_FAILED).await;
        let proxy = Arc::new(Proxy::start(address, 1).await.unwrap());
        proxy.set_outage(Some(Outage::Reset));
        assert!(put(&proxy).await.is_err());
        proxy.set_outage(Some(Outage::Busy { retry_after_s: 3 }));
        assert_eq!(put(&proxy).await.unwrap().1[header::RETRY_AFTER], "3");

        proxy.set_outage(Some(Outage::Silence));
        let waiting = tokio::spawn({
            let proxy = Arc::clone(&proxy);
            async move { put(&proxy).await.is_err() }
        });
        while proxy.counts().in_outage.load(Ordering::Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
        proxy.set_outage(None);
        assert!(
            waiting.await.unwrap(),
            "a silent request ends with the outage"
        );
        assert_eq!(acted.load(Ordering::Relaxed), 0);

        assert_eq!(
            put(&proxy).await.unwrap().0,
            StatusCode::PRECONDITION_FAILED
        );
        assert_eq!(
            proxy.counts().preconditions_failed.load(Ordering::Relaxed),
            1
        );
    }
}
