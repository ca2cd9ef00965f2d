//! What probes add to devices: attributes, health, and partitions that share a GPU's counters.

use crate::h100::{h100, in_mig_mode};
use crate::limits::{codes, devices, fra1, machine, serial, slices};
use bailiwick_dra::{GpuKey, Input, Object, Step, devices as devices_of, publish, reconcile};
use domain::probe::{Driver, Finding, Mig, NvLink, Severity};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// One machine whose GPUs are probed and may be parted so.
fn parted(gpus: usize, partitions: &[&str]) -> Input {
    let gpus: Vec<_> = (0..gpus).map(|at| serial(&format!("G{at}"))).collect();
    let mut input = fra1(vec![machine("m1", gpus.clone())]);
    input.machines[0].partitions = partitions.iter().map(|wish| wish.parse().unwrap()).collect();
    let gpu = if partitions.is_empty() { h100(None) } else { in_mig_mode(h100(None)) };
    input.probed = gpus.iter().filter_map(GpuKey::of).map(|key| (key, gpu.clone())).collect();
    input
}

/// The MIG modes that the driver tells, and which waits for a reset.
fn set_mode(input: &mut Input, enabled: bool, pending: bool) {
    for gpu in input.probed.values_mut() {
        gpu.mig = gpu.mig.take().map(|mig| Mig { enabled, pending, ..mig });
    }
}

fn all_devices(input: &Input) -> Vec<Value> {
    slices(&publish(input).observed).flat_map(|slice| devices(&slice.json()).to_vec()).collect()
}

/// Counters by name, in plain numbers.
fn amounts(counters: &Value) -> BTreeMap<String, u64> {
    let counters = counters.as_object().unwrap().iter();
    counters.map(|(name, counter)| (name.clone(), number(counter["value"].as_str().unwrap()))).collect()
}

fn number(quantity: &str) -> u64 {
    let digits = quantity.trim_end_matches(char::is_alphabetic);
    let unit = match &quantity[digits.len()..] {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        other => panic!("{other}"),
    };
    digits.parse::<u64>().unwrap() * unit
}

/// Whether the GPU has enough for all of these at once: what the scheduler asks.
fn fit(counters: &BTreeMap<String, u64>, taken: &[&Value]) -> bool {
    let mut left = counters.clone();
    taken.iter().flat_map(|device| amounts(&device["consumesCounters"][0]["counters"])).all(
        |(name, amount)| {
            let rest = left.get(&name).and_then(|there| there.checked_sub(amount));
            rest.is_some_and(|rest| left.insert(name, rest).is_some())
        },
    )
}

/// The counters of the first GPU.
fn counters(input: &Input) -> BTreeMap<String, u64> {
    let output = publish(input);
    let slice =
        slices(&output.observed).find(|slice| slice.json()["spec"]["sharedCounters"].is_array()).unwrap();
    amounts(&slice.json()["spec"]["sharedCounters"][0]["counters"])
}

#[test]
fn partitions_are_published_only_where_they_are_declared() {
    assert_eq!(all_devices(&parted(2, &[])).len(), 2);
    // Each parted in two halves.
    assert_eq!(all_devices(&parted(2, &["3g.40gb"])).len(), 4);
    // Every profile at every place.
    assert_eq!(all_devices(&parted(1, &["*"])).len(), 25);
}

#[test]
fn a_gpu_is_whole_or_parted_as_its_mode_says_and_neither_while_that_changes() {
    let mut input = parted(1, &["3g.40gb"]);
    let kinds = |input: &Input| {
        let kind = |device: &Value| device["attributes"]["type"]["string"].as_str().unwrap().to_owned();
        (all_devices(input).iter().map(kind).collect::<Vec<_>>(), codes(input))
    };
    let of = |devices: &[&str], codes: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        (owned(devices), owned(codes))
    };
    assert_eq!(kinds(&input), of(&["mig", "mig"], &[]));
    set_mode(&mut input, false, false);
    assert_eq!(kinds(&input), of(&["gpu"], &["dra.partition.mode-off"]));
    for (enabled, pending) in [(true, false), (false, true)] {
        set_mode(&mut input, enabled, pending);
        assert_eq!(kinds(&input), of(&[], &["dra.gpu.mig-unsettled"]));
    }
    for gpu in input.probed.values_mut() {
        gpu.mig = None;
        let code = "gpu.health.mig-unknown".to_owned();
        gpu.health = vec![Finding { severity: Severity::Warning, code, message: String::new() }];
    }
    input.machines[0].partitions.clear();
    assert_eq!(kinds(&input), of(&[], &["dra.gpu.mig-unsettled"]));
}

