//! Makes a GPU fit for another tenant: no process left on it, reset, and as healthy as before. Whoever runs the agent decides how
//! much of that is needed. A part of a GPU is destroyed instead, whatever was decided: its place may be another part's next.

use super::parts::{Parter, Rest};
use domain::agent::ScrubMethod;
use domain::probe::{Probe, Severity};
use dra::plugin::{HeldDevice, Placed, Scrub, Scrubbed};
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
    /// `nvidia-smi`: NVML has no call that resets a GPU.
    pub(super) nvidia_smi: PathBuf,
    /// Destroys parts.
    pub(super) parter: Parter,
}

impl Scrub for Scrubber {
    fn scrub<'a>(&'a self, device: &'a HeldDevice) -> BoxFuture<'a, Scrubbed> {
        Box::pin(async move {
            let scrubbed = match &device.partition {
                Some(part) => of_parts(self.parter.destroy(&device.gpu, part).await),
                None => self.whole(&device.gpu).await,
            };
            // The record of it on this host.
            let (device, gpu) = (&device.device, &device.gpu);
            tracing::info!(device, gpu, ?scrubbed, "a scrub ended");
            scrubbed
        })
    }

    fn scrub_rest<'a>(&'a self, gpu: &'a str, held: &'a [Placed]) -> BoxFuture<'a, Scrubbed> {
        Box::pin(async move {
            let scrubbed = match self.parter.destroy_rest(gpu, held).await {
                Ok(Rest::Whole) => self.whole(gpu).await,
                Ok(Rest::Destroyed) => of_parts(Ok(())),
                Err(reason) => of_parts(Err(reason)),
            };
            tracing::info!(gpu, ?scrubbed, "a scrub of what nobody accounts for ended");
            scrubbed
        })
    }

    fn gpus(&self) -> BoxFuture<'_, Result<Vec<String>, String>> {
        Box::pin(async { Ok(self.now().await?.gpus.into_iter().filter_map(|gpu| gpu.uuid).collect()) })
    }
}

/// Of parts, which have no counters of their own.
fn of_parts(outcome: Result<(), String>) -> Scrubbed {
    Scrubbed { method: ScrubMethod::Destroyed, ecc_before: None, ecc_after: None, outcome }
}

impl Scrubber {
    async fn whole(&self, gpu: &str) -> Scrubbed {
        let method = match self.mode {
            ScrubMode::Reset => ScrubMethod::Reset,
            ScrubMode::Processes => ScrubMethod::Processes,
            ScrubMode::Never => ScrubMethod::Nothing,
        };
        let mut scrubbed = Scrubbed { method, ecc_before: None, ecc_after: None, outcome: Ok(()) };
        if method != ScrubMethod::Nothing {
            scrubbed.outcome = self.clear(gpu, &mut scrubbed.ecc_before, &mut scrubbed.ecc_after).await;
        }
        scrubbed
    }

    /// Waits until no process is left, resets the GPU if that is wanted, and compares what its memory says before and after.
    async fn clear(
        &self,
        uuid: &str,
        before: &mut Option<u64>,
        after: &mut Option<u64>,
    ) -> Result<(), String> {
        let errors = |probe: &Probe| probe.gpu(uuid).and_then(|gpu| gpu.readings.ecc_uncorrected);
        *before = errors(&self.idle(uuid).await?);
        if self.mode == ScrubMode::Reset {
            let _alone = self.parter.driver.alone().await?;
            self.reset(uuid).await?;
            self.parter.tips.was_reset(uuid);
        }
        let probe = self.now().await?;
        let gpu = probe.gpu(uuid).ok_or("it is gone after its reset")?;
        *after = errors(&probe);
        if let Some(finding) = gpu.health.iter().find(|finding| finding.severity == Severity::Critical) {
            return Err(format!("{}: {}", finding.code, finding.message));
        }
        match (*before, *after) {
            (Some(_), None) => Err("its ECC counters cannot be read any more".to_owned()),
            // A reset begins to count anew, so these came after it.
            (Some(before), Some(after)) if after > before => {
                Err(format!("its uncorrected ECC errors grew from {before} to {after} meanwhile"))
            }
            _ => Ok(()),
        }
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
        let probe = Arc::clone(&self.probe);
        self.parter.driver.act(move || probe()).await
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
        with_errors(processes, health, Some(0))
    }

