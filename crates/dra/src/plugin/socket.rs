//! Unix sockets in the kubelet's directories.

use super::error::PluginError;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// `sockaddr_un.sun_path` has 108 bytes with the NUL (unix(7)).
const MAX_PATH: usize = 107;

/// A listening socket; its file goes when it is dropped, unless somebody has put another in its place.
#[derive(Debug)]
pub(super) struct Socket {
    listener: Option<UnixListener>,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Listens at this path, readable by this user alone. What a dead process left there is removed.
    pub(super) fn bind(path: &Path) -> Result<Self, PluginError> {
        let length = path.as_os_str().len();
        if length > MAX_PATH {
            return Err(PluginError::SocketPath { path: path.into(), length, limit: MAX_PATH });
        }
        let failed = |source| PluginError::Socket { path: path.into(), source };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        if !remove_if_dead(path).map_err(failed)? {
            return Err(PluginError::SocketInUse { path: path.into() });
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let inode = std::fs::symlink_metadata(path).map_err(failed)?.ino();
        Ok(Self { listener: Some(listener), path: path.to_owned(), inode })
    }

    pub(super) fn take_listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Nobody finds it any more.
    pub(super) fn remove(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a socket was not removed");
        }
        self.inode = 0;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Removes a socket at which nobody listens any more. Whether the path is free now.
pub(super) fn remove_if_dead(path: &Path) -> std::io::Result<bool> {
    use std::io::ErrorKind;
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(true),
        },
        Err(error) => Err(error),
    }
}
