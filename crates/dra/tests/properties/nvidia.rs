//! Machines whose GPUs NVIDIA's driver gives out: classes and taint rules for its devices, and no slices.

use crate::fleet::name;
use crate::h100::h100;
use crate::limits::{codes, fra1, machine, serial, slices};
use crate::selector::matches;
use bailiwick_dra::{DRIVER, GpuKey, Input, TaintRuleVersion, Verdict, publish};
use domain::base_cluster::GpuDriver;
use domain::probe::{ProbedGpu, Severity};
use serde_json::{Value, json};

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
    let closings: [fn(&mut Input); 5] = [
        |input| input.verdicts.clear(),
        |input| input.probed.clear(),
        |input| assert!(input.conflicts.insert(GpuKey::of(&serial("G1")).unwrap())),
        |input| input.machines.push(machine("m2", vec![serial("G1")])),
        |input| input.sites.clear(),
    ];
    for (at, close) in closings.into_iter().enumerate() {
        let mut input = open.clone();
        close(&mut input);
        assert!(!expression(&input).contains("GPU-1"), "{at}");
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
    input.probed.values_mut().for_each(|gpu| gpu.health = h100(Some(Severity::Critical)).health);
    let output = publish(&input);
    let selectors: Vec<_> =
        output.observed.iter().map(|rule| rule.json()["spec"]["deviceSelector"].clone()).collect();
    let pool = json!({ "driver": NVIDIA, "pool": "m1" });
    assert_eq!(selectors, [pool, json!({ "driver": NVIDIA, "pool": "m1", "device": "gpu-3" })]);
    assert_eq!(output.observed[1].json()["spec"]["taint"]["effect"], "NoExecute");
    input.server.taint_rules = None;
    assert_eq!(codes(&input), ["dra.nvidia.no-taint-rules"]);
}
