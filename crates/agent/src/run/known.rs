//! What the agent knows of its host's devices: the last probe and the permits it holds. The plugin's gate.

use super::access::DeviceRoot;
use super::scrub::ScrubMode;
use crate::cell::Gate as Permits;
use domain::permit::{Permit, PermitError};
use domain::probe::{MigInstance, Probe, ProbedGpu, Severity};
use dra::plugin::wire::HealthStatus;
use dra::plugin::{Gate, Health, Made, Parts, Permitted, PermittedDevice, Placed, Refusal};
use futures_util::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What was seen of the host.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    pub(super) probe: Arc<Probe>,
    /// Names of the CDI devices that NVIDIA's tool has described.
    pub(super) described: BTreeSet<String>,
}

/// The last probe and permits.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) sight: watch::Receiver<Option<Sight>>,
    pub(super) permits: Permits,
    pub(super) devices: DeviceRoot,
    pub(super) scrub: ScrubMode,
}

impl Known {
    fn permitted(&self, pool: &str, device: &str) -> Result<Permit, Refusal> {
        let none = || PermitError::None { device: device.to_owned() };
        let held = self.permits.permits().ok_or_else(none)?;
        if held.permits().machine.as_str() != pool {
            return Err(Refusal::DeviceUnknown { pool: pool.to_owned(), device: device.to_owned() });
        }
        Ok(self.permits.permit(device)?)
    }

    /// The health of every device that the cell has named, however long its permit lasts.
    pub(super) fn health(&self, timeout: Duration) -> Vec<Health> {
        let (held, sight) = (self.permits.permits(), self.sight.borrow());
        let (Some(held), Some(sight)) = (held, sight.as_ref()) else { return Vec::new() };
        let health = |permit: &Permit| {
            let (status, message) = judged(&sight.probe, permit);
            Health {
                pool: held.permits().machine.to_string(),
                device: permit.device.to_string(),
                status,
                taken: sight.probe.taken.into(),
                timeout,
                message,
            }
        };
        held.permits().permits.iter().map(health).collect()
    }
}

impl Gate for Known {
    fn permit(&self, pool: &str, device: &str) -> Result<PermittedDevice, Refusal> {
        let permit = self.permitted(pool, device)?;
        let closed = |reason: String| Refusal::GateClosed { device: device.to_owned(), reason };
        let sight = self.sight.borrow();
        let sight = sight.as_ref().ok_or_else(|| closed("the GPUs have not been probed yet".to_owned()))?;
        let gpu = sight.probe.gpu(&permit.gpu);
        let gpu = gpu.ok_or_else(|| closed(format!("the driver does not show {}", permit.gpu)))?;
        // Worst first: a notice is for people to know, and forbids nothing.
        if let Some(finding) = gpu.health.iter().find(|finding| finding.severity < Severity::Notice) {
            return Err(closed(format!("{}: {}", finding.code, finding.message)));
        }
        let instance = instance(gpu, &permit).map_err(closed)?;
        if instance.is_some() && self.scrub != ScrubMode::Never {
            return Err(closed("a part of a GPU cannot be scrubbed; see --scrub".to_owned()));
        }
        let access = self.devices.access(gpu, instance, &sight.described).map_err(closed)?;
        let extent = match instance {
            None => Permitted::Whole(access),
            Some(instance) => Permitted::Part(placed(instance).map_err(closed)?),
        };
        Ok(PermittedDevice { gpu: gpu.uuid.clone().unwrap_or_default(), extent })
    }
}

impl Parts for Known {
    fn make<'a>(
        &'a self,
        gpu: &'a str,
        part: Placed,
        _: &'a [Placed],
    ) -> BoxFuture<'a, Result<Made, String>> {
        Box::pin(async move { self.find(gpu, part) })
    }
}

impl Known {
    /// The MIG instance that is there.
    fn find(&self, gpu: &str, part: Placed) -> Result<Made, String> {
        let sight = self.sight.borrow();
        let sight = sight.as_ref().ok_or("the GPUs have not been probed yet")?;
        let gpu = sight.probe.gpu(gpu).ok_or_else(|| format!("the driver does not show {gpu}"))?;
        let mut instances = gpu.mig.iter().flat_map(|mig| &mig.instances);
        let instance = instances.find(|instance| placed(instance).is_ok_and(|placed| placed == part));
        let instance = instance.ok_or("there is no such MIG instance")?;
        let uuid = instance.uuid.clone().ok_or("the driver does not tell the UUID of its MIG instance")?;
        Ok(Made { uuid, access: self.devices.access(gpu, Some(instance), &sight.described)? })
    }
}

/// The instance that a permit for a part of a GPU means; `None` for all of it.
fn instance<'a>(gpu: &'a ProbedGpu, permit: &Permit) -> Result<Option<&'a MigInstance>, String> {
    let mig = gpu.mig.as_ref();
    let Some(wanted) = permit.partition else {
        return match mig {
            Some(mig) if mig.enabled => Err("it is parted: MIG mode is on".to_owned()),
            _ => Ok(None),
        };
    };
    let instances = mig.into_iter().flat_map(|mig| &mig.instances);
    let mut fitting = instances.filter(|instance| {
        instance.profile == Some(wanted.profile)
            && instance.placement.is_some_and(|placement| placement.start == wanted.start)
    });
    let missing =
        || format!("there is no MIG instance of profile {} at slice {}", wanted.profile, wanted.start);
    fitting.next().map(Some).ok_or_else(missing)
}

