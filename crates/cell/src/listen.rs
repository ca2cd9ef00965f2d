//! Taking calls: as many connections at once as there are places, and none that sends its request by the hour.

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections at once; more wait in the system's queue.
const PLACES: usize = 1024;

/// How long the head of a request may take. A connection that is kept alive but not used is ended after it too.
const HEAD: Duration = Duration::from_secs(30);

/// How long a call under way may go on once the cell ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// Time until the next connection is taken after that failed: no file descriptor is left, say.
const PAUSE: Duration = Duration::from_millis(100);

/// How callers come in.
#[derive(Clone)]
pub(crate) enum Door {
    /// By HTTP; a proxy in front may do TLS.
    Plain(Router),
    /// By TLS; calls carry a [`Peer`].
    Mutual(Arc<ServerConfig>, Router),
}

/// The certificate that the caller showed in the handshake; `None` where it showed none.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub Option<CertificateDer<'static>>);

/// Serves until it is cancelled, then lets the calls under way end.
pub(crate) async fn serve(listener: TcpListener, door: Door, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(PLACES));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(place), Ok((stream, _))) => {
                let (door, stop) = (door.clone(), stop.clone());
                connections.spawn(async move {
                    enter(stream, door, stop).await;
                    drop(place);
                });
            }
            (_, Err(error)) => {
                tracing::warn!("a connection could not be taken: {error}");
                tokio::time::sleep(PAUSE).await;
            }
            (Err(_), _) => break,
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn enter(stream: TcpStream, door: Door, stop: CancellationToken) {
    let (config, router) = match door {
        Door::Plain(router) => return converse(stream, router, stop).await,
        Door::Mutual(config, router) => (config, router),
    };
    let handshake = tokio::select! {
        () = stop.cancelled() => return,
        handshake = timeout(HEAD, TlsAcceptor::from(config).accept(stream)) => handshake,
    };
    match handshake {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let peer = Peer(shown.map(|certificate| certificate.clone().into_owned()));
            converse(stream, router.layer(Extension(peer)), stop).await;
        }
        Ok(Err(error)) => tracing::debug!("a handshake failed: {error}"),
        Err(_) => tracing::debug!("a handshake took too long"),
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    stop: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended badly: {error}");
    }
}
