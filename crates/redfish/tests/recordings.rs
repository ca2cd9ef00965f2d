//! The inventory of every recorded tree is right. The values expected were read from the raw JSON with another program.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking; clippy.toml covers test functions, not the helpers of an integration test"
)]

mod support;

use std::collections::BTreeSet;

use bailiwick_redfish::{WalkOptions, inventory};
use domain::inventory::{Gpu, Inventory};
use serde_json::Value;
use support::tree::{Expand, Tree};

const ALL: [&str; 4] = ["nvidia-dgx-h100", "dell-poweredge", "lenovo-thinksystem", "dmtf-rackmount"];

async fn read(tree: &Tree) -> Inventory {
    tree.forget();
    inventory(tree, &WalkOptions::default()).await.expect("an inventory")
}

#[expect(clippy::unnecessary_wraps, reason = "expected values are optional")]
fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn macs(inventory: &Inventory) -> Vec<&str> {
    inventory.nics.iter().map(|nic| nic.mac.as_str()).collect()
}

fn codes(inventory: &Inventory) -> Vec<&str> {
    inventory.diagnostics.iter().map(|diagnostic| diagnostic.code.as_str()).collect()
}

#[tokio::test]
async fn a_dgx_h100_has_exactly_eight_gpus_with_all_that_identifies_them() {
    let Some(tree) = Tree::recorded("nvidia-dgx-h100") else { return };
    let inventory = read(&tree).await;
    let expected = [
        ("1652923003067", "9dad5bfd-a732-23fe-40ad-465d0cbe5f95"),
        ("1652923004435", "f6153554-91a8-1097-9a40-e1f352682d0b"),
        ("1652923004252", "d0e2acbf-fd40-975b-94c4-22d0765c5677"),
        ("1652923004442", "929a7aee-f796-93ad-4dd2-fce2acc3a845"),
        ("1652923003447", "5a189e8a-ac6e-eee2-9dbd-f70a4c135389"),
        ("1652923003973", "bb6c8b13-c5b3-b5ff-5cc6-0637101e0f53"),
        ("1652923003348", "4a4a719d-b304-25e1-75e2-798effc8c006"),
        ("1652923001497", "0bd03ed4-3f75-04e8-9c62-3d4652b78d87"),
    ];
    let gpus: Vec<Gpu> = (1..=8)
        .zip(expected)
        .map(|(n, (serial, uuid))| Gpu {
            model: text("H100 80GB HBM3"),
            manufacturer: text("NVIDIA"),
            serial: text(serial),
            uuid: text(uuid),
            part_number: text("2330-885-A1"),
            firmware_version: text("96.00.89.00.01"),
            pci_address: None,
            location: Some(format!("SXM{n}")),
            sources: vec![
                format!("/redfish/v1/Chassis/HGX_GPU_SXM_{n}"),
                format!("/redfish/v1/Chassis/HGX_GPU_SXM_{n}/PCIeDevices/GPU_SXM_{n}"),
                format!("/redfish/v1/Systems/HGX_Baseboard_0/Processors/GPU_SXM_{n}"),
            ],
        })
        .collect();
    assert_eq!(inventory.gpus, gpus);
}

#[tokio::test]
async fn a_gpu_whose_processor_cannot_be_read_is_told_by_its_other_views() {
    let Some(mut tree) = Tree::recorded("nvidia-dgx-h100") else { return };
    tree.fail("/redfish/v1/Systems/HGX_Baseboard_0/Processors/GPU_SXM_3");
    let inventory = read(&tree).await;
    let serials: BTreeSet<_> = inventory.gpus.iter().filter_map(|gpu| gpu.serial.as_deref()).collect();
    assert_eq!((inventory.gpus.len(), serials.len()), (8, 8));
    assert!(serials.contains("1652923004252"));
}

