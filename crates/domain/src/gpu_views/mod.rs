//! Three views of every GPU, held against each other: the BMC's (Redfish), the device's own certificate (SPDM), the driver's
//! (NVML). Pure (DESIGN §5.6).
//!
//! A GPU is *probed* when the driver and at least one view from outside the host agree who it is, every view that the model
//! must give is there, and nothing contradicts. Views are joined by UUID, serial number, PCI address and position, in this
//! order; each step joins only what its key names once on either side, so the order of the entries does not matter. Joining by
//! address or position proves nothing: it finds what to compare.

mod accepted;
mod certificates;
mod compare;
mod gaps;
mod join;
#[cfg(test)]
mod tests;

pub use accepted::{Accepted, AcceptedGpu};
pub use certificates::certificates;
pub use gaps::Gap;

use crate::firmware::{GpuViews, View as Given};
use crate::inventory::Gpu;
use crate::name::{Digest, Name};
use crate::probe::ProbedGpu;
use crate::problem::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of the GPUs of one machine.
#[derive(Clone, Copy, Debug)]
pub struct MachineViews<'a> {
    /// The machine.
    pub machine: &'a Name,
    /// Which views its model gives, by its firmware profile; `None` for a model that none says anything of: no GPU of it is ever
    /// probed.
    pub given: Option<GpuViews>,
    /// What its BMC shows; `None` where that was not read.
    pub redfish: Option<&'a [Gpu]>,
    /// Certificates of its GPUs; `None` where they were not read.
    pub spdm: Option<&'a [SpdmGpu]>,
    /// What its driver shows; `None` where its agent has not reported.
    pub nvml: Option<&'a [ProbedGpu]>,
}

/// What a certificate says of a GPU: who its subject is, and what it protects. It is the GPU's own, or that of a root of trust
/// beside it, whose serial number is another one. Whether the chain is to be believed is the work of attestation.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpdmGpu {
    /// Redfish path of what it certifies (`TargetComponentURI`).
    pub component: String,
    /// Redfish paths of what that protects.
    #[serde(default)]
    pub protects: Vec<String>,
    /// Common name of the subject.
    #[serde(default)]
    pub subject: Option<String>,
    /// Serial number in the subject.
    pub serial: Option<String>,
    /// UUID in the subject.
    pub uuid: Option<String>,
    /// Digest of the certificate; `null` where its chain cannot be read.
    #[serde(default)]
    pub sha256: Option<Digest>,
}

/// One of the three views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum View {
    /// The BMC's.
    Redfish,
    /// The device's own certificate.
    Spdm,
    /// The driver's.
    Nvml,
}

/// One GPU of one machine, as all views together show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReconciledGpu {
    /// The machine.
    pub machine: Name,
    /// How far it is believed.
    pub state: GpuState,
    /// What the BMC shows.
    pub redfish: Option<Gpu>,
    /// What its certificate says.
    pub spdm: Option<SpdmGpu>,
    /// What the driver shows.
    pub nvml: Option<ProbedGpu>,
    /// Where they contradict, or one is missing; sorted.
    pub conflicts: Vec<Conflict>,
}

/// How far a GPU is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum GpuState {
    /// Known from outside; its driver, or another view that its model gives, has not been asked yet.
    Inventoried,
    /// All views that its model gives agree.
    Probed,
    /// Views contradict, or one that must be there is not.
    Conflicting,
}

/// What one view says where another says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Said {
    /// The view.
    pub view: View,
    /// What it says.
    pub value: String,
}

