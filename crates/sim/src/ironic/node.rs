//! One node: what is kept of it, and how it is shown.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::clock::Clock;
use super::hook::ConfigDrive;
use super::job::Job;
use super::states::{Power, ProvisionState};
use super::version::Microversion;

/// What clients may set, with its value in a node that says nothing, in Ironic's order.
const SETTABLE: &[(&str, Blank)] = &[
    ("automated_clean", Blank::Null),
    ("bios_interface", Blank::Null),
    ("boot_interface", Blank::Null),
    ("boot_mode", Blank::Null),
    ("chassis_uuid", Blank::Null),
    ("conductor_group", Blank::Text),
    ("console_interface", Blank::Null),
    ("deploy_interface", Blank::Null),
    ("description", Blank::Null),
    ("disable_power_off", Blank::False),
    ("driver", Blank::Null),
    ("driver_info", Blank::Object),
    ("extra", Blank::Object),
    ("firmware_interface", Blank::Null),
    ("inspect_interface", Blank::Null),
    ("instance_info", Blank::Object),
    ("instance_name", Blank::Null),
    ("instance_uuid", Blank::Null),
    ("lessee", Blank::Null),
    ("maintenance", Blank::False),
    ("management_interface", Blank::Null),
    ("name", Blank::Null),
    ("network_data", Blank::Object),
    ("network_interface", Blank::Null),
    ("owner", Blank::Null),
    ("parent_node", Blank::Null),
    ("power_interface", Blank::Null),
    ("properties", Blank::Object),
    ("protected", Blank::False),
    ("protected_reason", Blank::Null),
    ("raid_interface", Blank::Null),
    ("rescue_interface", Blank::Null),
    ("resource_class", Blank::Null),
    ("retired", Blank::False),
    ("retired_reason", Blank::Null),
    ("secure_boot", Blank::Null),
    ("shard", Blank::Null),
    ("storage_interface", Blank::Null),
    ("vendor_interface", Blank::Null),
];

/// Every field that a node shows, in Ironic's order, with the first microversion that has it.
const FIELDS: &[(&str, u16)] = &[
    ("uuid", 1),
    ("created_at", 1),
    ("updated_at", 1),
    ("automated_clean", 47),
    ("bios_interface", 40),
    ("boot_interface", 31),
    ("boot_mode", 75),
    ("clean_step", 7),
    ("conductor_group", 46),
    ("console_enabled", 1),
    ("console_interface", 31),
    ("disable_power_off", 95),
    ("deploy_interface", 31),
    ("deploy_step", 44),
    ("description", 51),
    ("driver", 1),
    ("driver_info", 1),
    ("driver_internal_info", 3),
    ("extra", 1),
    ("fault", 42),
    ("firmware_interface", 86),
    ("health", 109),
    ("inspection_finished_at", 6),
    ("inspection_started_at", 6),
    ("inspect_interface", 31),
    ("instance_info", 1),
    ("instance_name", 104),
    ("instance_uuid", 1),
    ("last_error", 1),
    ("lessee", 65),
    ("maintenance", 1),
    ("maintenance_reason", 1),
    ("management_interface", 31),
    ("name", 5),
    ("network_data", 66),
    ("network_interface", 20),
    ("owner", 50),
    ("parent_node", 83),
    ("power_interface", 31),
    ("power_state", 1),
    ("properties", 1),
    ("protected", 48),
    ("protected_reason", 48),
    ("provision_state", 1),
    ("provision_updated_at", 1),
    ("raid_config", 12),
    ("raid_interface", 31),
    ("rescue_interface", 38),
    ("reservation", 1),
    ("resource_class", 21),
    ("retired", 61),
    ("retired_reason", 61),
    ("secure_boot", 75),
    ("service_step", 87),
    ("shard", 82),
    ("storage_interface", 33),
    ("target_power_state", 1),
    ("target_provision_state", 1),
    ("target_raid_config", 12),
    ("traits", 37),
    ("vendor_interface", 31),
    ("conductor", 49),
    ("allocation_uuid", 52),
    ("chassis_uuid", 1),
];

/// The list views' fields where a request names none.
pub(crate) const BRIEF: &[&str] =
    &["instance_uuid", "maintenance", "power_state", "provision_state", "uuid", "name"];

/// History entries that a node keeps (`node_history_max_entries`).
const HISTORY_LIMIT: usize = 300;

#[derive(Clone, Copy)]
enum Blank {
    Null,
    False,
    Text,
    Object,
}

