//! CDI specifications: one file a claim, read by the container runtime (CDI SPEC.md 0.7; no field here is younger than 0.6).
//!
//! Runtimes cache what they read, so a name is never used twice: it holds the claim's UID.

use super::checkpoint::{Held, HeldDevice};
use super::durable;
use crate::DRIVER;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The first version with `annotations`.
const CDI_VERSION: &str = "0.6.0";
const ANNOTATION: &str = "gpu.bailiwick.dev/claim";

/// How a device gets into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Access {
    /// By its nodes below `/dev`.
    Nodes(Vec<DeviceNode>),
    /// By a CDI device that somebody else describes, as `nvidia-ctk cdi generate` does: `nvidia.com/gpu=GPU-…`.
    Reference(String),
}

/// A node below `/dev`. The runtime finds type and numbers by looking at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceNode {
    /// Path in the container.
    pub path: String,
    /// Path on the host, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    cdi_version: String,
    kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    devices: Vec<Device>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    container_edits: Edits,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Edits {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    device_nodes: Vec<DeviceNode>,
}

/// Names of the CDI devices that bring a device of a claim into a container.
pub(super) fn device_ids(uid: &str, device: &HeldDevice) -> Vec<String> {
    let ours = format!("{DRIVER}/claim={}", device_name(uid, device));
    match &device.access {
        Some(Access::Reference(theirs)) => vec![ours, theirs.clone()],
        Some(Access::Nodes(_)) | None => vec![ours],
    }
}

fn device_name(uid: &str, device: &HeldDevice) -> String {
    format!("{uid}-{}", device.device)
}

/// The directory that the runtime reads.
#[derive(Clone, Debug)]
pub(super) struct CdiDirectory(pub(super) PathBuf);

impl CdiDirectory {
    pub(super) fn path(&self, uid: &str) -> PathBuf {
        self.0.join(format!("{}{uid}.json", prefix()))
    }

    /// Writes the specification of a claim, unless it is there already.
    pub(super) fn write(&self, uid: &str, held: &Held) -> io::Result<()> {
        let path = self.path(uid);
        let content = spec(uid, held)?;
        if std::fs::read(&path).is_ok_and(|found| found == content) {
            return Ok(());
        }
        durable::write(&path, &content)
    }

    /// Writes the specification of a claim anew, if it is there.
    pub(super) fn update(&self, uid: &str, held: &Held) -> io::Result<()> {
        if self.path(uid).try_exists()? { self.write(uid, held) } else { Ok(()) }
    }

    pub(super) fn remove(&self, uid: &str) -> io::Result<()> {
        durable::remove(&self.path(uid))
    }

    /// What the specifications that are there say of claims: for when the checkpoint is lost. A file that cannot be read
    /// is told by its path.
    pub(super) fn claims(&self) -> io::Result<(BTreeMap<String, Held>, Vec<PathBuf>)> {
        let (mut claims, mut unreadable) = (BTreeMap::new(), Vec::new());
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let Some(uid) =
                name.to_str().and_then(|name| name.strip_prefix(&prefix())?.strip_suffix(".json"))
            else {
                continue;
            };
            match read(&path) {
                Some(held) => drop(claims.insert(uid.to_owned(), held)),
                None => unreadable.push(path),
            }
        }
        Ok((claims, unreadable))
    }
}

fn prefix() -> String {
    format!("{DRIVER}-claim_")
}

fn read(path: &Path) -> Option<Held> {
    let spec: Spec = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    serde_json::from_str(spec.annotations.get(ANNOTATION)?).ok()
}

fn spec(uid: &str, held: &Held) -> io::Result<Vec<u8>> {
    let device = |device: &HeldDevice| Device {
        name: device_name(uid, device),
        container_edits: Edits {
            env: environment(device),
            device_nodes: match &device.access {
                Some(Access::Nodes(nodes)) => nodes.clone(),
                Some(Access::Reference(_)) | None => Vec::new(),
            },
        },
    };
    let spec = Spec {
        cdi_version: CDI_VERSION.to_owned(),
        kind: format!("{DRIVER}/claim"),
        // What the checkpoint says of it, so that this can be made anew.
        annotations: BTreeMap::from([(ANNOTATION.to_owned(), serde_json::to_string(held)?)]),
        devices: held.devices.iter().map(device).collect(),
    };
    let mut content = serde_json::to_vec_pretty(&spec)?;
    content.push(b'\n');
    Ok(content)
}

/// One variable a device, for a container may get several. `void` keeps a legacy NVIDIA runtime from handing out all GPUs
/// of the node to images that ask for them.
fn environment(device: &HeldDevice) -> Vec<String> {
    let name = device.device.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let part = device.partition.as_ref().and_then(|partition| partition.uuid.as_ref());
    let mut environment = vec![format!("BAILIWICK_{name}={}", part.unwrap_or(&device.gpu))];
    if matches!(device.access, Some(Access::Nodes(_))) {
        environment.push("NVIDIA_VISIBLE_DEVICES=void".to_owned());
    }
    environment
}
