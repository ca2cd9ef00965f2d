//! The function itself.

use crate::attribute::Attributes;
use crate::device::{GpuKey, Host, Known, Place, Shared, known, whole};
use crate::input::{Input, PublishedMachine};
use crate::json::Items;
use crate::nvidia::Foreign;
use crate::object::{Object, Output};
use crate::partition::{Kind, Kinds, Mode};
use crate::{class, nvlink, policy, slice, taint};
use domain::base_cluster::GpuDriver;
use domain::declaration::SiteSpec;
use domain::inventory::Gpu;
use domain::probe::ProbedGpu;
use domain::{Name, Problem};
use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, BTreeSet};

/// Everything to publish, and what was left out. The same input gives the same bytes, in whatever order its lists come.
pub fn publish(input: &Input) -> Output {
    let mut problems = Vec::new();
    let identified: Vec<_> = input.machines.iter().map(Identified::of).collect();
    let machines = machines(input, &identified, &mut problems);
    let doubles = Doubles::find(&identified);
    let (mut rules, mut slices, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
    let mut pool = Pool::default();
    for (identified, site) in machines {
        let machine = identified.machine;
        let gpus = sound(input, identified, &doubles, &mut problems);
        if input.verified.as_ref().is_some_and(|verified| !verified.contains(&machine.name)) {
            continue;
        }
        let rule = input.server.taint_rules.and_then(|version| taint::rule(&input.cell, machine, version));
        // Where the server serves no taint rules the devices bear the taint themselves.
        let taint = if rule.is_none() { taint::taint(machine) } else { None };
        rules.extend(rule);
        match machine.gpu_driver {
            GpuDriver::Bailiwick => {
                let host = Host::of(machine, site, taint, &mut problems);
                pool.fill(input, machine, &host, &gpus, &mut problems);
                slices.extend(slice::slices(&input.cell, &machine.name, &pool.devices, &pool.counters));
            }
            GpuDriver::Nvidia => {
                let probed =
                    gpus.into_iter().filter_map(|(key, gpu)| Some((key, gpu, input.probed.get(key)?)));
                let probed: Vec<_> = probed.collect();
                let ill = probed.iter().map(|(_, _, probed)| *probed);
                rules.extend(health_rules(input, machine, ill, taint.is_some(), &mut problems));
                foreign.extend(probed.into_iter().map(|(key, gpu, probed)| {
                    let verdict = input.verdicts.get(key).copied();
                    Foreign { machine, site, gpu, probed, verdict }
                }));
            }
        }
    }
    if input.verified.is_none() && !foreign.is_empty() {
        foreign.clear();
        let message = "classes name no GPUs of NVIDIA's driver here: nobody has looked at the Nodes";
        problems.push(Problem::new("dra.nvidia.unverified", message));
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
        match class::class(&input.cell, name, spec, &input.jurisdictions, foreign, problems) {
            Ok(object) => objects.push(object),
            Err(problem) => problems.push(*problem),
        }
    }
    objects
}

/// A machine, and what tells its GPUs from all others: worked out once.
struct Identified<'a> {
    machine: &'a PublishedMachine,
    /// In the order of its GPUs.
    keys: Vec<Option<GpuKey>>,
}

impl<'a> Identified<'a> {
    fn of(machine: &'a PublishedMachine) -> Self {
        Self { machine, keys: machine.gpus.iter().map(GpuKey::of).collect() }
    }

    fn gpus(&self) -> impl Iterator<Item = (Option<&GpuKey>, &'a Gpu)> {
        self.keys.iter().map(Option::as_ref).zip(&self.machine.gpus)
    }
}

