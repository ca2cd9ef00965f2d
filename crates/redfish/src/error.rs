//! Why a BMC as a whole cannot be read, and the one list of this crate's transport codes.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use domain::{Diagnose, Problem};

use crate::pin::SpkiPin;

/// Why a BMC as a whole cannot be read. What concerns one resource only is a [`crate::ReadError`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not an `https` URL of a host.
    #[error("`{url}` is not the address of a BMC: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name does not resolve.
    #[error("{host} does not resolve to an address")]
    Unresolved {
        /// The name.
        host: String,
        /// What the resolver says.
        #[source]
        source: Option<io::Error>,
    },
    /// The address is outside the networks that connections may go to.
    #[error("{address} is outside the site's BMC networks")]
    OutsideNetworks {
        /// The address refused.
        address: IpAddr,
        /// The networks allowed.
        networks: Vec<ipnet::IpNet>,
    },
    /// The trust given cannot be used: no certificate in the CA file, for one.
    #[error("the CA file cannot be used: {reason}")]
    CaFile {
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing answers.
    #[error("nothing answers at {address}: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the network says.
        reason: String,
    },
    /// The connection stands, the answer does not come.
    #[error("{address} did not answer within {after:?}")]
    Timeout {
        /// Host and port.
        address: String,
        /// How long we waited.
        after: Duration,
    },
    /// The whole reading took longer than it may.
    #[error("reading took longer than {limit:?}")]
    Deadline {
        /// The limit.
        limit: Duration,
    },
    /// What answers does not speak TLS, or none that we speak.
    #[error("no TLS connection: {reason}")]
    Tls {
        /// What the TLS library says.
        reason: String,
    },
    /// The key is not the one pinned.
    #[error("the BMC shows another key than the one pinned")]
    PinMismatch {
        /// The pin of the key shown.
        found: SpkiPin,
        /// The pin expected.
        expected: SpkiPin,
    },
    /// The certificate cannot be accepted.
    #[error("the BMC's certificate is refused: {0}")]
    Certificate(#[from] CertificateProblem),
    /// No Redfish service root there.
    #[error("no Redfish service answers there: {reason}")]
    NotRedfish {
        /// What came instead.
        reason: String,
    },
    /// The service root itself is not to be had for now, also after several attempts.
    #[error("the BMC is too busy to answer")]
    Busy,
    /// Credentials refused, often enough to believe it (quirk 3).
    #[error("the BMC refuses the user name or password")]
    Unauthorized,
    /// Credentials right, but the password must be changed first (quirk 4).
    #[error("the BMC demands that the password is changed first")]
    PasswordChangeRequired,
    /// The BMC says that the account is locked.
    #[error("the BMC has locked the account")]
    LockedOut,
    /// We refuse to try again for a while, lest the BMC lock the account.
    #[error("not logging in: {failures} logins failed lately and one more may lock the account")]
    LoginWithheld {
        /// Logins failed within the window.
        failures: u32,
        /// When a login will be tried again.
        retry_in: Duration,
    },
    /// The password was replaced; it is not sent again.
    #[error("not logging in: the password was replaced by another one")]
    Superseded,
    /// The failures could not be written down before a login.
    #[error("not logging in: it cannot be recorded ({reason})")]
    LoginUnrecorded {
        /// What the recorder says.
        reason: String,
    },
    /// Somebody else keeps everybody out of the BMC, such as while its password is changed.
    #[error("{address} is closed to others for now; waited {after:?}")]
    Fenced {
        /// Host and port.
        address: String,
        /// How long we waited.
        after: Duration,
    },
    /// All that one reading may receive has been received.
    #[error("the BMC sent more than {limit} bytes in one reading")]
    ReadingTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
}

/// Why a certificate cannot be accepted, whatever is pinned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    /// X.509 version 1 or 2, which the TLS library does not take.
    #[error("it is an X.509 version {version} certificate")]
    OldVersion {
        /// The version it has, counted from 1.
        version: u8,
    },
    /// An RSA key of fewer than 2048 bits.
    #[error("its RSA key has only {bits} bits")]
    WeakKey {
        /// The size of the modulus.
        bits: usize,
    },
    /// A kind of key that the TLS library does not know (DSA, Ed448, P-521, RSA above 8192 bits).
    #[error("its key is of a kind that is not supported ({algorithm})")]
    UnsupportedKey {
        /// The algorithm's object identifier, or a name.
        algorithm: String,
    },
    /// Signed with an algorithm that is not accepted (MD5, SHA-1).
    #[error("it is signed with an algorithm that is not supported ({algorithm})")]
    UnsupportedSignature {
        /// The algorithm's object identifier.
        algorithm: String,
    },
    /// Outside its validity period.
    #[error("it is outside its validity period ({not_before} to {not_after})")]
    Expired {
        /// Start of validity.
        not_before: String,
        /// End of validity.
        not_after: String,
    },
    /// For another name than the one asked for.
    #[error("it is for another name than {name}")]
    WrongName {
        /// The name asked for.
        name: String,
    },
    /// Not signed by a CA given.
    #[error("no CA given has signed it: {reason}")]
    Untrusted {
        /// What the TLS library says.
        reason: String,
    },
    /// Not a certificate at all.
    #[error("it cannot be parsed: {reason}")]
    Malformed {
        /// What the parser says.
        reason: String,
    },
}

pub use crate::codes::CODES;

