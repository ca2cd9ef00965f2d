//! Partitions of a GPU (Multi-Instance GPU) as devices that share its counters (KEP-4815).
//!
//! A GPU whose MIG mode is on has no whole to give out, and one whose mode is off has no partitions: never are both devices, and
//! neither while the mode changes or cannot be told. Of a parted one every declared partition at every place where it fits is a
//! device, which the agent makes when it is prepared. Each takes what it needs of the GPU's counter set, so that the scheduler gives
//! out what fits together. The names are those of NVIDIA's driver.

use crate::attribute;
use crate::device::{self, GpuKey, Place, Shared};
use crate::json::Text;
use domain::Problem;
use domain::permit::Partition;
use domain::probe::{MigProfile, Placement, ProbedGpu};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Most counters of a set (facts: dra §3).
const MAX_COUNTERS: usize = 32;

/// What a kind of GPU may be parted into: the same text for every GPU of the kind.
#[derive(Debug)]
pub(crate) struct Kind {
    /// What its counter set holds.
    pub(crate) counters: Text,
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
    UnknownProfile { declared: String, has: String },
    TooManyCounters(usize),
}

/// The kinds of GPUs met so far: a fleet has few, and many GPUs of each.
#[derive(Default)]
pub(crate) struct Kinds<'a>(Vec<(&'a [MigProfile], &'a [String], Rc<Kind>)>);

/// More are not remembered: a fleet of nothing but exceptions is not to be searched from end to end for each GPU.
const MOST_KINDS: usize = 32;

impl<'a> Kinds<'a> {
    pub(crate) fn of(&mut self, probed: &'a ProbedGpu, declared: &'a [String]) -> Rc<Kind> {
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
    fn of(profiles: &[MigProfile], declared: &[String]) -> Self {
        let offered = offered(profiles);
        let is_there = |name: &&String| *name == "*" || offered.iter().any(|profile| profile.name == **name);
        let has = || match &offered[..] {
            [] => "no profiles".to_owned(),
            _ => offered.iter().map(|profile| profile.name.as_str()).collect::<Vec<_>>().join(", "),
        };
        let unknown = declared.iter().filter(|name| !is_there(name));
        let unknown = unknown.map(|name| Trouble::UnknownProfile { declared: name.clone(), has: has() });
        let mut trouble: Vec<_> = unknown.collect();
        let total = total(&offered);
        let wanted: Vec<_> = offered.into_iter().filter(|profile| is_declared(profile, declared)).collect();
        if wanted.is_empty() || total.len() > MAX_COUNTERS {
            if !wanted.is_empty() {
                trouble.push(Trouble::TooManyCounters(total.len()));
            }
            return Self { counters: Text::default(), parts: Vec::new(), trouble };
        }
        let places =
            wanted.iter().flat_map(|profile| profile.placements.iter().map(move |at| (*profile, *at)));
        // By name, and each once.
        let parts: BTreeMap<_, _> =
            places.map(|(profile, at)| (ending(profile.id, at.start), Part::of(profile, at))).collect();
        Self { counters: written(&total), parts: parts.into_values().collect(), trouble }
    }

    /// Tells why a GPU is parted otherwise than declared.
    pub(crate) fn tell(&self, place: &Place<'_>, problems: &mut Vec<Problem>) {
        problems.extend(self.trouble.iter().map(|trouble| trouble.problem(place)));
    }
}

impl Trouble {
    fn problem(&self, place: &Place<'_>) -> Problem {
        match self {
            Self::UnknownProfile { declared, has } => {
                let message = format!("{place} is not parted into {declared}: it has no such profile");
                Problem::new("dra.partition.unknown-profile", message).difference(declared, has).hint(
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
        device::capacity(
            &mut capacity,
            [
                ("memory", profile.memory_bytes),
                ("multiprocessors", profile.multiprocessors.into()),
                ("copyEngines", profile.copy_engines.into()),
                ("decoders", profile.decoders.into()),
                ("encoders", profile.encoders.into()),
                ("jpegEngines", profile.jpegs.into()),
                ("ofaEngines", profile.ofas.into()),
            ],
        );
        let counters = written(&counters(profile, placement));
        Self { ending: ending(profile.id, placement.start), attributes, capacity, counters }
    }

    /// The device. `parent` are the attributes that tell of which GPU it is a part.
    pub(crate) fn write(&self, device: &mut Text, gpu: &str, set: &str, parent: &Text, shared: &Shared) {
        device.strings("name", &[gpu, &self.ending]);
        device.object("attributes", |attributes| {
            attributes.extend(parent);
            attributes.extend(&self.attributes);
            attributes.extend(&shared.attributes);
        });
        device.extend(&self.capacity);
        device.array("consumesCounters", |list| {
            list.item(|of| {
                of.string("counterSet", set);
                of.object("counters", |counters| counters.extend(&self.counters));
            });
        });
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
pub fn devices(key: &GpuKey, probed: &ProbedGpu, declared: &[String]) -> Vec<(String, Option<Partition>)> {
    let gpu = key.device_name();
    match Mode::of(probed) {
        Mode::Whole => vec![(gpu, None)],
        Mode::Unsettled => Vec::new(),
        Mode::Parted => {
            let profiles = probed.mig.as_ref().map(|mig| mig.profiles.as_slice()).unwrap_or_default();
            let wanted = offered(profiles).into_iter().filter(|profile| is_declared(profile, declared));
            let places = wanted.flat_map(|profile| {
                profile.placements.iter().map(|at| Partition { profile: profile.id, start: at.start })
            });
            places.map(|part| (format!("{gpu}{}", ending(part.profile, part.start)), Some(part))).collect()
        }
    }
}

fn is_declared(profile: &MigProfile, declared: &[String]) -> bool {
    declared.iter().any(|name| name == "*" || *name == profile.name)
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

/// What a partition takes: of each engine so many, and the memory slices that it covers.
fn counters(profile: &MigProfile, placement: Placement) -> BTreeMap<String, u64> {
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
