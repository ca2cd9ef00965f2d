//! Nobody but the cell writes what is ours.

use crate::cluster::{Cluster, claim, class, input, rule};
use bailiwick_dra::{LABEL_OWNER, Proof, Step, publish, reconcile};
use serde_json::{Value, json};
use std::sync::Arc;
use testbed::ControlPlane;

const POLICY: &str = "denied request";

fn of_driver(slice: &Value, driver: &str, name: &str) -> Value {
    let mut slice = slice.clone();
    slice["metadata"] = json!({ "name": name });
    slice["spec"]["driver"] = driver.into();
    slice
}

#[tokio::test]
async fn the_proof_follows_the_policy_as_it_comes_and_goes() {
    let plane = ControlPlane::options().scheduler(false).controller_manager(false).start().await.unwrap();
    let cluster = Cluster::of(Arc::new(plane)).await;
    assert_eq!(cluster.proof().await, Proof::DoesNotHold);
    cluster.guard().await;
    assert_eq!(cluster.proof().await, Proof::Holds);
    cluster.admin(&["delete", "validatingadmissionpolicybinding", "bailiwick-slices"]).await;
    cluster.until(Proof::DoesNotHold).await;
    cluster.admin(&["delete", "clusterrolebinding", "bailiwick-cell"]).await;
    let start = std::time::Instant::now();
    while !matches!(cluster.proof().await, Proof::NotProven { .. }) {
        assert!(start.elapsed() < crate::cluster::PATIENCE, "whoever may not impersonate proves nothing");
    }
}

#[tokio::test]
async fn what_a_kubelet_forged_before_the_policy_is_gone_after_the_first_publication() {
    let plane = ControlPlane::options().scheduler(false).controller_manager(false).start().await.unwrap();
    let cluster = Cluster::of(Arc::new(plane)).await;
    let desired = publish(&input("forged", &["de"])).observed;
    let kubelet = cluster.plane.kubeconfig_for("system:node:forged-de", &["system:nodes"]).unwrap();
    let mut forged = of_driver(&desired[0].json(), "gpu.bailiwick.dev", "forged-x");
    forged["spec"]["pool"]["generation"] = 41.into();
    forged["spec"]["devices"][0]["attributes"]["probed"]["bool"] = true.into();
    let squatter = of_driver(&desired[0].json(), "gpu.example", &desired[0].name);
    for slice in [forged, squatter] {
        cluster.create_as(&kubelet, &slice).await.success().unwrap();
    }
    cluster.guard().await;
    let list = async || -> Vec<Value> {
        let list =
            cluster.plane.kubectl_as(&cluster.cell, &["get", "resourceslices", "-o", "json"], None).await;
        let list: Value = serde_json::from_str(&list.unwrap().success().unwrap()).unwrap();
        list["items"].as_array().unwrap().clone()
    };
    for step in reconcile(&list().await, &desired) {
        match step {
            Step::Apply(object) => drop(cluster.apply(&object).await),
            Step::Delete { name } => {
                let delete = ["delete", "resourceslice", &name];
                cluster.plane.kubectl_as(&cluster.cell, &delete, None).await.unwrap().success().unwrap();
            }
        }
    }
    let slices = list().await;
    let left: Vec<_> =
        slices.iter().map(|slice| (&slice["metadata"]["name"], &slice["spec"]["driver"])).collect();
    assert_eq!(left, [(&json!(desired[0].name), &json!("gpu.bailiwick.dev"))]);
    assert_eq!(slices[0]["spec"]["pool"]["generation"], 42);
}