impl Blank {
    fn value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::False => Value::Bool(false),
            Self::Text => Value::from(""),
            Self::Object => json!({}),
        }
    }
}

/// The first microversion that shows a field.
pub(crate) fn first_version(field: &str) -> Option<Microversion> {
    FIELDS.iter().find(|(name, _)| *name == field).map(|(_, version)| Microversion(*version))
}

/// Whether `?fields=` may name it: times of the record itself it may not.
pub(crate) fn is_selectable(field: &str) -> bool {
    !matches!(field, "created_at" | "updated_at") && (field == "links" || first_version(field).is_some())
}

/// The value of a settable field in a node that says nothing; `None` for fields that clients cannot set.
pub(crate) fn blank(field: &str) -> Option<Value> {
    SETTABLE.iter().find(|(name, _)| *name == field).map(|(_, blank)| blank.value())
}

/// The fields that clients may set.
pub(crate) fn settable() -> impl Iterator<Item = &'static str> {
    SETTABLE.iter().map(|(name, _)| *name)
}

/// One entry of a node's history.
pub(crate) struct HistoryEntry {
    pub(crate) number: u64,
    pub(crate) at: Duration,
    pub(crate) severity: &'static str,
    pub(crate) event: String,
}

/// A node.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) uuid: String,
    /// What clients set: complete, by field.
    pub(crate) record: Map<String, Value>,
    pub(crate) state: ProvisionState,
    pub(crate) target: Option<ProvisionState>,
    /// What Ironic believes.
    pub(crate) power: Option<Power>,
    pub(crate) target_power: Option<Power>,
    /// What is true.
    pub(crate) hardware_power: Power,
    pub(crate) last_error: Option<String>,
    pub(crate) maintenance_reason: Option<String>,
    pub(crate) fault: Option<String>,
    /// Who holds the lock although nothing is under way here.
    pub(crate) held_by: Option<String>,
    pub(crate) job: Option<Job>,
    pub(crate) created: Duration,
    pub(crate) updated: Option<Duration>,
    pub(crate) provision_updated: Option<Duration>,
    pub(crate) inspection_started: Option<Duration>,
    pub(crate) inspection_finished: Option<Duration>,
    pub(crate) traits: BTreeSet<String>,
    pub(crate) boot_device: (String, bool),
    /// The image that a client has attached as virtual media.
    pub(crate) attached_image: Option<String>,
    pub(crate) inventory: Option<Value>,
    pub(crate) history: VecDeque<HistoryEntry>,
    pub(crate) history_count: u64,
    pub(crate) ports: Vec<u64>,
    pub(crate) config_drive: Option<ConfigDrive>,
    /// Every state that it has been in, in order.
    pub(crate) seen: Vec<ProvisionState>,
}

/// Shows no record: it holds passwords.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("uuid", &self.uuid).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Node {
    /// A node as `POST` makes it; `given` is checked already.
    pub(crate) fn new(id: u64, uuid: String, given: Map<String, Value>, now: Duration) -> Self {
        let mut record: Map<String, Value> =
            SETTABLE.iter().map(|(name, blank)| ((*name).to_owned(), blank.value())).collect();
        record.extend(given.into_iter().filter(|(_, value)| !value.is_null()));
        Self {
            id,
            uuid,
            record,
            state: ProvisionState::Enroll,
            target: None,
            power: None,
            target_power: None,
            hardware_power: Power::Off,
            last_error: None,
            maintenance_reason: None,
            fault: None,
            held_by: None,
            job: None,
            created: now,
            updated: None,
            provision_updated: None,
            inspection_started: None,
            inspection_finished: None,
            traits: BTreeSet::new(),
            boot_device: ("pxe".to_owned(), false),
            attached_image: None,
            inventory: None,
            history: VecDeque::new(),
            history_count: 0,
            ports: Vec::new(),
            config_drive: None,
            seen: vec![ProvisionState::Enroll],
        }
    }

    /// A text of the record.
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        self.record.get(field).and_then(Value::as_str)
    }

    /// The name, which many nodes lack.
    pub(crate) fn name(&self) -> Option<&str> {
        self.text("name")
    }

    /// A flag of the record; null is false.
    pub(crate) fn flag(&self, field: &str) -> bool {
        self.record.get(field).and_then(Value::as_bool).unwrap_or(false)
    }

    /// An object of the record.
    pub(crate) fn object(&self, field: &str) -> Option<&Map<String, Value>> {
        self.record.get(field).and_then(Value::as_object)
    }

    /// Whether this interface is the one that does nothing, of the hardware type for tests.
    pub(crate) fn is_fake(&self, kind: &str) -> bool {
        self.interface(kind) == "fake"
    }

    /// The interface of this kind.
    pub(crate) fn interface(&self, kind: &str) -> &str {
        self.text(&format!("{kind}_interface")).unwrap_or_default()
    }

    /// Who holds the lock: a conductor while it works, or whom a test has set.
    pub(crate) fn reservation<'a>(&'a self, conductor: &'a str) -> Option<&'a str> {
        let busy = (self.job.is_some() && self.state.is_locked()) || self.target_power.is_some();
        self.held_by.as_deref().or_else(|| busy.then_some(conductor))
    }

    /// Moves to a state.
    pub(crate) fn enter(&mut self, state: ProvisionState, now: Duration) {
        self.state = state;
        self.provision_updated = Some(now);
        self.updated = Some(now);
        self.seen.push(state);
    }

    /// Keeps an event; the oldest goes when there are too many.
    pub(crate) fn remember(&mut self, severity: &'static str, event: String, now: Duration) {
        self.history_count += 1;
        if self.history.len() == HISTORY_LIMIT {
            self.history.pop_front();
        }
        self.history.push_back(HistoryEntry { number: self.history_count, at: now, severity, event });
    }

    /// Puts the node into maintenance, or takes it out, which also ends its fault.
    pub(crate) fn set_maintenance(&mut self, on: bool, reason: Option<String>) {
        self.record.insert("maintenance".to_owned(), Value::Bool(on));
        self.maintenance_reason = reason;
        if !on {
            self.fault = None;
        }
    }
}

