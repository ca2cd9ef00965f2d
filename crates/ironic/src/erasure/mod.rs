//! What cleaning erased. Ironic wipes the list of steps when the last has run, and its history may name them or not (`told`).
//! So a [`Watch`] notes the steps while they run, and [`record`] says at the end what they erased of each disk. What was
//! neither seen nor told is not claimed.

mod told;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::history::HistoryEvent;
use crate::inventory::{Disk, Inventory};
use crate::node::{Node, ProvisionState as State, Step};

/// What was seen of one cleaning. The caller keeps it between polls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watch {
    /// The steps that run, in order.
    pub steps: Vec<Step>,
    /// The position of the furthest step seen running.
    pub position: Option<usize>,
    /// Whether somebody asked for the steps (target `manageable`), rather than Ironic's configuration.
    pub manual: bool,
    /// How the agent is told to erase.
    pub settings: Settings,
    /// How it ended, or not yet.
    pub stage: Stage,
    /// When the watch began, by Ironic's clock: what its history tells from then on counts too.
    pub since: Option<Timestamp>,
}

/// Where a cleaning stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Not seen.
    #[default]
    Unseen,
    /// It runs.
    Running,
    /// All its steps ended well.
    Done,
    /// It ended otherwise.
    Failed(String),
}

/// How the agent is told to erase (`driver_internal_info.agent_*`); `None` where Ironic does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Passes of random data.
    pub overwrites: Option<u64>,
    /// A last pass of zeros.
    pub zeros: Option<bool>,
    /// Use the ATA command where a disk has it.
    pub ata_secure_erase: Option<bool>,
    /// Use the NVMe command where a disk has it.
    pub nvme_secure_erase: Option<bool>,
}

impl Watch {
    /// Notes what a node shows. Call it with every observation from before a cleaning begins to its end.
    pub fn note(&mut self, node: &Node) {
        if self.since.is_none() {
            self.since = node.provision_updated_at.as_deref().and_then(|at| at.parse().ok());
        }
        self.note_settings(node);
        match &node.provision_state {
            State::Cleaning | State::CleanWait | State::CleanHold => self.note_running(node),
            State::CleanFailed => {
                let reason = node.last_error.clone().unwrap_or_else(|| "Ironic tells no reason".to_owned());
                self.end(Stage::Failed(reason));
            }
            State::Available if !self.manual => self.end(Stage::Done),
            State::Manageable if self.manual && node.last_error.is_none() => self.end(Stage::Done),
            State::Manageable | State::Available | State::Enroll => {
                self.end(Stage::Failed(format!("the node went to `{}` instead", node.provision_state)));
            }
            _ => {}
        }
    }

    fn note_running(&mut self, node: &Node) {
        if self.stage != Stage::Running {
            *self = Self {
                stage: Stage::Running,
                since: self.since,
                settings: self.settings.clone(),
                ..Self::default()
            };
        }
        self.manual = node.target_provision_state == Some(State::Manageable);
        let internal = &node.driver_internal_info;
        // The agent's own steps are added when it has told them, so the list grows once.
        let steps = steps_of(internal.get("clean_steps"));
        if !steps.is_empty() {
            self.steps = steps;
        }
        let position =
            internal.get("clean_step_index").and_then(Value::as_u64).and_then(|at| usize::try_from(at).ok());
        self.position = self.position.max(position);
    }

    fn note_settings(&mut self, node: &Node) {
        let internal = &node.driver_internal_info;
        let flag = |key: &str| internal.get(key).and_then(Value::as_bool);
        let settings = Settings {
            overwrites: internal.get("agent_erase_devices_iterations").and_then(Value::as_u64),
            zeros: flag("agent_erase_devices_zeroize"),
            ata_secure_erase: flag("agent_enable_ata_secure_erase"),
            nvme_secure_erase: flag("agent_enable_nvme_secure_erase"),
        };
        if settings != Settings::default() {
            self.settings = settings;
        }
    }

