//! Objects of Cluster API are checked by a real API server against Cluster API's own definitions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test, in helpers too"
)]

use bailiwick_testbed::{ClusterApiCrds, ControlPlane, Output};
use serde_json::{Value, json};

async fn dry_run(control_plane: &ControlPlane, spec: Value) -> Output {
    let deployment = json!({ "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineDeployment",
        "metadata": { "name": "dry", "namespace": "default" }, "spec": spec });
    let apply = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
    control_plane.kubectl(&apply, Some(&deployment.to_string())).await.unwrap()
}

#[tokio::test]
async fn a_machine_deployment_is_accepted_and_one_without_a_cluster_is_refused() {
    let control_plane =
        ControlPlane::options().scheduler(false).controller_manager(false).start().await.unwrap();
    let definitions = ClusterApiCrds::find().await.unwrap();
    definitions.apply(&control_plane).await.unwrap();
    let reference = |group: &str, kind: &str| json!({ "apiGroup": group, "kind": kind, "name": "workers" });
    let whole = json!({ "clusterName": "base", "replicas": 1, "selector": {}, "template": { "spec": {
        "clusterName": "base",
        "bootstrap": {
            "configRef": reference("bootstrap.cluster.x-k8s.io", "KubeadmConfigTemplate") },
        "infrastructureRef": reference("infrastructure.cluster.x-k8s.io", "Metal3MachineTemplate") } } });
    dry_run(&control_plane, whole.clone()).await.success().unwrap();
    let mut without_cluster = whole;
    without_cluster.as_object_mut().unwrap().remove("clusterName");
    let refused = dry_run(&control_plane, without_cluster).await;
    assert!(refused.stderr.contains("spec.clusterName"), "{}", refused.stderr);
}

#[tokio::test]
async fn what_is_left_out_is_said_and_the_rest_is_there() {
    let definitions = ClusterApiCrds::find().await.unwrap();
    let named = |name: &str| definitions.folder().join(format!("{name}.yaml")).exists();
    for kind in [
        "cluster.x-k8s.io_clusters",
        "cluster.x-k8s.io_machinedeployments",
        "bootstrap.cluster.x-k8s.io_kubeadmconfigtemplates",
        "controlplane.cluster.x-k8s.io_kubeadmcontrolplanes",
    ] {
        assert!(named(kind), "{kind} is missing");
    }
    let metal3 = named("infrastructure.cluster.x-k8s.io_metal3machinetemplates");
    assert_eq!(definitions.metal3_left_out().is_none(), metal3);
}
