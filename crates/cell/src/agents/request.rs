//! Certificate requests of agents (PKCS #10, RFC 2986): the cell takes the key, once its holder has signed with it.

use crate::error::coded;
use domain::{Digest, Problem};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use x509_cert::der::{DecodePem as _, Encode as _};
use x509_cert::request::CertReq;

/// An ECDSA key on P-256, of which the holder has proven to have the private half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentKey(Vec<u8>);

impl AgentKey {
    /// The key of a request. Whatever else it asks for is not looked at.
    pub(crate) fn of_request(pem: &str) -> Result<Self, Problem> {
        let malformed =
            |why: &str| coded("agent.request-malformed", format!("the certificate request {why}"));
        let request = CertReq::from_pem(pem.as_bytes()).map_err(|_| malformed("cannot be read"))?;
        let key = request.info.public_key.subject_public_key.as_bytes();
        let key = Self(key.ok_or_else(|| malformed("has no key"))?.to_vec());
        // As we would write it: the same bytes only if it is a key on P-256.
        if request.info.public_key.to_der().ok().as_deref() != Some(&key.subject_public_key_info()) {
            return Err(malformed("has a key that is not of ECDSA on P-256"));
        }
        let info = request.info.to_der().map_err(|_| malformed("cannot be read"))?;
        let signature = request.signature.as_bytes().unwrap_or_default();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.0)
            .verify(&info, signature)
            .map_err(|_| malformed("is not signed with its own key"))?;
        Ok(key)
    }

    /// Digest of its SubjectPublicKeyInfo.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.subject_public_key_info())
    }
}

impl PublicKeyData for AgentKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};

    fn request(key: &KeyPair) -> String {
        CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn the_key_of_a_request_is_taken() {
        let key = KeyPair::generate().unwrap();
        let taken = AgentKey::of_request(&request(&key)).unwrap();
        assert_eq!(taken.subject_public_key_info(), key.subject_public_key_info());
        assert_eq!(taken.digest(), Digest::of(&key.subject_public_key_info()));
    }

    #[test]
    fn a_request_of_another_key_or_none_is_refused() {
        let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        for bad in [request(&other), String::new(), "-----BEGIN CERTIFICATE REQUEST-----".to_owned()] {
            assert_eq!(AgentKey::of_request(&bad).unwrap_err().code, "agent.request-malformed");
        }
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_is_refused() {
        let der = |pem: &str| CertReq::from_pem(pem.as_bytes()).unwrap();
        let mut one = der(&request(&KeyPair::generate().unwrap()));
        one.info = der(&request(&KeyPair::generate().unwrap())).info;
        let pem = x509_cert::der::EncodePem::to_pem(&one, x509_cert::der::pem::LineEnding::LF).unwrap();
        assert_eq!(AgentKey::of_request(&pem).unwrap_err().code, "agent.request-malformed");
    }
}
