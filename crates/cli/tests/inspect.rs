//! `bailiwick inspect` against simulated BMCs over real HTTPS.

mod support;

use std::process::Stdio;
use std::time::Duration;

use sim::{CertificateAuthority, CertificateKind, Fault};
use support::{Desk, Run, dgx, interrupt, ipmi, start};
use tokio::io::AsyncWriteExt as _;

const LOGIN: [&str; 4] = ["--username", "admin", "--password-file", "pw"];

fn inspect<'a>(url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["inspect", url], &LOGIN[..], more].concat()
}

#[tokio::test]
async fn a_pinned_bmc_tells_its_whole_inventory_and_its_session_is_closed() {
    let (desk, bmc) = (Desk::new(), start(dgx()).await);
    let run = desk.run(&inspect(&bmc.url(), &["--pin", &bmc.pin()])).await.ends(0);
    let inventory = run.json();
    let gpus = inventory["gpus"].as_array().unwrap();
    assert_eq!(gpus.len(), 8);
    assert!(gpus.iter().all(|gpu| gpu["serial"].is_string() && gpu["model"].is_string()));
    assert_eq!(run.stderr, "");
    assert_eq!((bmc.counters().logins, bmc.counters().live_sessions), (1, 0));
}

#[tokio::test]
async fn the_inventory_is_as_its_published_schema_says() {
    let (desk, bmc) = (Desk::new(), start(dgx()).await);
    let inventory = desk.run(&inspect(&bmc.url(), &["--insecure"])).await.ends(0).json();
    let published = support::repository().join("docs/reference/inventory.schema.json");
    let schema = serde_json::from_str(&std::fs::read_to_string(published).unwrap()).unwrap();
    jsonschema::validate(&schema, &inventory).unwrap();
    let mut wrong = inventory;
    wrong["gpus"][0]["sources"] = "one".into();
    assert!(!jsonschema::is_valid(&schema, &wrong), "a schema that takes anything shows nothing");
}

#[tokio::test]
async fn a_bmc_signed_by_a_given_ca_is_trusted() {
    let authority = CertificateAuthority::generate("a CA").unwrap();
    let (desk, bmc) =
        (Desk::new(), start(dgx().certificate(CertificateKind::SignedBy(authority.clone()))).await);
    desk.write("ca.pem", authority.pem());
    desk.run(&inspect(&bmc.url(), &["--ca", "ca.pem"])).await.ends(0);
    desk.write("other.pem", CertificateAuthority::generate("another CA").unwrap().pem());
    desk.run(&inspect(&bmc.url(), &["--ca", "other.pem"])).await.refuses(5, "bmc.certificate.untrusted");
    assert_eq!(bmc.counters().logins, 1);
}

#[tokio::test]
async fn without_trust_no_credentials_are_sent_and_the_command_printed_works() {
    let (desk, bmc) = (Desk::new(), start(dgx()).await);
    bmc.record_requests();
    let run = desk.run(&inspect(&bmc.url(), &[])).await.refuses(5, "bmc.trust-required");
    let asked = bmc.recorded_requests();
    assert!(
        asked.iter().all(|request| !request.headers.contains_key("authorization") && request.method == "GET")
    );
    let printed =
        run.stderr.lines().map(str::trim).find(|line| line.starts_with("bailiwick inspect")).unwrap();
    assert!(printed.contains(&bmc.pin()), "{printed}");
    let words: Vec<&str> = printed.split(' ').skip(1).collect();
    assert_eq!(desk.run(&words).await.ends(0).json()["gpus"].as_array().unwrap().len(), 8);
}

#[tokio::test]
async fn another_key_than_the_one_pinned_gets_no_credentials() {
    let (desk, bmc) = (Desk::new(), start(dgx()).await);
    let old = bmc.pin();
    let new = bmc.rotate_key().unwrap();
    let run = desk.run(&inspect(&bmc.url(), &["--pin", &old])).await.refuses(5, "bmc.pin-mismatch");
    assert!(run.stderr.contains(&old) && run.stderr.contains(&new), "{}", run.stderr);
    assert_eq!((bmc.counters().logins, bmc.counters().failed_logins), (0, 0));
}

