//! Bodies that are too large, too deep, half, or no JSON at all.

use std::time::Duration;

use redfish::{Client, Limits, Options, ReadError, Reader as _, Resource};
use serde_json::json;

use crate::server::{Bmc, Reply, options};

const ODD: &str = "/redfish/v1/Odd";

/// A BMC that answers `ODD` by `reply`, and a client of it.
async fn odd(reply: impl Fn() -> Reply + Send + 'static) -> (Bmc, Client) {
    odd_with(options(), reply).await
}

async fn odd_with(options: Options, reply: impl Fn() -> Reply + Send + 'static) -> (Bmc, Client) {
    let bmc = Bmc::start(move |_, seen| (seen.target == ODD).then(&reply)).await;
    let client = bmc.connect_with(options).await.unwrap();
    (bmc, client)
}

fn code(outcome: &Result<Resource, ReadError>) -> Option<&'static str> {
    outcome.as_ref().err().map(ReadError::code)
}

/// The resource is lost, the BMC is not.
async fn costs_one_resource(client: &Client, expected: &str) {
    let outcome = client.get(ODD).await;
    assert_eq!(code(&outcome), Some(expected));
    assert!(!outcome.unwrap_err().is_fatal());
    assert!(client.get("/redfish/v1/Systems/1").await.is_ok());
}

#[tokio::test]
async fn an_html_page_costs_one_resource() {
    let (_bmc, client) = odd(|| Reply::html(200)).await;
    costs_one_resource(&client, "redfish.body.not-json").await;
}

#[tokio::test]
async fn an_html_error_page_is_told_by_its_status() {
    let (_bmc, client) = odd(|| Reply::html(500)).await;
    let error = client.get(ODD).await.unwrap_err();
    assert!(matches!(error, ReadError::Status { status: 500, message_id: None, .. }), "{error:?}");
}