#[test]
fn what_may_be_permitted_is_what_is_published() {
    let declared: [&[&str]; 4] = [&[], &["3g.40gb"], &["*"], &["9g"]];
    for (declared, (enabled, pending)) in declared
        .into_iter()
        .flat_map(|so| [(false, false), (true, true), (true, false)].map(|mode| (so, mode)))
    {
        let mut input = parted(1, declared);
        set_mode(&mut input, enabled, pending);
        let name = |device: &Value| device["name"].as_str().unwrap().to_owned();
        let published: BTreeSet<_> = all_devices(&input).iter().map(name).collect();
        let (key, gpu) = input.probed.first_key_value().unwrap();
        let permitted = devices_of(key, gpu, &input.machines[0].partitions);
        let permitted: BTreeSet<_> = permitted.into_iter().map(|(name, _)| name).collect();
        assert_eq!(published, permitted, "{declared:?} {enabled} {pending}");
    }
}

#[test]
fn a_host_of_64_gpus_with_all_partitions_stays_within_the_limits() {
    let output = publish(&parted(64, &["*"]));
    let all: Vec<_> = slices(&output.observed).map(Object::json).collect();
    let counted: Vec<_> = all.iter().map(|slice| (devices(slice).len(), &slice["spec"])).collect();
    assert_eq!(counted.iter().map(|(devices, _)| devices).sum::<usize>(), 64 * 25);
    for (devices, spec) in counted {
        let sets = spec["sharedCounters"].as_array().map_or(0, Vec::len);
        assert!(devices <= 64 && sets <= 8 && (devices == 0) != (sets == 0));
    }
}

#[test]
fn a_profile_that_a_gpu_has_not_is_told_and_the_gpu_given_out_whole_if_it_is_whole() {
    let mut input = parted(1, &["1g.5gb"]);
    assert!(all_devices(&input).is_empty());
    assert_eq!(codes(&input), ["dra.gpu.mig-mode", "dra.partition.unknown-profile"]);
    set_mode(&mut input, false, false);
    assert_eq!(codes(&input), ["dra.partition.unknown-profile"]);
    let devices = all_devices(&input);
    assert_eq!(devices.len(), 1);
    assert!(devices[0].get("consumesCounters").is_none());
}

#[test]
fn a_gpu_that_somebody_parted_is_no_whole_one() {
    let mut input = parted(1, &[]);
    set_mode(&mut input, true, true);
    assert!(publish(&input).observed.is_empty());
    assert_eq!(codes(&input), ["dra.gpu.mig-mode"]);
}

#[test]
fn a_place_that_a_gpu_has_not_is_told_with_those_that_it_has() {
    let output = publish(&parted(1, &["3g.40gb@4", "3g.40gb@1"]));
    let [problem] = &output.diagnostics[..] else { panic!("{:?}", output.diagnostics) };
    assert_eq!(problem.code, "dra.partition.unknown-profile");
    assert_eq!(problem.expected.as_deref(), Some("3g.40gb@0, 3g.40gb@4"));
}

#[test]
fn a_server_without_counters_is_told_of_no_partitions_that_need_them() {
    let mut input = parted(1, &["*"]);
    input.server.counters = false;
    assert!(all_devices(&input).is_empty());
    assert_eq!(codes(&input), ["dra.gpu.mig-mode"]);
    input.machines[0].partitions = vec!["1g.10gb".parse().unwrap()];
    assert_eq!(all_devices(&input).len(), 7);
    assert!(codes(&input).is_empty());
}

/// Whether anything of it is counted; never a part of it alone.
fn is_counted(input: &Input) -> bool {
    let takes = all_devices(input)
        .iter()
        .map(|device| device.get("consumesCounters").is_some())
        .collect::<BTreeSet<_>>();
    let sets = publish(input).observed.iter().any(|slice| slice.json()["spec"]["sharedCounters"].is_array());
    assert_eq!(takes.into_iter().collect::<Vec<_>>(), [sets]);
    sets
}

