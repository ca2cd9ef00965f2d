//! One BMC on one port of 127.0.0.1: the form that tests of clients use.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;

use crate::behaviour::Behaviour;
use crate::bmc::{Bmc, Parts};
use crate::error::Error;
use crate::fault::{Fault, Faults};
use crate::host::{HostOptions, Services};
use crate::seed::Seed;
use crate::server::{Routes, Tasks, listen_on, serve};
use crate::tls::{CertificateKind, TlsIdentity};
use crate::tree::Tree;

/// Describes one BMC.
#[derive(Debug)]
pub struct BmcBuilder {
    tree: Arc<Tree>,
    name: String,
    seed: Seed,
    username: String,
    password: String,
    behaviour: Behaviour,
    certificate: CertificateKind,
    identity: Option<TlsIdentity>,
    faults: Vec<Fault>,
    address: SocketAddr,
    hosts: Option<HostOptions>,
    latency_scale: f64,
}

/// A BMC that serves. It is also a handle to the [`Bmc`]; dropping it ends its connections.
#[derive(Debug)]
pub struct RunningBmc {
    bmc: Arc<Bmc>,
    address: SocketAddr,
    tasks: Tasks,
}

impl Bmc {
    /// Describes a BMC that shows this tree: name `bmc`, user `admin`, password `simulated`, on a port of 127.0.0.1 that the system chooses.
    pub fn builder(tree: impl Into<Arc<Tree>>) -> BmcBuilder {
        BmcBuilder {
            tree: tree.into(),
            name: "bmc".to_owned(),
            seed: Seed::new(&["bmc"]),
            username: "admin".to_owned(),
            password: "simulated".to_owned(),
            behaviour: Behaviour::default(),
            certificate: CertificateKind::default(),
            identity: None,
            faults: Vec::new(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            hosts: None,
            latency_scale: 1.0,
        }
    }
}

impl BmcBuilder {
    /// Its name, also in its certificate.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// What its serials, UUIDs and MAC addresses derive from, where the tree is a model's.
    #[must_use]
    pub fn seed(mut self, seed: Seed) -> Self {
        self.seed = seed;
        self
    }

    /// Its account.
    #[must_use]
    pub fn credentials(mut self, username: &str, password: &str) -> Self {
        username.clone_into(&mut self.username);
        password.clone_into(&mut self.password);
        self
    }

    /// How it behaves.
    #[must_use]
    pub fn behaviour(mut self, behaviour: Behaviour) -> Self {
        self.behaviour = behaviour;
        self
    }

    /// What its generated certificate is like.
    #[must_use]
    pub fn certificate(mut self, kind: CertificateKind) -> Self {
        self.certificate = kind;
        self
    }

    /// A given identity in place of a generated one.
    #[must_use]
    pub fn identity(mut self, identity: TlsIdentity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// A rule that holds from the start.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Where it listens; must be loopback.
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Makes the machine bootable: its tree is shown with what [`Tree::bootable`] adds, and it has a host that boots.
    #[must_use]
    pub fn bootable(mut self, hosts: HostOptions) -> Self {
        self.hosts = Some(hosts);
        self
    }

    /// What latencies of rules, delays of power changes and times of the host are multiplied by; 1 unless given.
    #[must_use]
    pub fn latency_scale(mut self, scale: f64) -> Self {
        self.latency_scale = scale;
        self
    }

    /// Starts to serve on the current runtime.
    // Asynchronous, so that callers are on a runtime and may one day wait for it.
    #[allow(clippy::unused_async)]
    pub async fn start(self) -> Result<RunningBmc, Error> {
        if !self.address.ip().is_loopback() {
            return Err(Error::Site(format!("{} is not a loopback address", self.address.ip())));
        }
        let listener = listen_on(self.address)?;
        let address = listener.local_addr().map_err(|source| Error::Listen {
            address: self.address,
            hint: "the system does not tell the port",
            source,
        })?;
        let addresses: Vec<IpAddr> = vec![address.ip()];
        let identity = match self.identity {
            Some(identity) => identity,
            None => TlsIdentity::generate(&self.name, &addresses, &self.certificate)?,
        };
        let tasks = Tasks::new();
        let hosts =
            self.hosts.map(|hosts| Services::new(hosts, self.latency_scale, tasks.handle())).transpose()?;
        let tree = if hosts.is_some() { Arc::new(self.tree.bootable()) } else { self.tree };
        let bmc = Bmc::new(Parts {
            name: self.name,
            tree,
            seed: self.seed,
            behaviour: Arc::new(self.behaviour),
            username: self.username,
            password: self.password,
            site_faults: Arc::new(Faults::default()),
            latency_scale: self.latency_scale,
            identity,
            addresses,
            store: None,
            hosts,
        });
        for fault in self.faults {
            bmc.add_fault(fault);
        }
        serve(&tasks, listener, Routes::One(Arc::clone(&bmc)));
        Ok(RunningBmc { bmc, address, tasks })
    }
}

impl RunningBmc {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The BMC itself, to keep.
    pub fn handle(&self) -> Arc<Bmc> {
        Arc::clone(&self.bmc)
    }

    /// Ends all connections and waits for that.
    pub async fn shutdown(self) {
        self.tasks.shut_down().await;
    }
}

impl Deref for RunningBmc {
    type Target = Bmc;

    fn deref(&self) -> &Bmc {
        &self.bmc
    }
}
