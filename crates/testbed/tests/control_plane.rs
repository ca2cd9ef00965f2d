//! The control plane starts, answers as a cluster would, and is gone after drop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test, in helpers too"
)]

mod common;

use bailiwick_testbed::ControlPlane;

const UUID: &str = "6a8c1f52-0b0e-4c53-8f7e-3f9e0c1d2a01";

#[tokio::test]
async fn the_administrator_lists_nodes() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let listed = control_plane.kubectl(&["get", "nodes"], None).await.unwrap();
    listed.success().unwrap();
}

#[tokio::test]
async fn a_node_made_by_a_test_is_ready_and_says_its_system_uuid() {
    let control_plane = ControlPlane::shared().await.unwrap();
    control_plane.create_node("node-of-uuid-test", UUID).await.unwrap();
    let template =
        "{.status.nodeInfo.systemUUID} {.status.conditions[?(@.type=='Ready')].status} {.spec.taints}";
    let said = control_plane
        .kubectl(&["get", "node", "node-of-uuid-test", "-o", &format!("jsonpath={template}")], None)
        .await
        .unwrap();
    assert_eq!(said.success().unwrap(), format!("{UUID} True "));
}

#[tokio::test]
async fn a_resource_slice_of_v1_is_accepted() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let slice = slice("slice-accepted", "node-of-slice-test", "one.testbed.example");
    let created = control_plane.kubectl(&["create", "-f", "-"], Some(&slice)).await.unwrap();
    created.success().unwrap();
}

#[tokio::test]
async fn device_taint_rules_are_served_as_v1beta2() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let served =
        control_plane.kubectl(&["get", "--raw", "/apis/resource.k8s.io/v1beta2"], None).await.unwrap();
    let served = served.success().unwrap();
    assert!(served.contains("\"name\":\"devicetaintrules\""), "{served}");
}

#[tokio::test]
async fn a_client_certificate_makes_its_user_and_both_its_groups() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let kubeconfig =
        control_plane.kubeconfig_for("system:node:n1", &["system:nodes", "example:second"]).unwrap();
    let whoami = ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups}"];
    let said = control_plane.kubectl_as(&kubeconfig, &whoami, None).await.unwrap().success().unwrap();
    assert_eq!(said, r#"system:node:n1 ["system:nodes","example:second","system:authenticated"]"#);
}

#[tokio::test]
async fn three_groups_are_refused_rather_than_cut_short() {
    let control_plane = ControlPlane::shared().await.unwrap();
    let refused = control_plane.kubeconfig_for("user", &["one", "two", "three"]).unwrap_err();
    assert_eq!(refused.code(), "testbed.too-many-groups");
}

#[tokio::test]
async fn a_kubelet_may_not_change_another_node() {
    let control_plane = ControlPlane::shared().await.unwrap();
    control_plane.create_node("node-of-another", UUID).await.unwrap();
    let kubelet = control_plane.kubeconfig_for("system:node:mine", &["system:nodes"]).unwrap();
    let change = ["label", "node", "node-of-another", "example=1"];
    let refused = control_plane.kubectl_as(&kubelet, &change, None).await.unwrap();
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("forbidden"), "{}", refused.stderr);
}

#[tokio::test]
async fn the_scheduler_allocates_a_published_device_to_a_claim() {
    let control_plane = ControlPlane::shared().await.unwrap();
    control_plane.create_node("node-of-claim-test", UUID).await.unwrap();
    let objects =
        [slice("slice-of-claim-test", "node-of-claim-test", "two.testbed.example"), claim_and_pod()]
            .join("\n---\n");
    control_plane.kubectl(&["create", "-f", "-"], Some(&objects)).await.unwrap().success().unwrap();
    let wait =
        ["wait", "pod/claim-test", "--for=jsonpath={.spec.nodeName}=node-of-claim-test", "--timeout=60s"];
    control_plane.kubectl(&wait, None).await.unwrap().success().unwrap();
    let device = "jsonpath={.status.allocation.devices.results[0].device}";
    let allocated =
        control_plane.kubectl(&["get", "resourceclaim", "claim-test", "-o", device], None).await.unwrap();
    assert_eq!(allocated.success().unwrap(), "gpu-0");
}

#[tokio::test]
async fn an_api_server_killed_and_started_again_still_has_its_objects() {
    let mut control_plane =
        ControlPlane::options().scheduler(false).controller_manager(false).start().await.unwrap();
    control_plane.create_namespace("kept").await.unwrap();
    control_plane.kill_api_server();
    let unanswered = control_plane.kubectl(&["get", "namespace", "kept"], None).await.unwrap();
    assert!(unanswered.stderr.contains("refused"), "{}", unanswered.stderr);
    control_plane.start_api_server_again().await.unwrap();
    control_plane.kubectl(&["get", "namespace", "kept"], None).await.unwrap().success().unwrap();
}

#[tokio::test]
async fn a_dropped_control_plane_leaves_no_process_and_no_file() {
    let control_plane = ControlPlane::options().scheduler(false).start().await.unwrap();
    let directory = control_plane.kubeconfig_admin().parent().unwrap().to_path_buf();
    assert_eq!(
        common::processes_in(&directory).len(),
        3,
        "etcd, API server and controller manager run there"
    );
    drop(control_plane);
    assert_eq!(common::processes_in(&directory), Vec::<std::path::PathBuf>::new());
    assert!(!directory.exists());
}

fn slice(name: &str, node: &str, driver: &str) -> String {
    format!(
        "
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {{ name: {name} }}
spec:
  driver: {driver}
  nodeName: {node}
  pool: {{ name: {node}, generation: 1, resourceSliceCount: 1 }}
  devices:
    - name: gpu-0
      attributes: {{ jurisdiction: {{ string: de }} }}
"
    )
}

fn claim_and_pod() -> String {
    "
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: { name: claim-test }
spec:
  selectors:
    - cel:
        expression: >-
          device.driver == 'two.testbed.example' &&
          device.attributes['two.testbed.example'].jurisdiction == 'de'
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: { name: claim-test, namespace: default }
spec:
  devices:
    requests:
      - name: gpu
        exactly: { deviceClassName: claim-test }
---
apiVersion: v1
kind: Pod
metadata: { name: claim-test, namespace: default }
spec:
  containers:
    - name: main
      image: localhost/never-pulled:1
      resources: { claims: [{ name: gpu }] }
  resourceClaims: [{ name: gpu, resourceClaimName: claim-test }]
"
    .to_owned()
}
