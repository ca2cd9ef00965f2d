//! Faults by rule, as clients meet them.

use std::time::{Duration, Instant};

use bailiwick_sim::ironic::{
    Effect, Ending, IronicEndpoint, NodeFault, Operation, Power, ProvisionState as S,
};
use bailiwick_sim::{Action, Fault};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, start};

const MAC: &str = "02:00:00:00:00:01";

async fn available() -> (IronicEndpoint, Api, String) {
    let (endpoint, api) = start(IronicEndpoint::builder());
    let uuid = api.make_available("m1", MAC).await;
    (endpoint, api, uuid)
}

#[tokio::test]
async fn a_status_is_answered_so_many_times_and_then_no_more() {
    let (endpoint, api, uuid) = available().await;
    let busy = Action::status_with_header(503, "Retry-After", "1");
    endpoint.faults().add(Fault::on(&format!("/v1/nodes/{uuid}/states/provision"), busy).times(2));
    for _ in 0..2 {
        assert_eq!(api.verb("m1", "active").await.status, 503, "by name too");
    }
    assert_eq!(endpoint.deploys(&uuid), 0);
    assert_eq!(api.verb("m1", "active").await.status, 202);
}

#[tokio::test]
async fn latency_and_a_closed_connection_are_rules_too() {
    let (endpoint, api, _) = available().await;
    endpoint.faults().add(Fault::on("/v1/nodes", Action::latency(Duration::from_millis(80))).times(1));
    let began = Instant::now();
    assert_eq!(api.get("/v1/nodes").await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(80));
    endpoint.faults().add(Fault::on("/v1/nodes/*", Action::Close).method("DELETE").times(1));
    assert!(api.try_ask(Method::DELETE, "/v1/nodes/m1", None).await.is_err());
    assert_eq!(api.state("m1").await, "available");
}

#[tokio::test]
async fn a_lost_answer_leaves_the_request_carried_out() {
    let (endpoint, api, uuid) = available().await;
    endpoint.add_node_fault(NodeFault::new(Effect::AnswerLost).on("m1").times(1));
    let body = json!({"target": "active"});
    assert!(api.try_ask(Method::PUT, "/v1/nodes/m1/states/provision", Some(&body)).await.is_err());
    assert_eq!(api.state("m1").await, "active");
    assert_eq!(endpoint.deploys(&uuid), 1);
}

#[tokio::test]
async fn the_answer_to_a_creation_can_be_lost_as_well() {
    let (endpoint, api) = start(IronicEndpoint::builder());
    endpoint.add_node_fault(NodeFault::new(Effect::AnswerLost).times(1));
    let body = json!({"name": "m1", "driver": "redfish"});
    assert!(api.try_ask(Method::POST, "/v1/nodes", Some(&body)).await.is_err());
    assert_eq!(api.post("/v1/nodes", &body).await.status, 409);
    assert_eq!(endpoint.nodes().len(), 1);
}

#[tokio::test]
async fn a_node_is_locked_so_many_times_and_then_no_more() {
    let (endpoint, api, uuid) = available().await;
    endpoint.add_node_fault(NodeFault::new(Effect::Locked).on("m*").times(2));
    for _ in 0..2 {
        let refused = api.verb("m1", "active").await;
        assert_eq!(refused.status, 409);
        assert!(refused.sentence().starts_with(&format!("Node {uuid} is locked by host sim-conductor")));
    }
    assert_eq!(api.verb("m1", "active").await.status, 202);
}

#[tokio::test]
async fn a_deploy_fails_with_or_without_a_reason_and_succeeds_the_next_time() {
    let (endpoint, api, _) = available().await;
    for reason in [Some("Image checksum does not match"), None] {
        endpoint.add_node_fault(NodeFault::fails(Operation::Deploy, reason).times(1));
        assert_eq!(api.verb("m1", "active").await.status, 202);
        let node = api.node("m1").await;
        assert_eq!(node["provision_state"], "deploy failed");
        assert_eq!(node["target_provision_state"], "active");
        assert_eq!(node["last_error"].as_str(), reason);
    }
    api.verb("m1", "active").await;
    assert_eq!(api.state("m1").await, "active");
}

#[tokio::test]
async fn a_failed_clean_puts_the_node_into_maintenance() {
    let (endpoint, api, _) = available().await;
    api.verb("m1", "active").await;
    endpoint.add_node_fault(NodeFault::fails(Operation::Clean, Some("nvme0n1: sanitize failed")).times(1));
    api.verb("m1", "deleted").await;
    let node = api.node("m1").await;
    assert_eq!(node["provision_state"], "clean failed");
    assert_eq!((&node["maintenance"], &node["fault"]), (&json!(true), &json!("clean failure")));
    assert_eq!(node["maintenance_reason"], "nvme0n1: sanitize failed");
    assert_eq!(api.verb("m1", "manage").await.status, 202);
    assert_eq!(api.delete("/v1/nodes/m1/maintenance").await.status, 202);
    assert_eq!(api.node("m1").await["fault"], Value::Null);
}

