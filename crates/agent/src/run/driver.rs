//! The driver's library, opened for one act beside the watch.

use domain::Diagnose as _;
use domain::probe::Probe;
use gpu::{Context, HostRoot, Nvml, Xids};
use jiff::Timestamp;
use std::path::PathBuf;

/// Where the driver is found.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    /// Its library; the system's own where `None`.
    pub(super) library: Option<PathBuf>,
    pub(super) root: HostRoot,
}

impl Driver {
    pub(super) fn open(&self) -> Result<Nvml, String> {
        Nvml::open(self.library.as_deref()).map_err(|error| told(&error))
    }

    /// A probe now.
    pub(super) fn probe(&self) -> Result<Probe, String> {
        self.probe_by(&self.open()?)
    }

    /// A probe now, by a library that is open.
    pub(super) fn probe_by(&self, nvml: &Nvml) -> Result<Probe, String> {
        let context = Context { host: &self.root, now: Timestamp::now(), previous: None };
        gpu::probe(nvml, &context, &mut Xids::default()).map_err(|error| told(&error))
    }
}

fn told(error: &gpu::Error) -> String {
    error.problem().to_string()
}
