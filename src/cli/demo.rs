//! `lapwing demo`: the whole app on one machine, with nothing else installed.
//!
//! Everything is the real thing but the broker and the cloud: librdkafka's mock cluster speaks the Kafka
//! protocol on loopback, the local host runs the staged app and starts this binary as its handler, the
//! timer fires `replay`, the topic triggers `detect`, and windows and records lie in files.

mod outcome;

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use tokio::sync::mpsc::UnboundedReceiver;

use super::Failure;
use crate::config::Settings;
use crate::host::event::{Event, Level};
use crate::host::{Host, HostOptions};
use crate::stage;
use outcome::Outcome;

const TOPIC: &str = "aws-cloudwatch-network";

/// What marks a folder as one of ours, which may be replaced.
const MARKER: &str = ".lapwing-demo";

/// Rows that each tick of the timer sends: the two weeks of the sample are over in some seconds.
const ROWS_PER_TICK: usize = 1000;

/// How long nothing may happen before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Replay two weeks of network traffic through the whole app on this machine, and show what it finds.
///
/// Needs no Kafka, no Azure and no Core Tools: starts an in-process Kafka broker and a local Functions
/// host, runs the app as staged for Azure, and leaves anomalies.txt, records.jsonl, dead-letters.jsonl
/// and report.html in the output folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder for the results; an earlier demo in it is replaced
    #[arg(long, value_name = "DIR", default_value = "lapwing-demo")]
    out: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let out = fresh_folder(&args.out)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let elapsed = runtime.block_on(replay(&out))?;
    let outcome = Outcome::collect(&out, rows_of(&out)?)?;
    outcome.write(&out)?;
    println!(
        "{}",
        Summary {
            outcome: &outcome,
            elapsed,
            out: &args.out
        }
    );
    Ok(())
}

/// An empty folder at `out`, as an absolute path. Only what an earlier demo left is removed.
fn fresh_folder(out: &Path) -> Result<PathBuf, Failure> {
    let problem = |what: &str, error: std::io::Error| {
        format!(
            "cannot {what} {}: {error}; name another folder with --out",
            out.display()
        )
    };
    match std::fs::read_dir(out) {
        Ok(mut entries) => {
            if out.join(MARKER).exists() {
                std::fs::remove_dir_all(out).map_err(|error| problem("replace", error))?;
            } else if entries.next().is_some() {
                let reason =
                    "it is not empty and holds no earlier demo; name another folder with --out";
                return Err(format!("will not write into {}: {reason}", out.display()).into());
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(problem("use", error).into()),
    }
    std::fs::create_dir_all(out).map_err(|error| problem("make", error))?;
    std::fs::write(out.join(MARKER), "").map_err(|error| problem("write into", error))?;
    Ok(out.canonicalize()?)
}

/// Runs the app until every row of the sample has been judged; gives the time from the first batch to the
/// last.
async fn replay(out: &Path) -> Result<Duration, Failure> {
    let app = out.join("app");
    stage::lay_out(&app, &std::env::current_exe()?, &Settings::default())?;
    let rows = rows_of(out)?.len() as u64;

    let cluster: MockCluster<'static, DefaultProducerContext> = MockCluster::new(1)?;
    cluster.create_topic(TOPIC, 1, 1)?;
    let options = HostOptions {
        settings: settings(out, &cluster.bootstrap_servers()),
        app,
        ..HostOptions::default()
    };
    println!(
        "Replaying {rows} rows of network traffic through Kafka, the Functions host and the detector."
    );
    let (host, mut events) = Host::start(options).await?;
    let ended = follow(&mut events, rows).await;
    host.stop(false).await;
    ended
}

/// The settings of the app, as one would make them in Azure.
fn settings(out: &Path, brokers: &str) -> Vec<(String, String)> {
    let path = |name: &str| out.join(name).display().to_string();
    let mut settings = vec![
        ("KafkaBrokers", brokers.to_owned()),
        ("KafkaTopic", TOPIC.to_owned()),
        ("KafkaGroup", "anomaly-detection-group".to_owned()),
        ("REPLAY_SCHEDULE", "* * * * * *".to_owned()),
        (
            "Replay__Source",
            out.join("app").join(stage::SAMPLE.0).display().to_string(),
        ),
        ("Replay__RowsPerTick", ROWS_PER_TICK.to_string()),
        ("Store__Kind", "file".to_owned()),
        ("Store__Path", path("state")),
    ];
    for (kind, folder) in [
        ("Records__Kind", "Records__Path"),
        ("DeadLetters__Kind", "DeadLetters__Path"),
        ("Verdicts__Kind", "Verdicts__Path"),
    ] {
        settings.push((kind, "file".to_owned()));
        settings.push((folder, path("records")));
    }
    settings
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Shows what happens until `rows` messages are done with.
async fn follow(events: &mut UnboundedReceiver<Event>, rows: u64) -> Result<Duration, Failure> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} rows  {msg}")?;
    let bar = ProgressBar::new(rows).with_style(style);
    let mut started = None;
    let mut last_failure = None;
    loop {
        let event = match tokio::time::timeout(PATIENCE, events.recv()).await {
            Ok(Some(event)) => event,
            Ok(None) => return Err("the host ended before every row was judged".into()),
            Err(_) => {
                let reason = last_failure.unwrap_or_else(|| "no reason was given".to_owned());
                let done = bar.position();
                return Err(format!(
                    "nothing happened for {} s after {done} of {rows} rows: {reason}",
                    PATIENCE.as_secs()
                )
                .into());
            }
        };
        match event {
            Event::Batch(batch) if batch.function == "detect" => {
                let started = *started.get_or_insert_with(Instant::now);
                bar.inc(batch.messages as u64);
                if bar.position() >= rows {
                    bar.finish_and_clear();
                    return Ok(started.elapsed());
                }
            }
            Event::Invoked(invoked) => last_failure = invoked.failure,
            Event::Log(line) if line.message.starts_with("Anomaly ") => {
                bar.suspend(|| println!("{}", line.message));
            }
            Event::Log(line) if line.level == Level::Error => {
                bar.suspend(|| eprintln!("{}: {}", line.category, line.message));
                last_failure = Some(line.message);
            }
            Event::Fatal(reason) => return Err(format!("the host stops: {reason}").into()),
            _ => {}
        }
    }
}

/// The rows of the staged sample: timestamp and value, whatever they hold.
fn rows_of(out: &Path) -> Result<Vec<(String, String)>, Failure> {
    let path = out.join("app").join(stage::SAMPLE.0);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_path(&path)?;
    let field = |row: &csv::StringRecord, index| row.get(index).unwrap_or_default().to_owned();
    reader
        .records()
        .map(|row| {
            row.map(|row| (field(&row, 0), field(&row, 1)))
                .map_err(Failure::from)
        })
        .collect()
}

/// The closing lines.
struct Summary<'a> {
    outcome: &'a Outcome,
    elapsed: Duration,
    out: &'a Path,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome {
            judged,
            anomalies,
            dead_letters,
            ..
        } = self.outcome;
        let rows = self.outcome.rows.len();
        let per_second = *judged as f64 / self.elapsed.as_secs_f64().max(1e-3);
        writeln!(
            f,
            "{rows} rows, {judged} points judged, {} anomalies, {} dead letters",
            anomalies.len(),
            dead_letters.len()
        )?;
        writeln!(
            f,
            "{per_second:.0} verdicts per second, from Kafka to durable records"
        )?;
        let out = self.out.display();
        write!(
            f,
            "see {out}/report.html, {out}/anomalies.txt, {out}/records.jsonl and {out}/dead-letters.jsonl"
        )
    }
}
