//! What a simulated IPMI BMC has and does.

use std::time::{Duration, Instant};

use super::commands::Reservation;
use ipmi::fru::{Board, Chassis, Product};
use ipmi::rakp::Privilege;
use ipmi::sdr::{Conversion, Format, SensorRecord};
use ipmi::unit::Unit;
use ipmi::{BootDevice, CipherSuite, EventTime, Fru, Power, SelEntry, SelRecord};

/// A machine as its BMC knows it. All fields may be changed while it runs.
#[derive(Clone, Debug)]
pub struct IpmiMachine {
    /// The one user's name.
    pub username: String,
    /// Its password.
    pub password: String,
    /// The most that it may do.
    pub privilege: Privilege,
    /// The BMC key (Kg), if one is set.
    pub key: Option<Vec<u8>>,
    /// The suites that it takes.
    pub suites: Vec<CipherSuite>,
    /// Sessions at the same time at most.
    pub session_limit: usize,
    /// As sent.
    pub guid: [u8; 16],
    /// MAC address of the BMC's interface.
    pub mac: [u8; 6],
    /// FRU inventory 0, as it is kept; none answers as if there were none.
    pub fru: Option<Vec<u8>>,
    /// Its sensors.
    pub sensors: Vec<IpmiSensor>,
    /// Its log.
    pub sel: Vec<SelEntry>,
    /// What it boots from.
    pub boot: BootOptions,
    /// How long a power cycle has it without power.
    pub cycle: Duration,
    /// What goes wrong.
    pub faults: IpmiFaults,
    /// What happened.
    pub counters: IpmiCounters,
    power: Power,
    on_again: Option<Instant>,
    pub(super) sdr_reservation: Reservation,
    pub(super) sel_reservation: Reservation,
}

/// The boot flags, as they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootOptions {
    /// The device.
    pub device: BootDevice,
    /// The flags' bytes, as set: valid, persistent, UEFI in the first.
    pub bytes: [u8; 5],
    /// Whether the flags are kept although no power command follows within a minute.
    pub kept: bool,
}

/// A sensor with what it reads.
#[derive(Clone, Debug)]
pub struct IpmiSensor {
    /// Its record.
    pub record: SensorRecord,
    /// Its raw reading; none answers "not present".
    pub raw: Option<u8>,
    /// Its states, or crossed thresholds.
    pub states: u16,
    /// Raw thresholds, lower first, each from non-critical to non-recoverable.
    pub thresholds: [Option<u8>; 6],
}

/// What goes wrong. Counts go down with each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpmiFaults {
    /// It does not answer at all.
    pub silent: bool,
    /// So many commands are answered "busy", and not done.
    pub busy: u32,
    /// So many reservations are lost to somebody else.
    pub reservations_lost: u32,
    /// The most bytes that it gives at once, if not as many as are asked for.
    pub largest_read: Option<u8>,
    /// It agrees to power and boot orders and does nothing (quirk 38).
    pub deaf: bool,
    /// So many orders to switch on are refused as "not in this state" (quirk 14).
    pub refuse_on: u32,
    /// The list of sensors comes round to its beginning.
    pub endless_sensors: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpmiCounters {
    /// Datagrams received.
    pub datagrams: u64,
    /// Sessions asked for.
    pub openings: u64,
    /// Logins that succeeded.
    pub logins: u64,
    /// Logins that failed: wrong proofs, and names that do not exist. What a lock-out counts.
    pub failed_logins: u64,
    /// Commands carried out or refused.
    pub commands: u64,
    /// Power orders carried out.
    pub power_orders: u64,
    /// Resets and cycles among them.
    pub resets: u64,
}

impl IpmiMachine {
    /// A server that is off, with three sensors, two log entries and a full inventory.
    pub fn new(username: &str, password: &str) -> Self {
        Self {
            username: username.to_owned(),
            password: password.to_owned(),
            privilege: Privilege::Administrator,
            key: None,
            suites: vec![CipherSuite::Suite17, CipherSuite::Suite3],
            session_limit: 4,
            guid: *uuid::Uuid::from_u128(0x0000_5111_7000_4000_8000_0000_0000_0001).as_bytes(),
            mac: [0x02, 0x00, 0x5e, 0x10, 0x00, 0x01],
            fru: Some(inventory("SIM-5001").encode()),
            sensors: sensors(),
            sel: log(),
            boot: BootOptions { device: BootDevice::None, bytes: [0; 5], kept: false },
            cycle: Duration::from_millis(200),
            faults: IpmiFaults::default(),
            counters: IpmiCounters::default(),
            power: Power::Off,
            on_again: None,
            sdr_reservation: Reservation::default(),
            sel_reservation: Reservation::default(),
        }
    }

