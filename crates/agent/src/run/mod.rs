//! The agent at work: watches the GPUs, and hands them out to the kubelet's pods as far as the cell permits.
//!
//! Four things change by themselves, the GPUs, the permits, the registration and what claims hold, and one task makes everything else
//! follow them.

mod access;
mod args;
mod driver;
mod driver_lock;
mod known;
mod kubernetes;
mod legacy;
mod parts;
mod ready;
mod scrub;
mod watching;

pub use access::DeviceRoot;
pub use args::RunArgs;
pub use ready::ReadyArgs;
pub use scrub::ScrubMode;

use crate::Error;
use crate::cell::{ByFile, Host, Reporter, StateDir, bounded, enrol_by_file, enrol_later};
use domain::agent::PreparedDevice;
use domain::{Name, Problem};
use dra::plugin::{Claims, HeldState, Plugin, Preparer, PreparerOptions, RegistrationState};
use driver::Driver;
use driver_lock::DriverLock;
use gpu::{HostRoot, Watch};
use jiff::Timestamp;
use known::{Known, Seen};
use parts::Parter;
use ready::Mark;
use scrub::Scrubber;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use watching::Watching;

/// How often orphans are looked for, and scrubs that failed are tried again.
const COLLECT: Duration = Duration::from_mins(1);
/// The kubelet waits 45 s for an answer.
const PATIENCE: Duration = Duration::from_secs(40);
/// A change of the checkpoint takes some milliseconds, on a slow disk some hundred.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// So many intervals after it began, and this at least, a probe tells no more how the GPUs are.
const PROBES: u32 = 3;
const FRESH: Duration = Duration::from_secs(10);

/// How the agent works on its host.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kubelet's directory: `/var/lib/kubelet`.
    pub kubelet_dir: PathBuf,
    /// Where specifications of claims are written: `/var/run/cdi`.
    pub cdi_dir: PathBuf,
    /// Where else the runtime reads specifications: `/etc/cdi`.
    pub static_cdi_dir: PathBuf,
    /// Tells two agents of one host apart, as during an update; part of the names of sockets.
    pub instance: String,
    /// The driver's library; where `None`, that of the host or of its driver container.
    pub nvml: Option<PathBuf>,
    /// Where the host's root directory is.
    pub host_root: PathBuf,
    /// Where device nodes are.
    pub devices: DeviceRoot,
    /// How often the GPUs are probed at least.
    pub probe_interval: Duration,
    /// What is done between two claims.
    pub scrub: ScrubMode,
    /// NVIDIA's program that resets GPUs.
    pub nvidia_smi: PathBuf,
}

/// Reaches the API server by a kubeconfig, or as a pod of its cluster.
pub fn api_server(kubeconfig: Option<&std::path::Path>) -> Result<Arc<dyn Claims>, Error> {
    Ok(Arc::new(kubernetes::api_server(kubeconfig)?))
}

/// Works for the cell that the agent is enrolled with, until it is cancelled. Where a file was left that says how to enrol, it does
/// that first.
pub async fn run(
    options: &Options,
    claims: Arc<dyn Claims>,
    dir: StateDir,
    stop: CancellationToken,
) -> Result<(), Error> {
    let root = HostRoot::at(&options.host_root);
    let system_uuid = root.host().system_uuid;
    match enrol_by_file(&dir, system_uuid.clone(), &stop).await {
        ByFile::Stopped => return Ok(()),
        ByFile::Later => _ = tokio::spawn(begin_anew_once_enrolled(dir.clone(), system_uuid, stop.clone())),
        ByFile::Done | ByFile::Refused => {}
    }
    let lock = DriverLock::of(&state_dir(options)).map_err(|source| {
        Error::Plugin(dra::plugin::PluginError::State { path: state_dir(options), source })
    })?;
    let watching = watch_gpus(options, lock.clone())?;
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        // A driver that hangs is told as one.
        _ = tokio::time::timeout(fresh(options), watching.first()) => {}
    }
    let boot_id = root.boot_id();
    let seen = Seen { sight: watching.sight(), limit: fresh(options), root };
    let (problems, prepared, scrubs) = (Vec::new(), Vec::new(), Vec::new());
    let host = watch::Sender::new(Host { probe: seen.probe(), registered: None, prepared, problems, scrubs });
    let (reporter, permits) = Reporter::new(dir, boot_id, host.subscribe())?;
    let known = Known { seen, permits, devices: options.devices.clone() };
    tracing::info!(machine = %reporter.identity().machine, cell = reporter.identity().cell, "working");
    let reporting = tokio::spawn(reporter.run(stop.clone()));
    let ended = work(options, claims, known, &watching, lock, &host, &stop).await;
    stop.cancel();
    // An error is a panic in there, which has been told already.
    let _ = reporting.await;
    ended
}

