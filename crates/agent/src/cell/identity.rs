//! What the agent keeps: its certificate and key, and the last permits. One directory, of which nobody else can read.

use super::error::Error;
use domain::Name;
use domain::agent::{ENROLMENT_FILE, Enrolment};
use domain::permit::{HeldPermits, PublicKey, SignedPermits};
use jiff::Timestamp;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use x509_cert::der::Decode as _;

const IDENTITY: &str = "cell.json";
const ENROLLING: &str = "enrolling.pem";
const PERMITS: &str = "permits.json";

/// Who the agent is to its cell. Key and certificate are in one file, so that they are replaced as one.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The cell's address.
    pub cell: String,
    /// The machine that this is.
    pub machine: Name,
    /// Private key in PEM.
    pub key: String,
    /// Certificate in PEM.
    pub certificate: String,
    /// The cell's authority in PEM.
    pub ca: String,
    /// Verifies permits.
    pub permit_key: PublicKey,
    /// When the certificate came, by this host's clock.
    pub received: Timestamp,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("cell", &self.cell)
            .field("machine", &self.machine)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// How long its certificate is valid in all.
    pub fn life(&self) -> Result<Duration, Error> {
        let bad = |why: String| Error::Key(format!("the certificate cannot be read: {why}"));
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        let der = der.map_err(|error| bad(error.to_string()))?;
        let parsed = x509_cert::Certificate::from_der(&der).map_err(|error| bad(error.to_string()))?;
        let validity = parsed.tbs_certificate().validity();
        let (from, to) = (validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration());
        Ok(to.saturating_sub(from))
    }

    /// When it is renewed: at two thirds of its life, by this host's clock alone, so that a clock that differs from the cell's
    /// does not matter.
    pub fn renewal(&self) -> Result<Timestamp, Error> {
        let after = self.life()? * 2 / 3;
        Ok(self.received.checked_add(after).unwrap_or(Timestamp::MAX))
    }
}

/// Permits as they are kept over a restart of the agent, within one start of the host.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptPermits {
    boot_id: String,
    /// Milliseconds since the host was started.
    received: u64,
    signed: SignedPermits,
}

/// What permits that cannot be kept leave behind.
#[derive(Debug)]
pub(super) enum NotKept {
    /// Nothing: those of before are gone too.
    Forgotten(Error),
    /// Those of before, of which the file cannot be changed at all.
    Stale(Error),
}

