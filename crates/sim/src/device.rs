//! Certificates of devices, as SPDM responders have them: the same over restarts, like everything else that follows from a seed.

use rcgen::{CertificateParams, DnType, Issuer, KeyPair, date_time_ymd};

use crate::seed::Seed;

/// An Ed25519 private key in PKCS #8 (RFC 8410 §7) is this and its 32 bytes.
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// X.520 `serialNumber`.
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

/// A chain in PEM, its root first (DSP0274): an authority that all simulated devices share, and the certificate of this one, whose
/// subject has the serial number `{{alnum LABEL 14}}`. Empty should the certificates not come about.
pub(crate) fn chain(seed: &Seed, label: &str) -> String {
    make(seed, label).unwrap_or_default()
}

fn make(seed: &Seed, label: &str) -> Result<String, rcgen::Error> {
    let authority = key(&Seed::new(&["device authority"]), "authority")?;
    let root = params("Synthetic Device Identity CA", "0");
    let root_pem = root.self_signed(&authority)?.pem();
    let device = params("Synthetic device", &seed.alphanumeric(label, 14));
    let device = device.signed_by(&key(seed, label)?, &Issuer::new(root, authority))?;
    Ok(root_pem + &device.pem())
}

/// Of Ed25519, since its signatures follow from key and text (RFC 8032).
fn key(seed: &Seed, label: &str) -> Result<KeyPair, rcgen::Error> {
    let mut der = PKCS8.to_vec();
    der.extend(seed.key(label));
    KeyPair::try_from(der)
}

fn params(name: &str, serial: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::CustomDnType(SERIAL_NUMBER.to_vec()), serial);
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_one_chain_and_another_device_another() {
        let seed = Seed::new(&["s"]);
        let first = chain(&seed, "EROT_0");
        assert_eq!(first.matches("BEGIN CERTIFICATE").count(), 2);
        assert_eq!(first, chain(&seed, "EROT_0"));
        assert_ne!(first, chain(&seed, "EROT_1"));
        assert_ne!(first, chain(&Seed::new(&["t"]), "EROT_0"));
    }
}
