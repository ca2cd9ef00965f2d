//! What was erased of a machine between two uses, and what was not (DESIGN §5.5, NIST SP 800-88).

use crate::declaration::Zone;
use crate::name::Name;
use crate::problem::Problem;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What keeps data when the power goes, or may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// A disk.
    Disk,
    /// Memory of the GPUs.
    GpuMemory,
    /// The storage of the TPM.
    Tpm,
}

impl Part {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::GpuMemory => "GPU memory",
            Self::Tpm => "TPM",
        }
    }
}

/// What came of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum Erased {
    /// It was erased.
    Erased {
        /// How: `nvme-format`, `ata-secure-erase`, `shred`, `erase_devices`.
        method: String,
    },
    /// There is none in this machine.
    Absent,
    /// Nothing was put on it in this use, so it is as it was before.
    Untouched,
    /// It was in the machine before this use, and is in it no more: whoever took it out has what is on it.
    Removed,
    /// It was not.
    NotErased {
        /// Why not.
        reason: String,
    },
}

/// One part of a machine, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// What.
    pub part: Part,
    /// Serial number of the device; `null` where nobody tells.
    pub serial: Option<String>,
    /// Its name where it was erased: `/dev/nvme0n1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What came of it.
    #[serde(flatten)]
    pub erased: Erased,
}

/// The record of one erasure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Erasure {
    /// The machine.
    pub machine: Name,
    /// The use that ended; `null` for the erasure before the first.
    #[schemars(with = "Option<String>")]
    pub instance: Option<Uuid>,
    /// The base cluster that it was a node of.
    pub base_cluster: Option<Name>,
    /// The zone that it was used in.
    pub zone: Option<Zone>,
    /// Who erased: the provisioning service's name; of a machine that is lost, who said so.
    pub by: String,
    /// When it ended.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// Every part that remembers, each with what came of it.
    pub items: Vec<Item>,
}

impl Erasure {
    /// What keeps the machine from being used again: a disk that was not erased, or a record that leaves a part out. GPU memory
    /// and the TPM may be `not-erased` with the reason, since not every machine has a step for them; they may not be missing.
    pub fn gap(&self) -> Option<Problem> {
        let disks = self.items.iter().filter(|item| item.part == Part::Disk);
        for item in disks {
            if let Erased::NotErased { reason } = &item.erased {
                let disk =
                    item.serial.as_deref().or(item.device.as_deref()).unwrap_or("without a serial number");
                let message = format!("disk {disk} was not erased: {reason}");
                return Some(Problem::new("erasure.disk-not-erased", message).hint(
                    "have the provisioning service clean the machine again; where that cannot be, `bailiwick retire MACHINE --lost --reason …` gives it up",
                ));
            }
        }
        let missing = self.missing()?;
        let message = format!("the record of the erasure says nothing of the {}", missing.as_str());
        let hint = "have the provisioning service clean the machine again";
        Some(Problem::new("erasure.incomplete", message).hint(hint))
    }

    /// The first part that the record says nothing of.
    pub fn missing(&self) -> Option<Part> {
        let has = |part: Part| self.items.iter().any(|item| item.part == part);
        [Part::Disk, Part::GpuMemory, Part::Tpm].into_iter().find(|part| !has(*part))
    }
}

/// Everything that is known of a machine which is lost: none of it was erased. `None` among the serial numbers stands for a part
/// that does not tell its own.
pub fn of_lost(disks: &[String], gpus: &[Option<String>], reason: &str) -> Vec<Item> {
    let item = |part, serial| {
        let erased = Erased::NotErased { reason: format!("the machine is lost: {reason}") };
        Item { part, serial, device: None, erased }
    };
    let mut items: Vec<Item> = Vec::new();
    for serial in disks {
        let known = |item: &Item| item.serial.as_deref().is_some_and(|own| is_same(own, serial));
        if !items.iter().any(known) {
            items.push(item(Part::Disk, Some(serial.clone())));
        }
    }
    if items.is_empty() {
        items.push(item(Part::Disk, None));
    }
    let unknown = gpus.is_empty().then_some(None);
    items.extend(gpus.iter().cloned().chain(unknown).map(|serial| item(Part::GpuMemory, serial)));
    items.push(item(Part::Tpm, None));
    items
}

/// Serial numbers are written with blanks, and in either case.
fn is_same(one: &str, other: &str) -> bool {
    one.trim().eq_ignore_ascii_case(other.trim())
}

