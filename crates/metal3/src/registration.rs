//! What a cell knows of a machine that Metal3 is to look after, and what it wishes of it.

use crate::address::BmcAddress;
use crate::secret::{Credentials, SecretText};
use domain::base_cluster::{self, HashAlgorithm, Image};
use domain::{Name, Problem};
use std::collections::BTreeMap;
use std::fmt;
use url::Url;

/// A machine as it is made known to baremetal-operator.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The cell that owns it.
    pub cell: Name,
    /// The machine's name: the host's too, unless the machine has a host under another name already, which is then taken over.
    pub machine: Name,
    /// Its BMC.
    pub address: BmcAddress,
    /// Whether the operator and Ironic check the BMC's certificate; `false` only where its key is pinned otherwise.
    pub verify_certificate: bool,
    /// The provisioning service's own account on the BMC. `None` leaves an existing host the account it has.
    pub credentials: Option<Credentials>,
    /// MAC address of the interface that boots: six pairs of hexadecimal digits with colons.
    pub boot_mac: Option<String>,
    /// How it boots.
    pub boot_mode: BootMode,
    /// Whether its hardware is read by an agent, which boots it.
    pub inspection: Inspection,
    /// Whether its disks are cleaned before its first use and after each.
    pub cleaning: Cleaning,
    /// Whether it is on while nothing runs on it.
    pub idle_power: Power,
    /// Which disk an image goes to: name and value of one field of `rootDeviceHints` each, such as `serialNumber`.
    pub root_device: BTreeMap<String, String>,
    /// What selects it.
    pub place: Place,
    /// UID of its host when last seen: a host that is gone, or another one, is then told instead of being made anew.
    pub known_uid: Option<String>,
    /// Whether it was made known before, under whatever UID: the same is then told of a host that is gone.
    pub expected: bool,
}

/// What a machine is and where, for the labels by which a Metal3MachineTemplate selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Jurisdiction of its site.
    pub jurisdiction: Name,
    /// Its site.
    pub site: Name,
    /// Tier of its zone.
    pub zone_tier: String,
    /// Handling marking of its zone, if any.
    pub zone_handling: Option<String>,
    /// Its model as the hardware says it.
    pub model: Option<String>,
}

/// How a machine boots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootMode {
    /// UEFI.
    #[default]
    Uefi,
    /// UEFI, with Secure Boot switched on after provisioning.
    UefiSecureBoot,
    /// BIOS.
    Legacy,
}

impl BootMode {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Uefi => "UEFI",
            Self::UefiSecureBoot => "UEFISecureBoot",
            Self::Legacy => "legacy",
        }
    }
}

/// Who reads a machine's hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inspection {
    /// The agent that Ironic boots.
    #[default]
    Agent,
    /// Nobody.
    Disabled,
}

/// Automated cleaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cleaning {
    /// Partition tables at least, and whatever Ironic's configuration adds.
    #[default]
    Metadata,
    /// None: nothing is erased.
    Disabled,
}

/// Power of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Power {
    /// On.
    On,
    /// Off.
    #[default]
    Off,
}

/// What is wished of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Its BMC lets the service in. What runs on it goes on running.
    Registered,
    /// Its hardware was read. What runs on it goes on running.
    Inspected,
    /// It may be used by the cell, and by nobody else. A machine on which something runs is refused: release it.
    Available,
    /// It may be used by Cluster API; what a Metal3Machine does with it is that one's affair.
    Offered,
    /// It runs this.
    Provisioned(Deployment),
    /// It goes on running what somebody else has put on it.
    ExternallyProvisioned,
    /// What the cell put on it is taken off, its disks are cleaned, and it is available.
    Released,
    /// It has no host any more.
    Removed,
}

/// What a machine is to run, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Names this deployment: a DNS label that stays while it is tried again, and changes with the next one. A machine that was
    /// given another is not overwritten.
    pub id: Name,
    /// What is put on it.
    pub payload: Payload,
    /// Power of the machine once it runs this: [`Power::Off`] switches it off through the operator, and keeps what it was given.
    pub power: Power,
    /// Config drive: user data.
    pub user_data: Option<SecretText>,
    /// Config drive: network data.
    pub network_data: Option<SecretText>,
    /// Config drive: meta data.
    pub meta_data: Option<SecretText>,
}

/// What is put on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// An image written to its root disk by Ironic's agent.
    Disk {
        /// Where Ironic fetches it.
        url: String,
        /// Its checksum in hexadecimal.
        checksum: String,
        /// The checksum's algorithm.
        algorithm: Algorithm,
        /// The file's format.
        format: DiskFormat,
    },
    /// An image booted from virtual media each time; nothing is written. baremetal-operator gives it no config drive
    /// (`getConfigDrive` of v0.13.2), so that what it needs to join a cluster must be in the image: data are refused.
    LiveIso {
        /// Where Ironic fetches it.
        url: String,
    },
    /// A step of the site's own agent.
    Custom {
        /// Its name.
        method: String,
    },
}

