//! The agent at work: watches the GPUs, and hands them out to the kubelet's pods as far as the cell permits.
//!
//! Permits come in and what is to be reported goes out by channels, so this knows nothing of how the cell is reached.

mod access;
mod known;
mod kubernetes;
mod legacy;
mod scrub;
mod watching;

pub use access::DeviceRoot;
pub use scrub::ScrubMode;

use crate::Error;
use domain::Problem;
use domain::agent::{MOST_PREPARED, MOST_PROBLEMS, PreparedDevice, Report};
use domain::permit::HeldPermits;
use domain::probe::Probe;
use domain::{Diagnose as _, Name};
use dra::plugin::{Claims, HeldState, Plugin, Preparer, PreparerOptions, RegistrationState};
use gpu::{HostRoot, Nvml, Watch, Xids};
use jiff::Timestamp;
use known::{Known, Sight};
use scrub::Scrubber;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use watching::Watching;

/// How often orphans are looked for, and scrubs that failed are tried again.
const COLLECT: Duration = Duration::from_mins(1);
/// The kubelet waits 45 s for an answer.
const SCRUB_PATIENCE: Duration = Duration::from_secs(40);

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
    /// The driver's library; the system's own where `None`.
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

/// What there is to report to the cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// The last probe; `None` before the first.
    pub probe: Option<Arc<Probe>>,
    /// Since when the kubelet has the plugin registered.
    pub registered: Option<Timestamp>,
    /// Devices that claims hold.
    pub prepared: Vec<PreparedDevice>,
    /// What keeps the agent from its work, or would let GPUs be had past it.
    pub problems: Vec<Problem>,
}

impl Status {
    /// The report of it; `None` before the first probe.
    pub fn report(&self, with_probe: bool) -> Option<Report> {
        let probe = self.probe.as_ref()?;
        Some(Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            digest: probe.digest(),
            registered: self.registered,
            boot_id: probe.boot_id.clone().unwrap_or_default(),
            prepared: self.prepared.iter().take(MOST_PREPARED).cloned().collect(),
            problems: self.problems.iter().take(MOST_PROBLEMS).cloned().collect(),
            probe: with_probe.then(|| Box::new(Probe::clone(probe))),
        })
    }
}

/// Reaches the API server by a kubeconfig, or as a pod of its cluster.
pub fn api_server(kubeconfig: Option<&std::path::Path>) -> Result<Arc<dyn Claims>, Error> {
    Ok(Arc::new(kubernetes::api_server(kubeconfig)?))
}

/// Works until `stop` is done, then closes the registration. Permits are those last received from the cell.
pub async fn run(
    options: &Options,
    claims: Arc<dyn Claims>,
    permits: watch::Receiver<Option<HeldPermits>>,
    status: &watch::Sender<Status>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let host = HostRoot::at(&options.host_root);
    let interval = options.probe_interval;
    let watch = Watch { library: options.nvml.clone(), host: host.clone(), interval };
    let cdi = vec![options.static_cdi_dir.clone(), options.cdi_dir.clone()];
    let watching = Watching::start(watch, cdi).map_err(Error::Thread)?;
    let (devices, scrub) = (options.devices.clone(), options.scrub);
    let known = Known { sight: watching.sight(), permits, devices, scrub };

    let preparer_options = PreparerOptions {
        state_dir: options.kubelet_dir.join("plugins").join(dra::DRIVER),
        cdi_dir: options.cdi_dir.clone(),
        boot_id: host.boot_id().unwrap_or_default(),
        scrub_patience: SCRUB_PATIENCE,
    };
    let nvml = options.nvml.clone();
    let scrubber = Scrubber {
        mode: scrub,
        probe: Arc::new(move || probe_now(nvml.as_deref(), &host)),
        nvidia_smi: options.nvidia_smi.clone(),
        hold: watching.hold(),
    };
    let preparer = Preparer::new(&preparer_options, claims, Arc::new(known.clone()), Arc::new(scrubber))?;
    let health = watch::Sender::new(Vec::new());
    let plugin =
        Plugin::start(&options.kubelet_dir, &options.instance, Arc::clone(&preparer), health.subscribe())?;
    let mut work = Work { options, known, preparer, plugin, health, status, problems: Vec::new() };
    let ended = work.until(stop).await;
    work.plugin.stop().await;
    ended
}