/// Adds the disks that were seen before and are not among those that were cleaned. One that the BMC still lists is in the machine and
/// hides; of one that it does not, nothing can be said but that it is gone.
pub fn add_unseen_disks(items: &mut Vec<Item>, before: &[String], listed: &[String]) {
    for serial in before {
        let seen = |item: &Item| {
            item.part == Part::Disk && item.serial.as_deref().is_some_and(|own| is_same(own, serial))
        };
        if items.iter().any(seen) {
            continue;
        }
        let erased = if listed.iter().any(|listed| is_same(listed, serial)) {
            Erased::NotErased {
                reason: "its BMC lists it, and who cleaned the machine did not see it".to_owned(),
            }
        } else {
            Erased::Removed
        };
        items.push(Item { part: Part::Disk, serial: Some(serial.clone()), device: None, erased });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(items: Vec<Item>) -> Erasure {
        Erasure {
            machine: Name::new("m1").unwrap(),
            instance: None,
            base_cluster: None,
            zone: None,
            by: "ironic".into(),
            at: Timestamp::UNIX_EPOCH,
            items,
        }
    }

    fn item(part: Part, erased: bool) -> Item {
        let erased = if erased {
            Erased::Erased { method: "nvme-format".into() }
        } else {
            Erased::NotErased { reason: "frozen".into() }
        };
        Item { part, serial: Some("S1".into()), device: None, erased }
    }

    fn gap(items: Vec<Item>) -> Option<String> {
        record(items).gap().map(|problem| problem.code)
    }

    #[test]
    fn a_record_is_whole_when_disks_are_erased_and_the_rest_is_accounted_for() {
        let whole = vec![item(Part::Disk, true), item(Part::GpuMemory, false), item(Part::Tpm, false)];
        assert_eq!(gap(whole.clone()), None);
        for missing in 0..3 {
            let mut items = whole.clone();
            items.remove(missing);
            assert_eq!(gap(items).as_deref(), Some("erasure.incomplete"));
        }
    }

    #[test]
    fn a_machine_that_nothing_was_put_on_may_be_used_again() {
        let part = |part| Item { part, serial: None, device: None, erased: Erased::Untouched };
        assert_eq!(gap(vec![part(Part::Disk), part(Part::GpuMemory), part(Part::Tpm)]), None);
    }

    #[test]
    fn a_disk_that_hides_from_cleaning_keeps_the_machine_and_one_that_was_taken_out_is_told() {
        let parts = || vec![item(Part::Disk, true), item(Part::GpuMemory, true), item(Part::Tpm, true)];
        let with = |before: &[&str], listed: &[&str]| {
            let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            let mut items = parts();
            add_unseen_disks(&mut items, &texts(before), &texts(listed));
            items
        };
        assert_eq!(with(&["s1"], &["S1"]), parts());
        let hidden = with(&["S1", "S2"], &["S1", "S2"]);
        assert_eq!(gap(hidden).as_deref(), Some("erasure.disk-not-erased"));
        let removed = with(&["S1", "S2"], &["S1"]);
        assert_eq!(removed.last().unwrap().erased, Erased::Removed);
        assert_eq!(gap(removed), None);
    }

    #[test]
    fn the_record_of_a_lost_machine_is_whole_names_every_part_once_and_lets_nobody_use_it() {
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let items = of_lost(&texts(&["S1", " s1", "S2"]), &[Some("G1".into()), None], "stolen");
        let named: Vec<_> = items.iter().map(|item| (item.part, item.serial.as_deref())).collect();
        let expected = [
            (Part::Disk, Some("S1")),
            (Part::Disk, Some("S2")),
            (Part::GpuMemory, Some("G1")),
            (Part::GpuMemory, None),
            (Part::Tpm, None),
        ];
        assert_eq!(named, expected);
        for items in [items, of_lost(&[], &[], "burnt")] {
            let record = record(items);
            assert_eq!(record.missing(), None);
            assert_eq!(record.gap().map(|problem| problem.code).as_deref(), Some("erasure.disk-not-erased"));
        }
    }

    #[test]
    fn one_disk_that_was_not_erased_keeps_the_machine() {
        let items = vec![
            item(Part::Disk, true),
            item(Part::Disk, false),
            item(Part::GpuMemory, true),
            item(Part::Tpm, true),
        ];
        assert_eq!(gap(items).as_deref(), Some("erasure.disk-not-erased"));
    }

    #[test]
    fn a_record_reads_back() {
        let record = record(vec![item(Part::Disk, true), item(Part::Tpm, false)]);
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["items"][0]["result"], "erased");
        assert_eq!(serde_json::from_value::<Erasure>(json).unwrap(), record);
    }
}
