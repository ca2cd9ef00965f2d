//! Takes claims back: what the kubelet asks for, and what it will not ask for any more.

use super::checkpoint::{Checkpoint, Held, HeldState};
use super::claim::allocated;
use super::error::Refusal;
use super::preparer::{Outcome, Preparer, check_uid};
use super::wire;
use domain::agent::ScrubRecord;
use futures_util::future::join_all;
use std::collections::HashMap;
use std::sync::Arc;

/// A claim that holds devices here and has no right to them any more, while its containers may still live.
///
/// The kubelet gives it back once they have ended, also when it was restarted meanwhile, for it keeps what it prepared on disk.
/// Only where that is lost too does an orphan stay, until the host is started anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The claim's UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Devices that stay reserved, for people.
    pub devices: String,
    /// What became of the claim.
    pub reason: String,
}

impl Preparer {
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
        let mut open = self.store.open()?;
        let mark = |uid: &String| {
            let Some(held) = open.checkpoint.claims.get_mut(uid) else { return false };
            held.give_back();
            true
        };
        let held: Vec<_> = uids.iter().map(mark).collect();
        open.save()?;
        for (uid, held) in uids.iter().filter_map(|uid| Some((uid, open.checkpoint.claims.get(uid)?))) {
            open.update_cdi(uid, held);
        }
        let marked = uids.iter().zip(held).map(|(uid, held)| {
            let marked = check_uid(uid).and_then(|()| {
                if !held {
                    open.remove_cdi(uid)?;
                }
                Ok(held)
            });
            (uid.clone(), marked)
        });
        let marked = marked.collect();
        drop(open);
        self.changed.send_replace(());
        Ok(marked)
    }

    /// Releases a claim, which goes on when nobody waits any more.
    async fn release_in_time(self: &Arc<Self>, uid: String) -> Outcome<()> {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move { this.release(&uid).await });
        match tokio::time::timeout(self.patience, task).await {
            Ok(released) => released.map_err(|_| Refusal::Stopping)?,
            Err(_) => Err(Refusal::ScrubUnderWay),
        }
    }

    /// Scrubs the devices of a claim, and forgets it.
    async fn release(self: &Arc<Self>, uid: &str) -> Outcome<()> {
        let owned = uid.to_owned();
        let lock = self.blocking(move |this| this.store.scrub_lock(&owned)).await??;
        let Some(lock) = lock else { return Err(Refusal::ScrubUnderWay) };
        let Some(held) = self.to_scrub(uid).await? else { return Ok(()) };
        let gpus = self.gpu_locks(&held.devices).await?;
        // What was made of it meanwhile is known now.
        let Some(held) = self.to_scrub(uid).await? else { return Ok(()) };
        let held = held.in_boot(self.store.boot_id());
        let (scrubbed, records) = self.scrub_all(uid, &held).await;
        let (claim, namespace, devices) = (&held.name, &held.namespace, held.names());
        match &scrubbed {
            Ok(()) => tracing::info!(uid, claim, namespace, devices, "scrubbed"),
            Err(reason) => tracing::error!(uid, claim, namespace, devices, reason, "not scrubbed"),
        }
        let owned = uid.to_owned();
        self.blocking(move |this| {
            let finished = this.finish(&owned, scrubbed, records);
            drop((gpus, lock));
            finished
        })
        .await?
    }

    /// One device after the other, until one fails.
    async fn scrub_all(&self, uid: &str, held: &Held) -> (Result<(), String>, Vec<ScrubRecord>) {
        let mut records = Vec::new();
        for device in &held.devices {
            let scrubbed = self.scrub.scrub(device).await;
            records.push(scrubbed.of_claim(uid, held, device));
            if let Err(reason) = scrubbed.outcome {
                return (Err(format!("{}: {reason}", device.device)), records);
            }
        }
        (Ok(()), records)
    }

    /// A claim whose devices wait for a scrub. One that was released already and prepared anew since is another use.
    async fn to_scrub(self: &Arc<Self>, uid: &str) -> Outcome<Option<Held>> {
        let mut checkpoint = self.checkpoint().await?;
        let held = checkpoint.claims.remove(uid);
        Ok(held.filter(|held| matches!(held.state, HeldState::Scrubbing { .. })))
    }

    fn finish(&self, uid: &str, scrubbed: Result<(), String>, records: Vec<ScrubRecord>) -> Outcome<()> {
        let mut open = self.store.open()?;
        open.record(records)?;
        if let Err(reason) = scrubbed {
            if let Some(held) = open.checkpoint.claims.get_mut(uid) {
                held.state = HeldState::Scrubbing { failure: Some(reason.clone()) };
            }
            open.save()?;
            drop(open);
            self.changed.send_replace(());
            return Err(Refusal::ScrubFailed { reason });
        }
        open.remove_cdi(uid)?;
        let released = open.checkpoint.claims.remove(uid);
        let devices = released.iter().flat_map(|held| &held.devices);
        for device in devices.filter(|device| device.partition.is_none()) {
            open.checkpoint.account(&device.gpu, Ok(()));
        }
        open.save()?;
        drop(open);
        self.store.forget_scrub_lock(uid);
        self.orphans.send_modify(|orphans| orphans.retain(|orphan| orphan.uid != uid));
        self.changed.send_replace(());
        Ok(())
    }

    /// Takes back what no container can use any more though nobody asked: devices whose scrub failed, and those of claims that
    /// have no right to them and were never answered, or were prepared before the host was started anew. To be called after a
    /// start and every now and then. What containers may still use becomes an [`Orphan`].
    pub async fn collect(self: &Arc<Self>) -> Result<(), Refusal> {
        if let Err(error) = self.account_for_gpus().await {
            tracing::warn!(error, "GPUs that nobody accounts for are not scrubbed");
        }
        let mut orphans = Vec::new();
        for (uid, held) in self.held().await? {
            let collected = match held.state {
                // Not marked once more: it may have been prepared anew since it was looked at.
                HeldState::Scrubbing { .. } => self.release_in_time(uid.clone()).await,
                HeldState::Preparing | HeldState::Prepared => match self.orphaned(&uid, &held).await {
                    None => Ok(()),
                    Some(_) if self.is_unused(&held) => self.release_unchanged(uid.clone(), held).await,
                    Some(reason) => {
                        orphans.push(orphan(&uid, &held, reason));
                        Ok(())
                    }
                },
            };
            if let Err(refusal) = collected {
                tracing::warn!(uid, code = refusal.code(), %refusal, "a claim was not collected");
            }
        }
        if self.orphans.send_if_modified(|before| std::mem::replace(before, orphans.clone()) != orphans) {
            self.changed.send_replace(());
        }
        Ok(())
    }

    /// Scrubs what nobody is known to have of GPUs, once what claims hold was lost.
    async fn account_for_gpus(self: &Arc<Self>) -> Result<(), String> {
        let told = |refusal: Refusal| refusal.told();
        if self.checkpoint().await.map_err(told)?.lost.is_none() {
            return Ok(());
        }
        for gpu in self.scrub.gpus().await? {
            let lock = self.gpu_lock(&gpu).await.map_err(told)?;
            // Under its lock: nothing of it is made or given back meanwhile.
            let checkpoint = self.checkpoint().await.map_err(told)?;
            if !checkpoint.is_unaccounted(&gpu) {
                continue;
            }
            let scrubbed = self.scrub.scrub_rest(&gpu, &checkpoint.placed(&gpu)).await;
            match &scrubbed.outcome {
                Ok(()) => tracing::info!(gpu, "scrubbed a GPU that nobody accounted for"),
                Err(reason) => tracing::error!(gpu, reason, "a GPU that nobody accounts for is not scrubbed"),
            }
            let accounted = self.blocking(move |this| {
                let mut open = this.store.open()?;
                open.record(vec![scrubbed.of_rest(&gpu)])?;
                open.checkpoint.account(&gpu, scrubbed.outcome);
                open.save()?;
                drop((open, lock));
                Ok(())
            });
            accounted.await.and_then(|accounted| accounted).map_err(told)?;
            self.changed.send_replace(());
        }
        Ok(())
    }

    pub(super) async fn checkpoint(self: &Arc<Self>) -> Outcome<Checkpoint> {
        self.blocking(|this| this.store.read()).await?
    }

    /// Claims that had no right to what they hold when that was last collected.
    pub fn orphans(&self) -> Vec<Orphan> {
        self.orphans.borrow().clone()
    }

    /// Whether no container can use its devices, though nobody gave it back: nobody was answered yet, or the host was started
    /// anew since. A container that has a device open shows nowhere else: it need not have a process on the GPU now.
    fn is_unused(&self, held: &Held) -> bool {
        held.state == HeldState::Preparing || held.is_of_earlier_boot(self.store.boot_id())
    }

    /// Releases a claim, unless something became of it since it was looked at.
    async fn release_unchanged(self: &Arc<Self>, uid: String, seen: Held) -> Outcome<()> {
        let owned = uid.clone();
        let marked = self.blocking(move |this| {
            this.store.change(|checkpoint| {
                let held = checkpoint.claims.get_mut(&owned).filter(|held| **held == seen);
                held.map(Held::give_back).is_some()
            })
        });
        if marked.await?? { self.release_in_time(uid).await } else { Ok(()) }
    }

    /// Why the claim is certainly not the one that these devices were prepared for.
    async fn orphaned(&self, uid: &str, held: &Held) -> Option<String> {
        let asked =
            wire::Claim { namespace: held.namespace.clone(), uid: uid.to_owned(), name: held.name.clone() };
        let claim = self.claims.claim(&held.namespace, &held.name).await.ok()?;
        match allocated(&asked, claim.as_ref()) {
            Ok(devices) => {
                let ours = held.devices.iter().map(|device| (&device.pool, &device.device));
                let theirs = devices.iter().map(|device| (&device.pool, &device.device));
                (!ours.eq(theirs)).then(|| "the claim was allocated anew".to_owned())
            }
            Err(
                refusal @ (Refusal::ClaimGone { .. }
                | Refusal::ClaimReplaced { .. }
                | Refusal::ClaimNotAllocated
                | Refusal::ClaimWithoutDevices),
            ) => Some(refusal.to_string()),
            Err(_) => None,
        }
    }
}

fn orphan(uid: &str, held: &Held, reason: String) -> Orphan {
    Orphan {
        uid: uid.to_owned(),
        namespace: held.namespace.clone(),
        name: held.name.clone(),
        devices: held.names(),
        reason,
    }
}
