//! One exchange with one BMC: bounded in time, size and number, and nothing repeated. Repeating is `client`'s business.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use domain::inventory::Requests;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use crate::address::Origin;
use crate::budget::{Attempt, LoginBudget};
use crate::error::Error;
use crate::guard::{BmcGuard, Kind, Pass, Turn};
use crate::limits::{Body, Limits};
use crate::tls::{self, Verifier};

/// How long each class of request may take (quirk 30).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the connection stands, TLS included.
    pub connect: Duration,
    /// An ordinary resource.
    pub ordinary: Duration,
    /// What is known to be slow: firmware inventories take three minutes on a DGX H100 with ConnectX-7.
    pub slow: Duration,
    /// Actions and settings.
    pub action: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(10), ordinary: seconds(30), slow: seconds(240), action: seconds(90) }
    }
}

impl Timeouts {
    /// The time-out of a request by its class.
    fn of(&self, method: &Method, url: &Url) -> Duration {
        const SLOW: [&str; 4] = ["/FirmwareInventory", "/SoftwareInventory", "/Bios", "/SPDM"];
        let (path, query) = (url.path(), url.query().unwrap_or_default());
        if SLOW.iter().any(|part| path.contains(part)) || query.contains("expand") {
            self.slow
        } else if *method == Method::GET {
            self.ordinary
        } else {
            self.action
        }
    }
}

/// What one exchange may use.
pub(crate) struct Budget {
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    /// Requests at once to this BMC.
    pub(crate) concurrency: usize,
    /// Requests at once to all BMCs.
    pub(crate) shared: Option<Arc<Semaphore>>,
    /// Whether connections are kept for further requests (quirk 1).
    pub(crate) pooling: bool,
    /// When everything must be over, and how long that was at the start.
    pub(crate) deadline: Option<(Instant, Duration)>,
    /// What is shared with all others that talk to this BMC.
    pub(crate) guard: Option<Arc<BmcGuard>>,
    /// What lets through a fence at this BMC, and how long to wait at one without.
    pub(crate) pass: Option<Pass>,
    pub(crate) fence_wait: Duration,
}

/// One request.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<&'a [u8]>,
    /// The password that goes with it, if one does.
    pub(crate) login: Option<Login<'a>>,
    /// Whether it keeps the distance between commands (quirk 39).
    pub(crate) kind: Kind,
}

/// A password that a request carries, and the budget that bounds how often it may be refused.
#[derive(Clone, Copy)]
pub(crate) struct Login<'a> {
    pub(crate) budget: &'a Arc<LoginBudget>,
    pub(crate) password: &'a str,
}

impl Request<'_> {
    pub(crate) fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: None,
            login: None,
            kind: Kind::Read,
        }
    }
}

/// One answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// The login that the request was, to be told what the answer says about it.
    pub(crate) attempt: Option<Attempt>,
}

impl Answer {
    /// Tells the login budget what the status says: 401 refuses, success accepts, anything else says nothing.
    pub(crate) async fn settle_login(&mut self) {
        let Some(attempt) = self.attempt.take() else { return };
        match self.status {
            StatusCode::UNAUTHORIZED => attempt.refused().await,
            status if status.is_success() => attempt.accepted().await,
            _ => attempt.unsaid().await,
        }
    }

    /// A header as text, unless it is empty.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection: nothing there, or the peer refused. Fatal unless `Unreachable`, which may pass.
    Connect(Error),
    /// No answer in time.
    Timeout(Duration),
    /// The connection was lost before the answer's head came.
    Lost(String),
    /// The body is larger than a body may be.
    TooLarge(u64),
    /// A limit on the whole reading was reached.
    Spent(Error),
}

/// Sends requests to one BMC.
pub(crate) struct Transport {
    http: reqwest::Client,
    /// Without kept connections; built when a kept one was lost (quirk 1).
    fresh: OnceLock<reqwest::Client>,
    recipe: Recipe,
    pub(crate) verifier: Arc<Verifier>,
    authority: String,
    budget: Budget,
    permits: Semaphore,
    started: Instant,
    count: AtomicU64,
    bytes: AtomicU64,
}

/// A place among the requests under way: at this client, at this BMC, at all BMCs.
struct Place<'a> {
    _own: SemaphorePermit<'a>,
    _turn: Option<Turn>,
    _shared: Option<SemaphorePermit<'a>>,
}

/// What a reqwest client is built from.
struct Recipe {
    tls: rustls::ClientConfig,
    host: Option<String>,
    addresses: Vec<SocketAddr>,
    connect: Duration,
}

