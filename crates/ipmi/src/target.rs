//! Which BMC, as whom, and how patiently.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::rakp::{PASSWORD_LENGTH, Privilege, USERNAME_LENGTH};
use crate::suite::CipherSuite;

/// A user of a BMC. Shows its name at most, and wipes the secrets from memory.
#[derive(Clone)]
pub struct Credentials {
    /// At most 16 bytes.
    pub username: String,
    /// At most 20 bytes.
    pub password: Zeroizing<String>,
    /// The BMC key (Kg), where one is set on the BMC: at most 20 bytes.
    pub key: Option<Zeroizing<Vec<u8>>>,
}

impl Credentials {
    /// A user and a password; no BMC key.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: Zeroizing::new(password.into()), key: None }
    }

    /// Refuses what would be cut off: a login with half a password may count as a wrong one.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let key = self.key.as_ref().map_or(0, |key| key.len());
        for (what, length, limit) in [
            ("the user name", self.username.len(), USERNAME_LENGTH),
            ("the password", self.password.len(), PASSWORD_LENGTH),
            ("the BMC key", key, PASSWORD_LENGTH),
        ] {
            if length > limit {
                return Err(Error::TooLong { what, limit });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A BMC and who we are to it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens: port 623, as a rule.
    pub address: SocketAddr,
    /// Who we are.
    pub credentials: Credentials,
    /// What the session shall be allowed.
    pub privilege: Privilege,
    /// Tried in order while the BMC says that it lacks one; a wrong password ends it at once.
    pub suites: Vec<CipherSuite>,
}

impl Target {
    /// As administrator, with suite 17 or else 3.
    pub fn new(address: SocketAddr, credentials: Credentials) -> Self {
        Self {
            address,
            credentials,
            privilege: Privilege::Administrator,
            suites: vec![CipherSuite::Suite17, CipherSuite::Suite3],
        }
    }
}

/// How patiently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long the first attempt waits; the second waits twice, the third three times as long.
    pub timeout: Duration,
    /// How often a datagram is sent before we give up.
    pub attempts: u32,
    /// The least time between two commands: some BMCs freeze when they come too fast (quirk 39).
    pub gap: Duration,
    /// How often a command is given again to a BMC that says it is busy; each time after a longer pause.
    pub busy_attempts: u32,
    /// The first of those pauses.
    pub busy_pause: Duration,
    /// A session unused for as long is opened anew: BMCs end idle ones after a minute (§6.12.15).
    pub idle: Duration,
    /// How often one client logs in at most, the first time included. Each time may count against a lock-out, so that who
    /// counts logins allows one.
    pub logins: u32,
    /// How long power may take to change.
    pub power_within: Duration,
    /// How often the power state is read meanwhile.
    pub power_poll: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(1),
            attempts: 4,
            gap: Duration::from_millis(5),
            busy_attempts: 6,
            busy_pause: Duration::from_millis(250),
            idle: Duration::from_secs(45),
            logins: u32::MAX,
            power_within: Duration::from_mins(1),
            power_poll: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let mut credentials = Credentials::new("admin", "planted-password");
        credentials.key = Some(Zeroizing::new(b"planted-key".to_vec()));
        let target = Target::new(([127, 0, 0, 1], 623).into(), credentials);
        assert!(!format!("{target:?}").contains("planted"));
    }

    #[test]
    fn what_ipmi_cannot_carry_is_refused_before_anything_is_sent() {
        let code = |username: &str, password: &str| {
            Credentials::new(username, password).check().map_err(|error| error.code())
        };
        assert_eq!(code(&"u".repeat(16), &"p".repeat(20)), Ok(()));
        assert_eq!(code(&"u".repeat(17), ""), Err("ipmi.credentials-invalid"));
        assert_eq!(code("", &"p".repeat(21)), Err("ipmi.credentials-invalid"));
    }
}
