//! Prepares claims and takes them back. Every call may be repeated, and the process may be killed anywhere in it.
//!
//! Preparing first writes the checkpoint, then makes parts if there are any, and writes the checkpoint before and after each of
//! them is made, then the CDI specification: what containers can reach, and what was made for them, is always known to be held, and
//! what others made is told from it. Giving back writes `scrubbing` first, scrubs, removes the specification, and takes the claim out of the checkpoint last.

use super::cdi::{Access, device_ids};
use super::checkpoint::{Held, HeldDevice, HeldState, Partition};
use super::claim::{AllocatedDevice, allocated};
use super::error::{PluginError, Refusal};
use super::parts::{Begin, Made, NotMade, Parts, Placed};
use super::release::Orphan;
use super::scrub::Scrub;
use super::store::{Lock, Store};
use super::wire;
use domain::agent::ScrubRecord;
use futures_util::future::{BoxFuture, join_all};
use k8s_openapi::api::resource::v1::ResourceClaim;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How often a GPU that another call makes parts of, or scrubs, is tried.
const RETRY: Duration = Duration::from_millis(50);

/// Reads ResourceClaims from the API server.
pub trait Claims: Send + Sync + 'static {
    /// The claim of this name, if there is one; otherwise why nobody can tell.
    fn claim<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<ResourceClaim>, String>>;
}

/// Decides whether a device may be handed out now: it is known here, there is a live permit, and its gate is open.
pub trait Gate: Send + Sync + 'static {
    /// What to hand out; or [`Refusal::DeviceUnknown`], [`Refusal::NoPermit`], [`Refusal::GateClosed`]. Asked while nobody else
    /// can be given anything, so it must not wait.
    fn permit(&self, pool: &str, device: &str) -> Result<PermittedDevice, Refusal>;
}

/// A device that may be handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermittedDevice {
    /// UUID of the physical GPU, as NVML says it.
    pub gpu: String,
    /// How much of it.
    pub extent: Permitted,
}

/// How much of a GPU may be handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permitted {
    /// All of it, which gets into containers like this.
    Whole(Access),
    /// A part of it, which may not be made yet.
    Part(Placed),
}

/// Where a preparer keeps its files, and how it behaves.
#[derive(Clone, Debug)]
pub struct PreparerOptions {
    /// The checkpoint's directory, on a disk: `/var/lib/kubelet/plugins/gpu.bailiwick.dev`. Made if missing.
    pub state_dir: PathBuf,
    /// Where the container runtime looks for CDI specifications: `/var/run/cdi`. Not made: the runtime would not see it.
    pub cdi_dir: PathBuf,
    /// `/proc/sys/kernel/random/boot_id`, if it can be read.
    pub boot_id: Option<String>,
    /// How long a call waits for a scrub, or for parts of GPUs. The kubelet waits 45 s.
    pub patience: Duration,
    /// How long it waits for others to have written the checkpoint.
    pub lock_patience: Duration,
}

/// Prepares claims and takes them back.
pub struct Preparer {
    pub(super) store: Store,
    pub(super) claims: Arc<dyn Claims>,
    pub(super) gate: Arc<dyn Gate>,
    pub(super) parts: Arc<dyn Parts>,
    pub(super) scrub: Arc<dyn Scrub>,
    pub(super) patience: Duration,
    pub(super) changed: watch::Sender<()>,
    pub(super) orphans: watch::Sender<Vec<Orphan>>,
}

pub(super) type Outcome<T> = Result<T, Refusal>;

impl Preparer {
    /// Makes the directory of the checkpoint if it is missing.
    pub fn new(
        options: &PreparerOptions,
        claims: Arc<dyn Claims>,
        gate: Arc<dyn Gate>,
        parts: Arc<dyn Parts>,
        scrub: Arc<dyn Scrub>,
    ) -> Result<Arc<Self>, PluginError> {
        let (state, cdi, boot_id) = (&options.state_dir, &options.cdi_dir, options.boot_id.as_deref());
        Ok(Arc::new(Self {
            store: Store::new(state, cdi, boot_id, options.lock_patience)?,
            claims,
            gate,
            parts,
            scrub,
            patience: options.patience,
            changed: watch::Sender::new(()),
            orphans: watch::Sender::new(Vec::new()),
        }))
    }

    /// Told whenever what is held, or what is an orphan, may have changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// After a start: specifications that are missing are written again, as many as can be, and a checkpoint that cannot be
    /// believed is made anew.
    pub async fn restore(self: &Arc<Self>) -> Result<(), Refusal> {
        self.blocking(|this| this.store.restore_cdi()).await?
    }

    /// What is held here, by claim UID.
    pub async fn held(self: &Arc<Self>) -> Result<Vec<(String, Held)>, Refusal> {
        let checkpoint = self.checkpoint().await?;
        Ok(checkpoint.claims.into_iter().collect())
    }

