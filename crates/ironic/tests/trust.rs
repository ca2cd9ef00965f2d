//! How an Ironic over HTTPS proves itself, before anything secret is sent.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking, and so do their helpers")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bailiwick_ironic::{Authentication, Client, Endpoint, Options, Pin, Secret, Trust};
use rcgen::{CertifiedKey, PublicKeyData as _, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nx-openstack-ironic-api-maximum-version: 1.115\r\nconnection: close\r\n\
    content-length: 2\r\n\r\n{}";

/// A server with a self-signed certificate for one name.
struct Server {
    url: String,
    certificate: String,
    pin: Pin,
    heard: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(name: &str) -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
        let pin = Pin(Sha256::digest(signing_key.subject_public_key_info()).into());
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let (acceptor, heard) = (TlsAcceptor::from(Arc::new(config)), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 4096];
                if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                    counter.fetch_add(1, Ordering::Relaxed);
                    stream.write_all(ANSWER).await.unwrap();
                    let _closed = stream.shutdown().await;
                }
            }
        });
        Self { url, certificate: cert.pem(), pin, heard, task }
    }

    async fn code(&self, trust: Trust) -> Option<&'static str> {
        let authentication =
            Authentication::HttpBasic { username: "user".to_owned(), password: Secret::new("hunter2") };
        let endpoint = Endpoint { url: self.url.clone(), authentication, trust };
        let client = Client::new(&endpoint, Options { attempts: 1, ..Options::default() });
        match client {
            Ok(client) => client.version().await.err().map(|error| error.code()),
            Err(error) => Some(error.code()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_certificate_of_a_ca_given_is_taken_and_another_is_not() {
    let (server, other) = (Server::start("127.0.0.1").await, Server::start("127.0.0.1").await);
    let ca = |server: &Server| Trust::Ca(server.certificate.clone().into_bytes());
    assert_eq!(server.code(ca(&server)).await, None);
    assert_eq!(server.code(ca(&other)).await, Some("ironic.untrusted"));
    assert_eq!(server.heard.load(Ordering::Relaxed), 1, "nothing is sent to a server that is not trusted");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_taken_from_a_ca_but_its_key_may_be_pinned() {
    let server = Server::start("ironic.example").await;
    assert_eq!(
        server.code(Trust::Ca(server.certificate.clone().into_bytes())).await,
        Some("ironic.untrusted")
    );
    assert_eq!(server.code(Trust::Pin(server.pin)).await, None);
}

#[tokio::test]
async fn another_key_than_the_one_pinned_hears_nothing() {
    let server = Server::start("127.0.0.1").await;
    assert_eq!(server.code(Trust::Pin(Pin([7; 32]))).await, Some("ironic.untrusted"));
    assert_eq!(server.heard.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn https_without_a_ca_is_refused_before_it_is_tried() {
    let server = Server::start("127.0.0.1").await;
    assert_eq!(server.code(Trust::Ca(Vec::new())).await, Some("ironic.trust-invalid"));
    assert_eq!(server.code(Trust::Insecure).await, None);
}

#[test]
fn a_pin_is_written_in_one_way() {
    let digits = "ab".repeat(32);
    assert_eq!(format!("sha256:{digits}").parse::<Pin>().unwrap(), Pin([0xab; 32]));
    for wrong in [digits.as_str(), "sha256:ab", ""] {
        assert_eq!(wrong.parse::<Pin>().unwrap_err().code(), "ironic.trust-invalid", "{wrong}");
    }
}
