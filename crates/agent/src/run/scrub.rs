//! Makes a GPU fit for another tenant: no process left on it, reset, and as healthy as before. Whoever runs the agent decides how
//! much of that is needed. A part of a GPU is destroyed instead, whatever was decided: its place may be another part's next.

use super::parts::Parter;
use super::watching::Hold;
use domain::probe::{Probe, Severity};
use dra::plugin::{HeldDevice, Scrub};
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// A process that ended may stay in the driver's list for a moment.
const LEAVING: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(250);
/// A reset takes some seconds.
const RESET: Duration = Duration::from_mins(1);

/// What is done between two claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ScrubMode {
    /// No process may be left, and the GPU is reset.
    Reset,
    /// No process may be left. The driver clears memory before it gives it to another process; registers and caches are not reset.
    Processes,
    /// Nothing: all users of this host are one tenant. Parts of GPUs (MIG) are destroyed all the same.
    Never,
}

/// Takes a probe now, in the thread it is called in.
pub(super) type ProbeNow = Arc<dyn Fn() -> Result<Probe, String> + Send + Sync>;

pub(super) struct Scrubber {
    pub(super) mode: ScrubMode,
    pub(super) probe: ProbeNow,
    /// No GPU is reset while the watch has the driver open.
    pub(super) hold: Hold,
    /// `nvidia-smi`: NVML has no call that resets a GPU.
    pub(super) nvidia_smi: PathBuf,
    /// Destroys parts.
    pub(super) parter: Parter,
}

impl Scrub for Scrubber {
    fn scrub<'a>(&'a self, devices: &'a [HeldDevice]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            for device in devices {
                let scrubbed = match &device.partition {
                    Some(part) => self.parter.destroy(&device.gpu, part.placed).await,
                    None if self.mode == ScrubMode::Never => Ok(()),
                    None => self.whole(device).await,
                };
                scrubbed.map_err(|reason| format!("{}: {reason}", device.device))?;
            }
            Ok(())
        })
    }
}

impl Scrubber {
    async fn whole(&self, device: &HeldDevice) -> Result<(), String> {
        let before = self.idle(&device.gpu).await?;
        if self.mode == ScrubMode::Reset {
            let _held = self.hold.take().await;
            let _alone = self.parter.driver.alone().await;
            self.reset(&device.gpu).await?;
            self.parter.tips.was_reset(&device.gpu);
        }
        let after = self.now().await?;
        let gpu = after.gpu(&device.gpu).ok_or("it is gone after its reset")?;
        if let Some(finding) = gpu.health.iter().find(|finding| finding.severity == Severity::Critical) {
            return Err(format!("{}: {}", finding.code, finding.message));
        }
        let errors = |probe: &Probe| probe.gpu(&device.gpu).and_then(|gpu| gpu.readings.ecc_uncorrected);
        let (earlier, later) = (errors(&before), errors(&after));
        if earlier.is_some() && later.is_none() {
            return Err("its ECC counters cannot be read any more".to_owned());
        }
        // The record of it.
        tracing::info!(
            device = device.device,
            gpu = device.gpu,
            reset = self.mode == ScrubMode::Reset,
            ecc_uncorrected = later,
            "scrubbed a GPU"
        );
        Ok(())
    }

