//! The handler as a child process: started, probed, listened to, restarted by the host's exit table,
//! and stopped by a kill.
//!
//! The table is harsh on purpose. Exit 0 is final: the host believes that the handler still runs, and
//! every later invocation fails. 200 is a restart on request. Anything else is an error; three of them,
//! each within half an hour of the last, stop the host. A binary that cannot be launched is tried once.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::app::App;
use super::counters::{Counters, add};
use super::event::{Event, Events, Level};

/// Category of the handler's own lines.
const CONSOLE: &str = "Host.Function.Console";
const CATEGORY: &str = "Host.Handler";
const PROBE_INTERVAL: Duration = Duration::from_millis(25);
const ERRORS_BEFORE_STOP: usize = 3;
const ERRORS_FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 60);

/// The handler of a running host. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Handler {
    port: u16,
    initialization: Duration,
    state: watch::Receiver<State>,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

/// Where the handler stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Started, no answer yet.
    Starting,
    /// It answered; it may since have exited with 0, which the host does not notice.
    Ready(u32),
    /// It could not be launched.
    Unlaunched,
    /// The host gave up, or was told to stop.
    Stopped,
}

#[derive(Debug)]
enum Command {
    Restart,
    Stop { politely: bool },
}

impl Handler {
    /// Starts the handler of `app` on a port that stays its own across restarts.
    pub(crate) fn start(
        app: &App,
        events: Events,
        counters: Arc<Counters>,
    ) -> std::io::Result<Self> {
        let port = match app.config.handler.port {
            Some(port) => port,
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
                .local_addr()?
                .port(),
        };
        let (state, watched) = watch::channel(State::Starting);
        let (commands, received) = mpsc::channel(8);
        let initialization = app.config.handler.initialization_timeout;
        let supervisor = Supervisor {
            launch: Launch::new(app, port),
            initialization,
            stderr_is_for_errors: app.config.handler.stderr_is_for_errors,
            state,
            commands: received,
            events,
            counters,
            errors: Vec::new(),
        };
        Ok(Self {
            port,
            initialization,
            state: watched,
            commands,
            task: tokio::spawn(supervisor.run()),
        })
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its process id, when it has answered.
    pub(crate) fn pid(&self) -> Option<u32> {
        match *self.state.borrow() {
            State::Ready(pid) => Some(pid),
            _ => None,
        }
    }

    /// Waits until it is ready, four initialization timeouts at most. `false`: it is not, and the host
    /// has to stop.
    pub(crate) async fn ready(&self) -> bool {
        let mut state = self.state.clone();
        let ready = state.wait_for(|state| matches!(state, State::Ready(_) | State::Stopped));
        match tokio::time::timeout(self.initialization * 4, ready).await {
            Ok(Ok(state)) => matches!(*state, State::Ready(_)),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Kills it and starts it anew, which counts as no error.
    pub(crate) async fn restart(&self) {
        // It is gone only when the host stops, and then there is nothing to restart.
        let _ = self.commands.send(Command::Restart).await;
    }

    /// Kills it, or asks it with SIGTERM first when `politely`, and waits until it is gone.
    pub(crate) async fn stop(&self, politely: bool) {
        // A supervisor that has ended already has stopped the process.
        let _ = self.commands.send(Command::Stop { politely }).await;
        self.commands.closed().await;
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        // Aborting drops the child, which kills it.
        self.task.abort();
    }
}

/// How to start the process.
#[derive(Debug)]
struct Launch {
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
    root: PathBuf,
    port: u16,
    settings: Vec<(String, String)>,
}

impl Launch {
    fn new(app: &App, port: u16) -> Self {
        let handler = &app.config.handler;
        let mut settings = app.settings.clone();
        settings.set("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string());
        settings.set("FUNCTIONS_HTTPWORKER_PORT", port.to_string());
        let program = PathBuf::from(settings.expand(&handler.executable));
        let below = app.root.join(&program);
        let arguments: Vec<String> = handler
            .arguments
            .iter()
            .map(|text| settings.expand(text))
            .collect();
        let folder = match &handler.working_directory {
            Some(folder) => app.root.join(folder),
            None => app.root.clone(),
        };
        Self {
            program: if below.is_file() { below } else { program },
            arguments: split(&arguments.join(" ")),
            folder,
            root: app.root.clone(),
            port,
            settings: settings
                .iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let id = uuid::Uuid::new_v4().to_string();
        tokio::process::Command::new(&self.program)
            .args(&self.arguments)
            .current_dir(&self.folder)
            .envs(self.settings.iter().map(|(k, v)| (k, v)))
            .env("FUNCTIONS_CUSTOMHANDLER_WORKER_ID", &id)
            .env("FUNCTIONS_HTTPWORKER_ID", &id)
            .env("FUNCTIONS_APP_ROOT_PATH", &self.root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// Why one run of the process ended.
#[derive(Debug)]
enum End {
    Exited(ExitStatus),
    Unready,
    Restart,
    Stop { politely: bool },
}

#[derive(Debug)]
struct Supervisor {
    launch: Launch,
    initialization: Duration,
    stderr_is_for_errors: bool,
    state: watch::Sender<State>,
    commands: mpsc::Receiver<Command>,
    events: Events,
    counters: Arc<Counters>,
    errors: Vec<Instant>,
}

impl Supervisor {
    async fn run(mut self) {
        loop {
            self.state.send_replace(State::Starting);
            let mut child = match self.launch.spawn() {
                Ok(child) => child,
                Err(error) => {
                    let program = self.launch.program.display();
                    let text = format!(
                        "failed to start the handler {program}: {error}; check defaultExecutablePath and the execute bit"
                    );
                    self.events.log(Level::Error, CATEGORY, text);
                    self.state.send_replace(State::Unlaunched);
                    return self.until_stop().await;
                }
            };
            add(&self.counters.handler_starts, 1);
            let pid = child.id().unwrap_or_default();
            self.events.log(
                Level::Information,
                CATEGORY,
                format!(
                    "handler started, process id {pid}, port {}",
                    self.launch.port
                ),
            );
            let console = Console::listen(&mut child, self.stderr_is_for_errors, &self.events);
            match self.watch(&mut child, pid).await {
                End::Stop { politely } => {
                    self.state.send_replace(State::Stopped);
                    if politely {
                        ask_to_end(&mut child, pid).await;
                    }
                    kill(&mut child).await;
                    return;
                }
                End::Restart => {
                    kill(&mut child).await;
                    // Invocations that timed out together ask together; one restart serves them all.
                    while let Ok(command) = self.commands.try_recv() {
                        if let Command::Stop { .. } = command {
                            self.state.send_replace(State::Stopped);
                            return;
                        }
                    }
                    self.events
                        .log(Level::Warning, CATEGORY, "handler killed, starting it anew");
                }
                End::Exited(status) if status.code() == Some(0) => {
                    self.events.log(
                        Level::Warning,
                        CATEGORY,
                        "handler exited with 0, which the host takes for its end: it is not restarted and every later invocation fails",
                    );
                    match self.commands.recv().await {
                        Some(Command::Restart) => {}
                        Some(Command::Stop { .. }) | None => {
                            self.state.send_replace(State::Stopped);
                            return;
                        }
                    }
                }
                End::Exited(status) if status.code() == Some(200) => {
                    self.events.log(
                        Level::Information,
                        CATEGORY,
                        "handler exited with 200, starting it anew",
                    );
                }
                End::Exited(status) => {
                    let last = console.last_errors().await;
                    let text = format!("handler ended with {status}{last}");
                    if self.one_more_error(&text) {
                        return;
                    }
                }
                End::Unready => {
                    kill(&mut child).await;
                    let text = format!(
                        "handler did not answer GET / within {:?}",
                        self.initialization
                    );
                    if self.one_more_error(&text) {
                        return;
                    }
                }
            }
        }
    }

    /// Watches one run until something ends it.
    async fn watch(&mut self, child: &mut Child, pid: u32) -> End {
        let port = self.launch.port;
        let mut probe = std::pin::pin!(answered(port));
        let mut limit = std::pin::pin!(tokio::time::sleep(self.initialization));
        let mut is_ready = false;
        loop {
            tokio::select! {
                status = child.wait() => match status {
                    Ok(status) => return End::Exited(status),
                    Err(error) => {
                        self.events.log(Level::Error, CATEGORY, format!("cannot wait for the handler: {error}"));
                        return End::Unready;
                    }
                },
                command = self.commands.recv() => match command {
                    Some(Command::Restart) => return End::Restart,
                    Some(Command::Stop { politely }) => return End::Stop { politely },
                    None => return End::Stop { politely: false },
                },
                () = &mut probe, if !is_ready => {
                    is_ready = true;
                    self.state.send_replace(State::Ready(pid));
                    self.events.send(Event::HandlerReady { pid, port });
                }
                () = &mut limit, if !is_ready => return End::Unready,
            }
        }
    }

    /// Counts an error; `true` when it was the last one that the host bears.
    fn one_more_error(&mut self, text: &str) -> bool {
        self.events.log(Level::Error, CATEGORY, text);
        let now = Instant::now();
        if self
            .errors
            .last()
            .is_some_and(|last| now - *last > ERRORS_FORGOTTEN_AFTER)
        {
            self.errors.clear();
        }
        self.errors.push(now);
        if self.errors.len() < ERRORS_BEFORE_STOP {
            return false;
        }
        self.state.send_replace(State::Stopped);
        self.events.send(Event::Fatal(format!(
            "the handler failed {ERRORS_BEFORE_STOP} times, the last time: {text}"
        )));
        true
    }

    async fn until_stop(&mut self) {
        while let Some(command) = self.commands.recv().await {
            if matches!(command, Command::Stop { .. }) {
                break;
            }
        }
        self.state.send_replace(State::Stopped);
    }
}

/// Returns when the port has answered `GET /`, whatever the answer: any response is one, and so is any
/// fault but a failing connection.
async fn answered(port: u16) {
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap_or_default();
    let url = format!("http://127.0.0.1:{port}/");
    loop {
        match client.get(&url).send().await {
            Ok(_) => return,
            Err(error) if !error.is_connect() => return,
            Err(_) => tokio::time::sleep(PROBE_INTERVAL).await,
        }
    }
}

/// Kills and reaps; the host waits for a second at most.
async fn kill(child: &mut Child) {
    // It fails only when the process is gone, which is what is wanted.
    let _ = child.start_kill();
    let _ = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
}

/// Sends SIGTERM and waits for some seconds, so that tests see an orderly end.
async fn ask_to_end(child: &mut Child, pid: u32) {
    #[cfg(unix)]
    if let Some(pid) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        // It fails only when the process is gone.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
    }
    #[cfg(not(unix))]
    let _ = (child, pid);
}

/// The handler's output streams.
#[derive(Debug)]
struct Console {
    last_errors: Arc<Mutex<VecDeque<String>>>,
    stderr: Option<JoinHandle<()>>,
}

impl Console {
    fn listen(child: &mut Child, errors_only: bool, events: &Events) -> Self {
        let last_errors = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stdout) = child.stdout.take() {
            let events = events.clone();
            tokio::spawn(read_lines(stdout, move |line| {
                say(&events, Level::Information, &line);
            }));
        }
        let stderr = child.stderr.take().map(|stderr| {
            let (events, kept) = (events.clone(), Arc::clone(&last_errors));
            tokio::spawn(read_lines(stderr, move |line| {
                let level = stderr_level(&line, errors_only);
                say(&events, level, &line);
                if level == Level::Error {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.push_back(line);
                    if kept.len() > 3 {
                        kept.pop_front();
                    }
                }
            }))
        });
        Self {
            last_errors,
            stderr,
        }
    }

    /// The last three errors, as the end of a sentence.
    async fn last_errors(self) -> String {
        if let Some(stderr) = self.stderr {
            // A grandchild may hold the stream open; what was read until then has to do.
            let _ = tokio::time::timeout(Duration::from_millis(500), stderr).await;
        }
        let kept = self
            .last_errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if kept.is_empty() {
            return String::new();
        }
        format!(": {}", Vec::from(kept.clone()).join("; "))
    }
}

/// Calls `each` for every line; bytes that are no UTF-8 are replaced.
async fn read_lines(stream: impl AsyncRead + Unpin, mut each: impl FnMut(String)) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    // A stream that cannot be read any more has ended.
    while matches!(reader.read_until(b'\n', &mut line).await, Ok(1..)) {
        let text = String::from_utf8_lossy(&line);
        each(text.trim_end_matches(['\n', '\r']).to_owned());
        line.clear();
    }
}

/// Logs a line of the handler; two prefixes take it elsewhere.
fn say(events: &Events, level: Level, line: &str) {
    if line.starts_with("azfuncjsonlog:") {
        return;
    }
    match line.strip_prefix("LanguageWorkerConsoleLog") {
        Some(line) => events.log(level, "Host.System", line.trim_start()),
        None => events.log(level, CONSOLE, line),
    }
}

fn stderr_level(line: &str, errors_only: bool) -> Level {
    let line = line.to_ascii_lowercase();
    let has = |word: &str| line.contains(word);
    if has("warn") {
        Level::Warning
    } else if errors_only
        || ["error", "fail", "severe", "unhandled exception"]
            .into_iter()
            .any(has)
    {
        Level::Error
    } else {
        Level::Information
    }
}

/// Splits a command line as .NET does on Unix: at white space outside double quotes, `\"` is a quote.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted, mut has_word) =
        (Vec::new(), String::new(), false, false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'"') => {
                word.push('"');
                chars.next();
                has_word = true;
            }
            '"' => {
                is_quoted = !is_quoted;
                has_word = true;
            }
            ' ' | '\t' if !is_quoted => {
                if has_word {
                    words.push(std::mem::take(&mut word));
                    has_word = false;
                }
            }
            c => {
                word.push(c);
                has_word = true;
            }
        }
    }
    if has_word {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_with_a_space_arrives_as_two() {
        let joined = ["serve", "a b", "\"c d\""].join(" ");
        assert_eq!(split(&joined), ["serve", "a", "b", "c d"]);
        assert_eq!(split(r#"say \"x\" """#), ["say", "\"x\"", ""]);
    }

    #[test]
    fn stderr_is_an_error_unless_it_warns() {
        assert_eq!(stderr_level("anything", true), Level::Error);
        assert_eq!(stderr_level("WARNING: no error", true), Level::Warning);
        assert_eq!(stderr_level("anything", false), Level::Information);
        assert_eq!(stderr_level("it Failed", false), Level::Error);
    }
}
