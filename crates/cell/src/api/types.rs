//! The shapes of the API, shared by the service and its clients.

use domain::agent::{PreparedDevice, ScrubRecord};
use domain::declaration::{BmcSpec, GpuClassSpec, RackPosition, Requirement, Zone};
use domain::gpu_views::SpdmGpu;
use domain::inventory::{Gpu, Inventory};
use domain::plan::Plan;
use domain::probe::{Finding, Probe, ProbedGpu};
use domain::{Declaration, Digest, Kind, MachineState, Name, Problem, Waiting};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::{IntoParams, ToSchema};

use super::schema;

pub use super::firmware::FirmwareCheck;

/// Who serves, and for which jurisdiction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Version of the program.
    pub version: String,
    /// Version of declarations it takes.
    pub api_version: String,
    /// The cell's jurisdiction.
    pub jurisdiction: String,
    /// Identity of the cell, made once with its database.
    pub cell: String,
}

/// A kind and a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectRef {
    /// The kind.
    #[schema(value_type = schema::Kind)]
    pub kind: Kind,
    /// The name.
    #[schema(value_type = String)]
    pub name: Name,
}

/// What a plan is asked for.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanRequest {
    /// Objects as they shall be; objects not named stay as they are.
    #[serde(default)]
    #[schema(value_type = Vec<schema::Declaration>)]
    pub apply: Vec<Declaration>,
    /// Objects that shall go.
    #[serde(default)]
    pub delete: Vec<ObjectRef>,
    /// Contents of each machine's `passwordFile`. Sealed at once and never shown again.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub passwords: BTreeMap<Name, Secret>,
}

/// A secret on its way in: nothing prints it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// The result of applying a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// The plan.
    #[schema(value_type = schema::Plan)]
    pub plan: Plan,
    /// Whether it had been applied before; then nothing was done.
    pub already: bool,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Give this as `after` for the next page; absent on the last.
    #[serde(rename = "continue", default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Paging of list calls.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Paging {
    /// The `continue` of the page before.
    pub after: Option<String>,
    /// Items a page, 1 to 1000; 500 unless told.
    pub limit: Option<u32>,
}

/// A machine in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Its name.
    #[schema(value_type = String)]
    pub name: Name,
    /// Where it stands in its lifecycle.
    #[schema(value_type = schema::MachineState)]
    pub state: MachineState,
    /// Since when.
    #[schema(value_type = String)]
    pub since: Timestamp,
    /// What it waits for; `null` when it does not wait.
    #[schema(value_type = Option<schema::Waiting>)]
    pub waiting: Option<Waiting>,
    /// Its site.
    #[schema(value_type = String)]
    pub site: Name,
    /// The site's jurisdiction.
    #[schema(value_type = String)]
    pub jurisdiction: Name,
    /// Its position.
    #[schema(value_type = Option<schema::RackPosition>)]
    pub rack: Option<RackPosition>,
    /// Its classification, or its site's.
    #[schema(value_type = Option<schema::Zone>)]
    pub zone: Option<Zone>,
    /// Manufacturer, as its BMC says.
    pub manufacturer: Option<String>,
    /// Model, as its BMC says.
    pub model: Option<String>,
    /// Serial number, as its BMC says.
    pub serial: Option<String>,
    /// How many GPUs its BMC lists.
    pub gpus: usize,
    /// The base cluster that it is, or is becoming, a node of.
    #[schema(value_type = Option<String>)]
    pub base_cluster: Option<Name>,
    /// Whether it is draining and no pods are left on it.
    pub drained: bool,
    /// Labels of its declaration.
    pub labels: BTreeMap<String, String>,
}

/// All that is known of one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineDetail {
    /// As in the list.
    #[serde(flatten)]
    pub machine: Machine,
    /// How its BMC is reached. Holds no secret.
    #[schema(value_type = schema::BmcSpec)]
    pub bmc: BmcSpec,
    /// The BMC's pinned key, `sha256:…` of its SPKI.
    pub pin: Option<String>,
    /// What its BMC told last.
    #[schema(value_type = Option<schema::Inventory>)]
    pub inventory: Option<Inventory>,
    /// When that was read.
    #[schema(value_type = Option<String>)]
    pub observed_at: Option<Timestamp>,
    /// The agent on it; `null` where none is enrolled.
    #[serde(default)]
    pub agent: Option<AgentItem>,
    /// How many facts are kept of it.
    pub facts: usize,
}

