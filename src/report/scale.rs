//! From times and values to places on a chart: ranges, ticks and their labels, and where a line breaks.

use std::ops::Range;

use super::Point;
use crate::series::{MICROS_PER_SECOND, Timestamp};

/// Steps between ticks of time that people count in, in seconds.
const TIME_STEPS: [i64; 24] = [
    1,
    5,
    15,
    30,
    60,
    300,
    900,
    1800,
    3600,
    7200,
    10_800,
    21_600,
    43_200,
    86_400,
    172_800,
    345_600,
    604_800,
    1_209_600,
    2_592_000,
    7_776_000,
    15_552_000,
    31_536_000,
    157_680_000,
    315_360_000,
];
const DAY: i64 = 86_400;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The part of the plane that a chart shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Left edge, microseconds since 1970.
    pub(super) first: i64,
    /// Right edge, later than the left one.
    pub(super) last: i64,
    /// Bottom edge, in the unit of the series.
    pub(super) low: f64,
    /// Top edge, above the bottom one.
    pub(super) high: f64,
}

impl Scale {
    /// Room for all of `points`, with a little air above and below.
    pub(super) fn of(points: &[Point]) -> Self {
        let first = points.first().map_or(0, |p| p.timestamp.micros());
        let last = points.last().map_or(0, |p| p.timestamp.micros());
        let mut seen = Extent::default();
        for point in points {
            seen.include(point.value);
            if let Some(verdict) = point.verdict {
                seen.include(verdict.expected);
            }
        }
        // The band may be far wider than what happened: it gets half as much again at most.
        let (low, high) = seen.ends();
        let most = (high - low) * 0.5;
        let mut with_band = seen;
        for verdict in points.iter().filter_map(|point| point.verdict) {
            with_band.include(verdict.upper.min(high + most));
            with_band.include(verdict.lower.max(low - most));
        }
        let (low, high) = with_band.ends();
        let mut air = (high - low) * 0.05;
        if air <= 0.0 {
            air = if high == 0.0 { 1.0 } else { high.abs() * 0.1 };
        }
        Self {
            first,
            last: last.max(first + 1),
            low: low - air,
            high: high + air,
        }
    }

    /// How far right a time lies, from 0 to 1.
    pub(super) fn across(&self, timestamp: Timestamp) -> f64 {
        (timestamp.micros() - self.first) as f64 / (self.last - self.first) as f64
    }

