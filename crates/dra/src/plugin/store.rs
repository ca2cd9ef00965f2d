//! The checkpoint and the CDI directory together, under one lock that also holds between processes.

use super::cdi::CdiDirectory;
use super::checkpoint::{Checkpoint, Held, HeldState, Loaded};
use super::error::{PluginError, Refusal};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often a lock that another has is tried. A change takes some milliseconds, most of it fsync.
const RETRY: Duration = Duration::from_millis(1);

#[derive(Clone, Debug)]
pub(super) struct Store {
    directory: PathBuf,
    cdi: CdiDirectory,
    boot_id: Option<String>,
    lock_patience: Duration,
}

/// Holds for as long as it lives.
pub(super) struct Lock(#[allow(dead_code)] File);

/// The checkpoint, while nobody else in any process changes it or a specification.
pub(super) struct Open<'a> {
    store: &'a Store,
    /// What is on disk.
    before: Option<Checkpoint>,
    pub(super) checkpoint: Checkpoint,
    _lock: Lock,
}

impl Open<'_> {
    /// Writes what was changed.
    pub(super) fn save(&mut self) -> Result<(), Refusal> {
        if self.before.as_ref() != Some(&self.checkpoint) {
            self.checkpoint.save(&self.store.path()).map_err(failed("written"))?;
            self.before = Some(self.checkpoint.clone());
        }
        Ok(())
    }

    /// Writes the specification of a claim, if it is not there.
    pub(super) fn write_cdi(&self, uid: &str, held: &Held) -> Result<(), Refusal> {
        self.store.cdi.write(uid, held).map_err(self.cdi_failed("written", uid))
    }

    pub(super) fn remove_cdi(&self, uid: &str) -> Result<(), Refusal> {
        self.store.cdi.remove(uid).map_err(self.cdi_failed("removed", uid))
    }

    fn cdi_failed(&self, what: &'static str, uid: &str) -> impl Fn(io::Error) -> Refusal {
        let path = self.store.cdi.path(uid).display().to_string();
        move |error| Refusal::Cdi { what, path: path.clone(), reason: error.to_string() }
    }
}

