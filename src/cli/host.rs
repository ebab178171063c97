//! `lapwing host`: run a staged app on this machine.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use tokio::sync::mpsc::UnboundedReceiver;

use super::Failure;
use crate::host::event::{Event, Log};
use crate::host::function::{Function, Trigger};
use crate::host::{Host, HostOptions, Strictness};

/// Run a staged app as the Azure Functions host would, as strict as it.
///
/// Reads host.json, every function.json and local.settings.json of the folder (the environment wins),
/// starts the handler, and invokes the functions by their Kafka, timer and HTTP triggers. Ends by Ctrl+C.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The app folder, as `lapwing stage` makes it
    #[arg(long, value_name = "DIR", default_value = ".")]
    app: PathBuf,
    /// Port for HTTP triggers, on loopback
    #[arg(long, value_name = "PORT", default_value_t = 7071)]
    port: u16,
    /// Folder for the timers' last and next runs [default: .lapwing in the app folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Fail what the real host would quietly misread or wait for
    #[arg(long)]
    strict: bool,
    /// Send bodies with a length, as under Core Tools, instead of chunked, as in Azure
    #[arg(long)]
    content_length: bool,
    /// Let this timer run at once, past due; may be repeated
    #[arg(long, value_name = "FUNCTION")]
    past_due: Vec<String>,
    /// Send SIGTERM before the kill when stopping, which the real host does not do
    #[arg(long)]
    sigterm: bool,
    /// End as soon as every message that is there has been executed
    #[arg(long)]
    until_caught_up: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> Result<(), Failure> {
    let options = HostOptions {
        app: args.app,
        settings: Vec::new(),
        port: Some(args.port),
        state: args.state,
        strictness: Strictness {
            strict: args.strict,
            content_length: args.content_length,
        },
        past_due: args.past_due,
    };
    // Listened for before the handler starts: a signal that came earlier would leave it behind.
    let stop = stop_signal()?;
    let (host, mut events) = Host::start(options).await?;
    if let Some(address) = host.address() {
        println!("listening on http://{address}");
    }
    let is_kafka = |function: &&Function| matches!(function.trigger, Trigger::Kafka(_));
    let sources = host.app().functions.iter().filter(is_kafka).count();
    let ended = tokio::select! {
        ended = follow(&mut events, args.until_caught_up.then_some(sources)) => ended,
        () = stop => Ok(()),
    };
    host.stop(args.sigterm).await;
    ended
}

/// Prints the log until something ends the host, or until so many functions have caught up with their
/// topics.
async fn follow(
    events: &mut UnboundedReceiver<Event>,
    until: Option<usize>,
) -> Result<(), Failure> {
    let mut caught_up = BTreeSet::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Log(line) => print(&line)?,
            Event::Batch(batch) => {
                let ends: Vec<String> = batch
                    .next_offsets
                    .iter()
                    .map(|(p, next)| format!("{p}:{next}"))
                    .collect();
                let outcome = if batch.succeeded { "done" } else { "given up" };
                println!(
                    "info Host.Kafka: {} {outcome}: {} messages, up to {}",
                    batch.function,
                    batch.messages,
                    ends.join(" ")
                );
            }
            Event::CaughtUp { function } => {
                println!("info Host.Kafka: {function} has caught up");
                caught_up.insert(function);
                if until.is_some_and(|sources| caught_up.len() >= sources) {
                    return Ok(());
                }
            }
            Event::Fatal(reason) => return Err(format!("the host stops: {reason}").into()),
            Event::HandlerReady { .. } | Event::Invoked(_) => {}
        }
    }
    Ok(())
}

fn print(line: &Log) -> std::io::Result<()> {
    let id = line
        .invocation
        .map(|id| format!(" [{id}]"))
        .unwrap_or_default();
    let (level, category, message) = (line.level, &line.category, &line.message);
    writeln!(std::io::stdout(), "{level} {category}{id}: {message}")
}

/// Ctrl+C, or SIGTERM where there is one; heard from this call on.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        Ok(async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        // Without a way to hear of it there is only the kill.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
