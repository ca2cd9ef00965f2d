//! Permits: what a cell signs so that an agent may hand out a device (DESIGN §3.3).
//!
//! The cell signs all permits of a machine as one document with Ed25519 (RFC 8032). The signature is over the bytes that are
//! sent, so nothing depends on how JSON is written. An agent has learnt the cell's public key when it was enrolled.
//!
//! A permit ends at its `validUntil` by the wall clock or, earlier, when the span for which it was issued has passed on a clock
//! that nobody can set: turning the host's clock back makes no permit last longer.

use crate::name::{Digest, Name};
use crate::problem::{Diagnose, Problem};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use ring::signature::{ED25519, UnparsedPublicKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Signed before the document, so that no signature over something else passes for one over permits.
const CONTEXT: &[u8] = b"bailiwick permits v1\0";

/// Leave to hand out one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Permit {
    /// The device's name in its pool, which the cell has made. The pool is the machine's, of the same name.
    pub device: Name,
    /// UUID of the GPU as NVML writes it: `GPU-…`.
    pub gpu: String,
    /// The part of the GPU that the device is; `null` for all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<Partition>,
    /// Digest of the verdict that opened the gate; `null` where none was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Digest>,
    /// When it ends.
    #[schemars(with = "String")]
    pub valid_until: Timestamp,
}

/// A MIG partition of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// NVML's id of the GPU instance profile.
    pub profile: u32,
    /// Index of the first memory slice that it takes.
    pub start: u32,
}

impl Permit {
    /// Whether the wall clock says that it has not ended.
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.valid_until
    }
}

/// All permits of a machine: a device that is not among them has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Permits {
    /// The machine whose agent they are for.
    pub machine: Name,
    /// When the cell issued them.
    #[schemars(with = "String")]
    pub issued: Timestamp,
    /// One a device.
    pub permits: Vec<Permit>,
}

/// Permits as they travel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SignedPermits {
    /// Base64 of the bytes of the JSON document of [`Permits`].
    pub document: String,
    /// Base64 of the signature over the context and those bytes.
    pub signature: String,
}

impl SignedPermits {
    /// Signs permits. `sign` gives the 64 bytes of an Ed25519 signature over what it is given.
    pub fn seal<E>(permits: &Permits, sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> Result<Self, E> {
        // Maps with keys that are no strings are all that serde_json cannot write, and there are none in it.
        let document = serde_json::to_vec(permits).unwrap_or_default();
        let signature = sign(&signed(&document))?;
        Ok(Self { document: BASE64.encode(document), signature: BASE64.encode(signature) })
    }

    /// The permits, if this key signed them and they are this machine's. What of them is live at what time, ask
    /// [`HeldPermits`].
    pub fn open(&self, key: &PublicKey, machine: &Name) -> Result<Permits, PermitError> {
        let document = BASE64.decode(&self.document).map_err(|_| PermitError::Malformed)?;
        let signature = BASE64.decode(&self.signature).map_err(|_| PermitError::Malformed)?;
        UnparsedPublicKey::new(&ED25519, key.0)
            .verify(&signed(&document), &signature)
            .map_err(|_| PermitError::Forged)?;
        let permits: Permits = serde_json::from_slice(&document).map_err(|_| PermitError::Malformed)?;
        if permits.machine != *machine {
            let (found, expected) = (permits.machine, machine.clone());
            return Err(PermitError::OtherMachine { found, expected });
        }
        Ok(permits)
    }
}

fn signed(document: &[u8]) -> Vec<u8> {
    [CONTEXT, document].concat()
}

/// Permits in the hands of an agent, with the time of a clock that nobody can set at which they came: the time since the host
/// was started, also while it slept (`CLOCK_BOOTTIME`). They are of no use after the host was started anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPermits {
    permits: Permits,
    received: Duration,
}

impl HeldPermits {
    /// Permits that came just now.
    pub fn new(permits: Permits, uptime: Duration) -> Self {
        Self { permits, received: uptime }
    }

    /// All of them, live or not.
    pub fn permits(&self) -> &Permits {
        &self.permits
    }

    /// When they came, as time since the host was started.
    pub fn received(&self) -> Duration {
        self.received
    }

