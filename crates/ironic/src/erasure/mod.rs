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

/// What was seen of the cleanings between two uses. The caller keeps it between polls, and begins anew with each use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watch {
    /// The steps that run, in order.
    pub steps: Vec<Step>,
    /// The steps of the cleanings that ended well, in order.
    pub done: Vec<Step>,
    /// The clean steps that the node's agent offers; `None` while none was seen running.
    pub offered: Option<Vec<Step>>,
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
            // Whatever was erased before may be written anew.
            State::Deploying | State::DeployWait => self.done.clear(),
            _ => {}
        }
    }

    /// What was done before this counts no more: there is something in the machine that was not there then.
    pub fn begin_anew(&mut self, node: &Node) {
        *self = Self {
            settings: std::mem::take(&mut self.settings),
            offered: self.offered.take(),
            ..Self::default()
        };
        self.note(node);
    }

    fn note_running(&mut self, node: &Node) {
        if self.stage != Stage::Running {
            *self = Self {
                stage: Stage::Running,
                steps: Vec::new(),
                position: None,
                manual: false,
                ..std::mem::take(self)
            };
        }
        self.manual = node.target_provision_state == Some(State::Manageable);
        let internal = &node.driver_internal_info;
        // The agent's own steps are added when it has told them, so the list grows once.
        let steps = steps_of(internal.get("clean_steps"));
        if !steps.is_empty() {
            self.steps = steps;
        }
        if internal.get(AGENT_STEPS).is_some() {
            self.offered = Some(agent_steps(node));
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
        if self.stage != Stage::Running {
            return;
        }
        if stage == Stage::Done {
            add_unknown(&mut self.done, std::mem::take(&mut self.steps));
        }
        self.stage = stage;
    }
}

/// What was erased of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Erasure {
    /// Each disk of the inventory.
    pub disks: Vec<DiskErasure>,
    /// Why no disk is known, where nobody has looked.
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
    /// Whether there are disks and every one was erased.
    pub fn disks_erased(&self) -> bool {
        !self.disks.is_empty() && !self.leaves_a_disk()
    }

    /// Whether a disk was not erased, or there may be one that nobody has seen.
    pub fn leaves_a_disk(&self) -> bool {
        self.disks_unknown.is_some() || self.disks.iter().any(|disk| !disk.outcome.is_erased())
    }

    /// The clean steps to ask for so that what this leaves is erased too: disks always, GPU memory and TPM where the agent has
    /// a step for them. Where what it has was not seen, it is made to run, so that it is.
    pub fn steps_to_ask_for(&self, watch: &Watch) -> Vec<Step> {
        let mut steps = if self.leaves_a_disk() { erase_disks() } else { Vec::new() };
        let parts = [(&self.gpu_memory, GPU), (&self.tpm, TPM)];
        let left = parts.into_iter().filter(|(outcome, _)| !outcome.is_erased()).map(|(_, word)| word);
        match &watch.offered {
            Some(offered) => steps.extend(left.filter_map(|word| step_for(word, offered)).cloned()),
            None if steps.is_empty() && left.count() > 0 => steps.push(Step::new("deploy", METADATA)),
            None => {}
        }
        steps
    }
}

/// What cleaning erased, as far as it was seen, or is told by the node's history (oldest first; what was before the watch began
/// does not count).
pub fn record(watch: &Watch, inventory: Option<&Inventory>, history: &[HistoryEvent]) -> Erasure {
    let disks = inventory.map(|inventory| inventory.disks.as_slice()).unwrap_or_default();
    let told = watch.since.map(|since| told::told(history, since)).unwrap_or_default();
    let unfinished = match &watch.stage {
        _ if told.completed => None,
        Stage::Done => None,
        Stage::Unseen => Some("no cleaning was seen".to_owned()),
        Stage::Running => Some("cleaning has not ended".to_owned()),
        Stage::Failed(reason) => Some(format!("cleaning failed: {reason}")),
    };
    let mut steps = watch.done.clone();
    add_unknown(&mut steps, told.steps);
    let unless_unfinished = |outcome: Outcome| match &unfinished {
        Some(reason) if !outcome.is_erased() => Outcome::not(reason.clone()),
        _ => outcome,
    };
    let of_disk = unless_unfinished(disk_outcome(&steps, &watch.settings));
    let of_part = |word| unless_unfinished(part_outcome(word, &steps, watch.offered.as_deref()));
    let since =
        |event: &&HistoryEvent| watch.since.is_none_or(|since| event.created_at.is_none_or(|at| at >= since));
    Erasure {
        disks: disks
            .iter()
            .map(|disk| DiskErasure { disk: disk.clone(), outcome: of_disk.clone() })
            .collect(),
        disks_unknown: inventory.is_none().then(|| "the machine was not inspected".to_owned()),
        gpu_memory: of_part(GPU),
        tpm: of_part(TPM),
        steps: steps.iter().map(label).collect(),
        errors: history
            .iter()
            .filter(since)
            .filter(|event| event.is_error())
            .map(|event| event.event.clone())
            .collect(),
    }
}

/// What a step's name holds that is about GPU memory, or the TPM. Ironic knows no such steps by itself; operators' hardware
/// managers bring them, and name them as they like.
const GPU: &str = "gpu";
const TPM: &str = "tpm";

