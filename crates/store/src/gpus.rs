//! GPUs of all machines, and those that two machines claim.

use crate::error::{StoreError, hint_of};
use crate::machines::state;
use crate::open::Store;
use crate::rows::{Read as _, clean, to_json};
use crate::write::Write;
use domain::inventory::Gpu;
use domain::{MachineState, Name, Problem};
use serde::Serialize;
use sqlx::any::AnyRow;
use std::collections::BTreeSet;

/// A GPU as its machine's BMC tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuRecord {
    /// The machine that shows it.
    pub machine: Name,
    /// The state of that machine: only what an enrolled one shows is known now.
    pub machine_state: MachineState,
    /// What names it within its machine, whatever order the BMC lists: `serial:…`, else `uuid:…`, `pci:…`, `location:…`, and
    /// `place:…` for one that says nothing of itself.
    pub key: String,
    /// What is known of it.
    pub gpu: Gpu,
}

/// One GPU, shown by two enrolled machines. There is one such entry from each side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuConflict {
    /// One machine.
    pub machine: Name,
    /// The GPU's key in it.
    pub key: String,
    /// The other machine.
    pub other_machine: Name,
    /// The GPU's key in that one.
    pub other_key: String,
    /// The serial or UUID that both show.
    pub shared: String,
}

impl GpuConflict {
    /// The conflict as people see it.
    pub fn problem(&self) -> Problem {
        let message =
            format!("GPU {} of {} is also shown by {}", self.shared, self.machine, self.other_machine);
        Problem::new("gpu.duplicate", message)
            .hint(hint_of("gpu.duplicate"))
            .at(format!("{} {}, {} {}", self.machine, self.key, self.other_machine, self.other_key))
    }
}

impl Store {
    /// All GPUs, by machine, in the order in which the BMC lists them.
    pub async fn gpus(&self) -> Result<Vec<GpuRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT g.machine, m.state, g.key, g.document FROM gpus g JOIN machines m ON m.name = g.machine \
             ORDER BY g.machine, g.place",
        )
        .fetch_all(&self.inner.readers)
        .await?;
        rows.iter().map(record).collect()
    }

    /// A page of [`Self::gpus`]: at most `limit` that come after this one, named by machine and key.
    pub async fn gpus_page(
        &self,
        after: Option<(&Name, &str)>,
        limit: u32,
    ) -> Result<Vec<GpuRecord>, StoreError> {
        let (machine, key) = after.map_or(("", ""), |(machine, key)| (machine.as_str(), key));
        let rows = sqlx::query(
            "SELECT g.machine, m.state, g.key, g.document FROM gpus g JOIN machines m ON m.name = g.machine \
             WHERE g.machine > $1 OR (g.machine = $1 AND g.place > \
             COALESCE((SELECT place FROM gpus WHERE machine = $1 AND key = $2), -1)) \
             ORDER BY g.machine, g.place LIMIT $3",
        )
        .bind(machine)
        .bind(key)
        .bind(i64::from(limit))
        .fetch_all(&self.inner.readers)
        .await?;
        rows.iter().map(record).collect()
    }

    /// The GPUs of one machine.
    pub async fn gpus_of(&self, machine: &Name) -> Result<Vec<GpuRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT g.machine, m.state, g.key, g.document FROM gpus g JOIN machines m ON m.name = g.machine \
             WHERE g.machine = $1 ORDER BY g.place",
        )
        .bind(machine.as_str())
        .fetch_all(&self.inner.readers)
        .await?;
        rows.iter().map(record).collect()
    }

    /// Every GPU that two enrolled machines show, from both sides.
    pub async fn gpu_conflicts(&self) -> Result<Vec<GpuConflict>, StoreError> {
        let rows = sqlx::query(
            "SELECT a.machine, a.key, b.machine AS other_machine, b.key AS other_key, a.serial AS shared \
             FROM gpus a JOIN gpus b ON b.serial = a.serial AND b.machine <> a.machine \
             JOIN machines m ON m.name = a.machine JOIN machines n ON n.name = b.machine \
             WHERE m.state NOT IN ('declared', 'discovered') AND n.state NOT IN ('declared', 'discovered') \
             UNION ALL \
             SELECT a.machine, a.key, b.machine AS other_machine, b.key AS other_key, a.uuid AS shared \
             FROM gpus a JOIN gpus b ON b.uuid = a.uuid AND b.machine <> a.machine \
             JOIN machines m ON m.name = a.machine JOIN machines n ON n.name = b.machine \
             WHERE m.state NOT IN ('declared', 'discovered') AND n.state NOT IN ('declared', 'discovered')",
        )
        .fetch_all(&self.inner.readers)
        .await?;
        conflicts(&rows)
    }
}

