//! Why a BMC cannot be reached or does not do as told, and the one list of this crate's codes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use domain::{Diagnose, Problem};

use crate::chassis::{BootDevice, Power, PowerAction};
use crate::message::Completion;
use crate::rakp::{Privilege, Status};
use crate::wire::Malformed;

/// Why something could not be done over IPMI.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket, or the network refuses to send.
    #[error("no datagrams can be sent to {address}")]
    Socket {
        /// The BMC.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The host says that nothing listens on that port.
    #[error("nothing listens at {address}")]
    Unreachable {
        /// The BMC.
        address: SocketAddr,
    },
    /// No answer, however often it was asked.
    #[error("{address} did not answer {awaited} within {after:?}")]
    Timeout {
        /// The BMC.
        address: SocketAddr,
        /// What was waited for.
        awaited: &'static str,
        /// How long we waited in all.
        after: Duration,
    },
    /// An answer that is authentic and makes no sense.
    #[error("the answer to {command} is malformed: {source}")]
    Malformed {
        /// The command.
        command: &'static str,
        /// What is wrong.
        #[source]
        source: Malformed,
    },
    /// User name or password that IPMI cannot carry.
    #[error("{what} is longer than the {limit} bytes that IPMI allows")]
    TooLong {
        /// "the user name" or "the password".
        what: &'static str,
        /// Bytes.
        limit: usize,
    },
    /// It answers, and offers no IPMI 2.0 session.
    #[error("{address} answers and offers no IPMI 2.0")]
    Version {
        /// The BMC.
        address: SocketAddr,
    },
    /// None of the cipher suites wanted.
    #[error("the BMC takes none of the cipher suites {wanted}")]
    NoCipherSuite {
        /// Those asked for, in order.
        wanted: String,
    },
    /// User name or password are wrong. Nothing more was tried: it may be counted against a lock-out.
    #[error("the BMC refuses the user name or password")]
    Unauthorized,
    /// The password is right (or the BMC key wrong), and the BMC cannot prove the session's key.
    #[error("the BMC's last proof is wrong: the BMC key (Kg) differs, or somebody is in between")]
    KeyMismatch,
    /// The user may not do as much.
    #[error("the user may not act as {wanted}")]
    Privilege {
        /// The level asked for.
        wanted: Privilege,
    },
    /// No session is free.
    #[error("the BMC has no session left")]
    SessionsExhausted,
    /// No session, for another reason.
    #[error("the BMC refuses a session: {status}")]
    SessionRefused {
        /// The BMC's reason.
        status: Status,
    },
    /// The BMC says that it is busy, also after several attempts.
    #[error("the BMC is too busy for {command}")]
    Busy {
        /// The command.
        command: &'static str,
    },
    /// The BMC has no such command.
    #[error("the BMC knows no {command}")]
    Unsupported {
        /// The command.
        command: &'static str,
    },
    /// The session's privilege is too low for the command.
    #[error("the user may not do {command}")]
    Forbidden {
        /// The command.
        command: &'static str,
    },
    /// The command failed.
    #[error("the BMC refuses {command} with completion code {completion}")]
    Refused {
        /// The command.
        command: &'static str,
        /// The BMC's reason.
        completion: Completion,
    },
    /// Records change faster than they can be read.
    #[error("{what} changed again and again while it was read")]
    Unstable {
        /// What was read.
        what: &'static str,
    },
    /// No answer to something that must not be sent twice: it was done, or it was not.
    #[error("no answer to {command}, which may have been carried out and is not sent again")]
    OutcomeUnknown {
        /// The command.
        command: &'static str,
    },
    /// The session has ended, and no other may be opened ([`crate::Options::logins`]).
    #[error("{address} has ended the session or does not answer any more")]
    SessionLost {
        /// The BMC.
        address: SocketAddr,
    },
    /// A host without power can be neither reset nor power-cycled. Nothing was sent.
    #[error("the host is off, so there is nothing to {action}")]
    HostOff {
        /// What was asked for.
        action: PowerAction,
    },
    /// The command succeeded, and the power state says otherwise (quirk 38).
    #[error("power is {found} {after:?} after the BMC agreed to switch it {expected}")]
    PowerUnchanged {
        /// The state read last.
        found: Power,
        /// The state that had to come.
        expected: Power,
        /// How long we looked.
        after: Duration,
    },
    /// The command succeeded, and the boot device says otherwise (quirk 38).
    #[error("the boot device is {found} after the BMC agreed to set {expected}")]
    BootDeviceUnchanged {
        /// The device read.
        found: BootDevice,
        /// The device set.
        expected: BootDevice,
    },
}

