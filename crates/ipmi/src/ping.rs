//! Is anybody there? The ASF presence ping, for one address and for thousands (DSP0136 §3.2.4).

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::device::AuthCapabilities;
use crate::error::Error;
use crate::message::{self, Completion, Correlation, Request, Response};
use crate::rakp::Privilege;
use crate::rmcp::{self, Class, Ping, Pong};
use crate::socket::{Refusal, Socket, any_port};
use crate::target::Options;

/// A pong is 28 bytes; what is longer is none.
const LARGEST: usize = 256;
/// 255 means "do not answer".
const TAGS: u8 = 255;

/// Somebody who answered a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Who.
    pub address: SocketAddr,
    /// Whether it says that it speaks IPMI.
    pub ipmi: bool,
    /// How long the answer took, counted from the last ping sent.
    pub after: Duration,
}

/// How many addresses are pinged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepOptions {
    /// How long to wait after the last ping of a round.
    pub timeout: Duration,
    /// Rounds; each pings those that have not answered. Datagrams are lost, and the first one to an address often only makes
    /// the network ask for its MAC.
    pub rounds: u32,
    /// Pings in a second at most: a burst is lost in the first switch that has a small buffer.
    pub rate: u32,
}

impl Default for SweepOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(1), rounds: 3, rate: 1000 }
    }
}

/// Pings one address three times within `timeout`. A host that says that nothing listens there ends it at once.
pub async fn ping(address: SocketAddr, timeout: Duration) -> Result<Presence, Error> {
    const ROUNDS: u8 = 3;
    let failed = |source| Error::Socket { address, source };
    let socket = UdpSocket::bind(any_port(address)).await.map_err(failed)?;
    socket.connect(address).await.map_err(failed)?;
    let begun = Instant::now();
    for tag in 0..ROUNDS {
        let sent = Instant::now();
        let asked = async {
            socket.send(&Ping { tag }.encode()).await?;
            pong(&socket, tag).await
        };
        match timeout_at(begun + timeout * (u32::from(tag) + 1) / u32::from(ROUNDS), asked).await {
            Ok(Ok(pong)) => return Ok(Presence { address, ipmi: pong.ipmi, after: sent.elapsed() }),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(Error::Unreachable { address });
            }
            Ok(Err(error)) => return Err(failed(error)),
            Err(_) => {}
        }
    }
    Err(Error::Timeout { address, awaited: "the presence ping", after: timeout })
}

/// The answer to this ping or to one before it.
async fn pong(socket: &UdpSocket, tag: u8) -> io::Result<Pong> {
    let mut buffer = [0; LARGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(pong) = decode(buffer.get(..length).unwrap_or_default()).filter(|pong| pong.tag <= tag) {
            return Ok(pong);
        }
    }
}

fn decode(datagram: &[u8]) -> Option<Pong> {
    let (class, payload) = rmcp::decode(datagram).ok()?;
    Pong::decode(payload).ok().filter(|_| class == Class::Asf)
}

/// Pings many addresses from one socket (one for IPv4, one for IPv6), and tells who answered, in order of address. An address
/// that cannot be sent to is one that does not answer.
pub async fn sweep(
    addresses: impl IntoIterator<Item = SocketAddr>,
    options: SweepOptions,
) -> Result<Vec<Presence>, Error> {
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv4);
    let (v4, v6) = tokio::try_join!(sweep_family(v4, options), sweep_family(v6, options))?;
    Ok(v4.into_iter().chain(v6).collect())
}

async fn sweep_family(addresses: Vec<SocketAddr>, options: SweepOptions) -> Result<Vec<Presence>, Error> {
    let Some(first) = addresses.first().copied() else { return Ok(Vec::new()) };
    let socket =
        UdpSocket::bind(any_port(first)).await.map_err(|source| Error::Socket { address: first, source })?;
    let mut sweep = Sweep { socket, pending: BTreeMap::new(), found: BTreeMap::new() };
    for (address, tag) in addresses.into_iter().zip((0..TAGS).cycle()) {
        sweep.pending.insert(address, Sent { tag, at: None });
    }
    for _ in 0..options.rounds.max(1) {
        sweep.round(options).await;
        if sweep.pending.is_empty() {
            break;
        }
    }
    Ok(sweep.found.into_values().collect())
}

