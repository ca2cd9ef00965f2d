//! What the endpoint does where the contract test cannot look: with hardware, locks, credentials, many nodes.

use bailiwick_sim::ironic::{
    CleaningOutcome, Delays, IronicEndpoint, Microversion, NodeFault, Operation, Power, ProvisionState as S,
    Step, Verb,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, start};

const MAC: &str = "02:00:00:00:00:01";

#[tokio::test]
async fn a_machine_goes_from_enrolled_to_active_and_back() {
    let (endpoint, api) = start(IronicEndpoint::builder());
    let uuid = api.make_available("m1", MAC).await;
    for verb in ["active", "deleted", "manage"] {
        assert_eq!(api.verb(&uuid, verb).await.status, 202, "{verb}");
    }
    let node = endpoint.node("m1").unwrap();
    let cleaning = [S::Cleaning, S::CleanWait, S::Cleaning];
    let expected = [
        &[S::Enroll, S::Verifying, S::Manageable][..],
        &cleaning,
        &[S::Available, S::Deploying, S::Active, S::Deleting],
        &cleaning,
        &[S::Available, S::Manageable],
    ]
    .concat();
    assert_eq!(node.states, expected);
    assert_eq!(api.delete(&format!("/v1/nodes/{uuid}")).await.status, 204);
}

#[tokio::test]
async fn a_direct_deploy_waits_for_its_agent_and_an_agents_inspection_does() {
    let (endpoint, api) = start(IronicEndpoint::builder().automated_clean(false));
    let uuid = api.make_node("m1", MAC).await;
    let change =
        |field: &str, value: Value| json!({"op": "add", "path": format!("/{field}"), "value": value});
    let patch = json!([
        change("deploy_interface", json!("direct")),
        change("inspect_interface", json!("agent")),
        change("instance_info", json!({"image_source": "http://127.0.0.1:1/disk.raw"})),
    ]);
    assert_eq!(api.patch("/v1/nodes/m1", &patch).await.status, 200);
    for verb in ["manage", "inspect", "provide", "active"] {
        assert_eq!(api.verb("m1", verb).await.status, 202, "{verb}");
    }
    let states = endpoint.node(&uuid).unwrap().states;
    assert!(
        states.windows(3).any(|three| three == [S::Inspecting, S::InspectWait, S::Inspecting]),
        "{states:?}"
    );
    assert!(states.ends_with(&[S::Deploying, S::WaitCallBack, S::Deploying, S::Active]), "{states:?}");
}

#[tokio::test]
async fn a_hold_step_stands_until_it_is_told_to_go_on() {
    let (_endpoint, api) = start(IronicEndpoint::builder());
    api.make_available("m1", MAC).await;
    let steps = json!([{"interface": "deploy", "step": "hold", "args": {}, "priority": 90}]);
    let asked = json!({"target": "active", "deploy_steps": steps});
    assert_eq!(api.put("/v1/nodes/m1/states/provision", &asked).await.status, 202);
    assert_eq!(api.state("m1").await, "deploy hold");
    assert_eq!(api.verb("m1", "unhold").await.status, 202);
    assert_eq!(api.state("m1").await, "active");
}

#[tokio::test]
async fn a_held_lock_refuses_all_that_writes_and_nothing_that_reads() {
    let (endpoint, api) = start(IronicEndpoint::builder());
    let uuid = api.make_node("m1", MAC).await;
    endpoint.reserve("m1", "conductor-7");
    let node = format!("/v1/nodes/{uuid}");
    for (method, path, body) in [
        (Method::PUT, "/states/provision", json!({"target": "manage"})),
        (Method::PUT, "/states/power", json!({"target": "power on"})),
        (Method::PUT, "/maintenance", json!({})),
        (Method::PUT, "/traits", json!({"traits": []})),
        (Method::PATCH, "", json!([{"op": "add", "path": "/extra/a", "value": 1}])),
        (Method::DELETE, "", Value::Null),
    ] {
        let answer = api.ask(method, &format!("{node}{path}"), Some(&body)).await;
        assert_eq!(answer.status, 409, "{path}");
        let sentence = format!(
            "Node {uuid} is locked by host conductor-7, please retry after the current operation is completed."
        );
        assert_eq!(answer.sentence(), sentence);
    }
    assert_eq!(api.node("m1").await["reservation"], "conductor-7");
    endpoint.release("m1");
    assert_eq!(api.verb("m1", "manage").await.status, 202);
}

