//! `lapwing stage`: what it lays out is ready, and each way to break it is refused by name.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

const NO_ENVIRONMENT: [(String, String); 0] = [];

fn lapwing(arguments: &[&str], folder: &Path, environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lapwing"))
        .args(arguments)
        .arg(folder)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn staged() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let output = lapwing(&["stage"], folder.path(), &[]);
    assert!(output.status.success(), "{output:?}");
    folder
}

/// Changes one JSON file of the app.
fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(file, json.to_string()).unwrap();
}

/// The one problem of the app after `spoil`.
#[track_caller]
fn problem(spoil: impl FnOnce(&Path)) -> String {
    let folder = staged();
    spoil(folder.path());
    let problems = lapwing::stage::check(folder.path(), NO_ENVIRONMENT);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].to_string()
}

#[track_caller]
fn assert_names(problem: &str, parts: &[&str]) {
    for part in parts {
        assert!(problem.contains(part), "{part:?} not in {problem:?}");
    }
}

fn host(change: impl FnOnce(&mut Value)) -> String {
    problem(|folder| edit(&folder.join("host.json"), change))
}

fn detect(change: impl FnOnce(&mut Value)) -> String {
    problem(|folder| edit(&folder.join("detect/function.json"), change))
}

#[test]
fn a_fresh_stage_is_ready() {
    let folder = staged();
    assert_eq!(lapwing::stage::check(folder.path(), NO_ENVIRONMENT), []);
    for file in [
        "host.json",
        "detect/function.json",
        "replay/function.json",
        "lapwing",
        "data/sample_network_data.csv",
        ".funcignore",
    ] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
    let output = lapwing(&["stage", "--check"], folder.path(), &[]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_settings_of_the_developer_stay() {
    let folder = staged();
    let local = folder.path().join("local.settings.json");
    edit(&local, |json| json["Values"]["KafkaTopic"] = json!("mine"));
    assert!(lapwing(&["stage"], folder.path(), &[]).status.success());
    let json: Value = serde_json::from_slice(&std::fs::read(&local).unwrap()).unwrap();
    assert_eq!(json["Values"]["KafkaTopic"], "mine");
    assert_eq!(json["Values"]["KafkaBrokers"], "localhost:9092");
    assert_eq!(json["Values"]["FUNCTIONS_WORKER_RUNTIME"], "custom");
}

#[test]
fn kafka_security_is_written_where_the_host_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [
        ("KafkaProtocol", "SaslSsl"),
        ("KafkaAuthenticationMode", "Plain"),
        ("KafkaUsername", "$ConnectionString"),
        ("KafkaPassword", "a secret"),
    ];
    let output = lapwing(&["stage"], folder.path(), &environment);
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(folder.path().join("detect/function.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["bindings"][0]["protocol"], "SaslSsl");
    assert_eq!(json["bindings"][0]["authenticationMode"], "Plain");
    assert_eq!(json["bindings"][0]["username"], "%KafkaUsername%");
    assert!(!text.contains("a secret"));
}

#[test]
fn a_broken_app_fails_the_command_with_one_line_each() {
    let folder = staged();
    std::fs::remove_dir_all(folder.path().join("replay")).unwrap();
    let output = lapwing(&["stage", "--check"], folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_names(&text, &["replay: the function is missing", "has 1 problem"]);
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn a_missing_host_json_is_named() {
    let text = problem(|folder| std::fs::remove_file(folder.join("host.json")).unwrap());
    assert_names(&text, &["host.json", "lapwing stage"]);
}

#[test]
fn a_malformed_host_json_is_named() {
    let text = problem(|folder| std::fs::write(folder.join("host.json"), "{").unwrap());
    assert_names(&text, &["host.json", "cannot be used"]);
}

#[test]
fn a_folder_in_another_case_is_named() {
    let text =
        problem(|folder| std::fs::rename(folder.join("detect"), folder.join("Detect")).unwrap());
    assert_names(&text, &["detect", "Detect", "case"]);
}

#[test]
fn a_function_json_in_another_case_is_named() {
    let text = problem(|folder| {
        let folder = folder.join("detect");
        std::fs::rename(folder.join("function.json"), folder.join("Function.json")).unwrap();
    });
    assert_names(&text, &["detect", "Function.json", "case"]);
}

#[test]
fn a_function_one_level_too_deep_is_named() {
    let text = problem(|folder| {
        std::fs::create_dir(folder.join("functions")).unwrap();
        std::fs::rename(folder.join("detect"), folder.join("functions/detect")).unwrap();
    });
    assert_names(&text, &["detect", "one level too deep"]);
}

#[test]
fn a_function_left_off_the_list_is_named() {
    let text = host(|json| json["functions"] = json!(["detect", "anomalydetector"]));
    assert_names(&text, &["replay", "does not list it"]);
}

#[test]
fn a_binding_name_that_the_host_drops_is_named() {
    let text = detect(|json| json["bindings"][0]["name"] = json!("my_events"));
    assert_names(&text, &["detect", "the host drops it", "my_events"]);
}

#[test]
fn a_function_name_that_the_host_drops_is_named() {
    let text = problem(|folder| {
        std::fs::create_dir(folder.join("2nd")).unwrap();
        std::fs::copy(
            folder.join("replay/function.json"),
            folder.join("2nd/function.json"),
        )
        .unwrap();
    });
    assert_names(&text, &["2nd", "the host drops it"]);
}

#[cfg(unix)]
#[test]
fn a_lost_execute_bit_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let text = problem(|folder| {
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(folder.join("lapwing"), mode).unwrap();
    });
    assert_names(&text, &["lapwing", "not executable"]);
}

#[test]
fn an_executable_path_that_differs_by_a_character_is_named() {
    let path = |text: &'static str| {
        host(move |json| {
            json["customHandler"]["description"]["defaultExecutablePath"] = json!(text)
        })
    };
    assert_names(&path("lapwimg"), &["lapwimg", "holds lapwing"]);
    assert_names(&path("Lapwing"), &["Lapwing", "holds lapwing"]);
    assert_names(&path("./lapwing"), &["./lapwing", "execute bit"]);
    assert_names(&path("bin\\lapwing"), &["execute bit"]);
}

#[test]
fn an_empty_executable_path_is_named() {
    let text =
        host(|json| json["customHandler"]["description"]["defaultExecutablePath"] = json!(""));
    assert_names(&text, &["defaultExecutablePath", "empty"]);
}

#[test]
fn batches_without_data_type_are_named() {
    let text = detect(|json| {
        json["bindings"][0]
            .as_object_mut()
            .unwrap()
            .remove("dataType");
    });
    assert_names(&text, &["detect", "dataType"]);
}

#[test]
fn a_lossy_host_json_is_named() {
    fn kafka<'a>(json: &'a mut Value, key: &str) -> &'a mut Value {
        &mut json["extensions"]["kafka"][key]
    }
    let text = host(|json| *kafka(json, "commitOnFailure") = json!(true));
    assert_names(&text, &["commitOnFailure"]);
    let text = host(|json| {
        json["extensions"]["kafka"]
            .as_object_mut()
            .unwrap()
            .remove("commitOnFailure");
    });
    assert_names(&text, &["commitOnFailure"]);
    let text = host(|json| *kafka(json, "maxRetries") = json!(5));
    assert_names(&text, &["maxRetries"]);
    let text = host(|json| *kafka(json, "autoOffsetReset") = json!("latest"));
    assert_names(&text, &["autoOffsetReset"]);
    let text = host(|json| *kafka(json, "maxPollIntervalMs") = json!(300_000));
    assert_names(&text, &["maxPollIntervalMs", "functionTimeout"]);
    let text = host(|json| json["functionTimeout"] = json!("-1"));
    assert_names(&text, &["functionTimeout"]);
}

#[test]
fn a_missing_or_ending_retry_is_named() {
    let text = detect(|json| {
        json.as_object_mut().unwrap().remove("retry");
    });
    assert_names(&text, &["detect", "no retry block"]);
    let text = detect(|json| json["retry"]["maxRetryCount"] = json!(5));
    assert_names(&text, &["detect", "maxRetryCount is 5"]);
}

#[test]
fn a_bundle_range_with_an_old_extension_is_named() {
    let text = host(|json| json["extensionBundle"]["version"] = json!("[4.0.0, 5.0.0)"));
    assert_names(&text, &["extensionBundle.version", "[4.37.0, 5.0.0)"]);
    let text = host(|json| {
        json.as_object_mut().unwrap().remove("extensionBundle");
    });
    assert_names(&text, &["extensionBundle"]);
}

#[test]
fn a_setting_that_a_function_needs_is_named() {
    let text = problem(|folder| {
        edit(&folder.join("local.settings.json"), |json| {
            json["Values"].as_object_mut().unwrap().remove("KafkaTopic");
        });
    });
    assert_names(&text, &["detect", "KafkaTopic"]);
}

#[test]
fn a_security_enumeration_by_setting_is_named() {
    let text = detect(|json| json["bindings"][0]["protocol"] = json!("%KafkaProtocol%"));
    assert_names(&text, &["detect", "protocol", "SaslSsl"]);
}

#[test]
fn a_disabled_that_nobody_reads_is_named() {
    let text = detect(|json| json["disabled"] = json!(true));
    assert_names(&text, &["detect", "AzureWebJobs.detect.Disabled"]);
}

#[test]
fn the_wrong_worker_runtime_is_named() {
    let text = problem(|folder| {
        edit(&folder.join("local.settings.json"), |json| {
            json["Values"]["FUNCTIONS_WORKER_RUNTIME"] = json!("node");
        });
    });
    assert_names(&text, &["FUNCTIONS_WORKER_RUNTIME", "custom"]);
}

#[test]
fn a_missing_source_of_the_replay_is_named() {
    let text = problem(|folder| std::fs::remove_dir_all(folder.join("data")).unwrap());
    assert_names(&text, &["Replay__Source", "data/sample_network_data.csv"]);
}

/// The folder is all that it needs: moved away, started by its own binary from elsewhere, with nothing
/// in the environment that could lead back.
#[tokio::test]
async fn a_moved_folder_runs_by_itself() {
    const ROWS: usize = 100;
    let (elsewhere, staged) = (tempfile::tempdir().unwrap(), staged());
    let app = elsewhere.path().join("moved");
    std::fs::rename(staged.path(), &app).unwrap();
    let cluster = rdkafka::mocking::MockCluster::new(1).unwrap();
    cluster.create_topic("moved", 2, 1).unwrap();
    produce(&cluster.bootstrap_servers(), "moved", ROWS).await;
    let (binary, port) = (app.join("lapwing"), "0");
    let mut host = tokio::process::Command::new(binary);
    host.args([
        "host",
        "--port",
        port,
        "--strict",
        "--until-caught-up",
        "--app",
    ])
    .arg(&app)
    .current_dir(elsewhere.path())
    .env_clear()
    .env("KafkaBrokers", cluster.bootstrap_servers())
    .env("KafkaTopic", "moved")
    .env("AzureWebJobsStorage", "")
    .env("Store__Kind", "file")
    .env("Store__Path", elsewhere.path().join("state"))
    .env("AzureWebJobs.replay.Disabled", "true")
    .kill_on_drop(true);
    let output = tokio::time::timeout(std::time::Duration::from_secs(120), host.output());
    let output = output.await.expect("the host did not catch up").unwrap();
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{text}{errors}");
    let done = text
        .lines()
        .filter_map(|line| line.split_once("detect done: "));
    let messages = done.map(|(_, rest)| rest.split(' ').next().unwrap().parse::<usize>().unwrap());
    assert_eq!(messages.sum::<usize>(), ROWS, "{text}");
}

async fn produce(brokers: &str, topic: &str, rows: usize) {
    use rdkafka::producer::{FutureProducer, FutureRecord};
    let producer: FutureProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap();
    for row in 0..rows {
        let minutes = row * 5;
        let time = format!("2026-01-01 {:02}:{:02}:00", minutes / 60, minutes % 60);
        let value = json!({"timestamp": time, "value": 50.0}).to_string();
        let record = FutureRecord::to(topic)
            .partition((row % 2) as i32)
            .key("cpu")
            .payload(&value);
        producer
            .send(record, std::time::Duration::from_secs(20))
            .await
            .unwrap();
    }
}
