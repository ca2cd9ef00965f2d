//! A site: racks of simulated machines behind one listener.

mod file;
mod running;
mod state;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::behaviour::Behaviour;
use crate::error::Error;
use crate::fault::{Fault, glob_matches};
use crate::host::HostOptions;
use crate::model::Model;
use crate::tree::Tree;

pub use running::{RunningSite, SimMachine};

/// A site as described, not yet started.
#[derive(Clone, Debug)]
pub struct Site {
    pub(crate) seed: String,
    pub(crate) state_directory: PathBuf,
    pub(crate) port: Option<u16>,
    pub(crate) one_listener_each: bool,
    pub(crate) base_address: Ipv4Addr,
    pub(crate) page_size: Option<usize>,
    pub(crate) username: String,
    pub(crate) password: Password,
    pub(crate) latency_scale: f64,
    pub(crate) groups: Vec<Group>,
    pub(crate) faults: Vec<SiteFault>,
    /// How hosts boot, where machines are bootable.
    pub(crate) hosts: Option<HostOptions>,
    pub(crate) behaviours: Vec<SiteBehaviour>,
}

/// What some machines of the site do otherwise than their model, or all of them.
#[derive(Clone, Debug)]
pub(crate) struct SiteBehaviour {
    pub(crate) machines: Option<String>,
    /// The words of [`Behaviour`] that change.
    pub(crate) set: serde_json::Value,
    pub(crate) clock_skew: jiff::SignedDuration,
}

/// Where the password of all BMCs of a site comes from.
#[derive(Clone, Debug)]
pub(crate) enum Password {
    /// Generated once and kept in the state directory.
    Generated,
    /// This one; kept in the state directory too, so that there always is a file to point at.
    Given(String),
    /// The content of this file, without the newline at its end.
    File(PathBuf),
}

/// Machines of one kind in one rack.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) rack: String,
    /// What their names begin with; a number follows.
    pub(crate) prefix: String,
    pub(crate) kind: MachineKind,
    pub(crate) count: usize,
    pub(crate) identities: Option<Identities>,
    /// Whether they are bootable; where it is not said, models are and recordings are not.
    pub(crate) bootable: Option<bool>,
}

/// What a machine shows.
#[derive(Clone, Debug)]
pub enum MachineKind {
    /// One of the models.
    Model(Model),
    /// A recording.
    Recording(PathBuf),
    /// A tree of one's own, with a word for it and a behaviour.
    Tree {
        /// What [`SimMachine::model`] says.
        name: String,
        /// What it shows.
        tree: Arc<Tree>,
        /// How it behaves.
        behaviour: Arc<Behaviour>,
    },
}

impl From<Model> for MachineKind {
    fn from(model: Model) -> Self {
        Self::Model(model)
    }
}

/// Whose serial numbers machines of a recording show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identities {
    /// The recorded ones: every machine is the same one.
    Recorded,
    /// Each machine its own, in place of the recorded ones.
    Derived,
}

/// A rule for some machines of the site or, without a glob, one rule shared by all.
#[derive(Clone, Debug)]
pub(crate) struct SiteFault {
    pub(crate) machines: Option<String>,
    pub(crate) fault: Fault,
}

impl Site {
    /// Reads a site file (TOML). Paths in it are relative to it.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        file::read(path.as_ref())
    }

    /// Describes a site in code; its state goes to this directory.
    pub fn builder(state_directory: impl Into<PathBuf>) -> SiteBuilder {
        SiteBuilder {
            site: Self {
                seed: "site".to_owned(),
                state_directory: state_directory.into(),
                port: None,
                one_listener_each: false,
                base_address: DEFAULT_BASE,
                page_size: None,
                username: DEFAULT_USERNAME.to_owned(),
                password: Password::Generated,
                latency_scale: 1.0,
                groups: Vec::new(),
                faults: Vec::new(),
                hosts: None,
                behaviours: Vec::new(),
            },
            rack: "r1".to_owned(),
        }
    }

    /// The rack of the quickstart: `r1-u01` to `r1-u08`, two servers like the DGX H100, three like Dell's, three without GPUs.
    pub fn quickstart_rack(state_directory: impl Into<PathBuf>) -> Self {
        Self::builder(state_directory)
            .seed("quickstart")
            .rack("r1")
            .machines(Model::DgxH100, 2)
            .machines(Model::PowerEdgeXe, 3)
            .machines(Model::CpuNode, 3)
            .build()
    }

    /// How many machines it has.
    pub fn machine_count(&self) -> usize {
        self.groups.iter().map(|group| group.count).sum()
    }

    /// What the machine of this name does otherwise.
    pub(crate) fn changes(&self, machine: &str) -> impl Iterator<Item = &SiteBehaviour> {
        let named = move |glob: &String| glob_matches(glob, machine);
        self.behaviours.iter().filter(move |change| change.machines.as_ref().is_none_or(named))
    }

    /// Whether machines of this group boot.
    pub(crate) fn boots(&self, group: &Group) -> bool {
        let shown_as_recorded = matches!(group.kind, MachineKind::Recording(_));
        self.hosts.is_some() && group.bootable.unwrap_or(!shown_as_recorded)
    }

    /// Starts to serve on the current runtime.
    pub async fn start(self) -> Result<RunningSite, Error> {
        running::start(self).await
    }
}

