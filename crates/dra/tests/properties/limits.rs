//! The limits of `resource.k8s.io`, and that nothing but the input decides the output.

use crate::fleet::{input, name, order};
use bailiwick_dra::{GpuKey, Input, LABEL_OWNER, Object, PublishedMachine, publish};
use domain::inventory::Gpu;
use k8s_openapi::api::resource::v1::ResourceSlice;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The devices of a slice; one of counters has none.
pub(crate) fn devices(slice: &Value) -> &[Value] {
    slice["spec"]["devices"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The devices that are whole GPUs.
fn gpus(slice: &Value) -> impl Iterator<Item = &Value> {
    devices(slice).iter().filter(|device| device["attributes"]["type"]["string"] == "gpu")
}

pub(crate) fn slices(objects: &[Object]) -> impl Iterator<Item = &Object> {
    objects.iter().filter(|object| object.kind == "ResourceSlice")
}

proptest! {
    #[test]
    fn no_object_breaks_a_limit_of_the_api(input in input()) {
        let output = publish(&input);
        let mut names = BTreeSet::new();
        for object in output.declared.iter().chain(&output.observed) {
            prop_assert!(domain::Name::new(&object.name).is_ok(), "{}", object.name);
            prop_assert!(names.insert((&object.kind, &object.name)), "{} twice", object.name);
            prop_assert_eq!(&object.json()["metadata"]["labels"][LABEL_OWNER], "cell-1");
            prop_assert_eq!(&object.json()["metadata"]["labels"]["app.kubernetes.io/managed-by"], "bailiwick");
        }
        let mut pools: BTreeMap<String, (BTreeSet<String>, Vec<i64>)> = BTreeMap::new();
        for slice in slices(&output.observed) {
            let slice = slice.json();
            let (spec, devices) = (&slice["spec"], devices(&slice));
            let sets = spec["sharedCounters"].as_array().map_or(0, Vec::len);
            // Devices or counters, and never both (facts: dra §1).
            prop_assert!((1..=64).contains(&devices.len()) && sets == 0 || devices.is_empty() && (1..=8).contains(&sets));
            prop_assert_eq!(&spec["nodeName"], &spec["pool"]["name"]);
            let pool = pools.entry(spec["nodeName"].as_str().unwrap().to_owned()).or_default();
            pool.1.push(spec["pool"]["resourceSliceCount"].as_i64().unwrap());
            for device in devices {
                let label = device["name"].as_str().unwrap();
                prop_assert!(domain::Name::new(label).is_ok());
                prop_assert!(pool.0.insert(label.to_owned()), "two devices of one name");
                let attributes = device["attributes"].as_object().unwrap();
                prop_assert!(attributes.len() + device["capacity"].as_object().map_or(0, serde_json::Map::len) <= 32);
                for (key, value) in attributes {
                    prop_assert_eq!(value.as_object().unwrap().len(), 1);
                    prop_assert!(value["string"].as_str().is_none_or(|text| text.len() <= 64 && !text.is_empty()), "{}", key);
                }
            }
        }
        for (_, counts) in pools.into_values() {
            let slices = i64::try_from(counts.len()).unwrap();
            prop_assert!(counts.iter().all(|count| *count == slices));
        }
        for class in output.declared.iter().filter(|object| object.kind == "DeviceClass") {
            for selector in class.json()["spec"]["selectors"].as_array().unwrap() {
                prop_assert!(selector["cel"]["expression"].as_str().unwrap().len() <= 10 * 1024);
            }
        }
    }

    #[test]
    fn a_slice_says_nothing_that_its_type_does_not_know(input in input()) {
        for slice in slices(&publish(&input).observed) {
            let typed: ResourceSlice = serde_json::from_str(slice.text()).unwrap();
            prop_assert_eq!(serde_json::to_value(&typed).unwrap(), slice.json());
        }
    }

    #[test]
    fn the_order_of_the_input_changes_no_byte(input in input(), turn in 0usize..7) {
        let mut turned = input.clone();
        turned.machines.reverse();
        turned.classes.reverse();
        for machine in &mut turned.machines {
            let by = turn.min(machine.gpus.len());
            machine.gpus.rotate_left(by);
            machine.alarms.reverse();
        }
        let bytes = |input: &Input| {
            let output = publish(input);
            let objects = output.declared.iter().chain(&output.observed).map(|o| o.text().to_owned());
            (objects.collect::<Vec<_>>(), output.diagnostics)
        };
        prop_assert_eq!(bytes(&input), bytes(&turned));
    }

    #[test]
    fn a_gpu_is_published_in_one_place_or_told_of(input in input()) {
        let output = publish(&input);
        let keys = input.machines.iter().flat_map(|machine| &machine.gpus).filter_map(GpuKey::of);
        let keys: BTreeMap<_, _> = keys.map(|key| (key.device_name(), key)).collect();
        let mut published = BTreeSet::new();
        for slice in slices(&output.observed) {
            for device in gpus(&slice.json()) {
                let jurisdiction = device["attributes"]["jurisdiction"]["string"].as_str();
                prop_assert!(jurisdiction.is_some_and(|jurisdiction| jurisdiction != "nowhere"));
                let key = &keys[device["name"].as_str().unwrap()];
                prop_assert!(!input.conflicts.contains(key));
                prop_assert!(published.insert(key), "published twice");
            }
        }
        let all = input.machines.iter().map(|machine| machine.gpus.len()).sum::<usize>();
        prop_assert!(published.len() == all || !output.diagnostics.is_empty());
    }

    #[test]
    fn a_gpu_keeps_its_name_when_another_goes(input in input(), gone in any::<prop::sample::Index>()) {
        // Devices by what the hardware says; of GPUs that look alike neither name is looked at.
        let names = |input: &Input| {
            let mut names = BTreeMap::<String, BTreeSet<String>>::new();
            for slice in slices(&publish(input).observed) {
                for device in gpus(&slice.json()) {
                    let gpu = format!("{} {} {}", slice.machine.as_ref().unwrap(), device["attributes"]["uuid"], device["attributes"]["serial"]);
                    names.entry(gpu).or_default().insert(device["name"].as_str().unwrap().to_owned());
                }
            }
            names
        };
        let mut fewer = input.clone();
        for machine in fewer.machines.iter_mut().filter(|machine| !machine.gpus.is_empty()) {
            machine.gpus.remove(gone.index(machine.gpus.len()));
        }
        let (before, after) = (names(&input), names(&fewer));
        for (gpu, name) in before {
            prop_assert!(after.get(&gpu).is_none_or(|after| *after == name), "{}", gpu);
        }
    }
}

pub(crate) fn machine(at: &str, gpus: Vec<Gpu>) -> PublishedMachine {
    PublishedMachine {
        name: name(at),
        site: name("fra1"),
        rack: None,
        zone: None,
        gpus,
        alarms: vec![],
        driver: None,
        gpu_driver: domain::base_cluster::GpuDriver::Bailiwick,
        partitions: vec![],
    }
}

pub(crate) fn serial(serial: &str) -> Gpu {
    Gpu { serial: Some(serial.to_owned()), ..Gpu::default() }
}

pub(crate) fn fra1(machines: Vec<PublishedMachine>) -> Input {
    let mut input = Input::new(name("cell-1"), "bailiwick-cell");
    input.jurisdictions = order();
    let site =
        serde_json::json!({ "jurisdiction": "de", "operator": "acme", "country": "DE", "bmcNetworks": [] });
    input.sites.insert(name("fra1"), serde_json::from_value(site).unwrap());
    input.machines = machines;
    input
}

pub(crate) fn codes(input: &Input) -> Vec<String> {
    publish(input).diagnostics.into_iter().map(|problem| problem.code).collect()
}

#[test]
fn a_machine_without_jurisdiction_is_left_out_and_told_of() {
    let mut input = fra1(vec![machine("m1", vec![serial("G1")])]);
    assert_eq!(publish(&input).observed.len(), 1);
    input.sites.clear();
    assert!(publish(&input).observed.is_empty());
    assert_eq!(codes(&input), ["dra.machine.no-site"]);
}

#[test]
fn a_machine_outside_the_cells_jurisdiction_is_left_out_and_told_of() {
    let mut input = fra1(vec![machine("m1", vec![serial("G1")])]);
    input.home = Some(name("us"));
    assert!(publish(&input).observed.is_empty());
    assert_eq!(codes(&input), ["jurisdiction.outside-cell"]);
}

#[test]
fn a_gpu_that_two_machines_show_is_published_by_neither() {
    let input =
        fra1(vec![machine("m1", vec![serial("G1"), serial("G2")]), machine("m2", vec![serial("G1")])]);
    let output = publish(&input);
    assert_eq!(output.observed.len(), 1);
    assert_eq!(devices(&output.observed[0].json())[0]["attributes"]["serial"]["string"], "G2");
    assert_eq!(codes(&input), ["dra.gpu.duplicate", "dra.gpu.duplicate"]);
}

#[test]
fn a_board_that_two_machines_show_is_published_by_neither_though_its_gpus_have_uuids() {
    let gpu = |uuid: &str| Gpu { uuid: Some(uuid.to_owned()), ..serial("B1") };
    let one = fra1(vec![machine("m1", vec![gpu("a"), gpu("b")])]);
    assert_eq!(devices(&publish(&one).observed[0].json()).len(), 2);
    let two = fra1(vec![machine("m1", vec![gpu("a"), gpu("b")]), machine("m2", vec![gpu("c")])]);
    assert!(publish(&two).observed.is_empty());
}

#[test]
fn a_gpu_without_uuid_and_serial_is_left_out_and_told_of() {
    let input = fra1(vec![machine("m1", vec![Gpu { model: Some("H100".into()), ..Gpu::default() }])]);
    assert!(publish(&input).observed.is_empty());
    assert_eq!(codes(&input), ["dra.gpu.no-identity"]);
}

#[test]
fn a_value_that_does_not_fit_is_left_out_and_told_of_but_not_cut() {
    let gpu = Gpu { model: Some("x".repeat(65)), ..serial("G1") };
    let input = fra1(vec![machine("m1", vec![gpu])]);
    let output = publish(&input);
    assert!(devices(&output.observed[0].json())[0]["attributes"].get("productName").is_none());
    assert_eq!(codes(&input), ["dra.attribute.unfit"]);
}

#[test]
fn an_alarm_taints_by_a_rule_where_served_and_in_the_slice_elsewhere() {
    let mut input = fra1(vec![machine("m1", vec![serial("G1")])]);
    input.machines[0].alarms = vec![domain::Problem::new("bmc.pin-mismatch", "the key changed")];
    let output = publish(&input);
    assert_eq!(devices(&output.observed[0].json())[0]["taints"][0]["key"], "bailiwick.dev/alarm");
    input.server.taint_rules = Some(bailiwick_dra::TaintRuleVersion::V1Beta2);
    let output = publish(&input);
    assert_eq!(output.observed[0].api_version, "resource.k8s.io/v1beta2");
    assert_eq!(output.observed[0].json()["spec"]["taint"]["value"], "bmc.pin-mismatch");
    assert!(devices(&output.observed[1].json())[0].get("taints").is_none());
}

#[test]
fn the_policies_come_first() {
    let output = publish(&fra1(vec![]));
    let kinds: Vec<_> = output.declared.iter().map(|object| object.kind.as_str()).collect();
    assert_eq!(kinds, ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"].repeat(4));
}
