//! The function itself.

use crate::device::{GpuKey, Surroundings, device};
use crate::input::{Input, PublishedMachine};
use crate::nvidia::Foreign;
use crate::object::{Object, Output};
use crate::partition::parted;
use crate::{class, nvlink, policy, slice, taint};
use domain::base_cluster::GpuDriver;
use domain::declaration::SiteSpec;
use domain::inventory::Gpu;
use domain::probe::ProbedGpu;
use domain::{Name, Problem};
use k8s_openapi::api::resource::v1::{CounterSet, Device};
use std::collections::{BTreeMap, BTreeSet};

/// Everything to publish, and what was left out. The same input gives the same bytes, in whatever order its lists come.
pub fn publish(input: &Input) -> Output {
    let mut problems = Vec::new();
    let machines = machines(input, &mut problems);
    let doubles = Doubles::find(&input.machines);
    let (mut rules, mut slices, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
    for (machine, site) in &machines {
        let gpus = sound(input, machine, &doubles, &mut problems);
        let rule = input.server.taint_rules.and_then(|version| taint::rule(&input.cell, machine, version));
        // Where the server serves no taint rules the devices bear the taint themselves.
        let taint = if rule.is_none() { taint::taint(machine) } else { None };
        rules.extend(rule);
        match machine.gpu_driver {
            GpuDriver::Bailiwick => {
                let (devices, counters) = devices(input, machine, site, gpus, &mut problems);
                slices.extend(slice::slices(&input.cell, &machine.name, devices, &counters, taint.as_ref()));
            }
            GpuDriver::Nvidia => {
                let before = foreign.len();
                foreign.extend(gpus.into_iter().filter_map(|(key, gpu)| {
                    let (probed, verdict) = (input.probed.get(&key)?, input.verdicts.get(&key).copied());
                    Some(Foreign { machine, site, gpu, probed, verdict })
                }));
                let ill = foreign[before..].iter().map(|gpu| gpu.probed);
                rules.extend(health_rules(input, machine, ill, taint.is_some(), &mut problems));
            }
        }
    }
    let mut declared = policy::policies(input);
    declared.extend(classes(input, &foreign, &mut problems));
    problems.sort_by(|a, b| (&a.at, &a.code, &a.message).cmp(&(&b.at, &b.code, &b.message)));
    problems.dedup();
    // Rules first: an alarmed machine is tainted before its devices show.
    rules.append(&mut slices);
    Output { declared, observed: rules, diagnostics: problems }
}

/// Rules for the GPUs of a machine whose slices are NVIDIA's. Its devices bear no taint of ours otherwise.
fn health_rules<'a>(
    input: &Input,
    machine: &PublishedMachine,
    gpus: impl Iterator<Item = &'a ProbedGpu>,
    is_alarmed: bool,
    problems: &mut Vec<Problem>,
) -> Vec<Object> {
    let ill: Vec<_> = gpus.filter(|gpu| taint::of_health(gpu).is_some()).collect();
    let Some(version) = input.server.taint_rules else {
        if is_alarmed || !ill.is_empty() {
            let message = format!(
                "devices of Machine/{} are not tainted: the server serves no taint rules",
                machine.name
            );
            let problem = Problem::new("dra.nvidia.no-taint-rules", message);
            problems.push(problem.at(format!("Machine/{}", machine.name)));
        }
        return Vec::new();
    };
    ill.into_iter().filter_map(|gpu| taint::health_rule(&input.cell, machine, gpu, version)).collect()
}

