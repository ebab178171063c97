//! The app on a real broker: `lapwing replay` sends rows over four partitions, `lapwing host` runs the staged
//! app, and every verdict is the one that the same rows get without Kafka, host and handler between.
//!
//! Runs where `LAPWING_KAFKA` names a broker, as CI does (`scripts/kafka.sh` starts one).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use lapwing::config::Settings;
use lapwing::judge::Pipeline;
use lapwing::message::Message;
use lapwing::record::places::Places;
use lapwing::store::{self, Ledger};
use serde_json::Value;

#[path = "support/mod.rs"]
mod support;

const ROWS: usize = 1000;
const SERIES: usize = 4;

fn lapwing() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lapwing"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// Where the verdicts and the state of a run lie.
fn settings(folder: &Path) -> Vec<(String, String)> {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut settings = vec![
        ("Store__Kind".to_owned(), "file".to_owned()),
        ("Store__Path".to_owned(), path("state")),
    ];
    for stream in ["Records", "DeadLetters", "Verdicts"] {
        settings.push((format!("{stream}__Kind"), "file".to_owned()));
        settings.push((format!("{stream}__Path"), path("records")));
    }
    settings
}

/// What was said of each point: by series and timestamp, without where in Kafka it stood.
fn verdicts(folder: &Path) -> BTreeMap<(String, String), Value> {
    support::events(&folder.join("records"), "verdicts")
        .into_iter()
        .map(|mut event| {
            let data = event["data"].take();
            let key = |member: &str| data[member].as_str().unwrap().to_owned();
            let mut said = data.clone();
            for member in ["topic", "partition", "offset", "epoch"] {
                said.as_object_mut().unwrap().remove(member);
            }
            ((key("series"), key("timestamp")), said)
        })
        .collect()
}

/// The same rows straight through the pipeline.
async fn without_kafka(
    folder: &Path,
    rows: &[(String, String)],
) -> BTreeMap<(String, String), Value> {
    let settings = Settings::from_pairs(settings(folder));
    let ledger =
        Ledger::from_settings(store::from_settings(&settings).unwrap(), &settings).unwrap();
    let pipeline =
        Pipeline::new(&settings, ledger, Places::from_settings(&settings).unwrap()).unwrap();
    let messages = (0..SERIES).flat_map(|series| {
        rows.iter()
            .enumerate()
            .map(move |(index, (timestamp, value))| Message {
                topic: Arc::from("straight"),
                partition: series as i32,
                offset: index as i64,
                broker_time_ms: Some(support::BROKER_START_MS + index as i64),
                key: Some(format!("eth-{series}").into_bytes()),
                value: Some(
                    format!(r#"{{"timestamp":"{timestamp}","value":"{value}"}}"#).into_bytes(),
                ),
            })
    });
    pipeline.absorb(messages.collect()).await.unwrap();
    verdicts(folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_rows_over_four_partitions_get_the_verdicts_of_the_demo() {
    let Ok(brokers) = std::env::var("LAPWING_KAFKA") else {
        println!("skipped: LAPWING_KAFKA names no broker");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample_network_data.csv");
    let text = std::fs::read_to_string(sample).unwrap();
    let head: Vec<&str> = text.lines().take(1 + ROWS).collect();
    let csv = folder.path().join("rows.csv");
    std::fs::write(&csv, head.join("\n") + "\n").unwrap();
    let rows: Vec<(String, String)> = head[1..]
        .iter()
        .map(|line| {
            line.split_once(',')
                .map(|(t, v)| (t.to_owned(), v.to_owned()))
                .unwrap()
        })
        .collect();

    let topic = format!("network-{}", std::process::id());
    run(lapwing()
        .args([
            "replay",
            &csv.display().to_string(),
            "--brokers",
            &brokers,
            "--topic",
            &topic,
        ])
        .args([
            "--partitions",
            "4",
            "--series",
            "eth",
            "--copies",
            &SERIES.to_string(),
        ]));

    let app = folder.path().join("app");
    run(lapwing().arg("stage").arg(&app));
    // Moved elsewhere and with an empty environment: nothing but the folder is in reach.
    let moved = folder.path().join("moved");
    std::fs::rename(&app, &moved).unwrap();
    let log = run(Command::new(moved.join("lapwing"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("KafkaBrokers", &brokers)
        .env("KafkaTopic", &topic)
        .env("KafkaGroup", format!("group-{topic}"))
        .env("AzureWebJobs.replay.Disabled", "true")
        .envs(settings(folder.path()))
        .current_dir(folder.path())
        .args(["host", "--port", "0", "--until-caught-up", "--app"])
        .arg(&moved));
    assert!(log.contains("has caught up"), "{log}");

    let through = verdicts(folder.path());
    let straight = tempfile::tempdir().unwrap();
    let expected = without_kafka(straight.path(), &rows).await;
    assert!(expected.len() > SERIES * (ROWS - 300), "{}", expected.len());
    assert_eq!(through.len(), expected.len());
    assert!(through == expected, "a verdict differs");
    assert!(expected.values().any(|said| said["isAnomaly"] == true));
}
