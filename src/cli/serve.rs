//! `lapwing serve`: the custom handler that the Functions host starts.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

use super::Failure;
use crate::config::{InvalidSetting, Settings};
use crate::handler::{self, Parts};
use crate::judge::Pipeline;
use crate::record::places::Places;
use crate::replay::Replayer;
use crate::store::{self, Ledger};
use crate::telemetry;

/// Port that the Functions host wants its handler on.
const PORT: &str = "FUNCTIONS_CUSTOMHANDLER_PORT";

/// Serve the Functions host: what `host.json` starts.
///
/// The host gives the port in FUNCTIONS_CUSTOMHANDLER_PORT and every app setting in the environment.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: &Args) -> Result<(), Failure> {
    telemetry::start_logging();
    let settings = Settings::from_env();
    let port = settings.raw(PORT).ok_or_else(|| {
        format!("{PORT} is not set; the Functions host sets it: run this app by `func start` or `lapwing host --app DIR`")
    })?;
    let port: u16 = port
        .parse()
        .map_err(|_| format!("{PORT} is {port:?}, which is no port"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).await.map_err(|error| {
            format!("cannot listen on {address}: {error}; is another handler running?")
        })?;
        // Bound first: a probe that comes now waits a moment instead of being refused.
        let parts = parts(&settings);
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "Handler ready.");
        axum::serve(listener, handler::app(parts))
            .with_graceful_shutdown(asked_to_stop())
            .await?;
        Ok(())
    })
}

/// What the handler works with. Settings that cannot be used become the reason why a function fails: the
/// handler stays up to say it.
fn parts(settings: &Settings) -> Parts {
    let detect = || -> Result<Pipeline, InvalidSetting> {
        let ledger = Ledger::from_settings(store::from_settings(settings)?, settings)?;
        Pipeline::new(settings, ledger, Places::from_settings(settings)?)
    };
    let replay = || Replayer::from_settings(settings, store::from_settings(settings)?, |_| None);
    Parts {
        detect: detect().map_err(|error| error.to_string()),
        replay: replay().map_err(|error| error.to_string()),
        settings: settings.redacted(),
    }
}

/// The polite end, for terminals and containers; the Functions host just kills.
async fn asked_to_stop() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tracing::info!("Asked to stop; finishing what is in progress.");
}
