//! Keys, certificates, pins, and servers that are no BMCs.

// Helpers of tests fail by panicking too; clippy.toml allows it in test functions only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use bailiwick_sim::decoy::Decoy;
use bailiwick_sim::legacy::LegacyServer;
use bailiwick_sim::{Bmc, BmcBuilder, CertificateAuthority, CertificateKind, KeyStore, TlsIdentity};
use reqwest::{Certificate, Client, tls::TlsInfo};
use sha2::{Digest as _, Sha256};
use support::{body, builder, client, small_tree};

/// The leaf certificate that a server shows, in DER.
async fn leaf(url: &str) -> Vec<u8> {
    let answer =
        builder().tls_info(true).build().unwrap().get(format!("{url}/redfish/v1")).send().await.unwrap();
    answer.extensions().get::<TlsInfo>().unwrap().peer_certificate().unwrap().to_vec()
}

/// The pin of a certificate with a P-256 key, found by the fixed beginning of such a SubjectPublicKeyInfo.
fn p256_pin(certificate: &[u8]) -> String {
    let start = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
    let at = certificate.windows(start.len()).position(|window| window == start).unwrap();
    format!("sha256:{}", hex::encode(Sha256::digest(&certificate[at..at + 91])))
}

/// A client that believes only in this authority, host names and dates included.
fn strict(pem: &str) -> Client {
    let authority = Certificate::from_pem(pem.as_bytes()).unwrap();
    client(); // installs the provider
    Client::builder().tls_certs_only([authority]).no_proxy().build().unwrap()
}

fn bmc(kind: CertificateKind) -> BmcBuilder {
    Bmc::builder(small_tree()).certificate(kind)
}

#[tokio::test]
async fn the_pin_is_that_of_the_key_that_is_served() {
    let bmc = bmc(CertificateKind::SelfSigned).start().await.unwrap();
    assert_eq!(p256_pin(&leaf(&bmc.url()).await), bmc.pin());
}

#[tokio::test]
async fn a_rotated_key_is_what_new_connections_see() {
    let bmc = bmc(CertificateKind::SelfSigned).start().await.unwrap();
    let before = bmc.pin();
    let after = bmc.rotate_key().unwrap();
    assert_ne!(before, after);
    assert_eq!(p256_pin(&leaf(&bmc.url()).await), after);
}

#[tokio::test]
async fn a_certificate_of_an_authority_is_believed_by_those_who_believe_in_it() {
    let authority = CertificateAuthority::generate("test authority").unwrap();
    let signed = bmc(CertificateKind::SignedBy(Arc::clone(&authority))).start().await.unwrap();
    let root = strict(authority.pem()).get(format!("{}/redfish/v1", signed.url())).send().await.unwrap();
    assert_eq!(root.status(), 200);
    let other = CertificateAuthority::generate("another").unwrap();
    assert!(strict(other.pem()).get(format!("{}/redfish/v1", signed.url())).send().await.is_err());
}

/// Why a client that trusts the BMC's own certificate refuses it.
async fn refusal(kind: CertificateKind) -> String {
    let bmc = bmc(kind).start().await.unwrap();
    let client = strict(&bmc.identity().certificate_pem());
    let error = client.get(format!("{}/redfish/v1", bmc.url())).send().await.unwrap_err();
    format!("{error:?}")
}

#[tokio::test]
async fn an_expired_certificate_is_expired() {
    let why = refusal(CertificateKind::Expired).await;
    assert!(why.contains("Expired"), "{why}");
}

#[tokio::test]
async fn a_certificate_of_the_future_is_not_valid_yet() {
    let why = refusal(CertificateKind::NotYetValid).await;
    assert!(why.contains("NotValidYet"), "{why}");
}

#[tokio::test]
async fn a_certificate_of_another_host_is_of_another_host() {
    let why = refusal(CertificateKind::WrongHost).await;
    assert!(why.contains("NotValidForName"), "{why}");
}

#[tokio::test]
async fn a_version_1_certificate_has_no_version_field_and_is_served() {
    let bmc = bmc(CertificateKind::Version1).start().await.unwrap();
    let certificate = leaf(&bmc.url()).await;
    // Certificate, TBSCertificate, then at once the serial number: a version would be tagged [0] (0xa0).
    assert_eq!(certificate[0], 0x30);
    let to_be_signed = &certificate[4..];
    assert_eq!((to_be_signed[0], to_be_signed[1] & 0x80), (0x30, 0x80));
    let first = 2 + usize::from(to_be_signed[1] & 0x7f);
    assert_eq!(to_be_signed[first], 0x02);
    assert_eq!(p256_pin(&certificate), bmc.pin());
}