/// Every code of this crate: code, meaning, hint. `docs/reference/codes.md` is written from it.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "ipmi.boot-device-unchanged",
        "The BMC agreed to another boot device, and reading it back shows that nothing changed.",
        "See whether the BMC is in lockdown; report its model and firmware.",
    ),
    ("ipmi.busy", "The BMC answers that it is busy, also after several attempts.", "Try again later."),
    (
        "ipmi.credentials-invalid",
        "The user name is longer than 16 bytes or the password longer than 20, which IPMI cannot carry.",
        "Give the BMC an account for IPMI with a shorter name or password.",
    ),
    (
        "ipmi.forbidden",
        "The account may not run this command.",
        "Give the account a higher privilege on the BMC's LAN channel.",
    ),
    (
        "ipmi.fru.area",
        "An area of the FRU inventory lies beyond its end or claims a wrong length. What is there was read.",
        "Report the machine's model; its inventory was badly written.",
    ),
    (
        "ipmi.fru.checksum",
        "A checksum in the FRU inventory is wrong. It was read all the same.",
        "Compare the values; the inventory may have been edited or damaged.",
    ),
    (
        "ipmi.fru.field",
        "A field of the FRU inventory claims to be longer than its area. The fields behind it are lost.",
        "Report the machine's model; its inventory was badly written.",
    ),
    (
        "ipmi.fru.header",
        "The FRU inventory is empty, erased, or of an unknown format.",
        "Write the inventory with the maker's tool, or declare the serial number.",
    ),
    (
        "ipmi.guid-ambiguous",
        "The order of the bytes of the system's GUID cannot be told, so the UUID shown may have its first three fields swapped; where more is unclear, none is shown.",
        "Compare it with what the host's own firmware shows.",
    ),
    (
        "ipmi.host-off",
        "The host is off, so it can be neither reset nor power-cycled.",
        "Switch it on instead.",
    ),
    (
        "ipmi.inventory-partial",
        "IPMI tells of identity and BMC, and nothing of processors, memory, GPUs, network interfaces, drives, TPM and firmware: those are unknown, not absent.",
        "Nothing to do; declare the machine by its Redfish address if it has Redfish.",
    ),
    (
        "ipmi.key-mismatch",
        "The BMC knows the password but not the session's key.",
        "Give the BMC key (Kg) that is set on the BMC; otherwise somebody may be in between.",
    ),
    (
        "ipmi.malformed",
        "The BMC gives an authentic answer that makes no sense.",
        "Report the BMC's model and firmware.",
    ),
    (
        "ipmi.no-cipher-suite",
        "The BMC takes none of the cipher suites wanted.",
        "Enable suite 17 (or 3) on the BMC, or update its firmware.",
    ),
    (
        "ipmi.outcome-unknown",
        "A reset, power cycle or soft shutdown was sent once and not answered. It may have been carried out.",
        "Look at the machine's state, then decide whether to do it again.",
    ),
    (
        "ipmi.power-unchanged",
        "The BMC agreed to switch power, and reading it back shows that nothing changed.",
        "See whether the BMC is in lockdown or the power supply at fault; a soft shutdown needs an operating system that obeys.",
    ),
    (
        "ipmi.privilege",
        "The account may not log in at the level asked for.",
        "Give the account that privilege on the BMC's LAN channel, or ask for less.",
    ),
    (
        "ipmi.record.malformed",
        "A sensor record or log entry makes no sense. It was left out.",
        "Report the BMC's model and firmware.",
    ),
    (
        "ipmi.refused",
        "The BMC refuses the command.",
        "See the completion code; report the BMC's model and firmware.",
    ),
    (
        "ipmi.sensor.unreadable",
        "A sensor has a record and cannot be read.",
        "Nothing to do unless the sensor matters; report the BMC's model and firmware.",
    ),
    (
        "ipmi.session-lost",
        "The BMC has ended the session or went away, and no further login was allowed.",
        "Nothing to do if it comes back; it is read again later.",
    ),
    (
        "ipmi.session-refused",
        "The BMC refuses a session for a reason that is neither credentials nor resources.",
        "See the status; report the BMC's model and firmware.",
    ),
    (
        "ipmi.sessions-exhausted",
        "The BMC has no session left.",
        "Wait a minute until idle sessions end, or close them on the BMC.",
    ),
    (
        "ipmi.socket",
        "Datagrams cannot be sent to the BMC's address.",
        "Check the address and the route to the BMC network.",
    ),
    (
        "ipmi.timeout",
        "The BMC does not answer.",
        "Check the address, cabling, and that IPMI over LAN is enabled.",
    ),
    (
        "ipmi.unauthorized",
        "The BMC refuses the user name or password.",
        "Check them; nothing more is tried, lest the account be locked.",
    ),
    (
        "ipmi.unreachable",
        "The address answers that nothing listens on the IPMI port.",
        "Enable IPMI over LAN on the BMC, or use Redfish.",
    ),
    (
        "ipmi.unstable",
        "Sensor records or log entries changed again and again while they were read.",
        "Try again; see whether another program writes to the log.",
    ),
    ("ipmi.unsupported", "The BMC does not know this command.", "Nothing to do; the value is not to be had."),
    (
        "ipmi.version",
        "The BMC answers, and offers no session of IPMI 2.0: IPMI over LAN is off there, or it speaks IPMI 1.5 alone.",
        "Enable IPMI 2.0 over LAN on the BMC, or update its firmware.",
    ),
];