/// Where addresses start unless the site says otherwise.
pub(crate) const DEFAULT_BASE: Ipv4Addr = Ipv4Addr::new(127, 16, 0, 1);
pub(crate) const DEFAULT_USERNAME: &str = "admin";

/// Describes a [`Site`] in code.
#[derive(Clone, Debug)]
pub struct SiteBuilder {
    site: Site,
    rack: String,
}

impl SiteBuilder {
    /// What serial numbers, UUIDs and MAC addresses derive from, together with machines' names.
    #[must_use]
    pub fn seed(mut self, seed: &str) -> Self {
        seed.clone_into(&mut self.site.seed);
        self
    }

    /// The port of all BMCs. Without it the system chooses one, and the state directory remembers it.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.site.port = Some(port);
        self
    }

    /// One socket for each machine, as where the system does not hold a socket to its loopback device: needs as many file descriptors.
    #[must_use]
    pub fn one_listener_each(mut self) -> Self {
        self.site.one_listener_each = true;
        self
    }

    /// The first machine's address, in 127.0.0.0/8; the others follow it.
    #[must_use]
    pub fn base_address(mut self, address: Ipv4Addr) -> Self {
        self.site.base_address = address;
        self
    }

    /// The page size of collections, in place of the models' own.
    #[must_use]
    pub fn page_size(mut self, size: usize) -> Self {
        self.site.page_size = Some(size);
        self
    }

    /// The account of all BMCs. Without it the name is `admin` and the password generated.
    #[must_use]
    pub fn credentials(mut self, username: &str, password: &str) -> Self {
        username.clone_into(&mut self.site.username);
        self.site.password = Password::Given(password.to_owned());
        self
    }

    /// What latencies of rules and delays of power changes are multiplied by.
    #[must_use]
    pub fn latency_scale(mut self, scale: f64) -> Self {
        self.site.latency_scale = scale;
        self
    }

    /// Makes machines bootable: those of models and trees of one's own; those of recordings only by [`Self::bootable_recordings`].
    #[must_use]
    pub fn bootable(mut self, hosts: HostOptions) -> Self {
        self.site.hosts = Some(hosts);
        self
    }

    /// Makes the machines of recordings that were added so far bootable too: what they show is then no longer all recorded.
    #[must_use]
    pub fn bootable_recordings(mut self) -> Self {
        self.site.groups.iter_mut().for_each(|group| group.bootable = Some(true));
        self
    }

    /// The rack of the machines that follow; they are named `RACK-u01` and so on.
    #[must_use]
    pub fn rack(mut self, name: &str) -> Self {
        name.clone_into(&mut self.rack);
        self
    }

    /// Adds machines of this kind to the rack.
    #[must_use]
    pub fn machines(self, kind: impl Into<MachineKind>, count: usize) -> Self {
        let prefix = format!("{}-u", self.rack);
        self.machines_named(&prefix, kind, count)
    }

    /// Adds machines of this kind to the rack, named by this prefix and a number.
    #[must_use]
    pub fn machines_named(mut self, prefix: &str, kind: impl Into<MachineKind>, count: usize) -> Self {
        self.site.groups.push(Group {
            rack: self.rack.clone(),
            prefix: prefix.to_owned(),
            kind: kind.into(),
            count,
            identities: None,
            bootable: None,
        });
        self
    }

    /// A rule for all machines together.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.site.faults.push(SiteFault { machines: None, fault });
        self
    }

    /// A rule for each machine whose name matches this glob.
    #[must_use]
    pub fn fault_on(mut self, machines: &str, fault: Fault) -> Self {
        self.site.faults.push(SiteFault { machines: Some(machines.to_owned()), fault });
        self
    }

    /// The site.
    #[must_use]
    pub fn build(self) -> Site {
        self.site
    }
}
