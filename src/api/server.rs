//! Serving a router to the public: HTTP/1.1 and HTTP/2, plain or over TLS, with limits on what a
//! connection may cost and a graceful end.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::{self, ServerConfig};

/// Connections served at once; further ones wait in the listener's queue.
const CONNECTIONS: usize = 4096;
/// Longest time for a request's head to arrive, and for a TLS handshake.
const HEAD: Duration = Duration::from_secs(30);
/// Longest time for calls in progress when the server is asked to stop.
const FAREWELL: Duration = Duration::from_secs(30);

/// A certificate and its key.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTls {
    /// A file is missing or holds something else.
    #[error("cannot read {what} in {path}; expected PEM")]
    File {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// The two do not go together.
    #[error("certificate and key cannot be used together")]
    Pair(#[from] rustls::Error),
}

impl Tls {
    /// The certificate chain in the PEM file `cert`, the server's own first, and its private key in the
    /// PEM file `key`.
    pub fn from_pem_files(cert: &Path, key: &Path) -> Result<Self, InvalidTls> {
        let file = |what, path: &Path, source| InvalidTls::File {
            what,
            path: path.to_owned(),
            source,
        };
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .and_then(|chain| {
                if chain.is_empty() {
                    return Err(pem::Error::NoItemsFound);
                }
                Ok(chain)
            })
            .map_err(|source| file("a certificate", cert, source))?;
        let secret = PrivateKeyDer::from_pem_file(key)
            .map_err(|source| file("a private key", key, source))?;
        // Named, not the process's default: another part of the process may have chosen another.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, secret)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Serves `router` on `listener` until `stop` completes; calls in progress are then finished first.
pub async fn serve_public(
    listener: TcpListener,
    router: Router,
    tls: Option<Tls>,
    stop: impl Future<Output = ()>,
) {
    let (stopping, stopped) = watch::channel(false);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut stop = std::pin::pin!(stop);
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.expect("never closed"),
            () = &mut stop => break,
        };
        let stream = tokio::select! {
            stream = listener.accept() => stream,
            () = &mut stop => break,
        };
        let stream = match stream {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: they come back when connections end.
                tracing::warn!(%error, "Cannot accept a connection.");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (router, tls, stopped) = (router.clone(), tls.clone(), stopped.clone());
        tokio::spawn(async move {
            if let Err(error) = connection(stream, router, tls, stopped).await {
                tracing::debug!(%error, "A connection broke.");
            }
            drop(place);
        });
    }
    drop(listener);
    // Fails when no connection is left to hear it, which is as well.
    let _ = stopping.send(true);
    let all_ended = places.acquire_many(CONNECTIONS as u32);
    if tokio::time::timeout(FAREWELL, all_ended).await.is_err() {
        tracing::warn!("Calls were still in progress at the end.");
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    stream: TcpStream,
    router: Router,
    tls: Option<Tls>,
    stopped: watch::Receiver<bool>,
) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    match tls {
        None => requests(stream, router, stopped).await,
        Some(Tls(acceptor)) => {
            let stream = tokio::time::timeout(HEAD, acceptor.accept(stream))
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            let hsts = |mut response: axum::response::Response| async move {
                response.headers_mut().insert(
                    axum::http::header::STRICT_TRANSPORT_SECURITY,
                    axum::http::HeaderValue::from_static("max-age=31536000"),
                );
                response
            };
            let router = router.layer(axum::middleware::map_response(hsts));
            requests(stream, router, stopped).await
        }
    }
}

async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), BoxError> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .keep_alive_interval(HEAD)
        .keep_alive_timeout(HEAD);
    let service = TowerToHyperService::new(router);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        done = connection.as_mut() => return done,
        _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