/// Who it is, and for which cell, is settled when an agent begins.
async fn begin_anew_once_enrolled(dir: StateDir, system_uuid: Option<String>, stop: CancellationToken) {
    if enrol_later(&dir, system_uuid, &stop).await == ByFile::Done {
        tracing::info!("enrolled anew, so the agent ends, to be started again");
        stop.cancel();
    }
}

/// What both agents of a host share during an update.
fn state_dir(options: &Options) -> PathBuf {
    options.kubelet_dir.join("plugins").join(dra::DRIVER)
}

/// How old a probe may be.
fn fresh(options: &Options) -> Duration {
    (options.probe_interval * PROBES).max(FRESH)
}

fn watch_gpus(options: &Options, lock: DriverLock) -> Result<Watching, Error> {
    let host = HostRoot::at(&options.host_root);
    let watch = Watch { library: options.nvml.clone(), host, interval: options.probe_interval };
    let cdi = vec![options.static_cdi_dir.clone(), options.cdi_dir.clone()];
    Watching::start(watch, cdi, lock).map_err(Error::Thread)
}

async fn work(
    options: &Options,
    claims: Arc<dyn Claims>,
    known: Known,
    watching: &Watching,
    lock: DriverLock,
    host: &watch::Sender<Host>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let root = known.seen.root.clone();
    let boot_id = root.boot_id();
    let driver = Driver::new(options.nvml.clone(), root, lock);
    let preparer_options = PreparerOptions {
        state_dir: state_dir(options),
        cdi_dir: options.cdi_dir.clone(),
        boot_id,
        patience: PATIENCE,
        lock_patience: LOCK_PATIENCE,
    };
    let parter = Parter {
        driver: driver.clone(),
        devices: options.devices.clone(),
        sight: watching.sight(),
        tips: watching.tips(),
    };
    let scrubber = Scrubber {
        mode: options.scrub,
        probe: Arc::new(move || driver.probe()),
        nvidia_smi: options.nvidia_smi.clone(),
        parter: parter.clone(),
    };
    let gate = Arc::new(known.clone());
    let preparer = Preparer::new(&preparer_options, claims, gate, Arc::new(parter), Arc::new(scrubber))?;
    let health = watch::Sender::new(Vec::new());
    let (kubelet, instance) = (&options.kubelet_dir, &options.instance);
    let plugin = Plugin::start(kubelet, instance, Arc::clone(&preparer), health.subscribe())?;
    ready::sweep(options);
    let mark = Mark::of(options);
    let mut work = Work { options, known, preparer, plugin, health, host, mark };
    work.until(stop).await;
    drop(work.mark);
    work.plugin.stop().await;
    Ok(())
}

struct Work<'a> {
    options: &'a Options,
    known: Known,
    preparer: Arc<Preparer>,
    plugin: Plugin,
    health: watch::Sender<Vec<dra::plugin::Health>>,
    host: &'a watch::Sender<Host>,
    mark: Mark,
}