    /// Whether these may take the place of those held before: an older document, kept by somebody, may not come back.
    pub fn may_replace(&self, before: &Self) -> Result<(), PermitError> {
        let (found, expected) = (self.permits.issued, before.permits.issued);
        if found < expected { Err(PermitError::Replayed { found, expected }) } else { Ok(()) }
    }

    /// The live permit of a device.
    pub fn find(&self, device: &str, now: Timestamp, uptime: Duration) -> Result<&Permit, PermitError> {
        let permit = self.permits.permits.iter().find(|permit| permit.device.as_str() == device);
        let permit = permit.ok_or_else(|| PermitError::None { device: device.to_owned() })?;
        if self.left(permit, now, uptime).is_zero() {
            return Err(PermitError::Expired { device: device.to_owned(), ended: permit.valid_until });
        }
        Ok(permit)
    }

    /// How long any permit is live still; zero when none is.
    pub fn lasts(&self, now: Timestamp, uptime: Duration) -> Duration {
        self.permits.permits.iter().map(|permit| self.left(permit, now, uptime)).max().unwrap_or_default()
    }

    /// What is left of a permit: the less of what the two clocks say.
    fn left(&self, permit: &Permit, now: Timestamp, uptime: Duration) -> Duration {
        let positive = |span: SignedDuration| Duration::try_from(span).unwrap_or_default();
        let by_wall = positive(permit.valid_until.duration_since(now));
        let span = positive(permit.valid_until.duration_since(self.permits.issued));
        // A clock that stands before the receipt is one of another start of the host.
        let passed = uptime.checked_sub(self.received).unwrap_or(Duration::MAX);
        by_wall.min(span.saturating_sub(passed))
    }
}

/// The key with which a cell's permits are verified, written `ed25519:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// A string that is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a public key: write ed25519: and 64 hexadecimal digits")]
pub struct NotAKey(pub String);

impl PublicKey {
    /// The key of these bytes (RFC 8032 §5.1.5).
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = NotAKey;
    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let no = || NotAKey(text.to_owned());
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.strip_prefix("ed25519:").ok_or_else(no)?, &mut bytes).map_err(|_| no())?;
        Ok(Self(bytes))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for PublicKey {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PublicKey".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^ed25519:[0-9a-f]{64}$" })
    }
}

/// Why a device may not be handed out, or permits not be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PermitError {
    /// What came is no document of permits.
    #[error("what the cell sent as permits cannot be read")]
    Malformed,
    /// The signature is not that of the cell.
    #[error("the permits are not signed by the cell that enrolled this agent")]
    Forged,
    /// They are for another machine.
    #[error("the permits are those of machine {found}")]
    OtherMachine {
        /// Whose they are.
        found: Name,
        /// Whose they should be.
        expected: Name,
    },
    /// They are older than those held already.
    #[error("the permits are older than those held already")]
    Replayed {
        /// When these were issued.
        found: Timestamp,
        /// When those held were.
        expected: Timestamp,
    },
    /// The cell gave none for this device.
    #[error("the cell has given no permit for device {device}")]
    None {
        /// Which device.
        device: String,
    },
    /// It has run out.
    #[error("the permit for device {device} ran out")]
    Expired {
        /// Which device.
        device: String,
        /// Its end by the wall clock.
        ended: Timestamp,
    },
}

impl PermitError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "permit.malformed",
            Self::Forged => "permit.forged",
            Self::OtherMachine { .. } => "permit.other-machine",
            Self::Replayed { .. } => "permit.replayed",
            Self::None { .. } => "permit.none",
            Self::Expired { .. } => "permit.expired",
        }
    }
}

