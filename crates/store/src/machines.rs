//! Where each machine stands: state, what it waits for, its pin.

use crate::error::StoreError;
use crate::open::Store;
use crate::queue::Guard;
use crate::rows::{Read as _, corrupt, to_json};
use crate::write::Write;
use domain::{Digest, Fact, Instance, Inventory, Kind, MachineState, Name, Problem, Waiting, fact};
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::any::AnyRow;
use std::time::Duration;

/// The actor of what the cell does by itself.
pub(crate) const CELL: &str = "cell";

/// A declared machine and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineRecord {
    /// Its name.
    pub name: Name,
    /// Its state.
    pub state: MachineState,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// Rises each time its declaration changes so that it has to be discovered again. Whoever records the outcome of a step
    /// gives the generation that the step started from; the outcome for an older one is refused.
    pub generation: i64,
    /// What it waits for.
    pub waiting: Option<Waiting>,
    /// The key that its BMC showed first.
    pub pin: Option<Digest>,
    /// Its serial number, once enrolled.
    pub serial: Option<String>,
    /// Its system UUID, once enrolled.
    pub uuid: Option<String>,
    /// What it is used for now: the use that is not yet erased.
    pub instance: Option<Instance>,
    /// What the step under way has to remember; forgotten with the state.
    pub work: Option<Value>,
    /// Whether its inventory has to be read again, however fresh it is.
    pub stale: bool,
    /// Whether its BMC is being given passwords of our making.
    pub rotating: bool,
    /// Whether its provisioning service may be held, since the BMC refuses the account that it shares with the cell.
    pub held: bool,
    /// Its inventory, where one was ever taken. Only that of an enrolled machine says what the machine is now.
    pub inventory: Option<InventoryMark>,
}

/// Which inventory is stored, and when it was last seen to be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InventoryMark {
    /// Digest of the document without `requests`.
    pub digest: Digest,
    /// When it was last observed.
    pub at: Timestamp,
}

const COLUMNS: &str = "m.name, m.state, m.since, m.generation, m.waiting, m.pin, m.serial, m.uuid, m.instance, m.work, m.stale, m.held, \
    (SELECT COUNT(*) FROM bmc_accounts b WHERE b.machine = m.name AND b.phase NOT IN ('in-use', 'returned')) AS rotating, \
    i.digest AS inventory_digest, i.at AS inventory_at";

const FROM: &str = "FROM machines m LEFT JOIN inventories i ON i.machine = m.name";

/// The epoch of the lease under which somebody works on the machine, which nobody else claims before the transaction ends.
const EPOCH: &str =
    "(SELECT q.epoch FROM queue q WHERE q.machine = m.name AND q.replica IS NOT NULL HOLD) AS epoch";