impl Recipe {
    fn build(&self, pooling: bool) -> Result<reqwest::Client, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        // Compression changes ETags on some BMCs (quirk 5).
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(HeaderName::from_static("odata-version"), HeaderValue::from_static("4.0"));
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .default_headers(headers)
            .user_agent(concat!("bailiwick/", env!("CARGO_PKG_VERSION")))
            .https_only(true)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.connect);
        if let Some(host) = &self.host {
            // The addresses that were checked are the addresses used: no second look-up that could tell others.
            builder = builder.resolve_to_addrs(host, &self.addresses);
        }
        if !pooling {
            builder = builder.pool_max_idle_per_host(0);
        }
        builder.build().map_err(|error| Error::Tls { reason: chain(&error) })
    }
}

impl Transport {
    pub(crate) fn new(
        origin: &Origin,
        addresses: Vec<SocketAddr>,
        verifier: Arc<Verifier>,
        budget: Budget,
    ) -> Result<Self, Error> {
        let recipe = Recipe {
            tls: verifier.config()?,
            host: origin.root().domain().map(ToOwned::to_owned),
            addresses,
            connect: budget.timeouts.connect,
        };
        Ok(Self {
            http: recipe.build(budget.pooling)?,
            fresh: OnceLock::new(),
            recipe,
            verifier,
            authority: origin.authority(),
            permits: Semaphore::new(budget.concurrency.max(1)),
            budget,
            started: Instant::now(),
            count: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    /// What was used until now.
    pub(crate) fn usage(&self) -> Requests {
        Requests {
            count: self.count.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            elapsed_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Host and port, for people.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Waits between attempts, unless the deadline would come first.
    pub(crate) async fn pause(&self, wait: Duration) -> Result<(), Error> {
        if let Some((end, limit)) = self.budget.deadline
            && end.saturating_duration_since(Instant::now()) <= wait
        {
            return Err(Error::Deadline { limit });
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Sends one request once. `fresh` takes a connection of its own.
    pub(crate) async fn exchange(&self, request: Request<'_>, fresh: bool) -> Result<Answer, Failure> {
        let admission = self.admission(&request);
        let (_place, mut attempt) = match self.left()? {
            Some(left) => {
                let waited = tokio::time::timeout(left, admission).await;
                waited.unwrap_or_else(|_| Err(self.too_late()))?
            }
            None => admission.await?,
        };
        let class = self.budget.timeouts.of(&request.method, &request.url);
        let after = self.left()?.map_or(class, |left| class.min(left));
        if let Some(attempt) = &mut attempt {
            attempt.sending();
        }
        let outcome = match tokio::time::timeout(after, self.send(request, fresh)).await {
            Ok(outcome) => outcome,
            Err(_) if after < class => Err(self.too_late()),
            Err(_) => Err(Failure::Timeout(after)),
        };
        match (outcome, attempt) {
            (Ok(answer), attempt) => Ok(Answer { attempt, ..answer }),
            (Err(failure @ Failure::Connect(_)), Some(attempt)) => {
                attempt.unsaid().await;
                Err(failure)
            }
            // The password may have arrived: the attempt ends in doubt.
            (Err(failure), _) => Err(failure),
        }
    }

    /// All that must be had before a request goes out. A place among those to all BMCs comes last: nobody waits holding one.
    async fn admission(&self, request: &Request<'_>) -> Result<(Place<'_>, Option<Attempt>), Failure> {
        let closed = |_| Failure::Lost("the client is shutting down".to_owned());
        let own = self.permits.acquire().await.map_err(closed)?;
        let turn = match &self.budget.guard {
            Some(guard) => {
                let turn = guard.turn(request.kind, self.budget.pass, self.budget.fence_wait).await;
                Some(turn.map_err(Failure::Spent)?)
            }
            None => None,
        };
        let attempt = match request.login {
            Some(login) => {
                Some(login.budget.attempt(login.password).await.map_err(Failure::Spent)?.not_yet())
            }
            None => None,
        };
        let shared = match &self.budget.shared {
            Some(shared) => Some(shared.acquire().await.map_err(closed)?),
            None => None,
        };
        Ok((Place { _own: own, _turn: turn, _shared: shared }, attempt))
    }

    /// Sends a request that must go out though permits or time are used up: the end of a session.
    pub(crate) async fn farewell(&self, request: Request<'_>, fresh: bool) -> Result<Answer, Failure> {
        let after = self.budget.timeouts.connect;
        tokio::time::timeout(after, self.send(request, fresh)).await.unwrap_or(Err(Failure::Timeout(after)))
    }

    /// Time left until the deadline.
    fn left(&self) -> Result<Option<Duration>, Failure> {
        let Some((end, _)) = self.budget.deadline else { return Ok(None) };
        match end.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(self.too_late()),
        }
    }

    fn too_late(&self) -> Failure {
        let limit = self.budget.deadline.map(|(_, limit)| limit).unwrap_or_default();
        Failure::Spent(Error::Deadline { limit })
    }

    fn client(&self, fresh: bool) -> Result<reqwest::Client, Failure> {
        if !fresh || !self.budget.pooling {
            return Ok(self.http.clone());
        }
        if let Some(client) = self.fresh.get() {
            return Ok(client.clone());
        }
        let built = self.recipe.build(false).map_err(Failure::Connect)?;
        Ok(self.fresh.get_or_init(|| built).clone())
    }

    async fn send(&self, request: Request<'_>, fresh: bool) -> Result<Answer, Failure> {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut builder = self.client(fresh)?.request(request.method, request.url).headers(request.headers);
        if let Some(body) = request.body {
            builder = builder.header(header::CONTENT_TYPE, "application/json").body(body.to_vec());
        }
        let response = builder.send().await.map_err(|error| self.failure(&error))?;
        let status = response.status();
        let headers = response.headers().clone();
        let body = self.receive(response).await?;
        Ok(Answer { status, headers, body, attempt: None })
    }

    /// Receives a body piece by piece and stops at the limits: what a BMC sends beyond them is never held.
    async fn receive(&self, mut response: reqwest::Response) -> Result<Body, Failure> {
        let limits = self.budget.limits;
        let announced = response.content_length();
        if announced.is_some_and(|length| length > limits.body) {
            return Err(Failure::TooLarge(limits.body));
        }
        let mut body = Body { announced: announced.is_some(), ..Body::default() };
        let mut gathered: Option<BytesMut> = None;
        loop {
            let piece = match response.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(_) => {
                    body.cut = true;
                    break;
                }
            };
            let so_far = (body.bytes.len() + gathered.as_ref().map_or(0, BytesMut::len) + piece.len()) as u64;
            let total = self.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed) + piece.len() as u64;
            if so_far > limits.body {
                return Err(Failure::TooLarge(limits.body));
            }
            if total > limits.total {
                return Err(Failure::Spent(Error::ReadingTooLarge { limit: limits.total }));
            }
            // Most bodies come in one piece, which is then never copied.
            match &mut gathered {
                None if body.bytes.is_empty() => body.bytes = piece,
                None => {
                    let expected = announced.unwrap_or(so_far * 2).min(limits.body);
                    let mut buffer = BytesMut::with_capacity(usize::try_from(expected).unwrap_or_default());
                    buffer.extend_from_slice(&std::mem::take(&mut body.bytes));
                    buffer.extend_from_slice(&piece);
                    gathered = Some(buffer);
                }
                Some(buffer) => buffer.extend_from_slice(&piece),
            }
        }
        if let Some(buffer) = gathered {
            body.bytes = Bytes::from(buffer);
        }
        Ok(body)
    }

    fn failure(&self, error: &reqwest::Error) -> Failure {
        if let Some(refused) = tls::refusal(error) {
            return Failure::Connect(refused);
        }
        if error.is_connect() {
            let address = self.authority.clone();
            return Failure::Connect(if error.is_timeout() {
                Error::Unreachable { address, reason: format!("no answer within {:?}", self.recipe.connect) }
            } else {
                Error::Unreachable { address, reason: innermost(error) }
            });
        }
        Failure::Lost(innermost(error))
    }
}

/// The last error of a chain: the others repeat the URL.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// All errors of a chain in one line.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quirk_30_slow_resources_have_a_time_out_of_their_own() {
        let timeouts = Timeouts::default();
        let of =
            |method, path: &str| timeouts.of(&method, &Url::parse("https://b").unwrap().join(path).unwrap());
        assert_eq!(of(Method::GET, "/redfish/v1/Systems/1"), timeouts.ordinary);
        assert_eq!(of(Method::GET, "/redfish/v1/UpdateService/FirmwareInventory/HGX"), timeouts.slow);
        assert_eq!(of(Method::GET, "/redfish/v1/Chassis?$expand=.($levels=1)"), timeouts.slow);
        assert_eq!(of(Method::POST, "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset"), timeouts.action);
        assert!(timeouts.slow >= Duration::from_mins(3));
    }
}
