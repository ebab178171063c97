//! The known input: what a fleet of metric sources would have sent, made from a seed, the same to the
//! byte every time. No clock in it: broker timestamps are given too, because records are filed by them.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Milliseconds from one slot of a series' grid to the next.
pub(crate) const SLOT_MS: i64 = 300_000;

/// 2026-01-05T00:00:00Z, the first slot of every series, in milliseconds since 1970.
const START_MS: i64 = 1_767_571_200_000;

/// How many points, of how many series, over how many partitions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// At least so many messages that are points on the grid.
    pub(crate) points: usize,
    /// Distinct series; each lives in one partition.
    pub(crate) series: usize,
    /// Partitions of the topic.
    pub(crate) partitions: i32,
}

/// One message as its producer sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Partition it is sent to: the one of its series.
    pub(crate) partition: i32,
    /// Message key: the name of the series.
    pub(crate) key: String,
    /// Message value.
    pub(crate) value: Vec<u8>,
    /// Broker timestamp, milliseconds since 1970.
    pub(crate) time_ms: i64,
}

/// Every message in the order of sending.
pub(crate) fn generate(seed: u64, size: Size) -> Vec<Sent> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut sources: Vec<Source> = (0..size.series)
        .map(|number| Source::new(number, size.partitions, random.random()))
        .collect();
    let slots = size.points.div_ceil(size.series.max(1));
    let mut messages = Vec::with_capacity(size.points + size.points / 100);
    // Half-way, the producers' clock is set back by an hour, and later forward again.
    let set_back = (slots / 2)..(slots / 2 + slots / 20);
    let mut slot = 0;
    let mut points = 0;
    while points < size.points {
        let clock = START_MS + slot as i64 * SLOT_MS;
        let clock = if set_back.contains(&slot) {
            clock - 3_600_000
        } else {
            clock
        };
        // Sources do not report in the same order every time.
        let first = random.random_range(0..sources.len());
        for turn in 0..sources.len() {
            let index = (first + turn) % sources.len();
            let source = &mut sources[index];
            let time_ms = clock + turn as i64;
            points += source.report(slot, time_ms, &mut messages);
        }
        slot += 1;
    }
    messages
}

/// What the values of a series look like.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// A season of so many points, with noise.
    Seasonal(f64),
    /// Noise about a level.
    Level,
    /// Steps that add up.
    Walk,
    /// A slope that turns now and then.
    Ramp,
}

/// One series and where it stands.
struct Source {
    name: String,
    partition: i32,
    shape: Shape,
    level: f64,
    scale: f64,
    slope: f64,
    random: StdRng,
}

impl Source {
    fn new(number: usize, partitions: i32, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let shape = match number % 5 {
            0 => Shape::Seasonal(24.0),
            1 => Shape::Seasonal(48.0),
            2 => Shape::Level,
            3 => Shape::Walk,
            _ => Shape::Ramp,
        };
        // Names that a key, a path or a table must escape are names all the same.
        let name = match number % 7 {
            5 => format!("rack {number}/eth0?dir=\"in\"#%2F"),
            6 => format!("größe-{number}\u{1f426}'s\\"),
            _ => format!("host-{number:04}/network-in"),
        };
        Self {
            name,
            partition: (number % partitions.max(1) as usize) as i32,
            shape,
            level: random.random_range(100.0..10_000.0),
            scale: random.random_range(1.0..50.0),
            slope: random.random_range(-1.0..1.0),
            random,
        }
    }

