//! Whatever clients ask in whatever order, nodes follow Ironic's rules.

use std::time::Duration;

use bailiwick_sim::ironic::{Delays, Ending, IronicEndpoint, NodeFault, Operation, ProvisionState, Verb};
use proptest::prelude::*;
use reqwest::Method;
use serde_json::json;

const NODE: &str = "/v1/nodes/m1";

/// One thing that happens.
#[derive(Clone, Debug)]
enum Move {
    /// What leads on from here, so that most runs come to deploys.
    Onward,
    Ask(Verb),
    Power(&'static str),
    Maintenance(bool),
    Step,
    Fail(Operation),
    Stall(Operation),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        8 => Just(Move::Onward),
        6 => prop::sample::select(Verb::ALL).prop_map(Move::Ask),
        8 => Just(Move::Step),
        1 => prop::sample::select(&["power on", "power off", "rebooting"][..]).prop_map(Move::Power),
        1 => any::<bool>().prop_map(Move::Maintenance),
        1 => prop::sample::select(Operation::ALL).prop_map(Move::Fail),
        1 => prop::sample::select(Operation::ALL).prop_map(Move::Stall),
    ]
}

fn body(verb: Verb) -> serde_json::Value {
    let step = json!([{"interface": "bios", "step": "factory_reset"}]);
    match verb {
        Verb::Clean => json!({"target": "clean", "clean_steps": step}),
        Verb::Service => json!({"target": "service", "service_steps": step}),
        Verb::Rescue => json!({"target": "rescue", "rescue_password": "x"}),
        other => json!({"target": other.as_str()}),
    }
}

fn put(endpoint: &IronicEndpoint, path: &str, body: &serde_json::Value) -> u16 {
    endpoint.request(Method::PUT, &format!("{NODE}{path}"), Some(body)).0.as_u16()
}

fn onward(state: ProvisionState) -> Verb {
    let path = [Verb::Deleted, Verb::Active, Verb::Provide, Verb::Manage];
    path.into_iter().find(|verb| state.accepts(*verb)).unwrap_or(Verb::Abort)
}

/// Carries out one move.
fn play(endpoint: &IronicEndpoint, next: &Move) -> Result<(), TestCaseError> {
    let before = endpoint.node("m1").unwrap();
    match next {
        Move::Onward => {
            put(endpoint, "/states/provision", &body(onward(before.provision_state)));
        }
        Move::Ask(verb) => {
            let status = put(endpoint, "/states/provision", &body(*verb));
            let accepts = before.provision_state.accepts(*verb);
            prop_assert!(status != 202 || accepts, "{verb} in {}", before.provision_state);
            prop_assert!(matches!(status, 202 | 400 | 409), "{status}");
        }
        Move::Power(target) => {
            let status = put(endpoint, "/states/power", &json!({"target": target}));
            prop_assert!(matches!(status, 202 | 400 | 409), "{status}");
        }
        Move::Maintenance(true) => {
            put(endpoint, "/maintenance", &json!({}));
        }
        Move::Maintenance(false) => {
            endpoint.request(Method::DELETE, &format!("{NODE}/maintenance"), None);
        }
        Move::Step => {
            endpoint.step();
        }
        Move::Fail(operation) => {
            endpoint.add_node_fault(NodeFault::fails(*operation, None).times(1));
        }
        Move::Stall(operation) => {
            endpoint.add_node_fault(NodeFault::ending(*operation, Ending::Stalls).times(1));
        }
    }
    Ok(())
}

fn played(moves: &[Move]) -> Result<(), TestCaseError> {
    let endpoint =
        IronicEndpoint::builder().stepped().delays(Delays::uniform(Duration::from_secs(1))).start().unwrap();
    let node = json!({"name": "m1", "driver": "redfish", "deploy_interface": "ramdisk",
        "driver_info": {"redfish_address": "x"}, "instance_info": {"boot_iso": "x"}});
    prop_assert_eq!(endpoint.request(Method::POST, "/v1/nodes", Some(&node)).0, 201);
    for next in moves {
        play(&endpoint, next)?;
        let node = endpoint.node("m1").unwrap();
        let deploying = node.states.iter().filter(|state| **state == ProvisionState::Deploying).count();
        prop_assert_eq!(endpoint.deploys(&node.uuid) as usize, deploying);
    }
    // What is under way comes to an end, but for what was told to stall.
    for _ in 0..16 {
        endpoint.step();
    }
    prop_assert!(!endpoint.is_busy());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_order_of_requests_breaks_the_rules(moves in prop::collection::vec(moves(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { played(&moves) })?;
    }
}