    /// The probe in which no process uses the GPU.
    async fn idle(&self, uuid: &str) -> Result<Probe, String> {
        let deadline = Instant::now() + LEAVING;
        loop {
            let probe = self.now().await?;
            let gpu = probe.gpu(uuid).ok_or("the driver does not show it")?;
            match gpu.readings.processes {
                Some(0) => return Ok(probe),
                None => return Err("the driver does not tell which processes use it".to_owned()),
                Some(count) if Instant::now() >= deadline => {
                    return Err(format!("{count} processes still use it"));
                }
                Some(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn reset(&self, uuid: &str) -> Result<(), String> {
        let name = self.nvidia_smi.display();
        let output = Command::new(&self.nvidia_smi)
            .args(["--gpu-reset", "--id", uuid])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(RESET, output).await.map_err(|_| format!("{name} did not end"))?;
        let output = output.map_err(|error| format!("{name}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said);
        Err(format!("{name} says: {}", said.trim().lines().last().unwrap_or_default()))
    }

    async fn now(&self) -> Result<Probe, String> {
        let (probe, shared) = (Arc::clone(&self.probe), self.parter.driver.shared().await);
        let probe = move || {
            let probed = probe();
            drop(shared);
            probed
        };
        tokio::task::spawn_blocking(probe).await.map_err(|_| "the agent is stopping".to_owned())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::probe::{Driver, Finding, Host, ProbedGpu, Readings};
    use dra::plugin::Access;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::sync::Mutex;

    fn device() -> HeldDevice {
        HeldDevice {
            pool: "m1".to_owned(),
            device: "gpu-1".to_owned(),
            gpu: "GPU-1".to_owned(),
            partition: None,
            requests: Vec::new(),
            access: Some(Access::Nodes(Vec::new())),
        }
    }

    fn probe(processes: Option<u32>, health: Vec<Finding>) -> Probe {
        let readings = Readings { processes, ecc_uncorrected: Some(0), ..Readings::default() };
        let gpu = ProbedGpu { uuid: Some("GPU-1".to_owned()), readings, health, ..ProbedGpu::default() };
        Probe {
            taken: jiff::Timestamp::UNIX_EPOCH,
            boot_id: None,
            host: Host::default(),
            driver: Some(Driver::default()),
            confidential_computing: None,
            gpus: vec![gpu],
            diagnostics: Vec::new(),
        }
    }

    /// Probes one after the other; the last one stays.
    fn probes(mut probes: Vec<Probe>) -> ProbeNow {
        probes.reverse();
        let probes = Mutex::new(probes);
        Arc::new(move || {
            let mut left = probes.lock().unwrap();
            Ok(if left.len() > 1 { left.pop().unwrap() } else { left[0].clone() })
        })
    }

    /// A program that writes what it is asked, and ends like this.
    fn program(directory: &Path, end: &str) -> PathBuf {
        let path = directory.join("nvidia-smi");
        let script = format!("#!/bin/sh\necho \"$@\" >>{}/asked\n{end}\n", directory.display());
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn scrubber(mode: ScrubMode, probe: ProbeNow, nvidia_smi: PathBuf) -> Scrubber {
        Scrubber { mode, probe, nvidia_smi, hold: Hold::of_nobody(), parter: Parter::of_nothing() }
    }

    #[tokio::test]
    async fn a_gpu_is_reset_once_its_last_process_has_left() {
        let directory = tempfile::tempdir().unwrap();
        let leaving = probes(vec![probe(Some(1), vec![]), probe(Some(0), vec![])]);
        let scrubber = scrubber(ScrubMode::Reset, leaving, program(directory.path(), "exit 0"));
        scrubber.scrub(&[device()]).await.unwrap();
        let asked = std::fs::read_to_string(directory.path().join("asked")).unwrap();
        assert_eq!(asked, "--gpu-reset --id GPU-1\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stays_or_is_not_told_fails_it_before_any_reset() {
        for (processes, wanted) in [(Some(2), "2 processes still use it"), (None, "does not tell")] {
            let busy = probes(vec![probe(processes, vec![])]);
            let scrubber = scrubber(ScrubMode::Reset, busy, PathBuf::from("/nonexistent"));
            let failed = scrubber.scrub(&[device()]).await.unwrap_err();
            assert!(failed.contains(wanted), "{failed}");
        }
    }

    #[tokio::test]
    async fn a_reset_that_fails_says_what_the_program_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = program(directory.path(), "echo 'GPU is a primary GPU' >&2; exit 3");
        let scrubber = scrubber(ScrubMode::Reset, probes(vec![probe(Some(0), vec![])]), path);
        let failed = scrubber.scrub(&[device()]).await.unwrap_err();
        assert!(failed.starts_with("gpu-1: ") && failed.ends_with("says: GPU is a primary GPU"), "{failed}");
        let missing = Scrubber { nvidia_smi: PathBuf::from("/nonexistent"), ..scrubber };
        assert!(missing.scrub(&[device()]).await.unwrap_err().contains("/nonexistent"));
    }

    /// No GPU can be reset while somebody has the driver open.
    #[tokio::test]
    async fn nobody_of_this_agent_opens_the_driver_while_a_gpu_is_reset() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let wait = format!("while [ ! -e {} ]; do sleep 0.01; done", file("go").display());
        let one = scrubber(
            ScrubMode::Reset,
            probes(vec![probe(Some(0), vec![])]),
            program(directory.path(), &wait),
        );
        let other = Scrubber {
            mode: ScrubMode::Processes,
            probe: Arc::clone(&one.probe),
            hold: Hold::of_nobody(),
            nvidia_smi: PathBuf::from("/nonexistent"),
            parter: one.parter.clone(),
        };
        let one = tokio::spawn(async move { one.scrub(&[device()]).await });
        let deadline = Instant::now() + Duration::from_mins(1);
        while !file("asked").exists() {
            assert!(Instant::now() < deadline, "nothing is reset");
            tokio::task::yield_now().await;
        }
        let mut other = tokio::spawn(async move { other.scrub(&[device()]).await });
        assert!(timeout(Duration::from_millis(300), &mut other).await.is_err(), "it waits for the reset");
        std::fs::write(file("go"), "").unwrap();
        one.await.unwrap().unwrap();
        other.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_gpu_that_is_ill_after_it_stays_reserved() {
        let directory = tempfile::tempdir().unwrap();
        let ill = Finding {
            severity: Severity::Critical,
            code: "gpu.health.row-remap-failed".to_owned(),
            message: "a row could not be remapped".to_owned(),
        };
        let after = probes(vec![probe(Some(0), vec![]), probe(Some(0), vec![ill])]);
        let scrubber = scrubber(ScrubMode::Reset, after, program(directory.path(), "exit 0"));
        assert!(scrubber.scrub(&[device()]).await.unwrap_err().contains("gpu.health.row-remap-failed"));
    }
}
