//! A node without a kubelet: claims, permits and scrubs that a test makes up, in directories of its own.

use bailiwick_dra::DRIVER;
use bailiwick_dra::plugin::wire::{Claim, Device};
use bailiwick_dra::plugin::{
    Access, Begin, Claims, DeviceNode, Gate, HeldDevice, Made, NotMade, Partition, Parts, Permitted,
    PermittedDevice, Placed, Preparer, PreparerOptions, Refusal, Scrub, Scrubbed,
};
use domain::agent::ScrubMethod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

pub(crate) const POOL: &str = "m1";
/// `GPU-0` and so on.
const GPUS: usize = 8;
/// Longer than any call: a slow disk is no failure.
const LONG: Duration = Duration::from_mins(1);
/// How long calls wait for scrubs and parts, in tests that hold those up.
const SHORT: Duration = Duration::from_millis(500);
const BOOT_ID: &str = "11111111-2222-3333-4444-555555555555";

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the world says; a test changes it.
#[derive(Default)]
pub(crate) struct World {
    /// Claims by name; all are in one namespace.
    pub(crate) claims: Mutex<BTreeMap<String, Value>>,
    /// Why the API server does not answer.
    pub(crate) unreachable: Mutex<Option<String>>,
    /// Why devices are refused.
    pub(crate) refused: Mutex<Option<Refusal>>,
    /// Why a part cannot be made.
    pub(crate) unmakable: Mutex<Option<String>>,
    /// The GPU of which no part can be made.
    pub(crate) unmakable_gpu: Mutex<Option<String>>,
    /// Parts of `GPU-0` are made while nobody has this.
    pub(crate) making: tokio::sync::Mutex<()>,
    /// Parts that were asked for: the GPU, the part, and what claims hold of the GPU.
    pub(crate) parts: Mutex<Vec<(String, Placed, Vec<Placed>)>>,
    /// MIG instances: the GPU, and the place.
    pub(crate) instances: Mutex<Vec<(String, Placed)>>,
    /// Why a scrub fails.
    pub(crate) stuck: Mutex<Option<String>>,
    /// Scrubs of `GPU-0`, or of parts of it, wait while somebody has this.
    pub(crate) hold: tokio::sync::Mutex<()>,
    /// Scrubs that were asked for.
    pub(crate) asked: AtomicUsize,
    /// Devices in the order of their scrubs.
    pub(crate) scrubbed: Mutex<Vec<String>>,
    /// UUIDs of the parts among them, as far as they were known.
    pub(crate) destroyed: Mutex<Vec<Option<String>>>,
    /// GPUs of which the rest was scrubbed, and what claims held of them.
    pub(crate) rests: Mutex<Vec<(String, Vec<Placed>)>>,
    /// Claims that were read.
    pub(crate) read: AtomicUsize,
}

impl Claims for World {
    fn claim<'a>(&'a self, _: &'a str, name: &'a str) -> Answer<'a, Result<Option<ResourceClaim>, String>> {
        Box::pin(async move {
            if let Some(reason) = self.unreachable.lock().unwrap().clone() {
                return Err(reason);
            }
            self.read.fetch_add(1, Ordering::Relaxed);
            let found = self.claims.lock().unwrap().get(name).cloned();
            Ok(found.map(|claim| serde_json::from_value(claim).unwrap()))
        })
    }
}

impl Gate for World {
    /// `gpu-N`, or `gpu-N-mig-START-SIZE` for a part of it.
    fn permit(&self, pool: &str, device: &str) -> Result<PermittedDevice, Refusal> {
        if let Some(refusal) = self.refused.lock().unwrap().clone() {
            return Err(refusal);
        }
        let mut parts = device.split('-').skip(1);
        let number = parts.next().filter(|_| pool == POOL);
        let unknown = || Refusal::DeviceUnknown { pool: pool.to_owned(), device: device.to_owned() };
        let number = number.ok_or_else(unknown)?;
        let mut slice = || parts.next().and_then(|part| part.parse().ok());
        let extent = if device.contains("-mig-") {
            let (_, start, size) = (slice(), slice().unwrap(), slice().unwrap());
            Permitted::Part(part(start, size))
        } else {
            Permitted::Whole(access(number))
        };
        Ok(PermittedDevice { gpu: format!("GPU-{number}"), extent })
    }
}

/// The profile of a part is ten times its size.
pub(crate) fn part(start: u32, size: u32) -> Placed {
    Placed { profile: 10 * size, start, size }
}

