//! Pods get the devices of their claims, and no others.

use crate::stage::{EXTENDED, Stage, claim, device, health, pod, uuid};
use bailiwick_dra::DRIVER;
use bailiwick_dra::plugin::wire::HealthStatus;
use bailiwick_dra::plugin::{CONFIG_API_VERSION, CONFIG_KIND};
use domain::permit::PermitError;
use serde_json::{Value, json};

/// The lines of a container that sees these GPUs.
fn sees(gpus: &[usize]) -> Vec<String> {
    let variable = |index: &usize| {
        format!("BAILIWICK_{}={}", device(*index).to_ascii_uppercase().replace('-', "_"), uuid(*index))
    };
    let mut lines: Vec<_> = gpus.iter().map(variable).collect();
    lines.extend(gpus.iter().map(|index| format!("nvidia{index}")));
    lines.extend(["nvidiactl".to_owned(), "end".to_owned()]);
    lines
}

#[tokio::test]
async fn a_pod_sees_the_device_of_its_claim_alone_and_gives_it_back() {
    let stage = Stage::start().await;
    let _plugin = stage.registered("gpu").await;
    stage.create(&claim("one", 1)).await;
    stage.create(&pod("one", &["one"])).await;
    let running = stage.until_running("one").await;
    assert_eq!(stage.output(&running).await, sees(&[0]));
    assert_eq!(stage.specifications().len(), 1);
    stage.delete_pod("one").await;
    assert!(stage.specifications().is_empty());
    assert_eq!(*stage.scrubber.done.lock().unwrap(), [device(0)]);
}

#[tokio::test]
async fn a_pod_gets_gpus_by_extended_resource_or_by_two_claims() {
    let stage = Stage::start().await;
    let _plugin = stage.registered("gpu").await;
    for name in ["left", "right"] {
        stage.create(&claim(name, 1)).await;
    }
    stage.create(&pod("both", &["left", "right"])).await;
    let running = stage.until_running("both").await;
    assert_eq!(stage.output(&running).await, sees(&[0, 1]));
    assert_eq!(stage.specifications().len(), 2);

    let mut extended = pod("extended", &[]);
    extended["spec"]["containers"][0]["resources"] = json!({ "limits": { EXTENDED: 2 } });
    stage.create(&extended).await;
    let running = stage.until_running("extended").await;
    assert_eq!(stage.output(&running).await, sees(&[2, 3]));

    for name in ["both", "extended"] {
        stage.delete_pod(name).await;
    }
    assert!(stage.specifications().is_empty());
}

#[tokio::test]
async fn two_pods_share_a_claim_and_the_last_one_gives_it_back() {
    let stage = Stage::start().await;
    let _plugin = stage.registered("gpu").await;
    stage.create(&claim("shared", 1)).await;
    for name in ["first", "second"] {
        stage.create(&pod(name, &["shared"])).await;
        let running = stage.until_running(name).await;
        assert_eq!(stage.output(&running).await, sees(&[0]));
    }
    stage.delete_pod("first").await;
    assert_eq!(stage.specifications().len(), 1);
    stage.delete_pod("second").await;
    assert!(stage.specifications().is_empty());
}

#[tokio::test]
async fn what_is_refused_is_told_in_events_and_works_once_it_is_allowed() {
    let stage = Stage::start().await;
    let _plugin = stage.registered("gpu").await;
    let none = PermitError::None { device: device(0) };
    stage.permits.without.lock().unwrap().insert(device(0), none.into());
    stage.create(&claim("waits", 1)).await;
    stage.create(&pod("waits", &["waits"])).await;
    let told = stage.until_told("waits", "permit.none").await;
    assert!(told.contains(&device(0)), "{told}");
    assert!(stage.specifications().is_empty());
    stage.permits.without.lock().unwrap().clear();
    stage.until_running("waits").await;

    let mut unknown = claim("unknown", 1);
    unknown["spec"]["devices"]["config"] = json!([{ "opaque": {
        "driver": DRIVER,
        "parameters": { "apiVersion": CONFIG_API_VERSION, "kind": CONFIG_KIND, "sharing": "MPS" },
    } }]);
    let mut foreign = claim("foreign", 1);
    let parameters = json!({ "apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig" });
    foreign["spec"]["devices"]["config"] =
        json!([{ "requests": ["gpu"], "opaque": { "driver": "gpu.nvidia.com", "parameters": parameters } }]);
    for (claim, code) in [(unknown, "plugin.config.invalid"), (foreign, "plugin.config.foreign")] {
        let name = claim["metadata"]["name"].as_str().unwrap().to_owned();
        stage.create(&claim).await;
        stage.create(&pod(&name, &[&name])).await;
        stage.until_told(&name, code).await;
        stage.delete_pod(&name).await;
    }
}

#[tokio::test]
async fn a_change_of_health_is_seen_in_the_pods_status() {
    let stage = Stage::start().await;
    let _plugin = stage.registered("gpu").await;
    stage.create(&claim("watched", 1)).await;
    stage.create(&pod("watched", &["watched"])).await;
    stage.until_running("watched").await;
    let is = |pod: &Value, wanted: &str| {
        let resource = &pod["status"]["containerStatuses"][0]["allocatedResourcesStatus"][0]["resources"][0];
        resource["health"] == wanted
    };
    stage.until("pod", "watched", |pod| is(pod, "Healthy")).await;
    stage.health.send_modify(|all| all[0] = health(0, HealthStatus::Unhealthy, "XID 79: fell off the bus"));
    let pod = stage.until("pod", "watched", |pod| is(pod, "Unhealthy")).await;
    assert!(pod.to_string().contains("XID 79: fell off the bus"), "{}", pod["status"]);
    stage.health.send_modify(|all| all[0] = health(0, HealthStatus::Healthy, ""));
    stage.until("pod", "watched", |pod| is(pod, "Healthy")).await;
}

#[tokio::test]
async fn a_hundred_claims_at_once() {
    let stage = Stage::with(100).await;
    let _plugin = stage.registered("gpu").await;
    let names: Vec<_> = (0..100).map(|index| format!("claim-{index}")).collect();
    let claims: Vec<_> = names.iter().map(|name| claim(name, 1)).collect();
    stage.create(&json!({ "apiVersion": "v1", "kind": "List", "items": claims })).await;
    let together = |(at, names): (usize, &[String])| {
        pod(&format!("pod-{at}"), &names.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let pods: Vec<_> = names.chunks(20).enumerate().map(together).collect();
    stage.create(&json!({ "apiVersion": "v1", "kind": "List", "items": pods })).await;
    for at in 0..5 {
        let running = stage.until_running(&format!("pod-{at}")).await;
        // Twenty variables, twenty nodes, nvidiactl, and the end.
        assert_eq!(stage.output(&running).await.len(), 42);
    }
    assert_eq!(stage.specifications().len(), 100);
    stage.kubectl(&["delete", "pods", "--all"]).await;
    assert!(stage.specifications().is_empty());
    let mut scrubbed = stage.scrubber.done.lock().unwrap().clone();
    scrubbed.sort();
    // Each after each use: on a busy machine the kubelet may have given up waiting for one, and asked anew.
    scrubbed.dedup();
    assert_eq!(scrubbed, (0..100).map(device).collect::<Vec<_>>());
}
