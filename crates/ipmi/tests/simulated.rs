//! What `ipmi_sim` cannot do: cipher suite 17, a BMC key, and BMCs that misbehave.
#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bailiwick_ipmi::{
    BootDevice, CipherSuite, Client, Options, Power, PowerAction, Privilege, Reading, SweepOptions, Target,
    ping, sweep,
};
use sim::ipmi::{IpmiBmc, IpmiCounters, IpmiMachine};
use support::{login, options, target};

const PASSWORD: &str = "a-password-of-20-byt";

async fn bmc() -> IpmiBmc {
    bmc_with(|_| ()).await
}

async fn bmc_with(change: impl FnOnce(&mut IpmiMachine)) -> IpmiBmc {
    let mut machine = IpmiMachine::new("admin", PASSWORD);
    change(&mut machine);
    IpmiBmc::start(machine).await.unwrap()
}

fn right(bmc: &IpmiBmc) -> Target {
    target(bmc.address(), "admin", PASSWORD)
}

async fn client(bmc: &IpmiBmc) -> Client {
    login(bmc.address(), "admin", PASSWORD).await
}

fn counters(bmc: &IpmiBmc) -> IpmiCounters {
    bmc.with(|machine| machine.counters)
}

/// Waits until the BMC shows what must come; nobody tells when.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn suite_17_is_taken_first() {
    let bmc = bmc().await;
    let client = client(&bmc).await;
    assert_eq!((client.suite().await, bmc.suite()), (Some(CipherSuite::Suite17), Some(CipherSuite::Suite17)));
    assert_eq!(client.power().await.unwrap(), Power::Off);
}

#[tokio::test]
async fn suite_3_is_taken_where_there_is_no_other() {
    let bmc = bmc_with(|machine| machine.suites = vec![CipherSuite::Suite3]).await;
    assert_eq!(client(&bmc).await.suite().await, Some(CipherSuite::Suite3));
}