    /// The same machine with a serial number, a GUID and a MAC address of its own.
    #[must_use]
    pub fn numbered(mut self, serial: &str, number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        (self.guid[14], self.guid[15]) = (high, low);
        (self.mac[4], self.mac[5]) = (high, low);
        self.fru = Some(inventory(serial).encode());
        self
    }

    /// Whether it is on now.
    pub fn power(&self) -> Power {
        match self.on_again {
            Some(moment) if Instant::now() >= moment => Power::On,
            Some(_) => Power::Off,
            None => self.power,
        }
    }

    /// Switches it without the BMC's being asked.
    pub fn set_power(&mut self, power: Power) {
        (self.power, self.on_again) = (power, None);
    }

    pub(super) fn cycle_power(&mut self) {
        (self.power, self.on_again) = (Power::On, Some(Instant::now() + self.cycle));
    }

    /// Get Channel Authentication Capabilities: channel 1, IPMI 2.0 alone, users with names.
    pub(super) fn auth_capabilities(&self) -> Vec<u8> {
        let key = u8::from(self.key.is_some()) << 5;
        vec![1, 0x80, key | 0x04, 0x02, 0, 0, 0, 0]
    }

    /// Get Channel Cipher Suites: records of five bytes, sixteen bytes at a time.
    pub(super) fn cipher_suites(&self, data: &[u8]) -> Vec<u8> {
        let from = usize::from(data.get(2).copied().unwrap_or_default() & 0x3f) * 16;
        let records: Vec<u8> = self
            .suites
            .iter()
            .flat_map(|suite| {
                let algorithms = suite.algorithms();
                [
                    0xc0,
                    suite.id(),
                    algorithms.authentication,
                    0x40 | algorithms.integrity,
                    0x80 | algorithms.confidentiality,
                ]
            })
            .collect();
        let mut answer = vec![1];
        answer.extend(records.iter().skip(from).take(16));
        answer
    }
}

fn inventory(serial: &str) -> Fru {
    let text = |text: &str| Some(text.to_owned());
    Fru {
        chassis: Some(Chassis { kind: 23, part: text("CH-100"), serial: text("CHS-5001") }),
        board: Some(Board {
            made: jiff::Timestamp::from_second(1_735_689_600).ok(),
            manufacturer: text("Board Works"),
            product: text("Mainboard X"),
            serial: text("BRD-5001"),
            part: text("BRP-7"),
        }),
        product: Some(Product {
            manufacturer: text("Example Servers"),
            name: text("Eight GPUs"),
            part: text("PRT-6"),
            version: text("C"),
            serial: text(serial),
            asset_tag: text("asset 17"),
        }),
    }
}

fn sensors() -> Vec<IpmiSensor> {
    let sensor = |number, name: &str, kind, unit, multiplier, result_exponent, raw| IpmiSensor {
        record: SensorRecord {
            name: name.to_owned(),
            owner: 0x20,
            lun: 0,
            number,
            entity: (7, 1),
            kind,
            event_type: 1,
            unit: Unit::new(0, unit, 0),
            conversion: Some(Conversion {
                format: Format::Unsigned,
                multiplier,
                offset: 0,
                offset_exponent: 0,
                result_exponent,
                linearization: 0,
            }),
        },
        raw: Some(raw),
        states: 0,
        thresholds: [None, None, None, Some(200), Some(220), None],
    };
    vec![
        sensor(1, "Inlet Temp", 0x01, 1, 1, 0, 23),
        sensor(2, "PSU1 Out", 0x02, 4, 61, -3, 200),
        sensor(3, "Fan 1a", 0x04, 18, 100, 0, 88),
    ]
}

fn log() -> Vec<SelEntry> {
    let event = |id, asserted| SelEntry {
        id,
        record: SelRecord::Event {
            at: EventTime::SinceStart(u32::from(id)),
            generator: 0x20,
            sensor_kind: 1,
            sensor: 1,
            asserted,
            event_type: 1,
            data: [0x57, 201, 200],
        },
    };
    vec![event(1, true), event(2, false)]
}
