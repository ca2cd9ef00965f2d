//! The cell's own certificate authority: it signs agents' certificates and the cell's own on their listener, and nothing else.
//!
//! An agent's certificate names its machine (CN) and, in its serial number, the enrolment that it belongs to; whether that
//! enrolment still holds is looked up on each call, so nothing has to be revoked.

use super::request::AgentKey;
use crate::error::CellError;
use domain::agent::SERVER_NAME;
use domain::{Digest, Name};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::time::Duration;
use store::{Authority as Purpose, AuthorityKey, EnrolmentId, Store, Zeroizing};
use x509_cert::der::Decode as _;

/// A certificate is valid from a little before its time, for hosts whose clock is behind.
const BEFORE: Duration = Duration::from_mins(10);

/// Serial numbers begin with this byte, so that they are positive and of one length (RFC 5280 §4.1.2.2).
const SERIAL: u8 = 1;

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    pin: Digest,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("pin", &self.pin).finish_non_exhaustive()
    }
}

/// Who a certificate of an agent says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub machine: Name,
    pub enrolment: EnrolmentId,
    pub not_after: Timestamp,
}

impl Authority {
    /// The cell's authority; made the first time.
    pub(crate) async fn load(store: &Store, cell: &str) -> Result<Self, CellError> {
        let kept = match store.authority(Purpose::Agents).await? {
            Some(kept) => kept,
            None => store.keep_authority(Purpose::Agents, make(cell).map_err(failed)?).await?,
        };
        let key = KeyPair::from_pem(&kept.key).map_err(failed)?;
        let pem = kept.certificate.unwrap_or_default();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| CellError::Authority(error.to_string()))?;
        let pin = Digest::of(&key.subject_public_key_info());
        Ok(Self { issuer: Issuer::new(params(cell), key), certificate, pem, pin })
    }

    /// Digest of its SubjectPublicKeyInfo.
    pub(crate) fn pin(&self) -> &Digest {
        &self.pin
    }

    /// Its certificate in PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate for an agent, in PEM.
    pub(crate) fn agent(
        &self,
        key: &AgentKey,
        machine: &Name,
        enrolment: EnrolmentId,
        now: Timestamp,
        life: Duration,
    ) -> Result<String, CellError> {
        let mut serial = vec![SERIAL];
        serial.extend(enrolment.bytes());
        serial.extend(random()?);
        let mut params = leaf(machine.as_str(), ExtendedKeyUsagePurpose::ClientAuth, now, life);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        Ok(params.signed_by(key, &self.issuer).map_err(failed)?.pem())
    }

    /// A certificate for the cell itself, with a key that never leaves its memory.
    pub(crate) fn server(&self, now: Timestamp, life: Duration) -> Result<CertifiedKey, CellError> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = leaf(SERVER_NAME, ExtendedKeyUsagePurpose::ServerAuth, now, life);
        params.subject_alt_names = vec![rcgen::SanType::DnsName(SERVER_NAME.try_into().map_err(failed)?)];
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let private = rustls::crypto::ring::sign::any_supported_type(&private)
            .map_err(|error| CellError::Authority(error.to_string()))?;
        // The authority goes along: an agent that has only its pin finds it here.
        Ok(CertifiedKey::new(vec![certificate.der().clone(), self.certificate.clone()], private))
    }
}

/// Reads what a certificate says that the authority has signed. Whether it did is the handshake's to find out.
pub(crate) fn read(certificate: &CertificateDer<'_>) -> Option<Named> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    let body = certificate.tbs_certificate();
    let subject = body.subject().to_string();
    let machine = Name::new(subject.strip_prefix("CN=")?).ok()?;
    let (first, rest) = body.serial_number().as_bytes().split_first()?;
    let enrolment = rest.first_chunk().filter(|_| *first == SERIAL && rest.len() == 16)?;
    let end = body.validity().not_after.to_unix_duration();
    let not_after = Timestamp::from_second(i64::try_from(end.as_secs()).ok()?).ok()?;
    Some(Named { machine, enrolment: EnrolmentId::new(*enrolment), not_after })
}

fn make(cell: &str) -> Result<AuthorityKey, rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = params(cell).self_signed(&key)?.pem();
    Ok(AuthorityKey { certificate: Some(certificate), key: Zeroizing::new(key.serialize_pem()) })
}

/// The same each time: certificates name their issuer by it. It does not end, since agents know it by its key.
fn params(cell: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("Bailiwick agents {cell}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2125, 1, 1);
    params
}

fn leaf(name: &str, usage: ExtendedKeyUsagePurpose, now: Timestamp, life: Duration) -> CertificateParams {
    let at = |time: Timestamp| {
        date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0))
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.is_ca = IsCa::ExplicitNoCa;
    params.not_before = at(now) - BEFORE.min(life / 10);
    params.not_after = at(now) + life;
    params
}

fn named(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn random() -> Result<[u8; 8], CellError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(store::StoreError::Random)?;
    Ok(bytes)
}

pub(super) fn failed(error: impl std::fmt::Display) -> CellError {
    CellError::Authority(error.to_string())
}
