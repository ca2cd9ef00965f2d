//! The checkpoint and the CDI directory together, under one lock that also holds between processes.

use super::cdi::CdiDirectory;
use super::checkpoint::{Checkpoint, Held, HeldState, Loaded};
use super::error::{PluginError, Refusal};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug)]
pub(super) struct Store {
    directory: PathBuf,
    cdi: CdiDirectory,
    boot_id: String,
}

/// Holds for as long as it lives.
pub(super) struct Lock(#[allow(dead_code)] File);

impl Store {
    pub(super) fn new(directory: &Path, cdi: &Path, boot_id: &str) -> Result<Self, PluginError> {
        std::fs::create_dir_all(directory.join("scrub"))
            .map_err(|source| PluginError::State { path: directory.into(), source })?;
        Ok(Self {
            directory: directory.to_owned(),
            cdi: CdiDirectory(cdi.to_owned()),
            boot_id: boot_id.to_owned(),
        })
    }

    /// Reads the checkpoint, lets it be changed, and writes it if it was. Nobody else does the same meanwhile.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Checkpoint) -> T) -> Result<T, Refusal> {
        let _lock = self.lock()?;
        let (before, mut checkpoint) = self.load()?;
        let result = change(&mut checkpoint);
        checkpoint.boot_id.clone_from(&self.boot_id);
        if before.as_ref() != Some(&checkpoint) {
            checkpoint.save(&self.path()).map_err(failed("written"))?;
        }
        Ok(result)
    }

    /// What is on disk.
    pub(super) fn read(&self) -> Result<Checkpoint, Refusal> {
        let _lock = self.lock()?;
        Ok(self.load()?.1)
    }

    /// Writes the specification of a claim, if it is not there.
    pub(super) fn write_cdi(&self, uid: &str, held: &Held) -> Result<(), Refusal> {
        self.cdi.write(uid, held).map_err(self.cdi_failed("written", uid))
    }

    pub(super) fn remove_cdi(&self, uid: &str) -> Result<(), Refusal> {
        self.cdi.remove(uid).map_err(self.cdi_failed("removed", uid))
    }

    /// Writes specifications that are missing; not after a reboot, when nodes below `/dev` may have other numbers and no
    /// container lives: the kubelet then asks for each claim again.
    pub(super) fn restore_cdi(&self) -> Result<(), Refusal> {
        let checkpoint = self.read()?;
        if checkpoint.boot_id != self.boot_id {
            return Ok(());
        }
        for (uid, held) in checkpoint.claims.iter().filter(|(_, held)| held.state == HeldState::Prepared) {
            self.write_cdi(uid, held)?;
        }
        Ok(())
    }

    /// Whoever has it scrubs the devices of a claim; `None` while another does.
    pub(super) fn scrub_lock(&self, uid: &str) -> Result<Option<Lock>, Refusal> {
        let file = open(&self.scrub_path(uid)).map_err(failed("locked"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(failed("locked")(error)),
        }
    }

    /// After the scrub; whoever waited with the removed file in hand finds the claim gone.
    pub(super) fn forget_scrub_lock(&self, uid: &str) {
        let _ = std::fs::remove_file(self.scrub_path(uid));
    }

    fn lock(&self) -> Result<Lock, Refusal> {
        let file = open(&self.directory.join("checkpoint.lock")).map_err(failed("locked"))?;
        file.lock().map_err(failed("locked"))?;
        Ok(Lock(file))
    }

    /// What is on disk, and what is to be believed of it.
    fn load(&self) -> Result<(Option<Checkpoint>, Checkpoint), Refusal> {
        match Checkpoint::load(&self.path()).map_err(failed("read"))? {
            Loaded::Whole(checkpoint) => Ok((Some(checkpoint.clone()), checkpoint)),
            Loaded::Absent => Ok((None, self.rebuild()?)),
            Loaded::Corrupted(reason) => {
                let aside = self.directory.join(format!("checkpoint.corrupted-{}", seconds_since_1970()));
                tracing::error!(code = "plugin.checkpoint.corrupted", reason, aside = %aside.display(), "made anew from CDI specifications");
                let rebuilt = self.rebuild()?;
                std::fs::rename(self.path(), aside).map_err(failed("set aside"))?;
                Ok((None, rebuilt))
            }
        }
    }

    /// From the specifications of claims, each of which says what the checkpoint said of it. One that cannot be read either
    /// leaves nobody who knows which devices are held: then nothing is handed out.
    fn rebuild(&self) -> Result<Checkpoint, Refusal> {
        let (claims, unreadable) = self.cdi.claims();
        match unreadable.first() {
            None => Ok(Checkpoint { boot_id: String::new(), claims }),
            Some(path) => Err(Refusal::Checkpoint {
                what: "made anew",
                reason: format!("{} cannot be understood; remove it once its claim is gone", path.display()),
            }),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("checkpoint.json")
    }

    fn scrub_path(&self, uid: &str) -> PathBuf {
        self.directory.join("scrub").join(uid)
    }

    fn cdi_failed(&self, what: &'static str, uid: &str) -> impl Fn(io::Error) -> Refusal {
        let path = self.cdi.path(uid).display().to_string();
        move |error| Refusal::Cdi { what, path: path.clone(), reason: error.to_string() }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(path)
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Refusal {
    move |error| Refusal::Checkpoint { what, reason: error.to_string() }
}

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
