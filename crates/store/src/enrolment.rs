//! Recording what a machine is, in one transaction.

use crate::error::StoreError;
use crate::machines::{CELL, MachineRecord, subject};
use crate::open::Store;
use crate::queue::Guard;
use crate::rows::{Read as _, clean, to_json};
use crate::write::Write;
use domain::{Digest, Fact, Inventory, MachineState, Name, Problem, fact};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// How many changed keys an event names; it always says how many there are.
const KEYS_NAMED: usize = 100;

/// How many facts one statement inserts.
const FACTS_AT_ONCE: usize = 64;

/// What an enrolment came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// Whether the machine's state or inventory changed. If not, only the time of observation was written.
    pub changed: bool,
    /// GPUs that another enrolled machine shows too (`gpu.duplicate`).
    pub conflicts: Vec<Problem>,
}

impl Store {
    /// The machine's identity was checked and its inventory taken: it is enrolled, and waits for nothing. Refused where
    /// another machine has the same serial or UUID. GPUs that another machine shows are told in the result.
    pub async fn record_enrolment(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        inventory: &Inventory,
        facts: &[Fact],
        at: Timestamp,
    ) -> Result<Enrolment, StoreError> {
        let digest = digest_of(inventory)?;
        let mut write = self.write().await?;
        let record = write.machine_at(machine, guard.into()).await?;
        if matches!(record.state, MachineState::Declared | MachineState::Retired) {
            return Err(StoreError::WrongState {
                machine: machine.clone(),
                found: record.state,
                expected: MachineState::Discovered,
            });
        }
        write.refuse_duplicates(machine, inventory).await?;
        let same_inventory = record.inventory.is_some_and(|mark| mark.digest == digest);
        if same_inventory {
            sqlx::query("UPDATE inventories SET at = $1 WHERE machine = $2")
                .bind(at.as_millisecond())
                .bind(machine.as_str())
                .execute(write.connection())
                .await?;
        } else {
            write.replace_inventory(machine, inventory, facts, &digest, at).await?;
        }
        write.enrolled(&record, inventory, &digest).await?;
        if record.stale {
            sqlx::query("UPDATE machines SET stale = 0 WHERE name = $1")
                .bind(machine.as_str())
                .execute(write.connection())
                .await?;
        }
        let conflicts = write.gpu_conflicts_of(machine).await?;
        let changed = !same_inventory || !record.state.is_enrolled();
        if changed {
            for conflict in &conflicts {
                let data = json!(conflict);
                write.event("gpu.duplicate", &subject(machine), CELL, &data).await?;
            }
        }
        write.commit().await?;
        Ok(Enrolment { changed, conflicts: conflicts.iter().map(crate::GpuConflict::problem).collect() })
    }
}

impl Write {
    async fn refuse_duplicates(&mut self, machine: &Name, inventory: &Inventory) -> Result<(), StoreError> {
        let identity = &inventory.identity;
        if let Some(serial) = &identity.serial
            && let Some(holder) = self
                .holder("SELECT name FROM machines WHERE serial = $1 AND name <> $2", serial, machine)
                .await?
        {
            return Err(StoreError::DuplicateSerial {
                machine: machine.clone(),
                serial: serial.clone(),
                holder,
            });
        }
        if let Some(uuid) = &identity.uuid
            && let Some(holder) =
                self.holder("SELECT name FROM machines WHERE uuid = $1 AND name <> $2", uuid, machine).await?
        {
            return Err(StoreError::DuplicateUuid { machine: machine.clone(), uuid: uuid.clone(), holder });
        }
        Ok(())
    }

    async fn holder(
        &mut self,
        sql: &'static str,
        value: &str,
        machine: &Name,
    ) -> Result<Option<Name>, StoreError> {
        let row = sqlx::query(sql)
            .bind(clean(value).into_owned())
            .bind(machine.as_str())
            .fetch_optional(self.connection())
            .await?;
        row.map(|row| row.name("name")).transpose()
    }

    async fn replace_inventory(
        &mut self,
        machine: &Name,
        inventory: &Inventory,
        facts: &[Fact],
        digest: &Digest,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let before = sqlx::query("SELECT document FROM inventories WHERE machine = $1")
            .bind(machine.as_str())
            .fetch_optional(self.connection())
            .await?
            .map(|row| row.json::<Inventory>("document"))
            .transpose()?;
        sqlx::query(
            "INSERT INTO inventories (machine, document, digest, at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (machine) DO UPDATE SET \
             document = excluded.document, digest = excluded.digest, at = excluded.at",
        )
        .bind(machine.as_str())
        .bind(to_json(inventory)?)
        .bind(digest.to_string())
        .bind(at.as_millisecond())
        .execute(self.connection())
        .await?;
        self.replace_facts(machine, facts).await?;
        self.replace_gpus(machine, &inventory.gpus).await?;
        if let Some(before) = before {
            let keys = differing(&before, inventory, at);
            let named: Vec<_> = keys.iter().take(KEYS_NAMED).collect();
            let data = json!({ "digest": digest, "count": keys.len(), "keys": named });
            self.event("machine.inventory-changed", &subject(machine), CELL, &data).await?;
        }
        Ok(())
    }

