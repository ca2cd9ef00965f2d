//! Where a host keeps the driver's library, for whoever runs in a container without the driver: `dlopen` knows the image's own
//! directories alone.

use crate::{Error, HostRoot, Nvml};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

/// What drivers install.
const NAME: &str = "libnvidia-ml.so.1";

/// Where a driver container shows its root directory on the host (NVIDIA GPU Operator). One that runs is whose modules are loaded,
/// whatever a distribution has left behind.
const DRIVER_CONTAINER: &str = "run/nvidia/driver";

/// Directories of 64-bit libraries: Debian and Ubuntu; Red Hat, SUSE and NVIDIA's installer; Arch; NixOS; Talos; Container-Optimized OS.
#[cfg(target_arch = "x86_64")]
const DEBIAN: &str = "usr/lib/x86_64-linux-gnu";
#[cfg(not(target_arch = "x86_64"))]
const DEBIAN: &str = "usr/lib/aarch64-linux-gnu";
const DIRECTORIES: [&str; 6] = [
    DEBIAN,
    "usr/lib64",
    "usr/lib",
    "run/opengl-driver/lib",
    "usr/local/glibc/usr/lib",
    "home/kubernetes/bin/nvidia/lib64",
];

impl Nvml {
    /// Loads the library at `path`, or where none is named the host's, or the system's own; and starts it.
    pub fn of(path: Option<&Path>, host: &HostRoot) -> Result<Self, Error> {
        // Looked for each time: a driver container comes and goes.
        let found = if path.is_none() { host.library() } else { None };
        Self::open(path.or(found.as_deref()))
    }
}

impl HostRoot {
    /// The driver's library, where a driver container or the host has it, as this process can load it. On the host itself (`/`) that of
    /// a driver container alone: what else there is, the system finds by its name.
    pub fn library(&self) -> Option<PathBuf> {
        let host = openat(CWD, self.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).ok()?;
        let container = below(&host, Path::new(DRIVER_CONTAINER)).and_then(|root| library_below(&root));
        let of_host = || (self.path() != Path::new("/")).then(|| library_below(&host)).flatten();
        container.or_else(of_host)
    }
}

fn library_below(root: &OwnedFd) -> Option<PathBuf> {
    let found = DIRECTORIES.iter().find_map(|directory| below(root, &Path::new(directory).join(NAME)))?;
    // The file itself: links that lead there are of another root, and mean nothing here.
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()
}

/// What is at a path, links taken as a process with this root directory takes them: Debian's `libnvidia-ml.so.1` is an absolute one.
fn below(root: impl AsFd, path: &Path) -> Option<OwnedFd> {
    openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    /// A host on which these files are.
    fn host(files: &[&str]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        root
    }

    fn found(root: &TempDir) -> Option<PathBuf> {
        let canonical = root.path().canonicalize().unwrap();
        let library = HostRoot::at(root.path()).library()?;
        Some(library.strip_prefix(canonical).unwrap().to_owned())
    }

    #[test]
    fn the_library_is_found_where_each_distribution_has_it() {
        for directory in DIRECTORIES {
            let library = format!("{directory}/{NAME}");
            assert_eq!(found(&host(&[&library])), Some(library.into()));
        }
        assert_eq!(found(&host(&["etc/os-release"])), None);
    }

    #[test]
    fn the_library_of_64_bits_is_taken_where_there_is_one_of_32() {
        let library = format!("usr/lib64/{NAME}");
        assert_eq!(found(&host(&[&library, &format!("usr/lib/{NAME}")])), Some(library.into()));
    }

    #[test]
    fn that_of_a_driver_container_is_taken_before_that_of_the_host() {
        let inside = format!("{DRIVER_CONTAINER}/{DEBIAN}/{NAME}");
        assert_eq!(found(&host(&[&inside, &format!("usr/lib64/{NAME}")])), Some(inside.into()));
    }

    /// As Debian's alternatives are.
    #[test]
    fn absolute_links_are_followed_below_the_root_that_they_are_of() {
        for root in ["", "run/nvidia/driver/"] {
            let library = format!("{root}{DEBIAN}/nvidia/current/libnvidia-ml.so.580.95.05");
            let host = host(&[&library, &format!("{root}etc/alternatives/README")]);
            let link =
                |target: &str, at: &str| symlink(target, host.path().join(format!("{root}{at}"))).unwrap();
            link(&format!("/{DEBIAN}/nvidia/current/libnvidia-ml.so.580.95.05"), "etc/alternatives/nvml");
            link("/etc/alternatives/nvml", &format!("{DEBIAN}/{NAME}"));
            assert_eq!(found(&host), Some(library.into()));
        }
    }

    #[test]
    fn a_link_that_leads_out_of_the_root_does_not() {
        let outside = host(&[NAME]);
        let host = host(&["usr/lib64/README"]);
        symlink(outside.path().join(NAME), host.path().join("usr/lib64").join(NAME)).unwrap();
        assert_eq!(found(&host), None);
    }

    #[test]
    fn on_the_host_itself_the_system_finds_what_no_driver_container_has() {
        let library = HostRoot::default().library();
        assert!(library.is_none_or(|path| path.starts_with("/run/nvidia/driver")));
    }
}
