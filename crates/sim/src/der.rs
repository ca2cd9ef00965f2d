//! The few DER shapes needed to assemble an X.509 version 1 certificate, which no certificate library here still writes.

use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use rustls::pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// ecdsa-with-SHA256 (RFC 5758 §3.2).
const ECDSA_WITH_SHA256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// id-at-commonName (RFC 5280 appendix A).
const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];

/// A self-signed version 1 certificate: no version field and no extensions (RFC 5280 §4.1.2.1).
pub(crate) fn version1_certificate(
    name: &str,
    key: &KeyPair,
) -> Result<CertificateDer<'static>, rcgen::Error> {
    let algorithm = element(SEQUENCE, &[ECDSA_WITH_SHA256]);
    let common_name = element(0x0c, &[name.as_bytes()]);
    let subject = element(SEQUENCE, &[&element(SET, &[&element(SEQUENCE, &[COMMON_NAME, &common_name])])]);
    let validity =
        element(SEQUENCE, &[&element(0x17, &[b"240101000000Z"]), &element(0x17, &[b"490101000000Z"])]);
    let serial = element(0x02, &[&[0x2a]]);
    let spki = key.subject_public_key_info();
    let to_be_signed = element(SEQUENCE, &[&serial, &algorithm, &subject, &validity, &subject, &spki]);
    let signature = key.sign(&to_be_signed)?;
    // The first octet of a BIT STRING counts unused bits: none.
    let signature = element(0x03, &[&[0], &signature]);
    Ok(element(SEQUENCE, &[&to_be_signed, &algorithm, &signature]).into())
}

fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    let bytes = length.to_be_bytes();
    let significant = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
    match significant {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            // At most eight octets of length, so that the cast cannot lose anything.
            #[allow(clippy::cast_possible_truncation)]
            out.push(0x80 | long.len() as u8);
            out.extend_from_slice(long);
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}
