//! Partitions of a GPU (Multi-Instance GPU) as devices that share its counters (KEP-4815).
//!
//! A GPU whose MIG mode is on has no whole to give out, and one whose mode is off has no partitions: never are both devices, and
//! neither while the mode changes or cannot be told. Of a parted one every declared partition at every place where it fits is a
//! device, which the agent makes when it is prepared. Each takes what it needs of the GPU's counter set, so that the scheduler gives
//! out what fits together. Where all of them fit at once there is nothing to count, and a counter set would only cost: the scheduler
//! of 1.36 looks into every pool with counters for every Node (docs/decisions/0019). The names are those of NVIDIA's driver.

use crate::attribute;
use crate::device::{self, GpuKey, Place, Shared};
use crate::json::Text;
use domain::permit::Partition;
use domain::probe::{MigProfile, Placement, ProbedGpu};
use domain::{Partitions, Problem};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Most counters of a set (facts: dra §3).
const MAX_COUNTERS: usize = 32;

/// What a kind of GPU may be parted into: the same text for every GPU of the kind.
#[derive(Debug)]
pub(crate) struct Kind {
    /// What its counter set holds; none where all its parts fit at once.
    pub(crate) counters: Option<Text>,
    pub(crate) parts: Vec<Part>,
    trouble: Vec<Trouble>,
}

/// A partition at one place.
#[derive(Debug)]
pub(crate) struct Part {
    /// What follows the GPU's name in the device's.
    ending: String,
    attributes: Text,
    /// The members `capacity` and what follows it.
    capacity: Text,
    /// What it takes of the counter set.
    counters: Text,
}

/// Why a GPU of the kind is parted otherwise than declared.
#[derive(Debug)]
enum Trouble {
    Unknown { declared: Partitions, has: String },
    TooManyCounters(usize),
}

/// The kinds of GPUs met so far: a fleet has few, and many GPUs of each.
#[derive(Default)]
pub(crate) struct Kinds<'a>(Vec<(&'a [MigProfile], &'a [Partitions], Rc<Kind>)>);

/// More are not remembered: a fleet of nothing but exceptions is not to be searched from end to end for each GPU.
const MOST_KINDS: usize = 32;

impl<'a> Kinds<'a> {
    pub(crate) fn of(&mut self, probed: &'a ProbedGpu, declared: &'a [Partitions]) -> Rc<Kind> {
        let profiles = probed.mig.as_ref().map(|mig| mig.profiles.as_slice()).unwrap_or_default();
        let known = self.0.iter().find(|(these, so, _)| *these == profiles && *so == declared);
        if let Some((_, _, kind)) = known {
            return Rc::clone(kind);
        }
        if self.0.len() == MOST_KINDS {
            self.0.clear();
        }
        let kind = Rc::new(Kind::of(profiles, declared));
        self.0.push((profiles, declared, Rc::clone(&kind)));
        kind
    }
}

impl Kind {
    fn of(profiles: &[MigProfile], declared: &[Partitions]) -> Self {
        let offered = offered(profiles);
        let mut trouble: Vec<_> = declared.iter().filter_map(|wish| Trouble::of(wish, &offered)).collect();
        // By name, and each once.
        let wanted = wanted(&offered, declared);
        let wanted: BTreeMap<_, _> =
            wanted.map(|(profile, at)| (ending(profile.id, at.start), (profile, at))).collect();
        let total = total(&offered);
        let counted = !fit_at_once(wanted.values().copied(), &total);
        if counted && total.len() > MAX_COUNTERS {
            trouble.push(Trouble::TooManyCounters(total.len()));
            return Self { counters: None, parts: Vec::new(), trouble };
        }
        let parts = wanted.into_values().map(|(profile, at)| Part::of(profile, at)).collect();
        Self { counters: counted.then(|| written(&total)), parts, trouble }
    }

    /// Tells why a GPU is parted otherwise than declared.
    pub(crate) fn tell(&self, place: &Place<'_>, problems: &mut Vec<Problem>) {
        problems.extend(self.trouble.iter().map(|trouble| trouble.problem(place)));
    }
}

