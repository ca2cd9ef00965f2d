//! What is rendered for Cluster API is what its schemas take.

use bailiwick_metal3::cluster_api::{ClusterInput, ControlPlane as Plane, HealthCheck, Reference, render};
use bailiwick_metal3::{Algorithm, DiskFormat, LABEL_MODEL, Payload};
use serde_json::Value;
use testbed::{ClusterApiCrds, ControlPlane};

use crate::support::{kubectl, name};

fn input() -> ClusterInput {
    ClusterInput {
        cell: name("cell-1"),
        name: name("fra-1-secret"),
        namespace: name("default"),
        jurisdiction: name("de"),
        site: name("fra-1"),
        zone_tier: "secret".to_owned(),
        zone_handling: Some("sensitive".to_owned()),
        kubernetes_version: "1.36.3".to_owned(),
        control_plane: Plane::Machines { count: 3 },
        workers: 5,
        image: Payload::Disk {
            url: "https://images.example/node.qcow2".to_owned(),
            checksum: "a".repeat(64),
            algorithm: Algorithm::Sha256,
            format: DiskFormat::Qcow2,
        },
        endpoint_host: "api.fra-1.example".to_owned(),
        endpoint_port: 6443,
        pod_cidrs: vec!["10.244.0.0/16".parse().unwrap(), "fd00:1::/56".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
        host_selector: [(LABEL_MODEL.to_owned(), "DGX-H100".to_owned())].into(),
        kubelet_args: [("v".to_owned(), "2".to_owned())].into(),
        health_check: Some(HealthCheck { unhealthy_after: 600, startup_within: 3600 }),
    }
}

/// Whether the object, as it came back, has every field that was sent.
fn keeps(sent: &Value, back: &Value) -> bool {
    match (sent, back) {
        (Value::Object(sent), Value::Object(back)) => {
            sent.iter().all(|(key, value)| back.get(key).is_some_and(|back| keeps(value, back)))
        }
        (Value::Array(sent), Value::Array(back)) => {
            sent.len() == back.len() && sent.iter().zip(back).all(|(sent, back)| keeps(sent, back))
        }
        (sent, back) => sent == back,
    }
}

#[tokio::test]
async fn every_object_passes_a_dry_run_and_loses_no_field() {
    let plane = ControlPlane::options().scheduler(false).controller_manager(false).start().await.unwrap();
    let crds = ClusterApiCrds::find().await.unwrap();
    crds.apply(&plane).await.unwrap();
    let left_out = crds.metal3_left_out();
    if let Some(reason) = left_out {
        println!("Metal3's own kinds are not checked: {reason}");
    }
    let reference = Reference {
        api_group: "controlplane.cluster.x-k8s.io".to_owned(),
        kind: "KamajiControlPlane".to_owned(),
        name: "fra".to_owned(),
    };
    let single = ClusterInput {
        control_plane: Plane::Machines { count: 1 },
        image: Payload::LiveIso { url: "https://images.example/node.iso".to_owned() },
        ..input()
    };
    let external = |reference| ClusterInput { control_plane: Plane::External { reference }, ..input() };
    let mut checked = 0;
    for input in [input(), single, external(Some(reference)), external(None)] {
        for object in render(&input).unwrap() {
            let kind = object["kind"].as_str().unwrap();
            if left_out.is_some() && kind.starts_with("Metal3") {
                continue;
            }
            let dry_run = ["apply", "--server-side", "--dry-run=server", "-o", "json", "-f", "-"];
            let answer = plane.kubectl(&dry_run, Some(&object.to_string())).await.unwrap();
            let back: Value = serde_json::from_str(&answer.success().unwrap()).unwrap();
            assert!(keeps(&object, &back), "{object:#}\ncame back as\n{back:#}");
            checked += 1;
        }
    }
    assert!(checked >= 4 * 4, "{checked}");
    assert_eq!(kubectl(&plane, &["get", "clusters.cluster.x-k8s.io", "-A", "-o", "name"]).await, "");
}
