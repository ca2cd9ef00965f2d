//! The driver's library, opened for one act beside the watch.

use domain::Diagnose as _;
use domain::probe::Probe;
use gpu::{Context, HostRoot, Nvml, Xids};
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Where the driver is found.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    /// Its library; where `None`, that of the host, or the system's own.
    pub(super) library: Option<PathBuf>,
    pub(super) root: HostRoot,
    /// Held by all who have it open beside the watch.
    in_use: Arc<RwLock<()>>,
}

impl Driver {
    pub(super) fn new(library: Option<PathBuf>, root: HostRoot) -> Self {
        Self { library, root, in_use: Arc::default() }
    }

    /// To be taken before it is opened, and kept until it is closed.
    pub(super) async fn shared(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.in_use).read_owned().await
    }

    /// Nobody of this process has it open beside the watch while this is kept: who has it open has all GPUs open, and none of them
    /// can be reset.
    pub(super) async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.in_use).write_owned().await
    }

    pub(super) fn open(&self) -> Result<Nvml, String> {
        Nvml::of(self.library.as_deref(), &self.root).map_err(|error| told(&error))
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
