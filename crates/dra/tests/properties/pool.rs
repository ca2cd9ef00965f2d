//! How a pool changes, seen by a consumer that looks after every single write.

use crate::fleet::name;
use bailiwick_dra::{Input, Object, PublishedMachine, Step, publish, reconcile};
use domain::Containment;
use domain::inventory::Gpu;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

type Cluster = BTreeMap<String, Value>;

/// A machine with this many GPUs, `firmware` of each, and the slices they need.
fn wanted(gpus: usize, firmware: u8) -> Vec<Object> {
    let mut input = Input::new(name("cell-1"), "bailiwick-cell");
    input.jurisdictions = Containment::new([(name("de"), vec![])]).unwrap();
    let site =
        serde_json::json!({ "jurisdiction": "de", "operator": "acme", "country": "DE", "bmcNetworks": [] });
    input.sites.insert(name("fra1"), serde_json::from_value(site).unwrap());
    let gpu = |at| Gpu {
        serial: Some(format!("G{at}")),
        firmware_version: Some(firmware.to_string()),
        ..Gpu::default()
    };
    input.machines = vec![PublishedMachine {
        name: name("m1"),
        site: name("fra1"),
        rack: None,
        zone: None,
        gpus: (0..gpus).map(gpu).collect(),
        alarms: vec![],
        driver: None,
        gpu_driver: domain::base_cluster::GpuDriver::Bailiwick,
        partitions: vec![],
    }];
    publish(&input).observed
}

fn run(cluster: &mut Cluster, step: &Step) {
    match step {
        Step::Apply(object) => drop(cluster.insert(object.name.clone(), object.json())),
        Step::Delete { name } => drop(cluster.remove(name)),
    }
}

/// What an allocator sees: the devices of the newest generation, if all its slices are there.
fn seen(cluster: &Cluster) -> Option<BTreeSet<String>> {
    let number = |slice: &Value, pointer: &str| slice.pointer(pointer).unwrap().as_i64().unwrap();
    let newest = cluster.values().map(|slice| number(slice, "/spec/pool/generation")).max()?;
    let slices: Vec<_> = cluster.values().filter(|s| number(s, "/spec/pool/generation") == newest).collect();
    let count = number(slices[0], "/spec/pool/resourceSliceCount");
    assert!(slices.iter().all(|slice| number(slice, "/spec/pool/resourceSliceCount") == count));
    let devices = slices.iter().flat_map(|slice| slice["spec"]["devices"].as_array().unwrap());
    (i64::try_from(slices.len()).unwrap() == count).then(|| devices.map(Value::to_string).collect())
}

fn devices(objects: &[Object]) -> BTreeSet<String> {
    let devices = |object: &Object| object.json()["spec"]["devices"].as_array().unwrap().clone();
    objects.iter().flat_map(devices).map(|device| device.to_string()).collect()
}

fn existing(cluster: &Cluster) -> Vec<Value> {
    cluster.values().cloned().collect()
}

proptest! {
    // Each case publishes hundreds of devices several times.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Each wish is interrupted after some steps, as by SIGKILL, and the next takes up what is left.
    #[test]
    fn a_consumer_sees_whole_pools_or_none(wishes in prop::collection::vec((0usize..400, 0u8..2, 0usize..6), 1..6)) {
        let mut cluster = Cluster::new();
        let mut ever = BTreeSet::new();
        for (gpus, firmware, until) in wishes {
            let desired = wanted(gpus, firmware);
            ever.insert(devices(&desired));
            for step in reconcile(&existing(&cluster), &desired).iter().take(until) {
                run(&mut cluster, step);
                let seen = seen(&cluster);
                prop_assert!(seen.is_none_or(|devices| ever.contains(&devices)), "half a pool looked whole");
            }
        }
        let desired = wanted(200, 7);
        for step in reconcile(&existing(&cluster), &desired) {
            run(&mut cluster, &step);
        }
        prop_assert_eq!(seen(&cluster), Some(devices(&desired)));
        prop_assert_eq!(cluster.len(), 4);
        prop_assert_eq!(reconcile(&existing(&cluster), &desired), vec![]);
    }
}

