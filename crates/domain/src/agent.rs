//! What agent and cell say to each other: JSON over mutual TLS, on a listener of its own.
//!
//! Refusals are problem details (RFC 9457) as everywhere in the cell's API: a [`Problem`] with its stable code.

use crate::name::{Digest, Name};
use crate::permit::{PublicKey, SignedPermits};
use crate::probe::Probe;
use crate::problem::Problem;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// An agent asks for its first certificate: `POST`, [`EnrolRequest`] to [`EnrolAnswer`]. The one call without a certificate.
pub const ENROL: &str = "/agent/v1/enrol";

/// An agent asks for its next certificate: `POST`, [`RenewRequest`] to [`RenewAnswer`].
pub const RENEW: &str = "/agent/v1/renew";

/// An agent reports: `POST`, [`Report`] to [`ReportAnswer`].
pub const REPORT: &str = "/agent/v1/report";

/// The name in the cell's certificate. It is the same for every cell and at every address: an agent trusts one authority, and
/// that authority gives this name to its own cell alone. `.internal` is reserved for such names.
pub const SERVER_NAME: &str = "agents.bailiwick.internal";

/// Where the agent of a host keeps what it has to remember, unless told otherwise.
pub const STATE_DIR: &str = "/var/lib/bailiwick-agent";

/// A file in the agent's state directory that says how to enrol: an [`Enrolment`] in JSON. Whoever sets a host up leaves it there;
/// the agent takes it away once it is enrolled.
pub const ENROLMENT_FILE: &str = "enrolment.json";

/// Port of a cell's address that names none.
const PORT: u16 = 8461;

/// Most bytes of a call to the cell.
pub const LARGEST_CALL: usize = 1 << 20;

/// Most devices that a report says are prepared. A host has at most 64 GPUs of at most 7 partitions each.
pub const MOST_PREPARED: usize = 1024;

/// Most scrubs that a host remembers, and so most that a report tells.
pub const MOST_SCRUBS: usize = 32;

/// Most bytes of a text that others have written, in a problem or in the record of a scrub.
pub const LONGEST_TEXT: usize = 512;

/// Most problems that a report tells.
pub const MOST_PROBLEMS: usize = 64;

/// A one-time token: a secret that stands for one machine, and the digest of the SubjectPublicKeyInfo of the authority that the
/// agent has to find in the cell's certificate chain before it says the secret. Written `bwa_SECRET.PIN`, both in base64url.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentToken {
    secret: [u8; 32],
    authority: [u8; 32],
}

/// A text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a token for an agent; `bailiwick agent-token MACHINE` makes one")]
pub struct NotAToken;

impl AgentToken {
    /// By this people and secret scanners know one.
    const PREFIX: &str = "bwa_";

    /// A token of a secret and the authority's pin.
    pub fn new(secret: [u8; 32], authority: &Digest) -> Self {
        Self { secret, authority: *authority.bytes() }
    }

    /// SHA-256 of the authority's SubjectPublicKeyInfo.
    pub fn is_authority(&self, subject_public_key_info: &[u8]) -> bool {
        *Digest::of(subject_public_key_info).bytes() == self.authority
    }

    /// What a cell keeps of it.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.secret)
    }

    /// The token as people carry it: a secret.
    pub fn reveal(&self) -> String {
        format!("{}{}.{}", Self::PREFIX, BASE64URL.encode(self.secret), BASE64URL.encode(self.authority))
    }
}

impl fmt::Debug for AgentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentToken(…)")
    }
}

impl FromStr for AgentToken {
    type Err = NotAToken;
    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let part = |text: &str| BASE64URL.decode(text).ok()?.try_into().ok();
        let (secret, authority) =
            text.trim().strip_prefix(Self::PREFIX).and_then(|rest| rest.split_once('.')).ok_or(NotAToken)?;
        Ok(Self { secret: part(secret).ok_or(NotAToken)?, authority: part(authority).ok_or(NotAToken)? })
    }
}

/// Where agents call their cell: `https://HOST[:PORT]`, and nothing behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CellUrl {
    host: String,
    port: u16,
}

/// A text that is no address of a cell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the address of a cell: write https://HOST:PORT")]
pub struct NotACell(String);

impl CellUrl {
    /// A DNS name or an IP address; one of IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for CellUrl {
    type Err = NotACell;

    fn from_str(text: &str) -> Result<Self, NotACell> {
        let bad = || NotACell(text.to_owned());
        let rest = text.strip_prefix("https://").ok_or_else(bad)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or_else(bad)?;
            (host.parse::<Ipv6Addr>().map_err(|_| bad())?.to_string(), port)
        } else {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if host.is_empty() || !host.bytes().all(is_known) {
                return Err(bad());
            }
            (host.to_owned(), port)
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => PORT,
            // `parse` takes a plus.
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().map_err(|_| bad())?
            }
            _ => return Err(bad()),
        };
        if port == 0 { Err(bad()) } else { Ok(Self { host, port }) }
    }
}

