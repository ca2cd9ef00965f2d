//! Where GPUs were accepted: one that shows elsewhere later, or another one in its place, is found by it.

use crate::error::StoreError;
use crate::machines::{CELL, state, subject};
use crate::open::Store;
use crate::rows::{Read as _, clean};
use crate::write::Write;
use domain::gpu_views::AcceptedGpu;
use domain::{MachineState, Name};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

impl Store {
    /// All of them, by machine.
    pub async fn accepted_gpus(&self) -> Result<Vec<AcceptedGpu>, StoreError> {
        let rows = sqlx::query("SELECT machine, gpu, identity FROM accepted_gpus ORDER BY machine, gpu")
            .fetch_all(&self.inner.readers)
            .await?;
        let mut gpus: BTreeMap<(Name, String), BTreeSet<String>> = BTreeMap::new();
        for row in &rows {
            let gpu = (row.name("machine")?, row.text("gpu")?);
            gpus.entry(gpu).or_default().insert(row.text("identity")?);
        }
        let gpus = gpus.into_iter();
        Ok(gpus.map(|((machine, _), identities)| AcceptedGpu { machine, identities }).collect())
    }

    /// Writes down GPUs that were seen in a machine for the first time. Nothing is written of a machine that is not in service,
    /// nor of a GPU that was accepted in another machine meanwhile.
    pub async fn accept_new_gpus(&self, machine: &Name, gpus: &[AcceptedGpu]) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let row = sqlx::query("SELECT state FROM machines WHERE name = $1")
            .bind(machine.as_str())
            .fetch_optional(write.connection())
            .await?;
        let Some(row) = row else { return Ok(()) };
        if state(&row)? != MachineState::InService {
            return Ok(());
        }
        let mut written = Vec::new();
        for gpu in gpus {
            if !write.is_accepted_elsewhere(machine, gpu).await? && write.accept(machine, gpu, CELL).await? {
                written.push(&gpu.identities);
            }
        }
        if !written.is_empty() {
            let data = json!({ "gpus": written });
            write.event("gpu.accepted", &subject(machine), CELL, &data).await?;
            write.commit().await?;
        }
        Ok(())
    }

    /// Somebody accepts these GPUs in a machine, in the place of those that were; none of them is accepted anywhere else any more.
    pub async fn accept_gpus(
        &self,
        machine: &Name,
        gpus: &[AcceptedGpu],
        actor: &str,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        sqlx::query("DELETE FROM accepted_gpus WHERE machine = $1")
            .bind(machine.as_str())
            .execute(write.connection())
            .await?;
        for gpu in gpus {
            write.forget_accepted(gpu, machine).await?;
            write.accept(machine, gpu, actor).await?;
        }
        let identities: Vec<_> = gpus.iter().map(|gpu| &gpu.identities).collect();
        write.event("gpu.accepted", &subject(machine), actor, &json!({ "gpus": identities })).await?;
        write.commit().await
    }
}

impl Write {
    async fn is_accepted_elsewhere(&mut self, machine: &Name, gpu: &AcceptedGpu) -> Result<bool, StoreError> {
        for identity in &gpu.identities {
            let found = sqlx::query(
                "SELECT machine FROM accepted_gpus WHERE identity = $1 AND machine <> $2 LIMIT 1",
            )
            .bind(clean(identity).into_owned())
            .bind(machine.as_str())
            .fetch_optional(self.connection())
            .await?;
            if found.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether that was not written already.
    async fn accept(&mut self, machine: &Name, gpu: &AcceptedGpu, actor: &str) -> Result<bool, StoreError> {
        let now = self.now;
        let key = gpu.identities.last().map(|identity| clean(identity).into_owned()).unwrap_or_default();
        let mut written = 0;
        for identity in &gpu.identities {
            let done = sqlx::query(
                "INSERT INTO accepted_gpus (machine, gpu, identity, actor, at) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (machine, gpu, identity) DO NOTHING",
            )
            .bind(machine.as_str())
            .bind(key.as_str())
            .bind(clean(identity).into_owned())
            .bind(clean(actor).into_owned())
            .bind(now.as_millisecond())
            .execute(self.connection())
            .await?;
            written += done.rows_affected();
        }
        Ok(written > 0)
    }

    /// Where a GPU was accepted elsewhere, it is not any more.
    async fn forget_accepted(&mut self, gpu: &AcceptedGpu, except: &Name) -> Result<(), StoreError> {
        for identity in &gpu.identities {
            let rows =
                sqlx::query("SELECT machine, gpu FROM accepted_gpus WHERE identity = $1 AND machine <> $2")
                    .bind(clean(identity).into_owned())
                    .bind(except.as_str())
                    .fetch_all(self.connection())
                    .await?;
            for row in &rows {
                sqlx::query("DELETE FROM accepted_gpus WHERE machine = $1 AND gpu = $2")
                    .bind(row.text("machine")?)
                    .bind(row.text("gpu")?)
                    .execute(self.connection())
                    .await?;
            }
        }
        Ok(())
    }
}