/// Slices that a kubelet wrote while no policy was in force: of any pool, generation and name, ours among them.
fn rogue() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec!["m1-gpu-00", "m1-gpu-01", "m1-gpu-02", "m2-gpu-00", "x"]);
    let pools = prop::sample::select(vec!["m1", "m2", "zz"]);
    let generations = prop::sample::select(vec![0, 1, 2, 41, i64::MAX - 1, i64::MAX]);
    let drivers = prop::sample::select(vec!["gpu.bailiwick.dev", "gpu.bailiwick.dev", "gpu.example"]);
    (names, pools, generations, drivers, 1i64..3).prop_map(|(name, pool, generation, driver, count)| {
        serde_json::json!({
            "metadata": { "name": name },
            "spec": {
                "driver": driver, "nodeName": pool, "devices": [{ "name": "forged" }],
                "pool": { "name": pool, "generation": generation, "resourceSliceCount": count },
            },
        })
    })
}

proptest! {
    // Each case publishes hundreds of devices several times.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_that_a_kubelet_forged_outlives_the_next_publication(forged in prop::collection::vec(rogue(), 0..6), gpus in 0usize..300) {
        let mut cluster = settled(&wanted(gpus, 1));
        for slice in forged {
            cluster.insert(slice["metadata"]["name"].as_str().unwrap().to_owned(), slice);
        }
        let desired = wanted(gpus, 1);
        for step in reconcile(&existing(&cluster), &desired) {
            if let Step::Apply(object) = &step {
                let kept = |slice: &Value| ["/spec/driver", "/spec/pool/name", "/spec/nodeName"].map(|p| slice.pointer(p).cloned());
                let fixed = cluster.get(&object.name).is_none_or(|old| kept(old) == kept(&object.json()));
                prop_assert!(fixed, "the server would refuse to change {}", object.name);
            }
            run(&mut cluster, &step);
        }
        cluster.retain(|_, slice| slice["spec"]["driver"] == "gpu.bailiwick.dev");
        let ours: Vec<_> = cluster.keys().map(String::as_str).collect();
        let expected: Vec<_> = desired.iter().map(|object| object.name.as_str()).collect();
        prop_assert_eq!(ours, expected);
        prop_assert!(gpus == 0 || seen(&cluster) == Some(devices(&desired)));
        prop_assert_eq!(reconcile(&existing(&cluster), &desired), vec![]);
    }
}

fn generations(steps: &[Step]) -> Vec<i64> {
    let generation = |step: &Step| match step {
        Step::Apply(object) => object.json()["spec"]["pool"]["generation"].as_i64(),
        Step::Delete { .. } => None,
    };
    steps.iter().filter_map(generation).collect()
}

fn settled(objects: &[Object]) -> Cluster {
    let mut cluster = Cluster::new();
    for step in reconcile(&[], objects) {
        run(&mut cluster, &step);
    }
    cluster
}

#[test]
fn what_a_server_adds_is_no_change() {
    let desired = wanted(8, 1);
    let mut cluster = settled(&desired);
    for slice in cluster.values_mut() {
        slice["metadata"]["resourceVersion"] = "41".into();
        slice["metadata"]["managedFields"] = serde_json::json!([{ "manager": "bailiwick" }]);
        slice["spec"]["nodeSelector"] = Value::Null;
    }
    assert_eq!(reconcile(&existing(&cluster), &desired), vec![]);
}

#[test]
fn one_changed_device_raises_the_generation_of_every_slice_of_its_pool() {
    let cluster = settled(&wanted(200, 1));
    assert_eq!(generations(&reconcile(&existing(&cluster), &wanted(200, 2))), [2, 2, 2, 2]);
}

#[test]
fn a_slice_that_a_kubelet_wiped_comes_back_at_the_same_generation() {
    let desired = wanted(200, 1);
    let mut cluster = settled(&desired);
    cluster.pop_first();
    assert_eq!(generations(&reconcile(&existing(&cluster), &desired)), [1]);
}

#[test]
fn slices_of_a_machine_that_went_are_deleted_and_those_of_other_drivers_stay() {
    let mut cluster = settled(&wanted(8, 1));
    let mut foreign = cluster["m1-gpu-00"].clone();
    foreign["metadata"]["name"] = "m1-foreign".into();
    foreign["spec"]["driver"] = "gpu.example".into();
    cluster.insert("m1-foreign".to_owned(), foreign);
    assert_eq!(reconcile(&existing(&cluster), &[]), [Step::Delete { name: "m1-gpu-00".to_owned() }]);
}

#[test]
fn what_somebody_else_wrote_into_a_slice_is_written_over() {
    let desired = wanted(8, 1);
    let mut cluster = settled(&desired);
    cluster.get_mut("m1-gpu-00").unwrap()["spec"]["devices"][0]["attributes"]["probed"]["bool"] = true.into();
    assert_eq!(generations(&reconcile(&existing(&cluster), &desired)), [2]);
}
