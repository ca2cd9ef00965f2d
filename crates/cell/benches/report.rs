//! What the reports of agents cost: bytes, and time in the cell.
//!
//! `cargo bench -p bailiwick-cell --bench report`. Reported: the size of a report of a host on which nothing changed, with eight
//! prepared devices, and of one with its probe; round trips of both by mutual TLS on loopback, from a hundred agents.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic)] // a benchmark prints and may fail by panicking

mod support;

use agent::cell::{StateDir, enrol};
use bailiwick_cell::{AgentSettings, Cell, Settings};
use domain::agent::{PreparedDevice, Report, ReportAnswer};
use domain::probe::{self, MigProfile, NvLink, Placement, Probe, ProbedGpu};
use jiff::Timestamp;
use serde_json::json;
use sim::{Model, Site};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::{Api, machines_of, world};
use tempfile::TempDir;

const MACHINES: usize = 100;

/// So many reports of one agent in a row are let through.
const ROUNDS: usize = 15;

fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Runtime::new().unwrap().block_on(measure());
}

/// A host with eight GPUs that tell as much as an H100 does.
fn probe(system_uuid: &str) -> Probe {
    let profile = |id| MigProfile {
        id,
        name: format!("{id}g.10gb"),
        placements: (0..7).map(|start| Placement { start, size: 1 }).collect(),
        ..MigProfile::default()
    };
    let gpu = |index: u32| ProbedGpu {
        uuid: Some(format!("GPU-00000000-0000-0000-0000-{index:012}")),
        index,
        model: Some("NVIDIA H100 80GB HBM3".to_owned()),
        serial: Some(format!("165{index:010}")),
        nvlinks: (0..18).map(|link| NvLink { link, active: true, ..NvLink::default() }).collect(),
        mig: Some(probe::Mig { profiles: (0..7).map(profile).collect(), ..probe::Mig::default() }),
        ..ProbedGpu::default()
    };
    Probe {
        taken: Timestamp::now(),
        boot_id: None,
        host: probe::Host { hostname: None, system_uuid: Some(system_uuid.to_owned()) },
        driver: Some(probe::Driver::default()),
        confidential_computing: None,
        gpus: (0..8).map(gpu).collect(),
        diagnostics: Vec::new(),
    }
}

struct Caller {
    http: reqwest::Client,
    url: String,
    report: Report,
}

impl Caller {
    async fn call(&self, report: &Report) -> Duration {
        let began = Instant::now();
        let answer = self.http.post(&self.url).json(report).send().await.unwrap();
        let status = answer.status();
        let answer = answer.bytes().await.unwrap();
        let took = began.elapsed();
        assert!(status.is_success(), "{}", String::from_utf8_lossy(&answer));
        let answer: ReportAnswer = serde_json::from_slice(&answer).unwrap();
        assert!(report.probe.is_none() || !answer.probe_wanted);
        took
    }
}

async fn measure() {
    let directory = TempDir::new().unwrap();
    let site = Site::builder(directory.path().join("site")).machines(Model::PowerEdgeXe, MACHINES).build();
    let site = site.start().await.unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = Settings {
        listen: any,
        jurisdiction: Some("eu".parse().unwrap()),
        agents: Some(AgentSettings::new(any)),
        ..Settings::new(directory.path().join("data"))
    };
    let cell = Cell::start(settings).await.unwrap();
    let api = Api::of(&cell);
    api.declare(world(), &machines_of(&site)).await;
    api.wait_for("machine.enrolled", MACHINES, 0).await;

    let address = format!("https://{}", cell.agents_address().unwrap());
    let mut callers = Vec::new();
    for machine in site.machines() {
        let path = format!("/api/v1/machines/{}/agent-token", machine.name);
        let token = api.call("POST", &path, Some(json!({}))).await;
        let dir = StateDir::open(directory.path().join(&machine.name)).unwrap();
        let uuid = Some(machine.uuid.clone());
        let identity = enrol(&dir, &address, token["token"].as_str().unwrap(), uuid).await.unwrap();
        let pem = reqwest::Identity::from_pem(format!("{}{}", identity.key, identity.certificate).as_bytes());
        // The name in the cell's certificate is not its address; whom an agent trusts is tested elsewhere.
        let http = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true);
        let probe = probe(&machine.uuid);
        let prepared = |at: usize| PreparedDevice {
            claim: format!("00000000-0000-0000-0000-{at:012}"),
            device: format!("gpu-{at:016x}").parse().unwrap(),
        };
        callers.push(Caller {
            http: http.identity(pem.unwrap()).build().unwrap(),
            url: format!("{address}{}", domain::agent::REPORT),
            report: Report {
                version: "0.1.0".to_owned(),
                digest: probe.digest(),
                registered: Some(Timestamp::now()),
                boot_id: "00000000-0000-0000-0000-000000000000".to_owned(),
                prepared: (0..8).map(prepared).collect(),
                problems: Vec::new(),
                scrubs: Vec::new(),
                probe: Some(Box::new(probe)),
            },
        });
    }
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for caller in &callers {
        first.push(caller.call(&caller.report).await);
    }
    let unchanged: Vec<Report> =
        callers.iter().map(|caller| Report { probe: None, ..caller.report.clone() }).collect();
    for _ in 0..ROUNDS {
        for (caller, report) in callers.iter().zip(&unchanged) {
            later.push(caller.call(report).await);
        }
    }
    let bytes = |report: &Report| serde_json::to_vec(report).unwrap().len();
    println!(
        "unchanged report: {} bytes, {}; with its probe: {} bytes, {}",
        bytes(&unchanged[0]),
        spread(&mut later),
        bytes(&callers[0].report),
        spread(&mut first),
    );
    cell.shutdown().await;
    site.shutdown().await;
}

fn spread(times: &mut [Duration]) -> String {
    times.sort();
    format!("median {:.1?}, p99 {:.1?}", times[times.len() / 2], times[times.len() * 99 / 100])
}
