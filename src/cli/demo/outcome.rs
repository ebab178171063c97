//! What the app recorded, read back from its files and laid out for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Failure;
use crate::record::python;
use crate::report::{self, Point, Report, Side};
use crate::series::Timestamp;

/// What the demo came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Rows of the sample, as they were sent: timestamp and value. A row's offset is its index.
    pub(super) rows: Vec<(String, String)>,
    /// Points that were judged.
    pub(super) judged: usize,
    /// Anomalies, as recorded, in order.
    pub(super) anomalies: Vec<Recorded<Judged>>,
    /// Dead letters, as recorded, in order.
    pub(super) dead_letters: Vec<Recorded<DeadLetter>>,
    /// Every verdict, in order.
    pub(super) verdicts: Vec<Recorded<Judged>>,
}

/// A recorded event: its line as it stands in the file, and the part that is shown.
#[derive(Debug)]
pub(super) struct Recorded<T> {
    line: String,
    pub(super) data: T,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Judged {
    offset: i64,
    detector: Detector,
    /// Absent when the detector refused the window.
    #[serde(flatten)]
    verdict: Option<Verdict>,
    row: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    is_positive_anomaly: bool,
    is_negative_anomaly: bool,
    expected_value: f64,
    upper_margin: f64,
    lower_margin: f64,
    severity: f64,
}

#[derive(Debug, Deserialize)]
struct Detector {
    sensitivity: u8,
}

#[derive(Debug, Deserialize)]
pub(super) struct DeadLetter {
    offset: i64,
    reason: String,
    detail: String,
    series: Option<String>,
    #[serde(default)]
    value: String,
}

impl Outcome {
    /// Reads what lies below `out/records`.
    pub(super) fn collect(out: &Path, rows: Vec<(String, String)>) -> Result<Self, Failure> {
        let records = out.join("records");
        let verdicts: Vec<Recorded<Judged>> = read(&records.join("verdicts"))?;
        Ok(Self {
            rows,
            judged: verdicts
                .iter()
                .filter(|verdict| verdict.data.verdict.is_some())
                .count(),
            anomalies: read(&records.join("anomalies"))?,
            dead_letters: read(&records.join("dead-letters"))?,
            verdicts,
        })
    }

    /// Writes the files that people look at.
    pub(super) fn write(&self, out: &Path) -> Result<(), Failure> {
        let mut lines = String::new();
        for row in self
            .anomalies
            .iter()
            .filter_map(|anomaly| anomaly.data.row.as_deref())
        {
            writeln!(lines, "{}", python::anomaly_line(row))?;
        }
        std::fs::write(out.join("anomalies.txt"), lines)?;
        std::fs::write(out.join("records.jsonl"), lines_of(&self.anomalies))?;
        std::fs::write(out.join("dead-letters.jsonl"), lines_of(&self.dead_letters))?;
        std::fs::write(out.join("report.html"), report::html(&self.report()))?;
        Ok(())
    }

    fn report(&self) -> Report {
        let verdicts: BTreeMap<i64, &Judged> = self
            .verdicts
            .iter()
            .map(|event| (event.data.offset, &event.data))
            .collect();
        let refused: BTreeMap<i64, &DeadLetter> = self
            .dead_letters
            .iter()
            .map(|event| (event.data.offset, &event.data))
            .collect();
        let points = (0..)
            .zip(&self.rows)
            .filter(|(offset, _)| !refused.contains_key(offset))
            .filter_map(|(offset, (timestamp, value))| {
                let judged = verdicts.get(&offset);
                Some(Point {
                    timestamp: Timestamp::parse(timestamp).ok()?,
                    value: value.parse().ok()?,
                    offset: Some(offset),
                    verdict: judged.and_then(|judged| judged.shown()),
                    is_change_point: false,
                })
            })
            .collect();
        let dead_letters = refused
            .values()
            .map(|letter| report::DeadLetter {
                series: letter.series.clone(),
                timestamp: self.timestamp_of(letter.offset),
                offset: Some(letter.offset),
                reason: letter.reason.clone(),
                detail: letter.detail.clone(),
                message: letter.value.clone(),
            })
            .collect();
        let number = |count: usize| count.to_string();
        Report {
            title: "Two weeks of network traffic".to_owned(),
            summary: vec![
                ("rows".to_owned(), number(self.rows.len())),
                ("points judged".to_owned(), number(self.judged)),
                ("anomalies".to_owned(), number(self.anomalies.len())),
                ("dead letters".to_owned(), number(self.dead_letters.len())),
            ],
            series: vec![report::Series {
                name: super::TOPIC.to_owned(),
                points,
            }],
            dead_letters,
        }
    }

    fn timestamp_of(&self, offset: i64) -> Option<Timestamp> {
        let (timestamp, _) = self.rows.get(usize::try_from(offset).ok()?)?;
        Timestamp::parse(timestamp).ok()
    }
}

impl Judged {
    fn shown(&self) -> Option<report::Verdict> {
        let verdict = self.verdict.as_ref()?;
        // The band that callers of the service drew, with the sensitivity as the scale of the margins.
        let steps = f64::from(100 - self.detector.sensitivity);
        Some(report::Verdict {
            expected: verdict.expected_value,
            upper: verdict.expected_value + steps * verdict.upper_margin,
            lower: verdict.expected_value - steps * verdict.lower_margin,
            anomaly: match (verdict.is_positive_anomaly, verdict.is_negative_anomaly) {
                (true, _) => Some(Side::High),
                (_, true) => Some(Side::Low),
                _ => None,
            },
            severity: verdict.severity,
        })
    }
}

fn lines_of<T>(recorded: &[Recorded<T>]) -> String {
    recorded
        .iter()
        .flat_map(|event| [event.line.as_str(), "\n"])
        .collect()
}

/// The events of one stream: `<topic>/<partition>/<day>.jsonl`, in the order of their names (the demo has
/// one partition, and days sort).
fn read<T: serde::de::DeserializeOwned>(folder: &Path) -> Result<Vec<Recorded<T>>, Failure> {
    #[derive(Deserialize)]
    struct Event<T> {
        data: T,
    }
    let mut events = Vec::new();
    for file in files_below(folder)? {
        let text = std::fs::read_to_string(&file)?;
        for line in text.lines() {
            let event: Event<T> = serde_json::from_str(line)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            events.push(Recorded {
                line: line.to_owned(),
                data: event.data,
            });
        }
    }
    Ok(events)
}

fn files_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            // A stream without events has no folder.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path)
            } else {
                files.push(path)
            }
        }
    }
    files.sort();
    Ok(files)
}
