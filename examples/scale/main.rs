//! The scale bench: any number of series in steady state, every window full, through decode → judge →
//! record → save, as the handler does it, one invocation after the other.
//!
//! `cargo run --release --example scale -- --series 1000000 --seconds 300 --store file`
//!
//! The store is filled first, by writing each partition's snapshot. Then batches are made as the Functions
//! host sends them (outside the measured time) and absorbed one by one (inside it). Every thousandth
//! verdict is computed again from a window made afresh, through the request form that `lapwing judge` reads,
//! and has to be equal.
//!
//! With `--store blob` it needs `LAPWING_AZURITE=http://127.0.0.1:10000` or AzureWebJobsStorage.

mod check;
mod fleet;
mod meter;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use lapwing::config::Settings;
use lapwing::functions::detect::detect;
use lapwing::invocation::Invocation;
use lapwing::judge::Pipeline;
use lapwing::record::file::FileSink;
use lapwing::record::places::Places;
use lapwing::record::{Sink, Stream};
use lapwing::store::{self, Ledger, WindowStore};
use lapwing::window::codec::encode_snapshot;
use lapwing::window::{Rules, Shard, ShardId, Window};
use rayon::prelude::*;

use check::Checked;
use fleet::Fleet;
use meter::{Metered, Traffic};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Batches that are made ahead, outside the measured time.
const AHEAD: usize = 64;