/// Why a machine, or a GPU of it, is not further than it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// The machine.
    #[schema(value_type = String)]
    pub machine: Name,
    /// Where it stands.
    #[schema(value_type = schema::MachineState)]
    pub state: MachineState,
    /// Since when.
    #[schema(value_type = String)]
    pub since: Timestamp,
    /// What it waits for.
    #[schema(value_type = Option<schema::Waiting>)]
    pub waiting: Option<Waiting>,
    /// Why it goes no further and waits for nothing: nobody here could take its next step.
    #[serde(default)]
    #[schema(value_type = Option<schema::Problem>)]
    pub blocked: Option<Problem>,
    /// Why it was set aside.
    pub reason: Option<String>,
    /// What it is about to do, where it is not where it should be.
    pub doing: Option<String>,
    /// How long that usually takes, in seconds.
    pub usual_seconds: Option<i64>,
    /// What would unblock it, where only people can.
    pub unblock: Option<String>,
    /// What keeps its GPUs from being published or allocated.
    #[schema(value_type = Vec<schema::Problem>)]
    pub gpus: Vec<Problem>,
}

/// The agent on a machine and what it said last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentItem {
    /// When it was enrolled.
    #[schema(value_type = String)]
    pub enrolled_at: Timestamp,
    /// When it reported last.
    #[schema(value_type = Option<String>)]
    pub reported_at: Option<Timestamp>,
    /// Whether it reports in time. What a silent one said counts no more.
    pub alive: bool,
    /// Since when the kubelet has its plugin registered, by its host's clock; `null` while it has not.
    #[schema(value_type = Option<String>)]
    pub registered: Option<Timestamp>,
    /// Its version.
    pub version: Option<String>,
    /// What keeps it from its work, or lets GPUs be had past it.
    #[schema(value_type = Vec<schema::Problem>)]
    pub problems: Vec<Problem>,
    /// Devices that are prepared for claims.
    #[schema(value_type = Vec<schema::PreparedDevice>)]
    pub prepared: Vec<PreparedDevice>,
    /// What the driver told it last.
    #[schema(value_type = Option<schema::Probe>)]
    pub probe: Option<Probe>,
    /// When that came.
    #[schema(value_type = Option<String>)]
    pub probed_at: Option<Timestamp>,
}

/// How far a GPU has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GpuState {
    /// A BMC lists it; nothing else confirms it.
    Inventoried,
    /// The driver on its machine confirms it; no class gives it today.
    Probed,
    /// The driver on its machine confirms it, and a class gives it, or parts of it, today.
    Allocatable,
    /// A claim has it, or a part of it.
    Allocated,
    /// Its views contradict, two machines claim it, or its machine's BMC is not who it was: kept out, whoever has it.
    Conflicting,
    /// It has neither serial nor UUID, so it cannot be told from others: not published.
    Unidentified,
}

/// A GPU in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuItem {
    /// The machine whose BMC lists it.
    #[schema(value_type = String)]
    pub machine: Name,
    /// Its name as a device in that machine's pool; `null` while it is not published.
    pub device: Option<String>,
    /// Its site.
    #[schema(value_type = String)]
    pub site: Name,
    /// Its jurisdiction.
    #[schema(value_type = String)]
    pub jurisdiction: Name,
    /// How far it has come.
    pub state: GpuState,
    /// What its BMC says of it; of one that the BMC does not list, what the driver says.
    #[schema(value_type = schema::Gpu)]
    pub gpu: Gpu,
    /// UUID as the driver writes it; `null` while no driver has told of it.
    pub nvml_uuid: Option<String>,
    /// Its PCI address, as the driver says, or else its BMC.
    pub pci_address: Option<String>,
    /// What is wrong with it, worst first; `null` while no driver has told.
    #[schema(value_type = Option<Vec<schema::GpuFinding>>)]
    pub health: Option<Vec<Finding>>,
    /// Where its views contradict each other.
    #[schema(value_type = Vec<schema::Problem>)]
    pub conflicts: Vec<Problem>,
    /// What an inventoried one waits for. In lists what a firmware profile leaves open is told only where an agent reports.
    #[serde(default)]
    #[schema(value_type = Vec<schema::Problem>)]
    pub waits_for: Vec<Problem>,
    /// Claims that have it, or a part of it, in the cluster.
    pub allocated_to: Vec<Allocation>,
    /// UIDs of the ResourceClaims for which its node has prepared it, or a part of it.
    pub prepared_for: Vec<String>,
    /// Classes a claim could get it by, today.
    pub allocatable_by: Vec<String>,
}

/// A ResourceClaim that has a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// Namespace of the claim.
    pub namespace: String,
    /// Its name.
    pub claim: String,
    /// Its UID.
    pub uid: String,
    /// The device, which may be a part of a GPU.
    pub device: String,
    /// Pods that it is reserved for.
    pub pods: Vec<String>,
}

/// A GPU with what each view says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuDetail {
    /// As in the list.
    #[serde(flatten)]
    pub item: GpuItem,
    /// What its BMC says; `null` where that does not list it.
    #[schema(value_type = Option<schema::Gpu>)]
    pub redfish: Option<Gpu>,
    /// What its own certificate says; `null` where that was not read.
    #[schema(value_type = Option<schema::SpdmGpu>)]
    pub spdm: Option<SpdmGpu>,
    /// What the driver on its machine says; `null` where that does not show it.
    #[schema(value_type = Option<schema::ProbedGpu>)]
    pub nvml: Option<ProbedGpu>,
    /// The last scrubs of it, and of parts of it, oldest first.
    #[schema(value_type = Vec<schema::ScrubRecord>)]
    pub scrubs: Vec<ScrubRecord>,
    /// When the driver was asked.
    #[schema(value_type = Option<String>)]
    pub probed_at: Option<Timestamp>,
}