impl Write {
    /// Replaces the GPUs of a machine.
    pub(crate) async fn replace_gpus(&mut self, machine: &Name, gpus: &[Gpu]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM gpus WHERE machine = $1")
            .bind(machine.as_str())
            .execute(self.connection())
            .await?;
        let mut taken = BTreeSet::new();
        for (place, gpu) in gpus.iter().enumerate() {
            let key = free_key(&key_of(gpu, place), &mut taken);
            sqlx::query(
                "INSERT INTO gpus (machine, key, place, serial, uuid, model, document) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(machine.as_str())
            .bind(key)
            .bind(i64::try_from(place).unwrap_or(i64::MAX))
            .bind(gpu.serial.as_deref().map(|text| clean(text).into_owned()))
            .bind(gpu.uuid.as_deref().map(|text| clean(text).into_owned()))
            .bind(gpu.model.as_deref().map(|text| clean(text).into_owned()))
            .bind(to_json(gpu)?)
            .execute(self.connection())
            .await?;
        }
        Ok(())
    }

    /// The GPUs of one machine that another enrolled machine shows too.
    pub(crate) async fn gpu_conflicts_of(&mut self, machine: &Name) -> Result<Vec<GpuConflict>, StoreError> {
        let rows = sqlx::query(
            "SELECT a.machine, a.key, b.machine AS other_machine, b.key AS other_key, a.serial AS shared \
             FROM gpus a JOIN gpus b ON b.serial = a.serial AND b.machine <> a.machine \
             JOIN machines n ON n.name = b.machine WHERE a.machine = $1 AND n.state NOT IN ('declared', 'discovered') \
             UNION ALL \
             SELECT a.machine, a.key, b.machine AS other_machine, b.key AS other_key, a.uuid AS shared \
             FROM gpus a JOIN gpus b ON b.uuid = a.uuid AND b.machine <> a.machine \
             JOIN machines n ON n.name = b.machine WHERE a.machine = $1 AND n.state NOT IN ('declared', 'discovered')",
        )
        .bind(machine.as_str())
        .fetch_all(self.connection())
        .await?;
        conflicts(&rows)
    }
}

/// One entry a pair, also where serial and UUID are both shared.
fn conflicts(rows: &[AnyRow]) -> Result<Vec<GpuConflict>, StoreError> {
    let mut found: Vec<GpuConflict> = rows
        .iter()
        .map(|row| {
            Ok(GpuConflict {
                machine: row.name("machine")?,
                key: row.text("key")?,
                other_machine: row.name("other_machine")?,
                other_key: row.text("other_key")?,
                shared: row.text("shared")?,
            })
        })
        .collect::<Result<_, StoreError>>()?;
    let pair =
        |c: &GpuConflict| (c.machine.clone(), c.key.clone(), c.other_machine.clone(), c.other_key.clone());
    // A stable sort, and serials come first.
    found.sort_by_key(pair);
    found.dedup_by_key(|conflict| pair(conflict));
    Ok(found)
}

fn key_of(gpu: &Gpu, place: usize) -> String {
    let known = [
        ("serial", &gpu.serial),
        ("uuid", &gpu.uuid),
        ("pci", &gpu.pci_address),
        ("location", &gpu.location),
    ];
    known
        .into_iter()
        .find_map(|(what, value)| value.as_ref().map(|value| format!("{what}:{}", clean(value))))
        .unwrap_or_else(|| format!("place:{place}"))
}

/// A BMC may show one serial twice; both GPUs are kept.
fn free_key(wanted: &str, taken: &mut BTreeSet<String>) -> String {
    let mut key = wanted.to_owned();
    let mut count = 1_u32;
    while !taken.insert(key.clone()) {
        count += 1;
        key = format!("{wanted}#{count}");
    }
    key
}

fn record(row: &AnyRow) -> Result<GpuRecord, StoreError> {
    Ok(GpuRecord {
        machine: row.name("machine")?,
        machine_state: state(row)?,
        key: row.text("key")?,
        gpu: row.json("document")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_named_by_what_it_says_of_itself_and_two_never_share_a_name() {
        let gpu = |serial: Option<&str>, pci: Option<&str>| Gpu {
            serial: serial.map(Into::into),
            pci_address: pci.map(Into::into),
            ..Gpu::default()
        };
        let gpus = [
            gpu(Some("S1"), Some("0000:1b:00.0")),
            gpu(None, Some("0000:43:00.0")),
            gpu(None, None),
            gpu(Some("S1"), None),
        ];
        let mut taken = BTreeSet::new();
        let keys: Vec<_> =
            gpus.iter().enumerate().map(|(at, gpu)| free_key(&key_of(gpu, at), &mut taken)).collect();
        assert_eq!(keys, ["serial:S1", "pci:0000:43:00.0", "place:2", "serial:S1#2"]);
    }
}
