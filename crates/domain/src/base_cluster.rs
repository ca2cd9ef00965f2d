//! Base clusters: the Kubernetes clusters on a cell's own metal, and how a machine becomes a node of one (DESIGN §5.5).

use crate::declaration::{SecretRef, Zone};
use crate::name::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Kubernetes cluster that machines of one site and zone become nodes of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaseClusterSpec {
    /// The legal territory of its nodes: its site lies in it.
    pub jurisdiction: Name,
    /// The Site of its machines.
    pub site: Name,
    /// Classification of its machines; the site's where absent. A machine of another zone is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// Kubernetes version of its kubelets, such as `1.36.3`.
    #[schemars(regex(pattern = r"^v?1\.[0-9]+\.[0-9]+$"))]
    pub kubernetes_version: String,
    /// Who runs its control plane.
    pub control_plane: ControlPlane,
    /// The address at which nodes reach its API server: `https://host:port`.
    pub endpoint: String,
    /// A kubeconfig with which the cell makes tokens, approves certificates, and labels nodes. Not needed with Cluster API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<SecretRef>,
    /// How a machine joins it.
    pub join: Join,
    /// What is written to its machines, or what they boot.
    pub image: Image,
    /// Whose DRA driver gives its GPUs out.
    #[serde(default, skip_serializing_if = "GpuDriver::is_ours")]
    pub gpu_driver: GpuDriver,
    /// How long a machine's bootstrap token lives, in minutes.
    #[serde(default = "BaseClusterSpec::default_token_minutes")]
    #[schemars(range(min = 1, max = 1440))]
    pub token_minutes: u16,
}

impl BaseClusterSpec {
    fn default_token_minutes() -> u16 {
        60
    }

    /// Whether Cluster API, and not the cell, makes its machines nodes.
    pub fn uses_cluster_api(&self) -> bool {
        matches!(self.join, Join::ClusterApi)
    }
}

/// Whose DRA driver gives the GPUs of a base cluster out.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum GpuDriver {
    /// Ours, `gpu.bailiwick.dev`: the cell writes the slices, and agents hand devices out against its permits.
    #[default]
    Bailiwick,
    /// NVIDIA's, `gpu.nvidia.com`: it writes slices of its own; the cell writes classes and taint rules for its devices, and nobody
    /// asks for a permit.
    Nvidia,
}

impl GpuDriver {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn is_ours(&self) -> bool {
        *self == Self::Bailiwick
    }
}

/// Who runs the control plane of a base cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlPlane {
    /// Somebody else: the cell adds workers only.
    External,
    /// So many of its machines, set up by Cluster API.
    Machines {
        /// How many: odd, since etcd votes.
        #[schemars(range(min = 1, max = 9))]
        count: u8,
    },
}

/// How a machine becomes a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Join {
    /// `kubeadm join` with a bootstrap token, the CA pinned.
    Kubeadm,
    /// The RKE2 agent with a bootstrap token, the CA pinned.
    Rke2,
    /// User data of one's own. `docs/how-to/provision-machines.md` lists what is replaced in it.
    Template {
        /// The user data: a cloud-config, a script, or whatever the image reads.
        #[serde(rename = "userData")]
        user_data: String,
    },
    /// Cluster API and its Metal3 provider: the cell keeps the machines available and labelled, and renders the objects.
    ClusterApi,
}

/// What a machine of a base cluster runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Image {
    /// Written to the root disk by the provisioning service's agent.
    Disk {
        /// Where the provisioning service fetches it.
        url: String,
        /// SHA-256 or SHA-512 of the image file, in hexadecimal: the length tells which.
        #[schemars(regex(pattern = r"^([0-9a-f]{64}|[0-9a-f]{128})$"))]
        checksum: String,
        /// Format of the file.
        format: DiskFormat,
    },
    /// Booted from virtual media each time; nothing is written to a disk.
    Live {
        /// Where the provisioning service fetches the ISO 9660 image.
        iso: String,
    },
}

/// Algorithms of checksums that are good enough for an image that is trusted with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Formats of disk images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// A disk, byte for byte.
    Raw,
    /// QEMU copy-on-write.
    Qcow2,
}

impl Image {
    /// The algorithm of a checksum, by its length.
    pub fn hash_algorithm(checksum: &str) -> Option<HashAlgorithm> {
        let is_hex = checksum.bytes().all(|byte| byte.is_ascii_hexdigit());
        match checksum.len() {
            64 if is_hex => Some(HashAlgorithm::Sha256),
            128 if is_hex => Some(HashAlgorithm::Sha512),
            _ => None,
        }
    }
}
