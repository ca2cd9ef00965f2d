//! From declared to enrolled, and what keeps a machine from it.

use crate::support::{Client, Rig, crypto, document, settings};
use bailiwick_cell::{Cell, Settings};
use serde_json::json;
use sim::{Model, Site};

fn one(model: Model) -> impl FnOnce(std::path::PathBuf) -> Site {
    move |state| Site::builder(state).machines(model, 1).build()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_rack_is_enrolled_with_its_gpus() {
    let rig = Rig::start(Site::quickstart_rack).await;
    rig.enrol_all().await;
    let machines = rig.client.get("/api/v1/machines").await;
    let machines = machines["items"].as_array().unwrap();
    assert_eq!(machines.len(), 8);
    for (shown, real) in machines.iter().zip(rig.site.machines()) {
        assert_eq!(shown["state"], "enrolled");
        assert_eq!(shown["jurisdiction"], "de");
        let serial = if real.model.contains("poweredge") { &real.sku } else { &real.serial };
        assert_eq!(shown["serial"], serial.as_str());
    }
    assert_eq!(rig.client.get("/api/v1/gpus").await["items"].as_array().unwrap().len(), 2 * 8 + 3 * 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_is_left_on_a_bmc() {
    let rig = Rig::start(one(Model::PowerEdgeXe)).await;
    rig.enrol_all().await;
    let machine = &rig.site.machines()[0];
    let counters = rig.site.bmc(&machine.name).unwrap().counters();
    assert_eq!(counters.live_sessions, 0);
    assert!(counters.logins >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_cell_finds_everything_enrolled_and_asks_no_bmc_again() {
    let rig = Rig::start(one(Model::CpuNode)).await;
    rig.enrol_all().await;
    let name = rig.site.machines()[0].name.clone();
    let rig = rig.restart().await;
    let before = rig.site.bmc(&name).unwrap().counters().requests;
    let plan = rig.client.apply(rig.declarations(), &rig.passwords()).await;
    assert_eq!(plan["changes"], json!([]));
    assert_eq!(rig.client.get("/api/v1/machines").await["items"][0]["state"], "enrolled");
    assert_eq!(rig.site.bmc(&name).unwrap().counters().requests, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_once_and_does_not_lock_the_account() {
    let rig = Rig::start(one(Model::CpuNode)).await;
    let name = rig.site.machines()[0].name.clone();
    rig.client.apply(rig.declarations(), &[(name.clone(), "wrong".to_owned())]).await;
    let event = rig.client.wait_for_event("machine.waiting", &name).await;
    assert_eq!(event["data"]["problem"]["code"], "bmc.unauthorized");
    let why = rig.client.get(&format!("/api/v1/machines/{name}/why")).await;
    assert_eq!(why["state"], "discovered");
    assert_eq!(why["waiting"]["problem"]["code"], "bmc.unauthorized");
    assert!(rig.site.bmc(&name).unwrap().counters().failed_logins <= 2);

    // The right password, applied, puts it right without waiting for the next try.
    rig.client.apply(rig.declarations(), &rig.passwords()).await;
    rig.client.wait_for_event("machine.enrolled", &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_for_an_enrolled_machine_leaves_a_login_for_the_right_one() {
    let rig = Rig::start(one(Model::CpuNode)).await;
    let name = rig.site.machines()[0].name.clone();
    rig.client.apply(rig.declarations(), &rig.passwords()).await;
    rig.client.wait_for_event("machine.enrolled", &name).await;
    let machine = async || rig.client.get(&format!("/api/v1/machines/{name}")).await;
    let first = machine().await["observedAt"].clone();
    rig.client.apply(rig.declarations(), &[(name.clone(), "wrong".to_owned())]).await;
    let told = rig.client.wait_for_event("machine.waiting", &name).await;
    assert_eq!(told["data"]["problem"]["code"], "bmc.unauthorized");

    rig.client.apply(rig.declarations(), &rig.passwords()).await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    while machine().await["observedAt"] == first {
        assert!(tokio::time::Instant::now() < deadline, "{:#}", machine().await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(rig.site.bmc(&name).unwrap().counters().failed_logins, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_another_serial_is_not_enrolled() {
    let rig = Rig::start(one(Model::CpuNode)).await;
    let name = rig.site.machines()[0].name.clone();
    let mut documents = rig.declarations();
    documents.last_mut().unwrap()["spec"]["serial"] = "OTHER".into();
    rig.client.apply(documents, &rig.passwords()).await;
    let event = rig.client.wait_for_event("machine.waiting", &name).await;
    assert_eq!(event["data"]["problem"]["code"], "machine.serial-mismatch");
    assert_eq!(event["data"]["problem"]["expected"], "OTHER");
    assert_eq!(event["data"]["problem"]["found"], rig.site.machines()[0].serial.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_pin_that_does_not_fit_is_refused_before_credentials_are_sent() {
    let rig = Rig::start(one(Model::CpuNode)).await;
    let name = rig.site.machines()[0].name.clone();
    let mut documents = rig.declarations();
    documents.last_mut().unwrap()["spec"]["bmc"]["pin"] = format!("sha256:{}", "0".repeat(64)).into();
    rig.client.apply(documents, &rig.passwords()).await;
    let event = rig.client.wait_for_event("machine.waiting", &name).await;
    assert_eq!(event["data"]["problem"]["code"], "bmc.pin-mismatch");
    let counters = rig.site.bmc(&name).unwrap().counters();
    assert_eq!((counters.requests, counters.logins), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_outside_the_sites_networks_is_never_connected_to() {
    let rig = Rig::start(one(Model::CpuNode)).await;
    let name = rig.site.machines()[0].name.clone();
    let mut documents = rig.declarations();
    documents[3]["spec"]["bmcNetworks"] = json!(["10.0.0.0/8"]);
    rig.client.apply(documents, &rig.passwords()).await;
    let event = rig.client.wait_for_event("machine.waiting", &name).await;
    assert_eq!(event["data"]["problem"]["code"], "bmc.address-outside-networks");
    assert_eq!(rig.site.bmc(&name).unwrap().counters().requests, 0);

    // A corrected site puts it right.
    rig.client.apply(rig.declarations(), &[]).await;
    rig.client.wait_for_event("machine.enrolled", &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_declarations_of_one_machine_are_told_apart_by_its_serial() {
    let rig = Rig::start(one(Model::CpuNode)).await;
    let machine = rig.site.machines()[0].clone();
    rig.enrol_all().await;
    let double = document(
        "Machine",
        "double",
        json!({
            "site": "fra1",
            "bmc": { "address": format!("{}:{}", machine.address, machine.port), "username": machine.username, "passwordFile": "pw" },
        }),
    );
    rig.client.apply(vec![double], &[("double".to_owned(), machine.password.clone())]).await;
    let event = rig.client.wait_for_event("machine.waiting", "double").await;
    assert_eq!(event["data"]["problem"]["code"], "machine.duplicate-serial");
    assert!(event["data"]["problem"].to_string().contains(&machine.name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_another_jurisdictions_site_is_refused_with_every_reason_at_once() {
    let rig = Rig::start(one(Model::CpuNode)).await;
    let mut documents = rig.declarations();
    documents[1] = document("Jurisdiction", "us", json!({}));
    documents[3]["spec"]["jurisdiction"] = "us".into();
    documents[5]["spec"]["jurisdiction"] = "nowhere".into();
    let (status, problem) = rig.client.plan(documents, &rig.passwords()).await;
    assert_eq!(status, 422);
    let codes: Vec<_> =
        problem["problems"].as_array().unwrap().iter().map(|p| p["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["jurisdiction.outside-cell", "declaration.dangling"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_nobody_here_wrote_enrols_with_diagnostics() {
    let sushy = testbed::SushyEmulator::start().await.unwrap();
    let rig = Rig::start(one(Model::CpuNode)).await;
    let mut documents = crate::support::world();
    documents.push(document(
        "Machine",
        "sushy",
        json!({ "site": "fra1", "bmc": { "address": sushy.address().to_string(), "username": sushy.username(), "passwordFile": "pw" } }),
    ));
    rig.client.apply(documents, &[("sushy".to_owned(), sushy.password().to_owned())]).await;
    rig.client.wait_for_event("machine.enrolled", "sushy").await;
    let machine = rig.client.get("/api/v1/machines/sushy").await;
    let uuid = machine["inventory"]["identity"]["uuid"].as_str().unwrap().to_owned();
    assert!(sushy.system_uuids().any(|known| known.eq_ignore_ascii_case(&uuid)), "{uuid}");
    assert_ne!(machine["inventory"]["diagnostics"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_on_postgresql_enrols_and_remembers_as_one_on_sqlite_does() {
    crypto();
    let postgres = testbed::Postgres::start().await.unwrap();
    postgres.create_database("cell").await.unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let site = one(Model::PowerEdgeXe)(dir.path().join("site")).start().await.unwrap();
    let settings = || Settings { database_url: Some(postgres.url("cell")), ..settings(&dir) };
    let cell = Cell::start(settings()).await.unwrap();
    let client = Client::of(&cell);
    let rig = Rig { dir: tempfile::TempDir::new().unwrap(), site, cell, client };
    rig.enrol_all().await;
    rig.client.wait_until_published().await;
    rig.cell.shutdown().await;
    let cell = Cell::start(settings()).await.unwrap();
    let machines = Client::of(&cell).get("/api/v1/machines").await;
    assert_eq!(machines["items"][0]["state"], "enrolled");
    assert_eq!(machines["items"][0]["gpus"], 4);
    cell.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_provisioning_service_a_machine_says_which_key_names_one() {
    let rig = Rig::start(one(Model::CpuNode)).await;
    rig.enrol_all().await;
    let name = &rig.site.machines()[0].name;
    let why = rig.client.get(&format!("/api/v1/machines/{name}/why")).await;
    assert_eq!(why["blocked"]["code"], "provision.not-configured", "{why}");
    assert_eq!((&why["waiting"], &why["doing"]), (&json!(null), &json!(null)), "it waits for no inspection");
    assert!(why["unblock"].as_str().unwrap().contains("`ironic-url`"), "{why}");

    // One that somebody wants waits for it, with the same code.
    let wanted = document("Assignment", name, json!({ "baseCluster": "pool" }));
    rig.client.apply(vec![crate::line::pool(), wanted], &[]).await;
    let told = rig.client.wait_for_event("machine.waiting", name).await;
    assert_eq!(told["data"]["problem"]["code"], "provision.not-configured", "{told}");
}
