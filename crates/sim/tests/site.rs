//! Many machines behind one listener.

// Helpers of tests fail by panicking too; clippy.toml allows it in test functions only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;

use bailiwick_sim::{Action, Fault, Model, RunningSite, Site};
use serde_json::Value;
use support::{body, client, recording};

async fn get(site: &RunningSite, index: usize, target: &str) -> reqwest::Response {
    let machine = &site.machines()[index];
    let request = client().get(format!("{}{target}", machine.url));
    request.basic_auth(&machine.username, Some(&machine.password)).send().await.unwrap()
}

fn two(directory: &std::path::Path) -> Site {
    Site::builder(directory).seed("test").machines(Model::CpuNode, 2).build()
}

#[tokio::test]
async fn machines_are_told_apart_by_address_on_one_port() {
    let directory = tempfile::tempdir().unwrap();
    let site = two(directory.path()).start().await.unwrap();
    let mut seen = HashSet::new();
    for (index, machine) in site.machines().iter().enumerate() {
        assert_eq!(machine.port, site.port());
        let system = body(get(&site, index, "/redfish/v1/Systems/system").await).await;
        assert_eq!(system["SerialNumber"], machine.serial.as_str());
        seen.insert(machine.serial.clone());
        assert_eq!(site.bmc(&machine.name).unwrap().counters().requests, 1);
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn an_address_without_a_machine_gets_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    let site = two(directory.path()).start().await.unwrap();
    assert!(client().get(format!("https://127.99.0.1:{}/redfish/v1", site.port())).send().await.is_err());
}

#[tokio::test]
async fn machines_with_a_listener_each_share_the_port_too() {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::builder(directory.path()).machines(Model::CpuNode, 3).one_listener_each().build();
    let site = site.start().await.unwrap();
    for index in 0..3 {
        let system = body(get(&site, index, "/redfish/v1/Systems/system").await).await;
        assert_eq!(system["SerialNumber"], site.machines()[index].serial.as_str());
    }
}

#[tokio::test]
async fn a_second_run_has_the_same_keys_serials_password_and_port() {
    let directory = tempfile::tempdir().unwrap();
    let first = two(directory.path()).start().await.unwrap();
    let (machines, port) = (first.machines().to_vec(), first.port());
    first.shutdown().await;
    let second = two(directory.path()).start().await.unwrap();
    assert_eq!(second.port(), port);
    for (a, b) in machines.iter().zip(second.machines()) {
        assert_eq!(
            (&a.name, &a.serial, &a.uuid, &a.pin, &a.password),
            (&b.name, &b.serial, &b.uuid, &b.pin, &b.password)
        );
        assert_eq!(a.url, b.url);
    }
}

#[tokio::test]
async fn a_remembered_port_that_is_taken_is_replaced_and_a_named_one_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let site = two(directory.path()).start().await.unwrap();
    let taken = site.port();
    let other = tempfile::tempdir().unwrap();
    let named = Site::builder(other.path()).machines(Model::CpuNode, 1).port(taken).build();
    assert_eq!(named.start().await.unwrap_err().code(), "sim.listen");
    let beside = two(directory.path()).start().await.unwrap();
    assert_ne!(beside.port(), taken);
}

#[tokio::test]
async fn a_rotated_key_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let site = two(directory.path()).start().await.unwrap();
    let name = site.machines()[0].name.clone();
    let rotated = site.bmc(&name).unwrap().rotate_key().unwrap();
    site.shutdown().await;
    let again = two(directory.path()).start().await.unwrap();
    assert_eq!(again.machines()[0].pin, rotated);
}

#[tokio::test]
async fn shutting_a_site_down_ends_its_connections() {
    let directory = tempfile::tempdir().unwrap();
    let site = two(directory.path()).start().await.unwrap();
    let url = format!("{}/redfish/v1", site.machines()[0].url);
    let client = client();
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    site.shutdown().await;
    assert!(client.get(&url).send().await.is_err());
}

#[tokio::test]
async fn dropping_a_site_ends_it_too() {
    let directory = tempfile::tempdir().unwrap();
    let site = two(directory.path()).start().await.unwrap();
    let url = format!("{}/redfish/v1", site.machines()[0].url);
    let client = client();
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    drop(site);
    let ended = async { while client.get(&url).send().await.is_ok() {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), ended).await.unwrap();
}

#[tokio::test]
async fn the_quickstart_rack_has_eight_servers_of_three_models() {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::quickstart_rack(directory.path()).start().await.unwrap();
    let names: Vec<&str> = site.machines().iter().map(|machine| machine.name.as_str()).collect();
    let expected: Vec<String> = (1..=8).map(|n| format!("r1-u{n:02}")).collect();
    assert_eq!(names, expected);
    let models: HashSet<&str> = site.machines().iter().map(|machine| machine.model.as_str()).collect();
    assert_eq!(models, HashSet::from(["dgx-h100", "poweredge-xe", "cpu-node"]));
}