fn classes(input: &Input, foreign: &[Foreign<'_>], problems: &mut Vec<Problem>) -> Vec<Object> {
    let declared = input.classes.iter().map(|(name, spec)| (name, spec));
    let mut objects = Vec::new();
    for (name, spec) in unambiguous("GpuClass", declared, problems) {
        match class::class(&input.cell, name, spec, &input.jurisdictions, foreign) {
            Ok(object) => objects.push(object),
            Err(problem) => problems.push(*problem),
        }
    }
    objects
}

/// Machines that may be published, sorted by name, with their sites. Nothing is published without a jurisdiction (DESIGN §3.1).
fn machines<'a>(input: &'a Input, problems: &mut Vec<Problem>) -> Vec<(&'a PublishedMachine, &'a SiteSpec)> {
    let known = input.machines.iter().map(|machine| (&machine.name, machine));
    let mut kept = Vec::new();
    for (name, machine) in unambiguous("Machine", known, problems) {
        match site_of(input, machine) {
            Ok(site) => kept.push((machine, site)),
            Err(problem) => problems.push(problem.at(format!("Machine/{name}"))),
        }
    }
    kept
}

/// Sorted by name; those that share a name are left out, since which of them came first means nothing.
fn unambiguous<'a, T>(
    kind: &str,
    items: impl Iterator<Item = (&'a Name, &'a T)>,
    problems: &mut Vec<Problem>,
) -> Vec<(&'a Name, &'a T)> {
    let mut by_name = BTreeMap::<_, Vec<_>>::new();
    for (name, item) in items {
        by_name.entry(name).or_default().push(item);
    }
    let mut alone = Vec::new();
    for (name, items) in by_name {
        if let [item] = items[..] {
            alone.push((name, item));
        } else {
            let place = format!("{kind}/{name}");
            problems.push(
                Problem::new(
                    "dra.name.duplicate",
                    format!("{place} is not published: the name is given twice"),
                )
                .at(place),
            );
        }
    }
    alone
}

fn site_of<'a>(input: &'a Input, machine: &PublishedMachine) -> Result<&'a SiteSpec, Box<Problem>> {
    let left_out = |code: &str, why: String| {
        Problem::new(code, format!("Machine/{} is not published: {why}", machine.name))
    };
    let site = input.sites.get(&machine.site).ok_or_else(|| {
        left_out("dra.machine.no-site", format!("its site {} is not declared", machine.site))
            .hint(format!("declare Site/{}", machine.site))
    })?;
    if !input.jurisdictions.knows(&site.jurisdiction) {
        return Err(left_out(
            "dra.machine.no-jurisdiction",
            format!("the jurisdiction {} of its site {} is not declared", site.jurisdiction, machine.site),
        )
        .hint(format!("declare Jurisdiction/{}", site.jurisdiction))
        .into());
    }
    if let Some(home) =
        input.home.as_ref().filter(|home| !input.jurisdictions.contains(home, &site.jurisdiction))
    {
        return Err(left_out(
            "jurisdiction.outside-cell",
            "it stands outside the jurisdiction of this cell".to_owned(),
        )
        .difference(site.jurisdiction.as_str(), format!("{home} or one that it contains"))
        .into());
    }
    Ok(site)
}

/// GPUs that more than one place shows. None of the places can be believed, so all are left out.
struct Doubles<'a> {
    keys: BTreeMap<GpuKey, Vec<&'a Name>>,
    serials: BTreeMap<&'a str, BTreeSet<&'a Name>>,
}

impl<'a> Doubles<'a> {
    /// Looks at all machines: one that is not published may still be the one that holds it.
    fn find(machines: &'a [PublishedMachine]) -> Self {
        let (mut keys, mut serials) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, BTreeSet<_>>::new());
        for machine in machines {
            for gpu in &machine.gpus {
                if let Some(key) = GpuKey::of(gpu) {
                    keys.entry(key).or_default().push(&machine.name);
                }
                if let Some(serial) = serial(gpu) {
                    serials.entry(serial).or_default().insert(&machine.name);
                }
            }
        }
        Self { keys, serials }
    }

    /// Where else it shows. GPUs of one board share its serial number, but a board is in one machine.
    fn others(&self, key: &GpuKey, gpu: &Gpu) -> Option<String> {
        let same_key = self.keys.get(key).filter(|places| places.len() > 1);
        let same_board =
            serial(gpu).and_then(|serial| self.serials.get(serial)).filter(|places| places.len() > 1);
        let places: BTreeSet<_> = same_key
            .into_iter()
            .flatten()
            .chain(same_board.into_iter().flatten())
            .map(|name| name.as_str())
            .collect();
        (!places.is_empty()).then(|| places.into_iter().collect::<Vec<_>>().join(", "))
    }
}

