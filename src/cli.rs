//! The command line: one file per subcommand; this one is their table of contents.

mod judge;
mod stage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Real-time anomaly detection on Kafka for Azure Functions.
#[derive(Debug, Parser)]
#[command(name = "lapwing", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Judge(judge::Judge),
    Stage(stage::Args),
}

/// Why a command stopped: one line for the person who typed it.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command line of this process. Exit status: 0 done, 1 failed (the reason is on stderr), 2
/// wrong usage.
pub fn run() -> ExitCode {
    let done: Result<(), Failure> = match Cli::parse().command {
        Command::Judge(judge) => judge.run(),
        Command::Stage(args) => stage::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lapwing: {}", one_line(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// The environment of this process; what is no text is left out, as no setting can be.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
}

/// An error and its causes on one line; a cause that the text before it already tells is left out.
pub(crate) fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = inner.source();
    }
    line.replace('\n', " ")
}
