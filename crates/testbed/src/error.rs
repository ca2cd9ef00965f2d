//! What can go wrong while a counterpart is started or used. The messages are read by whoever looks
//! at a failed test, so they say what to do and show the program's own last words.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A counterpart could not be found, started or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The part has not been built on this machine.
    #[error("{part} is not built: run hack/testbed/build {part}\n{details}")]
    NotBuilt {
        /// The part's name, as `hack/testbed/build` knows it.
        part: &'static str,
        /// What the script said.
        details: String,
    },
    /// A file or directory of the testbed could not be read or written.
    #[error("could not {doing} {}", path.display())]
    File {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A program could not be started at all.
    #[error("could not start {program} (setpriv, of util-linux, must be on the PATH)")]
    Spawn {
        /// The program.
        program: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A program ended by itself while it should have been running.
    #[error("{program} ended ({status}); its last lines:\n{log}")]
    Ended {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: String,
        /// The last lines of its output.
        log: String,
    },
    /// A program runs and does not answer.
    #[error("{program} did not become ready within {within:?}; its last lines:\n{log}")]
    NotReady {
        /// The program.
        program: &'static str,
        /// How long was waited.
        within: Duration,
        /// The last lines of its output.
        log: String,
    },
    /// A command that was run to its end failed.
    #[error("{command} failed ({status}):\n{stderr}")]
    Command {
        /// The command with its arguments.
        command: String,
        /// How it ended.
        status: String,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// A certificate or key could not be made.
    #[error("could not make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A client certificate carries two groups at most (the generator's limit).
    #[error("a client certificate carries at most 2 groups here, {0} were asked for")]
    TooManyGroups(usize),
    /// The HTTPS client that waits for readiness could not be made.
    #[error("could not make an HTTPS client")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No user of this name exists on the machine.
    #[error("there is no user `{0}` on this machine: run hack/testbed/build postgresql")]
    NoUser(&'static str),
    /// What is to be started makes namespaces and mounts.
    #[error("{0} needs root: run these tests as root, in a container or a virtual machine")]
    NeedsRoot(&'static str),
    /// What was waited for did not come to be.
    #[error("{what} did not come to be as wanted; it was last:\n{last}")]
    Never {
        /// What was looked at.
        what: String,
        /// How it was found last.
        last: String,
    },
    /// A kubelet's configuration that cannot be read.
    #[error("could not read the KubeletConfiguration: {0}")]
    KubeletConfiguration(String),
}

impl Error {
    /// A stable name of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotBuilt { .. } => "testbed.not-built",
            Self::File { .. } => "testbed.file",
            Self::Spawn { .. } => "testbed.spawn",
            Self::Ended { .. } => "testbed.ended",
            Self::NotReady { .. } => "testbed.not-ready",
            Self::Command { .. } => "testbed.command",
            Self::Certificate(_) => "testbed.certificate",
            Self::TooManyGroups(_) => "testbed.too-many-groups",
            Self::Client(_) => "testbed.client",
            Self::NoUser(_) => "testbed.no-user",
            Self::NeedsRoot(_) => "testbed.needs-root",
            Self::Never { .. } => "testbed.never",
            Self::KubeletConfiguration(_) => "testbed.kubelet-configuration",
        }
    }

    /// Turns an I/O error on a file into an [`Error`] that names the file.
    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    /// Whether a server ended because somebody else took its port first, so that another try helps.
    pub(crate) fn is_port_taken(&self) -> bool {
        matches!(self, Self::Ended { log, .. } if log.to_lowercase().contains("address already in use"))
    }
}
