//! Writing: one transaction, the events it tells of included.

use crate::error::StoreError;
use crate::open::{Inner, Store};
use crate::place::Backend;
use crate::rows::{Read as _, clean};
use crate::writer::Begun;
use jiff::Timestamp;
use serde_json::Value;
use sqlx::AnyConnection;
use std::sync::Arc;

/// Number of the advisory lock of PostgreSQL that writers take in turn: "bailiwic" in ASCII.
const WRITERS: i64 = 0x6261_696c_6977_6963;

/// A writing transaction. Dropped without [`Self::commit`], it leaves nothing.
pub(crate) struct Write {
    transaction: Begun,
    inner: Arc<Inner>,
    last_event: Option<i64>,
    /// The time of all that it writes, by the database's clock.
    pub(crate) now: Timestamp,
}

impl Store {
    /// Starts a writing transaction, once the one before has ended.
    pub(crate) async fn write(&self) -> Result<Write, StoreError> {
        let inner = Arc::clone(&self.inner);
        let mut transaction = inner.writers.begin().await?;
        let now = match inner.backend {
            Backend::Sqlite => inner.host_clock(),
            // Without the lock, events of a slower transaction would appear behind those that a listener has read. The time is
            // that at which it is held.
            Backend::Postgres => {
                let turn = sqlx::query(inner.sql(
                    "WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock($1)) SELECT NOW AS present FROM turn",
                ));
                turn.bind(WRITERS).fetch_one(transaction.connection()).await?.time("present")?
            }
        };
        Ok(Write { transaction, inner, last_event: None, now })
    }
}

impl Write {
    pub(crate) fn sql(&self, text: &str) -> sqlx::AssertSqlSafe<String> {
        self.inner.sql(text)
    }

    /// Where to send statements.
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        self.transaction.connection()
    }

    /// Appends an event and gives its number.
    pub(crate) async fn event(
        &mut self,
        kind: &str,
        subject: &str,
        actor: &str,
        data: &Value,
    ) -> Result<i64, StoreError> {
        let row = sqlx::query(
            "INSERT INTO events (at, kind, subject, actor, data) VALUES ($1, $2, $3, $4, $5) RETURNING id",
        )
        .bind(self.now.as_millisecond())
        .bind(&*clean(kind))
        .bind(&*clean(subject))
        .bind(&*clean(actor))
        .bind(data.to_string())
        .fetch_one(self.connection())
        .await?;
        let id = row.number("id")?;
        self.last_event = Some(id);
        Ok(id)
    }

    /// Ends the transaction and tells the listeners of this process.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        self.transaction.commit().await?;
        if let Some(id) = self.last_event {
            self.inner.newest.send_if_modified(|newest| {
                let newer = id > *newest;
                *newest = id.max(*newest);
                newer
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{Store, StoreOptions};
    use serde_json::json;
    use sqlx::{Connection as _, Executor as _};
    use tempfile::TempDir;

    fn url(directory: &TempDir) -> String {
        format!("sqlite://{}", directory.path().join("db").display())
    }

    async fn store() -> (Store, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let key_file = directory.path().join("key");
        let options = StoreOptions { url: url(&directory), key_file, max_connections: 1 };
        (Store::open(options).await.unwrap(), directory)
    }

    /// Through the writer's own connection: these limits of `SQLite` hold for one connection.
    async fn code_after(pragma: &'static str, end: &'static str) -> &'static str {
        let (store, _directory) = store().await;
        let last = store.append_event("a.b", "c", "d", &json!({})).await.unwrap();
        store.writer().await.unwrap().execute(pragma).await.unwrap();
        let large = json!("x".repeat(1_000_000));
        let error = store.append_event("a.b", "c", "d", &large).await.unwrap_err();
        assert_eq!(store.last_event().await.unwrap(), last);
        // It goes on by itself once there is room.
        store.writer().await.unwrap().execute(end).await.unwrap();
        let next = store.append_event("a.b", "c", "d", &large).await.unwrap();
        assert_eq!(store.events(last, 10).await.unwrap().len(), 1);
        assert!(next > last);
        error.code()
    }

    #[tokio::test]
    async fn a_full_disk_undoes_what_was_under_way_and_has_its_own_code() {
        let code = code_after("PRAGMA max_page_count = 60", "PRAGMA max_page_count = 4294967294").await;
        assert_eq!(code, "store.full");
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_written_has_its_own_code() {
        assert_eq!(code_after("PRAGMA query_only = ON", "PRAGMA query_only = OFF").await, "store.read-only");
    }

    #[tokio::test]
    async fn a_transaction_that_sqlite_rolled_back_by_itself_does_not_stop_the_next() {
        let (store, _directory) = store().await;
        let mut write = store.write().await.unwrap();
        write.event("a.b", "c", "d", &json!({})).await.unwrap();
        write.connection().execute("ROLLBACK").await.unwrap();
        drop(write);
        for _ in 0..2 {
            store.append_event("e.f", "c", "d", &json!({})).await.unwrap();
        }
        assert_eq!(store.events(0, 10).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_write_that_is_dropped_leaves_nothing_and_blocks_nobody() {
        let (store, _directory) = store().await;
        let mut write = store.write().await.unwrap();
        write.event("a.b", "c", "d", &json!({})).await.unwrap();
        drop(write);
        store.append_event("e.f", "c", "d", &json!({})).await.unwrap();
        let kinds: Vec<_> = store.events(0, 10).await.unwrap().into_iter().map(|event| event.kind).collect();
        assert_eq!(kinds, ["e.f"]);
    }

    #[tokio::test]
    async fn a_write_that_is_dropped_is_undone_though_nobody_writes_after_it() {
        let (store, directory) = store().await;
        let mut other = sqlx::AnyConnection::connect(&url(&directory)).await.unwrap();
        drop(store.write().await.unwrap());
        other.execute("PRAGMA busy_timeout = 10000").await.unwrap();
        other.execute("BEGIN IMMEDIATE").await.unwrap();
    }

    /// The driver counts no transactions here, so one that was given up while it began is not forgotten.
    #[tokio::test]
    async fn a_write_that_is_given_up_at_any_moment_does_not_stop_the_next() {
        let (store, _directory) = store().await;
        for polls in 0..40 {
            let data = json!({ "polls": polls });
            let moments = async {
                for _ in 0..polls {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                written = store.append_event("a.b", "c", "d", &data) => drop(written.unwrap()),
                () = moments => {}
            }
        }
        // The last of them may have been on its way to the disk, and is whole there then.
        store.append_event("e.f", "c", "d", &json!({})).await.unwrap();
        let events = store.events(0, 100).await.unwrap();
        assert_eq!(events.iter().filter(|event| event.kind == "e.f").count(), 1);
    }
}
