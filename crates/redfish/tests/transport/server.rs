//! A small BMC for these tests. It behaves well unless a test says otherwise, and can misbehave down to the byte.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redfish::{Client, Credentials, Error, Options, RetryPolicy, SpkiPin, Target, Trust};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub(crate) const USER: &str = "root";
pub(crate) const PASSWORD: &str = "calvin";

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
    /// Which connection it came over, counted from 0.
    pub(crate) connection: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn is(&self, method: &str, target: &str) -> bool {
        self.method == method && self.target == target
    }

    pub(crate) fn has_credentials(&self) -> bool {
        self.headers.contains_key("authorization")
            || self.headers.contains_key("x-auth-token")
            || self.body.contains(PASSWORD)
    }
}

/// What the BMC does with a request.
pub(crate) enum Reply {
    /// A whole answer; the connection stays.
    Whole(Vec<u8>),
    /// These bytes, then the connection is closed.
    Cut(Vec<u8>),
    /// These bytes, then further megabytes of spaces until the client goes away.
    Endless(Vec<u8>),
    /// Nothing until the client goes away.
    Silence,
    /// What it would be otherwise, after a while: a BMC is slow.
    Slow(Duration),
}

impl Reply {
    pub(crate) fn new(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
        text.extend(headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
        Self::Whole(format!("{text}\r\n{body}").into_bytes())
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, &[("Content-Type", "application/json")], &body.to_string())
    }

    pub(crate) fn message(status: u16, message_id: &str) -> Self {
        Self::json(
            status,
            &json!({"error": {"code": "Base.1.8.GeneralError", "message": "Fehler",
                "@Message.ExtendedInfo": [{"MessageId": message_id, "Message": "Bitte Handbuch lesen"}]}}),
        )
    }

    pub(crate) fn html(status: u16) -> Self {
        Self::new(status, &[("Content-Type", "text/html")], "<!DOCTYPE html><html><body>Login</body></html>")
    }
}

/// A BMC that behaves well.
#[derive(Default)]
pub(crate) struct Model {
    /// Open sessions: token to URI.
    pub(crate) sessions: HashMap<String, String>,
    opened: usize,
}

impl Model {
    pub(crate) fn answer(&mut self, seen: &Seen) -> Reply {
        let path = seen.target.split('?').next().unwrap().trim_end_matches('/');
        match (seen.method.as_str(), path) {
            ("GET", "/redfish/v1") => Reply::json(200, &root()),
            ("POST", "/redfish/v1/SessionService/Sessions") => self.open(seen),
            ("DELETE", path) => match self.sessions.iter().find(|(_, uri)| *uri == path) {
                Some((token, _)) => {
                    let token = token.clone();
                    self.sessions.remove(&token);
                    Reply::new(204, &[], "")
                }
                None => Reply::message(404, "Base.1.8.ResourceMissingAtURI"),
            },
            ("GET", _) if !self.admits(seen) => Reply::message(401, "Base.1.8.NoValidSession"),
            ("GET", path) if path.contains("Missing") => Reply::message(404, "Base.1.8.ResourceMissingAtURI"),
            ("GET", path) => Reply::json(200, &json!({"@odata.id": path, "Name": "a resource"})),
            _ => Reply::message(405, "Base.1.8.OperationNotAllowed"),
        }
    }

    fn open(&mut self, seen: &Seen) -> Reply {
        let login: Value = serde_json::from_str(&seen.body).unwrap();
        if login != json!({"UserName": USER, "Password": PASSWORD}) {
            return Reply::message(401, "Base.1.8.ResourceAtUriUnauthorized");
        }
        self.opened += 1;
        let (token, uri) = (
            format!("token-{}", self.opened),
            format!("/redfish/v1/SessionService/Sessions/{}", self.opened),
        );
        self.sessions.insert(token.clone(), uri.clone());
        let headers = [("X-Auth-Token", token.as_str()), ("Location", uri.as_str())];
        Reply::new(201, &headers, &json!({"@odata.id": uri, "Name": "Session"}).to_string())
    }

    fn admits(&self, seen: &Seen) -> bool {
        let basic = "Basic cm9vdDpjYWx2aW4="; // root:calvin
        seen.header("authorization") == Some(basic)
            || seen.header("x-auth-token").is_some_and(|token| self.sessions.contains_key(token))
    }
}

