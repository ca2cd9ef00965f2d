//! Parts of GPUs: a MIG instance is made when a claim for it is prepared, and destroyed by its scrub.
//!
//! NVIDIA documents that instances have paths to memory of their own (MIG User Guide, Partitioning), and not when memory is
//! cleared; its published kernel modules clear frame buffer that is freed before others get it (`mem_scrub.c`). What is certain by
//! the interface: an instance is destroyed only when nothing runs on it, and nothing of its contexts is left then. Nobody resets
//! a parted GPU between two claims: that would take the other parts away.

use super::access::DeviceRoot;
use super::driver::Driver;
use super::known::Sight;
use domain::probe::Placement;
use dra::plugin::{Begin, Made, NotMade, Partition, Parts, Placed};
use futures_util::future::BoxFuture;
use gpu::{Part, PartError, Parting, Tips};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// A process that ended may stay in the driver's list for a moment.
const LEAVING: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(250);

/// Parts the GPUs of this host.
#[derive(Clone, Debug)]
pub(super) struct Parter {
    pub(super) driver: Driver,
    pub(super) devices: DeviceRoot,
    pub(super) sight: watch::Receiver<Option<Sight>>,
    /// The watch hears of what was done here.
    pub(super) tips: Tips,
}

impl Parts for Parter {
    fn make<'a>(
        &'a self,
        gpu: &'a str,
        part: &'a Partition,
        held: &'a [Placed],
        begin: Begin,
    ) -> BoxFuture<'a, Result<Made, NotMade>> {
        let (gpu, part, held) = (gpu.to_owned(), part.clone(), held.to_owned());
        Box::pin(async move {
            let made = self.blocking(move |this| Ok(this.make_now(&gpu, &part, &held, begin))).await;
            self.tips.changed();
            made?
        })
    }
}

impl Parter {
    /// Of a host without a driver, whose agents share this directory.
    #[cfg(test)]
    pub(super) fn of_nothing(directory: &std::path::Path) -> Self {
        let nowhere = std::path::PathBuf::from("/nonexistent");
        let lock = super::driver_lock::DriverLock::of(directory).unwrap();
        let driver = Driver::new(Some(nowhere.clone()), gpu::HostRoot::at(&nowhere), lock);
        let devices = DeviceRoot { runtime: nowhere.clone(), own: nowhere };
        Self { driver, devices, sight: watch::channel(None).1, tips: Tips::default() }
    }

    /// Destroys the instance of a part, if there is one, once no process is left on it.
    pub(super) async fn destroy(&self, gpu: &str, part: &Partition) -> Result<(), String> {
        let deadline = Instant::now() + LEAVING;
        let destroyed = loop {
            let (gpu, part) = (gpu.to_owned(), part.clone());
            match self.blocking(move |this| Ok(destroy_now(&this.driver.open()?, &gpu, &part))).await? {
                Err(PartError::InUse) if Instant::now() < deadline => sleep(PAUSE).await,
                outcome => break outcome,
            }
        };
        self.tips.changed();
        let was_there = destroyed.map_err(|error| error.to_string())?;
        // The record of it.
        let Placed { profile, start, .. } = part.placed;
        tracing::info!(gpu, profile, start, was_there, "scrubbed a part of a GPU");
        Ok(())
    }

    /// Destroys all instances of a GPU that claims are not known to hold, once no process is left on them.
    pub(super) async fn destroy_rest(&self, gpu: &str, held: &[Placed]) -> Result<Rest, String> {
        let deadline = Instant::now() + LEAVING;
        let destroyed = loop {
            let (gpu, held) = (gpu.to_owned(), held.to_vec());
            match self.blocking(move |this| Ok(destroy_rest_now(&this.driver.open()?, &gpu, &held))).await? {
                Err(PartError::InUse) if Instant::now() < deadline => sleep(PAUSE).await,
                outcome => break outcome,
            }
        };
        self.tips.changed();
        destroyed.map_err(|error| error.to_string())
    }

    fn make_now(&self, gpu: &str, part: &Partition, held: &[Placed], begin: Begin) -> Result<Made, NotMade> {
        let nvml = self.driver.open()?;
        let made = find_or_make(&nvml, gpu, part, held, begin)?;
        let probe = self.driver.probe_by(&nvml)?;
        let gpu = probe.gpu(gpu).ok_or_else(|| format!("the driver does not show {gpu}"))?;
        let mut instances = gpu.mig.iter().flat_map(|mig| &mig.instances);
        let instance = instances.find(|instance| instance.uuid.as_ref() == Some(&made));
        let instance =
            instance.ok_or_else(|| "the driver does not show the MIG instance that it made".to_owned())?;
        let caps = [instance.gpu_instance_minor, instance.compute_instance_minor];
        self.devices.make_caps(self.driver.root.caps_major(), caps.into_iter().flatten())?;
        let described = self.sight.borrow().as_ref().map(|sight| sight.described.clone());
        let access = self.devices.access(gpu, Some(instance), &described.unwrap_or_default())?;
        Ok(Made { uuid: made, access })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Self) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let this = self.clone();
        self.driver.act(move || act(&this)).await
    }
}

