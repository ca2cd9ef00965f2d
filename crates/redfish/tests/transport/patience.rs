//! Trying again: when it helps, how long, and how much at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redfish::etag::Known;
use redfish::{Client, Options, ReadError, Reader as _};
use serde_json::json;

use crate::server::{Bmc, Reply, options};

const SYSTEM: &str = "/redfish/v1/Systems/1";

/// A BMC that answers the first `times` requests for `SYSTEM` by `reply`.
async fn at_first(times: usize, reply: impl Fn() -> Reply + Send + 'static) -> (Bmc, Client) {
    let mut left = times;
    let bmc = Bmc::start(move |_, seen| {
        let misbehave = seen.target == SYSTEM && left > 0;
        left -= usize::from(misbehave);
        misbehave.then(&reply)
    })
    .await;
    let client = bmc.connect().await.unwrap();
    (bmc, client)
}

#[tokio::test]
async fn quirk_01_a_kept_connection_closed_under_us_is_replaced_by_a_fresh_one() {
    let (bmc, client) = at_first(1, || Reply::Cut(Vec::new())).await;
    assert!(client.get(SYSTEM).await.is_ok());
    let connections: Vec<usize> =
        bmc.log().into_iter().filter(|seen| seen.target == SYSTEM).map(|seen| seen.connection).collect();
    assert_eq!(connections.len(), 2);
    assert_ne!(connections[0], connections[1]);
}

#[tokio::test]
async fn quirk_01_a_resource_that_always_closes_the_connection_costs_one_resource() {
    let (bmc, client) = at_first(100, || Reply::Cut(b"HTTP/1.1 200".to_vec())).await;
    let error = client.get(SYSTEM).await.unwrap_err();
    assert_eq!((error.code(), error.is_fatal()), ("redfish.resource.connection-lost", false));
    assert_eq!(bmc.count("GET", SYSTEM), 3);
}

#[tokio::test]
async fn quirk_01_without_pooling_every_request_has_its_own_connection() {
    let bmc = Bmc::good().await;
    let client = bmc.connect_with(Options { pooling: false, ..options() }).await.unwrap();
    for _ in 0..3 {
        client.get(SYSTEM).await.unwrap();
    }
    let mut connections: Vec<usize> = bmc.log().into_iter().map(|seen| seen.connection).collect();
    let requests = connections.len();
    connections.dedup();
    assert_eq!(connections.len(), requests);
}

#[tokio::test]
async fn quirk_16_a_message_that_means_later_is_tried_again() {
    for (status, id) in [(400, "iLO.2.14.InvalidOperationForSystemState"), (500, "IDRAC.2.8.SYS518")] {
        let (_bmc, client) = at_first(2, move || Reply::message(status, id)).await;
        assert!(client.get(SYSTEM).await.is_ok(), "{id}");
    }
}

#[tokio::test]
async fn quirk_16_a_message_that_does_not_mean_later_is_not_tried_again() {
    let (bmc, client) = at_first(1, || Reply::message(400, "Base.1.8.QueryNotSupported")).await;
    let error = client.get(SYSTEM).await.unwrap_err();
    assert_eq!(error.message_id(), Some("Base.1.8.QueryNotSupported"));
    assert_eq!(bmc.count("GET", SYSTEM), 1);
}

#[tokio::test]
async fn quirk_31_a_busy_bmc_is_asked_again_whatever_retry_after_says() {
    for value in ["0", "3600", "Sun, 06 Nov 2194 08:49:37 GMT", "/redfish/v1/UpdateService", ""] {
        let (_bmc, client) = at_first(2, move || Reply::new(503, &[("Retry-After", value)], "")).await;
        assert!(client.get(SYSTEM).await.is_ok(), "{value}");
    }
}

#[tokio::test]
async fn quirk_31_a_bmc_that_stays_busy_costs_a_bounded_number_of_attempts() {
    let (bmc, client) = at_first(100, || Reply::new(503, &[], "")).await;
    let error = client.get(SYSTEM).await.unwrap_err();
    assert!(matches!(error, ReadError::Busy { .. }), "{error:?}");
    assert_eq!(bmc.count("GET", SYSTEM), 3);
}

