//! Labelled series: how they are made from a seed, written to JSON Lines and read back.
//!
//! Every kind is drawn in turn, so a set of any size holds all of them: level shifts and slope breaks
//! of both signs, alone and several to a series, with and without a season, under Gaussian, heavy
//! tailed and autocorrelated noise, some with outliers; and series without any change: noise, a
//! straight trend, a season, outliers.

use std::io::{self, BufRead, Write};

use lapwing::detector::{ChangePointOptions, Workspace};
use lapwing::series::Timestamp;
use serde::{Deserialize, Serialize};

/// What happened at a change point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The level jumps; the slope stays.
    Shift,
    /// The slope changes; the level is continuous.
    Break,
}

/// A change point of a labelled series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Position of the first point that is different, 0-based.
    pub(crate) at: usize,
    /// What happened there.
    pub(crate) kind: Kind,
}

/// A series and where it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Labelled {
    /// Kind of series and its number in the set.
    pub(crate) name: String,
    /// The granularity that its request would carry.
    pub(crate) granularity: String,
    /// Points per season; 0: none.
    pub(crate) period: u32,
    /// Its change points, ascending.
    pub(crate) changes: Vec<Change>,
    /// Its points.
    pub(crate) values: Vec<f64>,
}

/// `count` labelled series from `seed`.
pub(crate) fn generate(seed: u64, count: usize) -> Vec<Labelled> {
    (0..count).map(|number| draw(seed, number)).collect()
}

/// Writes one series a line.
pub(crate) fn write(set: &[Labelled], mut out: impl Write) -> io::Result<()> {
    for series in set {
        serde_json::to_writer(&mut out, series)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads one series a line.
pub(crate) fn read(from: impl BufRead) -> io::Result<Vec<Labelled>> {
    from.lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect()
}

/// The change points that Lapwing finds with its defaults, told the granularity alone.
pub(crate) fn lapwing(series: &Labelled) -> Vec<usize> {
    let options = ChangePointOptions {
        granularity: series
            .granularity
            .parse()
            .expect("the set names granularities"),
        ..ChangePointOptions::default()
    };
    let timestamps = timestamps(series);
    let verdict = Workspace::new()
        .change_point(&timestamps, &series.values, &options)
        .expect("labelled series are valid");
    (0..series.values.len())
        .filter(|i| verdict.is_change_point[*i])
        .collect()
}

/// One timestamp a point, from 2000 on; none without a granularity.
fn timestamps(series: &Labelled) -> Vec<Timestamp> {
    let first = Timestamp::parse("2000-01-01").expect("a date");
    let step = match series.granularity.as_str() {
        "hourly" => 3_600_000_000,
        "daily" => 86_400_000_000,
        "monthly" => {
            let months = 0..series.values.len();
            return months
                .map(|i| format!("{}-{:02}-01", 2000 + i / 12, i % 12 + 1))
                .map(|text| Timestamp::parse(&text).expect("a date"))
                .collect();
        }
        _ => return vec![],
    };
    (0..series.values.len() as i64)
        .map(|i| Timestamp::from_micros(first.micros() + i * step))
        .collect()
}

/// The kinds of series, in turn.
const RECIPES: [Recipe; 14] = [
    Recipe::new("shift").changes(1, 1, Some(Kind::Shift)),
    Recipe::new("shift-season")
        .changes(1, 1, Some(Kind::Shift))
        .season(),
    Recipe::new("break").changes(1, 1, Some(Kind::Break)),
    Recipe::new("break-season")
        .changes(1, 1, Some(Kind::Break))
        .season(),
    Recipe::new("mixed").changes(2, 4, None),
    Recipe::new("mixed-season").changes(2, 3, None).season(),
    Recipe::new("shift-outliers")
        .changes(1, 2, Some(Kind::Shift))
        .outliers(),
    Recipe::new("shift-trend")
        .changes(1, 2, Some(Kind::Shift))
        .trend(),
    Recipe::new("shift-outliers-season")
        .changes(1, 1, Some(Kind::Shift))
        .outliers()
        .season(),
    Recipe::new("noise"),
    Recipe::new("outliers").outliers(),
    Recipe::new("trend").trend(),
    Recipe::new("season").season(),
    Recipe::new("trend-season").trend().season().outliers(),
];

/// Which parts a kind of series has.
struct Recipe {
    name: &'static str,
    fewest: u64,
    most: u64,
    kind: Option<Kind>,
    season: bool,
    trend: bool,
    outliers: bool,
}

impl Recipe {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            fewest: 0,
            most: 0,
            kind: None,
            season: false,
            trend: false,
            outliers: false,
        }
    }

    /// From `fewest` to `most` changes; `None`: of either kind.
    const fn changes(mut self, fewest: u64, most: u64, kind: Option<Kind>) -> Self {
        (self.fewest, self.most, self.kind) = (fewest, most, kind);
        self
    }

    const fn season(mut self) -> Self {
        self.season = true;
        self
    }

    const fn trend(mut self) -> Self {
        self.trend = true;
        self
    }

    const fn outliers(mut self) -> Self {
        self.outliers = true;
        self
    }
}