#[tokio::test]
async fn maintenance_stops_deploys_and_where_configured_providing() {
    let (_endpoint, api) = start(IronicEndpoint::builder().provisioning_in_maintenance(false));
    api.make_node("m1", MAC).await;
    api.verb("m1", "manage").await;
    api.put("/v1/nodes/m1/maintenance", &json!({"reason": "disk"})).await;
    let refused = api.verb("m1", "provide").await;
    assert_eq!(refused.status, 400);
    assert!(refused.sentence().starts_with("The providing operation can't be performed"), "{refused:?}");
    api.delete("/v1/nodes/m1/maintenance").await;
    assert_eq!(api.verb("m1", "provide").await.status, 202);
}

#[tokio::test]
async fn a_wrong_password_leaves_the_node_enrolled_until_it_is_corrected() {
    let (_endpoint, api) = start(IronicEndpoint::builder().credential_check(|node| {
        match node.driver_info["redfish_password"].as_str() {
            Some("right") => Ok(()),
            _ => Err("HTTP GET https://127.0.0.1:1/redfish/v1/Systems/1 returned code 401. unauthorized"
                .to_owned()),
        }
    }));
    let uuid = api.make_node("m1", MAC).await;
    assert_eq!(api.verb("m1", "manage").await.status, 202);
    let node = api.node("m1").await;
    assert_eq!(node["provision_state"], "enroll");
    let error = node["last_error"].as_str().unwrap();
    assert!(
        error.starts_with(&format!("Failed to get power state for node {uuid}. Error: HTTP GET")),
        "{error}"
    );
    assert!(error.contains("code 401"), "{error}");
    let patch = json!([{"op": "replace", "path": "/driver_info/redfish_password", "value": "right"}]);
    api.patch("/v1/nodes/m1", &patch).await;
    api.verb("m1", "manage").await;
    let node = api.node("m1").await;
    assert_eq!((&node["provision_state"], &node["last_error"]), (&json!("manageable"), &Value::Null));
}

#[tokio::test]
async fn a_node_without_a_bmc_address_cannot_be_managed() {
    let (_endpoint, api) = start(IronicEndpoint::builder());
    api.post("/v1/nodes", &json!({"name": "m1", "driver": "redfish"})).await;
    api.verb("m1", "manage").await;
    let node = api.node("m1").await;
    assert_eq!(node["provision_state"], "enroll");
    assert!(node["last_error"].as_str().unwrap().contains("['redfish_address']"), "{node}");
}

#[tokio::test]
async fn an_inventory_is_there_after_an_inspection_and_not_before() {
    let (_endpoint, api) = start(IronicEndpoint::builder());
    api.make_node("m1", MAC).await;
    api.verb("m1", "manage").await;
    assert_eq!(api.get("/v1/nodes/m1/inventory").await.status, 404);
    api.verb("m1", "inspect").await;
    let inventory = api.get("/v1/nodes/m1/inventory").await.body;
    assert_eq!(inventory["inventory"]["interfaces"][0]["mac_address"], MAC);
    assert_eq!(api.node("m1").await["properties"]["memory_mb"], "262144");
}

