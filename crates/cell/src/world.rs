//! All that is declared and known, read at one time: what the API shows and the publisher publishes.

use crate::gpus::{self, Reconciled};
use domain::base_cluster::GpuDriver;
use domain::declaration::{GpuClassSpec, MachineSpec, Requirement, SiteSpec, Zone};
use domain::firmware::FirmwareProfileSpec;
use domain::gpu_views::{Accepted, AcceptedGpu, GpuState};
use domain::inventory::Gpu;
use domain::inventory::Inventory;
use domain::probe::Probe;
use domain::{Containment, Declaration, Goal, Name, Problem, Spec};
use dra::{GpuKey, Input, PublishedMachine};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use store::{AgentRecord, GpuRecord, MachineRecord, Store, StoreError};
use tokio::sync::Mutex;

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
    gpu_drivers: BTreeMap<Name, GpuDriver>,
    pub profiles: Vec<(Name, FirmwareProfileSpec)>,
    /// Where GPUs were accepted.
    pub accepted: Accepted,
    reconciled: OnceLock<Reconciled>,
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
    pub agent: Option<AgentRecord>,
    /// Who made it, what it is called, and its parts' certificates; read of machines whose agent reports.
    pub model: Option<Arc<Inventory>>,
}

impl World {
    /// Reads it.
    pub(crate) async fn read(store: &Store, home: &Name) -> Result<Self, StoreError> {
        let (declarations, machines) = (store.declarations().await?, store.machines().await?);
        let (gpus, agents) = (store.gpus().await?, store.agents().await?);
        let accepted = store.accepted_gpus().await?;
        let reporting: BTreeSet<_> =
            agents.iter().filter(|agent| agent.alive).map(|agent| &agent.machine).collect();
        let mut models = BTreeMap::new();
        for machine in machines.iter().filter(|machine| reporting.contains(&machine.name)) {
            if let Some(model) = store.model(machine).await? {
                models.insert(machine.name.clone(), model);
            }
        }
        Ok(Self::new(declarations, machines, gpus, agents, models, accepted, home))
    }

