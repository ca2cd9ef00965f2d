//! sushy-emulator starts, answers over HTTPS, and is gone after drop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test, in helpers too"
)]

use bailiwick_testbed::SushyEmulator;
use reqwest::{Certificate, Client, StatusCode};

fn client_that_trusts(certificate_pem: &str) -> Client {
    // Whoever installed it first installed the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificate = Certificate::from_pem(certificate_pem.as_bytes()).unwrap();
    Client::builder().tls_certs_only([certificate]).no_proxy().build().unwrap()
}

#[tokio::test]
async fn its_systems_are_shown_to_the_user_that_it_knows() {
    let emulator = SushyEmulator::start().await.unwrap();
    let systems = client_that_trusts(emulator.certificate_pem())
        .get(format!("https://{}/redfish/v1/Systems", emulator.address()))
        .basic_auth(emulator.username(), Some(emulator.password()))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for uuid in emulator.system_uuids() {
        assert!(systems.contains(uuid), "{uuid} is missing in {systems}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let emulator = SushyEmulator::start().await.unwrap();
    let answer = client_that_trusts(emulator.certificate_pem())
        .get(format!("https://{}/redfish/v1/Systems", emulator.address()))
        .basic_auth(emulator.username(), Some("wrong"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_dropped_emulator_listens_no_more() {
    let emulator = SushyEmulator::start().await.unwrap();
    let address = emulator.address();
    drop(emulator);
    let refused = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}
