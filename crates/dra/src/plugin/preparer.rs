//! Prepares claims and takes them back. Every call may be repeated, and the process may be killed anywhere in it.
//!
//! Preparing first writes the checkpoint, then the CDI specification: what containers can reach is always known to be held. Giving
//! back writes `scrubbing` first, scrubs, removes the specification, and takes the claim out of the checkpoint last.

use super::cdi::{Access, device_ids};
use super::checkpoint::{Held, HeldDevice, HeldState, Partition};
use super::claim::{AllocatedDevice, allocated};
use super::error::{PluginError, Refusal};
use super::store::Store;
use super::wire;
use futures_util::future::{BoxFuture, join_all};
use k8s_openapi::api::resource::v1::ResourceClaim;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

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
    /// What to hand out; or [`Refusal::DeviceUnknown`], [`Refusal::NoPermit`], [`Refusal::GateClosed`].
    fn permit(&self, pool: &str, device: &str) -> Result<PermittedDevice, Refusal>;
}

/// A device that may be handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermittedDevice {
    /// UUID of the physical GPU, as NVML says it.
    pub gpu: String,
    /// Which part of it, unless it is all.
    pub partition: Option<Partition>,
    /// How it gets into containers.
    pub access: Access,
}

/// Makes devices fit for another tenant.
pub trait Scrub: Send + Sync + 'static {
    /// Succeeds when no process is left on any of them and nothing of what was there can be read; fails with the reason. May be
    /// asked again, whatever came before.
    fn scrub<'a>(&'a self, devices: &'a [HeldDevice]) -> BoxFuture<'a, Result<(), String>>;
}

/// Where a preparer keeps its files, and how it behaves.
#[derive(Clone, Debug)]
pub struct PreparerOptions {
    /// The checkpoint's directory, on a disk: `/var/lib/kubelet/plugins/gpu.bailiwick.dev`. Made if missing.
    pub state_dir: PathBuf,
    /// Where the container runtime looks for CDI specifications: `/var/run/cdi`. Not made: the runtime would not see it.
    pub cdi_dir: PathBuf,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// How long a call to unprepare waits for a scrub. The kubelet waits 45 s.
    pub scrub_patience: Duration,
}

/// Prepares claims and takes them back.
pub struct Preparer {
    store: Store,
    claims: Arc<dyn Claims>,
    gate: Arc<dyn Gate>,
    scrub: Arc<dyn Scrub>,
    scrub_patience: Duration,
    changed: watch::Sender<()>,
}

type Outcome<T> = Result<T, Refusal>;

impl Preparer {
    /// Makes the directory of the checkpoint if it is missing.
    pub fn new(
        options: &PreparerOptions,
        claims: Arc<dyn Claims>,
        gate: Arc<dyn Gate>,
        scrub: Arc<dyn Scrub>,
    ) -> Result<Arc<Self>, PluginError> {
        let store = Store::new(&options.state_dir, &options.cdi_dir, &options.boot_id)?;
        let (scrub_patience, changed) = (options.scrub_patience, watch::Sender::new(()));
        Ok(Arc::new(Self { store, claims, gate, scrub, scrub_patience, changed }))
    }

    /// Told whenever what is held may have changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// After a start: specifications that are missing are written again, and a checkpoint that cannot be believed is made anew.
    pub async fn restore(self: &Arc<Self>) -> Result<(), Refusal> {
        self.blocking(|this| this.store.restore_cdi()).await?
    }

    /// What is held here, by claim UID.
    pub async fn held(self: &Arc<Self>) -> Result<Vec<(String, Held)>, Refusal> {
        let checkpoint = self.blocking(|this| this.store.read()).await??;
        Ok(checkpoint.claims.into_iter().collect())
    }

    /// Prepares claims; each has an entry in the result.
    pub async fn prepare(
        self: &Arc<Self>,
        asked: Vec<wire::Claim>,
    ) -> HashMap<String, Result<Vec<wire::Device>, Refusal>> {
        let wanted = join_all(asked.iter().map(|claim| self.wanted(claim))).await;
        let uids: Vec<_> = asked.iter().map(|claim| claim.uid.clone()).collect();
        let wanted: Vec<_> = asked.into_iter().map(|claim| claim.uid).zip(wanted).collect();
        let done = self.blocking(move |this| this.hold(wanted)).await.and_then(|done| done);
        done.unwrap_or_else(|refusal| uids.into_iter().map(|uid| (uid, Err(refusal.clone()))).collect())
    }