/// How nodes are shown to one request.
pub(crate) struct View<'a> {
    pub(crate) clock: &'a Clock,
    pub(crate) conductor: &'a str,
    /// Where the endpoint is: `http://127.0.0.1:port`.
    pub(crate) base: &'a str,
    pub(crate) version: Microversion,
}

impl View<'_> {
    /// All fields of this microversion, with links.
    pub(crate) fn whole(&self, node: &Node) -> Value {
        let mut shown = Map::new();
        for (field, _) in FIELDS.iter().filter(|(_, since)| self.version.0 >= *since) {
            // Links stand before these three, as in the real answers.
            if matches!(*field, "conductor" | "allocation_uuid" | "chassis_uuid") {
                shown.entry("links").or_insert_with(|| self.links("nodes", &node.uuid));
            }
            shown.insert((*field).to_owned(), self.field(node, field));
        }
        for (kind, since) in [("ports", 1), ("states", 14), ("portgroups", 24), ("volume", 32)] {
            if self.version.0 >= since {
                shown.insert(kind.to_owned(), self.links("nodes", &format!("{}/{kind}", node.uuid)));
            }
        }
        Value::Object(shown)
    }

    /// These fields, with links.
    pub(crate) fn some<S: AsRef<str>>(&self, node: &Node, fields: &[S]) -> Value {
        let mut shown: Map<String, Value> = FIELDS
            .iter()
            .filter(|(name, since)| {
                self.version.0 >= *since && fields.iter().any(|field| field.as_ref() == *name)
            })
            .map(|(name, _)| ((*name).to_owned(), self.field(node, name)))
            .collect();
        shown.insert("links".to_owned(), self.links("nodes", &node.uuid));
        Value::Object(shown)
    }

    /// What `states` shows.
    pub(crate) fn states(&self, node: &Node) -> Value {
        const STATES: &[&str] = &[
            "console_enabled",
            "last_error",
            "power_state",
            "provision_state",
            "target_power_state",
            "target_provision_state",
            "provision_updated_at",
            "raid_config",
            "target_raid_config",
            "boot_mode",
            "secure_boot",
        ];
        STATES
            .iter()
            .filter(|field| first_version(field).is_some_and(|since| self.version >= since))
            .map(|field| ((*field).to_owned(), self.field(node, field)))
            .collect::<Map<_, _>>()
            .into()
    }

    /// Links to a resource, as `self` and without the version.
    pub(crate) fn links(&self, collection: &str, path: &str) -> Value {
        let base = self.base;
        json!([
            {"href": format!("{base}/v1/{collection}/{path}"), "rel": "self"},
            {"href": format!("{base}/{collection}/{path}"), "rel": "bookmark"},
        ])
    }

    /// A time, or null.
    pub(crate) fn time(&self, at: Option<Duration>) -> Value {
        at.map_or(Value::Null, |at| Value::from(self.clock.write(at)))
    }

    /// One field.
    pub(crate) fn field(&self, node: &Node, field: &str) -> Value {
        match field {
            "uuid" => Value::from(node.uuid.as_str()),
            "created_at" => self.time(Some(node.created)),
            "updated_at" => self.time(node.updated),
            "provision_updated_at" => self.time(node.provision_updated),
            "inspection_started_at" => self.time(node.inspection_started),
            "inspection_finished_at" => self.time(node.inspection_finished),
            "clean_step" | "deploy_step" | "service_step" => node.job.as_ref().map_or_else(
                || json!({}),
                |job| if job.step_field() == field { job.step() } else { json!({}) },
            ),
            "console_enabled" => Value::Bool(false),
            "driver_info" => masked(node.record.get(field)),
            "instance_info" => {
                let mut info = masked(node.record.get(field));
                if node.config_drive.is_some() {
                    info["configdrive"] = Value::from(MASK);
                }
                if info.get("image_url").is_some() {
                    info["image_url"] = Value::from(MASK);
                }
                info
            }
            "driver_internal_info" => node.job.as_ref().map_or_else(|| json!({}), Job::internal_info),
            "raid_config" | "target_raid_config" => json!({}),
            "fault" => text(node.fault.as_deref()),
            "last_error" => text(node.last_error.as_deref()),
            "maintenance_reason" => text(node.maintenance_reason.as_deref()),
            "power_state" => text(node.power.map(Power::as_str)),
            "target_power_state" => text(node.target_power.map(Power::as_str)),
            "provision_state" => Value::from(self.state(node)),
            "target_provision_state" => text(node.target.map(ProvisionState::as_str)),
            "reservation" => text(node.reservation(self.conductor)),
            "traits" => node.traits.iter().map(String::as_str).collect::<Vec<_>>().into(),
            "conductor" => Value::from(self.conductor),
            "health" | "allocation_uuid" => Value::Null,
            other => node.record.get(other).cloned().unwrap_or_default(),
        }
    }

    /// Before 1.39 there was no `inspect wait`.
    fn state(&self, node: &Node) -> &'static str {
        match node.state {
            ProvisionState::InspectWait if self.version.0 < 39 => ProvisionState::Inspecting.as_str(),
            state => state.as_str(),
        }
    }
}

