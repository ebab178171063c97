//! `lapwing state` on a file store: what an operator sees and does.

use std::path::Path;
use std::process::{Command, Output};

fn lapwing(store: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lapwing"))
        .arg("state")
        .args(arguments)
        .args(["--store", "file", "--path"])
        .arg(store)
        .env("Window__Points", "20")
        .env("Window__MinPoints", "12")
        .env_remove("AzureWebJobsStorage")
        .output()
        .unwrap()
}

#[track_caller]
fn told(output: Output) -> String {
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refused(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors
}

/// `count` rows of each of two series, five minutes apart.
fn history(count: usize) -> String {
    let mut csv = String::from("timestamp,value,series\n");
    for row in 0..count {
        for (series, value) in [("eth0", row as f64), ("eth1", row as f64 / 3.0)] {
            let (hour, minute) = (row / 12, row % 12 * 5);
            csv += &format!("2026-03-01 {hour:02}:{minute:02}:00,{value},{series}\n");
        }
    }
    csv
}

#[test]
fn history_goes_in_and_comes_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("state");
    let csv = folder.path().join("history.csv");
    std::fs::write(&csv, history(30)).unwrap();
    let csv = csv.to_str().unwrap();

    let imported = told(lapwing(&store, &["import", csv, "--topic", "metrics"]));
    assert!(
        imported.starts_with("metrics/0: 2 windows hold 40 points now; 20 "),
        "{imported}"
    );

    let listed = told(lapwing(&store, &["list"]));
    let row: Vec<_> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..5], ["metrics/0", "2", "40", "-", "-"]);

    let shown = told(lapwing(&store, &["show", "metrics/0"]));
    assert!(shown.contains("fence: none"), "{shown}");
    assert!(
        shown.contains("20 points, 2026-03-01T00:50:00Z to 2026-03-01T02:25:00Z: eth0"),
        "{shown}"
    );
    let shown = told(lapwing(&store, &["show", "metrics/0", "--series", "eth1"]));
    assert_eq!(shown.lines().count(), 20);

    // What comes out goes in elsewhere and comes out the same.
    let out = folder.path().join("out.csv");
    let out = out.to_str().unwrap();
    told(lapwing(&store, &["export", "metrics/0", "--out", out]));
    let exported = std::fs::read_to_string(out).unwrap();
    assert_eq!(exported.lines().count(), 41);
    let elsewhere = folder.path().join("elsewhere");
    told(lapwing(&elsewhere, &["import", out, "--topic", "metrics"]));
    assert_eq!(
        told(lapwing(&elsewhere, &["export", "metrics/0"])),
        exported
    );

    told(lapwing(&store, &["reset", "metrics/0", "--series", "eth0"]));
    let shown = told(lapwing(&store, &["show", "metrics/0"]));
    assert!(!shown.contains("eth0") && shown.contains("eth1"), "{shown}");
    told(lapwing(&store, &["reset", "metrics/0"]));
    let listed = told(lapwing(&store, &["list"]));
    assert!(listed.lines().nth(1).unwrap().contains(" 0 "), "{listed}");
    told(lapwing(&store, &["reset", "metrics/0", "--fence"]));
    assert_eq!(told(lapwing(&store, &["list"])).lines().count(), 1);
}

#[test]
fn an_unreadable_partition_is_named_and_can_be_reset() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("state");
    let csv = folder.path().join("history.csv");
    std::fs::write(&csv, history(12)).unwrap();
    told(lapwing(
        &store,
        &["import", csv.to_str().unwrap(), "--topic", "metrics"],
    ));
    let shard = store.join("windows/metrics/0");
    let snapshot = std::fs::read_dir(&shard)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("snapshot-")
        })
        .unwrap();
    let mut bytes = std::fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();

    let error = refused(lapwing(&store, &["show", "metrics/0"]));
    let name = snapshot.file_name().unwrap().to_str().unwrap();
    assert!(
        error.contains(name.strip_prefix("snapshot-").unwrap()),
        "{error}"
    );
    assert!(error.contains("lapwing state reset metrics/0"), "{error}");
    told(lapwing(&store, &["reset", "metrics/0"]));
    assert_eq!(told(lapwing(&store, &["list"])).lines().count(), 1);
}

#[test]
fn mistakes_are_answered_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("state");
    let csv = folder.path().join("bad.csv");
    std::fs::write(&csv, "timestamp,value\n2026-03-01,1\n2026-03-02,many\n").unwrap();
    let csv = csv.to_str().unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["show", "metrics/0"], "`lapwing state list`"),
        (&["reset", "metrics/0"], "`lapwing state list`"),
        (&["import", csv], "line 3: \"many\" is no number"),
        (&["import", "nowhere.csv"], "nowhere.csv"),
    ];
    for (arguments, expected) in cases {
        let error = refused(lapwing(&store, arguments));
        assert!(error.contains(expected), "{error}");
    }
    let usage = lapwing(&store, &["show", "metrics"]);
    assert_eq!(usage.status.code(), Some(2));
}
