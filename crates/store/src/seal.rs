//! Secrets at rest: XChaCha20-Poly1305 under one key a cell, kept in a file beside the database and never in it.
//!
//! A sealed value is `v1:` and the hexadecimal digits of nonce and ciphertext. What it belongs to and what it is for are
//! authenticated with it, so that a sealed value that is copied to another row does not open there. The plaintext is padded
//! to a multiple of 64 bytes: the length of a password shows no more than that.

use crate::error::StoreError;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const KEY_PREFIX: &str = "bailiwick-key-v1:";
const SEAL_PREFIX: &str = "v1:";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const BLOCK: usize = 64;
/// What a sealed check value says: whoever can open it has the key.
const CHECK: &str = "bailiwick";

const DERIVATION: &[u8] = b"bailiwick derivation v1";

/// HMAC-SHA256 (RFC 2104).
fn mac(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> [u8; KEY_BYTES] {
    // HMAC itself fills a short key with zeros up to the block of its hash.
    let mut block = Zeroizing::new([0; 64]);
    block[..KEY_BYTES].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new(&(*block).into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// What a sealed value is for: a part of what is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Tells whether the key is the right one.
    Check,
    /// The password of a BMC.
    Password,
    /// The password of a BMC in a plan that is not applied yet.
    PendingPassword,
    /// The password of a BMC's account that the cell made.
    OwnPassword,
    /// A key that the cell signs with.
    Authority,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check value",
            Self::Password => "password",
            Self::PendingPassword => "pending password",
            Self::OwnPassword => "own password",
            Self::Authority => "signing key",
        }
    }
}

/// Seals and opens. Its `Debug` shows the key file, never the key.
pub(crate) struct Sealer {
    cipher: XChaCha20Poly1305,
    /// Keys what is derived; itself derived from the key, so that it opens nothing.
    derivation: Zeroizing<[u8; KEY_BYTES]>,
    path: PathBuf,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Reads the key file.
    pub(crate) fn load(path: &Path) -> Result<Self, StoreError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::KeyMissing { path: path.to_owned() });
            }
            other => other.map_err(StoreError::file("read", path))?,
        };
        let metadata = file.metadata().map_err(StoreError::file("read", path))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StoreError::KeyPermissions { path: path.to_owned(), mode });
        }
        let malformed = || StoreError::KeyMalformed { path: path.to_owned() };
        if !metadata.is_file() || metadata.len() > 1024 {
            return Err(malformed());
        }
        let text = Zeroizing::new(std::io::read_to_string(file).map_err(|_| malformed())?);
        let digits = text.trim_end().strip_prefix(KEY_PREFIX).ok_or_else(malformed)?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(digits, key.as_mut()).map_err(|_| malformed())?;
        let derivation = Zeroizing::new(mac(&key, &[DERIVATION]));
        Ok(Self { cipher: XChaCha20Poly1305::new(&Key::from(*key)), derivation, path: path.to_owned() })
    }

    /// Makes a key file where there is none, then reads it. A file that is there is never written to.
    pub(crate) fn load_or_create(path: &Path) -> Result<Self, StoreError> {
        match Self::load(path) {
            Err(StoreError::KeyMissing { .. }) => {}
            other => return other,
        }
        create_key_file(path)?;
        Self::load(path)
    }

    /// The error for a key that does not open the check value.
    pub(crate) fn wrong(&self) -> StoreError {
        StoreError::KeyWrong { path: self.path.clone() }
    }

    /// A value that only this key opens.
    pub(crate) fn check_value(&self) -> Result<String, StoreError> {
        self.seal(CHECK, Purpose::Check, "cell")
    }

    /// Whether this is the key that made the check value.
    pub(crate) fn opens(&self, check_value: &str) -> bool {
        self.open(check_value, Purpose::Check, "cell").is_ok_and(|text| text.as_str() == CHECK)
    }

    /// Seals a secret for one subject and purpose. `subject` is the machine, with the plan's digest where it is pending.
    pub(crate) fn seal(&self, secret: &str, purpose: Purpose, subject: &str) -> Result<String, StoreError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(StoreError::Random)?;
        let padded = pad(secret);
        let bound = bound(purpose, subject);
        let payload = Payload { msg: &padded, aad: bound.as_bytes() };
        let unsealable =
            |_| StoreError::Unsealable { subject: subject.to_owned(), purpose: purpose.as_str() };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(unsealable)?;
        Ok(format!("{SEAL_PREFIX}{}{}", hex::encode(nonce), hex::encode(sealed)))
    }

    /// 32 bytes that only this key gives for this purpose and subject, the same each time.
    pub(crate) fn derive(&self, purpose: &str, subject: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(mac(&self.derivation, &[purpose.as_bytes(), b"\0", subject.as_bytes()]))
    }

    /// Opens what was sealed for this subject and purpose.
    pub(crate) fn open(
        &self,
        sealed: &str,
        purpose: Purpose,
        subject: &str,
    ) -> Result<Zeroizing<String>, StoreError> {
        self.try_open(sealed, purpose, subject)
            .ok_or_else(|| StoreError::Unsealable { subject: subject.to_owned(), purpose: purpose.as_str() })
    }

    fn try_open(&self, sealed: &str, purpose: Purpose, subject: &str) -> Option<Zeroizing<String>> {
        let bytes = hex::decode(sealed.strip_prefix(SEAL_PREFIX)?).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let bound = bound(purpose, subject);
        let payload = Payload { msg: sealed, aad: bound.as_bytes() };
        let padded = Zeroizing::new(self.cipher.decrypt(&XNonce::from(*nonce), payload).ok()?);
        let (length, rest) = padded.split_first_chunk::<4>()?;
        let secret = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        Some(Zeroizing::new(std::str::from_utf8(secret).ok()?.to_owned()))
    }
}

