//! Cipher suites and the keys of a session (IPMI 2.0 §13.28 to §13.32, §22.15.2).
//!
//! Only suites that authenticate, protect and encrypt are offered. Suite 0 (nothing at all) and those without encryption
//! exist on many BMCs; we never ask for them.

use aes::Aes128;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::NoPadding};
use ring::hmac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::wire::{Malformed, Reader};

/// Bytes of an AES block, and of the initialisation vector in front of an encrypted payload.
const BLOCK: usize = 16;
/// K1 and K2 are made from as many equal bytes, whatever the hash (§13.32).
const CONSTANT: usize = 20;

/// How a session is authenticated, protected and encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CipherSuite {
    /// RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Suite17,
    /// RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    Suite3,
}

/// The numbers by which a suite is proposed in Open Session (tables 13-17 to 13-19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithms {
    /// Authentication.
    pub authentication: u8,
    /// Integrity.
    pub integrity: u8,
    /// Confidentiality.
    pub confidentiality: u8,
}

impl CipherSuite {
    /// The number that people know it by.
    pub fn id(self) -> u8 {
        match self {
            Self::Suite17 => 17,
            Self::Suite3 => 3,
        }
    }

    /// Its algorithms.
    pub fn algorithms(self) -> Algorithms {
        match self {
            Self::Suite17 => Algorithms { authentication: 3, integrity: 4, confidentiality: 1 },
            Self::Suite3 => Algorithms { authentication: 1, integrity: 1, confidentiality: 1 },
        }
    }

    /// The suite with these algorithms, if it is one of ours.
    pub fn from_algorithms(algorithms: Algorithms) -> Option<Self> {
        [Self::Suite17, Self::Suite3].into_iter().find(|suite| suite.algorithms() == algorithms)
    }

    fn algorithm(self) -> hmac::Algorithm {
        match self {
            Self::Suite17 => hmac::HMAC_SHA256,
            Self::Suite3 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        }
    }

    /// Bytes of a full authentication code.
    pub fn code_length(self) -> usize {
        self.algorithm().digest_algorithm().output_len()
    }

    /// Bytes of the shortened code at the end of every packet and in RAKP message 4.
    pub fn short_code_length(self) -> usize {
        match self {
            Self::Suite17 => 16,
            Self::Suite3 => 12,
        }
    }

    /// The authentication code of these parts, one after the other.
    pub(crate) fn code(self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        let mut context = hmac::Context::with_key(&hmac::Key::new(self.algorithm(), key));
        for part in parts {
            context.update(part);
        }
        Zeroizing::new(context.sign().as_ref().to_vec())
    }

    /// The code, shortened.
    pub(crate) fn short_code(self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        let mut code = self.code(key, parts);
        code.truncate(self.short_code_length());
        code
    }
}

impl std::fmt::Display for CipherSuite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.id())
    }
}

/// Whether two codes are equal, in a time that does not tell where they differ.
pub(crate) fn same(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// What protects the packets of one session. Wiped when dropped, and never shown.
#[derive(Clone)]
pub struct Keys {
    suite: CipherSuite,
    integrity: Zeroizing<Vec<u8>>,
    encryption: Zeroizing<[u8; BLOCK]>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("suite", &self.suite).finish_non_exhaustive()
    }
}

impl Keys {
    /// K1 and K2 from the session integrity key (§13.32).
    pub fn derive(suite: CipherSuite, session_integrity_key: &[u8]) -> Self {
        let integrity = suite.code(session_integrity_key, &[&[1; CONSTANT]]);
        let key = suite.code(session_integrity_key, &[&[2; CONSTANT]]);
        let mut encryption = Zeroizing::new([0; BLOCK]);
        for (to, from) in encryption.iter_mut().zip(key.iter()) {
            *to = *from;
        }
        Self { suite, integrity, encryption }
    }

    pub(crate) fn suite(&self) -> CipherSuite {
        self.suite
    }

    pub(crate) fn sign(&self, packet: &[u8]) -> Zeroizing<Vec<u8>> {
        self.suite.short_code(&self.integrity, &[packet])
    }

    /// Initialisation vector, then the text with padding 1, 2, 3 … and the padding's length, encrypted (§13.29).
    pub(crate) fn encrypt(&self, text: &[u8], vector: [u8; BLOCK]) -> Vec<u8> {
        let padding = (BLOCK - (text.len() + 1) % BLOCK) % BLOCK;
        let mut blocks = Zeroizing::new(text.to_vec());
        blocks.extend((1..).take(padding));
        blocks.push(u8::try_from(padding).unwrap_or_default());
        let length = blocks.len();
        let cipher = cbc::Encryptor::<Aes128>::new(&(*self.encryption).into(), &vector.into());
        let mut bytes = vector.to_vec();
        // Cannot fail: it is a whole number of blocks, as the loop above saw to.
        bytes.extend_from_slice(cipher.encrypt_padded::<NoPadding>(&mut blocks, length).unwrap_or_default());
        bytes
    }

    /// What [`Self::encrypt`] was given. Ask only about packets whose code is right.
    pub(crate) fn decrypt(&self, payload: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut reader = Reader::new("the encrypted payload", payload);
        let vector: [u8; BLOCK] = reader.array()?;
        let mut text = reader.rest().to_vec();
        let cipher = cbc::Decryptor::<Aes128>::new(&(*self.encryption).into(), &vector.into());
        let length = cipher
            .decrypt_padded::<NoPadding>(&mut text)
            .map_err(|_| reader.malformed("is not a whole number of blocks"))?
            .len();
        text.truncate(length);
        let padding = usize::from(text.pop().ok_or_else(|| reader.malformed("is empty"))?);
        let end = text.len().checked_sub(padding).ok_or_else(|| reader.malformed("has bad padding"))?;
        // BMCs have been seen to fill the padding with anything; its length is all that is needed.
        text.truncate(end);
        Ok(text)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn suites() -> impl Strategy<Value = CipherSuite> {
        prop_oneof![Just(CipherSuite::Suite17), Just(CipherSuite::Suite3)]
    }

    /// Seen in a session of ipmitool 1.8.19 with ipmi_sim (`-vvv` shows the keys).
    #[test]
    fn keys_of_suite_3_are_those_of_ipmitool() {
        let sik = hex("018b456a04589be4809e5f06ee211917940da177");
        let keys = Keys::derive(CipherSuite::Suite3, &sik);
        assert_eq!(keys.integrity[..], hex("e7e00507eaeec276b9ed6d37fd8ea6550ef1eafa"));
        assert_eq!(keys.encryption[..], hex("a392cd09c3acc6a3f5db9f1aca2a81f7"));
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn what_is_encrypted_comes_back(
            suite in suites(), secret: [u8; 20], vector: [u8; 16], text in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let keys = Keys::derive(suite, &secret);
            let encrypted = keys.encrypt(&text, vector);
            prop_assert_eq!(encrypted.len() % BLOCK, 0);
            prop_assert_eq!(keys.decrypt(&encrypted), Ok(text));
        }

        #[test]
        fn whatever_is_decrypted_nothing_panics(suite in suites(), bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Keys::derive(suite, &[7; 20]).decrypt(&bytes);
        }
    }
}
