//! Ironic starts, takes a node to `manageable` on a BMC that nobody here wrote, and is gone after drop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test, in helpers too"
)]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use bailiwick_testbed::{Ironic, SushyEmulator};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn client() -> Client {
    // Whoever installed it first installed the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

async fn call(ironic: &Ironic, method: Method, path: &str, body: Value) -> Value {
    let answer = client()
        .request(method, format!("{}{path}", ironic.url()))
        .header("X-OpenStack-Ironic-API-Version", "1.95")
        .header("Content-Type", "application/json")
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{path}: {status} {text}");
    if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
}

fn redfish_node(emulator: &SushyEmulator, system: &str) -> Value {
    json!({ "name": "on-sushy", "driver": "redfish", "boot_interface": "redfish-virtual-media", "driver_info": {
        "redfish_address": format!("https://{}", emulator.address()),
        "redfish_system_id": format!("/redfish/v1/Systems/{system}"),
        "redfish_username": emulator.username(),
        "redfish_password": emulator.password(),
        "redfish_verify_ca": false,
    }})
}

/// Waits until the node is in this state; an error that Ironic tells ends the wait.
async fn reaches(ironic: &Ironic, state: &str) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let node = call(ironic, Method::GET, "/v1/nodes/on-sushy", Value::Null).await;
        if node["provision_state"] == state {
            return;
        }
        assert!(node["last_error"].is_null(), "{}\n{}", node["last_error"], ironic.log());
        assert!(Instant::now() < deadline, "{node}\n{}", ironic.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_node_on_sushy_emulator_becomes_manageable() {
    let (ironic, emulator) = tokio::join!(Ironic::start(), SushyEmulator::start());
    let (ironic, emulator) = (ironic.unwrap(), emulator.unwrap());
    let system = emulator.system_uuids().next().unwrap();
    call(&ironic, Method::POST, "/v1/nodes", redfish_node(&emulator, system)).await;
    call(&ironic, Method::PUT, "/v1/nodes/on-sushy/states/provision", json!({ "target": "manage" })).await;
    reaches(&ironic, "manageable").await;
}

#[tokio::test]
async fn with_http_basic_only_the_right_password_is_answered() {
    let ironic = Ironic::options().http_basic(true).start().await.unwrap();
    let nodes = format!("{}/v1/nodes", ironic.url());
    let (user, password) = ironic.credentials().unwrap();
    let right = client().get(&nodes).basic_auth(user, Some(password)).send().await.unwrap();
    assert_eq!(right.status(), StatusCode::OK);
    let wrong = client().get(&nodes).basic_auth(user, Some("wrong")).send().await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn killed_and_started_again_it_still_knows_its_nodes() {
    let mut ironic = Ironic::start().await.unwrap();
    let node = json!({ "name": "kept", "driver": "fake-hardware" });
    call(&ironic, Method::POST, "/v1/nodes", node).await;
    ironic.kill();
    client().get(ironic.url()).send().await.unwrap_err();
    ironic.start_again().await.unwrap();
    let kept = call(&ironic, Method::GET, "/v1/nodes/kept", Value::Null).await;
    assert_eq!(kept["name"], "kept");
}

#[tokio::test]
async fn images_are_served_to_head_and_get() {
    let ironic = Ironic::start().await.unwrap();
    let disk = client().get(ironic.disk_image_url()).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(hex::encode(Sha256::digest(&disk)), ironic.disk_image_sha256());
    let head = client().head(ironic.live_iso_url()).send().await.unwrap();
    assert_eq!(
        (head.status(), head.headers()["content-length"].to_str().unwrap()),
        (StatusCode::OK, "131072")
    );
    let agent = client().get(ironic.agent_iso_url()).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(&agent[32768..][..8], b"\x01CD001\x01\0");
    assert_eq!(&agent[32808..32840], b"AGENT                           ");
}

#[tokio::test]
async fn a_dropped_ironic_leaves_no_process_and_no_file() {
    let ironic = Ironic::start().await.unwrap();
    let directory = ironic.images_dir().ancestors().nth(2).map(Path::to_path_buf).unwrap();
    assert_eq!(common::processes_in(&directory).len(), 3, "master, worker and file server");
    drop(ironic);
    assert!(common::nothing_is_left_in(&directory));
    assert!(!directory.exists());
}
