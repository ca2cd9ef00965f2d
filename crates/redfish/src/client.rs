//! The client of one BMC: connects, logs in, reads with patience, logs out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use domain::inventory::{Diagnostic, Requests};
use http::{HeaderValue, StatusCode, header};
use ipnet::IpNet;
use serde_json::Value;
use tokio::sync::Semaphore;
use url::Url;

use crate::address::Origin;
use crate::budget::LoginBudget;
use crate::error::Error;
use crate::etag::{self, Known};
use crate::guard::{BmcGuard, Pace, Pass};
use crate::limits::{self, Limits};
use crate::message::{Meaning, Messages};
use crate::pin::SpkiPin;
use crate::quirks;
use crate::reader::{ReadError, Reader, Resource};
use crate::retry::{self, RetryPolicy};
use crate::session::{Authentication, Credentials, Identity, Scheme};
use crate::tls::{Peer, Trust, Verifier};
use crate::transport::{Answer, Budget, Failure, Request, Timeouts, Transport};

/// Redirects followed for one request, all of them within the BMC.
const REDIRECTS: usize = 3;

/// Resources in a row that may fail for reasons of the moment, each after all its attempts, before the BMC is given up.
/// Without it, a BMC that stays busy would cost hours: a reading asks for hundreds of resources.
const SETBACKS: u32 = 8;

/// The service root (DSP0266 §6.3).
const ROOT: &str = "/redfish/v1/";

/// Which BMC, and how it proves that it is that one.
#[derive(Clone, Debug)]
pub struct Target {
    /// `https://HOST[:PORT]`; without scheme, `https` is meant.
    pub url: String,
    /// How it proves itself.
    pub trust: Trust,
    /// The networks that a connection may go to; `None` for any.
    pub networks: Option<Vec<IpNet>>,
}

impl Target {
    /// A BMC at any address.
    pub fn new(url: impl Into<String>, trust: Trust) -> Self {
        Self { url: url.into(), trust, networks: None }
    }
}

/// How to deal with the BMC.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who we are; `None` reads what is public.
    pub credentials: Option<Credentials>,
    /// How we log in.
    pub authentication: Authentication,
    /// Failed logins allowed at this BMC; share it among all that log in there. With a `guard`, its budget counts instead.
    pub login_budget: Arc<LoginBudget>,
    /// What is shared among all that talk to this BMC: login budgets, pace, fence.
    pub guard: Option<Arc<BmcGuard>>,
    /// What lets through a fence at this BMC ([`crate::guard::Fence::pass`]).
    pub pass: Option<Pass>,
    /// How long a request waits at a fence before it fails with `bmc.fenced`.
    pub fence_wait: Duration,
    /// How fast this BMC may be asked, where people know better than the table of quirks (quirk 39).
    pub pace: Option<Pace>,
    /// Go on with a session that is good for nothing but changing the password (quirk 4).
    pub limited: bool,
    /// Refusals in a row before credentials that worked are believed wrong (quirk 3).
    pub strikes: u32,
    /// Time-outs by class.
    pub timeouts: Timeouts,
    /// Repetition of requests that failed for the moment.
    pub retry: RetryPolicy,
    /// Sizes.
    pub limits: Limits,
    /// Requests at once to this BMC.
    pub concurrency: usize,
    /// Requests at once to all BMCs together.
    pub shared: Option<Arc<Semaphore>>,
    /// Whether connections are kept for further requests (quirk 1).
    pub pooling: bool,
    /// How long the whole reading may take.
    pub deadline: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credentials: None,
            authentication: Authentication::default(),
            login_budget: Arc::default(),
            guard: None,
            pass: None,
            fence_wait: Duration::from_secs(30),
            pace: None,
            limited: false,
            strikes: 3,
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            limits: Limits::default(),
            concurrency: 4,
            shared: None,
            pooling: true,
            deadline: None,
        }
    }
}