/// Why a GPU is kept out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Conflict {
    /// A view that its model gives does not show it.
    Missing {
        /// The view.
        view: View,
    },
    /// This view shows it, and none from outside the host does.
    Unexpected {
        /// The view.
        view: View,
    },
    /// This view shows it, but not who it is, so it confirms nothing.
    Unidentified {
        /// The view.
        view: View,
    },
    /// Several entries of one view say that they are it.
    Repeated {
        /// The view.
        view: View,
    },
    /// The views tell different serial numbers.
    SerialDiffers {
        /// What each says.
        said: Vec<Said>,
    },
    /// The views tell different UUIDs, where they speak of the same kind of UUID.
    UuidDiffers {
        /// What each says.
        said: Vec<Said>,
    },
    /// The views tell different PCI addresses.
    AddressDiffers {
        /// What each says.
        said: Vec<Said>,
    },
    /// The views tell different models.
    ModelDiffers {
        /// What each says.
        said: Vec<Said>,
    },
    /// The certificate that names it is, as its BMC has it, for another part of the machine.
    PathDiffers {
        /// What each says.
        said: Vec<Said>,
    },
    /// This view has a certificate of it that cannot be read.
    Unreadable {
        /// The view.
        view: View,
    },
    /// Another machine shows it too, or is where it was accepted.
    Moved {
        /// The other machine.
        machine: Name,
    },
    /// It has another serial number, UUID or certificate than when it was accepted, by the views from outside its host.
    Changed {
        /// The identities of that kind that were accepted.
        accepted: BTreeSet<String>,
        /// Those that it has.
        found: BTreeSet<String>,
    },
    /// It was not accepted in its machine, and one that was is not there any more.
    Replaced {
        /// By what the missing ones were accepted.
        missing: BTreeSet<String>,
    },
}

/// Joins and compares the views of all machines. Sorted by machine, then identity.
pub fn reconcile(machines: &[MachineViews<'_>], accepted: &Accepted) -> Vec<ReconciledGpu> {
    let mut gpus: Vec<ReconciledGpu> = machines.iter().flat_map(of_machine).collect();
    moved(&mut gpus);
    accepted.judge(&mut gpus);
    gpus.sort_by_cached_key(|gpu| (gpu.machine.clone(), gpu.order()));
    gpus
}

fn of_machine(views: &MachineViews<'_>) -> Vec<ReconciledGpu> {
    let groups = join::join(views);
    let same_kind = compare::kinds_of_uuids(&groups);
    let finish = |group: join::Group<'_>| {
        let mut conflicts = compare::conflicts(&group, views, &same_kind);
        conflicts.sort();
        conflicts.dedup();
        let state = state(&group, views, &conflicts);
        ReconciledGpu {
            machine: views.machine.clone(),
            state,
            redfish: group.redfish.cloned(),
            spdm: group.spdm.cloned(),
            nvml: group.nvml.cloned(),
            conflicts,
        }
    };
    groups.into_iter().map(finish).collect()
}

fn state(group: &join::Group<'_>, views: &MachineViews<'_>, conflicts: &[Conflict]) -> GpuState {
    if !conflicts.is_empty() {
        return GpuState::Conflicting;
    }
    let Some(given) = views.given else { return GpuState::Inventoried };
    let asked = [
        (given.redfish, views.redfish.is_some()),
        (given.spdm, views.spdm.is_some()),
        (given.nvml, views.nvml.is_some()),
    ];
    let all_asked = asked.iter().all(|(given, asked)| *given == Given::NotAvailable || *asked);
    // Without conflicts, each view that was asked and must be there is there, and its identity was compared.
    let inside = given.nvml == Given::Expected && group.nvml.is_some();
    let outside = given.redfish == Given::Expected && group.redfish.is_some()
        || given.spdm == Given::Expected && group.spdm.is_some();
    if all_asked && inside && outside { GpuState::Probed } else { GpuState::Inventoried }
}

/// A GPU that another machine shows too is kept out. What a driver says makes its own machine's GPUs doubtful and nobody else's:
/// whoever is root on a host writes what it likes there.
fn moved(gpus: &mut [ReconciledGpu]) {
    let mut seen: BTreeMap<String, BTreeSet<Name>> = BTreeMap::new();
    for gpu in gpus.iter() {
        for identity in gpu.outside() {
            seen.entry(identity).or_default().insert(gpu.machine.clone());
        }
    }
    for gpu in gpus {
        let shown: BTreeSet<Name> = gpu
            .identities()
            .iter()
            .filter_map(|identity| seen.get(identity))
            .flatten()
            .filter(|machine| **machine != gpu.machine)
            .cloned()
            .collect();
        gpu.keep_out(shown.into_iter().map(|machine| Conflict::Moved { machine }));
    }
}

