//! What ends at a bad moment: a plugin before it answered, a machine, a pod by force.

use crate::stage::{Stage, claim, device, pod};
use bailiwick_dra::DRIVER;
use bailiwick_dra::plugin::wire::Claim;
use serde_json::{Value, json};

/// A pod that is started again whenever it ends.
fn lasting(name: &str, claims: &[&str]) -> Value {
    let mut pod = pod(name, claims);
    pod["spec"]["restartPolicy"] = "Always".into();
    pod
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_prepared_once_and_its_pod_runs() {
    let stage = Stage::start().await;
    stage.publish().await;
    stage.create(&claim("lost", 1)).await;
    stage.create(&pod("lost", &["lost"])).await;
    let allocated = |claim: &Value| claim["status"]["reservedFor"].is_array();
    let object = stage.until("resourceclaim", "lost", allocated).await;
    let uid = object["metadata"]["uid"].as_str().unwrap().to_owned();
    // A plugin did its work and was gone before it could answer.
    let asked = Claim { namespace: "default".to_owned(), uid: uid.clone(), name: "lost".to_owned() };
    let first = stage.preparer().prepare(vec![asked]).await.remove(&uid).unwrap().unwrap();
    let written = stage.specification(&uid);

    let _plugin = stage.registered("gpu").await;
    let running = stage.until_running("lost").await;
    assert_eq!(stage.specification(&uid), written);
    assert!(stage.output(&running).await.contains(&"nvidia0".to_owned()));
    assert_eq!(first[0].device_name, device(0));
    stage.delete_pod("lost").await;
    assert!(stage.specifications().is_empty());
}

#[tokio::test]
async fn a_pod_has_its_devices_again_after_its_machine_was_started_anew() {
    let mut stage = Stage::start().await;
    let plugin = stage.registered("gpu").await;
    stage.create(&claim("lasts", 1)).await;
    stage.create(&lasting("lasts", &["lasts"])).await;
    let before = stage.until_running("lasts").await;
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    drop(plugin);
    stage.node.reboot().await.unwrap();
    assert!(stage.specifications().is_empty());

    let preparer = stage.preparer_in_boot("99999999-2222-3333-4444-555555555555");
    preparer.restore().await.unwrap();
    let mut plugin = stage.plugin_of("gpu", preparer.clone());
    plugin.registration().open().unwrap();
    stage.until_registered(&mut plugin).await;
    let again = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        status["ready"] == true && id(pod) != id(&before)
    };
    stage.until("pod", "lasts", again).await;
    assert_eq!(stage.specifications().len(), 1);
    stage.delete_pod("lasts").await;
    assert!(preparer.held().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_device_of_a_pod_deleted_by_force_waits_for_its_scrub_before_the_next_pod() {
    let stage = Stage::with(1).await;
    let (preparer, _plugin) = stage.working().await;
    stage.create(&claim("first", 1)).await;
    stage.create(&pod("first", &["first"])).await;
    stage.until_running("first").await;
    // Something of it stays on the GPU.
    stage.scrubber.stuck.lock().unwrap().insert(device(0));
    stage.kubectl(&["delete", "pod", "first", "--force", "--grace-period=0"]).await;

    stage.create(&claim("second", 1)).await;
    stage.create(&pod("second", &["second"])).await;
    let told = stage.until_told("second", "plugin.device.").await;
    assert!(told.contains("default/first"), "{told}");
    stage.until_told("second", "plugin.device.unscrubbed").await;
    assert!(stage.scrubber.done.lock().unwrap().is_empty());

    stage.scrubber.stuck.lock().unwrap().clear();
    preparer.collect().await.unwrap();
    stage.until_running("second").await;
    assert_eq!(*stage.scrubber.done.lock().unwrap(), [device(0)]);
}

#[tokio::test]
async fn a_device_of_a_container_that_outlives_pod_and_claim_stays_reserved_until_the_kubelet_ended_it() {
    let stage = Stage::with(1).await;
    let (preparer, _plugin) = stage.working().await;
    stage.create(&claim("first", 1)).await;
    stage.create(&pod("first", &["first"])).await;
    stage.until_running("first").await;
    // The kubelet hangs, and an administrator has no patience.
    stage.node.freeze_kubelet().await.unwrap();
    stage.kubectl(&["delete", "pod", "first", "--force", "--grace-period=0"]).await;
    stage.kubectl(&["delete", "resourceclaim", "first"]).await;
    preparer.collect().await.unwrap();
    let [orphan] = preparer.orphans().try_into().unwrap();
    assert_eq!((orphan.name.as_str(), preparer.held().await.unwrap().len()), ("first", 1));
    assert!(stage.scrubber.done.lock().unwrap().is_empty());

    stage.create(&claim("second", 1)).await;
    stage.create(&pod("second", &["second"])).await;
    stage.node.thaw_kubelet().await.unwrap();
    stage.until_running("second").await;
    assert!(preparer.orphans().is_empty());
    assert_eq!(*stage.scrubber.done.lock().unwrap(), [device(0)]);
}

#[tokio::test]
async fn a_kubelet_that_starts_anew_gives_back_what_pods_and_claims_had_that_are_gone() {
    let stage = Stage::with(1).await;
    let (preparer, _plugin) = stage.working().await;
    stage.create(&claim("gone", 1)).await;
    stage.create(&pod("gone", &["gone"])).await;
    stage.until_running("gone").await;
    stage.node.freeze_kubelet().await.unwrap();
    stage.kubectl(&["delete", "pod", "gone", "--force", "--grace-period=0"]).await;
    stage.kubectl(&["delete", "resourceclaim", "gone"]).await;
    stage.node.restart_kubelet().await.unwrap();
    let start = std::time::Instant::now();
    while !preparer.held().await.unwrap().is_empty() {
        assert!(start.elapsed() < crate::stage::PATIENCE, "{}", stage.node.log());
        preparer.collect().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!(*stage.scrubber.done.lock().unwrap(), [device(0)]);
    assert!(stage.specifications().is_empty());
}

#[tokio::test]
async fn a_pod_whose_device_cannot_be_scrubbed_keeps_its_allocation() {
    let stage = Stage::with(1).await;
    let (preparer, _plugin) = stage.working().await;
    stage.create(&claim("kept", 1)).await;
    stage.create(&pod("kept", &["kept"])).await;
    stage.until_running("kept").await;
    stage.scrubber.stuck.lock().unwrap().insert(device(0));
    stage.kubectl(&["delete", "pod", "kept", "--wait=false"]).await;
    let failed = || stage.node.log().contains("plugin.scrub.failed");
    let start = std::time::Instant::now();
    while !failed() {
        assert!(start.elapsed() < crate::stage::PATIENCE, "{}", stage.node.log());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    // The scheduler gives the device to nobody: the claim is still this pod's.
    assert_eq!(stage.object("pod", "kept").await["metadata"]["name"], json!("kept"));
    let claim = stage.object("resourceclaim", "kept").await;
    assert!(claim["status"]["allocation"].is_object(), "{claim:#}");
    stage.scrubber.stuck.lock().unwrap().clear();
    preparer.collect().await.unwrap();
    stage.until("pod", "kept", Value::is_null).await;
}

#[tokio::test]
async fn a_taint_that_evicts_ends_the_pod_and_its_device_is_given_back() {
    let stage = Stage::start().await;
    let _plugin = stage.registered("gpu").await;
    stage.create(&claim("tainted", 1)).await;
    stage.create(&pod("tainted", &["tainted"])).await;
    stage.until_running("tainted").await;
    let rule = json!({
        "apiVersion": "resource.k8s.io/v1beta2", "kind": "DeviceTaintRule", "metadata": { "name": "failed" },
        "spec": {
            "deviceSelector": { "driver": DRIVER, "device": device(0) },
            "taint": { "key": "bailiwick.dev/alarm", "effect": "NoExecute" },
        },
    });
    stage.create(&rule).await;
    stage.until("pod", "tainted", Value::is_null).await;
    assert!(stage.specifications().is_empty());
    assert_eq!(*stage.scrubber.done.lock().unwrap(), [device(0)]);
}
