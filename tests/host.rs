//! The local host against a programmable handler: this very test binary, started again by the host.
//!
//! Each test stages an app folder whose executable is a link to the binary; the environment variable
//! `FAKE_LOG` turns the test `fake_handler` into a handler that writes down what it was sent and answers
//! as its script says.

#![cfg(unix)]

#[path = "host/cli.rs"]
mod cli;
#[path = "host/fake.rs"]
mod fake;
#[path = "host/http.rs"]
mod http;
#[path = "host/kafka.rs"]
mod kafka;
#[path = "host/process.rs"]
mod process;
#[path = "host/timer.rs"]
mod timer;

use std::path::Path;
use std::time::Duration;

use lapwing::host::event::{Event, Level, Log};
use lapwing::host::{Host, HostOptions};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

/// Longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// The handler of all tests: does nothing unless the host started it.
#[test]
fn fake_handler() {
    if let Ok(log) = std::env::var("FAKE_LOG") {
        fake::serve(Path::new(&log));
    }
}

/// An app folder and what the handler is told to do.
struct Bench {
    folder: tempfile::TempDir,
    settings: Vec<(String, String)>,
}

impl Bench {
    /// An app of one function, whose `function.json` is given.
    fn new(function: &str, json: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(
            std::env::current_exe().unwrap(),
            folder.path().join("handler"),
        )
        .unwrap();
        let bench = Self {
            settings: vec![
                (
                    "FAKE_LOG".to_owned(),
                    folder.path().join("fake.log").display().to_string(),
                ),
                ("REACHED".to_owned(), "by %name%".to_owned()),
            ],
            folder,
        };
        let host = json!({
            "version": "2.0",
            "functionTimeout": "00:00:20",
            "customHandler": {
                "description": {
                    "defaultExecutablePath": "handler",
                    "arguments": ["fake_handler", "--exact", "--nocapture"],
                },
            },
        });
        std::fs::write(bench.folder.path().join("host.json"), host.to_string()).unwrap();
        bench.function(function, json)
    }

    fn function(self, name: &str, json: Value) -> Self {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("function.json"), json.to_string()).unwrap();
        self
    }

    /// Overrides a value of host.json.
    fn host(self, path: &str, value: impl ToString) -> Self {
        self.setting(&format!("AzureFunctionsJobHost__{path}"), value)
    }

    fn setting(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// What the handler does with its first, second, … request, and with every one after the last.
    fn script(self, acts: Value) -> Self {
        self.setting("FAKE_SCRIPT", acts)
    }

    async fn start(&self) -> Running {
        self.start_with(|_| ()).await
    }

    async fn start_with(&self, change: impl FnOnce(&mut HostOptions)) -> Running {
        let mut options = HostOptions {
            app: self.folder.path().to_owned(),
            settings: self.settings.clone(),
            ..HostOptions::default()
        };
        change(&mut options);
        let (host, events) = Host::start(options).await.unwrap();
        Running {
            host,
            events,
            passed: Vec::new(),
        }
    }

    /// What the handler was sent so far, its starts included.
    fn seen(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("fake.log")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The invocations that the handler was sent so far.
    fn requests(&self) -> Vec<Value> {
        self.seen()
            .into_iter()
            .filter(|seen| seen["method"].is_string())
            .collect()
    }

    fn starts(&self) -> Vec<Value> {
        self.seen()
            .into_iter()
            .filter(|seen| seen["args"].is_array())
            .collect()
    }
}

struct Running {
    host: Host,
    events: UnboundedReceiver<Event>,
    /// Log lines that were passed over: their order against other events is nobody's promise.
    passed: Vec<Log>,
}

impl Running {
    /// The first event that `pick` takes.
    async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the host is gone");
                if let Some(found) = pick(&event) {
                    return found;
                }
                if let Event::Log(log) = event {
                    self.passed.push(log);
                }
            }
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(found) => found,
            Err(_) => panic!("waited too long for {what}"),
        }
    }

    async fn ready(&mut self) -> u32 {
        self.wait("a ready handler", |event| match event {
            Event::HandlerReady { pid, .. } => Some(*pid),
            _ => None,
        })
        .await
    }

    /// The end of the next invocation: why it failed, if it did.
    async fn invoked(&mut self) -> Option<String> {
        self.wait("an invocation", |event| match event {
            Event::Invoked(invoked) => Some(invoked.failure.clone()),
            _ => None,
        })
        .await
    }

    async fn logged(&mut self, part: &str) -> (Level, String) {
        if let Some(log) = self.passed.iter().find(|log| log.message.contains(part)) {
            return (log.level, log.message.clone());
        }
        self.wait(part, |event| match event {
            Event::Log(log) if log.message.contains(part) => Some((log.level, log.message.clone())),
            _ => None,
        })
        .await
    }

    async fn fatal(&mut self) -> String {
        self.wait("the host's end", |event| match event {
            Event::Fatal(reason) => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    async fn stop(self) {
        self.host.stop(false).await;
    }
}

/// A timer that fires only by hand.
fn by_hand() -> Value {
    json!({"bindings": [{"type": "timerTrigger", "name": "tick", "schedule": "0 0 0 1 1 *"}]})
}
