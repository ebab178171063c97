//! The command line: one file per subcommand; this one is their table of contents.

mod deadletters;
mod demo;
mod compare;
mod host;
mod judge;
mod kill_points;
mod replay;
mod serve;
mod stage;
mod state;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry;

/// Real-time anomaly detection on Kafka for Azure Functions.
#[derive(Debug, Parser)]
#[command(name = "lapwing", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(name = "deadletters")]
    DeadLetters(deadletters::DeadLetters),
    Demo(demo::Args),
    Compare(compare::Args),
    Host(host::Args),
    Judge(judge::Judge),
    Replay(replay::Args),
    Serve(serve::Args),
    Stage(stage::Args),
    State(state::Args),
}

/// Why a command stopped: one line for the person who typed it.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command line of this process. Exit status: 0 done, 1 failed (the reason is on stderr), 2
/// wrong usage.
pub fn run() -> ExitCode {
    kill_points::arm();
    let done: Result<(), Failure> = match Cli::parse().command {
        Command::DeadLetters(args) => args.run(),
        Command::Demo(args) => demo::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Host(args) => host::run(args),
        Command::Judge(judge) => judge.run(),
        Command::Replay(args) => replay::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Stage(args) => stage::run(&args),
        Command::State(args) => state::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lapwing: {}", telemetry::one_line(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// The environment of this process; what is no text is left out, as no setting can be.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
}