    /// GPUs of which nothing is handed out, for nobody knows who had what of them; and why they could not be scrubbed yet.
    pub async fn unaccounted(self: &Arc<Self>) -> Result<BTreeMap<String, String>, Refusal> {
        let checkpoint = self.checkpoint().await?;
        Ok(checkpoint.lost.map(|lost| lost.failures).unwrap_or_default())
    }

    /// The last scrubs, oldest first.
    pub async fn scrubs(self: &Arc<Self>) -> Result<Vec<ScrubRecord>, Refusal> {
        self.blocking(|this| this.store.scrubs()).await?
    }

    /// Prepares claims; each has an entry in the result.
    pub async fn prepare(
        self: &Arc<Self>,
        asked: Vec<wire::Claim>,
    ) -> HashMap<String, Result<Vec<wire::Device>, Refusal>> {
        let deadline = Instant::now() + self.patience;
        let allocated = join_all(asked.iter().map(|claim| self.allocated(claim))).await;
        let uids: Vec<_> = asked.iter().map(|claim| claim.uid.clone()).collect();
        let asked: Vec<_> = asked.into_iter().zip(allocated).collect();
        let held = match self.blocking(move |this| this.hold(asked)).await.and_then(|held| held) {
            Ok(held) => held,
            Err(refusal) => return uids.into_iter().map(|uid| (uid, Err(refusal.clone()))).collect(),
        };
        let prepared = held.into_iter().map(async |(uid, held)| {
            let held = match held {
                Ok(held) if held.has_parts() => self.make_in_time(&uid, &held, deadline).await,
                held => held,
            };
            let devices = held.map(|held| held.devices.iter().map(|device| answer(&uid, device)).collect());
            (uid, devices)
        });
        join_all(prepared).await.into_iter().collect()
    }

    /// What a claim was allocated: asked of the API server each time, for the kubelet tells only names.
    async fn allocated(&self, asked: &wire::Claim) -> Outcome<Vec<AllocatedDevice>> {
        check_uid(&asked.uid)?;
        let claim = self.claims.claim(&asked.namespace, &asked.name).await;
        allocated(asked, claim.map_err(|reason| Refusal::ClaimUnread { reason })?.as_ref())
    }

    /// What a claim is to hold, as far as that is permitted now.
    fn wanted(&self, asked: &wire::Claim, devices: Vec<AllocatedDevice>) -> Outcome<Held> {
        let devices = devices.into_iter().map(|device| self.permitted(device));
        let devices: Vec<_> = devices.collect::<Outcome<_>>()?;
        let made = devices.iter().all(|device| device.partition.is_none());
        Ok(Held {
            namespace: asked.namespace.clone(),
            name: asked.name.clone(),
            devices,
            state: if made { HeldState::Prepared } else { HeldState::Preparing },
            boot_id: self.store.boot_id().map(str::to_owned),
        })
    }

    fn permitted(&self, device: AllocatedDevice) -> Outcome<HeldDevice> {
        let AllocatedDevice { pool, device, requests } = device;
        let PermittedDevice { gpu, extent } = self.gate.permit(&pool, &device)?;
        let (partition, access) = match extent {
            Permitted::Whole(access) => (None, Some(access)),
            Permitted::Part(placed) => (Some(Partition::of(placed)), None),
        };
        Ok(HeldDevice { pool, device, gpu, partition, requests, access })
    }

    /// Holds what claims were allocated; those without parts are prepared then. Permits are asked for last: reading claims and
    /// waiting for the lock take their time.
    fn hold(
        &self,
        asked: Vec<(wire::Claim, Outcome<Vec<AllocatedDevice>>)>,
    ) -> Outcome<Vec<(String, Outcome<Held>)>> {
        let mut open = self.store.open()?;
        let hold = |(claim, devices): (wire::Claim, Outcome<Vec<AllocatedDevice>>)| {
            let wanted = devices.and_then(|devices| self.wanted(&claim, devices));
            let held = wanted.and_then(|wanted| open.checkpoint.hold(&claim.uid, wanted));
            (claim.uid, held)
        };
        let held: Vec<_> = asked.into_iter().map(hold).collect();
        open.save()?;
        let specify = |(uid, held): (String, Outcome<Held>)| {
            let held = held.and_then(|held| {
                if !held.has_parts() {
                    open.write_cdi(&uid, &held)?;
                }
                Ok(held)
            });
            (uid, held)
        };
        let held = held.into_iter().map(specify).collect();
        drop(open);
        self.changed.send_replace(());
        Ok(held)
    }

    /// Makes the parts of a claim that is held, which goes on when nobody waits any more.
    async fn make_in_time(self: &Arc<Self>, uid: &str, held: &Held, deadline: Instant) -> Outcome<Held> {
        let under_way = |_| Refusal::PartUnderWay;
        let locks = timeout_at(deadline, self.gpu_locks(&held.devices)).await.map_err(under_way)??;
        let (this, uid, held) = (Arc::clone(self), uid.to_owned(), held.clone());
        let task = tokio::spawn(async move { this.make(uid, held, locks).await });
        timeout_at(deadline, task).await.map_err(under_way)?.map_err(|_| Refusal::Stopping)?
    }

