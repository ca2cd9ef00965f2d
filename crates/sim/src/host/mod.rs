//! Hosts: what boots when a simulated machine is switched on.
//!
//! A host is one task for as long as its machine is on, started by the reset that switches it on and dropped with the power. It tries
//! what the boot override and the virtual media say, boots Ironic's agent, a live ISO or its disk, and runs that.

mod agent;
mod agents;
mod booted;
mod commands;
mod fetch;
mod hardware;
pub mod iso;
mod steps;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;

pub use booted::{Booted, BootedHost, ConfigDrive, Disk, Erasure, OnBoot};

use crate::bmc::Bmc;
use crate::boot::{self, Inserted, Source};
use crate::error::Error;
use crate::power::Effect;
use crate::server::Tasks;
use agents::Agents;
use fetch::Fetcher;
pub(crate) use hardware::Hardware;
use steps::Written;

/// How the hosts of a site boot. The default needs no time for anything.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Where agents find Ironic's API (`http://127.0.0.1:6385`) when their ISO does not name it by `ipa-api-url=`.
    pub ironic_url: Option<String>,
    /// From power-on until firmware looks for something to boot; multiplied by the site's latency scale.
    pub firmware: Duration,
    /// What an agent needs for each clean or deploy step; multiplied by the latency scale.
    pub step: Duration,
    /// Between two heartbeats of an agent; never scaled.
    pub heartbeat: Duration,
    /// Whether agents serve their commands over HTTPS, with a certificate that Ironic is told in the heartbeat.
    pub agent_tls: bool,
    /// What plays the operating system of hosts that booted a live ISO or their disk.
    pub on_boot: Option<Arc<dyn OnBoot>>,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            ironic_url: None,
            firmware: Duration::ZERO,
            step: Duration::ZERO,
            heartbeat: Duration::from_secs(3),
            agent_tls: false,
            on_boot: None,
        }
    }
}

/// Something that goes wrong on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// The host hangs before it boots anything.
    NoBoot,
    /// An agent's clean or deploy step of this name fails with this sentence.
    Step {
        /// Such as `write_image`.
        step: String,
        /// What Ironic is told.
        message: String,
    },
}

/// What all hosts of a site share.
#[derive(Debug)]
pub(crate) struct Services {
    options: HostOptions,
    scale: f64,
    fetcher: Fetcher,
    agents: Mutex<Option<Arc<Agents>>>,
    tasks: Tasks,
}

impl Services {
    pub(crate) fn new(options: HostOptions, scale: f64, tasks: Tasks) -> Result<Arc<Self>, Error> {
        let (fetcher, agents) = (Fetcher::new()?, Mutex::default());
        Ok(Arc::new(Self { options, scale, fetcher, agents, tasks }))
    }

    /// The listener of the agents, which the first of them starts.
    fn agents(&self) -> Result<Arc<Agents>, Error> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agents) = agents.as_ref() {
            return Ok(Arc::clone(agents));
        }
        let started = Arc::new(Agents::start(&self.tasks, self.options.agent_tls)?);
        Ok(Arc::clone(agents.insert(started)))
    }
}

/// The host of one machine.
#[derive(Debug)]
pub(crate) struct Host {
    services: Arc<Services>,
    state: Mutex<State>,
    booted: watch::Sender<Booted>,
}

#[derive(Debug, Default)]
struct State {
    disk: Option<Disk>,
    erasures: Vec<Erasure>,
    faults: Vec<(HostFault, u32)>,
    /// Dropping it ends the host's task.
    run: Option<Tasks>,
    /// Which run it is, so that one that just ends says nothing more.
    generation: u64,
}

