//! Whether the kubelet has the plugin of an agent registered, or there is nothing to register, for whoever asks from outside, as a readiness
//! probe does.
//!
//! The agent has a file locked for as long as that is so, and the kernel lets go of it when the agent ends, however it does: nobody is
//! told of a plugin that is not there. Only who has a file locked takes it away.

use super::Options;
use crate::{Error, output};
use clap::Args;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const PREFIX: &str = "registered-";
/// Another agent that begins may take the file away before it is locked.
const ATTEMPTS: u32 = 3;

/// Which agent of a host.
#[derive(Args, Debug)]
pub(super) struct AgentArgs {
    /// The kubelet's directory
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/kubelet",
        env = "BAILIWICK_KUBELET_DIR",
        hide_env_values = true
    )]
    pub(super) kubelet_dir: PathBuf,
    /// Tells two agents of one host apart, as during an update: a short name
    #[arg(long, value_name = "NAME", default_value = "gpu", env = "BAILIWICK_INSTANCE", hide_env_values = true, value_parser = instance)]
    pub(super) instance: String,
}

/// Tells whether the kubelet has the plugin of this host's running agent registered, or there is nothing to register: done if so.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick-agent ready

There is nothing to register where the cell has answered the agent and permits no GPU of the host: it has none, or NVIDIA's plugin \
hands them out.

It fails with agent.not-ready otherwise: no agent runs, the cell has not answered it, permits have run out, GPUs have no driver, or \
the kubelet is away.")]
pub struct ReadyArgs {
    #[command(flatten)]
    agent: AgentArgs,
}

impl ReadyArgs {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Error> {
        let path = path(&self.agent.kubelet_dir, &self.agent.instance);
        match is_held(&path) {
            Ok(true) => {
                output::text("the kubelet has the plugin registered, or there is nothing to register\n")
            }
            Ok(false) => Err(Error::NotReady),
            Err(source) => Err(Error::Unreadable { path, source }),
        }
    }
}

/// Beside the plugin's own socket.
fn path(kubelet_dir: &Path, instance: &str) -> PathBuf {
    kubelet_dir.join("plugins").join(dra::DRIVER).join(format!("{PREFIX}{instance}"))
}

/// Takes away what other agents left that were killed.
pub(super) fn sweep(options: &Options) {
    let own = path(&options.kubelet_dir, &options.instance);
    if let Some(Err(error)) = own.parent().map(|directory| sweep_others(directory, &own)) {
        tracing::warn!(%error, "what agents left that were killed is not taken away");
    }
}

fn sweep_others(directory: &Path, own: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let is_mark =
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
        if !is_mark || path == own {
            continue;
        }
        let file = match File::open(&path) {
            // Its agent has just ended.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            file => file?,
        };
        if file.try_lock().is_ok() && is_at(&file, &path)? {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Whether this file is the one of that name still.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let found = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    let file = file.metadata()?;
    Ok((found.dev(), found.ino()) == (file.dev(), file.ino()))
}

/// Whether somebody has the file locked.
fn is_held(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Says whether the agent is ready; no longer than it lives.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    held: Option<File>,
}

impl Mark {
    pub(super) fn of(options: &Options) -> Self {
        Self { path: path(&options.kubelet_dir, &options.instance), held: None }
    }

    pub(super) fn set(&mut self, ready: bool) -> io::Result<()> {
        if !ready {
            return self.take_away();
        }
        // Somebody may have taken it away meanwhile: nobody can ask one that has no name.
        for _ in 0..ATTEMPTS {
            if self.is_there()? {
                return Ok(());
            }
            let file = File::options().create(true).truncate(false).write(true).open(&self.path)?;
            // Whoever asks has it for a moment.
            file.lock()?;
            self.held = Some(file);
        }
        if self.is_there()? { Ok(()) } else { Err(io::Error::other("somebody takes its file away")) }
    }

    fn is_there(&self) -> io::Result<bool> {
        self.held.as_ref().map_or(Ok(false), |file| is_at(file, &self.path))
    }

    fn take_away(&mut self) -> io::Result<()> {
        let is_there = self.is_there();
        // Locked until it is gone.
        let _held = self.held.take();
        if is_there? { std::fs::remove_file(&self.path) } else { Ok(()) }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // Nobody holds it, and so it says nothing, also where it cannot be removed.
        let _ = self.take_away();
    }
}

/// It stands in names of sockets, before an `@` and within 107 bytes.
fn instance(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() <= 36
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("at most 36 lower-case letters, digits and dashes".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_registered_while_its_agent_says_so_and_no_file_that_was_left_says_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registered-gpu");
        assert!(!is_held(&path).unwrap());
        let mut mark = Mark { path: path.clone(), held: None };
        for _ in 0..2 {
            mark.set(true).unwrap();
            mark.set(true).unwrap();
            assert!(is_held(&path).unwrap() && is_held(&path).unwrap());
            mark.set(false).unwrap();
            assert!(!is_held(&path).unwrap() && !path.exists());
        }
        mark.set(true).unwrap();
        drop(mark);
        assert!(!path.exists());
        // As one that was killed leaves it; the next one takes it.
        std::fs::write(&path, "").unwrap();
        assert!(!is_held(&path).unwrap());
        let mut mark = Mark { path: path.clone(), held: None };
        mark.set(true).unwrap();
        assert!(is_held(&path).unwrap());
    }

    #[test]
    fn a_mark_that_somebody_takes_away_is_made_again_and_nobody_elses_is_taken_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registered-gpu");
        let mut mark = Mark { path: path.clone(), held: None };
        mark.set(true).unwrap();
        std::fs::remove_file(&path).unwrap();
        mark.set(true).unwrap();
        assert!(is_held(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        mark.set(true).unwrap();
        assert!(is_held(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        mark.set(false).unwrap();
        assert!(path.exists());
        std::fs::remove_file(&path).unwrap();
        mark.set(true).unwrap();
        std::fs::remove_file(&path).unwrap();
        mark.set(false).unwrap();
    }

    #[test]
    fn what_killed_agents_left_is_swept_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["registered-killed", "registered-own", "checkpoint.json"] {
            std::fs::write(at(name), "").unwrap();
        }
        let mut lives = Mark { path: at("registered-lives"), held: None };
        lives.set(true).unwrap();
        sweep_others(directory.path(), &at("registered-own")).unwrap();
        let left = |name: &str| at(name).exists();
        assert!(left("registered-own") && left("checkpoint.json") && !left("registered-killed"));
        assert!(is_held(&lives.path).unwrap());
    }
}
