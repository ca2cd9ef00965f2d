//! GPUs as the API shows them: those that BMCs list, in their order, then those that drivers alone show.

use super::types::{Allocation, GpuDetail, GpuItem, GpuState};
use crate::gpus::{self, is_part};
use crate::publish::Allocations;
use crate::world::{KnownMachine, World};
use domain::gpu_views::{self, ReconciledGpu};
use domain::inventory::Gpu;
use domain::{Inventory, Name, Problem};
use dra::GpuKey;
use std::borrow::Cow;
use store::MachineRecord;

/// A GPU, and what all views of it come to.
pub(super) struct KnownGpu<'w> {
    /// Sorts, and pages.
    pub key: String,
    name: &'w Name,
    machine: &'w KnownMachine,
    gpu: Cow<'w, Gpu>,
    /// `None` for a machine that is not enrolled (any more).
    reconciled: Option<&'w ReconciledGpu>,
}

/// All of them, by machine.
pub(super) fn known(world: &World) -> Vec<KnownGpu<'_>> {
    let mut all = Vec::new();
    for (name, machine) in &world.machines {
        all.extend(of_machine(world, name, machine));
    }
    all
}

fn of_machine<'w>(
    world: &'w World,
    name: &'w Name,
    machine: &'w KnownMachine,
) -> impl Iterator<Item = KnownGpu<'w>> {
    let listed = machine.gpus.iter().map(|gpu| (Cow::Borrowed(gpu), world.reconciled().find(name, gpu)));
    let unlisted = world.reconciled().unlisted(name).map(|gpu| (Cow::Owned(gpus::as_listed(gpu)), Some(gpu)));
    // Numbered within the machine, so that GPUs without identity can be paged too.
    listed.chain(unlisted).enumerate().map(move |(at, (gpu, reconciled))| KnownGpu {
        key: format!("{name}/{at:06}"),
        name,
        machine,
        gpu,
        reconciled,
    })
}

/// What the inventoried GPUs of one machine wait for, all together.
pub(super) fn awaited(
    world: &World,
    name: &Name,
    machine: &KnownMachine,
    model: Option<&Inventory>,
) -> Vec<Problem> {
    let waiting = of_machine(world, name, machine).filter(|gpu| gpu.waits(world)).count();
    let who_waits = match waiting {
        0 => return Vec::new(),
        1 => "1 GPU waits".to_owned(),
        more => format!("{more} GPUs wait"),
    };
    gpus::awaited(world, machine, model).iter().map(|awaited| awaited.problem(&who_waits)).collect()
}

