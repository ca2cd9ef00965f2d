//! Partitions of a GPU (Multi-Instance GPU) as devices that share its counters (KEP-4815).
//!
//! The whole GPU and every partition at every place where it fits are devices. Each takes what it needs of the GPU's counter set, so
//! that the scheduler gives out what fits together, and nothing beside the whole. The names are those of NVIDIA's driver.

use crate::attribute::Attributes;
use crate::device::{GpuKey, Surroundings, capacity, common};
use crate::quantity::quantity;
use crate::taint;
use domain::Problem;
use domain::inventory::Gpu;
use domain::permit::Partition;
use domain::probe::{Mig, MigProfile, Placement, ProbedGpu};
use k8s_openapi::api::resource::v1::{Counter, CounterSet, Device, DeviceCounterConsumption};
use std::collections::BTreeMap;

/// Most counters of a set (facts: dra §3).
const MAX_COUNTERS: usize = 32;

/// A GPU's counters, its partitions, and what the whole of it takes.
pub(crate) struct Parted {
    pub(crate) counters: CounterSet,
    pub(crate) whole: DeviceCounterConsumption,
    pub(crate) partitions: Vec<Device>,
}

/// The partitions that are declared and that the GPU has; `None` where it has none of them. What is declared and it has not is told.
pub(crate) fn parted(
    key: &GpuKey,
    gpu: &Gpu,
    around: &Surroundings<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Parted> {
    let declared = &around.machine.partitions;
    let probed = around.probed.filter(|_| !declared.is_empty())?;
    let place = format!("Machine/{} gpus/{key}", around.machine.name);
    let offered = probed.mig.as_ref().map(offered).unwrap_or_default();
    let unknown =
        declared.iter().filter(|name| *name != "*" && !offered.iter().any(|profile| profile.name == **name));
    for name in unknown {
        let message = format!("{place} is not parted into {name}: it has no such profile");
        let has = offered.iter().map(|profile| profile.name.as_str()).collect::<Vec<_>>().join(", ");
        let has = if has.is_empty() { "no profiles".to_owned() } else { has };
        problems.push(
            Problem::new("dra.partition.unknown-profile", message)
                .difference(name, has)
                .hint("correct `spec.partitions` of the Machine; `bailiwick-agent probe -o json` shows what its GPUs have")
                .at(place.clone()),
        );
    }
    let wanted: Vec<_> = offered.iter().copied().filter(|profile| is_declared(profile, declared)).collect();
    if wanted.is_empty() {
        return None;
    }
    let total = total(&offered);
    if total.len() > MAX_COUNTERS {
        let message = format!("{place} is not parted: it would need too many counters");
        problems.push(
            Problem::new("dra.partition.too-many-counters", message)
                .difference(total.len().to_string(), format!("at most {MAX_COUNTERS}"))
                .at(place),
        );
        return None;
    }
    let set = format!("{}-counters", key.device_name());
    let of =
        |counters: BTreeMap<String, Counter>| DeviceCounterConsumption { counter_set: set.clone(), counters };
    let places = wanted.iter().flat_map(|profile| profile.placements.iter().map(move |at| (*profile, *at)));
    let partitions = places.map(|(profile, placement)| Device {
        consumes_counters: Some(vec![of(counters(profile, placement))]),
        ..partition(key, gpu, around, probed, profile, placement, problems)
    });
    let partitions = partitions.collect();
    Some(Parted { whole: of(total.clone()), counters: CounterSet { name: set, counters: total }, partitions })
}

/// The partitions that are declared and that a GPU has, each with the device that it is: what an agent is permitted to hand out.
pub fn partitions(key: &GpuKey, probed: &ProbedGpu, declared: &[String]) -> Vec<(String, Partition)> {
    let offered = probed.mig.as_ref().map(offered).unwrap_or_default();
    let wanted = offered.into_iter().filter(|profile| is_declared(profile, declared));
    let places = wanted.flat_map(|profile| {
        profile.placements.iter().map(|at| Partition { profile: profile.id, start: at.start })
    });
    places.map(|partition| (device_name(key, partition), partition)).collect()
}

fn is_declared(profile: &MigProfile, declared: &[String]) -> bool {
    declared.iter().any(|name| name == "*" || *name == profile.name)
}

/// The GPU's name, its profile and its first memory slice, as NVIDIA's driver names such devices.
fn device_name(key: &GpuKey, partition: Partition) -> String {
    format!("{}-mig-{}-{}", key.device_name(), partition.profile, partition.start)
}

/// Profiles that may be put somewhere.
fn offered(mig: &Mig) -> Vec<&MigProfile> {
    mig.profiles.iter().filter(|profile| !profile.placements.is_empty()).collect()
}

fn partition(
    key: &GpuKey,
    gpu: &Gpu,
    around: &Surroundings<'_>,
    probed: &ProbedGpu,
    profile: &MigProfile,
    placement: Placement,
    problems: &mut Vec<Problem>,
) -> Device {
    let name = device_name(key, Partition { profile: profile.id, start: placement.start });
    let place = format!("Machine/{} gpus/{key} {name}", around.machine.name);
    let mut attributes = Attributes::new(place, problems);
    attributes.text("type", Some("mig"));
    attributes.text("parentUUID", probed.uuid.as_deref());
    attributes.text("profile", Some(&profile.name));
    common(gpu, around, &mut attributes);
    Device {
        name,
        attributes: Some(attributes.done()),
        capacity: Some(capacity([
            ("memory", profile.memory_bytes),
            ("multiprocessors", profile.multiprocessors.into()),
            ("copyEngines", profile.copy_engines.into()),
            ("decoders", profile.decoders.into()),
            ("encoders", profile.encoders.into()),
            ("jpegEngines", profile.jpegs.into()),
            ("ofaEngines", profile.ofas.into()),
        ])),
        taints: taint::of_health(probed).map(|taint| vec![taint]),
        ..Device::default()
    }
}

/// What a partition takes: of each engine so many, and the memory slices that it covers.
fn counters(profile: &MigProfile, placement: Placement) -> BTreeMap<String, Counter> {
    let amounts = [
        ("memory", profile.memory_bytes),
        ("multiprocessors", profile.multiprocessors.into()),
        ("copy-engines", profile.copy_engines.into()),
        ("decoders", profile.decoders.into()),
        ("encoders", profile.encoders.into()),
        ("jpeg-engines", profile.jpegs.into()),
        ("ofa-engines", profile.ofas.into()),
    ];
    let amounts = amounts.into_iter().map(|(name, amount)| (name.to_owned(), amount));
    let covered = placement.start..placement.start.saturating_add(placement.size);
    let slices = covered.map(|slice| (format!("memory-slice-{slice}"), 1));
    let there = amounts.chain(slices).filter(|(_, amount)| *amount > 0);
    there.map(|(name, amount)| (name, Counter { value: quantity(amount) })).collect()
}

/// What the GPU has: of each engine as many as its largest profile, and every memory slice that a profile covers.
fn total(profiles: &[&MigProfile]) -> BTreeMap<String, Counter> {
    let most = |amount: fn(&MigProfile) -> u32| profiles.iter().map(|profile| amount(profile)).max();
    let most = |amount| most(amount).unwrap_or_default();
    let whole = MigProfile {
        memory_bytes: profiles.iter().map(|profile| profile.memory_bytes).max().unwrap_or_default(),
        multiprocessors: most(|profile| profile.multiprocessors),
        copy_engines: most(|profile| profile.copy_engines),
        decoders: most(|profile| profile.decoders),
        encoders: most(|profile| profile.encoders),
        jpegs: most(|profile| profile.jpegs),
        ofas: most(|profile| profile.ofas),
        ..MigProfile::default()
    };
    let places = profiles.iter().flat_map(|profile| &profile.placements);
    let size = places.map(|at| at.start.saturating_add(at.size)).max().unwrap_or_default();
    counters(&whole, Placement { start: 0, size })
}
