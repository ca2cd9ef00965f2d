//! Why NVML cannot be asked at all. What fails of one GPU or one value is no error of this kind: it is a diagnostic of the probe.

use domain::{Diagnose, Problem};

/// NVML cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no library, or it finds no driver: a host without GPUs, or one without their driver.
    #[error("no NVIDIA driver is loaded: {0}")]
    NoDriver(String),
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
    /// NVML failed to start.
    #[error("NVML does not start: {0}")]
    Failed(String),
}

impl Error {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoDriver(_) => "gpu.no-driver",
            Self::LibraryUnusable { .. } => "gpu.library-unusable",
            Self::DriverMismatch => "gpu.driver-mismatch",
            Self::NotPermitted => "gpu.not-permitted",
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

/// The codes of this crate: code, meaning, what to do next.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "gpu.driver-mismatch",
        "NVML and the loaded kernel driver are of different versions.",
        "Restart the host, or unload and load the driver, after an update of it.",
    ),
    (
        "gpu.library-unusable",
        "What is named as NVML is no usable NVML.",
        "Name the driver's own libnvidia-ml.so.1, or leave --nvml out.",
    ),
    (
        "gpu.no-driver",
        "No NVIDIA driver is loaded on this host.",
        "Install and load the driver; on a host without GPUs there is nothing to do.",
    ),
    (
        "gpu.not-permitted",
        "The driver does not let us ask, or does not tell a value.",
        "Run as root, with the device files of the driver at hand.",
    ),
    ("gpu.nvml-failed", "NVML does not start.", "See the kernel log (dmesg) for NVRM and Xid lines."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_sorted_and_told_once() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn an_error_says_what_to_do() {
        assert!(Error::DriverMismatch.problem().hint.is_some());
    }
}