impl KnownGpu<'_> {
    /// Whether people may call it so: by its device, a serial number or a UUID.
    pub(super) fn is_called(&self, text: &str) -> bool {
        let identities = self.reconciled.map(ReconciledGpu::identities).unwrap_or_default();
        let bare = text.to_ascii_lowercase();
        let bare = bare.strip_prefix("gpu-").filter(|rest| rest.len() == 36).unwrap_or(&bare);
        self.device().is_some_and(|device| device == text)
            || identities
                .iter()
                .any(|identity| identity.split_once('/').is_some_and(|(_, value)| value == bare))
    }

    fn device(&self) -> Option<String> {
        // What only the driver shows is no device.
        self.reconciled.is_none_or(|gpu| gpu.redfish.is_some()).then_some(())?;
        GpuKey::of(&self.gpu).map(|key| key.device_name())
    }

    /// How far it has come. Whoever has it, or could be given it, what keeps it out comes first.
    fn state(&self, world: &World, is_allocated: bool, is_allocatable: bool) -> GpuState {
        if GpuKey::of(&self.gpu).is_none() {
            return GpuState::Unidentified;
        }
        if world.is_double(&self.gpu) || !self.machine.alarms().is_empty() {
            return GpuState::Conflicting;
        }
        match self.reconciled.map(|gpu| gpu.state) {
            Some(gpu_views::GpuState::Conflicting) => GpuState::Conflicting,
            _ if is_allocated => GpuState::Allocated,
            Some(gpu_views::GpuState::Probed) if is_allocatable => GpuState::Allocatable,
            Some(gpu_views::GpuState::Probed) => GpuState::Probed,
            None | Some(gpu_views::GpuState::Inventoried) => GpuState::Inventoried,
        }
    }

    /// Whether only something that has not come yet keeps it from being probed.
    fn waits(&self, world: &World) -> bool {
        self.machine.record.state.is_enrolled() && self.state(world, false, false) == GpuState::Inventoried
    }

    fn waits_for(&self, world: &World, model: Option<&Inventory>) -> Vec<Problem> {
        if !self.waits(world) {
            return Vec::new();
        }
        gpus::awaited(world, self.machine, model).iter().map(|awaited| awaited.problem("waits")).collect()
    }

    /// Where its machine stands.
    pub(super) fn record(&self) -> &MachineRecord {
        &self.machine.record
    }

    /// Claims that have its device, or a partition of it.
    fn allocated_to(&self, device: Option<&str>, allocations: &Allocations) -> Vec<Allocation> {
        let Some(device) = device else { return Vec::new() };
        let ours =
            allocations.iter().filter(|((pool, of), _)| pool == self.name.as_str() && is_part(of, device));
        ours.flat_map(|(_, allocations)| allocations.iter().cloned()).collect()
    }

    /// UIDs of the claims that its device, or a partition of it, is prepared for.
    fn prepared_for(&self, device: Option<&str>) -> Vec<String> {
        let (Some(agent), Some(device)) = (&self.machine.agent, device) else { return Vec::new() };
        let prepared = agent.prepared.iter().filter(|prepared| is_part(prepared.device.as_str(), device));
        let claims: std::collections::BTreeSet<_> = prepared.map(|prepared| prepared.claim.clone()).collect();
        claims.into_iter().collect()
    }

    pub(super) fn item(&self, world: &World, allocations: &Allocations) -> GpuItem {
        let allocatable =
            world.classes.iter().filter(|(_, class)| world.allocatable(class, self.machine, &self.gpu));
        let allocatable_by: Vec<_> = allocatable.map(|(name, _)| name.to_string()).collect();
        let own = self.device();
        let allocated_to = self.allocated_to(own.as_deref(), allocations);
        let prepared_for = self.prepared_for(own.as_deref());
        let is_allocated = !allocated_to.is_empty() || !prepared_for.is_empty();
        let nvml = self.reconciled.and_then(|gpu| gpu.nvml.as_ref());
        GpuItem {
            machine: self.name.clone(),
            site: self.machine.spec.site.clone(),
            jurisdiction: world.jurisdiction_of(self.machine).unwrap_or(&world.home).clone(),
            state: self.state(world, is_allocated, !allocatable_by.is_empty()),
            gpu: (*self.gpu).clone(),
            nvml_uuid: nvml.and_then(|nvml| nvml.uuid.clone()),
            pci_address: nvml
                .and_then(|nvml| nvml.pci.address.clone())
                .or_else(|| self.gpu.pci_address.clone()),
            health: nvml.map(|nvml| nvml.health.clone()),
            conflicts: self.reconciled.map(gpus::problems).unwrap_or_default(),
            waits_for: self.waits_for(world, self.machine.model.as_deref()),
            allocated_to,
            prepared_for,
            allocatable_by,
            device: own.filter(|_| !world.is_double(&self.gpu)),
        }
    }

    /// The same with each view; what it waits for by its machine's model too.
    pub(super) fn detail(
        &self,
        world: &World,
        allocations: &Allocations,
        model: Option<&Inventory>,
    ) -> GpuDetail {
        let agent = self.machine.agent.as_ref();
        let probe = agent.and_then(|agent| agent.probe.as_ref());
        let item = GpuItem { waits_for: self.waits_for(world, model), ..self.item(world, allocations) };
        let scrubs = agent.into_iter().flat_map(|agent| &agent.scrubs);
        GpuDetail {
            scrubs: scrubs.filter(|scrub| item.nvml_uuid.as_ref() == Some(&scrub.gpu)).cloned().collect(),
            item,
            redfish: self.reconciled.map_or_else(|| Some((*self.gpu).clone()), |gpu| gpu.redfish.clone()),
            spdm: self.reconciled.and_then(|gpu| gpu.spdm.clone()),
            nvml: self.reconciled.and_then(|gpu| gpu.nvml.clone()),
            probed_at: probe.map(|probe| probe.at),
        }
    }
}
