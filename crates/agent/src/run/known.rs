//! What the agent knows of its host's devices: the last probe and the permits it holds. The plugin's gate.

use super::access::{Described, DeviceRoot};
use crate::cell::{Gate as Permits, uptime};
use domain::permit::{Partition, Permit, PermitError};
use domain::probe::{Probe, ProbedGpu, Severity};
use dra::plugin::wire::HealthStatus;
use dra::plugin::{Gate, Health, Permitted, PermittedDevice, Placed, Refusal};
use gpu::{Context, HostRoot};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What was seen of the host.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    pub(super) probe: Arc<Probe>,
    /// The CDI devices that NVIDIA's tool has described.
    pub(super) described: Described,
    /// When the probe began, on a clock that nobody can set: what it tells may be as old as that.
    pub(super) began: Duration,
}

/// The last probe, as long as it counts.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) sight: watch::Receiver<Option<Sight>>,
    /// How old a probe may be. A driver that hangs tells nothing new, and nobody knows then how its GPUs are.
    pub(super) limit: Duration,
    pub(super) root: HostRoot,
}

impl Seen {
    fn fresh(&self) -> Option<Sight> {
        let sight = self.sight.borrow().clone()?;
        (!self.left(&sight).is_zero()).then_some(sight)
    }

    fn left(&self, sight: &Sight) -> Duration {
        // A clock that stands before the probe is none that can be trusted.
        let age = uptime().checked_sub(sight.began).unwrap_or(Duration::MAX);
        self.limit.saturating_sub(age)
    }

    /// How long it counts still; zero where it is too old already.
    pub(super) fn lasts(&self) -> Duration {
        self.sight.borrow().as_ref().map(|sight| self.left(sight)).unwrap_or_default()
    }

    /// The last probe; where that is too old, one that says so and shows no GPU.
    pub(super) fn probe(&self) -> Arc<Probe> {
        if let Some(sight) = self.fresh() {
            return sight.probe;
        }
        let error = gpu::Error::Silent { seconds: self.limit.as_secs() };
        let context = Context { host: &self.root, now: Timestamp::now(), previous: None };
        Arc::new(gpu::without_driver(&error, &context))
    }
}

/// The last probe and permits.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) seen: Seen,
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

    /// Whether there is nothing to register, and that is no failure: the cell has answered, and permits nothing here; and no GPU may be
    /// missing only because its driver is not found.
    pub(super) fn has_nothing(&self) -> bool {
        self.permits.is_closed() && (self.seen.probe().driver.is_some() || !self.seen.root.has_gpu())
    }

    /// The health of every device that the cell has named, however long its permit lasts.
    pub(super) fn health(&self, timeout: Duration) -> Vec<Health> {
        let Some(held) = self.permits.permits() else { return Vec::new() };
        let probe = self.seen.probe();
        let health = |permit: &Permit| {
            let (status, message) = judged(&probe, permit);
            Health {
                pool: held.permits().machine.to_string(),
                device: permit.device.to_string(),
                status,
                taken: probe.taken.into(),
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
        let stale = || Refusal::ProbeStale { device: device.to_owned(), seconds: self.seen.limit.as_secs() };
        let sight = self.seen.fresh().ok_or_else(stale)?;
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
    use domain::Name;
    use domain::permit::{HeldPermits, Permits as Document};
    use domain::probe::{Driver, Finding, Host, Mig, MigProfile, Placement};
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

    /// The gate of an agent whom the cell has answered this.
    fn permitted(permits: Vec<Permit>) -> Permits {
        let permits = Document { machine: Name::new("m1").unwrap(), issued: Timestamp::now(), permits };
        let held = Some(Arc::new(HeldPermits::new(permits, uptime())));
        Permits::new(watch::channel(held).1, watch::channel(true).1)
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
        let sight = Sight { probe: Arc::new(probe), described: Described::new(), began: uptime() };
        let known = Known {
            seen: Seen {
                sight: watch::channel(Some(sight)).1,
                limit: Duration::from_mins(1),
                root: HostRoot::at("/nonexistent"),
            },
            permits: permitted(vec![permit]),
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
    fn a_probe_that_is_too_old_opens_nothing_and_is_told_to_nobody() {
        let mut known = known(vec![gpu()], None).known;
        known.seen.limit = Duration::ZERO;
        assert_eq!(known.permit("m1", "gpu-1").unwrap_err().code(), "plugin.device.probe-stale");
        let told = known.seen.probe();
        assert!(told.driver.is_none() && told.gpus.is_empty());
        assert_eq!(told.diagnostics[0].code, "gpu.driver-silent");
        assert_eq!(told.digest(), known.seen.probe().digest(), "it is the same for as long as it lasts");
        assert_eq!(known.health(Duration::ZERO)[0].status, HealthStatus::Unknown);
        assert_eq!(known.seen.lasts(), Duration::ZERO);
    }

    #[test]
    fn there_is_nothing_to_register_where_nothing_is_permitted_unless_a_driver_that_should_be_there_is_not() {
        let mut known = known(vec![gpu()], None).known;
        assert!(!known.has_nothing());
        known.permits = permitted(Vec::new());
        assert!(known.has_nothing(), "as where NVIDIA's own plugin hands GPUs out");
        // No driver answers any more.
        known.seen.limit = Duration::ZERO;
        assert!(known.has_nothing(), "there is no GPU");
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("sys/bus/pci/devices/0000:65:00.0");
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("vendor"), "0x10de\n").unwrap();
        std::fs::write(device.join("class"), "0x030200\n").unwrap();
        known.seen.root = HostRoot::at(root.path());
        assert!(!known.has_nothing());
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
