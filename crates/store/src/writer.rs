//! Whose turn it is to write. One at a time: two connections to `SQLite` that write at once would wait for each other by polling.

use crate::error::StoreError;
use crate::open::{PATIENCE, Store};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Executor as _, Transaction};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard};

/// Those who write.
pub(crate) enum Writers {
    /// `SQLite`.
    Kept(Arc<Kept>),
    /// `PostgreSQL`: one connection, which is made again where it is lost.
    Pooled(AnyPool),
}

/// The connections to `SQLite` that write. They stay with whoever's turn it is: a pool asks each whether it lives when it comes back, and
/// the next one waits for that.
pub(crate) struct Kept {
    writer: AnyPool,
    leases: AnyPool,
    connections: Arc<Mutex<Option<Connections>>>,
}

struct Connections {
    writer: PoolConnection<Any>,
    /// Whose commits do not wait for the disk.
    leases: PoolConnection<Any>,
    /// Whether a transaction of the writer's may be open.
    open: bool,
}

/// The right to write, one statement at a time.
pub(crate) enum Writer {
    Kept(KeptWriter),
    Pooled(PoolConnection<Any>),
}

/// A transaction under way. Dropped without [`Self::commit`], it leaves nothing.
pub(crate) enum Begun {
    Kept(KeptWriter),
    Pooled(Transaction<'static, Any>),
}

/// The right to use the kept connections.
pub(crate) struct KeptWriter {
    kept: Arc<Kept>,
    /// Never `None`, since [`Kept::take`] connects.
    connections: OwnedMappedMutexGuard<Option<Connections>, Connections>,
}

impl Writers {
    pub(crate) fn sqlite(writer: AnyPool, leases: AnyPool) -> Self {
        Self::Kept(Arc::new(Kept { writer, leases, connections: Arc::default() }))
    }

    /// Takes the turn, once whoever has it is done.
    pub(crate) async fn take(&self) -> Result<Writer, StoreError> {
        Ok(match self {
            Self::Kept(kept) => Writer::Kept(kept.take().await?),
            Self::Pooled(pool) => Writer::Pooled(pool.acquire().await?),
        })
    }

    /// Takes the turn and begins a transaction.
    pub(crate) async fn begin(&self) -> Result<Begun, StoreError> {
        match self {
            Self::Kept(kept) => {
                let mut writer = kept.take().await?;
                // Said before: this may be dropped while it is waited for.
                writer.connections.open = true;
                // IMMEDIATE: a transaction that reads first and then has to wait for another writer could only fail.
                writer.connections.writer.execute("BEGIN IMMEDIATE").await?;
                Ok(Begun::Kept(writer))
            }
            Self::Pooled(pool) => Ok(Begun::Pooled(pool.begin().await?)),
        }
    }

    /// Once what is under way is done.
    pub(crate) async fn close(&self) {
        match self {
            Self::Kept(kept) => {
                let mut turn = kept.connections.lock().await;
                drop(turn.take());
                // Both are closed from here on, so that whoever waits for the turn connects no more.
                let closing = (kept.writer.close(), kept.leases.close());
                drop(turn);
                closing.0.await;
                closing.1.await;
            }
            Self::Pooled(pool) => pool.close().await,
        }
    }
}

impl Kept {
    async fn take(self: &Arc<Self>) -> Result<KeptWriter, StoreError> {
        let turn = Arc::clone(&self.connections).lock_owned();
        let mut turn = tokio::time::timeout(PATIENCE, turn).await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        if let Some(connections) = turn.as_mut()
            && connections.open
        {
            // Nothing may be open any more: after a full disk or an I/O error SQLite rolls back by itself
            // (sqlite.org/lang_transaction.html §3.2). What is not known for certain is left to new connections.
            if connections.writer.execute("ROLLBACK").await.is_ok() {
                connections.open = false;
            } else if let Some(mut connections) = turn.take() {
                connections.writer.close_on_drop();
                connections.leases.close_on_drop();
            }
        }
        if turn.is_none() {
            let (writer, leases) = (self.writer.acquire().await?, self.leases.acquire().await?);
            *turn = Some(Connections { writer, leases, open: false });
        }
        let connections = OwnedMutexGuard::try_map(turn, Option::as_mut);
        let connections = connections.map_err(|_| sqlx::Error::PoolClosed)?;
        Ok(KeptWriter { kept: Arc::clone(self), connections })
    }
}

impl Writer {
    /// The connection for leases, which end with the process: on `SQLite` they do not wait for the disk.
    pub(crate) fn leases(&mut self) -> &mut AnyConnection {
        match self {
            Self::Kept(writer) => &mut writer.connections.leases,
            Self::Pooled(connection) => connection,
        }
    }
}

impl Deref for Writer {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        match self {
            Self::Kept(writer) => &writer.connections.writer,
            Self::Pooled(connection) => connection,
        }
    }
}

impl DerefMut for Writer {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        match self {
            Self::Kept(writer) => &mut writer.connections.writer,
            Self::Pooled(connection) => connection,
        }
    }
}

impl Begun {
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        match self {
            Self::Kept(writer) => &mut writer.connections.writer,
            Self::Pooled(transaction) => transaction,
        }
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Kept(mut writer) => {
                writer.connections.writer.execute("COMMIT").await?;
                writer.connections.open = false;
            }
            Self::Pooled(transaction) => transaction.commit().await?,
        }
        Ok(())
    }
}

/// A transaction that was not committed is not left open until somebody else wants to write.
impl Drop for KeptWriter {
    fn drop(&mut self) {
        if self.connections.open
            && let Ok(runtime) = Handle::try_current()
        {
            let kept = Arc::clone(&self.kept);
            runtime.spawn(async move { drop(kept.take().await) });
        }
    }
}

impl Store {
    pub(crate) async fn writer(&self) -> Result<Writer, StoreError> {
        self.inner.writers.take().await
    }
}
