//! What one BMC tells of one machine: the document that `bailiwick inspect` prints.
//!
//! A value the hardware does not give is `null`, never invented: empty strings, placeholders (`N/A`, `0`, `STATIC:…`)
//! and absent properties all mean "not known" (facts: redfish identity rule 7). Its JSON Schema is generated from these types
//! into `docs/reference/inventory.schema.json`.

use crate::name::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The whole inventory of one BMC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// Who the host system says it is.
    pub identity: Identity,
    /// The management controller that was asked.
    pub bmc: Bmc,
    /// CPUs only; accelerators are in `gpus`.
    pub processors: Vec<Processor>,
    /// Memory of the host system in GiB.
    #[serde(rename = "memoryGiB")]
    pub memory_gib: Option<u64>,
    /// One entry for one physical GPU, however many resources show it.
    pub gpus: Vec<Gpu>,
    /// Network interfaces of the host, one entry a MAC address.
    pub nics: Vec<Nic>,
    /// Drives of the host.
    pub drives: Vec<Drive>,
    /// Trusted platform modules of the host.
    pub tpm: Vec<Tpm>,
    /// Whether UEFI Secure Boot is on for the current boot; `null` where the BMC does not say.
    pub secure_boot: Option<bool>,
    /// The BIOS of the host and its settings.
    #[serde(default)]
    pub bios: Bios,
    /// The BMC's interfaces to its own host; `null` where it does not say which it has.
    #[serde(default)]
    pub host_interfaces: Option<Vec<HostInterface>>,
    /// Firmware inventory, one entry a component.
    pub firmware: Vec<Firmware>,
    /// Components that can prove what they are (DSP0268 ComponentIntegrity).
    pub component_integrity: Vec<ComponentIntegrity>,
    /// For each part above that does not name its own sources: the Redfish path that told of it.
    #[serde(default)]
    pub sources: BTreeMap<String, String>,
    /// What was odd, missing or refused while reading. Never fatal.
    pub diagnostics: Vec<Diagnostic>,
    /// What the reading cost.
    pub requests: Requests,
}

/// Identity of the host system. `serial` is the machine's serial by the vendor's own rule (Dell: the service tag).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Who made the machine.
    pub manufacturer: Option<String>,
    /// Model name.
    pub model: Option<String>,
    /// Serial number, trimmed.
    pub serial: Option<String>,
    /// System UUID, lower case.
    pub uuid: Option<String>,
    /// Stock-keeping unit as the BMC gives it.
    pub sku: Option<String>,
    /// Part number.
    pub part_number: Option<String>,
}

/// The management controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bmc {
    /// Who made it.
    pub manufacturer: Option<String>,
    /// Model name.
    pub model: Option<String>,
    /// Version of its own firmware.
    pub firmware_version: Option<String>,
    /// Product, as the service root calls it.
    #[serde(default)]
    pub product: Option<String>,
    /// MAC addresses of its own interfaces, lower case, sorted.
    pub macs: Vec<String>,
}

/// A CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Processor {
    /// Redfish `Id`.
    pub id: String,
    /// Model name.
    pub model: Option<String>,
    /// Physical cores.
    pub cores: Option<u32>,
    /// Hardware threads.
    pub threads: Option<u32>,
}

/// One physical GPU, merged from every view that shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// Model name.
    pub model: Option<String>,
    /// Who made it.
    pub manufacturer: Option<String>,
    /// Serial number, trimmed.
    pub serial: Option<String>,
    /// UUID as Redfish gives it, lower case. Not assumed to be NVML's.
    pub uuid: Option<String>,
    /// Part number.
    pub part_number: Option<String>,
    /// Firmware (VBIOS) version.
    pub firmware_version: Option<String>,
    /// PCI address `dddd:bb:dd.f`.
    pub pci_address: Option<String>,
    /// Where it sits: the service label or slot the BMC gives.
    pub location: Option<String>,
    /// Every Redfish path that told of it, sorted.
    pub sources: Vec<String>,
}

