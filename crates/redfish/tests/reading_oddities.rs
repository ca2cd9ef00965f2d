//! Trees that misbehave in ways that no quirk is named for: stored errors, placeholders, cycles, resources that cannot be read.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking; clippy.toml covers test functions, not the helpers of an integration test"
)]

mod support;

use bailiwick_redfish::{ReadError, WalkOptions, inventory};
use serde_json::{Value, json};
use support::machine::{BOX, HOST, collection, link, machine, processor, put_processors, with_baseboard};
use support::reading::{count, has, read};
use support::tree::{Expand, Tree};

#[tokio::test]
async fn a_stored_error_body_is_no_resource() {
    let mut tree = machine();
    let error = json!({"error": {"code": "Base.1.8.GeneralError", "@Message.ExtendedInfo": [{"MessageId": "Base.1.8.X"}]}});
    tree.put_raw(&format!("{HOST}/Processors/GPU1"), error.clone());
    tree.put_raw(
        "/redfish/v1/UpdateService/FirmwareInventory/BIOS",
        json!({"@Message.ExtendedInfo": [{"MessageId": "X"}]}),
    );
    let inventory = read(&tree).await;
    assert_eq!(inventory.gpus.len(), 1);
    assert_eq!(inventory.firmware, []);
    assert_eq!(count(&inventory, "redfish.body.error"), 2);
}

#[tokio::test]
async fn placeholders_are_no_values() {
    for placeholder in [
        "N/A",
        "NA",
        "n/a",
        "None",
        "0",
        "00000000",
        "0000-0000",
        "0x0000",
        "STATIC:PPID",
        "Not Specified",
        "To be filled by O.E.M.",
        "unknown",
        "Unspecified",
        "  ",
        "",
        "FFFFFFFF",
        "Default string",
        "0123456789",
        "----",
    ] {
        let mut tree = machine();
        put_processors(
            &mut tree,
            [processor(
                "GPU0",
                "GPU",
                json!({
                    "SerialNumber": placeholder, "Model": placeholder, "PartNumber": placeholder, "UUID": placeholder,
                }),
            )],
        );
        for field in ["SerialNumber", "Model", "SKU", "PartNumber", "UUID", "Manufacturer"] {
            tree.set(HOST, field, json!(placeholder));
        }
        tree.remove(BOX);
        let inventory = read(&tree).await;
        assert_eq!(inventory.identity, domain::inventory::Identity::default(), "`{placeholder}`");
        let gpu = &inventory.gpus[0];
        let said = [&gpu.serial, &gpu.model, &gpu.part_number, &gpu.uuid];
        assert!(said.iter().all(|value| value.is_none()), "`{placeholder}`: {gpu:?}");
    }
}

#[tokio::test]
async fn identifiers_that_identify_nothing_are_no_values() {
    let mut tree = machine();
    for uuid in [
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "03000200-0400-0500-0006-000700080009",
    ] {
        tree.set(HOST, "UUID", json!(uuid));
        assert_eq!(read(&tree).await.identity.uuid, None, "{uuid}");
    }
    for mac in ["00:00:00:00:00:00", "FF:FF:FF:FF:FF:FF", ""] {
        tree.set("/redfish/v1/Systems/Host/EthernetInterfaces/1", "MACAddress", json!(mac));
        assert_eq!(read(&tree).await.nics, [], "{mac}");
    }
    tree.set(HOST, "MemorySummary", json!({"TotalSystemMemoryGiB": 0}));
    assert_eq!(read(&tree).await.memory_gib, None);
    tree.set(HOST, "TrustedModules", Value::Null);
    assert_eq!(read(&tree).await.tpm, []);
}

#[tokio::test]
async fn a_tree_with_cycles_ends_and_every_resource_is_read_once() {
    let mut tree = machine();
    tree.put(
        "/redfish/v1/Systems/Host/Processors",
        collection(&[
            "/redfish/v1/Systems/Host/Processors",
            HOST,
            "/redfish/v1/Systems/Host/Processors/GPU0",
            "/redfish/v1/Systems/Host/Processors/GPU0/",
            "/redfish/v1/Systems",
        ]),
    );
    tree.put("/redfish/v1/Chassis", collection(&["/redfish/v1/Chassis", BOX, BOX]));
    tree.set(BOX, "NetworkAdapters", link("/redfish/v1/Chassis"));
    tree.set(BOX, "PCIeDevices", link(BOX));
    let inventory = read(&tree).await;
    assert_eq!(inventory.gpus.len(), 1);
    assert!(has(&inventory, "redfish.collection.loop", "/redfish/v1/Chassis"));
    let mut asked: Vec<String> =
        tree.asked().into_iter().map(|uri| uri.trim_end_matches('/').to_owned()).collect();
    asked.sort();
    let total = asked.len();
    asked.dedup();
    assert_eq!(asked.len(), total);
}