    fn new(
        declarations: Vec<Declaration>,
        records: Vec<MachineRecord>,
        gpus: Vec<GpuRecord>,
        agents: Vec<AgentRecord>,
        mut models: BTreeMap<Name, Arc<Inventory>>,
        accepted: Vec<AcceptedGpu>,
        home: &Name,
    ) -> Self {
        let mut agents: BTreeMap<_, _> =
            agents.into_iter().map(|agent| (agent.machine.clone(), agent)).collect();
        let (mut nested, mut sites, mut classes, mut specs) =
            (Vec::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (mut goals, mut profiles, mut gpu_drivers) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        for Declaration { metadata, spec } in declarations {
            match spec {
                Spec::Jurisdiction(spec) => nested.push((metadata.name, spec.within)),
                Spec::Site(spec) => drop(sites.insert(metadata.name, spec)),
                Spec::GpuClass(spec) => drop(classes.insert(metadata.name, spec)),
                Spec::Machine(spec) => drop(specs.insert(metadata.name, (metadata.labels, *spec))),
                Spec::Assignment(spec) => drop(goals.insert(metadata.name, Goal::of(Some(&spec)))),
                Spec::BaseCluster(spec) => drop(gpu_drivers.insert(metadata.name, spec.gpu_driver)),
                Spec::FirmwareProfile(spec) => profiles.push((metadata.name, *spec)),
                Spec::LegalEntity(_) => {}
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
                let agent = agents.remove(&record.name);
                let model = models.remove(&record.name);
                Some((record.name.clone(), KnownMachine { labels, goal, spec, record, gpus, agent, model }))
            })
            .collect();
        let mut world = Self {
            home: home.clone(),
            // What is no order was refused when it was declared; should it be here all the same, nothing is contained in anything.
            order: Containment::new(nested).unwrap_or_default(),
            sites,
            classes,
            machines,
            gpu_drivers,
            profiles,
            accepted: accepted.into_iter().collect(),
            reconciled: OnceLock::new(),
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

    pub(crate) fn enrolled(&self) -> impl Iterator<Item = (&Name, &KnownMachine)> {
        self.machines.iter().filter(|(_, machine)| machine.record.state.is_enrolled())
    }

    /// Whether two machines claim this GPU.
    pub(crate) fn is_double(&self, gpu: &Gpu) -> bool {
        GpuKey::of(gpu).is_some_and(|key| self.doubles.contains(&key))
    }

    /// What all that is known of the GPUs comes to.
    pub(crate) fn reconciled(&self) -> &Reconciled {
        self.reconciled.get_or_init(|| Reconciled::of(self))
    }

    /// The site's jurisdiction. A machine of no site cannot be declared, but a reader of this must never invent one.
    pub(crate) fn jurisdiction_of(&self, machine: &KnownMachine) -> Option<&Name> {
        self.sites.get(&machine.spec.site).map(|site| &site.jurisdiction)
    }

    /// The machine's zone, or its site's.
    pub(crate) fn zone_of<'w>(&'w self, machine: &'w KnownMachine) -> Option<&'w Zone> {
        machine.spec.zone.as_ref().or_else(|| self.sites.get(&machine.spec.site)?.zone.as_ref())
    }

    /// Whose DRA driver gives the GPUs of a machine out: that is its base cluster's to say.
    pub(crate) fn gpu_driver_of(&self, machine: &KnownMachine) -> GpuDriver {
        let node_of = machine.record.instance.as_ref().map(|instance| &instance.base_cluster);
        node_of.and_then(|cluster| self.gpu_drivers.get(cluster)).copied().unwrap_or_default()
    }

    /// Whether devices of a machine are published by our driver at all: the rule of [`dra::publish`].
    pub(crate) fn publishes(&self, machine: &KnownMachine) -> bool {
        let stands_here = self.jurisdiction_of(machine).is_some_and(|jurisdiction| {
            self.order.knows(jurisdiction) && self.order.contains(&self.home, jurisdiction)
        });
        stands_here && self.gpu_driver_of(machine) == GpuDriver::Bailiwick
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
            driver: machine.probe().and_then(|probe| probe.driver.clone()),
            gpu_driver: self.gpu_driver_of(machine),
            partitions: machine.spec.partitions.clone(),
        });
        let (mut probed, mut conflicts) = (BTreeMap::new(), BTreeSet::new());
        for (name, _) in self.enrolled() {
            for reconciled in self.reconciled().of_machine(name) {
                let Some(gpu) = &reconciled.redfish else { continue };
                let Some(key) = GpuKey::of(gpu) else { continue };
                match reconciled.state {
                    GpuState::Probed => {
                        probed.extend(gpus::confirmed(reconciled).map(|gpu| (key, gpu.clone())));
                    }
                    // Those that two machines show are found by `publish` itself.
                    GpuState::Conflicting if !self.is_double(gpu) => drop(conflicts.insert(key)),
                    GpuState::Conflicting | GpuState::Inventoried => {}
                }
            }
        }
        Input {
            probed,
            conflicts,
            home: Some(self.home.clone()),
            jurisdictions: self.order.clone(),
            sites: self.sites.clone(),
            machines: machines.collect(),
            classes: self.classes.iter().map(|(name, spec)| (name.clone(), spec.clone())).collect(),
            ..Input::new(cell.clone(), cell_user)
        }
    }

    /// Whether a GPU is of the kind that a class asks for: jurisdiction, model, zone, and parts of a size that may be made of it.
    pub(crate) fn matches(&self, class: &GpuClassSpec, machine: &KnownMachine, gpu: &Gpu) -> bool {
        let territory =
            self.jurisdiction_of(machine).is_some_and(|at| self.order.contains(&class.jurisdiction, at));
        let model =
            class.models.is_empty() || gpu.model.as_ref().is_some_and(|model| class.models.contains(model));
        let zone = class.zone.as_ref().is_none_or(|zone| self.zone_of(machine) == Some(zone));
        let parts = |profile: &String| machine.spec.partitions.iter().any(|parts| parts.may_be(profile));
        territory && model && zone && class.partition.as_ref().is_none_or(parts)
    }

    /// Whether it is published as what a class gives, as far as its views go: nothing contradicts, it is in health, and its MIG mode
    /// allows it.
    fn is_offered(&self, class: &GpuClassSpec, machine: &KnownMachine, gpu: &Gpu) -> bool {
        // Parts are made of what a probe has told.
        let untold = class.partition.is_none();
        let Some(reconciled) = self.reconciled().find(&machine.record.name, gpu) else { return untold };
        let offered = || match gpus::confirmed(reconciled) {
            Some(probed) => {
                !gpus::is_tainted(probed)
                    && dra::gives(probed, &machine.spec.partitions, class.partition.as_deref())
            }
            None => untold,
        };
        reconciled.state != GpuState::Conflicting && offered()
    }

    /// Whether a claim could be given this GPU by this class today. Nothing is attested yet, so no class that requires that gives any.
    pub(crate) fn allocatable(&self, class: &GpuClassSpec, machine: &KnownMachine, gpu: &Gpu) -> bool {
        self.matches(class, machine, gpu)
            && machine.record.state.is_enrolled()
            && machine.alarms().is_empty()
            && GpuKey::of(gpu).is_some()
            && !self.is_double(gpu)
            && self.is_offered(class, machine, gpu)
            && class.requires.iter().all(|requirement| match requirement {
                Requirement::Inventoried => true,
                Requirement::Probed => {
                    let reconciled = self.reconciled().find(&machine.record.name, gpu);
                    reconciled.is_some_and(|reconciled| reconciled.state == GpuState::Probed)
                }
                Requirement::Attested => false,
            })
    }
}

impl KnownMachine {
    /// What the driver told last, as long as the agent reports.
    pub(crate) fn probe(&self) -> Option<&Arc<Probe>> {
        let agent = self.agent.as_ref().filter(|agent| agent.alive)?;
        agent.probe.as_ref().map(|record| &record.probe)
    }