#[test]
fn parts_of_one_size_and_a_layout_need_no_counters() {
    let layouts: [&[&str]; 6] = [
        &["1g.10gb"],
        &["1g.20gb"],
        &["3g.40gb"],
        &["7g.80gb"],
        &["4g.40gb@0", "3g.40gb@4"],
        &["3g.40gb@0", "1g.10gb@4", "1g.10gb@5", "2g.20gb@6"],
    ];
    // The last has no place at 6: what is left fits.
    for layout in layouts {
        assert!(!is_counted(&parted(2, layout)), "{layout:?}");
    }
    for overlapping in [&["1g.10gb", "2g.20gb"][..], &["4g.40gb", "3g.40gb"], &["*"]] {
        assert!(is_counted(&parted(2, overlapping)), "{overlapping:?}");
    }
}

#[test]
fn more_instances_of_a_profile_than_a_gpu_takes_are_counted() {
    let mut input = parted(1, &["1g.10gb"]);
    for profile in
        input.probed.values_mut().filter_map(|gpu| gpu.mig.as_mut()).flat_map(|mig| &mut mig.profiles)
    {
        profile.max_instances = 6;
    }
    assert!(is_counted(&input));
}

#[test]
fn each_partition_fits_and_seven_of_the_smallest_fit_together() {
    let input = parted(1, &["*"]);
    let (devices, counters) = (all_devices(&input), counters(&input));
    for device in &devices {
        assert!(fit(&counters, &[device]), "{device}");
    }
    let profile = |name: &str| {
        let of = |device: &&Value| device["attributes"]["profile"]["string"] == name;
        devices.iter().filter(of).collect::<Vec<_>>()
    };
    assert_eq!(profile("1g.10gb").len(), 7);
    assert!(fit(&counters, &profile("1g.10gb")));
    for other in devices.iter().filter(|device| device["attributes"]["profile"]["string"] != "7g.80gb") {
        assert!(!fit(&counters, &[profile("7g.80gb")[0], other]), "{other}");
    }
}

proptest! {
    #[test]
    fn whatever_is_declared_is_counted_unless_all_of_it_fits_at_once(
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
    ) {
        let all = parted(1, &["*"]);
        let (devices, counters) = (all_devices(&all), counters(&all));
        let chosen: BTreeSet<_> = chosen.iter().map(|at| at.index(devices.len())).collect();
        let chosen: Vec<_> = chosen.into_iter().map(|at| &devices[at]).collect();
        let layout: Vec<_> = chosen.iter().map(|device| {
            let start = device["name"].as_str().unwrap().rsplit_once('-').unwrap().1;
            format!("{}@{start}", device["attributes"]["profile"]["string"].as_str().unwrap())
        }).collect();
        let input = parted(1, &layout.iter().map(String::as_str).collect::<Vec<_>>());
        prop_assert_eq!(all_devices(&input).len(), chosen.len());
        prop_assert_eq!(is_counted(&input), !fit(&counters, &chosen), "{:?}", layout);
    }

    #[test]
    fn partitions_that_share_a_memory_slice_never_fit_together(
        one in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(),
    ) {
        let input = parted(1, &["*"]);
        let (devices, counters) = (all_devices(&input), counters(&input));
        let (one, other) = (one.get(&devices), other.get(&devices));
        let taken = |device: &Value| amounts(&device["consumesCounters"][0]["counters"]);
        let shared = taken(one).keys().any(|name| name.starts_with("memory-slice-") && taken(other).contains_key(name));
        prop_assert!(!shared || !fit(&counters, &[one, other]), "{} {}", one["name"], other["name"]);
    }
}