/// The agent's state directory.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Opens it; makes it, for this user alone, where there is none.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|source| Error::State { path: path.clone(), source })?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The enrolment that is kept here.
    pub fn identity(&self) -> Result<Identity, Error> {
        let path = self.0.join(IDENTITY);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NotEnrolled(path)),
            other => other.map_err(|source| Error::State { path: path.clone(), source })?,
        };
        serde_json::from_str(&text).map_err(|source| Error::State { path, source: source.into() })
    }

    /// Keeps a renewed certificate.
    pub(super) fn keep(&self, identity: &Identity) -> Result<(), Error> {
        self.write(IDENTITY, &serde_json::to_vec(identity).unwrap_or_default(), true)?;
        self.remove(ENROLLING)
    }

    /// Keeps an enrolment. The file that asked for one goes after that, for good, and only then the key: whoever is killed in between
    /// asks again with the same key, which the cell answers.
    pub(super) fn keep_enrolled(&self, identity: &Identity) -> Result<(), Error> {
        self.write(IDENTITY, &serde_json::to_vec(identity).unwrap_or_default(), true)?;
        self.remove(ENROLMENT_FILE)?;
        self.remove(ENROLLING)
    }

    /// How to enrol, where that was left here; `None` once the agent is enrolled by it.
    pub(super) fn enrolment(&self) -> Result<Option<Enrolment>, Error> {
        let path = self.0.join(ENROLMENT_FILE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| Error::State { path: path.clone(), source })?,
        };
        // The message of a value that does not fit quotes it, and it may be a token.
        let malformed = |error: serde_json::Error| Error::Enrolment {
            path,
            why: format!("line {}, column {}", error.line(), error.column()),
        };
        serde_json::from_str(&text).map(Some).map_err(malformed)
    }

    /// Holds the directory against another agent of this host that enrols, until it is dropped. `None` where one does.
    pub(super) fn lock(&self) -> Result<Option<File>, Error> {
        let lock = File::open(&self.0).and_then(|directory| match directory.try_lock() {
            Ok(()) => Ok(Some(directory)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        });
        lock.map_err(|source| Error::State { path: self.0.clone(), source })
    }

    /// Takes a file away, so that it does not come back after a loss of power either.
    fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.0.join(name);
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| File::open(&self.0)?.sync_all()),
        };
        removed.map_err(|source| Error::State { path, source })
    }

    /// The key to enrol with. It is the same until that has succeeded, since the cell answers a token's first key alone.
    pub(super) fn enrolling_key(&self) -> Result<KeyPair, Error> {
        let path = self.0.join(ENROLLING);
        if let Ok(text) = fs::read_to_string(&path)
            && let Ok(key) = KeyPair::from_pem(&text)
        {
            return Ok(key);
        }
        let key = KeyPair::generate().map_err(|error| Error::Key(error.to_string()))?;
        self.write(ENROLLING, key.serialize_pem().as_bytes(), true)?;
        Ok(key)
    }

    /// Keeps permits as they came. Losing them costs nothing but the time until the next report: no waiting for the disk. Older ones
    /// that come back would cost more, so where the new ones cannot be written, the file is taken away. So it is where nobody can tell
    /// which start of the host this is: they would look like permits of any other.
    pub(super) fn keep_permits(
        &self,
        signed: &SignedPermits,
        boot_id: Option<&str>,
        received: Duration,
    ) -> Result<(), NotKept> {
        let Some(boot_id) = boot_id else { return self.forget(PERMITS).map_err(NotKept::Stale) };
        let received = u64::try_from(received.as_millis()).unwrap_or(u64::MAX);
        let kept = KeptPermits { boot_id: boot_id.to_owned(), received, signed: signed.clone() };
        self.write(PERMITS, &serde_json::to_vec(&kept).unwrap_or_default(), false).map_err(|error| match self
            .forget(PERMITS)
        {
            Ok(()) => NotKept::Forgotten(error),
            Err(error) => NotKept::Stale(error),
        })
    }

    /// Takes a file away, or its content where that is all that can be done. Neither needs room on the disk.
    fn forget(&self, name: &str) -> Result<(), Error> {
        let path = self.0.join(name);
        let gone = match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                OpenOptions::new().write(true).truncate(true).open(&path).map(drop)
            }
            _ => Ok(()),
        };
        gone.map_err(|source| Error::State { path, source })
    }

    /// The permits that an earlier run of the agent has left; none of before the host was started anew.
    pub(super) fn permits(&self, identity: &Identity, boot_id: Option<&str>) -> Option<HeldPermits> {
        let boot_id = boot_id?;
        let text = fs::read(self.0.join(PERMITS)).ok()?;
        let kept: KeptPermits = serde_json::from_slice(&text).ok()?;
        let permits = kept.signed.open(&identity.permit_key, &identity.machine).ok()?;
        (kept.boot_id == boot_id).then(|| HeldPermits::new(permits, Duration::from_millis(kept.received)))
    }

    fn write(&self, name: &str, content: &[u8], durable: bool) -> Result<(), Error> {
        let path = self.0.join(name);
        let unfinished = self.0.join(format!("{name}.unfinished"));
        let write = || {
            let _ = fs::remove_file(&unfinished);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            file.write_all(content)?;
            if durable {
                file.sync_all()?;
            }
            fs::rename(&unfinished, &path)?;
            if durable { File::open(&self.0)?.sync_all() } else { Ok(()) }
        };
        write().map_err(|source| Error::State { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::permit::Permits;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use std::convert::Infallible;

    const BOOT: &str = "7e57ab1e-0000-4000-8000-000000000001";

    fn identity(signer: &Ed25519KeyPair) -> Identity {
        Identity {
            cell: "https://cell.example:8461".to_owned(),
            machine: Name::new("m1").unwrap(),
            key: String::new(),
            certificate: String::new(),
            ca: String::new(),
            permit_key: PublicKey::new(signer.public_key().as_ref().try_into().unwrap()),
            received: Timestamp::UNIX_EPOCH,
        }
    }

    fn sealed(signer: &Ed25519KeyPair, issued: i64) -> SignedPermits {
        let issued = Timestamp::from_second(issued).unwrap();
        let permits = Permits { machine: Name::new("m1").unwrap(), issued, permits: Vec::new() };
        SignedPermits::seal(&permits, |bytes| Ok::<_, Infallible>(signer.sign(bytes).as_ref().to_vec()))
            .unwrap()
    }

    #[test]
    fn permits_that_cannot_be_written_take_those_of_before_with_them() {
        let directory = tempfile::tempdir().unwrap();
        let dir = StateDir::open(directory.path()).unwrap();
        let signer = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let identity = identity(&signer);
        let issued = || dir.permits(&identity, Some(BOOT)).map(|held| held.permits().issued.as_second());
        dir.keep_permits(&sealed(&signer, 1), Some(BOOT), Duration::ZERO).unwrap();
        assert_eq!(issued(), Some(1));
        // a disk that takes no new file
        let obstacle = directory.path().join("permits.json.unfinished");
        std::fs::create_dir(&obstacle).unwrap();
        let kept = dir.keep_permits(&sealed(&signer, 2), Some(BOOT), Duration::ZERO);
        assert!(matches!(kept, Err(NotKept::Forgotten(_))));
        assert_eq!(issued(), None);
        std::fs::remove_dir(&obstacle).unwrap();
        dir.keep_permits(&sealed(&signer, 3), Some(BOOT), Duration::ZERO).unwrap();
        assert_eq!(issued(), Some(3));
    }
    #[test]
    fn without_a_boot_id_no_permits_are_kept_and_none_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let dir = StateDir::open(directory.path()).unwrap();
        let signer = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let identity = identity(&signer);
        dir.keep_permits(&sealed(&signer, 1), Some(BOOT), Duration::ZERO).unwrap();
        assert!(dir.permits(&identity, None).is_none(), "of which start they are, nobody knows");
        dir.keep_permits(&sealed(&signer, 2), None, Duration::ZERO).unwrap();
        for boot_id in [None, Some(""), Some(BOOT)] {
            assert!(dir.permits(&identity, boot_id).is_none(), "{boot_id:?}");
        }
    }
}