    /// Replaces all facts of the sources that the new ones come from, the BMC's always among them.
    async fn replace_facts(&mut self, machine: &Name, facts: &[Fact]) -> Result<(), StoreError> {
        let sources: BTreeSet<_> =
            facts.iter().map(|fact| fact.source).chain([fact::Source::Redfish, fact::Source::Ipmi]).collect();
        for source in sources {
            self.forget_facts(machine, source).await?;
        }
        self.insert_facts(machine, facts).await
    }

    /// Replaces all facts of one source.
    pub(crate) async fn replace_facts_of(
        &mut self,
        machine: &Name,
        source: fact::Source,
        facts: &[Fact],
    ) -> Result<(), StoreError> {
        self.forget_facts(machine, source).await?;
        self.insert_facts(machine, facts).await
    }

    async fn forget_facts(&mut self, machine: &Name, source: fact::Source) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM facts WHERE machine = $1 AND source = $2")
            .bind(machine.as_str())
            .bind(source.as_str())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    async fn insert_facts(&mut self, machine: &Name, facts: &[Fact]) -> Result<(), StoreError> {
        let mut place = 0_i64;
        for chunk in facts.chunks(FACTS_AT_ONCE) {
            let mut insert = sqlx::query(sqlx::AssertSqlSafe(insert_facts(chunk.len())))
                .persistent(chunk.len() == FACTS_AT_ONCE);
            for fact in chunk {
                insert = insert
                    .bind(machine.as_str())
                    .bind(fact.source.as_str())
                    .bind(place)
                    .bind(clean(&fact.key).into_owned())
                    .bind(fact.value.to_string())
                    .bind(clean(&fact.path).into_owned())
                    .bind(fact.at.as_millisecond());
                place += 1;
            }
            insert.execute(self.connection()).await?;
        }
        Ok(())
    }

    /// Moves a discovered machine to enrolled; of one that is further, ends what it waited for because of its BMC.
    async fn enrolled(
        &mut self,
        record: &MachineRecord,
        inventory: &Inventory,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let machine = &record.name;
        let identity = &inventory.identity;
        if record.state.is_enrolled() {
            if let Some(waiting) = &record.waiting
                && (record.state == MachineState::Enrolled || is_about_the_bmc(waiting))
            {
                self.stop_waiting(machine, waiting, CELL).await?;
            }
            if (&record.serial, &record.uuid) == (&identity.serial, &identity.uuid) {
                return Ok(());
            }
        }
        let (state, since) = if record.state.is_enrolled() {
            (record.state, record.since)
        } else {
            (MachineState::Enrolled, self.now)
        };
        sqlx::query("UPDATE machines SET state = $1, since = $2, serial = $3, uuid = $4 WHERE name = $5")
            .bind(state.as_str())
            .bind(since.as_millisecond())
            .bind(identity.serial.as_deref().map(|text| clean(text).into_owned()))
            .bind(identity.uuid.as_deref().map(|text| clean(text).into_owned()))
            .bind(machine.as_str())
            .execute(self.connection())
            .await?;
        if !record.state.is_enrolled() {
            if record.waiting.is_some() {
                sqlx::query("UPDATE machines SET waiting = NULL WHERE name = $1")
                    .bind(machine.as_str())
                    .execute(self.connection())
                    .await?;
            }
            let data = json!({
                "serial": identity.serial, "uuid": identity.uuid, "model": identity.model,
                "gpus": inventory.gpus.len(), "digest": digest,
            });
            self.event("machine.enrolled", &subject(machine), CELL, &data).await?;
        }
        Ok(())
    }
}

/// Whether a wait is one that reading the BMC ends, and not one of a later step.
fn is_about_the_bmc(waiting: &domain::Waiting) -> bool {
    ["bmc.", "ipmi.", "redfish.", "machine."].iter().any(|part| waiting.problem.code.starts_with(part))
}

/// Digest of the inventory without what its reading cost: that differs each time.
fn digest_of(inventory: &Inventory) -> Result<Digest, StoreError> {
    let mut document = serde_json::to_value(inventory)
        .map_err(|error| StoreError::Corrupt(format!("an inventory has no JSON: {error}")))?;
    if let Value::Object(sections) = &mut document {
        sections.remove("requests");
    }
    Ok(Digest::of_json(&document))
}

/// Which values differ, named as facts are: by identity and never by position.
fn differing(before: &Inventory, after: &Inventory, at: Timestamp) -> BTreeSet<String> {
    let values = |inventory| -> BTreeMap<String, Value> {
        fact::from_inventory(inventory, at).into_iter().map(|fact| (fact.key, fact.value)).collect()
    };
    let (old, new) = (values(before), values(after));
    let mut keys: BTreeSet<_> =
        old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).cloned().collect();
    if before.diagnostics != after.diagnostics {
        keys.insert("diagnostics".to_owned());
    }
    keys
}

fn insert_facts(rows: usize) -> String {
    let mut sql = String::from("INSERT INTO facts (machine, source, place, key, value, path, at) VALUES ");
    for row in 0..rows {
        let first = row * 7;
        let comma = if row > 0 { ", " } else { "" };
        // Writing to a string does not fail.
        let _ = write!(
            sql,
            "{comma}(${}, ${}, ${}, ${}, ${}, ${}, ${})",
            first + 1,
            first + 2,
            first + 3,
            first + 4,
            first + 5,
            first + 6,
            first + 7
        );
    }
    sql
}
