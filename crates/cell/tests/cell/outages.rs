//! What is away, slow, or wrong about the time: it is waited for, one machine never waits for another, and nothing is doubled.

use crate::faults::{deploys, node, serve, shelved};
use crate::line::Line;
use bailiwick_cell::{ServiceSettings, Settings};
use jiff::SignedDuration;
use serde_json::json;
use sim::ironic::{NodeFault, Operation};
use sim::{Action, Fault};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_is_waited_for_in_every_step_that_needs_it() {
    let (line, name) = shelved().await;
    line.cluster.set_away(true);
    line.want(&name, serve()).await;
    let why = line.waits_for(&name, "basecluster.unreachable").await;
    assert_eq!(why["state"], "provisioning");
    assert_eq!(deploys(&line, &name), 0, "nothing is deployed that could not join");
    line.cluster.set_away(false);
    line.mended(&name, "in-service").await;

    line.cluster.set_away(true);
    line.want(&name, json!({ "baseCluster": "pool", "drain": true })).await;
    let why = line.waits_for(&name, "basecluster.unreachable").await;
    assert_eq!(why["state"], "draining");
    line.cluster.set_away(false);
    line.release().await;
    assert!(node(&line, &name).is_none());
    assert_eq!(deploys(&line, &name), 1);
    line.erased(&name, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_cluster_that_forbids_or_approves_by_itself_is_not_deployed_to_until_it_does_no_more() {
    let (line, name) = shelved().await;
    line.cluster.set_automatic_approval(true);
    line.want(&name, serve()).await;
    let why = line.waits_for(&name, "basecluster.automatic-approval").await;
    assert!(why["waiting"]["problem"]["hint"].as_str().unwrap().contains("nodeclient"), "{why}");
    line.cluster.set_forbidden(true);
    line.waits_for(&name, "basecluster.forbidden").await;
    assert_eq!(deploys(&line, &name), 0);
    line.cluster.set_automatic_approval(false);
    line.cluster.set_forbidden(false);
    line.heals(&name, "in-service").await;

    line.cluster.set_forbidden(true);
    line.unassign().await;
    // It may be looked at in service, and wait there, before its assignment is seen to be gone.
    line.until(&name, |machine| machine["state"] == "draining").await;
    let why = line.waits_for(&name, "basecluster.forbidden").await;
    assert_eq!(why["state"], "draining");
    line.cluster.set_forbidden(false);
    line.heals(&name, "available").await;
    line.erased(&name, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_base_cluster_is_deleted_with_its_assignment_comes_back_to_the_shelf_erased() {
    let (line, name) = shelved().await;
    line.assign(serve(), "in-service").await;
    line.cluster.set_away(true);
    line.delete(&[("Assignment", &name), ("BaseCluster", "pool")]).await;
    line.heals(&name, "available").await;
    line.erased(&name, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_a_disruption_budget_protects_are_waited_for_and_told() {
    let (line, name) = shelved().await;
    line.assign(serve(), "in-service").await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "default", "name": "work" },
        "spec": { "nodeName": name, "containers": [] }, "status": { "phase": "Running" },
    });
    line.cluster.put("/api/v1/namespaces/default/pods/work", pod);
    line.cluster.set_undisturbed(true);
    line.want(&name, json!({ "baseCluster": "pool", "drain": true })).await;
    let why = line.waits_for(&name, "node.pods-left").await;
    assert!(why["waiting"]["problem"]["message"].as_str().unwrap().contains("default/work"), "{why}");
    assert!(line.cluster.object("/api/v1/namespaces/default/pods/work").is_some());
    line.cluster.set_undisturbed(false);
    line.release().await;
    line.erased(&name, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_ironic_makes_machines_late_and_nothing_else() {
    let (line, name) = shelved().await;
    line.ironic.faults().add(Fault::on("**", Action::Latency { mean_ms: 400, jitter_ms: 100 }));
    line.assign(serve(), "in-service").await;
    assert_eq!(deploys(&line, &name), 1);
    line.release().await;
    line.erased(&name, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ironic_that_answers_too_late_is_waited_for_and_nothing_is_doubled() {
    let impatient = |settings: &mut Settings| {
        let ServiceSettings::Ironic(ironic) = &mut settings.provisioners[0].service else {
            panic!("this line has an Ironic")
        };
        ironic.answer_within = Some(Duration::from_millis(500));
    };
    let line = Line::with(1, |ironic| ironic, impatient).await;
    line.declare().await;
    line.arrive("available").await;
    let name = line.names().remove(0);
    for (wish, state) in [(serve(), "in-service"), (json!({ "retire": true }), "retired")] {
        line.ironic.faults().add(Fault::on("**", Action::Latency { mean_ms: 60_000, jitter_ms: 0 }));
        line.want(&name, wish).await;
        line.waits_for(&name, "ironic.timeout").await;
        line.ironic.faults().clear();
        line.heals(&name, state).await;
    }
    line.erased(&name, 1).await;
    let history = line.history(&name).await;
    assert_eq!(history.iter().filter(|kind| *kind == "machine.provisioning").count(), 1, "{history:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_machine_that_does_not_come_on_keeps_no_other_waiting() {
    let line = Line::start(3).await;
    line.declare().await;
    line.arrive("available").await;
    let names = line.names();
    // Ironic's own words where the BMC takes the command and the host stays off.
    let lie = "Timed out after 60 secs waiting for power on on node";
    line.ironic.add_node_fault(NodeFault::fails(Operation::Deploy, Some(lie)).on(&names[0]));
    for name in &names {
        line.want(name, serve()).await;
    }
    for name in &names[1..] {
        line.until(name, |machine| machine["state"] == "in-service").await;
    }
    let why = line.waits_for(&names[0], "ironic.deploy-failed").await;
    assert_eq!(why["state"], "provisioning");
    assert!(why["waiting"]["problem"]["message"].as_str().unwrap().contains(lie), "{why}");
    line.ironic.clear_node_faults();
    line.mended(&names[0], "in-service").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_whose_clock_is_wrong_and_that_restarts_meanwhile_is_provisioned_all_the_same() {
    let (line, name) = shelved().await;
    let bmc = line.site.bmc(&name).unwrap();
    bmc.set_clock_skew(SignedDuration::from_hours(-24 * 365));
    line.want(&name, serve()).await;
    bmc.restart();
    line.mended(&name, "in-service").await;
    assert_eq!(deploys(&line, &name), 1);
    line.release().await;
    line.erased(&name, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_machine_is_erased_leaves_ironic_and_comes_back_when_it_is_wanted_again() {
    let (line, name) = shelved().await;
    line.assign(serve(), "in-service").await;
    line.assign(json!({ "retire": true }), "retired").await;
    assert!(line.ironic.node(&name).is_none());
    assert!(node(&line, &name).is_none());
    line.erased(&name, 1).await;
    line.assign(serve(), "in-service").await;
    // The new node has the UUID of the one before: it is made from the machine's name.
    assert_eq!(deploys(&line, &name), 2);
}
