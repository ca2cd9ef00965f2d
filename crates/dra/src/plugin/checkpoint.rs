//! What the plugin must not forget: which claim holds which devices. One file, written whole, never kept in memory: during an
//! update two plugins share it.

use super::cdi::Access;
use super::durable;
use super::error::Refusal;
use super::parts::{Made, Placed};
use domain::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::Path;

const VERSION: u64 = 1;

/// Claims by UID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Checkpoint {
    pub(super) claims: BTreeMap<String, Held>,
    /// Set once the checkpoint was lost, for good: a GPU that is not here now may come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lost: Option<Lost>,
}

/// What claims held was lost, and made anew from specifications. Those are in memory, so what they do not tell may have been held all the
/// same, by a claim whose traces are not gone. A GPU is accounted for again once all of it was scrubbed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lost {
    /// UUIDs of the GPUs of which all was scrubbed since.
    pub(super) scrubbed: BTreeSet<String>,
    /// Why others could not be.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) failures: BTreeMap<String, String>,
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
    /// The boot in which it was last prepared, if that could be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
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
    /// How it gets into containers; `None` for a part that is not made yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
}

/// A MIG instance, or the place for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// What of the GPU it takes.
    #[serde(flatten)]
    pub placed: Placed,
    /// UUID of the instance that was made, as NVML says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Whether one may have been made since of which that is not known yet. Set when the place was seen to be free, and before anything
    /// is made there.
    pub begun: bool,
}

impl Partition {
    /// A place at which nothing of ours was made.
    pub fn of(placed: Placed) -> Self {
        Self { placed, uuid: None, begun: false }
    }

    /// Whether an instance that stands at the place is of our making, in this boot: the driver gives what is made there anew the same
    /// UUID. One without a UUID is empty: half made, or half destroyed.
    pub fn made(&self, found: Option<&str>) -> bool {
        self.begun || (self.uuid.is_some() && found.is_none_or(|found| self.uuid.as_deref() == Some(found)))
    }
}

impl HeldDevice {
    /// What of its GPU it takes, unless it is all.
    pub(super) fn placed(&self) -> Option<Placed> {
        self.partition.as_ref().map(|partition| partition.placed)
    }

    /// Whether both are, or may be, the same hardware.
    fn overlaps(&self, other: &Self) -> bool {
        let named = self.pool == other.pool && self.device == other.device;
        let shared = match (self.placed(), other.placed()) {
            (Some(a), Some(b)) => a.overlaps(b),
            _ => true,
        };
        named || (self.gpu == other.gpu && shared)
    }

    /// Whether both are the same hardware under the same name.
    fn is(&self, other: &Self) -> bool {
        let key = |device: &Self| (device.pool.clone(), device.device.clone(), device.gpu.clone());
        key(self) == key(other) && self.placed() == other.placed()
    }

    fn set_made(&mut self, made: Made) {
        if let Some(partition) = &mut self.partition {
            partition.uuid = Some(made.uuid);
            partition.begun = false;
            self.access = Some(made.access);
        }
    }
}

/// How far a claim is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HeldState {
    /// Its parts are being made, or one could not be. No container uses any of its devices.
    Preparing,
    /// Containers may use its devices.
    Prepared,
    /// No container uses them any more, and nobody gets them before they are scrubbed.
    Scrubbing {
        /// Why the last attempt failed, if there was one.
        failure: Option<String>,
    },
}

/// What stands in the file before its content. The checksum is over the content as it was written, letter by letter: fields that a later
/// version adds do not change what an older one wrote.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u64,
    checksum: String,
}

