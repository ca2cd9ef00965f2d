//! Datagrams to and from one BMC: asking until an answer comes that is one.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::error::Error;
use crate::rmcp::{self, Class};
use crate::target::Options;

/// No RMCP datagram is larger.
const LARGEST: usize = 2048;

/// A socket of our own for one BMC. The system drops what comes from elsewhere.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: UdpSocket,
    address: SocketAddr,
}

/// What an answer that "nothing listens here" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The end.
    Final,
    /// A BMC that restarts, perhaps: asked again.
    Ignored,
}

impl Socket {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Socket { address, source };
        let socket = UdpSocket::bind(any_port(address)).await.map_err(failed)?;
        socket.connect(address).await.map_err(failed)?;
        Ok(Self { socket, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends without waiting, where nothing can be awaited. Lost if the system has no room.
    pub(crate) fn send_now(&self, payload: &[u8]) {
        let _ = self.socket.try_send(&rmcp::encode(Class::Ipmi, payload));
    }

    /// Sends what `payload` makes, anew for every attempt, until `accept` takes an answer. Everything else that comes (late,
    /// doubled, damaged, forged) is passed over.
    pub(crate) async fn ask<T>(
        &self,
        awaited: &'static str,
        options: &Options,
        refusal: Refusal,
        mut payload: impl FnMut() -> Result<Vec<u8>, Error>,
        mut accept: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        for attempt in 1..=options.attempts.max(1) {
            let datagram = rmcp::encode(Class::Ipmi, &payload()?);
            match self.socket.send(&datagram).await {
                Ok(_) => {}
                Err(error) => self.on_error(error, refusal)?,
            }
            let deadline = Instant::now() + options.timeout * attempt;
            if let Some(answer) = self.receive_until(deadline, refusal, &mut accept).await? {
                return Ok(answer);
            }
            tracing::debug!(address = %self.address, awaited, attempt, "no answer");
        }
        Err(Error::Timeout { address: self.address, awaited, after: started.elapsed() })
    }

    async fn receive_until<T>(
        &self,
        deadline: Instant,
        refusal: Refusal,
        accept: &mut impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let mut buffer = [0; LARGEST];
        loop {
            let Ok(received) = timeout_at(deadline, self.socket.recv(&mut buffer)).await else {
                return Ok(None);
            };
            let datagram = match received {
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) => {
                    self.on_error(error, refusal)?;
                    continue;
                }
            };
            let payload = rmcp::decode(datagram).ok().filter(|(class, _)| *class == Class::Ipmi);
            if let Some(answer) = payload.and_then(|(_, payload)| accept(payload)) {
                return Ok(Some(answer));
            }
        }
    }

    /// An ICMP "port unreachable" comes as an error of the next call.
    fn on_error(&self, source: io::Error, refusal: Refusal) -> Result<(), Error> {
        match (source.kind(), refusal) {
            (io::ErrorKind::ConnectionRefused, Refusal::Ignored) => Ok(()),
            (io::ErrorKind::ConnectionRefused, Refusal::Final) => {
                Err(Error::Unreachable { address: self.address })
            }
            _ => Err(Error::Socket { address: self.address, source }),
        }
    }
}

/// Random bytes: session ids, challenges, initialisation vectors.
pub(crate) fn random<const N: usize>(address: SocketAddr) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Socket { address, source: io::Error::other(error.to_string()) })?;
    Ok(bytes)
}

/// Where to bind for talking to this address.
pub(crate) fn any_port(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// The shortest pause before the same is asked again: however impatient the options are, no BMC is asked without a break.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// A pause that grows: the n-th is n times as long.
pub(crate) fn pause(first: Duration, attempt: u32) -> Duration {
    first.max(SHORTEST_PAUSE).saturating_mul(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_nothing_is_one_all_the_same() {
        assert_eq!(pause(Duration::ZERO, 3), SHORTEST_PAUSE * 3);
        assert_eq!(pause(Duration::from_secs(2), 3), Duration::from_secs(6));
    }
}
