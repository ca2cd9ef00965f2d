//! ipmitool, which nobody here wrote, reads the same values as we do, field by field: of `ipmi_sim` with suite 3, and of our
//! simulated BMC with suite 17, which proves that both sides of that suite are right.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is a failed test")]

mod support;

use std::collections::BTreeMap;

use bailiwick_ipmi::{BootDevice, Client, Power, PowerAction, Reading, SelRecord, Sensor};
use sim::ipmi::{IpmiBmc, IpmiMachine};
use support::login;
use testbed::{IpmiSim, Ipmitool};

const PASSWORD: &str = "a-password-of-20-byt";

/// A BMC of either kind, our client of it and ipmitool.
struct Pair {
    client: Client,
    ipmitool: Ipmitool,
    _bmc: Box<dyn Send>,
}

impl Pair {
    async fn real() -> Self {
        let bmc = IpmiSim::start().await.unwrap();
        let client = login(bmc.address(), bmc.username(), bmc.password()).await;
        Self { client, ipmitool: bmc.ipmitool().unwrap(), _bmc: Box::new(bmc) }
    }

    async fn simulated() -> Self {
        let bmc = IpmiBmc::start(IpmiMachine::new("admin", PASSWORD)).await.unwrap();
        let client = login(bmc.address(), "admin", PASSWORD).await;
        let ipmitool = Ipmitool::new(bmc.address(), "admin", PASSWORD).await.unwrap().suite(17);
        Self { client, ipmitool, _bmc: Box::new(bmc) }
    }

    async fn ipmitool(&self, arguments: &[&str]) -> String {
        self.ipmitool.run(arguments).await.unwrap().success().unwrap()
    }

    /// Lines of `name : value`.
    async fn fields(&self, arguments: &[&str]) -> BTreeMap<String, String> {
        let text = self.ipmitool(arguments).await;
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
    }
}

macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod real {
            $(#[tokio::test] async fn $name() { super::$name(super::Pair::real().await).await; })+
        }
        mod simulated {
            $(#[tokio::test] async fn $name() { super::$name(super::Pair::simulated().await).await; })+
        }
    };
}

on_both!(
    the_device_is_the_same,
    the_inventory_is_the_same,
    the_guid_is_the_same,
    power_that_one_switches_the_other_sees,
    a_boot_device_that_one_sets_the_other_reads,
    sensors_are_the_same,
    the_log_has_the_same_entries,
);

async fn the_device_is_the_same(pair: Pair) {
    let theirs = pair.fields(&["mc", "info"]).await;
    let ours = pair.client.identity().await.unwrap().device;
    assert_eq!(theirs["Device ID"], ours.device.to_string());
    assert_eq!(theirs["Device Revision"], ours.revision.to_string());
    assert_eq!(theirs["Firmware Revision"], ours.firmware);
    assert_eq!(theirs["IPMI Version"], ours.version);
    assert_eq!(theirs["Manufacturer ID"], ours.manufacturer.to_string());
    assert!(theirs["Product ID"].starts_with(&format!("{} ", ours.product)), "{}", theirs["Product ID"]);
    assert_eq!(theirs["Device Available"], if ours.available { "yes" } else { "no" });
    assert_eq!(theirs["Provides Device SDRs"], if ours.device_sdrs { "yes" } else { "no" });
}

async fn the_inventory_is_the_same(pair: Pair) {
    let theirs = pair.fields(&["fru", "print", "0"]).await;
    let ours = pair.client.identity().await.unwrap();
    let (chassis, board, product) = (
        ours.fru.chassis.clone().unwrap(),
        ours.fru.board.clone().unwrap(),
        ours.fru.product.clone().unwrap(),
    );
    for (name, value) in [
        ("Chassis Part Number", chassis.part),
        ("Chassis Serial", chassis.serial),
        ("Board Mfg", board.manufacturer),
        ("Board Product", board.product),
        ("Board Serial", board.serial),
        ("Board Part Number", board.part),
        ("Product Manufacturer", product.manufacturer),
        ("Product Name", product.name),
        ("Product Part Number", product.part),
        ("Product Version", product.version),
        ("Product Serial", product.serial),
        ("Product Asset Tag", product.asset_tag),
    ] {
        assert_eq!(theirs.get(name), value.as_ref(), "{name}");
    }
    // "Wed Jan  1 00:00:00 2025 UTC"
    let made = jiff_like(&theirs["Board Mfg Date"]);
    assert_eq!(board.made.unwrap().strftime("%b %e %H:%M:%S %Y").to_string(), made);
}

/// A date of ipmitool without weekday and zone.
fn jiff_like(date: &str) -> String {
    date.split_once(' ').unwrap().1.trim_end_matches(" UTC").to_owned()
}

async fn the_guid_is_the_same(pair: Pair) {
    let theirs = pair.fields(&["mc", "guid"]).await["System GUID"].clone();
    let guid = pair.client.identity().await.unwrap().guid.unwrap();
    // ipmitool guesses the layout; one of ours is what it guessed.
    assert!(
        guid.readings().iter().any(|(_, uuid)| uuid.to_string() == theirs),
        "{theirs} is not in {guid:?}"
    );
}

