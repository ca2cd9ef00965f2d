//! Where the database is: what its URL says, and the files that it needs.

use crate::error::StoreError;
use sqlx::any::AnyConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The lock on a database file: gone when dropped, and when the process is killed.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child process that was forked and has not called exec yet. An error leaves
        // it to the closing that follows.
        let _ = self.0.unlock();
    }
}

/// Which database it is. One SQL text serves both; only starting a writing transaction differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// A database that is not opened yet.
pub(crate) enum Place {
    /// A file.
    Sqlite(PathBuf),
    /// A server.
    Postgres(Box<AnyConnectOptions>),
}

impl Place {
    /// Reads `sqlite:///path/to/file`, `sqlite:relative/path` or `postgres://…`.
    pub(crate) fn parse(url: &str) -> Result<Self, StoreError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path == ":memory:" || path.contains('?') {
                return Err(StoreError::BadUrl(
                    "the URL of an SQLite database names a file, without options".into(),
                ));
            }
            return Ok(Self::Sqlite(PathBuf::from(path)));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            // What the parser says of a bad URL may show the password in it.
            let bad = |_| StoreError::BadUrl("this is not the URL of a PostgreSQL database".into());
            PgConnectOptions::from_str(url).map_err(bad)?;
            return Ok(Self::Postgres(Box::new(AnyConnectOptions::from_str(url).map_err(bad)?)));
        }
        let scheme = url.split(':').next().unwrap_or_default();
        Err(StoreError::BadUrl(format!("{scheme:?} is no database that Bailiwick knows")))
    }

    pub(crate) fn backend(&self) -> Backend {
        match self {
            Self::Sqlite(_) => Backend::Sqlite,
            Self::Postgres(_) => Backend::Postgres,
        }
    }

    /// What sqlx needs to connect.
    pub(crate) fn connect_options(&self) -> Result<AnyConnectOptions, StoreError> {
        let options = match self {
            Self::Sqlite(path) => {
                let options = SqliteConnectOptions::new().filename(path);
                AnyConnectOptions::from_url(&options.to_url_lossy())?
            }
            Self::Postgres(options) => (**options).clone(),
        };
        Ok(options.disable_statement_logging())
    }

    /// Makes the file and its directory where they are missing, for this user alone, and locks the file against other
    /// processes.
    pub(crate) fn prepare(&self) -> Result<Option<Lock>, StoreError> {
        let Self::Sqlite(path) = self else { return Ok(None) };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            create_directory(parent)?;
        }
        let mut name = path.clone().into_os_string();
        name.push(".lock");
        let lock_path = PathBuf::from(name);
        let private = || {
            let mut options = OpenOptions::new();
            options.read(true).append(true).create(true).mode(0o600);
            options
        };
        let lock = private().open(&lock_path).map_err(StoreError::file("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path: path.clone() }),
            Err(TryLockError::Error(error)) => return Err(StoreError::file("lock", &lock_path)(error)),
        }
        private().open(path).map_err(StoreError::file("open", path))?;
        Ok(Some(Lock(lock)))
    }
}

/// Makes a directory and those above it, for this user alone. One that is there keeps its permissions.
pub(crate) fn create_directory(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StoreError::file("create the directory", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_file_or_a_server() {
        for (url, path) in
            [("sqlite:///a/b.db", "/a/b.db"), ("sqlite:b.db", "b.db"), ("sqlite://./a b.db", "./a b.db")]
        {
            assert!(
                matches!(Place::parse(url), Ok(Place::Sqlite(found)) if found == Path::new(path)),
                "{url}"
            );
        }
        assert!(matches!(Place::parse("postgres://u@h/d"), Ok(Place::Postgres(_))));
    }

    #[test]
    fn a_url_of_no_known_kind_is_refused_without_showing_its_password() {
        for url in [
            "mysql://root:hunter2@h/d",
            "sqlite:",
            "sqlite::memory:",
            "hunter2",
            "postgres://u:hunter2@h:x/d",
        ] {
            let error = Place::parse(url).err().unwrap();
            assert_eq!(error.code(), "store.bad-url", "{url}");
            assert!(url == "hunter2" || !format!("{error:?} {error}").contains("hunter2"), "{error:?}");
        }
    }
}
