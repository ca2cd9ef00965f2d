//! Machines without Redfish: enrolled over IPMI, and handed to Ironic with its `ipmi` hardware type.

use crate::line::{Line, joins, pool};
use crate::support::{Rig, document, world};
use serde_json::{Value, json};
use sim::ipmi::{IpmiBmc, IpmiCounters, IpmiMachine};
use sim::{Model, Site};
use std::net::SocketAddr;
use std::time::Duration;
use testbed::IpmiSim;

const PASSWORD: &str = "a-password-of-20-byt";
const MAC: &str = "02:00:5e:10:00:01";
const UUID: &str = "00005111-7000-4000-8000-000000000001";

/// The site's own machine is never declared.
async fn rig() -> Rig {
    Rig::start(|state| Site::builder(state).machines(Model::CpuNode, 1).build()).await
}

async fn bmc() -> IpmiBmc {
    IpmiBmc::start(IpmiMachine::new("admin", PASSWORD)).await.unwrap()
}

fn counters(bmc: &IpmiBmc) -> IpmiCounters {
    bmc.with(|machine| machine.counters)
}

fn machine(address: SocketAddr) -> Value {
    let bmc = json!({ "address": format!("ipmi://{address}"), "username": "admin", "passwordFile": "pw" });
    document("Machine", "m1", json!({ "site": "fra1", "bmc": bmc }))
}

fn password(password: &str) -> Vec<(String, String)> {
    vec![("m1".to_owned(), password.to_owned())]
}

/// Declares the machine, changed, in the usual world.
async fn declare(rig: &Rig, bmc: &IpmiBmc, word: &str, change: impl FnOnce(&mut Vec<Value>)) {
    let mut documents = world();
    documents.push(machine(bmc.address()));
    change(&mut documents);
    rig.client.apply(documents, &password(word)).await;
}

