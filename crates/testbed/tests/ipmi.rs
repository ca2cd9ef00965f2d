//! `ipmi_sim` starts, ipmitool reads it, and it is gone after drop.
#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::time::{Duration, Instant};

use bailiwick_testbed::IpmiSim;

#[tokio::test]
async fn ipmitool_reads_the_machine() {
    let bmc = IpmiSim::start().await.unwrap();
    let ipmitool = bmc.ipmitool().unwrap();
    let inventory = ipmitool.run(&["fru", "print", "0"]).await.unwrap().success().unwrap();
    assert!(inventory.contains(IpmiSim::SERIAL), "{inventory}");
    let sensors = ipmitool.run(&["sdr", "elist", "all"]).await.unwrap().success().unwrap();
    for name in ["Inlet Temp", "PSU1 Out", "Fan 1a", "CPU1 Margin", "DIMM a1"] {
        assert!(sensors.contains(name), "{name} is missing in {sensors}");
    }
    let events = ipmitool.run(&["sel", "list"]).await.unwrap().success().unwrap();
    assert_eq!(events.lines().count(), 3, "{events}");
}

#[tokio::test]
async fn the_machine_obeys_until_it_is_told_not_to() {
    let bmc = IpmiSim::start().await.unwrap();
    let ipmitool = bmc.ipmitool().unwrap();
    ipmitool.run(&["chassis", "power", "on"]).await.unwrap().success().unwrap();
    assert!(bmc.is_on().unwrap());
    assert_eq!(bmc.orders().unwrap(), ["set power 1"]);
    bmc.ignore_orders().unwrap();
    ipmitool.run(&["chassis", "power", "off"]).await.unwrap().success().unwrap();
    assert!(bmc.is_on().unwrap());
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let bmc = IpmiSim::start().await.unwrap();
    let ipmitool = bailiwick_testbed::Ipmitool::new(bmc.address(), bmc.username(), "wrong").await.unwrap();
    let output = ipmitool.run(&["-N", "1", "-R", "1", "mc", "info"]).await.unwrap();
    assert!(!output.status.success());
}

#[tokio::test]
async fn a_dropped_bmc_listens_no_more() {
    let bmc = IpmiSim::start().await.unwrap();
    let address = bmc.address();
    drop(bmc);
    // The kernel takes a moment; then the port is free for whoever asks.
    let deadline = Instant::now() + Duration::from_mins(1);
    while let Err(error) = std::net::UdpSocket::bind(address) {
        assert!(Instant::now() < deadline, "{error}");
        tokio::task::yield_now().await;
    }
}
