//! What people see of GPUs once an agent reports: word for word, on a simulated machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use agent::cell::{Host, Reporter, StateDir, enrol};
use domain::agent::{PreparedDevice, ScrubMethod, ScrubRecord, ScrubbedClaim};
use domain::probe::{self, Finding, Mig, MigProfile, Pci, Placement, Probe, ProbedGpu, Severity};
use serde_json::{Value, json};
use sim::{Bmc, Model, RunningBmc, Seed};
use support::cell::Served;
use support::{Desk, PLACES, start};
use testbed::ControlPlane;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

const CLASS: &str = "\
---
apiVersion: bailiwick.dev/v1alpha1
kind: GpuClass
metadata: {name: seen}
spec: {jurisdiction: eu, requires: [probed]}
---
apiVersion: bailiwick.dev/v1alpha1
kind: GpuClass
metadata: {name: halves}
spec: {jurisdiction: eu, requires: [probed], partition: 3g.24gb, extendedResource: true}
---
";

/// Half of a GPU.
const HALF: &str = "3g.24gb";

/// A machine with this BMC; its GPUs may be parted.
fn machine(name: &str, bmc: &RunningBmc) -> String {
    format!(
        "apiVersion: bailiwick.dev/v1alpha1\nkind: Machine\nmetadata: {{name: {name}}}\nspec:\n  site: lab\n  partitions: ['*']\n  bmc: {{address: {}, username: admin, passwordFile: pw}}\n---\n",
        bmc.address()
    )
}

/// What the driver would tell of a machine's GPUs if it agreed with the BMC.
fn probe(gpus: &[Value], system_uuid: &str) -> Probe {
    let text = |gpu: &Value, key: &str| gpu[key].as_str().map(str::to_owned);
    let probed = |(index, item): (usize, &Value)| {
        let (gpu, index) = (&item["gpu"], u32::try_from(index).unwrap());
        ProbedGpu {
            uuid: text(gpu, "uuid").map(|uuid| format!("GPU-{uuid}")),
            index,
            serial: text(gpu, "serial"),
            model: text(gpu, "model"),
            pci: Pci {
                address: text(gpu, "pciAddress").or_else(|| Some(format!("0000:{index}1:00.0"))),
                root: Some(format!("pci0000:{index}0")),
                ..Pci::default()
            },
            numa_node: Some(index / 4),
            ..ProbedGpu::default()
        }
    };
    Probe {
        taken: jiff::Timestamp::now(),
        boot_id: None,
        host: probe::Host { hostname: None, system_uuid: Some(system_uuid.to_owned()) },
        driver: Some(probe::Driver::default()),
        confidential_computing: None,
        gpus: gpus.iter().enumerate().map(probed).collect(),
        diagnostics: Vec::new(),
    }
}

/// Without what differs from run to run.
fn settled(text: &str) -> String {
    let word = |word: &str| {
        let number = word.trim_end_matches(|c: char| c.is_ascii_lowercase());
        let is_span =
            number.len() < word.len() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        match word {
            _ if word.len() == 20 && word.ends_with('Z') && word.starts_with("20") => "[AT]".to_owned(),
            _ if is_span => "[SPAN]".to_owned(),
            _ => word.to_owned(),
        }
    };
    text.lines().fold(String::new(), |all, line| {
        let words: Vec<_> = line.split(' ').map(word).collect();
        all + words.join(" ").trim_end() + "\n"
    })
}

/// Two of this profile, and no more, can be made of a GPU in MIG mode.
fn in_halves() -> Mig {
    let placements = [0, 4].map(|start| Placement { start, size: 4 }).to_vec();
    let half = MigProfile {
        id: 9,
        name: HALF.to_owned(),
        memory_bytes: 24 << 30,
        placements,
        max_instances: 2,
        ..MigProfile::default()
    };
    Mig { enabled: true, pending: true, profiles: vec![half], instances: vec![] }
}

/// A cluster in which claims have devices of `m1`. Nobody works there: what is written stays.
struct Cluster {
    plane: ControlPlane,
}

impl Cluster {
    async fn start() -> Self {
        let plane = ControlPlane::options().scheduler(false).controller_manager(false).start().await.unwrap();
        let cluster = Self { plane };
        let role = testbed::repository_root().join("manifests/cell-clusterrole.yaml");
        cluster.kubectl(&["apply", "-f", role.to_str().unwrap()]).await;
        let bind =
            ["create", "clusterrolebinding", "cell", "--clusterrole=bailiwick-cell", "--user=bailiwick-cell"];
        cluster.kubectl(&bind).await;
        cluster.kubectl(&["create", "namespace", "team"]).await;
        cluster
    }