impl Trouble {
    /// Why a GPU with these profiles has nothing of what is wished, if so.
    fn of(wish: &Partitions, offered: &[&MigProfile]) -> Option<Self> {
        let Partitions::Of { profile: wished, .. } = wish else { return None };
        let (names, places): (Vec<_>, Vec<_>) = offered
            .iter()
            .flat_map(|profile| profile.placements.iter().map(|at| (profile.name.as_str(), at.start)))
            .partition(|(name, _)| name != wished);
        if places.iter().any(|(name, start)| wish.include(name, *start)) {
            return None;
        }
        let mut has: Vec<_> = places.iter().map(|(name, start)| format!("{name}@{start}")).collect();
        if has.is_empty() {
            has = names.iter().map(|(name, _)| (*name).to_owned()).collect();
            has.dedup();
        }
        let has = if has.is_empty() { "no profiles".to_owned() } else { has.join(", ") };
        Some(Self::Unknown { declared: wish.clone(), has })
    }

    fn problem(&self, place: &Place<'_>) -> Problem {
        match self {
            Self::Unknown { declared, has } => {
                let message = format!("{place} is not parted into {declared}: it has no such profile there");
                Problem::new("dra.partition.unknown-profile", message).difference(declared.to_string(), has).hint(
                    "correct `spec.partitions` of the Machine; `bailiwick-agent probe -o json` shows what its GPUs have",
                )
            }
            Self::TooManyCounters(counters) => {
                let message = format!("{place} is not parted: it would need too many counters");
                Problem::new("dra.partition.too-many-counters", message)
                    .difference(counters.to_string(), format!("at most {MAX_COUNTERS}"))
            }
        }
        .at(place.to_string())
    }
}

impl Part {
    fn of(profile: &MigProfile, placement: Placement) -> Self {
        let (mut attributes, mut capacity) = (Text::default(), Text::default());
        attributes.object("type", |text| text.string("string", "mig"));
        attributes.object("profile", |text| text.string("string", &profile.name));
        device::capacity(&mut capacity, engines(profile).map(|(capacity, _, amount)| (capacity, amount)));
        let counters = written(&counters(profile, placement));
        Self { ending: ending(profile.id, placement.start), attributes, capacity, counters }
    }

    /// The device. `set` is the counter set that it takes of, `parent` the attributes that tell of which GPU it is a part.
    pub(crate) fn write(
        &self,
        device: &mut Text,
        gpu: &str,
        set: Option<&str>,
        parent: &Text,
        shared: &Shared,
    ) {
        device.strings("name", &[gpu, &self.ending]);
        device.object("attributes", |attributes| {
            attributes.extend(parent);
            attributes.extend(&self.attributes);
            attributes.extend(&shared.attributes);
        });
        device.extend(&self.capacity);
        if let Some(set) = set {
            device.array("consumesCounters", |list| {
                list.item(|of| {
                    of.string("counterSet", set);
                    of.object("counters", |counters| counters.extend(&self.counters));
                });
            });
        }
        device.extend(&shared.taints);
    }
}

/// What of a GPU can be given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The whole of it, and nothing less.
    Whole,
    /// Partitions alone.
    Parted,
    /// Nothing: its MIG mode waits for a reset, or cannot be read.
    Unsettled,
}

impl Mode {
    pub(crate) fn of(gpu: &ProbedGpu) -> Self {
        if gpu.health.iter().any(|finding| finding.code == "gpu.health.mig-unknown") {
            return Self::Unsettled;
        }
        match gpu.mig.as_ref().map(|mig| (mig.enabled, mig.pending)) {
            None | Some((false, false)) => Self::Whole,
            Some((true, true)) => Self::Parted,
            Some(_) => Self::Unsettled,
        }
    }
}

/// The devices that a probed GPU is, as [`crate::publish`] names them: the whole of it, or its declared partitions. What an agent may be
/// permitted to hand out.
pub fn devices(
    key: &GpuKey,
    probed: &ProbedGpu,
    declared: &[Partitions],
) -> Vec<(String, Option<Partition>)> {
    let gpu = key.device_name();
    match Mode::of(probed) {
        Mode::Whole => vec![(gpu, None)],
        Mode::Unsettled => Vec::new(),
        Mode::Parted => {
            let profiles = probed.mig.as_ref().map(|mig| mig.profiles.as_slice()).unwrap_or_default();
            let offered = offered(profiles);
            let parts = wanted(&offered, declared)
                .map(|(profile, at)| Partition { profile: profile.id, start: at.start });
            parts.map(|part| (format!("{gpu}{}", ending(part.profile, part.start)), Some(part))).collect()
        }
    }
}