#[tokio::test]
async fn a_dgx_h100_is_told_as_its_host_and_not_as_its_baseboard() {
    let Some(tree) = Tree::recorded("nvidia-dgx-h100") else { return };
    let inventory = read(&tree).await;
    assert_eq!(inventory.identity.model, text("DGXH100"));
    assert_eq!(inventory.identity.manufacturer, text("NVIDIA"));
    assert_eq!(inventory.identity.serial, text("1662923610124"));
    assert_eq!(inventory.identity.uuid, text("b11dd4f2-bfde-1000-02bc-5cff35fbe6e9"));
    assert_eq!(inventory.identity.sku, text("920-24387-2540-000"));
    assert_eq!(inventory.identity.part_number, None, "the recording has a blank");
    assert_eq!(inventory.bmc.firmware_version, text("23.11.20"));
    assert_eq!(inventory.bmc.macs, ["2a:1a:5a:bb:71:a5", "5c:ff:35:fb:e6:e9"]);
    let cpus: Vec<_> =
        inventory.processors.iter().map(|cpu| (cpu.id.as_str(), cpu.cores, cpu.threads)).collect();
    assert_eq!(cpus, [("DevType1_CPU0", Some(56), Some(112)), ("DevType1_CPU1", Some(56), Some(112))]);
    assert_eq!(inventory.memory_gib, Some(2048));
}

#[tokio::test]
async fn a_dgx_h100_has_its_nics_drives_tpm_firmware_and_roots_of_trust() {
    let Some(tree) = Tree::recorded("nvidia-dgx-h100") else { return };
    let inventory = read(&tree).await;
    assert_eq!(
        macs(&inventory),
        [
            "5c:ff:35:fe:04:b1",
            "6c:fe:54:41:15:78",
            "6c:fe:54:41:15:79",
            "94:6d:ae:aa:2a:19",
            "a0:88:c2:82:6e:52"
        ]
    );
    // the BMC's five virtual USB media are no drives
    let models: Vec<_> = inventory.drives.iter().filter_map(|drive| drive.model.as_deref()).collect();
    assert_eq!(models.iter().filter(|model| **model == "SAMSUNG MZ1L21T9HCLS-00A07").count(), 2);
    assert_eq!(models.iter().filter(|model| **model == "KCM6DRUL3T84").count(), 8);
    assert_eq!(inventory.drives.len(), 10);
    assert_eq!(inventory.tpm.len(), 1);
    assert_eq!(inventory.tpm[0].interface_type, text("TPM2_0"));
    assert_eq!(inventory.tpm[0].firmware_version, text("15.21"));
    assert_eq!(inventory.secure_boot, Some(false));
    assert_eq!(inventory.firmware.len(), 66);
    assert_eq!(inventory.component_integrity.len(), 17);
    let versioned: Vec<_> =
        inventory.component_integrity.iter().filter(|part| part.type_version.is_some()).collect();
    assert_eq!(versioned.len(), 2, "the literal `unknown` is no version");
    assert!(
        inventory.component_integrity.iter().all(|part| part.enabled == Some(true) && part.target.is_some())
    );
}

/// The digest is that of `openssl x509 -outform der | sha256sum`.
#[tokio::test]
async fn the_certificates_beside_the_gpus_of_a_dgx_h100_are_told_with_what_they_protect() {
    let Some(tree) = Tree::recorded("nvidia-dgx-h100") else { return };
    let inventory = read(&tree).await;
    let certificates = domain::gpu_views::certificates(&inventory.component_integrity, &inventory.gpus);
    assert_eq!(certificates.len(), 8);
    for (n, certificate) in (1..=8).zip(&certificates) {
        assert_eq!(certificate.component, format!("/redfish/v1/Chassis/HGX_ERoT_GPU_SXM_{n}"));
        let gpu = format!("/redfish/v1/Systems/HGX_Baseboard_0/Processors/GPU_SXM_{n}");
        assert_eq!(certificate.protects, [gpu]);
        assert_eq!(certificate.subject, text("CEC173x-S1 FMC LF"));
        assert_eq!(certificate.uuid, None);
    }
    assert_eq!(certificates[0].serial, text("8236F9CD4708AEC420361FB2E732964F4375A234"));
    assert_eq!(
        certificates[0].sha256.map(|digest| digest.to_string()),
        text("sha256:b6de749e20884de7a45fd91aae7c260945ceacd0e61075333b6f0cbd6a050097")
    );
    let leaves: BTreeSet<_> = certificates.iter().map(|certificate| certificate.sha256).collect();
    assert_eq!(leaves.len(), 8);
    let all = inventory.component_integrity.iter();
    assert!(all.clone().all(|part| part.certificate.as_ref().is_some_and(|shown| shown.leaf.is_some())));
    assert!(!codes(&inventory).contains(&"redfish.certificate.malformed"));
}