#[tokio::test]
async fn a_bmc_with_neither_is_refused() {
    let bmc = bmc_with(|machine| machine.suites.clear()).await;
    let error = Client::connect(right(&bmc), options()).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.no-cipher-suite");
    assert!(error.to_string().contains("17, 3"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_ends_with_the_first_suite_and_counts_as_no_failed_login() {
    let bmc = bmc().await;
    let error = Client::connect(target(bmc.address(), "admin", "wrong"), options()).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.unauthorized");
    assert_eq!((counters(&bmc).openings, counters(&bmc).failed_logins), (1, 0));
}

#[tokio::test]
async fn an_unknown_user_is_tried_once() {
    let bmc = bmc().await;
    let error = Client::connect(target(bmc.address(), "nobody", PASSWORD), options()).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.unauthorized");
    assert_eq!((counters(&bmc).openings, counters(&bmc).failed_logins), (1, 1));
}

/// `ipmi_sim` gives every user that is looked up by name whatever level is asked for.
#[tokio::test]
async fn who_may_only_look_is_no_administrator() {
    let bmc = bmc_with(|machine| machine.privilege = Privilege::User).await;
    let error = Client::connect(right(&bmc), options()).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.privilege");
    assert_eq!((counters(&bmc).openings, counters(&bmc).failed_logins), (1, 0));
}

#[tokio::test]
async fn after_the_password_was_changed_nothing_more_is_sent() {
    let bmc = bmc().await;
    let client = client(&bmc).await;
    bmc.with(|machine| "another".clone_into(&mut machine.password));
    bmc.forget_sessions();
    assert_eq!(client.power().await.unwrap_err().code(), "ipmi.unauthorized");
    let sent = counters(&bmc).datagrams;
    for _ in 0..5 {
        assert_eq!(client.power().await.unwrap_err().code(), "ipmi.unauthorized");
    }
    assert_eq!(counters(&bmc).datagrams, sent);
}

#[tokio::test]
async fn a_bmc_key_is_used_where_one_is_set() {
    let bmc = bmc_with(|machine| machine.key = Some(b"the key".to_vec())).await;
    let error = Client::connect(right(&bmc), options()).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.key-mismatch");
    let mut target = right(&bmc);
    target.credentials.key = Some(b"the key".to_vec().into());
    assert_eq!(Client::connect(target, options()).await.unwrap().power().await.unwrap(), Power::Off);
}

#[tokio::test]
async fn a_bmc_without_a_free_session_says_so() {
    let bmc = bmc_with(|machine| machine.session_limit = 1).await;
    let first = client(&bmc).await;
    let error = Client::connect(right(&bmc), options()).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.sessions-exhausted");
    first.close().await;
    assert_eq!(bmc.sessions(), 0);
    client(&bmc).await;
}

#[tokio::test]
async fn a_dropped_client_leaves_no_session() {
    let bmc = bmc().await;
    drop(client(&bmc).await);
    until("the session ends", || bmc.sessions() == 0).await;
}

#[tokio::test]
async fn a_bmc_that_forgot_the_session_gets_a_new_one() {
    let bmc = bmc().await;
    let client = client(&bmc).await;
    bmc.forget_sessions();
    assert_eq!(client.power().await.unwrap(), Power::Off);
    assert_eq!(counters(&bmc).logins, 2);
}

#[tokio::test]
async fn an_idle_session_is_opened_anew_before_it_is_used() {
    let bmc = bmc().await;
    let options = Options { idle: Duration::ZERO, ..options() };
    let client = Client::connect(right(&bmc), options).await.unwrap();
    client.power().await.unwrap();
    assert_eq!(counters(&bmc).logins, 2);
    until("the old session ends", || bmc.sessions() == 1).await;
}

#[tokio::test]
async fn a_bmc_that_vanishes_is_a_timeout() {
    let bmc = bmc().await;
    let options = Options { timeout: Duration::from_millis(2), attempts: 3, ..options() };
    let client =
        Client::connect(right(&bmc), Options { timeout: Duration::from_millis(200), ..options }).await;
    drop(client.unwrap());
    bmc.with(|machine| machine.faults.silent = true);
    let error = Client::connect(right(&bmc), options).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.timeout");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_unreachable_at_once() {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let patient = Options { timeout: Duration::from_mins(5), ..options() };
    let error = Client::connect(target(address, "admin", PASSWORD), patient).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.unreachable");
}

#[tokio::test]
async fn a_busy_bmc_is_asked_again() {
    let bmc = bmc().await;
    let client = client(&bmc).await;
    bmc.with(|machine| machine.faults.busy = 3);
    assert_eq!(client.power().await.unwrap(), Power::Off);
    bmc.with(|machine| machine.faults.busy = 1000);
    assert_eq!(client.power().await.unwrap_err().code(), "ipmi.busy");
}

#[tokio::test]
async fn commands_keep_the_gap_that_the_bmc_needs() {
    let bmc = bmc().await;
    let gap = Duration::from_millis(20);
    let client = Client::connect(right(&bmc), Options { gap, ..options() }).await.unwrap();
    let started = Instant::now();
    for _ in 0..5 {
        client.power().await.unwrap();
    }
    assert!(started.elapsed() >= gap * 5, "{:?}", started.elapsed());
}

#[tokio::test]
async fn on_that_is_refused_for_a_while_is_tried_again() {
    let bmc = bmc_with(|machine| machine.faults.refuse_on = 3).await;
    let client = client(&bmc).await;
    assert_eq!(client.set_power(PowerAction::On).await.unwrap().after, Power::On);
}

#[tokio::test]
async fn a_reset_without_answer_is_sent_once() {
    let bmc = bmc_with(|machine| machine.set_power(Power::On)).await;
    // The first command's answer tells the power state; after it nothing comes back.
    let mut answers = 0;
    let relay = support::Relay::start(bmc.address(), move |way, datagram| {
        answers += usize::from(way == support::Way::ToClient);
        if answers > 5 { vec![] } else { vec![datagram] }
    })
    .await;
    let options = Options { timeout: Duration::from_millis(5), ..options() };
    let client = Client::connect(target(relay.address, "admin", PASSWORD), options).await.unwrap();
    let error = client.set_power(PowerAction::Reset).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.outcome-unknown");
    assert_eq!(counters(&bmc).resets, 1);
}

#[tokio::test]
async fn boot_flags_are_kept_until_the_host_boots() {
    let bmc = bmc().await;
    let flags = client(&bmc).await.set_boot_device(BootDevice::Pxe, false, true).await.unwrap();
    assert!(flags.valid && flags.uefi && !flags.persistent);
    assert!(bmc.with(|machine| machine.boot.kept));
}

#[tokio::test]
async fn lost_reservations_are_taken_again() {
    let bmc = bmc().await;
    let client = client(&bmc).await;
    let undisturbed = client.sensors().await.unwrap();
    bmc.with(|machine| machine.faults.reservations_lost = 3);
    assert_eq!(client.sensors().await.unwrap(), undisturbed);
    bmc.with(|machine| machine.faults.reservations_lost = 3);
    assert_eq!(client.sel().await.unwrap().items.len(), 2);
    bmc.with(|machine| machine.faults.reservations_lost = 1000);
    assert_eq!(client.sel().await.unwrap_err().code(), "ipmi.unstable");
}

#[tokio::test]
async fn a_bmc_that_gives_few_bytes_at_once_is_read_all_the_same() {
    let bmc = bmc().await;
    let client = client(&bmc).await;
    let (sensors, identity) = (client.sensors().await.unwrap(), client.identity().await.unwrap());
    bmc.with(|machine| machine.faults.largest_read = Some(16));
    assert_eq!(client.sensors().await.unwrap(), sensors);
    assert_eq!(client.identity().await.unwrap(), identity);
}

#[tokio::test]
async fn a_list_of_sensors_without_end_is_ended() {
    let bmc = bmc_with(|machine| machine.faults.endless_sensors = true).await;
    let listing = client(&bmc).await.sensor_records().await.unwrap();
    assert_eq!((listing.items.len(), listing.problems.len()), (3, 1));
    assert_eq!(listing.problems[0].code, "ipmi.record.malformed");
}

#[tokio::test]
async fn a_sensor_that_is_not_there_costs_nothing_else() {
    let bmc = bmc_with(|machine| machine.sensors[1].raw = None).await;
    let listing = client(&bmc).await.sensors().await.unwrap();
    let readings: Vec<_> =
        listing.items.iter().map(|sensor| sensor.reading == Reading::Unavailable).collect();
    assert_eq!((readings, listing.problems.len()), (vec![false, true, false], 0));
}

#[tokio::test]
async fn empty_lists_are_empty() {
    let bmc = bmc_with(|machine| {
        machine.sensors.clear();
        machine.sel.clear();
        machine.fru = None;
    })
    .await;
    let client = client(&bmc).await;
    assert!(client.sensors().await.unwrap().items.is_empty());
    assert!(client.sel().await.unwrap().items.is_empty());
    assert_eq!(client.identity().await.unwrap().serial(), None);
}

#[tokio::test]
async fn an_inventory_that_lies_about_its_size_is_read_as_far_as_it_goes() {
    let bmc = bmc_with(|machine| {
        let fru = machine.fru.as_mut().unwrap();
        // The product area claims 2 040 bytes.
        let product = usize::from(fru[4]) * 8;
        fru[product + 1] = 255;
    })
    .await;
    let identity = client(&bmc).await.identity().await.unwrap();
    assert_eq!(identity.serial(), Some("SIM-5001"));
    assert_eq!(identity.problems[0].code, "ipmi.fru.area");
}

#[tokio::test]
async fn a_sweep_finds_those_that_answer_and_no_others() {
    let machine = IpmiMachine::new("admin", PASSWORD);
    let mut bmcs = Vec::new();
    for _ in 0..100 {
        bmcs.push(IpmiBmc::start(machine.clone()).await.unwrap());
    }
    for silent in &bmcs[90..] {
        silent.with(|machine| machine.faults.silent = true);
    }
    let options = SweepOptions { timeout: Duration::from_millis(200), rounds: 2, rate: 10_000 };
    let found = sweep(bmcs.iter().map(IpmiBmc::address), options).await.unwrap();
    let mut expected: Vec<SocketAddr> = bmcs[..90].iter().map(IpmiBmc::address).collect();
    expected.sort();
    assert_eq!(found.iter().map(|presence| presence.address).collect::<Vec<_>>(), expected);
    assert!(
        bmcs[90..].iter().all(|bmc| counters(bmc).datagrams == 2),
        "each silent one is asked in every round"
    );
}

#[tokio::test]
async fn nobody_answering_a_ping_is_a_timeout() {
    let bmc = bmc_with(|machine| machine.faults.silent = true).await;
    let error = ping(bmc.address(), Duration::from_millis(60)).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.timeout");
}

#[tokio::test]
async fn a_client_that_may_log_in_once_does_not_log_in_again() {
    let bmc = bmc().await;
    let once = Options { logins: 1, ..options() };
    let client = Client::connect(right(&bmc), once).await.unwrap();
    bmc.forget_sessions();
    assert_eq!(client.power().await.unwrap_err().code(), "ipmi.session-lost");
    assert_eq!((counters(&bmc).openings, counters(&bmc).logins), (1, 1));
}

#[tokio::test]
async fn impatient_options_make_no_one_ask_without_a_break() {
    let bmc = bmc_with(|machine| machine.faults.deaf = true).await;
    let within = Duration::from_millis(100);
    let impatient = Options { power_within: within, power_poll: Duration::ZERO, ..options() };
    let client = Client::connect(right(&bmc), impatient).await.unwrap();
    let before = counters(&bmc).commands;
    assert_eq!(client.set_power(PowerAction::On).await.unwrap_err().code(), "ipmi.power-unchanged");
    let asked = counters(&bmc).commands - before;
    assert!(asked <= 110, "{asked} commands in {within:?}");
}

#[tokio::test]
async fn a_ping_where_nobody_listens_ends_at_once() {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let error = ping(address, Duration::from_mins(5)).await.unwrap_err();
    assert_eq!(error.code(), "ipmi.unreachable");
}

#[tokio::test]
async fn a_sweep_as_fast_as_can_be_is_no_mistake() {
    let bmc = bmc().await;
    let options = SweepOptions { timeout: Duration::from_secs(5), rounds: 1, rate: u32::MAX };
    assert_eq!(sweep([bmc.address()], options).await.unwrap().len(), 1);
}

/// Somebody who answers each ping with a flood keeps no one else from being found.
#[tokio::test]
async fn one_that_never_stops_answering_keeps_no_other_from_being_found() {
    let chatty = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let noisy = chatty.local_addr().unwrap();
    let flood = tokio::spawn(async move {
        let mut buffer = [0; 64];
        let (_, from) = chatty.recv_from(&mut buffer).await.unwrap();
        loop {
            let _ = chatty.send_to(&[6, 0, 0xff, 6], from).await;
        }
    });
    let mut bmcs = Vec::new();
    for _ in 0..50 {
        bmcs.push(bmc().await);
    }
    let options = SweepOptions { timeout: Duration::from_secs(1), rounds: 3, rate: 1000 };
    let addresses = std::iter::once(noisy).chain(bmcs.iter().map(IpmiBmc::address));
    let found = sweep(addresses, options).await.unwrap();
    flood.abort();
    assert_eq!(found.len(), bmcs.len());
}
