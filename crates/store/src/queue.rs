//! Who works on which machine, and when it is its turn. One queue, shared by all replicas of a cell.
//!
//! A replica says now and then that it lives; while it does, what it claimed is its own. A lease carries an epoch that rises
//! with each claim: what a replica records that lost its lease is refused. Times are the database's, so that replicas whose
//! clocks differ agree (DESIGN §7).

use crate::clock::millis;
use crate::error::StoreError;
use crate::machines::subject;
use crate::open::Store;
use crate::place::Backend;
use crate::rows::Read as _;
use crate::write::Write;
use domain::{MachineState, Name};
use sqlx::{AnyConnection, Connection as _};
use std::time::Duration;

/// The right to take a machine's next step and to record what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The machine.
    pub machine: Name,
    /// Its site.
    pub site: Name,
    /// Rises with each claim of this machine.
    pub epoch: i64,
    /// How often it had been woken when it was claimed.
    woken: i64,
    replica: String,
}

/// What the outcome of a step is recorded under: the declaration that it started from, and the lease that it ran under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// See [`crate::MachineRecord::generation`].
    pub generation: i64,
    /// The epoch of the lease; `None` where nothing else can be at work.
    pub epoch: Option<i64>,
}

impl From<i64> for Guard {
    fn from(generation: i64) -> Self {
        Self { generation, epoch: None }
    }
}

impl Lease {
    /// The guard of a step that starts from this declaration.
    pub fn guard(&self, generation: i64) -> Guard {
        Guard { generation, epoch: Some(self.epoch) }
    }

    async fn end(
        &self,
        store: &Store,
        connection: &mut AnyConnection,
        pause: Option<Duration>,
    ) -> Result<(), StoreError> {
        sqlx::query(store.sql(
            "UPDATE queue SET replica = NULL, due = CASE WHEN woken > $1 THEN 0 ELSE NOW + $2 END \
             WHERE machine = $3 AND epoch = $4 AND replica = $5",
        ))
        .bind(self.woken)
        .bind(pause.map(millis))
        .bind(self.machine.as_str())
        .bind(self.epoch)
        .bind(&self.replica)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// A machine that is due, and that nobody works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// How many machines of its site are worked on.
    pub held: usize,
    /// How many replicas live, which share the site's limit.
    pub replicas: usize,
}

/// How much is due, and when there will be more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Sites with machines that are due and free, the longest overdue first.
    pub sites: Vec<Name>,
    /// How long until the next machine is due, where none is.
    pub next: Option<Duration>,
}

/// Nobody that lives works on it.
pub(crate) const FREE: &str =
    "(q.replica IS NULL OR NOT EXISTS (SELECT 1 FROM replicas r WHERE r.id = q.replica AND r.until > NOW))";

impl Store {
    /// The replica lives for so long from now. Gives the number of those that live; forgets those that are long dead.
    pub async fn live(&self, replica: &str, lease: Duration) -> Result<usize, StoreError> {
        let mut writer = self.writer().await?;
        sqlx::query(self.sql(
            "INSERT INTO replicas (id, until) VALUES ($1, NOW + $2) \
             ON CONFLICT (id) DO UPDATE SET until = excluded.until",
        ))
        .bind(replica)
        .bind(millis(lease))
        .execute(&mut *writer)
        .await?;
        sqlx::query(self.sql("DELETE FROM replicas WHERE until < NOW - 3600000"))
            .execute(&mut *writer)
            .await?;
        drop(writer);
        let row = sqlx::query(self.sql("SELECT COUNT(*) AS live FROM replicas WHERE until > NOW"))
            .fetch_one(&self.inner.readers)
            .await?;
        Ok(usize::try_from(row.number("live")?).unwrap_or(1))
    }

    /// The replica goes: what it holds is free at once.
    pub async fn leave(&self, replica: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM replicas WHERE id = $1")
            .bind(replica)
            .execute(&mut *self.writer().await?)
            .await?;
        Ok(())
    }

    /// Every other replica is gone. Only who holds a database that no other process can open may say so.
    pub(crate) async fn alone(&self) -> Result<(), StoreError> {
        if self.inner.backend == Backend::Sqlite {
            sqlx::query("DELETE FROM replicas").execute(&mut *self.writer().await?).await?;
        }
        Ok(())
    }

