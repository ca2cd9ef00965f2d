//! Mutual TLS with agents: TLS 1.3, certificates of the cell's own authority on both sides.

use super::authority::{Authority, failed};
use crate::error::CellError;
use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use x509_cert::der::Decode as _;

/// How long a certificate of the cell's is valid, and when it takes another.
const LIFE: Duration = Duration::from_hours(7 * 24);
const RENEWED: Duration = Duration::from_hours(24);

/// The configuration of the agents' listener.
pub(super) fn config(authority: Arc<Authority>) -> Result<Arc<ServerConfig>, CellError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).map_err(failed)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(failed)?;
    let own = Own::new(authority)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(Arc::new(AtAnyTime(verifier)))
        .with_cert_resolver(Arc::new(own));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A session that is resumed would be one whose certificates nobody has looked at.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The cell's own certificate, made anew before it ends.
#[derive(Debug)]
struct Own {
    authority: Arc<Authority>,
    current: Mutex<(Arc<CertifiedKey>, Instant)>,
}

impl Own {
    fn new(authority: Arc<Authority>) -> Result<Self, CellError> {
        let first = Arc::new(authority.server(Timestamp::now(), LIFE)?);
        Ok(Self { authority, current: Mutex::new((first, Instant::now())) })
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1.elapsed() > RENEWED {
            match self.authority.server(Timestamp::now(), LIFE) {
                Ok(next) => *current = (Arc::new(next), Instant::now()),
                Err(error) => tracing::error!(
                    code = error.code(),
                    "the agents' listener keeps its certificate: {error}"
                ),
            }
        }
        Some(Arc::clone(&current.0))
    }
}

/// Checks all of a client's certificate but the time. The time is checked at each call: a connection may outlive a certificate,
/// and an agent that comes back after the cell was away may renew one that has ended.
#[derive(Debug)]
struct AtAnyTime(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AtAnyTime {
    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let parsed = x509_cert::Certificate::from_der(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let then = parsed.tbs_certificate().validity().not_before.to_unix_duration();
        self.0.verify_client_cert(end_entity, intermediates, UnixTime::since_unix_epoch(then))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
