//! What the owner of an endpoint is told.

use std::sync::{Arc, Mutex, OnceLock};

use bailiwick_sim::ironic::{ConfigDrive, IronicEndpoint, NodeEvent, Power, ProvisionState};
use serde_json::json;

use crate::support::{Api, start};

const MAC: &str = "02:00:00:00:00:01";

/// An endpoint with its events in a list.
fn listening() -> (IronicEndpoint, Api, Arc<Mutex<Vec<NodeEvent>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&events);
    let (endpoint, api) =
        start(IronicEndpoint::builder().on_event(move |event| kept.lock().unwrap().push(event)));
    (endpoint, api, events)
}

#[tokio::test]
async fn a_deploy_is_told_with_its_instance_and_its_user_data() {
    let (_endpoint, api, events) = listening();
    let uuid = api.make_available("m1", MAC).await;
    let instance = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
    api.patch("/v1/nodes/m1", &json!([{"op": "add", "path": "/instance_uuid", "value": instance}])).await;
    events.lock().unwrap().clear();
    let drive = json!({"user_data": "#cloud-config\n", "meta_data": {"name": "m1"}});
    api.put("/v1/nodes/m1/states/provision", &json!({"target": "active", "configdrive": drive})).await;
    let events = events.lock().unwrap();
    let [NodeEvent::Power { power: Power::On, .. }, NodeEvent::Deployed(told)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((told.node_uuid.as_str(), told.name.as_deref()), (uuid.as_str(), Some("m1")));
    assert_eq!(told.instance_uuid.as_deref(), Some(instance));
    assert_eq!(told.instance_info["boot_iso"], "http://127.0.0.1:1/a.iso");
    assert_eq!(told.macs, [MAC]);
    let Some(ConfigDrive::Json { user_data, meta_data, .. }) = &told.config_drive else { panic!("{told:?}") };
    assert_eq!(user_data.as_deref(), Some("#cloud-config\n"));
    assert_eq!(meta_data["name"], "m1");
}

#[tokio::test]
async fn tearing_down_is_told_with_what_is_gone() {
    let (_endpoint, api, events) = listening();
    let uuid = api.make_available("m1", MAC).await;
    let drive = json!({"user_data": "gone"});
    api.put("/v1/nodes/m1/states/provision", &json!({"target": "active", "configdrive": drive})).await;
    api.verb("m1", "deleted").await;
    let events = events.lock().unwrap();
    let undeployed: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            NodeEvent::Undeployed(instance) => Some(instance),
            _ => None,
        })
        .collect();
    assert_eq!(undeployed.len(), 1);
    assert_eq!(undeployed[0].node_uuid, uuid);
    assert_eq!(undeployed[0].config_drive.as_ref().and_then(ConfigDrive::user_data), Some("gone"));
}

#[tokio::test]
async fn adopting_a_machine_that_runs_already_deploys_nothing() {
    let (_endpoint, api, events) = listening();
    api.make_node("m1", MAC).await;
    api.verb("m1", "manage").await;
    api.verb("m1", "adopt").await;
    assert_eq!(api.state("m1").await, "active");
    assert!(events.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_listener_may_ask_the_endpoint() {
    let slot: Arc<OnceLock<IronicEndpoint>> = Arc::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (asked, kept) = (Arc::clone(&slot), Arc::clone(&seen));
    let endpoint = IronicEndpoint::builder()
        .on_event(move |event| {
            if let (NodeEvent::Deployed(instance), Some(endpoint)) = (event, asked.get()) {
                let node = endpoint.node(&instance.node_uuid).unwrap();
                kept.lock().unwrap().push(node.provision_state);
                endpoint.set_maintenance(&instance.node_uuid, "told to", None);
            }
        })
        .start()
        .unwrap();
    let api = Api::new(endpoint.url());
    slot.set(endpoint).unwrap();
    api.make_available("m1", MAC).await;
    api.verb("m1", "active").await;
    assert_eq!(*seen.lock().unwrap(), [ProvisionState::Active]);
    assert_eq!(api.node("m1").await["maintenance"], true);
}