#[tokio::test]
async fn json_under_a_wrong_content_type_is_json() {
    let (_bmc, client) = odd(|| Reply::new(200, &[("Content-Type", "text/html")], r#"{"Name":"x"}"#)).await;
    assert_eq!(client.get(ODD).await.unwrap().body, json!({"Name": "x"}));
}

#[tokio::test]
async fn an_html_page_at_the_root_is_no_redfish_service() {
    let bmc = Bmc::start(|_, _| Some(Reply::html(200))).await;
    assert_eq!(bmc.connect().await.unwrap_err().code(), "bmc.not-redfish");
    assert!(bmc.log().iter().all(|seen| !seen.has_credentials()));
}

#[tokio::test]
async fn another_json_service_is_no_redfish_service() {
    let bmc = Bmc::start(|_, _| Some(Reply::json(200, &json!({"swagger": "2.0"})))).await;
    assert_eq!(bmc.connect().await.unwrap_err().code(), "bmc.not-redfish");
    assert!(bmc.log().iter().all(|seen| !seen.has_credentials()));
}

#[tokio::test]
async fn a_service_without_such_a_path_is_no_redfish_service() {
    let bmc = Bmc::start(|_, _| Some(Reply::html(404))).await;
    assert_eq!(bmc.connect().await.unwrap_err().code(), "bmc.not-redfish");
}

#[tokio::test]
async fn an_announced_gibibyte_is_not_received() {
    let head = || format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n{{", 1 << 30).into_bytes();
    let (bmc, client) = odd(move || Reply::Endless(head())).await;
    costs_one_resource(&client, "redfish.body.too-large").await;
    assert!(client.usage().bytes < 1 << 20, "{:?}", client.usage());
    assert!(bmc.sent() < 64 << 20, "{}", bmc.sent());
}

#[tokio::test]
async fn a_gibibyte_without_announcement_is_received_up_to_the_limit_only() {
    let mut small = options();
    small.limits = Limits { body: 1 << 20, total: 1 << 30 };
    let head = || b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n{".to_vec();
    let (bmc, client) = odd_with(small, move || Reply::Endless(head())).await;
    costs_one_resource(&client, "redfish.body.too-large").await;
    // What was received, and what the system took on its way to us before the connection was closed.
    assert!(client.usage().bytes < 2 << 20, "{:?}", client.usage());
    assert!(bmc.sent() < 64 << 20, "{}", bmc.sent());
}

#[tokio::test]
async fn one_reading_receives_only_so_much() {
    let mut small = options();
    small.limits.total = 100_000;
    let page = format!(r#"{{"Name":"{}"}}"#, "x".repeat(60_000));
    let (_bmc, client) = odd_with(small, move || Reply::new(200, &[], &page)).await;
    assert!(client.get(ODD).await.is_ok());
    let error = client.get(ODD).await.unwrap_err();
    assert_eq!((error.code(), error.is_fatal()), ("bmc.reading-too-large", true));
}

#[tokio::test]
async fn half_a_document_is_asked_for_twice_and_then_costs_one_resource() {
    let (bmc, client) = odd(|| Reply::new(200, &[], r#"{"@odata.id": "/redfish/v1/Odd", "Na"#)).await;
    costs_one_resource(&client, "redfish.body.truncated").await;
    assert_eq!(bmc.count("GET", ODD), 2);
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_asked_for_again() {
    let mut first = true;
    let bmc = Bmc::start(move |_, seen| {
        (seen.target == ODD && std::mem::take(&mut first))
            .then(|| Reply::Cut(b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\n{\"Name\":\"half\"}".to_vec()))
    })
    .await;
    let client = bmc.connect().await.unwrap();
    assert_eq!(client.get(ODD).await.unwrap().body["Name"], "a resource");
    assert_eq!(bmc.count("GET", ODD), 2);
}

#[tokio::test]
async fn a_whole_body_that_ends_with_the_connection_is_taken() {
    let (bmc, client) = odd(|| Reply::Cut(b"HTTP/1.1 200 X\r\n\r\n{\"Name\":\"whole\"}".to_vec())).await;
    assert_eq!(client.get(ODD).await.unwrap().body["Name"], "whole");
    assert_eq!(bmc.count("GET", ODD), 1);
}

#[tokio::test]
async fn a_deeply_nested_body_costs_one_resource() {
    let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let (_bmc, client) = odd(move || Reply::new(200, &[], &deep)).await;
    costs_one_resource(&client, "redfish.body.too-deep").await;
}

#[tokio::test]
async fn no_content_costs_one_resource() {
    let (_bmc, client) = odd(|| Reply::new(204, &[], "")).await;
    costs_one_resource(&client, "redfish.body.empty").await;
}

#[tokio::test]
async fn an_error_under_a_status_of_success_is_no_resource() {
    let (_bmc, client) = odd(|| Reply::message(200, "Base.1.8.InternalError")).await;
    let error = client.get(ODD).await.unwrap_err();
    assert_eq!((error.code(), error.message_id()), ("redfish.body.error", Some("Base.1.8.InternalError")));
}

#[tokio::test]
async fn a_missing_resource_costs_one_resource() {
    let (_bmc, client) = odd(|| Reply::html(404)).await;
    costs_one_resource(&client, "redfish.resource.not-found").await;
}

#[tokio::test]
async fn a_redirect_within_the_bmc_is_followed_with_credentials() {
    let (bmc, client) = odd(|| Reply::new(308, &[("Location", "/redfish/v1/Systems/1")], "")).await;
    assert_eq!(client.get(ODD).await.unwrap().body["@odata.id"], "/redfish/v1/Systems/1");
    assert!(bmc.log().last().unwrap().has_credentials());
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let (bmc, client) = odd(|| Reply::new(302, &[("Location", ODD)], "")).await;
    costs_one_resource(&client, "redfish.redirects").await;
    assert_eq!(bmc.count("GET", ODD), 4);
}

#[tokio::test]
async fn quirk_40_a_redirect_to_another_host_is_not_followed() {
    let other = Bmc::good().await;
    let elsewhere = format!("{}/redfish/v1/Systems", other.url());
    let (_bmc, client) = odd(move || Reply::new(302, &[("Location", &elsewhere)], "")).await;
    costs_one_resource(&client, "redfish.uri.cross-origin").await;
    assert!(other.log().is_empty());
}

#[tokio::test]
async fn quirk_40_a_link_to_another_host_is_not_followed() {
    let other = Bmc::good().await;
    let bmc = Bmc::good().await;
    let client = bmc.connect().await.unwrap();
    let before = bmc.log().len();
    let port = other.address.port();
    for link in
        [other.url(), format!("//127.0.0.1:{port}/redfish/v1"), format!("https://x@127.0.0.1:{port}/")]
    {
        assert_eq!(client.get(&link).await.unwrap_err().code(), "redfish.uri.cross-origin", "{link}");
    }
    assert!(other.log().is_empty());
    assert_eq!(bmc.log().len(), before);
}

#[tokio::test]
async fn quirk_40_credentials_do_not_go_to_a_session_service_elsewhere() {
    let other = Bmc::good().await;
    let elsewhere = format!("{}/redfish/v1/SessionService/Sessions", other.url());
    let bmc = Bmc::start(move |_, seen| {
        let mut root = crate::server::root();
        root["Links"]["Sessions"]["@odata.id"] = json!(elsewhere);
        seen.is("GET", "/redfish/v1/").then(|| Reply::json(200, &root))
    })
    .await;
    let client = bmc.connect().await.unwrap();
    assert!(client.get("/redfish/v1/Systems/1").await.is_ok());
    assert!(other.log().is_empty());
}

#[tokio::test]
async fn a_bmc_that_never_answers_costs_a_time_out_and_no_more() {
    let mut hasty = options();
    hasty.timeouts.ordinary = Duration::from_secs(1);
    let (bmc, client) = odd_with(hasty, || Reply::Silence).await;
    costs_one_resource(&client, "redfish.resource.timeout").await;
    assert_eq!(bmc.count("GET", ODD), 1);
}
