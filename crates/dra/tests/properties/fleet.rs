//! Inventories and declarations of any kind, small names so that things collide and contain each other.

use bailiwick_dra::{DriverView, GpuKey, Input, PublishedMachine, ServerSupport, TaintRuleVersion, Verdict};
use domain::declaration::{GpuClassSpec, Handling, Requirement, SiteSpec, Tier, Zone};
use domain::inventory::Gpu;
use domain::probe::{
    Driver, Finding, Host, Mig, MigProfile, NvLink, Pci, Placement, Probe, ProbedGpu, Severity,
};
use domain::{Containment, Name, Problem};
use jiff::Timestamp;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::sync::Arc;

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// `world` contains `eu`, which contains `de`; `us` lies in `world` too; `nowhere` is not declared.
pub(crate) fn order() -> Containment {
    let within = |child, parent| (name(child), vec![name(parent)]);
    Containment::new([
        (name("world"), vec![]),
        within("eu", "world"),
        within("de", "eu"),
        within("us", "world"),
    ])
    .unwrap()
}

/// What vendors write, what they should not write, and what an attacker would.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(vec!["NVIDIA H100", "H200", "a", "it's", "x'] || true || y in ['", "\\", "\"\"\"", "1.2.3"]).prop_map(str::to_owned),
        2 => ".{0,12}",
        1 => "[a-z]{60,70}",
        1 => "\\PC{20,40}",
    ]
}

fn gpu() -> impl Strategy<Value = Gpu> {
    let identity = (option::of("[a-fA-F0-9]{3}"), option::of("[A-Z0-9]{3}"));
    let rest = (option::of(word()), option::of(word()), option::of(word()), option::of(word()));
    let address = option::of(prop_oneof![Just("0000:1B:00.0".to_owned()), word()]);
    (identity, rest, address).prop_map(
        |((uuid, serial), (model, manufacturer, part_number, firmware_version), pci_address)| Gpu {
            model,
            manufacturer,
            serial,
            uuid,
            part_number,
            firmware_version,
            pci_address,
            location: None,
            sources: vec!["/redfish/v1/Chassis/1".to_owned()],
        },
    )
}

fn zone() -> impl Strategy<Value = Zone> {
    let handling = option::of(Just(Handling::Sensitive));
    (select(vec![Tier::Official, Tier::Secret]), handling)
        .prop_map(|(tier, handling)| Zone { tier, handling })
}

fn site() -> impl Strategy<Value = SiteSpec> {
    let jurisdiction = select(vec!["world", "eu", "de", "us", "nowhere"]);
    (jurisdiction, option::of(zone())).prop_map(|(jurisdiction, zone)| SiteSpec {
        jurisdiction: name(jurisdiction),
        operator: name("acme"),
        country: serde_json::from_str("\"DE\"").unwrap(),
        bmc_networks: vec![],
        zone,
    })
}

fn machine() -> impl Strategy<Value = PublishedMachine> {
    let names = prop_oneof!["m[0-9]{1,2}", "[a-z]{63}"];
    let gpus = prop_oneof![9 => vec(gpu(), 0..10), 1 => vec(gpu(), 100..300)];
    let alarms = vec(prop_oneof![Just("bmc.pin-mismatch".to_owned()), word()], 0..3);
    (names, "s[0-3]", option::of(zone()), gpus, alarms).prop_map(|(machine, site, zone, gpus, alarms)| {
        PublishedMachine {
            name: name(&machine),
            site: name(&site),
            rack: None,
            zone,
            gpus,
            alarms: alarms.into_iter().map(|code| Problem::new(&code, "worse")).collect(),
        }
    })
}

pub(crate) fn class() -> impl Strategy<Value = GpuClassSpec> {
    let every = vec![Requirement::Inventoried, Requirement::Probed, Requirement::Attested];
    let requires = prop_oneof![Just(Requirement::default_set()), proptest::sample::subsequence(every, 0..=3)];
    let jurisdiction = select(vec!["world", "eu", "de", "us", "nowhere"]);
    let profile = option::of(select(vec!["1g.10gb", "3g.40gb", "it's"]));
    (jurisdiction, vec(word(), 0..3), profile, option::of(zone()), requires).prop_map(
        |(jurisdiction, models, profile, zone, requires)| GpuClassSpec {
            jurisdiction: name(jurisdiction),
            models,
            profile: profile.map(str::to_owned),
            zone,
            requires,
        },
    )
}

/// Profiles as an H100 has them, and one that no GPU has.
pub(crate) fn mig(enabled: bool) -> Mig {
    let profile = |id, name: &str, slices, memory: u64, starts: &[u32], size| MigProfile {
        id,
        name: name.to_owned(),
        slices,
        memory_bytes: memory << 20,
        multiprocessors: slices * 16,
        copy_engines: slices,
        decoders: slices,
        jpegs: slices,
        placements: starts.iter().map(|start| Placement { start: *start, size }).collect(),
        ..MigProfile::default()
    };
    let profiles = vec![
        profile(19, "1g.10gb", 1, 9984, &[0, 1, 2, 3, 4, 5, 6], 1),
        profile(15, "1g.20gb", 1, 20096, &[0, 2, 4, 6], 2),
        profile(14, "2g.20gb", 2, 20096, &[0, 2, 4], 2),
        profile(9, "3g.40gb", 3, 40448, &[0, 4], 4),
        profile(5, "4g.40gb", 4, 40448, &[0], 4),
        profile(0, "7g.80gb", 7, 81159, &[0], 8),
    ];
    Mig { enabled, pending: enabled, profiles, instances: vec![] }
}

