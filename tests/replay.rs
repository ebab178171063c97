//! Replay over the Kafka protocol, against librdkafka's mock cluster: what arrives, where the cursor
//! stands, and what a person reads when something is missing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use azure_core::http::RequestContent;
use lapwing::config::Settings;
use lapwing::replay::{Progress, ReplayError, Replayer};
use lapwing::store::azure::Account;
use lapwing::store::{MemoryStore, WindowStore};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaRespErr;

const TOPIC: &str = "network";

struct Broker {
    mock: MockCluster<'static, DefaultProducerContext>,
}

/// A message that arrived: key, value, row header.
type Arrived = (String, String, String);

impl Broker {
    fn start(partitions: i32) -> Self {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic(TOPIC, partitions, 1).unwrap();
        Self { mock }
    }

    fn address(&self) -> String {
        self.mock.bootstrap_servers()
    }

    /// Everything in the topic, partition by partition.
    fn messages(&self) -> Vec<(i32, Arrived)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.address())
            .set("group.id", "reader")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        let wait = Duration::from_secs(5);
        let deadline = Instant::now() + Duration::from_secs(60);
        let metadata = consumer.fetch_metadata(Some(TOPIC), wait).unwrap();
        let partitions = metadata.topics()[0].partitions().len();
        let mut all = Vec::new();
        for partition in 0..i32::try_from(partitions).unwrap() {
            let mut list = rdkafka::TopicPartitionList::new();
            list.add_partition_offset(TOPIC, partition, rdkafka::Offset::Beginning)
                .unwrap();
            consumer.assign(&list).unwrap();
            loop {
                assert!(Instant::now() < deadline, "neither a message nor the end");
                // A poll may also end with nothing.
                let Some(polled) = consumer.poll(wait) else {
                    continue;
                };
                match polled {
                    Ok(message) => {
                        let text = |bytes: Option<&[u8]>| {
                            String::from_utf8(bytes.unwrap_or(b"-").to_vec()).unwrap()
                        };
                        let row = message.headers().unwrap().get(0).value;
                        let arrived = (text(message.key()), text(message.payload()), text(row));
                        all.push((partition, arrived));
                    }
                    Err(rdkafka::error::KafkaError::PartitionEOF(_)) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        all
    }
}

struct Feed {
    broker: Broker,
    store: Arc<dyn WindowStore>,
    folder: tempfile::TempDir,
}

impl Feed {
    fn new(csv: &str) -> Self {
        let feed = Self {
            broker: Broker::start(1),
            store: Arc::new(MemoryStore::default()),
            folder: tempfile::tempdir().unwrap(),
        };
        feed.write(csv);
        feed
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("rows.csv")
    }

    fn write(&self, csv: &str) {
        std::fs::write(self.path(), csv).unwrap();
    }

    /// A replay like that of another instance, or after a restart.
    fn replayer(&self, settings: &[(&str, &str)]) -> Replayer {
        let path = self.path();
        let address = self.broker.address();
        let own = [
            ("Replay__Source", path.to_str().unwrap()),
            ("KafkaBrokers", &address),
            ("KafkaTopic", TOPIC),
        ];
        let pairs = own.iter().chain(settings).copied();
        let settings = Settings::from_pairs(pairs);
        Replayer::from_settings(&settings, Arc::clone(&self.store), |_| None).unwrap()
    }

    fn values(&self) -> Vec<String> {
        let messages = self.broker.messages().into_iter();
        messages.map(|(_, (_, value, _))| value).collect()
    }
}

fn row(timestamp: &str, value: &str) -> String {
    format!(r#"{{"timestamp":"{timestamp}","value":"{value}"}}"#)
}

const THREE: &str =
    "timestamp,value\n2014-03-01 17:36:00,42.0\n2014-03-01 17:41:00,\nnonsense,NaN\n";

#[tokio::test]
async fn rows_go_out_as_they_are_and_another_instance_goes_on() {
    let feed = Feed::new(THREE);
    let progress = feed.replayer(&[]).tick().await.unwrap();
    assert_eq!(progress.to_string(), "1 rows sent to network, up to row 1");
    let second = feed.replayer(&[("Replay__RowsPerTick", "5")]);
    let progress = second.tick().await.unwrap();
    assert_eq!(progress.to_string(), "2 rows sent to network, up to row 3");
    assert_eq!(second.tick().await.unwrap(), Progress::AtEnd { rows: 3 });

    let arrived = |value: String, row: &str| (0, (TOPIC.to_owned(), value, row.to_owned()));
    let expected = [
        arrived(row("2014-03-01 17:36:00", "42.0"), "0/0"),
        arrived(row("2014-03-01 17:41:00", ""), "0/1"),
        arrived(row("nonsense", "NaN"), "0/2"),
    ];
    assert_eq!(feed.broker.messages(), expected);

    // A file that grows goes on.
    feed.write(&format!("{THREE}2014-03-01 17:46:00,7\n"));
    let progress = feed.replayer(&[]).tick().await.unwrap();
    assert_eq!(progress.to_string(), "1 rows sent to network, up to row 4");
}

#[tokio::test]
async fn past_the_end_a_loop_carries_timestamps_on() {
    let feed = Feed::new(
        "timestamp,value\n2014-03-01 17:36:00,1\n2014-03-01 17:41:00,2\n2014-03-01T17:46:00Z,3\nbad,4\n",
    );
    let settings = [("Replay__Loop", "true"), ("Replay__RowsPerTick", "5")];
    for _ in 0..2 {
        feed.replayer(&settings).tick().await.unwrap();
    }
    let expected = [
        row("2014-03-01 17:36:00", "1"),
        row("2014-03-01 17:41:00", "2"),
        row("2014-03-01T17:46:00Z", "3"),
        row("bad", "4"),
        row("2014-03-01 17:51:00", "1"),
        row("2014-03-01 17:56:00", "2"),
        row("2014-03-01T18:01:00Z", "3"),
        row("bad", "4"),
        row("2014-03-01 18:06:00", "1"),
        row("2014-03-01 18:11:00", "2"),
    ];
    assert_eq!(feed.values(), expected);
    assert_eq!(feed.broker.messages()[9].1.2, "2/1");
}

#[tokio::test]
async fn ticks_at_the_same_time_advance_once() {
    let rows: String = (0..40)
        .map(|n| format!("2014-03-01 17:36:{n:02},{n}\n"))
        .collect();
    let feed = Feed::new(&format!("timestamp,value\n{rows}"));
    let replayers = [feed.replayer(&[]), feed.replayer(&[]), feed.replayer(&[])];
    let (mut sent, mut elsewhere) = (0, 0);
    for _ in 0..10 {
        let [a, b, c] = &replayers;
        let (a, b, c) = tokio::join!(a.tick(), b.tick(), c.tick());
        for progress in [a, b, c] {
            match progress.unwrap() {
                Progress::Sent { rows, .. } => sent += rows,
                Progress::Elsewhere => elsewhere += 1,
                Progress::AtEnd { .. } => panic!("there are more rows"),
            }
        }
    }
    assert_eq!(sent + elsewhere, 30);
    let expected: Vec<String> = (0..sent)
        .map(|n| row(&format!("2014-03-01 17:36:{n:02}"), &n.to_string()))
        .collect();
    assert!(sent >= 10, "{sent}");
    assert_eq!(feed.values(), expected, "each row once, in order");
}

#[tokio::test]
async fn what_did_not_arrive_is_sent_again() {
    let feed = Feed::new(THREE);
    // The broker finds no message acceptable: nothing arrives, nothing is skipped.
    feed.broker
        .mock
        .topic_error(
            TOPIC,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        )
        .unwrap();
    let replayer = feed.replayer(&[("Replay__RowsPerTick", "3")]);
    let error = replayer.tick().await.unwrap_err();
    assert!(matches!(error, ReplayError::Produce(_)), "{error:?}");
    feed.broker
        .mock
        .topic_error(TOPIC, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR)
        .unwrap();
    let progress = replayer.tick().await.unwrap();
    assert_eq!(progress.to_string(), "3 rows sent to network, up to row 3");
    assert_eq!(feed.values().len(), 3);
}

#[tokio::test]
async fn a_file_that_changed_is_noticed() {
    let feed = Feed::new(THREE);
    feed.replayer(&[]).tick().await.unwrap();
    for changed in [
        "timestamp,value\n2014-03-01 17:36:00,43.0\n2014-03-01 17:41:00,\n",
        "timestamp,value\n",
        "timestamp,value,other\n1,2,3\n1,2,3\n",
    ] {
        feed.write(changed);
        let error = feed.replayer(&[]).tick().await.unwrap_err();
        let place = feed.path().display().to_string();
        assert!(
            error.to_string().starts_with(&format!(
                "{place} changed: row 1 is not the one that was sent; give the new file another name, or remove replay-"
            )),
            "{error}"
        );
    }
    feed.write(THREE);
    feed.replayer(&[]).tick().await.unwrap();
    assert_eq!(feed.values().len(), 2);
}

#[tokio::test]
async fn a_claim_left_behind_runs_out() {
    let feed = Feed::new(THREE);
    let replayer = feed.replayer(&[]);
    replayer.tick().await.unwrap();
    // What a tick that was killed between its two saves leaves: here one until 1970, and one until soon.
    let name = "replay-".to_owned() + &cursor_digest(&feed.path());
    for (until, expected) in [(1, "1 rows"), (i64::MAX, "1 rows")] {
        let (bytes, tag) = feed.store.document(&name).await.unwrap().unwrap();
        let mut document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        document["claim"] = serde_json::json!({"until_micros": until, "by": "a killed tick"});
        let bytes = serde_json::to_vec(&document).unwrap();
        let put = feed
            .store
            .put_document(&name, bytes.into(), Some(&tag))
            .await;
        put.unwrap();
        let progress = replayer.tick().await.unwrap().to_string();
        assert!(progress.starts_with(expected), "{progress}");
    }
    let (bytes, tag) = feed.store.document(&name).await.unwrap().unwrap();
    let mut document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let soon = chrono::Utc::now().timestamp_micros() + 60_000_000;
    document["claim"] = serde_json::json!({"until_micros": soon, "by": "a tick that is sending"});
    let bytes = serde_json::to_vec(&document).unwrap();
    let put = feed
        .store
        .put_document(&name, bytes.into(), Some(&tag))
        .await;
    put.unwrap();
    assert_eq!(replayer.tick().await.unwrap(), Progress::Elsewhere);
}

/// The name under which the cursor of a source and topic is documented to lie.
fn cursor_digest(path: &Path) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(format!("{}\n{TOPIC}", path.display()));
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[tokio::test]
async fn an_empty_file_is_the_end_and_nothing_to_loop_over() {
    let feed = Feed::new("timestamp,value\n");
    assert_eq!(
        feed.replayer(&[]).tick().await.unwrap(),
        Progress::AtEnd { rows: 0 }
    );
    let error = feed.replayer(&[("Replay__Loop", "true")]).tick().await;
    assert!(
        matches!(error, Err(ReplayError::NoRows { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_url_is_read_from_where_it_stopped_with_and_without_ranges() {
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::get;
    // `ranges` answers them, `whole` does not know them, `broken` fails.
    let ranges = |headers: HeaderMap| async move {
        let Some(range) = headers.get("range") else {
            return (StatusCode::OK, THREE);
        };
        let from = range.to_str().unwrap().trim_start_matches("bytes=");
        let from: usize = from.trim_end_matches('-').parse().unwrap();
        (StatusCode::PARTIAL_CONTENT, &THREE[from..])
    };
    let app = axum::Router::new()
        .route("/ranges.csv", get(ranges))
        .route("/whole.csv", get(|| async { THREE }))
        .route("/broken.csv", get(|| async { StatusCode::BAD_GATEWAY }))
        .route("/secret.csv", get(|| async { StatusCode::FORBIDDEN }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async { axum::serve(listener, app).await });

    for name in ["ranges", "whole"] {
        let feed = Feed::new("");
        let url = format!("http://{address}/{name}.csv");
        for _ in 0..3 {
            let progress = feed.replayer(&[("Replay__Source", &url)]).tick().await;
            progress.unwrap();
        }
        assert_eq!(
            feed.values(),
            [
                row("2014-03-01 17:36:00", "42.0"),
                row("2014-03-01 17:41:00", ""),
                row("nonsense", "NaN")
            ]
        );
    }
    let feed = Feed::new("");
    for (name, expected) in [
        (
            "broken.csv?sig=hush",
            "/broken.csv?*** cannot be read now; try again",
        ),
        (
            "secret.csv?sig=hush",
            "/secret.csv?*** cannot be read: it answered 403; check its address, permissions and credentials",
        ),
        (
            "none.csv",
            "/none.csv does not exist; name a csv file that does",
        ),
    ] {
        let url = format!("http://{address}/{name}");
        let error = feed.replayer(&[("Replay__Source", &url)]).tick().await;
        let error = error.unwrap_err().to_string();
        assert_eq!(error, format!("http://{address}{expected}"));
    }
    server.abort();
}

#[tokio::test]
async fn a_blob_of_the_apps_own_account_is_read_with_its_credentials() {
    let Ok(base) = std::env::var("LAPWING_AZURITE") else {
        println!("LAPWING_AZURITE is not set: no blob is replayed");
        return;
    };
    let base = url::Url::parse(&base).expect("LAPWING_AZURITE is a URL");
    let host = format!("{}://{}", base.scheme(), base.host_str().unwrap());
    let port = base.port().expect("LAPWING_AZURITE has a port");
    let account = Account::azurite(&host, port, port + 2).unwrap();
    let name = format!("replay{}", uuid::Uuid::new_v4().simple());
    let container = account.container(&name).unwrap();
    container.create(None).await.unwrap();
    let content = RequestContent::from(THREE.as_bytes().to_vec());
    let blob = container.blob_client("feeds/rows.csv");
    blob.upload(content, None).await.unwrap();

    let feed = Feed::new("");
    let replayer = |name: &str| {
        let mut url = blob.url().clone();
        // As people write it: the client's own address has the slash of the name encoded.
        let path = url.path().replace("%2F", "/");
        url.set_path(&path.replace("rows", name));
        let address = feed.broker.address();
        let settings = Settings::from_pairs([
            ("Replay__Source", url.as_str()),
            ("KafkaBrokers", &address),
            ("KafkaTopic", TOPIC),
        ]);
        let store = Arc::clone(&feed.store);
        Replayer::from_settings(&settings, store, |url| account.blob(url)).unwrap()
    };
    // Each tick reads from the row before on, hence by ranges.
    for _ in 0..3 {
        replayer("rows").tick().await.unwrap();
    }
    let end = replayer("rows").tick().await.unwrap();
    assert_eq!(end, Progress::AtEnd { rows: 3 });
    assert_eq!(feed.values().len(), 3);
    let error = replayer("none").tick().await.unwrap_err().to_string();
    assert!(
        error.ends_with("/feeds/none.csv does not exist; name a csv file that does"),
        "{error}"
    );
    container.delete(None).await.unwrap();
}

/// Runs `lapwing replay` and gives its exit status, stdout and stderr.
async fn lapwing(args: &[&str]) -> (Option<i32>, String, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_lapwing"))
        .arg("replay")
        .args(args)
        .env_clear()
        .output()
        .await
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[tokio::test]
async fn the_command_spreads_the_sample_over_partitions() {
    let broker = Broker::start(4);
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/data/sample_network_data.csv");
    let csv = std::fs::read_to_string(sample).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("start.csv");
    // The mock cluster keeps few bytes per partition, so only the first 500 rows.
    let start: Vec<&str> = csv.lines().take(501).collect();
    std::fs::write(&path, start.join("\n")).unwrap();
    let sample = path.to_str().unwrap();
    let address = broker.address();
    let mut args = vec![sample, "--brokers", &address, "--topic", TOPIC];
    args.extend(["--series", "eth", "--copies", "16"]);
    let (status, stdout, stderr) = lapwing(&args).await;
    assert_eq!((status, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(
        stdout.contains("500 rows of ")
            && stdout.contains(" sent as 8000 messages to topic network in "),
        "{stdout}"
    );
    let expected: Vec<String> = start[1..]
        .iter()
        .map(|line| line.split_once(',').unwrap())
        .map(|(timestamp, value)| row(timestamp, value))
        .collect();
    let messages = broker.messages();
    let mut partitions = std::collections::BTreeSet::new();
    for series in 0..16 {
        let key = format!("eth-{series}");
        let of_series: Vec<_> = messages.iter().filter(|(_, m)| m.0 == key).collect();
        let partition = of_series[0].0;
        partitions.insert(partition);
        assert!(of_series.iter().all(|(other, _)| *other == partition));
        let values: Vec<&String> = of_series.iter().map(|(_, m)| &m.1).collect();
        assert_eq!(values, expected.iter().collect::<Vec<_>>(), "{key}");
    }
    assert_eq!(partitions.len(), 4);
}

#[tokio::test]
async fn the_command_says_what_is_wrong_on_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = write("good.csv", THREE.as_bytes());
    let broker = Broker::start(1);
    let address = broker.address();
    let said = |expected: String| (Some(1), String::new(), format!("lapwing: {expected}\n"));

    let missing = folder.path().join("none.csv").to_str().unwrap().to_owned();
    let expected = said(format!(
        "{missing} does not exist; name a csv file that does"
    ));
    assert_eq!(lapwing(&[&missing]).await, expected);

    let torn = write("torn.csv", b"timestamp,value\n1,2\n3\n");
    let args = [torn.as_str(), "--brokers", &address, "--topic", TOPIC];
    let expected = said(format!(
        "{torn}, line 3: the header has 2 fields and this row 1; every row needs the same"
    ));
    assert_eq!(lapwing(&args).await, expected);

    let (status, _, stderr) = lapwing(&[&good, "--rate", "0"]).await;
    assert_eq!(status, Some(2), "{stderr}");
}
