//! What a sensor reads (IPMI 2.0 §35.9, §35.14).

use crate::command::Command;
use crate::message::NetFn;
use crate::sdr::SensorRecord;

/// Names of what is sensed (table 42-3), from 0.
const KINDS: [&str; 0x2d] = [
    "Reserved",
    "Temperature",
    "Voltage",
    "Current",
    "Fan",
    "Physical Security",
    "Platform Security",
    "Processor",
    "Power Supply",
    "Power Unit",
    "Cooling Device",
    "Other Units",
    "Memory",
    "Drive Slot",
    "POST Memory Resize",
    "System Firmware Progress",
    "Event Logging Disabled",
    "Watchdog 1",
    "System Event",
    "Critical Interrupt",
    "Button",
    "Module",
    "Microcontroller",
    "Add-in Card",
    "Chassis",
    "Chip Set",
    "Other FRU",
    "Cable",
    "Terminator",
    "System Boot Initiated",
    "Boot Error",
    "OS Boot",
    "OS Stop",
    "Slot",
    "System ACPI Power State",
    "Watchdog 2",
    "Platform Alert",
    "Entity Presence",
    "Monitor ASIC",
    "LAN",
    "Management Subsystem Health",
    "Battery",
    "Session Audit",
    "Version Change",
    "FRU State",
];

/// What a kind of sensor senses, by its number.
pub fn kind_name(kind: u8) -> &'static str {
    match KINDS.get(usize::from(kind)) {
        Some(name) => name,
        None if kind >= 0xc0 => "OEM",
        None => "Reserved",
    }
}

/// How bad it is that a threshold is crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// No threshold is crossed.
    Ok,
    /// Non-critical.
    NonCritical,
    /// Critical.
    Critical,
    /// Non-recoverable: damage is to be expected.
    NonRecoverable,
}

/// The thresholds that can be read, in the sensor's unit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thresholds {
    /// Non-critical below.
    pub lower_non_critical: Option<f64>,
    /// Critical below.
    pub lower_critical: Option<f64>,
    /// Non-recoverable below.
    pub lower_non_recoverable: Option<f64>,
    /// Non-critical above.
    pub upper_non_critical: Option<f64>,
    /// Critical above.
    pub upper_critical: Option<f64>,
    /// Non-recoverable above.
    pub upper_non_recoverable: Option<f64>,
}

/// What came from Get Sensor Reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawReading {
    pub(crate) value: u8,
    /// It scans, and has scanned since it was started.
    pub(crate) usable: bool,
    /// Six crossed thresholds, or fifteen states.
    pub(crate) states: u16,
}

impl RawReading {
    pub(crate) fn get(sensor: &SensorRecord) -> Command<Self> {
        let name = "Get Sensor Reading";
        let command = Command::new(name, NetFn::SensorEvent, 0x2d, [sensor.number], |reader| {
            let [value, flags] = reader.array()?;
            // States may be missing where a sensor has none.
            let low = reader.optional_u8().unwrap_or(0);
            let high = reader.optional_u8().unwrap_or(0) & 0x7f;
            Ok(Self { value, usable: flags & 0x60 == 0x40, states: u16::from_le_bytes([low, high]) })
        });
        Command { lun: sensor.lun, ..command }
    }
}

/// What came from Get Sensor Thresholds: raw values, none where not readable.
pub(crate) type RawThresholds = [Option<u8>; 6];

pub(crate) fn get_thresholds(sensor: &SensorRecord) -> Command<RawThresholds> {
    let name = "Get Sensor Thresholds";
    let command = Command::new(name, NetFn::SensorEvent, 0x27, [sensor.number], |reader| {
        let readable = reader.u8()?;
        let mut thresholds = [None; 6];
        for (bit, threshold) in thresholds.iter_mut().enumerate() {
            *threshold = reader.optional_u8().filter(|_| readable >> bit & 1 != 0);
        }
        Ok(thresholds)
    });
    Command { lun: sensor.lun, ..command }
}

impl Thresholds {
    pub(crate) fn convert(raw: RawThresholds, sensor: &SensorRecord) -> Self {
        let convert = |raw: Option<u8>| sensor.conversion?.value(raw?);
        let [
            lower_non_critical,
            lower_critical,
            lower_non_recoverable,
            upper_non_critical,
            upper_critical,
            upper_non_recoverable,
        ] = raw.map(convert);
        Self {
            lower_non_critical,
            lower_critical,
            lower_non_recoverable,
            upper_non_critical,
            upper_critical,
            upper_non_recoverable,
        }
    }
}

