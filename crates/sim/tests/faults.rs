//! Faults by rule, each as a client meets it.

// Helpers of tests fail by panicking too; clippy.toml allows it in test functions only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::time::{Duration, Instant};

use bailiwick_sim::{Action, Bmc, Fault};
use reqwest::Method;
use serde_json::json;
use support::{Subject, body, header, small_tree};

const SYSTEM: &str = "/redfish/v1/Systems/1";

#[tokio::test]
async fn a_status_is_answered_so_many_times_and_then_no_more() {
    let subject = Subject::small().await;
    subject.bmc.add_fault(Fault::on(SYSTEM, Action::status_with_header(503, "Retry-After", "7")).times(2));
    for _ in 0..2 {
        let busy = subject.get(SYSTEM).await;
        assert_eq!(busy.status(), 503);
        assert_eq!(header(&busy, "retry-after"), "7");
    }
    assert_eq!(subject.status(SYSTEM).await, 200);
}

#[tokio::test]
async fn a_rule_holds_for_its_method_and_path_only() {
    let subject = Subject::small().await;
    subject.bmc.add_fault(Fault::on("/redfish/v1/Things/*", Action::status(500, "")).method("GET"));
    assert_eq!(subject.status("/redfish/v1/Things/3").await, 500);
    assert_eq!(subject.status("/redfish/v1/Things").await, 200);
    let head = subject.request(Method::HEAD, "/redfish/v1/Things/3").send().await.unwrap();
    assert_eq!(head.status(), 200);
}

#[tokio::test]
async fn two_stars_reach_over_segments() {
    let subject = Subject::small().await;
    subject.bmc.add_fault(Fault::on("/redfish/v1/**", Action::status(418, "")));
    assert_eq!(subject.status("/redfish/v1/Things/3").await, 418);
}

#[tokio::test]
async fn a_rule_may_name_a_page() {
    let subject = Subject::start(Bmc::builder(small_tree().paged(2))).await;
    subject.bmc.add_fault(Fault::on("/redfish/v1/Things?$skip=2", Action::status(500, "")));
    assert_eq!(subject.status("/redfish/v1/Things").await, 200);
    assert_eq!(subject.status("/redfish/v1/Things?$skip=2").await, 500);
}

#[tokio::test]
async fn a_rule_can_be_removed_while_the_bmc_runs() {
    let subject = Subject::small().await;
    let rule = subject.bmc.add_fault(Fault::on("**", Action::status(500, "")));
    assert_eq!(subject.status(SYSTEM).await, 500);
    assert!(subject.bmc.faults.remove(rule));
    assert_eq!(subject.status(SYSTEM).await, 200);
    assert!(!subject.bmc.faults.remove(rule));
}

