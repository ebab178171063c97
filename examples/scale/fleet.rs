//! A fleet of metric sources in steady state: any number of series, each value a function of the seed,
//! the series and the slot, so that nothing has to be remembered and every window can be made again.

use std::sync::Arc;

use lapwing::host::kafka::payload::{Message, batch_payload};
use lapwing::host::wire::Value;
use lapwing::series::{Point, Timestamp};

/// Seconds from one point of a series to the next.
const STEP_S: i64 = 300;
/// 2026-01-05T00:00:00Z, slot 0, in seconds since 1970.
const START_S: i64 = 1_767_571_200;

/// The fleet.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    /// Decides every value.
    pub(crate) seed: u64,
    /// Number of series.
    pub(crate) series: usize,
    /// Partitions that the series are spread over.
    pub(crate) partitions: usize,
    /// Name of the topic.
    pub(crate) topic: Arc<str>,
}

/// What a series looks like; the shares are those of [`Fleet::shape`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// A daily or shorter rhythm of so many points, with noise.
    Season(f64),
    /// Requests by the hour of the day: two humps, never below nought.
    Traffic(f64),
    /// Noise about a level.
    Level,
    /// A slope with noise: a disk that fills and is emptied.
    Sawtooth(f64),
    /// Almost always the same value.
    Constant,
}

impl Fleet {
    /// Name of a series.
    pub(crate) fn name(&self, series: usize) -> String {
        format!("region-{:02}/host-{series:07}/bytes-in", series % 31)
    }

    /// The series of a name.
    pub(crate) fn series_named(name: &str) -> Option<usize> {
        name.split_once("/host-")?.1.split_once('/')?.0.parse().ok()
    }

    /// The slot of a timestamp.
    pub(crate) fn slot_at(timestamp: Timestamp) -> i64 {
        (timestamp.micros() / 1_000_000 - START_S) / STEP_S
    }

    /// Partition of a series.
    pub(crate) fn partition(&self, series: usize) -> usize {
        series % self.partitions
    }

    /// The series of a partition, in the order in which they report.
    pub(crate) fn members(&self, partition: usize) -> impl Iterator<Item = usize> + use<> {
        (partition..self.series).step_by(self.partitions)
    }

    /// The point of a series at a slot.
    pub(crate) fn point(&self, series: usize, slot: i64) -> Point {
        Point {
            timestamp: Timestamp::from_micros((START_S + slot * STEP_S) * 1_000_000),
            value: self.value(series, slot),
        }
    }

    fn shape(&self, series: usize) -> Shape {
        match mix(self.seed, series as u64, 1) % 20 {
            0..=2 => Shape::Season(24.0),
            3..=4 => Shape::Season(48.0),
            5 => Shape::Traffic(72.0),
            6..=7 => Shape::Traffic(96.0),
            8..=13 => Shape::Level,
            14..=17 => Shape::Sawtooth(400.0),
            _ => Shape::Constant,
        }
    }

    fn value(&self, series: usize, slot: i64) -> f64 {
        let of_series = |what| unit(mix(self.seed, series as u64, what));
        let level = 50.0 + 5_000.0 * of_series(2);
        let scale = level * (0.02 + 0.1 * of_series(3));
        let phase = 100.0 * of_series(4);
        let draw = |what| unit(mix(self.seed ^ what, series as u64, slot as u64 + 1_000));
        // The sum of four uniform draws is close enough to a bell.
        let noise = draw(11) + draw(12) + draw(13) + draw(14) - 2.0;
        let turn = |period: f64| std::f64::consts::TAU * (slot as f64 + phase) / period;
        let base = match self.shape(series) {
            Shape::Season(period) => level + scale * (4.0 * turn(period).sin() + 0.5 * noise),
            Shape::Traffic(period) => {
                let humps = turn(period).sin() + 0.5 * (2.0 * turn(period)).cos();
                (level + scale * (3.0 * humps + 0.6 * noise)).max(0.0)
            }
            Shape::Level => level + scale * noise,
            Shape::Sawtooth(period) => {
                let filled = ((slot as f64 + phase) / period).fract();
                level + scale * (10.0 * filled + 0.3 * noise)
            }
            Shape::Constant => level + if draw(15) < 0.02 { scale } else { 0.0 },
        };
        let spike = if draw(16) < 0.001 { 12.0 * scale } else { 0.0 };
        // As sources print them: three digits. Rounded here, so that a row parses to this very number.
        ((base + spike) * 1_000.0).round() / 1_000.0
    }

