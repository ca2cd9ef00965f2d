//! Stock tonic over hyper on a Unix socket: no generated code, so a service is a match on the method's name.

use super::socket::Socket;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::Stream;
use tonic::Status;
use tonic::body::Body;
use tonic_prost::ProstCodec;

/// How long calls under way may still take when a server stops.
const GRACE: Duration = Duration::from_secs(5);

pub(super) type Answer = BoxFuture<'static, Response<Body>>;

/// What answers the calls on one socket.
pub(super) trait Service: Send + Sync + 'static {
    fn call(self: Arc<Self>, request: Request<Incoming>) -> Answer;
}

/// Answers calls on a socket until it is stopped or dropped.
#[derive(Debug)]
pub(super) struct Server {
    stop: watch::Sender<bool>,
    connections: watch::Receiver<usize>,
    task: JoinHandle<()>,
    socket: Socket,
}

impl Server {
    pub(super) fn start(mut socket: Socket, service: Arc<dyn Service>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (counted, connections) = watch::channel(0);
        let listener = socket.take_listener();
        let task = tokio::spawn(accept(listener, service, stopped, counted));
        Self { stop, connections, task, socket }
    }

    /// How many are connected, now and later.
    pub(super) fn connections(&self) -> watch::Receiver<usize> {
        self.connections.clone()
    }

    pub(super) fn path(&self) -> &Path {
        self.socket.path()
    }

    /// Removes the socket, and lets calls under way end.
    pub(super) async fn stop(mut self) {
        self.socket.remove();
        self.stop.send_replace(true);
        // An error is a panic in there, which has been told already.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: Option<tokio::net::UnixListener>,
    service: Arc<dyn Service>,
    mut stopped: watch::Receiver<bool>,
    counted: watch::Sender<usize>,
) {
    let Some(listener) = listener else { return };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(TokioIo::new(stream), Arc::clone(&service), stopped.clone()));
                }
                // Out of file descriptors, say: others may be given back meanwhile.
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = told(&mut stopped) => break,
        }
        let now = connections.len();
        counted.send_if_modified(|before| std::mem::replace(before, now) != now);
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // The rest is cut off.
    let _ = tokio::time::timeout(GRACE, ended).await;
}

async fn connection(
    stream: TokioIo<tokio::net::UnixStream>,
    service: Arc<dyn Service>,
    mut stopped: watch::Receiver<bool>,
) {
    let handle = hyper::service::service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.call(request).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        // What arrives is a list of at most some hundred claims.
        .max_concurrent_streams(256)
        .serve_connection(stream, handle);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = told(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Seen whenever the kubelet is killed.
        tracing::debug!(%error, "a connection ended");
    }
}

/// Until the server is to stop, or is no more.
async fn told(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// One question, one answer.
pub(super) async fn unary<Q, A, F, Fut>(request: Request<Incoming>, answer: F) -> Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Fn(Q) -> Fut,
    Fut: Future<Output = Result<A, Status>>,
{
    let service = tower::service_fn(|question: tonic::Request<Q>| {
        let answer = answer(question.into_inner());
        async { answer.await.map(tonic::Response::new) }
    });
    tonic::server::Grpc::new(ProstCodec::<A, Q>::default()).unary(service, request).await
}

/// One question, any number of answers.
pub(super) async fn streaming<Q, A, S>(request: Request<Incoming>, answers: S) -> Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    S: Stream<Item = Result<A, Status>> + Send + 'static,
{
    let mut answers = Some(answers);
    let service = tower::service_fn(|_: tonic::Request<Q>| {
        let answers = answers.take().ok_or_else(|| Status::internal("asked twice"));
        async { answers.map(tonic::Response::new) }
    });
    tonic::server::Grpc::new(ProstCodec::<A, Q>::default()).server_streaming(service, request).await
}

/// The answer to a method that is not served.
pub(super) fn unimplemented() -> Response<Body> {
    Status::unimplemented("no such method").into_http()
}