/// A client of one BMC. Clones share the connection, the session and the counters.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) origin: Origin,
    pub(crate) transport: Arc<Transport>,
    pub(crate) identity: Identity,
    pub(crate) authentication: Authentication,
    pub(crate) retry: RetryPolicy,
    /// Where sessions are made, once the service root said so.
    pub(crate) sessions: OnceLock<String>,
    guard: Option<Arc<BmcGuard>>,
    /// Whether a session limited to changing the password will do.
    pub(crate) limited: bool,
    /// The BMC wants the password changed; where the account is, if it said so.
    pub(crate) change_demanded: OnceLock<Option<String>>,
    /// Whether the BMC answered at all; before, nothing is worth waiting for.
    reached: AtomicBool,
    /// Resources in a row that failed for reasons of the moment.
    setbacks: AtomicU32,
    /// What was read while connecting, handed out once.
    pub(crate) ready: Mutex<HashMap<String, Resource>>,
    diagnostics: Mutex<Vec<Diagnostic>>,
}

/// What an attempt leads to.
enum Step {
    Done(Fetched),
    Again,
    Elsewhere(Url),
}

/// What a request brought.
enum Fetched {
    Resource(Resource),
    NotModified,
}

/// How often what went wrong with one request.
#[derive(Default)]
struct Trouble {
    attempts: u32,
    refusals: u32,
    redirects: usize,
    cut: bool,
    fresh: bool,
}

