//! Trust in a BMC: what its certificate must show before anything else is sent.
//!
//! The pin is compared inside the handshake, so a BMC with another key never sees credentials. With a pin the rest of
//! the certificate (validity, name) is only worth a diagnostic: BMC clocks are wrong and addresses move (quirk 41).

use std::error::Error as StdError;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use domain::inventory::Diagnostic;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};

use crate::certificate::Certificate;
use crate::error::{CertificateProblem, Error};
use crate::pin::SpkiPin;

/// How a BMC proves that it is the right one.
#[derive(Clone, Debug)]
pub enum Trust {
    /// It shows the key with this pin.
    Pin(SpkiPin),
    /// Its certificate is signed by one of these CAs (PEM), or is one of these certificates.
    Ca(Vec<u8>),
    /// It need not: for a trial on a network that one trusts. Credentials are sent.
    Insecure,
    /// Not yet: the pin is read and no credentials are ever sent.
    FirstUse,
}

/// What the BMC showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The pin of its key.
    pub pin: SpkiPin,
    /// SHA-256 of its whole certificate.
    pub certificate_sha256: [u8; 32],
}

/// One provider for all clients: building one costs more than a client should (a thousand BMCs).
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

/// TLS sessions remembered for one BMC: it is one server, and there are thousands of clients.
const TLS_SESSIONS: usize = 2;

enum Rule {
    Pin(SpkiPin),
    Ca { chain: Arc<WebPkiServerVerifier>, given: Vec<CertificateDer<'static>> },
    Any,
}

/// Judges the certificate of one BMC and remembers what it showed.
pub(crate) struct Verifier {
    rule: Rule,
    algorithms: WebPkiSupportedAlgorithms,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    peer: Option<Peer>,
    oddities: Vec<CertificateProblem>,
}

/// What the verifier refuses, carried through rustls and reqwest to [`refusal`].
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("another key than the one pinned")]
    Pin { found: SpkiPin, expected: SpkiPin },
    #[error(transparent)]
    Certificate(CertificateProblem),
}

impl Verifier {
    pub(crate) fn new(trust: &Trust) -> Result<Arc<Self>, Error> {
        let rule = match trust {
            Trust::Pin(pin) => Rule::Pin(*pin),
            Trust::Ca(pem) => ca_rule(pem)?,
            Trust::Insecure | Trust::FirstUse => Rule::Any,
        };
        let algorithms = PROVIDER.signature_verification_algorithms;
        Ok(Arc::new(Self { rule, algorithms, seen: Mutex::default() }))
    }

    /// The TLS configuration of one client.
    pub(crate) fn config(self: &Arc<Self>) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Tls { reason: error.to_string() })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Self>::clone(self))
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(TLS_SESSIONS);
        Ok(config)
    }

    /// What the BMC showed, once it has.
    pub(crate) fn peer(&self) -> Option<Peer> {
        self.seen().peer
    }

    /// What is odd about the certificate, though the pin is right.
    pub(crate) fn diagnostics(&self) -> Vec<Diagnostic> {
        self.seen()
            .oddities
            .iter()
            .map(|problem| Diagnostic {
                code: problem.code().to_owned(),
                path: String::new(),
                message: format!("the BMC's key is trusted, but its certificate is odd: {problem}"),
            })
            .collect()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(
        &self,
        der: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let certificate = Certificate::parse(der).map_err(Refusal::Certificate)?;
        let pin = certificate.pin();
        self.seen().peer = Some(Peer { pin, certificate_sha256: certificate.sha256() });
        if let Rule::Pin(expected) = self.rule
            && expected != pin
        {
            return Err(Refusal::Pin { found: pin, expected });
        }
        certificate.check_usable().map_err(Refusal::Certificate)?;
        match &self.rule {
            Rule::Ca { chain, given } if !given.contains(der) => {
                chain
                    .verify_server_cert(der, intermediates, name, &[], now)
                    .map_err(|error| Refusal::Certificate(certificate.problem_of(&error, &name.to_str())))?;
            }
            Rule::Ca { .. } => certificate.check_validity(now).map_err(Refusal::Certificate)?,
            Rule::Pin(_) => self.seen().oddities = oddities(&certificate, der, name, now),
            Rule::Any => {}
        }
        Ok(())
    }
}

fn oddities(
    certificate: &Certificate,
    der: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Vec<CertificateProblem> {
    let expired = certificate.check_validity(now).err();
    // An address is no name: certificates of BMCs hardly ever hold it, and saying so each time would be noise.
    let wrong_name = matches!(name, ServerName::DnsName(_))
        && ParsedCertificate::try_from(der).is_ok_and(|parsed| verify_server_name(&parsed, name).is_err());
    let wrong_name = wrong_name.then(|| CertificateProblem::WrongName { name: name.to_str().into_owned() });
    expired.into_iter().chain(wrong_name).collect()
}

fn ca_rule(pem: &[u8]) -> Result<Rule, Error> {
    let unusable = |reason: String| Error::CaFile { reason };
    let given: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in &given {
        roots.add(certificate.clone()).map_err(|error| unusable(error.to_string()))?;
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER))
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    Ok(Rule::Ca { chain, given })
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates, server_name, now).map_err(|refusal| {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Finds out of a chain of errors whether TLS refused the peer, and why.
pub(crate) fn refusal(error: &(dyn StdError + 'static)) -> Option<Error> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return Some(of_rustls(tls));
        }
        // `source()` of an io::Error skips the error that it wraps.
        let wrapped = current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    None
}

fn of_rustls(error: &rustls::Error) -> Error {
    if let rustls::Error::InvalidCertificate(refused) = error {
        if let CertificateError::Other(OtherError(other)) = refused
            && let Some(refusal) = other.downcast_ref::<Refusal>()
        {
            return match refusal {
                Refusal::Pin { found, expected } => Error::PinMismatch { found: *found, expected: *expected },
                Refusal::Certificate(problem) => Error::Certificate(problem.clone()),
            };
        }
        return Error::Certificate(CertificateProblem::Malformed { reason: error.to_string() });
    }
    Error::Tls { reason: error.to_string() }
}
