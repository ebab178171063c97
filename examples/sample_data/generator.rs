//! What the sample series is made of: the shape of two weeks, the events put into it, the rows that a
//! careless exporter would spoil.
//!
//! Reproducible to the byte on any machine: the chance is SplitMix64 with a fixed seed, and the
//! arithmetic is +, -, × and ÷ alone, which IEEE 754 rounds alike everywhere (`sin` and `exp` it does
//! not).

use std::fmt::Write;

use serde::Serialize;

/// Rows of the file that are not as the shape says, and what is to come of them.
#[derive(Debug, Serialize)]
pub(crate) struct Labels {
    /// The file that the labels are about.
    pub(crate) file: &'static str,
    /// Seconds from one row to the next.
    pub(crate) step_seconds: i64,
    /// Seed of the generator.
    pub(crate) seed: u64,
    /// In the order of the file.
    pub(crate) labels: Vec<Label>,
}

/// One event, or one spoilt row.
#[derive(Debug, Serialize)]
pub(crate) struct Label {
    /// `spike`, `dip`, `night-burst`, `ramp`, `gap`, or what is wrong with the row.
    pub(crate) kind: &'static str,
    /// First row concerned, counted from 0 at the row below the header.
    pub(crate) row: usize,
    /// Last row concerned. A gap has one row, the first below it.
    pub(crate) last_row: usize,
    /// Timestamp of `row`, as it is in the file.
    pub(crate) timestamp: String,
    /// Value of `row`, as it is in the file.
    pub(crate) value: String,
    /// `anomaly`: flagged within one point. `dead-letter`: kept by no window. `any`: either verdict is
    /// fine.
    pub(crate) expected: &'static str,
    /// Of a dead letter: the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
    /// For a person.
    pub(crate) note: &'static str,
}

/// Seconds from one row to the next.
pub(crate) const STEP_SECONDS: i64 = 300;
const SLOTS_A_DAY: usize = 288;
const DAYS: usize = 14;
const SEED: u64 = 20_140_301;
/// 2014-03-01T00:01:00Z, a Saturday; seconds since 1970.
const START: i64 = 1_393_632_060;

/// Level at each full hour of a working day, bytes; straight lines between.
const WORKING_DAY: [f64; 24] = [
    69.0, 65.0, 61.0, 58.0, 57.0, 60.0, 66.0, 75.0, 85.0, 95.0, 104.0, 112.0, 118.0, 122.0, 124.0,
    122.0, 118.0, 113.0, 107.0, 101.0, 94.0, 87.0, 80.0, 74.0,
];
/// The same at weekends.
const WEEKEND: [f64; 24] = [
    71.0, 67.0, 63.0, 60.0, 58.0, 58.0, 61.0, 66.0, 73.0, 81.0, 88.0, 95.0, 101.0, 105.0, 107.0,
    106.0, 103.0, 99.0, 96.0, 93.0, 89.0, 84.0, 79.0, 74.0,
];
/// What a job that runs at every full hour adds to the first points of the hour.
const HOURLY_JOB: [f64; 3] = [16.0, 24.0, 9.0];
/// Standard deviation of the noise, bytes.
const NOISE: f64 = 2.2;

/// Something that happened to the machine: from `slot` on, the level times `factor` for each slot.
struct Event {
    kind: &'static str,
    day: usize,
    time: (usize, usize),
    factors: &'static [f64],
    note: &'static str,
}

const EVENTS: &[Event] = &[
    Event {
        kind: "spike",
        day: 2,
        time: (10, 26),
        factors: &[2.6],
        note: "one point at more than twice the level",
    },
    Event {
        kind: "dip",
        day: 3,
        time: (14, 41),
        factors: &[0.12],
        note: "one point with hardly any traffic in the busiest hour",
    },
    Event {
        kind: "spike",
        day: 4,
        time: (3, 31),
        factors: &[3.6],
        note: "one point at more than three times the level of the night",
    },
    Event {
        kind: "night-burst",
        day: 5,
        time: (2, 36),
        factors: &[1.9, 2.0, 2.05, 2.0, 2.02, 1.95, 2.0, 1.98, 1.92],
        note: "45 minutes at a level that is normal at noon; a window of one day has seen that level",
    },
    Event {
        kind: "dip",
        day: 6,
        time: (11, 16),
        factors: &[0.05],
        note: "one point near zero",
    },
    Event {
        kind: "spike",
        day: 8,
        time: (16, 51),
        factors: &[2.2],
        note: "one point on a day off",
    },
    Event {
        kind: "dip",
        day: 10,
        time: (9, 46),
        factors: &[0.1],
        note: "one point with hardly any traffic while the day begins",
    },
    Event {
        kind: "spike",
        day: 11,
        time: (20, 21),
        factors: &[2.5],
        note: "one point at more than twice the level of the evening",
    },
    Event {
        kind: "dip",
        day: 12,
        time: (17, 36),
        factors: &[0.15],
        note: "one point with hardly any traffic in the afternoon",
    },
    Event {
        kind: "spike",
        day: 13,
        time: (12, 31),
        factors: &[1.9],
        note: "one point at almost twice the level",
    },
];