    /// How a machine that is due waits for its turn; `None` where it is not due, or somebody works on it.
    pub async fn overdue(&self, machine: &Name) -> Result<Option<Overdue>, StoreError> {
        let row = sqlx::query(self.sql(
            "SELECT \
             (SELECT COUNT(*) FROM queue p JOIN replicas r ON r.id = p.replica AND r.until > NOW WHERE p.site = q.site) AS held, \
             (SELECT COUNT(*) FROM replicas r WHERE r.until > NOW) AS replicas \
             FROM queue q WHERE q.machine = $1 AND q.due <= NOW AND FREE",
        ))
        .bind(machine.as_str())
        .fetch_optional(&self.inner.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let count = |column| Ok::<_, StoreError>(usize::try_from(row.number(column)?).unwrap_or_default());
        Ok(Some(Overdue { held: count("held")?, replicas: count("replicas")? }))
    }

    /// Which sites have work now, and when there will be more.
    pub async fn turn(&self) -> Result<Turn, StoreError> {
        let rows = sqlx::query(self.sql(
            "SELECT q.site, MIN(q.due) AS due FROM queue q WHERE q.due <= NOW AND FREE \
             GROUP BY q.site ORDER BY due, q.site",
        ))
        .fetch_all(&self.inner.readers)
        .await?;
        let sites: Vec<Name> = rows.iter().map(|row| row.name("site")).collect::<Result<_, _>>()?;
        if !sites.is_empty() {
            return Ok(Turn { sites, next: None });
        }
        // What another replica holds comes up again should that one die: looked at now and then, by the caller's own clock.
        let row = sqlx::query(self.sql("SELECT MIN(q.due) - NOW AS pause FROM queue q WHERE q.due > NOW"))
            .fetch_one(&self.inner.readers)
            .await?;
        let pause = row.maybe_number("pause")?.map(|pause| u64::try_from(pause).unwrap_or(0));
        Ok(Turn { sites, next: pause.map(Duration::from_millis) })
    }

    /// Claims machines of a site that are due, the longest overdue first, at most so many. A replica whose time is up by the
    /// database's clock, which may have jumped, claims none: another could take them away again at once.
    pub async fn claim(&self, replica: &str, site: &Name, at_most: usize) -> Result<Vec<Lease>, StoreError> {
        let mut writer = self.writer().await?;
        // Picked once: PostgreSQL may run a plain subquery again for each row, and claim more than it was asked for.
        let rows = sqlx::query(self.sql(
            "WITH picked AS MATERIALIZED (\
             SELECT q.machine FROM queue q WHERE q.site = $2 AND q.due <= NOW AND FREE \
             AND EXISTS (SELECT 1 FROM replicas l WHERE l.id = $1 AND l.until > NOW) \
             ORDER BY q.due, q.machine LIMIT $3 SKIP) \
             UPDATE queue SET replica = $1, epoch = epoch + 1 WHERE machine IN (SELECT machine FROM picked) \
             RETURNING machine, site, epoch, woken",
        ))
        .bind(replica)
        .bind(site.as_str())
        .bind(i64::try_from(at_most).unwrap_or(i64::MAX))
        .fetch_all(writer.leases())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Lease {
                    machine: row.name("machine")?,
                    site: row.name("site")?,
                    epoch: row.number("epoch")?,
                    woken: row.number("woken")?,
                    replica: replica.to_owned(),
                })
            })
            .collect()
    }

    /// Gives leases back, each with the time until its machine is due again; `None`: not before something wakes it. One
    /// that was woken meanwhile is due at once.
    pub async fn release(&self, leases: &[(Lease, Option<Duration>)]) -> Result<(), StoreError> {
        if leases.is_empty() {
            return Ok(());
        }
        let mut writer = self.writer().await?;
        if self.inner.backend == Backend::Sqlite {
            // Each by itself, which waits for no disk: a transaction that a full disk ended could not be told from one that is open.
            for (lease, pause) in leases {
                lease.end(self, writer.leases(), *pause).await?;
            }
            return Ok(());
        }
        let mut transaction = writer.begin().await?;
        for (lease, pause) in leases {
            lease.end(self, &mut transaction, *pause).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// A provisioning service is configured, which is no change of a declaration: machines that rest for want of one are due now.
    /// Those that wait for anything else wait on, above all for credentials.
    pub async fn wake_unserved(&self, codes: &[&str]) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        sqlx::query(
            "UPDATE queue SET due = 0, woken = woken + 1 WHERE machine IN \
             (SELECT name FROM machines WHERE state IN ($1, $2) AND waiting IS NULL)",
        )
        .bind(MachineState::Enrolled.as_str())
        // Where nobody served its site, nobody was told to leave it alone.
        .bind(MachineState::Quarantined.as_str())
        .execute(write.connection())
        .await?;
        for (machine, waiting) in write.waiting().await? {
            if waiting.until.is_none() && codes.contains(&waiting.problem.code.as_str()) {
                write.wake(&machine).await?;
            }
        }
        write.commit().await
    }

    /// Somebody asks for a machine to be read again: it is due now, whatever it waits for. Says whether there is such a machine.
    pub async fn refresh(&self, machine: &Name, actor: &str) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        let found = sqlx::query("UPDATE machines SET stale = 1 WHERE name = $1")
            .bind(machine.as_str())
            .execute(write.connection())
            .await?
            .rows_affected();
        if found == 0 {
            return Ok(false);
        }
        write.wake(machine).await?;
        write.event("machine.refresh-asked", &subject(machine), actor, &serde_json::json!({})).await?;
        write.commit().await?;
        Ok(true)
    }
}

impl Write {
    pub(crate) async fn wake(&mut self, machine: &Name) -> Result<(), StoreError> {
        sqlx::query("UPDATE queue SET due = 0, woken = woken + 1 WHERE machine = $1")
            .bind(machine.as_str())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Puts a new machine into the queue, or one whose site changed into the other site's turn; due now either way.
    pub(crate) async fn enqueue(&mut self, machine: &Name, site: &Name) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO queue (machine, site, due) VALUES ($1, $2, 0) \
             ON CONFLICT (machine) DO UPDATE SET site = excluded.site, due = 0, woken = queue.woken + 1",
        )
        .bind(machine.as_str())
        .bind(site.as_str())
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