fn access(number: &str) -> Access {
    Access::Nodes(vec![DeviceNode { path: format!("/dev/nvidia{number}"), host_path: None }])
}

impl Parts for World {
    fn make<'a>(
        &'a self,
        gpu: &'a str,
        part: &'a Partition,
        held: &'a [Placed],
        begin: Begin,
    ) -> Answer<'a, Result<Made, NotMade>> {
        Box::pin(async move {
            let place = (gpu.to_owned(), part.placed);
            let number = gpu.trim_start_matches("GPU-");
            let uuid = format!("MIG-{number}-{}", part.placed.start);
            let there = self.instances.lock().unwrap().contains(&place);
            if there && !part.made(Some(&uuid)) {
                return Err(NotMade::Foreign(uuid));
            }
            if !there {
                begin()?;
            }
            let unmakable = self.unmakable.lock().unwrap().clone();
            if unmakable.is_none() && !there {
                self.instances.lock().unwrap().push(place);
            }
            self.parts.lock().unwrap().push((gpu.to_owned(), part.placed, held.to_vec()));
            let _making = if gpu == "GPU-0" { Some(self.making.lock().await) } else { None };
            if let Some(reason) = unmakable {
                return Err(if there { NotMade::Failed(reason) } else { NotMade::Nothing(reason) });
            }
            if self.unmakable_gpu.lock().unwrap().as_deref() == Some(gpu) {
                return Err("it is full".to_owned().into());
            }
            Ok(Made { uuid, access: access(number) })
        })
    }
}

impl Scrub for World {
    fn scrub<'a>(&'a self, device: &'a HeldDevice) -> Answer<'a, Scrubbed> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let _held = if device.gpu == "GPU-0" { Some(self.hold.lock().await) } else { None };
            let outcome = self.stuck.lock().unwrap().clone().map_or(Ok(()), Err);
            if outcome.is_ok() {
                self.scrubbed.lock().unwrap().push(device.device.clone());
                let part = device.partition.iter().map(|part| part.uuid.clone());
                self.destroyed.lock().unwrap().extend(part);
                if let Some(part) = device.partition.as_ref().filter(|part| part.begun || part.uuid.is_some())
                {
                    let place = (device.gpu.clone(), part.placed);
                    self.instances.lock().unwrap().retain(|there| *there != place);
                }
            }
            scrubbed(outcome)
        })
    }

    fn scrub_rest<'a>(&'a self, gpu: &'a str, held: &'a [Placed]) -> Answer<'a, Scrubbed> {
        Box::pin(async move {
            let outcome = self.stuck.lock().unwrap().clone().map_or(Ok(()), Err);
            if outcome.is_ok() {
                self.rests.lock().unwrap().push((gpu.to_owned(), held.to_vec()));
                self.instances.lock().unwrap().retain(|(of, place)| of != gpu || held.contains(place));
            }
            scrubbed(outcome)
        })
    }

    fn gpus(&self) -> Answer<'_, Result<Vec<String>, String>> {
        Box::pin(async { Ok((0..GPUS).map(|number| format!("GPU-{number}")).collect()) })
    }
}

fn scrubbed(outcome: Result<(), String>) -> Scrubbed {
    Scrubbed { method: ScrubMethod::Reset, ecc_before: Some(1), ecc_after: Some(0), outcome }
}

/// Files that go with the host, or that are somebody else's.
#[allow(dead_code, reason = "not every test that takes this module lends it files")]
pub(crate) enum Files {
    Own(TempDir),
    Lent(PathBuf),
}

impl Files {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Own(directory) => directory.path(),
            Self::Lent(path) => path,
        }
    }
}

pub(crate) struct Host {
    pub(crate) files: Files,
    pub(crate) world: Arc<World>,
    pub(crate) preparer: Arc<Preparer>,
}

