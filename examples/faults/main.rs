//! The fault harness: a known input through real Kafka, two hosts and a store that fails, while processes
//! are killed and frozen at the seed's pleasure; then every verdict, record and window is compared with
//! a run in which nothing went wrong.
//!
//! `cargo run --release --example faults -- --seed 1 --seconds 600`
//!
//! The last line is `lost: N, doubled: N, differing: N`, and the exit status says the same. The program is
//! its own host and handler: with `host` or `serve` as first argument it is the `lapwing` command, so that
//! the very code under test runs, with the kill points that only test builds have.
//!
//! It needs what `scripts/kafka.sh` and `scripts/azurite.sh` need (Java and Maven, Node and npm), and
//! Linux: it finds handlers in `/proc`.

mod campaign;
mod compare;
mod input;
mod plan;
mod platform;
mod proxy;
mod reference;
mod services;
mod topic;
mod watch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use lapwing::config::Settings;

use campaign::{Campaign, TICK};
use compare::{Tally, compare};
use input::Size;
use platform::{Launch, Platform, Toll};
use proxy::Proxy;
use reference::Outcome;
use services::Service;
use topic::{Rebalances, Topic};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Longest silence of a member after which Kafka gives its partitions away; the least that brokers allow.
const SESSION: Duration = Duration::from_secs(6);
/// Folder of the staged app.
const APP: &str = "app";
/// Name of the topic.
const TOPIC: &str = "aws-cloudwatch-network";
/// The settings that decide verdicts are the product's defaults, with and without faults.
const NO_SETTINGS: [(&str, &str); 0] = [];
/// Azurite's published development account and key.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Break everything for a while, then show that nothing was lost, doubled or changed.
#[derive(Debug, Parser)]
struct Args {
    /// Decides the input, the faults and their times
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long there are faults; the input is spread over it
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Points of the input
    #[arg(long, default_value_t = 200_000)]
    points: usize,
    /// Series of the input
    #[arg(long, default_value_t = 240)]
    series: usize,
    /// Partitions of the topic
    #[arg(long, default_value_t = 8)]
    partitions: i32,
    /// How long the hosts may take to catch up once the faults are over
    #[arg(long, default_value_t = 300)]
    drain: u64,
    /// Switch off the fence between two writers: the run must fail
    #[arg(long)]
    no_fence: bool,
    /// Leave logs and state in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => {
            if let Err(error) = watch::install() {
                eprintln!("faults: {error}");
                return ExitCode::FAILURE;
            }
            return lapwing::cli::run();
        }
        Some("host" | "stage") => return lapwing::cli::run(),
        _ => {}
    }
    let args = Args::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("faults: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&args)) {
        Ok(tally) if tally.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<Tally, Failure> {
    let scratch = tempfile::tempdir()?;
    let folder = match &args.keep {
        Some(folder) => std::path::absolute(folder)?,
        None => scratch.path().to_owned(),
    };
    std::fs::create_dir_all(&folder)?;

    let size = Size {
        points: args.points,
        series: args.series,
        partitions: args.partitions,
    };
    let messages = input::generate(args.seed, size);
    println!(
        "seed {}: {} messages of {} series over {} partitions",
        args.seed,
        messages.len(),
        args.series,
        args.partitions
    );
    let started = Instant::now();
    let undisturbed = Settings::from_pairs(NO_SETTINGS);
    let expected = reference::run(&undisturbed, TOPIC, &messages).await?;
    println!(
        "without faults: {} events, {} windows and fences ({:.1} s)",
        expected.events.len(),
        expected.windows.len(),
        started.elapsed().as_secs_f64()
    );

    let azurite = Service::start("azurite", &folder)?;
    let kafka = Arc::new(Service::start("kafka", &folder)?);
    let topic = Topic {
        brokers: kafka.address().to_string(),
        name: TOPIC.to_owned(),
        partitions: args.partitions,
        group: "faults".to_owned(),
    };
    topic.create().await?;
    let mut proxies = Vec::new();
    for host in 0..plan::HOSTS as u64 {
        proxies.push(Proxy::start(azurite.address(), args.seed ^ (host + 1)).await?);
    }
    stage(&folder)?;
    let launches: Vec<Launch> = proxies
        .iter()
        .enumerate()
        .map(|(host, proxy)| launch(args, &topic, proxy, &folder, host))
        .collect::<Result<_, _>>()?;
    let mut platform = Platform::start(launches.clone(), &folder)?;
    let rebalances = Rebalances::watch(&topic)?;

    let length = Duration::from_secs(args.seconds);
    let plan = plan::make(args.seed, length, SESSION, watch::STEPS);
    let broker = Arc::clone(&kafka);
    let mut campaign = Campaign::new(plan, &mut platform, &proxies, broker, folder.clone());
    let sending = tokio::spawn({
        let topic = topic.clone();
        // Done a little before the faults are, so that the last ones fall into work and not into waiting.
        async move { topic.send(&messages, length.mul_f64(0.95)).await }
    });
    println!("{} s of faults", args.seconds);
    let started = Instant::now();
    let mut told = started;
    while started.elapsed() < length {
        tokio::time::sleep(TICK).await;
        campaign.tick()?;
        if told.elapsed() >= Duration::from_secs(15) {
            told = Instant::now();
            say_progress(started, &topic, &campaign.platform().toll).await;
        }
    }
    campaign.end()?;
    let (outages, broker_kills) = (campaign.outages_done, campaign.broker_kills);
    sending.await??;
    let patience = Duration::from_secs(args.drain);
    let mut behind = drain(&topic, &mut platform, patience).await?;
    let toll = platform.stop()?;
    let seen = watch::seen_by_all(&folder)?;

    let stored = Settings::from_pairs(store_settings(azurite.address()));
    let mut tally = compare_all(&expected, &stored).await?;
    if tally.is_clean() && behind == 0 {
        println!("so far {tally}; everything once more, from the beginning of the topic");
        let group = topic.clone();
        tokio::task::spawn_blocking(move || group.reset()).await??;
        let mut platform = Platform::start(launches, &folder)?;
        behind = drain(&topic, &mut platform, patience).await?;
        platform.stop()?;
        tally = compare_all(&expected, &stored).await?;
    }

    for (host, proxy) in proxies.iter().enumerate() {
        println!("store as host {host} saw it: {}", proxy.counts());
    }
    println!(
        "handlers killed: {}, hosts killed: {}, hosts frozen: {}, hosts that gave up: {}, hosts started again: {}",
        toll.handler_kills, toll.host_kills, toll.freezes, toll.gave_up, toll.restarts
    );
    println!(
        "store outages: {}, of them in the middle of work: {}; broker killed: {broker_kills}",
        outages.count, outages.met
    );
    // The first change of members is the group's beginning.
    let rebalances = rebalances.count().saturating_sub(1);
    println!(
        "kills inside a batch: {}, messages delivered again: {}, conflicts: {}, rebalances: {rebalances}",
        toll.inside_batch, seen.no_ops, seen.conflicts
    );
    let must_happen = [
        ("kills inside a batch", toll.inside_batch),
        ("messages delivered again", usize::try_from(seen.no_ops)?),
        ("conflicts", usize::try_from(seen.conflicts)?),
        ("rebalances", rebalances),
        ("store outages in the middle of work", outages.met),
    ];
    let mut failure = (behind > 0).then(|| format!("the group was still {behind} messages behind"));
    for (what, count) in must_happen {
        if count == 0 {
            failure = failure.or(Some(format!(
                "there were no {what}: this run shows nothing"
            )));
        }
    }
    if let Some(reason) = &failure {
        println!("failed: {reason}");
    }
    println!("{tally}");
    match failure {
        Some(reason) if tally.is_clean() => Err(reason.into()),
        _ => Ok(tally),
    }
}

/// What lies in the store against what should; findings are printed.
async fn compare_all(expected: &Outcome, stored: &Settings) -> Result<Tally, Failure> {
    let events = reference::stored_events(stored).await?;
    let store = lapwing::store::from_settings(stored)?;
    let windows = reference::windows(&*store, stored).await?;
    let mut tally = Tally::default();
    for comparison in [
        compare("event", &expected.events, events),
        compare("window", &expected.windows, windows),
    ] {
        tally += comparison.tally;
        for finding in comparison.findings {
            println!("{finding}");
        }
    }
    Ok(tally)
}

/// Waits until the group has read and committed everything; gives how many messages are left.
async fn drain(topic: &Topic, platform: &mut Platform, patience: Duration) -> Result<i64, Failure> {
    let started = Instant::now();
    let mut asked = Instant::now();
    loop {
        platform.tend()?;
        tokio::time::sleep(TICK).await;
        if asked.elapsed() < Duration::from_secs(1) {
            continue;
        }
        asked = Instant::now();
        let behind = lag(topic).await;
        let waited = started.elapsed();
        match behind {
            Ok(0) => println!("caught up after {:.0} s", waited.as_secs_f64()),
            // A broker that is busy gets asked again.
            _ if waited < patience => continue,
            _ => {}
        }
        return behind;
    }
}

async fn say_progress(started: Instant, topic: &Topic, toll: &Toll) {
    let behind = match lag(topic).await {
        Ok(messages) => format!("{messages} messages behind"),
        Err(_) => "the broker does not answer".to_owned(),
    };
    println!(
        "{:4.0} s: {behind}; killed {} handlers and {} hosts, {} inside a batch",
        started.elapsed().as_secs_f64(),
        toll.handler_kills,
        toll.host_kills,
        toll.inside_batch
    );
}

async fn lag(topic: &Topic) -> Result<i64, Failure> {
    let topic = topic.clone();
    Ok(tokio::task::spawn_blocking(move || topic.lag()).await??)
}

/// Lays the app out below `folder`, with this program as its binary. Retries come sooner than the
/// product's own settings say, so that ten minutes hold more of them.
fn stage(folder: &Path) -> Result<(), Failure> {
    let app = folder.join(APP);
    let program = std::env::current_exe()?;
    let output = std::process::Command::new(program)
        .arg("stage")
        .arg(&app)
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("staging failed: {}", said.trim()).into());
    }
    let path = app.join("detect").join("function.json");
    let mut function: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    function["retry"]["maximumInterval"] = "00:00:04".into();
    std::fs::write(&path, serde_json::to_vec_pretty(&function)?)?;
    Ok(())
}

