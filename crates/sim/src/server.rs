//! Connections: accepting them, telling BMCs apart, TLS, HTTP.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bmc::Bmc;
use crate::error::Error;
use crate::handler::{Abort, Restarts, handle};

/// A client that connects and says nothing does not stay for longer.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(15);
const BACKLOG: i32 = 1024;

/// Which BMC a connection is for.
#[derive(Clone, Debug)]
pub(crate) enum Routes {
    /// One BMC, whatever the address.
    One(Arc<Bmc>),
    /// By the local address of the connection.
    ByAddress(Arc<HashMap<Ipv4Addr, Arc<Bmc>>>),
}

impl Routes {
    fn find(&self, local: IpAddr) -> Option<&Arc<Bmc>> {
        match self {
            Self::One(bmc) => Some(bmc),
            Self::ByAddress(map) => match local {
                IpAddr::V4(address) => map.get(&address),
                IpAddr::V6(_) => None,
            },
        }
    }
}

/// The tasks of a running server; they end when it is dropped.
#[derive(Debug)]
pub(crate) struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { stop: CancellationToken::new(), tracker: TaskTracker::new() }
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = future => {}
            }
        });
    }

    /// Ends all tasks and waits for them.
    pub(crate) async fn shut_down(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// More tasks for the same end; dropping this ends only those that it started.
    pub(crate) fn handle(&self) -> Self {
        Self { stop: self.stop.child_token(), tracker: self.tracker.clone() }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves the routes on this listener until the tasks are dropped.
pub(crate) fn serve(tasks: &Tasks, listener: TcpListener, routes: Routes) {
    let connections = tasks.handle();
    tasks.spawn(async move {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: waiting lets connections end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(local) = stream.local_addr() else { continue };
            // The listener may be bound to every address, held to the loopback device. An address of this machine's other devices still
            // reaches it from this machine; only loopback addresses are BMCs.
            if !local.ip().is_loopback() || !peer.ip().is_loopback() {
                continue;
            }
            let Some(bmc) = routes.find(local.ip()).cloned() else { continue };
            connections.spawn(async move {
                if let Err(error) = connection(bmc, stream).await {
                    tracing::debug!(%error, %peer, "a simulated BMC's connection ended");
                }
            });
        }
    });
}

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(bmc: Arc<Bmc>, stream: TcpStream) -> Result<(), ConnectionError> {
    bmc.counting.connections.fetch_add(1, Ordering::Relaxed);
    stream.set_nodelay(true)?;
    let mut restarts = bmc.outage.watch();
    let reset = Arc::new(AtomicBool::new(bmc.outage.is_on()));
    let socket = Socket { stream, reset: Arc::clone(&reset) };
    if socket.resets() {
        return Ok(());
    }
    let acceptor = TlsAcceptor::from(bmc.server_config()?);
    let stream = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(socket)).await??;
    let requests = AtomicU64::new(0);
    // The connection that asked for a restart still gets its answer.
    let asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        let reused = requests.fetch_add(1, Ordering::Relaxed) > 0;
        let (bmc, reset, asked) = (&bmc, &reset, &asked);
        async move {
            let answer = handle(bmc, request, reused).await;
            match &answer {
                Err(Abort::Reset) => reset.store(true, Ordering::Release),
                Ok(answer) if answer.extensions().get::<Restarts>().is_some() => {
                    asked.store(true, Ordering::Release);
                    bmc.restart();
                }
                _ => {}
            }
            answer
        }
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    loop {
        tokio::select! {
            served = &mut serving => return Ok(served?),
            Ok(()) = restarts.changed() => {
                if !asked.load(Ordering::Acquire) {
                    reset.store(true, Ordering::Release);
                    return Ok(());
                }
            }
        }
    }
}

/// A TCP stream that ends by RST when told so.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Socket {
    fn resets(&self) -> bool {
        self.reset.load(Ordering::Acquire)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.resets() {
            // Closing with a linger time of zero sends RST; a failure here leaves an ordinary close.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if self.resets() {
            // A FIN first would turn the reset into an orderly end.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A listener on one loopback address.
pub(crate) fn listen_on(address: SocketAddr) -> Result<TcpListener, Error> {
    open(address, false).map_err(|source| Error::Listen {
        address,
        hint: "the address must be of this machine and the port free",
        source,
    })
}

/// A listener on all loopback addresses at once, which nothing outside this machine can reach: bound to every address, held to the
/// loopback device.
pub(crate) fn listen_on_loopback(port: u16) -> std::io::Result<TcpListener> {
    open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), true)
}

fn open(address: SocketAddr, loopback_device: bool) -> std::io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    // Connections of the run before may still wait out their time.
    socket.set_reuse_address(true)?;
    if loopback_device {
        hold_to_loopback(&socket)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(target_os = "linux")]
fn hold_to_loopback(socket: &socket2::Socket) -> std::io::Result<()> {
    socket.bind_device(Some(b"lo"))
}

#[cfg(not(target_os = "linux"))]
fn hold_to_loopback(_socket: &socket2::Socket) -> std::io::Result<()> {
    Err(std::io::Error::from(std::io::ErrorKind::Unsupported))
}