/// Every identity that a GPU's views tell: `uuid/…` without NVML's prefix, `serial/…`, and `certificate/…` with the certificate's
/// digest, in lower case.
pub fn identities(
    redfish: Option<&Gpu>,
    spdm: Option<&SpdmGpu>,
    nvml: Option<&ProbedGpu>,
) -> BTreeSet<String> {
    let group = join::Group { redfish, spdm, nvml };
    let uuids = group.uuids().into_iter().map(|(_, uuid)| format!("uuid/{uuid}"));
    let serials = group.serials().into_iter().map(|(_, serial)| format!("serial/{serial}"));
    let certificate = spdm.and_then(|spdm| spdm.sha256).map(|digest| format!("certificate/{digest}"));
    uuids.chain(serials).chain(certificate).collect()
}

impl ReconciledGpu {
    /// Every identity that its views tell.
    pub fn identities(&self) -> BTreeSet<String> {
        identities(self.redfish.as_ref(), self.spdm.as_ref(), self.nvml.as_ref())
    }

    /// Those that views from outside its host tell.
    fn outside(&self) -> BTreeSet<String> {
        identities(self.redfish.as_ref(), self.spdm.as_ref(), None)
    }

    /// Adds conflicts that others than its own machine's views tell of.
    fn keep_out(&mut self, conflicts: impl IntoIterator<Item = Conflict>) {
        let before = self.conflicts.len();
        self.conflicts.extend(conflicts);
        if self.conflicts.len() > before {
            self.conflicts.sort();
            self.conflicts.dedup();
            self.state = GpuState::Conflicting;
        }
    }

    /// By what GPUs of one machine are sorted; none of it depends on the order of a view's entries.
    fn order(&self) -> impl Ord + use<> {
        let group = join::Group {
            redfish: self.redfish.as_ref(),
            spdm: self.spdm.as_ref(),
            nvml: self.nvml.as_ref(),
        };
        let redfish = self.redfish.as_ref().map(|gpu| {
            (gpu.pci_address.clone(), gpu.location.clone(), gpu.sources.clone(), gpu.model.clone())
        });
        let index = self.nvml.as_ref().map(|gpu| gpu.index);
        (group.position(), self.identities(), redfish, self.spdm.clone(), index)
    }
}

impl View {
    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redfish => "redfish",
            Self::Spdm => "spdm",
            Self::Nvml => "nvml",
        }
    }
}

impl Conflict {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "gpu.conflict.missing",
            Self::Unexpected { .. } => "gpu.conflict.unexpected",
            Self::Unidentified { .. } => "gpu.conflict.unidentified",
            Self::Repeated { .. } => "gpu.conflict.repeated",
            Self::SerialDiffers { .. } => "gpu.conflict.serial-differs",
            Self::UuidDiffers { .. } => "gpu.conflict.uuid-differs",
            Self::AddressDiffers { .. } => "gpu.conflict.address-differs",
            Self::ModelDiffers { .. } => "gpu.conflict.model-differs",
            Self::PathDiffers { .. } => "gpu.conflict.path-differs",
            Self::Unreadable { .. } => "gpu.conflict.unreadable",
            Self::Moved { .. } => "gpu.conflict.moved",
            Self::Changed { .. } => "gpu.conflict.changed",
            Self::Replaced { .. } => "gpu.conflict.replaced",
        }
    }

    /// The conflict as people see it; `at` is how messages call the GPU.
    pub fn problem(&self, at: &str) -> Problem {
        let said = |said: &[Said]| {
            let all: Vec<_> =
                said.iter().map(|said| format!("{} {}", said.view.as_str(), said.value)).collect();
            all.join(", ")
        };
        let message = match self {
            Self::Missing { view } => {
                format!("the {} view does not show it, though its model gives that view", view.as_str())
            }
            Self::Unexpected { view } => {
                format!("the {} view alone shows it, and none from outside its host", view.as_str())
            }
            Self::Unidentified { view } => {
                format!("the {} view shows it without saying who it is", view.as_str())
            }
            Self::Repeated { view } => {
                format!("several entries of the {} view say that they are it", view.as_str())
            }
            Self::SerialDiffers { said: all } => {
                format!("its views tell different serial numbers: {}", said(all))
            }
            Self::UuidDiffers { said: all } => format!("its views tell different UUIDs: {}", said(all)),
            Self::AddressDiffers { said: all } => {
                format!("its views tell different PCI addresses: {}", said(all))
            }
            Self::ModelDiffers { said: all } => format!("its views tell different models: {}", said(all)),
            Self::PathDiffers { said: all } => {
                format!("its certificate is for another part of the machine: {}", said(all))
            }
            Self::Unreadable { view } => {
                format!("the {} view has a certificate of it that cannot be read", view.as_str())
            }
            Self::Moved { machine } => format!("machine {machine} shows it too, or is where it was accepted"),
            Self::Changed { accepted, found } => {
                format!("it was accepted as {}, and is {}", listed(accepted), listed(found))
            }
            Self::Replaced { missing } => {
                format!("it is new in its machine, where {} was accepted and is missing", listed(missing))
            }
        };
        let problem = Problem::new(self.code(), message).at(at);
        match CODES.iter().find(|(code, ..)| *code == self.code()) {
            Some((.., hint)) => problem.hint(*hint),
            None => problem,
        }
    }
}

