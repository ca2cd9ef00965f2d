//! What the views of a GPU come to: its machine's BMC, and the driver on the machine.

use domain::Problem;
use domain::inventory::Gpu;
use domain::probe::{Probe, ProbedGpu};

/// What is known of a GPU that a BMC lists.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum View<'a> {
    /// Nothing but the BMC tells of it.
    Inventoried,
    /// The driver on its machine confirms it.
    Probed(&'a ProbedGpu),
    /// The two do not agree.
    Conflicting(Vec<Problem>),
}

/// Joins a GPU of the inventory with what the driver told: by UUID, else by serial number where both name one GPU by it, else
/// by PCI address.
pub(crate) fn view<'a>(gpu: &Gpu, probe: &'a Probe) -> View<'a> {
    let found = by_uuid(gpu, probe).or_else(|| by_serial(gpu, probe)).or_else(|| by_address(gpu, probe));
    found.map_or(View::Inventoried, View::Probed)
}

fn by_uuid<'a>(gpu: &Gpu, probe: &'a Probe) -> Option<&'a ProbedGpu> {
    let wanted = gpu.uuid.as_deref()?;
    let bare = |uuid: &str| uuid.to_ascii_lowercase().trim_start_matches("gpu-").to_owned();
    probe.gpus.iter().find(|probed| probed.uuid.as_deref().is_some_and(|uuid| bare(uuid) == bare(wanted)))
}

fn by_serial<'a>(gpu: &Gpu, probe: &'a Probe) -> Option<&'a ProbedGpu> {
    let wanted = gpu.serial.as_deref()?;
    let mut same = probe.gpus.iter().filter(|probed| probed.serial.as_deref() == Some(wanted));
    same.next().filter(|_| same.next().is_none())
}

fn by_address<'a>(gpu: &Gpu, probe: &'a Probe) -> Option<&'a ProbedGpu> {
    let wanted = gpu.pci_address.as_deref()?;
    let same = |address: &str| address.eq_ignore_ascii_case(wanted);
    probe.gpus.iter().find(|probed| probed.pci.address.as_deref().is_some_and(same))
}
