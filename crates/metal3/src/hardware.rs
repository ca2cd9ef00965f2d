//! What inspection found: HardwareData (`hardwaredata_types.go` of baremetal-operator v0.13.2), and the facts in it.

use crate::lenient;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// `HardwareData.spec.hardware`, and `BareMetalHost.status.hardware`. Empty strings and zeros mean "not known".
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct Hardware {
    #[serde(deserialize_with = "lenient::or_default")]
    pub system_vendor: SystemVendor,
    #[serde(deserialize_with = "lenient::or_default")]
    pub firmware: Firmware,
    #[serde(deserialize_with = "lenient::or_default")]
    pub ram_mebibytes: u64,
    #[serde(deserialize_with = "lenient::items")]
    pub nics: Vec<Nic>,
    #[serde(deserialize_with = "lenient::items")]
    pub storage: Vec<Disk>,
    #[serde(deserialize_with = "lenient::or_default")]
    pub cpu: Cpu,
    #[serde(deserialize_with = "lenient::or_default")]
    pub hostname: String,
}

/// `systemVendor`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct SystemVendor {
    #[serde(deserialize_with = "lenient::or_default")]
    pub manufacturer: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub product_name: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub serial_number: String,
}

/// `firmware`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct Firmware {
    #[serde(deserialize_with = "lenient::or_default")]
    pub bios: Bios,
}

/// `firmware.bios`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct Bios {
    #[serde(deserialize_with = "lenient::or_default")]
    pub date: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub vendor: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub version: String,
}

/// One network interface. An interface with two addresses is listed twice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct Nic {
    #[serde(deserialize_with = "lenient::or_default")]
    pub name: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub model: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub mac: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub speed_gbps: u64,
    #[serde(deserialize_with = "lenient::or_default")]
    pub pxe: bool,
    #[serde(deserialize_with = "lenient::or_default")]
    pub pci_address: String,
}

/// One disk.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct Disk {
    #[serde(deserialize_with = "lenient::or_default")]
    pub name: String,
    #[serde(rename = "type", deserialize_with = "lenient::or_default")]
    pub kind: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub size_bytes: u64,
    #[serde(deserialize_with = "lenient::or_default")]
    pub vendor: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub model: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub serial_number: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub wwn: String,
}

/// `cpu`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are those of the API, which documents them")]
pub struct Cpu {
    #[serde(deserialize_with = "lenient::or_default")]
    pub arch: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub model: String,
    #[serde(deserialize_with = "lenient::or_default")]
    pub clock_megahertz: f64,
    /// Logical processors of the whole machine.
    #[serde(deserialize_with = "lenient::or_default")]
    pub count: u64,
}

impl Hardware {
    /// Reads a HardwareData object; `None` where it holds no hardware yet.
    pub fn read(object: &Value) -> Option<Self> {
        let hardware = object.pointer("/spec/hardware")?;
        hardware.is_object().then(|| serde_json::from_value(hardware.clone()).unwrap_or_default())
    }

    /// The facts: paths into the inventory as `domain::fact` writes them, with their values. An unknown value is no fact.
    pub fn facts(&self) -> Vec<(String, Value)> {
        let mut facts = Facts::default();
        let vendor = &self.system_vendor;
        facts.text("identity.manufacturer", &vendor.manufacturer);
        facts.text("identity.model", &vendor.product_name);
        facts.text("identity.serial", &vendor.serial_number);
        facts.number("memoryMiB", self.ram_mebibytes);
        if self.ram_mebibytes.is_multiple_of(1024) {
            facts.number("memoryGiB", self.ram_mebibytes / 1024);
        }
        facts.text("cpu.architecture", &self.cpu.arch);
        facts.text("cpu.model", &self.cpu.model);
        facts.number("cpu.threads", self.cpu.count);
        if self.cpu.clock_megahertz > 0.0 {
            facts.add("cpu.clockMHz".to_owned(), json!(self.cpu.clock_megahertz));
        }
        let bios = &self.firmware.bios;
        for (field, value) in [("version", &bios.version), ("vendor", &bios.vendor), ("date", &bios.date)] {
            facts.text(&format!("firmware/bios/{field}"), value);
        }
        for nic in &self.nics {
            let mac = nic.mac.to_ascii_lowercase();
            if !mac.is_empty() {
                facts.nic(&format!("nics/{mac}"), &mac, nic);
            }
        }
        for disk in &self.storage {
            let label = [&disk.serial_number, &disk.wwn, &disk.name].into_iter().find(|text| is_known(text));
            if let Some(label) = label {
                facts.disk(&format!("drives/{label}"), disk);
            }
        }
        facts.list
    }
}

