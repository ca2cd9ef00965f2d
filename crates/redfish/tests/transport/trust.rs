//! Who is at the other end, and that nothing goes there before it is known.

use domain::Diagnose as _;
use redfish::{Client, Error, Reader as _, SpkiPin, Target, Trust};
use rustls::version::{TLS12, TLS13};

use crate::server::{Bmc, Shown, nobody, options};

async fn code_of(bmc: &Bmc, trust: Trust) -> Option<&'static str> {
    Client::connect(Target::new(bmc.url(), trust), options()).await.err().map(|error| error.code())
}

fn long_ago(params: &mut rcgen::CertificateParams) {
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
}

async fn showing(shown: Shown) -> Bmc {
    Bmc::start_with(shown, rustls::ALL_VERSIONS, |_, _| None).await
}

#[tokio::test]
async fn a_bmc_with_the_pinned_key_is_read() {
    let bmc = Bmc::good().await;
    let client = bmc.connect().await.unwrap();
    let system = client.get("/redfish/v1/Systems/1").await.unwrap();
    assert_eq!(system.body["@odata.id"], "/redfish/v1/Systems/1");
    assert_eq!(client.peer_pin(), Some(bmc.shown.pin));
    assert!(client.diagnostics().is_empty());
}

#[tokio::test]
async fn another_key_than_the_pinned_one_is_refused_before_anything_is_sent() {
    let bmc = Bmc::good().await;
    let expected = SpkiPin::of_spki(b"another key");
    let error = Client::connect(Target::new(bmc.url(), Trust::Pin(expected)), options()).await.unwrap_err();
    let problem = error.problem();
    assert_eq!(problem.code, "bmc.pin-mismatch");
    assert_eq!(
        (problem.found, problem.expected),
        (Some(bmc.shown.pin.to_string()), Some(expected.to_string()))
    );
    assert!(bmc.log().is_empty(), "{:?}", bmc.log());
}

#[tokio::test]
async fn an_expired_certificate_over_the_pinned_key_is_only_a_diagnostic() {
    let bmc = showing(Shown::self_signed(long_ago)).await;
    let client = bmc.connect().await.unwrap();
    let codes: Vec<_> = client.diagnostics().into_iter().map(|d| d.code).collect();
    assert_eq!(codes, ["bmc.certificate.expired"]);
}

#[tokio::test]
async fn a_certificate_for_another_name_over_the_pinned_key_is_only_a_diagnostic() {
    let bmc = showing(Shown::self_signed(|params| params.subject_alt_names.clear())).await;
    let url = format!("https://localhost:{}", bmc.address.port());
    let client = Client::connect(Target::new(url, Trust::Pin(bmc.shown.pin)), options()).await.unwrap();
    let codes: Vec<_> = client.diagnostics().into_iter().map(|d| d.code).collect();
    assert_eq!(codes, ["bmc.certificate.wrong-name"]);
}

#[tokio::test]
async fn a_certificate_signed_by_the_ca_is_taken() {
    let (shown, ca) = Shown::signed_by_ca(|_| ());
    let bmc = showing(shown).await;
    assert_eq!(code_of(&bmc, Trust::Ca(ca.into_bytes())).await, None);
}

#[tokio::test]
async fn a_self_signed_certificate_given_as_ca_is_taken() {
    let bmc = Bmc::good().await;
    assert_eq!(code_of(&bmc, Trust::Ca(bmc.shown.pem.clone().into_bytes())).await, None);
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_untrusted() {
    let (shown, _) = Shown::signed_by_ca(|_| ());
    let (_, other_ca) = Shown::signed_by_ca(|_| ());
    let bmc = showing(shown).await;
    assert_eq!(code_of(&bmc, Trust::Ca(other_ca.into_bytes())).await, Some("bmc.certificate.untrusted"));
    assert!(bmc.log().is_empty());
}

#[tokio::test]
async fn with_a_ca_an_expired_certificate_is_refused() {
    let (shown, ca) = Shown::signed_by_ca(long_ago);
    let bmc = showing(shown).await;
    assert_eq!(code_of(&bmc, Trust::Ca(ca.into_bytes())).await, Some("bmc.certificate.expired"));
}

#[tokio::test]
async fn with_a_ca_a_certificate_for_another_name_is_refused() {
    let (shown, ca) = Shown::signed_by_ca(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("elsewhere".try_into().unwrap())];
    });
    let bmc = showing(shown).await;
    assert_eq!(code_of(&bmc, Trust::Ca(ca.into_bytes())).await, Some("bmc.certificate.wrong-name"));
}

