//! The function itself.

use crate::device::{GpuKey, Surroundings, device};
use crate::input::{Input, PublishedMachine};
use crate::object::{Object, Output};
use crate::{class, nvlink, partition, policy, slice, taint};
use domain::declaration::SiteSpec;
use domain::inventory::Gpu;
use domain::probe::{Driver, ProbedGpu};
use domain::{Name, Problem};
use k8s_openapi::api::resource::v1::CounterSet;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Everything to publish, and what was left out. The same input gives the same bytes, in whatever order its lists come.
pub fn publish(input: &Input) -> Output {
    let mut problems = Vec::new();
    let mut declared = policy::policies(input);
    declared.extend(classes(input, &mut problems));
    let machines = machines(input, &mut problems);
    let doubles = Doubles::find(&input.machines);
    let (mut rules, mut slices) = (Vec::new(), Vec::new());
    for (machine, site) in &machines {
        let (devices, counters) = devices(input, machine, site, &doubles, &mut problems);
        let rule = input.server.taint_rules.and_then(|version| taint::rule(&input.cell, machine, version));
        // Where the server serves no taint rules the devices bear the taint themselves.
        let taint = if rule.is_none() { taint::taint(machine) } else { None };
        rules.extend(rule);
        slices.extend(slice::slices(&input.cell, &machine.name, devices, counters, taint.as_ref()));
    }
    problems.sort_by(|a, b| (&a.at, &a.code, &a.message).cmp(&(&b.at, &b.code, &b.message)));
    problems.dedup();
    // Rules first: an alarmed machine is tainted before its devices show.
    rules.append(&mut slices);
    Output { declared, observed: rules, diagnostics: problems }
}

fn classes(input: &Input, problems: &mut Vec<Problem>) -> Vec<Object> {
    let declared = input.classes.iter().map(|(name, spec)| (name, spec));
    let mut objects = Vec::new();
    for (name, spec) in unambiguous("GpuClass", declared, problems) {
        match class::class(&input.cell, name, spec, &input.jurisdictions) {
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

/// The devices of a machine, each GPU followed by its parts, sorted by name; and the counters that the parts share.
fn devices(
    input: &Input,
    machine: &PublishedMachine,
    site: &SiteSpec,
    doubles: &Doubles<'_>,
    problems: &mut Vec<Problem>,
) -> (Vec<Value>, Vec<CounterSet>) {
    let place = format!("Machine/{}", machine.name);
    let mut devices = BTreeMap::new();
    let mut counters = BTreeMap::new();
    let drivers = Drivers::of(input, machine);
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
            continue;
        }
        if let Some(others) = doubles.others(&key, gpu) {
            problems.push(
                Problem::new(
                    "dra.gpu.duplicate",
                    format!("GPU {key} of {place} is not published: it shows more than once"),
                )
                .difference(format!("in {others}"), "one place")
                .hint("find out which of the machines holds it; none of them is believed until then")
                .at(place.clone()),
            );
            continue;
        }
        let driver = drivers.view(&key);
        let partitionable = input.partitionable.contains(&key);
        if !partitionable
            && driver.is_some_and(|(_, seen, _)| seen.mig.as_ref().is_some_and(|mig| mig.enabled))
        {
            problems.push(
                Problem::new(
                    "dra.gpu.mig-mode",
                    format!("GPU {key} of {place} is not published: it is in MIG mode and not to be given out in parts"),
                )
                .hint("turn MIG off, or declare the GPU partitionable")
                .at(place.clone()),
            );
            continue;
        }
        let around = Surroundings {
            machine,
            site,
            site_name: &machine.site,
            probed: input.probed.contains(&key),
            driver,
            verdict: input.verdicts.get(&key).copied(),
        };
        let mut whole = device(&key, gpu, &around, problems);
        let taint = driver.and_then(|(_, seen, _)| taint::health(seen));
        whole.taints = taint.map(|taint| vec![taint]);
        if let Some((_, seen, _)) = driver.filter(|_| partitionable)
            && let Some(mig) = &seen.mig
            && let Some(set) = partition::counter_set(&whole.name, mig)
        {
            partition::consume_all(&mut whole, &set);
            devices.extend(partition::partitions(&whole, seen, mig));
            counters.insert(set.name.clone(), set);
        }
        devices.insert(whole.name.clone(), partition::json(&whole));
    }
    (devices.into_values().collect(), counters.into_values().collect())
}

/// What the drivers of a machine tell of its GPUs, as far as it is believed.
struct Drivers<'a> {
    input: &'a Input,
    domains: BTreeMap<u32, String>,
}

impl<'a> Drivers<'a> {
    fn of(input: &'a Input, machine: &PublishedMachine) -> Self {
        let mut keys = machine.gpus.iter().filter_map(GpuKey::of);
        let probe = keys.find_map(|key| input.drivers.get(&key)).map(|view| &view.probe);
        let domains = probe.map(|probe| nvlink::domains(&machine.name, &probe.gpus)).unwrap_or_default();
        Self { input, domains }
    }

    fn view(&self, key: &GpuKey) -> Option<(&'a Driver, &'a ProbedGpu, Option<&str>)> {
        let view = self.input.drivers.get(key).filter(|_| self.input.probed.contains(key))?;
        let (driver, seen) = (view.probe.driver.as_ref()?, view.gpu()?);
        Some((driver, seen, self.domains.get(&seen.index).map(String::as_str)))
    }
}