fn listed(identities: &BTreeSet<String>) -> String {
    identities.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// The codes of this part: code, meaning, what to do next.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "gpu.conflict.address-differs",
        "A GPU's views tell different PCI addresses.",
        "Restart the host and read its BMC again; where it stays, boards were exchanged.",
    ),
    (
        "gpu.conflict.changed",
        "A GPU has another serial number, UUID or certificate than when it was accepted.",
        "Where its firmware was updated or its board repaired: `bailiwick accept gpus MACHINE`; else it was exchanged, or a view is forged.",
    ),
    (
        "gpu.conflict.missing",
        "A view that a GPU's model gives does not show the GPU.",
        "See whether the GPU fell off the bus or is switched off; correct `gpuViews` of the profile where the model cannot give it.",
    ),
    (
        "gpu.conflict.model-differs",
        "A GPU's views tell different models.",
        "Read the BMC again; where it stays, the GPU was exchanged for one of another model.",
    ),
    (
        "gpu.conflict.moved",
        "A GPU shows in two machines, or was accepted in another one.",
        "Find out who moved it; read both machines again. Where it is to stay: `bailiwick accept gpus MACHINE`.",
    ),
    (
        "gpu.conflict.path-differs",
        "The certificate that names a GPU protects, as the BMC has it, another part of the machine.",
        "Read the BMC again; where it stays, boards were exchanged or the BMC's firmware mixes them up.",
    ),
    (
        "gpu.conflict.repeated",
        "Several GPUs of one view have one identity, or one GPU has several certificates.",
        "Compare boards; update the firmware that repeats itself.",
    ),
    (
        "gpu.conflict.replaced",
        "A GPU is new in its machine, and one that was accepted there is missing.",
        "Where it was exchanged on purpose: `bailiwick accept gpus MACHINE`; else find out who did it.",
    ),
    (
        "gpu.conflict.serial-differs",
        "A GPU's views tell different serial numbers.",
        "Read the BMC again; where it stays, the GPU was exchanged or one of the views is forged.",
    ),
    (
        "gpu.conflict.unexpected",
        "A host shows a GPU that nothing outside it knows.",
        "Read the BMC again; where it stays, somebody added a GPU or the host invents one.",
    ),
    (
        "gpu.conflict.unidentified",
        "A view shows a GPU without its serial number and UUID, so it confirms nothing.",
        "Update the BMC's firmware, or say in the profile that the model does not give this view.",
    ),
    (
        "gpu.conflict.unreadable",
        "A GPU's certificate cannot be read.",
        "Read the BMC again (`bailiwick refresh`); see its diagnostics. Where it stays, update the BMC's firmware.",
    ),
    (
        "gpu.conflict.uuid-differs",
        "A GPU's views tell different UUIDs.",
        "Read the BMC again; where it stays, the GPU was exchanged or one of the views is forged.",
    ),
];
