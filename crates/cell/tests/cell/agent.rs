//! An agent that enrols with a cell and reports a host, which a test describes.

use crate::support::Client;
use agent::cell::{Error, Gate, Host, Identity, Reporter, StateDir, enrol};
use domain::agent::CellUrl;
use domain::permit::PermitError;
use domain::probe::{self, Pci, Probe, ProbedGpu};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Where machines call agents' cells: another address than the one at which a cell listens, and known before it does.
pub(crate) struct Door(TcpListener);

/// A door that leads to a cell, as long as this lives.
pub(crate) struct OpenDoor(JoinHandle<()>);

impl Door {
    pub(crate) async fn new() -> Self {
        Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap())
    }

    pub(crate) fn url(&self) -> CellUrl {
        url(self.0.local_addr().unwrap()).parse().unwrap()
    }

    /// From now on it leads there.
    pub(crate) fn open(self, cell: SocketAddr) -> OpenDoor {
        OpenDoor(tokio::spawn(async move {
            loop {
                let (mut caller, _) = self.0.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut called = TcpStream::connect(cell).await.unwrap();
                    // Either may end it as it likes.
                    let _ = tokio::io::copy_bidirectional(&mut caller, &mut called).await;
                });
            }
        }))
    }
}

impl Drop for OpenDoor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A running agent. Goes with the test.
pub(crate) struct Agent {
    pub host: watch::Sender<Host>,
    pub gate: Gate,
    pub dir: StateDir,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Client {
    /// A one-time token for the agent of a machine.
    pub(crate) async fn agent_token(&self, machine: &str) -> String {
        let path = format!("/api/v1/machines/{machine}/agent-token");
        let (status, answer) = self.call("POST", &path, Some(json!({}))).await;
        assert_eq!(status, 201, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    /// What the driver of a machine would tell if it agreed with the machine's BMC.
    pub(crate) async fn probe_of(&self, machine: &str, system_uuid: &str) -> Probe {
        let gpus = self.get("/api/v1/gpus?limit=1000").await;
        let own = gpus["items"].as_array().unwrap().iter().filter(|item| item["machine"] == machine);
        let text = |gpu: &Value, key: &str| gpu[key].as_str().map(str::to_owned);
        let probed = |(index, item): (usize, &Value)| {
            let gpu = &item["gpu"];
            let uuid = text(gpu, "uuid").unwrap_or_else(|| format!("00000000-0000-0000-0000-{index:012x}"));
            ProbedGpu {
                uuid: Some(format!("GPU-{uuid}")),
                index: u32::try_from(index).unwrap(),
                serial: text(gpu, "serial"),
                model: text(gpu, "model"),
                pci: Pci { address: text(gpu, "pciAddress"), ..Pci::default() },
                ..ProbedGpu::default()
            }
        };
        Probe {
            taken: Timestamp::now(),
            boot_id: Some("boot-1".to_owned()),
            host: probe::Host {
                hostname: Some(machine.to_owned()),
                system_uuid: Some(system_uuid.to_owned()),
            },
            driver: Some(probe::Driver::default()),
            confidential_computing: None,
            gpus: own.enumerate().map(probed).collect(),
            diagnostics: Vec::new(),
        }
    }
}

/// Enrols with a new token; the state is kept under this name.
pub(crate) async fn enrolled(
    client: &Client,
    cell: SocketAddr,
    machine: &str,
    system_uuid: &str,
    dir: &Path,
) -> Result<(StateDir, Identity), Error> {
    let dir = StateDir::open(dir).unwrap();
    let token = client.agent_token(machine).await;
    let identity = enrol(&dir, &url(cell), &token, Some(system_uuid.to_owned())).await?;
    Ok((dir, identity))
}

pub(crate) fn url(cell: SocketAddr) -> String {
    format!("https://{cell}")
}

pub(crate) fn host(probe: Probe) -> Host {
    let (prepared, problems, scrubs) = (Vec::new(), Vec::new(), Vec::new());
    Host { probe: Arc::new(probe), registered: None, prepared, problems, scrubs }
}

impl Agent {
    /// Enrols an agent that agrees with the machine's BMC, and has it report.
    pub(crate) async fn start(
        client: &Client,
        cell: SocketAddr,
        machine: &str,
        system_uuid: &str,
        dir: &Path,
    ) -> Self {
        let (dir, _) = enrolled(client, cell, machine, system_uuid, dir).await.unwrap();
        let probe = client.probe_of(machine, system_uuid).await;
        Self::run(dir, host(probe))
    }

    /// Has the agent that is enrolled here report.
    pub(crate) fn run(dir: StateDir, host: Host) -> Self {
        let (host, seen) = watch::channel(host);
        let (reporter, gate) = Reporter::new(dir.clone(), Some("boot-1".to_owned()), seen).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(reporter.run(stop.clone()));
        Self { host, gate, dir, stop, task }
    }

    /// The kubelet registers the plugin, or loses it.
    pub(crate) fn register(&self, registered: bool) {
        self.host.send_modify(|host| host.registered = registered.then(Timestamp::now));
    }

    pub(crate) async fn stop(mut self) -> StateDir {
        self.stop.cancel();
        (&mut self.task).await.unwrap();
        self.dir.clone()
    }

    /// Waits until the device has a permit, or has none with this code.
    pub(crate) async fn until(&self, device: &str, code: Option<&str>) {
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        loop {
            let found = self.gate.permit(device).err();
            if found.as_ref().map(PermitError::code) == code {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{device}: {found:?}, not {code:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
