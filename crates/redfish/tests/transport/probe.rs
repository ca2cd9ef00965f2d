//! Finding BMCs without credentials.

use std::time::Duration;

use redfish::probe::{Patience, Probe, probe};
use serde_json::json;

use crate::server::{Bmc, Reply, Shown, nobody};

const PATIENCE: Patience = Patience { connect: Duration::from_secs(5), answer: Duration::from_secs(5) };

async fn probed(bmc: &Bmc) -> Probe {
    let found = probe(bmc.address, PATIENCE).await;
    assert!(bmc.log().iter().all(|seen| !seen.has_credentials()));
    found
}

fn code(found: &Probe) -> Option<&str> {
    found.problem.as_ref().map(|problem| problem.code.as_str())
}

#[tokio::test]
async fn a_bmc_is_found_with_its_pin_and_what_its_root_says() {
    let bmc = Bmc::good().await;
    let found = probed(&bmc).await;
    assert_eq!(found.pin, Some(bmc.shown.pin));
    assert_eq!(found.vendor.as_deref(), Some("Contoso"));
    assert_eq!(found.product.as_deref(), Some("A BMC"));
    assert_eq!(found.redfish_version.as_deref(), Some("1.11.0"));
    assert_eq!(found.uuid.as_deref(), Some("a0a0a0a0-0000-4000-8000-000000000001"));
    assert!(found.is_candidate() && found.problem.is_none());
    assert_eq!(found.certificate_sha256.map(|digest| digest.len()), Some(64));
}

#[tokio::test]
async fn where_nothing_listens_nothing_answers() {
    let found = probe(nobody().await, PATIENCE).await;
    assert_eq!(code(&found), Some("bmc.unreachable"));
    assert!(!found.answers() && !found.is_candidate());
}

#[tokio::test]
async fn a_web_server_answers_but_is_no_bmc() {
    let bmc = Bmc::start(|_, _| Some(Reply::html(404))).await;
    let found = probed(&bmc).await;
    assert_eq!(code(&found), Some("bmc.not-redfish"));
    assert!(found.answers() && !found.is_candidate());
}

#[tokio::test]
async fn a_server_without_tls_answers_but_is_no_bmc() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
        }
    });
    let found = probe(address, PATIENCE).await;
    server.abort();
    assert_eq!(code(&found), Some("bmc.tls"));
    assert!(found.answers() && !found.is_candidate());
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_one_time_out() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hasty = Patience { answer: Duration::from_millis(50), ..PATIENCE };
    let found = probe(listener.local_addr().unwrap(), hasty).await;
    assert!(matches!(code(&found), Some("bmc.timeout")), "{found:?}");
    assert!(found.answers() && !found.is_candidate());
}

#[tokio::test]
async fn a_root_that_asks_for_credentials_is_a_candidate_without_vendor() {
    let bmc = Bmc::start(|_, _| Some(Reply::html(401))).await;
    let found = probed(&bmc).await;
    assert_eq!((code(&found), found.vendor.as_deref()), (Some("redfish.resource.unauthorized"), None));
    assert!(found.is_candidate());
    assert_eq!(found.pin, Some(bmc.shown.pin));
}

#[tokio::test]
async fn quirk_22_a_vendor_that_does_not_say_so_is_guessed() {
    let bmc = Bmc::start(|_, _| {
        let root = json!({"@odata.id": "/redfish/v1/", "RedfishVersion": "1.9.0", "Vendor": null,
            "Oem": {"Supermicro": {}}});
        Some(Reply::json(200, &root))
    })
    .await;
    assert_eq!(probed(&bmc).await.vendor.as_deref(), Some("Supermicro"));
}

#[tokio::test]
async fn a_refused_certificate_is_told_with_its_pin() {
    let shown = Shown::stored(include_str!("certificates/rsa-1024.pem"));
    let bmc = Bmc::start_with(shown, rustls::ALL_VERSIONS, |_, _| None).await;
    let found = probed(&bmc).await;
    assert_eq!((code(&found), found.pin), (Some("bmc.certificate.weak-key"), Some(bmc.shown.pin)));
    assert!(found.is_candidate());
}

#[tokio::test]
async fn a_root_that_redirects_to_itself_with_another_slash_is_followed() {
    let bmc = Bmc::start(|_, seen| {
        seen.is("GET", "/redfish/v1/").then(|| Reply::new(301, &[("Location", "/redfish/v1")], ""))
    })
    .await;
    assert_eq!(probed(&bmc).await.vendor.as_deref(), Some("Contoso"));
}
