//! What time it is: the database's time. What is due, what ends, and since when something holds is judged by it and stored in it,
//! so that replicas whose clocks differ agree (DESIGN §7). Spans come from the cell, times never do.

use crate::error::StoreError;
use crate::open::{Inner, Store};
use crate::place::Backend;
use crate::queue::FREE;
use crate::rows::Read as _;
use jiff::{SignedDuration, Timestamp};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Milliseconds since 1970, by the database's clock.
const SQLITE_NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";
const POSTGRES_NOW: &str = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";

/// By how many milliseconds the database's clock was put forward: none, but in tests.
#[derive(Debug, Default)]
pub(crate) struct Ahead(AtomicI64);

impl Inner {
    /// SQL in the words of the database: `NOW` is its time, in milliseconds.
    pub(crate) fn sql(&self, text: &str) -> sqlx::AssertSqlSafe<String> {
        let (now, skip, hold) = match self.backend {
            // One transaction writes at a time.
            Backend::Sqlite => (SQLITE_NOW, "", ""),
            // Rows that another replica is just claiming, or records something under, are passed over instead of waited for.
            Backend::Postgres => (POSTGRES_NOW, "FOR UPDATE OF q SKIP LOCKED", "FOR SHARE OF q"),
        };
        let text = text.replace("FREE", FREE).replace("SKIP", skip).replace("HOLD", hold);
        sqlx::AssertSqlSafe(match self.ahead.0.load(Ordering::Relaxed) {
            0 => text.replace("NOW", now),
            ahead => text.replace("NOW", &format!("({now} + {ahead})")),
        })
    }
}

impl Inner {
    /// What `NOW` is on `SQLite`, which has no clock but its host's.
    pub(crate) fn host_clock(&self) -> Timestamp {
        let present = Timestamp::now().as_millisecond().saturating_add(self.ahead.0.load(Ordering::Relaxed));
        Timestamp::from_millisecond(present).unwrap_or(Timestamp::MAX)
    }
}

impl Store {
    pub(crate) fn sql(&self, text: &str) -> sqlx::AssertSqlSafe<String> {
        self.inner.sql(text)
    }

    /// The time by the database's clock: what expires, expires by it.
    pub async fn clock(&self) -> Result<Timestamp, StoreError> {
        sqlx::query(self.sql("SELECT NOW AS present")).fetch_one(&self.inner.readers).await?.time("present")
    }

    /// From now on this store reads the database's clock as so much later. For tests: an hour that passes, or a clock that differs
    /// from the cell's own.
    pub fn put_clock_forward(&self, by: SignedDuration) {
        let by = i64::try_from(by.as_millis()).unwrap_or_default();
        self.inner.ahead.0.fetch_add(by, Ordering::Relaxed);
    }
}

/// A span as SQL adds it to `NOW`.
pub(crate) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 4)
}
