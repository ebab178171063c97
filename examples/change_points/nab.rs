//! The level shifts among the labelled anomalies of the Numenta Anomaly Benchmark.
//!
//! Its labels are windows around anomalies of every kind. One counts as a level shift here when the
//! median of the 288 points after it is more than two interquartile ranges of the series off the
//! median of the 288 points before it. A change point within such a window is a hit; one outside all
//! windows of the series is a false alarm as far as the labels know.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use lapwing::detector::{ChangePointOptions, MAX_POINTS, Workspace};
use lapwing::series::Timestamp;

use crate::rivals::Rival;

/// Points compared before and after a window.
const BESIDE: usize = 288;

/// A series of the benchmark and the positions of its labelled windows, ends included.
struct Series {
    name: String,
    values: Vec<f64>,
    windows: Vec<(usize, usize)>,
}

/// Prints what Lapwing and the rivals find in the series with a level shift, and in those without any
/// label.
pub(crate) fn report(folder: &Path, rivals: &[(String, Rival)]) -> Result<(), Box<dyn Error>> {
    let labels: BTreeMap<String, Vec<(String, String)>> =
        serde_json::from_reader(BufReader::new(File::open(folder.join("labels.json"))?))?;
    let mut all = vec![];
    for (name, windows) in labels {
        let series = read(folder, name, &windows)?;
        let wanted =
            series.windows.is_empty() || series.windows.iter().any(|w| shifts(&series, *w));
        if wanted && series.values.len() <= MAX_POINTS {
            all.push(series);
        }
    }
    println!(
        "| series | method | shifts found | change points outside all windows, per 1000 points |"
    );
    println!("| --- | --- | --- | --- |");
    for series in &all {
        let options = ChangePointOptions::default();
        let verdict = Workspace::new().change_point(&[], &series.values, &options)?;
        let found: Vec<usize> = (0..series.values.len())
            .filter(|i| verdict.is_change_point[*i])
            .collect();
        print_row(series, "Lapwing", &found);
        for (method, rival) in rivals {
            print_row(series, method, &rival.find(&series.values));
        }
    }
    Ok(())
}

fn read(
    folder: &Path,
    name: String,
    windows: &[(String, String)],
) -> Result<Series, Box<dyn Error>> {
    let (mut at, mut values) = (vec![], vec![]);
    for row in csv::Reader::from_path(folder.join(&name))?.deserialize() {
        let (timestamp, value): (String, f64) = row?;
        at.push(Timestamp::parse(&timestamp)?);
        values.push(value);
    }
    let mut positions = vec![];
    for (first, last) in windows {
        let (first, last) = (Timestamp::parse(first)?, Timestamp::parse(last)?);
        let from = at.partition_point(|timestamp| *timestamp < first);
        let behind = at.partition_point(|timestamp| *timestamp <= last);
        positions.push((from, behind.max(from + 1) - 1));
    }
    Ok(Series {
        name,
        values,
        windows: positions,
    })
}

fn shifts(series: &Series, (first, last): (usize, usize)) -> bool {
    let values = &series.values;
    let before = &values[first.saturating_sub(BESIDE)..first];
    let behind = (last + 1).min(values.len());
    let after = &values[behind..(behind + BESIDE).min(values.len())];
    if before.is_empty() || after.is_empty() {
        return false;
    }
    let range = quantile(values, 0.75) - quantile(values, 0.25);
    range > 0.0 && (quantile(after, 0.5) - quantile(before, 0.5)).abs() > 2.0 * range
}

fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn print_row(series: &Series, method: &str, found: &[usize]) {
    let within = |at: usize, (first, last): (usize, usize)| (first..=last).contains(&at);
    let wanted: Vec<(usize, usize)> = series
        .windows
        .iter()
        .copied()
        .filter(|window| shifts(series, *window))
        .collect();
    let hits = wanted
        .iter()
        .filter(|window| found.iter().any(|at| within(*at, **window)))
        .count();
    let outside = found
        .iter()
        .filter(|at| !series.windows.iter().any(|window| within(**at, *window)))
        .count();
    println!(
        "| {} | {method} | {hits} of {} | {:.2} |",
        series.name,
        wanted.len(),
        1000.0 * outside as f64 / series.values.len() as f64
    );
}