/// What accepting the GPUs that a machine shows comes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Acceptance {
    /// The machine.
    #[schema(value_type = String)]
    pub machine: Name,
    /// Names exactly this; to be sent back.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// GPUs that are accepted, by all that names them: `serial/…`, `uuid/…`, `certificate/…`.
    pub accepted: Vec<BTreeSet<String>>,
    /// GPUs that were accepted there so far.
    pub forgotten: Vec<BTreeSet<String>>,
    /// What is wrong with the machine's GPUs now. What accepting does not mend stays.
    #[schema(value_type = Vec<schema::Problem>)]
    pub conflicts: Vec<Problem>,
}

impl Acceptance {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.accepted.is_empty() && self.forgotten.is_empty()
    }
}

/// Accepts what was shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AcceptRequest {
    /// The digest that was shown.
    #[schema(value_type = String)]
    pub digest: Digest,
}

/// A GPU class in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClassItem {
    /// Its name, which is the DeviceClass's too.
    #[schema(value_type = String)]
    pub name: Name,
    /// As declared.
    #[schema(value_type = schema::GpuClassSpec)]
    pub spec: GpuClassSpec,
    /// What must be known of a GPU.
    #[schema(value_type = Vec<schema::Requirement>)]
    pub requires: Vec<Requirement>,
    /// Whether it gives GPUs out on a BMC's word alone.
    pub trial: bool,
    /// GPUs of the right jurisdiction, model and zone.
    pub matching: usize,
    /// Of these, how many meet what it requires.
    pub allocatable: usize,
}

/// One entry of the event log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventItem {
    /// Grows by one or more from entry to entry.
    pub id: i64,
    /// When.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// What, such as `machine.enrolled`.
    pub kind: String,
    /// Whom, such as `Machine/r1-u01`.
    pub subject: String,
    /// By whom: a token's name, or `cell`.
    pub actor: String,
    /// More.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

/// Where the events go on from.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct After {
    /// Only events after this id. Absent: from the first on; `latest` for only new ones.
    pub after: Option<String>,
    /// At most so many, 1 to 1000; 500 unless told. Not for watches.
    pub limit: Option<u32>,
}

/// How the last publication to one sink went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Publication {
    /// The sink: `directory …` or `cluster …`.
    pub sink: String,
    /// When it was last brought in line; `null` before the first time.
    #[schema(value_type = Option<String>)]
    pub at: Option<Timestamp>,
    /// Every event up to this id is reflected in what was published.
    pub through: i64,
    /// Objects it holds of ours.
    pub objects: usize,
    /// Of these, written the last time.
    pub written: usize,
    /// Removed the last time.
    pub pruned: usize,
    /// What is left out, and why.
    #[schema(value_type = Vec<schema::Problem>)]
    pub left_out: Vec<Problem>,
    /// Why nothing could be published.
    #[schema(value_type = Option<schema::Problem>)]
    pub problem: Option<Problem>,
}

/// What a token is asked for.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRequest {
    /// Its name; also what events call its holder.
    #[schema(value_type = String)]
    pub name: Name,
    /// `viewer`, `auditor`, `operator` or `admin`.
    #[schema(value_type = String)]
    pub role: domain::principal::Role,
    /// How long it lives; absent: until revoked.
    #[serde(default)]
    pub expires_in_seconds: Option<u64>,
}

/// A new token. This is the only time that it is shown.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewToken {
    /// Its name.
    #[schema(value_type = String)]
    pub name: Name,
    /// The secret.
    #[schema(value_type = String)]
    pub token: Secret,
}

/// What a token for an agent is asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentTokenRequest {
    /// How long it is good for, at most 7 days; absent: an hour.
    #[serde(default)]
    pub expires_in_seconds: Option<u64>,
}

/// A new one-time token for an agent. This is the only time that it is shown.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewAgentToken {
    /// The machine whose agent it lets in.
    #[schema(value_type = String)]
    pub machine: Name,
    /// The secret, with the digest of the key by which the agent knows this cell.
    #[schema(value_type = String)]
    pub token: Secret,
    /// How long it is good for.
    pub expires_in_seconds: u64,
}

/// A token in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenItem {
    /// Its name.
    #[schema(value_type = String)]
    pub name: Name,
    /// What its holder may do.
    #[schema(value_type = String)]
    pub role: domain::principal::Role,
    /// When it was made.
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// When it ends.
    #[schema(value_type = Option<String>)]
    pub expires_at: Option<Timestamp>,
}
