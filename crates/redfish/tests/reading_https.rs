//! Reading over HTTPS with the real client, from simulated BMCs: what is visible in HTTP, and that recordings and models read
//! the same there as in memory.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "tests fail by panicking; clippy.toml covers test functions, not the helpers of an integration test"
)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use bailiwick_redfish::{Client, Credentials, Options, Target, Trust, WalkOptions, inventory};
use domain::inventory::{Inventory, Requests};
use serde_json::{Value, json};
use sim::{Action, Behaviour, Bmc, Expand, Fault, Model, RunningBmc};
use support::machine::{HOST, machine};
use support::tree::Tree;

async fn read(bmc: &RunningBmc) -> Inventory {
    let pin = bmc.pin().parse().expect("a pin");
    let target = Target::new(bmc.url(), Trust::Pin(pin));
    let options = Options { credentials: Some(Credentials::new("admin", "simulated")), ..Options::default() };
    let client = Client::connect(target, options).await.expect("a connection");
    let inventory = inventory(&client, &WalkOptions::default()).await.expect("an inventory");
    client.close().await;
    inventory
}

/// A BMC that shows this tree.
async fn serve(tree: &Tree, behaviour: Behaviour) -> RunningBmc {
    let tree = sim::Tree::from_values(tree.entries());
    Bmc::builder(tree).behaviour(behaviour).start().await.expect("a BMC")
}

/// Without what differs between two ways of reading one machine.
fn facts(mut inventory: Inventory) -> Inventory {
    inventory.requests = Requests::default();
    inventory.diagnostics.clear();
    inventory
}

fn codes(inventory: &Inventory) -> Vec<&str> {
    inventory.diagnostics.iter().map(|diagnostic| diagnostic.code.as_str()).collect()
}

fn recording(name: &str) -> Option<PathBuf> {
    Tree::recorded(name)?;
    Some(Tree::folder().join(format!("{name}.tar.gz")))
}

#[tokio::test]
async fn every_recording_reads_the_same_over_https_as_in_memory() {
    for name in ["nvidia-dgx-h100", "dell-poweredge", "lenovo-thinksystem", "dmtf-rackmount"] {
        let Some(path) = recording(name) else { continue };
        let tree = Tree::recorded(name).expect("the recording");
        let expected = inventory(&tree, &WalkOptions::default()).await.expect("an inventory");
        let bmc = Bmc::builder(sim::Tree::from_tar_gz(path).expect("a tree")).start().await.expect("a BMC");
        let found = read(&bmc).await;
        assert!(found.requests.count <= 230, "{name}: {} requests", found.requests.count);
        assert_eq!(facts(found), facts(expected), "{name}");
        assert_eq!(bmc.counters().live_sessions, 0, "{name}: a session was leaked");
    }
}

#[tokio::test]
async fn the_requests_told_are_those_the_bmc_saw() {
    let bmc = serve(&machine(), Behaviour::default()).await;
    let inventory = read(&bmc).await;
    // this machine has no session service, so nothing follows the inventory
    assert_eq!(inventory.requests.count, bmc.counters().requests);
}

#[tokio::test]
async fn every_model_has_the_gpus_it_says_and_all_that_identifies_them() {
    for model in Model::ALL {
        let bmc = Bmc::builder(model.tree()).behaviour(model.behaviour()).start().await.expect("a BMC");
        let inventory = read(&bmc).await;
        assert_eq!(inventory.gpus.len(), model.gpu_count(), "{model}: {:?}", inventory.gpus);
        assert!(inventory.gpus.iter().all(|gpu| gpu.serial.is_some() && gpu.model.is_some()), "{model}");
        assert!(inventory.identity.serial.is_some() && inventory.identity.model.is_some(), "{model}");
        assert!(
            !inventory.nics.is_empty() && !inventory.firmware.is_empty() && !inventory.processors.is_empty(),
            "{model}"
        );
    }
}

