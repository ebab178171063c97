//! The committed sample is what its generator makes, and its labels are about its rows.

use std::path::PathBuf;

#[path = "../examples/sample_data/generator.rs"]
mod generator;

fn committed(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn committed_files_are_the_generators_output_to_the_byte() {
    let (csv, labels) = generator::sample();
    // Compared as a whole and not shown: a difference would print 100 KB.
    assert!(
        committed("sample_network_data.csv") == csv,
        "data/sample_network_data.csv differs; run `cargo run --example sample_data`"
    );
    assert_eq!(
        committed("sample_network_labels.json"),
        serde_json::to_string_pretty(&labels).unwrap() + "\n"
    );
}

#[test]
fn every_label_names_a_row_of_the_file() {
    let csv = committed("sample_network_data.csv");
    let rows: Vec<&str> = csv.lines().skip(1).collect();
    let (_, labels) = generator::sample();
    let mut kinds = std::collections::BTreeMap::new();
    for label in &labels.labels {
        let row = rows[label.row];
        let (timestamp, value) = row.split_once(',').unwrap();
        assert_eq!((timestamp, value), (&*label.timestamp, &*label.value));
        assert!(label.row <= label.last_row && label.last_row < rows.len());
        assert_eq!(label.reason.is_some(), label.expected == "dead-letter");
        *kinds.entry(label.kind).or_insert(0) += 1;
    }
    assert_eq!(rows.len(), 4027);
    assert_eq!((kinds["spike"], kinds["dip"]), (5, 4));
    let dead = labels.labels.iter().filter(|l| l.expected == "dead-letter");
    assert_eq!(dead.count(), 9);
}

#[test]
fn a_row_without_a_label_is_good_and_on_the_grid() {
    use lapwing::series::{MICROS_PER_SECOND, Timestamp};
    let csv = committed("sample_network_data.csv");
    let (_, labels) = generator::sample();
    let mut newest: Option<Timestamp> = None;
    for (row, line) in csv.lines().skip(1).enumerate() {
        let spoilt = labels
            .labels
            .iter()
            .any(|label| label.row == row && label.expected == "dead-letter");
        if spoilt {
            continue;
        }
        let (timestamp, value) = line.split_once(',').unwrap();
        let timestamp = Timestamp::parse(timestamp).unwrap();
        assert!(value.parse::<f64>().unwrap().is_finite(), "row {row}");
        if let Some(newest) = newest {
            let step = timestamp.micros() - newest.micros();
            assert!(
                step > 0 && step % (generator::STEP_SECONDS * MICROS_PER_SECOND) == 0,
                "row {row}"
            );
        }
        newest = Some(timestamp);
    }
}