/// Series `number` of the set of `seed`, in units of its noise until the last line.
fn draw(seed: u64, number: usize) -> Labelled {
    let recipe = &RECIPES[number % RECIPES.len()];
    let mut random = Random(seed ^ (number as u64 + 1).wrapping_mul(0xD134_2543_DE82_EF95));
    let (granularity, period) = if recipe.season {
        [("daily", 7), ("hourly", 24), ("monthly", 12), ("none", 30)][random.below(4) as usize]
    } else {
        [("none", 0), ("daily", 0), ("hourly", 0), ("monthly", 0)][random.below(4) as usize]
    };
    let n = match granularity {
        "hourly" => 300 + random.below(400),
        "monthly" => 120 + random.below(120),
        "daily" => 120 + random.below(280),
        _ => 240 + random.below(400),
    } as usize;

    let mut values = noise(&mut random, n);
    if recipe.season {
        let amplitude = 2.0 + 6.0 * random.unit();
        let shape: Vec<f64> = (0..4).map(|_| random.normal()).collect();
        for (i, value) in values.iter_mut().enumerate() {
            let turn = std::f64::consts::TAU * i as f64 / f64::from(period);
            let wave = turn.sin()
                + 0.4 * shape[0] * (turn * 2.0 + shape[1]).sin()
                + 0.3 * shape[2] * (turn * 3.0 + shape[3]).cos();
            *value += amplitude * wave;
        }
    }
    if recipe.trend {
        let rise = random.sign() * (5.0 + 20.0 * random.unit()) / n as f64;
        for (i, value) in values.iter_mut().enumerate() {
            *value += rise * i as f64;
        }
    }

    let wanted = recipe.fewest + random.below(recipe.most - recipe.fewest + 1);
    let mut changes: Vec<Change> = vec![];
    let room = (n / 8).max(30);
    while changes.len() < wanted as usize {
        let at = room + random.below((n - 2 * room) as u64) as usize;
        if changes.iter().any(|change| change.at.abs_diff(at) < room) {
            // A place that leaves no room for the rest is drawn anew as a whole.
            if random.below(4) == 0 {
                changes.clear();
            }
            continue;
        }
        let kind = recipe.kind.unwrap_or(if random.below(2) == 0 {
            Kind::Shift
        } else {
            Kind::Break
        });
        changes.push(Change { at, kind });
    }
    changes.sort_by_key(|change| change.at);
    let mut slope = 0.0;
    for change in &changes {
        match change.kind {
            Kind::Shift => {
                let step = random.sign() * (2.5 + 5.5 * random.unit());
                values[change.at..].iter_mut().for_each(|v| *v += step);
            }
            Kind::Break => {
                // As far off the old line after sixty points as this many units of noise; steep slopes
                // turn back rather than run away.
                let bend = (6.0 + 12.0 * random.unit()) / 60.0;
                let bend = if slope == 0.0 {
                    random.sign() * bend
                } else {
                    -f64::signum(slope) * bend
                };
                slope += bend;
                for (k, value) in values[change.at..].iter_mut().enumerate() {
                    *value += bend * k as f64;
                }
            }
        }
    }
    if recipe.outliers {
        for _ in 0..1 + n / 60 {
            let at = random.below(n as u64) as usize;
            values[at] += random.sign() * (6.0 + 14.0 * random.unit());
        }
    }

    let unit = 10f64.powf(2.0 * random.unit());
    let level = unit * 100.0 * random.unit();
    for value in &mut values {
        *value = ((level + unit * *value) * 100.0).round() / 100.0;
    }
    Labelled {
        name: format!("{}-{number:03}", recipe.name),
        granularity: granularity.to_owned(),
        period,
        changes,
        values,
    }
}

/// Noise of standard deviation near 1: Gaussian, Student's t with three degrees of freedom, or
/// autocorrelated of first order.
fn noise(random: &mut Random, n: usize) -> Vec<f64> {
    match random.below(5) {
        0 => (0..n)
            .map(|_| {
                let chi: f64 = (0..3).map(|_| random.normal().powi(2)).sum();
                random.normal() / (chi / 3.0).sqrt() / 3f64.sqrt()
            })
            .collect(),
        1 => {
            let phi = 0.3 + 0.3 * random.unit();
            let mut last = random.normal();
            (0..n)
                .map(|_| {
                    last = phi * last + (1.0 - phi * phi).sqrt() * random.normal();
                    last
                })
                .collect()
        }
        _ => (0..n).map(|_| random.normal()).collect(),
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same numbers on every machine and in every release.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in 0..1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn sign(&mut self) -> f64 {
        if self.below(2) == 0 { -1.0 } else { 1.0 }
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}