impl fmt::Display for CellUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

impl TryFrom<String> for CellUrl {
    type Error = NotACell;

    fn try_from(text: String) -> Result<Self, NotACell> {
        text.parse()
    }
}

impl From<CellUrl> for String {
    fn from(url: CellUrl) -> Self {
        url.to_string()
    }
}

/// How an agent enrols by itself: what is in [`ENROLMENT_FILE`].
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrolment {
    /// Where the cell is.
    pub cell: CellUrl,
    /// The one-time token, as [`AgentToken::reveal`] writes it: a secret.
    pub token: String,
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolment").field("cell", &self.cell).finish_non_exhaustive()
    }
}

/// Asks for a first certificate.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnrolRequest {
    /// The one-time token, as [`AgentToken::reveal`] writes it.
    pub token: String,
    /// Certificate request (PKCS #10) in PEM, with a key of ECDSA P-256. The cell takes that key and nothing else.
    pub csr: String,
    /// System UUID of the host as SMBIOS tells it: held against what the machine's BMC says, so that tokens that were mixed up
    /// are found.
    pub system_uuid: Option<String>,
}

impl fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolRequest").field("system_uuid", &self.system_uuid).finish_non_exhaustive()
    }
}

/// What an agent needs from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnrolAnswer {
    /// Its certificate in PEM.
    pub certificate: String,
    /// The authority's certificate in PEM: the agent trusts no other.
    pub ca: String,
    /// The machine that it runs on.
    pub machine: Name,
    /// Verifies the cell's permits.
    pub permit_key: PublicKey,
}

/// Asks for the next certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RenewRequest {
    /// Certificate request (PKCS #10) in PEM.
    pub csr: String,
}

/// The next certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RenewAnswer {
    /// In PEM.
    pub certificate: String,
}

/// What an agent says, at each interval and whenever something of it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The agent's version.
    pub version: String,
    /// Digest of the last probe.
    pub digest: Digest,
    /// Since when the kubelet has the plugin registered, by the host's clock; `null` while it has not. Another time than before
    /// means that it was registered anew: the kubelet may have deleted the node's slices meanwhile.
    #[schemars(with = "Option<String>")]
    pub registered: Option<Timestamp>,
    /// Which start of the host this is, as the kernel names it; empty where that cannot be told.
    pub boot_id: String,
    /// Devices that are prepared for claims; at most [`MOST_PREPARED`].
    #[serde(default)]
    pub prepared: Vec<PreparedDevice>,
    /// What keeps the agent from its work, or would let GPUs be had past it; at most [`MOST_PROBLEMS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// Scrubs of which the cell has not said yet that it knows them, oldest first; at most [`MOST_SCRUBS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scrubs: Vec<ScrubRecord>,
    /// The probe itself, where the cell wanted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Box<Probe>>,
}

/// A device that is prepared for a claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreparedDevice {
    /// UID of the ResourceClaim.
    pub claim: String,
    /// Name of the device in its pool.
    pub device: Name,
}

/// What was done with a device between two claims, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScrubRecord {
    /// When it ended, by the host's clock.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// Name of the device in its pool, or the GPU's UUID where nobody knows who had what of it.
    pub device: String,
    /// UUID of the GPU, as NVML writes it.
    pub gpu: String,
    /// The claim that had the device; `null` where nobody knows.
    pub claim: Option<ScrubbedClaim>,
    /// What was done.
    pub method: ScrubMethod,
    /// Uncorrected ECC errors before, where they are told. A reset begins to count anew.
    pub ecc_before: Option<u64>,
    /// Uncorrected ECC errors afterwards.
    pub ecc_after: Option<u64>,
    /// Why it failed, and the device stays reserved; `null` where it is fit for the next.
    pub failure: Option<String>,
}

impl ScrubRecord {
    /// Whether a text of it is longer than an agent tells.
    pub fn is_excessive(&self) -> bool {
        let claim = self.claim.iter().flat_map(|claim| [&claim.uid, &claim.namespace, &claim.name]);
        let texts = [&self.device, &self.gpu].into_iter().chain(claim).chain(&self.failure);
        texts.into_iter().any(|text| text.len() > LONGEST_TEXT)
    }
}

/// The claim that had a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScrubbedClaim {
    /// UID of the ResourceClaim.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What a scrub does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScrubMethod {
    /// No process was left, and the GPU was reset.
    Reset,
    /// No process was left.
    Processes,
    /// The MIG instance was destroyed.
    Destroyed,
    /// Nothing: all users of the host are one tenant.
    Nothing,
}

/// What the cell says to a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportAnswer {
    /// Whether the cell does not know the probe of this digest, and wants it in a report at once.
    pub probe_wanted: bool,
    /// Whether the cell keeps what the report says. What it does not keep is to be told again.
    pub kept: bool,
    /// All permits of the machine. They take the place of all that it holds.
    pub permits: SignedPermits,
    /// When to report again, in seconds, if nothing changes before.
    pub next_report_seconds: u64,
}