pub(crate) fn root() -> Value {
    json!({
        "@odata.id": "/redfish/v1/", "@odata.type": "#ServiceRoot.v1_11_0.ServiceRoot", "RedfishVersion": "1.11.0",
        "Vendor": "Contoso", "Product": "A BMC", "UUID": "A0A0A0A0-0000-4000-8000-000000000001",
        "Systems": {"@odata.id": "/redfish/v1/Systems"},
        "SessionService": {"@odata.id": "/redfish/v1/SessionService"},
        "Links": {"Sessions": {"@odata.id": "/redfish/v1/SessionService/Sessions"}},
    })
}

/// What a BMC shows: a certificate chain and a key.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    key: Arc<CertifiedKey>,
    pub(crate) pin: SpkiPin,
    pub(crate) pem: String,
}

impl Shown {
    /// A certificate of its own over a new P-256 key.
    pub(crate) fn self_signed(adjust: impl FnOnce(&mut rcgen::CertificateParams)) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params =
            rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        adjust(&mut params);
        let certificate = params.self_signed(&key).unwrap();
        Self::of(certificate.der().clone(), &key, certificate.pem())
    }

    /// A certificate signed by a CA, and the CA's certificate as PEM.
    pub(crate) fn signed_by_ca(adjust: impl FnOnce(&mut rcgen::CertificateParams)) -> (Self, String) {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(ca, &ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params =
            rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        adjust(&mut params);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (Self::of(certificate.der().clone(), &key, certificate.pem()), ca_certificate.pem())
    }

    /// A stored certificate. Its key is not kept, so the handshake is signed with another: that must not be reached.
    pub(crate) fn stored(pem: &str) -> Self {
        use rustls::pki_types::pem::PemObject as _;
        use x509_cert::der::{Decode as _, Encode as _};
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let parsed = x509_cert::Certificate::from_der(&certificate).unwrap();
        let spki = parsed.tbs_certificate().subject_public_key_info().to_der().unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        Self { pin: SpkiPin::of_spki(&spki), ..Self::of(certificate, &other, pem.to_owned()) }
    }

    fn of(certificate: CertificateDer<'static>, key: &rcgen::KeyPair, pem: String) -> Self {
        use rcgen::PublicKeyData as _;
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let signing = rustls::crypto::ring::sign::any_supported_type(&private).unwrap();
        let key_and_chain = Arc::new(CertifiedKey::new(vec![certificate], signing));
        Self { key: key_and_chain, pin: SpkiPin::of_spki(&key.subject_public_key_info()), pem }
    }
}

/// What the BMC shows at present.
#[derive(Debug)]
struct Showing(Mutex<Shown>);

impl ResolvesServerCert for Showing {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.lock().unwrap().key))
    }
}

type Handler = Box<dyn FnMut(&mut Model, &Seen) -> Option<Reply> + Send>;

struct Shared {
    handler: Mutex<(Model, Handler)>,
    log: Mutex<Vec<Seen>>,
    sent: AtomicU64,
    connections: AtomicUsize,
    /// Requests being answered, and the most there ever were.
    busy: AtomicUsize,
    busiest: AtomicUsize,
}

