//! The running binary as the Functions host runs it: started with a port and settings, invoked over
//! HTTP, killed without a word.

#![allow(dead_code, reason = "each test file uses its part of this")]

use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything here may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A handler process; killed when dropped.
pub(crate) struct Handler {
    child: Child,
    base: String,
    client: reqwest::Client,
}

impl Handler {
    /// Starts `lapwing serve` as the host does and waits until `GET /` answers.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lapwing"));
        command
            .arg("serve")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string())
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let handler = Self {
            child: command.spawn().expect("the binary starts"),
            base: format!("http://127.0.0.1:{port}"),
            client: reqwest::Client::builder()
                .timeout(PATIENCE)
                .build()
                .unwrap(),
        };
        let start = Instant::now();
        while handler.client.get(&handler.base).send().await.is_err() {
            assert!(start.elapsed() < PATIENCE, "the handler does not answer");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        handler
    }

    /// Posts an invocation; status and JSON body of the answer, or the error of a connection that broke.
    pub(crate) async fn invoke(
        &self,
        function: &str,
        body: &Value,
    ) -> reqwest::Result<(u16, Value)> {
        let id = "2f0b6c0e-0000-4000-8000-000000000000";
        self.post(function, body, Some(id)).await
    }

    /// Posts a body, as the host's invocation `id` or as nobody's.
    pub(crate) async fn post(
        &self,
        function: &str,
        body: &Value,
        id: Option<&str>,
    ) -> reqwest::Result<(u16, Value)> {
        let mut request = self
            .client
            .post(format!("{}/{function}", self.base))
            .header("Content-Type", "application/json; charset=utf-8")
            .body(body.to_string());
        if let Some(id) = id {
            request = request.header("X-Azure-Functions-InvocationId", id);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        assert_eq!(response.headers()["content-type"], "application/json");
        Ok((status, response.json().await?))
    }

    /// Gets a path; status and text of the answer.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = self
            .client
            .get(format!("{}{path}", self.base))
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the handler does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether the process is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A value as the host writes a .NET string: JSON once more.
pub(crate) fn quoted(value: impl Into<Value>) -> String {
    value.into().to_string()
}

/// The payload of a Kafka trigger with cardinality MANY and binary data: offset and bytes of messages of
/// one partition, with null keys.
pub(crate) fn many_binary(
    topic: &str,
    partition: i32,
    first_broker_ms: i64,
    messages: &[(i64, Vec<u8>)],
) -> Value {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    type Cell<'a> = &'a dyn Fn(&(i64, Vec<u8>)) -> Value;
    let column = |of: Cell<'_>| quoted(messages.iter().map(of).collect::<Vec<_>>());
    json!({
        "Data": {"evts": column(&|(_, bytes)| json!(STANDARD.encode(bytes)))},
        "Metadata": {
            "PartitionArray": column(&|_| json!(partition)),
            "OffsetArray": column(&|(offset, _)| json!(offset)),
            "TimestampArray": column(&|(offset, _)| json!(broker_time(first_broker_ms + offset * 1000))),
            "TopicArray": column(&|_| json!(topic)),
            "KeyArray": column(&|_| Value::Null),
            "HeadersArray": column(&|_| json!([])),
            "LeaderEpochArray": column(&|_| json!(0)),
            "IsPartitionEOFArray": column(&|_| json!(false)),
            "sys": {"MethodName": "detect", "UtcNow": "2026-08-21T14:58:02.4471032Z",
                    "RandGuid": "4f0e3c52-3b7e-4b55-9c06-0f8d7f3f1f10"},
        },
    })
}

/// A broker timestamp as the host writes it: ISO 8601, a fraction only as long as needed.
pub(crate) fn broker_time(ms: i64) -> String {
    lapwing::series::Timestamp::from_micros(ms * 1000).to_string()
}
