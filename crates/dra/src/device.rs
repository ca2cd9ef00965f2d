//! One physical GPU as a DRA device: its identity, name and attributes.

use crate::attribute::Attributes;
use crate::input::PublishedMachine;
use crate::json::Text;
use crate::quantity::quantity;
use crate::{DRIVER, taint};
use domain::declaration::{Handling, SiteSpec, Zone};
use domain::inventory::Gpu;
use domain::probe::ProbedGpu;
use domain::{Digest, Name, Problem};
use k8s_openapi::api::resource::v1::DeviceTaint;
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
        let uuid = known(gpu.uuid.as_deref()).map(|uuid| Self::Uuid(uuid.to_ascii_lowercase()));
        uuid.or_else(|| known(gpu.serial.as_deref()).map(|serial| Self::Serial(serial.to_owned())))
    }

    /// The device's name in its pool: made of the identity alone, so it stays when other GPUs come and go.
    pub fn device_name(&self) -> String {
        format!("gpu-{}", &hex::encode(Digest::of(self.to_string().as_bytes()).bytes())[..16])
    }
}

/// What a value says, if it says anything.
pub(crate) fn known(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
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

/// Where something is told of a GPU.
pub(crate) struct Place<'a> {
    pub(crate) machine: &'a Name,
    pub(crate) key: &'a GpuKey,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Machine/{} gpus/{}", self.machine, self.key)
    }
}

/// What all devices of a machine say: written once for all of them.
pub(crate) struct Host {
    /// Attributes.
    place: Text,
    /// Attributes of devices that were probed.
    driver: Text,
    /// The taint of all its devices, where no rule says it.
    taint: Option<DeviceTaint>,
}

impl Host {
    pub(crate) fn of(
        machine: &PublishedMachine,
        site: &SiteSpec,
        taint: Option<DeviceTaint>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let told_at = format!("Machine/{}", machine.name);
        let mut place = Attributes::new(&told_at, problems);
        place.text("jurisdiction", Some(site.jurisdiction.as_str()));
        place.text("site", Some(machine.site.as_str()));
        place.text("operator", Some(site.operator.as_str()));
        place.text("rack", machine.rack.as_ref().map(|rack| rack.name.as_str()));
        place.text("machine", Some(machine.name.as_str()));
        let zone: Option<&Zone> = machine.zone.as_ref().or(site.zone.as_ref());
        place.text("zoneTier", zone.map(|z| z.tier.as_str()));
        place.text("zoneHandling", zone.and_then(|z| z.handling).map(Handling::as_str));
        place.truth("inventoried", true);
        let place = place.done();
        let mut driver = Attributes::new(&told_at, problems);
        if let Some(told) = &machine.driver {
            driver.version("driverVersion", told.version.as_deref());
            driver.version("cudaDriverVersion", told.cuda.as_deref());
        }
        Self { place, driver: driver.done(), taint }
    }
}

/// What is known of one GPU.
pub(crate) struct Known<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) probed: Option<&'a ProbedGpu>,
    pub(crate) nvlink_domain: Option<&'a str>,
    pub(crate) verdict: Option<Verdict>,
}

/// What the devices of one GPU share, whole or part: written once for all of them.
pub(crate) struct Shared {
    /// Attributes.
    pub(crate) attributes: Text,
    /// The member `taints`; nothing where there are none.
    pub(crate) taints: Text,
}

impl Shared {
    pub(crate) fn of(host: &Host, known: &Known<'_>, place: &Place<'_>, problems: &mut Vec<Problem>) -> Self {
        let (gpu, probed) = (known.gpu, known.probed);
        let mut attributes = Attributes::new(place, problems);
        attributes.text("attestation", Some(known.verdict.map_or("none", Verdict::as_str)));
        attributes.truth("probed", probed.is_some());
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
        let mut attributes = attributes.done();
        attributes.extend(&host.place);
        if probed.is_some() {
            attributes.extend(&host.driver);
        }
        let mut taints = Text::default();
        let worse: Vec<_> = probed.and_then(taint::of_health).into_iter().chain(host.taint.clone()).collect();
        if !worse.is_empty() {
            taints.array("taints", |list| worse.iter().for_each(|taint| list.value(taint)));
        }
        Self { attributes, taints }
    }
}

/// The device of a whole GPU. Names of attributes follow NVIDIA's driver where it has one (DESIGN §5.6). Memory is a capacity only
/// where a probe measured it: a BMC's word for it is another. `firmwareVersion` is a string even where it looks like a semantic
/// version.
pub(crate) fn whole(
    device: &mut Text,
    name: &str,
    known: &Known<'_>,
    shared: &Shared,
    place: &Place<'_>,
    problems: &mut Vec<Problem>,
) {
    let (gpu, probed) = (known.gpu, known.probed);
    let mut attributes = Attributes::new(place, problems);
    attributes.text("type", Some("gpu"));
    // What a workload is told, and NVML knows it by, goes before what Redfish calls it.
    let uuid = probed.and_then(|gpu| gpu.uuid.as_ref());
    attributes.text("uuid", uuid.or(gpu.uuid.as_ref()).map(String::as_str));
    attributes.text("manufacturer", gpu.manufacturer.as_deref());
    let serial = gpu.serial.as_ref().or(probed.and_then(|gpu| gpu.serial.as_ref()));
    attributes.text("serial", serial.map(String::as_str));
    let part_number = gpu.part_number.as_ref().or(probed.and_then(|gpu| gpu.part_number.as_ref()));
    attributes.text("partNumber", part_number.map(String::as_str));
    let firmware = gpu.firmware_version.as_ref().or(probed.and_then(|gpu| gpu.vbios.as_ref()));
    attributes.text("firmwareVersion", firmware.map(String::as_str));
    attributes.text("nvlinkDomain", known.nvlink_domain);
    let own = attributes.done();
    device.string("name", name);
    device.object("attributes", |attributes| {
        attributes.extend(&own);
        attributes.extend(&shared.attributes);
    });
    if let Some(bytes) = probed.and_then(|gpu| gpu.memory_bytes) {
        capacity(device, [("memory", bytes)]);
    }
    device.extend(&shared.taints);
}

/// Capacities by name; what there is nothing of is left out.
pub(crate) fn capacity<const N: usize>(device: &mut Text, amounts: [(&str, u64); N]) {
    device.object("capacity", |capacity| amounts_of(capacity, amounts));
}

/// Amounts as the API has them, of what there is.
pub(crate) fn amounts_of<'n>(text: &mut Text, amounts: impl IntoIterator<Item = (&'n str, u64)>) {
    for (name, amount) in amounts.into_iter().filter(|(_, amount)| *amount > 0) {
        text.object(name, |entry| entry.string("value", &quantity(amount)));
    }
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
