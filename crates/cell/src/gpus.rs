//! Every GPU as all views of it show it: reconciled once for a view of the world, when somebody asks.

use crate::error::coded;
use crate::world::{KnownMachine, World};
use domain::firmware::{FirmwareProfileSpec, GpuViews};
use domain::gpu_views::{
    Accepted, AcceptedGpu, Conflict, Gap, GpuState, MachineViews, ReconciledGpu, SpdmGpu, View, certificates,
    reconcile,
};
use domain::inventory::{Gpu, Inventory};
use domain::probe::{ProbedGpu, Severity};
use domain::{MachineState, Name, Problem};
use dra::GpuKey;
use std::collections::BTreeMap;

/// The GPUs of all enrolled machines.
#[derive(Debug, Default)]
pub(crate) struct Reconciled(BTreeMap<Name, Vec<ReconciledGpu>>);

impl Reconciled {
    /// Holds all views against each other.
    pub(crate) fn of(world: &World) -> Self {
        Self::with(world, &world.accepted)
    }

    /// The same, with regard to these accepted places.
    fn with(world: &World, accepted: &Accepted) -> Self {
        let shown: BTreeMap<&Name, Vec<SpdmGpu>> = world.enrolled().filter_map(shown).collect();
        let views: Vec<_> = world
            .enrolled()
            .map(|(name, machine)| views(world, name, machine, shown.get(name).map(Vec::as_slice)))
            .collect();
        let mut by_machine = BTreeMap::<Name, Vec<ReconciledGpu>>::new();
        for gpu in reconcile(&views, accepted) {
            by_machine.entry(gpu.machine.clone()).or_default().push(gpu);
        }
        Self(by_machine)
    }

    /// Those of one machine.
    pub(crate) fn of_machine(&self, machine: &Name) -> &[ReconciledGpu] {
        self.0.get(machine).map_or(&[], Vec::as_slice)
    }

    /// What a GPU that a BMC lists comes to.
    pub(crate) fn find(&self, machine: &Name, gpu: &Gpu) -> Option<&ReconciledGpu> {
        self.of_machine(machine).iter().find(|reconciled| reconciled.redfish.as_ref() == Some(gpu))
    }

    /// Why nobody may keep a device of a machine, if so.
    pub(crate) fn closed(&self, machine: &Name, device: &str) -> Option<Closed> {
        let is_its = |gpu: &&ReconciledGpu| {
            let key = gpu.redfish.as_ref().and_then(GpuKey::of);
            key.is_some_and(|key| is_part(device, &key.device_name()))
        };
        self.of_machine(machine).iter().find(is_its).and_then(Closed::of)
    }

    /// The same of a GPU of this minor number, as its driver shows it.
    pub(crate) fn closed_at(&self, machine: &Name, minor: u32) -> Option<Closed> {
        let is_it = |gpu: &&ReconciledGpu| gpu.nvml.as_ref().is_some_and(|nvml| nvml.minor == Some(minor));
        self.of_machine(machine).iter().find(is_it).and_then(Closed::of)
    }

    /// Those of one machine that its driver shows and its BMC does not list.
    pub(crate) fn unlisted(&self, machine: &Name) -> impl Iterator<Item = &ReconciledGpu> {
        let of_driver = |gpu: &&ReconciledGpu| gpu.redfish.is_none() && gpu.nvml.is_some();
        self.of_machine(machine).iter().filter(of_driver)
    }
}

/// GPUs of a machine in service on which all views agree, and of which nobody has written down yet that they are there.
pub(crate) fn newly_seen(world: &World, machine: &Name) -> Vec<AcceptedGpu> {
    let in_service = |known: &KnownMachine| known.record.state == MachineState::InService;
    if !world.machines.get(machine).is_some_and(in_service) {
        return Vec::new();
    }
    world.reconciled().of_machine(machine).iter().filter_map(|gpu| world.accepted.news(gpu)).collect()
}

/// What would hold of a machine once somebody accepted the GPUs that it shows.
pub(crate) fn acceptable(world: &World, machine: &Name) -> Vec<AcceptedGpu> {
    let shown = Reconciled::with(world, &Accepted::new());
    world.accepted.renewed(machine, shown.of_machine(machine))
}