    async fn kubectl(&self, arguments: &[&str]) {
        self.plane.kubectl(arguments, None).await.unwrap().success().unwrap();
    }

    /// A claim that has a device, for the pod of its name where it has one.
    async fn allocate(&self, name: &str, device: &str, has_pod: bool) {
        let claim = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": { "name": name, "namespace": "team" },
            "spec": { "devices": { "requests": [{ "name": "gpu", "exactly": { "deviceClassName": "any" } }] } },
        });
        let created = self.plane.kubectl(&["create", "-f", "-"], Some(&claim.to_string())).await.unwrap();
        created.success().unwrap();
        let result =
            json!({ "request": "gpu", "driver": "gpu.bailiwick.dev", "pool": "m1", "device": device });
        let pod = json!({ "resource": "pods", "name": name, "uid": format!("uid-of-{name}") });
        let reserved = if has_pod { json!([pod]) } else { json!([]) };
        let status = json!({ "status": { "allocation": { "devices": { "results": [result] } }, "reservedFor": reserved } });
        let patch =
            ["patch", "resourceclaim", name, "-n", "team", "--subresource=status", "--type=merge", "-p"];
        self.kubectl(&[&patch[..], &[&status.to_string()]].concat()).await;
    }
}

/// Enrols the agent of a machine, and has it report.
async fn report(served: &Served, agents: &str, name: &str, host: impl FnOnce(&str) -> Host) -> Reporting {
    let detail = served.run(&["get", "machine", name, "-o", "json"]).await.ends(0).json();
    let uuid = detail["inventory"]["identity"]["uuid"].as_str().unwrap().to_owned();
    let token = served.run(&["agent-token", name]).await.ends(0);
    assert!(token.stderr.contains(&format!("good once, for the agent of {name}")), "{token:?}");
    let dir = StateDir::open(served.desk.path(&format!("agent-{name}"))).unwrap();
    enrol(&dir, agents, token.stdout.trim(), Some(uuid.clone())).await.unwrap();
    let (sender, seen) = watch::channel(host(&uuid));
    let (reporter, _gate) = Reporter::new(dir, Some("boot".into()), seen).unwrap();
    let stop = CancellationToken::new();
    Reporting { _host: sender, stop: stop.clone().drop_guard(), task: tokio::spawn(reporter.run(stop)) }
}

/// An agent that reports until it is stopped.
struct Reporting {
    _host: watch::Sender<Host>,
    stop: DropGuard,
    task: JoinHandle<()>,
}

