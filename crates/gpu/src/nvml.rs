//! NVML itself, by nvml-wrapper.

use crate::Error;
use domain::probe::Driver;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{cuda_driver_version_major, cuda_driver_version_minor};
use std::path::Path;

/// The driver's library, loaded and started.
#[derive(Debug)]
pub struct Nvml(nvml_wrapper::Nvml);

/// Names under which the library is looked for: what drivers install, then what some images alone have.
const NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

impl Nvml {
    /// Loads the library, the system's own or the one at `path`, and starts it.
    pub fn open(path: Option<&Path>) -> Result<Self, Error> {
        if let Some(path) = path {
            return Self::load(path);
        }
        let mut last = Error::NoDriver("there is no libnvidia-ml.so.1".to_owned());
        for name in NAMES {
            match Self::load(Path::new(name)) {
                // The next name may be there.
                Err(error @ Error::NoDriver(_)) => last = error,
                outcome => return outcome,
            }
        }
        Err(last)
    }

    /// What NVML says of the driver.
    pub fn driver(&self) -> Driver {
        let cuda = self.0.sys_cuda_driver_version().ok();
        Driver {
            version: self.0.sys_driver_version().ok(),
            nvml: self.0.sys_nvml_version().ok(),
            cuda: cuda.map(|v| format!("{}.{}", cuda_driver_version_major(v), cuda_driver_version_minor(v))),
        }
    }

    fn load(path: &Path) -> Result<Self, Error> {
        let nvml = nvml_wrapper::Nvml::builder().lib_path(path.as_os_str()).init();
        let nvml = nvml.map_err(|error| cannot_start(path, error))?;
        if nvml.lib().nvmlShutdown.is_err() {
            // The wrapper would panic on drop (facts: testbed, NVML without a GPU); it stays loaded instead.
            std::mem::forget(nvml);
            return Err(unusable(path, "it has no nvmlShutdown"));
        }
        Ok(Self(nvml))
    }
}

fn cannot_start(path: &Path, error: NvmlError) -> Error {
    match error {
        NvmlError::LibloadingError(_) if path.is_absolute() && path.exists() => {
            unusable(path, "it is no shared library of this machine")
        }
        NvmlError::LibloadingError(_) => Error::NoDriver(format!("there is no {}", path.display())),
        NvmlError::FailedToLoadSymbol(_) => unusable(path, "it has no nvmlInit_v2"),
        NvmlError::DriverNotLoaded => Error::NoDriver("NVML finds no kernel driver".to_owned()),
        NvmlError::LibRmVersionMismatch => Error::DriverMismatch,
        NvmlError::NoPermission => Error::NotPermitted,
        other => Error::Failed(other.to_string()),
    }
}

fn unusable(path: &Path, reason: &str) -> Error {
    Error::LibraryUnusable { library: path.display().to_string(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_means_no_driver() {
        let error = Nvml::open(Some(Path::new("/nowhere/libnvidia-ml.so.1"))).unwrap_err();
        assert_eq!(error.code(), "gpu.no-driver");
    }

    #[test]
    fn a_file_that_is_no_library_is_told_from_a_missing_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Nvml::open(Some(file.path())).unwrap_err().code(), "gpu.library-unusable");
    }
}