/// Where the content begins.
const CONTENT: &str = ",\"content\":";

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
        let content = serde_json::to_string(self)?;
        let head = serde_json::to_string(&Head { version: VERSION, checksum: checksum(&content) })?;
        let head = head.trim_end_matches('}');
        durable::write(path, format!("{head}{CONTENT}{content}}}").as_bytes())
    }

    /// Gives devices to a claim, if nobody else holds them. Giving it the same again changes at most how they get into
    /// containers; parts that were made in this boot stay known as made.
    pub(super) fn hold(&mut self, uid: &str, mut wanted: Held) -> Result<Held, Refusal> {
        if let Some(held) = self.claims.get(uid) {
            held.refuse_unscrubbed(&held.devices)?;
            if !held.holds(&wanted) {
                return Err(Refusal::ClaimReallocated { held: held.names(), allocated: wanted.names() });
            }
            // No MIG instance outlives its boot.
            if !held.is_of_earlier_boot(wanted.boot_id.as_deref()) {
                wanted.keep_made(held);
            }
        }
        for (holder, held) in self.claims.iter().filter(|(holder, _)| *holder != uid) {
            let Some(device) = wanted.devices.iter().find(|w| held.devices.iter().any(|h| h.overlaps(w)))
            else {
                continue;
            };
            held.refuse_unscrubbed(std::slice::from_ref(device))?;
            return Err(held.refused(device, holder));
        }
        for (at, device) in wanted.devices.iter().enumerate() {
            if wanted.devices[..at].iter().any(|other| other.overlaps(device)) {
                return Err(wanted.refused(device, uid));
            }
        }
        if !self.claims.contains_key(uid) {
            self.refuse_unaccounted(&wanted.devices)?;
        }
        self.claims.insert(uid.to_owned(), wanted.clone());
        Ok(wanted)
    }

    fn refuse_unaccounted(&self, devices: &[HeldDevice]) -> Result<(), Refusal> {
        let Some(lost) = &self.lost else { return Ok(()) };
        match devices.iter().find(|device| !lost.scrubbed.contains(&device.gpu)) {
            None => Ok(()),
            Some(device) => Err(Refusal::DeviceUnaccounted {
                device: device.device.clone(),
                reason: lost.failures.get(&device.gpu).cloned().unwrap_or_else(|| "under way".to_owned()),
            }),
        }
    }

    /// Whether nobody knows whether somebody had something of this GPU. One that a claim holds whole is scrubbed after that.
    pub(super) fn is_unaccounted(&self, gpu: &str) -> bool {
        let whole = |device: &HeldDevice| device.gpu == gpu && device.partition.is_none();
        self.lost.as_ref().is_some_and(|lost| !lost.scrubbed.contains(gpu))
            && !self.claims.values().flat_map(|held| &held.devices).any(whole)
    }

    /// All of a GPU was scrubbed, or could not be.
    pub(super) fn account(&mut self, gpu: &str, scrubbed: Result<(), String>) {
        let Some(lost) = &mut self.lost else { return };
        match scrubbed {
            Ok(()) => {
                lost.failures.remove(gpu);
                lost.scrubbed.insert(gpu.to_owned());
            }
            Err(reason) => drop(lost.failures.insert(gpu.to_owned(), reason)),
        }
    }

    /// A claim that still holds the same, and is not being given back: what is known of it now.
    pub(super) fn in_use(&self, uid: &str, same: &Held) -> Result<&Held, Refusal> {
        let held = self.claims.get(uid).filter(|held| held.holds(same)).ok_or(Refusal::ClaimReleased)?;
        held.refuse_unscrubbed(&held.devices)?;
        Ok(held)
    }

    /// One of a claim's parts, by its place in it, is made from now on.
    pub(super) fn begin(&mut self, uid: &str, at: usize) -> Result<(), Refusal> {
        let device = self.claims.get_mut(uid).and_then(|held| held.devices.get_mut(at));
        let partition = device.and_then(|device| device.partition.as_mut()).ok_or(Refusal::ClaimReleased)?;
        partition.begun = true;
        Ok(())
    }

    /// One of a claim's parts, by its place in it, was not made, and nothing stands there.
    pub(super) fn unmade(&mut self, uid: &str, at: usize) {
        let device = self.claims.get_mut(uid).and_then(|held| held.devices.get_mut(at));
        if let Some(partition) = device.and_then(|device| device.partition.as_mut()) {
            partition.begun = false;
        }
    }

    /// Which of a claim's devices, by their place in it, were made; and whether it is prepared with that.
    pub(super) fn record(&mut self, uid: &str, made: Vec<(usize, Made)>, prepared: bool) -> Option<Held> {
        let held = self.claims.get_mut(uid)?;
        for (at, made) in made {
            held.devices.get_mut(at)?.set_made(made);
        }
        if prepared {
            held.state = HeldState::Prepared;
        }
        Some(held.clone())
    }

    /// What claims hold of a GPU in parts.
    pub(super) fn placed(&self, gpu: &str) -> Vec<Placed> {
        let devices = self.claims.values().flat_map(|held| &held.devices);
        devices.filter(|device| device.gpu == gpu).filter_map(HeldDevice::placed).collect()
    }
}

impl Held {
    /// Whether it was prepared in this boot, for certain.
    pub(super) fn is_of_boot(&self, boot_id: Option<&str>) -> bool {
        boot_id.is_some() && self.boot_id.as_deref() == boot_id
    }