#[tokio::test]
async fn an_inspection_and_a_tear_down_fail_into_their_states() {
    let (endpoint, api, _) = available().await;
    endpoint.add_node_fault(NodeFault::fails(Operation::Inspect, Some("no MemorySummary")).times(1));
    endpoint.add_node_fault(NodeFault::fails(Operation::Undeploy, Some("no power")).times(1));
    api.verb("m1", "manage").await;
    api.verb("m1", "inspect").await;
    assert_eq!(api.state("m1").await, "inspect failed");
    for verb in ["inspect", "provide"] {
        api.verb("m1", verb).await;
    }
    let image =
        json!([{"op": "add", "path": "/instance_info", "value": {"boot_iso": "http://127.0.0.1:1/a.iso"}}]);
    api.patch("/v1/nodes/m1", &image).await;
    api.verb("m1", "active").await;
    api.verb("m1", "deleted").await;
    assert_eq!(api.state("m1").await, "error");
    api.verb("m1", "deleted").await;
    assert_eq!(api.state("m1").await, "available");
}

#[tokio::test]
async fn a_node_vanishes_with_its_ports() {
    let (endpoint, api, uuid) = available().await;
    endpoint.add_node_fault(NodeFault::ending(Operation::Deploy, Ending::Vanishes));
    assert_eq!(api.verb("m1", "active").await.status, 202);
    assert_eq!(api.get(&format!("/v1/nodes/{uuid}")).await.status, 404);
    assert_eq!(api.get(&format!("/v1/ports?address={MAC}")).await.body["ports"], json!([]));
    assert_eq!(endpoint.deploys(&uuid), 1);
}

#[tokio::test]
async fn a_node_ends_in_a_foreign_state() {
    let (endpoint, api, _) = available().await;
    endpoint.add_node_fault(NodeFault::ending(Operation::Deploy, Ending::EndsIn(S::Rescue)));
    api.verb("m1", "active").await;
    assert_eq!(api.state("m1").await, "rescue");
    assert!(endpoint.set_state("m1", S::Manageable));
    assert_eq!(api.state("m1").await, "manageable");
    assert!(!endpoint.set_state("nobody", S::Manageable));
}

#[tokio::test]
async fn ironic_sets_maintenance_by_itself() {
    let (endpoint, api, _) = available().await;
    endpoint.add_node_fault(NodeFault::ending(
        Operation::Deploy,
        Ending::Maintenance { reason: "BMC is gone".to_owned(), fault: Some("power failure".to_owned()) },
    ));
    api.verb("m1", "active").await;
    let node = api.node("m1").await;
    assert_eq!((&node["provision_state"], &node["fault"]), (&json!("active"), &json!("power failure")));
    assert_eq!(api.get("/v1/nodes?maintenance=true").await.body["nodes"][0]["name"], "m1");
}

#[tokio::test]
async fn a_stalled_deploy_stays_where_it_is_until_it_is_torn_down() {
    let (endpoint, api, _) = available().await;
    endpoint.add_node_fault(NodeFault::ending(Operation::Deploy, Ending::Stalls).times(1));
    api.verb("m1", "active").await;
    assert_eq!(api.state("m1").await, "deploying");
    assert_eq!(api.verb("m1", "deleted").await.status, 409, "a conductor works on it");
    endpoint.set_state("m1", S::DeployFailed);
    assert_eq!(api.verb("m1", "deleted").await.status, 202);
    assert_eq!(api.state("m1").await, "available");
}

#[tokio::test]
async fn power_reports_success_and_does_nothing() {
    let (endpoint, api, uuid) = available().await;
    endpoint.add_node_fault(NodeFault::new(Effect::PowerIgnored).times(1));
    assert_eq!(api.put("/v1/nodes/m1/states/power", &json!({"target": "power on"})).await.status, 202);
    assert_eq!(api.node("m1").await["power_state"], "power on");
    assert_eq!(endpoint.node(&uuid).unwrap().hardware_power, Power::Off);
}

#[tokio::test]
async fn power_fails_with_the_reason() {
    let (endpoint, api, _) = available().await;
    endpoint.add_node_fault(NodeFault::new(Effect::PowerFails { reason: "BMC busy".to_owned() }).times(1));
    api.put("/v1/nodes/m1/states/power", &json!({"target": "power on"})).await;
    let node = api.node("m1").await;
    assert_eq!(node["power_state"], "power off");
    assert!(node["last_error"].as_str().unwrap().ends_with("BMC busy"), "{node}");
}

#[tokio::test]
async fn rules_can_be_taken_back() {
    let (endpoint, api, _) = available().await;
    let rule = endpoint.add_node_fault(NodeFault::new(Effect::Locked));
    assert_eq!(api.verb("m1", "manage").await.status, 409);
    assert!(endpoint.remove_node_fault(rule));
    assert_eq!(api.verb("m1", "manage").await.status, 202);
}
