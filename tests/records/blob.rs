//! The blob sink: against Azurite, and against a service on loopback that loses acknowledgements and
//! runs out of blocks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use azure_core::http::Url;
use azure_storage_blob::BlobContainerClient;
use lapwing::record::Sink;
use lapwing::record::blob::BlobSink;
use tokio::task::JoinHandle;

use super::{Shape, dead_letters, once};

/// The append blobs of an account, as far as the sink needs them.
#[derive(Default)]
struct Account {
    has_container: bool,
    /// Content and number of blocks.
    blobs: BTreeMap<String, (Vec<u8>, usize)>,
    /// Blocks that a blob can have; none: 50,000 as in Azure.
    most_blocks: Option<usize>,
    /// So many of the next appends are done and answered with 500.
    lost_acknowledgements: usize,
    requests: usize,
}

struct Service {
    address: SocketAddr,
    account: Arc<Mutex<Account>>,
    server: JoinHandle<()>,
}

impl Service {
    async fn start(account: Account) -> Self {
        let account = Arc::new(Mutex::new(account));
        let app = Router::new()
            .fallback(serve)
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&account));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            account,
            server,
        }
    }

    fn sink(&self) -> BlobSink {
        let url = Url::parse(&format!("http://{}/account/records", self.address)).unwrap();
        BlobSink::new(BlobContainerClient::new(url, None, None).unwrap())
    }

    /// The offsets in each blob of a day of partition 3.
    fn offsets(&self) -> Vec<(String, Vec<i64>)> {
        let account = self.account.lock().unwrap();
        let lines = |bytes: &[u8]| -> Vec<i64> {
            String::from_utf8(bytes.to_vec())
                .unwrap()
                .lines()
                .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
                .map(|event| event["data"]["offset"].as_i64().unwrap())
                .collect()
        };
        account
            .blobs
            .iter()
            .map(|(name, (bytes, _))| {
                let name = name.strip_prefix("dead-letters/metrics/3/").unwrap();
                (name.to_owned(), lines(bytes))
            })
            .collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    State(account): State<Arc<Mutex<Account>>>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut account = account.lock().unwrap();
    account.requests += 1;
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    let path = uri.path().strip_prefix("/account/records").unwrap();
    let name = path.trim_start_matches('/').replace("%2F", "/");
    match (&method, query.get("comp").map(String::as_str)) {
        (&Method::PUT, None) if query.contains_key("restype") => {
            account.has_container = true;
            StatusCode::CREATED.into_response()
        }
        _ if !account.has_container => refuse(404, "ContainerNotFound"),
        (&Method::GET, Some("list")) => list(&account, &query["prefix"]),
        (&Method::PUT, None) => {
            assert_eq!(header("if-none-match"), Some("*"));
            if account.blobs.contains_key(&name) {
                return refuse(409, "BlobAlreadyExists");
            }
            account.blobs.insert(name, (Vec::new(), 0));
            StatusCode::CREATED.into_response()
        }
        (&Method::PUT, Some("appendblock")) => append(&mut account, &name, &headers, &body),
        (&Method::GET, None) => {
            let Some((bytes, _)) = account.blobs.get(&name) else {
                return refuse(404, "BlobNotFound");
            };
            let range = header("x-ms-range").or(header("range")).unwrap();
            let (start, end) = range
                .strip_prefix("bytes=")
                .unwrap()
                .split_once('-')
                .unwrap();
            let start: usize = start.parse().unwrap();
            let end = end
                .parse()
                .map_or(bytes.len(), |end: usize| bytes.len().min(end + 1));
            let range = format!("bytes {start}-{}/{}", end - 1, bytes.len());
            let headers = [("content-range", range), ("etag", "\"1\"".to_owned())];
            (
                StatusCode::PARTIAL_CONTENT,
                headers,
                bytes[start..end].to_vec(),
            )
                .into_response()
        }
        other => panic!("unexpected request {other:?}"),
    }
}

fn append(account: &mut Account, name: &str, headers: &HeaderMap, body: &[u8]) -> Response {
    let most_blocks = account.most_blocks.unwrap_or(50_000);
    let Some((bytes, blocks)) = account.blobs.get_mut(name) else {
        return refuse(404, "BlobNotFound");
    };
    let position = headers["x-ms-blob-condition-appendpos"].to_str().unwrap();
    if position.parse() != Ok(bytes.len()) {
        return refuse(412, "AppendPositionConditionNotMet");
    }
    if *blocks == most_blocks {
        return refuse(409, "BlockCountExceedsLimit");
    }
    bytes.extend_from_slice(body);
    *blocks += 1;
    if account.lost_acknowledgements > 0 {
        account.lost_acknowledgements -= 1;
        return refuse(500, "InternalError");
    }
    StatusCode::CREATED.into_response()
}