impl Store {
    /// All machines, by name.
    pub async fn machines(&self) -> Result<Vec<MachineRecord>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} {FROM} ORDER BY m.name")))
            .fetch_all(&self.inner.readers)
            .await?;
        rows.iter().map(record).collect()
    }

    /// Machines whose names come after this one, at most `limit`: a page. `None` starts at the first.
    pub async fn machines_page(
        &self,
        after: Option<&Name>,
        limit: u32,
    ) -> Result<Vec<MachineRecord>, StoreError> {
        let sql = format!("SELECT {COLUMNS} {FROM} WHERE m.name > $1 ORDER BY m.name LIMIT $2");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(after.map_or("", Name::as_str))
            .bind(i64::from(limit))
            .fetch_all(&self.inner.readers)
            .await?;
        rows.iter().map(record).collect()
    }

    /// One machine.
    pub async fn machine(&self, name: &Name) -> Result<Option<MachineRecord>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} {FROM} WHERE m.name = $1")))
            .bind(name.as_str())
            .fetch_optional(&self.inner.readers)
            .await?;
        row.as_ref().map(record).transpose()
    }

    /// The newest inventory of a machine and when it was last seen to be so.
    pub async fn inventory(&self, machine: &Name) -> Result<Option<(Inventory, Timestamp)>, StoreError> {
        let row = sqlx::query("SELECT document, at FROM inventories WHERE machine = $1")
            .bind(machine.as_str())
            .fetch_optional(&self.inner.readers)
            .await?;
        row.map(|row| Ok((row.json("document")?, row.time("at")?))).transpose()
    }

    /// The facts known of a machine, as they were recorded. Those of an inventory that was observed again unchanged have the
    /// time of that observation.
    pub async fn facts(&self, machine: &Name) -> Result<Vec<Fact>, StoreError> {
        let rows = sqlx::query(
            "SELECT f.source, f.key, f.value, f.path, f.at, i.at AS inventory_at \
             FROM facts f LEFT JOIN inventories i ON i.machine = f.machine \
             WHERE f.machine = $1 ORDER BY f.source, f.place",
        )
        .bind(machine.as_str())
        .fetch_all(&self.inner.readers)
        .await?;
        rows.iter()
            .map(|row| {
                let text = row.text("source")?;
                let source = source(&text)?;
                let observed = row.time("at")?;
                let again = row.maybe_time("inventory_at")?.filter(|_| source.is_the_bmcs());
                Ok(Fact {
                    key: row.text("key")?,
                    value: row.json("value")?,
                    source,
                    path: row.text("path")?,
                    at: again.map_or(observed, |again| again.max(observed)),
                })
            })
            .collect()
    }

    /// The BMC of a declared machine answered, and showed this key: the machine is discovered. A key other than the one seen
    /// before is refused. Of a machine that is discovered already, nothing changes.
    pub async fn record_discovery(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        pin: &Digest,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let record = write.machine_at(machine, guard.into()).await?;
        if let Some(expected) = record.pin
            && expected != *pin
        {
            return Err(StoreError::PinChanged { machine: machine.clone(), found: *pin, expected });
        }
        write.discovered(&record, Some(pin)).await?;
        write.commit().await
    }

    /// The BMC of a declared machine answered by IPMI, which shows no key: the machine is discovered, and has no pin.
    pub async fn record_presence(&self, machine: &Name, guard: impl Into<Guard>) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let record = write.machine_at(machine, guard.into()).await?;
        write.discovered(&record, None).await?;
        write.commit().await
    }

    /// A step of the machine came to nothing, and is tried again after a pause, or after a changed declaration. The code alone
    /// decides whether this is a new reason: only then `since` starts anew and an event is written.
    pub async fn record_waiting(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        problem: &Problem,
        pause: Option<Duration>,
    ) -> Result<Waiting, StoreError> {
        let mut write = self.write().await?;
        let record = write.machine_at(machine, guard.into()).await?;
        let before = record.waiting.filter(|waiting| waiting.problem.code == problem.code);
        let waiting = Waiting {
            problem: problem.clone(),
            since: before.as_ref().map_or(write.now, |waiting| waiting.since),
            until: pause.map(|pause| write.now.saturating_add(pause).unwrap_or(Timestamp::MAX)),
            attempts: before.as_ref().map_or(0, |waiting| waiting.attempts).saturating_add(1),
        };
        sqlx::query("UPDATE machines SET waiting = $1 WHERE name = $2")
            .bind(to_json(&waiting)?)
            .bind(machine.as_str())
            .execute(write.connection())
            .await?;
        if before.is_none() {
            let data = json!({ "state": record.state, "problem": problem });
            write.event("machine.waiting", &subject(machine), CELL, &data).await?;
        }
        write.commit().await?;
        Ok(waiting)
    }

    /// The machine waits for nothing any more. Says so in an event where it did.
    pub async fn clear_waiting(&self, machine: &Name, guard: impl Into<Guard>) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let record = write.machine_at(machine, guard.into()).await?;
        let Some(waiting) = record.waiting else { return Ok(()) };
        write.stop_waiting(machine, &waiting, CELL).await?;
        write.commit().await
    }

    /// The provisioning service is about to be held, or was seen to have been let go. That outlives whatever is declared meanwhile.
    pub async fn mark_held(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        held: bool,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        write.holds(machine, guard.into()).await?;
        sqlx::query("UPDATE machines SET held = $1 WHERE name = $2")
            .bind(i64::from(held))
            .bind(machine.as_str())
            .execute(write.connection())
            .await?;
        write.commit().await
    }
}