    /// What got worse since it was enrolled.
    pub(crate) fn alarms(&self) -> Vec<Problem> {
        let waiting = self.record.waiting.as_ref().map(|waiting| &waiting.problem);
        waiting.filter(|problem| ALARMS.contains(&problem.code.as_str())).cloned().into_iter().collect()
    }
}

/// Views of everything for those who look often: one is read anew when something has happened since, and never so often that
/// reading takes more than a fifth of the time.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    store: Store,
    home: Name,
    current: Arc<Mutex<Option<Snapshot>>>,
}

#[derive(Debug)]
struct Snapshot {
    world: Arc<World>,
    /// The newest event that it knows of.
    through: i64,
    read: Instant,
    took: Duration,
}

/// A view is never older than this although something has happened since.
const OLDEST: Duration = Duration::from_secs(3);

impl Snapshots {
    pub(crate) fn new(store: Store, home: Name) -> Self {
        Self { store, home, current: Arc::default() }
    }

    /// A view.
    pub(crate) async fn get(&self) -> Result<Arc<World>, StoreError> {
        let mut current = self.current.lock().await;
        let last = self.store.last_event().await?;
        if let Some(snapshot) = &*current {
            let rest = (snapshot.took * 4).min(OLDEST);
            if snapshot.through == last || snapshot.read.elapsed() < rest {
                return Ok(Arc::clone(&snapshot.world));
            }
        }
        let began = Instant::now();
        let world = Arc::new(World::read(&self.store, &self.home).await?);
        let read = Instant::now();
        *current = Some(Snapshot { world: Arc::clone(&world), through: last, read, took: read - began });
        Ok(world)
    }
}