fn list(account: &Account, prefix: &str) -> Response {
    let mut xml =
        String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs>");
    let blobs = account
        .blobs
        .iter()
        .filter(|(name, _)| name.starts_with(prefix));
    for (name, (bytes, _)) in blobs {
        let length = bytes.len();
        write!(xml, "<Blob><Name>{name}</Name><Properties><Content-Length>{length}</Content-Length></Properties></Blob>").unwrap();
    }
    xml.push_str("</Blobs><NextMarker /></EnumerationResults>");
    ([("content-type", "application/xml")], xml).into_response()
}

fn refuse(status: u16, code: &'static str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>no</Message></Error>"
    );
    let headers = [
        ("x-ms-error-code", code),
        ("content-type", "application/xml"),
    ];
    (StatusCode::from_u16(status).unwrap(), headers, body).into_response()
}

#[tokio::test]
async fn a_container_on_loopback_has_every_event_once() {
    let service = Service::start(Account::default()).await;
    once::every_event_is_there_once(&|| Box::new(service.sink())).await;
}

#[tokio::test]
async fn a_warm_write_is_one_request() {
    let service = Service::start(Account::default()).await;
    let sink = service.sink();
    sink.write(&dead_letters([1])).await.unwrap();
    let before = service.account.lock().unwrap().requests;
    for offset in 2..12 {
        sink.write(&dead_letters([offset])).await.unwrap();
    }
    assert_eq!(service.account.lock().unwrap().requests - before, 10);
}

#[tokio::test]
async fn an_append_whose_acknowledgement_was_lost_is_recognised() {
    let service = Service::start(Account {
        lost_acknowledgements: 1,
        ..Account::default()
    })
    .await;
    let sink = service.sink();
    sink.write(&dead_letters([1, 2])).await.unwrap();
    sink.write(&dead_letters([3])).await.unwrap();
    assert_eq!(
        service.offsets(),
        [("2026-08-21.jsonl".to_owned(), vec![1, 2, 3])]
    );
}

#[tokio::test]
async fn a_blob_that_has_all_its_blocks_is_followed_by_another() {
    let service = Service::start(Account {
        most_blocks: Some(2),
        ..Account::default()
    })
    .await;
    let sink = service.sink();
    for offset in 1..=5 {
        assert_eq!(sink.write(&dead_letters([offset])).await.unwrap(), 1);
    }
    let expected = [
        ("2026-08-21-1.jsonl", vec![3, 4]),
        ("2026-08-21-2.jsonl", vec![5]),
        ("2026-08-21.jsonl", vec![1, 2]),
    ];
    assert_eq!(
        service.offsets(),
        expected.map(|(name, offsets)| (name.to_owned(), offsets))
    );
    // A process that knows nothing goes on in the last one, and one that finds it empty looks into
    // the one before.
    assert_eq!(service.sink().write(&dead_letters(1..=6)).await.unwrap(), 1);
    let empty = "dead-letters/metrics/3/2026-08-21-3.jsonl".to_owned();
    service
        .account
        .lock()
        .unwrap()
        .blobs
        .insert(empty, (Vec::new(), 0));
    assert_eq!(service.sink().write(&dead_letters(1..=7)).await.unwrap(), 1);
    assert_eq!(
        service.offsets()[2],
        ("2026-08-21-3.jsonl".to_owned(), vec![7])
    );
}

#[tokio::test]
async fn a_foreign_torn_line_spoils_no_other() {
    let service = Service::start(Account::default()).await;
    service.sink().write(&dead_letters([1])).await.unwrap();
    {
        let mut account = service.account.lock().unwrap();
        let (bytes, _) = account.blobs.values_mut().next().unwrap();
        bytes.extend_from_slice(b"{\"id\":\"metr");
    }
    assert_eq!(
        service.sink().write(&dead_letters([1, 2])).await.unwrap(),
        1
    );
    assert_eq!(service.offsets()[0].1, [1, 2]);
}

#[tokio::test]
async fn an_event_longer_than_the_look_back_is_found() {
    let service = Service::start(Account::default()).await;
    let value = "x".repeat(700_000);
    let large = || {
        Shape {
            offset: 1,
            value: &value,
            ..Shape::default()
        }
        .event()
    };
    assert_eq!(service.sink().write(&[large()]).await.unwrap(), 1);
    assert_eq!(service.sink().write(&[large()]).await.unwrap(), 0);
}