    fn end(&mut self, stage: Stage) {
        if self.stage == Stage::Running {
            self.stage = stage;
        }
    }
}

/// What was erased of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Erasure {
    /// Each disk of the inventory.
    pub disks: Vec<DiskErasure>,
    /// Why the list of disks is not whole, if it is not.
    pub disks_unknown: Option<String>,
    /// The GPUs' memory.
    pub gpu_memory: Outcome,
    /// The TPM.
    pub tpm: Outcome,
    /// The steps that ran, `interface.step`, in order.
    pub steps: Vec<String>,
    /// Errors of Ironic's history since the cleaning began.
    pub errors: Vec<String>,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskErasure {
    /// Which, as inspected.
    pub disk: Disk,
    /// Whether it was erased.
    pub outcome: Outcome,
}

/// Whether something was erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "result")]
pub enum Outcome {
    /// It was.
    Erased {
        /// By which step, and how far it is known how.
        method: String,
    },
    /// It was not, or that is not known.
    NotErased {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    fn not(reason: impl Into<String>) -> Self {
        Self::NotErased { reason: reason.into() }
    }

    /// Whether it was erased.
    pub fn is_erased(&self) -> bool {
        matches!(self, Self::Erased { .. })
    }
}

impl Erasure {
    /// Whether every disk is known and was erased.
    pub fn disks_erased(&self) -> bool {
        self.disks_unknown.is_none() && self.disks.iter().all(|disk| disk.outcome.is_erased())
    }
}

/// What cleaning erased, as far as it was seen, or is told by the node's history (oldest first; what was before the watch began
/// does not count).
pub fn record(watch: &Watch, inventory: Option<&Inventory>, history: &[HistoryEvent]) -> Erasure {
    let disks = inventory.map(|inventory| inventory.disks.as_slice()).unwrap_or_default();
    let told = watch.since.map(|since| told::told(history, since)).unwrap_or_default();
    let ended = match &watch.stage {
        _ if told.completed => None,
        Stage::Done => None,
        Stage::Unseen => Some("no cleaning was seen".to_owned()),
        Stage::Running => Some("cleaning has not ended".to_owned()),
        Stage::Failed(reason) => Some(format!("cleaning failed: {reason}")),
    };
    let mut steps = if watch.stage == Stage::Done { watch.steps.clone() } else { Vec::new() };
    for step in told.steps {
        if !steps.iter().any(|known| (&known.interface, &known.step) == (&step.interface, &step.step)) {
            steps.push(step);
        }
    }
    let of_disk = || ended.clone().map_or_else(|| disk_outcome(&steps, &watch.settings), Outcome::not);
    let of_part = |word: &str| {
        let step = steps.iter().find(|step| step.step.to_ascii_lowercase().contains(word));
        match (&ended, step) {
            (Some(reason), _) => Outcome::not(reason.clone()),
            (None, Some(step)) => Outcome::Erased { method: label(step) },
            (None, None) => Outcome::not("no clean step for it ran"),
        }
    };
    let since =
        |event: &&HistoryEvent| watch.since.is_none_or(|since| event.created_at.is_none_or(|at| at >= since));
    Erasure {
        disks: disks.iter().map(|disk| DiskErasure { disk: disk.clone(), outcome: of_disk() }).collect(),
        disks_unknown: match inventory {
            None => Some("the machine was not inspected".to_owned()),
            Some(_) if disks.is_empty() => Some("the inspection found no disk".to_owned()),
            Some(_) => None,
        },
        gpu_memory: of_part("gpu"),
        tpm: of_part("tpm"),
        steps: steps.iter().map(label).collect(),
        errors: history
            .iter()
            .filter(since)
            .filter(|event| event.is_error())
            .map(|event| event.event.clone())
            .collect(),
    }
}

/// What the agent's disk steps do (ironic-python-agent, hardware.py): `erase_devices` uses the disk's own command where it
/// is enabled and there, and overwrites otherwise; it fails where a disk cannot be erased. The others may leave data.
fn disk_outcome(steps: &[Step], settings: &Settings) -> Outcome {
    let ran = |name: &str| steps.iter().find(|step| step.step == name);
    if let Some(step) = ran("erase_devices") {
        if settings.overwrites == Some(0) && settings.zeros == Some(false) {
            return Outcome::not(
                "overwriting is switched off, and which disks have a secure erase is not told",
            );
        }
        return Outcome::Erased { method: format!("{}{}", label(step), settings.told()) };
    }
    if ran("erase_devices_express").is_some() {
        return Outcome::not(
            "whether this disk was erased or only its metadata is not told (erase_devices_express)",
        );
    }
    if ran("erase_devices_metadata").is_some() {
        return Outcome::not("only metadata was erased (erase_devices_metadata)");
    }
    Outcome::not("no step that erases disks ran")
}

impl Settings {
    /// ` (NVMe secure erase true, overwrites 1)`, as far as they are known.
    fn told(&self) -> String {
        let setting = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
        let all: Vec<String> = [
            setting("ATA secure erase", self.ata_secure_erase.map(|on| on.to_string())),
            setting("NVMe secure erase", self.nvme_secure_erase.map(|on| on.to_string())),
            setting("overwrites", self.overwrites.map(|passes| passes.to_string())),
            setting("zeros", self.zeros.map(|on| on.to_string())),
        ]
        .into_iter()
        .flatten()
        .collect();
        if all.is_empty() { String::new() } else { format!(" ({})", all.join(", ")) }
    }
}

fn label(step: &Step) -> String {
    if step.interface.is_empty() { step.step.clone() } else { format!("{}.{}", step.interface, step.step) }
}

/// The steps to ask for so that all disks are erased, whatever Ironic's configuration says.
pub fn erase_disks() -> Vec<Step> {
    vec![Step::new("deploy", "erase_devices")]
}

/// The clean steps that a node offers: those of its agent are known while the agent runs only.
pub fn offered(node: &Node) -> Vec<Step> {
    let internal = &node.driver_internal_info;
    let mut steps = match internal.get("agent_cached_clean_steps") {
        // By interface, or by the agent's hardware manager.
        Some(Value::Object(groups)) => groups.values().flat_map(|group| steps_of(Some(group))).collect(),
        other => steps_of(other),
    };
    for step in steps_of(internal.get("clean_steps")) {
        if !steps.iter().any(|known| (&known.interface, &known.step) == (&step.interface, &step.step)) {
            steps.push(step);
        }
    }
    steps
}

fn steps_of(value: Option<&Value>) -> Vec<Step> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|step| serde_json::from_value(step.clone()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn node(state: &str, target: Option<&str>, internal: &Value) -> Node {
        serde_json::from_value(json!({
            "uuid": Uuid::nil(), "provision_state": state, "target_provision_state": target,
            "driver_internal_info": internal,
        }))
        .unwrap()
    }

    fn cleaning(step: &str) -> Node {
        let steps = json!({
            "clean_steps": [{"interface": "deploy", "step": step, "priority": 10}], "clean_step_index": 0,
            "agent_erase_devices_iterations": 1, "agent_erase_devices_zeroize": true,
        });
        node("clean wait", Some("available"), &steps)
    }

    fn inventory() -> Inventory {
        serde_json::from_value(json!({"disks": [{"name": "/dev/sda", "serial": "S1"}]})).unwrap()
    }

    fn seen(nodes: &[Node]) -> Erasure {
        let mut watch = Watch::default();
        for node in nodes {
            watch.note(node);
        }
        // Kept between polls by the caller.
        let kept: Watch = serde_json::from_value(json!(watch)).unwrap();
        record(&kept, Some(&inventory()), &[])
    }

    fn available() -> Node {
        node("available", None, &json!({"clean_steps": null}))
    }

    #[test]
    fn a_disk_is_erased_if_the_step_for_it_was_seen_and_the_node_became_available() {
        let erasure = seen(&[cleaning("erase_devices"), available()]);
        assert!(erasure.disks_erased(), "{erasure:?}");
        assert_eq!(erasure.disks[0].disk.serial.as_deref(), Some("S1"));
        assert_eq!(erasure.steps, ["deploy.erase_devices"]);
    }

    #[test]
    fn what_was_not_seen_to_its_end_is_not_erased() {
        let failed = node("clean failed", None, &json!({}));
        let by_hand = node("manageable", None, &json!({}));
        for nodes in [
            vec![],
            vec![available()],
            vec![cleaning("erase_devices")],
            vec![cleaning("erase_devices"), failed, available()],
            vec![cleaning("erase_devices"), by_hand, available()],
        ] {
            let erasure = seen(&nodes);
            assert!(!erasure.disks_erased(), "{erasure:?}");
        }
    }

    #[test]
    fn metadata_and_express_erasure_are_no_erasure() {
        for step in ["erase_devices_metadata", "erase_devices_express", "upgrade_firmware"] {
            let erasure = seen(&[cleaning(step), available()]);
            assert!(!erasure.disks_erased(), "{erasure:?}");
        }
    }

    #[test]
    fn overwriting_switched_off_is_no_erasure() {
        let mut off = cleaning("erase_devices");
        off.driver_internal_info.0.insert("agent_erase_devices_iterations".to_owned(), json!(0));
        off.driver_internal_info.0.insert("agent_erase_devices_zeroize".to_owned(), json!(false));
        assert!(!seen(&[off, available()]).disks_erased());
    }

    #[test]
    fn a_second_cleaning_is_told_apart_from_the_first() {
        let erasure =
            seen(&[cleaning("erase_devices"), available(), cleaning("erase_devices_metadata"), available()]);
        assert!(!erasure.disks_erased());
    }

    #[test]
    fn cleaning_that_was_asked_for_ends_in_manageable() {
        let mut manual = cleaning("erase_devices");
        manual.target_provision_state = Some(State::Manageable);
        assert!(seen(&[manual, node("manageable", None, &json!({}))]).disks_erased());
    }

    #[test]
    fn the_history_tells_of_a_cleaning_that_no_poll_saw_and_of_none_before() {
        let mut watch = Watch::default();
        let mut active = node("active", None, &json!({}));
        active.provision_updated_at = Some("2026-01-01T00:00:10+00:00".to_owned());
        watch.note(&active);
        watch.note(&available());
        let told = |second: u8, text: &str| {
            serde_json::from_value::<HistoryEvent>(json!({
                "uuid": "", "created_at": format!("2026-01-01T00:00:{second:02}+00:00"), "severity": "INFO", "event": text,
            }))
            .unwrap()
        };
        let start =
            "Starting automated cleaning with steps=[{'interface': 'deploy', 'step': 'erase_devices'}]";
        let end = "Automated Cleaning completed successfully with steps=[]";
        let erased = |first: u8| {
            record(&watch, Some(&inventory()), &[told(first, start), told(first + 1, end)]).disks_erased()
        };
        assert!(erased(11) && !erased(1));
    }

    #[test]
    fn without_an_inventory_no_disk_is_known() {
        let mut watch = Watch::default();
        watch.note(&cleaning("erase_devices"));
        watch.note(&available());
        assert!(!record(&watch, None, &[]).disks_erased());
        assert!(!record(&watch, Some(&Inventory::default()), &[]).disks_erased());
    }

    #[test]
    fn gpus_and_tpm_have_steps_of_their_own_or_are_not_erased() {
        let erasure = seen(&[cleaning("erase_gpu_memory"), available()]);
        assert!(erasure.gpu_memory.is_erased() && !erasure.tpm.is_erased());
    }

    #[test]
    fn the_steps_that_the_agent_told_are_offered() {
        let told = json!({"agent_cached_clean_steps": {"deploy": [{"step": "erase_devices", "interface": "deploy"}]}});
        assert_eq!(offered(&node("clean wait", None, &told)), erase_disks());
    }
}