/// What a driver tells of a GPU, everything that it can.
fn seen(at: usize, health: u8, enabled: bool) -> ProbedGpu {
    let severity = [None, Some(Severity::Notice), Some(Severity::Warning), Some(Severity::Critical)]
        [usize::from(health)];
    let finding = |severity| Finding { severity, code: "gpu.health.xid".into(), message: String::new() };
    let link =
        |link| NvLink { link, active: true, remote_pci: Some("0000:05:00.0".into()), remote_kind: None };
    let pci = Pci {
        address: Some(format!("0000:{at:02x}:00.0")),
        root: Some("pci0000:15".into()),
        ..Pci::default()
    };
    ProbedGpu {
        uuid: Some(format!("GPU-{at:03}")),
        index: u32::try_from(at).unwrap(),
        model: Some("NVIDIA H100 80GB HBM3".into()),
        brand: Some("nvidia".into()),
        architecture: Some("Hopper".into()),
        pci,
        numa_node: Some(1),
        memory_bytes: Some(85_520_809_984),
        compute_capability: Some("9.0".into()),
        mig: Some(mig(enabled)),
        nvlinks: (0..18).map(link).collect(),
        health: severity.map(finding).into_iter().collect(),
        ..ProbedGpu::default()
    }
}

/// What the drivers of a fleet tell of some of its GPUs; some of these are partitionable.
fn drivers(input: &mut Input, told: &[(bool, u8, bool, bool)]) {
    let driver = Driver { version: Some("580.95.05".into()), nvml: None, cuda: Some("13.0".into()) };
    let mut told = told.iter().cycle();
    for machine in input.machines.clone() {
        let keys: Vec<_> = machine.gpus.iter().filter_map(GpuKey::of).collect();
        let mut gpus = Vec::new();
        let mut places = Vec::new();
        for key in keys {
            let Some((known, health, enabled, partitionable)) = told.next() else { return };
            if *known {
                places.push((key.clone(), gpus.len()));
                gpus.push(seen(gpus.len(), *health, *enabled));
            }
            // a few of each machine are enough: each has some twenty parts
            if *partitionable && gpus.len() < 4 {
                input.partitionable.insert(key);
            }
        }
        let probe = Arc::new(Probe {
            taken: Timestamp::UNIX_EPOCH,
            boot_id: None,
            host: Host::default(),
            driver: Some(driver.clone()),
            confidential_computing: None,
            gpus,
            diagnostics: vec![],
        });
        let view = |place| DriverView { probe: Arc::clone(&probe), place };
        input.drivers.extend(places.into_iter().map(|(key, place)| (key, view(place))));
    }
}

/// A fleet; of its GPUs about half are probed, half have a verdict, and a few have conflicting views.
pub(crate) fn input() -> impl Strategy<Value = Input> {
    let verdicts = vec![
        None,
        None,
        Some(Verdict::Affirming),
        Some(Verdict::Affirming),
        Some(Verdict::Stale),
        Some(Verdict::NotApplicable),
    ];
    let knowledge = vec((any::<bool>(), select(verdicts), prop::bool::weighted(0.05)), 16);
    let rules =
        option::of(select(vec![TaintRuleVersion::V1Alpha3, TaintRuleVersion::V1Beta2, TaintRuleVersion::V1]));
    let lists = (btree_map("s[0-2]", site(), 0..4), vec(machine(), 0..6), vec(("c[0-9]", class()), 0..4));
    let home = option::of(select(vec!["world", "eu"]));
    let told = vec((any::<bool>(), 0_u8..4, prop::bool::weighted(0.2), any::<bool>()), 16);
    (lists, knowledge, told, rules, home).prop_map(
        |((sites, machines, classes), knowledge, told, taint_rules, home)| {
            let mut input = Input::new(name("cell-1"), "bailiwick-cell");
            input.home = home.map(name);
            input.jurisdictions = order();
            input.sites = sites.into_iter().map(|(key, site)| (name(&key), site)).collect();
            input.classes = classes.into_iter().map(|(key, class)| (name(&key), class)).collect();
            let keys: Vec<_> = machines.iter().flat_map(|m| &m.gpus).filter_map(GpuKey::of).collect();
            for (key, (probed, verdict, conflict)) in keys.into_iter().zip(knowledge.iter().cycle()) {
                if *probed {
                    input.probed.insert(key.clone());
                }
                if let Some(verdict) = verdict {
                    input.verdicts.insert(key.clone(), *verdict);
                }
                if *conflict {
                    input.conflicts.insert(key);
                }
            }
            input.machines = machines;
            drivers(&mut input, &told);
            input.server = ServerSupport { taint_rules };
            input
        },
    )
}