#[tokio::test]
async fn the_password_is_generated_and_its_file_private() {
    let directory = tempfile::tempdir().unwrap();
    let site = two(directory.path()).start().await.unwrap();
    let kept = std::fs::read_to_string(site.password_file()).unwrap();
    assert_eq!(kept, site.machines()[0].password);
    assert_eq!(kept.len(), 24);
    assert_eq!(std::fs::metadata(site.password_file()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_rule_holds_for_all_machines_or_for_those_named() {
    let directory = tempfile::tempdir().unwrap();
    let rule = Fault::on("/redfish/v1/Systems", Action::status(500, ""));
    let site = Site::builder(directory.path()).machines(Model::CpuNode, 2).fault_on("*-u02", rule).build();
    let site = site.start().await.unwrap();
    assert_eq!(get(&site, 0, "/redfish/v1/Systems").await.status(), 200);
    assert_eq!(get(&site, 1, "/redfish/v1/Systems").await.status(), 500);
    site.faults().add(Fault::on("**", Action::status(502, "")).times(1));
    assert_eq!(get(&site, 0, "/redfish/v1/Systems").await.status(), 502);
    assert_eq!(get(&site, 0, "/redfish/v1/Systems").await.status(), 200);
}

fn site_file(text: &str) -> (tempfile::TempDir, Result<Site, bailiwick_sim::Error>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.toml");
    std::fs::write(&path, text).unwrap();
    let site = Site::from_file(&path);
    (directory, site)
}

#[tokio::test]
async fn a_site_file_describes_racks_faults_and_a_password_file() {
    let (directory, site) = site_file(
        r#"
        seed = "berlin"
        state-directory = "state"
        page-size = 10
        username = "root"
        password-file = "pw"
        latency-scale = 0.5

        [[rack]]
        name = "a"
        [[rack.machines]]
        model = "cpu-node"
        count = 1
        [[rack.machines]]
        model = "poweredge-xe"
        prefix = "dell"

        [[fault]]
        machines = "dell*"
        selector = { method = "GET", path = "/redfish/v1/Chassis" }
        action = { status = { code = 503, headers = { Retry-After = "2" } } }
        remaining = 1

        [[fault]]
        selector = { path = "/redfish/v1/Managers" }
        action = { merge = { Extra = true } }
        "#,
    );
    std::fs::write(directory.path().join("pw"), "secret\n").unwrap();
    let site = site.unwrap().start().await.unwrap();
    let names: Vec<_> = site.machines().iter().map(|machine| machine.name.as_str()).collect();
    assert_eq!(names, ["a-u01", "dell01"]);
    assert_eq!(
        (site.machines()[0].username.as_str(), site.machines()[0].password.as_str()),
        ("root", "secret")
    );
    assert_eq!(get(&site, 1, "/redfish/v1/Chassis").await.status(), 503);
    assert_eq!(get(&site, 1, "/redfish/v1/Chassis").await.status(), 200);
    assert_eq!(body(get(&site, 0, "/redfish/v1/Managers").await).await["Extra"], true);
    let sensors = body(get(&site, 0, "/redfish/v1/Chassis/chassis/Sensors").await).await;
    assert_eq!(sensors["Members"].as_array().unwrap().len(), 10);
}

#[test]
fn the_example_site_file_is_a_site() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/site.toml");
    assert_eq!(Site::from_file(path).unwrap().machine_count(), 14);
}

#[tokio::test]
async fn the_latency_scale_holds_for_power_changes_too() {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::builder(directory.path()).machines(Model::CpuNode, 1).latency_scale(0.0).build();
    let site = site.start().await.unwrap();
    let machine = &site.machines()[0];
    let bmc = site.bmc(&machine.name).unwrap();
    bmc.set_behaviour(|behaviour| behaviour.power.delay = std::time::Duration::from_hours(1));
    let reset =
        client().post(format!("{}/redfish/v1/Systems/system/Actions/ComputerSystem.Reset", machine.url));
    let reset =
        reset.basic_auth(&machine.username, Some(&machine.password)).body("{\"ResetType\":\"ForceOff\"}");
    assert_eq!(reset.send().await.unwrap().status(), 204);
    assert_eq!(bmc.power_state(), Some(bailiwick_sim::PowerState::Off));
}

#[test]
fn every_action_can_be_written_in_a_site_file() {
    let actions = [
        r"{ status = { code = 500 } }",
        r"{ latency = { mean-ms = 10, jitter-ms = 5 } }",
        r#"{ replace = { body = "x", content-type = "text/html" } }"#,
        r"{ merge = { A = 1 } }",
        r"{ truncate = { after = 3 } }",
        r#""reset""#,
        r#""close""#,
        r"{ drip = { bytes-per-second = 9 } }",
        r"{ endless = { bytes = 1073741824 } }",
        r#""restart-bmc""#,
        r#"{ redirect = { location = "https://192.0.2.1/" } }"#,
    ];
    for action in actions {
        let (_directory, site) = site_file(&format!(
            "seed = 'x'\nstate-directory = 's'\n[[rack]]\nname = 'a'\n[[rack.machines]]\nmodel = 'cpu-node'\n[[fault]]\naction = {action}\n"
        ));
        site.unwrap_or_else(|error| panic!("{action}: {error:?}"));
    }
}

#[tokio::test]
async fn a_site_file_makes_machines_bootable_and_recordings_only_where_it_says_so() {
    let (_directory, site) = site_file(
        r#"
        seed = "x"
        state-directory = "s"
        [hosts]
        ironic-url = "http://127.0.0.1:6385"
        heartbeat-ms = 10
        [[rack]]
        name = "a"
        [[rack.machines]]
        model = "cpu-node"
        [[rack.machines]]
        model = "cpu-node"
        bootable = false
        "#,
    );
    let site = site.unwrap().start().await.unwrap();
    assert!(site.bmc("a-u01").unwrap().watch_booted().is_some());
    assert!(site.bmc("a-u02").unwrap().watch_booted().is_none());
    let manager = body(get(&site, 0, "/redfish/v1/Managers/bmc").await).await;
    assert!(manager["VirtualMedia"].is_object());
}

#[tokio::test]
async fn a_site_file_changes_what_some_machines_do() {
    let file = |word: &str| {
        format!(
            "seed='x'\nstate-directory='s'\n[[rack]]\nname='a'\n[[rack.machines]]\nmodel='poweredge-xe'\ncount=2\n\
             [[behaviour]]\nmachines='a-u02'\nclock-skew-s=-60\nset={{ {word}=7, power={{ delay-ms=5 }} }}\n"
        )
    };
    let (_directory, site) = site_file(&file("lockout-after"));
    let site = site.unwrap().start().await.unwrap();
    let (one, two) = (site.bmc("a-u01").unwrap(), site.bmc("a-u02").unwrap());
    assert_eq!((one.behaviour().lockout_after, two.behaviour().lockout_after), (None, Some(7)));
    assert_eq!(two.behaviour().power.delay, std::time::Duration::from_millis(5));
    assert!(two.behaviour().power.conflict_if_already, "what is not said stays the model's");
    assert_eq!((one.clock_skew().as_secs(), two.clock_skew().as_secs()), (0, -60));
    let (_directory, unknown) = site_file(&file("lockout-afterwards"));
    assert!(unknown.unwrap_err().to_string().contains("lockout-afterwards"));
}

#[test]
fn a_site_file_with_an_unknown_field_is_refused_with_its_line() {
    let (_directory, site) = site_file("seed = \"x\"\nstate-directory = \"s\"\nporrt = 1\n");
    let error = site.unwrap_err();
    assert_eq!(error.code(), "sim.site-syntax");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("line 3") && source.contains("porrt"), "{source}");
}

#[tokio::test]
async fn sites_that_cannot_be_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let none = Site::builder(directory.path()).build();
    let outside = Site::builder(directory.path())
        .base_address([10, 0, 0, 1].into())
        .machines(Model::CpuNode, 1)
        .build();
    let too_many = Site::builder(directory.path())
        .base_address([127, 255, 255, 255].into())
        .machines(Model::CpuNode, 2)
        .build();
    let bad_name = Site::builder(directory.path()).rack("Rack_1").machines(Model::CpuNode, 1).build();
    for site in [none, outside, too_many, bad_name] {
        assert_eq!(site.start().await.unwrap_err().code(), "sim.site");
    }
    let (_directory, unknown) =
        site_file("seed='x'\nstate-directory='s'\n[[rack]]\nname='a'\n[[rack.machines]]\nmodel='cray-1'\n");
    assert_eq!(unknown.unwrap_err().code(), "sim.unknown-model");
}

#[tokio::test]
async fn several_machines_of_one_recording_are_several_machines() {
    let Some(path) = recording("nvidia-dgx-h100") else { return };
    let directory = tempfile::tempdir().unwrap();
    let kind = bailiwick_sim::MachineKind::Recording(path);
    let site = Site::builder(directory.path()).machines(kind, 2).build().start().await.unwrap();
    let gpu = "/redfish/v1/Systems/HGX_Baseboard_0/Processors/GPU_SXM_1";
    let card = "/redfish/v1/Chassis/HGX_GPU_SXM_1/PCIeDevices/GPU_SXM_1";
    let mut serials: HashSet<Value> = HashSet::new();
    for index in 0..2 {
        let (processor, device) =
            (body(get(&site, index, gpu).await).await, body(get(&site, index, card).await).await);
        assert_eq!(processor["SerialNumber"], device["SerialNumber"]);
        assert_eq!(processor["UUID"], device["UUID"]);
        serials.insert(processor["SerialNumber"].clone());
        serials.insert(processor["UUID"].clone());
    }
    assert_eq!(serials.len(), 4);
}
