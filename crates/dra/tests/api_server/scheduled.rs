//! What the real scheduler gives to claims.

use crate::cluster::{Cluster, claim, input, machine, name, probed};
use crate::h100::h100;
use bailiwick_dra::{GpuKey, Input, PublishedMachine, publish};
use domain::Problem;
use domain::base_cluster::GpuDriver;
use domain::probe::{NvLink, Pci, ProbedGpu};
use serde_json::{Value, json};

const ALLOCATED: &str = "--for=jsonpath={.status.allocation.devices.results[0].device}";

/// Publishes a machine in Germany and one in the United States, each a Node, and these classes.
async fn world(prefix: &str, classes: &[(&str, Value)], alarmed: bool) -> Cluster {
    let mut input = input(prefix, &["de", "us"]);
    if alarmed {
        input.machines[0].alarms.push(Problem::new("bmc.pin-mismatch", "its key changed"));
    }
    published(input, classes).await
}

/// Publishes these machines, each a Node, and these classes.
async fn published(mut input: Input, classes: &[(&str, Value)]) -> Cluster {
    let cluster = Cluster::guarded().await;
    for (class, spec) in classes {
        input.classes.push((name(class), serde_json::from_value(spec.clone()).unwrap()));
    }
    for machine in &input.machines {
        cluster.plane.create_node(machine.name.as_str(), &format!("uuid-{}", machine.name)).await.unwrap();
    }
    input.verified = Some(input.machines.iter().map(|machine| machine.name.clone()).collect());
    let output = publish(&input);
    for object in output.declared.iter().chain(&output.observed) {
        cluster.apply(object).await;
    }
    cluster
}

/// A claim for one device of a class that other tests' machines do not match, and a pod that waits for it.
async fn ask(cluster: &Cluster, claim_name: &str, class: &str, pool: Option<&str>) {
    let mut claim = claim(claim_name, class, &json!([]));
    if let Some(pool) = pool {
        let machine = format!("device.attributes['gpu.bailiwick.dev'].machine.startsWith('{pool}')");
        claim["spec"]["devices"]["requests"][0]["exactly"]["selectors"] =
            json!([{ "cel": { "expression": machine } }]);
    }
    wait_for(cluster, claim_name, claim).await;
}

/// A claim, and a pod that waits for it.
async fn wait_for(cluster: &Cluster, claim_name: &str, claim: Value) {
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
    let allocated = ["wait", &format!("resourceclaim/{claim}"), ALLOCATED, "--timeout=60s"];
    let output = cluster.plane.kubectl(&allocated, None).await.unwrap();
    let pod = cluster.admin(&["get", "pod", claim, "-o", "jsonpath={.status}"]).await;
    assert!(output.status.success(), "{claim} got nothing: {pod}");
    cluster
        .admin(&[
            "get",
            "resourceclaim",
            claim,
            "-o",
            "jsonpath={.status.allocation.devices.results[0].pool}",
        ])
        .await
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

#[tokio::test]
async fn a_gpu_in_mig_mode_is_given_out_in_two_halves_and_neither_in_a_third_nor_as_a_whole() {
    let mut input = input("parted", &["de"]);
    let parted = probed(&mut input, "parted-de", 1);
    input.machines = vec![parted];
    let class = |partition| json!({ "jurisdiction": "eu", "partition": partition, "requires": ["probed"] });
    let classes = [("half", class(json!("3g.40gb"))), ("whole", class(json!(null)))];
    let cluster = published(input, &classes).await;
    ask(&cluster, "half-1", "half", Some("parted-")).await;
    ask(&cluster, "half-2", "half", Some("parted-")).await;
    assert_eq!(
        (got(&cluster, "half-1").await, got(&cluster, "half-2").await),
        ("parted-de".into(), "parted-de".into())
    );
    for (claim, class) in [("half-3", "half"), ("whole", "whole")] {
        ask(&cluster, claim, class, Some("parted-")).await;
        refused(&cluster, claim).await;
    }
}

#[tokio::test]
async fn a_layout_is_given_out_part_by_part_though_nothing_is_counted() {
    let mut input = input("layout", &["de"]);
    let parted = probed(&mut input, "layout-de", 1);
    let partitions = ["4g.40gb@0", "3g.40gb@4"].map(|part| part.parse().unwrap()).to_vec();
    input.machines = vec![PublishedMachine { partitions, ..parted }];
    let slices = publish(&input).observed;
    assert!(slices.iter().all(|slice| slice.json()["spec"].get("sharedCounters").is_none()));
    let class = |partition| json!({ "jurisdiction": "eu", "partition": partition, "requires": ["probed"] });
    let classes = [("four", class("4g.40gb")), ("three", class("3g.40gb"))];
    let cluster = published(input, &classes).await;
    for class in ["four", "three"] {
        let (first, second) = (format!("layout-{class}-1"), format!("layout-{class}-2"));
        ask(&cluster, &first, class, Some("layout-")).await;
        assert_eq!(got(&cluster, &first).await, "layout-de");
        ask(&cluster, &second, class, Some("layout-")).await;
        refused(&cluster, &second).await;
    }
}

#[tokio::test]
async fn a_class_gives_out_what_nvidias_driver_published_of_the_gpus_that_it_names() {
    let mut input = input("theirs", &["de"]);
    let known = PublishedMachine { gpu_driver: GpuDriver::Nvidia, ..probed(&mut input, "theirs-de", 1) };
    input.machines = vec![known];
    // The same class gives out ours too, and other tests have some.
    input.machines[0].gpus[0].model = Some("Theirs".to_owned());
    let uuid = input.probed.values().next().and_then(|gpu| gpu.uuid.clone()).unwrap();
    let class = json!({ "jurisdiction": "eu", "models": ["Theirs"], "requires": ["probed"] });
    let cluster = published(input, &[("theirs", class)]).await;
    // What that driver writes, as far as it matters: a GPU that the cell knows nothing of comes first.
    let device = |name: &str, uuid: &str| {
        json!({
            "name": name, "attributes": { "type": { "string": "gpu" }, "uuid": { "string": uuid } },
        })
    };
    let slice = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": { "name": "theirs-de-nvidia" },
        "spec": {
            "driver": "gpu.nvidia.com", "nodeName": "theirs-de",
            "pool": { "name": "theirs-de", "generation": 1, "resourceSliceCount": 1 },
            "devices": [device("gpu-0", "GPU-unknown"), device("gpu-1", &uuid)],
        },
    });
    let created = cluster.plane.kubectl(&["create", "-f", "-"], Some(&slice.to_string())).await.unwrap();
    created.success().unwrap();
    ask(&cluster, "theirs-1", "theirs", None).await;
    assert_eq!(got(&cluster, "theirs-1").await, "theirs-de");
    let device = "jsonpath={.status.allocation.devices.results[0].device}";
    assert_eq!(cluster.admin(&["get", "resourceclaim", "theirs-1", "-o", device]).await, "gpu-1");
    ask(&cluster, "theirs-2", "theirs", None).await;
    refused(&cluster, "theirs-2").await;
}

