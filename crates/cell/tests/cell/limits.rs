//! A machine waits for another through a named limit alone, and holds nothing meanwhile.

use crate::line::{Line, pool, profiles};
use crate::support::{document, world};
use bailiwick_cell::{IronicSettings, ProvisionerSettings, ServiceSettings, Settings};
use serde_json::{Value, json};
use sim::ironic::IronicEndpoint;
use sim::{Action, Fault};
use std::time::Duration;

/// A service that takes calls and does not answer.
fn hangs(ironic: &IronicEndpoint) {
    ironic.faults().add(Fault::on("**", Action::latency(Duration::from_hours(1))));
}

/// The first machines stand in fra1, whose service hangs; the last one in muc1, which has a service of its own.
async fn two_sites(machines: usize, per_site: usize, at_once: usize) -> (Line, IronicEndpoint) {
    let other = IronicEndpoint::builder().start().unwrap();
    let url = other.url().to_owned();
    let change = move |settings: &mut Settings| {
        settings.machines_per_site = per_site;
        let service = ServiceSettings::Ironic(IronicSettings { url, ..IronicSettings::default() });
        let sites = vec!["muc1".parse().unwrap()];
        settings.provisioners[0].sites = vec!["fra1".parse().unwrap()];
        settings.provisioners[0].at_once = at_once;
        settings.provisioners.push(ProvisionerSettings { name: "muc".into(), sites, at_once, service });
    };
    let line = Line::with(machines, |ironic| ironic, change).await;
    hangs(&line.ironic);
    let site =
        json!({ "jurisdiction": "de", "operator": "acme", "country": "DE", "bmcNetworks": ["127.0.0.0/8"] });
    let mut declared = line.machines(&json!({}));
    declared.last_mut().unwrap()["spec"]["site"] = "muc1".into();
    let all = [world(), profiles(), vec![pool(), document("Site", "muc1", site)], declared].concat();
    line.apply(all, None).await;
    (line, other)
}

async fn why(line: &Line, name: &str) -> Value {
    line.client.get(&format!("/api/v1/machines/{name}/why")).await
}

/// Asks until it is so; nothing happens meanwhile that tells.
async fn told(line: &Line, name: &str, code: &str) -> String {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(2);
    loop {
        let why = why(line, name).await;
        if why["waiting"]["problem"]["code"] == code {
            return why["waiting"]["problem"]["message"].as_str().unwrap().to_owned();
        }
        assert!(tokio::time::Instant::now() < deadline, "{why:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_hangs_holds_up_its_own_sites_machines_and_no_others() {
    let (line, _other) = two_sites(4, 2, 2).await;
    let names = line.names();
    line.until(&names[3], |machine| machine["state"] == "available").await;
    // Two of fra1 are with its service; the third has no place, and that is told.
    let mut waiting = Vec::new();
    for name in &names[..3] {
        let machine = line.client.get(&format!("/api/v1/machines/{name}")).await;
        if machine["state"] == "declared" {
            waiting.push(name);
        }
    }
    assert_eq!(waiting.len(), 1, "as many are worked on as may be");
    let message = told(&line, waiting[0], "limit.site").await;
    assert!(message.contains("Site/fra1") && message.contains('2'), "{message}");
    assert!(line.ironic.peak_concurrency() <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_a_place_at_its_service_holds_no_worker_of_its_site() {
    let (line, _other) = two_sites(5, 2, 1).await;
    let names = &line.names()[..4];
    // One has the only place. The others go by turns through the one worker that is left, as far as they come without it.
    for name in names {
        line.until(name, |machine| machine["state"] == "enrolled").await;
    }
    let mut without = 0;
    for name in names {
        let machine = line.client.get(&format!("/api/v1/machines/{name}")).await;
        if !machine["waiting"].is_null() {
            let message = told(&line, name, "limit.provisioner").await;
            assert!(message.contains("ironic") && message.contains('1'), "{message}");
            without += 1;
        }
    }
    assert!(without >= 2, "{without} of 3 were told yet");
    assert_eq!(line.ironic.peak_concurrency(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_bmc_and_of_a_service_are_kept_and_all_arrive() {
    let line = Line::with(
        4,
        |ironic| ironic,
        |settings| {
            settings.requests_per_bmc = 2;
            settings.provisioners[0].at_once = 2;
        },
    )
    .await;
    line.ironic.faults().add(Fault::on("**", Action::latency(Duration::from_millis(20))));
    line.declare().await;
    line.arrive("available").await;
    assert!(line.ironic.peak_concurrency() <= 2, "{}", line.ironic.peak_concurrency());
    for name in line.names() {
        let peak = line.site.bmc(&name).unwrap().counters().peak_concurrency;
        assert!((1..=2).contains(&peak), "{name}: {peak}");
    }
}
