//! Watching a host's GPUs: a probe now and then, and at once when the driver reports something.

use crate::source::Library as _;
use crate::{Context, Error, HostRoot, Nvml, Xids, probe, raw, without_driver};
use domain::Digest;
use domain::probe::Probe;
use jiff::Timestamp;
use nvml_wrapper::EventSet;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings as sys;
use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is watched, and how often at least.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The driver's library; where `None`, that of the host, or the system's own.
    pub library: Option<PathBuf>,
    /// Where the kernel's files are.
    pub host: HostRoot,
    /// A probe is taken so often, and whenever the driver reports something.
    pub interval: Duration,
}

/// What a watcher tells.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// The first probe, or one with another digest than the one before.
    Changed(&'a Probe),
    /// A probe with the same digest; its time and readings are new.
    Same(&'a Probe),
    /// Nothing new. Told at least twice a second, so that the watch can be broken off.
    Nothing,
}

/// Watches. A driver that is missing, comes or goes is told as a probe like any other.
#[derive(Debug)]
pub struct Watcher {
    watch: Watch,
    last: Option<(Probe, Digest)>,
    xids: Xids,
    tips: Tips,
}

/// Tells a watcher what nobody else tells it. Clones tell the same watcher, which hears of it within half a second.
#[derive(Clone, Debug, Default)]
pub struct Tips(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    changed: bool,
    reset: Vec<String>,
}

impl Tips {
    /// Something was changed: a probe is due now.
    pub fn changed(&self) {
        self.lock().changed = true;
    }

    /// A GPU was reset: the XID errors that it reported before are over. Drivers from 565 on tell that by themselves.
    pub fn was_reset(&self, uuid: &str) {
        let mut told = self.lock();
        told.reset.push(uuid.to_owned());
        told.changed = true;
    }

    /// Whether a probe is due; of GPUs that were reset, `xids` forgets what they reported.
    fn take(&self, xids: &mut Xids) -> bool {
        let told = std::mem::take(&mut *self.lock());
        for uuid in &told.reset {
            xids.was_reset(uuid);
        }
        told.changed
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who hears of it, and says whether to go on.
type Tell<'t> = dyn FnMut(Seen<'_>) -> ControlFlow<()> + 't;

/// Events that may change what a probe says.
const WANTED: u32 = sys::nvmlEventTypeDoubleBitEccError
    | sys::nvmlEventTypeXidCriticalError
    | MIG_CONFIG_CHANGE
    | sys::nvmlEventTypeDramRetirementEvent
    | sys::nvmlEventTypeDramRetirementFailure
    | sys::nvmlEventTypeNonFatalPoisonError
    | sys::nvmlEventTypeFatalPoisonError
    | sys::nvmlEventTypeGpuUnavailableError
    | sys::nvmlEventTypeGpuRecoveryAction;

/// `nvmlEventMigConfigChange`.
const MIG_CONFIG_CHANGE: u32 = 0x100;

/// The longest wait inside the library.
const SLICE: Duration = Duration::from_millis(500);

/// One fault makes several events; so long after the first one they are gathered into one probe.
const GATHER: Duration = Duration::from_millis(100);

impl Watcher {
    /// A watcher that has seen nothing.
    pub fn new(watch: Watch) -> Self {
        Self { watch, last: None, xids: Xids::default(), tips: Tips::default() }
    }

    /// For those who know more.
    pub fn tips(&self) -> Tips {
        self.tips.clone()
    }

    /// Watches in this thread until `tell` breaks off.
    pub fn run(&mut self, tell: &mut Tell<'_>) {
        loop {
            let opened = Nvml::of(self.watch.library.as_deref(), &self.watch.host);
            let Err(error) = opened.and_then(|nvml| self.session(&nvml, tell)) else { return };
            // Loading a driver anew resets its GPUs.
            self.xids = Xids::default();
            let context = Context { host: &self.watch.host, now: Timestamp::now(), previous: None };
            let none = without_driver(&error, &context);
            if self.publish(none, tell).is_break() || self.idle(tell).is_break() {
                return;
            }
        }
    }

    /// With one loaded library, until told to break off (`Ok`) or the driver goes.
    fn session(&mut self, nvml: &Nvml, tell: &mut Tell<'_>) -> Result<(), Error> {
        let events = Events::of(nvml);
        loop {
            self.tips.take(&mut self.xids);
            let previous = self.last.as_ref().map(|(probe, _)| probe);
            let context = Context { host: &self.watch.host, now: Timestamp::now(), previous };
            let next = probe(nvml, &context, &mut self.xids)?;
            if self.publish(next, tell).is_break() || self.wait(&events, tell).is_break() {
                return Ok(());
            }
        }
    }

    fn publish(&mut self, next: Probe, tell: &mut Tell<'_>) -> ControlFlow<()> {
        let digest = next.digest();
        let changed = self.last.as_ref().is_none_or(|(_, before)| *before != digest);
        let (probe, _) = self.last.insert((next, digest));
        tell(if changed { Seen::Changed(probe) } else { Seen::Same(probe) })
    }

    /// Until the next probe is due, or the driver reports something.
    fn wait(&mut self, events: &Events<'_>, tell: &mut Tell<'_>) -> ControlFlow<()> {
        let due = Instant::now() + self.watch.interval;
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            if events.next(left.min(SLICE), &mut self.xids) {
                let gathered = Instant::now() + GATHER;
                while let Some(left) = gathered.checked_duration_since(Instant::now()) {
                    events.next(left, &mut self.xids);
                }
                return ControlFlow::Continue(());
            }
            tell(Seen::Nothing)?;
            if self.tips.take(&mut self.xids) {
                break;
            }
        }
        ControlFlow::Continue(())
    }

    fn idle(&self, tell: &mut Tell<'_>) -> ControlFlow<()> {
        let due = Instant::now() + self.watch.interval;
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(left.min(SLICE));
            tell(Seen::Nothing)?;
        }
        ControlFlow::Continue(())
    }
}