/// A running BMC; stops when dropped.
pub(crate) struct Bmc {
    pub(crate) address: SocketAddr,
    pub(crate) shown: Shown,
    showing: Arc<Showing>,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Bmc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bmc {
    /// A BMC that behaves well.
    pub(crate) async fn good() -> Self {
        Self::start(|_, _| None).await
    }

    /// A BMC that misbehaves where `handler` gives a reply.
    pub(crate) async fn start(
        handler: impl FnMut(&mut Model, &Seen) -> Option<Reply> + Send + 'static,
    ) -> Self {
        Self::start_with(Shown::self_signed(|_| ()), rustls::ALL_VERSIONS, handler).await
    }

    pub(crate) async fn start_with(
        shown: Shown,
        versions: &[&'static rustls::SupportedProtocolVersion],
        handler: impl FnMut(&mut Model, &Seen) -> Option<Reply> + Send + 'static,
    ) -> Self {
        let showing = Arc::new(Showing(Mutex::new(shown.clone())));
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(versions)
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::<Showing>::clone(&showing));
        // Every connection shows the certificate anew.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Mutex::new((Model::default(), Box::new(handler))),
            log: Mutex::default(),
            sent: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            busiest: AtomicUsize::new(0),
        });
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self { address, shown, showing, shared, task }
    }

    /// Shows another certificate from now on.
    pub(crate) fn show(&self, shown: Shown) {
        *self.showing.0.lock().unwrap() = shown;
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The requests until now.
    pub(crate) fn log(&self) -> Vec<Seen> {
        self.shared.log.lock().unwrap().clone()
    }

    /// How many requests came with this method and target.
    pub(crate) fn count(&self, method: &str, target: &str) -> usize {
        self.log().iter().filter(|seen| seen.is(method, target)).count()
    }

    /// Requests that made a login.
    pub(crate) fn logins(&self) -> usize {
        self.count("POST", "/redfish/v1/SessionService/Sessions")
    }

    pub(crate) fn open_sessions(&self) -> usize {
        self.shared.handler.lock().unwrap().0.sessions.len()
    }

    /// The most requests that were being answered at the same time.
    pub(crate) fn busiest(&self) -> usize {
        self.shared.busiest.load(Ordering::SeqCst)
    }

    /// Bytes that the operating system took from this BMC.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    pub(crate) async fn connect(&self) -> Result<Client, Error> {
        self.connect_with(options()).await
    }

    pub(crate) async fn connect_with(&self, options: Options) -> Result<Client, Error> {
        Client::connect(Target::new(self.url(), Trust::Pin(self.shown.pin)), options).await
    }
}

/// An address where nothing listens. Not 127.0.0.1, where another test might be given the same port.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.254.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// The right credentials, and waits that a test does not notice.
pub(crate) fn options() -> Options {
    Options {
        credentials: Some(Credentials::new(USER, PASSWORD)),
        retry: RetryPolicy { attempts: 3, base: Duration::from_millis(1), cap: Duration::from_millis(5) },
        ..Options::default()
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut open = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        open.spawn(async move {
            let number = shared.connections.fetch_add(1, Ordering::SeqCst);
            if let Ok(mut tls) = acceptor.accept(stream).await {
                // Ends when either side closes; nobody waits for how.
                let _ = serve(&mut tls, number, &shared).await;
            }
        });
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    connection: usize,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(seen) = read_request(stream, &mut buffer, connection).await? {
        shared.log.lock().unwrap().push(seen.clone());
        let busy = shared.busy.fetch_add(1, Ordering::SeqCst) + 1;
        shared.busiest.fetch_max(busy, Ordering::SeqCst);
        let mut reply = {
            let (model, handler) = &mut *shared.handler.lock().unwrap();
            handler(model, &seen).unwrap_or_else(|| model.answer(&seen))
        };
        if let Reply::Slow(latency) = reply {
            tokio::time::sleep(latency).await;
            reply = shared.handler.lock().unwrap().0.answer(&seen);
        }
        shared.busy.fetch_sub(1, Ordering::SeqCst);
        match reply {
            Reply::Whole(bytes) => write(stream, &bytes, shared).await?,
            Reply::Cut(bytes) => return write(stream, &bytes, shared).await,
            Reply::Slow(_) | Reply::Silence => {
                while stream.read_buf(&mut buffer).await? > 0 {}
                return Ok(());
            }
            Reply::Endless(start) => {
                write(stream, &start, shared).await?;
                let megabyte = vec![b' '; 1 << 20];
                loop {
                    write(stream, &megabyte, shared).await?;
                }
            }
        }
    }
    Ok(())
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8], shared: &Shared) -> std::io::Result<()> {
    for piece in bytes.chunks(16 << 10) {
        stream.write_all(piece).await?;
        shared.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
    stream.flush().await
}

async fn read_request<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    connection: usize,
) -> std::io::Result<Option<Seen>> {
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = buffer.split_off(end + 4);
            break String::from_utf8(std::mem::replace(buffer, rest)).unwrap();
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let rest = buffer.split_off(length);
    let body = String::from_utf8(std::mem::replace(buffer, rest)).unwrap();
    Ok(Some(Seen { method, target, headers, body, connection }))
}
