//! `lapwing state import`: windows filled from history, so that nobody is blind for the first day.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::Failure;
use crate::config::{self, Settings};
use crate::series::{Point, Timestamp};
use crate::store::{Ledger, WindowStore};
use crate::window::{Rules, Shard, ShardId, Window};

/// Largest magnitude of a value that the detector takes.
const MOST_MAGNITUDE: f64 = 1e100;

/// Fill windows from a CSV file with the columns timestamp and value, and series if there are several
///
/// What is stored already stays; history goes before it. The fence does not move.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// CSV file with a header
    file: PathBuf,
    /// Topic that the series come from (default: KafkaTopic)
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Name of the series when the file has no such column (default: the topic)
    #[arg(long, value_name = "NAME")]
    series: Option<String>,
    /// Partition that all of the series are in
    #[arg(long, value_name = "NUMBER", default_value_t = 0, conflicts_with = "partitions",
          value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// Number of partitions of the topic: each series goes where its key sends it
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// How the producers choose a key's partition
    #[arg(long, default_value = "crc32", requires = "partitions")]
    partitioner: Partitioner,
}

/// How a producer makes a partition's number of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Partitioner {
    /// Of librdkafka and all that is built on it, `lapwing replay` too
    Crc32,
    /// Of the Java client
    Murmur2,
}

/// Fills the windows.
pub(super) async fn run(
    args: &Args,
    store: Arc<dyn WindowStore>,
    settings: &Settings,
) -> Result<(), Failure> {
    let topic = match &args.topic {
        Some(topic) => topic.clone(),
        None => settings.required(&config::KAFKA_TOPIC)?,
    };
    let series = args.series.as_deref().unwrap_or(&topic);
    let mut shards: BTreeMap<ShardId, BTreeMap<String, Vec<Point>>> = BTreeMap::new();
    for (name, points) in read(&args.file, series)? {
        let partition = match args.partitions {
            None => args.partition,
            Some(count) => args.partitioner.partition(name.as_bytes(), count),
        };
        let topic = topic.clone();
        let shard = shards.entry(ShardId { topic, partition }).or_default();
        shard.insert(name, points);
    }
    let ledger = Ledger::from_settings(store, settings)?;
    for (id, history) in shards {
        let mut open = ledger.open(&id, 0).await?;
        let edits = prepare(open.shard()?, ledger.rules(), history)
            .map_err(|reason| format!("{id}: {reason}"))?;
        let windows = edits.len();
        let points: usize = edits.iter().map(|(_, window, _)| window.len()).sum();
        let left_out: usize = edits.iter().map(|(_, _, left_out)| left_out).sum();
        open.rewrite(|shard| {
            for (name, window, _) in edits {
                shard.set_window(&name, Some(window));
            }
        })
        .await?;
        println!(
            "{id}: {windows} windows hold {points} points now; {left_out} points of the file are not among them (older, repeated or off the grid)"
        );
    }
    Ok(())
}

/// The points of each series, oldest first.
fn read(path: &Path, series: &str) -> Result<BTreeMap<String, Vec<Point>>, Failure> {
    let told = |reason: String| format!("{}: {reason}", path.display());
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)
        .map_err(|error| told(error.to_string()))?;
    let header = reader.headers().map_err(|error| told(error.to_string()))?;
    let column = |name: &str| header.iter().position(|h| h.eq_ignore_ascii_case(name));
    let (Some(timestamps), Some(values)) = (column("timestamp"), column("value")) else {
        return Err(told("its first line has no columns timestamp and value".to_owned()).into());
    };
    let names = column("series");
    let mut history: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for row in reader.records() {
        let row = row.map_err(|error| told(error.to_string()))?;
        let at_line = |reason: String| {
            let line = row.position().map_or(0, csv::Position::line);
            told(format!("line {line}: {reason}"))
        };
        let timestamp =
            Timestamp::parse(&row[timestamps]).map_err(|error| at_line(error.to_string()))?;
        let value = row[values]
            .parse::<f64>()
            .ok()
            .filter(|value| value.abs() <= MOST_MAGNITUDE)
            .ok_or_else(|| at_line(format!("{:?} is no number up to 1e100", &row[values])))?;
        let name = names.map_or(series, |column| &row[column]);
        let points = history.entry(name.to_owned()).or_default();
        points.push(Point { timestamp, value });
    }
    for points in history.values_mut() {
        points.sort_by_key(|point| point.timestamp);
    }
    Ok(history)
}