#[tokio::test]
async fn a_latency_comes_before_the_answer() {
    let subject = Subject::small().await;
    subject.bmc.add_fault(Fault::on(SYSTEM, Action::latency(Duration::from_millis(120))));
    let start = Instant::now();
    assert_eq!(subject.status(SYSTEM).await, 200);
    assert!(start.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn a_replaced_body_comes_with_its_own_type_and_still_needs_credentials() {
    let subject = Subject::small().await;
    subject.bmc.add_fault(Fault::on(SYSTEM, Action::replace("<html></html>", "text/html")));
    let page = subject.get(SYSTEM).await;
    assert_eq!((page.status().as_u16(), header(&page, "content-type")), (200, "text/html"));
    assert_eq!(page.text().await.unwrap(), "<html></html>");
    let anonymous = subject.anonymous(Method::GET, SYSTEM).send().await.unwrap();
    assert_eq!(anonymous.status(), 401);
}

#[tokio::test]
async fn a_merge_changes_adds_and_removes_properties() {
    let subject = Subject::small().await;
    let patch = json!({"SerialNumber": 7, "Name": null, "Status": {"Health": "OK"}});
    subject.bmc.add_fault(Fault::on(SYSTEM, Action::Merge(patch)));
    let system = subject.json(SYSTEM).await;
    assert_eq!(system["SerialNumber"], 7);
    assert_eq!(system["Status"]["Health"], "OK");
    assert!(system.get("Name").is_none());
}

#[tokio::test]
async fn a_truncated_body_ends_before_its_length() {
    let subject = Subject::small().await;
    subject.bmc.add_fault(Fault::on(SYSTEM, Action::Truncate { after: 10 }));
    let answer = subject.get(SYSTEM).await;
    assert!(header(&answer, "content-length").parse::<u64>().unwrap() > 10);
    assert!(answer.bytes().await.is_err());
}

/// The kinds of the I/O errors that an error stems from.
fn io_kinds(error: &(dyn std::error::Error + 'static)) -> Vec<std::io::ErrorKind> {
    let (mut kinds, mut next) = (Vec::new(), Some(error));
    while let Some(error) = next {
        kinds.extend(error.downcast_ref::<std::io::Error>().map(std::io::Error::kind));
        next = error.source();
    }
    kinds
}

#[tokio::test]
async fn a_reset_is_a_tcp_reset() {
    let subject = Subject::small().await;
    subject.bmc.add_fault(Fault::on(SYSTEM, Action::Reset).times(1));
    let error = subject.request(Method::GET, SYSTEM).send().await.unwrap_err();
    assert!(io_kinds(&error).contains(&std::io::ErrorKind::ConnectionReset), "{error:?}");
    assert_eq!(subject.status(SYSTEM).await, 200);
}

#[tokio::test]
async fn a_close_ends_the_connection_without_an_answer_and_without_a_reset() {
    let subject = Subject::small().await;
    subject.bmc.add_fault(Fault::on(SYSTEM, Action::Close).times(1));
    let error = subject.request(Method::GET, SYSTEM).send().await.unwrap_err();
    assert!(!io_kinds(&error).contains(&std::io::ErrorKind::ConnectionReset), "{error:?}");
    assert_eq!(subject.status(SYSTEM).await, 200);
}

#[tokio::test]
async fn a_rule_for_reused_connections_spares_the_first_request_of_each() {
    let subject = Subject::small().await;
    subject.bmc.add_fault(Fault::on("**", Action::status(500, "")).on_reused_connections());
    assert_eq!(subject.status(SYSTEM).await, 200);
    assert_eq!(subject.status(SYSTEM).await, 500);
    let fresh = support::client().get(format!("{}{SYSTEM}", subject.bmc.url()));
    assert_eq!(fresh.basic_auth("admin", Some(subject.bmc.password())).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_slow_body_arrives_complete_and_slowly() {
    let subject = Subject::small().await;
    let expected = subject.json(SYSTEM).await;
    subject.bmc.add_fault(Fault::on(SYSTEM, Action::Drip { bytes_per_second: 500 }));
    let start = Instant::now();
    let slow = subject.get(SYSTEM).await;
    let length: u64 = header(&slow, "content-length").parse().unwrap();
    assert_eq!(body(slow).await, expected);
    let at_least = Duration::from_millis((length - 50) * 2).mul_f64(0.8);
    assert!(start.elapsed() >= at_least, "{length} bytes in {:?}", start.elapsed());
}

#[tokio::test]
async fn an_endless_body_is_valid_json_of_the_size_asked_for() {
    let subject = Subject::small().await;
    subject.bmc.add_fault(Fault::on(SYSTEM, Action::Endless { bytes: 3_000_000 }));
    let answer = subject.get(SYSTEM).await;
    assert_eq!(header(&answer, "transfer-encoding"), "chunked");
    let value = body(answer).await;
    assert_eq!(value["Filler"].as_str().unwrap().len(), 3_000_000);
}

#[tokio::test]
async fn a_client_may_leave_an_answer_of_a_gibibyte_in_the_middle() {
    let subject = Subject::small().await;
    subject.bmc.add_fault(Fault::on(SYSTEM, Action::Endless { bytes: 1 << 30 }));
    let mut answer = subject.get(SYSTEM).await;
    let first = answer.chunk().await.unwrap().unwrap();
    assert!(!first.is_empty());
    drop(answer);
    assert_eq!(subject.status("/redfish/v1/Systems").await, 200);
}

#[tokio::test]
async fn a_nested_body_is_as_deep_as_asked_for() {
    let subject = Subject::small().await;
    subject.bmc.add_fault(Fault::on(SYSTEM, Action::nested(5000)));
    let text = subject.get(SYSTEM).await.text().await.unwrap();
    assert_eq!(text.matches('{').count(), 5000);
    assert_eq!(text.matches('}').count(), 5000);
}

#[tokio::test]
async fn a_redirect_may_lead_to_another_origin() {
    let subject = Subject::small().await;
    let location = "https://192.0.2.1/elsewhere".to_owned();
    subject.bmc.add_fault(Fault::on(SYSTEM, Action::Redirect { code: 302, location: location.clone() }));
    let moved = subject.get(SYSTEM).await;
    assert_eq!((moved.status().as_u16(), header(&moved, "location")), (302, location.as_str()));
}
