//! One physical GPU as a DRA device: its identity, name and attributes.

use crate::attribute::Attributes;
use crate::input::PublishedMachine;
use crate::quantity::quantity;
use crate::{DRIVER, taint};
use domain::declaration::{SiteSpec, Zone};
use domain::inventory::Gpu;
use domain::probe::ProbedGpu;
use domain::{Digest, Problem};
use k8s_openapi::api::resource::v1::{Device, DeviceCapacity};
use std::collections::BTreeMap;
use std::fmt;

/// What tells one physical GPU from all others. The UUID comes first, since several GPUs on one board share its serial number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GpuKey {
    /// UUID, lower case.
    Uuid(String),
    /// Serial number, where no UUID is known.
    Serial(String),
}

impl GpuKey {
    /// The identity of a GPU, where it has one. Position is no identity: boards are swapped.
    pub fn of(gpu: &Gpu) -> Option<Self> {
        let known = |value: &Option<String>| {
            value.as_deref().map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned)
        };
        known(&gpu.uuid)
            .map(|uuid| Self::Uuid(uuid.to_ascii_lowercase()))
            .or_else(|| known(&gpu.serial).map(Self::Serial))
    }

    /// The device's name in its pool: made of the identity alone, so it stays when other GPUs come and go.
    pub fn device_name(&self) -> String {
        format!("gpu-{}", &hex::encode(Digest::of(self.to_string().as_bytes()).bytes())[..16])
    }
}

impl fmt::Display for GpuKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => write!(f, "uuid/{uuid}"),
            Self::Serial(serial) => write!(f, "serial/{serial}"),
        }
    }
}

/// What attestation concluded of a device (DESIGN §5.8). Only `Affirming` opens a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Credible evidence of an allowed state.
    Affirming,
    /// Credible evidence of a state that is not allowed.
    PolicyViolation,
    /// Evidence that is not credible.
    BrokenEvidenceChain,
    /// Nothing to compare the evidence with.
    Unreferenced,
    /// The evidence is too old.
    Stale,
    /// The device did not answer.
    Unreachable,
    /// The device cannot give evidence.
    NotApplicable,
}

impl Verdict {
    /// As the attribute `attestation` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Affirming => "affirming",
            Self::PolicyViolation => "policy_violation",
            Self::BrokenEvidenceChain => "broken_evidence_chain",
            Self::Unreferenced => "unreferenced",
            Self::Stale => "stale",
            Self::Unreachable => "unreachable",
            Self::NotApplicable => "not_applicable",
        }
    }
}

/// Where a device stands and what is known of it, beyond the GPU itself.
pub(crate) struct Surroundings<'a> {
    pub(crate) machine: &'a PublishedMachine,
    pub(crate) site: &'a SiteSpec,
    pub(crate) probed: Option<&'a ProbedGpu>,
    pub(crate) nvlink_domain: Option<&'a str>,
    pub(crate) verdict: Option<Verdict>,
}

/// The device of a whole GPU. Names of attributes follow NVIDIA's driver where it has one (DESIGN §5.6). Memory is a capacity only
/// where a probe measured it: a BMC's word for it is another. `firmwareVersion` is a string even where it looks like a semantic
/// version.
pub(crate) fn device(
    key: &GpuKey,
    gpu: &Gpu,
    around: &Surroundings<'_>,
    problems: &mut Vec<Problem>,
) -> Device {
    let place = format!("Machine/{} gpus/{key}", around.machine.name);
    let mut attributes = Attributes::new(place, problems);
    let probed = around.probed;
    let or = |told: &Option<String>, probed: Option<&String>| told.clone().or_else(|| probed.cloned());
    attributes.text("type", Some("gpu"));
    // What a workload is told, and NVML knows it by, goes before what Redfish calls it.
    let uuid = probed.and_then(|gpu| gpu.uuid.as_deref()).or(gpu.uuid.as_deref());
    attributes.text("uuid", uuid);
    attributes.text("manufacturer", gpu.manufacturer.as_deref());
    attributes.text("serial", or(&gpu.serial, probed.and_then(|gpu| gpu.serial.as_ref())).as_deref());
    let part_number = or(&gpu.part_number, probed.and_then(|gpu| gpu.part_number.as_ref()));
    attributes.text("partNumber", part_number.as_deref());
    let firmware = or(&gpu.firmware_version, probed.and_then(|gpu| gpu.vbios.as_ref()));
    attributes.text("firmwareVersion", firmware.as_deref());
    attributes.text("nvlinkDomain", around.nvlink_domain);
    common(gpu, around, &mut attributes);
    let memory = probed.and_then(|gpu| gpu.memory_bytes);
    Device {
        name: key.device_name(),
        attributes: Some(attributes.done()),
        capacity: memory.map(|bytes| capacity([("memory", bytes)])),
        taints: around.probed.and_then(taint::of_health).map(|taint| vec![taint]),
        ..Device::default()
    }
}

