//! A node as Ironic's API shows it. Unknown fields are left out, unknown states are kept by name, odd values are absent.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;

pub use crate::lenient::Info;
use crate::lenient::{lenient, lenient_list};

macro_rules! named_states {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// One that this client does not know, by its name.
            Other(String),
        }

        impl $name {
            /// All that this client knows.
            pub const KNOWN: &[Self] = &[$(Self::$variant),+];

            /// As the API writes it.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(name) => name,
                }
            }

            /// Reads what the API writes; never fails.
            pub fn parse(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)+
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(Self::parse(&String::deserialize(deserializer)?))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

named_states! {
    /// `provision_state` (ironic/common/states.py).
    ProvisionState {
        /// Known to Ironic, its BMC not verified.
        Enroll = "enroll",
        /// The BMC is being verified.
        Verifying = "verifying",
        /// Verified; not for use.
        Manageable = "manageable",
        /// Ready for an instance.
        Available = "available",
        /// Carries an instance.
        Active = "active",
        /// The agent is awaited during a deploy.
        DeployWait = "wait call-back",
        /// Being deployed.
        Deploying = "deploying",
        /// Deploying failed.
        DeployFailed = "deploy failed",
        /// Held by a deploy step.
        DeployHold = "deploy hold",
        /// The instance is being taken away.
        Deleting = "deleting",
        /// A passing name of `deleting`.
        Deleted = "deleted",
        /// Being cleaned.
        Cleaning = "cleaning",
        /// The agent is awaited during cleaning.
        CleanWait = "clean wait",
        /// Cleaning failed.
        CleanFailed = "clean failed",
        /// Held by a clean step.
        CleanHold = "clean hold",
        /// Taking the instance away failed.
        Error = "error",
        /// Being inspected.
        Inspecting = "inspecting",
        /// Inspection failed.
        InspectFailed = "inspect failed",
        /// The agent is awaited during inspection.
        InspectWait = "inspect wait",
        /// Being adopted.
        Adopting = "adopting",
        /// Adopting failed.
        AdoptFailed = "adopt failed",
        /// In rescue mode.
        Rescue = "rescue",
        /// Rescue failed.
        RescueFailed = "rescue failed",
        /// The agent is awaited during rescue.
        RescueWait = "rescue wait",
        /// Being rescued.
        Rescuing = "rescuing",
        /// Leaving rescue failed.
        UnrescueFailed = "unrescue failed",
        /// Leaving rescue.
        Unrescuing = "unrescuing",
        /// Being serviced.
        Servicing = "servicing",
        /// The agent is awaited during service.
        ServiceWait = "service wait",
        /// Service failed.
        ServiceFailed = "service failed",
        /// Held by a service step.
        ServiceHold = "service hold",
    }
}

named_states! {
    /// `power_state` and `target_power_state`.
    PowerState {
        /// On.
        On = "power on",
        /// Off.
        Off = "power off",
        /// On its way through off to on.
        Rebooting = "rebooting",
        /// The same, gracefully.
        SoftRebooting = "soft rebooting",
        /// On its way to off, gracefully.
        SoftOff = "soft power off",
        /// Ironic could not read it.
        Unknown = "error",
    }
}

impl Default for ProvisionState {
    fn default() -> Self {
        Self::Other(String::new())
    }
}

