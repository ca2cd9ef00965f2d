//! The checkpoint and the CDI directory together, under one lock that also holds between processes.

use super::cdi::CdiDirectory;
use super::checkpoint::{Checkpoint, Held, HeldState, Loaded, Lost};
use super::error::{PluginError, Refusal};
use super::scrub::Records;
use domain::agent::ScrubRecord;
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
    records: Records,
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

    /// Has the specification of a claim say how far it is. It says it only for when the checkpoint is lost.
    pub(super) fn update_cdi(&self, uid: &str, held: &Held) {
        if let Err(error) = self.store.cdi.update(uid, held) {
            tracing::warn!(uid, %error, "the CDI specification of a claim was not written anew");
        }
    }

    /// Keeps the records of scrubs.
    pub(super) fn record(&self, scrubs: Vec<ScrubRecord>) -> Result<(), Refusal> {
        let written = self.store.records.add(scrubs);
        written.map_err(|error| Refusal::ScrubRecords { what: "written", reason: error.to_string() })
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
        let unusable = |source| PluginError::State { path: directory.into(), source };
        let is_new = !directory.join("scrub").try_exists().map_err(unusable)?;
        for locks in ["scrub", "gpu"] {
            std::fs::create_dir_all(directory.join(locks)).map_err(unusable)?;
        }
        let store = Self {
            directory: directory.to_owned(),
            cdi: CdiDirectory(cdi.to_owned()),
            records: Records(directory.join("scrubs.json")),
            // A file that could not be read is no boot that another can be the same as.
            boot_id: boot_id.map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned),
            lock_patience,
        };
        if is_new {
            // From here on a checkpoint that is not there was lost. Another agent may begin at the same time.
            let busy = |refusal: Refusal| unusable(io::Error::other(refusal.to_string()));
            let _lock = store.lock().map_err(busy)?;
            if !store.path().try_exists().map_err(unusable)?
                && let Some(first) = store.first().map_err(unusable)?
            {
                first.save(&store.path()).map_err(unusable)?;
            }
        }
        Ok(store)
    }

    /// The checkpoint of a directory that was never used here, or that somebody took away while claims hold devices: their specifications
    /// tell. `None` where one of those cannot be read: then nothing is handed out, as after a checkpoint that was lost.
    fn first(&self) -> io::Result<Option<Checkpoint>> {
        let (claims, unreadable) = match self.cdi.claims() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Default::default(),
            read => read?,
        };
        let lost = (!claims.is_empty()).then(Lost::default);
        Ok(unreadable.is_empty().then_some(Checkpoint { claims, lost }))
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

    /// The last scrubs.
    pub(super) fn scrubs(&self) -> Result<Vec<ScrubRecord>, Refusal> {
        let read = self.records.read();
        read.map_err(|error| Refusal::ScrubRecords { what: "read", reason: error.to_string() })
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
        let lost = match Checkpoint::load(&self.path()).map_err(failed("read"))? {
            Loaded::Whole(checkpoint) => return Ok((Some(checkpoint.clone()), checkpoint)),
            lost => lost,
        };
        let rebuilt = self.rebuild()?;
        let reason = match lost {
            Loaded::Corrupted(reason) => {
                let aside = self.directory.join(format!("checkpoint.corrupted-{}", seconds_since_1970()));
                std::fs::copy(self.path(), aside).map_err(failed("set aside"))?;
                reason
            }
            Loaded::Absent | Loaded::Whole(_) => "it is gone".to_owned(),
        };
        tracing::error!(code = "plugin.checkpoint.corrupted", reason, "made anew from CDI specifications");
        // Replaced at once: what was set aside would look as if nothing had ever been held here.
        rebuilt.save(&self.path()).map_err(failed("written"))?;
        Ok((Some(rebuilt.clone()), rebuilt))
    }

    /// From the specifications of claims, each of which says what the checkpoint said of it. They are in memory: after a restart of the
    /// host there are none, and whoever held something then is not known. One that cannot be read, or a directory that is not
    /// there, leaves nobody who knows what containers have now: then nothing is handed out.
    fn rebuild(&self) -> Result<Checkpoint, Refusal> {
        let refused = |reason: String| Refusal::Checkpoint { what: "made anew", reason };
        let read = self.cdi.claims();
        let (claims, unreadable) =
            read.map_err(|error| refused(format!("{}: {error}", self.cdi.0.display())))?;
        match unreadable.first() {
            None => Ok(Checkpoint { claims, lost: Some(Lost::default()) }),
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
