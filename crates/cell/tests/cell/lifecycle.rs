//! Machines go from declared to in service, and back to the shelf.

use crate::line::Line;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_becomes_a_verified_node_and_goes_back_to_the_shelf_erased() {
    let line = Line::start(2).await;
    line.declare().await;
    line.arrive("available").await;
    line.assign(json!({ "baseCluster": "pool" }), "in-service").await;

    let name = &line.names()[0];
    let node = line.cluster.object(&format!("/api/v1/nodes/{name}")).unwrap();
    let labels = &node["metadata"]["labels"];
    for (key, value) in
        [("jurisdiction", "de"), ("site", "fra1"), ("machine", name), ("base-cluster", "pool")]
    {
        assert_eq!(labels[format!("node-restriction.kubernetes.io/{key}")], *value, "{labels}");
    }
    assert_eq!(node["spec"]["taints"], json!([]));
    // The token was used once, and is gone.
    assert!(line.cluster.list("/api/v1/namespaces/kube-system/secrets").is_empty());
    let uuid = line.ironic.node(name).unwrap().uuid;
    assert_eq!(line.ironic.deploys(&uuid), 1);

    line.release().await;
    assert!(line.cluster.object(&format!("/api/v1/nodes/{name}")).is_none());
    let erasures = line.client.get(&format!("/api/v1/machines/{name}/erasures")).await;
    assert_eq!(erasures.as_array().unwrap().len(), 2);
    assert_eq!(erasures[0]["baseCluster"], "pool");
    assert_eq!(erasures[1]["baseCluster"], json!(null));
    let history = line.history(name).await;
    let states = [
        "machine.discovered",
        "machine.enrolled",
        "machine.inspected",
        "machine.compliant",
        "machine.available",
        "machine.provisioning",
        "machine.verifying",
        "machine.in-service",
        "machine.draining",
        "machine.wiping",
        "machine.available",
    ];
    let seen: Vec<_> = history.iter().filter(|kind| states.contains(&kind.as_str())).collect();
    assert_eq!(seen, states.iter().collect::<Vec<_>>());
}
