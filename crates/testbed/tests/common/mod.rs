//! What the tests of several counterparts ask of the system.

use std::path::{Path, PathBuf};

/// The processes that work in this directory or below it, whether it still exists or not.
pub(crate) fn processes_in(directory: &Path) -> Vec<PathBuf> {
    let directory = directory.to_str().expect("temporary directories have readable names");
    std::fs::read_dir("/proc")
        .expect("/proc is there")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|process| {
            std::fs::read_link(process.join("cwd"))
                .is_ok_and(|cwd| cwd.to_string_lossy().starts_with(directory))
        })
        .collect()
}