#[tokio::test]
async fn a_certificate_that_is_broken_or_gone_costs_a_diagnostic_and_nothing_else() {
    let Some(mut tree) = Tree::recorded("nvidia-dgx-h100") else { return };
    let chain = |n| format!("/redfish/v1/Chassis/HGX_ERoT_GPU_SXM_{n}/Certificates/CertChain");
    let before = read(&tree).await;
    tree.edit(&chain(1), |body| body["CertificateString"] = "-----BEGIN CERTIFICATE-----\nAAAA\n".into());
    tree.edit(&chain(2), |body| body["CertificateString"] = 7.into());
    tree.remove(&chain(3));
    let after = read(&tree).await;
    assert_eq!(after.gpus, before.gpus);
    let leaf = |id: &str| {
        let part = after.component_integrity.iter().find(|part| part.id == id).expect("a component");
        part.certificate.as_ref().map(|shown| shown.leaf.is_some())
    };
    let found = [1, 2, 3, 4].map(|n| leaf(&format!("HGX_ERoT_GPU_SXM_{n}")));
    assert_eq!(found, [Some(false), Some(false), Some(false), Some(true)]);
    let malformed = codes(&after).into_iter().filter(|code| *code == "redfish.certificate.malformed");
    assert_eq!(malformed.count(), 2);
    assert!(codes(&after).contains(&"redfish.resource.not-found"));
}

#[tokio::test]
async fn a_dgx_h100_takes_at_most_230_requests_of_its_4681_resources() {
    let Some(tree) = Tree::recorded("nvidia-dgx-h100") else { return };
    let inventory = read(&tree).await;
    assert!(tree.len() >= 4_681);
    assert!(inventory.requests.count <= 230, "{} requests", inventory.requests.count);
    assert_eq!(inventory.requests.count, tree.asked().len() as u64);
    let distinct: BTreeSet<String> = tree.asked().into_iter().collect();
    assert_eq!(distinct.len(), tree.asked().len(), "a resource was asked for twice");
}

#[tokio::test]
async fn a_dell_server_is_known_by_its_service_tag() {
    let Some(tree) = Tree::recorded("dell-poweredge") else { return };
    let inventory = read(&tree).await;
    assert_eq!(inventory.identity.manufacturer, text("Dell Inc."));
    assert_eq!(inventory.identity.model, text("PowerEdge R750"));
    assert_eq!(inventory.identity.serial, text("F54P1G3"));
    assert_eq!(inventory.identity.sku, text("F54P1G3"));
    assert_eq!(inventory.identity.uuid, text("4c4c4544-0035-3410-8050-c6c04f314733"));
    assert_eq!(inventory.identity.part_number, text("0WMWCRA01"));
    assert_eq!(inventory.bmc.firmware_version, text("6.00.30.00"));
    assert_eq!(inventory.bmc.macs, ["b0:7b:25:d6:51:82"]);
    assert_eq!(inventory.processors.len(), 2);
    assert!(inventory.processors.iter().all(|cpu| (cpu.cores, cpu.threads) == (Some(18), Some(36))));
    assert_eq!(inventory.memory_gib, Some(512));
}

