//! How many machines a cell enrols in a second, cell and simulator on the same cores.
//!
//! `cargo bench -p bailiwick-cell --bench enrol`. The simulator is a process of its own, so that the memory reported is the cell's.
//! Reported: machines a second for 100 and for 1,000 BMCs, the ratio of the two times (bars: at least 20 a second, ratio at most
//! 11), requests, and peak resident memory.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic)] // a benchmark prints and may fail by panicking

mod support;

use bailiwick_cell::{Cell, Settings, SinkSettings};
use serde_json::{Value, json};
use sim::{Model, Site};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Api, document, machines_of, peak_memory, stop, until_parent_is_gone, world};
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
    let small = runtime.block_on(enrol(100));
    let large = runtime.block_on(enrol(1000));
    println!(
        "time for 1,000 / time for 100: {:.1} (bar: at most 11)",
        large.as_secs_f64() / small.as_secs_f64()
    );
}

/// Serves until standard input closes: the parent is gone then.
async fn simulate(directory: &str, count: usize) {
    // A third of each model, the remainder without GPUs.
    let (dgx, dell) = (count / 10, count * 3 / 10);
    let site = Site::builder(directory)
        .machines(Model::DgxH100, dgx)
        .machines(Model::PowerEdgeXe, dell)
        .machines(Model::CpuNode, count - dgx - dell)
        .build();
    let site = site.start().await.unwrap();
    println!("{}", Value::from(machines_of(&site)));
    until_parent_is_gone().await;
    let requests: u64 =
        site.machines().iter().map(|machine| site.bmc(&machine.name).unwrap().counters().requests).sum();
    println!("{requests}");
    site.shutdown().await;
}

async fn enrol(count: usize) -> Duration {
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
    let machines: Vec<Value> = serde_json::from_str(&line).unwrap();

    let cell = Cell::start(Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        jurisdiction: Some("eu".parse().unwrap()),
        sinks: vec![SinkSettings::Directory(directory.path().join("publish"))],
        ..Settings::new(directory.path().join("data"))
    });
    let cell = cell.await.unwrap();
    let api = Api::of(&cell);
    let began = Instant::now();
    let trial = document("GpuClass", "trial", json!({ "jurisdiction": "eu", "requires": ["inventoried"] }));
    api.declare([world(), vec![trial]].concat(), &machines).await;
    let waiting = api.wait_for("machine.enrolled", count, 0).await;
    assert_eq!(waiting, 0, "machines wait");
    let took = began.elapsed();
    api.wait_until_published().await;
    let published = began.elapsed();
    let requests = stop(simulator, &mut output);
    cell.shutdown().await;
    println!(
        "{count} machines: {:.1} s, {:.1} a second (bar: 20); published after {:.1} s; {requests} requests, {} a machine; \
         cell's peak resident memory {}",
        took.as_secs_f64(),
        f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64(),
        published.as_secs_f64(),
        requests / u64::try_from(count).unwrap(),
        peak_memory(),
    );
    took
}
