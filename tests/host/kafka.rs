//! The Kafka trigger against librdkafka's own mock cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use lapwing::host::event::{Batch, Event, Level};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use serde_json::{Value, json};

use super::{Bench, Running};

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(partitions: i32) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("metrics", partitions, 1).unwrap();
    cluster
}

fn function(cardinality: &str, data_type: &str) -> Value {
    json!({"bindings": [{
        "type": "kafkaTrigger", "name": "evts", "brokerList": "%Brokers%", "topic": "metrics",
        "consumerGroup": "watchers", "cardinality": cardinality, "dataType": data_type,
    }]})
}

fn bench(cluster: &Cluster, function: Value) -> Bench {
    Bench::new("detect", function).setting("Brokers", cluster.bootstrap_servers())
}

/// Sends `count` messages to each partition; their values are `{partition}-{number}`.
async fn produce(cluster: &Cluster, partitions: i32, count: usize) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .create()
        .unwrap();
    for number in 0..count {
        for partition in 0..partitions {
            let (key, value) = (format!("key-{partition}"), format!("{partition}-{number}"));
            let header = Header {
                key: "trace",
                value: Some("abc"),
            };
            let record = FutureRecord::to("metrics")
                .partition(partition)
                .key(&key)
                .payload(&value)
                .headers(OwnedHeaders::new().insert(header));
            producer
                .send(record, Duration::from_secs(20))
                .await
                .unwrap();
        }
    }
}

impl Running {
    async fn batch(&mut self) -> Batch {
        self.wait("a batch", |event| match event {
            Event::Batch(batch) => Some(batch.clone()),
            _ => None,
        })
        .await
    }

    async fn caught_up(&mut self) {
        self.wait("the end of the topic", |event| {
            matches!(event, Event::CaughtUp { .. }).then_some(())
        })
        .await;
    }
}

/// The values of a batch of bytes.
fn values(request: &Value) -> Vec<String> {
    use base64::Engine;
    let body: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
    let events: Vec<String> = serde_json::from_str(body["Data"]["evts"].as_str().unwrap()).unwrap();
    let decode = |text: &String| {
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .unwrap()
    };
    events
        .iter()
        .map(|text| String::from_utf8(decode(text)).unwrap())
        .collect()
}

fn id(request: &Value) -> &str {
    request["headers"]["x-azure-functions-invocationid"]
        .as_str()
        .unwrap()
}

#[tokio::test]
async fn a_batch_mixes_partitions_and_is_committed() {
    let cluster = cluster(3);
    produce(&cluster, 3, 4).await;
    let bench = bench(&cluster, function("MANY", "binary"));
    let mut running = bench.start().await;
    running.caught_up().await;
    let complaint = running
        .passed
        .iter()
        .find(|log| log.category == "Host.Kafka" && log.level > Level::Information);
    assert_eq!(complaint, None);
    running.stop().await;
    let all: Vec<String> = bench.requests().iter().flat_map(values).collect();
    assert_eq!(all.len(), 12, "{all:?}");
    for partition in 0..3 {
        let prefix = format!("{partition}-");
        let of_one: Vec<&String> = all
            .iter()
            .filter(|value| value.starts_with(&prefix))
            .collect();
        assert_eq!(
            of_one,
            [
                &format!("{prefix}0"),
                &format!("{prefix}1"),
                &format!("{prefix}2"),
                &format!("{prefix}3")
            ]
        );
    }
    let metadata: Value =
        serde_json::from_str(bench.requests()[0]["body"].as_str().unwrap()).unwrap();
    let metadata = &metadata["Metadata"];
    let headers: Value = serde_json::from_str(metadata["HeadersArray"].as_str().unwrap()).unwrap();
    assert_eq!(headers[0], json!([{"Key": "trace", "Value": "YWJj"}]));
    // The next host goes on where this one stopped.
    let before = bench.requests().len();
    produce(&cluster, 1, 1).await;
    let mut running = bench.start().await;
    let batch = running.batch().await;
    assert_eq!((batch.messages, batch.next_offsets), (1, vec![(0, 5)]));
    running.stop().await;
    assert_eq!(bench.requests().len(), before + 1);
}

#[tokio::test]
async fn batches_are_full_at_their_size() {
    let cluster = cluster(1);
    produce(&cluster, 1, 10).await;
    let bench =
        bench(&cluster, function("MANY", "binary")).host("extensions__kafka__maxBatchSize", 4);
    let mut running = bench.start().await;
    running.caught_up().await;
    running.stop().await;
    assert!(
        bench
            .requests()
            .iter()
            .all(|request| values(request).len() <= 4)
    );
    assert_eq!(bench.requests().iter().flat_map(values).count(), 10);
}

