//! Whether the kubelet has the plugin of an agent registered, for whoever asks from outside, as a readiness probe does.
//!
//! The agent has a file locked for as long as that is so, and the kernel lets go of it when the agent ends, however it does: nobody is
//! told of a plugin that is not there.

use super::Options;
use crate::{Error, output};
use clap::Args;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

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

/// Tells whether the kubelet has the plugin of this host's running agent registered: done if so.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick-agent ready

It fails with agent.not-ready otherwise: no agent runs, it has no driver or no live permit, or the kubelet is away.")]
pub struct ReadyArgs {
    #[command(flatten)]
    agent: AgentArgs,
}

impl ReadyArgs {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Error> {
        let path = path(&self.agent.kubelet_dir, &self.agent.instance);
        match is_held(&path) {
            Ok(true) => output::text("the kubelet has the plugin registered\n"),
            Ok(false) => Err(Error::NotReady),
            Err(source) => Err(Error::Unreadable { path, source }),
        }
    }
}

/// Beside the plugin's own socket.
fn path(kubelet_dir: &Path, instance: &str) -> PathBuf {
    kubelet_dir.join("plugins").join(dra::DRIVER).join(format!("registered-{instance}"))
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

/// Says whether the plugin is registered; no longer than it lives.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    held: Option<File>,
}

impl Mark {
    pub(super) fn of(options: &Options) -> Self {
        Self { path: path(&options.kubelet_dir, &options.instance), held: None }
    }

    pub(super) fn set(&mut self, registered: bool) -> io::Result<()> {
        if !registered {
            return self.take_away();
        }
        if self.held.is_none() {
            let file = File::options().create(true).truncate(false).write(true).open(&self.path)?;
            // Whoever asks has it for a moment.
            file.lock()?;
            self.held = Some(file);
        }
        Ok(())
    }

    fn take_away(&mut self) -> io::Result<()> {
        let Some(file) = self.held.take() else { return Ok(()) };
        drop(file);
        std::fs::remove_file(&self.path)
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
}
