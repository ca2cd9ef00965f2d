//! The command `run`.

use super::ready::AgentArgs;
use super::{DeviceRoot, Options, ScrubMode, api_server, run};
use crate::Error;
use crate::cell::StateDir;
use clap::Args;
use domain::agent::STATE_DIR;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Works on this host for its cell, until it is told to end.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bailiwick-agent run --kubeconfig /etc/kubernetes/bailiwick-agent.conf
  bailiwick-agent run --host-root /host

Where its state directory holds enrolment.json, as on a machine that a cell has provisioned, it enrols by that first.
It logs to standard error, one JSON object a line; BAILIWICK_LOG=debug tells more. SIGTERM ends it.")]
pub struct RunArgs {
    /// Where the agent keeps its key and certificate
    #[arg(long, value_name = "DIR", default_value = STATE_DIR, env = "BAILIWICK_STATE_DIR", hide_env_values = true)]
    state_dir: PathBuf,
    /// A kubeconfig for the API server; without it the agent is a pod of the cluster
    #[arg(long, value_name = "FILE", env = "KUBECONFIG", hide_env_values = true)]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    agent: AgentArgs,
    /// Where CDI specifications of claims are written, and the container runtime reads them
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/run/cdi",
        env = "BAILIWICK_CDI_DIR",
        hide_env_values = true
    )]
    cdi_dir: PathBuf,
    /// Where else `nvidia-ctk cdi generate` may have written
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/etc/cdi",
        env = "BAILIWICK_STATIC_CDI_DIR",
        hide_env_values = true
    )]
    static_cdi_dir: PathBuf,
    /// The driver's library, where it is neither the host's nor a driver container's
    #[arg(long, value_name = "PATH", env = "BAILIWICK_NVML", hide_env_values = true)]
    nvml: Option<PathBuf>,
    /// Where the host's root directory is
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/",
        env = "BAILIWICK_HOST_ROOT",
        hide_env_values = true
    )]
    host_root: PathBuf,
    /// Where the driver's device nodes are, as the container runtime sees it
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/dev",
        env = "BAILIWICK_DEV_ROOT",
        hide_env_values = true
    )]
    dev_root: PathBuf,
    /// Seconds between probes at most; the driver's events are looked at at once
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    probe_interval: u64,
    /// What is done with a GPU between two claims
    #[arg(long, value_enum, default_value = "reset", env = "BAILIWICK_SCRUB", hide_env_values = true)]
    scrub: ScrubMode,
    /// NVIDIA's program that resets GPUs
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/usr/bin/nvidia-smi",
        env = "BAILIWICK_NVIDIA_SMI",
        hide_env_values = true
    )]
    nvidia_smi: PathBuf,
}

impl RunArgs {
    /// Works until SIGTERM or SIGINT.
    pub fn run(&self) -> Result<(), Error> {
        let dir = StateDir::open(&self.state_dir)?;
        let claims = api_server(self.kubeconfig.as_deref())?;
        let options = self.options();
        let runtime = runtime()?;
        let ended = runtime.block_on(async {
            let stop = CancellationToken::new();
            let mut terminate = signal(SignalKind::terminate()).map_err(Error::Thread)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Thread)?;
            let told = stop.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                told.cancel();
            });
            run(&options, claims, dir, stop).await
        });
        // Threads that hang in the driver are not waited for.
        runtime.shutdown_background();
        ended
    }

    fn options(&self) -> Options {
        let own = match self.dev_root.strip_prefix("/") {
            Ok(below) => self.host_root.join(below),
            Err(_) => self.dev_root.clone(),
        };
        Options {
            kubelet_dir: self.agent.kubelet_dir.clone(),
            cdi_dir: self.cdi_dir.clone(),
            static_cdi_dir: self.static_cdi_dir.clone(),
            instance: self.agent.instance.clone(),
            nvml: self.nvml.clone(),
            host_root: self.host_root.clone(),
            devices: DeviceRoot { runtime: self.dev_root.clone(), own },
            probe_interval: Duration::from_secs(self.probe_interval),
            scrub: self.scrub,
            nvidia_smi: self.nvidia_smi.clone(),
        }
    }
}

/// Small: the agent waits nearly all the time.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(Error::Thread)
}