#[tokio::test]
async fn a_ca_file_without_certificates_is_refused() {
    let bmc = Bmc::good().await;
    assert_eq!(code_of(&bmc, Trust::Ca(b"no pem".to_vec())).await, Some("bmc.ca-invalid"));
}

/// Pinned, unchecked or on first use: what the TLS library cannot use has a code of its own.
async fn is_refused_under_every_trust(pem: &str, code: &str) {
    let bmc = showing(Shown::stored(pem)).await;
    for trust in [Trust::Pin(bmc.shown.pin), Trust::Insecure, Trust::FirstUse] {
        assert_eq!(code_of(&bmc, trust.clone()).await, Some(code), "{trust:?}");
    }
    assert!(bmc.log().is_empty());
}

#[tokio::test]
async fn a_version_1_certificate_has_its_own_code() {
    is_refused_under_every_trust(include_str!("certificates/x509-v1.pem"), "bmc.certificate.x509-v1").await;
}

#[tokio::test]
async fn an_rsa_key_of_1024_bits_has_its_own_code() {
    is_refused_under_every_trust(include_str!("certificates/rsa-1024.pem"), "bmc.certificate.weak-key").await;
}

#[tokio::test]
async fn a_key_on_an_unsupported_curve_has_its_own_code() {
    is_refused_under_every_trust(include_str!("certificates/p-521.pem"), "bmc.certificate.unsupported-key")
        .await;
}

#[tokio::test]
async fn first_use_tells_the_pin_and_sends_no_credentials() {
    let bmc = Bmc::good().await;
    let client = Client::connect(Target::new(bmc.url(), Trust::FirstUse), options()).await.unwrap();
    assert_eq!(client.peer_pin(), Some(bmc.shown.pin));
    let refused = client.get("/redfish/v1/Systems/1").await.unwrap_err();
    assert_eq!(refused.code(), "redfish.resource.unauthorized");
    assert!(bmc.log().iter().all(|seen| !seen.has_credentials()));
}

#[tokio::test]
async fn tls_1_2_and_tls_1_3_are_spoken() {
    for version in [&TLS12, &TLS13] {
        let bmc = Bmc::start_with(Shown::self_signed(|_| ()), &[version], |_, _| None).await;
        assert!(bmc.connect().await.is_ok(), "{version:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_has_its_own_code() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let outcome =
        Client::connect(Target::new(format!("https://{address}"), Trust::Insecure), options()).await;
    assert_eq!(outcome.map_err(|error| error.code()).err(), Some("bmc.tls"));
    server.await.unwrap();
}

#[tokio::test]
async fn an_address_outside_the_networks_is_not_connected_to() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut target = Target::new(format!("https://{}", listener.local_addr().unwrap()), Trust::Insecure);
    target.networks = Some(vec!["10.0.0.0/8".parse().unwrap()]);
    let error = Client::connect(target, options()).await.unwrap_err();
    assert!(matches!(error, Error::OutsideNetworks { .. }), "{error:?}");
    let nobody = futures_util::FutureExt::now_or_never(listener.accept());
    assert!(nobody.is_none(), "somebody connected");
}

#[tokio::test]
async fn where_nothing_listens_the_bmc_is_unreachable() {
    let address = nobody().await;
    let outcome =
        Client::connect(Target::new(format!("https://{address}"), Trust::Insecure), options()).await;
    assert_eq!(outcome.map_err(|error| error.code()).err(), Some("bmc.unreachable"));
}

#[tokio::test]
async fn a_key_changed_between_two_requests_is_refused() {
    let bmc = Bmc::good().await;
    let mut without_pool = options();
    without_pool.pooling = false;
    let client = bmc.connect_with(without_pool).await.unwrap();
    bmc.show(Shown::self_signed(|_| ()));
    let error = client.get("/redfish/v1/Systems/1").await.unwrap_err();
    assert_eq!((error.code(), error.is_fatal()), ("bmc.pin-mismatch", true));
    assert_eq!(bmc.count("GET", "/redfish/v1/Systems/1"), 0);
}
