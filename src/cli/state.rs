//! `lapwing state`: what is stored of the windows, for an operator's eyes and hands.

mod import;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use super::Failure;
use crate::config::{self, Setting, Settings};
use crate::store::{self, Ledger, StoreError, WindowStore};
use crate::window::codec::Reading;
use crate::window::{Rules, Shard, ShardId, Window};

/// Look at stored windows, fill them from history, or start them anew.
///
/// The store is the one that the settings in the environment name; the options below go before them.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Kind of store: blob, table, file or memory (Store__Kind)
    #[arg(long, global = true, value_name = "KIND")]
    store: Option<String>,
    /// Folder of the file store (Store__Path)
    #[arg(long, global = true, value_name = "DIR")]
    path: Option<String>,
    /// Container of the blob store (Store__Container)
    #[arg(long, global = true, value_name = "NAME")]
    container: Option<String>,
    /// Table of the table store (Store__Table)
    #[arg(long, global = true, value_name = "NAME")]
    table: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One line for each partition: series, points, fence, and bytes of snapshot and log
    List,
    /// The fence and the series of a partition, or the points of one series
    Show {
        /// TOPIC/PARTITION
        shard: ShardId,
        /// Show the points of this series
        #[arg(long, value_name = "NAME")]
        series: Option<String>,
    },
    /// The points of a partition as CSV: series,timestamp,value
    Export {
        /// TOPIC/PARTITION
        shard: ShardId,
        /// Only this series
        #[arg(long, value_name = "NAME")]
        series: Option<String>,
        /// File to write instead of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    Import(import::Args),
    /// Drop the windows of a partition, or of one series; the fence stays, so that nothing is absorbed twice
    ///
    /// A partition that cannot be read is removed altogether, its fence as well: what the broker delivers
    /// again is then absorbed again.
    Reset {
        /// TOPIC/PARTITION
        shard: ShardId,
        /// Only this series
        #[arg(long, value_name = "NAME")]
        series: Option<String>,
        /// Drop the fence as well
        #[arg(long, conflicts_with = "series")]
        fence: bool,
    },
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    crate::telemetry::start_logging();
    let settings = args.settings();
    let store = store::from_settings(&settings)?;
    let rules = Rules::from_settings(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match &args.command {
            Command::List => list(&*store, &rules).await,
            Command::Show { shard, series } => {
                let reading = existing(&*store, shard, &rules).await?;
                show(shard, &reading, series.as_deref())
            }
            Command::Export { shard, series, out } => {
                let reading = existing(&*store, shard, &rules).await?;
                export(&reading.shard, series.as_deref(), out.as_ref())
            }
            Command::Import(args) => import::run(args, store, &settings).await,
            Command::Reset {
                shard,
                series,
                fence,
            } => reset(store, &settings, shard, series.as_deref(), *fence).await,
        }
    })
}

impl Args {
    fn settings(&self) -> Settings {
        let given = |setting: &'static Setting, value: &Option<String>| {
            Some((setting.name.to_owned(), value.clone()?))
        };
        let options = [
            given(&config::STORE_KIND, &self.store),
            given(&config::STORE_PATH, &self.path),
            given(&config::STORE_CONTAINER, &self.container),
            given(&config::STORE_TABLE, &self.table),
        ];
        Settings::from_pairs(super::environment().chain(options.into_iter().flatten()))
    }
}

async fn list(store: &dyn WindowStore, rules: &Rules) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let mut unreadable = 0;
    writeln!(
        out,
        "{:<40} {:>8} {:>10} {:>5} {:>12} {:>12} {:>10}",
        "PARTITION", "SERIES", "POINTS", "EPOCH", "OFFSET", "SNAPSHOT", "LOG"
    )?;
    for id in store.list().await? {
        let Some(stored) = store.load(&id).await? else {
            continue;
        };
        let name = id.to_string();
        match store::decode(store, &id, &stored, rules.points) {
            Ok(Reading { shard, .. }) => {
                let points: usize = shard.iter().map(|(_, window)| window.len()).sum();
                let fence = shard.fence();
                writeln!(
                    out,
                    "{name:<40} {:>8} {points:>10} {:>5} {:>12} {:>12} {:>10}",
                    shard.len(),
                    fence.map_or("-".to_owned(), |fence| fence.epoch.to_string()),
                    fence.map_or("-".to_owned(), |fence| fence.reached.offset.to_string()),
                    stored.snapshot.len(),
                    stored.log.len(),
                )?;
            }
            Err(error) => {
                unreadable += 1;
                writeln!(out, "{name:<40} {error}")?;
            }
        }
    }
    match unreadable {
        0 => Ok(()),
        count => Err(format!("{count} of them cannot be read; see above").into()),
    }
}

