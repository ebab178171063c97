//! What was judged, as a picture: one self-contained HTML page, or the chart of one series alone as SVG
//! or PNG.
//!
//! A page needs nothing from the network and is whole without its script, which adds the zoom and the
//! details under the pointer. Every mark carries `data-timestamp`, and `data-offset` where there is one, so
//! that a mark can be traced to its record.

mod chart;
mod page;
mod png;
mod scale;
mod svg;

pub use self::page::html;
pub use self::png::{PngError, png};
pub use self::svg::svg;

use crate::series::Timestamp;

/// Everything on the page.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Heading of the page, such as what was replayed.
    pub title: String,
    /// Numbers that sum it up, as label and value, in the order in which they are shown.
    pub summary: Vec<(String, String)>,
    /// One chart each.
    pub series: Vec<Series>,
    /// Messages that no window kept, in any order.
    pub dead_letters: Vec<DeadLetter>,
}

/// A series with its verdicts.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Name, as in the records.
    pub name: String,
    /// The points kept, ascending by timestamp.
    pub points: Vec<Point>,
}

/// A point, and what the detector said of it.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// What was measured, in the unit of the series; finite.
    pub value: f64,
    /// Offset of its message in Kafka, if that is where it comes from.
    pub offset: Option<i64>,
    /// `None` while the window fills, and where the detector refused the window.
    pub verdict: Option<Verdict>,
    /// Whether the trend changes here.
    pub is_change_point: bool,
}

/// What the detector said; values are in the unit of the series.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// What the value should have been.
    pub expected: f64,
    /// Upper end of the band, at least `expected`.
    pub upper: f64,
    /// Lower end of the band, at most `expected`.
    pub lower: f64,
    /// Flagged, and on which side.
    pub anomaly: Option<Side>,
    /// How far off, 0 to 1.
    pub severity: f64,
}

/// The side of the band on which an anomaly lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Above the expected value.
    High,
    /// Below it.
    Low,
}

/// A message that no window kept.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Name of the series whose chart shows it, where it is known.
    pub series: Option<String>,
    /// When it was measured, where that can be read.
    pub timestamp: Option<Timestamp>,
    /// Offset of its message in Kafka.
    pub offset: Option<i64>,
    /// The reason in one word.
    pub reason: String,
    /// The reason for a person.
    pub detail: String,
    /// The message as text.
    pub message: String,
}

impl Point {
    /// The side of an anomaly; `None` for any other point.
    pub fn anomaly(&self) -> Option<Side> {
        self.verdict.and_then(|verdict| verdict.anomaly)
    }
}

impl Side {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Low => "low",
        }
    }
}

/// `text` as the content of an element or an attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // No XML document may hold these.
            '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}' => {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