/// Each window with its history before it, and how many points of the file are not in it.
fn prepare(
    shard: &Shard,
    rules: &Rules,
    history: BTreeMap<String, Vec<Point>>,
) -> Result<Vec<(String, Window, usize)>, String> {
    let known = history.keys().filter(|name| shard.window(name).is_some());
    let series = shard.len() + history.len() - known.count();
    if series > rules.max_series {
        return Err(format!(
            "that would make {series} series; Window__MaxSeries allows {}",
            rules.max_series
        ));
    }
    let mut edits = Vec::new();
    for (name, points) in history {
        let stored = shard.window(&name);
        let oldest = stored.and_then(Window::first);
        let before = |point: &&Point| oldest.is_none_or(|oldest| point.timestamp < oldest);
        let mut window = Window::default();
        for point in points.iter().filter(before) {
            window.push(rules, *point);
        }
        let stored_points = stored.map_or(0, Window::len);
        let kept = stored
            .into_iter()
            .flat_map(Window::iter)
            .filter(|point| window.push(rules, *point).is_kept())
            .count();
        if kept < stored_points {
            return Err(format!(
                "the history of {name:?} does not lie on the grid of what is stored of it; reset the series first, or check Detector__Granularity and Detector__CustomInterval"
            ));
        }
        let left_out = points.len() - (window.len() - kept.min(window.len()));
        edits.push((name, window, left_out));
    }
    Ok(edits)
}

impl Partitioner {
    fn partition(self, key: &[u8], count: i32) -> i32 {
        let hash = match self {
            Self::Crc32 => crc32fast::hash(key),
            Self::Murmur2 => murmur2(key) & 0x7fff_ffff,
        };
        (hash % count as u32) as i32
    }
}

/// MurmurHash2 with the seed that Kafka's Java client takes.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let (blocks, rest) = key.as_chunks::<4>();
    for block in blocks {
        let mut k = u32::from_le_bytes(*block).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        for (index, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: i64 = 300_000_000;

    fn points(slots: std::ops::Range<i64>, shift: i64) -> Vec<Point> {
        slots
            .map(|slot| Point {
                timestamp: Timestamp::from_micros(slot * STEP + shift),
                value: slot as f64,
            })
            .collect()
    }

    fn rules() -> Rules {
        Rules {
            points: 20,
            min_points: 12,
            max_series: 2,
            ..Rules::default()
        }
    }

    fn one(points: Vec<Point>) -> BTreeMap<String, Vec<Point>> {
        BTreeMap::from([("a".to_owned(), points)])
    }

    #[test]
    fn history_goes_before_what_is_stored() {
        let mut shard = Shard::default();
        let mut stored = Window::default();
        for point in points(30..35, 0) {
            stored.push(
                &rules(),
                Point {
                    value: -1.0,
                    ..point
                },
            );
        }
        shard.set_window("a", Some(stored));
        let edits = prepare(&shard, &rules(), one(points(0..33, 0))).unwrap();
        let (_, window, left_out) = &edits[0];
        let values: Vec<f64> = window.iter().map(|point| point.value).collect();
        let mut expected: Vec<f64> = (15..30).map(f64::from).collect();
        expected.extend([-1.0; 5]);
        assert_eq!((values, *left_out), (expected, 33 - 15));
        let refused = prepare(&shard, &rules(), one(points(20..30, 7)));
        assert!(refused.unwrap_err().contains("grid"));
    }

    #[test]
    fn too_many_series_are_refused() {
        let history = ["a", "b", "c"].map(|name| (name.to_owned(), points(0..1, 0)));
        let refused = prepare(&Shard::default(), &rules(), BTreeMap::from(history));
        assert!(refused.unwrap_err().contains("Window__MaxSeries"));
    }

    /// Values that the clients' own tests hold.
    #[test]
    fn keys_go_where_the_clients_send_them() {
        let java: [(&str, i32); 4] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("abc", 479_470_107),
        ];
        for (key, hash) in java {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
        // The check value of this CRC is 0xcbf43926.
        let partition = Partitioner::Crc32.partition(b"123456789", 1_000_000);
        assert_eq!(partition, (0xcbf4_3926_u32 % 1_000_000) as i32);
    }
}