impl Host {
    pub(crate) fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        std::fs::create_dir(files.path().join("cdi")).unwrap();
        Self::with(Files::Own(files), Arc::default(), BOOT_ID)
    }

    /// In a directory that outlives it.
    #[allow(dead_code, reason = "not every test that takes this module lends it files")]
    pub(crate) fn at(path: &Path) -> Self {
        Self::with(Files::Lent(path.to_owned()), Arc::default(), BOOT_ID)
    }

    fn with(files: Files, world: Arc<World>, boot_id: &str) -> Self {
        let preparer = preparer(files.path(), &world, Some(boot_id), [LONG, LONG]);
        Self { files, world, preparer }
    }

    /// The agent ends and starts again.
    pub(crate) fn restarted(self) -> Self {
        Self::with(self.files, self.world, BOOT_ID)
    }

    /// The agent ends, and what starts cannot tell in which boot.
    pub(crate) fn restarted_without_boot_id(self) -> Self {
        let preparer = preparer(self.files.path(), &self.world, None, [LONG, LONG]);
        Self { preparer, ..self }
    }

    /// The machine does: what is in memory is lost.
    pub(crate) fn rebooted(self) -> Self {
        std::fs::remove_dir_all(self.files.path().join("cdi")).unwrap();
        std::fs::create_dir(self.files.path().join("cdi")).unwrap();
        self.world.instances.lock().unwrap().clear();
        Self::with(self.files, self.world, "99999999-2222-3333-4444-555555555555")
    }

    /// Another agent of the same node.
    pub(crate) fn another(&self) -> Arc<Preparer> {
        preparer(self.files.path(), &self.world, Some(BOOT_ID), [LONG, LONG])
    }

    /// Another one, which does not wait long for scrubs and parts that a test holds up.
    pub(crate) fn hurried(&self) -> Arc<Preparer> {
        preparer(self.files.path(), &self.world, Some(BOOT_ID), [SHORT, LONG])
    }

    /// Another one, which waits for locks no longer than this.
    pub(crate) fn impatient(&self, lock_patience: Duration) -> Arc<Preparer> {
        preparer(self.files.path(), &self.world, Some(BOOT_ID), [LONG, lock_patience])
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.files.path().join("state/checkpoint.json")
    }

    pub(crate) fn cdi(&self, claim: &str) -> PathBuf {
        self.files.path().join(format!("cdi/{DRIVER}-claim_uid-{claim}.json"))
    }

    /// A claim in the API server, with these devices.
    pub(crate) fn allocate(&self, claim: &str, devices: &[&str]) {
        let result =
            |device: &&str| json!({ "request": "gpu", "driver": DRIVER, "pool": POOL, "device": device });
        let results: Vec<_> = devices.iter().map(result).collect();
        let object = json!({
            "metadata": { "name": claim, "namespace": "ns", "uid": format!("uid-{claim}") }, "spec": {},
            "status": { "allocation": { "devices": { "results": results } } },
        });
        self.world.claims.lock().unwrap().insert(claim.to_owned(), object);
    }

    pub(crate) fn delete(&self, claim: &str) {
        self.world.claims.lock().unwrap().remove(claim);
    }

    pub(crate) async fn prepare(&self, claim: &str) -> Result<Vec<Device>, Refusal> {
        prepare(&self.preparer, claim).await
    }

    pub(crate) async fn unprepare(&self, claim: &str) -> Result<(), Refusal> {
        unprepare(&self.preparer, claim).await
    }

    /// Names of the claims that hold something.
    pub(crate) async fn held(&self) -> Vec<String> {
        self.preparer.held().await.unwrap().into_iter().map(|(_, held)| held.name).collect()
    }
}

fn preparer(
    files: &Path,
    world: &Arc<World>,
    boot_id: Option<&str>,
    [patience, lock_patience]: [Duration; 2],
) -> Arc<Preparer> {
    let options = PreparerOptions {
        state_dir: files.join("state"),
        cdi_dir: files.join("cdi"),
        boot_id: boot_id.map(str::to_owned),
        patience,
        lock_patience,
    };
    let [claims, gate, parts, scrub] = std::array::from_fn(|_| Arc::clone(world));
    Preparer::new(&options, claims, gate, parts, scrub).unwrap()
}

pub(crate) async fn prepare(preparer: &Arc<Preparer>, claim: &str) -> Result<Vec<Device>, Refusal> {
    let mut answer = preparer.prepare(vec![asked(claim)]).await;
    answer.remove(&asked(claim).uid).unwrap()
}

pub(crate) async fn unprepare(preparer: &Arc<Preparer>, claim: &str) -> Result<(), Refusal> {
    let mut answer = preparer.unprepare(vec![asked(claim)]).await;
    answer.remove(&asked(claim).uid).unwrap()
}

/// Until it is so.
pub(crate) async fn until(what: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while !what() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) fn asked(claim: &str) -> Claim {
    Claim { namespace: "ns".to_owned(), uid: format!("uid-{claim}"), name: claim.to_owned() }
}

pub(crate) fn code<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> &'static str {
    answer.unwrap_err().code()
}
