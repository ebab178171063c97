//! The server on a real socket: framing, TLS, its end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{KEY, LAST, request};

/// `lapwing serve --port 0`, stopped when dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lapwing"))
            .args(["serve", "--port", "0"])
            .args(arguments)
            .arg(format!("Api__Key1={KEY}"))
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let url = line.trim().strip_prefix("Serving ").expect("it says where");
        let address = url.split("//").nth(1).unwrap().trim_end_matches('/');
        Self {
            child,
            address: address.to_owned(),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

fn head(length: usize, more: &str) -> String {
    format!(
        "POST //{} HTTP/1.1\r\nHost: localhost\r\nOcp-Apim-Subscription-Key: {KEY}\r\nContent-Length: {length}\r\n{more}\r\n",
        &LAST[1..]
    )
}

/// Everything until the server closes.
fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_client_that_waits_for_leave_gets_it() {
    let server = Server::start(&[]);
    let body = request().to_string();
    let mut stream = server.connect();
    let more = "Expect: 100-continue\r\nConnection: close\r\n";
    stream.write_all(head(body.len(), more).as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 100");
    stream.write_all(body.as_bytes()).unwrap();
    assert!(rest(stream).contains("HTTP/1.1 200 OK"));
}

#[test]
fn a_client_that_writes_far_too_much_reads_why() {
    let server = Server::start(&["Api__MaxBodyBytes=65536"]);
    let mut stream = server.connect();
    let body = vec![b' '; 200_000];
    stream.write_all(head(body.len(), "").as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    let answer = rest(stream);
    assert!(
        answer.starts_with("HTTP/1.1 413 Payload Too Large"),
        "{answer}"
    );
    assert!(answer.contains("\"code\":\"RequestEntityTooLarge\""));
}

#[test]
fn asked_to_stop_it_ends_by_itself() {
    let mut server = Server::start(&[]);
    let body = request().to_string();
    let mut stream = server.connect();
    // A call in progress: half of its body is there.
    let (one, two) = body.split_at(body.len() / 2);
    stream
        .write_all((head(body.len(), "Expect: 100-continue\r\n")).as_bytes())
        .unwrap();
    let mut first = [0; 25];
    stream.read_exact(&mut first).unwrap();
    stream.write_all(one.as_bytes()).unwrap();
    let pid = rustix::process::Pid::from_child(&server.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    while TcpStream::connect(&server.address).is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
    stream.write_all(two.as_bytes()).unwrap();
    assert!(
        rest(stream).contains("HTTP/1.1 200 OK"),
        "the call in progress is finished"
    );
    assert!(server.child.wait().unwrap().success());
}

#[tokio::test]
async fn https_with_a_certificate_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let names = vec!["localhost".to_owned()];
    let own = rcgen::generate_simple_self_signed(names).unwrap();
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&cert, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let server = Server::start(&["--tls-cert", cert, "--tls-key", key]);
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(own.cert.pem().as_bytes()).unwrap()])
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let port = server.address.rsplit(':').next().unwrap();
    let answer = client
        .post(format!("https://localhost:{port}{LAST}"))
        .header("Ocp-Apim-Subscription-Key", KEY)
        .body(request().to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("strict-transport-security"));

    let swapped = Command::new(env!("CARGO_BIN_EXE_lapwing"))
        .args(["serve", "--port", "0", "--tls-cert", key, "--tls-key", cert])
        .output()
        .unwrap();
    assert!(!swapped.status.success());
    let reason = String::from_utf8(swapped.stderr).unwrap();
    assert!(
        reason.contains("certificate") && reason.contains("key.pem"),
        "{reason}"
    );
}