async fn power_that_one_switches_the_other_sees(pair: Pair) {
    pair.client.set_power(PowerAction::On).await.unwrap();
    assert_eq!(pair.ipmitool(&["chassis", "power", "status"]).await.trim(), "Chassis Power is on");
    pair.ipmitool(&["chassis", "power", "off"]).await;
    assert_eq!(pair.client.power().await.unwrap(), Power::Off);
}

async fn a_boot_device_that_one_sets_the_other_reads(pair: Pair) {
    for (device, theirs) in [
        (BootDevice::Pxe, "Force PXE"),
        (BootDevice::Cdrom, "Force Boot from CD/DVD"),
        (BootDevice::Disk, "Force Boot from default Hard-Drive"),
        (BootDevice::Bios, "Force Boot into BIOS Setup"),
    ] {
        pair.client.set_boot_device(device, false, true).await.unwrap();
        let flags = pair.ipmitool(&["chassis", "bootparam", "get", "5"]).await;
        assert!(flags.contains(theirs), "{device}: {flags}");
    }
    for (name, device) in [("pxe", BootDevice::Pxe), ("cdrom", BootDevice::Cdrom), ("bios", BootDevice::Bios)]
    {
        pair.ipmitool(&["chassis", "bootdev", name]).await;
        assert_eq!(pair.client.boot_device().await.unwrap().device, device, "{name}");
    }
}

async fn sensors_are_the_same(pair: Pair) {
    // Inlet Temp | 24.000 | degrees C | ok | na | na | na | 40.000 | 45.000 | 50.000
    let text = pair.ipmitool(&["sensor"]).await;
    let theirs: Vec<Vec<&str>> = text.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    let ours = pair.client.sensors().await.unwrap().items;
    assert_eq!(
        theirs.iter().map(|row| row[0]).collect::<Vec<_>>(),
        ours.iter().map(|sensor| sensor.record.name.as_str()).collect::<Vec<_>>()
    );
    for (row, sensor) in theirs.iter().zip(&ours) {
        let ours = in_words(sensor);
        let from = usize::from(ours[0] == IGNORED);
        assert_eq!(row[1 + from..], ours[from..], "{}", sensor.record.name);
    }
}

const IGNORED: &str = "-";

/// A sensor as ipmitool shows it: value, unit, state, six thresholds from the lowest.
fn in_words(sensor: &Sensor) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or("na".to_owned(), |value| format!("{value:.3}"));
    let thresholds = sensor.thresholds;
    let (value, unit, state) = match sensor.reading {
        Reading::Value { value, severity, .. } => {
            let state = match severity {
                bailiwick_ipmi::Severity::Ok => "ok",
                bailiwick_ipmi::Severity::NonCritical => "nc",
                bailiwick_ipmi::Severity::Critical => "cr",
                bailiwick_ipmi::Severity::NonRecoverable => "nr",
            };
            (number(value), sensor.record.unit.to_string(), state.to_owned())
        }
        // ipmitool puts the states' bytes the other way round, and shows the reading that such sensors do not have.
        Reading::States(states) => {
            (IGNORED.to_owned(), "discrete".to_owned(), format!("0x{:04x}", states.swap_bytes()))
        }
        Reading::Unavailable | Reading::Elsewhere => ("na".to_owned(), String::new(), "na".to_owned()),
    };
    let mut words = vec![value, unit, state];
    words.extend(
        [
            thresholds.lower_non_recoverable,
            thresholds.lower_critical,
            thresholds.lower_non_critical,
            thresholds.upper_non_critical,
            thresholds.upper_critical,
            thresholds.upper_non_recoverable,
        ]
        .map(number),
    );
    words
}

async fn the_log_has_the_same_entries(pair: Pair) {
    let ours = pair.client.sel().await.unwrap().items;
    let info = pair.fields(&["sel", "info"]).await;
    assert_eq!(info["Entries"], ours.len().to_string());
    // ` 1 | 10/13/24 | 15:15:12 UTC | Temperature #0x01 | Upper Critical going high | Asserted`
    let text = pair.ipmitool(&["sel", "list"]).await;
    assert_eq!(text.lines().count(), ours.len());
    for (line, entry) in text.lines().zip(&ours) {
        let id = line.split('|').next().unwrap().trim();
        assert_eq!(id, format!("{:x}", entry.id), "{line}");
        match entry.record {
            SelRecord::Event { sensor_kind, asserted, .. } => {
                assert!(line.contains(bailiwick_ipmi::sensor::kind_name(sensor_kind)), "{line}");
                assert_eq!(line.contains("Deasserted"), !asserted, "{line}");
            }
            SelRecord::OemTimed { manufacturer, .. } => {
                assert!(line.contains(&format!("{manufacturer:06x}")), "{line}");
            }
            SelRecord::Oem { .. } => panic!("there is none: {line}"),
        }
    }
}
