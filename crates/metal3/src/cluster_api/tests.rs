use super::*;
use crate::registration::tests::name;
use crate::registration::{Algorithm, DiskFormat};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;

fn input() -> ClusterInput {
    ClusterInput {
        cell: name("cell-1"),
        name: name("fra-1-secret"),
        namespace: name("metal3"),
        jurisdiction: name("de"),
        site: name("fra-1"),
        zone_tier: "secret".into(),
        zone_handling: Some("sensitive".into()),
        kubernetes_version: "1.36.3".into(),
        control_plane: ControlPlane::Machines { count: 3 },
        workers: 5,
        image: Payload::Disk {
            url: "https://images.example/node.qcow2".into(),
            checksum: "a".repeat(64),
            algorithm: Algorithm::Sha256,
            format: DiskFormat::Qcow2,
        },
        endpoint_host: "api.fra-1.example".into(),
        endpoint_port: 6443,
        pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
        host_selector: [(crate::LABEL_MODEL.to_owned(), "DGX-H100".to_owned())].into(),
        kubelet_args: [("v".to_owned(), "2".to_owned())].into(),
        health_check: Some(HealthCheck { unhealthy_after: 600, startup_within: 3600 }),
    }
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// Every `{apiGroup, kind, name}` in an object.
fn references(value: &Value, into: &mut Vec<(String, String, String)>) {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    if let (Some(group), Some(kind), Some(name)) = (text("apiGroup"), text("kind"), text("name")) {
        into.push((group, kind, name));
    }
    match value {
        Value::Object(parts) => parts.values().for_each(|below| references(below, into)),
        Value::Array(items) => items.iter().for_each(|below| references(below, into)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_to_an_object_and_no_name_is_given_twice() {
    let objects = render(&input()).unwrap();
    let group = |object: &Value| object["apiVersion"].as_str().unwrap().split('/').next().unwrap().to_owned();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let there: BTreeSet<_> = objects
        .iter()
        .map(|object| (group(object), text(&object["kind"]), text(&object["metadata"]["name"])))
        .collect();
    assert_eq!(there.len(), objects.len());
    let mut led_to = Vec::new();
    for object in &objects {
        references(object, &mut led_to);
    }
    assert_eq!(led_to.len(), 5);
    for reference in led_to {
        assert!(there.contains(&reference), "{reference:?}");
    }
    for template in of_kind(&objects, "Metal3MachineTemplate") {
        let data = &template["spec"]["template"]["spec"]["dataTemplate"]["name"];
        assert!(
            of_kind(&objects, "Metal3DataTemplate").iter().any(|there| &there["metadata"]["name"] == data)
        );
    }
}

#[test]
fn hosts_are_chosen_by_cell_jurisdiction_site_zone_and_model() {
    let objects = render(&input()).unwrap();
    let templates = of_kind(&objects, "Metal3MachineTemplate");
    assert_eq!(templates.len(), 2);
    for template in templates {
        assert_eq!(
            template["spec"]["template"]["spec"]["hostSelector"]["matchLabels"],
            json!({
                "bailiwick.dev/owner": "cell-1", "bailiwick.dev/jurisdiction": "de", "bailiwick.dev/site": "fra-1",
                "bailiwick.dev/zone-tier": "secret", "bailiwick.dev/zone-handling": "sensitive",
                "bailiwick.dev/model": "DGX-H100",
            })
        );
    }
}

#[test]
fn a_selector_cannot_be_widened_beyond_the_jurisdiction() {
    let mut input = input();
    input.host_selector.insert(crate::LABEL_JURISDICTION.to_owned(), "us".to_owned());
    let objects = render(&input).unwrap();
    for template in of_kind(&objects, "Metal3MachineTemplate") {
        let labels = &template["spec"]["template"]["spec"]["hostSelector"]["matchLabels"];
        assert_eq!(labels["bailiwick.dev/jurisdiction"], "de");
    }
}

#[test]
fn every_node_registers_with_the_taint_and_without_labels_of_the_cells() {
    let objects = render(&input()).unwrap();
    let plane = &of_kind(&objects, "KubeadmControlPlane")[0]["spec"]["kubeadmConfigSpec"];
    let workers = &of_kind(&objects, "KubeadmConfigTemplate")[0]["spec"]["template"]["spec"];
    for configuration in
        [&plane["initConfiguration"], &plane["joinConfiguration"], &workers["joinConfiguration"]]
    {
        let registration = &configuration["nodeRegistration"];
        let taints = registration["taints"].as_array().unwrap();
        assert!(taints.contains(&json!({ "key": "bailiwick.dev/unverified", "effect": "NoSchedule" })));
        assert_eq!(registration["name"], "{{ ds.meta_data.name }}");
        let arguments = registration["kubeletExtraArgs"].as_array().unwrap();
        assert_eq!(
            arguments,
            &[
                json!({ "name": "node-labels", "value": "metal3.io/uuid={{ ds.meta_data.uuid }}" }),
                json!({ "name": "v", "value": "2" }),
            ]
        );
    }
    let text = render_yaml(&input()).unwrap();
    assert!(!text.contains("node-restriction") && !text.contains("sshAuthorizedKeys"));
}

#[test]
fn an_external_control_plane_is_referred_to_and_not_made() {
    let reference = Reference {
        api_group: "controlplane.cluster.x-k8s.io".into(),
        kind: "KamajiControlPlane".into(),
        name: "fra".into(),
    };
    let external =
        ClusterInput { control_plane: ControlPlane::External { reference: Some(reference) }, ..input() };
    let objects = render(&external).unwrap();
    assert!(of_kind(&objects, "KubeadmControlPlane").is_empty());
    assert_eq!(of_kind(&objects, "Metal3MachineTemplate").len(), 1);
    assert_eq!(of_kind(&objects, "Cluster")[0]["spec"]["controlPlaneRef"]["kind"], "KamajiControlPlane");
    let unnamed = ClusterInput { control_plane: ControlPlane::External { reference: None }, ..input() };
    assert!(of_kind(&render(&unnamed).unwrap(), "Cluster")[0]["spec"].get("controlPlaneRef").is_none());
}

#[test]
fn a_changed_template_has_another_name_and_an_unchanged_one_the_same() {
    let (before, after) = (input(), ClusterInput { workers: 9, ..input() });
    let names = |input: &ClusterInput| -> Vec<Value> {
        let objects = render(input).unwrap();
        of_kind(&objects, "Metal3MachineTemplate")
            .iter()
            .map(|object| object["metadata"]["name"].clone())
            .collect()
    };
    assert_eq!(names(&before), names(&after));
    let image = Payload::LiveIso { url: "https://images.example/node.iso".into() };
    assert_ne!(names(&before), names(&ClusterInput { image, ..input() }));
}

#[test]
fn what_cluster_api_or_the_cell_would_refuse_later_is_refused_now() {
    let code = |input: ClusterInput| render(&input).unwrap_err().code;
    for count in [0, 2, 4] {
        let control_plane = ControlPlane::Machines { count };
        assert_eq!(code(ClusterInput { control_plane, ..input() }), "cluster-api.control-plane-count");
    }
    for version in ["", "1.36", "latest", "1.36.x", "1..3"] {
        let kubernetes_version = version.to_owned();
        assert_eq!(code(ClusterInput { kubernetes_version, ..input() }), "cluster-api.version", "{version}");
    }
    let image = Payload::Custom { method: "install_coreos".into() };
    assert_eq!(code(ClusterInput { image, ..input() }), "cluster-api.image-invalid");
    assert_eq!(code(ClusterInput { name: name(&"x".repeat(41)), ..input() }), "cluster-api.name-too-long");
    for (argument, value) in [
        ("register-with-taints", ""),
        ("node-labels", "a=b,node-restriction.kubernetes.io/jurisdiction=de"),
        ("node-labels", "bailiwick.dev/site=fra"),
        ("hostname-override", "m2"),
    ] {
        let kubelet_args = [(argument.to_owned(), value.to_owned())].into();
        assert_eq!(
            code(ClusterInput { kubelet_args, ..input() }),
            "cluster-api.kubelet-argument",
            "{argument}"
        );
    }
}

proptest! {
    #[test]
    fn rendering_is_deterministic_and_reads_back_from_yaml(
        workers in 0_u32..5000, count in 0_u32..4, handling in proptest::option::of("[ -~]{1,40}"),
        model in "[ -~]{0,20}", argument in "[ -~]{0,20}", port in 1_u16..,
    ) {
        let input = ClusterInput {
            workers,
            control_plane: ControlPlane::Machines { count: 2 * count + 1 },
            zone_handling: handling,
            host_selector: [("example.com/x".to_owned(), model)].into(),
            kubelet_args: [("v".to_owned(), argument)].into(),
            endpoint_port: port,
            ..input()
        };
        let text = render_yaml(&input).unwrap();
        prop_assert_eq!(&text, &render_yaml(&input.clone()).unwrap());
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        prop_assert_eq!(documents, render(&input).unwrap());
    }
}
