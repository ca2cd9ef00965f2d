//! The pin of a BMC's key: SHA-256 of its DER SubjectPublicKeyInfo (RFC 7469 §2.4 calls the same thing a pin).
//!
//! The key is pinned and not the certificate, because BMCs renew self-signed certificates over the same key.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a SubjectPublicKeyInfo. Written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpkiPin([u8; 32]);

/// A text that is not a pin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a pin: expected `sha256:` and 64 hexadecimal digits (or the digest in base64)")]
pub struct NotAPin {
    /// What was given.
    pub found: String,
}

impl SpkiPin {
    /// The pin of a key given as DER SubjectPublicKeyInfo.
    pub fn of_spki(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The digest itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for SpkiPin {
    type Err = NotAPin;

    /// Tolerant of what other tools print: upper case, colons between bytes (OpenSSL), `sha256//` and base64 (curl).
    fn from_str(text: &str) -> Result<Self, NotAPin> {
        let not_a_pin = || NotAPin { found: text.to_owned() };
        let trimmed = text.trim();
        let digest = match trimmed.get(..6) {
            Some(scheme) if scheme.eq_ignore_ascii_case("sha256") => trimmed
                .get(6..)
                .and_then(|rest| rest.strip_prefix("//").or_else(|| rest.strip_prefix([':', '-'])))
                .ok_or_else(not_a_pin)?,
            _ => trimmed,
        };
        from_hex(digest).or_else(|| from_base64(digest)).map(Self).ok_or_else(not_a_pin)
    }
}

fn from_hex(digest: &str) -> Option<[u8; 32]> {
    let plain: String = digest.chars().filter(|c| *c != ':').collect();
    let mut bytes = [0; 32];
    hex::decode_to_slice(plain, &mut bytes).ok().map(|()| bytes)
}

fn from_base64(digest: &str) -> Option<[u8; 32]> {
    [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD]
        .iter()
        .find_map(|alphabet| alphabet.decode(digest).ok())
        .and_then(|bytes| bytes.try_into().ok())
}

impl fmt::Display for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for SpkiPin {
    type Error = NotAPin;

    fn try_from(text: String) -> Result<Self, NotAPin> {
        text.parse()
    }
}

impl From<SpkiPin> for String {
    fn from(pin: SpkiPin) -> Self {
        pin.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const BASE64: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    #[test]
    fn every_usual_spelling_is_the_same_pin() {
        let expected = SpkiPin::of_spki(b"");
        let colons: Vec<String> = HEX
            .to_uppercase()
            .as_bytes()
            .chunks(2)
            .map(|b| String::from_utf8_lossy(b).into_owned())
            .collect();
        for spelling in [
            format!("sha256:{HEX}"),
            format!(" SHA256:{} ", HEX.to_uppercase()),
            HEX.to_owned(),
            colons.join(":"),
            format!("sha256:{}", colons.join(":")),
            format!("sha256//{BASE64}"),
            format!("sha256:{BASE64}"),
            BASE64.trim_end_matches('=').to_owned(),
        ] {
            assert_eq!(spelling.parse(), Ok(expected), "{spelling}");
        }
    }

    #[test]
    fn it_is_shown_in_one_spelling() {
        assert_eq!(SpkiPin::of_spki(b"").to_string(), format!("sha256:{HEX}"));
    }

    #[test]
    fn what_is_no_sha256_digest_is_refused() {
        for wrong in
            ["", "sha256:", "sha256:abcd", "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", "é", &HEX[1..]]
        {
            assert!(wrong.parse::<SpkiPin>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(bytes: [u8; 32]) {
            prop_assert_eq!(SpkiPin(bytes).to_string().parse(), Ok(SpkiPin(bytes)));
        }

        #[test]
        fn whatever_is_read_is_shown_in_one_spelling(text in "(sha256[:-])?[0-9a-fA-F:]{60,70}|.{0,60}") {
            if let Ok(pin) = text.parse::<SpkiPin>() {
                prop_assert_eq!(pin.to_string().parse(), Ok(pin));
            }
        }
    }
}