/// A problem with a code of the list and its hint.
pub(crate) fn problem(code: &'static str, message: String) -> Problem {
    let problem = Problem::new(code, message);
    match CODES.iter().find(|(known, ..)| *known == code) {
        Some((_, _, hint)) => problem.hint(*hint),
        None => problem,
    }
}

impl Error {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Socket { .. } => "ipmi.socket",
            Self::Unreachable { .. } => "ipmi.unreachable",
            Self::Timeout { .. } => "ipmi.timeout",
            Self::Malformed { .. } => "ipmi.malformed",
            Self::TooLong { .. } => "ipmi.credentials-invalid",
            Self::Version { .. } => "ipmi.version",
            Self::NoCipherSuite { .. } => "ipmi.no-cipher-suite",
            Self::Unauthorized => "ipmi.unauthorized",
            Self::KeyMismatch => "ipmi.key-mismatch",
            Self::Privilege { .. } => "ipmi.privilege",
            Self::SessionsExhausted => "ipmi.sessions-exhausted",
            Self::SessionRefused { .. } => "ipmi.session-refused",
            Self::Busy { .. } => "ipmi.busy",
            Self::Unsupported { .. } => "ipmi.unsupported",
            Self::Forbidden { .. } => "ipmi.forbidden",
            Self::Refused { .. } => "ipmi.refused",
            Self::Unstable { .. } => "ipmi.unstable",
            Self::OutcomeUnknown { .. } => "ipmi.outcome-unknown",
            Self::SessionLost { .. } => "ipmi.session-lost",
            Self::HostOff { .. } => "ipmi.host-off",
            Self::PowerUnchanged { .. } => "ipmi.power-unchanged",
            Self::BootDeviceUnchanged { .. } => "ipmi.boot-device-unchanged",
        }
    }

    /// Whether the BMC refused who we are: trying again with the same credentials may lock the account.
    pub fn is_about_credentials(&self) -> bool {
        matches!(self, Self::Unauthorized | Self::TooLong { .. })
    }

    /// What this says of a login that ended so.
    pub fn login_end(&self) -> LoginEnd {
        match self {
            Self::Unauthorized => LoginEnd::Refused,
            // The proof that we know the password goes out with RAKP message 3: it may have arrived, and counted.
            Self::Timeout { awaited: RAKP_4, .. } => LoginEnd::Doubt,
            _ => LoginEnd::Unsaid,
        }
    }

    /// Whether the same may work later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Timeout { .. }
                | Self::Unreachable { .. }
                | Self::SessionLost { .. }
                | Self::SessionsExhausted
                | Self::Busy { .. }
                | Self::Unstable { .. }
        )
    }
}

