//! What can go wrong when a site is described or started.

use std::path::PathBuf;

/// A failure of the simulator itself; faults that it plays to clients are not errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried: `read`, `write`, `create`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A recording holds something that is not a Redfish tree.
    #[error("{} is not a recorded Redfish tree: {reason}", path.display())]
    Recording {
        /// Which archive.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A site file that does not parse, with line and column in the source.
    #[error("{} is not a site description", path.display())]
    SiteSyntax {
        /// Which file.
        path: PathBuf,
        /// The parser's message, which names line, column and field.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A site that parses but cannot be.
    #[error("{0}")]
    Site(String),
    /// A model of this name does not exist.
    #[error("there is no model {0}; there are dgx-h100, poweredge-xe and cpu-node")]
    UnknownModel(String),
    /// No socket that only this machine can reach could be opened.
    #[error("cannot listen on {address}: {hint}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// What to do about it.
        hint: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A key or certificate could not be made or read.
    #[error("cannot make a TLS identity for {name}")]
    Certificate {
        /// For which BMC.
        name: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A helper program (python3, for certificates that no Rust TLS library serves) did not start.
    #[error("{program} did not start a server: {reason}")]
    Helper {
        /// Which program.
        program: &'static str,
        /// Its last words.
        reason: String,
    },
}

impl Error {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "sim.file",
            Self::Recording { .. } => "sim.recording",
            Self::SiteSyntax { .. } => "sim.site-syntax",
            Self::Site(_) => "sim.site",
            Self::UnknownModel(_) => "sim.unknown-model",
            Self::Listen { .. } => "sim.listen",
            Self::Certificate { .. } => "sim.certificate",
            Self::Helper { .. } => "sim.helper",
        }
    }

    /// The same error about a certificate, naming what the caller knows it by.
    pub(crate) fn for_name(self, name: &str) -> Self {
        match self {
            Self::Certificate { source, .. } => Self::Certificate { name: name.to_owned(), source },
            other => other,
        }
    }

    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    pub(crate) fn certificate<E>(name: &str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let name = name.to_owned();
        move |source| Self::Certificate { name, source: Box::new(source) }
    }
}
