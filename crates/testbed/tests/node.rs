//! A real kubelet joins with a bootstrap token, is let in when somebody approves it and not before, runs a
//! pod, and is gone after drop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test, in helpers too"
)]

mod common;

use bailiwick_testbed::{ControlPlane, Node, NodeOptions};
use serde_json::{Value, json};

const UUID: &str = "0b0f2d8e-6a3c-4d52-9d5e-7f0c2a1b3c4d";
const CONFIGURATION: &str = "
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: { enabled: false }
  webhook: { enabled: true }
  x509: { clientCAFile: /etc/kubernetes/pki/ca.crt }
authorization: { mode: Webhook }
rotateCertificates: true
registerWithTaints: [{ key: testbed.example/new, effect: NoSchedule }]
";

async fn kubectl(control_plane: &ControlPlane, arguments: &[&str]) -> String {
    control_plane.kubectl(arguments, None).await.unwrap().success().unwrap()
}

async fn create(control_plane: &ControlPlane, object: Value) {
    let apply = ["apply", "--server-side", "-f", "-"];
    control_plane.kubectl(&apply, Some(&object.to_string())).await.unwrap().success().unwrap();
}

/// Makes a token that may ask for a kubelet's certificate, and returns a kubeconfig with it.
async fn bootstrap_kubeconfig(control_plane: &ControlPlane, id: &str) -> String {
    let group = "system:bootstrappers:testbed";
    create(
        control_plane,
        json!({ "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": { "name": format!("bootstrap-token-{id}"), "namespace": "kube-system" },
        "stringData": { "token-id": id, "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true", "auth-extra-groups": group } }),
    )
    .await;
    create(
        control_plane,
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": "testbed-bootstrappers" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-bootstrapper" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group }] }),
    )
    .await;
    let admin = std::fs::read_to_string(control_plane.kubeconfig_admin()).unwrap();
    let mut kubeconfig: Value = serde_json::from_str(&admin).unwrap();
    kubeconfig["users"][0]["user"] = json!({ "token": format!("{id}.0123456789abcdef") });
    kubeconfig.to_string()
}

/// Waits for the request that this token makes, and returns its name.
async fn request_of(control_plane: &ControlPlane, id: &str) -> String {
    let requestor = format!("system:bootstrap:{id}");
    let list = format!("jsonpath={{.items[?(@.spec.username=='{requestor}')].metadata.name}}");
    for _ in 0..240 {
        let name = kubectl(control_plane, &["get", "csr", "-o", &list]).await;
        if !name.is_empty() {
            return name;
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    String::new()
}

async fn start(control_plane: &ControlPlane, name: &str, token: &str) -> Node {
    let kubeconfig = bootstrap_kubeconfig(control_plane, token).await;
    let options = NodeOptions::new(name, &kubeconfig, CONFIGURATION).system_uuid(UUID);
    options.start(control_plane).await.unwrap()
}

#[tokio::test]
async fn a_kubelet_is_let_in_by_approval_and_runs_a_pod() {
    let control_plane = ControlPlane::options().node_lifecycle(true).start().await.unwrap();
    let mut node = start(&control_plane, "node-1", "aaaaaa").await;

    let request = request_of(&control_plane, "aaaaaa").await;
    assert!(!request.is_empty(), "no request was made\n{}", node.log());
    let may_be_approved_unasked = control_plane
        .kubectl(
            &[
                "auth",
                "can-i",
                "create",
                "certificatesigningrequests.certificates.k8s.io",
                "--subresource=nodeclient",
                "--as=system:bootstrap:aaaaaa",
                "--as-group=system:bootstrappers:testbed",
                "--as-group=system:bootstrappers",
            ],
            None,
        )
        .await
        .unwrap();
    assert_eq!(may_be_approved_unasked.stdout.trim(), "no");
    let status = kubectl(&control_plane, &["get", "csr", &request, "-o", "jsonpath={.status}"]).await;
    assert_eq!(status, "{}", "pending is to have no condition and no certificate");

    kubectl(&control_plane, &["certificate", "approve", &request]).await;
    node.wait_until_ready(&control_plane).await.unwrap();
    let seen =
        "jsonpath={.status.nodeInfo.systemUUID} {.spec.taints[?(@.key=='testbed.example/new')].effect}";
    let seen = kubectl(&control_plane, &["get", "node", "node-1", "-o", seen]).await;
    assert_eq!(seen, format!("{UUID} NoSchedule"));

    create(
        &control_plane,
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "hello", "namespace": "default" }, "spec": {
        "tolerations": [{ "operator": "Exists" }], "restartPolicy": "Never",
        "containers": [{ "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
            "command": ["/bin/true"] }] } }),
    )
    .await;
    let ended = ["wait", "pod/hello", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s"];
    kubectl(&control_plane, &ended).await;
}

#[tokio::test]
async fn two_nodes_run_side_by_side_and_leave_nothing() {
    let control_plane = ControlPlane::options().node_lifecycle(true).start().await.unwrap();
    let mut nodes = Vec::new();
    for (name, token) in [("node-a", "bbbbbb"), ("node-b", "cccccc")] {
        let node = start(&control_plane, name, token).await;
        let request = request_of(&control_plane, token).await;
        kubectl(&control_plane, &["certificate", "approve", &request]).await;
        nodes.push(node);
    }
    for node in &mut nodes {
        node.wait_until_ready(&control_plane).await.unwrap();
    }
    let directories: Vec<_> =
        nodes.iter().map(|node| node.var_lib().parent().unwrap().to_path_buf()).collect();
    assert!(directories.iter().all(|directory| !common::processes_in(directory).is_empty()));
    drop(nodes);
    for directory in directories {
        assert!(common::nothing_is_left_in(&directory));
        assert!(!directory.exists());
    }
}
