//! A quarantine that comes while cluster and provisioning service are away: it holds here at once, and outside as soon as they are
//! back.

use crate::faults::{in_service_with_disks, node, serve, shelved};
use crate::line::Line;
use jiff::SignedDuration;
use serde_json::{Value, json};
use sim::{Action, Fault};

/// In service, both away, and set aside.
async fn set_aside_meanwhile() -> (Line, String) {
    let (line, name) = shelved().await;
    line.assign(serve(), "in-service").await;
    line.cluster.set_away(true);
    line.ironic.faults().add(Fault::on("**", Action::Reset));
    line.want(&name, json!({ "quarantine": { "reason": "smoke" } })).await;
    line.until(&name, |machine| machine["state"] == "quarantined").await;
    (line, name)
}

fn is_cordoned(line: &Line, name: &str) -> bool {
    node(line, name).unwrap()["spec"]["unschedulable"] == true
}

fn is_held(line: &Line, name: &str) -> bool {
    line.ironic.node(name).unwrap().maintenance
}

/// What `why` says of the quarantine.
async fn missing(line: &Line, name: &str) -> String {
    let why = line.waits_for(name, "machine.not-isolated").await;
    assert_eq!((&why["state"], &why["reason"]), (&json!("quarantined"), &json!("smoke")), "{why}");
    why["waiting"]["problem"]["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_set_aside_while_cluster_and_ironic_are_away_is_kept_apart_by_a_cell_that_was_restarted() {
    let (line, name) = set_aside_meanwhile().await;
    let told = missing(&line, &name).await;
    assert!(told.contains("basecluster.unreachable") && told.contains("ironic.unreachable"), "{told}");
    let line = line.restart().await;
    assert!(!missing(&line, &name).await.is_empty(), "nobody forgets it");
    line.cluster.set_away(false);
    line.ironic.faults().clear();
    // The longest time between two tries; nobody asks for one.
    line.pass(SignedDuration::from_mins(10));
    line.until(&name, |machine| machine["waiting"].is_null() && is_cordoned(&line, &name)).await;
    assert!(is_held(&line, &name));
    assert!(line.history(&name).await.contains(&"machine.resumed".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_away_keeps_the_other_from_nothing_and_is_tried_until_it_is_back() {
    let (line, name) = set_aside_meanwhile().await;
    missing(&line, &name).await;
    line.ironic.faults().clear();
    line.pass(SignedDuration::from_mins(10));
    line.until(&name, |_| is_held(&line, &name)).await;
    for _ in 0..3 {
        let attempts = |machine: &serde_json::Value| machine["waiting"]["attempts"].as_u64().unwrap_or(0);
        let before = attempts(&line.client.get(&format!("/api/v1/machines/{name}")).await);
        line.pass(SignedDuration::from_mins(10));
        line.until(&name, |machine| attempts(machine) > before).await;
    }
    let told = missing(&line, &name).await;
    assert!(told.contains("basecluster.unreachable") && !told.contains("ironic"), "{told}");
    assert!(!is_cordoned(&line, &name));
    line.cluster.set_away(false);
    line.pass(SignedDuration::from_mins(10));
    line.until(&name, |machine| machine["waiting"].is_null() && is_cordoned(&line, &name)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_node_of_the_machines_name_goes_on_taking_pods() {
    let (line, name) = shelved().await;
    let other = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "uid": "other" }, "spec": {} });
    line.cluster.put(&format!("/api/v1/nodes/{name}"), other);
    line.want(&name, serve()).await;
    line.waits_for(&name, "node.name-taken").await;
    line.want(&name, json!({ "quarantine": { "reason": "smoke" } })).await;
    line.until(&name, |machine| machine["state"] == "quarantined" && is_held(&line, &name)).await;
    assert!(!is_cordoned(&line, &name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_set_aside_in_the_middle_of_its_erasure_is_erased_anew_when_it_comes_back() {
    let (line, name, drives, shown) = in_service_with_disks().await;
    // Erased, but for a disk that nobody sees: that keeps it where it is.
    shown.lock().unwrap().truncate(1);
    line.unassign().await;
    line.waits_for(&name, "erasure.disk-not-erased").await;
    line.want(&name, json!({ "quarantine": { "reason": "who knows what it ran meanwhile" } })).await;
    line.until(&name, |machine| machine["state"] == "quarantined" && is_held(&line, &name)).await;
    let cleaned = || line.ironic.cleanings(&line.ironic.node(&name).unwrap().uuid);
    let before = cleaned().len();

    shown.lock().unwrap().clone_from(&drives);
    line.release().await;
    let history = line.client.get(&format!("/api/v1/machines/{name}/history")).await;
    let since =
        history.as_array().unwrap().iter().rev().take_while(|event| event["kind"] != "machine.quarantined");
    let asks =
        |event: &&Value| event["data"]["action"].as_str().is_some_and(|it| it.starts_with("asks for erase"));
    let asked = since.filter(asks).count();
    let cleanings = cleaned().split_off(before);
    let on_demand = cleanings.iter().filter(|cleaning| !cleaning.automated).count();
    // None of those before is taken for one of these.
    assert!(asked > 0, "{history:#}");
    assert_eq!(on_demand, asked, "{cleanings:?} {history:#}");
    line.erased(&name, 1).await;
}
