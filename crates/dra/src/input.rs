//! What is known and declared: everything that publishing depends on.

use crate::device::{GpuKey, Verdict};
use domain::declaration::{GpuClassSpec, RackPosition, SiteSpec, Zone};
use domain::inventory::Gpu;
use domain::probe::{Probe, ProbedGpu};
use domain::{Containment, Name, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    /// All enrolled machines, since a GPU may show in two of them. What may go to a cluster is [`crate::Output::of_machines`].
    pub machines: Vec<PublishedMachine>,
    /// Declared GPU classes.
    pub classes: Vec<(Name, GpuClassSpec)>,
    /// GPUs that their node's own probe confirmed.
    pub probed: BTreeSet<GpuKey>,
    /// What its node's driver tells of a GPU. It is believed of those that are `probed` alone.
    pub drivers: BTreeMap<GpuKey, DriverView>,
    /// GPUs that may be given out in parts. All others are given out whole, whatever they could.
    pub partitionable: BTreeSet<GpuKey>,
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
            classes: Vec::new(),
            probed: BTreeSet::new(),
            drivers: BTreeMap::new(),
            partitionable: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            conflicts: BTreeSet::new(),
            server: ServerSupport::default(),
        }
    }
}

/// What a node's driver tells of one GPU: its place in a probe.
#[derive(Clone, Debug)]
pub struct DriverView {
    /// The probe.
    pub probe: Arc<Probe>,
    /// Its place in the list of GPUs.
    pub place: usize,
}

impl DriverView {
    /// The GPU; `None` for a place that the list does not have.
    pub fn gpu(&self) -> Option<&ProbedGpu> {
        self.probe.gpus.get(self.place)
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
}

/// What the API server can do, found by discovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerSupport {
    /// The version in which DeviceTaintRule is served. `None`: not served, so taints go into the slices.
    pub taint_rules: Option<TaintRuleVersion>,
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
