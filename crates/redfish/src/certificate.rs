//! What a BMC's certificate says, read tolerantly: odd certificates must be told apart, not just refused.

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use x509_cert::certificate::{CertificateInner, Profile, Version};
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode as _, Encode as _, Reader as _, SliceReader};
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::Time;

use crate::error::CertificateProblem;
use crate::pin::SpkiPin;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// Sizes of an RSA modulus that ring verifies with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Takes what BMCs make: long serial numbers, times in the wrong ASN.1 type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Tolerant;

impl Profile for Tolerant {
    fn check_serial_number(_: &SerialNumber<Self>) -> x509_cert::der::Result<()> {
        Ok(())
    }

    fn time_encoding(time: Time) -> x509_cert::der::Result<Time> {
        Ok(time)
    }
}

/// A parsed certificate with its digests.
pub(crate) struct Certificate {
    parsed: CertificateInner<Tolerant>,
    pin: SpkiPin,
    sha256: [u8; 32],
}

impl Certificate {
    pub(crate) fn parse(der: &CertificateDer<'_>) -> Result<Self, CertificateProblem> {
        let malformed =
            |error: x509_cert::der::Error| CertificateProblem::Malformed { reason: error.to_string() };
        let parsed = CertificateInner::<Tolerant>::from_der(der).map_err(malformed)?;
        let spki = parsed.tbs_certificate().subject_public_key_info().to_der().map_err(malformed)?;
        Ok(Self { parsed, pin: SpkiPin::of_spki(&spki), sha256: Sha256::digest(der).into() })
    }

    pub(crate) fn pin(&self) -> SpkiPin {
        self.pin
    }

    pub(crate) fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Whether the TLS library can use it at all. It cannot use old versions, short RSA keys and rare curves, and its own
    /// error tells none of them from the others.
    pub(crate) fn check_usable(&self) -> Result<(), CertificateProblem> {
        let version = self.parsed.tbs_certificate().version();
        if version != Version::V3 {
            return Err(CertificateProblem::OldVersion { version: version as u8 + 1 });
        }
        let key = self.parsed.tbs_certificate().subject_public_key_info();
        let unsupported = |what: String| Err(CertificateProblem::UnsupportedKey { algorithm: what });
        match key.algorithm.oid {
            RSA => match rsa_bits(key.subject_public_key.raw_bytes()) {
                Some(bits) if bits < *RSA_BITS.start() => Err(CertificateProblem::WeakKey { bits }),
                Some(bits) if RSA_BITS.contains(&bits) => Ok(()),
                Some(bits) => unsupported(format!("RSA with {bits} bits")),
                None => unsupported("RSA, unreadable".to_owned()),
            },
            EC => match key
                .algorithm
                .parameters
                .as_ref()
                .map(x509_cert::der::Any::decode_as::<ObjectIdentifier>)
            {
                Some(Ok(P256 | P384)) => Ok(()),
                Some(Ok(curve)) => unsupported(format!("curve {curve}")),
                _ => unsupported("a curve without a name".to_owned()),
            },
            ED25519 => Ok(()),
            other => unsupported(other.to_string()),
        }
    }

    /// Whether it is valid now.
    pub(crate) fn check_validity(&self, now: UnixTime) -> Result<(), CertificateProblem> {
        let validity = self.parsed.tbs_certificate().validity();
        let seconds = |time: &Time| time.to_unix_duration().as_secs();
        if (seconds(&validity.not_before)..=seconds(&validity.not_after)).contains(&now.as_secs()) {
            return Ok(());
        }
        Err(CertificateProblem::Expired {
            not_before: validity.not_before.to_string(),
            not_after: validity.not_after.to_string(),
        })
    }

    /// What an error of the chain verification means for this certificate.
    pub(crate) fn problem_of(&self, error: &rustls::Error, name: &str) -> CertificateProblem {
        let rustls::Error::InvalidCertificate(refused) = error else {
            return CertificateProblem::Untrusted { reason: error.to_string() };
        };
        match refused {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                let validity = self.parsed.tbs_certificate().validity();
                CertificateProblem::Expired {
                    not_before: validity.not_before.to_string(),
                    not_after: validity.not_after.to_string(),
                }
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                CertificateProblem::WrongName { name: name.to_owned() }
            }
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                CertificateProblem::UnsupportedSignature {
                    algorithm: self.parsed.signature_algorithm().oid.to_string(),
                }
            }
            other => CertificateProblem::Untrusted { reason: other.to_string() },
        }
    }
}

/// The size of an RSA modulus: RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER } (RFC 8017 A.1.1).
fn rsa_bits(key: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(key).ok()?;
    let modulus = reader
        .sequence(|inner| -> x509_cert::der::Result<Vec<u8>> {
            let modulus = UintRef::decode(inner)?.as_bytes().to_vec();
            UintRef::decode(inner)?;
            Ok(modulus)
        })
        .ok()?;
    let leading = modulus.first()?.leading_zeros() as usize;
    Some(modulus.len() * 8 - leading)
}