    /// How far down a value lies, from 0 to 1; what is outside lies on the edge.
    pub(super) fn down(&self, value: f64) -> f64 {
        ((self.high - value) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Up to about `most` round values and their labels.
    pub(super) fn value_ticks(&self, most: usize) -> Vec<(f64, String)> {
        let rough = (self.high - self.low) / most as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .map(|factor| factor * power)
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(power * 10.0);
        if !step.is_finite() || step <= 0.0 {
            return Vec::new();
        }
        let first = (self.low / step).ceil();
        (0..=most * 2)
            .map(|n| (first + n as f64) * step)
            .take_while(|value| *value <= self.high)
            .map(|value| (value, number(value)))
            .collect()
    }

    /// Up to about `most` round times and their labels.
    pub(super) fn time_ticks(&self, most: usize) -> Vec<(Timestamp, String)> {
        let (first, last) = (
            self.first.div_euclid(MICROS_PER_SECOND),
            self.last.div_euclid(MICROS_PER_SECOND),
        );
        let rough = (last - first) / most as i64;
        let step = TIME_STEPS
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or_else(|| rough.max(1));
        let mut ticks = Vec::new();
        let mut at = first.div_euclid(step) * step;
        while at <= last && ticks.len() <= most * 2 {
            if at >= first {
                let timestamp = Timestamp::from_micros(at * MICROS_PER_SECOND);
                ticks.push((timestamp, tick_label(timestamp, step)));
            }
            at += step;
        }
        ticks
    }
}

/// Least and greatest of what was seen.
#[derive(Clone, Copy)]
struct Extent {
    low: f64,
    high: f64,
}

impl Default for Extent {
    fn default() -> Self {
        Self {
            low: f64::INFINITY,
            high: f64::NEG_INFINITY,
        }
    }
}

impl Extent {
    fn include(&mut self, value: f64) {
        // Halves of what a double holds, so that their difference is one, too.
        if value.is_finite() && value.abs() < f64::MAX / 4.0 {
            self.low = self.low.min(value);
            self.high = self.high.max(value);
        }
    }

    fn ends(self) -> (f64, f64) {
        if self.low <= self.high {
            (self.low, self.high)
        } else {
            (0.0, 0.0)
        }
    }
}

/// Runs of points without a gap between them: what one line connects.
pub(super) fn pieces(points: &[Point]) -> Vec<Range<usize>> {
    let gaps = gaps(points);
    let mut from = 0;
    let mut pieces = Vec::new();
    for gap in gaps {
        pieces.push(from..gap + 1);
        from = gap + 1;
    }
    if from < points.len() {
        pieces.push(from..points.len());
    }
    pieces
}

/// Points after which at least one is missing: the next one is more than one and a half usual steps away.
pub(super) fn gaps(points: &[Point]) -> Vec<usize> {
    let mut steps: Vec<i64> = points.windows(2).map(step).collect();
    let middle = steps.len() / 2;
    if steps.is_empty() {
        return Vec::new();
    }
    let usual = *steps.select_nth_unstable(middle).1;
    let is_gap = |pair: &[Point]| step(pair) * 2 > usual * 3;
    points
        .windows(2)
        .enumerate()
        .filter_map(|(index, pair)| is_gap(pair).then_some(index))
        .collect()
}

fn step(pair: &[Point]) -> i64 {
    pair[1].timestamp.micros() - pair[0].timestamp.micros()
}

/// Runs of at least two points without a verdict: a window that fills, or one that was refused.
pub(super) fn unjudged(points: &[Point]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut from = None;
    for (index, point) in points.iter().enumerate() {
        match (point.verdict, from) {
            (None, None) => from = Some(index),
            (Some(_), Some(start)) => {
                runs.push(start..index);
                from = None;
            }
            _ => {}
        }
    }
    runs.extend(from.map(|start| start..points.len()));
    runs.retain(|run| run.len() > 1);
    runs
}

/// `value` with up to five digits that count, or all before the point.
pub(super) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let size = value.abs();
    if !(1e-4..1e9).contains(&size) {
        let text = format!("{value:.4e}");
        return match text.split_once('e') {
            Some((digits, exponent)) => format!("{}e{exponent}", without_zeros(digits)),
            None => text,
        };
    }
    let before_point = size.log10().floor() as i32 + 1;
    let decimals = usize::try_from(5 - before_point).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    without_zeros(&text).to_owned()
}

fn without_zeros(digits: &str) -> &str {
    if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    }
}

/// `2014-03-02 17:36`, with seconds where there are any.
pub(super) fn moment(timestamp: Timestamp) -> String {
    let text = timestamp.to_string();
    let text = text.trim_end_matches('Z').replace('T', " ");
    match text.strip_suffix(":00") {
        Some(short) => short.to_owned(),
        None => text,
    }
}

fn tick_label(timestamp: Timestamp, step: i64) -> String {
    let text = timestamp.to_string();
    let seconds = timestamp.micros().div_euclid(MICROS_PER_SECOND);
    if step >= 28 * DAY {
        return text[..7].to_owned();
    }
    if seconds.rem_euclid(DAY) == 0 {
        let month: usize = text[5..7].parse().unwrap_or(1);
        let day = text[8..10].trim_start_matches('0');
        return format!("{day} {}", MONTHS[month - 1]);
    }
    match step < 60 {
        true => text[11..19].to_owned(),
        false => text[11..16].to_owned(),
    }
}