struct Work<'a> {
    options: &'a Options,
    known: Known,
    preparer: Arc<Preparer>,
    plugin: Plugin,
    health: watch::Sender<Vec<dra::plugin::Health>>,
    status: &'a watch::Sender<Status>,
    /// Of the registration.
    problems: Vec<Problem>,
}

impl Work<'_> {
    async fn until(&mut self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let mut stop = std::pin::pin!(stop);
        let mut state = self.plugin.registration().state();
        let mut changes = self.preparer.changes();
        let (mut sight, mut permits) = (self.known.sight.clone(), self.known.permits.clone());
        let mut collect = tokio::time::interval(COLLECT);
        if let Err(refusal) = self.preparer.restore().await {
            tracing::error!(code = refusal.code(), %refusal, "not restored");
        }
        loop {
            self.follow().await?;
            // Nothing else tells that a permit has run out.
            let lasts = self.known.lasts();
            tokio::select! {
                () = &mut stop => return Ok(()),
                Ok(()) = sight.changed() => {}
                Ok(()) = permits.changed() => {}
                Ok(()) = state.changed() => {}
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep(lasts), if !lasts.is_zero() => {}
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

    /// Makes the registration, the health and the status follow what is known.
    async fn follow(&mut self) -> Result<(), Error> {
        let sight = self.known.sight.borrow().clone();
        let has_driver = sight.as_ref().is_some_and(|sight| sight.probe.driver.is_some());
        // Without a permit or a driver there is nothing to hand out, and the kubelet withdraws the slices.
        if has_driver && !self.known.lasts().is_zero() {
            self.problems.clear();
            if let Err(error) = self.plugin.registration().open() {
                tracing::error!(code = error.code(), %error, "the registration was not opened");
                self.problems.push(Problem::new(error.code(), error.to_string()));
            }
        } else {
            self.plugin.registration().close().await;
        }
        // The kubelet takes what is old for unknown; a probe may be late by one.
        let timeout = self.options.probe_interval * 3;
        let health = self.known.health(timeout);
        self.health.send_if_modified(|before| {
            let changed = *before != health;
            *before = health;
            changed
        });
        let status = self.status(sight).await;
        self.status.send_if_modified(|before| {
            let changed = *before != status;
            *before = status;
            changed
        });
        Ok(())
    }

    async fn status(&mut self, sight: Option<Sight>) -> Status {
        let mut problems = self.problems.clone();
        let state = self.plugin.registration().state().borrow().clone();
        let before = self.status.borrow().registered;
        let registered = match state {
            RegistrationState::Registered(since) => Some(since),
            RegistrationState::Refused(why) => {
                problems.push(Problem::new("plugin.registration.refused", why));
                None
            }
            RegistrationState::Closed | RegistrationState::Waiting => None,
        };
        let registered =
            registered.map(|since| Timestamp::try_from(since).ok().or(before).unwrap_or_default());
        let mut prepared = Vec::new();
        match self.preparer.held().await {
            Ok(all) => {
                for (claim, held) in all {
                    if let HeldState::Scrubbing { failure: Some(why) } = &held.state {
                        let problem = Problem::new("plugin.scrub.failed", why.clone());
                        problems.push(problem.at(format!("{}/{}", held.namespace, held.name)));
                    }
                    let devices =
                        held.devices.into_iter().filter_map(|device| Name::new(&device.device).ok());
                    prepared.extend(devices.map(|device| PreparedDevice { claim: claim.clone(), device }));
                }
            }
            Err(refusal) => problems.push(Problem::new(refusal.code(), refusal.to_string())),
        }
        problems.extend(legacy::found(&self.options.host_root, &self.options.kubelet_dir));
        Status { probe: sight.map(|sight| sight.probe), registered, prepared, problems }
    }
}

/// A probe of its own, beside the watch.
fn probe_now(nvml: Option<&std::path::Path>, host: &HostRoot) -> Result<Probe, String> {
    let told = |error: gpu::Error| error.problem().to_string();
    let nvml = Nvml::open(nvml).map_err(told)?;
    let context = gpu::Context { host, now: Timestamp::now(), previous: None };
    gpu::probe(&nvml, &context, &mut Xids::default()).map_err(told)
}
