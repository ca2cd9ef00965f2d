//! What is known and declared: everything that publishing depends on.

use crate::device::{GpuKey, Verdict};
use domain::base_cluster::GpuDriver;
use domain::declaration::{GpuClassSpec, RackPosition, SiteSpec, Zone};
use domain::inventory::Gpu;
use domain::probe::{Driver, ProbedGpu};
use domain::{Containment, Name, Partitions, Problem};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that [`crate::publish`] depends on.
#[derive(Clone, Debug)]
pub struct Input {
    /// Name of the cell; becomes the owner label.
    pub cell: Name,
    /// The only user who may write our objects, as the API server knows it: `bailiwick-cell`, `system:serviceaccount:bailiwick:cell`.
    pub cell_user: String,
    /// The cell's own jurisdiction; machines outside it are left out (DESIGN §3.1). `None`: the cell declares no border.
    pub home: Option<Name>,
    /// The order of jurisdictions.
    pub jurisdictions: Containment,
    /// Declared sites.
    pub sites: BTreeMap<Name, SiteSpec>,
    /// All enrolled machines, since a GPU may show in two of them.
    pub machines: Vec<PublishedMachine>,
    /// Those of them that a cluster has a verified Node of: the devices of no other go there. `None`: nobody has looked, since what
    /// is published goes to no cluster; then all are shown, and no class names GPUs of another driver.
    pub verified: Option<BTreeSet<Name>>,
    /// Declared GPU classes.
    pub classes: Vec<(Name, GpuClassSpec)>,
    /// GPUs that their node's own probe confirmed, as it saw them.
    pub probed: BTreeMap<GpuKey, ProbedGpu>,
    /// What attestation concluded; a GPU that is not here has no verdict.
    pub verdicts: BTreeMap<GpuKey, Verdict>,
    /// GPUs whose views disagree: kept out. GPUs that two machines show are found here without being named.
    pub conflicts: BTreeSet<GpuKey>,
    /// What the API server can do.
    pub server: ServerSupport,
}

impl Input {
    /// Nothing known and nothing declared: what is published of it are the admission policies alone.
    pub fn new(cell: Name, cell_user: impl Into<String>) -> Self {
        Self {
            cell,
            cell_user: cell_user.into(),
            home: None,
            jurisdictions: Containment::default(),
            sites: BTreeMap::new(),
            machines: Vec::new(),
            verified: None,
            classes: Vec::new(),
            probed: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            conflicts: BTreeSet::new(),
            server: ServerSupport::default(),
        }
    }
}

/// One enrolled machine.
#[derive(Clone, Debug)]
pub struct PublishedMachine {
    /// Its name, which is its Node's and its pool's.
    pub name: Name,
    /// The site it stands in.
    pub site: Name,
    /// Its position.
    pub rack: Option<RackPosition>,
    /// Its classification; the site's where absent.
    pub zone: Option<Zone>,
    /// Its GPUs, as the inventory has them.
    pub gpus: Vec<Gpu>,
    /// What got worse (its BMC's key changed, …): its devices are tainted while this is not empty.
    pub alarms: Vec<Problem>,
    /// Its GPUs' driver, as its probe tells.
    pub driver: Option<Driver>,
    /// Whose DRA driver gives its GPUs out.
    pub gpu_driver: GpuDriver,
    /// What its GPUs may be parted into ([`domain::declaration::MachineSpec::partitions`]).
    pub partitions: Vec<Partitions>,
}

/// What the API server can do, found by discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSupport {
    /// The version in which DeviceTaintRule is served. `None`: not served, so taints go into the slices.
    pub taint_rules: Option<TaintRuleVersion>,
    /// Whether counters are kept (gate DRAPartitionableDevices): without them partitions would be given out beside the whole.
    pub counters: bool,
}

impl Default for ServerSupport {
    /// What Kubernetes 1.36 has by default.
    fn default() -> Self {
        Self { taint_rules: None, counters: true }
    }
}

/// Versions of DeviceTaintRule in `resource.k8s.io`, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaintRuleVersion {
    /// From Kubernetes 1.33, behind a gate.
    V1Alpha3,
    /// Kubernetes 1.36, off by default.
    V1Beta2,
    /// From Kubernetes 1.37.
    V1,
}

impl TaintRuleVersion {
    /// The newest of the versions in which discovery lists `devicetaintrules`.
    pub fn newest<'a>(served: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let known = [Self::V1Alpha3, Self::V1Beta2, Self::V1];
        served.into_iter().filter_map(|text| known.into_iter().find(|v| v.as_str() == text)).max()
    }

    /// As in `apiVersion`, without the group.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1Alpha3 => "v1alpha3",
            Self::V1Beta2 => "v1beta2",
            Self::V1 => "v1",
        }
    }
}
