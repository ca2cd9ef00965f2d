//! A bad network between client and BMC, and patience fit for tests.
#![allow(dead_code, reason = "each test program uses a part")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bailiwick_ipmi::{Client, Credentials, Options, Target};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// No test waits long: what is lost is sent again soon.
pub(crate) fn options() -> Options {
    Options {
        timeout: Duration::from_millis(60),
        attempts: 8,
        gap: Duration::ZERO,
        busy_pause: Duration::from_millis(5),
        power_within: Duration::from_secs(10),
        power_poll: Duration::from_millis(20),
        ..Options::default()
    }
}

pub(crate) fn target(address: SocketAddr, username: &str, password: &str) -> Target {
    Target::new(address, Credentials::new(username, password))
}

pub(crate) async fn login(address: SocketAddr, username: &str, password: &str) -> Client {
    Client::connect(target(address, username, password), options()).await.unwrap()
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToBmc,
    ToClient,
}

/// A UDP relay in front of a BMC. What its rule makes of a datagram is what arrives: nothing, several, others.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    pub(crate) async fn start(
        bmc: SocketAddr,
        mut rule: impl FnMut(Way, Vec<u8>) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = front.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut outward, mut inward) = ([0; 2048], [0; 2048]);
            let mut client = None;
            loop {
                let (way, datagram) = tokio::select! {
                    Ok((length, from)) = front.recv_from(&mut outward) => {
                        client = Some(from);
                        (Way::ToBmc, outward[..length].to_vec())
                    }
                    Ok((length, _)) = back.recv_from(&mut inward) => (Way::ToClient, inward[..length].to_vec()),
                };
                for datagram in rule(way, datagram) {
                    match (way, client) {
                        (Way::ToBmc, _) => drop(back.send_to(&datagram, bmc).await),
                        (Way::ToClient, Some(client)) => drop(front.send_to(&datagram, client).await),
                        (Way::ToClient, None) => {}
                    }
                }
            }
        });
        Self { address, task }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Numbers that look random and are the same every time.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
