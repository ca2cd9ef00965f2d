//! The kubelet takes a plugin whose registration socket is named with an `@`, and could not take it without.

use crate::stage::{PATIENCE, Stage, claim, pod};
use bailiwick_dra::DRIVER;
use bailiwick_dra::plugin::{Registration, RegistrationState};
use serde_json::Value;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_plugin_registers_with_an_at_in_its_sockets_name_and_not_without() {
    let stage = Stage::start().await;
    let registry = stage.node.kubelet_dir().join("plugins_registry");
    let elsewhere = tempfile::tempdir().unwrap();
    let endpoint = stage.state_dir().join("dra-gpu.sock");
    let _plugin = stage.plugin("gpu");
    let mut registration = Registration::new(elsewhere.path(), "gpu", &endpoint);
    registration.open().unwrap();
    let socket = elsewhere.path().join(format!("gpu@{DRIVER}-reg.sock"));

    // The same listener under another name: what differs is the name alone.
    let plain = format!("gpu-{DRIVER}-reg.sock");
    std::fs::hard_link(&socket, registry.join(&plain)).unwrap();
    let start = Instant::now();
    let refused = |line: &str| line.contains("RegisterPlugin error") && line.contains(&plain);
    while !stage.node.log().lines().any(refused) {
        assert!(start.elapsed() < PATIENCE, "{}", stage.node.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(*registration.state().borrow(), RegistrationState::Waiting);
    std::fs::remove_file(registry.join(&plain)).unwrap();

    std::fs::hard_link(&socket, registry.join(format!("gpu@{DRIVER}-reg.sock"))).unwrap();
    let mut state = registration.state();
    let registered = state.wait_for(|state| matches!(state, RegistrationState::Registered(_)));
    tokio::time::timeout(PATIENCE, registered).await.expect("it registers").unwrap();
}

#[tokio::test]
async fn a_closed_registration_withdraws_slices_and_leaves_pods() {
    let stage = Stage::start().await;
    let mut plugin = stage.registered("gpu").await;
    stage.create(&claim("stays", 1)).await;
    stage.create(&pod("stays", &["stays"])).await;
    stage.until_running("stays").await;

    plugin.registration().close().await;
    stage.until("resourceslice", "node-1-gpus", Value::is_null).await;
    assert_eq!(stage.object("pod", "stays").await["status"]["phase"], "Running");

    plugin.registration().open().unwrap();
    stage.until_registered(&mut plugin).await;
    stage.publish().await;
    stage.delete_pod("stays").await;
    assert!(stage.specifications().is_empty());
}

#[tokio::test]
async fn a_kubelet_that_starts_anew_is_registered_with_again_and_wipes_slices() {
    let stage = Stage::start().await;
    let mut plugin = stage.registered("gpu").await;
    stage.create(&claim("before", 1)).await;
    stage.create(&pod("before", &["before"])).await;
    stage.until_running("before").await;

    let (mut state, connections) = (plugin.registration().state(), plugin.connections());
    assert_eq!(*connections.borrow(), 1, "a kubelet stays connected");
    state.mark_unchanged();
    stage.node.restart_kubelet().await.unwrap();
    tokio::time::timeout(PATIENCE, state.changed()).await.expect("it asks again").unwrap();
    stage.until_registered(&mut plugin).await;
    stage.until("resourceslice", "node-1-gpus", Value::is_null).await;
    stage.publish().await;

    // What was prepared before is given back by the new one.
    assert_eq!(stage.object("pod", "before").await["status"]["phase"], "Running");
    stage.delete_pod("before").await;
    assert!(stage.specifications().is_empty());
    stage.create(&claim("after", 4)).await;
    stage.create(&pod("after", &["after"])).await;
    stage.until_running("after").await;
}

#[tokio::test]
async fn the_second_of_two_plugins_takes_over_and_what_the_first_prepared() {
    let stage = Stage::start().await;
    let first = stage.registered("one").await;
    stage.create(&claim("first", 1)).await;
    stage.create(&pod("first", &["first"])).await;
    stage.until_running("first").await;

    let mut second = stage.plugin("two");
    second.registration().open().unwrap();
    stage.until_registered(&mut second).await;
    first.stop().await;
    stage.create(&claim("second", 3)).await;
    stage.create(&pod("second", &["second"])).await;
    stage.until_running("second").await;
    stage.delete_pod("first").await;
    assert_eq!(stage.specifications().len(), 1);
    let slices = stage.object("resourceslice", "node-1-gpus").await;
    assert!(!slices.is_null(), "a plugin was there all the time");
}