    fn with_errors(processes: Option<u32>, health: Vec<Finding>, ecc_uncorrected: Option<u64>) -> Probe {
        let readings = Readings { processes, ecc_uncorrected, ..Readings::default() };
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

    /// One of an agent that shares this directory with others.
    fn scrubber(directory: &Path, mode: ScrubMode, probe: ProbeNow, nvidia_smi: PathBuf) -> Scrubber {
        Scrubber { mode, probe, nvidia_smi, parter: Parter::of_nothing(directory) }
    }

    async fn scrub(scrubber: &Scrubber) -> Result<(), String> {
        scrubber.scrub(&device()).await.outcome
    }

    #[tokio::test]
    async fn a_gpu_is_reset_once_its_last_process_has_left() {
        let directory = tempfile::tempdir().unwrap();
        let leaving = probes(vec![probe(Some(1), vec![]), probe(Some(0), vec![])]);
        let scrubber =
            scrubber(directory.path(), ScrubMode::Reset, leaving, program(directory.path(), "exit 0"));
        scrub(&scrubber).await.unwrap();
        let asked = std::fs::read_to_string(directory.path().join("asked")).unwrap();
        assert_eq!(asked, "--gpu-reset --id GPU-1\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stays_or_is_not_told_fails_it_before_any_reset() {
        let directory = tempfile::tempdir().unwrap();
        for (processes, wanted) in [(Some(2), "2 processes still use it"), (None, "does not tell")] {
            let busy = probes(vec![probe(processes, vec![])]);
            let nowhere = PathBuf::from("/nonexistent");
            let failed =
                scrub(&scrubber(directory.path(), ScrubMode::Reset, busy, nowhere)).await.unwrap_err();
            assert!(failed.contains(wanted), "{failed}");
        }
    }

    #[tokio::test]
    async fn a_reset_that_fails_says_what_the_program_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = program(directory.path(), "echo 'GPU is a primary GPU' >&2; exit 3");
        let idle = probes(vec![probe(Some(0), vec![])]);
        let scrubber = scrubber(directory.path(), ScrubMode::Reset, idle, path);
        let failed = scrub(&scrubber).await.unwrap_err();
        assert!(failed.ends_with("says: GPU is a primary GPU"), "{failed}");
        let missing = Scrubber { nvidia_smi: PathBuf::from("/nonexistent"), ..scrubber };
        assert!(scrub(&missing).await.unwrap_err().contains("/nonexistent"));
    }

    /// No GPU can be reset while somebody has the driver open.
    #[tokio::test]
    async fn nobody_of_any_agent_opens_the_driver_while_a_gpu_is_reset() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let wait = format!("while [ ! -e {} ]; do sleep 0.01; done", file("go").display());
        let idle = probes(vec![probe(Some(0), vec![])]);
        let path = program(directory.path(), &wait);
        let one = scrubber(directory.path(), ScrubMode::Reset, Arc::clone(&idle), path.clone());
        let other = scrubber(directory.path(), ScrubMode::Processes, idle, path);
        let one = tokio::spawn(async move { scrub(&one).await });
        let deadline = Instant::now() + Duration::from_mins(1);
        while !file("asked").exists() {
            assert!(Instant::now() < deadline, "nothing is reset");
            tokio::task::yield_now().await;
        }
        let mut other = tokio::spawn(async move { scrub(&other).await });
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
        let path = program(directory.path(), "exit 0");
        let scrubber = scrubber(directory.path(), ScrubMode::Reset, after, path);
        assert!(scrub(&scrubber).await.unwrap_err().contains("gpu.health.row-remap-failed"));
    }

    #[tokio::test]
    async fn a_scrub_tells_what_was_done_and_fails_where_ecc_errors_grew_or_cannot_be_read_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = program(directory.path(), "exit 0");
        for (mode, method) in
            [(ScrubMode::Reset, ScrubMethod::Reset), (ScrubMode::Processes, ScrubMethod::Processes)]
        {
            for (before, after, wanted) in [
                (Some(3), Some(0), None),
                (Some(3), Some(3), None),
                (None, None, None),
                (None, Some(3), None),
                (Some(0), Some(1), Some("its uncorrected ECC errors grew from 0 to 1 meanwhile")),
                (Some(3), None, Some("its ECC counters cannot be read any more")),
            ] {
                let errors = [before, after].map(|errors| with_errors(Some(0), vec![], errors));
                let scrubber = scrubber(directory.path(), mode, probes(errors.to_vec()), path.clone());
                let outcome = wanted.map_or(Ok(()), |reason| Err(reason.to_owned()));
                let wanted = Scrubbed { method, ecc_before: before, ecc_after: after, outcome };
                assert_eq!(scrubber.scrub(&device()).await, wanted);
            }
        }
        let nothing = scrubber(directory.path(), ScrubMode::Never, probes(vec![probe(None, vec![])]), path);
        assert_eq!(nothing.scrub(&device()).await.method, ScrubMethod::Nothing);
    }
}
