//! What is to be put on a node.

use domain::base_cluster;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::secret::Secret;

/// One instance on one node. A new attempt is a new instance: an `instance_uuid` is deployed once at most.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// The instance. Derive it from machine and attempt ([`instance_uuid`]), so that it survives a crash.
    pub instance_uuid: Uuid,
    /// What is written or booted.
    pub kind: DeployKind,
    /// Which disk is written; the agent's choice (the smallest of more than 4 GiB) without.
    pub root_device: RootDevice,
    /// What the instance finds out about itself.
    pub config_drive: Option<ConfigDrive>,
}

/// The instance of one attempt, the same each time it is asked for.
pub fn instance_uuid(cell: &str, machine: &str, attempt: u32) -> Uuid {
    const SPACE: Uuid = Uuid::from_u128(0x7d0b_5a70_54f1_4f5f_9c8e_21a6_b7e1_0c33);
    Uuid::new_v5(&SPACE, format!("{cell}\n{machine}\n{attempt}").as_bytes())
}

/// How it gets there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeployKind {
    /// The agent writes an image to a disk (deploy interface `direct`).
    Direct(Image),
    /// The machine boots an ISO image by virtual media and runs from it (deploy interface `ramdisk`).
    Ramdisk {
        /// URL of the ISO image, as the conductor reaches it.
        boot_iso: String,
    },
    /// By another deploy interface, with what it needs.
    Other {
        /// Its name: `custom-agent`, `anaconda`, `fake`, …
        interface: String,
        /// `instance_info`.
        info: Map<String, Value>,
    },
}

impl From<&base_cluster::Image> for DeployKind {
    /// What a base cluster declares. A checksum of no known length is refused when it is declared.
    fn from(image: &base_cluster::Image) -> Self {
        match image {
            base_cluster::Image::Live { iso } => Self::Ramdisk { boot_iso: iso.clone() },
            base_cluster::Image::Disk { url, checksum, format } => Self::Direct(Image {
                source: url.clone(),
                hash_algorithm: match base_cluster::Image::hash_algorithm(checksum) {
                    Some(base_cluster::HashAlgorithm::Sha512) => HashAlgorithm::Sha512,
                    _ => HashAlgorithm::Sha256,
                },
                hash: checksum.clone(),
                disk_format: match format {
                    base_cluster::DiskFormat::Raw => DiskFormat::Raw,
                    base_cluster::DiskFormat::Qcow2 => DiskFormat::Qcow2,
                },
            }),
        }
    }
}

/// A disk image with its checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// URL, as conductor and agent reach it.
    pub source: String,
    /// The checksum's algorithm.
    pub hash_algorithm: HashAlgorithm,
    /// The checksum in hexadecimal digits.
    pub hash: String,
    /// Its format.
    pub disk_format: DiskFormat,
}

/// Checksums that are good enough for an image that is trusted with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Formats that the agent writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// As it lies on the disk.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl HashAlgorithm {
    fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

impl DiskFormat {
    fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// Which disk: all that is given must hold (doc/source/install/advanced.rst, root device hints).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootDevice {
    /// `/dev/…`; not stable over boots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// World wide name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Maker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Host, channel, target, lun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hctl: Option<String>,
    /// A path of `/dev/disk/by-path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_path: Option<String>,
    /// At least so many GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_size_gib: Option<u64>,
    /// Whether it turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotational: Option<bool>,
}

impl RootDevice {
    /// As Ironic takes it; `None` without any hint.
    fn hints(&self) -> Option<Value> {
        let texts = [
            ("name", &self.name),
            ("serial", &self.serial),
            ("wwn", &self.wwn),
            ("model", &self.model),
            ("vendor", &self.vendor),
            ("hctl", &self.hctl),
            ("by_path", &self.by_path),
        ];
        let mut hints: Map<String, Value> = texts
            .into_iter()
            // `s==` compares as text, whatever the value looks like.
            .filter_map(|(key, value)| Some((key.to_owned(), json!(format!("s== {}", value.as_ref()?)))))
            .collect();
        if let Some(size) = self.min_size_gib {
            hints.insert("size".to_owned(), json!(format!(">= {size}")));
        }
        if let Some(rotational) = self.rotational {
            hints.insert("rotational".to_owned(), json!(rotational));
        }
        (!hints.is_empty()).then_some(Value::Object(hints))
    }
}

/// What cloud-init or ignition on the instance reads (docs of OpenStack's config drive). User data holds join tokens, so
/// `Debug` does not show it.
#[derive(Clone, PartialEq)]
pub struct ConfigDrive {
    /// `meta_data.json`: `uuid`, `name`, `hostname`, …
    pub meta_data: Map<String, Value>,
    /// `user_data`.
    pub user_data: Option<Secret>,
    /// `network_data.json`.
    pub network_data: Option<Map<String, Value>>,
}

impl ConfigDrive {
    pub(crate) fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("meta_data".to_owned(), Value::Object(self.meta_data.clone()));
        if let Some(user_data) = &self.user_data {
            body.insert("user_data".to_owned(), json!(user_data.reveal()));
        }
        if let Some(network_data) = &self.network_data {
            body.insert("network_data".to_owned(), Value::Object(network_data.clone()));
        }
        Value::Object(body)
    }
}

impl std::fmt::Debug for ConfigDrive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigDrive").finish_non_exhaustive()
    }
}

impl Deployment {
    /// The deploy interface that it needs.
    pub fn deploy_interface(&self) -> &str {
        match &self.kind {
            DeployKind::Direct(_) => "direct",
            DeployKind::Ramdisk { .. } => "ramdisk",
            DeployKind::Other { interface, .. } => interface,
        }
    }

    /// `instance_info`.
    pub(crate) fn instance_info(&self) -> Map<String, Value> {
        let mut info = Map::new();
        let mut put = |key: &str, value: Value| info.insert(key.to_owned(), value);
        match &self.kind {
            DeployKind::Direct(image) => {
                put("image_source", json!(image.source));
                put("image_os_hash_algo", json!(image.hash_algorithm.as_str()));
                put("image_os_hash_value", json!(image.hash.to_ascii_lowercase()));
                put("image_disk_format", json!(image.disk_format.as_str()));
                put("image_type", json!("whole-disk"));
                if let Some(hints) = self.root_device.hints() {
                    put("root_device", hints);
                }
            }
            DeployKind::Ramdisk { boot_iso } => {
                put("boot_iso", json!(boot_iso));
            }
            DeployKind::Other { info: other, .. } => info.clone_from(other),
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_has_one_instance_and_every_attempt_another() {
        assert_eq!(instance_uuid("eu", "m1", 1), instance_uuid("eu", "m1", 1));
        let others = [("eu", "m1", 2), ("eu", "m2", 1), ("de", "m1", 1)];
        for (cell, machine, attempt) in others {
            assert_ne!(instance_uuid("eu", "m1", 1), instance_uuid(cell, machine, attempt));
        }
    }

    #[test]
    fn root_device_hints_compare_texts_as_texts() {
        let device =
            RootDevice { serial: Some(">= 5".to_owned()), min_size_gib: Some(100), ..RootDevice::default() };
        assert_eq!(device.hints(), Some(json!({"serial": "s== >= 5", "size": ">= 100"})));
        assert_eq!(RootDevice::default().hints(), None);
    }

    #[test]
    fn user_data_is_not_shown() {
        let drive = ConfigDrive {
            meta_data: Map::new(),
            user_data: Some(Secret::new("token=hunter2")),
            network_data: None,
        };
        assert!(!format!("{drive:?}").contains("hunter2"));
        assert_eq!(drive.body()["user_data"], "token=hunter2");
    }
}
