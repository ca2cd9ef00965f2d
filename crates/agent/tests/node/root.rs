//! Root directories made of this machine's own programs, each with the libraries that it is linked with.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// A program of this machine at its own place below a root directory.
pub(crate) fn install(root: &Path, program: &str) {
    copy(Path::new(program), &below(root, program));
    libraries_of(root, Path::new(program));
}

/// The libraries that a program is linked with, and what loads them, at their own places.
pub(crate) fn libraries_of(root: &Path, program: &Path) {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(library), &below(root, library));
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap();
}

pub(crate) fn write_program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn below(root: &Path, path: &str) -> std::path::PathBuf {
    root.join(path.trim_start_matches('/'))
}