#[tokio::test]
async fn a_dell_gpu_is_one_though_three_lists_show_it_and_matrox_video_is_none() {
    let Some(tree) = Tree::recorded("dell-poweredge") else { return };
    let inventory = read(&tree).await;
    let system = "/redfish/v1/Systems/System.Embedded.1";
    let gpu = Gpu {
        model: text("NVIDIA H100 PCIe"),
        manufacturer: text("NVIDIA Corporation"),
        serial: text("1654422007043"),
        uuid: None,
        part_number: text("699-21010-0200-600"),
        firmware_version: text("96.00.30.00.01"),
        // bus 23, device 0, function 0 in Dell's own list
        pci_address: text("0000:17:00.0"),
        location: None,
        sources: vec![
            format!("{system}/Oem/Dell/DellVideo/Video.Slot.2-1"),
            format!("{system}/PCIeDevices/23-0"),
            format!("{system}/Processors/Video.Slot.2-1"),
        ],
    };
    assert_eq!(inventory.gpus, [gpu]);
}

#[tokio::test]
async fn a_dell_server_has_its_nics_drives_and_firmware() {
    let Some(tree) = Tree::recorded("dell-poweredge") else { return };
    let inventory = read(&tree).await;
    assert_eq!(
        macs(&inventory),
        [
            "70:b5:e8:f0:52:dc",
            "70:b5:e8:f0:52:dd",
            "b8:3f:d2:90:97:c4",
            "b8:3f:d2:a4:1b:d2",
            "b8:3f:d2:a4:1b:d3",
            "e4:3d:1a:13:27:f0",
            "e4:3d:1a:13:27:f1"
        ]
    );
    assert_eq!(inventory.nics[6].model, text("BRCM 2P 25G SFP 57414S OCP NIC"));
    let serials: Vec<_> = inventory.drives.iter().filter_map(|drive| drive.serial.as_deref()).collect();
    assert_eq!(serials, ["61X0A002TCD8", "61M0A08ZTCD8", "61P0A06CTCD8"]);
    assert!(inventory.drives.iter().all(|drive| drive.capacity_bytes == Some(1_920_383_410_176)));
    assert_eq!(inventory.firmware.len(), 29);
    assert_eq!(inventory.tpm.len(), 1);
    assert_eq!(inventory.secure_boot, Some(false));
    assert_eq!(inventory.component_integrity, []);
    assert!(inventory.requests.count <= 80, "{} requests", inventory.requests.count);
}

#[tokio::test]
async fn a_lenovo_server_has_eight_gpus_without_model_and_its_pcie_switches_are_none() {
    let Some(tree) = Tree::recorded("lenovo-thinksystem") else { return };
    let inventory = read(&tree).await;
    let expected = [
        "1325322005680",
        "1325322003616",
        "1325322002274",
        "1325322002694",
        "1325322003757",
        "1325322004602",
        "1325222037741",
        "1325222038061",
    ];
    let gpus: Vec<Gpu> = (1..=8)
        .zip(expected)
        .map(|(n, serial)| Gpu {
            model: None,
            manufacturer: text("NVIDIA Corporation"),
            serial: text(serial),
            uuid: None,
            part_number: text("26B5-895-A1"),
            firmware_version: text("95.02.39.00.01"),
            pci_address: None,
            location: Some(format!("PCIe {}", n + 2)),
            sources: vec![
                format!("/redfish/v1/Chassis/1/PCIeDevices/slot_{}", n + 2),
                format!("/redfish/v1/Systems/1/Processors/GPU{n}"),
            ],
        })
        .collect();
    assert_eq!(inventory.gpus, gpus);
}

