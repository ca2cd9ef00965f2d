//! The driver's library, opened for one act beside the watch.

use super::driver_lock::{Alone, DriverLock};
use domain::Diagnose as _;
use domain::probe::Probe;
use gpu::{Context, HostRoot, Nvml, Xids};
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// An act takes some seconds at most. One that takes longer hangs in the kernel, and no signal ends it.
const ANSWER: Duration = Duration::from_secs(30);

/// Where the driver is found.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    /// Its library; where `None`, that of the host, or the system's own.
    pub(super) library: Option<PathBuf>,
    pub(super) root: HostRoot,
    lock: DriverLock,
    /// Acts that were given up, each with a thread that still waits for the driver.
    given_up: Arc<AtomicUsize>,
}

impl Driver {
    pub(super) fn new(library: Option<PathBuf>, root: HostRoot, lock: DriverLock) -> Self {
        Self { library, root, lock, given_up: Arc::default() }
    }

    /// Does something with the driver in a thread of its own, while nobody resets. An act that takes too long is given up, and as long as
    /// it hangs there is no other: threads would pile up, and nobody would know what comes of them.
    pub(super) async fn act<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let silent = || "the driver does not answer".to_owned();
        if self.given_up.load(Ordering::Relaxed) > 0 {
            return Err(silent());
        }
        let opened = self.lock.opened().await?;
        let mut acting = tokio::task::spawn_blocking(move || {
            let done = act();
            drop(opened);
            done
        });
        if let Ok(done) = timeout(ANSWER, &mut acting).await {
            return done.map_err(|_| "the agent is stopping".to_owned())?;
        }
        self.given_up.fetch_add(1, Ordering::Relaxed);
        let given_up = Arc::clone(&self.given_up);
        tokio::spawn(async move {
            // What came of it is told to nobody any more.
            let _ = acting.await;
            given_up.fetch_sub(1, Ordering::Relaxed);
        });
        Err(silent())
    }

    /// Nobody of this host has it open while this is kept: who has it open has all GPUs open, and none of them can be reset.
    pub(super) async fn alone(&self) -> Result<Alone, String> {
        self.lock.alone().await
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test(start_paused = true)]
    async fn an_act_that_hangs_is_given_up_and_there_is_no_other_until_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DriverLock::of(directory.path()).unwrap();
        let driver = Driver::new(None, HostRoot::at("/nonexistent"), lock);
        let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let (end, ended) = mpsc::channel::<()>();
        let hanging = tokio::spawn({
            let driver = driver.clone();
            let hangs = move || {
                begin.send(()).map_err(|error| error.to_string())?;
                let _ = ended.recv();
                Ok(())
            };
            async move { driver.act(hangs).await }
        });
        begun.recv().await.unwrap();
        tokio::time::advance(2 * ANSWER).await;
        assert_eq!(hanging.await.unwrap(), Err("the driver does not answer".to_owned()));
        let ran = driver.act(|| -> Result<(), String> { panic!("it must not run") }).await;
        assert_eq!(ran, Err("the driver does not answer".to_owned()));
        drop(end);
        while driver.act(|| Ok(())).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