#[tokio::test]
async fn rsa_with_1024_bits_is_served_by_a_helper_and_refused_by_this_tls_library() {
    let server = LegacyServer::rsa_1024().await.unwrap();
    let url = format!("{}/redfish/v1", server.url());
    // A client that checks nothing sees a Redfish service.
    let root = client().get(&url).send().await.unwrap();
    assert_eq!(body(root).await["RedfishVersion"], "1.6.0");
    // One that trusts this very certificate cannot verify its signature.
    let error = strict(server.certificate_pem()).get(&url).send().await.unwrap_err();
    assert!(format!("{error:?}").contains("BadSignature"), "{error:?}");
}

#[tokio::test]
async fn the_pin_of_the_helper_is_that_of_its_key() {
    let server = LegacyServer::rsa_1024().await.unwrap();
    let certificate = leaf(&server.url()).await;
    let start = hex::decode("30819f300d06092a864886f70d010101").unwrap();
    let at = certificate.windows(start.len()).position(|window| window == start).unwrap();
    let pin = hex::encode(Sha256::digest(&certificate[at..at + 162]));
    assert_eq!(server.pin(), format!("sha256:{pin}"));
}

#[tokio::test]
async fn a_version_1_certificate_is_refused_by_this_tls_library() {
    let why = refusal(CertificateKind::Version1).await;
    assert!(why.contains("UnsupportedCertVersion"), "{why}");
}

#[test]
fn keys_are_kept_and_private() {
    let directory = tempfile::tempdir().unwrap();
    let store = KeyStore::open(directory.path().join("keys")).unwrap();
    let first = store.load_or_generate("bmc-1", &[]).unwrap();
    let again = store.load_or_generate("bmc-1", &[]).unwrap();
    assert_eq!(first.pin(), again.pin());
    assert_eq!(first.chain(), again.chain());
    assert_ne!(store.load_or_generate("bmc-2", &[]).unwrap().pin(), first.pin());
    let mode =
        |path: &str| std::fs::metadata(directory.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("keys"), mode("keys/bmc-1.pem")), (0o700, 0o600));
}

#[test]
fn a_damaged_key_file_is_an_error_and_not_a_new_key() {
    let directory = tempfile::tempdir().unwrap();
    let store = KeyStore::open(directory.path()).unwrap();
    std::fs::write(directory.path().join("bmc-1.pem"), "not a key").unwrap();
    let error = store.load_or_generate("bmc-1", &[]).unwrap_err();
    assert_eq!(error.code(), "sim.certificate");
    assert!(error.to_string().contains("bmc-1.pem"), "{error}");
}

#[tokio::test]
async fn an_identity_from_pem_is_served() {
    let made = rcgen::generate_simple_self_signed(["from-pem".to_owned()]).unwrap();
    let pem = format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem());
    let identity = TlsIdentity::from_pem(&pem).unwrap();
    let bmc = Bmc::builder(small_tree()).identity(identity).start().await.unwrap();
    assert_eq!(leaf(&bmc.url()).await, made.cert.der().as_ref());
}

#[tokio::test]
async fn a_web_page_is_no_redfish_service() {
    let decoy = Decoy::web_page().unwrap();
    let page = client().get(format!("{}/redfish/v1", decoy.url())).send().await.unwrap();
    assert!(page.text().await.unwrap().starts_with("<!DOCTYPE html>"));
    assert_eq!(decoy.requests(), 1);
}

#[tokio::test]
async fn plain_http_and_raw_bytes_fail_a_tls_handshake() {
    let http = Decoy::http(|_| bailiwick_sim::decoy::html(http::StatusCode::OK)).unwrap();
    assert_eq!(client().get(http.url()).send().await.unwrap().status(), 200);
    assert!(client().get(format!("https://{}", http.address())).send().await.is_err());
    let ssh = Decoy::raw("SSH-2.0-OpenSSH_9.9\r\n").unwrap();
    assert!(client().get(ssh.url()).send().await.is_err());
}

#[tokio::test]
async fn a_silent_server_keeps_a_client_waiting() {
    let decoy = Decoy::silent().unwrap();
    let client = builder().timeout(std::time::Duration::from_millis(200)).build().unwrap();
    assert!(client.get(decoy.url()).send().await.unwrap_err().is_timeout());
}