/// UUID of the instance of a part: the one that was made, or a new one. One at its very place that was not made here may be meant to be
/// used, and by whom nobody knows; others in its way that nobody holds are what somebody left who was killed, or an operator made: they go
/// if nothing runs on them.
fn find_or_make(
    parting: &dyn Parting,
    gpu: &str,
    part: &Partition,
    held: &[Placed],
    begin: Begin,
) -> Result<String, NotMade> {
    let told = |error: PartError| NotMade::Failed(error.to_string());
    let (wanted, parts) = (part.placed, parting.parts(gpu).map_err(told)?);
    if let Some(there) = parts.iter().find(|part| placed(part) == wanted) {
        match &there.uuid {
            _ if !is_ours(part, there) => return Err(NotMade::Foreign(named(there))),
            Some(uuid) => return Ok(uuid.clone()),
            // Half made, or half destroyed: in the way as any other.
            None => {}
        }
    }
    let (in_the_way, others): (Vec<_>, Vec<_>) =
        parts.into_iter().partition(|part| placed(part).overlaps(wanted));
    for part in &in_the_way {
        remove(parting, gpu, part, wanted, held)?;
    }
    begin()?;
    let make = || parting.make(gpu, wanted.profile, Placement { start: wanted.start, size: wanted.size });
    let made = match make() {
        // Elsewhere on the GPU may be leftovers that have taken what memory slices do not show, such as media engines.
        Err(PartError::NoRoom) => {
            for part in others.iter().filter(|part| part.processes == 0) {
                // One that somebody holds stays, and is not why.
                let _ = remove(parting, gpu, part, wanted, held);
            }
            make()
        }
        outcome => outcome,
    };
    let untold = || NotMade::Failed("the driver does not tell the UUID of its MIG instance".to_owned());
    made.map_err(|error| unmade(parting, gpu, wanted, &error))?.uuid.ok_or_else(untold)
}

/// Why a part could not be made; and whether nothing of the attempt stands there, for what somebody makes later is not ours.
fn unmade(parting: &dyn Parting, gpu: &str, wanted: Placed, error: &PartError) -> NotMade {
    match parting.parts(gpu) {
        Ok(parts) if parts.iter().all(|part| placed(part) != wanted) => NotMade::Nothing(error.to_string()),
        _ => NotMade::Failed(error.to_string()),
    }
}

/// Whether an instance at the place of a part is of our making. Ours has one compute instance that is all of it, or none yet; who has put
/// others in it means to use them.
fn is_ours(part: &Partition, there: &Part) -> bool {
    (there.uuid.is_some() || there.compute_instances == 0) && part.made(there.uuid.as_deref())
}

/// An instance, for people.
fn named(part: &Part) -> String {
    let Placed { profile, start, .. } = placed(part);
    format!("MIG instance {} of profile {profile} at slice {start}", part.gpu_instance)
}

/// Destroys a leftover; says why not where it is none, or is used.
fn remove(
    parting: &dyn Parting,
    gpu: &str,
    part: &Part,
    wanted: Placed,
    held: &[Placed],
) -> Result<(), String> {
    let Placed { profile, start, .. } = placed(part);
    let what = named(part);
    if held.iter().any(|held| *held != wanted && held.overlaps(placed(part))) {
        return Err(format!("{what} is in the way, where another claim holds a part"));
    }
    let destroyed = match part.processes {
        0 => parting.destroy(gpu, part.gpu_instance),
        _ => Err(PartError::InUse),
    };
    destroyed.map_err(|error| format!("{what} is in the way and nobody's, but stays: {error}"))?;
    tracing::warn!(gpu, profile, start, "destroyed a MIG instance that nobody holds");
    Ok(())
}

/// What is left of a GPU once its parts are gone that nobody is known to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// It is not parted: it is to be scrubbed as a whole.
    Whole,
    /// Nothing but parts that claims hold.
    Destroyed,
}

fn destroy_rest_now(parting: &dyn Parting, gpu: &str, held: &[Placed]) -> Result<Rest, PartError> {
    let parts = match parting.parts(gpu) {
        Err(PartError::NotParted | PartError::TooOld(_)) => return Ok(Rest::Whole),
        parts => parts?,
    };
    for part in parts.iter().filter(|part| !held.contains(&placed(part))) {
        if part.processes > 0 {
            return Err(PartError::InUse);
        }
        parting.destroy(gpu, part.gpu_instance)?;
    }
    Ok(Rest::Destroyed)
}

/// Whether there was an instance. One that was not made here stays.
fn destroy_now(parting: &dyn Parting, gpu: &str, ours: &Partition) -> Result<bool, PartError> {
    let parts = match parting.parts(gpu) {
        // The mode was switched off since, which ends all instances.
        Err(PartError::NotParted) => return Ok(false),
        parts => parts?,
    };
    let mut at_place = parts.iter().filter(|part| placed(part) == ours.placed);
    let Some(part) = at_place.find(|part| is_ours(ours, part)) else { return Ok(false) };
    if part.processes > 0 {
        return Err(PartError::InUse);
    }
    parting.destroy(gpu, part.gpu_instance)?;
    Ok(true)
}

fn placed(part: &Part) -> Placed {
    Placed { profile: part.profile, start: part.placement.start, size: part.placement.size }
}

#[cfg(test)]
mod tests;
