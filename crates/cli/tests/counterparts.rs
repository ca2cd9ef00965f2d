//! The same commands on input that nobody here wrote: recorded trees of real machines, and sushy-emulator.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::format_push_string,
    reason = "tests fail by panicking and read well"
)]

mod support;

use std::io::Write as _;
use std::path::PathBuf;

use serde_json::Value;
use sim::{Bmc, Tree};
use support::cell::Served;
use support::{Desk, PLACES, start};

/// A recording: its name, the machine's serial, how many GPUs it shows, the serial of the first.
type Recorded = (&'static str, &'static str, usize, &'static str);

const RECORDED: [Recorded; 4] = [
    ("nvidia-dgx-h100", "1662923610124", 8, "1652923003067"),
    ("dell-poweredge", "F54P1G3", 1, "1654422007043"),
    ("lenovo-thinksystem", "J105958B", 8, ""),
    ("dmtf-rackmount", "437XR1138R2", 1, "2M220100SL"),
];

/// Where a recording is; `None`, said aloud, where there is none and nobody insists on it.
fn recording(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("BAILIWICK_RECORDINGS")
        .map_or_else(|| support::repository().join("../shared/redfish-recordings"), PathBuf::from);
    let path = folder.join(format!("{name}.tar.gz"));
    if path.is_file() {
        return Some(path);
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{} is missing; set BAILIWICK_RECORDINGS",
        path.display()
    );
    let line = format!(
        "NOT RUN: the recorded tree {name}; {} is missing (set BAILIWICK_RECORDINGS)\n",
        path.display()
    );
    std::io::stderr().write_all(line.as_bytes()).expect("standard error");
    None
}

#[tokio::test]
async fn every_recorded_machine_is_inspected() {
    let desk = Desk::new();
    let schema = support::repository().join("docs/reference/inventory.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap();
    for (name, serial, gpus, first) in RECORDED {
        let Some(path) = recording(name) else { continue };
        let bmc = start(Bmc::builder(Tree::from_tar_gz(path).unwrap())).await;
        let words = ["inspect", &bmc.url(), "-u", "admin", "--password-file", "pw", "--pin", &bmc.pin()];
        let inventory = desk.run(&words).await.ends(0).json();
        jsonschema::validate(&schema, &inventory).unwrap();
        assert_eq!(inventory["identity"]["serial"], serial, "{name}");
        assert_eq!(inventory["gpus"].as_array().unwrap().len(), gpus, "{name}");
        if !first.is_empty() {
            assert_eq!(inventory["gpus"][0]["serial"], first, "{name}");
        }
        assert!(inventory["requests"]["count"].as_u64().unwrap() <= 300, "{name}");
        assert_eq!(bmc.counters().live_sessions, 0, "{name}");
    }
}

#[tokio::test]
async fn every_recorded_machine_is_enrolled_and_its_gpus_are_listed() {
    let served = Served::start().await;
    let mut declared = PLACES.to_owned();
    let mut running = Vec::new();
    for (name, ..) in RECORDED {
        let Some(path) = recording(name) else { continue };
        let bmc = start(Bmc::builder(Tree::from_tar_gz(path).unwrap())).await;
        declared += &format!(
            "---\napiVersion: bailiwick.dev/v1alpha1\nkind: Machine\nmetadata: {{name: {name}}}\nspec:\n  site: lab\n  bmc: {{address: {}, username: admin, passwordFile: pw, pin: {}}}\n",
            bmc.address(),
            bmc.pin()
        );
        running.push((name, bmc));
    }
    if running.is_empty() {
        return;
    }
    served.desk.write("recorded.yaml", &declared);
    served.run(&["apply", "-f", "recorded.yaml", "--yes"]).await.ends(0);
    served.until_enrolled(&running.iter().map(|(name, _)| *name).collect::<Vec<_>>()).await;
    for (name, serial, gpus, _) in RECORDED {
        if !running.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let machine = served.run(&["get", "machine", name, "-o", "json"]).await.ends(0).json();
        assert_eq!((&machine["serial"], &machine["gpus"]), (&serial.into(), &gpus.into()), "{name}");
    }
}

#[tokio::test]
async fn a_bmc_that_nobody_here_wrote_is_discovered_and_inspected() {
    let (desk, sushy) = (Desk::new(), testbed::SushyEmulator::start().await.unwrap());
    let address = sushy.address().to_string();
    let found = desk.run(&["discover", &address, "-o", "json"]).await.ends(0).json();
    let pin = found["found"][0]["pin"].as_str().unwrap();
    desk.write("sushy", sushy.password());
    let words =
        ["inspect", &address, "--username", sushy.username(), "--password-file", "sushy", "--pin", pin];
    let inventory = desk.run(&words).await.ends(0).json();
    let uuid = inventory["identity"]["uuid"].as_str().unwrap();
    assert!(sushy.system_uuids().any(|known| known == uuid), "{inventory}");
    assert!(!inventory["diagnostics"].as_array().unwrap().is_empty());
}
