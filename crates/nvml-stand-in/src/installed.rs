//! The library with a description of its own, for a test.

use crate::Description;
use std::path::{Path, PathBuf};

/// A copy of the built library in a folder, with the description beside it. Each copy is a library of its own, so several tests
/// of one process each have a host.
#[derive(Debug)]
pub struct Installed {
    folder: PathBuf,
}

impl Installed {
    /// Copies the library into a folder.
    pub fn into(folder: &Path, description: &Description) -> Result<Self, String> {
        let installed = Self { folder: folder.to_owned() };
        std::fs::copy(crate::library()?, installed.library()).map_err(|error| error.to_string())?;
        installed.describe(description)?;
        Ok(installed)
    }

    /// Where the library is.
    pub fn library(&self) -> PathBuf {
        self.folder.join("libnvidia-ml.so.1")
    }

    /// Where the description is.
    pub fn description(&self) -> PathBuf {
        self.folder.join(crate::BESIDE)
    }

    /// Describes the host anew; who has the library open sees it at its next call.
    pub fn describe(&self, description: &Description) -> Result<(), String> {
        let new = self.folder.join("description.new");
        std::fs::write(&new, description.to_text()?).map_err(|error| error.to_string())?;
        std::fs::rename(&new, self.description()).map_err(|error| error.to_string())
    }

    /// Takes the driver away.
    pub fn unload(&self) -> Result<(), String> {
        std::fs::remove_file(self.description()).map_err(|error| error.to_string())
    }
}
