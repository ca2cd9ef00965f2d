//! What an inspection finds, in the shape of Ironic's inventory, and who checks credentials.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::seed::Seed;

/// What is known of a node when it is inspected or its credentials are tried. It holds passwords and has no `Debug`.
pub struct NodeFacts<'a> {
    /// The node.
    pub uuid: &'a str,
    /// Its name.
    pub name: Option<&'a str>,
    /// Its hardware type.
    pub driver: &'a str,
    /// `driver_info`, passwords and all.
    pub driver_info: &'a Map<String, Value>,
    /// The MAC addresses of its ports.
    pub macs: &'a [String],
}

/// Answers the inventory of a node: `{"inventory": {…}, "plugin_data": {…}}`, or nothing where the default will do. It must not call the
/// endpoint.
pub type InventorySource = Arc<dyn Fn(&NodeFacts<'_>) -> Option<Value> + Send + Sync>;

/// Tries a node's credentials; the error is what the BMC said, such as `HTTP GET … returned code 401`. It must not call the endpoint.
pub type CredentialCheck = Arc<dyn Fn(&NodeFacts<'_>) -> Result<(), String> + Send + Sync>;

/// A small server whose identity follows from the node's ports: what Ironic Python Agent would report.
pub(crate) fn from_ports(node: &NodeFacts<'_>) -> Value {
    let seed = Seed::new(&["ironic-inventory", node.macs.first().map_or(node.uuid, String::as_str)]);
    let interface = |(index, mac): (usize, &String)| {
        json!({
            "lldp": null, "product": "0x1572", "vendor": "0x8086", "name": format!("eno{}", index + 1),
            "has_carrier": true, "ipv4_address": null, "ipv6_address": null, "client_id": null,
            "mac_address": mac, "speed_mbps": 25_000, "pci_address": format!("0000:17:00.{index}"),
        })
    };
    let interfaces: Vec<Value> = node.macs.iter().enumerate().map(interface).collect();
    let disk = json!({
        "name": "/dev/nvme0n1", "model": "Sim NVMe", "size": 1_920_383_410_176_u64, "rotational": false,
        "wwn": format!("0x{}", seed.digits("wwn", 16)), "serial": seed.alphanumeric("disk", 14),
        "vendor": null, "wwn_with_extension": null, "wwn_vendor_extension": null, "hctl": null,
        "by_path": "/dev/disk/by-path/pci-0000:01:00.0-nvme-1", "logical_sectors": 512, "physical_sectors": 4096,
    });
    json!({
        "inventory": {
            "interfaces": interfaces,
            "cpu": {
                "model_name": "Simulated CPU", "frequency": "2400.0000", "count": 64, "architecture": "x86_64",
                "flags": [], "socket_count": 2,
            },
            "disks": [disk],
            "memory": {"total": 274_877_906_944_u64, "physical_mb": 262_144},
            "bmc_address": null, "bmc_v6address": null, "bmc_mac": null,
            "system_vendor": {
                "product_name": "Simulated server", "serial_number": seed.alphanumeric("serial", 10),
                "manufacturer": "Bailiwick",
                "firmware": {"vendor": "Bailiwick", "version": "1.0.0", "build_date": "01/01/2026"},
            },
            "boot": {"current_boot_mode": "uefi", "pxe_interface": node.macs.first()},
            "hostname": node.name,
        },
        "plugin_data": {},
    })
}

/// The properties that Ironic's inspection writes into the node's record.
pub(crate) fn properties(inventory: &Value) -> Map<String, Value> {
    let parts = [
        ("cpu_arch", inventory.pointer("/inventory/cpu/architecture").cloned()),
        ("cpus", inventory.pointer("/inventory/cpu/count").map(whole_number)),
        ("memory_mb", inventory.pointer("/inventory/memory/physical_mb").map(whole_number)),
        ("local_gb", inventory.pointer("/inventory/disks/0/size").map(gibibytes)),
    ];
    parts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// Ironic writes numbers of properties as texts.
fn whole_number(value: &Value) -> Value {
    Value::from(value.to_string())
}

/// A disk's size less the one gibibyte that Ironic leaves for partitioning.
fn gibibytes(bytes: &Value) -> Value {
    let gibibytes = bytes.as_u64().unwrap_or_default() >> 30;
    Value::from(gibibytes.saturating_sub(1).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts<'a>(info: &'a Map<String, Value>, macs: &'a [String]) -> NodeFacts<'a> {
        NodeFacts { uuid: "u", name: Some("n1"), driver: "redfish", driver_info: info, macs }
    }

    #[test]
    fn an_inventory_has_the_ports_as_interfaces_and_stays_the_same() {
        let (info, macs) = (Map::new(), ["02:00:00:00:00:01".to_owned(), "02:00:00:00:00:02".to_owned()]);
        let found = from_ports(&facts(&info, &macs));
        assert_eq!(found["inventory"]["interfaces"][1]["mac_address"], "02:00:00:00:00:02");
        assert_eq!(found, from_ports(&facts(&info, &macs)));
    }

    #[test]
    fn properties_follow_from_the_inventory() {
        let info = Map::new();
        let found = properties(&from_ports(&facts(&info, &[])));
        assert_eq!(found["memory_mb"], "262144");
        assert_eq!(found["local_gb"], "1787");
        assert_eq!(found["cpu_arch"], "x86_64");
    }
}
