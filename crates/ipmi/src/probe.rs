//! Whether a BMC that speaks IPMI is at an address, without credentials.

use std::net::SocketAddr;
use std::time::Duration;

use crate::device::{AuthCapabilities, maker};
use crate::error::Error;
use crate::ping::{auth_capabilities, ping};
use crate::target::Options;

/// What answers at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The address asked.
    pub address: SocketAddr,
    /// Whether it answers the presence ping, and says that it speaks IPMI.
    pub pong: bool,
    /// What sessions it takes, if it tells.
    pub sessions: Option<AuthCapabilities>,
}

impl Probe {
    /// The newest version that it offers sessions of.
    pub fn version(&self) -> Option<&'static str> {
        let sessions = self.sessions.as_ref()?;
        if sessions.ipmi_2_0 {
            return Some("2.0");
        }
        sessions.ipmi_1_5.then_some("1.5")
    }

    /// The BMC's maker, where it tells.
    pub fn maker(&self) -> Option<&'static str> {
        maker(self.sessions.as_ref()?.manufacturer)
    }

    /// Refuses what offers no session of IPMI 2.0.
    pub fn speaks_ipmi_2_0(&self) -> Result<(), Error> {
        match &self.sessions {
            Some(sessions) if sessions.ipmi_2_0 => Ok(()),
            _ => Err(Error::Version { address: self.address }),
        }
    }
}

/// Pings an address and asks what sessions it takes, both at once and for `patience` at most: there are BMCs that answer one and
/// not the other. Ends at once where the host says that nothing listens.
pub async fn probe(address: SocketAddr, patience: Duration) -> Result<Probe, Error> {
    // One attempt waits for the first part, the next for twice as long: three of them for six parts.
    let options = Options { timeout: patience / 6, attempts: 3, ..Options::default() };
    let (presence, sessions) = tokio::join!(ping(address, patience), auth_capabilities(address, &options));
    match (presence, sessions) {
        (Err(error), Err(_)) => Err(error),
        (presence, sessions) => {
            let pong = presence.is_ok_and(|presence| presence.ipmi);
            Ok(Probe { address, pong, sessions: sessions.ok() })
        }
    }
}
