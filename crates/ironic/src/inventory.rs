//! What Ironic's inspection found (`GET /v1/nodes/{node}/inventory`). The agent and the Redfish inspection tell different
//! parts; every part may be missing.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::lenient::{lenient, lenient_list};

/// The inventory and what inspection hooks made of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Inspection {
    /// The hardware.
    #[serde(default, deserialize_with = "lenient")]
    pub inventory: Inventory,
    /// Of hooks and of the agent's collectors: free form.
    #[serde(default, deserialize_with = "lenient")]
    pub plugin_data: Map<String, Value>,
}

/// The hardware as inspected.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Inventory {
    /// Network interfaces.
    #[serde(default, deserialize_with = "lenient_list")]
    pub interfaces: Vec<Interface>,
    /// Processors, all together.
    #[serde(default, deserialize_with = "lenient")]
    pub cpu: Cpu,
    /// Memory.
    #[serde(default, deserialize_with = "lenient")]
    pub memory: Memory,
    /// Disks.
    #[serde(default, deserialize_with = "lenient_list")]
    pub disks: Vec<Disk>,
    /// Maker, model, serial number.
    #[serde(default, deserialize_with = "lenient")]
    pub system_vendor: SystemVendor,
    /// How it booted.
    #[serde(default, deserialize_with = "lenient")]
    pub boot: Boot,
    /// The BMC's address as the host sees it.
    #[serde(default, deserialize_with = "lenient")]
    pub bmc_address: Option<String>,
    /// The host's name while inspected.
    #[serde(default, deserialize_with = "lenient")]
    pub hostname: Option<String>,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Interface {
    /// Name in the operating system or in Redfish.
    #[serde(default, deserialize_with = "lenient")]
    pub name: Option<String>,
    /// MAC address, as told.
    #[serde(default, deserialize_with = "lenient")]
    pub mac_address: Option<String>,
    /// IPv4 address while inspected.
    #[serde(default, deserialize_with = "lenient")]
    pub ipv4_address: Option<String>,
    /// Whether there is a link.
    #[serde(default, deserialize_with = "lenient")]
    pub has_carrier: Option<bool>,
    /// PCI vendor id, `0x…`.
    #[serde(default, deserialize_with = "lenient")]
    pub vendor: Option<String>,
    /// PCI device id, `0x…`.
    #[serde(default, deserialize_with = "lenient")]
    pub product: Option<String>,
    /// Speed in Mbit/s.
    #[serde(default, deserialize_with = "lenient")]
    pub speed_mbps: Option<u64>,
}

/// All processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Cpu {
    /// Model name.
    #[serde(default, deserialize_with = "lenient")]
    pub model_name: Option<String>,
    /// Threads (agent) or cores (Redfish).
    #[serde(default, deserialize_with = "lenient")]
    pub count: Option<u64>,
    /// `x86_64`, `aarch64`.
    #[serde(default, deserialize_with = "lenient")]
    pub architecture: Option<String>,
}

/// Memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Memory {
    /// Modules' sizes together, in MiB.
    #[serde(default, deserialize_with = "lenient")]
    pub physical_mb: Option<u64>,
    /// What the operating system sees, in bytes.
    #[serde(default, deserialize_with = "lenient")]
    pub total: Option<u64>,
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// `/dev/sda`, or the name in Redfish.
    #[serde(default, deserialize_with = "lenient")]
    pub name: Option<String>,
    /// Model.
    #[serde(default, deserialize_with = "lenient")]
    pub model: Option<String>,
    /// Serial number.
    #[serde(default, deserialize_with = "lenient")]
    pub serial: Option<String>,
    /// World wide name.
    #[serde(default, deserialize_with = "lenient")]
    pub wwn: Option<String>,
    /// Size in bytes.
    #[serde(default, deserialize_with = "lenient")]
    pub size: Option<u64>,
    /// Whether it turns.
    #[serde(default, deserialize_with = "lenient")]
    pub rotational: Option<bool>,
    /// Where it is attached: host, channel, target, lun.
    #[serde(default, deserialize_with = "lenient")]
    pub hctl: Option<String>,
    /// A name that lasts.
    #[serde(default, deserialize_with = "lenient")]
    pub by_path: Option<String>,
}

/// Who made the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SystemVendor {
    /// Maker.
    #[serde(default, deserialize_with = "lenient")]
    pub manufacturer: Option<String>,
    /// Model.
    #[serde(default, deserialize_with = "lenient")]
    pub product_name: Option<String>,
    /// Serial number.
    #[serde(default, deserialize_with = "lenient")]
    pub serial_number: Option<String>,
    /// UUID of the system, where told (Redfish inspection).
    #[serde(default, deserialize_with = "lenient")]
    pub system_uuid: Option<String>,
    /// The BIOS.
    #[serde(default, deserialize_with = "lenient")]
    pub firmware: Firmware,
}

/// The BIOS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Firmware {
    /// Maker.
    #[serde(default, deserialize_with = "lenient")]
    pub vendor: Option<String>,
    /// Version.
    #[serde(default, deserialize_with = "lenient")]
    pub version: Option<String>,
    /// Date, as told.
    #[serde(default, deserialize_with = "lenient")]
    pub build_date: Option<String>,
}

/// How it booted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Boot {
    /// `uefi` or `bios`.
    #[serde(default, deserialize_with = "lenient")]
    pub current_boot_mode: Option<String>,
    /// The MAC address it booted from.
    #[serde(default, deserialize_with = "lenient")]
    pub pxe_interface: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_odd_disk_costs_neither_the_others_nor_the_rest() {
        let read: Inspection = serde_json::from_value(json!({
            "inventory": {
                "disks": [{"name": "/dev/sda", "size": "big", "serial": "S1"}, 7, {"name": "/dev/sdb", "size": 5}],
                "cpu": "many", "memory": {"physical_mb": 2048},
            },
            "plugin_data": null,
        }))
        .unwrap();
        let serials: Vec<_> =
            read.inventory.disks.iter().map(|disk| (disk.serial.as_deref(), disk.size)).collect();
        assert_eq!(serials, [(Some("S1"), None), (None, Some(5))]);
        assert_eq!(read.inventory.memory.physical_mb, Some(2048));
    }
}