impl Store {
    pub(super) fn new(
        directory: &Path,
        cdi: &Path,
        boot_id: Option<&str>,
        lock_patience: Duration,
    ) -> Result<Self, PluginError> {
        for locks in ["scrub", "gpu"] {
            std::fs::create_dir_all(directory.join(locks))
                .map_err(|source| PluginError::State { path: directory.into(), source })?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            cdi: CdiDirectory(cdi.to_owned()),
            // A file that could not be read is no boot that another can be the same as.
            boot_id: boot_id.map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned),
            lock_patience,
        })
    }

    /// This boot, if it can be told.
    pub(super) fn boot_id(&self) -> Option<&str> {
        self.boot_id.as_deref()
    }

    /// Waits until nobody else has it.
    pub(super) fn open(&self) -> Result<Open<'_>, Refusal> {
        let lock = self.lock()?;
        let (before, checkpoint) = self.load()?;
        Ok(Open { store: self, before, checkpoint, _lock: lock })
    }

    /// Reads the checkpoint, lets it be changed, and writes it if it was.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Checkpoint) -> T) -> Result<T, Refusal> {
        let mut open = self.open()?;
        let result = change(&mut open.checkpoint);
        open.save()?;
        Ok(result)
    }

    /// What is on disk.
    pub(super) fn read(&self) -> Result<Checkpoint, Refusal> {
        Ok(self.open()?.checkpoint)
    }

    /// Writes specifications that are missing, all that can be; the first failure is told. Not after a reboot, when nodes below
    /// `/dev` may have other numbers and no container lives: the kubelet then asks for each claim again.
    pub(super) fn restore_cdi(&self) -> Result<(), Refusal> {
        let open = self.open()?;
        let lasting = open
            .checkpoint
            .claims
            .iter()
            .filter(|(_, held)| held.state == HeldState::Prepared && held.is_of_boot(self.boot_id()));
        let written: Vec<_> = lasting.map(|(uid, held)| open.write_cdi(uid, held)).collect();
        written.into_iter().collect()
    }

    /// Whoever has it scrubs the devices of a claim; `None` while another does.
    pub(super) fn scrub_lock(&self, uid: &str) -> Result<Option<Lock>, Refusal> {
        try_lock(&self.scrub_path(uid))
    }

    /// After the scrub; whoever waited with the removed file in hand finds the claim gone.
    pub(super) fn forget_scrub_lock(&self, uid: &str) {
        let _ = std::fs::remove_file(self.scrub_path(uid));
    }

    /// Whoever has it makes or scrubs parts of a physical GPU, or all of it; `None` while another does.
    pub(super) fn gpu_lock(&self, gpu: &str) -> Result<Option<Lock>, Refusal> {
        // A UUID in practice; two that are alike but for odd characters only wait for each other.
        let name = gpu.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_");
        try_lock(&self.directory.join("gpu").join(name))
    }

    fn lock(&self) -> Result<Lock, Refusal> {
        let path = self.directory.join("checkpoint.lock");
        let deadline = Instant::now() + self.lock_patience;
        loop {
            if let Some(lock) = try_lock(&path)? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                return Err(Refusal::CheckpointBusy { seconds: self.lock_patience.as_secs() });
            }
            std::thread::sleep(RETRY);
        }
    }

    /// What is on disk, and what is to be believed of it.
    fn load(&self) -> Result<(Option<Checkpoint>, Checkpoint), Refusal> {
        match Checkpoint::load(&self.path()).map_err(failed("read"))? {
            Loaded::Whole(checkpoint) => Ok((Some(checkpoint.clone()), checkpoint)),
            Loaded::Absent => Ok((None, self.rebuild(Missing::IsEmpty)?)),
            Loaded::Corrupted(reason) => {
                let rebuilt = self.rebuild(Missing::IsUnknown)?;
                let aside = self.directory.join(format!("checkpoint.corrupted-{}", seconds_since_1970()));
                tracing::error!(code = "plugin.checkpoint.corrupted", reason, aside = %aside.display(), "made anew from CDI specifications");
                // Replaced at once: what was set aside would look as if nothing had ever been held here.
                std::fs::copy(self.path(), aside).map_err(failed("set aside"))?;
                rebuilt.save(&self.path()).map_err(failed("written"))?;
                Ok((Some(rebuilt.clone()), rebuilt))
            }
        }
    }

    /// From the specifications of claims, each of which says what the checkpoint said of it. One that cannot be read either
    /// leaves nobody who knows which devices are held: then nothing is handed out.
    fn rebuild(&self, missing: Missing) -> Result<Checkpoint, Refusal> {
        let refused = |reason: String| Refusal::Checkpoint { what: "made anew", reason };
        let (claims, unreadable) = match self.cdi.claims() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && missing == Missing::IsEmpty => {
                Ok(Default::default())
            }
            read => read.map_err(|error| refused(format!("{}: {error}", self.cdi.0.display()))),
        }?;
        match unreadable.first() {
            None => Ok(Checkpoint { claims }),
            Some(path) => Err(refused(format!(
                "{} cannot be understood; remove it once its claim is gone",
                path.display()
            ))),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("checkpoint.json")
    }

    fn scrub_path(&self, uid: &str) -> PathBuf {
        self.directory.join("scrub").join(uid)
    }
}

/// What a CDI directory that is not there says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Nothing was ever prepared here, as there is no checkpoint either.
    IsEmpty,
    /// Something was, and nobody knows what.
    IsUnknown,
}

fn try_lock(path: &Path) -> Result<Option<Lock>, Refusal> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(failed("locked"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed("locked")(error)),
    }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Refusal {
    move |error| Refusal::Checkpoint { what, reason: error.to_string() }
}

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
