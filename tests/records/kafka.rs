//! The Kafka sink against librdkafka's mock cluster.

use std::time::Duration;

use lapwing::record::kafka::KafkaSink;
use lapwing::record::{Sink, SinkError};
use rdkafka::ClientConfig;
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
    mut of: impl FnMut(&BorrowedMessage<'_>) -> T,
) -> Vec<T> {
    let consumer: StreamConsumer = config
        .clone()
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[TOPIC]).unwrap();
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
async fn a_message_that_the_broker_finds_too_large_goes_cut() {
    let (cluster, config) = start(1);
    let sink = KafkaSink::new(&config, TOPIC, Duration::from_secs(20));
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE],
    );
    let poison = dead_letter(1, &"x".repeat(100_000));
    sink.write(&[poison]).await.unwrap();
    read(&config, 1, |message| {
        let data: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        assert_eq!(data["valueCutFrom"], 100_000);
    })
    .await;
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
