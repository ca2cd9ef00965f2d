//! Simulated machines whose operating system, once booted, runs a kubelet that joins the simulated base cluster.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sim::{Booted, BootedHost, Cluster, HostOptions, Model, OnBoot, RunningSite, Site};
use testbed::Ironic;
use tokio::sync::watch;

/// The operating systems of all hosts.
#[derive(Debug)]
pub struct Kubelets {
    cluster: Cluster,
    /// Machines whose kubelet does not start yet.
    held: watch::Sender<BTreeSet<String>>,
}

impl Kubelets {
    pub fn new(cluster: &Cluster) -> Arc<Self> {
        Arc::new(Self { cluster: cluster.clone(), held: watch::Sender::default() })
    }

    /// The machine's kubelet does not start until it may.
    pub fn hold(&self, machine: &str) {
        self.held.send_modify(|held| _ = held.insert(machine.to_owned()));
    }

    pub fn let_go(&self, machine: &str) {
        self.held.send_modify(|held| _ = held.remove(machine));
    }
}

impl OnBoot for Kubelets {
    fn run(&self, host: BootedHost) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (cluster, mut held) = (self.cluster.clone(), self.held.subscribe());
        Box::pin(async move {
            let config = match host.booted {
                Booted::Disk(disk) => disk.config,
                Booted::LiveIso { config, .. } => config.unwrap_or_default(),
                _ => return,
            };
            let user_data = config.user_data.unwrap_or_default();
            let Ok(_) = held.wait_for(|held| !held.contains(&host.machine)).await else { return };
            let _running = Running { cluster: cluster.clone(), machine: host.machine.clone() };
            cluster.boot(&host.machine, &host.uuid, &String::from_utf8_lossy(&user_data));
            std::future::pending::<()>().await;
        })
    }
}

/// A kubelet, until the power goes.
struct Running {
    cluster: Cluster,
    machine: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cluster.switch_off(&self.machine);
    }
}

/// So many machines with names of this prefix.
pub async fn rack(
    directory: &Path,
    ironic: &Ironic,
    kubelets: Arc<Kubelets>,
    prefix: &str,
    machines: usize,
) -> RunningSite {
    let hosts = HostOptions {
        // Three seconds at this scale; real disks take minutes and more, in which what the agent offers can be seen.
        step: Duration::from_secs(30),
        ironic_url: Some(ironic.url().to_owned()),
        heartbeat: Duration::from_secs(1),
        on_boot: Some(kubelets),
        ..HostOptions::default()
    };
    let site = Site::builder(directory).seed("real").latency_scale(0.1);
    let site = site.machines_named(prefix, Model::CpuNode, machines).bootable(hosts);
    site.build().start().await.unwrap()
}