/// What these commands print, one after the other.
async fn printed(served: &Served, commands: &[String]) -> String {
    let mut seen = String::new();
    for command in commands {
        let run = served.run(&command.split(' ').collect::<Vec<_>>()).await;
        // The BMC's own part of a machine is in the transcripts of `inspect`, and its port differs.
        let stdout = match run.stdout.split_once("\nAgent\n") {
            Some((_, rest)) => format!("[…]\nAgent\n{}[…]\n", rest.split_once("\nInventory\n").unwrap().0),
            None => run.stdout.clone(),
        };
        write!(seen, "$ bailiwick {command}\n{}{}", settled(&stdout), settled(&run.stderr)).unwrap();
        if run.code != 0 {
            writeln!(seen, "[{}]", run.code).unwrap();
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn gpus_are_shown_with_their_views_their_health_and_who_has_them() {
    let of = async |model: Model, seed: &str| {
        let bmc = Bmc::builder(model.tree()).behaviour(model.behaviour()).seed(Seed::new(&[seed]));
        start(bmc.credentials("admin", "simulated")).await
    };
    let (m1, m2) = (of(Model::PowerEdgeXe, "bmc").await, of(Model::DgxH100, "m2").await);
    let cluster = Cluster::start().await;
    let desk = Desk::new();
    let profile = |name: &str| {
        std::fs::read_to_string(support::repository().join("firmware-profiles").join(name)).unwrap()
    };
    let profiles =
        [profile("simulated-poweredge-xe7740.yaml"), profile("nvidia-dgx-h100.yaml")].join("---\n");
    desk.write("inv.yaml", &[PLACES, CLASS, &machine("m1", &m1), &machine("m2", &m2), &profiles].concat());
    let mut command = desk.command(&["serve", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0"]);
    command.args(["--jurisdiction", "eu", "--data-dir", "data", "--log-level", "error"]);
    command.args([
        "--agent-report-interval",
        "1s",
        "--cluster-user",
        "bailiwick-cell",
        "--publish-kubeconfig",
    ]);
    command.arg(cluster.plane.kubeconfig_for("bailiwick-cell", &[]).unwrap());
    let token_file = desk.path("data/admin.token");
    let mut served = Served::of(desk, command, token_file).await;
    let agents = served.said().await;
    let agents = agents.strip_prefix("agents call ").expect("it says where agents call").to_owned();
    served.run(&["apply", "-f", "inv.yaml", "--yes"]).await.ends(0);
    served.until_enrolled(&["m1", "m2"]).await;

    let gpus = served.run(&["get", "gpus", "-o", "json"]).await.ends(0).json();
    let gpus = |machine: &str| -> Vec<Value> {
        let all = gpus["items"].as_array().unwrap().iter();
        all.filter(|gpu| gpu["machine"] == machine).cloned().collect()
    };
    let device = |machine: &str, at: usize| gpus(machine)[at]["device"].as_str().unwrap().to_owned();
    // Nobody but the BMC has told of them yet.
    let commands = ["get gpus m1 --wide".to_owned(), format!("describe gpu {}", device("m1", 1))];
    let mut seen = printed(&served, &commands).await;
    let why = served.run(&["why", "m1"]).await.ends(0).stdout;
    for code in ["provision.not-configured", "gpu.waits.driver"] {
        assert!(why.contains(&format!("[{code}]")), "{why}");
    }
    let halves = [0, 4].map(|start| format!("{}-mig-9-{start}", device("m1", 3)));
    for (claim, device, has_pod) in [
        ("doubtful-0", &device("m1", 1), true),
        ("infer-0", &halves[0], true),
        ("infer-1", &halves[1], false),
    ] {
        cluster.allocate(claim, device, has_pod).await;
    }
    let prepared = PreparedDevice { claim: "claim-uid-1".into(), device: halves[0].parse().unwrap() };
    let first = report(&served, &agents, "m1", |uuid| {
        let mut probe = probe(&gpus("m1"), uuid);
        probe.gpus[1].serial = Some("1650000000000".into());
        probe.gpus[2].health.push(Finding {
            severity: Severity::Warning,
            code: "gpu.health.row-remap-pending".into(),
            message: "a row waits for a reset to be remapped".into(),
        });
        probe.gpus[3].mig = Some(in_halves());
        let scrub = |second: i64, failure: Option<&str>| ScrubRecord {
            at: jiff::Timestamp::from_second(1_790_000_000 + second).unwrap(),
            device: device("m1", 2),
            gpu: probe.gpus[2].uuid.clone().unwrap(),
            claim: Some(ScrubbedClaim { uid: "u".into(), namespace: "ml".into(), name: "training".into() }),
            method: ScrubMethod::Reset,
            ecc_before: Some(2),
            ecc_after: failure.is_none().then_some(0),
            failure: failure.map(str::to_owned),
        };
        let scrubs = vec![scrub(0, Some("1 processes still use it")), scrub(60, None)];
        let (prepared, problems) = (vec![prepared], Vec::new());
        Host { probe: Arc::new(probe), registered: None, prepared, problems, scrubs }
    });
    let second = report(&served, &agents, "m2", |uuid| {
        let probe = Arc::new(probe(&gpus("m2"), uuid));
        Host { probe, registered: None, prepared: Vec::new(), problems: Vec::new(), scrubs: Vec::new() }
    });
    let reporting = [first.await, second.await];
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    loop {
        let told = served.run(&["get", "gpus", "--wide"]).await.ends(0).stdout;
        let all = ["probed", "conflicting", "allocated", "allocatable", "team/infer-0", "claim-uid-1"];
        if all.iter().all(|word| told.contains(word)) && !told.contains("inventoried") {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "not all has arrived:\n{told}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let history = served.run(&["history", "m1"]).await.ends(0).stdout;
    for kind in ["gpu.scrub-failed", "gpu.scrubbed"] {
        assert_eq!(history.matches(kind).count(), 1, "{history}");
    }
    let commands = [
        "get gpus".to_owned(),
        "get gpus --wide".to_owned(),
        format!("describe gpu {}", device("m1", 1)),
        format!("describe gpu {}", device("m1", 2)),
        format!("describe gpu {}", device("m2", 0)),
        "describe class halves".to_owned(),
        "describe machine m1".to_owned(),
        "describe gpu nobody".to_owned(),
    ];
    seen += &printed(&served, &commands).await;
    for Reporting { stop, task, .. } in reporting {
        drop(stop);
        task.await.unwrap();
    }
    let golden = support::repository().join("crates/cli/tests/cmd/gpus.golden");
    if std::env::var("TRYCMD").as_deref() == Ok("overwrite") {
        std::fs::write(golden, &seen).unwrap();
    } else {
        let wanted = std::fs::read_to_string(golden).unwrap();
        assert!(seen == wanted, "TRYCMD=overwrite writes what is printed now:\n{seen}");
    }
}