#[tokio::test]
async fn quirk_31_a_bmc_that_stays_busy_for_everything_is_given_up() {
    let bmc = Bmc::start(|_, seen| seen.target.contains("Chassis/").then(|| Reply::new(503, &[], ""))).await;
    let client = bmc.connect().await.unwrap();
    let mut lost = 0;
    let error = loop {
        let error = client.get(&format!("/redfish/v1/Chassis/{lost}")).await.unwrap_err();
        if error.is_fatal() {
            break error;
        }
        lost += 1;
    };
    assert_eq!((error.code(), lost), ("bmc.busy", 7));
}

#[tokio::test]
async fn quirk_31_a_bmc_that_is_busy_for_every_other_resource_is_not_given_up() {
    let bmc = Bmc::start(|_, seen| seen.target.contains("Chassis/").then(|| Reply::new(503, &[], ""))).await;
    let client = bmc.connect().await.unwrap();
    for n in 0..10 {
        assert!(!client.get(&format!("/redfish/v1/Chassis/{n}")).await.unwrap_err().is_fatal());
        assert!(client.get(SYSTEM).await.is_ok());
    }
}

#[tokio::test]
async fn quirk_31_a_wait_beyond_the_deadline_is_not_begun() {
    let bmc = Bmc::start(|_, seen| {
        (seen.target == SYSTEM).then(|| Reply::new(503, &[("Retry-After", "3600")], ""))
    })
    .await;
    let mut patient = Options { deadline: Some(Duration::from_mins(1)), ..options() };
    patient.retry.cap = Duration::from_mins(10);
    let client = bmc.connect_with(patient).await.unwrap();
    let begun = Instant::now();
    assert_eq!(client.get(SYSTEM).await.unwrap_err().code(), "bmc.deadline");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn quirk_30_a_slow_firmware_inventory_is_waited_for_longer_than_other_resources() {
    let bmc = Bmc::start(|_, seen| seen.target.contains("Slow").then_some(Reply::Silence)).await;
    let mut hasty = options();
    let (ordinary, slow) = (Duration::from_secs(1), Duration::from_millis(1500));
    (hasty.timeouts.ordinary, hasty.timeouts.slow) = (ordinary, slow);
    let client = bmc.connect_with(hasty).await.unwrap();
    let waited = async |uri: &str| match client.get(uri).await {
        Err(ReadError::Timeout { after, .. }) => after,
        other => panic!("{other:?}"),
    };
    let firmware = "/redfish/v1/UpdateService/FirmwareInventory/Slow";
    assert_eq!(tokio::join!(waited("/redfish/v1/Slow"), waited(firmware)), (ordinary, slow));
}

/// Reads twenty resources at once with each client, from a BMC that takes a while for each.
async fn read_at_once(options: Options, clients: usize) -> usize {
    let latency = Duration::from_millis(2);
    let bmc =
        Bmc::start(move |_, seen| seen.target.contains("Chassis/").then_some(Reply::Slow(latency))).await;
    let connected =
        futures_util::future::try_join_all((0..clients).map(|_| bmc.connect_with(options.clone())));
    let connected = connected.await.unwrap();
    let uris: Vec<String> = (0..20).map(|n| format!("/redfish/v1/Chassis/{n}")).collect();
    let reads = connected.iter().flat_map(|client| uris.iter().map(|uri| client.get(uri)));
    let read = futures_util::future::join_all(reads).await;
    assert!(read.iter().all(Result::is_ok), "{read:?}");
    bmc.busiest()
}

#[tokio::test]
async fn as_many_requests_at_once_as_allowed_for_one_bmc() {
    assert_eq!(read_at_once(Options { concurrency: 2, ..options() }, 1).await, 2);
    assert_eq!(read_at_once(options(), 1).await, 4);
}

#[tokio::test]
async fn as_many_requests_at_once_as_allowed_in_all() {
    let shared = Some(Arc::new(tokio::sync::Semaphore::new(3)));
    assert_eq!(read_at_once(Options { shared, ..options() }, 2).await, 3);
}

#[tokio::test]
async fn waiting_for_ones_turn_ends_with_the_deadline() {
    let turns = Arc::new(tokio::sync::Semaphore::new(1));
    let bmc = Bmc::good().await;
    let limited =
        Options { shared: Some(Arc::clone(&turns)), deadline: Some(Duration::from_secs(2)), ..options() };
    let client = bmc.connect_with(limited).await.unwrap();
    let _taken = turns.acquire().await.unwrap();
    assert_eq!(client.get(SYSTEM).await.unwrap_err().code(), "bmc.deadline");
}

#[tokio::test]
async fn answers_are_not_to_be_compressed() {
    let bmc = Bmc::good().await;
    let client = bmc.connect().await.unwrap();
    client.get(SYSTEM).await.unwrap();
    for seen in bmc.log() {
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        assert_eq!(seen.header("odata-version"), Some("4.0"));
        assert_eq!(seen.header("accept"), Some("application/json"));
    }
}

/// A BMC with one resource that has an ETag, and takes it back only in the forms given.
async fn with_etag(given: &'static str, taken: &'static [&'static str]) -> (Bmc, Client) {
    let bmc = Bmc::start(move |_, seen| {
        (seen.target == SYSTEM && seen.method == "GET").then(|| match seen.header("if-none-match") {
            Some(etag) if taken.contains(&etag) => Reply::new(304, &[], ""),
            Some(_) => Reply::message(412, "Base.1.8.PreconditionFailed"),
            None => Reply::new(200, &[("ETag", given)], r#"{"Name":"x"}"#),
        })
    })
    .await;
    let client = bmc.connect().await.unwrap();
    (bmc, client)
}

/// What the BMC was asked with, when it was asked whether the resource changed.
async fn asked_with(given: &'static str, taken: &'static [&'static str]) -> Vec<Option<String>> {
    let (bmc, client) = with_etag(given, taken).await;
    let known = Known::of(&client.get(SYSTEM).await.unwrap());
    let before = bmc.log().len();
    assert_eq!(client.get_if_changed(SYSTEM, &known).await.unwrap(), None);
    bmc.log()[before..].iter().map(|seen| seen.header("if-none-match").map(ToOwned::to_owned)).collect()
}

#[tokio::test]
async fn quirk_05_an_etag_is_tried_as_given_then_stripped_then_not_at_all() {
    let some = |etag: &str| Some(etag.to_owned());
    assert_eq!(asked_with("W/\"1\"", &["W/\"1\""]).await, [some("W/\"1\"")]);
    assert_eq!(asked_with("W/\"1\"", &["\"1\""]).await, [some("W/\"1\""), some("\"1\"")]);
    assert_eq!(asked_with("\"1-gzip\"", &["\"1\""]).await, [some("\"1-gzip\""), some("\"1\"")]);
    assert_eq!(asked_with("W/\"1\"", &[]).await, [some("W/\"1\""), some("\"1\""), None]);
}

#[tokio::test]
async fn quirk_06_an_empty_etag_is_never_sent_back() {
    assert_eq!(asked_with("\"\"", &[]).await, [None]);
}

#[tokio::test]
async fn quirk_09_without_etags_a_change_is_seen_by_the_body() {
    let mut reads = 0;
    let bmc = Bmc::start(move |_, seen| {
        (seen.target == SYSTEM).then(|| {
            reads += 1;
            Reply::json(200, &json!({"PowerState": if reads < 3 { "On" } else { "Off" }}))
        })
    })
    .await;
    let client = bmc.connect().await.unwrap();
    let known = Known::of(&client.get(SYSTEM).await.unwrap());
    assert_eq!(client.get_if_changed(SYSTEM, &known).await.unwrap(), None);
    let changed = client.get_if_changed(SYSTEM, &known).await.unwrap().unwrap();
    assert_eq!(changed.body["PowerState"], "Off");
}

#[tokio::test]
async fn an_etag_in_the_body_counts_where_the_header_has_none() {
    let bmc = Bmc::start(|_, seen| {
        (seen.target == SYSTEM).then(|| Reply::json(200, &json!({"@odata.etag": "W/\"7\"", "Name": "x"})))
    })
    .await;
    let resource = bmc.connect().await.unwrap().get(SYSTEM).await.unwrap();
    assert_eq!(resource.etag.as_deref(), Some("W/\"7\""));
}
