//! What people see of GPUs once an agent reports: word for word, on a simulated machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use agent::cell::{Host, Reporter, StateDir, enrol};
use domain::agent::{PreparedDevice, ScrubMethod, ScrubRecord, ScrubbedClaim};
use domain::probe::{self, Finding, Pci, Probe, ProbedGpu, Severity};
use serde_json::Value;
use sim::{Bmc, Model};
use support::cell::Served;
use support::{Desk, PLACES, start};
use tokio_util::sync::CancellationToken;

const CLASS: &str = "\
---
apiVersion: bailiwick.dev/v1alpha1
kind: GpuClass
metadata: {name: seen}
spec: {jurisdiction: eu, requires: [probed]}
---
";

/// What the driver would tell of a machine's GPUs if it agreed with the BMC.
fn probe(gpus: &Value, system_uuid: &str) -> Probe {
    let text = |gpu: &Value, key: &str| gpu[key].as_str().map(str::to_owned);
    let probed = |(index, item): (usize, &Value)| {
        let (gpu, index) = (&item["gpu"], u32::try_from(index).unwrap());
        ProbedGpu {
            uuid: text(gpu, "uuid").map(|uuid| format!("GPU-{uuid}")),
            index,
            serial: text(gpu, "serial"),
            model: text(gpu, "model"),
            pci: Pci {
                address: text(gpu, "pciAddress"),
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
        gpus: gpus["items"].as_array().unwrap().iter().enumerate().map(probed).collect(),
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

#[tokio::test(flavor = "multi_thread")]
async fn gpus_are_shown_with_their_views_their_health_and_who_has_them() {
    let model = Model::PowerEdgeXe;
    let bmc =
        start(Bmc::builder(model.tree()).behaviour(model.behaviour()).credentials("admin", "simulated"))
            .await;
    let desk = Desk::new();
    let machine = format!(
        "apiVersion: bailiwick.dev/v1alpha1\nkind: Machine\nmetadata: {{name: m1}}\nspec:\n  site: lab\n  bmc: {{address: {}, username: admin, passwordFile: pw}}\n---\n",
        bmc.address()
    );
    let profile = support::repository().join("firmware-profiles/simulated-poweredge-xe7740.yaml");
    desk.write(
        "inv.yaml",
        &(PLACES.to_owned() + CLASS + &machine + &std::fs::read_to_string(profile).unwrap()),
    );
    let mut command = desk.command(&["serve", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0"]);
    command.args(["--jurisdiction", "eu", "--data-dir", "data", "--log-level", "warn"]);
    command.args(["--agent-report-interval", "1s"]);
    let token_file = desk.path("data/admin.token");
    let mut served = Served::of(desk, command, token_file).await;
    let agents = served.said().await;
    let agents = agents.strip_prefix("agents call ").expect("it says where agents call").to_owned();
    served.run(&["apply", "-f", "inv.yaml", "--yes"]).await.ends(0);
    served.until_enrolled(&["m1"]).await;

    let gpus = served.run(&["get", "gpus", "-o", "json"]).await.ends(0).json();
    let detail = served.run(&["get", "machine", "m1", "-o", "json"]).await.ends(0).json();
    let uuid = detail["inventory"]["identity"]["uuid"].as_str().unwrap().to_owned();
    let device = |at: usize| gpus["items"][at]["device"].as_str().unwrap().to_owned();
    // Nobody but the BMC has told of them yet.
    let commands = ["get gpus --wide", &format!("describe gpu {}", device(1)), "why m1"];
    let mut shown = transcript(&served, &commands).await;
    let token = served.run(&["agent-token", "m1"]).await.ends(0);
    assert!(token.stderr.contains("good once, for the agent of m1"), "{token:?}");
    let dir = StateDir::open(served.desk.path("agent")).unwrap();
    enrol(&dir, &agents, token.stdout.trim(), Some(uuid.clone())).await.unwrap();

    let mut probe = probe(&gpus, &uuid);
    probe.gpus[1].serial = Some("1650000000000".into());
    probe.gpus[2].health.push(Finding {
        severity: Severity::Warning,
        code: "gpu.health.row-remap-pending".into(),
        message: "a row waits for a reset to be remapped".into(),
    });
    let prepared = PreparedDevice { claim: "claim-uid-1".into(), device: device(3).parse().unwrap() };
    let scrub = |second: i64, failure: Option<&str>| ScrubRecord {
        at: jiff::Timestamp::from_second(1_790_000_000 + second).unwrap(),
        device: device(2),
        gpu: probe.gpus[2].uuid.clone().unwrap(),
        claim: Some(ScrubbedClaim { uid: "u".into(), namespace: "ml".into(), name: "training".into() }),
        method: ScrubMethod::Reset,
        ecc_before: Some(2),
        ecc_after: failure.is_none().then_some(0),
        failure: failure.map(str::to_owned),
    };
    let scrubs = vec![scrub(0, Some("1 processes still use it")), scrub(60, None)];
    let host = Host {
        probe: Arc::new(probe),
        registered: None,
        prepared: vec![prepared],
        problems: Vec::new(),
        scrubs,
    };
    let (_sender, seen) = tokio::sync::watch::channel(host);
    let (reporter, _gate) = Reporter::new(dir, Some("boot".into()), seen).unwrap();
    let stop = CancellationToken::new();
    let reporting = tokio::spawn(reporter.run(stop.clone()));
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while !served.run(&["get", "gpus"]).await.ends(0).stdout.contains("allocated") {
        assert!(tokio::time::Instant::now() < deadline, "the report did not arrive");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let history = served.run(&["history", "m1"]).await.ends(0).stdout;
    for kind in ["gpu.scrub-failed", "gpu.scrubbed"] {
        assert_eq!(history.matches(kind).count(), 1, "{history}");
    }
    let commands = [
        "get gpus",
        "get gpus --wide",
        &format!("describe gpu {}", device(1)),
        &format!("describe gpu {}", device(2)),
        "describe machine m1",
        "describe gpu nobody",
    ];
    shown += &transcript(&served, &commands).await;
    stop.cancel();
    reporting.await.unwrap();
    let golden = support::repository().join("crates/cli/tests/cmd/gpus.golden");
    if std::env::var("TRYCMD").as_deref() == Ok("overwrite") {
        std::fs::write(golden, &shown).unwrap();
    } else {
        let wanted = std::fs::read_to_string(golden).unwrap();
        assert!(shown == wanted, "TRYCMD=overwrite writes what is printed now:\n{shown}");
    }
}

/// Commands and what they print.
async fn transcript(served: &Served, commands: &[&str]) -> String {
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