impl From<&Image> for Payload {
    /// What a base cluster declares. A checksum of no known length is refused when it is declared.
    fn from(image: &Image) -> Self {
        match image {
            Image::Live { iso } => Self::LiveIso { url: iso.clone() },
            Image::Disk { url, checksum, format } => Self::Disk {
                url: url.clone(),
                checksum: checksum.clone(),
                algorithm: match Image::hash_algorithm(checksum) {
                    Some(HashAlgorithm::Sha512) => Algorithm::Sha512,
                    _ => Algorithm::Sha256,
                },
                format: match format {
                    base_cluster::DiskFormat::Raw => DiskFormat::Raw,
                    base_cluster::DiskFormat::Qcow2 => DiskFormat::Qcow2,
                },
            },
        }
    }
}

/// Algorithms of checksums that are accepted. MD5 is not: an image can be forged to match it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// Formats of disk images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    /// A disk, byte for byte.
    Raw,
    /// QEMU copy-on-write.
    Qcow2,
}

impl DiskFormat {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registered => "registered",
            Self::Inspected => "inspected",
            Self::Available => "available",
            Self::Offered => "offered",
            Self::Provisioned(_) => "provisioned",
            Self::ExternallyProvisioned => "externally provisioned",
            Self::Released => "released",
            Self::Removed => "removed",
        })
    }
}

impl Registration {
    /// What baremetal-operator's webhook would refuse; a cluster without webhooks takes it, and fails much later.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let refuse = |message: String| Err(crate::error::problem("metal3.registration-invalid", message));
        match &self.boot_mac {
            Some(mac) if !is_mac(mac) => return refuse(format!("`{mac}` is no MAC address")),
            None if self.inspection == Inspection::Disabled => {
                return refuse(
                    "without inspection the operator needs the MAC address of the boot interface".into(),
                );
            }
            _ => {}
        }
        match self.root_device.keys().find(|hint| !ROOT_DEVICE_HINTS.contains(&hint.as_str())) {
            Some(hint) => refuse(format!("there is no root device hint `{hint}`")),
            None => Ok(()),
        }
    }
}

/// Hints that take text, of `spec.rootDeviceHints`.
const ROOT_DEVICE_HINTS: &[&str] = &[
    "deviceName",
    "hctl",
    "model",
    "vendor",
    "serialNumber",
    "wwn",
    "wwnWithExtension",
    "wwnVendorExtension",
];

impl Deployment {
    fn has_data(&self) -> bool {
        [&self.user_data, &self.network_data, &self.meta_data].into_iter().any(Option::is_some)
    }

    /// What could never be provisioned.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let refuse = |message: String| Err(crate::error::problem("metal3.image-invalid", message));
        let url = match &self.payload {
            Payload::Disk { url, checksum, algorithm, .. } => {
                let fits =
                    checksum.len() == algorithm.digits() && checksum.bytes().all(|b| b.is_ascii_hexdigit());
                if !fits {
                    return refuse(format!("`{checksum}` is no {} checksum", algorithm.as_str()));
                }
                url
            }
            Payload::LiveIso { .. } if self.has_data() => {
                return Err(no_config_drive());
            }
            Payload::LiveIso { url } => url,
            Payload::Custom { method } if method.is_empty() => {
                return refuse("the method has no name".into());
            }
            Payload::Custom { .. } => return Ok(()),
        };
        match Url::parse(url) {
            Ok(parsed) if matches!(parsed.scheme(), "http" | "https" | "file") => Ok(()),
            Ok(_) => refuse(format!("Ironic does not fetch `{url}`: use http, https or file")),
            Err(error) => refuse(format!("`{url}` is no URL: {error}")),
        }
    }
}

/// Why a live ISO cannot be told how to join: baremetal-operator gives it no config drive.
pub fn no_config_drive() -> Problem {
    let message = "baremetal-operator gives a live ISO no config drive, so its data would be lost";
    crate::error::problem("metal3.no-config-drive", message.into())
}

fn is_mac(text: &str) -> bool {
    let pairs: Vec<_> = text.split(':').collect();
    pairs.len() == 6
        && pairs.iter().all(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl Place {
    /// The labels of a host, without those that tell whose it is.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            (crate::LABEL_JURISDICTION.to_owned(), self.jurisdiction.to_string()),
            (crate::LABEL_SITE.to_owned(), self.site.to_string()),
        ]);
        let values = [
            (crate::LABEL_ZONE_TIER, Some(&self.zone_tier)),
            (crate::LABEL_ZONE_HANDLING, self.zone_handling.as_ref()),
            (crate::LABEL_MODEL, self.model.as_ref()),
        ];
        for (key, value) in values {
            if let Some(value) = value.and_then(|text| label_value(text)) {
                labels.insert(key.to_owned(), value);
            }
        }
        labels
    }
}