    async fn make(self: &Arc<Self>, uid: String, held: Held, locks: Vec<Lock>) -> Outcome<Held> {
        let checkpoint = self.checkpoint().await?;
        // Others had its GPUs until now, and may have given it back, or made parts of it.
        let held = checkpoint.in_use(&uid, &held)?.clone();
        let mut attempt = Attempt::default();
        for (at, device) in held.devices.iter().enumerate() {
            let Some(part) = &device.partition else { continue };
            let (held, begin) = (checkpoint.placed(&device.gpu), self.begin(&uid, at));
            match self.parts.make(&device.gpu, part, &held, begin).await {
                Ok(part) => attempt.made.push((at, part)),
                Err(why) => {
                    attempt.unmade = matches!(why, NotMade::Nothing(_)).then_some(at);
                    attempt.failed = Some(not_made(device, why));
                    break;
                }
            }
        }
        self.blocking(move |this| {
            let recorded = this.record(&uid, &held, attempt);
            drop(locks);
            recorded
        })
        .await?
    }

    /// Records that a part of a claim, by its place in it, is made from now on.
    fn begin(self: &Arc<Self>, uid: &str, at: usize) -> Begin {
        let (this, uid) = (Arc::clone(self), uid.to_owned());
        Box::new(move || {
            let begun = this.store.change(|checkpoint| checkpoint.begin(&uid, at));
            begun.and_then(|begun| begun).map_err(|refusal| refusal.told())
        })
    }

    /// Records which parts of a claim were made; with all of them, and a permit that still lives, it is prepared.
    fn record(&self, uid: &str, held: &Held, attempt: Attempt) -> Outcome<Held> {
        let Attempt { made, unmade, failed } = attempt;
        let mut open = self.store.open()?;
        let in_use = open.checkpoint.in_use(uid, held).map(drop);
        let permitted = || {
            let mut devices = held.devices.iter();
            devices.try_for_each(|device| self.gate.permit(&device.pool, &device.device).map(drop))
        };
        let prepared = in_use.and(failed.map_or(Ok(()), Err)).and_then(|()| permitted());
        // Also of a claim that is being given back: what is there is known, and what is not.
        if let Some(at) = unmade {
            open.checkpoint.unmade(uid, at);
        }
        let recorded = open.checkpoint.record(uid, made, prepared.is_ok());
        open.save()?;
        prepared?;
        let held = recorded.ok_or(Refusal::ClaimReleased)?;
        open.write_cdi(uid, &held)?;
        drop(open);
        self.changed.send_replace(());
        Ok(held)
    }

    /// Waits until nobody, in any process, makes or scrubs anything of these GPUs.
    pub(super) async fn gpu_locks(self: &Arc<Self>, devices: &[HeldDevice]) -> Outcome<Vec<Lock>> {
        // In one order for all, so that two never wait for each other.
        let gpus: BTreeSet<_> = devices.iter().map(|device| &device.gpu).collect();
        let mut locks = Vec::new();
        for gpu in gpus {
            locks.push(self.gpu_lock(gpu).await?);
        }
        Ok(locks)
    }

    pub(super) async fn gpu_lock(self: &Arc<Self>, gpu: &str) -> Outcome<Lock> {
        loop {
            let gpu = gpu.to_owned();
            if let Some(lock) = self.blocking(move |this| this.store.gpu_lock(&gpu)).await?? {
                return Ok(lock);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Runs what waits for disks on a thread of its own, to its end.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Outcome<T> {
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&this)).await.map_err(|_| Refusal::Stopping)
    }
}

/// What became of the parts of a claim, by their place in it.
#[derive(Default)]
struct Attempt {
    made: Vec<(usize, Made)>,
    /// The one at whose place nothing stands.
    unmade: Option<usize>,
    failed: Option<Refusal>,
}

/// It becomes part of the names of files.
pub(super) fn check_uid(uid: &str) -> Outcome<()> {
    let fits =
        !uid.is_empty() && uid.len() <= 64 && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits { Ok(()) } else { Err(Refusal::ClaimUid { uid: uid.to_owned() }) }
}

fn not_made(device: &HeldDevice, why: NotMade) -> Refusal {
    let device = device.device.clone();
    match why {
        NotMade::Foreign(instance) => Refusal::PartForeign { device, instance },
        NotMade::Failed(reason) | NotMade::Nothing(reason) => Refusal::PartFailed { device, reason },
    }
}

fn answer(uid: &str, device: &HeldDevice) -> wire::Device {
    wire::Device {
        request_names: device.requests.clone(),
        pool_name: device.pool.clone(),
        device_name: device.device.clone(),
        cdi_device_ids: device_ids(uid, device),
        share_id: None,
    }
}