    /// What a claim is to hold: asked of the API server each time, for the kubelet tells only names.
    async fn wanted(&self, asked: &wire::Claim) -> Outcome<Held> {
        check_uid(&asked.uid)?;
        let claim = self.claims.claim(&asked.namespace, &asked.name).await;
        let claim = claim.map_err(|reason| Refusal::ClaimUnread { reason })?;
        let devices = allocated(asked, claim.as_ref())?;
        let devices =
            devices.into_iter().map(|device| self.permitted(device)).collect::<Outcome<Vec<_>>>()?;
        let (namespace, name) = (asked.namespace.clone(), asked.name.clone());
        Ok(Held { namespace, name, devices, state: HeldState::Prepared })
    }

    fn permitted(&self, device: AllocatedDevice) -> Outcome<HeldDevice> {
        let AllocatedDevice { pool, device, requests } = device;
        let PermittedDevice { gpu, partition, access } = self.gate.permit(&pool, &device)?;
        Ok(HeldDevice { pool, device, gpu, partition, requests, access })
    }

    fn hold(
        &self,
        wanted: Vec<(String, Outcome<Held>)>,
    ) -> Outcome<HashMap<String, Outcome<Vec<wire::Device>>>> {
        let held = self.store.change(|checkpoint| {
            let hold = |(uid, wanted): (String, Outcome<Held>)| {
                let held = wanted.and_then(|wanted| checkpoint.hold(&uid, wanted.clone()).map(|()| wanted));
                (uid, held)
            };
            wanted.into_iter().map(hold).collect::<Vec<_>>()
        })?;
        self.changed.send_replace(());
        let answer = |(uid, held): (String, Outcome<Held>)| {
            let devices = held.and_then(|held| {
                self.store.write_cdi(&uid, &held)?;
                Ok(held.devices.iter().map(|device| answer(&uid, device)).collect())
            });
            (uid, devices)
        };
        Ok(held.into_iter().map(answer).collect())
    }

    /// Takes claims back; each has an entry in the result. One that is not held here is none of ours any more.
    pub async fn unprepare(
        self: &Arc<Self>,
        asked: Vec<wire::Claim>,
    ) -> HashMap<String, Result<(), Refusal>> {
        let uids: Vec<_> = asked.into_iter().map(|claim| claim.uid).collect();
        let marked = {
            let uids = uids.clone();
            self.blocking(move |this| this.mark(&uids)).await.and_then(|marked| marked)
        };
        let marked = match marked {
            Ok(marked) => marked,
            Err(refusal) => return uids.into_iter().map(|uid| (uid, Err(refusal.clone()))).collect(),
        };
        let released = marked.into_iter().map(async |(uid, marked)| {
            let released = match marked {
                Ok(true) => self.release_in_time(uid.clone()).await,
                Ok(false) => Ok(()),
                Err(refusal) => Err(refusal),
            };
            (uid, released)
        });
        join_all(released).await.into_iter().collect()
    }

    /// Marks what is held as no longer used; whether there is something to release.
    fn mark(&self, uids: &[String]) -> Outcome<Vec<(String, Outcome<bool>)>> {
        let held = self.store.change(|checkpoint| {
            let mark = |uid: &String| {
                let Some(held) = checkpoint.claims.get_mut(uid) else { return false };
                if held.state == HeldState::Prepared {
                    held.state = HeldState::Scrubbing { failure: None };
                }
                true
            };
            uids.iter().map(mark).collect::<Vec<_>>()
        })?;
        self.changed.send_replace(());
        let marked = uids.iter().zip(held).map(|(uid, held)| {
            let marked = check_uid(uid).and_then(|()| {
                if !held {
                    self.store.remove_cdi(uid)?;
                }
                Ok(held)
            });
            (uid.clone(), marked)
        });
        Ok(marked.collect())
    }