fn show(id: &ShardId, reading: &Reading, series: Option<&str>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let shard = &reading.shard;
    if let Some(name) = series {
        for point in window_of(id, shard, name)?.iter() {
            writeln!(out, "{} {}", point.timestamp, point.value)?;
        }
        return Ok(());
    }
    match shard.fence() {
        None => writeln!(out, "fence: none, nothing was absorbed yet")?,
        Some(fence) => writeln!(
            out,
            "fence: epoch {}, offset {}, newest broker timestamp {}",
            fence.epoch,
            fence.reached.offset,
            fence
                .reached
                .broker_ms
                .map_or("none".to_owned(), |ms| format!("{ms} ms")),
        )?,
    }
    writeln!(
        out,
        "snapshot {}, {} log entries since",
        reading.chain.generation, reading.chain.entries
    )?;
    for (name, window) in shard.iter() {
        let ends = match (window.first(), window.newest()) {
            (Some(first), Some(newest)) => format!("{first} to {newest}"),
            _ => "empty".to_owned(),
        };
        writeln!(out, "{:>6} points, {ends}: {name}", window.len())?;
    }
    Ok(())
}

fn export(shard: &Shard, series: Option<&str>, path: Option<&PathBuf>) -> Result<(), Failure> {
    let sink: Box<dyn Write> = match path {
        None => Box::new(io::stdout().lock()),
        Some(path) => {
            let file = std::fs::File::create(path)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            Box::new(io::BufWriter::new(file))
        }
    };
    let mut out = csv::Writer::from_writer(sink);
    out.write_record(["series", "timestamp", "value"])?;
    for (name, window) in shard.iter() {
        if series.is_some_and(|wanted| wanted != name) {
            continue;
        }
        for point in window.iter() {
            // The shortest text that reads back as the same number.
            let (timestamp, value) = (point.timestamp.to_string(), point.value.to_string());
            out.write_record([name, &timestamp, &value])?;
        }
    }
    out.flush()?;
    Ok(())
}

async fn reset(
    store: Arc<dyn WindowStore>,
    settings: &Settings,
    id: &ShardId,
    series: Option<&str>,
    with_fence: bool,
) -> Result<(), Failure> {
    let ledger = Ledger::from_settings(Arc::clone(&store), settings)?;
    if store.version(id).await.is_ok_and(|found| found.is_none()) {
        return Err(no_such(&*store, id));
    }
    let opened = ledger.open(id, 0).await;
    let mut shard = match opened {
        Err(StoreError::Corrupt { what, reason, .. }) if series.is_none() => {
            store.remove(id).await?;
            println!("removed {id}, fence and all, since {what} could not be read: {reason}");
            return Ok(());
        }
        opened => opened?,
    };
    if let Some(name) = series {
        window_of(id, shard.shard()?, name)?;
        shard.rewrite(|shard| shard.set_window(name, None)).await?;
        println!("dropped the window of {name} from {id}");
    } else if with_fence {
        let count = shard.shard()?.len();
        store.remove(id).await?;
        println!("removed {id}: {count} windows and the fence");
    } else {
        let count = shard.shard()?.len();
        shard.rewrite(Shard::clear).await?;
        println!("dropped {count} windows from {id}; the fence stays");
    }
    Ok(())
}

/// A shard that has to be there.
async fn existing(
    store: &dyn WindowStore,
    id: &ShardId,
    rules: &Rules,
) -> Result<Reading, Failure> {
    store::read(store, id, rules.points)
        .await?
        .ok_or_else(|| no_such(store, id))
}

fn no_such(store: &dyn WindowStore, id: &ShardId) -> Failure {
    let place = store.place();
    format!("{place} has nothing of {id}; `lapwing state list` shows what it has").into()
}

fn window_of<'a>(id: &ShardId, shard: &'a Shard, name: &str) -> Result<&'a Window, Failure> {
    shard.window(name).ok_or_else(|| {
        format!("{id} has no series {name:?}; `lapwing state show {id}` lists them").into()
    })
}
