//! Facts: observed values with their source, path and time (DESIGN §2).

use crate::inventory::Inventory;
use crate::probe::Probe;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The BMC over Redfish.
    Redfish,
    /// The BMC over IPMI.
    Ipmi,
    /// The driver of the GPUs, asked by the agent on the machine.
    Nvml,
    /// The provisioning service: Ironic, alone or behind Metal3.
    Ironic,
    /// People, in a declaration.
    Declared,
}

impl Source {
    /// Whether it is the BMC that said it: what is read anew of a machine replaces all that its BMC ever said, by whichever
    /// protocol.
    pub fn is_the_bmcs(self) -> bool {
        matches!(self, Self::Redfish | Self::Ipmi)
    }

    /// As the API and the database write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redfish => "redfish",
            Self::Ipmi => "ipmi",
            Self::Nvml => "nvml",
            Self::Ironic => "ironic",
            Self::Declared => "declared",
        }
    }
}

/// One observed value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fact {
    /// What it is about, as a path into the inventory: `identity.serial`, `gpus/<serial or uuid>/model`.
    pub key: String,
    /// The value; never `null`, an unknown value is no fact.
    pub value: Value,
    /// Who said it.
    pub source: Source,
    /// Where: a Redfish path, a file.
    pub path: String,
    /// When it was observed.
    #[schemars(with = "String")]
    pub at: Timestamp,
}

/// The facts an inventory holds: one for each value known, keyed by identity and never by position.
pub fn from_inventory(inventory: &Inventory, at: Timestamp) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |key: String, path: &str, value: Value| {
        if !value.is_null() {
            facts.push(Fact { key, value, source: Source::Redfish, path: path.to_owned(), at });
        }
    };
    let Value::Object(document) = serde_json::to_value(inventory).unwrap_or_default() else { return facts };
    for (section, value) in document {
        let place = match section.as_str() {
            "diagnostics" | "requests" | "sources" => continue,
            "bmc" => "/redfish/v1/Managers",
            "componentIntegrity" => "/redfish/v1/ComponentIntegrity",
            "firmware" => "/redfish/v1/UpdateService/FirmwareInventory",
            _ => "/redfish/v1/Systems",
        };
        let place = inventory.sources.get(&section).map_or(place, String::as_str);
        match value {
            Value::Object(fields) => {
                for (field, value) in fields {
                    let key = format!("{section}.{field}");
                    let place = inventory.sources.get(&key).map_or(place, String::as_str);
                    add(key.clone(), place, value);
                }
            }
            Value::Array(entries) => {
                for (at, entry) in entries.iter().enumerate() {
                    let Value::Object(fields) = entry else { continue };
                    let label =
                        ["serial", "uuid", "mac", "id"].iter().find_map(|key| fields.get(*key)?.as_str());
                    let label = label.map_or_else(|| at.to_string(), str::to_owned);
                    let source = fields.get("sources").and_then(|s| s.get(0)?.as_str()).unwrap_or(place);
                    for (field, value) in fields {
                        if field != "sources" {
                            add(format!("{section}/{label}/{field}"), source, value.clone());
                        }
                    }
                }
            }
            scalar => add(section, place, scalar),
        }
    }
    facts
}

/// The facts that a probe tells: of the host, the driver, and each GPU that says its UUID; readings are none.
pub fn from_probe(probe: &Probe, at: Timestamp) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |key: String, path: String, value: Value| {
        if !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()) {
            facts.push(Fact { key, value, source: Source::Nvml, path, at });
        }
    };
    let fields = |value: Value| match value {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    let driver = serde_json::to_value(&probe.driver).unwrap_or_default();
    for (field, value) in fields(driver) {
        add(format!("driver.{field}"), "nvml".to_owned(), value);
    }
    for gpu in &probe.gpus {
        let Some(uuid) = &gpu.uuid else { continue };
        for (field, value) in fields(serde_json::to_value(gpu).unwrap_or_default()) {
            if field != "readings" {
                add(format!("gpus/{uuid}/{field}"), format!("nvml/{uuid}"), value);
            }
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Gpu, Identity};

    #[test]
    fn an_unknown_value_is_no_fact_and_a_gpu_is_keyed_by_its_serial() {
        let inventory = Inventory {
            identity: Identity { serial: Some("S1".into()), ..Identity::default() },
            gpus: vec![Gpu {
                serial: Some("G1".into()),
                sources: vec!["/redfish/v1/x".into()],
                ..Gpu::default()
            }],
            ..Inventory::default()
        };
        let facts = from_inventory(&inventory, Timestamp::UNIX_EPOCH);
        let keys: Vec<_> = facts.iter().map(|f| (f.key.as_str(), f.path.as_str())).collect();
        assert!(keys.contains(&("identity.serial", "/redfish/v1/Systems")));
        assert!(keys.contains(&("gpus/G1/serial", "/redfish/v1/x")));
        assert!(!keys.iter().any(|(key, _)| key.ends_with("model")));
    }
}