impl Write {
    /// A declared machine is discovered; of one that is further, nothing changes.
    async fn discovered(&mut self, record: &MachineRecord, pin: Option<&Digest>) -> Result<(), StoreError> {
        if record.state != MachineState::Declared {
            return Ok(());
        }
        let now = self.now;
        sqlx::query("UPDATE machines SET state = $1, since = $2, pin = $3, waiting = NULL WHERE name = $4")
            .bind(MachineState::Discovered.as_str())
            .bind(now.as_millisecond())
            .bind(pin.map(ToString::to_string))
            .bind(record.name.as_str())
            .execute(self.connection())
            .await?;
        let first_seen = pin.is_some() && record.pin.is_none();
        let data = json!({ "pin": pin, "firstSeen": first_seen });
        self.event("machine.discovered", &subject(&record.name), CELL, &data).await?;
        Ok(())
    }

    /// The machine, provided that its declaration is still the one that the step started from, and that the lease under which
    /// it ran still holds.
    pub(crate) async fn machine_at(
        &mut self,
        machine: &Name,
        guard: Guard,
    ) -> Result<MachineRecord, StoreError> {
        let row = self.row_at(machine, guard, format!("SELECT {COLUMNS}, {EPOCH} {FROM} WHERE m.name = $1"));
        record(&row.await?)
    }

    /// Provided the same.
    pub(crate) async fn holds(&mut self, machine: &Name, guard: Guard) -> Result<(), StoreError> {
        let query = format!("SELECT m.generation, {EPOCH} FROM machines m WHERE m.name = $1");
        self.row_at(machine, guard, query).await.map(drop)
    }

    async fn row_at(&mut self, machine: &Name, guard: Guard, query: String) -> Result<AnyRow, StoreError> {
        let row = sqlx::query(self.sql(&query))
            .bind(machine.as_str())
            .fetch_optional(self.connection())
            .await?
            .ok_or_else(|| StoreError::NotFound { kind: Kind::Machine, name: machine.clone() })?;
        let holds = guard.epoch.is_none() || guard.epoch == row.maybe_number("epoch")?;
        if row.number("generation")? != guard.generation || !holds {
            return Err(StoreError::Superseded { machine: machine.clone() });
        }
        Ok(row)
    }

    pub(crate) async fn stop_waiting(
        &mut self,
        machine: &Name,
        waiting: &Waiting,
        actor: &str,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE machines SET waiting = NULL WHERE name = $1")
            .bind(machine.as_str())
            .execute(self.connection())
            .await?;
        let data = json!({
            "code": waiting.problem.code, "since": waiting.since, "attempts": waiting.attempts,
        });
        self.event("machine.resumed", &subject(machine), actor, &data).await?;
        Ok(())
    }

    /// All that wait.
    pub(crate) async fn waiting(&mut self) -> Result<Vec<(Name, Waiting)>, StoreError> {
        let rows = sqlx::query("SELECT name, waiting FROM machines WHERE waiting IS NOT NULL ORDER BY name")
            .fetch_all(self.connection())
            .await?;
        rows.iter().map(|row| Ok((row.name("name")?, row.json("waiting")?))).collect()
    }
}

/// `Machine/m1`, as events name it.
pub(crate) fn subject(machine: &Name) -> String {
    format!("{}/{machine}", Kind::Machine)
}

pub(crate) fn state(row: &AnyRow) -> Result<MachineState, StoreError> {
    let state = row.text("state")?;
    MachineState::parse(&state).ok_or_else(|| corrupt("state", &state))
}

fn source(text: &str) -> Result<fact::Source, StoreError> {
    serde_json::from_value(text.into()).map_err(|_| corrupt("source", text))
}

fn record(row: &AnyRow) -> Result<MachineRecord, StoreError> {
    let mark = row.maybe_parsed("inventory_digest")?.zip(row.maybe_time("inventory_at")?);
    Ok(MachineRecord {
        name: row.name("name")?,
        state: state(row)?,
        since: row.time("since")?,
        generation: row.number("generation")?,
        waiting: row.maybe_json("waiting")?,
        pin: row.maybe_parsed("pin")?,
        serial: row.maybe_text("serial")?,
        uuid: row.maybe_text("uuid")?,
        instance: row.maybe_json("instance")?,
        work: row.maybe_json("work")?,
        stale: row.number("stale")? != 0,
        rotating: row.number("rotating")? != 0,
        held: row.number("held")? != 0,
        inventory: mark.map(|(digest, at)| InventoryMark { digest, at }),
    })
}