/// Facts as they are gathered: the first value of a path stands.
#[derive(Default)]
struct Facts {
    list: Vec<(String, Value)>,
    seen: BTreeSet<String>,
}

impl Facts {
    fn add(&mut self, path: String, value: Value) {
        if self.seen.insert(path.clone()) {
            self.list.push((path, value));
        }
    }

    fn text(&mut self, path: &str, text: &str) {
        if is_known(text) {
            self.add(path.to_owned(), json!(text.trim()));
        }
    }

    fn number(&mut self, path: &str, number: u64) {
        if number > 0 {
            self.add(path.to_owned(), json!(number));
        }
    }

    fn nic(&mut self, at: &str, mac: &str, nic: &Nic) {
        self.text(&format!("{at}/mac"), mac);
        self.text(&format!("{at}/name"), &nic.name);
        self.text(&format!("{at}/model"), &nic.model);
        self.text(&format!("{at}/pciAddress"), &nic.pci_address);
        self.number(&format!("{at}/speedGbps"), nic.speed_gbps);
    }

    fn disk(&mut self, at: &str, disk: &Disk) {
        self.text(&format!("{at}/serial"), &disk.serial_number);
        self.text(&format!("{at}/model"), &disk.model);
        self.text(&format!("{at}/vendor"), &disk.vendor);
        self.text(&format!("{at}/wwn"), &disk.wwn);
        self.text(&format!("{at}/name"), &disk.name);
        self.text(&format!("{at}/mediaType"), &disk.kind);
        self.number(&format!("{at}/capacityBytes"), disk.size_bytes);
    }
}

/// SMBIOS placeholders are no values (facts: redfish, identity rule 7).
fn is_known(text: &str) -> bool {
    let text = text.trim();
    let placeholders =
        ["", "0", "n/a", "none", "unknown", "not specified", "to be filled by o.e.m.", "default string"];
    !placeholders.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_keyed_by_identity_and_leave_out_what_is_not_known() {
        let hardware = Hardware::read(&json!({ "spec": { "hardware": {
            "systemVendor": { "manufacturer": "NVIDIA", "productName": "DGX H100", "serialNumber": "To Be Filled By O.E.M." },
            "firmware": { "bios": { "version": "1.2.3", "vendor": "", "date": "01/02/2026" } },
            "ramMebibytes": 2_097_152, "hostname": "m1",
            "cpu": { "arch": "x86_64", "model": "Xeon", "clockMegahertz": 2000.5, "count": 224, "flags": ["a"] },
            "nics": [
                { "name": "eth0", "mac": "02:00:5E:00:00:01", "ip": "10.0.0.1", "speedGbps": 100, "pxe": true },
                { "name": "eth0", "mac": "02:00:5e:00:00:01", "ip": "fd00::1" },
                { "name": "lo" }, 7,
            ],
            "storage": [
                { "name": "/dev/nvme0n1", "serialNumber": "S1", "sizeBytes": 1000, "type": "NVME", "model": "PM1733" },
                { "name": "/dev/sda", "sizeBytes": "huge" },
            ],
        } } }))
        .unwrap();
        let facts = hardware.facts();
        let value = |path: &str| facts.iter().find(|(key, _)| key == path).map(|(_, value)| value.clone());
        assert_eq!(value("identity.model"), Some(json!("DGX H100")));
        assert_eq!(value("identity.serial"), None);
        assert_eq!(value("memoryGiB"), Some(json!(2048)));
        assert_eq!(value("cpu.threads"), Some(json!(224)));
        assert_eq!(value("nics/02:00:5e:00:00:01/speedGbps"), Some(json!(100)));
        assert_eq!(value("drives/S1/mediaType"), Some(json!("NVME")));
        assert_eq!(value("drives//dev/sda/capacityBytes"), None);
        assert_eq!(value("firmware/bios/version"), Some(json!("1.2.3")));
        assert_eq!(value("firmware/bios/vendor"), None);
        let mut keys: Vec<_> = facts.iter().map(|(key, _)| key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), facts.len(), "a path is told once");
    }

    #[test]
    fn hardware_not_read_yet_is_none() {
        assert_eq!(Hardware::read(&json!({ "spec": {} })), None);
    }
}
