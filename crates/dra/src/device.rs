//! One physical GPU as a DRA device: its identity, name and attributes.

use crate::DRIVER;
use crate::input::PublishedMachine;
use crate::partition::{bytes, version};
use domain::declaration::{SiteSpec, Zone};
use domain::inventory::Gpu;
use domain::probe::{Driver, ProbedGpu};
use domain::{Digest, Name, Problem};
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, DeviceCapacity};
use std::collections::BTreeMap;
use std::fmt;

/// Longest value of a string attribute, in bytes (`resource.k8s.io/v1` DeviceAttributeMaxValueLength).
const MAX_VALUE: usize = 64;

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
    pub(crate) site_name: &'a Name,
    pub(crate) probed: bool,
    /// What its driver tells, where that is believed, and its NVLink domain.
    pub(crate) driver: Option<(&'a Driver, &'a ProbedGpu, Option<&'a str>)>,
    pub(crate) verdict: Option<Verdict>,
}

/// The device of a GPU. Names of attributes follow NVIDIA's driver where it has one (DESIGN §5.6). Its memory is what the driver
/// tells, never a BMC's word. `uuid` is NVML's where it is known, as NVIDIA's driver has it. `firmwareVersion` is a string even where it looks like a semantic version:
/// an attribute whose type depends on its value makes selectors fail, which aborts allocation (facts: dra §3).
pub(crate) fn device(
    key: &GpuKey,
    gpu: &Gpu,
    around: &Surroundings<'_>,
    problems: &mut Vec<Problem>,
) -> Device {
    let machine = around.machine;
    let place = format!("Machine/{} gpus/{key}", machine.name);
    let mut attributes = BTreeMap::new();
    let mut text = |name: &str, value: Option<&str>| {
        let Some(value) = value.filter(|v| !v.is_empty()) else { return };
        if value.len() > MAX_VALUE || value.chars().any(char::is_control) {
            problems.push(
                Problem::new(
                    "dra.attribute.unfit",
                    format!("the attribute {name} of {place} is left out: its value does not fit"),
                )
                .difference(
                    format!("{value:?}, {} bytes", value.len()),
                    format!("at most {MAX_VALUE} bytes, no control characters"),
                )
                .at(place.clone()),
            );
            return;
        }
        attributes.insert(
            name.to_owned(),
            DeviceAttribute { string: Some(value.to_owned()), ..DeviceAttribute::default() },
        );
    };
    text("type", Some("gpu"));
    let seen = around.driver.map(|(_, seen, _)| seen);
    text("uuid", seen.and_then(|seen| seen.uuid.as_deref()).or(gpu.uuid.as_deref()));
    // Classes name models as the inventory shows them.
    text("productName", gpu.model.as_deref().or_else(|| seen?.model.as_deref()));
    text("brand", seen.and_then(|seen| seen.brand.as_deref()));
    text("architecture", seen.and_then(|seen| seen.architecture.as_deref()));
    text("nvlinkDomain", around.driver.and_then(|(_, _, domain)| domain));
    text("resource.kubernetes.io/pcieRoot", seen.and_then(|seen| seen.pci.root.as_deref()));
    text("manufacturer", gpu.manufacturer.as_deref());
    text("serial", gpu.serial.as_deref());
    text("partNumber", gpu.part_number.as_deref());
    text("firmwareVersion", gpu.firmware_version.as_deref());
    text("jurisdiction", Some(around.site.jurisdiction.as_str()));
    text("site", Some(around.site_name.as_str()));
    text("operator", Some(around.site.operator.as_str()));
    text("rack", machine.rack.as_ref().map(|rack| rack.name.as_str()));
    text("machine", Some(machine.name.as_str()));
    let zone: Option<&Zone> = machine.zone.as_ref().or(around.site.zone.as_ref());
    text("zoneTier", zone.map(|z| z.tier.as_str()));
    text("zoneHandling", zone.and_then(|z| z.handling).map(domain::declaration::Handling::as_str));
    text("attestation", Some(around.verdict.map_or("none", Verdict::as_str)));
    let address = seen.and_then(|seen| seen.pci.address.as_deref()).or(gpu.pci_address.as_deref());
    match address {
        Some(address) if is_pci_address(address) => {
            text("resource.kubernetes.io/pciBusID", Some(&address.to_ascii_lowercase()));
        }
        Some(address) => problems.push(
            Problem::new(
                "dra.attribute.unfit",
                format!("the PCI address of {place} is left out: it is not well formed"),
            )
            .difference(address, "dddd:bb:dd.f")
            .at(place),
        ),
        None => {}
    }
    for (name, value) in [("inventoried", true), ("probed", around.probed)] {
        attributes
            .insert(name.to_owned(), DeviceAttribute { bool: Some(value), ..DeviceAttribute::default() });
    }
    if let Some((driver, seen, _)) = around.driver {
        attributes.extend(told_by_the_driver(driver, seen));
    }
    let memory = seen.and_then(|seen| seen.memory_bytes);
    let capacity = memory.map(|memory| {
        let capacity = DeviceCapacity { value: bytes(memory), ..DeviceCapacity::default() };
        BTreeMap::from([("memory".to_owned(), capacity)])
    });
    Device { name: key.device_name(), attributes: Some(attributes), capacity, ..Device::default() }
}