    /// Whether it was prepared in another boot than this, for certain: then no container of it lives.
    pub(super) fn is_of_earlier_boot(&self, boot_id: Option<&str>) -> bool {
        let both = self.boot_id.as_deref().zip(boot_id);
        both.is_some_and(|(then, now)| then != now)
    }

    /// What of it stands in this boot: no MIG instance outlives its own. One at the place of a part that was made before is somebody
    /// else's, though the driver gives it the same UUID.
    pub(super) fn in_boot(mut self, boot_id: Option<&str>) -> Self {
        if self.is_of_earlier_boot(boot_id) {
            for partition in self.devices.iter_mut().filter_map(|device| device.partition.as_mut()) {
                *partition = Partition::of(partition.placed);
            }
        }
        self
    }

    /// Whether any of it is a part of a GPU.
    pub(super) fn has_parts(&self) -> bool {
        self.devices.iter().any(|device| device.partition.is_some())
    }

    /// Whether it holds exactly the same hardware under the same names.
    fn holds(&self, other: &Self) -> bool {
        self.devices.len() == other.devices.len()
            && self.devices.iter().zip(&other.devices).all(|(ours, theirs)| ours.is(theirs))
    }

    /// No container uses it any more.
    pub(super) fn give_back(&mut self) {
        if !matches!(self.state, HeldState::Scrubbing { .. }) {
            self.state = HeldState::Scrubbing { failure: None };
        }
    }

    /// Takes over what is known of parts that were made.
    fn keep_made(&mut self, before: &Self) {
        for (device, before) in self.devices.iter_mut().zip(&before.devices) {
            if device.partition.is_some() {
                device.partition.clone_from(&before.partition);
                device.access.clone_from(&before.access);
            }
        }
        if self.state == HeldState::Preparing {
            self.state = before.state.clone();
        }
    }

    fn refused(&self, device: &HeldDevice, uid: &str) -> Refusal {
        Refusal::DeviceHeld {
            device: device.device.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: uid.to_owned(),
        }
    }

    pub(super) fn refuse_unscrubbed(&self, devices: &[HeldDevice]) -> Result<(), Refusal> {
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
    let told = |error: serde_json::Error| error.to_string();
    let file = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let parts = file.strip_suffix('}').and_then(|file| file.split_once(CONTENT));
    let (head, content) = parts.ok_or("it is cut off, or was never one")?;
    let head: Head = serde_json::from_str(&format!("{head}}}")).map_err(told)?;
    if head.version != VERSION {
        return Err(format!("its version is {}, and {VERSION} is known", head.version));
    }
    let found = checksum(content);
    if head.checksum != found {
        return Err(format!("its checksum is {}, and its content's {found}", head.checksum));
    }
    serde_json::from_str(content).map_err(told)
}

fn checksum(content: &str) -> String {
    hex::encode(Digest::of(content.as_bytes()).bytes())
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
            access: Some(Access::Reference("nvidia.com/gpu=GPU-1".to_owned())),
        };
        let held = Held {
            namespace: "ns".to_owned(),
            name: "c".to_owned(),
            devices: vec![device],
            state: HeldState::Scrubbing { failure: Some("busy".to_owned()) },
            boot_id: Some("b".to_owned()),
        };
        Checkpoint { claims: BTreeMap::from([("u".to_owned(), held)]), lost: None }
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
    fn what_a_later_version_adds_is_no_damage() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint.json");
        let mut content = serde_json::to_value(checkpoint()).unwrap();
        content["later"] = true.into();
        let file = serde_json::json!({ "version": VERSION, "checksum": checksum(&content.to_string()), "content": content });
        std::fs::write(&path, file.to_string()).unwrap();
        let Loaded::Whole(loaded) = Checkpoint::load(&path).unwrap() else { panic!("it is whole") };
        assert_eq!(loaded, checkpoint());
    }

    #[test]
    fn an_instance_is_ours_by_the_uuid_that_was_made_or_where_a_make_has_begun() {
        let nothing = Partition::of(Placed { profile: 14, start: 2, size: 2 });
        let made = Partition { uuid: Some("MIG-1".into()), ..nothing.clone() };
        assert!(made.made(Some("MIG-1")) && !made.made(Some("MIG-2")) && !nothing.made(Some("MIG-1")));
        assert!(Partition { begun: true, ..nothing }.made(Some("MIG-1")));
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
