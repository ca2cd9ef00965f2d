//! All that is declared and known, read at one time: what the API shows and the publisher publishes.

use domain::declaration::{GpuClassSpec, MachineSpec, Requirement, SiteSpec, Zone};
use domain::inventory::Gpu;
use domain::{Containment, Declaration, Goal, Name, Problem, Spec};
use dra::{GpuKey, Input, PublishedMachine};
use std::collections::{BTreeMap, BTreeSet};
use store::{GpuRecord, MachineRecord, Store, StoreError};

/// Codes of what makes a machine's word doubtful after it was enrolled: its devices are tainted while one of them holds.
const ALARMS: [&str; 6] = [
    "bmc.pin-mismatch",
    "machine.pin-changed",
    "machine.serial-mismatch",
    "machine.mac-mismatch",
    "machine.duplicate-serial",
    "machine.duplicate-uuid",
];

/// A view of everything.
#[derive(Debug)]
pub(crate) struct World {
    pub home: Name,
    pub order: Containment,
    pub sites: BTreeMap<Name, SiteSpec>,
    pub classes: BTreeMap<Name, GpuClassSpec>,
    pub machines: BTreeMap<Name, KnownMachine>,
    doubles: BTreeSet<GpuKey>,
}

/// A declared machine with what is known of it.
#[derive(Debug)]
pub(crate) struct KnownMachine {
    pub labels: BTreeMap<String, String>,
    pub goal: Goal,
    pub spec: MachineSpec,
    pub record: MachineRecord,
    pub gpus: Vec<Gpu>,
}

impl World {
    /// Reads it.
    pub(crate) async fn read(store: &Store, home: &Name) -> Result<Self, StoreError> {
        Ok(Self::new(store.declarations().await?, store.machines().await?, store.gpus().await?, home))
    }

    fn new(
        declarations: Vec<Declaration>,
        records: Vec<MachineRecord>,
        gpus: Vec<GpuRecord>,
        home: &Name,
    ) -> Self {
        let (mut nested, mut sites, mut classes, mut specs) =
            (Vec::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut goals = BTreeMap::new();
        for Declaration { metadata, spec } in declarations {
            match spec {
                Spec::Jurisdiction(spec) => nested.push((metadata.name, spec.within)),
                Spec::Site(spec) => drop(sites.insert(metadata.name, spec)),
                Spec::GpuClass(spec) => drop(classes.insert(metadata.name, spec)),
                Spec::Machine(spec) => drop(specs.insert(metadata.name, (metadata.labels, *spec))),
                Spec::Assignment(spec) => drop(goals.insert(metadata.name, Goal::of(Some(&spec)))),
                Spec::LegalEntity(_) | Spec::BaseCluster(_) | Spec::FirmwareProfile(_) => {}
            }
        }
        let mut by_machine = BTreeMap::<Name, Vec<Gpu>>::new();
        for record in gpus {
            by_machine.entry(record.machine).or_default().push(record.gpu);
        }
        let machines = records
            .into_iter()
            .filter_map(|record| {
                let (labels, spec) = specs.remove(&record.name)?;
                let goal = goals.remove(&record.name).unwrap_or(Goal::Shelf);
                let gpus = by_machine.remove(&record.name).unwrap_or_default();
                Some((record.name.clone(), KnownMachine { labels, goal, spec, record, gpus }))
            })
            .collect();
        let mut world = Self {
            home: home.clone(),
            // What is no order was refused when it was declared; should it be here all the same, nothing is contained in anything.
            order: Containment::new(nested).unwrap_or_default(),
            sites,
            classes,
            machines,
            doubles: BTreeSet::new(),
        };
        world.doubles = world.find_doubles();
        world
    }

    /// GPUs that two enrolled machines show.
    fn find_doubles(&self) -> BTreeSet<GpuKey> {
        let mut seen = BTreeMap::<GpuKey, &Name>::new();
        let mut doubles = BTreeSet::new();
        for (name, machine) in self.enrolled() {
            for key in machine.gpus.iter().filter_map(GpuKey::of) {
                if seen.insert(key.clone(), name).is_some_and(|other| other != name) {
                    doubles.insert(key);
                }
            }
        }
        doubles
    }

    fn enrolled(&self) -> impl Iterator<Item = (&Name, &KnownMachine)> {
        self.machines.iter().filter(|(_, machine)| machine.record.state.is_enrolled())
    }

    /// Whether two machines claim this GPU.
    pub(crate) fn is_double(&self, gpu: &Gpu) -> bool {
        GpuKey::of(gpu).is_some_and(|key| self.doubles.contains(&key))
    }

    /// The site's jurisdiction. A machine of no site cannot be declared, but a reader of this must never invent one.
    pub(crate) fn jurisdiction_of(&self, machine: &KnownMachine) -> Option<&Name> {
        self.sites.get(&machine.spec.site).map(|site| &site.jurisdiction)
    }

    /// The machine's zone, or its site's.
    pub(crate) fn zone_of<'w>(&'w self, machine: &'w KnownMachine) -> Option<&'w Zone> {
        machine.spec.zone.as_ref().or_else(|| self.sites.get(&machine.spec.site)?.zone.as_ref())
    }

    /// What the publisher publishes.
    pub(crate) fn input(&self, cell: &Name, cell_user: &str) -> Input {
        let machines = self.enrolled().map(|(name, machine)| PublishedMachine {
            name: name.clone(),
            site: machine.spec.site.clone(),
            rack: machine.spec.rack.clone(),
            zone: machine.spec.zone.clone(),
            gpus: machine.gpus.clone(),
            alarms: machine.alarms(),
        });
        Input {
            home: Some(self.home.clone()),
            jurisdictions: self.order.clone(),
            sites: self.sites.clone(),
            machines: machines.collect(),
            classes: self.classes.iter().map(|(name, spec)| (name.clone(), spec.clone())).collect(),
            ..Input::new(cell.clone(), cell_user)
        }
    }

    /// Whether a GPU is of the kind that a class asks for: jurisdiction, model, zone.
    pub(crate) fn matches(&self, class: &GpuClassSpec, machine: &KnownMachine, gpu: &Gpu) -> bool {
        let territory =
            self.jurisdiction_of(machine).is_some_and(|at| self.order.contains(&class.jurisdiction, at));
        let model =
            class.models.is_empty() || gpu.model.as_ref().is_some_and(|model| class.models.contains(model));
        let zone = class.zone.as_ref().is_none_or(|zone| self.zone_of(machine) == Some(zone));
        territory && model && zone
    }

    /// Whether a claim could be given this GPU by this class today. Nothing is probed or attested yet, so only trials give any.
    pub(crate) fn allocatable(&self, class: &GpuClassSpec, machine: &KnownMachine, gpu: &Gpu) -> bool {
        self.matches(class, machine, gpu)
            // a class of parts gives no whole GPU
            && class.profile.is_none()
            && machine.record.state.is_enrolled()
            && machine.alarms().is_empty()
            && GpuKey::of(gpu).is_some()
            && !self.is_double(gpu)
            && class.requires.iter().all(|requirement| *requirement == Requirement::Inventoried)
    }
}

impl KnownMachine {
    /// What got worse since it was enrolled.
    pub(crate) fn alarms(&self) -> Vec<Problem> {
        let waiting = self.record.waiting.as_ref().map(|waiting| &waiting.problem);
        waiting.filter(|problem| ALARMS.contains(&problem.code.as_str())).cloned().into_iter().collect()
    }
}