/// Whether a probed GPU is given out as what a class asks for, as [`crate::publish`] does: a part of this profile, or the whole of it.
pub fn gives(probed: &ProbedGpu, declared: &[Partitions], profile: Option<&str>) -> bool {
    match (Mode::of(probed), profile) {
        (Mode::Whole, None) => true,
        (Mode::Parted, Some(wished)) => {
            let profiles = probed.mig.as_ref().map(|mig| mig.profiles.as_slice()).unwrap_or_default();
            wanted(&offered(profiles), declared).any(|(profile, _)| profile.name == wished)
        }
        _ => false,
    }
}

/// The declared partitions at each place.
fn wanted<'a>(
    offered: &[&'a MigProfile],
    declared: &[Partitions],
) -> impl Iterator<Item = (&'a MigProfile, Placement)> {
    let is_declared =
        |profile: &MigProfile, start| declared.iter().any(|wish| wish.include(&profile.name, start));
    let places = offered.iter().flat_map(|&profile| profile.placements.iter().map(move |at| (profile, *at)));
    places.filter(move |(profile, at)| is_declared(profile, at.start))
}

/// Whether a GPU can be all of these parts at the same time.
fn fit_at_once<'a>(
    parts: impl Iterator<Item = (&'a MigProfile, Placement)>,
    total: &BTreeMap<String, u64>,
) -> bool {
    let mut taken = BTreeMap::<_, u64>::new();
    let mut instances = BTreeMap::<_, u32>::new();
    for (profile, at) in parts {
        let count = instances.entry(profile.id).or_default();
        *count += 1;
        if *count > profile.max_instances {
            return false;
        }
        for (counter, amount) in counters(profile, at) {
            let sum = taken.entry(counter).or_default();
            *sum = sum.saturating_add(amount);
        }
    }
    taken.iter().all(|(counter, amount)| total.get(counter).is_some_and(|there| amount <= there))
}

/// The profile and the first memory slice, after the GPU's name, as NVIDIA's driver names such devices.
fn ending(profile: u32, start: u32) -> String {
    format!("-mig-{profile}-{start}")
}

/// Profiles that may be put somewhere, and that a device can name.
fn offered(profiles: &[MigProfile]) -> Vec<&MigProfile> {
    let is_named = |profile: &MigProfile| !profile.name.is_empty() && attribute::fits(&profile.name);
    profiles.iter().filter(|profile| !profile.placements.is_empty() && is_named(profile)).collect()
}

/// How much of each engine a partition has: as NVIDIA's driver names the capacity and the counter, and the amount.
fn engines(profile: &MigProfile) -> [(&'static str, &'static str, u64); 7] {
    [
        ("memory", "memory", profile.memory_bytes),
        ("multiprocessors", "multiprocessors", profile.multiprocessors.into()),
        ("copyEngines", "copy-engines", profile.copy_engines.into()),
        ("decoders", "decoders", profile.decoders.into()),
        ("encoders", "encoders", profile.encoders.into()),
        ("jpegEngines", "jpeg-engines", profile.jpegs.into()),
        ("ofaEngines", "ofa-engines", profile.ofas.into()),
    ]
}

/// What a partition takes: of each engine so many, and the memory slices that it covers.
fn counters(profile: &MigProfile, placement: Placement) -> BTreeMap<String, u64> {
    let amounts = engines(profile).into_iter().map(|(_, counter, amount)| (counter.to_owned(), amount));
    let covered = placement.start..placement.start.saturating_add(placement.size);
    let slices = covered.map(|slice| (format!("memory-slice-{slice}"), 1));
    amounts.chain(slices).filter(|(_, amount)| *amount > 0).collect()
}

fn written(counters: &BTreeMap<String, u64>) -> Text {
    let mut text = Text::default();
    device::amounts_of(&mut text, counters.iter().map(|(name, amount)| (name.as_str(), *amount)));
    text
}

/// What the GPU has: of each engine as many as its largest profile, and every memory slice that a profile covers.
fn total(profiles: &[&MigProfile]) -> BTreeMap<String, u64> {
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