/// The hint that belongs to a code.
pub(crate) fn hint(code: &str) -> Option<&'static str> {
    CODES.iter().find(|(known, ..)| *known == code).map(|(_, _, hint)| *hint)
}

/// A problem with a code of the list and its hint.
pub(crate) fn problem(code: &'static str, message: String) -> Problem {
    let problem = Problem::new(code, message);
    match hint(code) {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

impl Error {
    /// Whether the BMC may be back a little later.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Timeout { .. }
                | Self::Busy
                | Self::NotRedfish { .. }
                | Self::Fenced { .. }
        )
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Url { .. } => "bmc.address-invalid",
            Self::Unresolved { .. } => "bmc.unresolved",
            Self::OutsideNetworks { .. } => "bmc.address-outside-networks",
            Self::CaFile { .. } => "bmc.ca-invalid",
            Self::Unreachable { .. } => "bmc.unreachable",
            Self::Timeout { .. } => "bmc.timeout",
            Self::Deadline { .. } => "bmc.deadline",
            Self::Tls { .. } => "bmc.tls",
            Self::PinMismatch { .. } => "bmc.pin-mismatch",
            Self::Certificate(problem) => problem.code(),
            Self::NotRedfish { .. } => "bmc.not-redfish",
            Self::Busy => "bmc.busy",
            Self::Unauthorized => "bmc.unauthorized",
            Self::PasswordChangeRequired => "bmc.password-change-required",
            Self::LockedOut => "bmc.locked-out",
            Self::LoginWithheld { .. } => "bmc.login-withheld",
            Self::Superseded => "bmc.credentials-superseded",
            Self::LoginUnrecorded { .. } => "bmc.login-unrecorded",
            Self::Fenced { .. } => "bmc.fenced",
            Self::ReadingTooLarge { .. } => "bmc.reading-too-large",
        }
    }
}

impl CertificateProblem {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OldVersion { .. } => "bmc.certificate.x509-v1",
            Self::WeakKey { .. } => "bmc.certificate.weak-key",
            Self::UnsupportedKey { .. } => "bmc.certificate.unsupported-key",
            Self::UnsupportedSignature { .. } => "bmc.certificate.unsupported-signature",
            Self::Expired { .. } => "bmc.certificate.expired",
            Self::WrongName { .. } => "bmc.certificate.wrong-name",
            Self::Untrusted { .. } => "bmc.certificate.untrusted",
            Self::Malformed { .. } => "bmc.certificate.malformed",
        }
    }
}

impl Diagnose for Error {
    fn problem(&self) -> Problem {
        let problem = problem(self.code(), self.to_string());
        match self {
            Self::PinMismatch { found, expected } => {
                problem.difference(found.to_string(), expected.to_string())
            }
            Self::OutsideNetworks { address, networks } => {
                let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
                problem.difference(address.to_string(), format!("one of {}", networks.join(", ")))
            }
            Self::Certificate(CertificateProblem::OldVersion { version }) => {
                problem.difference(format!("version {version}"), "version 3")
            }
            Self::Certificate(CertificateProblem::WeakKey { bits }) => {
                problem.difference(format!("{bits} bits"), "2048 bits or more")
            }
            _ => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_sorted_and_told_once() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn every_error_has_a_code_of_the_list() {
        let (text, after, limit) = (String::new, Duration::ZERO, Duration::ZERO);
        let pin = SpkiPin::of_spki(b"");
        let mut errors = vec![
            Error::Url { url: text(), reason: "" },
            Error::Unresolved { host: text(), source: None },
            Error::OutsideNetworks { address: IpAddr::from([0, 0, 0, 0]), networks: Vec::new() },
            Error::CaFile { reason: text() },
            Error::Unreachable { address: text(), reason: text() },
            Error::Timeout { address: text(), after },
            Error::Deadline { limit },
            Error::Tls { reason: text() },
            Error::PinMismatch { found: pin, expected: pin },
            Error::NotRedfish { reason: text() },
            Error::Busy,
            Error::Unauthorized,
            Error::PasswordChangeRequired,
            Error::LockedOut,
            Error::LoginWithheld { failures: 0, retry_in: after },
            Error::Superseded,
            Error::LoginUnrecorded { reason: text() },
            Error::Fenced { address: text(), after },
            Error::ReadingTooLarge { limit: 0 },
        ];
        errors.extend(
            [
                CertificateProblem::OldVersion { version: 1 },
                CertificateProblem::WeakKey { bits: 0 },
                CertificateProblem::UnsupportedKey { algorithm: text() },
                CertificateProblem::UnsupportedSignature { algorithm: text() },
                CertificateProblem::Expired { not_before: text(), not_after: text() },
                CertificateProblem::WrongName { name: text() },
                CertificateProblem::Untrusted { reason: text() },
                CertificateProblem::Malformed { reason: text() },
            ]
            .map(Error::Certificate),
        );
        for error in errors {
            assert!(error.problem().hint.is_some(), "{error:?}");
        }
    }

    #[test]
    fn a_pin_mismatch_tells_both_pins_and_what_to_do() {
        let (found, expected) = (SpkiPin::of_spki(b"a"), SpkiPin::of_spki(b"b"));
        let problem = Error::PinMismatch { found, expected }.problem();
        assert_eq!(problem.code, "bmc.pin-mismatch");
        assert_eq!((problem.found, problem.expected), (Some(found.to_string()), Some(expected.to_string())));
        assert!(problem.hint.is_some());
    }
}