    /// The body of an invocation with these points, as the Functions host sends it; `offset` is the next
    /// one of each partition.
    pub(crate) fn body(&self, points: &[(usize, i64)], offsets: &mut [i64]) -> Vec<u8> {
        let messages: Vec<Message> = points
            .iter()
            .map(|&(series, slot)| {
                let partition = self.partition(series);
                let offset = offsets[partition];
                offsets[partition] += 1;
                let Point { timestamp, value } = self.point(series, slot);
                let row = format!("{{\"timestamp\": \"{timestamp}\", \"value\": {value}}}");
                let seconds = START_S + slot * STEP_S;
                Message {
                    topic: self.topic.to_string(),
                    partition: partition as i32,
                    offset,
                    timestamp: chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default(),
                    key: Value::text(self.name(series)),
                    value: Some(row.into_bytes()),
                    headers: Vec::new(),
                    leader_epoch: None,
                }
            })
            .collect();
        batch_payload(&messages, "evts", true)
            .body("detect", None)
            .into_bytes()
    }
}

/// 64 bits that look random, from three numbers (the finaliser of SplitMix64).
fn mix(seed: u64, a: u64, b: u64) -> u64 {
    let mut x = seed
        .wrapping_add(a.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(b.wrapping_mul(0xd1b5_4a32_d192_ed03));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// From 0 to 1, 1 excluded.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use lapwing::invocation::{Invocation, kafka};
    use lapwing::row::Row;

    use super::*;

    fn fleet() -> Fleet {
        Fleet {
            seed: 1,
            series: 1_000,
            partitions: 4,
            topic: Arc::from("fleet"),
        }
    }

    #[test]
    fn a_body_decodes_to_the_very_points() {
        let (fleet, mut offsets) = (fleet(), [7, 0, 0, 0]);
        let points = [(0, 300), (4, 300), (1, 301)];
        let body = fleet.body(&points, &mut offsets);
        let messages = kafka::messages(&Invocation::parse(&body).unwrap()).unwrap();
        assert_eq!(offsets, [9, 1, 0, 0]);
        for (message, (series, slot)) in messages.iter().zip(points) {
            let row = Row::parse(message).unwrap();
            assert_eq!(*row.series, fleet.name(series));
            assert_eq!(row.point, fleet.point(series, slot));
            assert_eq!(Fleet::series_named(&row.series), Some(series));
            assert_eq!(Fleet::slot_at(row.point.timestamp), slot);
        }
        let places: Vec<_> = messages.iter().map(|m| (m.partition, m.offset)).collect();
        assert_eq!(places, [(0, 7), (0, 8), (1, 0)]);
    }

    #[test]
    fn every_series_is_in_one_partition_and_the_seed_decides() {
        let fleet = fleet();
        let mut all: Vec<usize> = (0..4).flat_map(|p| fleet.members(p)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..1_000).collect::<Vec<_>>());
        let other = Fleet {
            seed: 2,
            ..fleet.clone()
        };
        assert_ne!(fleet.point(3, 5), other.point(3, 5));
        let seasonal =
            (0..1_000).filter(|s| matches!(fleet.shape(*s), Shape::Season(_) | Shape::Traffic(_)));
        assert!(seasonal.count() > 350);
    }
}