/// The certificates of a machine's GPUs; none where its inventory was not looked at.
fn shown<'w>((name, machine): (&'w Name, &'w KnownMachine)) -> Option<(&'w Name, Vec<SpdmGpu>)> {
    let model = machine.model.as_ref()?;
    Some((name, certificates(&model.component_integrity, &machine.gpus)))
}

/// The views of one machine.
fn views<'w>(
    world: &'w World,
    name: &'w Name,
    machine: &'w KnownMachine,
    spdm: Option<&'w [SpdmGpu]>,
) -> MachineViews<'w> {
    MachineViews {
        machine: name,
        given: machine.model.as_deref().and_then(|model| given(&world.profiles, model).ok()),
        redfish: Some(&machine.gpus),
        spdm,
        nvml: driver(machine),
    }
}

/// What the driver shows. A host without a driver has told nothing of its GPUs.
fn driver(machine: &KnownMachine) -> Option<&[ProbedGpu]> {
    machine.probe().filter(|probe| probe.driver.is_some()).map(|probe| probe.gpus.as_slice())
}

/// Which views the machine's model gives, where one profile alone says so; else who would have to.
fn given(profiles: &[(Name, FirmwareProfileSpec)], model: &Inventory) -> Result<GpuViews, String> {
    let matching: Vec<_> = profiles.iter().filter(|(_, profile)| profile.matches.fits(model)).collect();
    match matching.as_slice() {
        [(name, only)] => only.gpu_views.ok_or_else(|| format!("FirmwareProfile/{name} does not")),
        [] => Err("no firmware profile fits it".to_owned()),
        several => {
            let names: Vec<_> = several.iter().map(|(name, _)| name.as_str()).collect();
            Err(format!("several firmware profiles fit it: {}", names.join(", ")))
        }
    }
}

/// What GPUs wait for that stay inventoried.
#[derive(Debug)]
pub(crate) struct Awaited {
    code: &'static str,
    what: String,
}

impl Awaited {
    /// The same as a problem of whoever waits.
    pub(crate) fn problem(&self, who_waits: &str) -> Problem {
        coded(self.code, format!("{who_waits} for {}", self.what))
    }
}

/// What the GPUs of a machine wait for on which no views contradict each other. Where its model was not read, what a profile would
/// say of it is left out.
pub(crate) fn awaited(world: &World, machine: &KnownMachine, model: Option<&Inventory>) -> Vec<Awaited> {
    let given = model.map(|model| given(&world.profiles, model));
    let views = MachineViews {
        machine: &machine.record.name,
        given: given.as_ref().and_then(|given| given.as_ref().ok()).copied(),
        redfish: Some(&machine.gpus),
        spdm: model.map(|_| <&[SpdmGpu]>::default()),
        nvml: driver(machine),
    };
    let gaps = views.gaps().into_iter().filter_map(|gap| {
        Some(match gap {
            Gap::Undeclared => {
                let why = given.as_ref()?.as_ref().err()?;
                let what =
                    format!("a firmware profile that says which views its model gives (gpuViews): {why}");
                Awaited { code: "gpu.waits.profile", what }
            }
            Gap::NotAsked { view: View::Nvml } => {
                let what = format!("the driver's view (nvml): {}", silence(machine));
                Awaited { code: "gpu.waits.driver", what }
            }
            Gap::NotAsked { view } => Awaited {
                code: "gpu.waits.bmc",
                what: format!("the {} view: its BMC was not read", view.as_str()),
            },
            Gap::NeverGiven => {
                let what =
                    "a second view, which its firmware profile says that the model never gives (gpuViews)";
                Awaited { code: "gpu.waits.never", what: what.to_owned() }
            }
        })
    });
    gaps.collect()
}

/// Why the driver of a machine was not heard.
fn silence(machine: &KnownMachine) -> String {
    match &machine.agent {
        None => "no agent has reported, for none is enrolled".to_owned(),
        Some(agent) => match (agent.reported_at, agent.alive, &agent.probe) {
            (None, ..) => "its agent is enrolled and has not reported".to_owned(),
            (Some(at), false, _) => format!("its agent is silent, and reported last at {at:.0}"),
            (Some(_), true, None) => "its agent reports and has not probed the host yet".to_owned(),
            (Some(_), true, Some(_)) => "its agent found no NVIDIA driver on the host".to_owned(),
        },
    }
}

