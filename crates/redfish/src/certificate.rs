//! What a BMC's certificate says, and those of its components, read tolerantly: odd certificates must be told apart, not just
//! refused.

use domain::inventory::LeafCertificate;
use rustls::CertificateError;
use rustls::pki_types::pem::PemObject as _;
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

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const SERIAL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.5");

/// A chain in PEM is no longer: SPDM's are of 64 KiB at most (DSP0274, CertificateResponse).
const LONGEST_CHAIN: usize = 128 << 10;

/// Certificates of one chain at most.
const MOST_CERTIFICATES: usize = 16;

/// A value of a subject in characters at most; longer ones tell nobody anything.
const LONGEST_VALUE: usize = 256;

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

/// The certificate of a chain in PEM that none of the others is signed by: some put it last (SPDM), some first (TLS). That the
/// chain holds is not checked. Fails with a sentence.
pub(crate) fn leaf(pem: &str) -> Result<LeafCertificate, String> {
    if pem.len() > LONGEST_CHAIN {
        return Err(format!("it has more than {LONGEST_CHAIN} bytes"));
    }
    let mut chain = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = der.map_err(|error| error.to_string())?;
        let parsed = CertificateInner::<Tolerant>::from_der(&der).map_err(|error| error.to_string())?;
        chain.push((der, parsed));
        if chain.len() > MOST_CERTIFICATES {
            return Err(format!("it has more than {MOST_CERTIFICATES} certificates"));
        }
    }
    let issues = |at: usize| {
        let subject = chain[at].1.tbs_certificate().subject();
        chain
            .iter()
            .enumerate()
            .any(|(of, (_, other))| of != at && other.tbs_certificate().issuer() == subject)
    };
    let mut leaves = (0..chain.len()).filter(|at| !issues(*at));
    let (Some(at), None) = (leaves.next(), leaves.next()) else {
        return Err("not one of its certificates is the last".to_owned());
    };
    let (der, parsed) = &chain[at];
    Ok(LeafCertificate {
        subject: of_subject(parsed, COMMON_NAME),
        serial: of_subject(parsed, SERIAL_NUMBER),
        sha256: domain::Digest::of(der),
    })
}

/// A value of the subject.
fn of_subject(certificate: &CertificateInner<Tolerant>, kind: ObjectIdentifier) -> Option<String> {
    let mut attributes = certificate.tbs_certificate().subject().iter();
    let value = &attributes.find(|attribute| attribute.oid == kind)?.value;
    // All the kinds of string that a name has (RFC 5280 §4.1.2.4) and that are UTF-8 by their nature.
    let text = std::str::from_utf8(value.value()).ok()?.trim();
    (!text.is_empty() && text.chars().count() <= LONGEST_VALUE && !text.chars().any(char::is_control))
        .then(|| text.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, Issuer, KeyPair};

    fn params(name: &str, serial: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), serial);
        params
    }

    /// A root's certificate, and one that the root has signed.
    fn chain() -> [rcgen::Certificate; 2] {
        let (above, below) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = params("root", "R").self_signed(&above).unwrap();
        let leaf =
            params("device", "D1").signed_by(&below, &Issuer::new(params("root", "R"), above)).unwrap();
        [root, leaf]
    }

    #[test]
    fn the_leaf_of_a_chain_is_found_whichever_way_it_is_written() {
        let [root, last] = chain();
        for pem in [format!("{}{}", root.pem(), last.pem()), format!("{}\n{}", last.pem(), root.pem())] {
            let found = leaf(&pem).unwrap();
            assert_eq!((found.subject.as_deref(), found.serial.as_deref()), (Some("device"), Some("D1")));
            assert_eq!(found.sha256, domain::Digest::of(last.der()));
        }
        assert_eq!(leaf(&root.pem()).unwrap().subject.as_deref(), Some("root"), "signed by itself");
    }

    #[test]
    fn a_chain_that_is_none_is_refused_and_so_is_one_without_end() {
        let [_, last] = chain();
        let cut = last.pem().replace("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nAAAA");
        let long = last.pem().repeat(MOST_CERTIFICATES + 1);
        for bad in [String::new(), "x".repeat(LONGEST_CHAIN + 1), cut, long, last.pem() + &last.pem()] {
            assert!(leaf(&bad).is_err(), "{bad:.80}");
        }
    }
}