struct Sweep {
    socket: UdpSocket,
    pending: BTreeMap<SocketAddr, Sent>,
    found: BTreeMap<SocketAddr, Presence>,
}

#[derive(Clone, Copy)]
struct Sent {
    tag: u8,
    at: Option<Instant>,
}

impl Sweep {
    /// Pings whoever has not answered, at the rate allowed, hearing answers meanwhile.
    async fn round(&mut self, options: SweepOptions) {
        let mut ticks = interval((Duration::from_secs(1) / options.rate.max(1)).max(Duration::from_nanos(1)));
        // What was missed is made up a little at a time: never a burst, whatever held us up.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let addresses: Vec<SocketAddr> = self.pending.keys().copied().collect();
        for address in addresses {
            let due = loop {
                // In no fixed order: neither may sending keep us from hearing those who answer, nor one who answers again and
                // again keep the others from being asked.
                tokio::select! {
                    _ = ticks.tick() => break Instant::now(),
                    heard = receive(&self.socket) => self.hear(heard),
                }
            };
            let Some(sent) = self.pending.get_mut(&address) else { continue };
            sent.at = Some(due);
            let _ = self.socket.send_to(&Ping { tag: sent.tag }.encode(), address).await;
        }
        let deadline = Instant::now() + options.timeout;
        // The clock is looked at each time: who never stops sending must not keep the round from its end.
        while !self.pending.is_empty() && Instant::now() < deadline {
            let Ok(heard) = timeout_at(deadline, receive(&self.socket)).await else { break };
            self.hear(heard);
        }
    }

    /// Only who was asked counts, and only with the tag sent.
    fn hear(&mut self, heard: Option<(SocketAddr, Pong)>) {
        let Some((address, pong)) = heard else { return };
        let Some(Sent { tag, at: Some(at) }) = self.pending.get(&address).copied() else { return };
        if pong.tag == tag {
            self.pending.remove(&address);
            self.found.insert(address, Presence { address, ipmi: pong.ipmi, after: at.elapsed() });
        }
    }
}

async fn receive(socket: &UdpSocket) -> Option<(SocketAddr, Pong)> {
    let mut buffer = [0; LARGEST];
    let (length, address) = socket.recv_from(&mut buffer).await.ok()?;
    Some((address, decode(buffer.get(..length)?)?))
}

/// What a BMC says of its sessions to whoever asks, without any credentials.
pub async fn auth_capabilities(address: SocketAddr, options: &Options) -> Result<AuthCapabilities, Error> {
    let socket = Socket::connect(address).await?;
    let mut refusal = Completion::OK;
    // BMCs of IPMI 1.5 may refuse to be asked for 2.0.
    for (sequence, extended) in [(1, true), (2, false)] {
        let command = AuthCapabilities::get(Privilege::Administrator, extended);
        let correlation =
            Correlation { netfn: command.netfn, command: command.number, lun: command.lun, sequence };
        let request = Request { correlation, data: command.data.clone() }.encode();
        let packet = message::encode_sessionless(&request);
        let accept = |received: &[u8]| {
            let response = Response::decode(message::decode_sessionless(received).ok()?).ok()?;
            (response.correlation == correlation).then_some(response)
        };
        let payload = || Ok(packet.clone());
        let response = socket.ask(command.name, options, Refusal::Final, payload, accept).await?;
        if response.completion == Completion::OK {
            let malformed = |source| Error::Malformed { command: command.name, source };
            return command.decode(&response.data).map_err(malformed);
        }
        refusal = response.completion;
    }
    Err(Error::Refused { command: "Get Channel Authentication Capabilities", completion: refusal })
}