fn serial(gpu: &Gpu) -> Option<&str> {
    gpu.serial.as_deref().map(str::trim).filter(|serial| !serial.is_empty())
}

/// The GPUs of a machine that are what they seem.
fn sound<'a>(
    input: &Input,
    machine: &'a PublishedMachine,
    doubles: &Doubles<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<(GpuKey, &'a Gpu)> {
    let place = format!("Machine/{}", machine.name);
    let mut sound = Vec::new();
    for gpu in &machine.gpus {
        let Some(key) = GpuKey::of(gpu) else {
            problems.push(
                Problem::new(
                    "dra.gpu.no-identity",
                    format!(
                        "a GPU of {place} is not published: neither its UUID nor its serial number is known"
                    ),
                )
                .at(format!("{place} {}", gpu.sources.first().map_or("gpus", String::as_str))),
            );
            continue;
        };
        if input.conflicts.contains(&key) {
            problems.push(
                Problem::new(
                    "dra.gpu.conflict",
                    format!("GPU {key} of {place} is not published: its views disagree"),
                )
                .at(place.clone()),
            );
        } else if let Some(others) = doubles.others(&key, gpu) {
            problems.push(
                Problem::new(
                    "dra.gpu.duplicate",
                    format!("GPU {key} of {place} is not published: it shows more than once"),
                )
                .difference(format!("in {others}"), "one place")
                .hint("find out which of the machines holds it; none of them is believed until then")
                .at(place.clone()),
            );
        } else {
            sound.push((key, gpu));
        }
    }
    sound
}

/// The devices of a machine, sorted by name, and the counters that partitions share.
fn devices(
    input: &Input,
    machine: &PublishedMachine,
    site: &SiteSpec,
    gpus: Vec<(GpuKey, &Gpu)>,
    problems: &mut Vec<Problem>,
) -> (Vec<Device>, Vec<CounterSet>) {
    let (mut devices, mut counters) = (BTreeMap::new(), Vec::new());
    let domains = nvlink::domains(&machine.name, gpus.iter().filter_map(|(key, _)| input.probed.get(key)));
    for (key, gpu) in gpus {
        let (probed, verdict) = (input.probed.get(&key), input.verdicts.get(&key).copied());
        let nvlink_domain = probed.and_then(|gpu| domains.get(&gpu.index)).map(String::as_str);
        let around = Surroundings { machine, site, probed, nvlink_domain, verdict };
        let mut whole = device(&key, gpu, &around, problems);
        let parted = if input.server.counters { parted(&key, gpu, &around, problems) } else { None };
        if let Some(parted) = parted {
            whole.consumes_counters = Some(vec![parted.whole]);
            counters.push(parted.counters);
            devices.extend(parted.partitions.into_iter().map(|device| (device.name.clone(), device)));
        } else if probed.is_some_and(|gpu| gpu.mig.as_ref().is_some_and(|mig| mig.enabled)) {
            let place = format!("Machine/{}", machine.name);
            problems.push(
                Problem::new(
                    "dra.gpu.mig-mode",
                    format!(
                        "GPU {key} of {place} is not published: it is parted, and no partitions are declared"
                    ),
                )
                .hint("declare `spec.partitions` of the Machine, or switch MIG mode off: `nvidia-smi -mig 0`")
                .at(place),
            );
            continue;
        }
        devices.insert(key.device_name(), whole);
    }
    counters.sort_by(|a, b| a.name.cmp(&b.name));
    (devices.into_values().collect(), counters)
}
