//! The fault harness would notice: with the fence between two writers switched off it fails.
//!
//! Runs the example, which starts Kafka and Azurite by itself; on where services are (`LAPWING_KAFKA`).

use std::path::PathBuf;
use std::process::Command;

#[test]
fn without_the_fence_the_harness_fails() {
    if std::env::var_os("LAPWING_KAFKA").is_none() {
        println!("LAPWING_KAFKA is not set: the fault harness is not run");
        return;
    }
    let arguments = "--seed 3 --seconds 45 --points 8000 --series 24 --partitions 4 --drain 60";
    let output = Command::new(harness())
        .args(arguments.split(' '))
        .arg("--no-fence")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    assert!(!output.status.success(), "{said}");
    assert!(last.starts_with("lost: "), "{said}");
    assert_ne!(last, "lost: 0, doubled: 0, differing: 0", "{said}");
}

/// `cargo test` builds examples beside the folder of the tests.
fn harness() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/faults");
    assert!(
        path.exists(),
        "{} is missing; cargo build --example faults",
        path.display()
    );
    path
}