/// What is said of a whole GPU and of each of its partitions.
pub(crate) fn common(gpu: &Gpu, around: &Surroundings<'_>, attributes: &mut Attributes<'_>) {
    let machine = around.machine;
    attributes.text("jurisdiction", Some(around.site.jurisdiction.as_str()));
    attributes.text("site", Some(machine.site.as_str()));
    attributes.text("operator", Some(around.site.operator.as_str()));
    attributes.text("rack", machine.rack.as_ref().map(|rack| rack.name.as_str()));
    attributes.text("machine", Some(machine.name.as_str()));
    let zone: Option<&Zone> = machine.zone.as_ref().or(around.site.zone.as_ref());
    attributes.text("zoneTier", zone.map(|z| z.tier.as_str()));
    attributes.text("zoneHandling", zone.and_then(|z| z.handling).map(domain::declaration::Handling::as_str));
    attributes.text("attestation", Some(around.verdict.map_or("none", Verdict::as_str)));
    attributes.truth("inventoried", true);
    attributes.truth("probed", around.probed.is_some());
    let probed = around.probed;
    let model = gpu.model.as_deref().or(probed.and_then(|gpu| gpu.model.as_deref()));
    attributes.text("productName", model);
    let pci = probed.map(|gpu| &gpu.pci);
    let address = pci.and_then(|pci| pci.address.as_deref()).or(gpu.pci_address.as_deref());
    attributes.pci_address("resource.kubernetes.io/pciBusID", address);
    attributes.text("resource.kubernetes.io/pcieRoot", pci.and_then(|pci| pci.root.as_deref()));
    attributes.number("resource.kubernetes.io/numaNode", probed.and_then(|gpu| gpu.numa_node));
    attributes.text("brand", probed.and_then(|gpu| gpu.brand.as_deref()));
    attributes.text("architecture", probed.and_then(|gpu| gpu.architecture.as_deref()));
    attributes.version("cudaComputeCapability", probed.and_then(|gpu| gpu.compute_capability.as_deref()));
    let driver = machine.driver.as_ref().filter(|_| probed.is_some());
    attributes.version("driverVersion", driver.and_then(|driver| driver.version.as_deref()));
    attributes.version("cudaDriverVersion", driver.and_then(|driver| driver.cuda.as_deref()));
}

/// Capacities by name; what there is nothing of is left out.
pub(crate) fn capacity<const N: usize>(amounts: [(&str, u64); N]) -> BTreeMap<String, DeviceCapacity> {
    let there = amounts.into_iter().filter(|(_, amount)| *amount > 0);
    there
        .map(|(name, amount)| {
            (name.to_owned(), DeviceCapacity { value: quantity(amount), ..DeviceCapacity::default() })
        })
        .collect()
}

/// How CEL names an attribute of ours.
pub(crate) fn attribute(name: &str) -> String {
    format!("device.attributes['{DRIVER}'].{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_of_one_board_share_its_serial_but_not_their_identity() {
        let gpu = |uuid: &str| Gpu { serial: Some("B1".into()), uuid: Some(uuid.into()), ..Gpu::default() };
        assert_ne!(GpuKey::of(&gpu("a")), GpuKey::of(&gpu("b")));
        assert_eq!(GpuKey::of(&gpu("AB")), Some(GpuKey::Uuid("ab".into())));
        assert_eq!(GpuKey::of(&Gpu { serial: Some(" ".into()), ..Gpu::default() }), None);
    }
}
