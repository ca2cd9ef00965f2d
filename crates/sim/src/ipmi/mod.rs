//! A simulated BMC that speaks IPMI 2.0 over LAN, with cipher suites 17 and 3: for scale, for faults, and for what no
//! freely available BMC has (SHA-256). ipmitool reads it.
//!
//! ```
//! # async fn example() -> std::io::Result<()> {
//! use bailiwick_sim::ipmi::{IpmiBmc, IpmiMachine};
//!
//! let bmc = IpmiBmc::start(IpmiMachine::new("admin", "password")).await?;
//! println!("IPMI at {}", bmc.address());
//! bmc.with(|machine| machine.faults.silent = true);
//! # Ok(())
//! # }
//! ```

mod commands;
mod machine;
mod sessions;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

pub use machine::{BootOptions, IpmiCounters, IpmiFaults, IpmiMachine, IpmiSensor};

use ipmi::CipherSuite;
use ipmi::message::{self, Completion, Response};
use ipmi::rmcp::{self, Class, Ping, Pong};
use sessions::Sessions;

/// No datagram that a BMC takes is larger.
const LARGEST: usize = 2048;

/// A running BMC; dropping it stops it.
#[derive(Debug)]
pub struct IpmiBmc {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    machine: IpmiMachine,
    sessions: Sessions,
}

impl IpmiBmc {
    /// Starts one on a UDP port of 127.0.0.1 that the system chooses.
    pub async fn start(machine: IpmiMachine) -> io::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), machine).await
    }

    /// Starts one at an address.
    pub async fn start_at(address: SocketAddr, machine: IpmiMachine) -> io::Result<Self> {
        let socket = UdpSocket::bind(address).await?;
        let address = socket.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared { machine, sessions: Sessions::default() }));
        let task = tokio::spawn(serve(socket, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Looks at the machine, or changes it.
    pub fn with<T>(&self, look: impl FnOnce(&mut IpmiMachine) -> T) -> T {
        look(&mut self.shared().machine)
    }

    /// The BMC forgets all sessions, as when it restarts.
    pub fn forget_sessions(&self) {
        self.shared().sessions = Sessions::default();
    }

    /// Sessions that stand.
    pub fn sessions(&self) -> usize {
        self.shared().sessions.active()
    }

    /// The suite of a session that stands.
    pub fn suite(&self) -> Option<CipherSuite> {
        self.shared().sessions.suite()
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for IpmiBmc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, shared: Arc<Mutex<Shared>>) {
    let mut buffer = [0; LARGEST];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let datagram = buffer.get(..length).unwrap_or_default();
        let answer = shared.lock().unwrap_or_else(PoisonError::into_inner).answer(datagram);
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

impl Shared {
    fn answer(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        let (class, payload) = rmcp::decode(datagram).ok()?;
        self.machine.counters.datagrams += 1;
        if self.machine.faults.silent {
            return None;
        }
        match class {
            Class::Asf => Some(Pong { tag: Ping::decode(payload).ok()?.tag, ipmi: true }.encode()),
            Class::Ipmi => {
                let answer = match payload.first()? {
                    0x06 => self.sessions.answer(&mut self.machine, payload)?,
                    _ => self.sessionless(payload)?,
                };
                Some(rmcp::encode(Class::Ipmi, &answer))
            }
        }
    }

    /// Outside a session only what sessions can be had is told.
    fn sessionless(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let request = message::Request::decode(message::decode_sessionless(payload).ok()?).ok()?;
        let (completion, data) = match (request.correlation.netfn, request.correlation.command) {
            (message::NetFn::App, 0x38) => (Completion::OK, self.machine.auth_capabilities()),
            (message::NetFn::App, 0x54) => (Completion::OK, self.machine.cipher_suites(&request.data)),
            _ => (Completion::PRIVILEGE, Vec::new()),
        };
        let response = Response { correlation: request.correlation, completion, data };
        Some(message::encode_sessionless(&response.encode()))
    }
}
