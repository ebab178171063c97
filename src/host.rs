//! A small Azure Functions host for one machine: it reads a staged app, starts its handler, and invokes
//! the functions by Kafka, timer and HTTP triggers.
//!
//! It is as strict as the real host on purpose: what it forgives, nobody would find before production.
//! What it is not: a host for other bindings, other languages, or more than one instance.

mod answer;
pub mod app;
pub mod config;
pub mod counters;
mod dotnet;
pub mod event;
pub mod function;
mod http;
mod invoke;
pub mod kafka;
mod process;
pub mod schedule;
mod section;
pub mod settings;
mod timer;
pub mod wire;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;

use self::app::{App, AppError};
use self::counters::Counters;
use self::event::{Event, Events, Level};
use self::function::Trigger;
use self::http::Server;
use self::invoke::Invoker;
use self::kafka::Listener;
use self::process::Handler;
use self::timer::Timer;

pub use self::invoke::Strictness;

const CATEGORY: &str = "Host.Startup";

/// How to run an app.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// The staged folder.
    pub app: PathBuf,
    /// Settings that win over those of the environment and of `local.settings.json`; the handler gets
    /// them, too.
    pub settings: Vec<(String, String)>,
    /// Port for HTTP triggers and the host's own pages, on loopback; 0 takes a free one, `None` opens
    /// none.
    pub port: Option<u16>,
    /// Folder for what the host remembers of timers; `.lapwing` in the app when absent.
    pub state: Option<PathBuf>,
    /// How answers are judged and bodies sent.
    pub strictness: Strictness,
    /// Timers whose first run comes at once, past due.
    pub past_due: Vec<String>,
}

/// A running host. Dropping it kills the handler; [`Host::stop`] waits until everything is gone.
#[derive(Debug)]
pub struct Host {
    app: Arc<App>,
    counters: Arc<Counters>,
    invoker: Arc<Invoker>,
    listeners: Vec<Listener>,
    timers: Arc<BTreeMap<String, Timer>>,
    server: Option<Server>,
}

/// Why a host cannot start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The app cannot be read.
    #[error(transparent)]
    App(#[from] AppError),
    /// No function is left to run, so no handler would start.
    #[error("no functions in {}{dropped}; run `lapwing stage --check` on it", app.display())]
    NoFunctions {
        /// The app folder.
        app: PathBuf,
        /// The reasons of those that were dropped.
        dropped: String,
    },
    /// The port for HTTP is taken.
    #[error("cannot listen on 127.0.0.1:{port}: {source}; free it or name another with --port")]
    Port {
        /// The port.
        port: u16,
        /// Why not.
        source: std::io::Error,
    },
    /// A Kafka client does not take its settings.
    #[error("function {function} cannot read its topic: {source}")]
    Kafka {
        /// The function.
        function: String,
        /// What the client refuses.
        source: rdkafka::error::KafkaError,
    },
    /// Something of the machine.
    #[error("cannot {what}: {reason}")]
    Machine {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        reason: String,
    },
}

impl Host {
    /// Reads the app, starts its handler and its triggers. What happens from then on is told through
    /// the receiver; after [`Event::Fatal`] the host does nothing more and wants to be stopped.
    ///
    /// # Errors
    /// When the app cannot be read or has no function, the port is taken, or a Kafka client refuses its
    /// settings. A broker that is down and a handler that does not start are no errors here.
    pub async fn start(
        options: HostOptions,
    ) -> Result<(Self, UnboundedReceiver<Event>), HostError> {
        let environment = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let app = App::load(&options.app, environment.chain(options.settings))?;
        if app.functions.is_empty() {
            let reasons = app
                .dropped
                .iter()
                .map(|d| format!(", {}: {}", d.name, d.reason));
            return Err(HostError::NoFunctions {
                app: app.root,
                dropped: reasons.collect(),
            });
        }
        let listener = match options.port {
            None => None,
            Some(port) => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                let bound = tokio::net::TcpListener::bind(address).await;
                Some(bound.map_err(|source| HostError::Port { port, source })?)
            }
        };
        let (events, receiver) = Events::new();
        for dropped in &app.dropped {
            let text = format!(
                "the function {} is in error and left out: {}",
                dropped.name, dropped.reason
            );
            events.log(Level::Error, CATEGORY, text);
        }
        let names: Vec<&str> = app.functions.iter().map(|f| f.name.as_str()).collect();
        events.log(
            Level::Information,
            CATEGORY,
            format!("functions: {}", names.join(", ")),
        );
        let counters = Arc::new(Counters::new(names.iter().copied()));
        let handler = Handler::start(&app, events.clone(), Arc::clone(&counters));
        let handler = handler.map_err(|error| HostError::Machine {
            what: "find a port for the handler",
            reason: error.to_string(),
        })?;
        let invoker = Invoker::new(
            &app,
            handler,
            options.strictness,
            events,
            Arc::clone(&counters),
        );
        let invoker = Arc::new(invoker.map_err(|error| HostError::Machine {
            what: "prepare invocations",
            reason: error.to_string(),
        })?);
        let state = options.state.unwrap_or_else(|| app.root.join(".lapwing"));
        let (mut listeners, mut timers) = (Vec::new(), BTreeMap::new());
        for function in app.functions.iter().filter(|f| !app.is_disabled(&f.name)) {
            let name = function.name.clone();
            match &function.trigger {
                Trigger::Kafka(_) => {
                    let function = Arc::new(function.clone());
                    let started =
                        Listener::start(function, &app.config.kafka, Arc::clone(&invoker));
                    listeners.push(started.map_err(|source| HostError::Kafka {
                        function: name,
                        source,
                    })?);
                }
                Trigger::Timer(trigger) => {
                    let is_past_due = options.past_due.contains(&name);
                    let function = Arc::new(function.clone());
                    let trigger = trigger.clone();
                    let timer =
                        Timer::start(function, trigger, Arc::clone(&invoker), &state, is_past_due);
                    timers.insert(name, timer);
                }
                Trigger::Http(_) => {}
            }
        }
        let (app, timers) = (Arc::new(app), Arc::new(timers));
        let server = listener.map(|listener| {
            Server::start(
                listener,
                Arc::clone(&app),
                Arc::clone(&invoker),
                Arc::clone(&timers),
            )
        });
        let server = server.transpose().map_err(|error| HostError::Machine {
            what: "serve HTTP",
            reason: error.to_string(),
        })?;
        let host = Self {
            app,
            counters,
            invoker,
            listeners,
            timers,
            server,
        };
        Ok((host, receiver))
    }

    /// The app that runs.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Where HTTP requests go, when a port was asked for.
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(|server| server.address)
    }

    /// The handler's process id, when it has answered.
    pub fn handler_pid(&self) -> Option<u32> {
        self.invoker.handler.pid()
    }

    /// Lets a timer's function run now; `false` when there is no such timer.
    pub fn fire(&self, timer: &str) -> bool {
        self.timers.get(timer).map(Timer::fire).is_some()
    }

    /// Stops the triggers, then kills the handler (or sends SIGTERM first, when `politely`) and waits for
    /// its end. What runs is cut off; its messages are delivered again to the next host.
    pub async fn stop(self, politely: bool) {
        drop(self.server);
        for listener in self.listeners {
            listener.stop().await;
        }
        if let Some(timers) = Arc::into_inner(self.timers) {
            for timer in timers.into_values() {
                timer.stop().await;
            }
        }
        self.invoker.handler.stop(politely).await;
    }
}