/// The ramp: from this slot to that one the level rises by this share of itself, and stays.
const RAMP: (usize, usize, f64) = (8 * SLOTS_A_DAY + 20 * 12, 10 * SLOTS_A_DAY + 6 * 12, 0.3);
/// Slots without a row: the exporter was down for 40 minutes.
const GAP: (usize, usize) = (7 * SLOTS_A_DAY + 6 * 12, 7 * SLOTS_A_DAY + 6 * 12 + 8);

/// A row spoilt in place (`Replace`) or one that should not be there (`Insert`, after the slot's row).
enum Spoil {
    Value(&'static str),
    Timestamp(&'static str),
    InsertRepeated,
    InsertLate,
    InsertOffGrid,
}

const SPOILT: &[(usize, usize, usize, Spoil, &str, &str)] = &[
    (
        1,
        15,
        21,
        Spoil::Value("n/a"),
        "unparsable-value",
        "bad-value",
    ),
    (3, 4, 11, Spoil::Value(""), "missing-value", "bad-value"),
    (4, 21, 6, Spoil::InsertRepeated, "repeated-row", "repeated"),
    (6, 2, 51, Spoil::Value("NaN"), "nan", "bad-value"),
    (7, 18, 1, Spoil::InsertOffGrid, "off-grid-row", "off-grid"),
    (
        9,
        13,
        26,
        Spoil::Timestamp("2014-03-10 25:26:00"),
        "bad-timestamp",
        "bad-timestamp",
    ),
    (11, 7, 56, Spoil::InsertLate, "late-row", "late"),
    (
        12,
        23,
        41,
        Spoil::Value("1e999"),
        "out-of-range",
        "bad-value",
    ),
    (
        13,
        8,
        16,
        Spoil::Timestamp(""),
        "missing-timestamp",
        "bad-timestamp",
    ),
];

/// Text of the CSV file, and its labels.
pub(crate) fn sample() -> (String, Labels) {
    let mut chance = SplitMix64(SEED);
    let mut csv = String::from("timestamp,value\n");
    let mut labels = Vec::new();
    let mut row = 0;
    let mut levels = Vec::with_capacity(DAYS * SLOTS_A_DAY);
    for slot in 0..DAYS * SLOTS_A_DAY {
        let value = level(slot) + NOISE * chance.noise();
        levels.push(tenths(value * factor(slot)));
    }
    let mut ramp_row = 0;
    for (slot, value) in levels.iter().enumerate() {
        if (GAP.0..GAP.1).contains(&slot) {
            continue;
        }
        let timestamp = timestamp(START + slot as i64 * STEP_SECONDS);
        let mut label =
            |kind, row, last_row, timestamp: &str, value: &str, expected, reason, note| {
                labels.push(Label {
                    kind,
                    row,
                    last_row,
                    timestamp: timestamp.to_owned(),
                    value: value.to_owned(),
                    expected,
                    reason,
                    note,
                });
            };
        let mut put = |timestamp: &str, value: &str| {
            writeln!(csv, "{timestamp},{value}").expect("writing to a string");
            row += 1;
            row - 1
        };
        let spoilt = SPOILT
            .iter()
            .find(|(day, hour, minute, ..)| slot == slot_of(*day, *hour, *minute));
        let (shown_timestamp, shown_value) = match spoilt {
            Some((_, _, _, Spoil::Value(text), ..)) => (timestamp.as_str(), *text),
            Some((_, _, _, Spoil::Timestamp(text), ..)) => (*text, value.as_str()),
            _ => (timestamp.as_str(), value.as_str()),
        };
        let this = put(shown_timestamp, shown_value);
        if let Some((_, _, _, spoil, kind, reason)) = spoilt {
            let earlier = |slots: usize| {
                (
                    self::timestamp(START + (slot - slots) as i64 * STEP_SECONDS),
                    levels[slot - slots].clone(),
                )
            };
            let (at, timestamp, value, note) = match spoil {
                Spoil::Value(text) => (
                    this,
                    timestamp.clone(),
                    (*text).to_owned(),
                    "the value is no number",
                ),
                Spoil::Timestamp(text) => (
                    this,
                    (*text).to_owned(),
                    value.clone(),
                    "the timestamp is none",
                ),
                Spoil::InsertRepeated => {
                    let at = put(&timestamp, value);
                    (
                        at,
                        timestamp.clone(),
                        value.clone(),
                        "the row before it once more",
                    )
                }
                Spoil::InsertLate => {
                    // Between two slots: on one, it would repeat the point that is there.
                    let seconds = (slot as i64 - 6) * STEP_SECONDS + 137;
                    let timestamp = self::timestamp(START + seconds);
                    let (_, value) = earlier(6);
                    let at = put(&timestamp, &value);
                    (
                        at,
                        timestamp,
                        value,
                        "some half an hour older than the row before it",
                    )
                }
                Spoil::InsertOffGrid => {
                    let timestamp = self::timestamp(START + slot as i64 * STEP_SECONDS + 137);
                    let at = put(&timestamp, value);
                    (
                        at,
                        timestamp,
                        value.clone(),
                        "137 seconds off the five-minute grid",
                    )
                }
            };
            label(
                kind,
                at,
                at,
                &timestamp,
                &value,
                "dead-letter",
                Some(*reason),
                note,
            );
        }
        if let Some(event) = EVENTS.iter().find(|event| slot == event.slot()) {
            let expected = match event.kind {
                "spike" | "dip" => "anomaly",
                _ => "any",
            };
            let last = this + event.factors.len() - 1;
            label(
                event.kind, this, last, &timestamp, value, expected, None, event.note,
            );
        }
        if slot == GAP.1 {
            label(
                "gap",
                this,
                this,
                &timestamp,
                value,
                "any",
                None,
                "eight rows are missing above it",
            );
        }
        if slot == RAMP.0 {
            ramp_row = labels.len();
            labels.push(Label {
                kind: "ramp",
                row: this,
                last_row: this,
                timestamp: timestamp.clone(),
                value: value.clone(),
                expected: "any",
                reason: None,
                note: "the level rises by three tenths in 34 hours, and stays",
            });
        }
        if slot == RAMP.1 {
            labels[ramp_row].last_row = this;
        }
    }
    let labels = Labels {
        file: "sample_network_data.csv",
        step_seconds: STEP_SECONDS,
        seed: SEED,
        labels,
    };
    (csv, labels)
}

impl Event {
    fn slot(&self) -> usize {
        slot_of(self.day, self.time.0, self.time.1)
    }
}

/// The grid has its points at minutes 1, 6, 11, …
fn slot_of(day: usize, hour: usize, minute: usize) -> usize {
    day * SLOTS_A_DAY + hour * 12 + minute / 5
}

/// What the machine does on an ordinary day, bytes.
fn level(slot: usize) -> f64 {
    let (day, in_day) = (slot / SLOTS_A_DAY, slot % SLOTS_A_DAY);
    let hours_of = |day: usize| match day % 7 {
        0 | 1 => &WEEKEND,
        _ => &WORKING_DAY,
    };
    let (hour, in_hour) = (in_day / 12, in_day % 12);
    let from = hours_of(day)[hour];
    let to = match hour {
        23 => hours_of(day + 1)[0],
        _ => hours_of(day)[hour + 1],
    };
    let curve = from + (to - from) * in_hour as f64 / 12.0;
    let job = HOURLY_JOB.get(in_hour).copied().unwrap_or(0.0);
    let (ramp_from, ramp_to, rise) = RAMP;
    let risen = slot.clamp(ramp_from, ramp_to) - ramp_from;
    (curve + job) * (1.0 + rise * risen as f64 / (ramp_to - ramp_from) as f64)
}

fn factor(slot: usize) -> f64 {
    EVENTS
        .iter()
        .find_map(|event| event.factors.get(slot.checked_sub(event.slot())?))
        .copied()
        .unwrap_or(1.0)
}

/// One decimal, as the metric's exporter writes it.
fn tenths(value: f64) -> String {
    let tenths = (value.max(0.0) * 10.0 + 0.5) as u64;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// `2014-03-01 00:01:00`; the whole file lies in one month.
fn timestamp(seconds: i64) -> String {
    let in_month = seconds - 1_393_632_000;
    let (day, in_day) = (in_month / 86_400 + 1, in_month % 86_400);
    format!(
        "2014-03-{day:02} {:02}:{:02}:{:02}",
        in_day / 3600,
        in_day / 60 % 60,
        in_day % 60
    )
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), exact in 53 bits.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Mean 0, standard deviation 1, never beyond 2.45: two uniforms added (a triangle), because the
    /// bell's own tails would need a logarithm.
    fn noise(&mut self) -> f64 {
        const SQRT_6: f64 = 2.449_489_742_783_178;
        SQRT_6 * (self.uniform() + self.uniform() - 1.0)
    }
}
