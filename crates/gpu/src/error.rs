//! Why NVML cannot be asked at all. What fails of one GPU or one value is no error of this kind: it is a diagnostic of the probe.

use domain::probe::CODES;
use domain::{Diagnose, Problem};

/// NVML cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no library, or it finds no driver: a host without GPUs, or one without their driver.
    #[error("no NVIDIA driver is loaded: {0}")]
    NoDriver(String),
    /// The library that somebody named is not there: most likely the name is wrong.
    #[error("there is no file {0}")]
    LibraryMissing(String),
    /// There is a library that cannot be used.
    #[error("{library} is no usable NVML: {reason}")]
    LibraryUnusable {
        /// Its name or path.
        library: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The library and the kernel's driver are of different versions: somebody updated the one and has not restarted the other.
    #[error("the library and the loaded driver are of different versions")]
    DriverMismatch,
    /// We may not talk to the driver.
    #[error("talking to the NVIDIA driver is not permitted")]
    NotPermitted,
    /// The driver hangs: a call did not return.
    #[error(
        "the driver has told nothing for {seconds} s or more: it hangs, or something keeps it from the agent"
    )]
    Silent {
        /// How long is waited for it.
        seconds: u64,
    },
    /// NVML failed to start.
    #[error("NVML does not start: {0}")]
    Failed(String),
}

impl Error {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoDriver(_) => "gpu.no-driver",
            Self::LibraryMissing(_) => "gpu.library-missing",
            Self::LibraryUnusable { .. } => "gpu.library-unusable",
            Self::DriverMismatch => "gpu.driver-mismatch",
            Self::NotPermitted => "gpu.not-permitted",
            Self::Silent { .. } => "gpu.driver-silent",
            Self::Failed(_) => "gpu.nvml-failed",
        }
    }
}

impl Diagnose for Error {
    fn problem(&self) -> Problem {
        let problem = Problem::new(self.code(), self.to_string());
        match CODES.iter().find(|(code, ..)| *code == self.code()) {
            Some((.., hint)) => problem.hint(*hint),
            None => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_a_probe_gives_is_in_the_catalogue() {
        let sources = [include_str!("health.rs"), include_str!("read.rs"), include_str!("error.rs")];
        let literals = sources.iter().flat_map(|text| text.split('"').skip(1).step_by(2));
        let used: Vec<_> = literals.filter(|text| text.starts_with("gpu.") && !text.contains(' ')).collect();
        let missing: Vec<_> =
            used.iter().filter(|code| !CODES.iter().any(|(known, ..)| known == *code)).collect();
        assert!(used.len() > 20 && missing.is_empty(), "{missing:?} of {}", used.len());
    }

    #[test]
    fn every_error_says_what_to_do() {
        let all = [
            Error::NoDriver(String::new()),
            Error::LibraryMissing(String::new()),
            Error::LibraryUnusable { library: String::new(), reason: String::new() },
            Error::DriverMismatch,
            Error::NotPermitted,
            Error::Silent { seconds: 90 },
            Error::Failed(String::new()),
        ];
        assert!(all.iter().all(|error| error.problem().hint.is_some()));
    }
}
