//! Plans: kept as they were shown, applied in one transaction or not at all (DESIGN §3.6).

use crate::declarations;
use crate::error::StoreError;
use crate::machines::{CELL, state, subject};
use crate::open::Store;
use crate::rows::{Read as _, corrupt, to_json};
use crate::seal::Purpose;
use crate::write::Write;
use domain::plan::{Action, Change, PASSWORD};
use domain::{Declaration, Digest, Kind, MachineState, Name, Plan, Spec};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::any::AnyRow;
use std::collections::BTreeMap;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// A plan as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredPlan {
    /// The plan.
    pub plan: Plan,
    /// When it was made, the last time.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// When it was applied.
    pub applied_at: Option<Timestamp>,
    /// Who applied it.
    pub applied_by: Option<String>,
}

/// What applying a plan came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// Whether it had been applied before, so that this call changed nothing.
    pub already: bool,
    /// When it was applied.
    pub at: Timestamp,
    /// What it changed.
    pub changes: Vec<AppliedChange>,
    /// Machines that have to be discovered again because of it; empty where it had been applied before.
    pub reset: Vec<Name>,
}

/// One change that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedChange {
    /// What was done.
    pub action: Action,
    /// The kind of the object.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
}

impl Store {
    /// Keeps a plan, with the passwords of the machines that it declares, sealed. Saving it again replaces the passwords. A
    /// plan that was applied may be saved, and then applied, again, if it fits what is declared by then: a second new password
    /// makes the same plan as the first.
    pub async fn save_plan(
        &self,
        plan: &Plan,
        passwords: &BTreeMap<Name, Zeroizing<String>>,
        actor: &str,
    ) -> Result<(), StoreError> {
        if !plan.is_genuine() {
            return Err(StoreError::PlanNotGenuine(plan.digest));
        }
        let digest = plan.digest.to_string();
        let mut write = self.write().await?;
        if let Some(stored) = write.stored_plan(&plan.digest).await?
            && stored.applied_at.is_some()
            && !plan.fits(&declarations::all(write.connection()).await?)
        {
            return Ok(());
        }
        let now = write.now;
        sqlx::query(
            "INSERT INTO plans (digest, document, created_at, created_by) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (digest) DO UPDATE SET created_at = excluded.created_at, \
             created_by = excluded.created_by, applied_at = NULL, applied_by = NULL",
        )
        .bind(&digest)
        .bind(to_json(plan)?)
        .bind(now.as_millisecond())
        .bind(actor)
        .execute(write.connection())
        .await?;
        write.forget_pending_passwords(&digest).await?;
        for (machine, password) in passwords {
            let sealed =
                self.inner.sealer.seal(password, Purpose::PendingPassword, &pending(&digest, machine))?;
            sqlx::query("INSERT INTO plan_passwords (digest, machine, sealed) VALUES ($1, $2, $3)")
                .bind(&digest)
                .bind(machine.as_str())
                .bind(sealed)
                .execute(write.connection())
                .await?;
        }
        let data = json!({ "changes": plan.changes.len() });
        write.event("plan.saved", &format!("Plan/{digest}"), actor, &data).await?;
        write.commit().await
    }

    /// A kept plan.
    pub async fn plan(&self, digest: &Digest) -> Result<Option<StoredPlan>, StoreError> {
        let row = sqlx::query("SELECT * FROM plans WHERE digest = $1")
            .bind(digest.to_string())
            .fetch_optional(&self.inner.readers)
            .await?;
        row.as_ref().map(stored_plan).transpose()
    }

    /// Forgets plans that were made before this time and never applied, with the passwords in them. Says how many.
    pub async fn prune_plans(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut write = self.write().await?;
        let gone = sqlx::query("DELETE FROM plans WHERE applied_at IS NULL AND created_at < $1")
            .bind(before.as_millisecond())
            .execute(write.connection())
            .await?
            .rows_affected();
        if gone > 0 {
            let data = json!({ "count": gone, "before": before });
            write.event("plan.pruned", "Plan", CELL, &data).await?;
        }
        write.commit().await?;
        Ok(gone)
    }

