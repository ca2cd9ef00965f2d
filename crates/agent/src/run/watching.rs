//! The thread that watches the GPUs. It can be asked to let go of the driver: no GPU is reset while anybody has it open.

use super::access::described;
use super::known::Sight;
use gpu::{Seen, Tips, Watch, Watcher};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// How often a thread that has let go looks whether it may go on.
const PAUSED: Duration = Duration::from_millis(50);

/// A thread that watches, until it is dropped.
#[derive(Debug)]
pub(super) struct Watching {
    sight: watch::Receiver<Option<Sight>>,
    hold: Hold,
    tips: Tips,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Lets the driver go for a while.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    /// How many want it.
    wanted: Arc<watch::Sender<usize>>,
    /// Whether the driver is let go.
    free: watch::Receiver<bool>,
}

/// The driver is let go while this lives.
#[derive(Debug)]
pub(super) struct Held(Arc<watch::Sender<usize>>);

impl Hold {
    /// Of a driver that nobody has open.
    #[cfg(test)]
    pub(super) fn of_nobody() -> Self {
        Self { wanted: Arc::default(), free: watch::channel(true).1 }
    }

    pub(super) async fn take(&self) -> Held {
        self.wanted.send_modify(|wanted| *wanted += 1);
        let held = Held(Arc::clone(&self.wanted));
        let mut free = self.free.clone();
        // An error is a thread that has ended, and has let go for good.
        let _ = free.wait_for(|free| *free).await;
        held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.send_modify(|wanted| *wanted -= 1);
    }
}

impl Watching {
    /// Watches; `cdi` are the directories in which NVIDIA's tool describes devices.
    pub(super) fn start(watch: Watch, cdi: Vec<PathBuf>) -> std::io::Result<Self> {
        let (seen, sight) = watch::channel(None);
        let wanted = Arc::new(watch::Sender::new(0));
        let (freed, free) = watch::channel(false);
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, ended) = (wanted.subscribe(), Arc::clone(&stop));
        let mut watcher = Watcher::new(watch);
        let tips = watcher.tips();
        let work = move || {
            while !ended.load(Ordering::Relaxed) {
                watcher.run(&mut |what| {
                    if let Seen::Changed(probe) | Seen::Same(probe) = what {
                        let sight = Sight { probe: Arc::new(probe.clone()), described: described(&cdi) };
                        seen.send_replace(Some(sight));
                    }
                    if ended.load(Ordering::Relaxed) || *asked.borrow() > 0 {
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                });
                while !ended.load(Ordering::Relaxed) {
                    let wanted = *asked.borrow() > 0;
                    freed.send_if_modified(|free| std::mem::replace(free, wanted) != wanted);
                    // Whoever comes from here on sees that it is not free, and is seen at the first probe.
                    if !wanted && *asked.borrow() == 0 {
                        break;
                    }
                    std::thread::sleep(PAUSED);
                }
            }
        };
        let thread = std::thread::Builder::new().name("gpus".to_owned()).spawn(work)?;
        Ok(Self { sight, hold: Hold { wanted, free }, tips, stop, thread: Some(thread) })
    }

    /// What is seen, now and later.
    pub(super) fn sight(&self) -> watch::Receiver<Option<Sight>> {
        self.sight.clone()
    }

    /// What is seen first; a driver that is missing is seen too.
    pub(super) async fn first(&self) -> Option<Sight> {
        let mut sight = self.sight.clone();
        let first = sight.wait_for(Option::is_some).await;
        first.ok().and_then(|sight| sight.clone())
    }

    pub(super) fn hold(&self) -> Hold {
        self.hold.clone()
    }

    /// To tell what was done to the GPUs.
    pub(super) fn tips(&self) -> Tips {
        self.tips.clone()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
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

    #[tokio::test(flavor = "multi_thread")]
    async fn the_driver_is_let_go_for_as_long_as_somebody_holds_it_and_watched_again() {
        let folder = tempfile::tempdir().unwrap();
        let host = Description::parse(nvml_stand_in::host("h100").unwrap()).unwrap();
        let installed = Installed::into(folder.path(), &host).unwrap();
        let watch = Watch {
            library: Some(installed.library()),
            host: HostRoot::default(),
            interval: Duration::from_millis(100),
        };
        let watching = Watching::start(watch, Vec::new()).unwrap();
        assert_eq!(watching.first().await.unwrap().probe.gpus.len(), 8);
        let (one, two) = (watching.hold().take().await, watching.hold().take().await);
        let mut sight = watching.sight();
        sight.mark_unchanged();
        drop(one);
        let quiet = tokio::time::timeout(Duration::from_millis(500), sight.changed()).await;
        assert!(quiet.is_err(), "nothing is probed while the driver is held");
        drop(two);
        tokio::time::timeout(Duration::from_mins(1), sight.changed()).await.unwrap().unwrap();
    }
}
