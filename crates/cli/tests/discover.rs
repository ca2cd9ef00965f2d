//! `bailiwick discover` on loopback.

mod support;

use sim::CertificateKind;
use support::{Desk, dgx, ipmi, nobody, start};

#[tokio::test]
async fn what_answers_is_told_with_its_pin_in_order_and_without_credentials() {
    let (desk, one, two) = (Desk::new(), start(dgx()).await, start(dgx()).await);
    one.record_requests();
    let (a, b) = (one.address().to_string(), two.address().to_string());
    let found = desk.run(&["discover", &format!("{b},{a}"), "-o", "json"]).await.ends(0).json();
    let mut expected = [(one.address(), one.pin()), (two.address(), two.pin())];
    expected.sort();
    for (at, (address, pin)) in expected.iter().enumerate() {
        assert_eq!(found["found"][at]["address"], address.to_string());
        assert_eq!(found["found"][at]["pin"], *pin);
        assert!(found["found"][at]["redfishVersion"].is_string());
    }
    assert!(one.recorded_requests().iter().all(|request| !request.headers.contains_key("authorization")));
}

#[tokio::test]
async fn a_network_is_searched_on_the_port_given() {
    let (desk, bmc) = (Desk::new(), start(dgx()).await);
    let range = format!("127.0.0.0/28:{}", bmc.address().port());
    let run = desk.run(&["discover", &range]).await.ends(0);
    assert!(run.stdout.contains(&bmc.address().to_string()) && run.stdout.contains(&bmc.pin()), "{run:?}");
    assert!(run.stderr.contains("1 of 14 addresses answer as a Redfish BMC"), "{run:?}");
}

#[tokio::test]
async fn a_bmc_whose_certificate_is_refused_is_found_with_the_reason() {
    let (desk, bmc) = (Desk::new(), start(dgx().certificate(CertificateKind::Version1)).await);
    let found = desk.run(&["discover", &bmc.address().to_string(), "-o", "json"]).await.ends(0).json();
    assert_eq!(found["found"][0]["problem"]["code"], "bmc.certificate.x509-v1");
    assert_eq!(found["found"][0]["pin"], bmc.pin());
}

#[tokio::test]
async fn addresses_come_from_a_lease_file_too() {
    let (desk, bmc) = (Desk::new(), start(dgx()).await);
    desk.write("leases", "1732180000 b8:ca:3a:01:02:03 127.0.0.1 dgx-1 *\n");
    let port = bmc.address().port().to_string();
    let words = ["discover", "--dhcp-leases", "leases", "--port", &port, "-o", "json"];
    let found = desk.run(&words).await.ends(0).json();
    assert_eq!(found["found"][0]["lease"]["mac"], "b8:ca:3a:01:02:03");
}

#[tokio::test]
async fn an_absurd_range_and_nonsense_are_refused_with_a_hint() {
    let desk = Desk::new();
    let run = desk.run(&["discover", "10.0.0.0/8"]).await.refuses(3, "input.range-too-large");
    assert!(run.stderr.contains("hint:"), "{run:?}");
    desk.run(&["discover", "10.0.0.0/33"]).await.refuses(3, "input.address");
}

#[tokio::test]
async fn a_bmc_without_redfish_is_found_by_ipmi_without_credentials() {
    let (desk, bmc) = (Desk::new(), ipmi().await);
    let port = bmc.address().port().to_string();
    let found = desk.run(&["discover", &nobody(), "--ipmi-port", &port, "-o", "json"]).await.ends(0).json();
    let one = &found["found"][0];
    assert_eq!((&one["protocol"], &one["version"]), (&"ipmi".into(), &"2.0".into()));
    assert_eq!(one["address"], bmc.address().to_string());
    assert_eq!(
        (&one["pong"], &one["anonymous"], &one["keySet"]),
        (&true.into(), &false.into(), &false.into())
    );
    assert_eq!(one["problem"], serde_json::Value::Null);
    let counters = bmc.with(|machine| machine.counters);
    assert_eq!((counters.openings, counters.logins), (0, 0));
    let run = desk.run(&["discover", &nobody(), "--ipmi-port", &port]).await.ends(0);
    assert!(run.stdout.starts_with("ADDRESS") && run.stdout.contains("IPMI"), "{run:?}");
    assert!(run.stderr.contains("0 of 1 addresses answer as a Redfish BMC; 1 by IPMI alone"), "{run:?}");
}

#[tokio::test]
async fn a_bmc_that_nobody_here_wrote_is_found_by_ipmi() {
    let (desk, bmc) = (Desk::new(), testbed::IpmiSim::start().await.unwrap());
    let port = bmc.address().port().to_string();
    let found = desk.run(&["discover", &nobody(), "--ipmi-port", &port, "-o", "json"]).await.ends(0).json();
    assert_eq!(
        (&found["found"][0]["protocol"], &found["found"][0]["version"]),
        (&"ipmi".into(), &"2.0".into())
    );
}

#[tokio::test]
async fn redfish_goes_before_ipmi_and_ipmi_may_be_left_out() {
    let (desk, redfish, bmc) = (Desk::new(), start(dgx()).await, ipmi().await);
    let (address, port) = (redfish.address().to_string(), bmc.address().port().to_string());
    let found = desk.run(&["discover", &address, "--ipmi-port", &port, "-o", "json"]).await.ends(0).json();
    assert_eq!(found["found"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&found["found"][0]["protocol"], &found["found"][0]["pin"]),
        (&"redfish".into(), &redfish.pin().into())
    );
    let before = bmc.with(|machine| machine.counters.datagrams);
    let found = desk.run(&["discover", &nobody(), "--no-ipmi", "-o", "json"]).await.ends(0).json();
    assert_eq!(found["found"], serde_json::json!([]));
    assert_eq!(bmc.with(|machine| machine.counters.datagrams), before);
}

#[tokio::test]
async fn addresses_where_nothing_answers_cost_no_more_time_for_ipmi() {
    let (desk, bmc) = (Desk::new(), ipmi().await);
    bmc.with(|machine| machine.faults.silent = true);
    let port = bmc.address().port().to_string();
    let begun = std::time::Instant::now();
    let words = ["discover", &nobody(), "--ipmi-port", &port, "--connect-timeout", "1", "-o", "json"];
    let found = desk.run(&words).await.ends(0).json();
    assert_eq!(found["answering"], 0);
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(10), "{took:?}");
    assert!(bmc.with(|machine| machine.counters.datagrams) >= 2, "it was asked, and more than once");
}