/// The devices of a claim that got some.
async fn devices(cluster: &Cluster, claim: &str) -> Vec<String> {
    got(cluster, claim).await;
    let path = "jsonpath={.status.allocation.devices.results[*].device}";
    let all = cluster.admin(&["get", "resourceclaim", claim, "-o", path]).await;
    let mut all: Vec<_> = all.split(' ').map(str::to_owned).collect();
    all.sort();
    all
}

/// Four GPUs on two switches, in the order in which the scheduler tries them: neighbours are on different ones.
fn linked(input: &mut Input, at: &str) -> Vec<String> {
    let linked = machine(at, "de", 4);
    let mut keys: Vec<_> = linked.gpus.iter().filter_map(GpuKey::of).collect();
    keys.sort_by_key(GpuKey::device_name);
    for (index, key) in (0..).zip(&keys) {
        let link = NvLink {
            active: true,
            remote_pci: Some(format!("0000:f{}:00.0", index % 2)),
            ..NvLink::default()
        };
        let pci = Pci { address: Some(format!("0000:0{index}:00.0")), ..Pci::default() };
        let probed = ProbedGpu { index, pci, nvlinks: vec![link], ..h100(None) };
        input.probed.insert(key.clone(), probed);
    }
    input.machines.push(linked);
    keys.iter().map(GpuKey::device_name).collect()
}

#[tokio::test]
async fn a_claim_for_two_gpus_gets_two_of_one_nvlink_domain_where_it_asks_for_that() {
    let mut input = input("linked", &["de"]);
    input.machines.clear();
    let (free, linked) = (linked(&mut input, "linked-free"), linked(&mut input, "linked-matched"));
    let class = json!({ "jurisdiction": "eu", "requires": ["probed"] });
    let cluster = published(input, &[("linked", class)]).await;
    let two = |name: &str, constraints: Value| {
        let pool = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let mut claim = claim(name, "linked", &json!([]));
        let expression = format!("device.attributes['gpu.bailiwick.dev'].machine == '{pool}'");
        let request = &mut claim["spec"]["devices"]["requests"][0]["exactly"];
        request["count"] = 2.into();
        request["selectors"] = json!([{ "cel": { "expression": expression } }]);
        claim["spec"]["devices"]["constraints"] = constraints;
        claim
    };
    wait_for(&cluster, "linked-free1", two("linked-free1", json!([]))).await;
    assert_eq!(devices(&cluster, "linked-free1").await, free[..2], "the first two are not linked");
    let matched = json!([{ "matchAttribute": "gpu.bailiwick.dev/nvlinkDomain" }]);
    for (claim, pair) in [("linked-matched1", [0, 2]), ("linked-matched2", [1, 3])] {
        wait_for(&cluster, claim, two(claim, matched.clone())).await;
        assert_eq!(devices(&cluster, claim).await, pair.map(|at: usize| linked[at].clone()));
    }
}
