//! Reading from BMCs that misbehave as real ones do; the tests of a quirk carry its number. What is visible in HTTP is
//! tested again over HTTPS in `reading_https.rs`.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking; clippy.toml covers test functions, not the helpers of an integration test"
)]

mod support;

use bailiwick_redfish::{WalkOptions, inventory};
use serde_json::{Value, json};
use support::machine::{
    BMC, BOX, HOST, collection, link, machine, processor, put_processors, resource, with_baseboard,
};
use support::reading::{count, has, read};
use support::tree::{Expand, Tree};

fn firmware_paths(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("/redfish/v1/UpdateService/FirmwareInventory/F{n}")).collect()
}

const FIRMWARE: &str = "/redfish/v1/UpdateService/FirmwareInventory";

/// `total` components of firmware, listed in the pages given: path of the page, what it lists, where it leads.
fn with_firmware_pages(total: usize, pages: &[(&str, std::ops::Range<usize>, Option<&str>)]) -> Tree {
    let mut tree = machine();
    for path in firmware_paths(0..total) {
        let id = path.rsplit('/').next().expect("an id").to_owned();
        tree.put(&path, resource("SoftwareInventory", &id, json!({"Version": "1"})));
    }
    for (page, range, next) in pages {
        let paths = firmware_paths(range.clone());
        let mut body = collection(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        body["Members@odata.count"] = json!(total);
        if let Some(next) = next {
            body["Members@odata.nextLink"] = json!(next);
        }
        tree.put(page, body);
    }
    tree.expand = Expand::Refused;
    tree
}

#[tokio::test]
async fn a_machine_with_nothing_wrong_is_read_without_diagnostics() {
    let mut tree = machine();
    tree.expand = Expand::Served;
    let inventory = read(&tree).await;
    assert_eq!(inventory.diagnostics, []);
    assert_eq!(inventory.gpus.len(), 2);
    assert_eq!(inventory.processors.len(), 2);
    assert_eq!(inventory.identity.uuid.as_deref(), Some("5b1f5a1e-7d3a-4f6b-9a52-31fd5a3f0002"));
    assert_eq!(inventory.secure_boot, Some(true));
    assert_eq!(inventory.bmc.macs, ["02:00:00:00:00:fe"]);
    assert_eq!(inventory.nics[0].mac, "02:00:00:00:00:01");
}

#[tokio::test]
async fn quirk_13_malformed_enumerations_are_read_leniently() {
    let mut tree = machine();
    put_processors(
        &mut tree,
        [
            processor("CPU0", " cpu", json!({})),
            processor("GPU0", "Gpu", json!({"SerialNumber": "S0"})),
            processor("GPU1", "GPU", json!({"SerialNumber": "S1", "Status": {"State": "absent "}})),
        ],
    );
    tree.set("/redfish/v1/Systems/Host/SecureBoot", "SecureBootCurrentBoot", json!("ENABLED "));
    let inventory = read(&tree).await;
    assert_eq!(inventory.processors.len(), 1);
    assert_eq!(inventory.gpus.len(), 1);
    assert_eq!(inventory.secure_boot, Some(true));
}

#[tokio::test]
async fn quirk_19_a_server_that_ignores_expand_costs_no_request_more() {
    let mut tree = machine();
    tree.expand = Expand::Ignored;
    let ignored = read(&tree).await;
    let mut plain = machine();
    plain.edit("/redfish/v1", |root| {
        root.as_object_mut().expect("an object").remove("ProtocolFeaturesSupported");
    });
    let unsupported = read(&plain).await;
    // the listing that ignored the query is asked for once more without it
    assert!(ignored.requests.count <= unsupported.requests.count + 1);
    assert_eq!(ignored.gpus, unsupported.gpus);
    assert!(has(&ignored, "redfish.expand.unusable", "/redfish/v1/Chassis"));
    assert!(
        !plain.asked().iter().any(|uri| uri.contains("$expand")),
        "$expand was asked for though not advertised"
    );
}

#[tokio::test]
async fn quirk_19_a_server_that_refuses_expand_is_asked_once() {
    let mut tree = machine();
    tree.expand = Expand::Refused;
    let inventory = read(&tree).await;
    assert_eq!(tree.asked().iter().filter(|uri| uri.contains("$expand")).count(), 1);
    assert_eq!(count(&inventory, "redfish.expand.unusable"), 1);
    assert_eq!(inventory.gpus.len(), 2);
}

#[tokio::test]
async fn quirk_19_expanded_members_that_lack_fields_are_read_one_by_one() {
    for without in [&["SerialNumber"][..], &["Id", "Name", "@odata.type"], &["Links"]] {
        let mut tree = machine();
        tree.expand = Expand::Without(without);
        let inventory = read(&tree).await;
        assert_eq!(tree.asked().iter().filter(|uri| uri.contains("$expand")).count(), 1, "{without:?}");
        let serials: Vec<_> = inventory.gpus.iter().filter_map(|gpu| gpu.serial.as_deref()).collect();
        assert_eq!(serials, ["GPU-SERIAL-0", "GPU-SERIAL-1"], "{without:?}");
        assert_eq!(inventory.identity.serial.as_deref(), Some("HOST-1"), "{without:?}");
    }
}

#[tokio::test]
async fn quirk_19_expand_that_works_saves_requests() {
    let mut tree = machine();
    tree.expand = Expand::Ignored;
    let plain = read(&tree).await;
    tree = machine();
    tree.expand = Expand::Served;
    let expanded = read(&tree).await;
    assert!(expanded.requests.count < plain.requests.count);
    assert_eq!(expanded.gpus, plain.gpus);
}

#[tokio::test]
async fn quirk_20_every_page_of_a_collection_is_read() {
    let second = "/redfish/v1/UpdateService/FirmwareInventory?$skip=75";
    let tree = with_firmware_pages(100, &[(FIRMWARE, 0..75, Some(second)), (second, 75..100, None)]);
    let inventory = read(&tree).await;
    assert_eq!(inventory.firmware.len(), 100);
    assert_eq!(count(&inventory, "redfish.collection.incomplete"), 0);
}

#[tokio::test]
async fn quirk_20_odata_s_own_next_link_is_followed_too() {
    let second = "/redfish/v1/UpdateService/FirmwareInventory?$skip=2";
    let mut tree = with_firmware_pages(4, &[(FIRMWARE, 0..2, None), (second, 2..4, None)]);
    tree.set(FIRMWARE, "@odata.nextLink", json!(second));
    assert_eq!(read(&tree).await.firmware.len(), 4);
}

#[tokio::test]
async fn quirk_20_pages_that_list_everything_to_the_end_make_no_duplicates() {
    let (second, third) = (
        "/redfish/v1/UpdateService/FirmwareInventory?$skip=75",
        "/redfish/v1/UpdateService/FirmwareInventory?$skip=150",
    );
    let pages = [(FIRMWARE, 0..168, Some(second)), (second, 75..168, Some(third)), (third, 150..168, None)];
    let tree = with_firmware_pages(168, &pages);
    let inventory = read(&tree).await;
    assert_eq!(inventory.firmware.len(), 168);
    assert_eq!(count(&inventory, "redfish.collection.incomplete"), 0);
}

#[tokio::test]
async fn quirk_20_a_missing_page_is_harmless_if_every_member_is_known() {
    let second = "/redfish/v1/UpdateService/FirmwareInventory?$skip=75";
    let tree = with_firmware_pages(100, &[(FIRMWARE, 0..100, Some(second))]);
    let inventory = read(&tree).await;
    assert_eq!(inventory.firmware.len(), 100);
    assert_eq!(count(&inventory, "redfish.collection.incomplete"), 0);
}

#[tokio::test]
async fn quirk_20_a_missing_page_is_told_if_members_are_missing() {
    let second = "/redfish/v1/UpdateService/FirmwareInventory?$skip=75";
    let tree = with_firmware_pages(100, &[(FIRMWARE, 0..75, Some(second))]);
    let inventory = read(&tree).await;
    assert_eq!(inventory.firmware.len(), 75);
    assert!(has(&inventory, "redfish.collection.incomplete", FIRMWARE));
}

#[tokio::test]
async fn quirk_20_fewer_members_than_counted_are_told() {
    let tree = with_firmware_pages(10, &[(FIRMWARE, 0..7, None)]);
    let inventory = read(&tree).await;
    assert_eq!(inventory.firmware.len(), 7);
    assert!(has(&inventory, "redfish.collection.incomplete", FIRMWARE));
}

#[tokio::test]
async fn quirk_20_pages_in_a_circle_end() {
    let second = "/redfish/v1/UpdateService/FirmwareInventory?$skip=2";
    let tree = with_firmware_pages(4, &[(FIRMWARE, 0..2, Some(second)), (second, 2..4, Some(FIRMWARE))]);
    let inventory = read(&tree).await;
    assert_eq!(inventory.firmware.len(), 4);
    assert!(has(&inventory, "redfish.collection.loop", FIRMWARE));
    assert_eq!(tree.asked().iter().filter(|uri| *uri == FIRMWARE).count(), 1);
}

#[tokio::test]
async fn quirk_20_pages_without_end_end() {
    let mut tree = with_firmware_pages(1, &[]);
    for n in 0..50 {
        let mut body = collection(&["/redfish/v1/UpdateService/FirmwareInventory/F0"]);
        body["Members@odata.nextLink"] = json!(format!("{FIRMWARE}?$skip={}", n + 1));
        tree.put(&if n == 0 { FIRMWARE.to_owned() } else { format!("{FIRMWARE}?$skip={n}") }, body);
    }
    let options = WalkOptions { max_pages: 10, ..WalkOptions::default() };
    let inventory = inventory(&tree, &options).await.expect("an inventory");
    assert_eq!(inventory.firmware.len(), 1);
    assert!(has(&inventory, "redfish.collection.loop", FIRMWARE));
    assert!(tree.asked().iter().filter(|uri| uri.contains("$skip")).count() < 10);
}

#[tokio::test]
async fn quirk_21_null_members_are_an_empty_collection() {
    let mut tree = machine();
    tree.set("/redfish/v1/Systems/Host/Processors", "Members", Value::Null);
    tree.set("/redfish/v1/Systems/Host/Processors", "Members@odata.count", json!(0));
    let inventory = read(&tree).await;
    assert_eq!(inventory.gpus, []);
    assert_eq!(inventory.processors, []);
    assert!(
        !inventory.diagnostics.iter().any(|diagnostic| diagnostic.code.starts_with("redfish.collection"))
    );
}

#[tokio::test]
async fn quirk_22_missing_root_links_are_replaced_by_the_usual_paths() {
    let mut tree = machine();
    tree.edit("/redfish/v1", |root| {
        for field in ["Systems", "Managers", "Chassis"] {
            root.as_object_mut().expect("an object").remove(field);
        }
    });
    let inventory = read(&tree).await;
    assert_eq!(inventory.identity.serial.as_deref(), Some("HOST-1"));
    assert_eq!(inventory.bmc.firmware_version.as_deref(), Some("2.0"));
    assert_eq!(count(&inventory, "redfish.link.missing"), 3);
}

#[tokio::test]
async fn quirk_22_the_vendor_is_told_by_several_fields() {
    // the root tells the BMC's maker, the system the machine's
    for (root, oem, manufacturer) in [
        (json!("AMI"), json!({"Ami": {}}), "Dell Inc."),
        (Value::Null, json!({"Dell": {}}), "X"),
        (Value::Null, json!({}), "DELL"),
    ] {
        let mut tree = machine();
        tree.set("/redfish/v1", "Vendor", root);
        tree.set("/redfish/v1", "Oem", oem);
        tree.set(HOST, "Manufacturer", json!(manufacturer));
        assert_eq!(read(&tree).await.identity.serial.as_deref(), Some("SKU-1"), "{manufacturer}");
    }
}

#[tokio::test]
async fn quirk_23_a_host_without_managed_by_still_has_its_bmc() {
    let mut tree = machine();
    tree.set(HOST, "Links", json!({}));
    let inventory = read(&tree).await;
    assert_eq!(inventory.bmc.firmware_version.as_deref(), Some("2.0"));
    assert!(has(&inventory, "redfish.link.missing", HOST));
    // nor does the manager say whom it manages
    tree.set(BMC, "Links", json!({}));
    let inventory = read(&tree).await;
    assert_eq!(inventory.bmc.firmware_version.as_deref(), Some("2.0"));
}

#[tokio::test]
async fn quirk_24_the_host_is_found_by_links_and_not_by_position() {
    let inventory = read(&with_baseboard()).await;
    assert_eq!(inventory.identity.serial.as_deref(), Some("HOST-1"));
    assert_eq!(inventory.bmc.firmware_version.as_deref(), Some("2.0"));
    assert_eq!(inventory.memory_gib, Some(512));
    assert_eq!(inventory.gpus.len(), 3, "those of the baseboard are the machine's as well");
    assert_eq!(count(&inventory, "redfish.host.ambiguous"), 0);
}

#[tokio::test]
async fn quirk_24_a_baseboard_that_looks_like_a_host_is_none_if_the_links_say_so() {
    let mut tree = with_baseboard();
    let board = "/redfish/v1/Systems/Baseboard";
    for field in ["Bios", "SecureBoot", "EthernetInterfaces", "Storage", "Memory"] {
        tree.set(board, field, link("/redfish/v1/Nowhere"));
    }
    tree.set(board, "BiosVersion", json!("1"));
    tree.set(board, "TrustedModules", json!([]));
    tree.set(board, "SKU", json!("S"));
    // the host says next to nothing, but the manager of the service manages it
    for field in ["Bios", "SecureBoot", "BiosVersion", "TrustedModules", "Storage"] {
        tree.edit(HOST, |host| {
            host.as_object_mut().expect("an object").remove(field);
        });
    }
    assert_eq!(read(&tree).await.identity.serial.as_deref(), Some("HOST-1"));
}

#[tokio::test]
async fn quirk_24_without_links_a_host_is_known_by_what_only_a_host_has() {
    let mut tree = with_baseboard();
    for path in [HOST, "/redfish/v1/Systems/Baseboard", BMC, "/redfish/v1/Managers/Baseboard"] {
        tree.set(path, "Links", json!({}));
    }
    tree.edit(BMC, |bmc| {
        bmc.as_object_mut().expect("an object").remove("UUID");
    });
    assert_eq!(read(&tree).await.identity.serial.as_deref(), Some("HOST-1"));
}

#[tokio::test]
async fn quirk_25_wrong_types_cost_one_diagnostic_each_and_never_a_resource() {
    let mut tree = machine();
    put_processors(
        &mut tree,
        [
            processor("CPU0", "CPU", json!({"TotalCores": "32", "TotalThreads": {"no": 1}, "Model": 7})),
            processor(
                "GPU0",
                "GPU",
                json!({
                    "SerialNumber": 12345, "UUID": "", "Status": "OK",
                    "Location": {"PartLocation": {"ServiceLabel": "S1", "LocationOrdinalValue": "one"}},
                }),
            ),
        ],
    );
    tree.set(HOST, "MemorySummary", json!({"TotalSystemMemoryGiB": "1024"}));
    tree.set(HOST, "UUID", json!(["x"]));
    tree.set("/redfish/v1/Systems/Host/EthernetInterfaces/1", "PermanentMACAddress", json!(""));
    let inventory = read(&tree).await;
    assert_eq!(inventory.processors[0].cores, Some(32));
    assert_eq!(inventory.processors[0].threads, None);
    assert_eq!(inventory.processors[0].model.as_deref(), Some("7"));
    assert_eq!(inventory.gpus[0].serial.as_deref(), Some("12345"));
    assert_eq!(inventory.gpus[0].uuid, None);
    assert_eq!(inventory.gpus[0].location.as_deref(), Some("S1"));
    assert_eq!(inventory.memory_gib, Some(1024));
    assert_eq!(inventory.identity.uuid, None);
    assert_eq!(inventory.nics[0].mac, "02:00:00:00:00:01");
    let gpu = format!("{HOST}/Processors/GPU0");
    let cpu = format!("{HOST}/Processors/CPU0");
    let types = |path: &str| {
        let of = |d: &&domain::inventory::Diagnostic| d.path == path && d.code == "redfish.field.type";
        inventory.diagnostics.iter().filter(of).count()
    };
    assert_eq!((types(&cpu), types(&gpu), types(HOST)), (3, 2, 2), "{:?}", inventory.diagnostics);
}

#[tokio::test]
async fn quirk_25_a_value_that_is_none_of_its_kind_is_told_and_left_out() {
    let mut tree = machine();
    tree.set(HOST, "UUID", json!("not-a-uuid"));
    tree.set("/redfish/v1/Systems/Host/EthernetInterfaces/1", "MACAddress", json!("zz:zz"));
    let inventory = read(&tree).await;
    assert_eq!(inventory.identity.uuid, None);
    assert_eq!(inventory.nics, []);
    assert_eq!(count(&inventory, "redfish.field.value"), 2);
}

#[tokio::test]
async fn quirk_26_missing_required_fields_do_not_matter() {
    let mut tree = machine();
    for path in [BOX, BMC, "/redfish/v1/UpdateService", "/redfish/v1/UpdateService/FirmwareInventory/BIOS"] {
        tree.edit(path, |body| {
            for field in ["Id", "Name", "ChassisType", "ManagerType", "@odata.type"] {
                body.as_object_mut().expect("an object").remove(field);
            }
        });
    }
    let inventory = read(&tree).await;
    assert_eq!(inventory.bmc.firmware_version.as_deref(), Some("2.0"));
    assert_eq!(inventory.firmware[0].id, "BIOS", "the last part of the path");
    assert_eq!(inventory.firmware[0].name, None);
    assert_eq!(inventory.gpus.len(), 2);
}

#[tokio::test]
async fn quirk_27_dell_s_service_tag_is_the_serial_number_and_others_are_trimmed() {
    let mut tree = machine();
    tree.set(HOST, "Manufacturer", json!("Dell Inc."));
    tree.set(HOST, "SKU", json!("TAG7 "));
    let inventory = read(&tree).await;
    assert_eq!(inventory.identity.serial.as_deref(), Some("TAG7"));
    assert_eq!(inventory.identity.sku.as_deref(), Some("TAG7"));
    // no tag: the motherboard's is better than none, and told
    tree.set(HOST, "SKU", json!("Not Specified"));
    let inventory = read(&tree).await;
    assert_eq!(inventory.identity.serial.as_deref(), Some("HOST-1"));
    assert!(has(&inventory, "redfish.identity.fallback", HOST));
    tree.set(HOST, "Manufacturer", json!("HPE"));
    tree.set(HOST, "SKU", json!("P52560-B21"));
    tree.set(HOST, "SerialNumber", json!("  HPE-1   "));
    let inventory = read(&tree).await;
    assert_eq!(inventory.identity.serial.as_deref(), Some("HPE-1"));
    assert_eq!(inventory.identity.sku.as_deref(), Some("P52560-B21"));
}

#[tokio::test]
async fn quirk_28_versions_and_ids_of_firmware_stay_as_given() {
    let mut tree = machine();
    let bios = "/redfish/v1/UpdateService/FirmwareInventory/BIOS";
    tree.set(bios, "Id", json!("Bluefield_FW_BMC_0"));
    tree.set(bios, "Version", json!("GB200Nvl-25.01-9"));
    tree.set(BMC, "FirmwareVersion", json!("TGBT42S 2.83 2023-07-05"));
    let inventory = read(&tree).await;
    assert_eq!(inventory.firmware[0].id, "Bluefield_FW_BMC_0");
    assert_eq!(inventory.firmware[0].version.as_deref(), Some("GB200Nvl-25.01-9"));
    assert_eq!(inventory.bmc.firmware_version.as_deref(), Some("TGBT42S 2.83 2023-07-05"));
}

#[tokio::test]
async fn quirk_36_an_entry_without_its_path_is_used_in_place_or_skipped() {
    let mut tree = machine();
    let inline = resource("SoftwareInventory", "Inline", json!({"Version": "3"}));
    tree.edit(FIRMWARE, |body| {
        let members = body["Members"].as_array_mut().expect("an array");
        members.push(inline);
        members.push(json!({}));
        body["Members@odata.count"] = json!(3);
    });
    let inventory = read(&tree).await;
    let ids: Vec<_> = inventory.firmware.iter().map(|part| part.id.as_str()).collect();
    assert_eq!(ids, ["BIOS", "Inline"]);
    assert!(has(&inventory, "redfish.collection.entry", FIRMWARE));
    assert!(has(&inventory, "redfish.collection.incomplete", FIRMWARE), "one of three says nothing");
}

#[tokio::test]
async fn quirk_36_a_link_without_its_path_is_skipped() {
    let mut tree = machine();
    tree.set(
        "/redfish/v1/Systems/Host/Storage/1",
        "Drives",
        json!([{}, link("/redfish/v1/Systems/Host/Storage/1/Drives/1")]),
    );
    let inventory = read(&tree).await;
    assert_eq!(inventory.drives.len(), 1);
    assert!(has(&inventory, "redfish.collection.entry", "/redfish/v1/Systems/Host/Storage/1"));
}

#[tokio::test]
async fn quirk_43_null_entries_are_skipped() {
    let mut tree = machine();
    tree.edit("/redfish/v1/Systems/Host/Processors", |body| {
        body["Members"].as_array_mut().expect("an array").insert(0, Value::Null);
    });
    tree.set(HOST, "TrustedModules", json!([null, {"InterfaceType": "TPM2_0"}]));
    tree.set(
        "/redfish/v1/Systems/Host/Storage/1",
        "Drives",
        json!([null, link("/redfish/v1/Systems/Host/Storage/1/Drives/1")]),
    );
    let inventory = read(&tree).await;
    assert_eq!(inventory.gpus.len(), 2);
    assert_eq!(inventory.tpm.len(), 1);
    assert_eq!(inventory.drives.len(), 1);
}
