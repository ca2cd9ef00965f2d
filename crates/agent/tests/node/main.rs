//! `bailiwick-agent run` beside a real kubelet, on a host whose driver is stood in for, while the cell is away: it works with the
//! permits that it holds, and no longer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation is a failed test, in helpers too"
)]

mod daemonset;
mod described;
mod elsewhere;
mod forwarder;
mod image;
mod kubeconfig;
mod root;
mod stage;
mod unit;

use forwarder::Forwarder;
use serde_json::Value;
use stage::{Stage, claim, gpu, pod, pod_of_claim};
use std::time::Duration;

#[tokio::test]
async fn pods_get_gpus_while_the_cell_is_away_also_from_an_agent_that_was_killed() {
    let mut stage = Stage::start().await;
    stage.permit(Duration::from_hours(1));
    stage.start_agent();
    stage.publish_once_registered().await;
    stage.create(&pod("first", 2)).await;
    let first = stage.until_running("first").await;
    let seen = stage.output(&first).await;
    assert_eq!(seen.iter().filter(|line| line.starts_with("BAILIWICK_")).count(), 2, "{seen:?}");
    assert!(seen.contains(&format!("BAILIWICK_GPU_0={}", gpu(0))), "{seen:?}");
    let nodes: Vec<_> = seen.iter().filter(|line| line.starts_with("nvidia")).collect();
    assert_eq!(nodes, ["nvidia0", "nvidia1", "nvidiactl"]);

    stage.kill_agent();
    stage.start_agent();
    stage.publish_once_registered().await;
    stage.create(&pod("second", 1)).await;
    stage.until_running("second").await;
    assert_eq!(stage.object("pod", "first").await["status"]["phase"], "Running");
    for name in ["first", "second"] {
        stage.delete_pod(name).await;
    }
    let mut reset = stage.reset();
    reset.sort();
    let mut used = [0, 1, 2].map(gpu);
    used.sort();
    assert_eq!(reset, used);
    assert!(stage.specifications().is_empty());
}

#[tokio::test]
async fn when_the_permits_end_slices_go_pods_stay_and_nothing_new_starts() {
    let mut stage = Stage::start().await;
    stage.permit(Duration::from_hours(1));
    stage.start_agent();
    stage.publish_once_registered().await;
    stage.create(&pod("stays", 1)).await;
    stage.until_running("stays").await;

    stage.kill_agent();
    stage.permit(Duration::from_secs(15));
    stage.start_agent();
    stage.until("resourceslice", "node-1-gpus", Value::is_null).await;
    assert_eq!(stage.object("pod", "stays").await["status"]["phase"], "Running");
    stage.create(&pod("new", 1)).await;
    stage.until_told("new", "cannot allocate all claims").await;

    // The cell is back: what waited goes on.
    stage.kill_agent();
    stage.permit(Duration::from_hours(1));
    stage.start_agent();
    stage.publish_once_registered().await;
    stage.until_running("new").await;
    stage.delete_pod("stays").await;
}

#[tokio::test]
async fn a_gpu_that_falls_ill_is_seen_in_its_pods_status_and_handed_to_nobody_new() {
    let mut stage = Stage::start().await;
    stage.permit(Duration::from_hours(1));
    stage.start_agent();
    stage.publish_once_registered().await;
    // The kubelet shows no health to pods that ask by extended resource.
    stage.create(&claim("watched")).await;
    stage.create(&pod_of_claim("watched")).await;
    stage.until_running("watched").await;
    let is = |pod: &Value, wanted: &str| {
        let resource = &pod["status"]["containerStatuses"][0]["allocatedResourcesStatus"][0]["resources"][0];
        resource["health"] == wanted
    };
    stage.until("pod", "watched", |pod| is(pod, "Healthy")).await;
    // A row of memory of the first two GPUs could not be remapped.
    stage.gpus_fall_ill(2);
    let pod_now = stage.until("pod", "watched", |pod| is(pod, "Unhealthy")).await;
    assert!(pod_now.to_string().contains("gpu.health."), "{}", pod_now["status"]);
    stage.create(&pod("next", 1)).await;
    stage.until_told("next", "plugin.device.gate-closed").await;
}

#[tokio::test]
async fn an_agent_killed_between_its_answer_and_the_kubelet_prepares_the_same_device_once() {
    let mut stage = Stage::start().await;
    stage.keep_agent_apart();
    stage.permit(Duration::from_hours(1));
    stage.create(&claim("lost")).await;
    let claim = stage.object("resourceclaim", "lost").await;
    let uid = claim["metadata"]["uid"].as_str().unwrap();
    stage.start_agent();
    stage.until_listening().await;
    let socket = stage.plugin_dir().join("dra-gpu.sock");
    let mut between = Forwarder::in_place_of(&socket, &stage.plugin_dir().join("checkpoint.json"), uid);
    stage.introduce_agent();
    stage.publish_once_registered().await;
    stage.create(&pod_of_claim("lost")).await;
    between.until_answered().await;
    stage.kill_agent();
    let [(holder, devices)] = stage.held().try_into().unwrap();
    assert_eq!((holder.as_str(), devices.len()), (uid, 1));
    let specification = stage.specifications();
    assert_eq!(specification.len(), 1);
    assert_eq!(stage.object("pod", "lost").await["status"]["phase"], "Pending");
    drop(between);

    stage.start_agent();
    stage.until_listening().await;
    stage.introduce_agent();
    stage.publish_once_registered().await;
    let running = stage.until_running("lost").await;
    let seen = stage.output(&running).await;
    let index = devices[0].strip_prefix("gpu-").unwrap();
    let uuid = gpu(index.parse().unwrap());
    assert_eq!(
        seen,
        [&format!("BAILIWICK_GPU_{index}={uuid}"), &format!("nvidia{index}"), "nvidiactl", "end"]
    );
    assert_eq!(stage.held(), [(uid.to_owned(), devices)]);
    assert_eq!(stage.specifications(), specification);
    assert!(stage.reset().is_empty(), "nobody had used it");
    stage.delete_pod("lost").await;
    assert_eq!(stage.reset(), [uuid]);
    assert!(stage.held().is_empty() && stage.specifications().is_empty());
}