#[test]
fn a_probe_adds_what_only_the_driver_knows_under_nvidias_names() {
    let mut input = parted(1, &["1g.10gb"]);
    let driver = Driver { version: Some("580.95.05".into()), nvml: None, cuda: Some("13.0".into()) };
    input.machines[0].driver = Some(driver);
    let devices = all_devices(&input);
    for device in &devices {
        let attributes = &device["attributes"];
        assert_eq!(attributes["driverVersion"], json!({ "version": "580.95.5" }));
        assert_eq!(attributes["cudaDriverVersion"], json!({ "version": "13.0.0" }));
        assert_eq!(attributes["cudaComputeCapability"], json!({ "version": "9.0.0" }));
        assert_eq!(attributes["architecture"], json!({ "string": "Hopper" }));
        assert_eq!(attributes["resource.kubernetes.io/pcieRoot"], json!({ "string": "pci0000:15" }));
        assert_eq!(attributes["resource.kubernetes.io/numaNode"], json!({ "int": 1 }));
        assert_eq!(attributes["probed"], json!({ "bool": true }));
    }
    set_mode(&mut input, false, false);
    let whole = all_devices(&input).remove(0);
    assert_eq!(whole["attributes"]["uuid"]["string"], "GPU-00000000-0000-0000-0000-000000000001");
    assert_eq!(whole["capacity"]["memory"]["value"], "80Gi");
    assert_eq!(whole.get("consumesCounters"), None);
    let partition = devices.iter().find(|device| device["attributes"]["type"]["string"] == "mig").unwrap();
    assert_eq!(partition["attributes"]["profile"]["string"], "1g.10gb");
    assert_eq!(partition["attributes"]["parentUUID"], whole["attributes"]["uuid"]);
    assert_eq!(
        (&partition["capacity"]["memory"]["value"], &partition["capacity"]["multiprocessors"]["value"]),
        (&json!("10Gi"), &json!("16"))
    );
}

#[test]
fn a_finding_taints_by_how_bad_it_is_and_the_taint_goes_with_it() {
    let taint = |worst| {
        let mut input = parted(1, &[]);
        input.probed.values_mut().for_each(|gpu| *gpu = h100(worst));
        all_devices(&input)[0].get("taints").cloned()
    };
    let health = |effect: &str| {
        Some(json!([{ "key": "bailiwick.dev/health", "value": "gpu.health.xid", "effect": effect }]))
    };
    assert_eq!(taint(Some(Severity::Critical)), health("NoExecute"));
    assert_eq!(taint(Some(Severity::Warning)), health("NoSchedule"));
    assert_eq!(taint(Some(Severity::Notice)), None);
    assert_eq!(taint(None), None);
}

#[test]
fn a_change_of_one_gpus_health_is_one_slice_to_write_in_a_fleet() {
    let of_machine =
        |machine: usize| (0..8).map(|at| serial(&format!("G{machine}x{at}"))).collect::<Vec<_>>();
    let mut input = fra1((0..20).map(|at| machine(&format!("m{at}"), of_machine(at))).collect());
    let keys = input.machines.iter().flat_map(|machine| &machine.gpus).filter_map(GpuKey::of);
    input.probed = keys.map(|key| (key, h100(None))).collect();
    let written = |before: &[Object], after: &[Object]| -> Vec<String> {
        let there: Vec<_> = before.iter().map(Object::json).collect();
        let steps = reconcile(&there, after).into_iter();
        let applied = steps.map(|step| match step {
            Step::Apply(object) => object.name.clone(),
            Step::Delete { name } => panic!("{name} is deleted"),
        });
        applied.collect()
    };
    let before = publish(&input).observed;
    let ill = GpuKey::of(&of_machine(7)[3]).unwrap();
    input.probed.insert(ill, h100(Some(Severity::Warning)));
    let after = publish(&input).observed;
    assert_eq!(written(&before, &after), ["m7-gpu-00"]);
    assert_eq!(written(&after, &before), ["m7-gpu-00"]);
}

#[test]
fn gpus_that_reach_each_others_memory_share_an_nvlink_domain() {
    let mut input = parted(4, &[]);
    for (at, gpu) in input.probed.values_mut().enumerate() {
        gpu.index = u32::try_from(at).unwrap();
        gpu.pci.address = Some(format!("0000:0{at}:00.0"));
        let link = NvLink { active: at < 3, remote_pci: Some("0000:a0:00.0".into()), ..NvLink::default() };
        gpu.nvlinks = vec![link];
    }
    let domain = |device: &Value| device["attributes"]["nvlinkDomain"]["string"].as_str().map(str::to_owned);
    let mut domains: Vec<_> = all_devices(&input).iter().map(domain).collect();
    domains.sort();
    assert_eq!(domains[0], None, "it has no link that is up");
    assert!(domains[1].is_some() && domains[1] == domains[2] && domains[2] == domains[3], "{domains:?}");
}
