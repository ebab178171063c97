//! `lapwing deadletters`: what no window kept, listed, shown, and sent once more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Failure;
use crate::config::Settings;
use crate::kafka;
use crate::record::archive::{Found, ReadError, StoredDeadLetter, Wanted};
use crate::record::places::{self, Kind};
use crate::record::{RecordId, Stream};

/// Messages under way at once while they are sent again.
const MOST_UNDER_WAY: usize = 1_000;
/// How long the broker may take to acknowledge one.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Events read ahead of the one that is looked at.
const READ_AHEAD: usize = 64;

/// List, show and send again the messages that no window kept
///
/// Reads the places that DeadLetters__Kind names, with the same settings as the handler.
#[derive(Debug, Args)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Count them by topic, partition, day and reason
    List {
        #[command(flatten)]
        filter: Filter,
    },
    /// Print one with everything that is known of it
    Show {
        /// Its id: topic/epoch/partition/offset
        id: String,
        #[command(flatten)]
        from: From,
    },
    /// Send them to their topic and partition again, with their keys, in their order
    ///
    /// What made a message a dead letter must have changed before: a late point stays late.
    Replay {
        /// Ids (topic/epoch/partition/offset); without any, all that the filter lets through
        ids: Vec<String>,
        #[command(flatten)]
        filter: Filter,
        /// Every dead letter there is; needed when there is neither an id nor a filter
        #[arg(long)]
        all: bool,
        /// Go on after this id, where an earlier run stopped
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// Send this instead of the message's own value; for a single id
        #[arg(long, value_name = "TEXT")]
        value: Option<String>,
        /// Only say what would be sent
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Default, Args)]
struct Filter {
    /// Of this topic
    #[arg(long)]
    topic: Option<String>,
    /// Of this partition
    #[arg(long)]
    partition: Option<i32>,
    /// Filed under this day, such as 2026-08-21
    #[arg(long)]
    day: Option<String>,
    /// For this reason, such as late, repeated or off-grid
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    from: From,
}

#[derive(Debug, Default, Args)]
struct From {
    /// Which place to read, where DeadLetters__Kind names several: file, blob or table
    #[arg(long, value_name = "KIND")]
    from: Option<Kind>,
}

impl DeadLetters {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<(), Failure> {
        let settings = Settings::from_env();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            match self.action {
                Action::List { filter } => list(&settings, filter).await,
                Action::Show { id, from } => show(&settings, &id, &from).await,
                Action::Replay {
                    ids,
                    filter,
                    all,
                    after,
                    value,
                    dry_run,
                } => {
                    let chosen = !ids.is_empty()
                        || all
                        || filter.topic.is_some()
                        || filter.partition.is_some()
                        || filter.day.is_some()
                        || filter.reason.is_some();
                    if !chosen {
                        return Err("nothing is chosen: give ids, a filter, or --all".into());
                    }
                    if value.is_some() && ids.len() != 1 {
                        return Err("--value is for a single id".into());
                    }
                    let replay = Replay {
                        by_id: !ids.is_empty(),
                        ids: ids.into_iter().collect(),
                        reason: filter.reason.clone(),
                        after,
                        value,
                        dry_run,
                    };
                    replay.run(&settings, filter).await
                }
            }
        })
    }
}

async fn list(settings: &Settings, filter: Filter) -> Result<(), Failure> {
    let mut counts = BTreeMap::<(String, i32, String, String), u64>::new();
    let mut total = 0_u64;
    let mut reader = Reader::start(settings, &filter.from, filter.wanted())?;
    while let Some((found, letter)) = reader.next().await? {
        if is_wanted(filter.reason.as_deref(), &letter) {
            let data = letter.data;
            let row = (data.topic, data.partition, found.day, data.reason);
            *counts.entry(row).or_default() += 1;
            total += 1;
        }
    }
    let topics = counts.keys().map(|(topic, ..)| topic.len()).max();
    let width = topics.unwrap_or(0).max("topic".len());
    println!(
        "{:width$}  partition  day         reason            count",
        "topic"
    );
    for ((topic, partition, day, reason), count) in &counts {
        println!("{topic:width$}  {partition:>9}  {day:10}  {reason:16}  {count:>5}");
    }
    println!("{total} dead letters");
    Ok(())
}