impl Work<'_> {
    async fn until(&mut self, stop: &CancellationToken) {
        if let Err(refusal) = self.preparer.restore().await {
            tracing::error!(code = refusal.code(), %refusal, "not restored");
        }
        let mut state = self.plugin.registration().state();
        let mut connections = self.plugin.connections();
        let mut changes = self.preparer.changes();
        let (mut sight, mut permits) = (self.known.seen.sight.clone(), self.known.permits.clone());
        let mut collect = tokio::time::interval(COLLECT);
        loop {
            self.follow().await;
            // Nothing else tells that a permit has run out, or that the driver says nothing any more.
            let (lasts, fresh) = (permits.lasts(), self.known.seen.lasts());
            tokio::select! {
                () = stop.cancelled() => return,
                seen = sight.changed() => {
                    if seen.is_err() {
                        tracing::error!("nobody looks at the GPUs any more, so the agent ends, to be started again");
                        return;
                    }
                }
                () = permits.changed() => {}
                Ok(()) = state.changed() => {}
                Ok(()) = connections.changed() => {}
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep(lasts), if !lasts.is_zero() => {}
                () = tokio::time::sleep(fresh), if !fresh.is_zero() => {}
                _ = collect.tick() => self.collect(),
            }
        }
    }

    /// Beside the calls of the kubelet, which must not wait for it.
    fn collect(&self) {
        let preparer = Arc::clone(&self.preparer);
        tokio::spawn(async move {
            if let Err(refusal) = preparer.collect().await {
                tracing::error!(code = refusal.code(), %refusal, "nothing was collected");
            }
        });
    }

    /// Makes the registration, the devices' health and what is reported follow what is known.
    async fn follow(&mut self) {
        let probe = self.known.seen.probe();
        let mut problems = Vec::new();
        if probe.driver.is_none() {
            let why = probe.diagnostics.iter().map(|why| Problem::new(&why.code, why.message.clone()));
            problems.extend(why);
        }
        // Without a permit or a driver there is nothing to hand out, and the kubelet withdraws the slices.
        if probe.driver.is_some() && !self.known.permits.lasts().is_zero() {
            if let Err(error) = self.plugin.registration().open() {
                problems.push(Problem::new(error.code(), error.to_string()));
            }
        } else {
            self.plugin.registration().close().await;
        }
        // The kubelet takes what is old for unknown; a probe may be late.
        let health = self.known.health(self.known.seen.limit);
        self.health.send_if_modified(|before| replace(before, health));
        let registered = match self.plugin.registration().state().borrow().clone() {
            // A kubelet that ended deletes the slices when it starts, and registers anew only then.
            RegistrationState::Registered(since) if *self.plugin.connections().borrow() > 0 => {
                Timestamp::try_from(since).ok()
            }
            RegistrationState::Refused(why) => {
                problems.push(Problem::new("plugin.registration.refused", why));
                None
            }
            RegistrationState::Registered(_) | RegistrationState::Closed | RegistrationState::Waiting => None,
        };
        if let Err(error) = self.mark.set(registered.is_some() || self.known.has_nothing()) {
            tracing::warn!(%error, "whether the plugin is registered cannot be told to whoever asks from outside");
        }
        let prepared = self.prepared(&mut problems).await;
        problems.extend(legacy::found(&self.options.host_root, &self.options.kubelet_dir));
        let scrubs = self.preparer.scrubs().await.unwrap_or_else(|refusal| {
            problems.push(Problem::new(refusal.code(), refusal.to_string()));
            Vec::new()
        });
        let host = Host { probe, registered, prepared, problems: bounded(problems), scrubs };
        self.host.send_if_modified(|before| replace(before, host));
    }

    /// Devices that claims hold, and what is wrong with that.
    async fn prepared(&self, problems: &mut Vec<Problem>) -> Vec<PreparedDevice> {
        let all = match self.preparer.held().await {
            Ok(all) => all,
            Err(refusal) => {
                problems.push(Problem::new(refusal.code(), refusal.to_string()));
                return Vec::new();
            }
        };
        problems.extend(self.preparer.orphans().into_iter().map(|orphan| {
            let what = format!(
                "{} stay reserved, for its containers may still live: {}",
                orphan.devices, orphan.reason
            );
            Problem::new("plugin.claim.orphaned", what).at(format!("{}/{}", orphan.namespace, orphan.name))
        }));
        for (gpu, why) in self.preparer.unaccounted().await.unwrap_or_default() {
            problems.push(Problem::new("plugin.device.unaccounted", why).at(gpu));
        }
        let mut prepared = Vec::new();
        for (claim, held) in all {
            if let HeldState::Scrubbing { failure: Some(why) } = &held.state {
                let problem = Problem::new("plugin.scrub.failed", why.clone());
                problems.push(problem.at(format!("{}/{}", held.namespace, held.name)));
            }
            let names = held.devices.iter().filter_map(|device| Name::new(&device.device).ok());
            prepared.extend(names.map(|device| PreparedDevice { claim: claim.clone(), device }));
        }
        prepared
    }
}

fn replace<T: PartialEq>(before: &mut T, now: T) -> bool {
    let changed = *before != now;
    *before = now;
    changed
}