#[tokio::test]
async fn a_lenovo_server_has_its_identity_nics_drives_and_firmware() {
    let Some(tree) = Tree::recorded("lenovo-thinksystem") else { return };
    let inventory = read(&tree).await;
    assert_eq!(inventory.identity.manufacturer, text("Lenovo"));
    assert_eq!(inventory.identity.model, text("ThinkSystem SR670 V2"));
    assert_eq!(inventory.identity.serial, text("J105958B"));
    assert_eq!(inventory.identity.sku, text("7Z23CTO1WW"));
    assert_eq!(inventory.identity.uuid, text("6173ecec-6ef5-11ee-834a-0a8fc3a58a71"));
    assert_eq!(inventory.bmc.firmware_version, text("TGBT42S 2.83 2023-07-05"));
    assert_eq!(
        macs(&inventory),
        [
            "00:62:0b:4c:28:4e",
            "00:62:0b:4c:28:4f",
            "00:62:0b:4c:28:50",
            "00:62:0b:4c:28:51",
            "0a:8f:c3:a5:8a:71"
        ]
    );
    assert_eq!(inventory.nics[0].model, text("BCM5719"));
    assert_eq!(inventory.drives.len(), 4);
    assert_eq!(inventory.firmware.len(), 43);
    assert_eq!(inventory.processors.len(), 2);
    assert_eq!(inventory.memory_gib, Some(1024));
    assert!(inventory.requests.count <= 110, "{} requests", inventory.requests.count);
}

#[tokio::test]
async fn the_dmtf_rack_mount_has_one_cpu_one_graphics_card_and_no_fpga_among_them() {
    let Some(tree) = Tree::recorded("dmtf-rackmount") else { return };
    let inventory = read(&tree).await;
    assert_eq!(inventory.identity.manufacturer, text("Contoso"));
    assert_eq!(inventory.identity.model, text("3500"));
    assert_eq!(inventory.identity.serial, text("437XR1138R2"));
    assert_eq!(inventory.identity.uuid, text("38947555-7742-3448-3784-823347823834"));
    assert_eq!(inventory.identity.sku, text("8675309"));
    assert_eq!(inventory.identity.part_number, text("224071-J23"));
    // CPU2's socket is empty
    assert_eq!(inventory.processors.len(), 1);
    assert_eq!(inventory.gpus.len(), 1);
    assert_eq!(inventory.gpus[0].serial, text("2M220100SL"));
    assert_eq!(inventory.gpus[0].sources, ["/redfish/v1/Systems/437XR1138R2/GraphicsControllers/GPU1"]);
    // the permanent address identifies an interface; a VLAN on it is no second one
    assert_eq!(macs(&inventory), ["12:44:6a:3b:04:11", "12:44:6a:3b:88:90", "aa:bb:cc:dd:ee:fe"]);
    assert_eq!(inventory.drives.len(), 2, "two of four bays are empty");
    assert_eq!(inventory.tpm[0].interface_type, text("TPM1_2"));
    assert_eq!(inventory.secure_boot, Some(false));
    assert_eq!(inventory.firmware.len(), 3);
    let parts: Vec<_> = inventory.component_integrity.iter().map(|part| part.id.as_str()).collect();
    assert_eq!(parts, ["SS-SPDM-0", "TPM-0", "USB-Integrity"]);
    assert_eq!(inventory.component_integrity[2].enabled, Some(false));
}

/// Every text of the inventory stands in the recording.
#[tokio::test]
async fn nothing_is_invented() {
    for name in ALL {
        let Some(tree) = Tree::recorded(name) else { continue };
        let inventory = read(&tree).await;
        let all = tree.everything().to_lowercase();
        let mut document = serde_json::to_value(&inventory).expect("JSON");
        let object = document.as_object_mut().expect("an object");
        object.remove("diagnostics");
        // what a certificate says stands in its DER
        for part in object["componentIntegrity"].as_array_mut().expect("a list") {
            part["certificate"] = Value::Null;
        }
        let mut texts = BTreeSet::new();
        collect(&document, &mut texts);
        for text in texts {
            // the one value that is composed: bus, device and function of Dell's list
            if text != "0000:17:00.0" {
                assert!(all.contains(&text.to_lowercase()), "{name}: `{text}` is not in the recording");
            }
        }
    }
}

fn collect(value: &Value, texts: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            texts.insert(text.clone());
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, texts)),
        Value::Object(object) => object.values().for_each(|value| collect(value, texts)),
        _ => {}
    }
}

