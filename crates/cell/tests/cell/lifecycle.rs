//! Machines go from declared to in service, and back to the shelf.

use crate::line::Line;
use crate::support::Client;
use bailiwick_cell::{Cell, Settings};
use serde_json::{Value, json};
use sim::Model;
use sim::ironic::{Delays, ProvisionState, Step};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_becomes_a_verified_node_and_goes_back_to_the_shelf_erased() {
    let line = Line::start(2).await;
    line.declare().await;
    line.arrive("available").await;
    line.assign(json!({ "baseCluster": "pool" }), "in-service").await;

    let name = &line.names()[0];
    let node = line.cluster.object(&format!("/api/v1/nodes/{name}")).unwrap();
    let labels = &node["metadata"]["labels"];
    for (key, value) in
        [("jurisdiction", "de"), ("site", "fra1"), ("machine", name), ("base-cluster", "pool")]
    {
        assert_eq!(labels[format!("node-restriction.kubernetes.io/{key}")], *value, "{labels}");
    }
    assert_eq!(node["spec"]["taints"], json!([]));
    // The token was used once, and is gone.
    assert!(line.cluster.list("/api/v1/namespaces/kube-system/secrets").is_empty());
    let uuid = line.ironic.node(name).unwrap().uuid;
    assert_eq!(line.ironic.deploys(&uuid), 1);

    line.release().await;
    assert!(line.cluster.object(&format!("/api/v1/nodes/{name}")).is_none());
    let erasures = line.client.get(&format!("/api/v1/machines/{name}/erasures")).await;
    assert_eq!(erasures.as_array().unwrap().len(), 2);
    assert_eq!(erasures[0]["baseCluster"], "pool");
    assert_eq!(erasures[1]["baseCluster"], json!(null));
    let history = line.history(name).await;
    let states = [
        "machine.discovered",
        "machine.enrolled",
        "machine.inspected",
        "machine.compliant",
        "machine.available",
        "machine.provisioning",
        "machine.verifying",
        "machine.in-service",
        "machine.draining",
        "machine.wiping",
        "machine.available",
    ];
    let seen: Vec<_> = history.iter().filter(|kind| states.contains(&kind.as_str())).collect();
    assert_eq!(seen, states.iter().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_rest_for_want_of_a_provisioning_service_go_on_when_the_cell_starts_with_one() {
    let mut provisioners = Vec::new();
    let mut line =
        Line::with(2, |ironic| ironic, |settings| provisioners.append(&mut settings.provisioners)).await;
    line.declare().await;
    line.arrive("enrolled").await;
    // One waits for it, the other lies on the shelf and waits for nothing.
    line.want(&line.names()[0], json!({ "baseCluster": "pool" })).await;
    line.waits_for(&line.names()[0], "provision.not-configured").await;

    let settings = Settings { provisioners, ..line.cell.settings().clone() };
    line.cell.shutdown().await;
    line.cell = Cell::start(settings).await.unwrap();
    line.client = Client::of(&line.cell);
    line.until(&line.names()[0], |machine| machine["state"] == "in-service").await;
    line.until(&line.names()[1], |machine| machine["state"] == "available").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_put_in_during_a_use_is_in_the_record_of_its_erasure() {
    let disks = Arc::new(Mutex::new(vec!["S1"]));
    let seen = Arc::clone(&disks);
    let inventory = move || {
        let disk =
            |serial: &&str| json!({ "name": format!("/dev/{serial}"), "serial": serial, "size": 1 << 30 });
        let disks: Vec<_> = seen.lock().unwrap().iter().map(disk).collect();
        json!({ "inventory": { "disks": disks, "interfaces": [] }, "plugin_data": {} })
    };
    let line = Line::with(1, |ironic| ironic.inventory(move |_| Some(inventory())), |_| {}).await;
    line.declare().await;
    line.arrive("available").await;
    let name = &line.names()[0];
    let before = automated_clean(&line, name).await;

    line.assign(json!({ "baseCluster": "pool" }), "in-service").await;
    *disks.lock().unwrap() = vec!["S2", "S3"];
    line.release().await;

    let erasures = line.client.get(&format!("/api/v1/machines/{name}/erasures")).await;
    let items = erasures[0]["items"].as_array().unwrap().iter().filter(|item| item["part"] == "disk");
    let found: Vec<_> = items.map(|item| (item["serial"].as_str(), item["result"].as_str())).collect();
    let expected =
        [(Some("S2"), Some("erased")), (Some("S3"), Some("erased")), (Some("S1"), Some("removed"))];
    assert_eq!(found, expected);
    assert_eq!(automated_clean(&line, name).await, before, "Ironic cleans by itself as it did");
}

/// One machine with GPUs goes through a use; the agent offers these steps beside those of every agent, and automated cleaning
/// runs none of them. Gives what came of GPU memory and TPM.
async fn used_with_an_agent_that_offers(more: &[&str]) -> Vec<Value> {
    let steps = ["erase_devices", "erase_devices_metadata"].iter().chain(more);
    let steps = steps.map(|step| Step::new("deploy", step)).collect();
    let delays = Delays::none().with(ProvisionState::CleanWait, Duration::from_mins(1));
    let ironic = |ironic: sim::ironic::IronicBuilder| ironic.stepped().delays(delays).agent_steps(steps);
    let line = Line::of(Model::PowerEdgeXe, 1, ironic, |_| {}).await;
    line.declare().await;
    let name = &line.names()[0];
    cleaned_in_sight(&line, name, "available").await;
    line.want(name, json!({ "baseCluster": "pool" })).await;
    line.until(name, |machine| machine["state"] == "in-service").await;
    line.unassign().await;
    cleaned_in_sight(&line, name, "available").await;
    let erasures = line.client.get(&format!("/api/v1/machines/{name}/erasures")).await;
    let items = erasures[0]["items"].as_array().unwrap().clone();
    let (disks, parts): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item["part"] == "disk");
    assert!(!disks.is_empty() && disks.iter().all(|disk| disk["result"] == "erased"), "{erasures:#}");
    parts
}

/// Ironic's time goes on each time that the cell has seen what there is to see of an agent that cleans.
async fn cleaned_in_sight(line: &Line, name: &str, state: &str) {
    let seen = Mutex::new(Value::Null);
    line.until(name, |machine| {
        let waiting = &machine["waiting"];
        let told = waiting["problem"]["message"].as_str().unwrap_or_default();
        let mut seen = seen.lock().unwrap();
        if told.contains("agent boots and cleans") && *seen != waiting["until"] {
            *seen = waiting["until"].clone();
            line.ironic.step();
        }
        machine["state"] == state
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gpu_memory_and_tpm_are_erased_by_steps_that_the_agent_offers_and_ironic_does_not_run_by_itself() {
    let parts = used_with_an_agent_that_offers(&["erase_gpu_memory", "clear_tpm"]).await;
    let (tpm, gpus) = parts.split_last().unwrap();
    assert_eq!(gpus.len(), Model::PowerEdgeXe.gpu_count());
    for gpu in gpus {
        assert_eq!((&gpu["part"], &gpu["result"]), (&json!("gpu-memory"), &json!("erased")), "{gpu}");
        assert_eq!(gpu["method"], "deploy.erase_gpu_memory");
        assert!(gpu["serial"].is_string(), "{gpu}");
    }
    let expected = json!({ "part": "tpm", "serial": null, "result": "erased", "method": "deploy.clear_tpm" });
    assert_eq!(*tpm, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn gpu_memory_and_tpm_that_the_agent_has_no_step_for_are_told_as_not_erased() {
    let parts = used_with_an_agent_that_offers(&[]).await;
    assert_eq!(parts.len(), Model::PowerEdgeXe.gpu_count() + 1);
    for part in &parts {
        assert_eq!(part["result"], "not-erased", "{part}");
        assert_eq!(part["reason"], "the agent offers no clean step for it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ironic_cleans_by_itself_again_after_a_machine_was_set_aside_while_it_was_wiped() {
    let line = Line::start(1).await;
    line.declare().await;
    line.arrive("available").await;
    let name = &line.names()[0];
    let before = automated_clean(&line, name).await;
    assert_ne!(before, json!(false));
    line.assign(json!({ "baseCluster": "pool" }), "in-service").await;
    line.unassign().await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_mins(2);
    while automated_clean(&line, name).await != json!(false) {
        assert!(tokio::time::Instant::now() < deadline, "it was never switched off");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    line.want(name, json!({ "quarantine": { "reason": "smoke" } })).await;
    line.until(name, |machine| machine["state"] == "quarantined").await;
    line.release().await;
    assert_eq!(automated_clean(&line, name).await, before);
}

async fn automated_clean(line: &Line, node: &str) -> Value {
    let node = reqwest::Client::new().get(format!("{}/v1/nodes/{node}", line.ironic.url()));
    let node = node.header("X-OpenStack-Ironic-API-Version", "1.81").send().await.unwrap();
    let node: Value = node.json().await.unwrap();
    node.get("automated_clean").unwrap_or_else(|| panic!("{node}")).clone()
}
