//! Files that are whole or not there, whenever the power fails.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Writes a file beside its place, and puts it there once it is on disk. The directory must exist.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
    let name = path.file_name().ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
    // Runtimes read `*.json`; a name that begins with a dot and ends otherwise is nobody's.
    let temporary = directory.join(format!(".{}.tmp", name.to_string_lossy()));
    let written = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // What a full disk left.
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    sync(directory)
}

/// Removes a file for good; one that is not there is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => path.parent().map_or(Ok(()), sync),
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