/// Machines that may be published, sorted by name, with their sites. Nothing is published without a jurisdiction (DESIGN §3.1).
fn machines<'i>(
    input: &'i Input,
    identified: &'i [Identified<'i>],
    problems: &mut Vec<Problem>,
) -> Vec<(&'i Identified<'i>, &'i SiteSpec)> {
    let known = identified.iter().map(|identified| (&identified.machine.name, identified));
    let mut kept = Vec::new();
    for (name, identified) in unambiguous("Machine", known, problems) {
        match site_of(input, identified.machine) {
            Ok(site) => kept.push((identified, site)),
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
    keys: HashMap<&'a GpuKey, Shown<'a>>,
    serials: HashMap<&'a str, Shown<'a>>,
}

/// Where something shows.
struct Shown<'a> {
    first: &'a Name,
    /// Where it shows again; the same machine may show it twice.
    again: BTreeSet<&'a Name>,
}

impl<'a> Shown<'a> {
    fn at(first: &'a Name) -> Self {
        Self { first, again: BTreeSet::new() }
    }

    fn places(&self) -> impl Iterator<Item = &'a str> {
        let first = (!self.again.is_empty()).then_some(self.first);
        first.into_iter().chain(self.again.iter().copied()).map(Name::as_str)
    }
}

impl<'a> Doubles<'a> {
    /// Looks at all machines: one that is not published may still be the one that holds it.
    fn find(machines: &'a [Identified<'a>]) -> Self {
        let gpus = machines.iter().map(|machine| machine.keys.len()).sum();
        let mut keys = HashMap::<_, Shown<'_>>::with_capacity(gpus);
        let mut serials = HashMap::<_, Shown<'_>>::with_capacity(gpus);
        for identified in machines {
            let name = &identified.machine.name;
            for (key, gpu) in identified.gpus() {
                if let Some(key) = key {
                    match keys.entry(key) {
                        Entry::Vacant(place) => drop(place.insert(Shown::at(name))),
                        Entry::Occupied(mut shown) => _ = shown.get_mut().again.insert(name),
                    }
                }
                if let Some(serial) = known(gpu.serial.as_deref()) {
                    let shown = serials.entry(serial).or_insert_with(|| Shown::at(name));
                    if shown.first != name {
                        shown.again.insert(name);
                    }
                }
            }
        }
        Self { keys, serials }
    }

    /// Where else it shows. GPUs of one board share its serial number, but a board is in one machine.
    fn others(&self, key: &GpuKey, gpu: &Gpu) -> Option<String> {
        let same_key = self.keys.get(key).into_iter();
        let same_board = known(gpu.serial.as_deref()).and_then(|serial| self.serials.get(serial));
        let places: BTreeSet<_> = same_key.chain(same_board).flat_map(Shown::places).collect();
        (!places.is_empty()).then(|| places.into_iter().collect::<Vec<_>>().join(", "))
    }
}

