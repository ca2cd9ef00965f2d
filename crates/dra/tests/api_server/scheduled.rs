//! What the real scheduler gives to claims.

use crate::cluster::{Cluster, claim, input, name, part};
use bailiwick_dra::{Input, publish};
use domain::Problem;
use serde_json::{Value, json};

/// Publishes a machine in Germany and one in the United States, each a Node, and these classes.
async fn world(prefix: &str, classes: &[(&str, Value)], alarmed: bool) -> Cluster {
    let cluster = Cluster::guarded().await;
    let mut input = input(prefix, &["de", "us"]);
    if alarmed {
        input.machines[0].alarms.push(Problem::new("bmc.pin-mismatch", "its key changed"));
    }
    show(&cluster, &mut input, classes).await;
    cluster
}

/// Publishes machines and classes as the cell does, and makes a Node of each machine.
async fn show(cluster: &Cluster, input: &mut Input, classes: &[(&str, Value)]) {
    for (class, spec) in classes {
        input.classes.push((name(class), serde_json::from_value(spec.clone()).unwrap()));
    }
    for machine in &input.machines {
        cluster.plane.create_node(machine.name.as_str(), &format!("uuid-{}", machine.name)).await.unwrap();
    }
    let output = publish(input);
    for object in output.declared.iter().chain(&output.observed) {
        cluster.apply(object).await;
    }
}

/// A claim for one device of a class that other tests' machines do not match, and a pod that waits for it.
async fn ask(cluster: &Cluster, claim_name: &str, class: &str, pool: Option<&str>) {
    let mut claim = claim(claim_name, class, &json!([]));
    if let Some(pool) = pool {
        let machine = format!("device.attributes['gpu.bailiwick.dev'].machine.startsWith('{pool}')");
        claim["spec"]["devices"]["requests"][0]["exactly"]["selectors"] =
            json!([{ "cel": { "expression": machine } }]);
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": claim_name, "namespace": "default" },
        "spec": {
            "containers": [{ "name": "c", "image": "example.com/none", "resources": { "claims": [{ "name": "gpu" }] } }],
            "resourceClaims": [{ "name": "gpu", "resourceClaimName": claim_name }],
        },
    });
    for object in [claim, pod] {
        let output = cluster.plane.kubectl(&["create", "-f", "-"], Some(&object.to_string())).await.unwrap();
        output.success().unwrap();
    }
}

/// The pool of the device that a claim got.
async fn got(cluster: &Cluster, claim: &str) -> String {
    let claim = format!("resourceclaim/{claim}");
    cluster
        .admin(&[
            "wait",
            &claim,
            "--for=jsonpath={.status.allocation.devices.results[0].device}",
            "--timeout=60s",
        ])
        .await;
    cluster.admin(&["get", &claim, "-o", "jsonpath={.status.allocation.devices.results[0].pool}"]).await
}

/// Waits until the scheduler has looked and found nothing.
async fn refused(cluster: &Cluster, claim: &str) {
    let pod = format!("pod/{claim}");
    cluster.admin(&["wait", &pod, "--for=condition=PodScheduled=false", "--timeout=60s"]).await;
    let why = cluster.admin(&["get", &pod, "-o", "jsonpath={.status.conditions[0].message}"]).await;
    assert!(why.contains("cannot allocate all claims"), "{why}");
    let allocation =
        cluster.admin(&["get", "resourceclaim", claim, "-o", "jsonpath={.status.allocation}"]).await;
    assert_eq!(allocation, "");
}

#[tokio::test]
async fn a_claim_of_a_trial_class_gets_a_device_of_the_right_jurisdiction() {
    let trial = |jurisdiction| json!({ "jurisdiction": jurisdiction, "requires": ["inventoried"] });
    let classes = [("trial-eu", trial("eu")), ("trial-us", trial("us"))];
    let cluster = world("trial", &classes, false).await;
    ask(&cluster, "trial-eu", "trial-eu", Some("trial-")).await;
    ask(&cluster, "trial-us", "trial-us", Some("trial-")).await;
    assert_eq!(got(&cluster, "trial-eu").await, "trial-de");
    assert_eq!(got(&cluster, "trial-us").await, "trial-us");
}

#[tokio::test]
async fn a_claim_of_a_default_class_gets_nothing() {
    let cluster = world("default", &[("default", json!({ "jurisdiction": "world" }))], false).await;
    ask(&cluster, "default", "default", None).await;
    refused(&cluster, "default").await;
}

#[tokio::test]
async fn a_device_of_an_alarmed_machine_is_not_given_out() {
    let trial = json!({ "jurisdiction": "eu", "requires": ["inventoried"] });
    let cluster = world("alarm", &[("alarm", trial)], true).await;
    ask(&cluster, "alarm", "alarm", Some("alarm-")).await;
    refused(&cluster, "alarm").await;
}

/// One GPU: two halves of it fit, then neither a third part nor the whole.
#[tokio::test]
async fn parts_of_a_gpu_are_given_out_until_they_would_overlap() {
    let cluster = Cluster::guarded().await;
    let mut input = input("parts", &["de"]);
    input.machines[0].gpus.truncate(1);
    part(&mut input, 0);
    let class = |profile: Option<&str>| match profile {
        Some(profile) => json!({ "jurisdiction": "de", "profile": profile, "requires": ["probed"] }),
        None => json!({ "jurisdiction": "de", "requires": ["probed"] }),
    };
    let classes = [
        ("parts-half", class(Some("3g.40gb"))),
        ("parts-one", class(Some("1g.10gb"))),
        ("parts-whole", class(None)),
    ];
    show(&cluster, &mut input, &classes).await;
    for half in ["parts-half-1", "parts-half-2"] {
        ask(&cluster, half, "parts-half", Some("parts-")).await;
        assert_eq!(got(&cluster, half).await, "parts-de");
    }
    for (claim, class) in [("parts-one", "parts-one"), ("parts-whole", "parts-whole")] {
        ask(&cluster, claim, class, Some("parts-")).await;
        refused(&cluster, claim).await;
    }
}