/// The driver's view of a GPU on which all views agree.
pub(crate) fn confirmed(gpu: &ReconciledGpu) -> Option<&ProbedGpu> {
    gpu.nvml.as_ref().filter(|_| gpu.state == GpuState::Probed)
}

/// Whether a GPU in this health is tainted, so that nobody new is given it.
pub(crate) fn is_tainted(gpu: &ProbedGpu) -> bool {
    matches!(gpu.worst(), Some(Severity::Critical | Severity::Warning))
}

/// Whether nobody may be given a GPU in this health.
pub(crate) fn is_unfit(gpu: &ProbedGpu) -> bool {
    gpu.worst() == Some(Severity::Critical)
}

/// Why nobody may keep a GPU.
#[derive(Debug)]
pub(crate) enum Closed {
    /// Its driver says that something is wrong with it.
    Unfit(String),
    /// It is not the GPU that it was taken for: kept out, so it is not published any more.
    Contradicted(&'static str),
}

impl Closed {
    /// The code of the reason.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Unfit(code) => code,
            Self::Contradicted(code) => code,
        }
    }

    fn of(gpu: &ReconciledGpu) -> Option<Self> {
        if let Some(conflict) = gpu.conflicts.iter().find(|conflict| contradicts(conflict)) {
            return Some(Self::Contradicted(conflict.code()));
        }
        let unfit = confirmed(gpu).filter(|probed| is_unfit(probed))?;
        unfit.health.iter().min().map(|worst| Self::Unfit(worst.code.clone()))
    }
}

/// Whether a conflict says that it is another GPU than it was taken for. A view that is not there, or says too little, may be that of a
/// BMC or a driver that is just starting: that keeps new users out, and costs no running pod.
fn contradicts(conflict: &Conflict) -> bool {
    match conflict {
        Conflict::Missing { .. }
        | Conflict::Unexpected { .. }
        | Conflict::Unidentified { .. }
        | Conflict::Unreadable { .. } => false,
        Conflict::Repeated { .. }
        | Conflict::SerialDiffers { .. }
        | Conflict::UuidDiffers { .. }
        | Conflict::AddressDiffers { .. }
        | Conflict::ModelDiffers { .. }
        | Conflict::PathDiffers { .. }
        | Conflict::Moved { .. }
        | Conflict::Changed { .. }
        | Conflict::Replaced { .. } => true,
    }
}

/// Whether a device of this name is the GPU's device, or a partition of it.
pub(crate) fn is_part(name: &str, device: &str) -> bool {
    name.strip_prefix(device).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Where its views contradict, as people read it.
pub(crate) fn problems(gpu: &ReconciledGpu) -> Vec<Problem> {
    let device = gpu.redfish.as_ref().and_then(GpuKey::of).map(|key| key.to_string());
    let identity = device.or_else(|| gpu.identities().into_iter().next_back());
    let identity = identity.unwrap_or_else(|| "a GPU without identity".to_owned());
    let at = format!("Machine/{} gpus/{identity}", gpu.machine);
    gpu.conflicts.iter().map(|conflict| conflict.problem(&at)).collect()
}

/// A GPU that the driver alone shows, in the words of an inventory.
pub(crate) fn as_listed(gpu: &ReconciledGpu) -> Gpu {
    let Some(nvml) = &gpu.nvml else { return gpu.redfish.clone().unwrap_or_default() };
    Gpu {
        model: nvml.model.clone(),
        manufacturer: None,
        serial: nvml.serial.clone(),
        uuid: nvml.uuid.clone(),
        part_number: nvml.part_number.clone(),
        firmware_version: nvml.vbios.clone(),
        pci_address: nvml.pci.address.clone(),
        location: None,
        sources: vec![format!("nvml/{}", nvml.uuid.as_deref().unwrap_or_default())],
    }
}
