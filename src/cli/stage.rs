//! `lapwing stage`: lay out the folder that a Functions host runs, and check it.

use std::path::PathBuf;

use super::Failure;
use crate::config::Settings;
use crate::stage;

/// Lay out the app folder for `func start`, `lapwing host` and deployment, and check it.
///
/// Writes host.json, a folder for each function, this binary, the sample data, and a
/// local.settings.json if there is none. With KafkaProtocol or KafkaAuthenticationMode in the
/// environment the Kafka trigger gets the security properties.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder; made when it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Only check what is in the folder
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let folder = &args.folder;
    if !args.check {
        let binary = std::env::current_exe()?;
        stage::lay_out(folder, &binary, &Settings::from_env())?;
    }
    let problems = stage::check(folder, super::environment());
    if problems.is_empty() {
        println!(
            "{} is ready: {} functions",
            folder.display(),
            stage::FUNCTIONS.len()
        );
        return Ok(());
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    let count = problems.len();
    Err(format!(
        "{} has {count} problem{}",
        folder.display(),
        if count == 1 { "" } else { "s" }
    )
    .into())
}