#[tokio::test]
async fn a_wrong_password_is_refused_without_locking_the_account() {
    let (desk, bmc) = (Desk::new(), start(dgx()).await);
    let words = ["inspect", &bmc.url(), "--username", "admin", "--password-file", "wrong", "--insecure"];
    desk.run(&words).await.refuses(5, "bmc.unauthorized");
    assert!(bmc.counters().failed_logins <= 2, "{:?}", bmc.counters());
    desk.run(&inspect(&bmc.url(), &["--insecure"])).await.ends(0);
}

#[tokio::test]
async fn the_password_may_come_from_standard_input() {
    let (desk, bmc) = (Desk::new(), start(dgx()).await);
    let url = bmc.url();
    let words = ["inspect", &url, "--username", "admin", "--password-file", "-", "--insecure"];
    let mut child = desk.command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"simulated\n").await.unwrap();
    Run::of(child.wait_with_output().await.unwrap()).ends(0);
}

#[tokio::test]
async fn a_password_file_that_everybody_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let (desk, bmc) = (Desk::new(), start(dgx()).await);
    std::fs::set_permissions(desk.path("pw"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let run = desk.run(&inspect(&bmc.url(), &["--insecure"])).await.ends(0);
    assert!(run.stderr.starts_with("warning[input.password]"), "{}", run.stderr);
}

#[tokio::test]
async fn people_may_read_it_as_a_table_or_as_yaml() {
    let (desk, bmc) = (Desk::new(), start(dgx()).await);
    let table = desk.run(&inspect(&bmc.url(), &["--insecure", "-o", "table"])).await.ends(0).stdout;
    assert!(table.starts_with("Manufacturer:") && table.contains("\nGPUs (8)\nMODEL"), "{table}");
    let yaml = desk.run(&inspect(&bmc.url(), &["--insecure", "-o", "yaml"])).await.ends(0).stdout;
    assert!(yaml.starts_with("identity:\n  manufacturer: NVIDIA\n"), "{yaml}");
}

#[tokio::test]
async fn nothing_there_and_no_redfish_there_are_told_apart() {
    let desk = Desk::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    drop(listener);
    desk.run(&inspect(&url, &["--insecure"])).await.refuses(6, "bmc.unreachable");
    let page = Fault::on("/redfish/v1*", sim::Action::replace("<html>hello</html>", "text/html"));
    let bmc = start(dgx().fault(page)).await;
    desk.run(&inspect(&bmc.url(), &["--insecure"])).await.refuses(1, "bmc.not-redfish");
    desk.run(&inspect("http://127.0.0.1", &["--insecure"])).await.refuses(3, "bmc.address-invalid");
}

#[tokio::test]
async fn with_json_output_a_refusal_is_json_on_standard_error() {
    let (desk, bmc) = (Desk::new(), start(dgx()).await);
    let run = desk.run(&inspect(&bmc.url(), &["-o", "json"])).await.ends(5);
    let document: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(document["problems"][0]["code"], "bmc.trust-required");
    assert_eq!((run.stdout.as_str(), &document["exitCode"]), ("", &5.into()));
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let (desk, bmc) = (Desk::new(), start(dgx()).await);
    let url = bmc.url();
    let mut child = desk
        .command(&inspect(&url, &["--insecure"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let run = Run::of(child.wait_with_output().await.unwrap()).ends(0);
    assert_eq!(run.stderr, "");
}

#[tokio::test]
async fn an_interrupted_reading_leaves_no_session_behind() {
    let slow = Fault::on("/redfish/v1/Systems", sim::Action::latency(Duration::from_mins(2)));
    let (desk, bmc) = (Desk::new(), start(dgx().fault(slow)).await);
    let url = bmc.url();
    let child = desk
        .command(&inspect(&url, &["--insecure"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while bmc.counters().live_sessions == 0 {
        tokio::task::yield_now().await;
    }
    interrupt(&child);
    Run::of(child.wait_with_output().await.unwrap()).ends(130);
    assert_eq!(bmc.counters().live_sessions, 0);
}

#[tokio::test]
async fn a_bmc_without_redfish_tells_identity_power_sensors_and_log() {
    let (desk, bmc) = (Desk::new(), ipmi().await);
    let url = format!("ipmi://{}", bmc.address());
    let run = desk.run(&inspect(&url, &[])).await.ends(0);
    let report = run.json();
    assert_eq!(report["identity"]["serial"], "SIM-5001");
    assert_eq!(report["bmc"]["macs"], serde_json::json!(["02:00:5e:10:00:01"]));
    assert_eq!((&report["gpus"], &report["memoryGiB"]), (&serde_json::json!([]), &serde_json::Value::Null));
    assert_eq!(report["diagnostics"][0]["code"], "ipmi.inventory-partial");
    let ipmi = &report["ipmi"];
    assert_eq!((&ipmi["power"], &ipmi["faults"]), (&"off".into(), &serde_json::json!([])));
    assert_eq!(
        ipmi["sensors"][0],
        serde_json::json!({
            "name": "Inlet Temp", "kind": "Temperature", "value": 23.0, "unit": "degrees C", "severity": "ok", "states": null,
        })
    );
    assert_eq!(
        (&ipmi["eventLog"]["entries"], &ipmi["eventLog"]["asserted"]["Temperature"]),
        (&2.into(), &1.into())
    );
    assert_eq!(
        (run.stderr.as_str(), bmc.sessions(), bmc.with(|machine| machine.counters.logins)),
        ("", 0, 1)
    );
    let published = support::repository().join("docs/reference/inventory.schema.json");
    let schema = serde_json::from_str(&std::fs::read_to_string(published).unwrap()).unwrap();
    jsonschema::validate(&schema, &report).unwrap();
}

#[tokio::test]
async fn by_ipmi_people_may_read_a_table_or_yaml_too() {
    let (desk, bmc) = (Desk::new(), ipmi().await);
    let url = format!("ipmi://{}", bmc.address());
    let table = desk.run(&inspect(&url, &["-o", "table"])).await.ends(0).stdout;
    assert!(table.starts_with("Power:") && table.contains("\nSensors (3)\nNAME"), "{table}");
    let yaml = desk.run(&inspect(&url, &["-o", "yaml"])).await.ends(0).stdout;
    assert!(yaml.contains("manufacturer: Example Servers") && yaml.contains("power: \"off\""), "{yaml}");
}

#[tokio::test]
async fn a_bmc_that_nobody_here_wrote_is_inspected_by_ipmi() {
    let (desk, bmc) = (Desk::new(), testbed::IpmiSim::start().await.unwrap());
    desk.write("real", bmc.password());
    let url = format!("ipmi://{}", bmc.address());
    let words = ["inspect", &url, "--username", "admin", "--password-file", "real"];
    let report = desk.run(&words).await.ends(0).json();
    assert_eq!(report["identity"]["serial"], testbed::IpmiSim::SERIAL);
    assert_eq!(report["bmc"]["macs"], serde_json::json!([testbed::IpmiSim::MAC]));
    assert_eq!(report["ipmi"]["eventLog"]["entries"], 3);
}

#[tokio::test]
async fn by_ipmi_what_keeps_us_out_is_told_with_its_code() {
    let (desk, bmc) = (Desk::new(), ipmi().await);
    let url = format!("ipmi://{}", bmc.address());
    let wrong = ["inspect", &url, "--username", "admin", "--password-file", "wrong"];
    desk.run(&wrong).await.refuses(5, "ipmi.unauthorized");
    assert_eq!(bmc.with(|machine| machine.counters.openings), 1, "tried once");
    desk.run(&["inspect", &url]).await.refuses(5, "bmc.unauthorized");
    desk.run(&inspect(&url, &["--insecure"])).await.refuses(3, "input.not-for-ipmi");
    desk.run(&inspect("ipmi://a/b", &[])).await.refuses(3, "bmc.address-invalid");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = format!("ipmi://{}", socket.local_addr().unwrap());
    drop(socket);
    desk.run(&inspect(&nobody, &[])).await.refuses(6, "ipmi.unreachable");
}
