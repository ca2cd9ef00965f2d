//! What happened, in order. Events are appended and never changed; both databases refuse to.

use crate::error::StoreError;
use crate::open::Store;
use crate::rows::Read as _;
use domain::{Kind, Name};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sqlx::any::AnyRow;
use tokio::sync::watch;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Its number: later events have greater ones. There may be gaps.
    pub id: i64,
    /// When it was written.
    pub at: Timestamp,
    /// What happened: `machine.enrolled`.
    pub kind: String,
    /// What it is about: `Machine/m1`.
    pub subject: String,
    /// Who did it: the name of a token, or `cell`.
    pub actor: String,
    /// Details.
    pub data: Value,
}

const COLUMNS: &str = "id, at, kind, subject, actor, data";

impl Store {
    /// Events after a number, oldest first, at most `limit`.
    pub async fn events(&self, after: i64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM events WHERE id > $1 ORDER BY id LIMIT $2"
        )))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&self.inner.readers)
        .await?;
        rows.iter().map(event).collect()
    }

    /// The newest events about one subject (`Machine/m1`), newest first, at most `limit`.
    pub async fn events_about(&self, subject: &str, limit: u32) -> Result<Vec<Event>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM events WHERE subject = $1 ORDER BY id DESC LIMIT $2"
        )))
        .bind(subject)
        .bind(i64::from(limit))
        .fetch_all(&self.inner.readers)
        .await?;
        rows.iter().map(event).collect()
    }

    /// What happened to a machine, and what people ordered of it by its assignment: newest first, at most `limit`.
    pub async fn history(&self, machine: &Name, limit: u32) -> Result<Vec<Event>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM events WHERE subject IN ($1, $2) ORDER BY id DESC LIMIT $3"
        )))
        .bind(format!("{}/{machine}", Kind::Machine))
        .bind(format!("{}/{machine}", Kind::Assignment))
        .bind(i64::from(limit))
        .fetch_all(&self.inner.readers)
        .await?;
        rows.iter().map(event).collect()
    }

    /// The number of the newest event; 0 where there is none.
    pub async fn last_event(&self) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT COALESCE(MAX(id), 0) AS id FROM events")
            .fetch_one(&self.inner.readers)
            .await?;
        row.number("id")
    }

    /// Appends an event that tells of something outside the database, such as a publication. Gives its number.
    pub async fn append_event(
        &self,
        kind: &str,
        subject: &str,
        actor: &str,
        data: &Value,
    ) -> Result<i64, StoreError> {
        let mut write = self.write().await?;
        let id = write.event(kind, subject, actor, data).await?;
        write.commit().await?;
        Ok(id)
    }

    /// Tells of the number of the newest event that this process wrote. A listener waits for a change, then reads
    /// [`Self::events`] after the last one it knows; events of other replicas it finds by reading now and then.
    pub fn changed(&self) -> watch::Receiver<i64> {
        self.inner.newest.subscribe()
    }
}

fn event(row: &AnyRow) -> Result<Event, StoreError> {
    Ok(Event {
        id: row.number("id")?,
        at: row.time("at")?,
        kind: row.text("kind")?,
        subject: row.text("subject")?,
        actor: row.text("actor")?,
        data: row.json("data")?,
    })
}