/// What the driver reports of the GPUs that were there when it was loaded.
struct Events<'nvml> {
    set: Option<EventSet<'nvml>>,
    /// Whether the last wait failed.
    failing: Cell<bool>,
}

impl<'nvml> Events<'nvml> {
    fn of(nvml: &'nvml Nvml) -> Self {
        let Ok(set) = nvml.0.create_event_set() else { return Self::none() };
        let registered = (0..nvml.count().unwrap_or_default())
            .filter_map(|index| nvml.0.device_by_index(index).ok())
            // A GPU that cannot report is probed now and then all the same.
            .filter(|device| raw::register_events(device, &set, WANTED.into()).is_ok())
            .count();
        // The library does not wait on a set without GPUs.
        Self { set: (registered > 0).then_some(set), ..Self::none() }
    }

    fn none() -> Self {
        Self { set: None, failing: Cell::new(false) }
    }

    /// Waits for an event; whether there was one, or waiting began to fail. XID errors are kept.
    fn next(&self, wait: Duration, xids: &mut Xids) -> bool {
        let Some(set) = &self.set else {
            std::thread::sleep(wait);
            return false;
        };
        let millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
        let started = Instant::now();
        let told = set.wait(millis);
        let failed = !matches!(told, Ok(_) | Err(NvmlError::Timeout));
        let was_failing = self.failing.replace(failed);
        match told {
            Ok(event) => {
                let xid = match event.event_data {
                    Some(XidError::Value(xid)) => Some(xid),
                    Some(XidError::Unknown) | None => None,
                };
                if let (Some(xid), Ok(uuid)) = (xid, event.device.uuid()) {
                    xids.record(&uuid, xid, Timestamp::now());
                }
                true
            }
            Err(NvmlError::Timeout) => false,
            Err(_) => {
                // A lost GPU lets every wait fail at once: one probe tells that, and the next comes in its time.
                std::thread::sleep(wait.saturating_sub(started.elapsed()));
                !was_failing
            }
        }
    }
}
