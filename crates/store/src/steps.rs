//! What the steps of a machine's life record, each in one transaction with the events that tell of it.

use crate::error::StoreError;
use crate::machines::{CELL, MachineRecord, subject};
use crate::open::Store;
use crate::queue::Guard;
use crate::rows::{Read as _, clean, to_json};
use crate::write::Write;
use domain::assignment::{AssignmentSpec, Quarantine};
use domain::declaration::Metadata;
use domain::{Declaration, Erasure, Fact, Instance, Kind, MachineState, Name, Problem, Spec, Step, fact};
use serde_json::{Value, json};
use std::time::Duration;

/// A step that led to another state.
#[derive(Clone, Debug)]
pub struct Advance {
    /// Which step.
    pub step: Step,
    /// Where it led.
    pub to: MachineState,
    /// How long this last try took.
    pub took: Duration,
    /// What the machine is used for from now on; `None` where the step does not change that.
    pub instance: Option<Option<Instance>>,
    /// What was erased.
    pub erasure: Option<Erasure>,
    /// What the event says beside the states.
    pub data: Value,
}

impl Advance {
    /// A step that led there.
    pub fn new(step: Step, to: MachineState) -> Self {
        Self { step, to, took: Duration::ZERO, instance: None, erasure: None, data: json!({}) }
    }
}

impl Store {
    /// The machine moves on. Refused where that does not follow from its state, and where it would leave its use without the
    /// record of an erasure. One that is given up as lost keeps its use: should it come back, it is erased before another.
    pub async fn advance(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        advance: &Advance,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let record = write.machine_at(machine, guard.into()).await?;
        let to = advance.to;
        if !record.state.may_become(to) {
            return Err(StoreError::WrongState {
                machine: machine.clone(),
                found: record.state,
                expected: to,
            });
        }
        let lost = advance.step == Step::WriteOff;
        // Set aside while it is wiped, it is not erased: its use goes with it until it is.
        let leaves = match to {
            MachineState::Available => true,
            MachineState::Retired => !lost,
            MachineState::Quarantined => false,
            _ => record.state == MachineState::Wiping,
        };
        // Before its first use a machine holds nothing of anybody here: then the record tells, and keeps nobody waiting.
        let used = record.instance.is_some();
        let gap = |erasure: &Erasure| {
            if lost { erasure.missing().is_some() } else { used && erasure.gap().is_some() }
        };
        let needs_record = lost || (leaves && (used || to == MachineState::Available));
        if needs_record && advance.erasure.as_ref().is_none_or(gap) {
            return Err(StoreError::NoErasure { machine: machine.clone(), to });
        }
        let instance =
            if leaves { None } else { advance.instance.clone().unwrap_or(record.instance.clone()) };
        write.move_to(&record, to, instance.as_ref()).await?;
        if let Some(erasure) = &advance.erasure {
            write.erased(machine, erasure).await?;
        }
        let millis = u64::try_from(advance.took.as_millis()).unwrap_or(u64::MAX);
        let mut data = json!({
            "step": advance.step, "from": record.state, "tookMs": millis,
            "waited": record.waiting.map(|waiting| json!({
                "code": waiting.problem.code, "since": waiting.since, "attempts": waiting.attempts,
            })),
        });
        if let (Value::Object(data), Value::Object(more)) = (&mut data, advance.data.clone()) {
            data.extend(more);
        }
        if advance.step.follows_an_assignment()
            && let Some(principal) = write.assigned_by(machine).await?
        {
            data["orderedBy"] = principal.into();
        }
        write.event(&format!("machine.{to}"), &subject(machine), CELL, &data).await?;
        write.commit().await
    }

    /// A step did something worth telling and is not at its end. The instance is replaced where one is given.
    pub async fn note(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        instance: Option<&Instance>,
        kind: &str,
        data: &Value,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        write.holds(machine, guard.into()).await?;
        if let Some(instance) = instance {
            sqlx::query("UPDATE machines SET instance = $1 WHERE name = $2")
                .bind(to_json(instance)?)
                .bind(machine.as_str())
                .execute(write.connection())
                .await?;
        }
        write.event(kind, &subject(machine), CELL, data).await?;
        write.commit().await
    }

    /// The cell itself sets a machine aside: what it saw is written into the machine's assignment, where people find it and
    /// take it away again.
    pub async fn set_aside(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        problem: &Problem,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let record = write.machine_at(machine, guard.into()).await?;
        if !record.state.may_become(MachineState::Quarantined) {
            return Err(StoreError::WrongState {
                machine: machine.clone(),
                found: record.state,
                expected: MachineState::Quarantined,
            });
        }
        let id = write.quarantine(machine, problem).await?;
        write.move_to(&record, MachineState::Quarantined, record.instance.as_ref()).await?;
        let data = json!({ "from": record.state, "problem": problem, "declared": id });
        write.event("machine.quarantined", &subject(machine), CELL, &data).await?;
        write.commit().await
    }

    /// Keeps what the step under way has to remember.
    pub async fn remember(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        work: Option<&Value>,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        write.holds(machine, guard.into()).await?;
        sqlx::query("UPDATE machines SET work = $1 WHERE name = $2")
            .bind(work.map(ToString::to_string))
            .bind(machine.as_str())
            .execute(write.connection())
            .await?;
        write.commit().await
    }

    /// Replaces the facts of one source.
    pub async fn record_facts(
        &self,
        machine: &Name,
        guard: impl Into<Guard>,
        source: fact::Source,
        facts: &[Fact],
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        write.holds(machine, guard.into()).await?;
        write.replace_facts_of(machine, source, facts).await?;
        let data = json!({ "source": source, "count": facts.len() });
        write.event("machine.facts", &subject(machine), CELL, &data).await?;
        write.commit().await
    }

