//! One simulated BMC: its tree, its state, and the handles that tests use.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use bytes::Bytes;
use http::{HeaderMap, Method};
use rustls::ServerConfig;
use serde_json::{Value, json};

use crate::access::Access;
use crate::accounts::Accounts;
use crate::behaviour::Behaviour;
use crate::clock::Clock;
use crate::error::Error;
use crate::fault::{Fault, FaultId, Faults, Plan, merge};
use crate::host::{Hardware, Host, Services};
use crate::media::Media;
use crate::outage::Outage;
use crate::power::{Power, PowerState};
use crate::seed::Seed;
use crate::settings::Settings;
use crate::tls::{CertificateKind, KeyStore, TlsIdentity};
use crate::tree::{Tree, canonical};

/// A simulated BMC. A thousand of them share a tree; what differs is derived from the seed or kept in a small overlay.
#[derive(Debug)]
pub struct Bmc {
    pub(crate) this: Weak<Self>,
    name: String,
    tree: Arc<Tree>,
    seed: Seed,
    behaviour: RwLock<Arc<Behaviour>>,
    pub(crate) access: Access,
    power: Mutex<Power>,
    pub(crate) media: Media,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) outage: Outage,
    /// What the machine boots, where it is bootable.
    pub(crate) host: Option<Host>,
    overlay: RwLock<HashMap<String, Value>>,
    overlaid: AtomicBool,
    /// The rules of this BMC alone.
    pub faults: Faults,
    site_faults: Arc<Faults>,
    latency_scale: f64,
    pub(crate) counting: Counting,
    log: Mutex<Option<Vec<RequestRecord>>>,
    logging: AtomicBool,
    tls: RwLock<Tls>,
    addresses: Vec<IpAddr>,
    store: Option<KeyStore>,
}

#[derive(Debug)]
struct Tls {
    identity: Arc<TlsIdentity>,
    /// Made when the first connection comes.
    config: Option<Arc<ServerConfig>>,
}

/// What a BMC is made of.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) tree: Arc<Tree>,
    pub(crate) seed: Seed,
    pub(crate) behaviour: Arc<Behaviour>,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) site_faults: Arc<Faults>,
    pub(crate) latency_scale: f64,
    pub(crate) identity: TlsIdentity,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) store: Option<KeyStore>,
    /// What its host shares with others; the tree must then be bootable.
    pub(crate) hosts: Option<Arc<Services>>,
}

/// What a BMC has counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// TCP connections accepted.
    pub connections: u64,
    /// Requests of any kind and outcome.
    pub requests: u64,
    /// Those of them that do more than read: logins, logouts, changes.
    pub changes: u64,
    /// Bytes of answer bodies decided on, before truncation.
    pub bytes: u64,
    /// Sessions created.
    pub logins: u64,
    /// Logins refused for a wrong name or password, by Basic or by session.
    pub failed_logins: u64,
    /// Sessions that exist now.
    pub live_sessions: usize,
    /// The greatest number of sessions that existed at once.
    pub peak_sessions: usize,
    /// The greatest number of requests that were being answered at once.
    pub peak_concurrency: u64,
    /// Restarts of the BMC.
    pub restarts: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub(crate) connections: AtomicU64,
    pub(crate) requests: AtomicU64,
    changes: AtomicU64,
    pub(crate) bytes: AtomicU64,
    in_flight: AtomicU64,
    pub(crate) peak: AtomicU64,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// The method.
    pub method: Method,
    /// Path and query as sent.
    pub target: String,
    /// All headers, credentials included: these are simulated.
    pub headers: HeaderMap,
}

/// Counts a request as being answered for as long as it lives.
pub(crate) struct InFlight<'a>(&'a Counting);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counting {
    pub(crate) fn enter(&self) -> InFlight<'_> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
        InFlight(self)
    }
}

