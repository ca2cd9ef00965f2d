//! Machines whose GPUs NVIDIA's driver gives out: classes and taint rules for its devices, and no slices.

use crate::fleet::name;
use crate::h100::h100;
use crate::limits::{codes, fra1, machine, serial, slices};
use crate::selector::matches;
use bailiwick_dra::{DRIVER, GpuKey, Input, PublishedMachine, TaintRuleVersion, Verdict, publish};
use domain::base_cluster::GpuDriver;
use domain::probe::{ProbedGpu, Severity};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const NVIDIA: &str = "gpu.nvidia.com";

/// One machine with one probed GPU, and one class.
fn one(class: Value) -> Input {
    let mut input = fra1(vec![machine("m1", vec![serial("G1")])]);
    input.machines[0].gpu_driver = GpuDriver::Nvidia;
    let key = GpuKey::of(&serial("G1")).unwrap();
    let probed = ProbedGpu { uuid: Some("GPU-1".into()), minor: Some(3), ..h100(None) };
    input.probed.insert(key.clone(), probed);
    input.verdicts.insert(key, Verdict::Affirming);
    input.classes = vec![(name("c"), serde_json::from_value(class).unwrap())];
    input.server.taint_rules = Some(TaintRuleVersion::V1);
    input.verified = Some(BTreeSet::from([name("m1")]));
    input
}

fn expression(input: &Input) -> String {
    let output = publish(input);
    let class = output.declared.iter().find(|object| object.kind == "DeviceClass").unwrap();
    class.json()["spec"]["selectors"][0]["cel"]["expression"].as_str().unwrap().to_owned()
}

fn theirs(attributes: &Value) -> Value {
    let attributes = attributes.as_object().unwrap().iter();
    json!({ "attributes": attributes.map(|(name, text)| (name.clone(), json!({ "string": text }))).collect::<serde_json::Map<_, _>>() })
}

#[test]
fn their_devices_are_told_by_the_uuid_that_our_probe_knows_and_no_slices_are_written() {
    let input = one(json!({ "jurisdiction": "eu" }));
    assert_eq!(slices(&publish(&input).observed).count(), 0);
    let expression = expression(&input);
    let gpu = |uuid: &str| theirs(&json!({ "type": "gpu", "uuid": uuid }));
    assert!(matches(&expression, NVIDIA, &gpu("GPU-1")));
    assert!(!matches(&expression, NVIDIA, &gpu("GPU-2")), "a GPU that no machine of ours has");
    assert!(!matches(&expression, NVIDIA, &theirs(&json!({}))));
    assert!(!matches(&expression, DRIVER, &gpu("GPU-1")), "what says so of itself under our driver's name");
}

#[test]
fn a_gate_that_closes_takes_the_uuid_out_of_the_class() {
    let open = one(json!({ "jurisdiction": "eu" }));
    assert!(expression(&open).contains("GPU-1"));
    let closings: [fn(&mut Input); 8] = [
        |input| input.verified = Some(BTreeSet::new()),
        |input| input.verified = None,
        |input| input.verdicts.clear(),
        |input| input.probed.clear(),
        |input| assert!(input.conflicts.insert(GpuKey::of(&serial("G1")).unwrap())),
        |input| input.machines.push(machine("m2", vec![serial("G1")])),
        |input| input.sites.clear(),
        |input| ails(input, Severity::Critical),
    ];
    for (at, close) in closings.into_iter().enumerate() {
        let mut input = open.clone();
        close(&mut input);
        assert!(!expression(&input).contains("GPU-1"), "{at}");
    }
}

/// Has the driver find something wrong with its GPU.
fn ails(input: &mut Input, severity: Severity) {
    input.probed.values_mut().for_each(|gpu| gpu.health = h100(Some(severity)).health);
}

#[test]
fn a_gpu_that_fails_is_named_by_no_class_whether_whole_or_in_parts_until_it_is_well_again() {
    for class in [json!({ "jurisdiction": "eu" }), json!({ "jurisdiction": "eu", "partition": "1g.10gb" })] {
        let mut input = one(class);
        for rules in [None, Some(TaintRuleVersion::V1)] {
            input.server.taint_rules = rules;
            ails(&mut input, Severity::Critical);
            assert!(!expression(&input).contains("GPU-1"));
            ails(&mut input, Severity::Warning);
            assert!(expression(&input).contains("GPU-1"), "a warning is for taints");
        }
    }
}