    /// Applies a kept plan as a whole: declarations, machines, passwords, events. Applying it again changes nothing. Refused
    /// where what is declared has changed since it was made.
    ///
    /// A machine whose site, serial, MAC, or BMC address or pin changes has to be discovered again. The key that its BMC showed
    /// stays as what the next one is held against, unless the plan declares a key. One that gets other credentials stays what
    /// it is and is read with them.
    pub async fn apply_plan(&self, digest: &Digest, actor: &str) -> Result<Applied, StoreError> {
        let mut write = self.write().await?;
        let stored = write.stored_plan(digest).await?.ok_or(StoreError::PlanUnknown(*digest))?;
        let plan = stored.plan;
        let changes: Vec<_> = plan
            .changes
            .iter()
            .map(|change| AppliedChange {
                action: change.action,
                kind: change.kind,
                name: change.name.clone(),
            })
            .collect();
        if let Some(at) = stored.applied_at {
            return Ok(Applied { already: true, at, changes, reset: Vec::new() });
        }
        if !plan.fits(&declarations::all(write.connection()).await?) {
            return Err(StoreError::PlanStale(*digest));
        }
        let digest = digest.to_string();
        let passwords = self.pending_passwords(&mut write, &digest).await?;
        let mut reset = Vec::new();
        for change in &plan.changes {
            let password = passwords.get(&change.name).filter(|_| change.kind == Kind::Machine);
            let new_password = match password {
                Some(password) => self.take_password(&mut write, change, password).await?,
                None => None,
            };
            if write.apply_change(change, new_password, actor, &digest).await? {
                reset.push(change.name.clone());
            }
        }
        write.retry_after(&plan, actor).await?;
        write.forget_pending_passwords(&digest).await?;
        let at = write.now;
        sqlx::query("UPDATE plans SET applied_at = $1, applied_by = $2 WHERE digest = $3")
            .bind(at.as_millisecond())
            .bind(actor)
            .bind(&digest)
            .execute(write.connection())
            .await?;
        let data = json!({ "changes": plan.changes.len(), "reset": reset });
        write.event("plan.applied", &format!("Plan/{digest}"), actor, &data).await?;
        write.commit().await?;
        Ok(Applied { already: false, at, changes, reset })
    }

    /// The password of a machine's BMC, where one is sealed here.
    pub async fn credentials(&self, machine: &Name) -> Result<Option<Zeroizing<String>>, StoreError> {
        let row = sqlx::query("SELECT sealed FROM credentials WHERE machine = $1")
            .bind(machine.as_str())
            .fetch_optional(&self.inner.readers)
            .await?;
        let Some(row) = row else { return Ok(None) };
        self.inner.sealer.open(&row.text("sealed")?, Purpose::Password, machine.as_str()).map(Some)
    }

    /// 32 bytes that only this cell's key gives for a purpose and a subject, the same each time: a bootstrap token that is made
    /// anew after a crash is the one that was made before, and nothing of it has to be stored.
    pub fn derive(&self, purpose: &str, subject: &str) -> Zeroizing<[u8; 32]> {
        self.inner.sealer.derive(purpose, subject)
    }

    /// Whether this is the password that is sealed for a machine; in constant time.
    pub async fn password_equals(&self, machine: &Name, password: &str) -> Result<bool, StoreError> {
        let sealed = self.credentials(machine).await?;
        Ok(sealed.is_some_and(|sealed| same_secret(&sealed, password)))
    }

    async fn pending_passwords(
        &self,
        write: &mut Write,
        digest: &str,
    ) -> Result<BTreeMap<Name, Zeroizing<String>>, StoreError> {
        let rows = sqlx::query("SELECT machine, sealed FROM plan_passwords WHERE digest = $1")
            .bind(digest)
            .fetch_all(write.connection())
            .await?;
        rows.iter()
            .map(|row| {
                let machine = row.name("machine")?;
                let sealed = row.text("sealed")?;
                let purpose = Purpose::PendingPassword;
                let password = self.inner.sealer.open(&sealed, purpose, &pending(digest, &machine))?;
                Ok((machine, password))
            })
            .collect()
    }

