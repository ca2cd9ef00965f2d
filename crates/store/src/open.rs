//! Opening a database: first look, then decide, only then change anything.

use crate::agents::Cache;
use crate::clock::Ahead;
use crate::error::StoreError;
use crate::place::{Backend, Lock, Place};
use crate::rows::Read as _;
use crate::seal::Sealer;
use crate::writer::Writers;
use domain::Inventory;
use domain::probe::Probe;
use sqlx::any::AnyPoolOptions;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyConnection, AnyPool, Connection as _, Executor as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// The schema version that this program writes: the number of its last migration.
pub const SCHEMA_VERSION: i64 = 5;

/// Key of `meta` under which the value is kept that tells whether the key file is the right one.
const SEAL_CHECK: &str = "seal-check";

/// Every connection to `SQLite` starts with these. FULL: what was committed survives a power failure.
const PRAGMAS: &str = "PRAGMA busy_timeout = 10000; PRAGMA foreign_keys = ON; \
    PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF";

/// What the connection of leases says after that. In WAL mode such a commit does not wait for the disk: a power failure may undo
/// the last leases, never what was recorded under one (sqlite.org/pragma.html#pragma_synchronous). Leases end with the
/// process that has the database, so none outlives the failure; a machine whose return was undone is due again.
const LEASES: &str = "PRAGMA synchronous = NORMAL";

/// Every connection to `PostgreSQL` starts with this. A replica that is frozen, or cut off, in the middle of a transaction
/// holds the writers' lock: the server ends its session, and the others go on.
const SESSION: &str = "SET idle_in_transaction_session_timeout = '10s'";

/// How long a call waits for a connection.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What [`Store::open`] needs to know.
#[derive(Clone)]
pub struct StoreOptions {
    /// `sqlite:///path/to/file` or `postgres://user@host/database`.
    pub url: String,
    /// File of the key that seals credentials; made when the database is new.
    pub key_file: PathBuf,
    /// How many connections may read at once. One more writes.
    pub max_connections: u32,
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password.
        let kind = self.url.split(':').next().unwrap_or_default();
        f.debug_struct("StoreOptions")
            .field("url", &format_args!("{kind}:…"))
            .field("key_file", &self.key_file)
            .field("max_connections", &self.max_connections)
            .finish()
    }
}

