//! The webhook sink and a receiver that is slow, broken, busy or choosy.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, Mac};
use lapwing::record::webhook::WebhookSink;
use lapwing::record::{Sink, SinkError};
use sha2::Sha256;
use tokio::task::JoinHandle;

use super::{dead_letter, dead_letters};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What the receiver does with the next request.
#[derive(Clone, Debug)]
enum Answer {
    Status(u16),
    RetryAfter(u16, &'static str),
    Redirect,
    /// Takes it and never answers.
    Silence,
    /// 413 for a body above so many bytes.
    AtMost(usize),
}

/// A receiver on loopback; it goes when it is dropped.
struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    answers: VecDeque<Answer>,
    /// What follows when the answers are used up.
    always: Option<Answer>,
    requests: Vec<(HeaderMap, Bytes)>,
}

impl Receiver {
    async fn start(answers: impl IntoIterator<Item = Answer>, always: Answer) -> Self {
        let seen = Arc::new(Mutex::new(Seen {
            answers: answers.into_iter().collect(),
            always: Some(always),
            requests: Vec::new(),
        }));
        let app = Router::new()
            .route("/hook", post(receive))
            .with_state(Arc::clone(&seen));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            seen,
            server,
        }
    }

    fn sink(&self, timeout: Duration) -> WebhookSink {
        let url = format!("http://{}/hook?code=hidden", self.address);
        WebhookSink::new(&url, SECRET, timeout).unwrap()
    }

    fn requests(&self) -> Vec<(HeaderMap, Bytes)> {
        self.seen.lock().unwrap().requests.clone()
    }

    /// The ids of each request's events, in order.
    fn ids(&self) -> Vec<Vec<String>> {
        self.requests()
            .iter()
            .map(|(_, body)| {
                let events: Vec<serde_json::Value> = serde_json::from_slice(body).unwrap();
                events
                    .iter()
                    .map(|event| event["id"].as_str().unwrap().to_owned())
                    .collect()
            })
            .collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(
    State(seen): State<Arc<Mutex<Seen>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = {
        let mut seen = seen.lock().unwrap();
        seen.requests.push((headers, body.clone()));
        let next = seen.answers.pop_front();
        next.or_else(|| seen.always.clone()).unwrap()
    };
    match answer {
        Answer::Status(status) => {
            (StatusCode::from_u16(status).unwrap(), "what it says").into_response()
        }
        Answer::RetryAfter(status, when) => {
            let mut response = StatusCode::from_u16(status).unwrap().into_response();
            let when = HeaderValue::from_static(when);
            response.headers_mut().insert("retry-after", when);
            response
        }
        Answer::Redirect => {
            let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
            let to = HeaderValue::from_static("/elsewhere");
            response.headers_mut().insert("location", to);
            response
        }
        Answer::Silence => std::future::pending().await,
        Answer::AtMost(most) if body.len() > most => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Answer::AtMost(_) => StatusCode::OK.into_response(),
    }
}

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_batch_is_one_signed_request_and_the_same_again_when_it_is_written_again() {
    let receiver = Receiver::start([], Answer::Status(204)).await;
    let sink = receiver.sink(SOON);
    let events = dead_letters([1, 2]);
    assert_eq!(sink.write(&events).await.unwrap(), 2);
    assert_eq!(sink.write(&events).await.unwrap(), 2);
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].1, requests[1].1);
    assert_eq!(requests[0].0["webhook-id"], requests[1].0["webhook-id"]);
    assert_eq!(
        requests[0].0["content-type"],
        "application/cloudevents-batch+json; charset=UTF-8"
    );
    for (headers, body) in &requests {
        let header = |name| headers[name].to_str().unwrap();
        let key = BASE64_STANDARD.decode(&SECRET[6..]).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
        mac.update(body);
        let signature = header("webhook-signature").strip_prefix("v1,").unwrap();
        mac.verify_slice(&BASE64_STANDARD.decode(signature).unwrap())
            .unwrap();
    }
}