    /// The password sealed anew for its machine, if it is another than the one before.
    async fn take_password(
        &self,
        write: &mut Write,
        change: &Change,
        password: &str,
    ) -> Result<Option<String>, StoreError> {
        let sealer = &self.inner.sealer;
        let machine = change.name.as_str();
        let before = sqlx::query("SELECT sealed FROM credentials WHERE machine = $1")
            .bind(machine)
            .fetch_optional(write.connection())
            .await?
            .map(|row| row.text("sealed"))
            .transpose()?;
        // One that does not open any more is replaced: applying the password again is the way to mend it.
        let before = before.and_then(|sealed| sealer.open(&sealed, Purpose::Password, machine).ok());
        if change.action == Action::Update && before.is_some_and(|before| same_secret(&before, password)) {
            return Ok(None);
        }
        sealer.seal(password, Purpose::Password, machine).map(Some)
    }
}

impl Write {
    async fn stored_plan(&mut self, digest: &Digest) -> Result<Option<StoredPlan>, StoreError> {
        let row = sqlx::query("SELECT * FROM plans WHERE digest = $1")
            .bind(digest.to_string())
            .fetch_optional(self.connection())
            .await?;
        row.as_ref().map(stored_plan).transpose()
    }

    async fn forget_pending_passwords(&mut self, digest: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM plan_passwords WHERE digest = $1")
            .bind(digest)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Makes one change. Says whether a machine has to be discovered again.
    async fn apply_change(
        &mut self,
        change: &Change,
        new_password: Option<String>,
        actor: &str,
        plan: &str,
    ) -> Result<bool, StoreError> {
        let event = match change.action {
            Action::Create => "declaration.created",
            Action::Update => "declaration.updated",
            Action::Delete => "declaration.deleted",
        };
        let about = format!("{}/{}", change.kind, change.name);
        let data = json!({ "plan": plan, "fields": change.fields });
        let id = self.event(event, &about, actor, &data).await?;
        if change.kind == Kind::Assignment {
            self.wake(&change.name).await?;
        }
        if change.action == Action::Delete {
            if change.kind == Kind::Machine {
                self.refuse_to_lose(&change.name).await?;
            }
            // The machine, its password, inventory, facts and GPUs go with its declaration.
            sqlx::query("DELETE FROM declarations WHERE kind = $1 AND name = $2")
                .bind(change.kind.as_str())
                .bind(change.name.as_str())
                .execute(self.connection())
                .await?;
            return Ok(false);
        }
        let now = self.now;
        sqlx::query(
            "INSERT INTO declarations (kind, name, document, generation, updated_at) \
             VALUES ($1, $2, $3, 1, $4) ON CONFLICT (kind, name) DO UPDATE SET \
             document = excluded.document, generation = declarations.generation + 1, \
             updated_at = excluded.updated_at",
        )
        .bind(change.kind.as_str())
        .bind(change.name.as_str())
        .bind(change.after.to_string())
        .bind(now.as_millisecond())
        .execute(self.connection())
        .await?;
        if change.kind != Kind::Machine {
            return Ok(false);
        }
        let site = site_of(change)?;
        let reset = match change.action {
            Action::Create => {
                self.create_machine(&change.name, id).await?;
                self.enqueue(&change.name, &site).await?;
                false
            }
            _ if needs_discovery(change) => self.discover_again(change, id, actor).await?,
            _ if new_password.is_some() || has_new_credentials(change) => {
                self.try_again(&change.name, id).await?;
                false
            }
            _ => false,
        };
        if change.action == Action::Update {
            self.enqueue(&change.name, &site).await?;
        }
        self.keep_password(change, new_password).await?;
        Ok(reset)
    }

    /// A machine that the provisioning service holds something of is not forgotten, nor is it moved to another site.
    async fn refuse_to_lose(&mut self, machine: &Name) -> Result<(), StoreError> {
        let state = self.state_of(machine).await?;
        if state.is_handed_over() {
            return Err(StoreError::InUse { machine: machine.clone(), state });
        }
        // A use that is not erased goes with the machine until it is, whatever state it was sent back to; or until people have
        // given it up, of which there is a record.
        let used = sqlx::query("SELECT name FROM machines WHERE name = $1 AND instance IS NOT NULL")
            .bind(machine.as_str())
            .fetch_optional(self.connection())
            .await?;
        if used.is_some() && state != MachineState::Retired {
            return Err(StoreError::InUse { machine: machine.clone(), state });
        }
        let own = sqlx::query("SELECT holder FROM bmc_accounts WHERE machine = $1 LIMIT 1")
            .bind(machine.as_str())
            .fetch_optional(self.connection())
            .await?;
        // A retired one has its declared password again, unless people have said that it shall not.
        if own.is_some() && state != MachineState::Retired {
            return Err(StoreError::OwnPassword(machine.clone()));
        }
        Ok(())
    }

    async fn state_of(&mut self, machine: &Name) -> Result<MachineState, StoreError> {
        let row = sqlx::query("SELECT state FROM machines WHERE name = $1")
            .bind(machine.as_str())
            .fetch_optional(self.connection())
            .await?;
        row.map_or(Ok(MachineState::Declared), |row| state(&row))
    }

    /// What a machine is reached by, or held against, has changed: it is discovered again. One that the provisioning service
    /// holds stays what it is, and is read again with its pinned key: another machine at the new address is an alarm.
    async fn discover_again(&mut self, change: &Change, id: i64, actor: &str) -> Result<bool, StoreError> {
        if !self.state_of(&change.name).await?.is_handed_over() {
            self.reset_machine(change, actor).await?;
            return Ok(true);
        }
        if change.fields.iter().any(|field| field.path == "spec.site") {
            self.refuse_to_lose(&change.name).await?;
        }
        self.try_again(&change.name, id).await?;
        if change.fields.iter().any(|field| field.path == "spec.bmc.pin" && field.to != Value::Null) {
            sqlx::query("UPDATE machines SET pin = NULL WHERE name = $1")
                .bind(change.name.as_str())
                .execute(self.connection())
                .await?;
        }
        Ok(false)
    }

    async fn create_machine(&mut self, machine: &Name, generation: i64) -> Result<(), StoreError> {
        let now = self.now;
        sqlx::query("INSERT INTO machines (name, state, since, generation) VALUES ($1, $2, $3, $4)")
            .bind(machine.as_str())
            .bind(MachineState::Declared.as_str())
            .bind(now.as_millisecond())
            .bind(generation)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Back to declared. Serial and UUID are forgotten, since who has them is to be found out anew: two machines whose
    /// addresses were exchanged could otherwise never be put right. Inventory and facts stay, as what was last seen.
    async fn reset_machine(&mut self, change: &Change, actor: &str) -> Result<(), StoreError> {
        let fields: Vec<_> = change.fields.iter().map(|field| &field.path).collect();
        let id =
            self.event("machine.reset", &subject(&change.name), actor, &json!({ "fields": fields })).await?;
        let declares_pin =
            change.fields.iter().any(|field| field.path == "spec.bmc.pin" && field.to != Value::Null);
        let now = self.now;
        // The number of the event is greater than every generation before, that of a deleted machine of this name included.
        sqlx::query(
            "UPDATE machines SET state = $1, since = $2, generation = $3, waiting = NULL, serial = NULL, \
             uuid = NULL, pin = CASE WHEN $4 = 1 THEN NULL ELSE pin END WHERE name = $5",
        )
        .bind(MachineState::Declared.as_str())
        .bind(now.as_millisecond())
        .bind(id)
        .bind(i32::from(declares_pin))
        .bind(change.name.as_str())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// New credentials say nothing new of the machine, so it stays what it is, and published; only reading it is due.
    async fn try_again(&mut self, machine: &Name, generation: i64) -> Result<(), StoreError> {
        sqlx::query("UPDATE machines SET generation = $1, waiting = NULL, stale = 1 WHERE name = $2")
            .bind(generation)
            .bind(machine.as_str())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Keeps a new password; drops one that the declaration takes from elsewhere now.
    async fn keep_password(
        &mut self,
        change: &Change,
        new_password: Option<String>,
    ) -> Result<(), StoreError> {
        if let Some(sealed) = new_password {
            let now = self.now;
            sqlx::query(
                "INSERT INTO credentials (machine, sealed, updated_at) VALUES ($1, $2, $3) \
                 ON CONFLICT (machine) DO UPDATE SET sealed = excluded.sealed, updated_at = excluded.updated_at",
            )
            .bind(change.name.as_str())
            .bind(sealed)
            .bind(now.as_millisecond())
            .execute(self.connection())
            .await?;
            return Ok(());
        }
        let declared = Declaration::from_json(change.after.clone())
            .map_err(|error| corrupt("document", &error.to_string()))?;
        let Spec::Machine(spec) = declared.spec else { return Ok(()) };
        if spec.bmc.password_file.is_none() {
            sqlx::query("DELETE FROM credentials WHERE machine = $1")
                .bind(change.name.as_str())
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }

    /// A machine that waits until people change a declaration is tried again when a site or jurisdiction changes: its own
    /// declaration need not be the one that was wrong. One that waits for its firmware, and is looked at again by itself, is tried
    /// again when a profile changes.
    async fn retry_after(&mut self, plan: &Plan, actor: &str) -> Result<(), StoreError> {
        let concerns =
            |change: &Change| !matches!(change.kind, Kind::Machine | Kind::Assignment | Kind::GpuClass);
        if !plan.changes.iter().any(concerns) {
            return Ok(());
        }
        let profiles = plan.changes.iter().any(|change| change.kind == Kind::FirmwareProfile);
        for (machine, waiting) in self.waiting().await? {
            if waiting.until.is_none() {
                self.stop_waiting(&machine, &waiting, actor).await?;
                self.wake(&machine).await?;
            } else if profiles && waiting.problem.code.starts_with("firmware.") {
                self.wake(&machine).await?;
            }
        }
        Ok(())
    }
}

/// The site that a machine is declared to stand in.
fn site_of(change: &Change) -> Result<Name, StoreError> {
    let site = change.after.pointer("/spec/site").and_then(Value::as_str).unwrap_or_default();
    Name::new(site).map_err(|_| corrupt("document", "a machine without a site"))
}

/// Whether the change touches where the machine is reached, or what it is held against.
fn needs_discovery(change: &Change) -> bool {
    let paths = ["spec.bmc.address", "spec.bmc.pin", "spec.site", "spec.serial", "spec.mac"];
    change.fields.iter().any(|field| paths.contains(&field.path.as_str()))
}

/// Whether the change touches with what it is read.
fn has_new_credentials(change: &Change) -> bool {
    change.fields.iter().any(|field| field.path.starts_with("spec.bmc.") || field.path == PASSWORD)
}

/// Subject of a pending password: bound to its plan, so that it opens in no other.
fn pending(digest: &str, machine: &Name) -> String {
    format!("{machine}\n{digest}")
}

/// Compares digests, so that not even the length decides how long it takes.
fn same_secret(one: &str, other: &str) -> bool {
    let (one, other) = (Digest::of(one.as_bytes()), Digest::of(other.as_bytes()));
    one.bytes().ct_eq(other.bytes()).into()
}

fn stored_plan(row: &AnyRow) -> Result<StoredPlan, StoreError> {
    Ok(StoredPlan {
        plan: row.json("document")?,
        created_at: row.time("created_at")?,
        created_by: row.text("created_by")?,
        applied_at: row.maybe_time("applied_at")?,
        applied_by: row.maybe_text("applied_by")?,
    })
}
