//! What a full reading of a recorded DGX H100 (4,681 resources) costs: requests, bytes, and the reader's own CPU time.
//!
//! Once from memory, which measures the walk alone, and once over HTTPS from a simulated BMC on another thread, which adds
//! TLS, HTTP and JSON. `cargo bench -p bailiwick-redfish --bench inspect`.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    missing_docs,
    reason = "a benchmark prints, and fails by panicking"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use bailiwick_redfish::{Client, Credentials, Options, Target, Trust, WalkOptions, inventory};
use domain::inventory::Requests;
use sim::{Bmc, RunningBmc};
use support::tree::Tree;

const RECORDING: &str = "nvidia-dgx-h100";
const ROUNDS: u32 = 20;

/// The figures to reach for one reading.
const MOST_REQUESTS: u64 = 300;
const MOST_CPU: Duration = Duration::from_millis(200);

fn main() {
    // `cargo test --benches` only asks whether it runs
    let rounds = if std::env::args().any(|argument| argument == "--bench") { ROUNDS } else { 1 };
    let Some(tree) = Tree::recorded(RECORDING) else { return };
    println!("inspect {RECORDING}: {} resources, {rounds} readings each", tree.len());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    from_memory(&runtime, tree, rounds);
    over_https(&runtime, rounds);
}

fn from_memory(runtime: &tokio::runtime::Runtime, tree: Tree, rounds: u32) {
    let options = WalkOptions::default();
    report("from memory", rounds, || {
        tree.forget();
        runtime.block_on(inventory(&tree, &options)).expect("an inventory").requests
    });
}

fn over_https(runtime: &tokio::runtime::Runtime, rounds: u32) {
    let bmc = SimulatorThread::start();
    let options = WalkOptions::default();
    report("over HTTPS, login included", rounds, || {
        runtime.block_on(async {
            let target = Target::new(bmc.url.clone(), Trust::Pin(bmc.pin.parse().expect("a pin")));
            let credentials = Some(Credentials::new("admin", "simulated"));
            let client = Client::connect(target, Options { credentials, ..Options::default() })
                .await
                .expect("a connection");
            let inventory = inventory(&client, &options).await.expect("an inventory");
            assert_eq!(inventory.gpus.len(), 8);
            client.close().await;
            inventory.requests
        })
    });
}

/// Runs it, and prints the mean of one round. CPU time is this thread's: the simulator has another one.
fn report(what: &str, rounds: u32, mut run: impl FnMut() -> Requests) {
    let mut cost = run();
    let (cpu, wall) = (thread_cpu(), Instant::now());
    for _ in 0..rounds {
        cost = run();
    }
    let (cpu, wall) = (thread_cpu().saturating_sub(cpu) / rounds, wall.elapsed() / rounds);
    let verdict = if cost.count <= MOST_REQUESTS && cpu <= MOST_CPU { "within" } else { "ABOVE" };
    println!(
        "  {what}: {} requests, {} bytes, {:.1} ms CPU, {:.1} ms wall ({verdict} {MOST_REQUESTS} requests and {} ms CPU)",
        cost.count,
        cost.bytes,
        cpu.as_secs_f64() * 1000.0,
        wall.as_secs_f64() * 1000.0,
        MOST_CPU.as_millis(),
    );
}

/// CPU time of this thread: the first field of schedstat, in nanoseconds.
fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a Linux with schedstat");
    let nanoseconds = stat.split_whitespace().next().and_then(|field| field.parse().ok()).expect("a number");
    Duration::from_nanos(nanoseconds)
}

/// A simulated BMC on a thread of its own, so that its CPU time is not counted.
struct SimulatorThread {
    url: String,
    pin: String,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl SimulatorThread {
    fn start() -> Self {
        let (told, facts) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let tree = sim::Tree::from_tar_gz(Tree::folder().join(format!("{RECORDING}.tar.gz")))
                    .expect("a tree");
                let bmc: RunningBmc = Bmc::builder(tree).start().await.expect("a BMC");
                told.send((bmc.url(), bmc.pin())).expect("the benchmark waits");
                // ends with the benchmark, by message or by its end
                let _ = stopped.await;
                bmc.shutdown().await;
            });
        });
        let (url, pin) = facts.recv().expect("a BMC that runs");
        Self { url, pin, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for SimulatorThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
