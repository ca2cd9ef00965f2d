//! NodePrepareResources inside the agent, for one GPU and for eight: what is read from the API server comes from memory, what is
//! written is there when it is answered. The checkpoint is on the disk where the target directory is, CDI specifications in memory
//! as below `/run`. Beside it, what the same fsyncs cost alone, taken in turn with the calls, so that both meet the same disk. Printed
//! are p50 and p99. `BAILIWICK_BENCH_DIR=/dev/shm` takes the disk out of it and leaves the plugin's own time. With `--bench` it fails
//! where p99 is above the bar: 5 ms for one GPU, 10 ms for eight.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    dead_code,
    reason = "a bench that cannot run has nothing to report"
)]

#[path = "../tests/plugin/node.rs"]
mod node;

use node::Host;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

const CALLS: usize = 1000;
/// Claims that are held all the while, as on a host with 8 GPUs in 56 parts.
const OTHERS: usize = 48;

/// GPUs of a claim, and what p99 may be.
const BARS: [(usize, Duration); 2] = [(1, Duration::from_millis(5)), (8, Duration::from_millis(10))];

fn main() {
    let full = std::env::args().any(|argument| argument == "--bench");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let directory = std::env::var_os("BAILIWICK_BENCH_DIR").unwrap_or(env!("CARGO_TARGET_TMPDIR").into());
    let disk = tempfile::tempdir_in(directory).unwrap();
    for (gpus, bar) in BARS {
        for (others, what) in [(0, "nothing else held"), (OTHERS, "48 other claims held")] {
            let (times, fsyncs) = runtime.block_on(prepare(disk.path(), gpus, others));
            let (p99, alone) = (percentile(&times, 99), percentile(&fsyncs, 99));
            println!(
                "prepare a claim of {gpus} GPU, {what}: {}; fsyncs alone: {} (bar: p99 {bar:?})",
                told(&times),
                told(&fsyncs)
            );
            assert!(p99 <= bar || !full, "p99 is {p99:?}; this disk takes {alone:?} for the fsyncs alone");
        }
    }
}

/// Times of calls, and of the fsyncs of one call, sorted.
async fn prepare(disk: &Path, gpus: usize, others: usize) -> (Vec<Duration>, Vec<Duration>) {
    let directory = tempfile::tempdir_in(disk).unwrap();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    std::os::unix::fs::symlink(memory.path(), directory.path().join("cdi")).unwrap();
    let host = Host::at(directory.path());
    for other in 0..others {
        let name = format!("other-{other}");
        host.allocate(&name, &[&format!("gpu-{}-mig-{}-1", 100 + other / 7, other % 7)]);
        host.prepare(&name).await.unwrap();
    }
    let size = std::fs::metadata(host.checkpoint()).map_or(1000, |file| file.len());
    let devices: Vec<_> = (0..gpus).map(|gpu| format!("gpu-{gpu}")).collect();
    host.allocate("bench", &devices.iter().map(String::as_str).collect::<Vec<_>>());
    let (mut times, mut fsyncs) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        let start = Instant::now();
        host.prepare("bench").await.unwrap();
        times.push(start.elapsed());
        host.unprepare("bench").await.unwrap();
        let start = Instant::now();
        write(disk, size);
        fsyncs.push(start.elapsed());
    }
    times.sort();
    fsyncs.sort();
    (times, fsyncs)
}

/// A file of this size written, synchronised and renamed, and its directory synchronised.
fn write(disk: &Path, size: u64) {
    let temporary = disk.join("temporary");
    let mut file = File::create(&temporary).unwrap();
    file.write_all(&vec![b'x'; usize::try_from(size).unwrap()]).unwrap();
    file.sync_all().unwrap();
    std::fs::rename(&temporary, disk.join("file")).unwrap();
    File::open(disk).unwrap().sync_all().unwrap();
}

fn told(times: &[Duration]) -> String {
    format!("p50 {:.2?}, p99 {:.2?}", percentile(times, 50), percentile(times, 99))
}

/// Of times that are sorted.
fn percentile(times: &[Duration], share: usize) -> Duration {
    times[(times.len() * share / 100).min(times.len() - 1)]
}
