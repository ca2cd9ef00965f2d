//! What the plugin must not forget: which claim holds which devices. One file, written whole, never kept in memory: during an
//! update two plugins share it.

use super::cdi::Access;
use super::durable;
use super::error::Refusal;
use domain::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;

const VERSION: u64 = 1;

/// Claims by UID, and the boot in which that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Checkpoint {
    pub(super) boot_id: String,
    pub(super) claims: BTreeMap<String, Held>,
}

/// What a claim holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The claim's namespace.
    pub namespace: String,
    /// The claim's name.
    pub name: String,
    /// Its devices, sorted by pool and name.
    pub devices: Vec<HeldDevice>,
    /// How far it is.
    pub state: HeldState,
}

/// A device that a claim holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldDevice {
    /// Pool.
    pub pool: String,
    /// Name in the pool.
    pub device: String,
    /// UUID of the physical GPU, as NVML says it.
    pub gpu: String,
    /// Which part of it, unless it is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<Partition>,
    /// Requests of the claim that it serves.
    pub requests: Vec<String>,
    /// How it gets into containers.
    pub access: Access,
}

/// A MIG instance: a span of a GPU's memory slices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// UUID of the instance, as NVML says it.
    pub uuid: String,
    /// Its first memory slice.
    pub start: u32,
    /// Its memory slices.
    pub size: u32,
}

impl HeldDevice {
    /// Whether both are, or may be, the same hardware.
    fn overlaps(&self, other: &Self) -> bool {
        let named = self.pool == other.pool && self.device == other.device;
        let shared = match (&self.partition, &other.partition) {
            (Some(a), Some(b)) => {
                a.start < b.start.saturating_add(b.size) && b.start < a.start.saturating_add(a.size)
            }
            _ => true,
        };
        named || (self.gpu == other.gpu && shared)
    }
}

/// How far a claim is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HeldState {
    /// Containers may use its devices.
    Prepared,
    /// No container uses them any more, and nobody gets them before they are scrubbed.
    Scrubbing {
        /// Why the last attempt failed, if there was one.
        failure: Option<String>,
    },
}

/// What was found.
pub(super) enum Loaded {
    /// It is whole.
    Whole(Checkpoint),
    /// There is none.
    Absent,
    /// It cannot be believed.
    Corrupted(String),
}

impl Checkpoint {
    pub(super) fn load(path: &Path) -> io::Result<Loaded> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(parse(&bytes).map_or_else(Loaded::Corrupted, Loaded::Whole)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Loaded::Absent),
            Err(error) => Err(error),
        }
    }

    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        let content = serde_json::to_value(self)?;
        let file = json!({ "version": VERSION, "checksum": checksum(&content), "content": content });
        durable::write(path, file.to_string().as_bytes())
    }

    /// Gives devices to a claim, if nobody else holds them. Giving it the same again changes at most how they get into
    /// containers.
    pub(super) fn hold(&mut self, uid: &str, wanted: Held) -> Result<(), Refusal> {
        if let Some(held) = self.claims.get(uid) {
            held.refuse_unscrubbed(&held.devices)?;
            if held.names() != wanted.names() {
                return Err(Refusal::ClaimReallocated { held: held.names(), allocated: wanted.names() });
            }
        }
        for (holder, held) in self.claims.iter().filter(|(holder, _)| *holder != uid) {
            let Some(device) = wanted.devices.iter().find(|w| held.devices.iter().any(|h| h.overlaps(w)))
            else {
                continue;
            };
            held.refuse_unscrubbed(std::slice::from_ref(device))?;
            return Err(Refusal::DeviceHeld {
                device: device.device.clone(),
                namespace: held.namespace.clone(),
                name: held.name.clone(),
                uid: holder.clone(),
            });
        }
        self.claims.insert(uid.to_owned(), wanted);
        Ok(())
    }
}

impl Held {
    fn refuse_unscrubbed(&self, devices: &[HeldDevice]) -> Result<(), Refusal> {
        let HeldState::Scrubbing { failure } = &self.state else { return Ok(()) };
        Err(Refusal::DeviceUnscrubbed {
            device: names(devices),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            reason: failure.clone().unwrap_or_else(|| "under way".to_owned()),
        })
    }

    /// Its devices, for people and for comparing.
    pub(super) fn names(&self) -> String {
        names(&self.devices)
    }
}

fn names(devices: &[HeldDevice]) -> String {
    let names: Vec<_> = devices.iter().map(|device| format!("{}/{}", device.pool, device.device)).collect();
    names.join(", ")
}

fn parse(bytes: &[u8]) -> Result<Checkpoint, String> {
    let file: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if file["version"] != VERSION {
        return Err(format!("its version is {}, and {VERSION} is known", file["version"]));
    }
    // Over the content as it was written: fields that a later version adds do not change what an older one wrote.
    let found = checksum(&file["content"]);
    if file["checksum"] != found.as_str() {
        return Err(format!("its checksum is {}, and its content's {found}", file["checksum"]));
    }
    serde_json::from_value(file["content"].clone()).map_err(|error| error.to_string())
}

fn checksum(content: &Value) -> String {
    hex::encode(Digest::of(content.to_string().as_bytes()).bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let device = HeldDevice {
            pool: "m1".to_owned(),
            device: "gpu-1".to_owned(),
            gpu: "GPU-1".to_owned(),
            partition: None,
            requests: vec!["gpu".to_owned()],
            access: Access::Reference("nvidia.com/gpu=GPU-1".to_owned()),
        };
        let held = Held {
            namespace: "ns".to_owned(),
            name: "c".to_owned(),
            devices: vec![device],
            state: HeldState::Scrubbing { failure: Some("busy".to_owned()) },
        };
        Checkpoint { boot_id: "b".to_owned(), claims: BTreeMap::from([("u".to_owned(), held)]) }
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint.json");
        assert!(matches!(Checkpoint::load(&path).unwrap(), Loaded::Absent));
        checkpoint().save(&path).unwrap();
        let Loaded::Whole(loaded) = Checkpoint::load(&path).unwrap() else { panic!("it is whole") };
        assert_eq!(loaded, checkpoint());
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint.json");
        checkpoint().save(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert!(matches!(Checkpoint::load(&path).unwrap(), Loaded::Corrupted(_)), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(Checkpoint::load(&path).unwrap(), Loaded::Corrupted(_)), "cut at {at}");
        }
    }
}
