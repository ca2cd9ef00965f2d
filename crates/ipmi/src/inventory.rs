//! What IPMI tells of a machine in the form that every part of Bailiwick reads. The rest of that form stays unknown, and a
//! diagnostic says so: an empty list of GPUs must not be taken for a machine without any.

use domain::fact::{Fact, Source};
use domain::inventory::{Bmc, Diagnostic, Identity as Host, Inventory, Requests};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::device::maker;
use crate::error::problem;
use crate::machine::Identity;

/// Where values come from, as facts and diagnostics name it.
const DEVICE: &str = "Get Device ID";
const GUID: &str = "Get System GUID";
const LAN: &str = "Get LAN Configuration Parameters";
const FRU: &str = "FRU 0";

impl Identity {
    /// The inventory, as far as IPMI goes.
    pub fn inventory(&self, requests: Requests) -> Inventory {
        let text = |value: Option<&str>| value.map(ToOwned::to_owned);
        Inventory {
            identity: Host {
                manufacturer: text(self.manufacturer()),
                model: text(self.model()),
                serial: text(self.serial()),
                uuid: self.uuid(),
                sku: None,
                part_number: text(self.part_number()),
            },
            bmc: Bmc {
                manufacturer: text(maker(self.device.manufacturer)),
                model: None,
                firmware_version: Some(self.device.firmware.clone()),
                product: None,
                macs: self.mac.iter().cloned().collect(),
            },
            diagnostics: self.diagnostics(),
            requests,
            ..Inventory::default()
        }
    }

    /// What is known, as facts of source `ipmi`.
    pub fn facts(&self, at: Timestamp) -> Vec<Fact> {
        let text = |value: Option<&str>| value.map(Value::from);
        [
            ("identity.manufacturer", FRU, text(self.manufacturer())),
            ("identity.model", FRU, text(self.model())),
            ("identity.partNumber", FRU, text(self.part_number())),
            ("identity.serial", FRU, text(self.serial())),
            ("identity.chassisSerial", FRU, text(self.chassis_serial())),
            ("identity.assetTag", FRU, text(self.asset_tag())),
            ("identity.uuid", GUID, self.uuid().map(Value::from)),
            ("bmc.manufacturer", DEVICE, text(maker(self.device.manufacturer))),
            ("bmc.firmwareVersion", DEVICE, text(Some(&self.device.firmware))),
            ("bmc.macs", LAN, self.mac.as_ref().map(|mac| json!([mac]))),
        ]
        .into_iter()
        .filter_map(|(key, path, value)| {
            let (key, path, value) = (key.to_owned(), path.to_owned(), value?);
            Some(Fact { key, value, source: Source::Ipmi, path, at })
        })
        .collect()
    }

    /// The system's UUID, in lower case, where its GUID gives one.
    pub fn uuid(&self) -> Option<String> {
        Some(self.guid?.likely_uuid()?.to_string())
    }

    fn diagnostics(&self) -> Vec<Diagnostic> {
        let told = |problem: &domain::Problem, path: &str| Diagnostic {
            code: problem.code.clone(),
            path: problem.at.clone().unwrap_or_else(|| path.to_owned()),
            message: problem.message.clone(),
        };
        let mut diagnostics: Vec<_> = self.problems.iter().map(|problem| told(problem, FRU)).collect();
        if let Some(guid) = self.guid.filter(|guid| guid.is_ambiguous()) {
            let readings = guid.readings().map(|(_, uuid)| uuid.to_string()).join(", ");
            let message = format!("the bytes of the system's GUID may be read as {readings}");
            diagnostics.push(told(&problem("ipmi.guid-ambiguous", message), GUID));
        }
        let message =
            "IPMI tells nothing of processors, memory, GPUs, network interfaces, drives, TPM and firmware";
        diagnostics.push(told(&problem("ipmi.inventory-partial", message.to_owned()), "IPMI"));
        diagnostics.sort();
        diagnostics
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{DeviceId, SystemGuid};
    use crate::fru::{Fru, Product};

    fn identity() -> Identity {
        let device = DeviceId {
            device: 0,
            revision: 0,
            device_sdrs: false,
            available: true,
            firmware: "2.17".to_owned(),
            version: "2.0".to_owned(),
            support: 0,
            manufacturer: 674,
            product: 0,
            auxiliary: None,
        };
        Identity { device, guid: None, mac: None, fru: Fru::default(), problems: Vec::new() }
    }

    fn keys(identity: &Identity) -> Vec<String> {
        identity.facts(Timestamp::UNIX_EPOCH).into_iter().map(|fact| fact.key).collect()
    }

    #[test]
    fn only_what_is_known_is_a_fact() {
        assert_eq!(keys(&identity()), ["bmc.manufacturer", "bmc.firmwareVersion"]);
        let product = Product { serial: Some("S1".into()), ..Product::default() };
        let known = Identity { fru: Fru { product: Some(product), ..Fru::default() }, ..identity() };
        assert_eq!(keys(&known), ["identity.serial", "bmc.manufacturer", "bmc.firmwareVersion"]);
    }

    #[test]
    fn every_fact_of_identity_and_bmc_is_what_the_inventory_says() {
        let known = Identity {
            mac: Some("02:00:00:00:00:01".into()),
            guid: Some(SystemGuid(*b"\x44\x45\x4c\x4c\x42\x00\x0f\x4a\x80\x53\xc2\xc0\x4f\x4a\x39\x56")),
            ..identity()
        };
        let document = serde_json::to_value(known.inventory(Requests::default())).unwrap();
        for fact in known.facts(Timestamp::UNIX_EPOCH) {
            let pointer = format!("/{}", fact.key.replace('.', "/"));
            assert_eq!(document.pointer(&pointer), Some(&fact.value), "{}", fact.key);
        }
        assert_eq!(document["identity"]["uuid"], "4c4c4544-0042-4a0f-8053-c2c04f4a3956");
    }

    #[test]
    fn what_ipmi_cannot_know_is_said_to_be_unknown() {
        let codes = |identity: &Identity| -> Vec<String> {
            let inventory = identity.inventory(Requests::default());
            inventory.diagnostics.into_iter().map(|diagnostic| diagnostic.code).collect()
        };
        assert_eq!(codes(&identity()), ["ipmi.inventory-partial"]);
        let unclear = Identity { guid: Some(SystemGuid([0x11; 16])), ..identity() };
        assert_eq!(codes(&unclear), ["ipmi.guid-ambiguous", "ipmi.inventory-partial"]);
    }
}