/// What a sensor says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// A number, and whether it is a good one.
    Value {
        /// In the sensor's unit; none where the conversion is not linear.
        value: Option<f64>,
        /// As received.
        raw: u8,
        /// The worst threshold crossed.
        severity: Severity,
    },
    /// States: bit n is state n of the sensor's event type.
    States(
        /// Fifteen bits.
        u16,
    ),
    /// Nothing for now: scanning is off, or it has not scanned yet.
    Unavailable,
    /// It has another controller, to which we do not go.
    Elsewhere,
}

impl Reading {
    pub(crate) fn new(sensor: &SensorRecord, raw: RawReading) -> Self {
        match sensor.conversion {
            _ if !raw.usable => Self::Unavailable,
            Some(conversion) if sensor.has_thresholds() => Self::Value {
                value: conversion.value(raw.value),
                raw: raw.value,
                severity: severity(raw.states),
            },
            _ => Self::States(raw.states),
        }
    }
}

/// The worst of the thresholds crossed: bits 0 to 2 are below, 3 to 5 above, each from non-critical to non-recoverable.
fn severity(states: u16) -> Severity {
    match states & 0x3f {
        bits if bits & 0b10_0100 != 0 => Severity::NonRecoverable,
        bits if bits & 0b01_0010 != 0 => Severity::Critical,
        bits if bits & 0b00_1001 != 0 => Severity::NonCritical,
        _ => Severity::Ok,
    }
}

/// A sensor with what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensor {
    /// What its record says.
    pub record: SensorRecord,
    /// What it reads.
    pub reading: Reading,
    /// Its thresholds, if it has any.
    pub thresholds: Thresholds,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sdr::{Conversion, Format};
    use crate::unit::Unit;

    fn temperature() -> SensorRecord {
        SensorRecord {
            name: "Inlet Temp".to_owned(),
            owner: 0x20,
            lun: 1,
            number: 7,
            entity: (7, 1),
            kind: 1,
            event_type: 1,
            unit: Unit::new(0, 1, 0),
            conversion: Some(Conversion {
                format: Format::Unsigned,
                multiplier: 1,
                offset: 0,
                offset_exponent: 0,
                result_exponent: 0,
                linearization: 0,
            }),
        }
    }

    fn reading(sensor: &SensorRecord, answer: &[u8]) -> Reading {
        Reading::new(sensor, RawReading::get(sensor).decode(answer).unwrap())
    }

    #[test]
    fn a_reading_has_value_and_severity() {
        let value = |value, severity| Reading::Value { value: Some(f64::from(value)), raw: value, severity };
        assert_eq!(reading(&temperature(), &[24, 0x40, 0xc0]), value(24, Severity::Ok));
        assert_eq!(reading(&temperature(), &[24, 0xc0, 0b00_1000]), value(24, Severity::NonCritical));
        assert_eq!(reading(&temperature(), &[24, 0xc0, 0b01_1000]), value(24, Severity::Critical));
        assert_eq!(reading(&temperature(), &[24, 0xc0, 0b00_0111]), value(24, Severity::NonRecoverable));
    }

    #[test]
    fn a_sensor_that_does_not_scan_has_no_value() {
        assert_eq!(reading(&temperature(), &[24, 0x00, 0]), Reading::Unavailable);
        assert_eq!(reading(&temperature(), &[24, 0x60, 0]), Reading::Unavailable);
    }

    #[test]
    fn a_discrete_sensor_has_states() {
        let presence = SensorRecord { conversion: None, event_type: 0x6f, ..temperature() };
        assert_eq!(reading(&presence, &[0, 0x40, 0x02, 0x81]), Reading::States(0x0102));
    }

    #[test]
    fn only_readable_thresholds_count() {
        let raw = get_thresholds(&temperature()).decode(&[0b01_1000, 1, 2, 3, 90, 95, 99]).unwrap();
        let found = Thresholds::convert(raw, &temperature());
        let expected = Thresholds {
            upper_non_critical: Some(90.0),
            upper_critical: Some(95.0),
            ..Thresholds::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn the_sensors_own_unit_is_asked() {
        assert_eq!((RawReading::get(&temperature()).lun, get_thresholds(&temperature()).lun), (1, 1));
    }

    proptest! {
        #[test]
        fn whatever_bytes_come_in_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let sensor = temperature();
            let _ = get_thresholds(&sensor).decode(&bytes);
            if let Ok(raw) = RawReading::get(&sensor).decode(&bytes) {
                let _ = Reading::new(&sensor, raw);
            }
        }
    }
}
