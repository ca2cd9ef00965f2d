//! Nodes over time: stepped by a test, and by the machine's clock.

use std::time::Duration;

use bailiwick_sim::ironic::{CleaningOutcome, Delays, IronicEndpoint, NodeEvent, ProvisionState as S};
use serde_json::json;

use crate::support::start;

const MAC: &str = "02:00:00:00:00:01";

/// Every state of a node, one after the other, until nothing is due.
async fn walk(endpoint: &IronicEndpoint, api: &crate::support::Api) -> Vec<String> {
    let mut states = vec![api.state("m1").await];
    while endpoint.step() {
        states.push(api.state("m1").await);
    }
    states
}

#[tokio::test]
async fn every_passing_state_can_be_seen_step_by_step() {
    let minute = Duration::from_mins(1);
    let (endpoint, api) = start(IronicEndpoint::builder().stepped().delays(Delays::uniform(minute)));
    api.make_node("m1", MAC).await;
    let image =
        json!([{"op": "add", "path": "/instance_info", "value": {"boot_iso": "http://127.0.0.1:1/a.iso"}}]);
    api.patch("/v1/nodes/m1", &image).await;
    for (verb, expected) in [
        ("manage", &["verifying", "manageable"][..]),
        ("inspect", &["inspecting", "manageable"]),
        ("provide", &["cleaning", "clean wait", "cleaning", "available"]),
        ("active", &["deploying", "active"]),
        ("deleted", &["deleting", "cleaning", "clean wait", "cleaning", "available"]),
    ] {
        assert_eq!(api.verb("m1", verb).await.status, 202, "{verb}");
        assert_eq!(walk(&endpoint, &api).await, expected, "{verb}");
    }
}

#[tokio::test]
async fn time_moves_by_as_much_as_a_test_says() {
    let minute = Duration::from_mins(1);
    let (endpoint, api) = start(IronicEndpoint::builder().stepped().delays(Delays::uniform(minute)));
    api.make_node("m1", MAC).await;
    api.verb("m1", "manage").await;
    endpoint.advance(Duration::from_secs(59));
    assert_eq!(api.state("m1").await, "verifying");
    assert!(endpoint.is_busy());
    endpoint.advance(Duration::from_secs(1));
    assert_eq!(api.state("m1").await, "manageable");
    assert!(!endpoint.is_busy());
    api.verb("m1", "provide").await;
    endpoint.advance(Duration::from_hours(1));
    assert_eq!(api.state("m1").await, "available", "one step after the other, each with its own time");
}

#[tokio::test]
async fn a_node_that_is_worked_on_is_locked_and_one_that_waits_is_not() {
    let minute = Duration::from_mins(1);
    let (endpoint, api) = start(IronicEndpoint::builder().stepped().delays(Delays::uniform(minute)));
    api.make_node("m1", MAC).await;
    api.verb("m1", "manage").await;
    endpoint.step();
    api.verb("m1", "provide").await;
    assert_eq!(api.node("m1").await["reservation"], "sim-conductor");
    assert_eq!(api.verb("m1", "abort").await.status, 409);
    let change = json!([{"op": "add", "path": "/extra/a", "value": 1}]);
    let refused = api.patch("/v1/nodes/m1", &change).await;
    assert_eq!(refused.status, 409);
    assert_eq!(refused.sentence(), "Node m1 can not be updated while a state transition is in progress.");
    endpoint.step();
    let node = api.node("m1").await;
    assert_eq!((&node["provision_state"], &node["reservation"]), (&json!("clean wait"), &json!(null)));
    assert_eq!(api.verb("m1", "abort").await.status, 202);
    assert_eq!(api.state("m1").await, "clean failed");
    assert!(!endpoint.step(), "what was aborted goes on no more");
    let uuid = endpoint.node("m1").unwrap().uuid;
    assert_eq!(endpoint.cleanings(&uuid)[0].outcome, CleaningOutcome::Aborted);
}

#[tokio::test]
async fn a_deploy_that_waits_can_be_torn_down() {
    let delays = Delays::none().with(S::WaitCallBack, Duration::from_mins(1));
    let (endpoint, api) = start(IronicEndpoint::builder().stepped().delays(delays));
    api.make_available("m1", MAC).await;
    let direct = json!([
        {"op": "add", "path": "/deploy_interface", "value": "direct"},
        {"op": "add", "path": "/instance_info/image_source", "value": "http://127.0.0.1:1/disk.raw"},
    ]);
    assert_eq!(api.patch("/v1/nodes/m1", &direct).await.status, 200);
    api.verb("m1", "active").await;
    assert_eq!(api.state("m1").await, "wait call-back");
    api.verb("m1", "deleted").await;
    assert_eq!(api.state("m1").await, "available");
    assert!(!endpoint.step());
}

#[tokio::test]
async fn a_power_change_takes_its_time() {
    let delays = Delays::none().with_power(Duration::from_secs(5));
    let (endpoint, api) = start(IronicEndpoint::builder().stepped().delays(delays));
    api.make_available("m1", MAC).await;
    api.put("/v1/nodes/m1/states/power", &json!({"target": "power on"})).await;
    let states = api.get("/v1/nodes/m1/states").await.body;
    assert_eq!(
        (&states["power_state"], &states["target_power_state"]),
        (&json!("power off"), &json!("power on"))
    );
    assert_eq!(api.verb("m1", "active").await.status, 409);
    endpoint.advance(Duration::from_secs(5));
    let states = api.get("/v1/nodes/m1/states").await.body;
    assert_eq!((&states["power_state"], &states["target_power_state"]), (&json!("power on"), &json!(null)));
}

#[tokio::test]
async fn by_the_machines_clock_a_deploy_ends_although_nobody_asks() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (_endpoint, api) = start(
        IronicEndpoint::builder()
            .delays(Delays::none().with(S::Deploying, Duration::from_millis(30)))
            .on_event(move |event| {
                if let NodeEvent::Deployed(instance) = event {
                    let _ = tell.send(instance.node_uuid);
                }
            }),
    );
    let uuid = api.make_available("m1", MAC).await;
    api.verb("m1", "active").await;
    let deployed = tokio::time::timeout(Duration::from_secs(30), told.recv()).await.unwrap();
    assert_eq!(deployed, Some(uuid));
}