async fn show(settings: &Settings, id: &str, from: &From) -> Result<(), Failure> {
    let mut reader = Reader::start(settings, from, wanted_of(id)?)?;
    while let Some((found, letter)) = reader.next().await? {
        if letter.id == id {
            let event: serde_json::Value = serde_json::from_str(&found.json)?;
            println!("{}", serde_json::to_string_pretty(&event)?);
            eprintln!("({})", found.at);
            return Ok(());
        }
    }
    let place = reader.place;
    Err(
        format!("{place} has no dead letter {id}; `lapwing deadletters list` says what is there")
            .into(),
    )
}

/// Which dead letters go again, and how.
struct Replay {
    /// Those that are still to be found.
    ids: BTreeSet<String>,
    by_id: bool,
    reason: Option<String>,
    after: Option<String>,
    value: Option<String>,
    dry_run: bool,
}

impl Replay {
    async fn run(mut self, settings: &Settings, filter: Filter) -> Result<(), Failure> {
        let mut wanted = filter.wanted();
        if self.ids.len() == 1
            && let Some(id) = self.ids.first()
        {
            let of_id = wanted_of(id)?;
            wanted.topic = of_id.topic;
            wanted.partition = of_id.partition;
        }
        let mut reader = Reader::start(settings, &filter.from, wanted)?;
        let mut outbox = match self.dry_run {
            true => None,
            false => Some(Outbox::open(settings)?),
        };
        let (mut chosen, mut cut) = (0_u64, 0_u64);
        while let Some((_, letter)) = reader.next().await? {
            if !self.chooses(&letter) {
                continue;
            }
            if letter.data.value_cut_from.is_some() && self.value.is_none() {
                cut += 1;
                continue;
            }
            let again = Again::of(letter, self.value.as_deref())?;
            chosen += 1;
            match &mut outbox {
                Some(outbox) => outbox.send(again).await?,
                None => {
                    let bytes = again.value.map_or(0, |value| value.len());
                    println!("{}  {}  {bytes} bytes", again.id, again.reason);
                }
            }
        }
        if let Some(outbox) = outbox {
            outbox.finish().await?;
        }
        println!(
            "{chosen} {}",
            if self.dry_run {
                "would be sent"
            } else {
                "sent"
            }
        );
        if cut > 0 {
            eprintln!(
                "{cut} left out: their place holds them cut; read them from their topic while it has them"
            );
        }
        if let Some(after) = self.after {
            return Err(
                format!("no dead letter {after} was found, so nothing came after it").into(),
            );
        }
        if !self.ids.is_empty() {
            let missing = Vec::from_iter(self.ids).join(", ");
            return Err(format!("not found: {missing}").into());
        }
        Ok(())
    }

    /// Whether this one goes; takes note of what is found.
    fn chooses(&mut self, letter: &StoredDeadLetter) -> bool {
        if let Some(after) = &self.after {
            if *after == letter.id {
                self.after = None;
            }
            return false;
        }
        (!self.by_id || self.ids.remove(&letter.id)) && is_wanted(self.reason.as_deref(), letter)
    }
}

fn is_wanted(reason: Option<&str>, letter: &StoredDeadLetter) -> bool {
    reason.is_none_or(|wanted| wanted == letter.data.reason)
}

/// A message that goes again.
struct Again {
    id: String,
    reason: String,
    topic: String,
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl Again {
    fn of(letter: StoredDeadLetter, value: Option<&str>) -> Result<Self, Failure> {
        let damaged = |error| format!("dead letter {} is damaged: {error}", letter.id);
        let value = match value {
            Some(text) => Some(text.as_bytes().to_vec()),
            None => letter.value().map_err(damaged)?,
        };
        Ok(Self {
            key: letter.key().map_err(damaged)?,
            value,
            topic: letter.data.topic,
            partition: letter.data.partition,
            reason: letter.data.reason,
            id: letter.id,
        })
    }
}

/// Sends messages in order and waits for every acknowledgement.
struct Outbox {
    producer: FutureProducer,
    under_way: VecDeque<(String, DeliveryFuture)>,
    /// Id of the last acknowledged one.
    last: Option<String>,
    bar: ProgressBar,
}

impl Outbox {
    fn open(settings: &Settings) -> Result<Self, Failure> {
        let producer = kafka::cluster(settings)?
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.max.bytes", "100000000")
            .set(
                "message.timeout.ms",
                DELIVERY_TIMEOUT.as_millis().to_string(),
            )
            .create()?;
        Ok(Self {
            producer,
            under_way: VecDeque::new(),
            last: None,
            bar: progress("sent"),
        })
    }