#[tokio::test]
async fn an_inventory_may_be_the_owners_own() {
    let (_endpoint, api) = start(IronicEndpoint::builder().inventory(|node| {
        Some(json!({"inventory": {"system_vendor": {"serial_number": node.macs[0]}}, "plugin_data": {}}))
    }));
    api.make_node("m1", MAC).await;
    api.verb("m1", "manage").await;
    api.verb("m1", "inspect").await;
    let inventory = api.get("/v1/nodes/m1/inventory").await.body;
    assert_eq!(inventory["inventory"]["system_vendor"]["serial_number"], MAC);
}

#[tokio::test]
async fn deploys_and_undeploys_switch_the_machine() {
    let (endpoint, api) = start(IronicEndpoint::builder());
    let uuid = api.make_available("m1", MAC).await;
    let power = || {
        let node = endpoint.node(&uuid).unwrap();
        assert_eq!(node.power_state, Some(node.hardware_power));
        node.hardware_power
    };
    assert_eq!(power(), Power::Off);
    api.verb("m1", "active").await;
    assert_eq!(power(), Power::On);
    api.put("/v1/nodes/m1/states/power", &json!({"target": "soft power off"})).await;
    assert_eq!(power(), Power::Off);
    api.verb("m1", "deleted").await;
    assert_eq!(power(), Power::Off);
}

#[tokio::test]
async fn what_was_erased_between_uses_is_recorded() {
    let steps = vec![Step::new("deploy", "erase_devices"), Step::new("bios", "factory_reset")];
    let (endpoint, api) = start(IronicEndpoint::builder().clean_steps(steps.clone()));
    let uuid = api.make_available("m1", MAC).await;
    api.verb("m1", "active").await;
    endpoint.add_node_fault(NodeFault::fails(Operation::Clean, Some("disk is worn out")).times(1));
    api.verb("m1", "deleted").await;
    let cleanings = endpoint.cleanings(&uuid);
    let outcomes: Vec<_> =
        cleanings.iter().map(|cleaning| (cleaning.erased_disks(), cleaning.outcome)).collect();
    assert_eq!(outcomes, [(true, CleaningOutcome::Completed), (false, CleaningOutcome::Failed)]);
    assert!(cleanings.iter().all(|cleaning| cleaning.automated && cleaning.steps == steps));
}

#[tokio::test]
async fn what_the_agent_offers_is_seen_while_it_cleans_and_nothing_else_can_be_asked_of_it() {
    let delays = Delays::none().with(S::CleanWait, std::time::Duration::from_mins(1));
    let steps = vec![Step::new("deploy", "erase_devices_metadata"), Step::new("deploy", "clear_tpm")];
    let (endpoint, api) = start(IronicEndpoint::builder().stepped().delays(delays).agent_steps(steps));
    api.make_node("m1", MAC).await;
    for verb in ["manage", "provide"] {
        api.verb("m1", verb).await;
    }
    let told = || endpoint.request(Method::GET, "/v1/nodes/m1", None).1["driver_internal_info"].clone();
    let offered = json!([
        {"interface": "deploy", "step": "erase_devices_metadata"}, {"interface": "deploy", "step": "clear_tpm"},
    ]);
    assert_eq!(told()["agent_cached_clean_steps"]["deploy"], offered);
    endpoint.step();
    assert_eq!((told(), api.state("m1").await), (json!({}), "available".to_owned()));
    for (step, state) in [("clear_tpm", "manageable"), ("erase_gpu_memory", "clean failed")] {
        api.verb("m1", "manage").await;
        let steps = json!([{"interface": "deploy", "step": step}]);
        api.put("/v1/nodes/m1/states/provision", &json!({"target": "clean", "clean_steps": steps})).await;
        assert_eq!(told()["clean_steps"], steps);
        endpoint.step();
        assert_eq!(api.state("m1").await, state, "{step}");
    }
}