#[tokio::test]
async fn a_failed_batch_is_repeated_in_place_under_new_ids() {
    let cluster = cluster(1);
    produce(&cluster, 1, 3).await;
    let bench = bench(&cluster, function("MANY", "binary"))
        .host("extensions__kafka__commitOnFailure", false)
        .host("extensions__kafka__maxRetries", -1)
        .script(json!([{"status": 500}, {"body": "[]"}, {"type": "text/plain"}, {}]));
    let mut running = bench.start().await;
    let batch = running.batch().await;
    assert!(batch.succeeded);
    let requests = bench.requests();
    assert_eq!(requests.len(), 4);
    assert!(
        requests
            .iter()
            .all(|request| values(request) == values(&requests[0]))
    );
    assert_eq!(requests.iter().map(id).collect::<BTreeSet<_>>().len(), 4);
    let redeliveries = running.host.counters().functions().next().unwrap().1;
    assert_eq!(
        redeliveries
            .redeliveries
            .load(std::sync::atomic::Ordering::Relaxed),
        3
    );
    running.stop().await;
}

#[tokio::test]
async fn max_retries_gives_a_batch_up() {
    let cluster = cluster(1);
    produce(&cluster, 1, 1).await;
    let bench = bench(&cluster, function("MANY", "binary"))
        .host("extensions__kafka__commitOnFailure", false)
        .host("extensions__kafka__maxRetries", 2)
        .script(json!([{"status": 500}]));
    let mut running = bench.start().await;
    assert!(!running.batch().await.succeeded);
    assert_eq!(bench.requests().len(), 3);
    running.stop().await;
}

#[tokio::test]
async fn by_default_a_failed_batch_is_lost() {
    let cluster = cluster(1);
    produce(&cluster, 1, 1).await;
    let bench = bench(&cluster, function("MANY", "binary")).script(json!([{"status": 500}, {}]));
    let mut running = bench.start().await;
    let (level, _) = running.logged("commitOnFailure is true").await;
    assert_eq!(level, Level::Error);
    running.caught_up().await;
    running.stop().await;
    assert_eq!(bench.requests().len(), 1);
    let mut running = bench.start().await;
    running.caught_up().await;
    running.stop().await;
    assert_eq!(bench.requests().len(), 1);
}

#[tokio::test]
async fn what_ran_when_the_host_stopped_is_delivered_again() {
    let cluster = cluster(1);
    produce(&cluster, 1, 2).await;
    let bench = bench(&cluster, function("MANY", "binary")).script(json!([{"hang": true}, {}]));
    let running = bench.start().await;
    let asked = async {
        while bench.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, asked).await.unwrap();
    running.stop().await;
    let mut running = bench.start().await;
    assert!(running.batch().await.succeeded);
    running.stop().await;
    assert_eq!(values(&bench.requests()[0]), values(&bench.requests()[1]));
}

#[tokio::test]
async fn single_messages_come_in_their_envelope() {
    let cluster = cluster(2);
    produce(&cluster, 2, 2).await;
    let bench = bench(&cluster, function("ONE", "string"));
    let mut running = bench.start().await;
    running.caught_up().await;
    running.stop().await;
    let envelopes: Vec<Value> = bench
        .requests()
        .iter()
        .map(|request| {
            let body: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
            let once: String =
                serde_json::from_str(body["Data"]["evts"].as_str().unwrap()).unwrap();
            serde_json::from_str(&once).unwrap()
        })
        .collect();
    assert_eq!(envelopes.len(), 4);
    for partition in 0..2 {
        let of_one: Vec<&Value> = envelopes
            .iter()
            .filter(|e| e["Partition"] == partition)
            .collect();
        assert_eq!(of_one[0]["Offset"], 0);
        assert_eq!(of_one[1]["Value"], format!("{partition}-1"));
        assert_eq!(of_one[1]["Key"], format!("key-{partition}"));
        assert_eq!(of_one[1]["Topic"], "metrics");
    }
}

#[tokio::test]
async fn a_broker_that_is_down_is_said_once() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let bench = Bench::new("detect", function("MANY", "binary"))
        .setting("Brokers", &address)
        .host("extensions__kafka__reconnectBackoffMs", 50)
        .host("extensions__kafka__reconnectBackoffMaxMs", 100);
    let mut running = bench.start().await;
    let (level, text) = running.logged("do not answer").await;
    assert_eq!(level, Level::Error);
    assert!(
        text.contains(&address) && text.contains("KafkaBrokers"),
        "{text}"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    while let Ok(event) = running.events.try_recv() {
        assert!(
            !matches!(&event, Event::Log(log) if log.level == Level::Error && log.category == "Host.Kafka"),
            "{event:?}"
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn a_topic_that_is_missing_is_said_and_found_when_it_comes() {
    let cluster: Cluster = MockCluster::new(1).unwrap();
    // The mock makes topics on demand; it has to be told that this one is not there.
    let missing = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster.topic_error("metrics", missing).unwrap();
    let bench = bench(&cluster, function("MANY", "binary"));
    let mut running = bench.start().await;
    let (level, text) = running.logged("does not exist").await;
    assert_eq!(level, Level::Error);
    assert!(
        text.contains("metrics") && text.contains("KafkaTopic"),
        "{text}"
    );
    let fine = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    cluster.topic_error("metrics", fine).unwrap();
    produce(&cluster, 1, 1).await;
    assert_eq!(running.batch().await.messages, 1);
    running.stop().await;
}

#[tokio::test]
async fn outputs_are_written_after_a_success_only() {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::Message;
    let cluster = cluster(1);
    cluster.create_topic("alerts", 1, 1).unwrap();
    let mut function = super::by_hand();
    let output = json!({"type": "kafka", "direction": "out", "name": "alerts", "brokerList": "%Brokers%", "topic": "alerts"});
    function["bindings"].as_array_mut().unwrap().push(output);
    let outputs =
        json!({"Outputs": {"alerts": ["{\"score\":0.97}"], "Alerts": ["dropped"]}}).to_string();
    let bench = bench(&cluster, function)
        .script(json!([{"status": 500, "body": outputs}, {"body": outputs}]));
    let mut running = bench.start().await;
    for _ in 0..2 {
        running.host.fire("detect");
        running.invoked().await;
    }
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "reader")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["alerts"]).unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let mut texts = Vec::new();
        let mut patience = std::time::Instant::now() + super::PATIENCE;
        // A poll also returns for events that are no messages.
        while std::time::Instant::now() < patience {
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                let text = message.unwrap().payload().unwrap().to_vec();
                texts.push(String::from_utf8(text).unwrap());
                patience = std::time::Instant::now() + Duration::from_secs(1);
            }
        }
        texts
    });
    assert_eq!(read.await.unwrap(), ["{\"score\":0.97}"]);
    running.stop().await;
}