/// The form that a text takes as a label's value: letters, digits, `-`, `_` and `.`, at most 63 of them, beginning and ending
/// with a letter or digit; everything else becomes `-`. `None` where nothing is left.
pub fn label_value(text: &str) -> Option<String> {
    let mut value = String::new();
    for c in text.trim().chars() {
        let safe = c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        if safe {
            value.push(c);
        } else if !value.ends_with('-') {
            value.push('-');
        }
    }
    let value = value.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let value = value[..value.len().min(63)].trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::address::{Transport, bmc_address};
    use proptest::prelude::*;

    pub(crate) fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    pub(crate) fn registration() -> Registration {
        Registration {
            cell: name("cell-1"),
            machine: name("m1"),
            address: bmc_address(Transport::Https, "10.0.0.1", "/redfish/v1/Systems/1").unwrap(),
            verify_certificate: true,
            credentials: Some(Credentials {
                username: "ironic".into(),
                password: SecretText::new("pl4nted"),
            }),
            boot_mac: Some("02:00:5e:00:00:01".into()),
            boot_mode: BootMode::Uefi,
            inspection: Inspection::Agent,
            cleaning: Cleaning::Metadata,
            idle_power: Power::Off,
            root_device: BTreeMap::new(),
            place: Place {
                jurisdiction: name("de"),
                site: name("fra-1"),
                zone_tier: "official".into(),
                zone_handling: Some("sensitive".into()),
                model: Some("PowerEdge XE9680 (rev. 2)".into()),
            },
            known_uid: None,
            expected: false,
        }
    }

    pub(crate) fn deployment(id: &str) -> Deployment {
        Deployment {
            id: name(id),
            payload: Payload::Disk {
                url: "https://images.example/a.raw".into(),
                checksum: "a".repeat(64),
                algorithm: Algorithm::Sha256,
                format: DiskFormat::Raw,
            },
            power: Power::On,
            user_data: Some(SecretText::new("#cloud-config\n")),
            network_data: None,
            meta_data: None,
        }
    }

    #[test]
    fn a_host_is_labelled_with_its_place_and_model() {
        let labels = registration().place.labels();
        assert_eq!(labels[crate::LABEL_JURISDICTION], "de");
        assert_eq!(labels[crate::LABEL_ZONE_HANDLING], "sensitive");
        assert_eq!(labels[crate::LABEL_MODEL], "PowerEdge-XE9680-rev.-2");
    }

    #[test]
    fn what_the_operators_webhook_refuses_is_refused_before_it_is_sent() {
        assert_eq!(registration().check(), Ok(()));
        let no_mac = Registration { boot_mac: None, inspection: Inspection::Disabled, ..registration() };
        let bad_mac = Registration { boot_mac: Some("02:00:5e:00:00".into()), ..registration() };
        let bad_hint = Registration { root_device: [("size".into(), "1".into())].into(), ..registration() };
        for bad in [no_mac, bad_mac, bad_hint] {
            assert_eq!(bad.check().unwrap_err().code, "metal3.registration-invalid");
        }
    }

    #[test]
    fn an_image_that_could_never_be_provisioned_is_refused() {
        assert_eq!(deployment("d1").check(), Ok(()));
        let disk = |url: &str, checksum: String, algorithm| Payload::Disk {
            url: url.into(),
            checksum,
            algorithm,
            format: DiskFormat::Qcow2,
        };
        for payload in [
            disk("https://x/a.raw", "a".repeat(63), Algorithm::Sha256),
            disk("https://x/a.raw", "a".repeat(64), Algorithm::Sha512),
            disk("https://x/a.raw", "g".repeat(64), Algorithm::Sha256),
            disk("a.raw", "a".repeat(64), Algorithm::Sha256),
            Payload::LiveIso { url: "javascript:x".into() },
            Payload::Custom { method: String::new() },
        ] {
            let deployment = Deployment { payload, user_data: None, ..deployment("d1") };
            assert_eq!(deployment.check().unwrap_err().code, "metal3.image-invalid");
        }
    }

    #[test]
    fn a_live_iso_with_user_data_is_refused_since_the_operator_would_drop_them() {
        let payload = Payload::LiveIso { url: "https://x/y.iso".into() };
        let lost = Deployment { payload, ..deployment("d1") };
        assert_eq!(lost.check().unwrap_err().code, "metal3.no-config-drive");
        assert_eq!(Deployment { user_data: None, ..lost }.check(), Ok(()));
    }

    proptest! {
        #[test]
        fn whatever_a_model_is_called_its_label_is_one_that_kubernetes_takes(text in ".{0,100}") {
            if let Some(value) = label_value(&text) {
                let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
                prop_assert!((1..=63).contains(&value.len()) && value.chars().all(inner));
                prop_assert!(value.starts_with(|c: char| c.is_ascii_alphanumeric()));
                prop_assert!(value.ends_with(|c: char| c.is_ascii_alphanumeric()));
                prop_assert_eq!(label_value(&value), Some(value.clone()));
            }
        }
    }
}