#[tokio::test]
async fn every_verb_of_every_node_is_counted() {
    let (endpoint, api) = start(IronicEndpoint::builder());
    let uuid = api.make_available("m1", MAC).await;
    assert_eq!(endpoint.deploys(&uuid), 0);
    api.verb("m1", "active").await;
    assert_eq!(api.verb(&uuid, "active").await.status, 400);
    assert_eq!(endpoint.deploys(&uuid), 1);
    assert_eq!(endpoint.verbs(&uuid, Verb::Active).refused, 1);
    api.verb("m1", "deleted").await;
    api.delete("/v1/nodes/m1").await;
    assert_eq!(endpoint.deploys(&uuid), 1, "a deleted node is not forgotten");
    assert_eq!(endpoint.verbs_of_all(Verb::Active).accepted, 1);
}

#[tokio::test]
async fn requests_are_kept_without_their_secrets() {
    let (endpoint, api) = start(IronicEndpoint::builder());
    endpoint.record_requests();
    api.make_available("m1", MAC).await;
    let deploy = json!({"target": "active", "configdrive": {"user_data": "planted-secret"}});
    api.put("/v1/nodes/m1/states/provision", &deploy).await;
    let kept = endpoint.recorded_requests();
    let last = kept.last().unwrap();
    assert_eq!((last.method.as_str(), last.status), ("PUT", 202));
    assert_eq!(last.body["target"], "active");
    assert!(!format!("{kept:?} {endpoint:?} {:?}", endpoint.nodes()).contains("planted-secret"));
}

#[tokio::test]
async fn an_older_ironic_speaks_no_newer_version() {
    let (_endpoint, mut api) = start(IronicEndpoint::builder().newest(Microversion(81)));
    let refused = api.get("/v1").await;
    assert_eq!(refused.status, 406);
    let sentence = refused.error()["description"].as_str().unwrap().to_owned();
    assert!(sentence.ends_with("The supported version range is: [1.1, 1.81]."), "{sentence}");
    api.version = "latest";
    assert_eq!(api.get("/v1").await.version.as_deref(), Some("1.81"));
}

#[tokio::test]
async fn more_nodes_than_a_page_are_listed_page_by_page() {
    let (endpoint, api) = start(IronicEndpoint::builder());
    for n in 0..2_100 {
        let body = json!({"driver": "fake-hardware", "name": format!("m{n}")});
        assert_eq!(endpoint.request(Method::POST, "/v1/nodes", Some(&body)).0, 201);
    }
    let (mut path, mut names) = ("/v1/nodes?fields=name".to_owned(), Vec::new());
    loop {
        let page = api.get(&path).await.body;
        let nodes = page["nodes"].as_array().unwrap();
        names.extend(nodes.iter().map(|node| node["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = next.strip_prefix(api.base()).unwrap().to_owned();
    }
    assert_eq!(names, (0..2_100).map(|n| format!("m{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_page_goes_on_after_its_marker_although_the_marked_node_has_left_the_filter() {
    let (endpoint, api) = start(IronicEndpoint::builder());
    let mut uuids = Vec::new();
    for n in 0..4 {
        uuids.push(api.make_node(&format!("m{n}"), &format!("02:00:00:00:00:0{n}")).await);
    }
    endpoint.set_state(&uuids[1], S::Active);
    let page = api.get(&format!("/v1/nodes?provision_state=enroll&marker={}", uuids[1])).await.body;
    let shown: Vec<_> = page["nodes"].as_array().unwrap().iter().map(|node| node["uuid"].clone()).collect();
    assert_eq!(shown, uuids[2..]);
}

#[tokio::test]
async fn clients_that_race_for_one_node_deploy_it_once() {
    let delays = Delays::none().with(S::Deploying, std::time::Duration::from_hours(1));
    let (endpoint, api) = start(IronicEndpoint::builder().delays(delays));
    let uuid = api.make_available("m1", MAC).await;
    let clients: Vec<Api> = (0..8).map(|_| Api::new(endpoint.url())).collect();
    let answers = futures_util::future::join_all(clients.iter().map(|api| api.verb("m1", "active"))).await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 409, 409, 409, 409, 409, 409, 409]);
    assert_eq!(endpoint.deploys(&uuid), 1);
}
