//! Ports: the MAC addresses of nodes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::node::View;

/// Fields with the first microversion that has them, in Ironic's order.
const FIELDS: &[(&str, u16)] = &[
    ("uuid", 1),
    ("created_at", 1),
    ("updated_at", 1),
    ("address", 1),
    ("extra", 1),
    ("internal_info", 18),
    ("is_smartnic", 53),
    ("local_link_connection", 19),
    ("physical_network", 34),
    ("pxe_enabled", 19),
    ("node_uuid", 1),
    ("name", 88),
    ("description", 97),
    ("vendor", 100),
    ("category", 101),
    ("available_for_dynamic_portgroup", 111),
    ("portgroup_uuid", 24),
];

/// What clients may set, with the value where they say nothing.
pub(crate) fn blank_record() -> Map<String, Value> {
    let blank = json!({
        "address": null, "extra": {}, "is_smartnic": false, "local_link_connection": {}, "physical_network": null,
        "pxe_enabled": true, "name": null, "description": null, "vendor": null, "category": null,
        "available_for_dynamic_portgroup": true, "portgroup_uuid": null,
    });
    match blank {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Whether `?fields=` may name it.
pub(crate) fn is_selectable(field: &str) -> bool {
    field == "links" || FIELDS.iter().any(|(name, _)| *name == field)
}

/// A MAC address in Ironic's spelling.
pub(crate) fn mac(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let parts: Vec<_> = text.split(':').collect();
    let valid = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    (parts.len() == 6 && parts.iter().all(valid)).then_some(text)
}

/// A port.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) id: u64,
    pub(crate) uuid: String,
    pub(crate) node: u64,
    pub(crate) record: Map<String, Value>,
    pub(crate) created: Duration,
    pub(crate) updated: Option<Duration>,
}

impl Port {
    pub(crate) fn address(&self) -> &str {
        self.record.get("address").and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.record.get("name").and_then(Value::as_str)
    }

    fn field(&self, view: &View<'_>, node_uuid: &str, field: &str) -> Value {
        match field {
            "uuid" => Value::from(self.uuid.as_str()),
            "created_at" => view.time(Some(self.created)),
            "updated_at" => view.time(self.updated),
            "node_uuid" => Value::from(node_uuid),
            "internal_info" => json!({}),
            other => self.record.get(other).cloned().unwrap_or_default(),
        }
    }

    /// These fields, or all, with links.
    pub(crate) fn show(&self, view: &View<'_>, node_uuid: &str, fields: Option<&[String]>) -> Value {
        let wanted = |name: &str| fields.is_none_or(|fields| fields.iter().any(|field| field == name));
        let mut shown: Map<String, Value> = FIELDS
            .iter()
            .filter(|(name, since)| view.version.0 >= *since && wanted(name))
            .map(|(name, _)| ((*name).to_owned(), self.field(view, node_uuid, name)))
            .collect();
        shown.insert("links".to_owned(), view.links("ports", &self.uuid));
        Value::Object(shown)
    }
}

/// All ports, found by UUID and by MAC address.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    next: u64,
    all: BTreeMap<u64, Port>,
    by_uuid: HashMap<String, u64>,
    by_mac: HashMap<String, u64>,
}

impl Ports {
    /// Adds a port whose UUID and address are free.
    pub(crate) fn add(&mut self, uuid: String, node: u64, record: Map<String, Value>, now: Duration) -> u64 {
        self.next += 1;
        let port = Port { id: self.next, uuid, node, record, created: now, updated: None };
        self.by_uuid.insert(port.uuid.clone(), port.id);
        self.by_mac.insert(port.address().to_owned(), port.id);
        self.all.insert(port.id, port);
        self.next
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Port> {
        self.all.get(&id)
    }

    pub(crate) fn by_uuid(&self, uuid: &str) -> Option<&Port> {
        self.by_uuid.get(uuid).and_then(|id| self.all.get(id))
    }

    pub(crate) fn by_mac(&self, mac: &str) -> Option<&Port> {
        self.by_mac.get(mac).and_then(|id| self.all.get(id))
    }

    /// By UUID or name.
    pub(crate) fn find(&self, ident: &str) -> Option<&Port> {
        self.by_uuid(ident).or_else(|| self.all.values().find(|port| port.name() == Some(ident)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Port> {
        self.all.values()
    }

    /// Replaces what a client may set.
    pub(crate) fn replace(&mut self, id: u64, record: Map<String, Value>, now: Duration) {
        let Some(port) = self.all.get_mut(&id) else { return };
        self.by_mac.remove(port.address());
        port.record = record;
        port.updated = Some(now);
        self.by_mac.insert(port.address().to_owned(), id);
    }

    pub(crate) fn remove(&mut self, id: u64) {
        if let Some(port) = self.all.remove(&id) {
            self.by_uuid.remove(&port.uuid);
            self.by_mac.remove(port.address());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_in_lower_case() {
        assert_eq!(mac("02:00:00:00:00:AB").as_deref(), Some("02:00:00:00:00:ab"));
        for wrong in ["", "zz", "02:00:00:00:00", "02-00-00-00-00-01", "02:00:00:00:00:0g"] {
            assert_eq!(mac(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_changed_address_is_found_and_the_old_one_is_not() {
        let mut ports = Ports::default();
        let record = |mac: &str| Map::from_iter([("address".to_owned(), Value::from(mac))]);
        let id = ports.add("u".to_owned(), 1, record("a"), Duration::ZERO);
        ports.replace(id, record("b"), Duration::ZERO);
        assert!(ports.by_mac("a").is_none());
        assert_eq!(ports.by_mac("b").map(|port| port.id), Some(id));
        ports.remove(id);
        assert!(ports.by_mac("b").is_none() && ports.by_uuid("u").is_none());
    }
}