/// A cell's database. Cheap to clone; the clones share its connections, which are given back in a task: the last clone is dropped, like
/// any is used, inside a Tokio runtime.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) backend: Backend,
    pub(crate) readers: AnyPool,
    pub(crate) writers: Writers,
    pub(crate) sealer: Sealer,
    pub(crate) newest: watch::Sender<i64>,
    pub(crate) probes: Cache<Probe>,
    pub(crate) models: Cache<Inventory>,
    pub(crate) ahead: Ahead,
    /// Held as long as the store is open.
    lock: Mutex<Option<Lock>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("backend", &self.inner.backend)
            .field("sealer", &self.inner.sealer)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database, makes it where there is none, and brings its schema up to date. A database of a newer version, or
    /// one that another key sealed, is refused before anything in it is changed.
    pub async fn open(options: StoreOptions) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let place = Place::parse(&options.url)?;
        let lock = place.prepare()?;
        let backend = place.backend();
        let connect_options = place.connect_options()?;

        let mut first = AnyConnection::connect_with(&connect_options).await?;
        let schema = Schema::read(&mut first, backend).await?;
        if schema.version > SCHEMA_VERSION {
            return Err(StoreError::NewerVersion { found: schema.version, expected: SCHEMA_VERSION });
        }
        let sealer = match &schema.seal_check {
            None => Sealer::load_or_create(&options.key_file)?,
            Some(check) => {
                let sealer = Sealer::load(&options.key_file)?;
                if !sealer.opens(check) {
                    return Err(sealer.wrong());
                }
                sealer
            }
        };
        if backend == Backend::Sqlite {
            first.execute("PRAGMA journal_mode = WAL").await?;
        }
        first.close().await?;

        let pool = |connections, more: Option<&'static str>| {
            AnyPoolOptions::new()
                .max_connections(connections)
                .min_connections(0)
                .acquire_timeout(PATIENCE)
                .test_before_acquire(backend == Backend::Postgres)
                .idle_timeout((backend == Backend::Postgres).then_some(Duration::from_mins(10)))
                .max_lifetime(None)
                .after_connect(move |connection, _| {
                    Box::pin(async move {
                        let first = match backend {
                            Backend::Sqlite => PRAGMAS,
                            Backend::Postgres => SESSION,
                        };
                        connection.execute(first).await?;
                        if let Some(more) = more {
                            connection.execute(more).await?;
                        }
                        Ok(())
                    })
                })
                .connect_lazy_with(connect_options.clone())
        };
        let writer = pool(1, None);
        let migrator = match backend {
            Backend::Sqlite => &SQLITE,
            Backend::Postgres => &POSTGRES,
        };
        if schema.version < SCHEMA_VERSION {
            migrator.run(&writer).await.map_err(from_migration)?;
        }
        let (newest, _) = watch::channel(0);
        let inner = Inner {
            backend,
            readers: pool(options.max_connections.max(1), None),
            writers: match backend {
                Backend::Sqlite => Writers::sqlite(writer, pool(1, Some(LEASES))),
                Backend::Postgres => Writers::Pooled(writer),
            },
            sealer,
            newest,
            probes: Cache::default(),
            models: Cache::default(),
            ahead: Ahead::default(),
            lock: Mutex::new(lock),
        };
        let store = Self { inner: Arc::new(inner) };
        store.agree_on_the_key().await?;
        store.alone().await?;
        store.inner.newest.send_replace(store.last_event().await?);
        Ok(store)
    }

    /// Writes the check value of the key into a new database. Where another cell was faster, its key is the one.
    async fn agree_on_the_key(&self) -> Result<(), StoreError> {
        if self.meta(SEAL_CHECK).await?.is_none() {
            self.set_meta_where_absent(SEAL_CHECK, &self.inner.sealer.check_value()?).await?;
        }
        let check = self.meta(SEAL_CHECK).await?.unwrap_or_default();
        if self.inner.sealer.opens(&check) { Ok(()) } else { Err(self.inner.sealer.wrong()) }
    }

    /// Closes all connections, once the calls under way are done, and lets another process have the database.
    pub async fn close(&self) {
        self.inner.writers.close().await;
        self.inner.readers.close().await;
        self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What a look at a database tells, before it is opened for good.
struct Schema {
    /// The last migration that was applied; 0 for an empty database.
    version: i64,
    /// The check value of its key.
    seal_check: Option<String>,
}

impl Schema {
    async fn read(connection: &mut AnyConnection, backend: Backend) -> Result<Self, StoreError> {
        if !has_table(connection, backend, "_sqlx_migrations").await? {
            return Ok(Self { version: 0, seal_check: None });
        }
        let row = sqlx::query("SELECT COALESCE(MAX(version), 0) AS version FROM _sqlx_migrations")
            .fetch_one(&mut *connection)
            .await?;
        let version = row.number("version")?;
        if version > SCHEMA_VERSION || !has_table(connection, backend, "meta").await? {
            return Ok(Self { version, seal_check: None });
        }
        let row = sqlx::query("SELECT value FROM meta WHERE key = $1")
            .bind(SEAL_CHECK)
            .fetch_optional(connection)
            .await?;
        Ok(Self { version, seal_check: row.map(|row| row.text("value")).transpose()? })
    }
}

async fn has_table(
    connection: &mut AnyConnection,
    backend: Backend,
    table: &str,
) -> Result<bool, StoreError> {
    let sql = match backend {
        Backend::Sqlite => "SELECT COUNT(*) AS tables FROM sqlite_schema WHERE type = 'table' AND name = $1",
        Backend::Postgres => {
            "SELECT COUNT(*) AS tables FROM pg_catalog.pg_tables WHERE schemaname = current_schema() AND tablename = $1"
        }
    };
    Ok(sqlx::query(sql).bind(table).fetch_one(connection).await?.number("tables")? > 0)
}

fn from_migration(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        other => StoreError::Failed(sqlx::Error::Migrate(Box::new(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cell opens it in a task, and keeps it in the state of a router.
    #[test]
    fn a_store_is_shared_between_threads_and_opened_in_a_task() {
        fn sent<T: Send>(_: &T) {}
        fn shared<T: Clone + Send + Sync + 'static>() {}
        shared::<Store>();
        let options = StoreOptions { url: String::new(), key_file: PathBuf::new(), max_connections: 1 };
        sent(&Store::open(options));
    }

    #[tokio::test]
    async fn every_connection_to_sqlite_is_durable_and_checks_references() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("db").display());
        let key_file = directory.path().join("key");
        let store = Store::open(StoreOptions { url, key_file, max_connections: 1 }).await.unwrap();
        let mut writer = store.writer().await.unwrap();
        let mut reader = store.inner.readers.acquire().await.unwrap();
        for connection in [&mut *writer, &mut *reader] {
            // 2 is FULL.
            for (pragma, column, expected) in
                [("PRAGMA synchronous", "synchronous", 2), ("PRAGMA foreign_keys", "foreign_keys", 1)]
            {
                let row = sqlx::query(pragma).fetch_one(&mut *connection).await.unwrap();
                assert_eq!(row.number(column).unwrap(), expected, "{pragma}");
            }
            let row = sqlx::query("PRAGMA journal_mode").fetch_one(connection).await.unwrap();
            assert_eq!(row.text("journal_mode").unwrap(), "wal");
        }
        // 1 is NORMAL: leases alone do not wait for the disk.
        let row = sqlx::query("PRAGMA synchronous").fetch_one(writer.leases()).await.unwrap();
        assert_eq!(row.number("synchronous").unwrap(), 1);
    }

    #[tokio::test]
    async fn every_connection_to_postgresql_is_ended_when_it_leaves_a_transaction_open() {
        let server = testbed::Postgres::start().await.unwrap();
        server.create_database("cell").await.unwrap();
        let key_file = tempfile::tempdir().unwrap().path().join("key");
        let options = StoreOptions { url: server.url("cell"), key_file, max_connections: 1 };
        let store = Store::open(options).await.unwrap();
        let mut writer = store.writer().await.unwrap();
        let mut reader = store.inner.readers.acquire().await.unwrap();
        for connection in [&mut *writer, &mut *reader] {
            let shown = sqlx::query("SHOW idle_in_transaction_session_timeout");
            let row = shown.fetch_one(connection).await.unwrap();
            assert_eq!(row.text("idle_in_transaction_session_timeout").unwrap(), "10s");
        }
    }

    #[test]
    fn both_databases_have_the_same_migrations_and_the_last_is_the_schema_version() {
        let versions = |migrator: &Migrator| migrator.iter().map(|m| m.version).collect::<Vec<_>>();
        assert_eq!(versions(&SQLITE), versions(&POSTGRES));
        assert_eq!(versions(&SQLITE).last(), Some(&SCHEMA_VERSION));
    }
}
