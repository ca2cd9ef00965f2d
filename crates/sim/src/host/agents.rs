//! The command API of all agents of a site, behind one listener: `http://127.0.0.1:PORT/MACHINE/v1/commands/`.
//!
//! One listener, because a site may have thousands of machines. A machine whose agent does not run gets no answer.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::commands::{Agent, Refused};
use crate::error::Error;
use crate::server::{Tasks, listen_on};
use crate::tls::{CertificateKind, TlsIdentity};

/// A configdrive comes in the body.
const REQUEST_LIMIT: usize = 128 << 20;
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// The listener and the agents behind it.
#[derive(Debug)]
pub(crate) struct Agents {
    base: String,
    certificate: Option<String>,
    running: Running,
}

type Running = Arc<Mutex<HashMap<String, Arc<Agent>>>>;

fn lock(running: &Running) -> MutexGuard<'_, HashMap<String, Arc<Agent>>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An agent that can be reached for as long as this lives.
#[derive(Debug)]
pub(crate) struct Reachable {
    name: String,
    agent: Arc<Agent>,
    running: Running,
    /// Where Ironic reaches it.
    pub(crate) url: String,
    /// What Ironic must trust for that, in PEM.
    pub(crate) certificate: Option<String>,
}

impl Drop for Reachable {
    fn drop(&mut self) {
        let mut running = lock(&self.running);
        // The next boot of the machine may already have put its own there.
        if running.get(&self.name).is_some_and(|agent| Arc::ptr_eq(agent, &self.agent)) {
            running.remove(&self.name);
        }
    }
}

impl Agents {
    /// Listens on a port of 127.0.0.1 that the system chooses.
    pub(crate) fn start(tasks: &Tasks, tls: bool) -> Result<Self, Error> {
        let listener = listen_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener
            .local_addr()
            .map_err(|error| Error::Site(format!("the listener of the agents has no port: {error}")))?;
        let identity = tls
            .then(|| TlsIdentity::generate("agents", &[address.ip()], &CertificateKind::SelfSigned))
            .transpose()?;
        let acceptor =
            identity.as_ref().map(|identity| identity.server_config().map(TlsAcceptor::from)).transpose()?;
        let running = Running::default();
        serve(tasks, listener, acceptor, Arc::clone(&running));
        let scheme = if tls { "https" } else { "http" };
        let certificate = identity.map(|identity| identity.certificate_pem());
        Ok(Self { base: format!("{scheme}://{address}"), certificate, running })
    }

    /// Makes an agent reachable.
    pub(crate) fn add(&self, name: &str, agent: &Arc<Agent>) -> Reachable {
        lock(&self.running).insert(name.to_owned(), Arc::clone(agent));
        Reachable {
            name: name.to_owned(),
            agent: Arc::clone(agent),
            running: Arc::clone(&self.running),
            url: format!("{}/{name}", self.base),
            certificate: self.certificate.clone(),
        }
    }
}

fn serve(tasks: &Tasks, listener: TcpListener, acceptor: Option<TlsAcceptor>, running: Running) {
    let connections = tasks.handle();
    tasks.spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, mostly: waiting lets connections end.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            connections.spawn(connection(stream, acceptor.clone(), Arc::clone(&running)));
        }
    });
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, running: Running) {
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else { return exchange(stream, running).await };
    if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_LIMIT, acceptor.accept(stream)).await {
        exchange(stream, running).await;
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, running: Running) {
    let service = service_fn(|request| answer(request, Arc::clone(&running)));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to a simulated agent ended");
    }
}

/// There is no agent: the connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the machine runs no agent")]
struct Gone;

async fn answer(request: Request<Incoming>, running: Running) -> Result<Response<Full<Bytes>>, Gone> {
    let path = request.uri().path().to_owned();
    let mut segments = path.trim_matches('/').split('/');
    let name = segments.next().unwrap_or_default();
    let agent = lock(&running).get(name).cloned().ok_or(Gone)?;
    let rest: Vec<&str> = segments.collect();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let parameter = |name: &str| {
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
    };
    let token = parameter("agent_token");
    let outcome = match (request.method(), rest.as_slice()) {
        (&Method::GET, ["v1", "commands"]) => agent.list(token),
        (&Method::GET, ["v1", "commands", id]) => agent.one(id, token),
        (&Method::POST, ["v1", "commands"]) => {
            let wait = parameter("wait") == Some("true");
            match body_of(request).await {
                Some(body) => agent.execute(&body, token, wait).await,
                None => Err((400, "The body is not the JSON that a command is.")),
            }
        }
        (&Method::GET, ["v1", "status"]) => Ok(json!({"started_at": 0, "version": VERSION})),
        _ => Err((404, "There is nothing here.")),
    };
    Ok(respond(outcome))
}

/// The version that the agent claims.
pub(crate) const VERSION: &str = "11.0.0";

async fn body_of(request: Request<Incoming>) -> Option<Value> {
    let body = Limited::new(request.into_body(), REQUEST_LIMIT).collect().await.ok()?.to_bytes();
    serde_json::from_slice(&body).ok().filter(Value::is_object)
}

fn respond(outcome: Result<Value, Refused>) -> Response<Full<Bytes>> {
    let (status, body) = match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err((status, why)) => {
            (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), json!({"faultstring": why}))
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