impl Client {
    /// Connects: checks the address, then the certificate, then reads the service root, then logs in. With
    /// [`Trust::FirstUse`] it stops before logging in.
    pub async fn connect(target: Target, options: Options) -> Result<Self, Error> {
        let origin = Origin::parse(&target.url)?;
        let addresses = origin.resolve(target.networks.as_deref()).await?;
        let verifier = Verifier::new(&target.trust)?;
        if let (Some(guard), Some(pace)) = (&options.guard, options.pace) {
            guard.set_pace(pace);
        }
        let budget = Budget {
            timeouts: options.timeouts,
            limits: options.limits,
            concurrency: options.concurrency,
            shared: options.shared,
            pooling: options.pooling,
            deadline: options.deadline.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit))),
            guard: options.guard.clone(),
            pass: options.pass,
            fence_wait: options.fence_wait,
        };
        let credentials = options.credentials.filter(|_| !matches!(target.trust, Trust::FirstUse));
        let login_budget = match (&options.guard, &credentials) {
            (Some(guard), Some(credentials)) => guard.budget(&credentials.username),
            _ => options.login_budget,
        };
        let client = Self {
            inner: Arc::new(Inner {
                transport: Arc::new(Transport::new(&origin, addresses, verifier, budget)?),
                origin,
                identity: Identity::new(credentials, login_budget, options.strikes),
                guard: options.guard,
                limited: options.limited,
                change_demanded: OnceLock::new(),
                authentication: options.authentication,
                retry: options.retry,
                sessions: OnceLock::new(),
                reached: AtomicBool::new(false),
                setbacks: AtomicU32::new(0),
                ready: Mutex::default(),
                diagnostics: Mutex::default(),
            }),
        };
        client.inner.greet().await?;
        client.inner.login().await?;
        Ok(client)
    }

    /// What the BMC showed of itself.
    pub fn peer(&self) -> Option<Peer> {
        self.inner.transport.verifier.peer()
    }

    /// The pin of the key that the BMC showed.
    pub fn peer_pin(&self) -> Option<SpkiPin> {
        self.peer().map(|peer| peer.pin)
    }

    /// Host and port, for people.
    pub fn authority(&self) -> &str {
        self.inner.transport.authority()
    }

    /// Whether the BMC took the credentials: by a session, or by an answer to Basic authentication.
    pub fn is_authenticated(&self) -> bool {
        self.inner.identity.is_proven()
    }

    /// Whether the BMC lets this account do nothing but change its password (with [`Options::limited`]).
    pub fn must_change_password(&self) -> bool {
        self.inner.change_demanded.get().is_some()
    }

    /// The user name that this client logs in with.
    pub fn username(&self) -> Option<&str> {
        self.inner.identity.credentials.as_ref().map(|credentials| credentials.username.as_str())
    }

    /// The login budget of this client's account.
    pub fn login_budget(&self) -> &Arc<LoginBudget> {
        &self.inner.identity.budget
    }

    /// Reads a resource if it is no longer what is known of it; `None` if it is.
    pub async fn get_if_changed(&self, uri: &str, known: &Known) -> Result<Option<Resource>, ReadError> {
        for form in known.etag.as_deref().map(etag::forms).unwrap_or_default() {
            match self.inner.fetch(uri, Some(&form)).await {
                Ok(Fetched::NotModified) => return Ok(None),
                Ok(Fetched::Resource(resource)) => return Ok(known.if_other(resource)),
                // Some BMCs refuse a form of ETag that they gave themselves (quirk 5).
                Err(ReadError::Status { status: 400 | 412 | 428 | 501, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match self.inner.fetch(uri, None).await? {
            Fetched::NotModified => Ok(None),
            Fetched::Resource(resource) => Ok(known.if_other(resource)),
        }
    }

    /// Ends the session. Dropping the last clone does so too, but nobody can wait for that.
    pub async fn close(&self) {
        if let Scheme::Session(session) = &*self.inner.identity.adopt(Scheme::Nobody) {
            crate::login::end_session(&self.inner.transport, &self.inner.origin, session).await;
        }
    }
}

impl Reader for Client {
    async fn get(&self, uri: &str) -> Result<Resource, ReadError> {
        if let Some(resource) = self.inner.take_ready(uri) {
            return Ok(resource);
        }
        // Boxed, because a walk holds the futures of many reads.
        match Box::pin(self.inner.fetch(uri, None)).await? {
            Fetched::Resource(resource) => Ok(resource),
            Fetched::NotModified => {
                Err(ReadError::Status { uri: uri.to_owned(), status: 304, message_id: None })
            }
        }
    }

    fn usage(&self) -> Requests {
        self.inner.transport.usage()
    }

    fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut all = self.inner.transport.verifier.diagnostics();
        all.extend(lock(&self.inner.diagnostics).iter().cloned());
        all
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("authority", &self.authority()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    /// A session not closed would be lost to everybody until it times out: pools are small (quirk 2).
    fn drop(&mut self) {
        let scheme = self.identity.adopt(Scheme::Nobody);
        if let (Scheme::Session(session), Ok(runtime)) = (&*scheme, tokio::runtime::Handle::try_current()) {
            let (transport, origin, session) =
                (Arc::clone(&self.transport), self.origin.clone(), session.clone());
            runtime.spawn(async move { crate::login::end_session(&transport, &origin, &session).await });
        }
    }
}

impl Inner {
    /// Reads the service root without credentials: whatever answers must be a Redfish service first.
    async fn greet(&self) -> Result<(), Error> {
        let outcome = match self.fetch(ROOT, None).await {
            Err(ReadError::NotFound { .. }) => self.fetch(ROOT.trim_end_matches('/'), None).await,
            outcome => outcome,
        };
        match outcome {
            Ok(Fetched::Resource(root)) if is_service_root(&root.body) => {
                self.learn(&root.body);
                self.keep_ready(root);
                Ok(())
            }
            Ok(_) => Err(Error::NotRedfish { reason: "a JSON object that is no service root".to_owned() }),
            // Against DSP0266 §6.3, yet met: the root itself asks for credentials.
            Err(ReadError::Unauthorized { .. } | ReadError::Forbidden { .. }) => Ok(()),
            Err(error) => Err(self.root_error(error)),
        }
    }

    fn root_error(&self, error: ReadError) -> Error {
        let address = self.transport.authority().to_owned();
        match error {
            ReadError::Bmc(error) => error,
            ReadError::Timeout { after, .. } => Error::Timeout { address, after },
            ReadError::ConnectionLost { reason, .. } => Error::Unreachable { address, reason },
            ReadError::Busy { .. } => Error::Busy,
            other => Error::NotRedfish { reason: other.to_string() },
        }
    }

    /// Takes from the service root what logging in needs.
    fn learn(&self, root: &Value) {
        let link =
            |value: Option<&Value>| Some(value?.get("@odata.id")?.as_str()?.trim_end_matches('/').to_owned());
        let direct = link(root.get("Links").and_then(|links| links.get("Sessions")));
        let sessions =
            direct.or_else(|| link(root.get("SessionService")).map(|service| service + "/Sessions"));
        // An empty text: the root was read and offers no sessions.
        let _ = self.sessions.set(sessions.unwrap_or_default());
        if let Some(guard) = &self.guard {
            guard.learn_pace(quirks::profile(root, None).pace);
        }
    }

    pub(crate) fn keep_ready(&self, resource: Resource) {
        lock(&self.ready).insert(resource.uri.trim_end_matches('/').to_owned(), resource);
    }

    fn take_ready(&self, uri: &str) -> Option<Resource> {
        let mut resource = lock(&self.ready).remove(uri.trim_end_matches('/'))?;
        uri.clone_into(&mut resource.uri);
        Some(resource)
    }

    /// A resource read while connecting, if it is still there.
    pub(crate) fn with_root<T>(&self, look: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        lock(&self.ready).get(ROOT.trim_end_matches('/')).and_then(|root| look(&root.body))
    }

    pub(crate) fn note(&self, code: &str, path: &str, message: String) {
        let diagnostic = Diagnostic { code: code.to_owned(), path: path.to_owned(), message };
        tracing::debug!(bmc = self.transport.authority(), code, path, "{}", diagnostic.message);
        lock(&self.diagnostics).push(diagnostic);
    }

    /// Reads one resource, and gives the BMC up when one after the other fails.
    async fn fetch(&self, uri: &str, condition: Option<&HeaderValue>) -> Result<Fetched, ReadError> {
        let outcome = self.fetch_patiently(uri, condition).await;
        let Err(error) = &outcome else {
            self.setbacks.store(0, Ordering::Relaxed);
            return outcome;
        };
        let address = || self.transport.authority().to_owned();
        let verdict = match error {
            ReadError::Busy { .. } => Error::Busy,
            ReadError::Timeout { after, .. } => Error::Timeout { address: address(), after: *after },
            ReadError::ConnectionLost { reason, .. } => {
                Error::Unreachable { address: address(), reason: reason.clone() }
            }
            ReadError::Bmc(_) => return outcome,
            _ => {
                self.setbacks.store(0, Ordering::Relaxed);
                return outcome;
            }
        };
        let setbacks = self.setbacks.fetch_add(1, Ordering::Relaxed) + 1;
        if setbacks >= SETBACKS { Err(verdict.into()) } else { outcome }
    }

    /// Reads one resource with all patience that is due.
    async fn fetch_patiently(
        &self,
        uri: &str,
        condition: Option<&HeaderValue>,
    ) -> Result<Fetched, ReadError> {
        let mut url = self.origin.own(uri)?;
        let mut trouble = Trouble::default();
        loop {
            trouble.attempts += 1;
            let scheme = self.identity.scheme();
            let mut request = Request::get(url.clone());
            self.identity.dress(&mut request, &scheme);
            if let Some(etag) = condition {
                request.headers.insert(header::IF_NONE_MATCH, etag.clone());
            }
            let step = match self.transport.exchange(request, trouble.fresh).await {
                Ok(mut answer) => {
                    self.reached.store(true, Ordering::Relaxed);
                    answer.settle_login().await;
                    self.after_answer(uri, &answer, &scheme, &mut trouble).await?
                }
                Err(failure) => self.after_failure(uri, failure, &mut trouble).await?,
            };
            match step {
                Step::Done(fetched) => return Ok(fetched),
                Step::Again => {}
                Step::Elsewhere(next) => url = next,
            }
        }
    }

    async fn after_failure(
        &self,
        uri: &str,
        failure: Failure,
        trouble: &mut Trouble,
    ) -> Result<Step, ReadError> {
        let uri = || uri.to_owned();
        let left = trouble.attempts < self.retry.attempts;
        match failure {
            Failure::Connect(error @ Error::Unreachable { .. }) => {
                if !left || !self.reached.load(Ordering::Relaxed) {
                    return Err(error.into());
                }
                self.wait(trouble, None).await
            }
            Failure::Connect(error) | Failure::Spent(error) => Err(error.into()),
            Failure::Timeout(after) => Err(ReadError::Timeout { uri: uri(), after }),
            Failure::TooLarge(limit) => Err(ReadError::TooLarge { uri: uri(), limit }),
            Failure::Lost(reason) if !left => Err(ReadError::ConnectionLost { uri: uri(), reason }),
            // A kept connection was closed under us: the request goes again at once, over a fresh one (quirk 1).
            Failure::Lost(_) if !trouble.fresh => {
                trouble.fresh = true;
                Ok(Step::Again)
            }
            Failure::Lost(_) => self.wait(trouble, None).await,
        }
    }

    /// Waits before the next attempt.
    async fn wait(&self, trouble: &Trouble, asked: Option<Duration>) -> Result<Step, ReadError> {
        self.transport.pause(self.retry.wait(trouble.attempts, asked)).await?;
        Ok(Step::Again)
    }

    async fn after_answer(
        &self,
        uri: &str,
        answer: &Answer,
        scheme: &Arc<Scheme>,
        trouble: &mut Trouble,
    ) -> Result<Step, ReadError> {
        match answer.status {
            StatusCode::NOT_MODIFIED => return Ok(Step::Done(Fetched::NotModified)),
            status if status.is_success() => return self.after_success(uri, answer, scheme, trouble).await,
            status if status.is_redirection() => return self.redirected(uri, answer, trouble),
            _ => {}
        }
        let messages = Messages::of_body(&answer.body.bytes);
        self.refused_unless_limited(&messages)?;
        if answer.status == StatusCode::UNAUTHORIZED {
            trouble.refusals += 1;
            self.after_refusal(uri, scheme, trouble.refusals).await?;
            return Ok(Step::Again);
        }
        let (uri, message_id) = (uri.to_owned(), self.shown_id(&messages, None));
        if retry::is_transient(answer.status, &messages) {
            if trouble.attempts < self.retry.attempts {
                let asked = answer.header(&header::RETRY_AFTER);
                return self
                    .wait(trouble, asked.and_then(|v| retry::retry_after(v, SystemTime::now())))
                    .await;
            }
            return Err(ReadError::Busy { uri, message_id });
        }
        Err(match answer.status {
            StatusCode::NOT_FOUND | StatusCode::GONE => ReadError::NotFound { uri },
            StatusCode::FORBIDDEN => ReadError::Forbidden { uri, message_id },
            status => ReadError::Status { uri, status: status.as_u16(), message_id },
        })
    }

    async fn after_success(
        &self,
        uri: &str,
        answer: &Answer,
        scheme: &Scheme,
        trouble: &mut Trouble,
    ) -> Result<Step, ReadError> {
        if !matches!(scheme, Scheme::Nobody) {
            self.identity.accepted();
        }
        match self.resource(uri, answer) {
            Ok(resource) => Ok(Step::Done(Fetched::Resource(resource))),
            Err(ReadError::Truncated { .. }) if !trouble.cut => {
                (trouble.cut, trouble.fresh) = (true, true);
                self.wait(trouble, None).await
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a resource of an answer.
    pub(crate) fn resource(&self, uri: &str, answer: &Answer) -> Result<Resource, ReadError> {
        let decoded = limits::decode(uri, answer.header(&header::CONTENT_TYPE), &answer.body)?;
        if decoded.repaired {
            self.note("redfish.body.not-utf8", uri, "bytes that are not UTF-8 were replaced".to_owned());
        }
        let etag = answer.header(&header::ETAG).and_then(etag::meaningful);
        let etag = etag.or_else(|| decoded.value.get("@odata.etag")?.as_str().and_then(etag::meaningful));
        Ok(Resource { uri: uri.to_owned(), body: decoded.value, etag })
    }

    fn redirected(&self, uri: &str, answer: &Answer, trouble: &mut Trouble) -> Result<Step, ReadError> {
        trouble.redirects += 1;
        if trouble.redirects > REDIRECTS {
            return Err(ReadError::Redirects { uri: uri.to_owned(), limit: REDIRECTS });
        }
        // An answer that asks for patience must not use up the attempts: these are counted by themselves.
        trouble.attempts -= 1;
        let Some(location) = answer.header(&header::LOCATION) else {
            let status = answer.status.as_u16();
            return Err(ReadError::Status { uri: uri.to_owned(), status, message_id: None });
        };
        Ok(Step::Elsewhere(self.origin.own(location)?))
    }
}

impl Known {
    fn if_other(&self, resource: Resource) -> Option<Resource> {
        (etag::digest(&resource.body) != self.digest).then_some(resource)
    }
}

/// Messages that end every attempt, under whatever status they come (quirk 4).
pub(crate) fn refused_for_good(messages: &Messages) -> Result<(), Error> {
    if messages.mean(Meaning::PasswordChangeRequired) {
        return Err(Error::PasswordChangeRequired);
    }
    if messages.mean(Meaning::LockedOut) {
        return Err(Error::LockedOut);
    }
    Ok(())
}

/// Whether a JSON object is a Redfish service root, by what no other service has (links may be missing, quirk 22).
pub(crate) fn is_service_root(body: &Value) -> bool {
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    body.get("RedfishVersion").is_some()
        || text("@odata.type").contains("ServiceRoot")
        || text("@odata.id").trim_end_matches('/') == ROOT.trim_end_matches('/')
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
