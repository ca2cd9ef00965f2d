//! A `libnvidia-ml.so` without a driver. It answers for a host that is described in a file, and fails as the file tells.
//!
//! The environment variable [`VARIABLE`] names the file; without it, it is the one named [`BESIDE`] in the library's own folder. It
//! is read again when it changes, so a test can change a GPU's health under a running program: write a new file and rename it
//! over the old one. MIG instances that are made and destroyed are written into it, so that all who have it open see them. Without a file the library says what NVML says without a kernel driver. See [`Description`] for its form and
//! `hosts/` for five models.
//!
//! A test that has this crate as a dev-dependency finds the built library by [`library`], or has a copy [`Installed`].

mod abi;
mod description;
mod installed;
mod kernel;
mod parting;
mod state;

pub use description::{Described, Description, EmptyInstance, Event, Fault};
pub use installed::Installed;
pub use kernel::{mig_minors, mig_node_minors};

use std::path::PathBuf;

/// Names the file with the description.
pub const VARIABLE: &str = "BAILIWICK_NVML_DESCRIPTION";

/// The description's name where no variable names it.
pub const BESIDE: &str = "description.yaml";

/// A file beside the description, if there is one, on which every process that has started the library holds a shared lock.
pub const CLIENTS: &str = "clients";

/// Descriptions that come with this crate, by the name of their model.
pub const HOSTS: [(&str, &str); 5] = [
    ("a100", include_str!("../hosts/a100.yaml")),
    ("h100", include_str!("../hosts/h100.yaml")),
    ("h200", include_str!("../hosts/h200.yaml")),
    ("b200", include_str!("../hosts/b200.yaml")),
    ("gb200", include_str!("../hosts/gb200.yaml")),
];

/// The description of a model of [`HOSTS`], as text.
pub fn host(model: &str) -> Option<&'static str> {
    HOSTS.iter().find(|(name, _)| *name == model).map(|(_, text)| *text)
}

/// The built library. Cargo puts it beside the test executables of every package that has this crate as a dev-dependency.
pub fn library() -> Result<PathBuf, String> {
    let executable = std::env::current_exe().map_err(|error| format!("who runs is not known: {error}"))?;
    let name = "libnvml_stand_in.so";
    let found =
        executable.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        format!(
            "{name} is not beside {}: build bailiwick-nvml-stand-in in the same profile",
            executable.display()
        )
    })
}
