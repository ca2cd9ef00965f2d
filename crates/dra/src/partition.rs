//! MIG partitions of a GPU as devices, and the counters that keep them from overlapping (facts: dra §7, partition layout).
//!
//! Every placement of every profile is a device. All of them, and the whole GPU, consume from one counter set: engines and memory
//! as the profile says, and one `memory-slice-<i>` for each memory slice that is covered, so that two that overlap never fit.

use crate::device::semver;
use domain::probe::{Mig, MigProfile, Placement, ProbedGpu};
use k8s_openapi::api::resource::v1::{
    Counter, CounterSet, Device, DeviceAttribute, DeviceCapacity, DeviceCounterConsumption,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most counters of a set (facts: dra §3).
const MAX_COUNTERS: usize = 32;

/// What a partition says of the GPU that it is a part of: what a class selects by, and where it is. Its identity is the whole
/// GPU's, and serial numbers are left out: a device has at most 32 attributes and capacities together.
const OF_THE_GPU: [&str; 19] = [
    "architecture",
    "attestation",
    "brand",
    "cudaComputeCapability",
    "cudaDriverVersion",
    "driverVersion",
    "inventoried",
    "jurisdiction",
    "machine",
    "operator",
    "probed",
    "productName",
    "rack",
    "resource.kubernetes.io/numaNode",
    "resource.kubernetes.io/pciBusID",
    "resource.kubernetes.io/pcieRoot",
    "site",
    "zoneHandling",
    "zoneTier",
];

/// A GPU's counter set; `None` where its profiles are not known, or are more than a set can tell of.
pub(crate) fn counter_set(gpu_device: &str, mig: &Mig) -> Option<CounterSet> {
    let mut counters: BTreeMap<String, u64> = BTreeMap::new();
    for profile in &mig.profiles {
        for (name, value) in engines(profile) {
            let most = counters.entry(name.to_owned()).or_default();
            *most = value.max(*most);
        }
        for slice in profile.placements.iter().copied().flat_map(slices) {
            counters.insert(slice, 1);
        }
    }
    let known = counters.keys().any(|name| name.starts_with("memory-slice-"));
    (known && counters.len() <= MAX_COUNTERS).then(|| CounterSet {
        name: set_name(gpu_device),
        counters: counters.into_iter().map(|(name, value)| counted(&name, value)).collect(),
    })
}

/// Makes the whole GPU one that excludes each of its partitions.
pub(crate) fn consume_all(device: &mut Device, set: &CounterSet) {
    let all = DeviceCounterConsumption { counter_set: set.name.clone(), counters: set.counters.clone() };
    device.consumes_counters = Some(vec![all]);
}

/// Every partition of a GPU by its name; `device` is the whole GPU. They are made as JSON, one of each profile from what it is to
/// the API and the others from that one: a fleet has some hundred thousand of them.
pub(crate) fn partitions(device: &Device, gpu: &ProbedGpu, mig: &Mig) -> Vec<(String, Value)> {
    let whole = device.attributes.iter().flatten();
    let mut common: BTreeMap<String, DeviceAttribute> = whole
        .filter(|(name, _)| OF_THE_GPU.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    common.insert("type".to_owned(), text("mig"));
    if let Some(uuid) = &gpu.uuid {
        common.insert("parentUUID".to_owned(), text(uuid));
    }
    let mut parts = Vec::new();
    for profile in &mig.profiles {
        let mut attributes = common.clone();
        attributes.insert("profile".to_owned(), text(&profile.name));
        let counters = engines(profile).into_iter().filter(|(_, value)| *value > 0);
        let one = json(&Device {
            attributes: Some(attributes),
            capacity: Some(capacity(profile)),
            consumes_counters: Some(vec![DeviceCounterConsumption {
                counter_set: set_name(&device.name),
                counters: counters.map(|(name, value)| counted(name, value)).collect(),
            }]),
            taints: device.taints.clone(),
            ..Device::default()
        });
        for placement in &profile.placements {
            let name = format!("{}-mig-{}-{}", device.name, profile.id, placement.start);
            let mut part = one.clone();
            if let Some(field) = part.get_mut("name") {
                *field = name.clone().into();
            }
            if let Some(Value::Object(counters)) = part.pointer_mut("/consumesCounters/0/counters") {
                counters.extend(slices(*placement).map(|slice| (slice, json!({ "value": "1" }))));
            }
            parts.push((name, part));
        }
    }
    parts
}

/// A device as JSON; what this crate builds can be written.
pub(crate) fn json(device: &Device) -> Value {
    serde_json::to_value(device).unwrap_or_default()
}

/// Bytes as Kubernetes writes them.
pub(crate) fn bytes(bytes: u64) -> Quantity {
    let mebibytes = bytes >> 20;
    Quantity(if mebibytes << 20 == bytes { format!("{mebibytes}Mi") } else { bytes.to_string() })
}

fn set_name(gpu_device: &str) -> String {
    format!("{gpu_device}-counters")
}

/// What a profile takes, by the names of NVIDIA's driver for counters.
fn engines(profile: &MigProfile) -> [(&'static str, u64); 7] {
    [
        ("multiprocessors", profile.multiprocessors.into()),
        ("copy-engines", profile.copy_engines.into()),
        ("decoders", profile.decoders.into()),
        ("encoders", profile.encoders.into()),
        ("jpeg-engines", profile.jpegs.into()),
        ("ofa-engines", profile.ofas.into()),
        ("memory", profile.memory_bytes),
    ]
}

/// What a partition offers, by the names of NVIDIA's driver for capacities.
fn capacity(profile: &MigProfile) -> BTreeMap<String, DeviceCapacity> {
    let counts = [
        ("multiprocessors", profile.multiprocessors),
        ("copyEngines", profile.copy_engines),
        ("decoders", profile.decoders),
        ("encoders", profile.encoders),
        ("jpegEngines", profile.jpegs),
        ("ofaEngines", profile.ofas),
    ];
    let mut capacity: BTreeMap<_, _> =
        counts.into_iter().map(|(name, count)| (name.to_owned(), of(Quantity(count.to_string())))).collect();
    capacity.insert("memory".to_owned(), of(bytes(profile.memory_bytes)));
    capacity
}

fn of(value: Quantity) -> DeviceCapacity {
    DeviceCapacity { value, ..DeviceCapacity::default() }
}

fn counted(name: &str, value: u64) -> (String, Counter) {
    let value = if name == "memory" { bytes(value) } else { Quantity(value.to_string()) };
    (name.to_owned(), Counter { value })
}

fn slices(placement: Placement) -> impl Iterator<Item = String> + use<> {
    let first = placement.start;
    // a placement of more slices than any GPU has is one that a library made up; the set is then too large and left out
    (first..first.saturating_add(placement.size.min(64))).map(|slice| format!("memory-slice-{slice}"))
}

fn text(value: &str) -> DeviceAttribute {
    DeviceAttribute { string: Some(value.to_owned()), ..DeviceAttribute::default() }
}

/// A version attribute.
pub(crate) fn version(value: &str) -> Option<DeviceAttribute> {
    Some(DeviceAttribute { version: Some(semver(value)?), ..DeviceAttribute::default() })
}