/// A network interface of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Nic {
    /// MAC address, lower case.
    pub mac: String,
    /// Model of the adapter.
    pub model: Option<String>,
    /// Every Redfish path that told of it, sorted.
    pub sources: Vec<String>,
}

/// A drive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drive {
    /// Model name.
    pub model: Option<String>,
    /// Serial number, trimmed.
    pub serial: Option<String>,
    /// Capacity in bytes.
    pub capacity_bytes: Option<u64>,
    /// `SSD`, `HDD`, … as Redfish spells it.
    pub media_type: Option<String>,
}

/// A trusted platform module (`ComputerSystem.TrustedModules`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tpm {
    /// `TPM2_0`, … as Redfish spells it.
    pub interface_type: Option<String>,
    /// Firmware version.
    pub firmware_version: Option<String>,
    /// `Status.State` as Redfish spells it.
    pub status: Option<String>,
}

/// One entry of the firmware inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Firmware {
    /// Redfish `Id`.
    pub id: String,
    /// Redfish `Name`.
    pub name: Option<String>,
    /// Version as given, unnormalised.
    pub version: Option<String>,
    /// Every Redfish path that told of it, sorted.
    #[serde(default)]
    pub sources: Vec<String>,
}

/// The BIOS of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bios {
    /// `BiosVersion` of the host, as given.
    pub version: Option<String>,
    /// `AttributeRegistry`: which set of names its attributes have.
    pub registry: Option<String>,
    /// Its settings; `null` where the BMC does not tell them. Passwords, their hashes, and values of more than 256 characters
    /// are left out.
    pub attributes: Option<BTreeMap<String, AttributeValue>>,
}

/// Value of a BIOS attribute. Redfish knows no others (DSP0268, AttributeRegistry).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum AttributeValue {
    /// A truth value.
    Truth(bool),
    /// A whole number.
    Whole(i64),
    /// Text, or one of the values that the attribute can have.
    Text(String),
}

impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truth(truth) => truth.fmt(f),
            Self::Whole(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// An interface by which the host reaches its own BMC (Redfish HostInterface).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostInterface {
    /// Redfish `Id`.
    pub id: String,
    /// `InterfaceEnabled`.
    pub enabled: Option<bool>,
    /// Every Redfish path that told of it, sorted.
    pub sources: Vec<String>,
}

/// One component that can prove what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentIntegrity {
    /// Redfish `Id`.
    pub id: String,
    /// `SPDM`, `TPM`, … as Redfish spells it.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Version of that protocol; `null` where the BMC says `unknown`.
    pub type_version: Option<String>,
    /// `ComponentIntegrityEnabled`.
    pub enabled: Option<bool>,
    /// `TargetComponentURI`.
    pub target: Option<String>,
    /// Redfish paths of what it protects (`Links.ComponentsProtected`), sorted.
    #[serde(default)]
    pub protects: Vec<String>,
    /// The certificate that it proves itself with (SPDM); `null` where the BMC shows none.
    #[serde(default)]
    pub certificate: Option<ComponentCertificate>,
}

/// The certificate of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentCertificate {
    /// The Redfish path that showed its chain.
    pub source: String,
    /// The certificate itself, without those above it; `null` where the chain cannot be read.
    pub leaf: Option<LeafCertificate>,
}

/// What a component's certificate says. Nobody has checked who signed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeafCertificate {
    /// Common name of its subject.
    pub subject: Option<String>,
    /// Serial number of its subject (X.520 `serialNumber`), which is not that of the certificate.
    pub serial: Option<String>,
    /// Digest of its DER.
    pub sha256: Digest,
}

/// Something odd met while reading, with a stable code (`docs/reference/codes.md`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Diagnostic {
    /// Stable code, such as `redfish.resource.missing`.
    pub code: String,
    /// Redfish path it was met at.
    pub path: String,
    /// A sentence for people.
    pub message: String,
}

/// What reading cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// HTTP requests sent, retries included.
    pub count: u64,
    /// Bytes of response bodies received.
    pub bytes: u64,
    /// Wall-clock time in milliseconds.
    pub elapsed_ms: u64,
}