/// The GPUs of a machine that are what they seem.
fn sound<'i>(
    input: &Input,
    identified: &'i Identified<'_>,
    doubles: &Doubles<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<(&'i GpuKey, &'i Gpu)> {
    let place = format!("Machine/{}", identified.machine.name);
    let mut sound = Vec::with_capacity(identified.keys.len());
    for (key, gpu) in identified.gpus() {
        let Some(key) = key else {
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
        if input.conflicts.contains(key) {
            problems.push(
                Problem::new(
                    "dra.gpu.conflict",
                    format!("GPU {key} of {place} is not published: its views disagree"),
                )
                .at(place.clone()),
            );
        } else if let Some(others) = doubles.others(key, gpu) {
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
#[derive(Default)]
struct Pool<'a> {
    devices: Items,
    counters: Items,
    kinds: Kinds<'a>,
}

impl<'a> Pool<'a> {
    /// Puts the devices of a machine in the place of those of the machine before it.
    fn fill(
        &mut self,
        input: &'a Input,
        machine: &'a PublishedMachine,
        host: &Host,
        gpus: &[(&'a GpuKey, &'a Gpu)],
        problems: &mut Vec<Problem>,
    ) {
        self.devices.clear();
        self.counters.clear();
        // By name; a partition's begins with its GPU's.
        let named: BTreeMap<_, _> =
            gpus.iter().map(|&(key, gpu)| (key.device_name(), (key, gpu, input.probed.get(key)))).collect();
        let domains = nvlink::domains(&machine.name, named.values().filter_map(|(_, _, probed)| *probed));
        for (name, (key, gpu, probed)) in named {
            let nvlink_domain = probed.and_then(|gpu| domains.get(&gpu.index)).map(String::as_str);
            let verdict = input.verdicts.get(key).copied();
            let known = Known { gpu, probed, nvlink_domain, verdict };
            let place = Place { machine: &machine.name, key };
            let kind = probed.filter(|_| !machine.partitions.is_empty());
            let kind = kind.map(|probed| self.kinds.of(probed, &machine.partitions));
            if let Some(kind) = &kind {
                kind.tell(&place, problems);
            }
            let kind = kind.filter(|kind| !kind.parts.is_empty());
            match (probed.map_or(Mode::Whole, Mode::of), kind) {
                (Mode::Whole, kind) => {
                    if kind.is_some() {
                        problems.push(mode_off(&place));
                    }
                    self.whole(&name, &known, &place, host, problems);
                }
                (Mode::Parted, Some(kind)) if input.server.counters || kind.counters.is_none() => {
                    self.parts(&name, &known, &place, host, &kind, problems);
                }
                (Mode::Parted, Some(_)) => problems.push(unusable(&place, "the server keeps no counters")),
                (Mode::Parted, None) => problems.push(unusable(&place, "no partitions of it are declared")),
                (Mode::Unsettled, _) => problems.push(unsettled(&place)),
            }
        }
    }

    fn whole(
        &mut self,
        name: &str,
        known: &Known<'_>,
        place: &Place<'_>,
        host: &Host,
        problems: &mut Vec<Problem>,
    ) {
        let shared = Shared::of(host, known, place, problems);
        self.devices.push(|device| whole(device, name, known, &shared, place, problems));
    }

    /// The partitions of one GPU, and the counters that they share, if they do.
    fn parts(
        &mut self,
        name: &str,
        known: &Known<'_>,
        place: &Place<'_>,
        host: &Host,
        kind: &Kind,
        problems: &mut Vec<Problem>,
    ) {
        let shared = Shared::of(host, known, place, problems);
        let set = kind.counters.as_ref().map(|total| (format!("{name}-counters"), total));
        if let Some((set, total)) = &set {
            self.counters.push(|text| {
                text.string("name", set);
                text.object("counters", |counters| counters.extend(total));
            });
        }
        let set = set.as_ref().map(|(set, _)| set.as_str());
        let mut parent = Attributes::new(place, problems);
        parent.text("parentUUID", known.probed.and_then(|gpu| gpu.uuid.as_deref()));
        let parent = parent.done();
        for part in &kind.parts {
            self.devices.push(|device| part.write(device, name, set, &parent, &shared));
        }
    }
}

fn mode_off(place: &Place<'_>) -> Problem {
    Problem::new("dra.partition.mode-off", format!("{place} is given out whole: its MIG mode is off"))
        .hint("switch it on (`nvidia-smi -mig 1`), or take `spec.partitions` out of the Machine")
        .at(place.to_string())
}

fn unusable(place: &Place<'_>, why: &str) -> Problem {
    Problem::new("dra.gpu.mig-mode", format!("{place} is not published: its MIG mode is on, and {why}"))
        .hint("declare `spec.partitions` of the Machine, or switch MIG mode off: `nvidia-smi -mig 0`")
        .at(place.to_string())
}

fn unsettled(place: &Place<'_>) -> Problem {
    let message = format!("{place} is not published: its MIG mode waits for a reset, or cannot be read");
    Problem::new("dra.gpu.mig-unsettled", message)
        .hint("reset the GPU or restart its host; `bailiwick-agent probe -o json` shows its mode")
        .at(place.to_string())
}
