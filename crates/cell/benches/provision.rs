//! How many machines a cell provisions in a second: from available to verified nodes in service, through a simulated Ironic
//! with zero delays into a simulated base cluster, all on the same cores.
//!
//! `cargo bench -p bailiwick-cell --bench provision`. The simulator is a process of its own, so that the memory reported is the
//! cell's. Reported: machines a second for 100 and for 1,000 (bar: 50 a second on 2 cores), the ratio of the two times (bar: at
//! most 11), what a machine costs both processes in CPU (which other work on the same cores hardly changes), deployments asked
//! for, and peak resident memory. Run without `--bench`, as `cargo test` does, it takes ten
//! machines only.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic)] // a benchmark prints and may fail by panicking

mod support;

use bailiwick_cell::{Cell, IronicSettings, ProvisionerSettings, ServiceSettings, Settings};
use serde_json::{Map, Value, json};
use sim::ironic::{IronicEndpoint, NodeEvent, Verb};
use sim::{Cluster, Model, Site};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Api, cpu, document, machines_of, peak_memory, stop, until_parent_is_gone, world};
use tempfile::TempDir;

const SIMULATOR: &str = "--simulator";

fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(at) = arguments.iter().position(|argument| argument == SIMULATOR) {
        let (directory, count) = (&arguments[at + 1], arguments[at + 2].parse().unwrap());
        return runtime.block_on(simulate(directory, count));
    }
    let (few, many) =
        if arguments.iter().any(|argument| argument == "--bench") { (100, 1000) } else { (1, 10) };
    let small = runtime.block_on(provision(few));
    let large = runtime.block_on(provision(many));
    let ratio = large.as_secs_f64() / small.as_secs_f64();
    println!("time for {many} / time for {few}: {ratio:.1} (bar: at most 11)");
}

/// Serves until standard input closes: the parent is gone then. Prints how to reach it, and at the end the deployments.
async fn simulate(directory: &str, count: usize) {
    let site = Site::builder(directory).machines(Model::CpuNode, count).build().start().await.unwrap();
    let cluster = Cluster::start().await.unwrap();
    let uuids: BTreeMap<_, _> =
        site.machines().iter().map(|machine| (machine.name.clone(), machine.uuid.clone())).collect();
    let joins = cluster.clone();
    let ironic = IronicEndpoint::builder().on_event(move |event| {
        if let NodeEvent::Deployed(instance) = event {
            let name = instance.name.unwrap_or_default();
            let user_data =
                instance.config_drive.as_ref().and_then(|drive| drive.user_data()).unwrap_or_default();
            joins.boot(&name, &uuids[&name], user_data);
        }
    });
    let ironic = ironic.start().unwrap();
    let reach = json!({
        "machines": machines_of(&site), "ironic": ironic.url(), "kubeconfig": cluster.kubeconfig(),
    });
    println!("{reach}");
    until_parent_is_gone().await;
    println!("{}", ironic.verbs_of_all(Verb::Active).accepted);
    site.shutdown().await;
}

async fn provision(count: usize) -> Duration {
    let directory = TempDir::new().unwrap();
    let mut simulator = Command::new(std::env::current_exe().unwrap())
        .args([SIMULATOR, directory.path().join("site").to_str().unwrap(), &count.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(simulator.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let reach: Value = serde_json::from_str(&line).unwrap();
    let machines = reach["machines"].as_array().unwrap();
    let secrets = directory.path().join("secrets");
    std::fs::create_dir_all(secrets.join("pool")).unwrap();
    std::fs::write(secrets.join("pool/kubeconfig"), reach["kubeconfig"].as_str().unwrap()).unwrap();

    let ironic =
        IronicSettings { url: reach["ironic"].as_str().unwrap().to_owned(), ..IronicSettings::default() };
    let cell = Cell::start(Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        jurisdiction: Some("eu".parse().unwrap()),
        secrets_dir: Some(secrets),
        provisioners: vec![ProvisionerSettings {
            name: "ironic".into(),
            sites: Vec::new(),
            service: ServiceSettings::Ironic(ironic),
            at_once: 32,
        }],
        ..Settings::new(directory.path().join("data"))
    });
    let cell = cell.await.unwrap();
    let api = Api::of(&cell);
    let shelved = Instant::now();
    api.declare([world(), profile(), vec![pool()]].concat(), machines).await;
    api.wait_for("machine.available", count, 0).await;
    let shelved = shelved.elapsed();

    let last = api.last_event().await;
    let names = machines.iter().map(|machine| machine["name"].as_str().unwrap());
    let assigned: Vec<Value> =
        names.map(|name| document("Assignment", name, json!({ "baseCluster": "pool" }))).collect();
    let simulator_id = simulator.id();
    let used = (cpu(std::process::id()), cpu(simulator_id));
    let began = Instant::now();
    api.apply(assigned, Map::new()).await;
    api.wait_for("machine.in-service", count, last).await;
    let took = began.elapsed();
    let used = (cpu(std::process::id()) - used.0, cpu(simulator_id) - used.1);
    let deployments = stop(simulator, &mut output);
    cell.shutdown().await;
    let number = f64::from(u32::try_from(count).unwrap());
    println!(
        "{count} machines: on the shelf after {:.1} s; provisioned in {:.1} s, {:.1} a second (bar: 50); \
         CPU {:.1} ms a machine in the cell and {:.1} ms in the simulator; {deployments} deployments; cell's peak resident \
         memory {}",
        shelved.as_secs_f64(),
        took.as_secs_f64(),
        number / took.as_secs_f64(),
        used.0 / number,
        used.1 / number,
        peak_memory(),
    );
    assert_eq!(deployments, u64::try_from(count).unwrap(), "each machine is deployed once");
    took
}

fn pool() -> Value {
    document(
        "BaseCluster",
        "pool",
        json!({
            "jurisdiction": "eu", "site": "fra1", "kubernetesVersion": "1.36.3", "controlPlane": "external",
            "endpoint": "https://127.0.0.1:6443", "kubeconfig": { "name": "pool", "key": "kubeconfig" },
            "join": "kubeadm", "image": { "live": { "iso": "http://images.example/node.iso" } },
        }),
    )
}

/// The published profile of the simulated machine.
fn profile() -> Vec<Value> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../firmware-profiles/simulated-sn-2u-epyc.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    domain::manifest::read("profile", &text).unwrap().iter().map(|one| one.declaration.to_json()).collect()
}
