//! What a cell is told when it starts. The command line reads it from file, flags and environment.

use crate::provision::ProvisionerSettings;
use domain::Name;
use domain::agent::CellUrl;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Port of the API unless told otherwise.
pub const DEFAULT_PORT: u16 = 8460;

/// Settings of one cell.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the API listens. Loopback unless told otherwise.
    pub listen: SocketAddr,
    /// Host names, beside the address itself and localhost, by which clients may call the API (guards against DNS rebinding).
    pub hosts: Vec<String>,
    /// Directory of the database, the keys and the first token. Created 0700.
    pub data_dir: PathBuf,
    /// `sqlite:///path` or `postgres://…`; SQLite in the data directory where absent.
    pub database_url: Option<String>,
    /// The cell's jurisdiction: needed the first time, then kept in the database and never changed.
    pub jurisdiction: Option<Name>,
    /// Directory where secrets named by `secretRef` are mounted.
    pub secrets_dir: Option<PathBuf>,
    /// Where objects are published.
    pub sinks: Vec<SinkSettings>,
    /// User name under which the cell writes to clusters; the admission policy lets only this user write.
    pub cluster_user: String,
    /// Provisioning services.
    pub provisioners: Vec<ProvisionerSettings>,
    /// Machines of one site worked on at once, by all replicas together. Each site has its own.
    pub machines_per_site: usize,
    /// How long a replica that says nothing is believed to live: after that, others take over its machines.
    pub lease: Duration,
    /// Requests at once to one BMC.
    pub requests_per_bmc: usize,
    /// Requests at once to all BMCs of one site. Each site has its own.
    pub requests_per_site: usize,
    /// How long an inventory stays fresh.
    pub refresh: Duration,
    /// The listener for agents. `None`: no agents, and so no slices in clusters.
    pub agents: Option<AgentSettings>,
}

/// What the cell does for agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSettings {
    /// Where the cell listens for them, by mutual TLS.
    pub listen: SocketAddr,
    /// Where machines reach it. With it, a machine that the cell provisions is told, and enrols its own agent.
    pub url: Option<CellUrl>,
    /// How often an agent reports while nothing changes. Three intervals of silence end what it is believed.
    pub report_interval: Duration,
    /// How long an agent may hand out devices after its last report. Running pods do not depend on it.
    pub permit_life: Duration,
    /// How long an agent's certificate is valid; it is renewed at two thirds of that.
    pub certificate_life: Duration,
}

impl AgentSettings {
    /// Defaults with an address.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            url: None,
            report_interval: Duration::from_secs(30),
            permit_life: Duration::from_mins(15),
            certificate_life: Duration::from_hours(24),
        }
    }
}

/// A place where objects are published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkSettings {
    /// `declared/` and `observed/` under this directory.
    Directory(PathBuf),
    /// A Kubernetes cluster.
    Cluster {
        /// Path of the kubeconfig; the usual places where absent.
        kubeconfig: Option<PathBuf>,
        /// Context in it; its current one where absent.
        context: Option<String>,
    },
}

impl Settings {
    /// Defaults with a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            hosts: Vec::new(),
            data_dir: data_dir.into(),
            database_url: None,
            jurisdiction: None,
            secrets_dir: None,
            sinks: Vec::new(),
            cluster_user: "bailiwick-cell".to_owned(),
            provisioners: Vec::new(),
            machines_per_site: 64,
            lease: Duration::from_secs(15),
            requests_per_bmc: 4,
            requests_per_site: 128,
            refresh: Duration::from_hours(1),
            agents: None,
        }
    }

    /// The database to open.
    pub(crate) fn database_url(&self) -> String {
        self.database_url
            .clone()
            .unwrap_or_else(|| format!("sqlite://{}", self.data_dir.join("cell.db").display()))
    }

    /// Where the first token is written, mode 0600.
    pub fn admin_token_file(&self) -> PathBuf {
        self.data_dir.join("admin.token")
    }
}
