//! Small files: reading with a clear error, passwords, atomic writes that only their owner reads.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use domain::Problem;

use crate::errors::{Failure, Outcome};

/// A password just read; nothing prints it, and it is wiped when dropped.
pub(crate) struct Password(cell::api::types::Secret);

impl Password {
    pub(crate) fn as_str(&self) -> &str {
        &self.0.0
    }

    pub(crate) fn into_secret(self) -> cell::api::types::Secret {
        self.0
    }
}

/// Larger than any password, CA bundle or lease file that is meant.
const LIMIT: u64 = 64 << 20;

/// Reads on a thread of its own: standard input may keep us waiting, and Ctrl-C must be heard meanwhile.
pub(crate) async fn apart<T: Send + 'static>(
    read: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    match tokio::task::spawn_blocking(read).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Failure::new("runtime", format!("reading ended early: {error}"))),
    }
}

/// Reads a file; `-` is standard input.
pub(crate) fn read(path: &Path) -> Outcome<Vec<u8>> {
    let unreadable = |error: &std::io::Error| {
        Failure::new("input.unreadable", format!("{} cannot be read: {error}", path.display()))
    };
    let mut bytes = Vec::new();
    let outcome = if path == Path::new("-") {
        std::io::stdin().lock().take(LIMIT + 1).read_to_end(&mut bytes)
    } else {
        open_file(path).and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes))
    };
    outcome.map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > LIMIT {
        let message = format!("{} is larger than {} MiB", path.display(), LIMIT >> 20);
        return Err(Failure::new("input.unreadable", message));
    }
    Ok(bytes)
}

/// Opens a file, a device or what a shell's `<(…)` gives. A named pipe that nobody writes to is refused, not waited for.
fn open_file(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = std::fs::symlink_metadata(path)?.file_type();
    if kind.is_fifo() {
        return Err(std::io::Error::other("it is a named pipe; give its content by `-`"));
    }
    std::fs::File::open(path)
}

/// Reads a text file; `-` is standard input.
pub(crate) fn read_text(path: &Path) -> Outcome<String> {
    String::from_utf8(read(path)?)
        .map_err(|_| Failure::new("input.unreadable", format!("{} is not UTF-8 text", path.display())))
}

/// Reads a password: the whole file but for one line end.
pub(crate) fn read_password(path: &Path) -> Outcome<Password> {
    let text = cell::api::types::Secret(read_text(path)?);
    let password =
        text.0.strip_suffix('\n').map_or(text.0.as_str(), |rest| rest.strip_suffix('\r').unwrap_or(rest));
    let refuse =
        |why: &str| Failure::new("input.password", format!("the password file {} {why}", path.display()));
    if password.is_empty() {
        return Err(refuse("is empty"));
    }
    if password.contains(['\n', '\r', '\0']) {
        return Err(refuse("has more than one line"));
    }
    Ok(Password(cell::api::types::Secret(password.to_owned())))
}

/// A warning where everybody on this machine may read a secret.
pub(crate) fn readable_by_others(path: &Path) -> Option<Problem> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (path != Path::new("-") && mode & 0o004 != 0).then(|| {
        Problem::new("input.password", "everybody on this machine may read the password file")
            .difference(format!("mode {:04o}", mode & 0o7777), "mode 0600")
            .at(path.display().to_string())
            .hint(format!("chmod 600 {}", path.display()))
    })
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let mut scratch = PathBuf::from(path);
    scratch.set_extension(format!("tmp{}", std::process::id()));
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&scratch)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&scratch, path));
    if written.is_err() {
        // What is half written is of no use; the first error is the one to tell.
        let _ = std::fs::remove_file(&scratch);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn password(content: &str) -> Outcome<String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pw");
        std::fs::write(&file, content).unwrap();
        read_password(&file).map(|password| password.as_str().to_owned())
    }

    #[test]
    fn one_line_end_is_no_part_of_a_password() {
        for (content, expected) in [("x\n", "x"), ("x\r\n", "x"), ("x", "x"), (" x ", " x ")] {
            assert_eq!(password(content).unwrap(), expected);
        }
        for wrong in ["", "\n", "a\nb\n", "a\n\n"] {
            assert!(password(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_private_file_is_its_owners_alone_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b.toml");
        write_private(&file, "one").unwrap();
        write_private(&file, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }
}
