//! How a command of the agent fails, and with which exit code.

use domain::{Diagnose, Problem};

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// NVML cannot be asked.
    #[error(transparent)]
    Gpu(#[from] gpu::Error),
    /// What is said to the cell.
    #[error(transparent)]
    Cell(#[from] crate::cell::Error),
    /// The plugin does not work.
    #[error(transparent)]
    Plugin(#[from] dra::plugin::PluginError),
    /// The API server cannot be asked.
    #[error(transparent)]
    ApiServer(#[from] dra::plugin::ApiServerError),
    /// How to reach the API server is not known.
    #[error("how to reach the API server is not known: {0}")]
    Kubernetes(String),
    /// The kubelet has no plugin of this agent registered, and there may be something to register.
    #[error("the kubelet has no plugin of this agent registered")]
    NotReady,
    /// A file that was named on the command line.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// Its path.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A thread or runtime cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(#[source] std::io::Error),
}

/// How the program ended; part of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// Failed.
    Failed,
    /// Wrong use of the command line; clap's own.
    Usage,
    /// No NVIDIA driver on this host.
    NoDriver,
    /// There is a driver or library, and it cannot be asked.
    Unusable,
}

impl Error {
    /// Stable code.
    pub fn code(&self) -> &str {
        match self {
            Self::Gpu(error) => error.code(),
            Self::Cell(error) => error.code(),
            Self::Plugin(error) => error.code(),
            Self::ApiServer(error) => error.code(),
            Self::Kubernetes(_) => "agent.kubernetes",
            Self::NotReady => "agent.not-ready",
            Self::Thread(_) => "agent.thread",
            Self::Unreadable { .. } => "input.unreadable",
            Self::Output(_) => "output.write",
        }
    }

    /// What the program ends with.
    pub fn exit(&self) -> Exit {
        match self {
            // Who reads our output went away: that is no failure of ours.
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Cell(_)
            | Self::Plugin(_)
            | Self::ApiServer(_)
            | Self::Kubernetes(_)
            | Self::NotReady
            | Self::Thread(_)
            | Self::Unreadable { .. }
            | Self::Output(_)
            // As any other file that was named and is not there.
            | Self::Gpu(gpu::Error::LibraryMissing(_)) => Exit::Failed,
            Self::Gpu(gpu::Error::NoDriver(_)) => Exit::NoDriver,
            Self::Gpu(_) => Exit::Unusable,
        }
    }
}

impl Diagnose for Error {
    fn problem(&self) -> Problem {
        match self {
            Self::Gpu(error) => error.problem(),
            Self::Cell(error) => error.problem(),
            Self::Plugin(_) | Self::ApiServer(_) | Self::Kubernetes(_) | Self::NotReady | Self::Thread(_) => {
                let problem = Problem::new(self.code(), self.to_string());
                let mut codes = dra::CODES.iter().chain(domain::agent::CODES);
                match codes.find(|(code, ..)| *code == self.code()) {
                    Some((_, _, hint)) => problem.hint(*hint),
                    None => problem,
                }
            }
            Self::Unreadable { .. } => {
                Problem::new(self.code(), self.to_string()).hint("Check the path and its permissions.")
            }
            Self::Output(_) => Problem::new("output.write", self.to_string())
                .hint("Check the disk and where the output goes."),
        }
    }
}

impl Exit {
    const ALL: [Self; 5] = [Self::Ok, Self::Failed, Self::Usage, Self::NoDriver, Self::Unusable];

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoDriver => 10,
            Self::Unusable => 11,
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Failed => "failed",
            Self::Usage => "wrong use of the command line",
            Self::NoDriver => "no NVIDIA driver is loaded on this host",
            Self::Unusable => "there is a driver or library, and it cannot be asked",
        }
    }

    /// As `--help` tells it.
    pub fn help() -> String {
        let lines = Self::ALL.map(|exit| format!("  {:>3}  {}", exit.code(), exit.meaning()));
        format!("Exit codes:\n{}", lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_driver_has_an_exit_code_of_its_own() {
        let error = Error::from(gpu::Error::NoDriver(String::new()));
        assert_eq!(error.exit(), Exit::NoDriver);
        assert!(Exit::ALL.iter().filter(|exit| exit.code() == Exit::NoDriver.code()).count() == 1);
        assert_eq!(Error::from(gpu::Error::DriverMismatch).exit(), Exit::Unusable);
    }
}
