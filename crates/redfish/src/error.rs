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

/// Every code of the transport: code, meaning, hint. `docs/reference/codes.md` is written from it.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "bmc.address-invalid",
        "The address is not an https URL of a BMC.",
        "Write https://HOST[:PORT]; IPv6 addresses in brackets.",
    ),
    (
        "bmc.address-outside-networks",
        "The address is outside the networks that BMC connections may go to.",
        "Correct the address, or add its network to the site's spec.bmcNetworks.",
    ),
    ("bmc.busy", "The BMC answers that it is busy, also after several attempts.", "Try again later."),
    (
        "bmc.ca-invalid",
        "The CA file given cannot be used.",
        "Give PEM certificates of the CA that signed the BMC's certificate.",
    ),
    (
        "bmc.certificate.expired",
        "The BMC's certificate is outside its validity period. With a pin this is only a diagnostic.",
        "Renew the certificate on the BMC, check its clock, or pin its key.",
    ),
    (
        "bmc.certificate.malformed",
        "What the BMC shows is not a certificate.",
        "Create a new certificate on the BMC.",
    ),
    (
        "bmc.certificate.unsupported-key",
        "The key of the BMC's certificate is of a kind that is not supported.",
        "Create a certificate with an RSA key of 2048 to 8192 bits, a P-256, P-384 or an Ed25519 key on the BMC.",
    ),
    (
        "bmc.certificate.unsupported-signature",
        "The BMC's certificate is signed with an algorithm that is not accepted, such as SHA-1.",
        "Create a certificate signed with SHA-256 or better, or pin the BMC's key.",
    ),
    (
        "bmc.certificate.untrusted",
        "None of the CAs given has signed the BMC's certificate.",
        "Give the right CA, or pin the BMC's key.",
    ),
    (
        "bmc.certificate.weak-key",
        "The BMC's certificate has an RSA key of fewer than 2048 bits.",
        "Create a new key of at least 2048 bits on the BMC.",
    ),
    (
        "bmc.certificate.wrong-name",
        "The BMC's certificate is for another name. With a pin this is only a diagnostic.",
        "Use the name in the certificate, or pin the BMC's key.",
    ),
    (
        "bmc.certificate.x509-v1",
        "The BMC shows an X.509 version 1 certificate, which is not accepted.",
        "Create a version 3 certificate on the BMC; many firmware updates do.",
    ),
    ("bmc.deadline", "Reading took longer than it may.", "Raise the deadline, or see why the BMC is slow."),
    (
        "bmc.locked-out",
        "The BMC has locked the account.",
        "Unlock it on the BMC or wait until it unlocks itself, then correct the password.",
    ),
    (
        "bmc.login-withheld",
        "Logins failed lately, and another one might lock the account; none is tried for now.",
        "Correct the credentials, or wait.",
    ),
    (
        "bmc.not-redfish",
        "Something answers, but not with a Redfish service root.",
        "Check the address, and that Redfish is enabled on the BMC.",
    ),
    (
        "bmc.password-change-required",
        "The BMC demands that the password is changed before anything else.",
        "Change the factory password on the BMC and give the new one.",
    ),
    (
        "bmc.pin-mismatch",
        "The BMC shows another key than the one pinned.",
        "If the BMC's key was changed on purpose, give the new pin; otherwise somebody may be in between.",
    ),
    (
        "bmc.reading-too-large",
        "The BMC sent more than one reading may receive.",
        "Report the BMC's model and firmware; raise the limit if the amount is genuine.",
    ),
    (
        "bmc.sessions-exhausted",
        "The BMC has no session left; requests go with Basic authentication instead.",
        "Close leaked sessions on the BMC.",
    ),
    (
        "bmc.timeout",
        "The BMC takes the connection but does not answer in time.",
        "Try again; restart the BMC.",
    ),
    (
        "bmc.tls",
        "What answers does not speak TLS 1.2 or 1.3 with a cipher suite that is accepted.",
        "Check the port; update the BMC's firmware.",
    ),
    (
        "bmc.unauthorized",
        "The BMC refuses the user name or password.",
        "Check the user name and the password file.",
    ),
    (
        "bmc.unreachable",
        "Nothing answers at the BMC's address.",
        "Check address, cabling and the route to the BMC network.",
    ),
    ("bmc.unresolved", "The BMC's name does not resolve.", "Check the name, or give an address."),
    (
        "redfish.body.empty",
        "The BMC answers without a body where there must be one.",
        "Report the BMC's model and firmware.",
    ),
    (
        "redfish.body.error",
        "The BMC answers with success, but the body is an error.",
        "Report the BMC's model and firmware.",
    ),
    (
        "redfish.body.not-json",
        "The BMC answers with something else than a JSON object, such as an HTML page.",
        "Report the BMC's model and firmware.",
    ),
    (
        "redfish.body.not-utf8",
        "Bytes of the BMC's answer that are not UTF-8 were replaced. The rest was read.",
        "Report the BMC's model and firmware.",
    ),
    (
        "redfish.body.too-deep",
        "The BMC's answer is nested deeper than 127 levels.",
        "Report the BMC's model and firmware.",
    ),
    (
        "redfish.body.too-large",
        "The BMC's answer is larger than is accepted.",
        "Report the BMC's model and firmware; raise the limit if the size is genuine.",
    ),
    (
        "redfish.body.truncated",
        "The BMC's answer ends early, twice.",
        "Try again; report the BMC's model and firmware.",
    ),
    ("redfish.redirects", "The BMC redirects from page to page.", "Report the BMC's model and firmware."),
    (
        "redfish.resource.connection-lost",
        "The BMC drops the connection whenever this resource is read.",
        "Try again; report the BMC's model and firmware.",
    ),
    (
        "redfish.resource.forbidden",
        "The account may not read this resource.",
        "Give the account the privileges to read (role ReadOnly or better).",
    ),
    (
        "redfish.resource.not-found",
        "The resource does not exist, though a link leads to it.",
        "Nothing to do; the BMC's links are stale.",
    ),
    (
        "redfish.resource.refused",
        "The BMC refuses to give this resource.",
        "See the status and the message; report the BMC's model and firmware.",
    ),
    (
        "redfish.resource.timeout",
        "This resource did not come in time.",
        "Try again; some resources are slow while the BMC is busy.",
    ),
    (
        "redfish.resource.unauthorized",
        "The BMC refuses the credentials for this resource, though it takes them elsewhere.",
        "Try again; if it stays, give the account the privileges to read.",
    ),
    (
        "redfish.uri.cross-origin",
        "The BMC links to another host. The link was not followed: it would take the credentials there.",
        "Report the BMC's model and firmware.",
    ),
];

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