/// Codes that an agent itself tells of its cell: code, meaning, what to do next.
pub const CODES: &[(&str, &str, &str)] = &[
    (
        "agent.answer-malformed",
        "What the cell answered cannot be read.",
        "Give agent and cell the same version; look at what else listens at that address.",
    ),
    (
        "agent.cell-address",
        "The address of the cell is malformed.",
        "Write https://HOST:PORT, where agents reach what the cell's `--agent-listen` names.",
    ),
    (
        "agent.cell-unreachable",
        "The cell does not answer.",
        "Nothing to do if it comes back; running pods stay. Else look at the network, and at whether the cell listens for agents.",
    ),
    (
        "agent.cell-untrusted",
        "What answers at the cell's address is not the cell that the token, or the enrolment, is of.",
        "Look at the address; if the cell was set up anew, enrol the agent again.",
    ),
    (
        "agent.enrolment-malformed",
        "The file that says how the agent is to enrol cannot be read.",
        "The agent reads it again by itself. If it stays so, look at the user data that wrote it, or take it away and enrol the agent by `bailiwick-agent enrol`.",
    ),
    (
        "agent.key",
        "A key could not be made or read.",
        "Read the message; enrol the agent again if its state is damaged.",
    ),
    (
        "agent.kubernetes",
        "How the agent reaches the API server is not known.",
        "Give --kubeconfig a file with a certificate authority and either a client certificate or a tokenFile, or run the agent as a pod.",
    ),
    (
        "agent.not-enrolled",
        "The agent is not enrolled with a cell.",
        "`bailiwick-agent enrol --cell URL --token-file FILE`, with a token of `bailiwick agent-token MACHINE`.",
    ),
    (
        "agent.not-ready",
        "The kubelet has no plugin of this agent registered, and there may be something to register.",
        "Look at the agent's log: without a driver, an answer of the cell or live permits it does not register; `bailiwick why MACHINE` says more.",
    ),
    (
        "agent.state",
        "The agent's state directory cannot be used.",
        "Make it writable for the agent alone, and free disk space.",
    ),
    (
        "agent.thread",
        "A thread of the agent cannot be started.",
        "Look at the limits of the agent's unit or pod.",
    ),
    (
        "agent.token-malformed",
        "This is no token for an agent.",
        "`bailiwick agent-token MACHINE` makes one; copy all of it.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_sorted_and_each_has_a_meaning_and_a_hint() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(CODES.iter().all(|(_, meaning, hint)| meaning.ends_with('.') && hint.ends_with('.')));
    }

    #[test]
    fn a_token_reads_back_from_its_text_and_does_not_show_itself() {
        let authority = b"subject public key info";
        let token = AgentToken::new([7; 32], &Digest::of(authority));
        let text = token.reveal();
        let read: AgentToken = text.parse().unwrap();
        assert_eq!(read, token);
        assert!(read.is_authority(authority) && !read.is_authority(b"another"));
        assert_eq!(read.digest(), Digest::of(&[7; 32]));
        assert!(!format!("{token:?}").contains(&text[4..12]));
    }

    #[test]
    fn the_address_of_a_cell_is_https_and_nothing_behind_it() {
        for (text, host, port) in [
            ("https://cell.example:1234", "cell.example", 1234),
            ("https://10.0.0.1/", "10.0.0.1", 8461),
            ("https://[fd00::1]:9", "fd00::1", 9),
            ("https://[fd00::1]", "fd00::1", 8461),
        ] {
            let url: CellUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port()), (host, port));
            assert_eq!(url.to_string().parse(), Ok(url));
        }
        for bad in [
            "",
            "cell.example:1",
            "http://cell.example",
            "https://",
            "https://:1",
            "https://cell.example/x",
            "https://u@cell.example",
            "https://cell.example:",
            "https://cell.example:+1",
            "https://cell.example:0",
            "https://cell.example:65536",
            "https://fd00::1",
            "https://[fd00::1",
            "https://[fd00::1]9",
            "https://[cell.example]:1",
            "https://cell.example?x",
        ] {
            assert!(bad.parse::<CellUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_enrolment_reads_back_from_its_file_and_does_not_show_its_token() {
        let token = AgentToken::new([7; 32], &Digest::of(b"")).reveal();
        let enrolment = Enrolment { cell: "https://cell.example".parse().unwrap(), token: token.clone() };
        let text = serde_json::to_string(&enrolment).unwrap();
        let read: Enrolment = serde_json::from_str(&text).unwrap();
        assert_eq!((read.cell, read.token), (enrolment.cell.clone(), token.clone()));
        assert!(!format!("{enrolment:?}").contains(&token[4..12]));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let whole = AgentToken::new([7; 32], &Digest::of(b"")).reveal();
        for bad in ["", "bwa_", "bw_abc", &whole[..whole.len() - 1], &whole.replace('.', ":"), &whole[4..]] {
            assert!(bad.parse::<AgentToken>().is_err(), "{bad}");
        }
    }
}
