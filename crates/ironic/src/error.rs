//! Why Ironic cannot be asked, or refuses; and the one list of this crate's codes.

use std::time::Duration;

use domain::{Diagnose, Problem};

use crate::refusal::Refusal;
use crate::version::Microversion;

/// Why a request came to nothing. No variant holds a secret: texts of the server are cleaned of what was sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is no `http` or `https` URL of a host, or would send credentials unencrypted.
    #[error("`{url}` is not the address of an Ironic API: {reason}")]
    Address {
        /// What was given, without credentials.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The trust given cannot be used: no certificate in the CA file, for one.
    #[error("the trust given for Ironic cannot be used: {reason}")]
    Trust {
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing answers, or the connection was lost. Whether a request that changes something was heard is not known.
    #[error("Ironic at {address} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the network says.
        reason: String,
    },
    /// No answer in time. Whether a request that changes something was heard is not known.
    #[error("Ironic at {address} did not answer within {after:?}")]
    Timeout {
        /// Host and port.
        address: String,
        /// How long we waited.
        after: Duration,
    },
    /// TLS refuses the server.
    #[error("Ironic at {address} is not trusted: {reason}")]
    Untrusted {
        /// Host and port.
        address: String,
        /// What TLS says.
        reason: String,
    },
    /// Credentials refused (401).
    #[error("Ironic refuses the user name or password")]
    Unauthorized,
    /// The account may not do that (403).
    #[error("Ironic forbids it: {message}")]
    Forbidden {
        /// What Ironic says.
        message: String,
    },
    /// No common version of the API.
    #[error("Ironic's API goes up to {found}, and {needed} is needed")]
    VersionUnsupported {
        /// The newest version that the server speaks.
        found: Microversion,
        /// The oldest version that we can use.
        needed: Microversion,
    },
    /// Something answers that is not Ironic.
    #[error("what answers there is not Ironic's API: {reason}")]
    NotIronic {
        /// What came instead.
        reason: String,
    },
    /// A field or verb that the version of the API does not have (406).
    #[error("Ironic does not know that in this version of its API: {message}")]
    NotAcceptable {
        /// What Ironic says.
        message: String,
    },
    /// The object does not exist (404, in Ironic's own words).
    #[error("Ironic does not have it: {message}")]
    NotFound {
        /// What Ironic says.
        message: String,
    },
    /// No conductor serves the node's driver for now (404 or 400 by Ironic).
    #[error("no conductor serves the node: {message}")]
    NoConductor {
        /// What Ironic says.
        message: String,
    },
    /// Another operation holds the node (409).
    #[error("the node is locked: {message}")]
    NodeLocked {
        /// What Ironic says.
        message: String,
    },
    /// A node or port of that name, UUID or MAC address exists (409).
    #[error("it exists already: {message}")]
    Duplicate {
        /// What Ironic says.
        message: String,
    },
    /// The instance belongs to another node, or the node to another instance (409).
    #[error("the node is in use: {message}")]
    InstanceAssociated {
        /// What Ironic says.
        message: String,
    },
    /// Any other conflict, such as a change while a transition is in progress (409).
    #[error("Ironic cannot do that now: {message}")]
    Conflict {
        /// What Ironic says.
        message: String,
    },
    /// The node's state does not allow it (400 or 409).
    #[error("the node's state does not allow it: {message}")]
    InvalidState {
        /// What Ironic says.
        message: String,
    },
    /// The request is malformed or its values are refused (400, 413, 415, …).
    #[error("Ironic refuses the request: {message}")]
    Invalid {
        /// What Ironic says.
        message: String,
    },
    /// Overloaded or restarting (429, 502, 503, 504), also after several attempts where that is safe.
    #[error("Ironic is too busy: {message}")]
    Busy {
        /// What Ironic says.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Ironic failed (5xx).
    #[error("Ironic failed with status {status}: {message}")]
    Server {
        /// The HTTP status.
        status: u16,
        /// What Ironic says.
        message: String,
    },
    /// A success whose body is not what it should be.
    #[error("Ironic's answer cannot be read: {reason}")]
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// The answer is larger than is accepted.
    #[error("Ironic's answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// A list whose pages do not end.
    #[error("Ironic's list does not end: {reason}")]
    Paging {
        /// What repeats.
        reason: &'static str,
    },
    /// Ironic's own validation says that the node cannot be deployed.
    #[error("the node's {interface} interface is not valid: {reason}")]
    NodeInvalid {
        /// The interface: `deploy`, `boot`, `power`, …
        interface: String,
        /// What Ironic says.
        reason: String,
    },
    /// The node is not in a condition in which we may act.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Every code of this crate: code, meaning, hint. `docs/reference/codes.md` is written from it.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "ironic.address-invalid",
        "The address is not that of an Ironic API.",
        "Write https://HOST[:PORT]; plain http only to this host, or where `insecure` says so.",
    ),
    (
        "ironic.answer-too-large",
        "Ironic's answer is larger than is accepted.",
        "Check what answers there; raise the limit if the size is genuine.",
    ),
    (
        "ironic.answer-unreadable",
        "Ironic answers with success, but with a body that cannot be read.",
        "Check for a proxy in between; report Ironic's version.",
    ),
    ("ironic.busy", "Ironic or a proxy before it is too busy.", "Nothing to do: it is tried again."),
    (
        "ironic.clean-failed",
        "Cleaning failed; Ironic has put the node into maintenance.",
        "See the error and the agent's logs. It is tried again with growing pauses; quarantine the machine if a disk is broken.",
    ),
    ("ironic.conflict", "Ironic cannot do that at this moment.", "Nothing to do: it is tried again."),
    (
        "ironic.deploy-failed",
        "Deploying failed.",
        "See the error, or Ironic's node history and log where there is none. The next attempt wipes the node first.",
    ),
    (
        "ironic.duplicate",
        "A node or port of that name, UUID or MAC address exists in Ironic and belongs to another machine.",
        "Find it with the value named, and correct the declaration or remove the other.",
    ),
    ("ironic.forbidden", "The account may not do that.", "Give the account the role `baremetal_admin`."),
    (
        "ironic.in-use",
        "The node carries an instance, which this goal does not take away.",
        "Release the machine first.",
    ),
    (
        "ironic.inspect-failed",
        "Ironic's inspection failed.",
        "See the error; check that the agent's image boots and reaches Ironic.",
    ),
    (
        "ironic.instance-associated",
        "Ironic has that instance on another node, or another instance on this node.",
        "Find who deployed it; it is not taken over.",
    ),
    (
        "ironic.instance-foreign",
        "The node carries an instance that is not ours.",
        "Release it where it was made, or take the machine out of this cell.",
    ),
    (
        "ironic.instance-spent",
        "The instance was on the node and was taken away behind our back.",
        "Find who undeployed the node; then provision again, which makes a new instance.",
    ),
    ("ironic.invalid-request", "Ironic refuses a value.", "See the message; correct the value named."),
    (
        "ironic.invalid-state",
        "The node's state does not allow the request.",
        "Nothing to do: the node is observed and it is tried again.",
    ),
    (
        "ironic.maintenance",
        "The node is in maintenance.",
        "End it when the reason named is dealt with: `baremetal node maintenance unset`.",
    ),
    (
        "ironic.no-conductor",
        "No conductor serves the node's driver for now.",
        "Start a conductor that enables the hardware type and interfaces named.",
    ),
    (
        "ironic.node-ambiguous",
        "Several nodes of Ironic look like this machine.",
        "Remove or correct all but one of the nodes named.",
    ),
    (
        "ironic.node-gone",
        "The node was deleted behind our back while it carried the machine's instance.",
        "Find out why: what is on its disks was not wiped. `bailiwick quarantine` it; `unquarantine` then makes the node anew and erases the machine.",
    ),
    (
        "ironic.node-invalid",
        "Ironic says that the node cannot be deployed as it is set up.",
        "Correct what the reason names.",
    ),
    ("ironic.node-locked", "Another operation holds the node.", "Nothing to do: it is tried again."),
    (
        "ironic.not-acceptable",
        "Ironic does not know that in this version of its API.",
        "Update Ironic, or report the version.",
    ),
    ("ironic.not-found", "Ironic does not have the object.", "Nothing to do: the node is observed again."),
    (
        "ironic.not-ironic",
        "Something answers, but not Ironic's API.",
        "Check the address, and any proxy in between.",
    ),
    (
        "ironic.owned-elsewhere",
        "The node belongs to another machine or another cell.",
        "Take it out there first, or correct the declaration's address and MAC addresses.",
    ),
    (
        "ironic.paging-loop",
        "A list of Ironic does not end.",
        "Report Ironic's version; check for a proxy in between.",
    ),
    (
        "ironic.protected",
        "The node is protected in Ironic and cannot be undeployed or deleted.",
        "Take the protection away if it is meant: `baremetal node unset --protected`.",
    ),
    (
        "ironic.retired",
        "The node is marked as retired in Ironic and cannot be made available.",
        "Take the mark away if it is meant: `baremetal node unset --retired`.",
    ),
    ("ironic.server-error", "Ironic failed.", "It is tried again; see Ironic's log if it stays."),
    (
        "ironic.state-foreign",
        "The node is in a state that we never bring it into (adopting, rescue, service, a hold).",
        "Let whoever began it bring the node back to available, manageable or active.",
    ),
    ("ironic.timeout", "Ironic did not answer in time.", "Nothing to do: it is tried again."),
    (
        "ironic.trust-invalid",
        "The CA or pin given for Ironic cannot be used.",
        "Give PEM certificates of the CA that signed Ironic's certificate, or the SHA-256 of its key.",
    ),
    ("ironic.unauthorized", "Ironic refuses the user name or password.", "Correct the credentials."),
    (
        "ironic.undeploy-failed",
        "Taking the instance away failed.",
        "See the error; check the BMC. It is tried again with growing pauses.",
    ),
    (
        "ironic.unreachable",
        "Ironic cannot be reached.",
        "Check that it runs, and the address. It is tried again.",
    ),
    (
        "ironic.untrusted",
        "Ironic's certificate is not signed by the CA given, or its key is not the one pinned.",
        "Give the right CA or pin; otherwise somebody may be in between.",
    ),
    (
        "ironic.verify-failed",
        "Ironic cannot reach the BMC with the address and credentials it has.",
        "Check the BMC, its address as seen from the conductor, and its account for Ironic. It is tried again.",
    ),
    (
        "ironic.version-unsupported",
        "Ironic is too old.",
        "Update Ironic to a version whose API is 1.81 or newer (2023.1).",
    ),
];