impl Bmc {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            access: Access::new(&parts.username, &parts.password, parts.behaviour.accounts),
            name: parts.name,
            tree: parts.tree,
            seed: parts.seed,
            behaviour: RwLock::new(parts.behaviour),
            power: Mutex::default(),
            media: Media::default(),
            settings: Settings::default(),
            outage: Outage::default(),
            clock: Clock::default(),
            host: parts.hosts.map(Host::new),
            overlay: RwLock::default(),
            overlaid: AtomicBool::new(false),
            faults: Faults::default(),
            site_faults: parts.site_faults,
            latency_scale: parts.latency_scale,
            counting: Counting::default(),
            log: Mutex::new(None),
            logging: AtomicBool::new(false),
            tls: RwLock::new(Tls { identity: Arc::new(parts.identity), config: None }),
            addresses: parts.addresses,
            store: parts.store,
        })
    }

    /// Its name in the site.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tree that it shares.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Whose name opens it: that of the account that it was started with.
    pub fn username(&self) -> String {
        self.access.username()
    }

    /// The names of all accounts that may log in.
    pub fn usernames(&self) -> Vec<String> {
        self.access.accounts(|accounts| accounts.usernames())
    }

    /// What opens it.
    pub fn password(&self) -> String {
        self.access.password()
    }

    /// Changes the password, as an operator would at the device; sessions stay.
    pub fn set_password(&self, password: &str) {
        self.access.accounts(|accounts| accounts.set_password(password));
    }

    /// Makes one more account, as an operator would at the device.
    pub fn add_account(&self, username: &str, password: &str) {
        self.access.accounts(|accounts| accounts.add(username, password));
    }

    /// Whether this pair would log in; nothing is counted.
    pub fn opens(&self, username: &str, password: &str) -> bool {
        self.access.accounts(|accounts| accounts.opens(username, password))
    }

    /// Tries this pair as a client does that keeps no session; it is counted.
    pub fn log_in(&self, username: &str, password: &str) -> bool {
        let behaviour = self.behaviour();
        self.access.accounts(|accounts| accounts.log_in(username, password, &behaviour)).is_some()
    }

    /// Forgets failed logins, so that a locked BMC answers again.
    pub fn unlock(&self) {
        self.access.accounts(Accounts::unlock);
    }

    /// How many logins with this name were refused, whatever the password and whether there is such an account.
    pub fn failed_logins(&self, username: &str) -> u64 {
        self.access.accounts(|accounts| accounts.failed(username))
    }

    /// The most logins in a row that any account has refused, since the start: what a lock-out counts.
    pub fn longest_row_of_failed_logins(&self) -> u32 {
        self.access.accounts(|accounts| accounts.longest_row())
    }

    /// Whether the account of this name is locked out now.
    pub fn is_locked_out(&self, username: &str) -> bool {
        let behaviour = self.behaviour();
        self.access.accounts(|accounts| accounts.is_locked(username, &behaviour))
    }

    /// Ends all sessions, as a restart of the BMC does.
    pub fn expire_sessions(&self) {
        self.access.expire_sessions();
    }

    /// The pin of its present key: `sha256:` and hex.
    pub fn pin(&self) -> String {
        self.identity().pin().to_owned()
    }

    /// Its present key and certificate.
    pub fn identity(&self) -> Arc<TlsIdentity> {
        Arc::clone(&self.tls.read().unwrap_or_else(PoisonError::into_inner).identity)
    }

    /// Makes a new key with a self-signed certificate; new connections see it. Returns the new pin.
    pub fn rotate_key(&self) -> Result<String, Error> {
        self.replace_certificate(&CertificateKind::SelfSigned)
    }

    /// Makes a new key with a certificate of this kind; new connections see it. Returns the new pin.
    pub fn replace_certificate(&self, kind: &CertificateKind) -> Result<String, Error> {
        let identity = TlsIdentity::generate(&self.name, &self.addresses, kind)?;
        let pin = identity.pin().to_owned();
        self.replace_identity(identity)?;
        Ok(pin)
    }

    /// Serves this identity from now on to new connections, and keeps it where the site keeps keys.
    pub fn replace_identity(&self, identity: TlsIdentity) -> Result<(), Error> {
        if let Some(store) = &self.store {
            store.keep(&self.name, &identity)?;
        }
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) =
            Tls { identity: Arc::new(identity), config: None };
        Ok(())
    }

    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, Error> {
        if let Some(config) = &self.tls.read().unwrap_or_else(PoisonError::into_inner).config {
            return Ok(Arc::clone(config));
        }
        let mut tls = self.tls.write().unwrap_or_else(PoisonError::into_inner);
        let config = tls.identity.server_config()?;
        tls.config = Some(Arc::clone(&config));
        Ok(config)
    }

    /// How it behaves now.
    pub fn behaviour(&self) -> Arc<Behaviour> {
        Arc::clone(&self.behaviour.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes how it behaves.
    pub fn set_behaviour(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut behaviour = self.behaviour.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut behaviour));
    }

    /// What it has counted.
    pub fn counters(&self) -> Counters {
        let count = &self.counting;
        let access = self.access.counts();
        Counters {
            connections: count.connections.load(Ordering::Relaxed),
            requests: count.requests.load(Ordering::Relaxed),
            changes: count.changes.load(Ordering::Relaxed),
            bytes: count.bytes.load(Ordering::Relaxed),
            logins: access.logins,
            failed_logins: access.failed_logins,
            live_sessions: access.live,
            peak_sessions: access.peak,
            peak_concurrency: count.peak.load(Ordering::Relaxed),
            restarts: self.outage.restarts(),
        }
    }

    /// Starts to keep a record of every request, from none.
    pub fn record_requests(&self) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
        self.logging.store(true, Ordering::Release);
    }

    /// The requests recorded since [`Self::record_requests`].
    pub fn recorded_requests(&self) -> Vec<RequestRecord> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }

    pub(crate) fn record(&self, method: &Method, uri: &http::Uri, headers: &HeaderMap) {
        self.counting.changes.fetch_add(u64::from(!method.is_safe()), Ordering::Relaxed);
        if !self.logging.load(Ordering::Acquire) {
            return;
        }
        if let Some(log) = self.log.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            log.push(RequestRecord {
                method: method.clone(),
                target: uri.to_string(),
                headers: headers.clone(),
            });
        }
    }

    /// Adds a rule for this BMC alone.
    pub fn add_fault(&self, fault: Fault) -> FaultId {
        self.faults.add(fault)
    }

    /// Removes a rule of this BMC alone; false if there was none.
    pub fn remove_fault(&self, fault: FaultId) -> bool {
        self.faults.remove(fault)
    }

    pub(crate) fn plan(&self, method: &Method, path: &str, query: Option<&str>, reused: bool) -> Plan {
        let mut plan = Plan::default();
        self.faults.take(&mut plan, method, path, query, reused);
        self.site_faults.take(&mut plan, method, path, query, reused);
        plan
    }

    /// What waiting times of this BMC are multiplied by.
    pub(crate) fn latency_scale(&self) -> f64 {
        self.latency_scale
    }

    /// Shows this resource in place of the tree's, or adds one.
    pub fn set_resource(&self, path: &str, value: Value) {
        let mut overlay = self.overlay.write().unwrap_or_else(PoisonError::into_inner);
        overlay.insert(canonical(path).to_owned(), value);
        self.overlaid.store(true, Ordering::Release);
    }

    /// Merges this into a resource (RFC 7396); false if there is no such resource.
    pub fn merge_resource(&self, path: &str, patch: &Value) -> bool {
        let key = canonical(path);
        let computed = if self.tree.contains(key) { None } else { self.computed(key) };
        // Held throughout, so that of two changes at once none is lost.
        let mut overlay = self.overlay.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = overlay.get_mut(key) {
            merge(value, patch);
            return true;
        }
        let body = self.tree.resource(key).map(|resource| resource.render(&self.seed, &self.name));
        let recorded = body.and_then(|body| serde_json::from_slice(&body).ok());
        let Some(mut value) = recorded.or(computed) else { return false };
        merge(&mut value, patch);
        overlay.insert(key.to_owned(), value);
        self.overlaid.store(true, Ordering::Release);
        true
    }

    /// A resource as it is shown now, before faults.
    pub fn resource(&self, path: &str) -> Option<Value> {
        serde_json::from_slice(&self.shown(canonical(path))?.0).ok()
    }

    /// What an inspection by Ironic finds in this BMC's machine, in the shape of Ironic's inventory: the hardware that the BMC lists.
    pub fn inspection(&self) -> Value {
        let found = Hardware::read(self).inventory();
        json!({ "inventory": found["inventory"], "plugin_data": {} })
    }

    /// Body and recorded ETag at this key (canonical path, with a page's query).
    pub(crate) fn shown(&self, key: &str) -> Option<(Bytes, Option<&str>)> {
        if let Some(body) = self.overlaid_body(key) {
            return Some((self.with_state(key, body), None));
        }
        if let Some(sessions) = key.strip_prefix(self.tree.sessions_path())
            && let Some(value) = self.access.show_sessions(self.tree.sessions_path(), sessions)
        {
            return Some((Bytes::from(value.to_string()), None));
        }
        if let Some(value) = self.computed(key) {
            return Some((Bytes::from(value.to_string()), None));
        }
        let resource = self.tree.resource(key)?;
        Some((self.with_state(key, resource.render(&self.seed, &self.name)), resource.etag.as_deref()))
    }

    /// A copy: the lock is not held while locks of other state are taken.
    fn overlaid_body(&self, key: &str) -> Option<Bytes> {
        if !self.overlaid.load(Ordering::Acquire) {
            return None;
        }
        let overlay = self.overlay.read().unwrap_or_else(PoisonError::into_inner);
        overlay.get(key).map(|value| Bytes::from(value.to_string()))
    }

    /// The power state of the host system.
    pub fn power_state(&self) -> Option<PowerState> {
        self.power_state_of(&self.tree.host_system()?)
    }

    pub(crate) fn power_state_of(&self, system: &str) -> Option<PowerState> {
        let value = self.resource(system)?;
        PowerState::parse(value.get("PowerState")?.as_str()?)
    }

    pub(crate) fn power_lock(&self) -> MutexGuard<'_, Power> {
        self.power.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
