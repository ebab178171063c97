//! The demo as a newcomer runs it: what it finds is what was put into the sample, every verdict is what
//! `lapwing judge` says of the same window, and the report shows what was recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

const POINTS: usize = 288;

fn lapwing() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lapwing"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

fn lines(path: &Path) -> Vec<Value> {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Every recorded verdict, in order of offset.
fn verdicts(out: &Path) -> Vec<Value> {
    let folder = out.join("records/verdicts/aws-cloudwatch-network/0");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().flat_map(|file| lines(file)).collect()
}

/// The offsets of the anomalies that a page marks in its chart.
fn marks(page: &str) -> BTreeSet<i64> {
    page.match_indices("<path class=\"mark")
        .map(|(at, _)| {
            let tag = page[at..].split('>').next().unwrap();
            let offset = tag
                .split("data-offset=\"")
                .nth(1)
                .expect("a mark says its offset");
            offset.split('"').next().unwrap().parse().unwrap()
        })
        .collect()
}

/// The page as a browser made it: its DOM after everything ran.
fn shown_by(chromium: &str, page: &Path) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-sync",
        ])
        .args(["--no-first-run", "--disable-component-update", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn finds_what_was_put_into_the_sample_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let output = lapwing()
        .arg("demo")
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{shown}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(shown.contains("4027 rows, "), "{shown}");

    let labels: Value = serde_json::from_slice(
        &std::fs::read(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample_network_labels.json"),
        )
        .unwrap(),
    )
    .unwrap();
    let labels = labels["labels"].as_array().unwrap();
    let offset = |event: &Value| event["data"]["offset"].as_i64().unwrap();

    // The offset of a message is its row: one partition, one pass.
    let letters: BTreeMap<i64, String> = lines(&out.join("dead-letters.jsonl"))
        .iter()
        .map(|event| {
            (
                offset(event),
                event["data"]["reason"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let bad: BTreeMap<i64, String> = labels
        .iter()
        .filter(|label| label["expected"] == "dead-letter")
        .map(|label| {
            (
                label["row"].as_i64().unwrap(),
                label["reason"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(letters, bad);

    let anomalies: BTreeSet<i64> = lines(&out.join("records.jsonl"))
        .iter()
        .map(offset)
        .collect();
    let (mut wanted, mut explained) = (0, BTreeSet::new());
    for label in labels.iter().filter(|label| label["expected"] == "anomaly") {
        let row = label["row"].as_i64().unwrap();
        let near: Vec<i64> = anomalies.range(row - 1..=row + 1).copied().collect();
        assert!(
            !near.is_empty(),
            "{} at row {row} was not flagged",
            label["kind"]
        );
        explained.extend(near);
        wanted += 1;
    }
    assert!(wanted >= 9, "the sample has five spikes and four dips");
    let others = anomalies.difference(&explained).count();
    let judged = verdicts(&out);
    assert!(
        others * 50 <= judged.len(),
        "{others} of {} other points were flagged",
        judged.len()
    );

    // Every verdict again, through `lapwing judge`, on the window that ends at its point.
    let rows = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample_network_data.csv"),
    )
    .unwrap();
    let kept: Vec<(i64, Value)> = (0..)
        .zip(rows.lines().skip(1))
        .filter(|(row, _)| !bad.contains_key(row))
        .map(|(row, line)| {
            let (timestamp, value) = line.split_once(',').unwrap();
            (
                row,
                json!({"timestamp": timestamp, "value": value.parse::<f64>().unwrap()}),
            )
        })
        .collect();
    assert_eq!(judged.len(), kept.len() - (POINTS - 1));
    let mut judge = lapwing()
        .arg("judge")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = judge.stdin.take().unwrap();
    let windows: Vec<Value> = kept
        .windows(POINTS)
        .map(|window| window.iter().map(|(_, point)| point.clone()).collect())
        .collect();
    let writer = std::thread::spawn(move || {
        for series in windows {
            let request = json!({"series": series, "granularity": "minutely", "customInterval": 5, "boundaryVersion": "V2"});
            writeln!(stdin, "{request}").unwrap();
        }
    });
    let output = judge.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let answers = String::from_utf8(output.stdout).unwrap();
    for (verdict, answer) in judged.iter().zip(answers.lines()) {
        let expect = &serde_json::from_str::<Value>(answer).unwrap()["expect"];
        for member in [
            "isAnomaly",
            "isPositiveAnomaly",
            "isNegativeAnomaly",
            "expectedValue",
            "upperMargin",
            "lowerMargin",
            "period",
        ] {
            assert_eq!(
                verdict["data"][member],
                expect[member],
                "{member} of offset {}",
                offset(verdict)
            );
        }
    }
    assert_eq!(answers.lines().count(), judged.len());

    let told = std::fs::read_to_string(out.join("anomalies.txt")).unwrap();
    assert_eq!(told.lines().count(), anomalies.len());
    assert!(told.lines().all(
        |line| line.starts_with("Anomaly detected: {'timestamp': '2014-03-")
            && line.ends_with("'}")
    ));

    // The report's marks are the records.
    let report = out.join("report.html");
    let page = std::fs::read_to_string(&report).unwrap();
    assert!(
        !page.contains("src=\"http") && !page.contains("href=\"http"),
        "the report is one self-contained file"
    );
    assert_eq!(marks(&page), anomalies);
    match std::env::var("LAPWING_CHROMIUM") {
        Ok(chromium) => assert_eq!(marks(&shown_by(&chromium, &report)), anomalies),
        Err(_) => println!("LAPWING_CHROMIUM is not set: the report is not opened in a browser"),
    }

    // A second run replaces the first, but nobody else's folder.
    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.txt"), "years of work").unwrap();
    let refused = lapwing()
        .arg("demo")
        .arg("--out")
        .arg(&foreign)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--out"));
    assert!(foreign.join("thesis.txt").exists());
}