pub(crate) fn hint(code: &str) -> Option<&'static str> {
    CODES.iter().find(|(known, ..)| *known == code).map(|(_, _, hint)| *hint)
}

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
            Self::Address { .. } => "ironic.address-invalid",
            Self::Trust { .. } => "ironic.trust-invalid",
            Self::Unreachable { .. } => "ironic.unreachable",
            Self::Timeout { .. } => "ironic.timeout",
            Self::Untrusted { .. } => "ironic.untrusted",
            Self::Unauthorized => "ironic.unauthorized",
            Self::Forbidden { .. } => "ironic.forbidden",
            Self::VersionUnsupported { .. } => "ironic.version-unsupported",
            Self::NotIronic { .. } => "ironic.not-ironic",
            Self::NotAcceptable { .. } => "ironic.not-acceptable",
            Self::NotFound { .. } => "ironic.not-found",
            Self::NoConductor { .. } => "ironic.no-conductor",
            Self::NodeLocked { .. } => "ironic.node-locked",
            Self::Duplicate { .. } => "ironic.duplicate",
            Self::InstanceAssociated { .. } => "ironic.instance-associated",
            Self::Conflict { .. } => "ironic.conflict",
            Self::InvalidState { .. } => "ironic.invalid-state",
            Self::Invalid { .. } => "ironic.invalid-request",
            Self::Busy { .. } => "ironic.busy",
            Self::Server { .. } => "ironic.server-error",
            Self::Unreadable { .. } => "ironic.answer-unreadable",
            Self::TooLarge { .. } => "ironic.answer-too-large",
            Self::Paging { .. } => "ironic.paging-loop",
            Self::NodeInvalid { .. } => "ironic.node-invalid",
            Self::Refused(refusal) => refusal.code(),
        }
    }

    /// Whether the same call may succeed later with nothing changed by people. Everything that a server in trouble may say
    /// counts as passing; what is wrong with our own request does not.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::NotIronic { .. }
            | Self::NotFound { .. }
            | Self::NoConductor { .. }
            | Self::NodeLocked { .. }
            | Self::Conflict { .. }
            | Self::InvalidState { .. }
            | Self::Busy { .. }
            | Self::Server { .. }
            | Self::Unreadable { .. }
            | Self::Paging { .. } => true,
            Self::Address { .. }
            | Self::Trust { .. }
            | Self::Untrusted { .. }
            | Self::Unauthorized
            | Self::Forbidden { .. }
            | Self::VersionUnsupported { .. }
            | Self::NotAcceptable { .. }
            | Self::Duplicate { .. }
            | Self::InstanceAssociated { .. }
            | Self::Invalid { .. }
            | Self::TooLarge { .. }
            | Self::NodeInvalid { .. } => false,
            Self::Refused(refusal) => refusal.is_passing(),
        }
    }

    /// How long the server asks us to stay away.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl Diagnose for Error {
    fn problem(&self) -> Problem {
        let problem = problem(self.code(), self.to_string());
        match self {
            Self::VersionUnsupported { found, needed } => {
                problem.difference(found.to_string(), format!("{needed} or newer"))
            }
            Self::NodeInvalid { interface, .. } => problem.at(interface.clone()),
            Self::Refused(refusal) => refusal.problem(),
            _ => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ProvisionState;

    #[test]
    fn the_codes_are_sorted_and_told_once() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn every_error_has_a_code_of_the_list_and_every_code_an_error() {
        let text = String::new;
        let (after, version) = (Duration::ZERO, crate::version::OLDEST);
        let state = ProvisionState::Rescue;
        let mut errors = vec![
            Error::Address { url: text(), reason: "" },
            Error::Trust { reason: text() },
            Error::Unreachable { address: text(), reason: text() },
            Error::Timeout { address: text(), after },
            Error::Untrusted { address: text(), reason: text() },
            Error::Unauthorized,
            Error::Forbidden { message: text() },
            Error::VersionUnsupported { found: version, needed: version },
            Error::NotIronic { reason: text() },
            Error::NotAcceptable { message: text() },
            Error::NotFound { message: text() },
            Error::NoConductor { message: text() },
            Error::NodeLocked { message: text() },
            Error::Duplicate { message: text() },
            Error::InstanceAssociated { message: text() },
            Error::Conflict { message: text() },
            Error::InvalidState { message: text() },
            Error::Invalid { message: text() },
            Error::Busy { message: text(), retry_after: None },
            Error::Server { status: 500, message: text() },
            Error::Unreadable { reason: text() },
            Error::TooLarge { limit: 0 },
            Error::Paging { reason: "" },
            Error::NodeInvalid { interface: text(), reason: text() },
        ];
        errors.extend(
            [
                Refusal::Maintenance { reason: None, fault: None },
                Refusal::NodeGone,
                Refusal::InstanceForeign { found: None },
                Refusal::InstanceSpent { instance: uuid::Uuid::nil() },
                Refusal::OwnedElsewhere { cell: text(), machine: text() },
                Refusal::Ambiguous { nodes: Vec::new() },
                Refusal::VerifyFailed { last_error: None },
                Refusal::InspectFailed { last_error: None },
                Refusal::CleanFailed { last_error: None },
                Refusal::DeployFailed { last_error: None },
                Refusal::UndeployFailed { last_error: None },
                Refusal::StateForeign { state: state.clone() },
                Refusal::InUse { state },
                Refusal::Protected { reason: None },
                Refusal::Retired { reason: None },
            ]
            .map(Error::Refused),
        );
        let mut codes: Vec<&str> = errors.iter().map(Error::code).collect();
        codes.sort_unstable();
        assert_eq!(codes, CODES.iter().map(|(code, ..)| *code).collect::<Vec<_>>());
        assert!(errors.iter().all(|error| error.problem().hint.is_some()));
    }
}
