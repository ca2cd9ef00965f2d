//! A bad network: datagrams lost, doubled, late, damaged and forged. Whatever arrives, every command gives what it gives on a
//! good network, or an error; never a wrong value.
#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod support;

use std::collections::VecDeque;

use bailiwick_ipmi::{BootDevice, Client, Error, Identity, Options, Power, PowerAction, SelEntry, Sensor};
use sim::ipmi::{IpmiBmc, IpmiMachine};
use support::{Dice, Relay, Way, login, options, target};
use testbed::IpmiSim;

const PASSWORD: &str = "a-password-of-20-byt";

async fn simulated() -> IpmiBmc {
    IpmiBmc::start(IpmiMachine::new("admin", PASSWORD)).await.unwrap()
}

/// Everything that can be read.
async fn everything(client: &Client) -> (Identity, Vec<Sensor>, Vec<SelEntry>, Power) {
    let identity = client.identity().await.unwrap();
    let sensors = until_stable(async || client.sensors().await).await.items;
    let log = until_stable(async || client.sel().await).await.items;
    (identity, sensors, log, client.power().await.unwrap())
}

/// `ipmi_sim` carries out what is replayed, so that an old "reserve" cancels the reservation in use. A list that was disturbed so
/// too often is an error that says to ask again, and never a wrong list.
async fn until_stable<T>(ask: impl AsyncFn() -> Result<T, Error>) -> T {
    for _ in 0..20 {
        match ask().await {
            Err(Error::Unstable { .. }) => {}
            other => return other.unwrap(),
        }
    }
    ask().await.unwrap()
}

/// Reads and switches through a relay with this rule, and compares with what is read without it.
async fn all_is_as_on_a_good_network(
    bmc: std::net::SocketAddr,
    password: &str,
    rule: impl FnMut(Way, Vec<u8>) -> Vec<Vec<u8>> + Send + 'static,
) {
    let direct = login(bmc, "admin", password).await;
    let expected = everything(&direct).await;
    direct.close().await;
    let relay = Relay::start(bmc, rule).await;
    let options = Options { attempts: 12, ..options() };
    let client = Client::connect(target(relay.address, "admin", password), options).await.unwrap();
    assert_eq!(everything(&client).await, expected);
    assert_eq!(client.set_power(PowerAction::On).await.unwrap().after, Power::On);
    assert_eq!(client.set_boot_device(BootDevice::Pxe, false, true).await.unwrap().device, BootDevice::Pxe);
    assert_eq!(client.set_power(PowerAction::Off).await.unwrap().after, Power::Off);
}

/// One datagram in five is lost, each way.
fn loss(seed: u64) -> impl FnMut(Way, Vec<u8>) -> Vec<Vec<u8>> + Send {
    let mut dice = Dice::new(seed);
    move |_, datagram| if dice.below(5) == 0 { vec![] } else { vec![datagram] }
}

/// One datagram in three comes two or three times. (If every one did, no reservation of `ipmi_sim` would ever hold: it carries out
/// what comes twice twice, and the second reservation cancels the first.)
fn doubled(seed: u64) -> impl FnMut(Way, Vec<u8>) -> Vec<Vec<u8>> + Send {
    let mut dice = Dice::new(seed);
    move |_, datagram| vec![datagram; [1, 1, 1, 1, 2, 3][usize::try_from(dice.below(6)).unwrap()]]
}

/// Old datagrams come again and again between new ones: replays, and answers that come late.
fn replayed(seed: u64) -> impl FnMut(Way, Vec<u8>) -> Vec<Vec<u8>> + Send {
    let mut dice = Dice::new(seed);
    let mut past: VecDeque<(Way, Vec<u8>)> = VecDeque::new();
    move |way, datagram| {
        let mut sent: Vec<Vec<u8>> = Vec::new();
        for (old_way, old) in &past {
            if *old_way == way && dice.below(4) == 0 {
                sent.push(old.clone());
            }
        }
        sent.insert(usize::try_from(dice.below(sent.len() as u64 + 1)).unwrap(), datagram.clone());
        past.push_front((way, datagram));
        past.truncate(12);
        sent
    }
}

/// A datagram is held back until the next one of its direction has passed.
fn reordered(seed: u64) -> impl FnMut(Way, Vec<u8>) -> Vec<Vec<u8>> + Send {
    let mut dice = Dice::new(seed);
    let mut held: Vec<(Way, Vec<u8>)> = Vec::new();
    move |way, datagram| {
        if dice.below(5) == 0 {
            held.push((way, datagram));
            return vec![];
        }
        let mut sent = vec![datagram];
        held.retain(|(held_way, old)| {
            let released = *held_way == way;
            if released {
                sent.push(old.clone());
            }
            !released
        });
        sent
    }
}