/// One of these is in the name too: a step that updates the firmware of a TPM erases nothing.
const ERASES: [&str; 6] = ["erase", "clear", "scrub", "wipe", "sanitize", "zero"];

fn step_for<'a>(word: &str, steps: &'a [Step]) -> Option<&'a Step> {
    steps.iter().find(|step| {
        let name = step.step.to_ascii_lowercase();
        name.contains(word) && ERASES.iter().any(|erases| name.contains(erases))
    })
}

fn part_outcome(word: &str, ran: &[Step], offered: Option<&[Step]>) -> Outcome {
    match (step_for(word, ran), offered) {
        (Some(step), _) => Outcome::Erased { method: label(step) },
        (None, None) => Outcome::not("no clean step for it ran, and which the agent offers was not seen"),
        (None, Some(offered)) => match step_for(word, offered) {
            None => Outcome::not("the agent offers no clean step for it"),
            Some(step) => Outcome::not(format!("the clean step {} was not seen to run", label(step))),
        },
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
    if ran(METADATA).is_some() {
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

/// Wipes partition tables. Every agent has it, and it is quick.
const METADATA: &str = "erase_devices_metadata";

/// Where Ironic keeps what the agent told: from its first heartbeat in a cleaning to the end of that, and no longer
/// (`refresh_steps` in ironic/drivers/modules/agent_base.py).
const AGENT_STEPS: &str = "agent_cached_clean_steps";

/// The clean steps of the node's agent, whatever their priority.
fn agent_steps(node: &Node) -> Vec<Step> {
    match node.driver_internal_info.get(AGENT_STEPS) {
        // By interface, or by the agent's hardware manager.
        Some(Value::Object(groups)) => groups.values().flat_map(|group| steps_of(Some(group))).collect(),
        other => steps_of(other),
    }
}

fn add_unknown(steps: &mut Vec<Step>, more: Vec<Step>) {
    for step in more {
        if !steps.iter().any(|known| (&known.interface, &known.step) == (&step.interface, &step.step)) {
            steps.push(step);
        }
    }
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
    fn what_each_of_two_cleanings_has_erased_counts_also_where_a_third_fails() {
        let failed = node("clean failed", None, &json!({}));
        let erasure = seen(&[
            cleaning("erase_devices"),
            available(),
            cleaning("erase_gpu_memory"),
            available(),
            cleaning("clear_tpm"),
            failed,
        ]);
        assert!(erasure.disks_erased() && erasure.gpu_memory.is_erased(), "{erasure:?}");
        assert!(!erasure.tpm.is_erased(), "{erasure:?}");
    }

    #[test]
    fn what_was_erased_before_a_disk_was_put_in_counts_no_more() {
        let mut watch = Watch::default();
        watch.note(&cleaning("erase_devices"));
        watch.note(&available());
        watch.begin_anew(&available());
        assert!(!record(&watch, Some(&inventory()), &[]).disks_erased());
    }

    #[test]
    fn what_was_erased_before_a_deployment_is_not_erased_after_it() {
        let deploying = node("deploying", Some("active"), &json!({}));
        assert!(!seen(&[cleaning("erase_devices"), available(), deploying, available()]).disks_erased());
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
        let updated = seen(&[cleaning("update_gpu_firmware"), available()]);
        assert!(!updated.gpu_memory.is_erased(), "{updated:?}");
    }

    /// What is to be asked for after a cleaning by this step, by an agent that offers these.
    fn asked(step: &str, offered: Option<&[&str]>) -> Vec<String> {
        let mut running = cleaning(step);
        if let Some(offered) = offered {
            let of_deploy = |step: &&str| json!({"interface": "deploy", "step": step, "priority": 0});
            let offered = json!({ "deploy": offered.iter().map(of_deploy).collect::<Vec<_>>() });
            running.driver_internal_info.0.insert(AGENT_STEPS.to_owned(), offered);
        }
        let mut watch = Watch::default();
        watch.note(&running);
        watch.note(&available());
        let asked = record(&watch, Some(&inventory()), &[]).steps_to_ask_for(&watch);
        asked.into_iter().map(|step| step.step).collect()
    }

    #[test]
    fn what_is_left_is_asked_for_where_the_agent_has_a_step_for_it() {
        let all = ["erase_devices", "erase_gpu_memory", "clear_tpm", "update_tpm_firmware"];
        assert_eq!(asked("upgrade_firmware", Some(&all)), ["erase_devices", "erase_gpu_memory", "clear_tpm"]);
        assert_eq!(asked("erase_devices", Some(&all)), ["erase_gpu_memory", "clear_tpm"]);
        assert_eq!(asked("clear_tpm", Some(&all)), ["erase_devices", "erase_gpu_memory"]);
        assert_eq!(asked("erase_devices", Some(&["erase_devices"])), Vec::<String>::new());
    }

    #[test]
    fn an_agent_whose_steps_nobody_saw_is_made_to_run() {
        assert_eq!(asked("erase_devices", None), ["erase_devices_metadata"]);
        assert_eq!(asked("erase_devices_metadata", None), ["erase_devices"]);
    }
}
