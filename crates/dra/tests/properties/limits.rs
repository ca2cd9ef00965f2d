//! The limits of `resource.k8s.io`, and that nothing but the input decides the output.

use crate::fleet::{input, name, order};
use bailiwick_dra::{DriverView, GpuKey, Input, LABEL_OWNER, Object, PublishedMachine, publish};
use domain::inventory::Gpu;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn devices(slice: &Value) -> &[Value] {
    slice["spec"]["devices"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn is_whole(device: &Value) -> bool {
    device["attributes"]["type"]["string"] == "gpu"
}

/// How many words a map holds.
fn size(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

/// A counter's value, memory in MiB.
fn value(counter: &Value) -> u64 {
    counter["value"].as_str().unwrap().trim_end_matches("Mi").parse().unwrap()
}

fn slices(objects: &[Object]) -> impl Iterator<Item = &Object> {
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
            prop_assert_eq!(&object.json["metadata"]["labels"][LABEL_OWNER], "cell-1");
            prop_assert_eq!(&object.json["metadata"]["labels"]["app.kubernetes.io/managed-by"], "bailiwick");
        }
        let mut pools: BTreeMap<String, (BTreeSet<String>, Vec<i64>)> = BTreeMap::new();
        for slice in slices(&output.observed) {
            let spec = &slice.json["spec"];
            let devices = devices(&slice.json);
            let has = |word| devices.iter().any(|device| device.get(word).is_some());
            let most = if has("taints") || has("consumesCounters") { 64 } else { 128 };
            let sets = spec["sharedCounters"].as_array().map_or(0, Vec::len);
            prop_assert!(sets <= 8 && devices.len() <= most && (sets == 0) != devices.is_empty());
            prop_assert_eq!(&spec["nodeName"], &spec["pool"]["name"]);
            let pool = pools.entry(spec["nodeName"].as_str().unwrap().to_owned()).or_default();
            pool.1.push(spec["pool"]["resourceSliceCount"].as_i64().unwrap());
            for device in devices {
                let label = device["name"].as_str().unwrap();
                prop_assert!(domain::Name::new(label).is_ok());
                prop_assert!(pool.0.insert(label.to_owned()), "two devices of one name");
                let attributes = device["attributes"].as_object().unwrap();
                prop_assert!(attributes.len() + size(&device["capacity"]) <= 32);
                prop_assert!(device["taints"].as_array().map_or(0, Vec::len) <= 16);
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
            for selector in class.json["spec"]["selectors"].as_array().unwrap() {
                prop_assert!(selector["cel"]["expression"].as_str().unwrap().len() <= 10 * 1024);
            }
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
            let objects = output.declared.iter().chain(&output.observed).map(|o| o.json.to_string());
            (objects.collect::<Vec<_>>(), output.diagnostics)
        };
        prop_assert_eq!(bytes(&input), bytes(&turned));
    }

    #[test]
    fn a_gpu_is_published_in_one_place_or_told_of(input in input()) {
        let output = publish(&input);
        let keys = input.machines.iter().flat_map(|machine| &machine.gpus).filter_map(GpuKey::of);
        let keys: BTreeMap<String, GpuKey> = keys.map(|key| (key.device_name(), key)).collect();
        let mut published = BTreeSet::new();
        for slice in slices(&output.observed) {
            for device in devices(&slice.json).iter().filter(|device| is_whole(device)) {
                let jurisdiction = device["attributes"]["jurisdiction"]["string"].as_str();
                prop_assert!(jurisdiction.is_some_and(|j| j != "nowhere"));
                let key = &keys[device["name"].as_str().unwrap()];
                prop_assert!(!input.conflicts.contains(key));
                prop_assert!(published.insert(key), "published twice");
            }
        }
        let all = input.machines.iter().map(|machine| machine.gpus.len()).sum::<usize>();
        prop_assert!(published.len() == all || !output.diagnostics.is_empty());
    }

    /// What a driver tells is believed of probed GPUs alone, and parts are made of those alone that may be parted.
    #[test]
    fn only_what_is_probed_and_partitionable_is_parted(input in input()) {
        let output = publish(&input);
        let keys = input.machines.iter().flat_map(|machine| &machine.gpus).filter_map(GpuKey::of);
        let keys: BTreeMap<String, GpuKey> = keys.map(|key| (key.device_name(), key)).collect();
        for device in slices(&output.observed).flat_map(|slice| devices(&slice.json)) {
            let name = device["name"].as_str().unwrap();
            let (whole, part) = name.split_once("-mig-").map_or((name, None), |(whole, part)| (whole, Some(part)));
            let key = &keys[whole];
            let told = input.probed.contains(key) && input.drivers.contains_key(key);
            prop_assert_eq!(part.is_none(), is_whole(device));
            prop_assert_eq!(device["consumesCounters"].is_array(), told && input.partitionable.contains(key));
            prop_assert!(part.is_none() || told && input.partitionable.contains(key));
            prop_assert_eq!(device["capacity"]["memory"].is_object(), told);
        }
    }

    /// Whatever a scheduler takes as long as the counters allow it, no memory slice of a GPU is given out twice.
    #[test]
    fn no_two_parts_that_overlap_are_ever_given_out_together(
        input in input(), picks in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
    ) {
        let output = publish(&input);
        let mut left: BTreeMap<(&str, &str), BTreeMap<&str, u64>> = BTreeMap::new();
        for slice in slices(&output.observed) {
            for set in slice.json["spec"]["sharedCounters"].as_array().into_iter().flatten() {
                prop_assert!(size(&set["counters"]) <= 32);
                let counters = set["counters"].as_object().unwrap();
                let counters = counters.iter().map(|(name, counter)| (name.as_str(), value(counter))).collect();
                let pool = slice.json["spec"]["pool"]["name"].as_str().unwrap();
                prop_assert!(left.insert((pool, set["name"].as_str().unwrap()), counters).is_none());
            }
        }
        let parted: Vec<(&str, &Value)> = slices(&output.observed)
            .flat_map(|slice| devices(&slice.json).iter().map(|device| (slice.json["spec"]["pool"]["name"].as_str().unwrap(), device)))
            .filter(|(_, device)| device["consumesCounters"].is_array())
            .collect();
        let mut taken: BTreeSet<(String, u64)> = BTreeSet::new();
        for pick in picks.iter().filter(|_| !parted.is_empty()) {
            let (pool, device) = pick.get(&parted);
            let consumption = &device["consumesCounters"][0];
            let counters = consumption["counters"].as_object().unwrap();
            // a set that is not there is a slice that the scheduler would not use
            let set = left.get_mut(&(*pool, consumption["counterSet"].as_str().unwrap())).unwrap();
            if !counters.iter().all(|(name, counter)| set[name.as_str()] >= value(counter)) {
                continue;
            }
            for (name, counter) in counters {
                *set.get_mut(name.as_str()).unwrap() -= value(counter);
            }
            let name = device["name"].as_str().unwrap();
            let (whole, part) = name.split_once("-mig-").unwrap_or((name, "0-0"));
            let (profile, start) = part.split_once('-').unwrap();
            let size = match profile { "19" => 1, "15" | "14" => 2, "9" | "5" => 4, _ => 8 };
            let start: u64 = start.parse().unwrap();
            for slice in start..start + size {
                prop_assert!(taken.insert((format!("{pool} {whole}"), slice)), "{} of {}", slice, name);
            }
        }
    }

    #[test]
    fn a_gpu_keeps_its_name_when_another_goes(input in input(), gone in any::<prop::sample::Index>()) {
        // Devices by what the hardware says; of GPUs that look alike neither name is looked at.
        let names = |input: &Input| {
            let mut names = BTreeMap::<String, BTreeSet<String>>::new();
            for slice in slices(&publish(input).observed) {
                for device in devices(&slice.json).iter().filter(|device| is_whole(device)) {
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

fn machine(at: &str, gpus: Vec<Gpu>) -> PublishedMachine {
    PublishedMachine { name: name(at), site: name("fra1"), rack: None, zone: None, gpus, alarms: vec![] }
}

fn serial(serial: &str) -> Gpu {
    Gpu { serial: Some(serial.to_owned()), ..Gpu::default() }
}

fn fra1(machines: Vec<PublishedMachine>) -> Input {
    let mut input = Input::new(name("cell-1"), "bailiwick-cell");
    input.jurisdictions = order();
    let site =
        serde_json::json!({ "jurisdiction": "de", "operator": "acme", "country": "DE", "bmcNetworks": [] });
    input.sites.insert(name("fra1"), serde_json::from_value(site).unwrap());
    input.machines = machines;
    input
}

fn codes(input: &Input) -> Vec<String> {
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
    assert_eq!(devices(&output.observed[0].json)[0]["attributes"]["serial"]["string"], "G2");
    assert_eq!(codes(&input), ["dra.gpu.duplicate", "dra.gpu.duplicate"]);
}

#[test]
fn a_board_that_two_machines_show_is_published_by_neither_though_its_gpus_have_uuids() {
    let gpu = |uuid: &str| Gpu { uuid: Some(uuid.to_owned()), ..serial("B1") };
    let one = fra1(vec![machine("m1", vec![gpu("a"), gpu("b")])]);
    assert_eq!(devices(&publish(&one).observed[0].json).len(), 2);
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
    assert!(devices(&output.observed[0].json)[0]["attributes"].get("productName").is_none());
    assert_eq!(codes(&input), ["dra.attribute.unfit"]);
}

#[test]
fn an_alarm_taints_by_a_rule_where_served_and_in_the_slice_elsewhere() {
    let mut input = fra1(vec![machine("m1", vec![serial("G1")])]);
    input.machines[0].alarms = vec![domain::Problem::new("bmc.pin-mismatch", "the key changed")];
    let output = publish(&input);
    assert_eq!(devices(&output.observed[0].json)[0]["taints"][0]["key"], "bailiwick.dev/alarm");
    input.server.taint_rules = Some(bailiwick_dra::TaintRuleVersion::V1Beta2);
    let output = publish(&input);
    assert_eq!(output.observed[0].api_version, "resource.k8s.io/v1beta2");
    assert_eq!(output.observed[0].json["spec"]["taint"]["value"], "bmc.pin-mismatch");
    assert!(devices(&output.observed[1].json)[0].get("taints").is_none());
}

#[test]
fn the_policies_come_first() {
    let output = publish(&fra1(vec![]));
    let kinds: Vec<_> = output.declared.iter().map(|object| object.kind.as_str()).collect();
    assert_eq!(kinds, ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"].repeat(4));
}

/// A machine with one GPU whose driver tells all of it.
fn told(health: &[(domain::probe::Severity, &str)]) -> Input {
    let mut input = fra1(vec![machine("m1", vec![serial("G1")])]);
    let key = GpuKey::of(&serial("G1")).unwrap();
    let finding = |(severity, code): &(domain::probe::Severity, &str)| domain::probe::Finding {
        severity: *severity,
        code: (*code).to_owned(),
        message: String::new(),
    };
    let gpu = domain::probe::ProbedGpu {
        uuid: Some("GPU-1".into()),
        model: Some("NVIDIA H100 80GB HBM3".into()),
        memory_bytes: Some(85_520_809_984),
        compute_capability: Some("9.0".into()),
        numa_node: Some(1),
        pci: domain::probe::Pci { root: Some("pci0000:15".into()), ..domain::probe::Pci::default() },
        mig: Some(crate::fleet::mig(false)),
        health: health.iter().map(finding).collect(),
        ..domain::probe::ProbedGpu::default()
    };
    let probe = domain::Probe {
        taken: jiff::Timestamp::UNIX_EPOCH,
        boot_id: None,
        host: domain::probe::Host::default(),
        driver: Some(domain::probe::Driver {
            version: Some("580.95.05".into()),
            ..domain::probe::Driver::default()
        }),
        confidential_computing: None,
        gpus: vec![gpu],
        diagnostics: vec![],
    };
    input.drivers.insert(key.clone(), DriverView { probe: probe.into(), place: 0 });
    input.probed.insert(key);
    input
}

#[test]
fn what_the_driver_tells_has_the_names_and_types_of_nvidias_driver() {
    let output = publish(&told(&[]));
    let device = &devices(&output.observed[0].json)[0];
    let attributes = &device["attributes"];
    assert_eq!(attributes["uuid"]["string"], "GPU-1");
    assert_eq!(attributes["productName"]["string"], "NVIDIA H100 80GB HBM3");
    assert_eq!(attributes["driverVersion"]["version"], "580.95.5");
    assert_eq!(attributes["cudaComputeCapability"]["version"], "9.0.0");
    assert_eq!(attributes["resource.kubernetes.io/pcieRoot"]["string"], "pci0000:15");
    assert_eq!(attributes["resource.kubernetes.io/numaNode"]["int"], 1);
    assert_eq!(device["capacity"]["memory"]["value"], "81559Mi");
}

#[test]
fn what_the_driver_tells_of_a_gpu_that_is_not_probed_is_not_published() {
    let mut input = told(&[]);
    input.probed.clear();
    let output = publish(&input);
    let device = &devices(&output.observed[0].json)[0];
    assert!(device["attributes"].get("driverVersion").is_none() && device.get("capacity").is_none());
}

#[test]
fn a_sick_gpu_is_tainted_as_long_as_it_is_sick_and_no_longer() {
    use domain::probe::Severity::{Critical, Notice, Warning};
    let taints = |health: &[_]| devices(&publish(&told(health)).observed[0].json)[0]["taints"].clone();
    let sick = taints(&[(Warning, "gpu.health.hot"), (Critical, "gpu.health.lost")]);
    assert_eq!(
        sick,
        serde_json::json!([{ "key": "bailiwick.dev/health", "value": "gpu.health.lost", "effect": "NoExecute" }])
    );
    assert_eq!(taints(&[(Warning, "gpu.health.hot")])[0]["effect"], "NoSchedule");
    assert!(taints(&[(Notice, "gpu.health.ecc-off")]).is_null() && taints(&[]).is_null());
}

#[test]
fn a_gpu_in_mig_mode_that_is_not_to_be_parted_is_left_out_and_told_of() {
    let mut input = told(&[]);
    for view in input.drivers.values_mut() {
        let mut probe = (*view.probe).clone();
        probe.gpus[0].mig = Some(crate::fleet::mig(true));
        view.probe = probe.into();
    }
    assert_eq!(codes(&input), ["dra.gpu.mig-mode"]);
    input.partitionable.insert(GpuKey::of(&serial("G1")).unwrap());
    assert!(codes(&input).is_empty());
}

#[test]
fn counters_of_parts_are_in_slices_of_their_own() {
    let mut input = told(&[]);
    input.partitionable.insert(GpuKey::of(&serial("G1")).unwrap());
    let output = publish(&input);
    // 7 + 4 + 3 + 2 + 1 + 1 placements and the whole GPU
    assert_eq!(devices(&output.observed[0].json).len(), 19);
    let counters = &output.observed[1].json["spec"];
    assert!(counters.get("devices").is_none());
    assert_eq!(counters["sharedCounters"][0]["counters"]["memory"]["value"], "81159Mi");
    assert_eq!(size(&counters["sharedCounters"][0]["counters"]), 7 + 8);
    assert_eq!(counters["pool"]["resourceSliceCount"], 2);
}