#[tokio::test]
async fn quirk_19_whatever_a_bmc_makes_of_expand_its_inventory_is_the_same() {
    let plain = {
        let mut tree = machine();
        tree.set("/redfish/v1", "ProtocolFeaturesSupported", json!({}));
        read(&serve(&tree, Behaviour::default()).await).await
    };
    assert!(!codes(&plain).contains(&"redfish.expand.unusable"));
    for expand in [Expand::Rejected, Expand::Ignored, Expand::DropsFields] {
        let bmc = serve(&machine(), Behaviour { expand, ..Behaviour::default() }).await;
        bmc.record_requests();
        let inventory = read(&bmc).await;
        assert!(codes(&inventory).contains(&"redfish.expand.unusable"), "{expand:?}");
        assert!(inventory.requests.count <= plain.requests.count + 1, "{expand:?}");
        let expanding =
            bmc.recorded_requests().iter().filter(|request| request.target.contains("$expand")).count();
        assert_eq!(expanding, 1, "{expand:?}");
        assert_eq!(facts(inventory), facts(plain.clone()), "{expand:?}");
    }
    let bmc = serve(&machine(), Behaviour::default()).await;
    let inventory = read(&bmc).await;
    assert!(inventory.requests.count < plain.requests.count, "$expand that works saves requests");
    assert_eq!(facts(inventory), facts(plain));
}

#[tokio::test]
async fn quirk_20_a_collection_that_pages_is_read_to_its_end() {
    let mut tree = machine();
    tree.put_firmware(168);
    let whole = read(&serve(&tree, Behaviour::default()).await).await;
    assert_eq!(whole.firmware.len(), 168);
    for size in [1, 50, 75] {
        let paged = sim::Tree::from_values(tree.entries()).paged(size);
        let bmc = Bmc::builder(paged).start().await.expect("a BMC");
        assert_eq!(facts(read(&bmc).await), facts(whole.clone()), "pages of {size}");
    }
}

#[tokio::test]
async fn quirk_20_a_page_that_fails_is_told() {
    let mut tree = machine();
    tree.put_firmware(168);
    tree.set("/redfish/v1", "ProtocolFeaturesSupported", json!({}));
    let paged = sim::Tree::from_values(tree.entries()).paged(75);
    let broken = Fault::on(
        "/redfish/v1/UpdateService/FirmwareInventory?$skip=75",
        Action::Status { code: 404, body: String::new(), headers: std::collections::BTreeMap::new() },
    );
    let bmc = Bmc::builder(paged).fault(broken).start().await.expect("a BMC");
    let inventory = read(&bmc).await;
    assert_eq!(inventory.firmware.len(), 75);
    assert!(codes(&inventory).contains(&"redfish.collection.incomplete"), "{:?}", inventory.diagnostics);
}

#[tokio::test]
async fn quirk_21_null_members_are_an_empty_collection() {
    let mut tree = machine();
    tree.set("/redfish/v1/Systems/Host/Processors", "Members", Value::Null);
    let inventory = read(&serve(&tree, Behaviour::default()).await).await;
    assert_eq!((inventory.gpus.len(), inventory.processors.len()), (0, 0));
}

#[tokio::test]
async fn quirk_22_missing_root_links_are_replaced_by_the_usual_paths() {
    let mut tree = machine();
    tree.edit("/redfish/v1", |root| {
        for field in ["Systems", "Managers", "Chassis"] {
            root.as_object_mut().expect("an object").remove(field);
        }
    });
    let inventory = read(&serve(&tree, Behaviour::default()).await).await;
    assert_eq!(inventory.identity.serial.as_deref(), Some("HOST-1"));
    assert_eq!(inventory.bmc.firmware_version.as_deref(), Some("2.0"));
}

#[tokio::test]
async fn quirk_24_the_host_is_found_though_its_baseboard_is_listed_first() {
    let mut tree = machine();
    let board = "/redfish/v1/Systems/Baseboard";
    tree.put(
        board,
        support::machine::resource(
            "ComputerSystem",
            "Baseboard",
            json!({"SerialNumber": "BOARD", "SystemType": "Physical"}),
        ),
    );
    tree.put("/redfish/v1/Systems", support::machine::collection(&[board, HOST]));
    let inventory = read(&serve(&tree, Behaviour::default()).await).await;
    assert_eq!(inventory.identity.serial.as_deref(), Some("HOST-1"));
}

#[tokio::test]
async fn quirk_19_a_collection_that_fails_to_expand_later_is_read_plainly() {
    let refuse = Fault::on(
        "/redfish/v1/Systems/Host/Processors?$expand=**",
        Action::Status { code: 500, body: String::new(), headers: std::collections::BTreeMap::new() },
    );
    let tree = Arc::new(sim::Tree::from_values(machine().entries()));
    let bmc = Bmc::builder(tree).fault(refuse).start().await.expect("a BMC");
    assert_eq!(read(&bmc).await.gpus.len(), 2);
}
