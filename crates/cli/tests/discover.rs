//! `bailiwick discover` on loopback.

mod support;

use sim::CertificateKind;
use support::{Desk, dgx, start};

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