    /// Failed logins of an account at a BMC, as they were recorded last; all replicas of the cell share the count.
    pub async fn failed_logins(&self, bmc: &str, account: &str) -> Result<Option<Value>, StoreError> {
        let row = sqlx::query("SELECT document FROM failed_logins WHERE bmc = $1 AND account = $2")
            .bind(bmc)
            .bind(account)
            .fetch_optional(&self.inner.readers)
            .await?;
        row.map(|row| row.json("document")).transpose()
    }

    /// Records them; `None`: there are none any more.
    pub async fn record_failed_logins(
        &self,
        bmc: &str,
        account: &str,
        failed: Option<&Value>,
    ) -> Result<(), StoreError> {
        let query = match failed {
            Some(failed) => sqlx::query(
                "INSERT INTO failed_logins (bmc, account, document) VALUES ($1, $2, $3) \
                 ON CONFLICT (bmc, account) DO UPDATE SET document = excluded.document",
            )
            .bind(bmc)
            .bind(account)
            .bind(failed.to_string()),
            None => sqlx::query("DELETE FROM failed_logins WHERE bmc = $1 AND account = $2")
                .bind(bmc)
                .bind(account),
        };
        query.execute(&mut *self.writer().await?).await?;
        Ok(())
    }

    /// The records of a machine's erasures, newest first.
    pub async fn erasures(&self, machine: &Name) -> Result<Vec<Erasure>, StoreError> {
        let rows = sqlx::query("SELECT document FROM erasures WHERE machine = $1 ORDER BY id DESC")
            .bind(machine.as_str())
            .fetch_all(&self.inner.readers)
            .await?;
        rows.iter().map(|row| row.json("document")).collect()
    }
}

impl Write {
    /// A service that has let the machine go for good holds nothing any more.
    async fn move_to(
        &mut self,
        record: &MachineRecord,
        to: MachineState,
        instance: Option<&Instance>,
    ) -> Result<(), StoreError> {
        let now = self.now;
        sqlx::query(
            "UPDATE machines SET state = $1, since = $2, waiting = NULL, instance = $3, \
             work = CASE WHEN $1 = 'quarantined' THEN work ELSE NULL END, \
             held = CASE WHEN $1 = 'retired' THEN 0 ELSE held END WHERE name = $4",
        )
        .bind(to.as_str())
        .bind(now.as_millisecond())
        .bind(instance.map(to_json).transpose()?)
        .bind(record.name.as_str())
        .execute(self.connection())
        .await?;
        if to.voids_agent() {
            self.void_agent(&record.name).await?;
        }
        Ok(())
    }

    /// Who changed the machine's assignment last; `None` where that was the cell, or nobody ever did.
    async fn assigned_by(&mut self, machine: &Name) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT actor FROM events WHERE subject = $1 ORDER BY id DESC LIMIT 1")
            .bind(format!("{}/{machine}", Kind::Assignment))
            .fetch_optional(self.connection())
            .await?;
        Ok(row.map(|row| row.text("actor")).transpose()?.filter(|actor| actor != CELL))
    }

    /// Adds the quarantine to the machine's assignment. Gives the number of the event.
    async fn quarantine(&mut self, machine: &Name, problem: &Problem) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT document FROM declarations WHERE kind = $1 AND name = $2")
            .bind(Kind::Assignment.as_str())
            .bind(machine.as_str())
            .fetch_optional(self.connection())
            .await?;
        let before = row.map(|row| row.json::<Value>("document")).transpose()?;
        let before = before.and_then(|document| Declaration::from_json(document).ok());
        let (metadata, mut spec) =
            if let Some(Declaration { metadata, spec: Spec::Assignment(spec) }) = before {
                (metadata, spec)
            } else {
                let metadata = Metadata { name: machine.clone(), labels: std::collections::BTreeMap::new() };
                (metadata, AssignmentSpec::default())
            };
        spec.quarantine = Some(Quarantine { reason: format!("{} [{}]", problem.message, problem.code) });
        let after = Declaration { metadata, spec: Spec::Assignment(spec) };
        let now = self.now;
        sqlx::query(
            "INSERT INTO declarations (kind, name, document, generation, updated_at) \
             VALUES ($1, $2, $3, 1, $4) ON CONFLICT (kind, name) DO UPDATE SET \
             document = excluded.document, generation = declarations.generation + 1, \
             updated_at = excluded.updated_at",
        )
        .bind(Kind::Assignment.as_str())
        .bind(machine.as_str())
        .bind(clean(&after.to_json().to_string()).into_owned())
        .bind(now.as_millisecond())
        .execute(self.connection())
        .await?;
        let data = json!({ "quarantine": problem });
        self.event("declaration.updated", &after.reference(), CELL, &data).await
    }

    async fn erased(&mut self, machine: &Name, erasure: &Erasure) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO erasures (machine, at, document) VALUES ($1, $2, $3)")
            .bind(machine.as_str())
            .bind(erasure.at.as_millisecond())
            .bind(clean(&to_json(erasure)?).into_owned())
            .execute(self.connection())
            .await?;
        let count = |is: fn(&domain::erasure::Erased) -> bool| {
            erasure.items.iter().filter(|item| is(&item.erased)).count()
        };
        let data = json!({
            "by": erasure.by, "instance": erasure.instance,
            "erased": count(|erased| matches!(erased, domain::erasure::Erased::Erased { .. })),
            "notErased": count(|erased| matches!(erased, domain::erasure::Erased::NotErased { .. })),
        });
        self.event("machine.erased", &subject(machine), CELL, &data).await?;
        Ok(())
    }
}
