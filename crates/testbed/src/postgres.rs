//! A PostgreSQL server on a Unix socket in a temporary directory.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::kubectl::run;
use crate::process::{Process, Program};
use crate::shared::Shared;
use crate::{Error, Part};

/// Who owns the server when root starts it: PostgreSQL refuses to run as root.
const SYSTEM_USER: &str = "postgres";
/// The database superuser, whatever the system's user is called.
const SUPERUSER: &str = "postgres";
const START_WITHIN: Duration = Duration::from_mins(1);

/// How a [`Postgres`] is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresOptions {
    durable: bool,
}

impl PostgresOptions {
    /// Whether commits reach the disk (`fsync`, `synchronous_commit`). Off unless told otherwise: most
    /// tests ask what is stored, not what a power failure leaves.
    #[must_use]
    pub fn durable(mut self, wanted: bool) -> Self {
        self.durable = wanted;
        self
    }

    /// Makes a new database cluster and starts a server on it.
    pub async fn start(self) -> Result<Postgres, Error> {
        let programs = Part::PostgreSql.programs().await?;
        let directory = tempfile::Builder::new()
            .prefix("bailiwick-postgres-")
            .tempdir()
            .map_err(Error::file("make", "a temporary directory"))?;
        let here = directory.path().to_path_buf();
        let user = geteuid().is_root().then_some(SYSTEM_USER);
        if let Some(user) = user {
            give_to(user, &here)?;
        }

        let initdb = [
            "--pgdata=data",
            "--username",
            SUPERUSER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ];
        run(user, &programs.join("initdb"), &initdb, &here, None).await?.success()?;

        let mut arguments =
            vec!["-D".to_owned(), "data".to_owned(), "-k".to_owned(), here.display().to_string()];
        let durable = if self.durable { "on" } else { "off" };
        for setting in [
            "listen_addresses=",
            "max_connections=200",
            &format!("fsync={durable}"),
            &format!("synchronous_commit={durable}"),
            &format!("full_page_writes={durable}"),
        ] {
            arguments.extend(["-c".to_owned(), setting.to_owned()]);
        }
        let mut process = Process::start(Program {
            name: "postgres",
            path: programs.join("postgres"),
            arguments,
            environment: Vec::new(),
            directory: &here,
            user,
            // Immediate shutdown: nothing is worth keeping but the system's shared memory, which SIGKILL
            // would leave behind.
            stop: Signal::QUIT,
        })?;
        let socket = format!("--host={}", here.display());
        process
            .wait_until(START_WITHIN, async || {
                let answer =
                    run(None, &programs.join("pg_isready"), &["--quiet", &socket], &here, None).await;
                answer.is_ok_and(|output| output.status.success())
            })
            .await?;
        Ok(Postgres { _process: process, programs, directory })
    }
}

/// A running server; dropping it stops the server and removes its data.
#[derive(Debug)]
pub struct Postgres {
    // Dropped in this order: the server before its files.
    _process: Process,
    programs: PathBuf,
    directory: TempDir,
}

impl Postgres {
    /// Starts a server that does not wait for the disk.
    pub async fn start() -> Result<Self, Error> {
        Self::options().start().await
    }

    /// To start one otherwise.
    pub fn options() -> PostgresOptions {
        PostgresOptions::default()
    }

    /// The server that all tests of this process which run at the same time use together, each with
    /// databases of its own.
    pub async fn shared() -> Result<Arc<Self>, Error> {
        static SHARED: Shared<Postgres> = Shared::new();
        SHARED.get(Self::start()).await
    }

    /// How sqlx and libpq connect to this database as its superuser; the database is not created by this.
    pub fn url(&self, database: &str) -> String {
        let directory = self.directory.path().display().to_string().replace('/', "%2F");
        format!("postgres://{SUPERUSER}@localhost/{database}?host={directory}")
    }

    /// Creates an empty database.
    pub async fn create_database(&self, name: &str) -> Result<(), Error> {
        let socket = format!("--host={}", self.directory.path().display());
        let arguments = [socket.as_str(), "--username", SUPERUSER, "--maintenance-db=postgres", name];
        run(None, &self.programs.join("createdb"), &arguments, self.directory.path(), None)
            .await?
            .success()?;
        Ok(())
    }
}

/// Gives the directory to the system user, and to nobody else; root reaches into it all the same.
fn give_to(user: &'static str, directory: &Path) -> Result<(), Error> {
    let accounts = std::fs::read_to_string("/etc/passwd").map_err(Error::file("read", "/etc/passwd"))?;
    let ids = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then_some(())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some((uid, gid))
    });
    let (uid, gid): (u32, u32) = ids.ok_or(Error::NoUser(user))?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
        .and_then(|()| chown(directory, Some(uid), Some(gid)))
        .map_err(Error::file("give away", directory))
}