#[tokio::test]
async fn a_kubelet_writes_slices_of_other_drivers_and_wipes_ours_but_writes_none_of_ours() {
    let cluster = Cluster::guarded().await;
    let slice = publish(&input("kubelet", &["de"])).observed.remove(0);
    let kubelet = cluster.plane.kubeconfig_for("system:node:kubelet-de", &["system:nodes"]).unwrap();
    let refused = cluster.create_as(&kubelet, &slice.json()).await;
    assert!(!refused.status.success() && refused.stderr.contains(POLICY), "{}", refused.stderr);
    let theirs = of_driver(&slice.json(), "gpu.example", "kubelet-example");
    cluster.create_as(&kubelet, &theirs).await.success().unwrap();

    cluster.apply(&slice).await;
    let patch =
        ["patch", "resourceslice", &slice.name, "--type=merge", "-p", r#"{"metadata":{"labels":{"a":"b"}}}"#];
    let changed = cluster.plane.kubectl_as(&kubelet, &patch, None).await.unwrap();
    assert!(!changed.status.success() && changed.stderr.contains(POLICY), "{}", changed.stderr);
    let wipe = ["delete", "resourceslice", &slice.name];
    cluster.plane.kubectl_as(&kubelet, &wipe, None).await.unwrap().success().unwrap();
}

#[tokio::test]
async fn a_slice_deleted_in_the_foreground_goes_away_though_a_controller_must_change_it() {
    let cluster = Cluster::guarded().await;
    let slice = publish(&input("foreground", &["de"])).observed.remove(0);
    cluster.apply(&slice).await;
    cluster.admin(&["delete", "resourceslice", &slice.name, "--cascade=foreground", "--timeout=60s"]).await;
}

#[tokio::test]
async fn administrators_are_refused_what_is_ours_and_allowed_what_is_not() {
    let cluster = Cluster::guarded().await;
    let tolerate = |tolerations: Value| claim("x", "c", &tolerations);
    let labelled = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
        "metadata": { "name": "x", "labels": { LABEL_OWNER: "cell-1" } }, "spec": {},
    });
    let template = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
        "metadata": { "name": "x", "namespace": "default" },
        "spec": { "spec": tolerate(json!([{ "key": "bailiwick.dev/alarm", "operator": "Exists" }]))["spec"] },
    });
    let alternative = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": { "name": "x", "namespace": "default" },
        "spec": { "devices": { "requests": [{ "name": "gpu", "firstAvailable": [
            { "name": "a", "deviceClassName": "c" },
            { "name": "b", "deviceClassName": "c", "tolerations": [{ "operator": "Exists" }] },
        ] }] } },
    });
    let old = json!({
        "apiVersion": "resource.k8s.io/v1beta2", "kind": "ResourceClaim",
        "metadata": { "name": "x", "namespace": "default" },
        "spec": tolerate(json!([{ "key": "gpu.bailiwick.dev/health", "operator": "Exists" }]))["spec"],
    });
    let slice = publish(&input("admin", &["de"])).observed.remove(0).json();
    let attempts = [
        ("a slice of our driver", slice.clone(), true),
        ("a slice of another driver", of_driver(&slice, "gpu.example", "x"), false),
        ("a taint rule for every device", rule("x", &json!({})), true),
        ("a taint rule for a pool of any driver", rule("x", &json!({ "pool": "admin-de" })), true),
        ("a taint rule for our driver", rule("x", &json!({ "driver": "gpu.bailiwick.dev" })), true),
        ("a taint rule for another driver", rule("x", &json!({ "driver": "gpu.example" })), false),
        ("a class with our label", labelled, true),
        ("an extended resource of ours", class("x", "gpu.bailiwick.dev/h100"), true),
        ("an extended resource of a tenant's", class("x", "acme.gpu.bailiwick.dev/h100"), true),
        ("an extended resource of somebody else's", class("x", "gpu.example/h100"), false),
        ("an extended resource that ends like ours", class("x", "mygpu.bailiwick.dev/h100"), false),
        (
            "tolerating our alarm",
            tolerate(json!([{ "key": "bailiwick.dev/alarm", "operator": "Exists" }])),
            true,
        ),
        ("tolerating everything", tolerate(json!([{ "operator": "Exists" }])), true),
        (
            "tolerating everything of one effect",
            tolerate(json!([{ "operator": "Exists", "effect": "NoExecute" }])),
            true,
        ),
        (
            "tolerating another driver's taint",
            tolerate(json!([{ "key": "gpu.example/x", "operator": "Exists" }])),
            false,
        ),
        ("tolerating nothing", tolerate(json!([])), false),
        ("tolerating our alarm in a template", template, true),
        ("tolerating everything in an alternative", alternative, true),
        ("tolerating ours through an older version", old, true),
    ];
    for (what, object, refused) in attempts {
        let output = cluster.dry_run(&object).await;
        assert_eq!(output.stderr.contains(POLICY), refused, "{what}: {}{}", output.stdout, output.stderr);
        assert_eq!(output.status.success(), !refused, "{what}: {}{}", output.stdout, output.stderr);
    }
}

#[tokio::test]
async fn nobody_turns_ours_into_theirs() {
    let cluster = Cluster::guarded().await;
    let mut input = input("turn", &["de"]);
    let spec = serde_json::from_value(json!({ "jurisdiction": "de" })).unwrap();
    input.classes = vec![(crate::cluster::name("turn-class"), spec)];
    let class = publish(&input).declared.into_iter().find(|object| object.kind == "DeviceClass").unwrap();
    cluster.apply(&class).await;
    let patch = r#"{"metadata":{"labels":null},"spec":{"selectors":[]}}"#;
    let output = cluster
        .plane
        .kubectl(&["patch", "deviceclass", "turn-class", "--type=merge", "-p", patch], None)
        .await;
    assert!(output.unwrap().stderr.contains(POLICY));
}

#[tokio::test]
async fn the_cell_may_do_its_work_and_nothing_else() {
    let cluster = Cluster::guarded().await;
    for (verb, resource, expected) in [
        ("create", "resourceslices.resource.k8s.io", "yes"),
        ("delete", "devicetaintrules.resource.k8s.io", "yes"),
        ("list", "nodes", "yes"),
        ("patch", "nodes", "no"),
        ("get", "secrets", "no"),
        ("create", "pods", "no"),
        ("list", "pods", "no"),
        ("delete", "validatingadmissionpolicies.admissionregistration.k8s.io", "no"),
        ("delete", "validatingadmissionpolicies.admissionregistration.k8s.io/bailiwick-slices", "yes"),
        ("impersonate", "users/system:node:bailiwick-proof", "yes"),
        ("impersonate", "users/system:node:dgx-01", "no"),
        ("impersonate", "groups/system:masters", "no"),
    ] {
        let output =
            cluster.plane.kubectl_as(&cluster.cell, &["auth", "can-i", verb, resource], None).await.unwrap();
        assert_eq!(output.stdout.trim(), expected, "{verb} {resource}: {}", output.stderr);
    }
    let evict = ["auth", "can-i", "create", "pods", "--subresource=eviction"];
    let output = cluster.plane.kubectl_as(&cluster.cell, &evict, None).await.unwrap();
    assert_eq!(output.stdout.trim(), "yes", "{}", output.stderr);
}

