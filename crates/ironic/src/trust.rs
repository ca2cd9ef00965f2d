//! How Ironic proves that it is the right one, before credentials of BMCs are sent to it.

use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use sha2::{Digest as _, Sha256};
use x509_cert::der::{Decode as _, Encode as _};

use crate::error::Error;

/// What the server must show.
#[derive(Clone, Debug)]
pub enum Trust {
    /// A certificate for its name that one of these CAs signed (PEM).
    Ca(Vec<u8>),
    /// The key with this digest; the certificate around it may be self-signed, expired, for another name.
    Pin(Pin),
    /// Nothing; also needed for plain `http` to another host. For a network that one trusts.
    Insecure,
}

/// SHA-256 of a DER SubjectPublicKeyInfo, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(pub [u8; 32]);

impl FromStr for Pin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut digest = [0; 32];
        let digits = text.trim().strip_prefix("sha256:").unwrap_or_default();
        hex::decode_to_slice(digits, &mut digest).map_err(|_| Error::Trust {
            reason: "a pin is `sha256:` and 64 hexadecimal digits".to_owned(),
        })?;
        Ok(Self(digest))
    }
}

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

/// The TLS configuration for a trust.
pub(crate) fn tls(trust: &Trust) -> Result<ClientConfig, Error> {
    let unusable = |error: &dyn std::fmt::Display| Error::Trust { reason: error.to_string() };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Ca(pem) => chain_of(pem)?,
        Trust::Pin(pin) => Arc::new(Lenient(Some(*pin))),
        Trust::Insecure => Arc::new(Lenient(None)),
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn chain_of(pem: &[u8]) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let unusable = |error: &dyn std::fmt::Display| Error::Trust { reason: error.to_string() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER))
        .build()
        .map_err(|error| unusable(&error))
}

/// Takes any certificate, or any that is over the key pinned.
#[derive(Debug)]
struct Lenient(Option<Pin>);

#[derive(Debug, thiserror::Error)]
#[error("the key is sha256:{}, and sha256:{} is pinned", hex::encode(found), hex::encode(expected))]
struct OtherKey {
    found: [u8; 32],
    expected: [u8; 32],
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(Pin(expected)) = self.0 {
            let certificate = x509_cert::Certificate::from_der(end_entity)
                .and_then(|certificate| certificate.tbs_certificate().subject_public_key_info().to_der());
            let spki =
                certificate.map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
            let found: [u8; 32] = Sha256::digest(spki).into();
            if found != expected {
                let refusal = Arc::new(OtherKey { found, expected });
                return Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(refusal))));
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}
