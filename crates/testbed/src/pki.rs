//! Keys and certificates of one testbed, ECDSA P-256 throughout.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::Error;

/// X.520 organizationName, spelled as an object identifier: the generator keeps one value for each type,
/// so a second group needs a second way to write the same type.
const ORGANIZATION_NAME: [u64; 4] = [2, 5, 4, 10];

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certificate_pem: String,
    pub(crate) certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Identity {
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    pub(crate) fn public_key_pem(&self) -> String {
        self.key.public_key_pem()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    /// A server's certificate that no authority signed, as BMCs have them.
    pub(crate) fn self_signed_server(name: &str) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let certificate = server_parameters(name)?.self_signed(&key)?;
        Ok(Self { certificate_pem: certificate.pem(), certificate: certificate.der().clone(), key })
    }
}

/// A certificate authority.
#[derive(Debug)]
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self, Error> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?))
    }

    pub(crate) fn certificate_pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn key_pem(&self) -> String {
        self.0.key().serialize_pem()
    }

    pub(crate) fn server(&self, name: &str) -> Result<Identity, Error> {
        self.sign(&server_parameters(name)?)
    }

    /// A client certificate that Kubernetes reads as this user in these groups.
    pub(crate) fn client(&self, user: &str, groups: &[&str]) -> Result<Identity, Error> {
        if groups.len() > 2 {
            return Err(Error::TooManyGroups(groups.len()));
        }
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, user);
        let spellings = [DnType::OrganizationName, DnType::CustomDnType(ORGANIZATION_NAME.to_vec())];
        for (spelling, group) in spellings.into_iter().zip(groups) {
            parameters.distinguished_name.push(spelling, *group);
        }
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&parameters)
    }

    fn sign(&self, parameters: &CertificateParams) -> Result<Identity, Error> {
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.0)?;
        Ok(Identity { certificate_pem: certificate.pem(), certificate: certificate.der().clone(), key })
    }
}

fn server_parameters(name: &str) -> Result<CertificateParams, Error> {
    let mut parameters = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    parameters.distinguished_name.remove(DnType::CommonName);
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(parameters)
}