/// Attributes of other types than text.
fn told_by_the_driver(driver: &Driver, seen: &ProbedGpu) -> impl Iterator<Item = (String, DeviceAttribute)> {
    let versions = [
        ("driverVersion", driver.version.as_deref()),
        ("cudaDriverVersion", driver.cuda.as_deref()),
        ("cudaComputeCapability", seen.compute_capability.as_deref()),
    ];
    let versions = versions.into_iter().filter_map(|(name, value)| Some((name.to_owned(), version(value?)?)));
    let node = seen.numa_node.map(|node| {
        let node = DeviceAttribute { int: Some(node.into()), ..DeviceAttribute::default() };
        ("resource.kubernetes.io/numaNode".to_owned(), node)
    });
    versions.collect::<Vec<_>>().into_iter().chain(node)
}

/// A version as a semantic version 2.0.0, which a version attribute must be: `580.95.05` is 580.95.5, `9.0` is 9.0.0. `None` for
/// what is none.
pub(crate) fn semver(text: &str) -> Option<String> {
    let numbers: Vec<u64> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [major, rest @ ..] = numbers.as_slice() else { return None };
    let next = |at: usize| rest.get(at).copied().unwrap_or_default();
    (rest.len() <= 2).then(|| format!("{major}.{}.{}", next(0), next(1)))
}

/// `dddd:bb:dd.f`, as the standard attribute wants it (facts: dra §4).
fn is_pci_address(text: &str) -> bool {
    let hex = |part: &str, digits| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
    let mut parts = text.split([':', '.']);
    let mut next = |digits| parts.next().is_some_and(|part| hex(part, digits));
    next(4)
        && next(2)
        && next(2)
        && next(1)
        && parts.next().is_none()
        && text.len() == 12
        && text.as_bytes().get(10) == Some(&b'.')
        && !text[..10].contains('.')
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

    #[test]
    fn a_version_is_told_as_a_semantic_version_or_not_at_all() {
        let told = ["580.95.05", "9.0", "13", "1.2.3.4", "", "12.x"].map(semver);
        assert_eq!(told.map(Option::unwrap_or_default), ["580.95.5", "9.0.0", "13.0.0", "", "", ""]);
    }

    #[test]
    fn a_pci_address_is_taken_only_in_its_full_form() {
        assert!(is_pci_address("0000:1b:00.0") && is_pci_address("0009:01:00.F"));
        for bad in ["1b:00.0", "0000.1b:00:0", "0000:1b:00.0 ", "0000:1b:0g.0", "0000:1b:00:0", ""] {
            assert!(!is_pci_address(bad), "{bad}");
        }
    }
}