/// Measure Lapwing in steady state.
#[derive(Debug, Parser)]
struct Args {
    /// Series, every window full
    #[arg(long, default_value_t = 10_000)]
    series: usize,
    /// Measured time; making the batches is not part of it
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where windows are kept
    #[arg(long, value_enum, default_value = "file")]
    store: Kind,
    /// Partitions [default: one for every 62,500 series, at least 4]
    #[arg(long)]
    partitions: Option<usize>,
    /// Messages of an invocation
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Partitions that the messages of one invocation come from [default: all]
    #[arg(long)]
    spread: Option<usize>,
    /// Decides every value
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for windows and records [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Dollars for 10,000 write operations of blob storage
    #[arg(long, default_value_t = 0.05)]
    write_price: f64,
    /// Dollars for 10,000 read operations of blob storage
    #[arg(long, default_value_t = 0.004)]
    read_price: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    File,
    Blob,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let run = || -> Result<bool, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(run(&args))
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("scale: {}", lapwing::telemetry::one_line(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Whether every verdict that was computed again was equal.
async fn run(args: &Args) -> Result<bool, Failure> {
    let scratch = tempfile::tempdir()?;
    let folder = args.folder.clone().unwrap_or(scratch.path().to_owned());
    let settings = settings(args, &folder)?;
    let rules = Rules::from_settings(&settings)?;
    let partitions = args
        .partitions
        .unwrap_or(args.series.div_ceil(62_500).max(4));
    let fleet = Fleet {
        seed: args.seed,
        series: args.series,
        partitions,
        topic: Arc::from("fleet"),
    };
    let traffic = Arc::new(Traffic::default());
    let store: Arc<dyn WindowStore> = Arc::new(Metered {
        store: store::from_settings(&settings)?,
        traffic: Arc::clone(&traffic),
    });
    println!(
        "{} series over {partitions} partitions, {} points each, {}",
        args.series,
        rules.points,
        store.place()
    );

    let started = Instant::now();
    for partition in 0..partitions {
        fill(&fleet, partition, &rules, &*store).await?;
    }
    println!(
        "filled in {:.1} s: {:.1} bytes stored per point",
        started.elapsed().as_secs_f64(),
        of(&traffic.snapshot_bytes) as f64 / (args.series * rules.points) as f64
    );

    let checked = Checked::new(fleet.clone(), rules.points);
    let places = places(&folder, &checked);
    let ledger = Ledger::from_settings(Arc::clone(&store), &settings)?;
    let pipeline = Pipeline::new(&settings, ledger, places)?;
    let mut source = Source::new(&fleet, &rules, args);

    // The first batches read every partition from the store.
    traffic.reset();
    let started = Instant::now();
    while (of(&traffic.loads) as usize) < partitions {
        let body = source.next();
        absorb(&pipeline, &body).await?;
    }
    println!(
        "cold start, all partitions: {:.1} s, {} reads of a shard",
        started.elapsed().as_secs_f64(),
        of(&traffic.loads)
    );

    traffic.reset();
    checked.reset();
    let mut latencies: Vec<Duration> = Vec::new();
    let mut processor = Duration::ZERO;
    let mut busy = Duration::ZERO;
    let mut slowest_rate = f64::INFINITY;
    let (mut told, mut told_batches) = (Duration::ZERO, 0);
    while busy < Duration::from_secs(args.seconds) {
        let bodies: Vec<Vec<u8>> = (0..AHEAD).map(|_| source.next()).collect();
        let processor_before = meter::processor_time();
        for body in &bodies {
            let started = Instant::now();
            absorb(&pipeline, body).await?;
            latencies.push(started.elapsed());
            busy += started.elapsed();
        }
        processor += meter::processor_time() - processor_before;
        if busy - told >= Duration::from_secs(10) {
            let points = (latencies.len() - told_batches) * args.batch;
            let rate = points as f64 / (busy - told).as_secs_f64();
            slowest_rate = slowest_rate.min(rate);
            println!("{:4.0} s: {rate:.0} points/s", busy.as_secs_f64());
            (told, told_batches) = (busy, latencies.len());
        }
    }
    let report = Report {
        points: latencies.len() * args.batch,
        processor,
        busy,
        slowest_rate,
        resident: meter::resident()?,
        write_price: args.write_price,
        read_price: args.read_price,
    };
    latencies.sort_unstable();
    report.print(&latencies, &traffic);
    Ok(checked.print())
}

/// One invocation, from the bytes of its body to its answer.
async fn absorb(pipeline: &Pipeline, body: &[u8]) -> Result<(), Failure> {
    detect(pipeline, &Invocation::parse(body)?).await?;
    Ok(())
}

/// Writes the snapshot of a partition whose windows are all full.
async fn fill(
    fleet: &Fleet,
    partition: usize,
    rules: &Rules,
    store: &dyn WindowStore,
) -> Result<(), Failure> {
    let id = ShardId {
        topic: fleet.topic.to_string(),
        partition: i32::try_from(partition)?,
    };
    let bytes = tokio::task::block_in_place(|| {
        let members: Vec<usize> = fleet.members(partition).collect();
        let windows: Vec<Window> = members
            .par_iter()
            .map(|&series| {
                let mut window = Window::default();
                for slot in 0..rules.points as i64 {
                    window.push(rules, fleet.point(series, slot));
                }
                window
            })
            .collect();
        let mut shard = Shard::default();
        for (series, window) in members.into_iter().zip(windows) {
            shard.set_window(&fleet.name(series), Some(window));
        }
        encode_snapshot(&shard, 1).0
    });
    store.replace(&id, Bytes::from(bytes), None).await?;
    Ok(())
}

/// Bodies in the order in which the fleet reports: slot after slot, every series once a slot.
struct Source<'a> {
    fleet: &'a Fleet,
    batch: usize,
    offsets: Vec<i64>,
    /// The series of a slot in their order, and how many of them have reported.
    order: Vec<usize>,
    reported: usize,
    slot: i64,
}

impl<'a> Source<'a> {
    fn new(fleet: &'a Fleet, rules: &Rules, args: &Args) -> Self {
        let spread = args
            .spread
            .unwrap_or(fleet.partitions)
            .clamp(1, fleet.partitions);
        // Groups of `spread` partitions take turns; within a group their series alternate.
        let partitions: Vec<usize> = (0..fleet.partitions).collect();
        let mut order = Vec::with_capacity(fleet.series);
        for group in partitions.chunks(spread) {
            let mut members: Vec<_> = group.iter().map(|p| fleet.members(*p)).collect();
            loop {
                let before = order.len();
                order.extend(members.iter_mut().filter_map(Iterator::next));
                if order.len() == before {
                    break;
                }
            }
        }
        Self {
            fleet,
            batch: args.batch.max(1),
            offsets: vec![0; fleet.partitions],
            order,
            reported: 0,
            slot: rules.points as i64,
        }
    }

    fn next(&mut self) -> Vec<u8> {
        let mut points = Vec::with_capacity(self.batch);
        while points.len() < self.batch {
            if self.reported == self.order.len() {
                self.reported = 0;
                self.slot += 1;
            }
            points.push((self.order[self.reported], self.slot));
            self.reported += 1;
        }
        self.fleet.body(&points, &mut self.offsets)
    }
}

struct Report {
    points: usize,
    processor: Duration,
    busy: Duration,
    slowest_rate: f64,
    resident: (u64, u64),
    write_price: f64,
    read_price: f64,
}

impl Report {
    fn print(&self, latencies: &[Duration], traffic: &Traffic) {
        let points = self.points as f64;
        let per_second = points / self.busy.as_secs_f64();
        println!(
            "{} points in {:.1} s: {per_second:.0} points/s (slowest ten seconds {:.0}), {:.0} points/s per core ({:.2} cores used)",
            self.points,
            self.busy.as_secs_f64(),
            self.slowest_rate.min(per_second),
            points / self.processor.as_secs_f64(),
            self.processor.as_secs_f64() / self.busy.as_secs_f64()
        );
        let millis = |q| meter::quantile(latencies, q).as_secs_f64() * 1e3;
        println!(
            "batches: {}, p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            latencies.len(),
            millis(0.5),
            millis(0.99),
            millis(1.0)
        );
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        println!(
            "resident memory: {:.2} GiB, at most {:.2} GiB",
            gib(self.resident.0),
            gib(self.resident.1)
        );
        let (appends, snapshots) = (of(&traffic.appends), of(&traffic.snapshots));
        println!(
            "store: {:.4} appends per point of {:.1} bytes per point, {snapshots} compactions of {:.1} bytes per point, {} reads, {} checks of a version",
            appends as f64 / points,
            of(&traffic.appended_bytes) as f64 / points,
            of(&traffic.snapshot_bytes) as f64 / points,
            of(&traffic.loads),
            of(&traffic.versions)
        );
        let writes = (appends + snapshots) as f64;
        let reads = (of(&traffic.loads) + of(&traffic.versions)) as f64;
        let dollars = (writes * self.write_price + reads * self.read_price) / 10_000.0;
        println!(
            "windows in blob storage would cost ${:.3} per million points",
            dollars / points * 1e6
        );
    }
}

/// Anomalies and dead letters to files, as by default; every verdict to the check.
fn places(folder: &Path, checked: &Checked) -> Places {
    let records = folder.join("records");
    let of_stream: [(Stream, Vec<Box<dyn Sink>>); 3] = [
        (Stream::Anomalies, vec![Box::new(FileSink::new(&records))]),
        (Stream::DeadLetters, vec![Box::new(FileSink::new(&records))]),
        (Stream::Verdicts, vec![Box::new(checked.clone())]),
    ];
    Places::new(of_stream, Duration::from_secs(30))
}

fn settings(args: &Args, folder: &Path) -> Result<Settings, Failure> {
    let mut pairs = vec![(
        "Store__Path".to_owned(),
        folder.join("state").display().to_string(),
    )];
    match args.store {
        Kind::File => pairs.push(("Store__Kind".to_owned(), "file".to_owned())),
        Kind::Blob => {
            pairs.push(("Store__Kind".to_owned(), "blob".to_owned()));
            let connection = match std::env::var("AzureWebJobsStorage") {
                Ok(connection) => connection,
                Err(_) => {
                    let azurite = std::env::var("LAPWING_AZURITE").map_err(
                        |_| "set LAPWING_AZURITE or AzureWebJobsStorage for --store blob",
                    )?;
                    // Azurite's published development account and key.
                    format!(
                        "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;BlobEndpoint={azurite}/devstoreaccount1;"
                    )
                }
            };
            pairs.push(("AzureWebJobsStorage".to_owned(), connection));
            pairs.push((
                "Store__Container".to_owned(),
                format!("scale-{}", std::process::id()),
            ));
        }
    }
    Ok(Settings::from_pairs(pairs))
}

fn of(count: &std::sync::atomic::AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