impl Host {
    pub(crate) fn new(services: Arc<Services>) -> Self {
        Self { services, state: Mutex::default(), booted: watch::Sender::new(Booted::Nothing) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scaled(&self, time: Duration) -> Duration {
        time.mul_f64(self.services.scale)
    }

    fn step(&self) -> Duration {
        self.scaled(self.services.options.step)
    }

    fn heartbeat(&self) -> Duration {
        self.services.options.heartbeat
    }

    /// Between two tries of something that Ironic was not ready for.
    fn pause(&self) -> Duration {
        self.heartbeat().min(Duration::from_secs(1))
    }

    pub(crate) fn booted(&self) -> watch::Receiver<Booted> {
        self.booted.subscribe()
    }

    pub(crate) fn disk(&self) -> Option<Disk> {
        self.lock().disk.clone()
    }

    pub(crate) fn erasures(&self) -> Vec<Erasure> {
        self.lock().erasures.clone()
    }

    pub(crate) fn add_fault(&self, fault: HostFault, times: u32) {
        self.lock().faults.push((fault, times));
    }

    fn take_fault(&self, applies: impl Fn(&HostFault) -> bool) -> Option<HostFault> {
        let mut state = self.lock();
        let (fault, left) = state.faults.iter_mut().find(|(fault, left)| *left > 0 && applies(fault))?;
        *left -= 1;
        Some(fault.clone())
    }

    fn failing_step(&self, name: &str) -> Option<String> {
        let of_step = |fault: &HostFault| matches!(fault, HostFault::Step { step, .. } if step == name);
        match self.take_fault(of_step)? {
            HostFault::Step { message, .. } => Some(message),
            HostFault::NoBoot => None,
        }
    }

    fn record(&self, erased: Vec<Erasure>, disk: Option<Written>) {
        let mut state = self.lock();
        state.erasures.extend(erased);
        match disk {
            Some(Written::Nothing) => state.disk = None,
            Some(Written::Image(disk)) => state.disk = Some(*disk),
            None => {}
        }
    }

    /// Says how far the boot is and what is booted, unless the run that says so is over.
    fn report(&self, bmc: &Bmc, generation: u64, reached: &str, booted: Booted) {
        // Held throughout: what a later run says must come later.
        let state = self.lock();
        if state.generation == generation {
            progress(bmc, reached);
            self.say(booted);
        }
    }

    fn say(&self, booted: Booted) {
        self.booted.send_if_modified(|now| {
            let changes = *now != booted;
            *now = booted;
            changes
        });
    }

    /// Follows a reset. `boot` is the system's `Boot` as it was when the host was to start.
    pub(crate) fn follow(&self, bmc: &Arc<Bmc>, effect: Effect, boot: Value) {
        if effect == Effect::None {
            return;
        }
        let mut state = self.lock();
        state.generation += 1;
        state.run = None;
        self.say(Booted::Nothing);
        progress(bmc, "None");
        if let Effect::Starts(at) = effect {
            let run = self.services.tasks.handle();
            let (generation, bmc) = (state.generation, Arc::clone(bmc));
            run.spawn(async move {
                if let Some(host) = bmc.host() {
                    host.run(&bmc, at, &boot, generation).await;
                }
            });
            state.run = Some(run);
        }
    }

    async fn run(&self, bmc: &Arc<Bmc>, at: Instant, boot: &Value, generation: u64) {
        tokio::time::sleep_until(at.into()).await;
        self.report(bmc, generation, "SystemHardwareInitializationComplete", Booted::Nothing);
        tokio::time::sleep(self.scaled(self.services.options.firmware)).await;
        if self.take_fault(|fault| *fault == HostFault::NoBoot).is_some() {
            return;
        }
        let media = inserted(bmc);
        for source in boot::sources(boot, &media, &bmc.behaviour().boot) {
            match self.try_source(bmc, source, &media).await {
                Some(Bootable::Agent { iso, api }) => {
                    self.report(bmc, generation, "OSRunning", Booted::Agent { iso });
                    return agent::live(self, bmc, &api).await;
                }
                Some(Bootable::System(booted)) => {
                    self.report(bmc, generation, "OSRunning", booted.clone());
                    return self.operate(bmc, booted).await;
                }
                None => {}
            }
        }
        // Firmware then shows its setup to nobody.
        self.report(bmc, generation, "SetupEntered", Booted::Nothing);
    }

    async fn try_source(&self, bmc: &Arc<Bmc>, source: Source, media: &Inserted) -> Option<Bootable> {
        let url = match source {
            Source::Disk => return self.disk().map(Booted::Disk).map(Bootable::System),
            Source::Iso(url) => url,
        };
        let fetcher = &self.services.fetcher;
        let kind = fetcher.kind(&url).await;
        match kind {
            Ok(iso::Kind::Agent(named)) => {
                let api = named.or_else(|| self.services.options.ironic_url.clone());
                if api.is_none() {
                    tracing::warn!(machine = bmc.name(), "an agent is told of no Ironic");
                }
                api.map(|api| Bootable::Agent { iso: url, api })
            }
            Ok(iso::Kind::Live) => {
                let config = match &media.usb {
                    Some(usb) => steps::configdrive(usb, fetcher).await.ok(),
                    None => None,
                };
                Some(Bootable::System(Booted::LiveIso { url, config }))
            }
            Err(error) => {
                tracing::debug!(machine = bmc.name(), url, %error, "a simulated host cannot boot this");
                None
            }
        }
    }

    /// Runs what plays the operating system, until the power goes.
    async fn operate(&self, bmc: &Bmc, booted: Booted) {
        let Some(on_boot) = &self.services.options.on_boot else { return };
        let Hardware { serial, uuid, macs, .. } = Hardware::read(bmc);
        on_boot.run(BootedHost { machine: bmc.name().to_owned(), serial, uuid, macs, booted }).await;
    }
}

/// What a source turned out to be.
enum Bootable {
    Agent { iso: String, api: String },
    System(Booted),
}

fn inserted(bmc: &Bmc) -> Inserted {
    let mut out = Inserted::default();
    for (slot, image) in bmc.inserted_media() {
        let resource = bmc.resource(&slot).unwrap_or_default();
        let kinds = resource["MediaTypes"].as_array().cloned().unwrap_or_default();
        let is = |names: &[&str]| kinds.iter().any(|kind| names.iter().any(|name| kind == name));
        if is(&["CD", "DVD"]) {
            out.cd.get_or_insert(image);
        } else {
            out.usb.get_or_insert(image);
        }
    }
    out
}

/// Shows how far the boot has come (DSP0268, `BootProgress`).
fn progress(bmc: &Bmc, state: &str) {
    if let Some(paths) = bmc.tree().boot_paths() {
        let time = bmc.date_time();
        let progress = json!({"BootProgress": {"LastState": state, "LastStateTime": time}});
        bmc.merge_resource(&paths.system, &progress);
    }
}
