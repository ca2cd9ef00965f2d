//! A simulated base cluster: as much of a Kubernetes API server as machines that join and leave it need, and the kubelets of
//! the hosts that do. For scale and for faults; what it claims is held against real Kubernetes by the tests of the cell.
//!
//! It keeps objects by their path, knows server-side apply as a merge, bootstrap tokens, certificate requests with their
//! approval, and evictions. It checks tokens as an API server does and knows nobody's rights.

mod http;
mod objects;

pub use objects::JoinOutcome;

use crate::error::Error;
use crate::server::Tasks;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use objects::Objects;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;

/// A running cluster; dropping it ends it. Cheap to clone; the last one ends it.
#[derive(Clone, Debug)]
pub struct Cluster {
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    ca: String,
    objects: Mutex<Objects>,
    away: AtomicBool,
    /// Whether disruption budgets allow no eviction.
    undisturbed: AtomicBool,
    forbidden: AtomicBool,
    approves: AtomicBool,
    requests: AtomicU64,
}

impl Shared {
    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Starts to listen on a port of 127.0.0.1 that the system chooses.
    pub async fn start() -> Result<Self, Error> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listen = |hint| move |source| Error::Listen { address, hint, source };
        let listener =
            TcpListener::bind(address).await.map_err(listen("a free port of loopback is needed"))?;
        let address = listener.local_addr().map_err(listen("the socket has no address"))?;
        let shared = Arc::new(Shared {
            address,
            ca: certificate_authority()?,
            objects: Mutex::default(),
            away: AtomicBool::new(false),
            undisturbed: AtomicBool::new(false),
            forbidden: AtomicBool::new(false),
            approves: AtomicBool::new(false),
            requests: AtomicU64::new(0),
        });
        let tasks = Tasks::new();
        http::serve(&tasks, listener, &shared);
        Ok(Self { shared, _tasks: Arc::new(tasks) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// A kubeconfig for it. Plain HTTP: it is on this machine, and what it guards is made up.
    pub fn kubeconfig(&self) -> String {
        let ca = STANDARD.encode(&self.shared.ca);
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "sim",
            "clusters": [{ "name": "sim", "cluster": {
                "server": format!("http://{}", self.shared.address), "certificate-authority-data": ca,
            } }],
            "users": [{ "name": "sim", "user": {} }],
            "contexts": [{ "name": "sim", "context": { "cluster": "sim", "user": "sim" } }],
        })
        .to_string()
    }

    /// A host boots with this user data: its kubelet asks for a certificate with the token in it, and registers its node when
    /// it has one. While the token is not known, it tries again whenever a token is made.
    pub fn boot(&self, machine: &str, system_uuid: &str, user_data: &str) -> JoinOutcome {
        self.shared.objects().boot(machine, system_uuid, user_data)
    }

    /// A host is switched off: its kubelet says no more.
    pub fn switch_off(&self, machine: &str) {
        self.shared.objects().switch_off(machine);
    }

    /// An object by its path: `/api/v1/nodes/m1`.
    pub fn object(&self, path: &str) -> Option<Value> {
        self.shared.objects().get(path)
    }

    /// The objects of a collection: `/api/v1/nodes`.
    pub fn list(&self, path: &str) -> Vec<Value> {
        self.shared.objects().list(path)
    }

    /// All that it holds, for [`Self::restore`].
    pub fn save(&self) -> Value {
        self.shared.objects().save()
    }

    /// Holds what was saved, and nothing else.
    pub fn restore(&self, saved: &Value) {
        self.shared.objects().restore(saved);
    }

    /// Puts an object there, as somebody else would.
    pub fn put(&self, path: &str, object: Value) {
        self.shared.objects().put(path, object);
    }

    /// Answers everything with 503, or no longer.
    pub fn set_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::Relaxed);
    }

    /// Answers everything with 403, as to a user whose role was taken away, or no longer.
    pub fn set_forbidden(&self, forbidden: bool) {
        self.shared.forbidden.store(forbidden, Ordering::Relaxed);
    }

    /// Lets bootstrap tokens have their certificates approved by the controller, as kubeadm sets it up, or no longer.
    pub fn set_automatic_approval(&self, approves: bool) {
        self.shared.approves.store(approves, Ordering::Relaxed);
    }

    /// Refuses every eviction with 429, as a PodDisruptionBudget that allows none, or no longer.
    pub fn set_undisturbed(&self, undisturbed: bool) {
        self.shared.undisturbed.store(undisturbed, Ordering::Relaxed);
    }

    /// Its clock is put forward by so much. Tokens end by it, requests are dated by it, and answers tell it.
    pub fn put_clock_forward(&self, by: SignedDuration) {
        self.shared.objects().put_clock_forward(by);
    }

    /// How many requests came.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }
}

fn certificate_authority() -> Result<String, Error> {
    let made = || {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Ok::<_, rcgen::Error>(params.self_signed(&key)?.pem())
    };
    made().map_err(|source| Error::Certificate {
        name: "the simulated cluster".to_owned(),
        source: Box::new(source),
    })
}