#[tokio::test]
async fn nothing_is_listed_twice() {
    for name in ALL {
        let Some(tree) = Tree::recorded(name) else { continue };
        let inventory = read(&tree).await;
        let unique = |keys: Vec<String>| keys.len() == keys.iter().collect::<BTreeSet<_>>().len();
        assert!(unique(inventory.nics.iter().map(|nic| nic.mac.clone()).collect()), "{name}: NICs");
        assert!(unique(inventory.firmware.iter().map(|part| part.id.clone()).collect()), "{name}: firmware");
        assert!(
            unique(inventory.component_integrity.iter().map(|part| part.id.clone()).collect()),
            "{name}: integrity"
        );
        assert!(
            unique(inventory.drives.iter().filter_map(|drive| drive.serial.clone()).collect()),
            "{name}: drives"
        );
        assert!(
            unique(inventory.gpus.iter().flat_map(|gpu| gpu.sources.clone()).collect()),
            "{name}: GPU sources"
        );
    }
}

#[tokio::test]
async fn the_inventory_is_the_same_whatever_the_bmc_makes_of_expand() {
    for name in ALL {
        let Some(mut tree) = Tree::recorded(name) else { continue };
        let mut plain = read(&tree).await;
        let asked = plain.requests.count;
        for expand in [Expand::Refused, Expand::Served, Expand::Without(&["SerialNumber", "Id"])] {
            tree.expand = expand;
            let mut other = read(&tree).await;
            match expand {
                Expand::Served if name != "nvidia-dgx-h100" => assert!(
                    other.requests.count * 3 < asked * 2,
                    "{name}: {} requests with $expand, {asked} without",
                    other.requests.count
                ),
                _ => assert!(
                    other.requests.count <= asked + 1,
                    "{name}: {} requests, {expand:?}",
                    other.requests.count
                ),
            }
            for inventory in [&mut plain, &mut other] {
                inventory.requests = domain::inventory::Requests::default();
                // one recorded resource has no @odata.id, which shows when it is expanded
                let about_expand = ["redfish.expand.unusable", "redfish.collection.entry"];
                inventory.diagnostics.retain(|diagnostic| !about_expand.contains(&diagnostic.code.as_str()));
            }
            assert_eq!(plain, other, "{name}, {expand:?}");
        }
    }
}

#[tokio::test]
async fn the_recordings_need_no_more_diagnostics_than_these() {
    let expected = [
        // Systems/DGX/Storage is recorded without members
        ("nvidia-dgx-h100", vec!["redfish.collection.malformed"]),
        ("dell-poweredge", vec!["redfish.expand.unusable"]),
        ("lenovo-thinksystem", vec!["redfish.expand.unusable"]),
        ("dmtf-rackmount", vec!["redfish.expand.unusable"]),
    ];
    for (name, expected) in expected {
        let Some(tree) = Tree::recorded(name) else { continue };
        assert_eq!(codes(&read(&tree).await), expected, "{name}");
    }
}

#[tokio::test]
async fn every_inventory_is_valid_by_its_published_schema() {
    let schema = serde_json::to_value(schemars::schema_for!(Inventory)).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a valid schema");
    assert!(!validator.is_valid(&serde_json::json!({"gpus": 1})), "the schema takes anything");
    for name in ALL {
        let Some(tree) = Tree::recorded(name) else { continue };
        let document = serde_json::to_value(read(&tree).await).expect("JSON");
        let errors: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new(), "{name}");
    }
}

#[tokio::test]
async fn two_readings_of_one_tree_are_equal() {
    for name in ALL {
        let Some(tree) = Tree::recorded(name) else { continue };
        let mut first = read(&tree).await;
        let mut second = read(&tree).await;
        (first.requests.elapsed_ms, second.requests.elapsed_ms) = (0, 0);
        assert_eq!(first, second, "{name}");
    }
}

fn attribute(inventory: &Inventory, name: &str) -> Option<String> {
    inventory.bios.attributes.as_ref().expect("attributes").get(name).map(ToString::to_string)
}