#[tokio::test]
async fn an_agent_reads_claims_and_writes_nothing() {
    let cluster = Cluster::guarded().await;
    let role = testbed::repository_root().join("manifests/agent/clusterrole.yaml");
    cluster.admin(&["apply", "--server-side", "-f", role.to_str().unwrap()]).await;
    let account = "system:serviceaccount:kube-system:bailiwick-agent";
    let user = format!("--user={account}");
    let bind = ["create", "clusterrolebinding", "reads-claims", "--clusterrole=bailiwick-agent", &user];
    cluster.admin(&bind).await;
    let agent = cluster.plane.kubeconfig_for(account, &["system:serviceaccounts"]).unwrap();
    for (verb, resource, expected) in [
        ("get", "resourceclaims.resource.k8s.io", "yes"),
        ("list", "resourceclaims.resource.k8s.io", "no"),
        ("update", "resourceclaims.resource.k8s.io/status", "no"),
        ("delete", "resourceslices.resource.k8s.io", "no"),
        ("patch", "nodes", "no"),
        ("get", "secrets", "no"),
    ] {
        let output =
            cluster.plane.kubectl_as(&agent, &["auth", "can-i", verb, resource], None).await.unwrap();
        assert_eq!(output.stdout.trim(), expected, "{verb} {resource}: {}", output.stderr);
    }
    let slice = publish(&input("agent", &["de"])).observed.remove(0);
    for object in [slice.json(), class("agent", "gpu.example/x"), rule("agent", &json!({}))] {
        let refused = cluster.create_as(&agent, &object).await;
        assert!(refused.stderr.contains("Forbidden"), "{}{}", refused.stdout, refused.stderr);
    }
    cluster.apply(&slice).await;
    let patch = r#"{"metadata":{"labels":{"a":"b"}}}"#;
    let change = ["patch", "resourceslice", &slice.name, "--type=merge", "-p", patch];
    let refused = cluster.plane.kubectl_as(&agent, &change, None).await.unwrap();
    assert!(refused.stderr.contains("Forbidden"), "{}{}", refused.stdout, refused.stderr);
}

#[tokio::test]
async fn the_agents_manifests_are_taken_as_they_are() {
    let cluster = Cluster::guarded().await;
    let folder = testbed::repository_root().join("manifests/agent");
    // Its namespace is needed before what is in it.
    let account = folder.join("account.yaml");
    cluster.admin(&["apply", "--server-side", "-f", account.to_str().unwrap()]).await;
    let check =
        ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", folder.to_str().unwrap()];
    let taken = cluster.admin(&check).await;
    assert!(taken.contains("daemonset.apps/bailiwick-agent serverside-applied"), "{taken}");
}

#[tokio::test]
async fn a_kubelet_writes_no_classes_and_neither_labels_nor_taints_of_ours_on_its_node() {
    let cluster = Cluster::guarded().await;
    let uuid = "00000000-0000-0000-0000-000000000001";
    cluster.plane.create_node("labelled-de", uuid).await.unwrap();
    let kubelet = cluster.plane.kubeconfig_for("system:node:labelled-de", &["system:nodes"]).unwrap();
    for object in [class("kubelet", "gpu.bailiwick.dev/h100"), rule("kubelet", &json!({}))] {
        let refused = cluster.create_as(&kubelet, &object).await;
        assert!(refused.stderr.contains("Forbidden"), "{}{}", refused.stdout, refused.stderr);
    }
    for (patch, refused) in [
        (r#"{"metadata":{"labels":{"node-restriction.kubernetes.io/jurisdiction":"fr"}}}"#, true),
        (r#"{"metadata":{"labels":{"node-restriction.kubernetes.io/zone":"secret"}}}"#, true),
        (r#"{"spec":{"taints":[{"key":"bailiwick.dev/unverified","effect":"NoSchedule"}]}}"#, true),
        (r#"{"metadata":{"labels":{"topology.kubernetes.io/zone":"z"}}}"#, false),
    ] {
        let change = ["patch", "node", "labelled-de", "--type=merge", "-p", patch];
        let output = cluster.plane.kubectl_as(&kubelet, &change, None).await.unwrap();
        assert_eq!(!output.status.success(), refused, "{patch}: {}{}", output.stdout, output.stderr);
        assert_eq!(output.stderr.contains("forbidden"), refused, "{patch}: {}", output.stderr);
    }
}