/// One datagram in five has a byte changed, is cut off, or is preceded by noise. The first two of the session's making are
/// spared on the way to the client: a damaged proof twice in a row is what a wrong password looks like.
fn damaged(seed: u64) -> impl FnMut(Way, Vec<u8>) -> Vec<Vec<u8>> + Send {
    let mut dice = Dice::new(seed);
    move |way, datagram| {
        let handshake = datagram.get(5).is_some_and(|kind| kind & 0x3f >= 0x10);
        if handshake && way == Way::ToClient || dice.below(5) > 0 {
            return vec![datagram];
        }
        let mut bad = datagram.clone();
        let at = usize::try_from(dice.below(bad.len() as u64)).unwrap();
        match dice.below(3) {
            0 => bad[at] ^= u8::try_from(dice.below(255) + 1).unwrap(),
            1 => bad.truncate(at),
            _ => return vec![bad.iter().rev().copied().collect(), datagram],
        }
        vec![bad]
    }
}

macro_rules! on_a_bad_network {
    ($($name:ident: $rule:ident),+ $(,)?) => {
        mod real {
            $(#[tokio::test] async fn $name() {
                let bmc = super::IpmiSim::start().await.unwrap();
                super::all_is_as_on_a_good_network(bmc.address(), bmc.password(), super::$rule(7)).await;
            })+
        }
        mod simulated {
            $(#[tokio::test] async fn $name() {
                for seed in 1..=3 {
                    let bmc = super::simulated().await;
                    super::all_is_as_on_a_good_network(bmc.address(), super::PASSWORD, super::$rule(seed)).await;
                }
            })+
        }
    };
}

on_a_bad_network!(
    what_is_lost_is_sent_again: loss,
    what_is_doubled_counts_once: doubled,
    what_is_old_is_passed_over: replayed,
    what_comes_late_is_passed_over: reordered,
    what_is_damaged_is_passed_over: damaged,
);

#[tokio::test]
async fn a_damaged_proof_is_not_taken_for_a_wrong_password() {
    let bmc = simulated().await;
    let mut damaged = false;
    let relay = Relay::start(bmc.address(), move |_, mut datagram| {
        // RAKP message 2, once: its last byte belongs to the proof.
        if datagram.get(5) == Some(&0x13) && !damaged {
            damaged = true;
            *datagram.last_mut().unwrap() ^= 1;
        }
        vec![datagram]
    })
    .await;
    assert_eq!(login(relay.address, "admin", PASSWORD).await.power().await.unwrap(), Power::Off);
}

#[tokio::test]
async fn a_session_lost_half_way_through_its_making_is_begun_again() {
    let bmc = simulated().await;
    let mut lost = false;
    let relay = Relay::start(bmc.address(), move |way, mut datagram| {
        // RAKP message 1, once, names a session that the BMC does not have.
        if way == Way::ToBmc && datagram.get(5) == Some(&0x12) && !lost {
            lost = true;
            datagram[20..24].copy_from_slice(&[0xfe, 0xff, 0xff, 0x7f]);
        }
        vec![datagram]
    })
    .await;
    assert_eq!(login(relay.address, "admin", PASSWORD).await.power().await.unwrap(), Power::Off);
    assert_eq!(bmc.with(|machine| machine.counters.openings), 2);
}

#[tokio::test]
async fn forged_answers_are_not_believed() {
    let bmc = simulated().await;
    let relay = Relay::start(bmc.address(), move |way, datagram| {
        if way == Way::ToBmc || datagram.get(5) != Some(&0xc0) {
            return vec![datagram];
        }
        // The same answer without signature, and as IPMI 1.5 without session: "power is on".
        let mut unsigned = datagram.clone();
        unsigned[5] = 0;
        let plain = [
            &[6, 0, 0xff, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11][..],
            &[0x81, 4, 0x7b, 0x20, 8, 1, 0, 1, 0, 0, 0xd6],
        ]
        .concat();
        vec![unsigned, plain, datagram]
    })
    .await;
    let client = login(relay.address, "admin", PASSWORD).await;
    for _ in 0..10 {
        assert_eq!(client.power().await.unwrap(), Power::Off);
    }
}