    async fn send(&mut self, again: Again) -> Result<(), Failure> {
        while self.under_way.len() >= MOST_UNDER_WAY {
            self.acknowledge().await?;
        }
        loop {
            let header = Header {
                key: "lapwing-replayed",
                value: Some(again.id.as_bytes()),
            };
            let mut record = FutureRecord::<[u8], [u8]>::to(&again.topic)
                // A series is its partition's: elsewhere the point would be another one's.
                .partition(again.partition)
                .headers(OwnedHeaders::new_with_capacity(1).insert(header));
            record.key = again.key.as_deref();
            record.payload = again.value.as_deref();
            match self.producer.send_result(record) {
                Ok(delivery) => {
                    self.under_way.push_back((again.id, delivery));
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _))
                    if !self.under_way.is_empty() =>
                {
                    self.acknowledge().await?;
                }
                Err((error, _)) => return Err(self.stopped(&again.id, &error)),
            }
        }
    }

    async fn finish(mut self) -> Result<(), Failure> {
        while !self.under_way.is_empty() {
            self.acknowledge().await?;
        }
        self.bar.finish_and_clear();
        Ok(())
    }

    /// Waits for the oldest message that is under way.
    async fn acknowledge(&mut self) -> Result<(), Failure> {
        if let Some((id, delivery)) = self.under_way.pop_front() {
            match delivery.await {
                Ok(Ok(_)) => {
                    self.last = Some(id);
                    self.bar.inc(1);
                }
                Ok(Err((error, _))) => return Err(self.stopped(&id, &error)),
                Err(closed) => return Err(self.stopped(&id, &closed)),
            }
        }
        Ok(())
    }

    fn stopped(&self, id: &str, error: &dyn std::error::Error) -> Failure {
        let go_on = match &self.last {
            Some(last) => format!("go on with --after {last}"),
            None => "nothing was acknowledged".to_owned(),
        };
        format!("cannot send {id} again: {error}; {go_on}").into()
    }
}

impl Filter {
    fn wanted(&self) -> Wanted {
        Wanted {
            stream: Stream::DeadLetters,
            topic: self.topic.clone(),
            partition: self.partition,
            day: self.day.clone(),
        }
    }
}

/// Where an id's dead letter must be.
fn wanted_of(id: &str) -> Result<Wanted, Failure> {
    let mut parts = id.rsplitn(4, '/');
    let partition = parts.nth(1).and_then(|text| text.parse().ok());
    let topic = parts.nth(1);
    match (RecordId::position_of(id), partition, topic) {
        (Some(_), Some(partition), Some(topic)) => Ok(Wanted {
            stream: Stream::DeadLetters,
            topic: Some(topic.to_owned()),
            partition: Some(partition),
            day: None,
        }),
        _ => Err(format!("{id} is no id: expected topic/epoch/partition/offset").into()),
    }
}

/// Reads the dead letters of one place, one after the other.
struct Reader {
    place: String,
    receiver: mpsc::Receiver<Found>,
    reading: Option<JoinHandle<Result<(), ReadError>>>,
    unreadable: u64,
    bar: ProgressBar,
}

impl Reader {
    fn start(settings: &Settings, from: &From, wanted: Wanted) -> Result<Self, Failure> {
        let archive = places::archive(settings, Stream::DeadLetters, from.from)?;
        let place = archive.place();
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let reading = tokio::spawn(async move { archive.read(&wanted, sender).await });
        Ok(Self {
            place,
            receiver,
            reading: Some(reading),
            unreadable: 0,
            bar: progress("read"),
        })
    }

    /// The next one; lines that are none are told and passed over.
    async fn next(&mut self) -> Result<Option<(Found, StoredDeadLetter)>, Failure> {
        while let Some(found) = self.receiver.recv().await {
            self.bar.inc(1);
            match serde_json::from_str(&found.json) {
                Ok(letter) => return Ok(Some((found, letter))),
                Err(error) => {
                    self.unreadable += 1;
                    self.bar
                        .suspend(|| eprintln!("{}: no dead letter: {error}", found.at));
                }
            }
        }
        self.bar.finish_and_clear();
        if let Some(reading) = self.reading.take() {
            reading.await??;
        }
        if self.unreadable > 0 {
            let count = std::mem::take(&mut self.unreadable);
            eprintln!("{count} lines are no dead letters and were passed over");
        }
        Ok(None)
    }
}

/// A count that goes up, on a terminal only.
fn progress(verb: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} {msg}, {per_sec}")
        .expect("the template is well formed");
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        .with_style(style)
        .with_message(verb)
}