impl Diagnose for PermitError {
    fn problem(&self) -> Problem {
        let problem = crate::codes::coded(self.code(), self.to_string());
        match self {
            Self::OtherMachine { found, expected } => problem.difference(found.as_str(), expected.as_str()),
            Self::Replayed { found, expected } => {
                problem.difference(found.to_string(), format!("{expected} or later"))
            }
            Self::Expired { ended, .. } => {
                problem.difference(format!("valid until {ended}"), "a permit that is live")
            }
            Self::Malformed | Self::Forged | Self::None { .. } => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    const HOUR: Duration = Duration::from_hours(1);

    fn pair(seed: u8) -> (Ed25519KeyPair, PublicKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let key = PublicKey::new(pair.public_key().as_ref().try_into().unwrap());
        (pair, key)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Issued at 1000 for an hour.
    fn permits() -> Permits {
        Permits {
            machine: Name::new("m1").unwrap(),
            issued: at(1000),
            permits: vec![Permit {
                device: Name::new("gpu-1").unwrap(),
                gpu: "GPU-1".into(),
                partition: None,
                verdict: None,
                valid_until: at(4600),
            }],
        }
    }

    fn sealed(pair: &Ed25519KeyPair) -> SignedPermits {
        let sign = |bytes: &[u8]| Ok::<_, std::convert::Infallible>(pair.sign(bytes).as_ref().to_vec());
        SignedPermits::seal(&permits(), sign).unwrap()
    }

    #[test]
    fn what_the_cell_signed_opens_for_its_machine_and_no_other() {
        let (pair, key) = pair(1);
        let m1 = Name::new("m1").unwrap();
        assert_eq!(sealed(&pair).open(&key, &m1), Ok(permits()));
        let other = sealed(&pair).open(&key, &Name::new("m2").unwrap());
        assert_eq!(other.unwrap_err().code(), "permit.other-machine");
    }

    #[test]
    fn a_document_that_was_changed_or_signed_by_another_is_refused() {
        let (one, key) = pair(1);
        let m1 = Name::new("m1").unwrap();
        assert_eq!(sealed(&pair(2).0).open(&key, &m1), Err(PermitError::Forged));
        let mut longer = permits();
        longer.permits[0].valid_until = at(9_999_999);
        let mut changed = sealed(&one);
        changed.document = BASE64.encode(serde_json::to_vec(&longer).unwrap());
        assert_eq!(changed.open(&key, &m1), Err(PermitError::Forged));
    }

    #[test]
    fn a_signature_over_the_document_alone_is_none_over_permits() {
        let (pair, key) = pair(1);
        let document = serde_json::to_vec(&permits()).unwrap();
        let signature = BASE64.encode(pair.sign(&document).as_ref());
        let signed = SignedPermits { document: BASE64.encode(document), signature };
        assert_eq!(signed.open(&key, &Name::new("m1").unwrap()), Err(PermitError::Forged));
    }

    #[test]
    fn a_permit_ends_by_the_wall_clock() {
        let held = HeldPermits::new(permits(), HOUR);
        assert!(held.find("gpu-1", at(4599), HOUR).is_ok());
        assert_eq!(held.find("gpu-1", at(4600), HOUR).unwrap_err().code(), "permit.expired");
    }

    #[test]
    fn a_clock_that_is_turned_back_makes_no_permit_last_longer() {
        let held = HeldPermits::new(permits(), HOUR);
        let later = HOUR + HOUR;
        assert!(held.find("gpu-1", at(0), later.saturating_sub(Duration::from_secs(1))).is_ok());
        assert_eq!(held.find("gpu-1", at(0), later).unwrap_err().code(), "permit.expired");
        assert_eq!(held.lasts(at(0), later), Duration::ZERO);
    }

    #[test]
    fn permits_of_before_the_host_was_started_anew_are_of_no_use() {
        let held = HeldPermits::new(permits(), HOUR);
        assert_eq!(held.find("gpu-1", at(1001), Duration::ZERO).unwrap_err().code(), "permit.expired");
    }

    #[test]
    fn a_device_without_a_permit_is_refused() {
        let held = HeldPermits::new(permits(), HOUR);
        assert_eq!(held.find("gpu-2", at(1001), HOUR).unwrap_err().code(), "permit.none");
    }

    #[test]
    fn older_permits_do_not_take_the_place_of_newer_ones() {
        let (newer, mut older) = (HeldPermits::new(permits(), HOUR), permits());
        older.issued = at(999);
        let older = HeldPermits::new(older, HOUR);
        assert_eq!(older.may_replace(&newer).unwrap_err().code(), "permit.replayed");
        assert_eq!(newer.may_replace(&older), Ok(()));
    }

    #[test]
    fn a_key_reads_back_from_its_text() {
        let (_, key) = pair(1);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!("ed25519:12".parse::<PublicKey>().is_err());
    }
}