    /// Releases a claim, which goes on when nobody waits any more.
    async fn release_in_time(self: &Arc<Self>, uid: String) -> Outcome<()> {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move { this.release(&uid).await });
        match tokio::time::timeout(self.scrub_patience, task).await {
            Ok(released) => released.map_err(|_| Refusal::Stopping)?,
            Err(_) => Err(Refusal::ScrubUnderWay),
        }
    }

    /// Scrubs the devices of a claim, and forgets it.
    async fn release(self: &Arc<Self>, uid: &str) -> Outcome<()> {
        let owned = uid.to_owned();
        let lock = self.blocking(move |this| this.store.scrub_lock(&owned)).await??;
        let Some(lock) = lock else { return Err(Refusal::ScrubUnderWay) };
        let checkpoint = self.blocking(|this| this.store.read()).await??;
        let Some(held) = checkpoint.claims.get(uid) else { return Ok(()) };
        // Released already, and prepared anew since: that is another use.
        if held.state == HeldState::Prepared {
            return Ok(());
        }
        let scrubbed = self.scrub.scrub(&held.devices).await;
        match &scrubbed {
            Ok(()) => tracing::info!(
                uid,
                claim = held.name,
                namespace = held.namespace,
                devices = held.names(),
                "scrubbed"
            ),
            Err(reason) => {
                tracing::error!(
                    uid,
                    claim = held.name,
                    namespace = held.namespace,
                    devices = held.names(),
                    reason,
                    "not scrubbed"
                );
            }
        }
        let owned = uid.to_owned();
        self.blocking(move |this| {
            let finished = this.finish(&owned, scrubbed);
            drop(lock);
            finished
        })
        .await?
    }

    fn finish(&self, uid: &str, scrubbed: Result<(), String>) -> Outcome<()> {
        if let Err(reason) = scrubbed {
            self.store.change(|checkpoint| {
                if let Some(held) = checkpoint.claims.get_mut(uid) {
                    held.state = HeldState::Scrubbing { failure: Some(reason.clone()) };
                }
            })?;
            self.changed.send_replace(());
            return Err(Refusal::ScrubFailed { reason });
        }
        self.store.remove_cdi(uid)?;
        self.store.change(|checkpoint| drop(checkpoint.claims.remove(uid)))?;
        self.store.forget_scrub_lock(uid);
        self.changed.send_replace(());
        Ok(())
    }

    /// Takes back what the kubelet will not ask for: claims that were deleted, or allocated anew, while nobody was here, and
    /// devices whose scrub failed. To be called after a start and every now and then.
    pub async fn collect(self: &Arc<Self>) -> Result<(), Refusal> {
        for (uid, held) in self.held().await? {
            let collected = match held.state {
                // Not marked once more: it may have been prepared anew since it was looked at.
                HeldState::Scrubbing { .. } => self.release_in_time(uid.clone()).await,
                HeldState::Prepared if self.is_orphan(&uid, &held).await => {
                    let claim = wire::Claim { namespace: held.namespace, uid: uid.clone(), name: held.name };
                    self.unprepare(vec![claim]).await.remove(&uid).unwrap_or(Ok(()))
                }
                HeldState::Prepared => Ok(()),
            };
            if let Err(refusal) = collected {
                tracing::warn!(uid, code = refusal.code(), %refusal, "a claim was not collected");
            }
        }
        Ok(())
    }

    /// Whether the claim is certainly not the one that these devices were prepared for.
    async fn is_orphan(&self, uid: &str, held: &Held) -> bool {
        let asked =
            wire::Claim { namespace: held.namespace.clone(), uid: uid.to_owned(), name: held.name.clone() };
        let Ok(claim) = self.claims.claim(&held.namespace, &held.name).await else { return false };
        match allocated(&asked, claim.as_ref()) {
            Ok(devices) => !held.devices.iter().all(|ours| {
                devices.iter().any(|theirs| theirs.pool == ours.pool && theirs.device == ours.device)
            }),
            Err(
                Refusal::ClaimGone { .. }
                | Refusal::ClaimReplaced { .. }
                | Refusal::ClaimNotAllocated
                | Refusal::ClaimWithoutDevices,
            ) => true,
            Err(_) => false,
        }
    }

    /// Runs what waits for disks on a thread of its own, to its end.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Outcome<T> {
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&this)).await.map_err(|_| Refusal::Stopping)
    }
}

/// It becomes part of the names of files.
fn check_uid(uid: &str) -> Outcome<()> {
    let fits =
        !uid.is_empty() && uid.len() <= 64 && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits { Ok(()) } else { Err(Refusal::ClaimUid { uid: uid.to_owned() }) }
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