#[tokio::test]
async fn a_passing_failure_is_tried_again() {
    let answers = [
        Answer::Status(500),
        Answer::Status(503),
        Answer::RetryAfter(429, "1"),
    ];
    let receiver = Receiver::start(answers, Answer::Status(200)).await;
    receiver.sink(SOON).write(&dead_letters([1])).await.unwrap();
    assert_eq!(receiver.requests().len(), 4);
}

#[tokio::test]
async fn a_pause_longer_than_the_deadline_is_not_waited_for() {
    let receiver = Receiver::start([], Answer::RetryAfter(429, "3600")).await;
    let error = receiver
        .sink(SOON)
        .write(&dead_letters([1]))
        .await
        .unwrap_err();
    assert!(matches!(error, SinkError::Unavailable { .. }), "{error:?}");
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn attempts_are_bounded() {
    let receiver = Receiver::start([], Answer::RetryAfter(503, "0")).await;
    let error = receiver
        .sink(SOON)
        .write(&dead_letters([1]))
        .await
        .unwrap_err();
    assert!(matches!(error, SinkError::Unavailable { .. }), "{error:?}");
    assert_eq!(receiver.requests().len(), 6);
}

#[tokio::test]
async fn a_receiver_that_never_answers_costs_no_more_than_the_deadline() {
    let receiver = Receiver::start([], Answer::Silence).await;
    let write = receiver.sink(Duration::from_secs(1));
    let error = write.write(&dead_letters([1])).await.unwrap_err();
    assert!(matches!(error, SinkError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_refusal_and_a_redirect_are_told_at_once_and_without_the_key_of_the_url() {
    for (answer, told) in [
        (Answer::Status(401), "what it says"),
        (Answer::Redirect, "redirects are not followed"),
    ] {
        let receiver = Receiver::start([], answer).await;
        let error = receiver
            .sink(SOON)
            .write(&dead_letters([1]))
            .await
            .unwrap_err();
        let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(matches!(error, SinkError::Refused { .. }), "{text}");
        assert!(text.contains(told) && !text.contains("hidden"), "{text}");
        assert_eq!(receiver.requests().len(), 1);
    }
}

#[tokio::test]
async fn nobody_listening_is_told_without_the_key_of_the_url() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}/hook?code=hidden");
    let sink = WebhookSink::new(&url, SECRET, Duration::from_millis(300)).unwrap();
    let error = sink.write(&dead_letters([1])).await.unwrap_err();
    assert!(matches!(error, SinkError::Unavailable { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("hidden"), "{error:?}");
}

#[tokio::test]
async fn what_is_too_large_together_goes_alone_and_what_is_too_large_alone_goes_cut() {
    let receiver = Receiver::start([], Answer::AtMost(40_000)).await;
    let poison = "x".repeat(100_000);
    let events = [
        dead_letter(1, "{}"),
        dead_letter(2, &poison),
        dead_letter(3, "{}"),
    ];
    receiver.sink(SOON).write(&events).await.unwrap();
    let ids = receiver.ids();
    // All three, each alone, and the second once more without the bulk of its message.
    assert_eq!(ids[0].len(), 3);
    assert_eq!(
        ids[1..].concat(),
        [
            "metrics/0/3/1",
            "metrics/0/3/2",
            "metrics/0/3/2",
            "metrics/0/3/3"
        ]
    );
    let cut: serde_json::Value = serde_json::from_slice(&receiver.requests()[3].1).unwrap();
    assert_eq!(cut[0]["data"]["valueCutFrom"], 100_000);
    assert_eq!(cut[0]["data"]["value"].as_str().unwrap().len(), 16 * 1024);
}

#[tokio::test]
async fn a_large_batch_goes_in_pieces_and_in_order() {
    let receiver = Receiver::start([], Answer::Status(200)).await;
    receiver
        .sink(SOON)
        .write(&dead_letters(0..1200))
        .await
        .unwrap();
    let ids = receiver.ids();
    assert!(ids.len() >= 3 && ids.iter().all(|ids| ids.len() <= 500));
    let expected: Vec<_> = (0..1200).map(|n| format!("metrics/0/3/{n}")).collect();
    assert_eq!(ids.concat(), expected);
}
