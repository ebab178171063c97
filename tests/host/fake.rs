//! The handler: writes down every request, then acts by its script.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The log, which outlives the process and so tells the next one how far the script is.
struct Fake {
    log: PathBuf,
    writing: Mutex<()>,
}

pub(super) fn serve(log: &Path) {
    let fake = Fake {
        log: log.to_owned(),
        writing: Mutex::new(()),
    };
    let environment: serde_json::Map<String, Value> = std::env::vars()
        .filter(|(name, _)| name.starts_with("FUNCTIONS_") || name == "REACHED")
        .map(|(name, value)| (name, json!(value)))
        .collect();
    let number = fake.write(
        "args",
        json!({
            "args": std::env::args().skip(1).collect::<Vec<_>>(),
            "folder": std::env::current_dir().unwrap(),
            "environment": environment,
            "pid": std::process::id(),
        }),
    );
    println!("a line on stdout");
    eprintln!("a line on stderr");
    act(&script("FAKE_STARTS", number));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let port: u16 = std::env::var("FUNCTIONS_CUSTOMHANDLER_PORT")
            .unwrap()
            .parse()
            .unwrap();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
            .await
            .unwrap();
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::new(fake));
        axum::serve(listener, router).await.unwrap();
    });
}

impl Fake {
    /// Writes a line and says how many of its kind there were before.
    fn write(&self, kind: &str, line: Value) -> usize {
        let _writing = self.writing.lock().unwrap();
        let before = std::fs::read_to_string(&self.log).unwrap_or_default();
        let of_kind = before.lines().filter(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line.get(kind).is_some()
        });
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        writeln!(file, "{line}").unwrap();
        of_kind.count()
    }
}

/// The act at `number` of a script, or its last.
fn script(name: &str, number: usize) -> Value {
    let script = std::env::var(name).unwrap_or_default();
    let acts: Vec<Value> = serde_json::from_str(&script).unwrap_or_default();
    acts.get(number)
        .or(acts.last())
        .cloned()
        .unwrap_or_default()
}

/// Acts that end or delay the process.
fn act(act: &Value) {
    if let Some(code) = act["exit"].as_i64() {
        if let Some(text) = act["say"].as_str() {
            eprintln!("{text}");
        }
        std::process::exit(code as i32);
    }
    if let Some(millis) = act["sleep"].as_u64() {
        std::thread::sleep(std::time::Duration::from_millis(millis));
    }
}

async fn answer(State(fake): State<Arc<Fake>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/" && head.method == "GET" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let headers: serde_json::Map<String, Value> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
        .collect();
    let number = fake.write(
        "method",
        json!({
            "method": head.method.as_str(),
            "path": head.uri.to_string(),
            "headers": headers,
            "body": String::from_utf8_lossy(&body),
            "pid": std::process::id(),
        }),
    );
    let what = script("FAKE_SCRIPT", number);
    act(&what);
    if what["hang"] == true {
        std::future::pending::<()>().await;
    }
    let mut response = Response::builder().status(what["status"].as_u64().unwrap_or(200) as u16);
    response = response.header(
        "content-type",
        what["type"].as_str().unwrap_or("application/json"),
    );
    for (name, value) in what["headers"].as_object().into_iter().flatten() {
        response = response.header(name, value.as_str().unwrap());
    }
    let body = what["body"].as_str().unwrap_or("{}").to_owned();
    response.body(Body::from(body)).unwrap()
}
