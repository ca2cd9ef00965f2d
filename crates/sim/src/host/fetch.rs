//! What hosts and their agents fetch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha512};

use super::iso;
use crate::error::Error;

/// An image is not looked at further than this for what it is.
const START: usize = 32 << 20;
/// A configdrive is at most this large; Ironic's own limit is 64 MiB.
const CONFIGDRIVE: usize = 64 << 20;
const CONNECT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer.
const READ: Duration = Duration::from_secs(30);

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfetched {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    #[error("it is no ISO 9660 image")]
    NoIso,
}

/// A checksum that an image must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Checksum {
    Sha256(String),
    Sha512(String),
}

impl Checksum {
    /// The checksum of an `image_info`; as ironic-python-agent, nothing weaker than SHA-256.
    pub(crate) fn of(image_info: &Value) -> Result<Self, String> {
        let algorithm = image_info["os_hash_algo"].as_str();
        let value = image_info["os_hash_value"].as_str().or_else(|| image_info["checksum"].as_str());
        let value = value.ok_or("no checksum was given")?.to_ascii_lowercase();
        match (algorithm, value.len()) {
            (Some("sha256"), _) | (None, 64) => Ok(Self::Sha256(value)),
            (Some("sha512"), _) | (None, 128) => Ok(Self::Sha512(value)),
            (algorithm, _) => {
                Err(format!("checksums of type {} are not supported", algorithm.unwrap_or("md5")))
            }
        }
    }

    pub(crate) fn value(&self) -> &str {
        match self {
            Self::Sha256(value) | Self::Sha512(value) => value,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }
}

enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    fn hex(self) -> String {
        match self {
            Self::Sha256(hash) => hex::encode(hash.finalize()),
            Self::Sha512(hash) => hex::encode(hash.finalize()),
        }
    }
}

/// The HTTP client of all hosts of a site.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher(reqwest::Client);

impl Fetcher {
    pub(crate) fn new() -> Result<Self, Error> {
        let fail = || Error::certificate::<rustls::Error>("the hosts' client");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(AnyServer(Arc::clone(&provider)));
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(fail())?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
        let client = client.connect_timeout(CONNECT).read_timeout(READ).build();
        Ok(Self(client.map_err(Error::certificate("the hosts' client"))?))
    }

    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.0
    }

    /// What the ISO at this URL is, from as much of it as is needed to tell.
    pub(crate) async fn kind(&self, url: &str) -> Result<iso::Kind, Unfetched> {
        let mut body = self.0.get(url).send().await?.error_for_status()?.bytes_stream();
        let mut start = Vec::new();
        while let Some(chunk) = body.next().await {
            start.extend_from_slice(&chunk?);
            if start.len() >= START {
                break;
            }
        }
        iso::kind(&start).ok_or(Unfetched::NoIso)
    }

    /// Fetches an image to its end and says what it really hashes to; `Err` inside where that is not what was said.
    pub(crate) async fn verify(
        &self,
        url: &str,
        checksum: &Checksum,
    ) -> Result<Result<String, String>, Unfetched> {
        let mut hasher = match checksum {
            Checksum::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Checksum::Sha512(_) => Hasher::Sha512(Sha512::new()),
        };
        let mut body = self.0.get(url).send().await?.error_for_status()?.bytes_stream();
        while let Some(chunk) = body.next().await {
            hasher.update(&chunk?);
        }
        let found = hasher.hex();
        Ok(if found == checksum.value() { Ok(found) } else { Err(found) })
    }

    /// A configdrive or another small thing, whole.
    pub(crate) async fn small(&self, url: &str) -> Result<Bytes, Unfetched> {
        let mut body = self.0.get(url).send().await?.error_for_status()?.bytes_stream();
        let mut all = Vec::new();
        while let Some(chunk) = body.next().await {
            all.extend_from_slice(&chunk?);
            if all.len() > CONFIGDRIVE {
                return Err(Unfetched::TooLarge(CONFIGDRIVE));
            }
        }
        Ok(Bytes::from(all))
    }
}

/// Takes any certificate: a simulated host has no secret to give away, and what it writes to a disk is verified by checksum.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn checksums_are_sha256_or_sha512_and_nothing_weaker() {
        let long = "AB".repeat(64);
        let sha512 = json!({"os_hash_algo": "sha512", "os_hash_value": long});
        assert_eq!(Checksum::of(&sha512), Ok(Checksum::Sha512("ab".repeat(64))));
        let plain = json!({"checksum": "cd".repeat(32)});
        assert_eq!(Checksum::of(&plain), Ok(Checksum::Sha256("cd".repeat(32))));
        assert!(Checksum::of(&json!({"checksum": "ef".repeat(16)})).unwrap_err().contains("md5"));
        assert!(Checksum::of(&json!({})).is_err());
    }
}
