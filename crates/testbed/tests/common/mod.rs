//! What the tests of several counterparts ask of the system.

#![allow(dead_code, reason = "each test file uses its part of this")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

/// The kernel reaps what it killed in its own time; this looks until nothing is left.
pub(crate) fn nothing_is_left_in(directory: &Path) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if processes_in(directory).is_empty() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}
