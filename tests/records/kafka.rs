//! The Kafka sink against librdkafka's mock cluster.

use std::time::Duration;

use lapwing::record::kafka::KafkaSink;
use lapwing::record::{Sink, SinkError};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::{dead_letter, dead_letters};

const TOPIC: &str = "lapwing-dead-letters";

fn start(partitions: i32) -> (MockCluster<'static, DefaultProducerContext>, ClientConfig) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, partitions, 1).unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap_servers());
    (cluster, config)
}

async fn read<T>(
    config: &ClientConfig,
    count: usize,
    of: impl FnMut(&BorrowedMessage<'_>) -> T,
) -> Vec<T> {
    read_topic(config, TOPIC, count, of).await
}

async fn read_topic<T>(
    config: &ClientConfig,
    topic: &str,
    count: usize,
    mut of: impl FnMut(&BorrowedMessage<'_>) -> T,
) -> Vec<T> {
    let consumer: StreamConsumer = config
        .clone()
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let mut found = Vec::new();
    while found.len() < count {
        let message = tokio::time::timeout(Duration::from_secs(30), consumer.recv())
            .await
            .expect("the messages are in the topic")
            .unwrap();
        found.push(of(&message));
    }
    found
}

#[tokio::test]
async fn an_event_is_a_message_in_binary_mode() {
    let (_cluster, config) = start(1);
    let sink = KafkaSink::new(&config, TOPIC, Duration::from_secs(20));
    assert_eq!(sink.write(&dead_letters([7])).await.unwrap(), 1);
    let expected = serde_json::to_value(dead_letter(7, "{}")).unwrap();
    read(&config, 1, |message| {
        assert_eq!(message.key().unwrap(), b"host/cpu #1");
        let header = |name: &str| {
            let headers = message.headers().unwrap();
            let header = headers.iter().find(|header| header.key == name);
            String::from_utf8(header.unwrap().value.unwrap().to_vec()).unwrap()
        };
        for name in ["specversion", "type", "source", "id", "time", "subject"] {
            assert_eq!(header(&format!("ce_{name}")), expected[name], "{name}");
        }
        assert_eq!(header("content-type"), "application/json");
        let data: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        assert_eq!(data, expected["data"]);
    })
    .await;
}

#[tokio::test]
async fn events_come_in_order_and_a_broker_s_hiccup_doubles_none() {
    let (cluster, config) = start(1);
    let sink = KafkaSink::new(&config, TOPIC, Duration::from_secs(20));
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        ],
    );
    assert_eq!(sink.write(&dead_letters(0..500)).await.unwrap(), 500);
    let offsets = read(&config, 500, |message| {
        let data: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        data["offset"].as_i64().unwrap()
    })
    .await;
    assert_eq!(offsets, (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_that_the_broker_finds_too_large_goes_one_by_one() {
    let (cluster, config) = start(1);
    let sink = KafkaSink::new(&config, TOPIC, Duration::from_secs(20));
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE],
    );
    let value = "x".repeat(100_000);
    let events = [
        dead_letter(1, "{}"),
        dead_letter(2, &value),
        dead_letter(3, "{}"),
    ];
    sink.write(&events).await.unwrap();
    let lengths = read(&config, 3, |message| {
        let data: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        data["value"].as_str().unwrap().len()
    })
    .await;
    assert_eq!(lengths, [2, 100_000, 2]);
}

/// Against Apache Kafka, which `LAPWING_KAFKA` names: a topic that takes no message above 20 kB.
#[tokio::test]
async fn a_message_that_the_broker_finds_too_large_alone_goes_cut() {
    let Ok(brokers) = std::env::var("LAPWING_KAFKA") else {
        println!("LAPWING_KAFKA is not set: nothing is tested against Apache Kafka");
        return;
    };
    let topic = format!("records-{}", uuid::Uuid::new_v4());
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let admin: AdminClient<_> = config.create().unwrap();
    let small =
        NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "20000");
    let made = admin.create_topics([&small], &AdminOptions::new()).await;
    made.unwrap().remove(0).unwrap();

    let sink = KafkaSink::new(&config, &topic, Duration::from_secs(20));
    // What lz4 cannot make smaller.
    let noise: String = (0..2_000)
        .map(|_| uuid::Uuid::new_v4().to_string())
        .collect();
    let events = [
        dead_letter(1, "{}"),
        dead_letter(2, &noise),
        dead_letter(3, "{}"),
    ];
    sink.write(&events).await.unwrap();
    sink.write(&events).await.unwrap();
    let mut found = read_topic(&config, &topic, 6, |message| {
        let data: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let cut_from = data["valueCutFrom"].as_u64();
        (data["offset"].as_i64().unwrap(), cut_from)
    })
    .await;
    found.sort_unstable();
    let expected = [(1, None), (2, Some(72_000)), (3, None)];
    assert_eq!(found, expected.map(|of| [of, of]).concat());
    let deleted = admin.delete_topics(&[&topic], &AdminOptions::new()).await;
    deleted.unwrap().remove(0).unwrap();
}

#[tokio::test]
async fn a_refusal_is_told_from_an_outage() {
    let (cluster, config) = start(1);
    let sink = KafkaSink::new(&config, TOPIC, Duration::from_secs(2));
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED],
    );
    let error = sink.write(&dead_letters([1])).await.unwrap_err();
    assert!(matches!(error, SinkError::Refused { .. }), "{error:?}");

    let mut nobody = ClientConfig::new();
    nobody.set("bootstrap.servers", "127.0.0.1:1");
    let sink = KafkaSink::new(&nobody, TOPIC, Duration::from_secs(1));
    let error = sink.write(&dead_letters([1])).await.unwrap_err();
    assert!(matches!(error, SinkError::Unavailable { .. }), "{error:?}");
}
