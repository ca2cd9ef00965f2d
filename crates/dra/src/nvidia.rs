//! GPUs that NVIDIA's DRA driver gives out: it writes their slices, so a class of ours has to name them.
//!
//! Its devices bear neither jurisdiction nor verdict. What they bear is the UUID that NVML gives, which our probe knows too: a class
//! lists the UUIDs of the GPUs that it may give out, and the list is what opens and closes the gate (docs/decisions/0018).

use crate::device::Verdict;
use crate::input::PublishedMachine;
use crate::literal;
use domain::Containment;
use domain::declaration::{GpuClassSpec, Requirement, SiteSpec};
use domain::inventory::Gpu;
use domain::probe::ProbedGpu;

/// NVIDIA's DRA driver.
pub(crate) const NVIDIA: &str = "gpu.nvidia.com";

/// A sound GPU of a machine whose GPUs that driver gives out.
pub(crate) struct Foreign<'a> {
    pub(crate) machine: &'a PublishedMachine,
    pub(crate) site: &'a SiteSpec,
    pub(crate) gpu: &'a Gpu,
    pub(crate) probed: &'a ProbedGpu,
    pub(crate) verdict: Option<Verdict>,
}

impl Foreign<'_> {
    /// Whether a class gives it out: what the selector of a class says of our own devices, of one of theirs.
    fn is_of(&self, class: &GpuClassSpec, order: &Containment) -> bool {
        let model = self.gpu.model.as_ref().or(self.probed.model.as_ref());
        let zone = self.machine.zone.as_ref().or(self.site.zone.as_ref());
        order.contains(&class.jurisdiction, &self.site.jurisdiction)
            && (class.models.is_empty() || model.is_some_and(|model| class.models.contains(model)))
            && class.zone.as_ref().is_none_or(|wanted| zone == Some(wanted))
            && class.requires.iter().all(|requirement| match requirement {
                Requirement::Inventoried | Requirement::Probed => true,
                Requirement::Attested => self.verdict == Some(Verdict::Affirming),
            })
    }
}

/// The part of a class's selector that is about NVIDIA's devices; `None` where there are none for it.
pub(crate) fn selector(class: &GpuClassSpec, order: &Containment, all: &[Foreign<'_>]) -> Option<String> {
    let of_class = all.iter().filter(|gpu| gpu.is_of(class, order));
    let mut uuids: Vec<_> = of_class.filter_map(|gpu| gpu.probed.uuid.as_deref()).collect();
    if uuids.is_empty() {
        return None;
    }
    uuids.sort_unstable();
    let guarded = |name: &str, condition: String| {
        let field = format!("device.attributes['{NVIDIA}'].{name}");
        format!("has({field}) && {field} {condition}")
    };
    let among = format!("in {}", literal::list(uuids));
    let which = match &class.partition {
        None => guarded("uuid", among),
        Some(profile) => {
            let profile = guarded("profile", format!("== {}", literal::string(profile)));
            format!("{profile} && {}", guarded("parentUUID", among))
        }
    };
    Some(format!("device.driver == '{NVIDIA}' && {which}"))
}