#[test]
fn a_class_of_another_jurisdiction_model_or_zone_names_none_of_them() {
    for class in [
        json!({ "jurisdiction": "us" }),
        json!({ "jurisdiction": "eu", "models": ["A100"] }),
        json!({ "jurisdiction": "eu", "zone": { "tier": "secret" } }),
    ] {
        assert!(!expression(&one(class.clone())).contains(NVIDIA), "{class}");
    }
}

#[test]
fn a_class_of_partitions_takes_those_of_its_gpus() {
    let expression = expression(&one(json!({ "jurisdiction": "eu", "partition": "1g.10gb" })));
    let part = |parent: &str, profile: &str| {
        theirs(&json!({ "type": "mig", "parentUUID": parent, "profile": profile }))
    };
    assert!(matches(&expression, NVIDIA, &part("GPU-1", "1g.10gb")));
    assert!(!matches(&expression, NVIDIA, &part("GPU-1", "3g.40gb")));
    assert!(!matches(&expression, NVIDIA, &part("GPU-2", "1g.10gb")));
    assert!(!matches(&expression, NVIDIA, &theirs(&json!({ "type": "gpu", "uuid": "GPU-1" }))));
}

#[test]
fn what_got_worse_taints_their_devices_by_rules() {
    let mut input = one(json!({ "jurisdiction": "eu" }));
    input.machines[0].alarms = vec![domain::Problem::new("bmc.pin-mismatch", "its key changed")];
    ails(&mut input, Severity::Critical);
    let output = publish(&input);
    let selectors: Vec<_> =
        output.observed.iter().map(|rule| rule.json()["spec"]["deviceSelector"].clone()).collect();
    let pool = json!({ "driver": NVIDIA, "pool": "m1" });
    assert_eq!(selectors, [pool, json!({ "driver": NVIDIA, "pool": "m1", "device": "gpu-3" })]);
    assert_eq!(output.observed[1].json()["spec"]["taint"]["effect"], "NoExecute");
    input.server.taint_rules = None;
    assert_eq!(codes(&input), ["dra.nvidia.no-taint-rules"]);
}

#[test]
fn a_class_names_as_many_of_their_gpus_as_it_has_room_for_and_tells_which_it_does_not() {
    let mut input = one(json!({ "jurisdiction": "eu", "requires": ["probed"] }));
    input.machines = (0..60)
        .map(|at| {
            let gpus = (0..8).map(|gpu| serial(&format!("{at}-{gpu}"))).collect();
            PublishedMachine { gpu_driver: GpuDriver::Nvidia, ..machine(&format!("m{at:02}"), gpus) }
        })
        .collect();
    input.verified = Some(input.machines.iter().map(|machine| machine.name.clone()).collect());
    let uuid = |at: usize| format!("GPU-00000000-0000-0000-0000-{at:012}");
    let keys = input.machines.iter().flat_map(|machine| &machine.gpus).filter_map(GpuKey::of);
    input.probed =
        keys.enumerate().map(|(at, key)| (key, ProbedGpu { uuid: Some(uuid(at)), ..h100(None) })).collect();
    let text = expression(&input);
    assert!(text.len() <= 10 * 1024 && text.len() > 10 * 1024 - 50, "{}", text.len());
    let named = |at| text.contains(&uuid(at));
    let count = (0..480).filter(|at| named(*at)).count();
    assert!(count > 200 && (0..count).all(named), "those of the first machines");
    let problem = &publish(&input).diagnostics[0];
    assert_eq!(problem.code, "dra.class.full");
    assert!(problem.message.contains(&format!("{} GPUs", 480 - count)), "{problem}");
    assert!(problem.found.as_ref().unwrap().contains(&format!("m{:02}", count / 8)), "{problem}");
}

#[test]
fn a_slice_goes_to_a_cluster_only_for_a_verified_node() {
    let mut input = fra1(vec![machine("m1", vec![serial("G1")]), machine("m2", vec![serial("G2")])]);
    input.verified = Some(BTreeSet::from([name("m2")]));
    let machines: Vec<_> = publish(&input).observed.into_iter().map(|slice| slice.machine).collect();
    assert_eq!(machines, [Some(name("m2"))]);
    // One that is not verified may still be the one that holds a GPU.
    input.machines[0].gpus = vec![serial("G2")];
    assert!(publish(&input).observed.is_empty());
}