/// A fresh topic on the real brokers that `LAPWING_KAFKA` names; `None`, said aloud, without it.
async fn real_topic(test: &str, partitions: i32) -> Option<(String, String)> {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    let Ok(brokers) = std::env::var("LAPWING_KAFKA") else {
        println!("{test}: not run, LAPWING_KAFKA is not set");
        return None;
    };
    let topic = format!("{test}-{}", uuid::Uuid::new_v4());
    let admin: AdminClient<_> = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .create()
        .unwrap();
    let new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    let made = admin
        .create_topics([&new], &options)
        .await
        .expect("the brokers of LAPWING_KAFKA answer");
    assert!(made[0].is_ok(), "{made:?}");
    Some((brokers, topic))
}

async fn produce_numbers(brokers: &str, topic: &str, numbers: std::ops::Range<usize>) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    let sent = numbers.map(|number| {
        let producer = producer.clone();
        async move {
            let value = number.to_string();
            let record: FutureRecord<'_, (), String> = FutureRecord::to(topic)
                .partition((number % 4) as i32)
                .payload(&value);
            producer
                .send(record, Duration::from_secs(20))
                .await
                .unwrap();
        }
    });
    futures::future::join_all(sent).await;
}

fn real_bench(brokers: &str, topic: &str) -> Bench {
    let mut function = function("MANY", "binary");
    function["bindings"][0]["topic"] = json!("%Topic%");
    function["bindings"][0]["consumerGroup"] = json!("%Topic%");
    Bench::new("detect", function)
        .setting("Brokers", brokers)
        .setting("Topic", topic)
        .host("extensions__kafka__commitOnFailure", false)
        .host("extensions__kafka__maxRetries", -1)
}

#[tokio::test]
async fn real_kafka_delivers_a_thousand_once_and_in_order() {
    let Some((brokers, topic)) = real_topic("thousand", 4).await else {
        return;
    };
    produce_numbers(&brokers, &topic, 0..1000).await;
    let bench = real_bench(&brokers, &topic);
    let mut running = bench.start().await;
    running.caught_up().await;
    running.stop().await;
    let all: Vec<usize> = bench
        .requests()
        .iter()
        .flat_map(values)
        .map(|v| v.parse().unwrap())
        .collect();
    assert_eq!(all.len(), 1000);
    for partition in 0..4 {
        let of_one: Vec<usize> = all.iter().copied().filter(|n| n % 4 == partition).collect();
        assert!(of_one.is_sorted() && of_one.len() == 250);
    }
    let before = bench.requests().len();
    let mut running = bench.start().await;
    running.caught_up().await;
    running.stop().await;
    assert_eq!(bench.requests().len(), before);
}

#[tokio::test]
async fn real_kafka_shares_partitions_between_two_hosts_and_loses_nothing() {
    let Some((brokers, topic)) = real_topic("shared", 4).await else {
        return;
    };
    produce_numbers(&brokers, &topic, 0..200).await;
    let (first, second) = (real_bench(&brokers, &topic), real_bench(&brokers, &topic));
    let mut one = first.start().await;
    one.batch().await;
    let mut two = second.start().await;
    two.logged("holds partitions").await;
    produce_numbers(&brokers, &topic, 200..1000).await;
    two.batch().await;
    let seen = || -> BTreeSet<usize> {
        let requests = [first.requests(), second.requests()].concat();
        requests
            .iter()
            .flat_map(values)
            .map(|v| v.parse().unwrap())
            .collect()
    };
    let all = async {
        while seen().len() < 1000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, all)
        .await
        .expect("messages are missing");
    // One goes; the other takes over what is left, and nothing is.
    one.stop().await;
    produce_numbers(&brokers, &topic, 1000..1040).await;
    let rest = async {
        while seen().len() < 1040 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, rest)
        .await
        .expect("messages are missing");
    two.stop().await;
}