    /// Sends what the source has at `slot`; gives how many points on the grid that were.
    fn report(&mut self, slot: usize, time_ms: i64, messages: &mut Vec<Sent>) -> usize {
        let value = self.value(slot);
        let at = START_MS + slot as i64 * SLOT_MS;
        let good = row(at, value, self.random.random_bool(0.3));
        match self.random.random_range(0..2_000) {
            // A gap.
            0..=1 => return 0,
            // The same point twice: the second is a dead letter.
            2 => {
                self.send(good, time_ms, messages);
                self.send(row(at, value + 1.0, false), time_ms, messages);
            }
            // A point that is older than the newest, after it.
            3 => {
                self.send(good, time_ms, messages);
                self.send(row(at - 2 * SLOT_MS, value, false), time_ms, messages);
            }
            // Off the grid.
            4 => {
                self.send(row(at - 77_000, value, false), time_ms, messages);
                self.send(good, time_ms, messages);
            }
            5 => {
                self.send(
                    b"{'timestamp': 'a python dict'}".to_vec(),
                    time_ms,
                    messages,
                );
                self.send(good, time_ms, messages);
            }
            6 => {
                self.send(row_text(at, "\"NaN\""), time_ms, messages);
                self.send(good, time_ms, messages);
            }
            7 => {
                self.send(vec![0xff, 0x00, 0xfe], time_ms, messages);
                self.send(good, time_ms, messages);
            }
            _ => self.send(good, time_ms, messages),
        }
        1
    }

    fn send(&self, value: Vec<u8>, time_ms: i64, messages: &mut Vec<Sent>) {
        messages.push(Sent {
            partition: self.partition,
            key: self.name.clone(),
            value,
            time_ms,
        });
    }

    fn value(&mut self, slot: usize) -> f64 {
        let noise: f64 = (0..4)
            .map(|_| self.random.random_range(-1.0..1.0))
            .sum::<f64>();
        let base = match self.shape {
            Shape::Seasonal(period) => {
                let phase = std::f64::consts::TAU * slot as f64 / period;
                self.level + self.scale * 12.0 * phase.sin() + noise * self.scale
            }
            Shape::Level => self.level + noise * self.scale,
            Shape::Walk => {
                self.level += noise * self.scale * 0.3;
                self.level
            }
            Shape::Ramp => {
                if self.random.random_bool(0.01) {
                    self.slope = self.random.random_range(-1.0..1.0);
                }
                self.level += self.slope * self.scale * 0.1;
                self.level + noise * self.scale
            }
        };
        let spike = match self.random.random_range(0..400) {
            0 => 40.0 * self.scale,
            1 => -40.0 * self.scale,
            _ => 0.0,
        };
        base + spike
    }
}

/// A row with the value as a JSON number or as the tutorial's numeric string.
fn row(at_ms: i64, value: f64, quoted: bool) -> Vec<u8> {
    if quoted {
        row_text(at_ms, &format!("\"{value:.3}\""))
    } else {
        row_text(at_ms, &format!("{value:.3}"))
    }
}

fn row_text(at_ms: i64, value: &str) -> Vec<u8> {
    let at = lapwing::series::Timestamp::from_micros(at_ms * 1000);
    format!("{{\"timestamp\": \"{at}\", \"value\": {value}}}").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SMALL: Size = Size {
        points: 20_000,
        series: 40,
        partitions: 6,
    };

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        let one = generate(7, SMALL);
        assert_eq!(one, generate(7, SMALL));
        assert_ne!(one, generate(8, SMALL));
    }

    #[test]
    fn it_has_the_size_that_was_asked_for_and_bad_rows_beside() {
        let messages = generate(7, SMALL);
        assert!(messages.len() > SMALL.points);
        let names: BTreeSet<_> = messages.iter().map(|m| (&m.key, m.partition)).collect();
        assert_eq!(names.len(), SMALL.series, "each series in one partition");
        let partitions: BTreeSet<_> = messages.iter().map(|m| m.partition).collect();
        assert_eq!(partitions.len(), SMALL.partitions as usize);
        let bad = messages
            .iter()
            .filter(|m| !m.value.starts_with(b"{\"timestamp\"") || m.value.ends_with(b"\"NaN\"}"))
            .count();
        assert!(bad > 10, "{bad}");
        assert!(
            messages
                .windows(2)
                .any(|m| m[1].time_ms < m[0].time_ms - 1_000_000),
            "a clock set back"
        );
    }
}