/// What the BMC waits for an answer to when it may have counted a login.
pub(crate) const RAKP_4: &str = "RAKP message 4";

/// What a login that failed says of the password, for whoever counts logins against a lock-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginEnd {
    /// The BMC refused it.
    Refused,
    /// Nothing: it was not sent, or taken.
    Unsaid,
    /// It was sent, and no answer came.
    Doubt,
}

impl Diagnose for Error {
    fn problem(&self) -> Problem {
        let problem = problem(self.code(), self.to_string());
        match self {
            Self::PowerUnchanged { found, expected, .. } => {
                problem.difference(found.to_string(), expected.to_string())
            }
            Self::BootDeviceUnchanged { found, expected } => {
                problem.difference(found.to_string(), expected.to_string())
            }
            _ => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_listed_once() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    /// One of each.
    fn one_of_each() -> Vec<Error> {
        let address = SocketAddr::from(([127, 0, 0, 1], 623));
        let (command, after) = ("Get Device ID", Duration::from_secs(1));
        let malformed = Malformed { what: "it", why: "is cut off" };
        vec![
            Error::Socket { address, source: io::Error::other("no route") },
            Error::Unreachable { address },
            Error::Timeout { address, awaited: command, after },
            Error::Malformed { command, source: malformed },
            Error::TooLong { what: "the password", limit: 20 },
            Error::Version { address },
            Error::NoCipherSuite { wanted: "17".to_owned() },
            Error::Unauthorized,
            Error::KeyMismatch,
            Error::Privilege { wanted: Privilege::Operator },
            Error::SessionsExhausted,
            Error::SessionRefused { status: Status(0x12) },
            Error::Busy { command },
            Error::Unsupported { command },
            Error::Forbidden { command },
            Error::Refused { command, completion: Completion(0xff) },
            Error::Unstable { what: "the log" },
            Error::OutcomeUnknown { command },
            Error::SessionLost { address },
            Error::HostOff { action: PowerAction::Reset },
            Error::PowerUnchanged { found: Power::Off, expected: Power::On, after },
            Error::BootDeviceUnchanged { found: BootDevice::None, expected: BootDevice::Pxe },
        ]
    }

    #[test]
    fn every_error_has_a_code_of_the_list_and_of_its_own() {
        let mut codes: Vec<&str> = one_of_each().iter().map(Error::code).collect();
        assert!(codes.iter().all(|code| CODES.iter().any(|(known, ..)| known == code)), "{codes:?}");
        let all = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all);
    }

    #[test]
    fn only_what_may_pass_by_itself_is_transient() {
        let transient: Vec<&str> =
            one_of_each().iter().filter(|error| error.is_transient()).map(Error::code).collect();
        let expected = [
            "ipmi.unreachable",
            "ipmi.timeout",
            "ipmi.sessions-exhausted",
            "ipmi.busy",
            "ipmi.unstable",
            "ipmi.session-lost",
        ];
        assert_eq!(transient, expected);
    }

    #[test]
    fn only_a_proof_without_an_answer_leaves_a_login_in_doubt() {
        let timeout = |awaited| Error::Timeout {
            address: SocketAddr::from(([127, 0, 0, 1], 623)),
            awaited,
            after: Duration::from_secs(1),
        };
        assert_eq!(timeout(RAKP_4).login_end(), LoginEnd::Doubt);
        assert_eq!(timeout("RAKP message 2").login_end(), LoginEnd::Unsaid);
        assert_eq!(Error::Unauthorized.login_end(), LoginEnd::Refused);
    }

    #[test]
    fn a_problem_has_hint_and_difference() {
        let error =
            Error::PowerUnchanged { found: Power::Off, expected: Power::On, after: Duration::from_secs(5) };
        let problem = error.problem();
        assert_eq!((problem.found.as_deref(), problem.expected.as_deref()), (Some("off"), Some("on")));
        assert!(problem.hint.is_some());
    }
}
