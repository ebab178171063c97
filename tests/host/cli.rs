//! `lapwing host` as a command.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::{Bench, PATIENCE, by_hand};

fn host(bench: &Bench, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lapwing"));
    command
        .args(["host", "--port", "0", "--app"])
        .arg(bench.folder.path())
        .args(more)
        .envs(bench.settings.iter().map(|(name, value)| (name, value)))
        .kill_on_drop(true);
    command
}

async fn failed(command: &mut Command) -> (Option<i32>, String) {
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .unwrap()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[tokio::test]
async fn sigterm_ends_it_and_its_handler() {
    let bench = Bench::new("sweep", by_hand());
    let mut child = host(&bench, &["--sigterm"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let started = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("a line on stdout") {
                return;
            }
        }
        panic!("the handler did not start");
    };
    tokio::time::timeout(PATIENCE, started).await.unwrap();
    let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = tokio::time::timeout(PATIENCE, child.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success(), "{status}");
    let handler = bench.starts()[0]["pid"].as_u64().unwrap();
    let gone = async {
        while std::path::Path::new(&format!("/proc/{handler}")).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn a_folder_without_host_json_is_one_line_and_1() {
    let bench = Bench::new("sweep", by_hand());
    std::fs::remove_file(bench.folder.path().join("host.json")).unwrap();
    let (code, text) = failed(&mut host(&bench, &[])).await;
    assert_eq!(code, Some(1));
    assert!(
        text.contains("no host.json in") && text.lines().count() == 1,
        "{text}"
    );
}

#[tokio::test]
async fn wrong_usage_is_2() {
    let bench = Bench::new("sweep", by_hand());
    let (code, _) = failed(&mut host(&bench, &["--no-such-option"])).await;
    assert_eq!(code, Some(2));
}

#[tokio::test]
async fn a_crashing_handler_ends_the_command_with_its_reason() {
    let bench = Bench::new("sweep", by_hand())
        .setting("FAKE_STARTS", r#"[{"exit": 3, "say": "no store"}]"#);
    let (code, text) = failed(&mut host(&bench, &[])).await;
    assert_eq!(code, Some(1));
    assert!(
        text.contains("no store") && text.lines().count() == 1,
        "{text}"
    );
}
