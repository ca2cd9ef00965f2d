//! Inventories and declarations of any kind, small names so that things collide and contain each other.

use crate::h100::h100;
use bailiwick_dra::{GpuKey, Input, PublishedMachine, ServerSupport, TaintRuleVersion, Verdict};
use domain::declaration::{GpuClassSpec, Handling, Requirement, SiteSpec, Tier, Zone};
use domain::inventory::Gpu;
use domain::probe::{Mig, ProbedGpu};
use domain::{Containment, Name, Problem};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

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
    let partitions = prop_oneof![3 => Just(vec![]), 1 => Just(["3g.40gb", "9g", "1g.10gb@2"].map(|wish| wish.parse().unwrap()).to_vec())];
    (names, "s[0-3]", option::of(zone()), gpus, partitions, alarms).prop_map(
        |(machine, site, zone, gpus, partitions, alarms)| PublishedMachine {
            name: name(&machine),
            site: name(&site),
            rack: None,
            zone,
            gpus,
            alarms: alarms.into_iter().map(|code| Problem::new(&code, "worse")).collect(),
            driver: None,
            gpu_driver: domain::base_cluster::GpuDriver::Bailiwick,
            partitions,
        },
    )
}

pub(crate) fn class() -> impl Strategy<Value = GpuClassSpec> {
    let every = vec![Requirement::Inventoried, Requirement::Probed, Requirement::Attested];
    let requires = prop_oneof![Just(Requirement::default_set()), proptest::sample::subsequence(every, 0..=3)];
    let jurisdiction = select(vec!["world", "eu", "de", "us", "nowhere"]);
    let partition = option::of(select(vec!["1g.10gb".to_owned(), "3g.40gb".to_owned()]));
    (jurisdiction, vec(word(), 0..3), option::of(zone()), partition, requires, any::<bool>()).prop_map(
        |(jurisdiction, models, zone, partition, requires, extended_resource)| GpuClassSpec {
            jurisdiction: name(jurisdiction),
            models,
            zone,
            partition,
            requires,
            extended_resource,
        },
    )
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
    let modes = select(vec![(false, false), (true, true), (true, true), (true, false)]);
    let knowledge = vec((any::<bool>(), modes, select(verdicts), prop::bool::weighted(0.05)), 16);
    let rules =
        option::of(select(vec![TaintRuleVersion::V1Alpha3, TaintRuleVersion::V1Beta2, TaintRuleVersion::V1]));
    let lists = (btree_map("s[0-2]", site(), 0..4), vec(machine(), 0..6), vec(("c[0-9]", class()), 0..4));
    let home = option::of(select(vec!["world", "eu"]));
    (lists, knowledge, rules, home).prop_map(|((sites, machines, classes), knowledge, taint_rules, home)| {
        let mut input = Input::new(name("cell-1"), "bailiwick-cell");
        input.home = home.map(name);
        input.jurisdictions = order();
        input.sites = sites.into_iter().map(|(key, site)| (name(&key), site)).collect();
        input.classes = classes.into_iter().map(|(key, class)| (name(&key), class)).collect();
        let keys: Vec<_> = machines.iter().flat_map(|m| &m.gpus).filter_map(GpuKey::of).collect();
        for (key, (probed, (enabled, pending), verdict, conflict)) in
            keys.into_iter().zip(knowledge.iter().cycle())
        {
            if *probed {
                let gpu = h100(None);
                let mode = |mig| Mig { enabled: *enabled, pending: *pending, ..mig };
                // Known by what Redfish calls it, so that devices can be told apart by that.
                let gpu = ProbedGpu { uuid: None, mig: gpu.mig.map(mode), ..gpu };
                input.probed.insert(key.clone(), gpu);
            }
            if let Some(verdict) = verdict {
                input.verdicts.insert(key.clone(), *verdict);
            }
            if *conflict {
                input.conflicts.insert(key);
            }
        }
        input.machines = machines;
        input.server = ServerSupport { taint_rules, ..ServerSupport::default() };
        input
    })
}
