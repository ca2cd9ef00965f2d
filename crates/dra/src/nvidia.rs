//! GPUs that NVIDIA's DRA driver gives out: it writes their slices, so a class of ours has to name them.
//!
//! Its devices bear neither jurisdiction nor verdict. What they bear is the UUID that NVML gives, which our probe knows too: a class
//! lists the UUIDs of the GPUs that it may give out, and the list is what opens and closes the gate (docs/decisions/0018).

use crate::device::Verdict;
use crate::input::PublishedMachine;
use crate::literal;
use domain::declaration::{GpuClassSpec, Requirement, SiteSpec};
use domain::inventory::Gpu;
use domain::probe::{ProbedGpu, Severity};
use domain::{Containment, Name};

/// NVIDIA's DRA driver.
pub const NVIDIA: &str = "gpu.nvidia.com";

/// What a device of that driver is, by its name: the GPU's minor number, and whether it is all of it. Its pool is the Node.
pub fn nvidia_device(name: &str) -> Option<(u32, bool)> {
    let name = name.strip_prefix("gpu-")?;
    let (minor, is_whole) = match name.split_once('-') {
        None => (name, true),
        Some((minor, part)) if part.starts_with("mig-") => (minor, false),
        Some(_) => return None,
    };
    Some((minor.parse().ok()?, is_whole))
}

/// A sound GPU of a machine whose GPUs that driver gives out.
pub(crate) struct Foreign<'a> {
    pub(crate) machine: &'a PublishedMachine,
    pub(crate) site: &'a SiteSpec,
    pub(crate) gpu: &'a Gpu,
    pub(crate) probed: &'a ProbedGpu,
    pub(crate) verdict: Option<Verdict>,
}

impl Foreign<'_> {
    /// Whether a class gives it out: what the selector of a class says of our own devices, of one of theirs. One that fails is given to
    /// nobody: taints do not see to that, since rules name whole GPUs alone, and only where they are served.
    fn is_of(&self, class: &GpuClassSpec, order: &Containment) -> bool {
        let is_unfit = self.probed.worst() == Some(Severity::Critical);
        let model = self.gpu.model.as_ref().or(self.probed.model.as_ref());
        let zone = self.machine.zone.as_ref().or(self.site.zone.as_ref());
        !is_unfit
            && order.contains(&class.jurisdiction, &self.site.jurisdiction)
            && (class.models.is_empty() || model.is_some_and(|model| class.models.contains(model)))
            && class.zone.as_ref().is_none_or(|wanted| zone == Some(wanted))
            && class.requires.iter().all(|requirement| match requirement {
                Requirement::Inventoried | Requirement::Probed => true,
                Requirement::Attested => self.verdict == Some(Verdict::Affirming),
            })
    }
}

/// The part of a class's selector that is about NVIDIA's devices.
pub(crate) struct Selector<'a> {
    class: &'a GpuClassSpec,
    /// UUIDs with their machines, by machine.
    gpus: Vec<(&'a Name, &'a str)>,
}

impl<'a> Selector<'a> {
    pub(crate) fn of(class: &'a GpuClassSpec, order: &Containment, all: &'a [Foreign<'a>]) -> Self {
        let of_class = all.iter().filter(|gpu| gpu.is_of(class, order));
        let mut gpus: Vec<_> =
            of_class.filter_map(|gpu| Some((&gpu.machine.name, gpu.probed.uuid.as_deref()?))).collect();
        gpus.sort_unstable();
        Self { class, gpus }
    }

    /// The expression, of at most so many bytes: `None` where it would name no GPU. With it the machines of the GPUs that it has no
    /// room for, each as often as it has some: the last ones by name, so that it is always the same ones.
    pub(crate) fn within(self, room: usize) -> (Option<String>, Vec<&'a Name>) {
        let around = self.expression(&[]).len();
        let separated = |uuid: &str| literal::string(uuid).len() + ", ".len();
        let lengths = self.gpus.iter().scan(around, |bytes, (_, uuid)| {
            *bytes += separated(uuid);
            Some(*bytes)
        });
        // After the last there is no separator.
        let fitting = lengths.take_while(|bytes| *bytes <= room + ", ".len()).count();
        let (named, left_out) = self.gpus.split_at(fitting);
        let expression = (!named.is_empty()).then(|| self.expression(named));
        (expression, left_out.iter().map(|(machine, _)| *machine).collect())
    }

    fn expression(&self, gpus: &[(&Name, &str)]) -> String {
        let guarded = |name: &str, condition: String| {
            let field = format!("device.attributes['{NVIDIA}'].{name}");
            format!("has({field}) && {field} {condition}")
        };
        let among = format!("in {}", literal::list(gpus.iter().map(|(_, uuid)| *uuid)));
        let which = match &self.class.partition {
            None => guarded("uuid", among),
            Some(profile) => {
                let profile = guarded("profile", format!("== {}", literal::string(profile)));
                format!("{profile} && {}", guarded("parentUUID", among))
            }
        };
        format!("device.driver == '{NVIDIA}' && {which}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_of_nvidias_driver_is_a_gpu_or_a_part_of_one() {
        let names =
            ["gpu-0", "gpu-12", "gpu-3-mig-1g10gb-19-0", "gpu-vfio-0", "gpu-3-other", "gpu-", "nic-0"];
        let told = [Some((0, true)), Some((12, true)), Some((3, false)), None, None, None, None];
        assert_eq!(names.map(nvidia_device), told);
    }
}
