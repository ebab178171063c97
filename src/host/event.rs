//! What a running host tells: log lines, and what happened, for whoever started it.

use std::fmt;
use std::time::Duration;

use tokio::sync::mpsc;
use uuid::Uuid;

/// Something that happened in a running host.
#[derive(Clone, Debug)]
pub enum Event {
    /// A line of the host's log, the handler's own lines included.
    Log(Log),
    /// The handler answered for the first time since it was started, `pid` is its process id.
    HandlerReady {
        /// Its process id.
        pid: u32,
        /// The port that it listens on.
        port: u16,
    },
    /// An invocation ended.
    Invoked(Invoked),
    /// A batch or message of a Kafka trigger was done with, retries included.
    Batch(Batch),
    /// Every message of the partitions that this host holds has been executed: nothing is left for now.
    CaughtUp {
        /// The function.
        function: String,
    },
    /// The host cannot go on. Nothing follows but the end.
    Fatal(String),
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How grave.
    pub level: Level,
    /// Who says it: `Host.…`, `Function.{name}.User`, `Host.Function.Console` for the handler's streams.
    pub category: String,
    /// The line.
    pub message: String,
    /// The invocation that it belongs to, if it does.
    pub invocation: Option<Uuid>,
}

/// How grave a log line is, in the host's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Of interest.
    Information,
    /// Of concern.
    Warning,
    /// Something failed.
    Error,
}

/// An ended invocation.
#[derive(Clone, Debug)]
pub struct Invoked {
    /// The function.
    pub function: String,
    /// Its id, the same for all attempts of a retry policy.
    pub id: Uuid,
    /// Why it failed; `None` when it succeeded.
    pub failure: Option<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Messages that a Kafka trigger is done with.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The function.
    pub function: String,
    /// How many messages.
    pub messages: usize,
    /// Whether they succeeded; when not, they were given up.
    pub succeeded: bool,
    /// The next offset of each partition that was stored for committing.
    pub next_offsets: Vec<(i32, i64)>,
}

/// Where events go. Sending never waits; when nobody listens any more, they go nowhere.
#[derive(Clone, Debug)]
pub(crate) struct Events(mpsc::UnboundedSender<Event>);

impl Events {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    pub(crate) fn send(&self, event: Event) {
        // A listener that went away wants no more events; the host runs on without.
        let _ = self.0.send(event);
    }

    pub(crate) fn log(&self, level: Level, category: &str, message: impl fmt::Display) {
        self.log_of(None, level, category, message);
    }

    pub(crate) fn log_of(
        &self,
        invocation: Option<Uuid>,
        level: Level,
        category: &str,
        message: impl fmt::Display,
    ) {
        self.send(Event::Log(Log {
            level,
            category: category.to_owned(),
            message: message.to_string(),
            invocation,
        }));
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Information => "info",
            Self::Warning => "warn",
            Self::Error => "fail",
        })
    }
}