#[tokio::test]
async fn every_recorded_maker_tells_its_bios_and_its_settings() {
    // version, registry, attributes without passwords and overlong values, one of them
    let expected = [
        ("nvidia-dgx-h100", "1.1.3", "BiosAttributeRegistry113.1.1.3", 217, ("VTdSupport", "Enable")),
        ("dell-poweredge", "1.8.2", "BiosAttributeRegistry.v1_0_3", 444, ("SriovGlobalEnable", "Enabled")),
        (
            "lenovo-thinksystem",
            "U8E122J",
            "BiosAttributeRegistry.1.0.0",
            347,
            ("DevicesandIOPorts_SRIOV", "Enabled"),
        ),
        (
            "dmtf-rackmount",
            "P79 v1.45 (12/06/2017)",
            "BiosAttributeRegistryP89.v1_0_0",
            10,
            ("ProcCoreDisable", "0"),
        ),
    ];
    for (name, version, registry, attributes, (known, value)) in expected {
        let Some(tree) = Tree::recorded(name) else { continue };
        let inventory = read(&tree).await;
        assert_eq!(inventory.bios.version, text(version), "{name}");
        assert_eq!(inventory.bios.registry, text(registry), "{name}");
        assert_eq!(
            inventory.bios.attributes.as_ref().map(std::collections::BTreeMap::len),
            Some(attributes),
            "{name}"
        );
        assert_eq!(attribute(&inventory, known), text(value), "{name}");
    }
}

#[tokio::test]
async fn no_password_and_no_hash_of_one_leaves_a_bios() {
    for name in ALL {
        let Some(tree) = Tree::recorded(name) else { continue };
        let document = serde_json::to_string(&read(&tree).await).expect("JSON");
        for secret in ["SetupPassword", "ChapSecret", "PasswordSalt", "AdminPassword", "19D28380D586B21F"] {
            assert!(!document.contains(secret), "{name}: {secret}");
        }
    }
}

#[tokio::test]
async fn every_recorded_maker_tells_whether_its_host_may_talk_to_its_bmc() {
    let expected = [
        ("nvidia-dgx-h100", "Self", true),
        ("dell-poweredge", "Host.1", false),
        ("lenovo-thinksystem", "1", false),
        ("dmtf-rackmount", "1", true),
    ];
    for (name, id, enabled) in expected {
        let Some(tree) = Tree::recorded(name) else { continue };
        let interfaces = read(&tree).await.host_interfaces.expect("a list");
        let told: Vec<_> = interfaces.iter().map(|one| (one.id.as_str(), one.enabled)).collect();
        assert_eq!(told, [(id, Some(enabled))], "{name}");
    }
}

/// A lost interface is one whose state is not known; a list that cannot be read is no list.
#[tokio::test]
async fn a_host_interface_that_cannot_be_read_is_unknown() {
    let interface = "/redfish/v1/Managers/1/HostInterfaces";
    let Some(mut tree) = Tree::recorded("lenovo-thinksystem") else { return };
    tree.fail(&format!("{interface}/1"));
    assert_eq!(read(&tree).await.host_interfaces.expect("a list")[0].enabled, None);
    tree.fail(interface);
    assert_eq!(read(&tree).await.host_interfaces, None);
}

/// Every source is a resource of the recording, and each part of the inventory that can be held against a profile has one.
#[tokio::test]
async fn every_value_names_where_it_was_told() {
    for name in ALL {
        let Some(tree) = Tree::recorded(name) else { continue };
        let inventory = read(&tree).await;
        for part in ["identity", "bios", "bios.version", "bmc", "secureBoot", "tpm", "hostInterfaces"] {
            assert!(inventory.sources.contains_key(part), "{name}: {part}");
        }
        let asked: BTreeSet<String> =
            tree.asked().into_iter().map(|uri| uri.trim_end_matches('/').to_owned()).collect();
        let firmware = inventory.firmware.iter().flat_map(|firmware| &firmware.sources);
        for source in inventory.sources.values().chain(firmware) {
            assert!(asked.contains(source), "{name}: {source} was not read");
        }
    }
}