fn placed(instance: &MigInstance) -> Result<Placed, String> {
    let (Some(profile), Some(placement)) = (instance.profile, instance.placement) else {
        return Err("the driver does not tell the profile and place of its MIG instance".to_owned());
    };
    Ok(Placed { profile, start: placement.start, size: placement.size })
}

fn judged(probe: &Probe, permit: &Permit) -> (HealthStatus, String) {
    if probe.driver.is_none() {
        return (HealthStatus::Unknown, "the driver does not answer".to_owned());
    }
    let Some(gpu) = probe.gpu(&permit.gpu) else {
        return (HealthStatus::Unhealthy, format!("the driver does not show {}", permit.gpu));
    };
    let wrong = gpu.health.iter().filter(|finding| finding.severity < Severity::Notice);
    let wrong: Vec<_> = wrong.map(|finding| format!("{}: {}", finding.code, finding.message)).collect();
    let status = if wrong.is_empty() { HealthStatus::Healthy } else { HealthStatus::Unhealthy };
    (status, wrong.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::uptime;
    use domain::Name;
    use domain::permit::{HeldPermits, Permits as Document};
    use domain::probe::{Driver, Finding, Host, Mig, Placement};
    use jiff::Timestamp;
    use std::path::PathBuf;

    const GPU: &str = "GPU-00000000-0000-0000-0000-000000000001";

    fn gpu() -> ProbedGpu {
        ProbedGpu { uuid: Some(GPU.to_owned()), minor: Some(0), ..ProbedGpu::default() }
    }

    fn known(gpus: Vec<ProbedGpu>, partition: Option<domain::permit::Partition>) -> Known {
        let now = Timestamp::now();
        let permit = Permit {
            device: Name::new("gpu-1").unwrap(),
            gpu: GPU.to_owned(),
            partition,
            verdict: None,
            valid_until: now + Duration::from_mins(5),
        };
        let permits = Document { machine: Name::new("m1").unwrap(), issued: now, permits: vec![permit] };
        let probe = Probe {
            taken: now,
            boot_id: None,
            host: Host::default(),
            driver: Some(Driver::default()),
            confidential_computing: None,
            gpus,
            diagnostics: Vec::new(),
        };
        let described = BTreeSet::from([GPU.to_owned(), "MIG-1".to_owned()]);
        Known {
            sight: watch::channel(Some(Sight { probe: Arc::new(probe), described })).1,
            permits: Permits::new(watch::channel(Some(Arc::new(HeldPermits::new(permits, uptime())))).1),
            devices: DeviceRoot { runtime: PathBuf::from("/dev"), own: PathBuf::from("/nonexistent") },
            scrub: ScrubMode::Never,
        }
    }

    fn refused(known: &Known) -> String {
        known.permit("m1", "gpu-1").unwrap_err().told()
    }

    #[test]
    fn a_permitted_healthy_gpu_is_handed_out() {
        let permitted = known(vec![gpu()], None).permit("m1", "gpu-1").unwrap();
        assert_eq!(permitted.gpu, GPU);
        assert!(matches!(permitted.extent, Permitted::Whole(_)));
    }

    #[test]
    fn other_devices_and_pools_are_not() {
        let known = known(vec![gpu()], None);
        assert_eq!(known.permit("m1", "gpu-2").unwrap_err().code(), "permit.none");
        assert_eq!(known.permit("m2", "gpu-1").unwrap_err().code(), "plugin.device.unknown");
    }

    #[test]
    fn a_gpu_that_is_gone_or_ill_is_refused_and_its_health_says_why() {
        let gone = known(Vec::new(), None);
        assert!(refused(&gone).contains("the driver does not show"), "{}", refused(&gone));
        assert_eq!(gone.health(Duration::ZERO)[0].status, HealthStatus::Unhealthy);
        let finding =
            |severity| Finding { severity, code: "gpu.health.x".to_owned(), message: "it is ill".to_owned() };
        for (severity, healthy) in
            [(Severity::Critical, false), (Severity::Warning, false), (Severity::Notice, true)]
        {
            let known = known(vec![ProbedGpu { health: vec![finding(severity)], ..gpu() }], None);
            assert_eq!(known.permit("m1", "gpu-1").is_ok(), healthy);
            let health = known.health(Duration::ZERO).remove(0);
            assert_eq!(health.status == HealthStatus::Healthy, healthy);
            assert_eq!(health.message.contains("gpu.health.x: it is ill"), !healthy);
        }
    }

    #[test]
    fn a_part_is_handed_out_where_it_is_and_all_of_a_parted_gpu_never() {
        let instance = MigInstance {
            uuid: Some("MIG-1".to_owned()),
            profile: Some(19),
            placement: Some(Placement { start: 2, size: 1 }),
            ..MigInstance::default()
        };
        let mig = Mig { enabled: true, instances: vec![instance], ..Mig::default() };
        let parted = ProbedGpu { mig: Some(mig), ..gpu() };
        assert!(refused(&known(vec![parted.clone()], None)).contains("MIG mode is on"));
        let at = |start| Some(domain::permit::Partition { profile: 19, start });
        let permitted = known(vec![parted.clone()], at(2)).permit("m1", "gpu-1").unwrap();
        let part = Placed { profile: 19, start: 2, size: 1 };
        assert_eq!(permitted.extent, Permitted::Part(part));
        assert_eq!(known(vec![parted.clone()], None).find(GPU, part).unwrap().uuid, "MIG-1");
        assert!(refused(&known(vec![parted.clone()], at(3))).contains("no MIG instance"));
        let mut scrubbing = known(vec![parted], at(2));
        scrubbing.scrub = ScrubMode::Reset;
        assert!(refused(&scrubbing).contains("cannot be scrubbed"));
    }
}