/// What stands for a secret.
const MASK: &str = "******";

fn text(value: Option<&str>) -> Value {
    value.map_or(Value::Null, Value::from)
}

/// The same with secrets masked, as Ironic shows driver_info.
pub(crate) fn masked(value: Option<&Value>) -> Value {
    const SECRET: &[&str] =
        &["password", "secret", "token", "passphrase", "admin_pass", "adminpass", "new_pass", "sys_pswd"];
    match value {
        Some(Value::Object(map)) => map
            .iter()
            .map(|(key, value)| {
                let lower = key.to_ascii_lowercase();
                let secret = !value.is_object() && SECRET.iter().any(|word| lower.contains(word));
                (key.clone(), if secret { Value::from(MASK) } else { masked(Some(value)) })
            })
            .collect::<Map<_, _>>()
            .into(),
        Some(other) => other.clone(),
        None => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(version: u16) -> Value {
        let given = json!({"driver": "redfish", "name": "n1", "driver_info": {"redfish_password": "pw", "redfish_address": "a"}});
        let node = Node::new(1, "u".to_owned(), given.as_object().unwrap().clone(), Duration::ZERO);
        let clock = Clock::stepped();
        View { clock: &clock, conductor: "c", base: "http://h", version: Microversion(version) }.whole(&node)
    }

    #[test]
    fn passwords_are_shown_as_stars() {
        assert_eq!(shown(115)["driver_info"], json!({"redfish_password": "******", "redfish_address": "a"}));
    }

    #[test]
    fn old_microversions_show_fewer_fields() {
        assert_eq!(shown(4).get("name"), None);
        assert_eq!(shown(5)["name"], "n1");
        assert!(shown(1).as_object().unwrap().len() < shown(115).as_object().unwrap().len());
    }

    #[test]
    fn every_settable_field_is_shown_by_the_newest_version() {
        for (field, _) in SETTABLE {
            assert!(first_version(field).is_some(), "{field}");
        }
    }

    #[test]
    fn the_history_forgets_the_oldest() {
        let mut node = Node::new(1, "u".to_owned(), Map::new(), Duration::ZERO);
        for n in 0..HISTORY_LIMIT + 5 {
            node.remember("INFO", n.to_string(), Duration::ZERO);
        }
        assert_eq!(node.history.len(), HISTORY_LIMIT);
        assert_eq!(node.history[0].event, "5");
    }
}
