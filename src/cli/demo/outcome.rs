//! What the app recorded, read back from its files and laid out for people.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Failure;
use crate::record::python;

/// What the demo came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Rows of the sample.
    pub(super) rows: u64,
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
    pub(super) timestamp: String,
    pub(super) value: f64,
    pub(super) offset: i64,
    #[serde(default)]
    pub(super) is_anomaly: bool,
    #[serde(default)]
    pub(super) is_negative_anomaly: bool,
    pub(super) expected_value: Option<f64>,
    pub(super) upper_margin: Option<f64>,
    pub(super) lower_margin: Option<f64>,
    pub(super) severity: Option<f64>,
    row: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct DeadLetter {
    pub(super) reason: String,
    pub(super) detail: String,
    pub(super) offset: i64,
}

impl Outcome {
    /// Reads what lies below `out/records`.
    pub(super) fn collect(out: &Path, rows: u64) -> Result<Self, Failure> {
        let records = out.join("records");
        let verdicts: Vec<Recorded<Judged>> = read(&records.join("verdicts"))?;
        Ok(Self {
            rows,
            judged: verdicts
                .iter()
                .filter(|verdict| verdict.data.expected_value.is_some())
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
        Ok(())
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
