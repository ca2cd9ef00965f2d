//! Serial numbers, UUIDs and MAC addresses that follow from a seed, so that they stay the same over restarts.

use sha2::{Digest, Sha256};

/// What all identities of one simulated machine derive from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A seed from words, such as the site's seed and the machine's index in it.
    pub fn new(words: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for word in words {
            // The length keeps ("ab","c") and ("a","bc") apart.
            hash.update((word.len() as u64).to_le_bytes());
            hash.update(word.as_bytes());
        }
        Self(hash.finalize().into())
    }

    fn bytes(&self, kind: &str, label: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(kind.as_bytes());
        hash.update([0]);
        hash.update(label.as_bytes());
        hash.finalize().into()
    }

    /// A private key, worth nothing outside a simulation.
    pub(crate) fn key(&self, label: &str) -> [u8; 32] {
        self.bytes("key", label)
    }

    /// `n` (at most 32) decimal digits, the first of them not zero.
    pub fn digits(&self, label: &str, n: usize) -> String {
        let bytes = self.bytes("digits", label);
        let digit = |(i, b): (usize, &u8)| char::from(b'0' + if i == 0 { 1 + b % 9 } else { b % 10 });
        bytes.iter().take(n).enumerate().map(digit).collect()
    }

    /// `n` (at most 32) characters of `A`–`Z` and `0`–`9`, without vowels so that no words appear.
    pub fn alphanumeric(&self, label: &str, n: usize) -> String {
        const ALPHABET: &[u8] = b"BCDFGHJKLMNPQRSTVWXZ0123456789";
        let bytes = self.bytes("alnum", label);
        bytes.iter().take(n).map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect()
    }

    /// A UUID with version and variant bits as RFC 9562 wants them (version 4's shape).
    pub fn uuid(&self, label: &str) -> uuid::Uuid {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.bytes("uuid", label)[..16]);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// A locally administered MAC address: never one that a vendor could have given out.
    pub fn mac(&self, label: &str) -> String {
        let b = self.bytes("mac", label);
        format!("02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[0], b[1], b[2], b[3], b[4])
    }
}
