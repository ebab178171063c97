//! `lapwing serve`: the custom handler that the Functions host starts, or the REST API by itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tokio::net::TcpListener;

use super::Failure;
use crate::api::{self, ApiOptions, Tls};
use crate::config::{InvalidSetting, Settings};
use crate::handler::{self, Parts};
use crate::judge::Pipeline;
use crate::record::places::Places;
use crate::replay::Replayer;
use crate::store::azure::Account;
use crate::store::{self, Ledger};
use crate::telemetry;

/// Port that the Functions host wants its handler on.
const PORT: &str = "FUNCTIONS_CUSTOMHANDLER_PORT";

/// Serve the Functions host, or the Anomaly Detector REST API by itself with --port
///
/// Without --port this is what `host.json` starts: the host gives the port in
/// FUNCTIONS_CUSTOMHANDLER_PORT and every app setting in the environment. With --port it serves the REST
/// API (and /status, /ready, /swagger, /openapi.json) to its callers, and no invocations.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Serve the REST API on this port; 0: any free one
    #[arg(long)]
    port: Option<u16>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", requires = "port")]
    host: Option<IpAddr>,
    /// Certificate chain for https, as PEM
    #[arg(long, value_name = "FILE", requires = "port", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, as PEM
    #[arg(long, value_name = "FILE", requires = "port", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Settings that win over the environment's, such as Api__Key1=secret
    #[arg(value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    telemetry::start_logging();
    let given = args.settings.iter().cloned();
    let settings = Settings::from_pairs(super::environment().chain(given));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match args.port {
        Some(port) => {
            let host = args.host.unwrap_or(Ipv4Addr::LOCALHOST.into());
            let tls = match (&args.tls_cert, &args.tls_key) {
                (Some(cert), Some(key)) => Some(Tls::from_pem_files(cert, key)?),
                _ => None,
            };
            runtime.block_on(public(SocketAddr::from((host, port)), tls, &settings))
        }
        None => runtime.block_on(functions_host(&settings)),
    }
}

/// Serves the REST API.
async fn public(address: SocketAddr, tls: Option<Tls>, settings: &Settings) -> Result<(), Failure> {
    let options = ApiOptions::from_settings(settings)?;
    if options.keys.is_empty() && !options.allow_anonymous {
        tracing::warn!(
            "No key is set: every call will be refused. Set Api__Key1, or Api__AllowAnonymous=true."
        );
    }
    let router = api::public_router(options)?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; choose another --port"))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    println!("Serving {scheme}://{}/", listener.local_addr()?);
    api::serve_public(listener, router, tls, asked_to_stop()).await;
    Ok(())
}

/// Serves the Functions host.
async fn functions_host(settings: &Settings) -> Result<(), Failure> {
    let port = settings.raw(PORT).ok_or_else(|| {
        format!("{PORT} is not set; the Functions host sets it: run this app by `func start` or `lapwing host --app DIR`, or serve the REST API with --port")
    })?;
    let port: u16 = port
        .parse()
        .map_err(|_| format!("{PORT} is {port:?}, which is no port"))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address).await.map_err(|error| {
        format!("cannot listen on {address}: {error}; is another handler running?")
    })?;
    // Bound first: a probe that comes now waits a moment instead of being refused.
    let options = ApiOptions::from_settings(settings).unwrap_or_else(|error| {
        tracing::error!(%error, "The REST API cannot work; every call of it will be refused.");
        ApiOptions::closed()
    });
    let app = handler::app(parts(settings)).fallback_service(api::public_router(options)?);
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "Handler ready.");
    axum::serve(listener, app)
        .with_graceful_shutdown(asked_to_stop())
        .await?;
    Ok(())
}

fn setting(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected NAME=VALUE".to_owned())
}

/// What the handler works with. Settings that cannot be used become the reason why a function fails: the
/// handler stays up to say it.
fn parts(settings: &Settings) -> Parts {
    let detect = || -> Result<Pipeline, InvalidSetting> {
        let ledger = Ledger::from_settings(store::from_settings(settings)?, settings)?;
        Pipeline::new(settings, ledger, Places::from_settings(settings)?)
    };
    let replay = || -> Result<Replayer, InvalidSetting> {
        let account = Account::from_settings(settings)?;
        let blob = |url: &url::Url| account.as_ref()?.blob(url);
        Replayer::from_settings(settings, store::from_settings(settings)?, blob)
    };
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
