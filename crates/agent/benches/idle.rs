//! What the agent costs a host where nothing happens: eight GPUs, each in seven parts, permits for all, a cell that is away.
//!
//! `cargo bench --workspace --bench idle` fails where a bar is missed: 20 MiB resident, 0.1 % of a core, and 15 MiB of binary where
//! `BAILIWICK_AGENT` names one that was built as it is shipped. Run without `--bench`, as `cargo test` does, it measures a second
//! and holds nothing against the bars.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that fails is none")]

use agent::cell::uptime;
use domain::Name;
use domain::permit::{Partition, Permit, Permits, PublicKey, SignedPermits};
use jiff::Timestamp;
use nvml_stand_in::{Description, Installed};
use rcgen::{CertificateParams, KeyPair};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PARTS: u32 = 7;
/// `1g.10gb` of an H100.
const PROFILE: u32 = 19;
const RESIDENT_KIB: u64 = 20 * 1024;
const BINARY_KIB: u64 = 15 * 1024;
/// Parts of a million.
const IDLE_PPM: u128 = 1000;

fn main() {
    let full = std::env::args().any(|argument| argument == "--bench");
    let span = Duration::from_secs(if full { 120 } else { 1 });
    let files = tempfile::tempdir().unwrap();
    let host = host();
    let installed = Installed::into(&make(files.path(), "driver"), &host).unwrap();
    enrol(files.path(), &host);
    let shipped = std::env::var_os("BAILIWICK_AGENT").map(PathBuf::from);
    let program = shipped.clone().unwrap_or_else(|| env!("CARGO_BIN_EXE_bailiwick-agent").into());
    let agent = Agent::start(&program, files.path(), &installed.library());
    until_it_listens(files.path());
    // Whatever it does once is done.
    std::thread::sleep(span / 20);
    let (before, start) = (agent.on_cpu(), Instant::now());
    std::thread::sleep(span);
    let idle = agent.on_cpu().saturating_sub(before).as_nanos() * 1_000_000 / start.elapsed().as_nanos();
    let (resident, most) = (agent.memory("VmRSS"), agent.memory("VmHWM"));
    let binary = fs::metadata(&program).unwrap().len() / 1024;
    let parts = host.gpus().unwrap().len() * PARTS as usize;
    println!(
        "agent with 8 GPUs in {parts} parts: {resident} KiB resident, {most} at most (bar: {RESIDENT_KIB})"
    );
    match shipped {
        Some(_) => println!("its binary, as it is shipped: {binary} KiB (bar: {BINARY_KIB})"),
        None => println!("its binary, as it is measured: {binary} KiB"),
    }
    println!("idle for {span:?}: {idle} millionths of a core (bar: {IDLE_PPM})");
    let fits = shipped.is_none() || binary <= BINARY_KIB;
    let kept = resident <= RESIDENT_KIB && fits && idle <= IDLE_PPM;
    assert!(kept || !full, "a bar is missed");
}

/// Eight H100, each in seven parts.
fn host() -> Description {
    let mut host = Description::parse(nvml_stand_in::host("h100").unwrap()).unwrap();
    for (index, gpu) in host.gpus.iter_mut().enumerate() {
        let instance = |at: u32| {
            json!({
                "uuid": format!("MIG-00000000-0000-4000-8000-{index:08}{at:04}"), "gpuInstance": at + 7,
                "computeInstance": 0, "profile": PROFILE, "placement": { "start": at, "size": 1 },
                "gpuInstanceMinor": null, "computeInstanceMinor": null,
            })
        };
        let mut mig = host.each["mig"].clone();
        mig["enabled"] = true.into();
        mig["pending"] = true.into();
        mig["instances"] = (0..PARTS).map(instance).collect();
        gpu.as_object_mut().unwrap().insert("mig".to_owned(), mig);
    }
    host
}

fn make(files: &Path, name: &str) -> PathBuf {
    let directory = files.join(name);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// What enrolment and the last report of a cell leave that nobody reaches any more, and a kubeconfig for an API server that is not asked.
fn enrol(files: &Path, host: &Description) {
    let state = make(files, "state");
    let signer = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap().pem();
    let identity = json!({
        "cell": "https://127.0.0.1:1", "machine": "bench", "key": key.serialize_pem(), "certificate": certificate,
        "ca": certificate, "permitKey": PublicKey::new(signer.public_key().as_ref().try_into().unwrap()),
        "received": Timestamp::now(),
    });
    fs::write(state.join("cell.json"), identity.to_string()).unwrap();
    let issued = Timestamp::now();
    let permit = |gpu: usize, at: u32| Permit {
        device: Name::new(format!("gpu-{gpu}-mig-{PROFILE}-{at}")).unwrap(),
        gpu: host.gpus().unwrap()[gpu].gpu.uuid.clone().unwrap(),
        partition: Some(Partition { profile: PROFILE, start: at }),
        verdict: None,
        valid_until: issued + Duration::from_hours(1),
    };
    let all = (0..host.gpus.len()).flat_map(|gpu| (0..PARTS).map(move |at| (gpu, at)));
    let permits = all.map(|(gpu, at)| permit(gpu, at)).collect();
    let permits = Permits { machine: Name::new("bench").unwrap(), issued, permits };
    let sign = |bytes: &[u8]| Ok::<_, Infallible>(signer.sign(bytes).as_ref().to_vec());
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let kept = json!({
        "bootId": boot_id.trim(), "received": u64::try_from(uptime().as_millis()).unwrap(),
        "signed": SignedPermits::seal(&permits, sign).unwrap(),
    });
    fs::write(state.join("permits.json"), kept.to_string()).unwrap();
    fs::write(files.join("ca.pem"), &certificate).unwrap();
    fs::write(files.join("token"), "unused").unwrap();
    let kubeconfig: Value = json!({
        "current-context": "bench",
        "contexts": [{ "name": "bench", "context": { "cluster": "bench", "user": "bench" } }],
        "clusters": [{ "name": "bench", "cluster": { "server": "https://127.0.0.1:1", "certificate-authority": "ca.pem" } }],
        "users": [{ "name": "bench", "user": { "tokenFile": "token" } }],
    });
    fs::write(files.join("kubeconfig"), kubeconfig.to_string()).unwrap();
}

fn until_it_listens(files: &Path) {
    let socket = files.join("kubelet/plugins_registry/gpu@gpu.bailiwick.dev-reg.sock");
    let start = Instant::now();
    while !socket.exists() {
        let log = || fs::read_to_string(files.join("log")).unwrap_or_default();
        assert!(start.elapsed() < Duration::from_mins(1), "{}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An agent, ended with its value.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    fn start(program: &Path, files: &Path, library: &Path) -> Self {
        make(files, "kubelet");
        let directories = [
            "state-dir=state",
            "kubelet-dir=kubelet",
            "cdi-dir=cdi",
            "static-cdi-dir=static-cdi",
            "dev-root=dev",
            "kubeconfig=kubeconfig",
        ];
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).arg("run");
        for (option, name) in directories.iter().filter_map(|text| text.split_once('=')) {
            if option != "kubeconfig" {
                make(files, name);
            }
            command.arg(format!("--{option}")).arg(files.join(name));
        }
        command.arg("--nvml").arg(library);
        let log = fs::File::create(files.join("log")).unwrap();
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// What all its threads have had of the processors so far (proc(5), schedstat).
    fn on_cpu(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        let of = |thread: std::io::Result<fs::DirEntry>| {
            let text = fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
        };
        Duration::from_nanos(threads.map(of).sum())
    }

    /// A size of its memory in KiB.
    fn memory(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
    }
}