/// One node.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// UUID; the only field that must be there, with [`Self::provision_state`].
    pub uuid: Uuid,
    /// Name, unique in an Ironic.
    #[serde(default, deserialize_with = "lenient")]
    pub name: Option<String>,
    /// The hardware type: `redfish`, `ipmi`, `fake-hardware`, …
    #[serde(default, deserialize_with = "lenient")]
    pub driver: String,
    /// Where it stands.
    pub provision_state: ProvisionState,
    /// Where it goes, during a transition.
    #[serde(default, deserialize_with = "lenient")]
    pub target_provision_state: Option<ProvisionState>,
    /// Power as last read by Ironic; `None` before the first reading.
    #[serde(default, deserialize_with = "lenient")]
    pub power_state: Option<PowerState>,
    /// Power on its way.
    #[serde(default, deserialize_with = "lenient")]
    pub target_power_state: Option<PowerState>,
    /// In maintenance, Ironic does not act on the node.
    #[serde(default, deserialize_with = "lenient")]
    pub maintenance: bool,
    /// Why.
    #[serde(default, deserialize_with = "lenient")]
    pub maintenance_reason: Option<String>,
    /// The fault for which Ironic itself set maintenance: `power failure`, `clean failure`, …
    #[serde(default, deserialize_with = "lenient")]
    pub fault: Option<String>,
    /// The last error; may be absent after a failure, and may be left from one before.
    #[serde(default, deserialize_with = "lenient")]
    pub last_error: Option<String>,
    /// The conductor that holds the node's lock.
    #[serde(default, deserialize_with = "lenient")]
    pub reservation: Option<String>,
    /// The conductor that looks after the node.
    #[serde(default, deserialize_with = "lenient")]
    pub conductor: Option<String>,
    /// The instance on it. Text: other users of Ironic need not use UUIDs of our form.
    #[serde(default, deserialize_with = "lenient")]
    pub instance_uuid: Option<String>,
    /// What is deployed.
    #[serde(default, deserialize_with = "lenient")]
    pub instance_info: Info,
    /// How the BMC is reached; passwords come as `******`.
    #[serde(default, deserialize_with = "lenient")]
    pub driver_info: Info,
    /// What the conductor keeps for itself; the steps of a cleaning among it.
    #[serde(default, deserialize_with = "lenient")]
    pub driver_internal_info: Info,
    /// Hardware properties and capabilities.
    #[serde(default, deserialize_with = "lenient")]
    pub properties: Info,
    /// What users of the API keep there.
    #[serde(default, deserialize_with = "lenient")]
    pub extra: Info,
    /// Traits.
    #[serde(default, deserialize_with = "lenient_list")]
    pub traits: Vec<String>,
    /// The clean step that runs.
    #[serde(default, deserialize_with = "lenient")]
    pub clean_step: Option<Step>,
    /// The deploy step that runs.
    #[serde(default, deserialize_with = "lenient")]
    pub deploy_step: Option<Step>,
    /// Whether this node is cleaned between uses; `None` leaves it to Ironic's configuration.
    #[serde(default, deserialize_with = "lenient")]
    pub automated_clean: Option<bool>,
    /// The project that owns the node.
    #[serde(default, deserialize_with = "lenient")]
    pub owner: Option<String>,
    /// Must not be undeployed, rebuilt or deleted.
    #[serde(default, deserialize_with = "lenient")]
    pub protected: bool,
    /// Why.
    #[serde(default, deserialize_with = "lenient")]
    pub protected_reason: Option<String>,
    /// Must not be made available.
    #[serde(default, deserialize_with = "lenient")]
    pub retired: bool,
    /// Why.
    #[serde(default, deserialize_with = "lenient")]
    pub retired_reason: Option<String>,
    /// The boot interface.
    #[serde(default, deserialize_with = "lenient")]
    pub boot_interface: Option<String>,
    /// The deploy interface.
    #[serde(default, deserialize_with = "lenient")]
    pub deploy_interface: Option<String>,
    /// The inspect interface.
    #[serde(default, deserialize_with = "lenient")]
    pub inspect_interface: Option<String>,
    /// The network interface.
    #[serde(default, deserialize_with = "lenient")]
    pub network_interface: Option<String>,
    /// The BIOS interface.
    #[serde(default, deserialize_with = "lenient")]
    pub bios_interface: Option<String>,
    /// The firmware interface.
    #[serde(default, deserialize_with = "lenient")]
    pub firmware_interface: Option<String>,
    /// The RAID interface.
    #[serde(default, deserialize_with = "lenient")]
    pub raid_interface: Option<String>,
    /// The management interface.
    #[serde(default, deserialize_with = "lenient")]
    pub management_interface: Option<String>,
    /// The power interface.
    #[serde(default, deserialize_with = "lenient")]
    pub power_interface: Option<String>,
    /// The vendor interface.
    #[serde(default, deserialize_with = "lenient")]
    pub vendor_interface: Option<String>,
    /// When the last inspection began, while it runs.
    #[serde(default, deserialize_with = "lenient")]
    pub inspection_started_at: Option<Timestamp>,
    /// When the last inspection ended well.
    #[serde(default, deserialize_with = "lenient")]
    pub inspection_finished_at: Option<Timestamp>,
    /// When the provision state last changed, as Ironic writes it: compared for equality only.
    #[serde(default, deserialize_with = "lenient")]
    pub provision_updated_at: Option<String>,
    /// When anything last changed.
    #[serde(default, deserialize_with = "lenient")]
    pub updated_at: Option<Timestamp>,
    /// When it was made.
    #[serde(default, deserialize_with = "lenient")]
    pub created_at: Option<Timestamp>,
}