async fn waits_for(rig: &Rig, code: &str) -> Value {
    let event = rig
        .client
        .wait_for(|event| event["kind"] == "machine.waiting" && event["data"]["problem"]["code"] == code)
        .await;
    event["data"]["problem"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_redfish_is_enrolled_with_what_ipmi_knows_and_nothing_else() {
    let (rig, bmc) = (rig().await, bmc().await);
    declare(&rig, &bmc, PASSWORD, |_| {}).await;
    rig.client.wait_for_event("machine.enrolled", "m1").await;
    let shown = rig.client.get("/api/v1/machines/m1").await;
    assert_eq!((&shown["state"], &shown["pin"]), (&json!("enrolled"), &Value::Null));
    assert_eq!(
        shown["inventory"]["identity"],
        json!({
            "manufacturer": "Example Servers", "model": "Eight GPUs", "serial": "SIM-5001", "uuid": UUID,
            "sku": null, "partNumber": "PRT-6",
        })
    );
    assert_eq!(shown["inventory"]["bmc"]["macs"], json!([MAC]));
    assert_eq!((&shown["inventory"]["gpus"], &shown["inventory"]["memoryGiB"]), (&json!([]), &Value::Null));
    assert_eq!(shown["inventory"]["diagnostics"][0]["code"], "ipmi.inventory-partial");
    let facts = rig.client.get("/api/v1/machines/m1/facts").await;
    let facts = facts.as_array().unwrap();
    assert!(
        facts.iter().any(|fact| fact["key"] == "identity.serial" && fact["path"] == "FRU 0"),
        "{facts:?}"
    );
    assert!(facts.iter().all(|fact| fact["source"] == "ipmi"), "{facts:?}");
    assert_eq!((counters(&bmc).logins, bmc.sessions()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_gpus_nobody_knows_publishes_none() {
    let (rig, bmc) = (rig().await, bmc().await);
    declare(&rig, &bmc, PASSWORD, |_| {}).await;
    rig.client.wait_for_event("machine.enrolled", "m1").await;
    rig.client.wait_until_published().await;
    assert_eq!(rig.client.get("/api/v1/gpus").await["items"], json!([]));
    let slices = std::fs::read_dir(crate::support::publish_dir(&rig.dir).join("observed"));
    let slices: Vec<_> = slices.into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
    assert!(slices.iter().all(|name| !name.to_string_lossy().contains("m1")), "{slices:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_once_and_the_right_one_puts_it_right() {
    let (rig, bmc) = (rig().await, bmc().await);
    declare(&rig, &bmc, "wrong", |_| {}).await;
    let problem = waits_for(&rig, "ipmi.unauthorized").await;
    assert!(problem["hint"].is_string());
    assert_eq!(counters(&bmc).openings, 1, "no second suite and no second try");
    declare(&rig, &bmc, PASSWORD, |_| {}).await;
    rig.client.wait_for_event("machine.enrolled", "m1").await;
    let history = rig.client.get("/api/v1/machines/m1/history").await;
    let told = history.as_array().unwrap().iter().filter(|event| event["kind"] == "machine.waiting").count();
    assert_eq!(told, 1, "{history:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_login_is_sent_once_the_lock_out_budget_is_spent_even_with_the_right_password() {
    let (rig, bmc) = (rig().await, bmc().await);
    for wrong in ["wrong", "also wrong"] {
        let before = counters(&bmc).openings;
        declare(&rig, &bmc, wrong, |_| {}).await;
        rig.until("the password is tried", || counters(&bmc).openings > before).await;
        waits_for(&rig, "ipmi.unauthorized").await;
        rig.until_machine("m1", |machine| !machine["waiting"].is_null()).await;
    }
    declare(&rig, &bmc, PASSWORD, |_| {}).await;
    waits_for(&rig, "bmc.login-withheld").await;
    assert_eq!((counters(&bmc).openings, counters(&bmc).logins), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_machine_at_the_address_is_not_enrolled() {
    let (rig, bmc) = (rig().await, bmc().await);
    declare(&rig, &bmc, PASSWORD, |all| all.last_mut().unwrap()["spec"]["serial"] = "OTHER".into()).await;
    let problem = waits_for(&rig, "machine.serial-mismatch").await;
    assert_eq!((&problem["found"], &problem["expected"]), (&json!("SIM-5001"), &json!("OTHER")));
    declare(&rig, &bmc, PASSWORD, |all| all.last_mut().unwrap()["spec"]["mac"] = "02:00:5e:10:00:99".into())
        .await;
    let problem = waits_for(&rig, "machine.mac-mismatch").await;
    assert_eq!(problem["found"], MAC);
    declare(&rig, &bmc, PASSWORD, |all| all.last_mut().unwrap()["spec"]["mac"] = MAC.to_uppercase().into())
        .await;
    rig.client.wait_for_event("machine.enrolled", "m1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_outside_the_sites_networks_gets_no_datagram() {
    let (rig, bmc) = (rig().await, bmc().await);
    declare(&rig, &bmc, PASSWORD, |all| all[3]["spec"]["bmcNetworks"] = json!(["10.0.0.0/8"])).await;
    waits_for(&rig, "bmc.address-outside-networks").await;
    assert_eq!(counters(&bmc).datagrams, 0);
    declare(&rig, &bmc, PASSWORD, |_| {}).await;
    rig.client.wait_for_event("machine.enrolled", "m1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_spoken_to_by_ipmi_is_refused_before_it_is_planned() {
    let (rig, bmc) = (rig().await, bmc().await);
    let mut documents = world();
    documents[3]["spec"]["zone"] = json!({ "tier": "secret" });
    documents.push(machine(bmc.address()));
    documents.last_mut().unwrap()["spec"]["bmc"]["pin"] = format!("sha256:{}", "0".repeat(64)).into();
    let (status, refusal) = rig.client.plan(documents, &password(PASSWORD)).await;
    let codes: Vec<_> = refusal["problems"].as_array().unwrap().iter().map(|p| p["code"].clone()).collect();
    assert_eq!((status, codes), (422, vec![json!("machine.ipmi-pin"), json!("machine.ipmi-zone")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_declared_by_redfish_later_is_pinned_and_nothing_stays_of_what_ipmi_said() {
    let (rig, bmc) = (rig().await, bmc().await);
    declare(&rig, &bmc, PASSWORD, |_| {}).await;
    rig.client.wait_for_event("machine.enrolled", "m1").await;
    let redfish = rig.site.machines()[0].clone();
    let spec = json!({
        "address": format!("{}:{}", redfish.address, redfish.port), "username": redfish.username, "passwordFile": "pw",
    });
    let machine = document("Machine", "m1", json!({ "site": "fra1", "bmc": spec }));
    rig.client.apply(vec![machine], &password(&redfish.password)).await;
    let serial = redfish.serial.as_str();
    rig.until_machine("m1", |machine| machine["state"] == "enrolled" && machine["serial"] == serial).await;
    assert!(rig.client.get("/api/v1/machines/m1").await["pin"].is_string());
    let facts = rig.client.get("/api/v1/machines/m1/facts").await;
    assert!(facts.as_array().unwrap().iter().all(|fact| fact["source"] == "redfish"), "{facts:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_keeps_silent_is_waited_for() {
    let (rig, bmc) = (rig().await, bmc().await);
    bmc.with(|machine| machine.faults.silent = true);
    declare(&rig, &bmc, PASSWORD, |_| {}).await;
    waits_for(&rig, "ipmi.timeout").await;
    bmc.with(|machine| machine.faults.silent = false);
    rig.client.wait_for_event("machine.enrolled", "m1").await;
    assert_eq!(counters(&bmc).openings, 1, "a password is sent only to somebody who answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_nobody_here_wrote_is_enrolled() {
    let (rig, bmc) = (rig().await, IpmiSim::start().await.unwrap());
    let mut documents = world();
    documents.push(machine(bmc.address()));
    documents.last_mut().unwrap()["spec"]["serial"] = IpmiSim::SERIAL.into();
    documents.last_mut().unwrap()["spec"]["mac"] = IpmiSim::MAC.into();
    rig.client.apply(documents, &password(bmc.password())).await;
    rig.client.wait_for_event("machine.enrolled", "m1").await;
    let shown = rig.client.get("/api/v1/machines/m1").await;
    assert_eq!(shown["inventory"]["identity"]["partNumber"], "PRT-66");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_redfish_goes_through_ironic_to_its_base_cluster_and_back() {
    let (line, bmc) = (Line::start(1).await, bmc().await);
    line.hosts_do(|cluster, name, _, user_data| joins(cluster, name, UUID, user_data));
    let mut documents = world();
    documents.extend([
        document(
            "FirmwareProfile",
            "eight-gpus",
            json!({
                "match": { "model": ["Eight GPUs"] }, "source": "made up for this test",
                "components": [{ "name": "bmc", "select": [{ "reported": "bmc" }], "rule": { "minimum": "2.0" } }],
            }),
        ),
        machine(bmc.address()),
        pool(),
    ]);
    line.client.apply(documents, &password(PASSWORD)).await;
    line.until("m1", |machine| machine["state"] == "available").await;
    let node = line.ironic.node("m1").unwrap();
    let (_, node) = line.ironic.request(http::Method::GET, &format!("/v1/nodes/{}", node.uuid), None);
    assert_eq!((&node["driver"], &node["power_interface"]), (&json!("ipmi"), &json!("ipmitool")));
    let info = &node["driver_info"];
    assert_eq!((&info["ipmi_address"], &info["ipmi_username"]), (&json!("127.0.0.1"), &json!("admin")));
    assert_eq!(info["ipmi_port"], bmc.address().port());
    assert!(!node.to_string().contains(PASSWORD));

    line.want("m1", json!({ "baseCluster": "pool" })).await;
    line.until("m1", |machine| machine["state"] == "in-service").await;
    let (status, plan) = line
        .client
        .call("POST", "/api/v1/plans", Some(json!({ "delete": [{ "kind": "Assignment", "name": "m1" }] })))
        .await;
    assert_eq!(status, 200, "{plan}");
    let digest = plan["digest"].as_str().unwrap();
    line.client.call("POST", &format!("/api/v1/plans/{digest}/apply"), None).await;
    line.until("m1", |machine| machine["state"] == "available").await;
    line.erased("m1", 1).await;
}

impl Rig {
    /// Polls until it holds; nobody tells when.
    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        while !holds() {
            assert!(tokio::time::Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Polls until a machine is so.
    async fn until_machine(&self, name: &str, wanted: impl Fn(&Value) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        loop {
            let machine = self.client.get(&format!("/api/v1/machines/{name}")).await;
            if wanted(&machine) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{machine:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