/// What is authenticated beside the secret. The separator occurs in no name and no digest.
fn bound(purpose: Purpose, subject: &str) -> String {
    format!("bailiwick.dev/v1\n{}\n{subject}", purpose.as_str())
}

/// Length, secret, zeros up to a whole number of blocks.
fn pad(secret: &str) -> Zeroizing<Vec<u8>> {
    let whole = (secret.len() + 4).next_multiple_of(BLOCK);
    // The full capacity at once: growing would leave copies behind that nobody wipes.
    let mut padded = Zeroizing::new(Vec::with_capacity(whole));
    padded.extend_from_slice(&u32::try_from(secret.len()).unwrap_or(u32::MAX).to_be_bytes());
    padded.extend_from_slice(secret.as_bytes());
    padded.resize(whole, 0);
    padded
}

/// The file appears whole or not at all, and only where there is none: written under another name, then linked.
fn create_key_file(path: &Path) -> Result<(), StoreError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    crate::place::create_directory(directory)?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(key.as_mut()).map_err(StoreError::Random)?;
    let text = Zeroizing::new(format!("{KEY_PREFIX}{}\n", *Zeroizing::new(hex::encode(key.as_ref()))));
    let mut suffix = [0; 8];
    getrandom::fill(&mut suffix).map_err(StoreError::Random)?;
    let draft = directory.join(format!(".key-{}", hex::encode(suffix)));
    let written = write_draft(&draft, &text).and_then(|()| match fs::hard_link(&draft, path) {
        // Another cell was faster: its key is the one.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let removed = fs::remove_file(&draft);
    written
        .and(removed)
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(StoreError::file("create", path))
}

fn write_draft(draft: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer() -> (tempfile::TempDir, Sealer) {
        let directory = tempfile::tempdir().unwrap();
        let sealer = Sealer::load_or_create(&directory.path().join("new/key")).unwrap();
        (directory, sealer)
    }

    #[test]
    fn what_is_sealed_opens_for_the_same_machine_and_purpose_only() {
        let (_directory, sealer) = sealer();
        let sealed = sealer.seal("hunter2", Purpose::Password, "m1").unwrap();
        assert_eq!(sealer.open(&sealed, Purpose::Password, "m1").unwrap().as_str(), "hunter2");
        assert_eq!(sealer.open(&sealed, Purpose::Password, "m2").unwrap_err().code(), "store.unsealable");
        assert_eq!(
            sealer.open(&sealed, Purpose::PendingPassword, "m1").unwrap_err().code(),
            "store.unsealable"
        );
    }

    #[test]
    fn sealing_twice_gives_two_values_and_shows_no_length() {
        let (_directory, sealer) = sealer();
        let seal = |text: &str| sealer.seal(text, Purpose::Password, "m1").unwrap();
        assert_ne!(seal("a"), seal("a"));
        assert_eq!(seal("").len(), seal(&"x".repeat(60)).len());
        let long = "ü".repeat(500);
        assert_eq!(sealer.open(&seal(&long), Purpose::Password, "m1").unwrap().as_str(), long);
    }

    #[test]
    fn every_changed_digit_is_noticed() {
        let (_directory, sealer) = sealer();
        let sealed = sealer.seal("hunter2", Purpose::Password, "m1").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(sealer.open(&changed, Purpose::Password, "m1").is_err(), "digit {at}");
        }
    }

    #[test]
    fn a_key_file_is_made_once_for_its_owner_alone_and_stays() {
        let (directory, first) = sealer();
        let path = directory.path().join("new/key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(directory.path().join("new")).unwrap().permissions().mode() & 0o777, 0o700);
        let second = Sealer::load_or_create(&path).unwrap();
        assert!(second.opens(&first.check_value().unwrap()));
        assert_eq!(fs::read_dir(directory.path().join("new")).unwrap().count(), 1);
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let (directory, _sealer) = sealer();
        let path = directory.path().join("new/key");
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Sealer::load_or_create(&path).unwrap_err().code(), "store.key-permissions");
        }
    }

    #[test]
    fn a_file_that_holds_no_key_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for text in ["", "bailiwick-key-v1:12", "x"] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(Sealer::load_or_create(&path).unwrap_err().code(), "store.key-malformed");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn another_key_does_not_open_the_check_value() {
        let ((_one, first), (_two, second)) = (sealer(), sealer());
        assert!(!second.opens(&first.check_value().unwrap()));
        assert_eq!(second.wrong().code(), "store.key-wrong");
    }

    #[test]
    fn debug_shows_no_key() {
        let (directory, sealer) = sealer();
        let text = fs::read_to_string(directory.path().join("new/key")).unwrap();
        let digits = text.trim_end().strip_prefix(KEY_PREFIX).unwrap();
        assert!(!format!("{sealer:?}").contains(digits));
    }
}
