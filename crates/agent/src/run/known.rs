//! What the agent knows of its host's devices: the last probe and the permits it holds. The plugin's gate.

use super::access::{Described, DeviceRoot};
use crate::cell::Gate as Permits;
use domain::permit::{Partition, Permit, PermitError};
use domain::probe::{Probe, ProbedGpu, Severity};
use dra::plugin::wire::HealthStatus;
use dra::plugin::{Gate, Health, Permitted, PermittedDevice, Placed, Refusal};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What was seen of the host.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    pub(super) probe: Arc<Probe>,
    /// The CDI devices that NVIDIA's tool has described.
    pub(super) described: Described,
}

/// The last probe and permits.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) sight: watch::Receiver<Option<Sight>>,
    pub(super) permits: Permits,
    pub(super) devices: DeviceRoot,
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
        let extent = match placed(gpu, &permit).map_err(closed)? {
            None => Permitted::Whole(self.devices.access(gpu, None, &sight.described).map_err(closed)?),
            Some(placed) => Permitted::Part(placed),
        };
        Ok(PermittedDevice { gpu: gpu.uuid.clone().unwrap_or_default(), extent })
    }
}

/// The place of the part that a permit is for, if the GPU can be parted so; `None` for all of a GPU that is not parted.
fn placed(gpu: &ProbedGpu, permit: &Permit) -> Result<Option<Placed>, String> {
    let mig = gpu.mig.as_ref().filter(|mig| mig.enabled);
    let (wanted, mig) = match (permit.partition, mig) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err("it is parted: MIG mode is on".to_owned()),
        (Some(_), None) => return Err("it is not parted: MIG mode is off".to_owned()),
        (Some(wanted), Some(mig)) => (wanted, mig),
    };
    let Partition { profile, start } = wanted;
    let known = mig.profiles.iter().filter(|known| known.id == profile);
    let mut places = known.flat_map(|known| &known.placements).filter(|place| place.start == start);
    let place = places.next().ok_or_else(|| format!("profile {profile} cannot be put at slice {start}"))?;
    Ok(Some(Placed { profile, start, size: place.size }))
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
    use domain::probe::{Driver, Finding, Host, Mig, MigProfile, Placement};
    use jiff::Timestamp;
    use std::path::PathBuf;

    const GPU: &str = "GPU-00000000-0000-0000-0000-000000000001";

    fn gpu() -> ProbedGpu {
        ProbedGpu { uuid: Some(GPU.to_owned()), minor: Some(0), ..ProbedGpu::default() }
    }

    /// What is known, and the device nodes of its host.
    struct OnHost {
        known: Known,
        _dev: tempfile::TempDir,
    }

    impl std::ops::Deref for OnHost {
        type Target = Known;
        fn deref(&self) -> &Known {
            &self.known
        }
    }

    fn known(gpus: Vec<ProbedGpu>, partition: Option<Partition>) -> OnHost {
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
        let dev = tempfile::tempdir().unwrap();
        for name in ["nvidia0", "nvidiactl"] {
            std::fs::write(dev.path().join(name), "").unwrap();
        }
        let known = Known {
            sight: watch::channel(Some(Sight { probe: Arc::new(probe), described: Described::new() })).1,
            permits: Permits::new(watch::channel(Some(Arc::new(HeldPermits::new(permits, uptime())))).1),
            devices: DeviceRoot { runtime: PathBuf::from("/dev"), own: dev.path().to_owned() },
        };
        OnHost { known, _dev: dev }
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
    fn a_part_is_permitted_where_its_profile_may_be_and_all_of_a_parted_gpu_never() {
        let profile = MigProfile {
            id: 14,
            placements: vec![Placement { start: 0, size: 2 }, Placement { start: 2, size: 2 }],
            ..MigProfile::default()
        };
        let mig = Mig { enabled: true, profiles: vec![profile], ..Mig::default() };
        let parted = ProbedGpu { mig: Some(mig.clone()), ..gpu() };
        let at = |profile, start| Some(Partition { profile, start });
        assert!(refused(&known(vec![parted.clone()], None)).contains("MIG mode is on"));
        let permitted = known(vec![parted.clone()], at(14, 2)).permit("m1", "gpu-1").unwrap();
        assert_eq!(permitted.extent, Permitted::Part(Placed { profile: 14, start: 2, size: 2 }));
        for (profile, start) in [(14, 1), (19, 2)] {
            let refused = refused(&known(vec![parted.clone()], at(profile, start)));
            assert!(
                refused.contains(&format!("profile {profile} cannot be put at slice {start}")),
                "{refused}"
            );
        }
        let off = ProbedGpu { mig: Some(Mig { enabled: false, ..mig }), ..gpu() };
        assert!(refused(&known(vec![off.clone()], at(14, 2))).contains("MIG mode is off"));
        assert!(refused(&known(vec![gpu()], at(14, 2))).contains("MIG mode is off"));
        assert!(known(vec![off], None).permit("m1", "gpu-1").is_ok());
    }
}