fn launch(
    args: &Args,
    topic: &Topic,
    proxy: &Proxy,
    folder: &Path,
    host: usize,
) -> Result<Launch, Failure> {
    let mut settings = store_settings(proxy.address());
    let more = [
        ("KafkaBrokers", topic.brokers.clone()),
        ("KafkaTopic", topic.name.clone()),
        ("KafkaGroup", topic.group.clone()),
        ("FUNCTIONS_WORKER_RUNTIME", "custom".to_owned()),
        ("AzureWebJobs.replay.Disabled", "true".to_owned()),
        (
            "AzureFunctionsJobHost__extensions__kafka__sessionTimeoutMs",
            SESSION.as_millis().to_string(),
        ),
    ];
    settings.extend(more.map(|(name, value)| (name.to_owned(), value)));
    if args.no_fence {
        settings.push((watch::NO_FENCE.to_owned(), "1".to_owned()));
    }
    Ok(Launch {
        program: std::env::current_exe()?,
        app: folder.join(APP),
        state: folder.join(format!("host-{host}")),
        settings,
    })
}

/// Windows and all three streams of events in blobs of the store at `address`.
fn store_settings(address: SocketAddr) -> Vec<(String, String)> {
    let connection = format!(
        "DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint=http://{address}/{ACCOUNT};"
    );
    let pairs = [
        ("AzureWebJobsStorage", connection.as_str()),
        ("Store__Kind", "blob"),
        ("Store__Timeout", "5s"),
        ("Records__Kind", "blob"),
        ("DeadLetters__Kind", "blob"),
        ("Verdicts__Kind", "blob"),
        ("Records__Timeout", "10s"),
    ];
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}