/// A step of cleaning or deploying.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The interface that performs it: `deploy` for the agent's, `raid`, `bios`, `firmware`, …
    #[serde(default, deserialize_with = "lenient")]
    pub interface: String,
    /// Its name: `erase_devices`, …
    pub step: String,
    /// Steps of higher priority run first; 0 does not run by itself.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Its arguments.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub args: Option<serde_json::Map<String, Value>>,
}

impl Step {
    /// A step of an interface, without arguments.
    pub fn new(interface: &str, step: &str) -> Self {
        Self { interface: interface.to_owned(), step: step.to_owned(), priority: None, args: None }
    }
}

impl Node {
    /// What people know it by: name, or UUID.
    pub fn label(&self) -> String {
        self.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| self.uuid.to_string())
    }

    /// The instance on it, where there is one and it is a UUID.
    pub fn instance(&self) -> Option<Uuid> {
        self.instance_uuid.as_deref()?.parse().ok()
    }

    /// Whether there is any instance on it.
    pub fn has_instance(&self) -> bool {
        self.instance_uuid.as_deref().is_some_and(|uuid| !uuid.is_empty())
    }

    /// Its inspection ended well at least once.
    pub fn is_inspected(&self) -> bool {
        self.inspection_finished_at.is_some()
    }

    /// The implementation of an interface, by the interface's name.
    pub fn interface(&self, name: &str) -> Option<&str> {
        match name {
            "boot" => &self.boot_interface,
            "deploy" => &self.deploy_interface,
            "inspect" => &self.inspect_interface,
            "network" => &self.network_interface,
            "bios" => &self.bios_interface,
            "firmware" => &self.firmware_interface,
            "raid" => &self.raid_interface,
            "management" => &self.management_interface,
            "power" => &self.power_interface,
            "vendor" => &self.vendor_interface,
            _ => return None,
        }
        .as_deref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_state_is_written_as_it_is_read() {
        for state in ProvisionState::KNOWN {
            assert_eq!(&ProvisionState::parse(state.as_str()), state);
        }
    }

    #[test]
    fn a_state_of_a_newer_ironic_is_kept_by_name() {
        let node: Node = serde_json::from_value(json!({
            "uuid": Uuid::nil(), "provision_state": "pondering", "something": {"new": true},
        }))
        .unwrap();
        assert_eq!(node.provision_state, ProvisionState::Other("pondering".to_owned()));
    }

    #[test]
    fn an_empty_clean_step_is_none() {
        let node: Node = serde_json::from_value(json!({
            "uuid": Uuid::nil(), "provision_state": "available", "clean_step": {}, "deploy_step": null,
        }))
        .unwrap();
        assert_eq!((node.clean_step, node.deploy_step), (None, None));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z_]{1,12}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    const FIELDS: [&str; 14] = [
        "name",
        "driver",
        "power_state",
        "maintenance",
        "last_error",
        "instance_uuid",
        "instance_info",
        "driver_info",
        "traits",
        "clean_step",
        "extra",
        "inspection_finished_at",
        "automated_clean",
        "provision_updated_at",
    ];

    proptest! {
        #[test]
        fn whatever_a_field_holds_the_node_reads(values in prop::collection::vec(any_json(), FIELDS.len())) {
            let mut node = json!({"uuid": Uuid::nil(), "provision_state": "active"});
            for (field, value) in FIELDS.iter().zip(values) {
                node[*field] = value;
            }
            let read: Node = serde_json::from_value(node).unwrap();
            prop_assert_eq!(read.provision_state, ProvisionState::Active);
        }
    }
}