#[tokio::test]
async fn what_is_not_a_redfish_service_is_an_error() {
    let missing = inventory(&Tree::default(), &WalkOptions::default()).await.expect_err("nothing there");
    assert_eq!(missing.code(), "bmc.not-redfish");
    let other = Tree::of([("/redfish/v1", json!({"hello": "world"}))]);
    let error = inventory(&other, &WalkOptions::default()).await.expect_err("no service root");
    assert_eq!(error.code(), "bmc.not-redfish");
}

#[tokio::test]
async fn systems_that_cannot_be_read_are_an_error() {
    let mut tree = machine();
    tree.fail("/redfish/v1/Systems");
    let error = inventory(&tree, &WalkOptions::default()).await.expect_err("no systems");
    assert!(matches!(error, ReadError::Status { status: 500, .. }));
    let mut tree = machine();
    tree.fail(HOST);
    let error = inventory(&tree, &WalkOptions::default()).await.expect_err("no host");
    assert!(matches!(error, ReadError::Status { status: 500, .. }));
}

#[tokio::test]
async fn anything_else_that_cannot_be_read_is_a_diagnostic() {
    let mut tree = machine();
    for path in
        ["/redfish/v1/Managers", "/redfish/v1/UpdateService", "/redfish/v1/Systems/Host/SecureBoot", BOX]
    {
        tree.fail(path);
    }
    tree.remove("/redfish/v1/Systems/Host/Storage/1");
    let inventory = read(&tree).await;
    assert_eq!(inventory.gpus.len(), 2);
    assert_eq!(inventory.secure_boot, None);
    assert_eq!(count(&inventory, "redfish.resource.refused"), 4);
    assert!(has(&inventory, "redfish.resource.not-found", "/redfish/v1/Systems/Host/Storage/1"));
}

#[tokio::test]
async fn every_code_that_reading_gives_is_listed() {
    let codes: Vec<&str> = bailiwick_redfish::decode::CODES.iter().map(|(code, ..)| *code).collect();
    assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "sorted and told once");
    let mut tree = with_baseboard();
    tree.expand = Expand::Refused;
    tree.set(HOST, "UUID", json!(1));
    tree.edit("/redfish/v1", |root| {
        root.as_object_mut().expect("an object").remove("Systems");
    });
    for diagnostic in read(&tree).await.diagnostics {
        let known = codes.contains(&diagnostic.code.as_str())
            || bailiwick_redfish::error::CODES.iter().any(|(code, ..)| *code == diagnostic.code);
        assert!(known, "{} is not listed", diagnostic.code);
    }
}

#[tokio::test]
async fn a_bmc_lost_in_the_middle_is_an_error_and_is_left_alone() {
    let whole = read(&machine()).await.requests.count;
    for requests in 0..usize::try_from(whole).expect("few") {
        let mut tree = machine();
        tree.lost_after = Some(requests);
        let error = inventory(&tree, &WalkOptions::default()).await.expect_err("the BMC is gone");
        assert_eq!(error.code(), "bmc.deadline", "after {requests} requests");
        // those that were on their way when it got lost, and none after that
        assert!(tree.asked().len() <= requests + 12, "{} requests after {requests}", tree.asked().len());
    }
}

#[tokio::test]
async fn drives_that_only_a_collection_of_the_chassis_lists_are_found() {
    let mut tree = machine();
    let drive = "/redfish/v1/Systems/Host/Storage/1/Drives/1";
    tree.put("/redfish/v1/Systems/Host/Storage", collection(&[]));
    tree.put("/redfish/v1/Chassis/Box/Drives", collection(&[drive]));
    tree.set(BOX, "Drives", link("/redfish/v1/Chassis/Box/Drives"));
    assert_eq!(read(&tree).await.drives[0].serial.as_deref(), Some("DRIVE-1"));
}
