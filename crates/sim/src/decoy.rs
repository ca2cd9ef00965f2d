//! Servers that are no Redfish services: what a client meets where it expected a BMC.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::error::Error;
use crate::server::{Tasks, listen_on};
use crate::tls::{CertificateKind, TlsIdentity};

/// A server on a port of 127.0.0.1 that the system chose, on the runtime that it is started in; it ends when dropped.
#[derive(Debug)]
pub struct Decoy {
    address: SocketAddr,
    scheme: &'static str,
    pin: Option<String>,
    requests: Arc<AtomicU64>,
    _tasks: Tasks,
}

type Handler = Arc<dyn Fn(&Request<Incoming>) -> Response<Bytes> + Send + Sync>;

impl Decoy {
    /// Plain HTTP, answering as this function says.
    pub fn http<F>(handler: F) -> Result<Self, Error>
    where
        F: Fn(&Request<Incoming>) -> Response<Bytes> + Send + Sync + 'static,
    {
        let (requests, handler): (_, Handler) = (Arc::new(AtomicU64::new(0)), Arc::new(handler));
        let counter = Arc::clone(&requests);
        Self::accept("http", None, requests, move |stream| {
            let (counter, handler) = (Arc::clone(&counter), Arc::clone(&handler));
            async move { serve_http(stream, &counter, &handler).await }
        })
    }

    /// HTTPS with a self-signed certificate, answering as this function says.
    pub fn https<F>(handler: F) -> Result<Self, Error>
    where
        F: Fn(&Request<Incoming>) -> Response<Bytes> + Send + Sync + 'static,
    {
        let identity =
            TlsIdentity::generate("decoy", &[Ipv4Addr::LOCALHOST.into()], &CertificateKind::SelfSigned)?;
        Self::https_as(&identity, handler)
    }

    /// HTTPS with this identity, answering as this function says.
    pub fn https_as<F>(identity: &TlsIdentity, handler: F) -> Result<Self, Error>
    where
        F: Fn(&Request<Incoming>) -> Response<Bytes> + Send + Sync + 'static,
    {
        let acceptor = TlsAcceptor::from(identity.server_config()?);
        let (requests, handler): (_, Handler) = (Arc::new(AtomicU64::new(0)), Arc::new(handler));
        let counter = Arc::clone(&requests);
        Self::accept("https", Some(identity.pin().to_owned()), requests, move |stream| {
            let (acceptor, counter, handler) = (acceptor.clone(), Arc::clone(&counter), Arc::clone(&handler));
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve_http(stream, &counter, &handler).await;
                }
            }
        })
    }

    /// HTTPS that answers everything with an HTML page: a switch, a printer, a proxy's login.
    pub fn web_page() -> Result<Self, Error> {
        Self::https(|_| html(StatusCode::OK))
    }

    /// Sends these bytes to whoever connects, whatever they say, and closes: no TLS, no HTTP.
    pub fn raw(answer: impl Into<Bytes>) -> Result<Self, Error> {
        let answer = answer.into();
        Self::accept("https", None, Arc::new(AtomicU64::new(0)), move |mut stream| {
            let answer = answer.clone();
            async move {
                // What the client says first is read, so that closing does not reset the answer away; it may well be gone already.
                let mut first = [0; 4096];
                let _ = stream.read(&mut first).await;
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        })
    }

    /// Accepts connections and never says a word on them.
    pub fn silent() -> Result<Self, Error> {
        Self::accept("https", None, Arc::new(AtomicU64::new(0)), |stream| async move {
            std::future::pending::<()>().await;
            drop(stream);
        })
    }

    fn accept<F, C>(
        scheme: &'static str,
        pin: Option<String>,
        requests: Arc<AtomicU64>,
        connection: F,
    ) -> Result<Self, Error>
    where
        F: Fn(TcpStream) -> C + Send + Sync + 'static,
        C: Future<Output = ()> + Send + 'static,
    {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = listen_on(wanted)?;
        let hint = "the system does not tell the port";
        let address =
            listener.local_addr().map_err(|source| Error::Listen { address: wanted, hint, source })?;
        let tasks = Tasks::new();
        let connections = tasks.handle();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream));
            }
        });
        Ok(Self { address, scheme, pin, requests, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The pin of its key, where it has one.
    pub fn pin(&self) -> Option<&str> {
        self.pin.as_deref()
    }

    /// How many HTTP requests it has had.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// An HTML page of this status.
pub fn html(status: StatusCode) -> Response<Bytes> {
    let page = "<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in</h1></body></html>";
    let mut response = Response::new(Bytes::from_static(page.as_bytes()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

async fn serve_http<S>(stream: S, requests: &AtomicU64, handler: &Handler)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| {
        requests.fetch_add(1, Ordering::Relaxed);
        let answer = handler(&request).map(Full::new);
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    // How a client leaves is its own affair.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
