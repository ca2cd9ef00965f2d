//! The thread that watches the GPUs. It lets go of the driver when it is asked to: no GPU is reset while anybody has it open.

use super::access::described;
use super::driver_lock::DriverLock;
use super::known::Sight;
use crate::cell::uptime;
use gpu::{Seen, Tips, Watch, Watcher};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often a thread that has let go looks whether it may go on.
const PAUSED: Duration = Duration::from_millis(50);
/// How long a thread may take to end. One that hangs in the driver ends with the process, or never.
const LEAVING: Duration = Duration::from_secs(2);

/// A thread that watches, until it is dropped.
#[derive(Debug)]
pub(super) struct Watching {
    sight: watch::Receiver<Option<Sight>>,
    tips: Tips,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watching {
    /// Watches; `cdi` are the directories in which NVIDIA's tool describes devices.
    pub(super) fn start(watch: Watch, cdi: Vec<PathBuf>, lock: DriverLock) -> std::io::Result<Self> {
        let (seen, sight) = watch::channel(None);
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let mut watcher = Watcher::new(watch);
        let tips = watcher.tips();
        let work = move || {
            while !ended.load(Ordering::Relaxed) {
                let opened = match lock.try_open() {
                    Ok(Some(opened)) => opened,
                    Ok(None) => {
                        std::thread::sleep(PAUSED);
                        continue;
                    }
                    Err(error) => {
                        tracing::error!(%error, "the lock of the driver cannot be used");
                        std::thread::sleep(LEAVING);
                        continue;
                    }
                };
                // A probe takes its time, and tells what was so when it began.
                let mut began = uptime();
                watcher.run(&mut |what| {
                    if let Seen::Changed(probe) | Seen::Same(probe) = what {
                        let probe = Arc::new(probe.clone());
                        seen.send_replace(Some(Sight { probe, described: described(&cdi), began }));
                    }
                    began = uptime();
                    if ended.load(Ordering::Relaxed) || lock.is_wanted().unwrap_or(true) {
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                });
                drop(opened);
            }
        };
        let thread = std::thread::Builder::new().name("gpus".to_owned()).spawn(work)?;
        Ok(Self { sight, tips, stop, thread: Some(thread) })
    }

    /// What is seen, now and later.
    pub(super) fn sight(&self) -> watch::Receiver<Option<Sight>> {
        self.sight.clone()
    }

    /// Waits until something was seen; a driver that is missing is seen too.
    pub(super) async fn first(&self) {
        // An error is a thread that has ended: then nothing will be seen.
        let _ = self.sight.clone().wait_for(Option::is_some).await;
    }

    /// To tell what was done to the GPUs.
    pub(super) fn tips(&self) -> Tips {
        self.tips.clone()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + LEAVING;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(PAUSED);
        }
        if thread.is_finished() {
            // An error is a panic in there, which has been told already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpu::HostRoot;
    use nvml_stand_in::{Description, Installed};

    fn host() -> Description {
        Description::parse(nvml_stand_in::host("h100").unwrap()).unwrap()
    }

    /// Watches a host, often.
    fn watching(installed: &Installed, lock: &DriverLock) -> Watching {
        let watch = Watch {
            library: Some(installed.library()),
            host: HostRoot::default(),
            interval: Duration::from_millis(100),
        };
        Watching::start(watch, Vec::new(), lock.clone()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_driver_is_let_go_for_as_long_as_somebody_holds_it_and_watched_again() {
        let folder = tempfile::tempdir().unwrap();
        let installed = Installed::into(folder.path(), &host()).unwrap();
        let lock = DriverLock::of(folder.path()).unwrap();
        let watching = watching(&installed, &lock);
        watching.first().await;
        let mut sight = watching.sight();
        assert_eq!(sight.borrow().as_ref().unwrap().probe.gpus.len(), 8);
        let alone = lock.alone().await.unwrap();
        sight.mark_unchanged();
        let quiet = tokio::time::timeout(Duration::from_millis(500), sight.changed()).await;
        assert!(quiet.is_err(), "nothing is probed while the driver is held");
        drop(alone);
        tokio::time::timeout(Duration::from_mins(1), sight.changed()).await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_driver_that_hangs_does_not_keep_the_agent_from_ending() {
        let folder = tempfile::tempdir().unwrap();
        let hangs = "faults: [{ function: nvmlDeviceGetSerial, hangs: true }]";
        let hung = Description { faults: Description::parse(hangs).unwrap().faults, ..host() };
        let installed = Installed::into(folder.path(), &hung).unwrap();
        let watching = watching(&installed, &DriverLock::of(folder.path()).unwrap());
        let first = tokio::time::timeout(Duration::from_millis(500), watching.first()).await;
        assert!(first.is_err(), "it hangs in its first probe");
        let started = Instant::now();
        drop(watching);
        assert!(started.elapsed() < Duration::from_mins(1));
        // What hangs ends.
        installed.describe(&host()).unwrap();
    }
}
