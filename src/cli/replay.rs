//! `lapwing replay FILE`: a CSV into a topic, at a rate or as fast as it goes.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use futures::FutureExt;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::Failure;
use crate::config::{self, Settings};
use crate::kafka;
use crate::replay::producer::{Message, ProduceError, Producer, Queued};
use crate::replay::rows::Rows;
use crate::replay::source::Source;
use crate::replay::{self, DELIVERY_DEADLINE};

/// Most messages under way; far below what the producer's queue holds.
const MOST_UNDER_WAY: usize = 10_000;
/// How often the bar moves.
const BAR_PAUSE: Duration = Duration::from_millis(100);

/// Send the rows of a CSV to a Kafka topic as JSON, from the first row to the last.
///
/// Each row goes as it is, keyed by its series, from an idempotent producer that waits for the brokers'
/// acknowledgement. Security comes from the settings KafkaProtocol, KafkaAuthenticationMode,
/// KafkaUsername, KafkaPassword and KafkaSslCaLocation in the environment.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// CSV with a header that names the columns timestamp and value: a path, or an http(s) URL.
    file: String,
    /// Kafka brokers, host:port, comma separated.
    #[arg(long, env = "KafkaBrokers", default_value = config::KAFKA_BROKERS.default)]
    brokers: String,
    /// Topic to send to.
    #[arg(long, env = "KafkaTopic", default_value = config::KAFKA_TOPIC.default)]
    topic: String,
    /// Make the topic with so many partitions if it does not exist.
    #[arg(long, value_name = "N")]
    partitions: Option<NonZeroU32>,
    /// Messages per second; without it as fast as the brokers take them.
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// Key of the rows, which names their series; without it the topic's name.
    #[arg(long, value_name = "NAME")]
    series: Option<String>,
    /// Column that names the series of each row, where the file has it.
    #[arg(long, value_name = "COLUMN", default_value = replay::SERIES_COLUMN)]
    series_column: String,
    /// Send every row N times, as N series NAME-0 to NAME-(N-1): a load for several partitions.
    #[arg(long, value_name = "N")]
    copies: Option<NonZeroU32>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(send_all(args));
    // A question to a silent broker may still be waiting on its thread; nobody needs the answer.
    runtime.shutdown_background();
    let (rows, messages, took) = done?;
    println!(
        "{rows} rows of {} sent as {messages} messages to topic {} in {:.1} s ({:.0}/s)",
        config::without_query(&args.file),
        args.topic,
        took.as_secs_f64(),
        messages as f64 / took.as_secs_f64().max(1e-3),
    );
    Ok(())
}

async fn send_all(args: &Args) -> Result<(u64, u64, Duration), Failure> {
    let source = Source::parse(&args.file, |_| None)?;
    // Read first: a file that is no such CSV needs no broker to say so.
    let mut rows = Rows::begin(&source, &args.series_column).await?;
    let mut cluster = kafka::cluster(&Settings::from_env())?;
    cluster.set("bootstrap.servers", &args.brokers);
    let producer = Producer::new(&cluster, &args.topic, DELIVERY_DEADLINE)?;
    if let Some(partitions) = args.partitions {
        let partitions = i32::try_from(partitions.get())?;
        producer.create_topic(&cluster, partitions).await?;
    }
    producer.check().await?;

    let bar = bar(source.length());
    let start = Instant::now();
    let mut under_way = UnderWay::default();
    let (mut read, mut sent) = (0_u64, 0_u64);
    let mut shown = start;
    while let Some(row) = rows.next().await? {
        let name = row
            .series
            .as_deref()
            .or(args.series.as_deref())
            .unwrap_or(&args.topic);
        for copy in 0..args.copies.map_or(1, NonZeroU32::get) {
            if let Some(rate) = args.rate {
                tokio::time::sleep_until(start + Duration::from_secs_f64(sent as f64 / rate)).await;
            }
            let message = match args.copies {
                Some(_) => {
                    let name = format!("{name}-{copy}");
                    let mut row = row.clone();
                    // The row's own series would win over the key.
                    row.series = row.series.map(|_| name.clone());
                    replay::message(&row, &name, 0, format!("0/{read}"))
                }
                None => replay::message(&row, name, 0, format!("0/{read}")),
            };
            under_way.send(&producer, message).await?;
            sent += 1;
        }
        read += 1;
        if shown.elapsed() >= BAR_PAUSE {
            shown = Instant::now();
            bar.set_position(row.place.offset);
            bar.set_message(format!("{read} rows"));
        }
    }
    under_way.finish(&producer).await?;
    bar.finish_and_clear();
    Ok((read, sent, start.elapsed()))
}

/// Messages that wait for their acknowledgement, oldest first.
#[derive(Default)]
struct UnderWay(VecDeque<(Message, Queued)>);

impl UnderWay {
    /// Queues `message`, and waits for the oldest one when there are too many. Those that have been
    /// acknowledged leave; one that was lost ends the command now and not at the end of the file.
    async fn send(&mut self, producer: &Producer, message: Message) -> Result<(), ProduceError> {
        let queued = producer.queue(&message)?;
        self.0.push_back((message, queued));
        loop {
            let is_full = self.0.len() > MOST_UNDER_WAY;
            let Some((message, queued)) = self.0.front_mut() else {
                break;
            };
            let delivery = producer.delivered(queued, message);
            let outcome = match is_full {
                true => delivery.await,
                false => match delivery.now_or_never() {
                    Some(outcome) => outcome,
                    None => break,
                },
            };
            outcome?;
            self.0.pop_front();
        }
        Ok(())
    }

    async fn finish(self, producer: &Producer) -> Result<(), ProduceError> {
        for (message, mut queued) in self.0 {
            producer.delivered(&mut queued, &message).await?;
        }
        Ok(())
    }
}

/// By bytes where the length is known, because the number of rows is not.
fn bar(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{wide_bar} {percent:>3} % {msg}, {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {msg} in {elapsed}"),
    };
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    bar.with_style(style)
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e6).contains(&rate) => Ok(rate),
        _ => Err("expected messages per second, 0.001 to 1000000".to_owned()),
    }
}
