//! Who has the driver open. No GPU can be reset while anybody has, and during an update two agents of one host have. So it is kept in
//! files, whose locks hold between processes and go with whoever dies.
//!
//! All who have the driver open hold `driver.open` together, and whoever resets holds it alone. Whoever waits for that holds
//! `driver.wanted`: who has the driver open for long looks there, and lets go.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often a lock that another has is tried.
const RETRY: Duration = Duration::from_millis(50);
/// A watch lets go within half a second, and other acts take some seconds; who takes longer hangs.
const LETTING_GO: Duration = Duration::from_secs(30);

/// The locks of one host. Clones are of the same.
#[derive(Clone, Debug)]
pub(super) struct DriverLock {
    open: PathBuf,
    wanted: PathBuf,
}

/// The driver may be open while this lives.
#[derive(Debug)]
pub(super) struct Opened(#[allow(dead_code, reason = "it unlocks when it is dropped")] File);

/// Nobody has the driver open while this lives.
#[derive(Debug)]
pub(super) struct Alone(#[allow(dead_code, reason = "they unlock when they are dropped")] [File; 2]);

impl DriverLock {
    /// In a directory that all agents of the host share; made if it is missing.
    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self { open: directory.join("driver.open"), wanted: directory.join("driver.wanted") })
    }

    /// To be taken before the driver is opened, and kept until it is closed. `None` while somebody resets, or waits for that.
    pub(super) fn try_open(&self) -> io::Result<Option<Opened>> {
        if self.is_wanted()? {
            return Ok(None);
        }
        Ok(locked(&self.open, File::try_lock_shared)?.map(Opened))
    }

    /// Whether somebody waits until the driver is let go.
    pub(super) fn is_wanted(&self) -> io::Result<bool> {
        Ok(locked(&self.wanted, File::try_lock_shared)?.is_none())
    }

    /// Waits until nobody resets.
    pub(super) async fn opened(&self) -> Result<Opened, String> {
        loop {
            if let Some(opened) = self.try_open().map_err(|error| told(&error))? {
                return Ok(opened);
            }
            sleep(RETRY).await;
        }
    }

    /// Waits until nobody has the driver open. Whoever resets is waited for, whatever it takes; who has it open is to let go.
    pub(super) async fn alone(&self) -> Result<Alone, String> {
        let wanted = loop {
            if let Some(wanted) = locked(&self.wanted, File::try_lock).map_err(|error| told(&error))? {
                break wanted;
            }
            // So that whoever looks at the GPUs in between gets its turn before the next reset.
            sleep(RETRY * 10).await;
        };
        let deadline = Instant::now() + LETTING_GO;
        loop {
            if let Some(open) = locked(&self.open, File::try_lock).map_err(|error| told(&error))? {
                return Ok(Alone([open, wanted]));
            }
            if Instant::now() >= deadline {
                return Err("an agent of this host has the driver open, and does not let go of it".to_owned());
            }
            sleep(RETRY).await;
        }
    }
}

/// The file, locked; `None` while others have it.
fn locked(path: &Path, lock: impl Fn(&File) -> Result<(), TryLockError>) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match lock(&file) {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn told(error: &io::Error) -> String {
    format!("the lock of the driver cannot be used: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_wants_it_alone_waits_for_those_who_have_it_open_and_keeps_others_out_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        // Two values are as two processes: a lock is of the file that was opened.
        let [one, other] = [(); 2].map(|()| DriverLock::of(directory.path()).unwrap());
        let opened = one.try_open().unwrap().unwrap();
        let also = other.try_open().unwrap().unwrap();
        let alone = tokio::spawn({
            let other = other.clone();
            async move { other.alone().await }
        });
        while !one.is_wanted().unwrap() {
            sleep(RETRY).await;
        }
        assert!(one.try_open().unwrap().is_none(), "it is wanted");
        drop((opened, also));
        let alone = alone.await.unwrap().unwrap();
        assert!(one.try_open().unwrap().is_none(), "it is held");
        drop(alone);
        assert!(!one.is_wanted().unwrap() && one.try_open().unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_let_go_is_not_waited_for_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DriverLock::of(directory.path()).unwrap();
        let _opened = lock.try_open().unwrap().unwrap();
        let refused = lock.alone().await.unwrap_err();
        assert!(refused.contains("does not let go"), "{refused}");
        assert!(!lock.is_wanted().unwrap());
    }
}
