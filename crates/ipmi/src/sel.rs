//! The system event log (IPMI 2.0 §31, §32).

use jiff::Timestamp;

use crate::command::{Command, Part, part, part_wanted, reservation};
use crate::message::NetFn;
use crate::wire::{Malformed, Reader};

/// Below this a time counts seconds since the BMC started, before its clock was set (§37.1).
const FIRST_REAL_TIME: u32 = 0x2000_0000;

/// Get SEL Info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelInfo {
    /// Entries in the log.
    pub entries: u16,
    /// Bytes free; 0xffff means at least as many.
    pub free: u16,
    /// When the last entry came, in the BMC's time.
    pub last_added: EventTime,
    /// When the log was last cleared, in the BMC's time.
    pub last_erased: EventTime,
    /// Whether events were lost because it was full.
    pub overflow: bool,
}

impl SelInfo {
    pub(crate) fn get() -> Command<Self> {
        Command::new("Get SEL Info", NetFn::Storage, 0x40, [], |reader| {
            reader.u8()?; // version
            Ok(Self {
                entries: reader.u16()?,
                free: reader.u16()?,
                last_added: EventTime::from_seconds(reader.u32()?),
                last_erased: EventTime::from_seconds(reader.u32()?),
                overflow: reader.u8()? & 0x80 != 0,
            })
        })
    }
}

/// When something happened, as far as the BMC knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventTime {
    /// By the BMC's clock, which may be wrong (quirk 41) and is often set to local time.
    At(
        /// Read as if it were UTC.
        Timestamp,
    ),
    /// Seconds after it started; its clock was not set yet.
    SinceStart(
        /// Seconds.
        u32,
    ),
    /// Not told.
    Unknown,
}

impl EventTime {
    fn from_seconds(seconds: u32) -> Self {
        match seconds {
            u32::MAX => Self::Unknown,
            0..FIRST_REAL_TIME => Self::SinceStart(seconds),
            _ => Timestamp::from_second(i64::from(seconds)).map_or(Self::Unknown, Self::At),
        }
    }

    fn seconds(self) -> u32 {
        match self {
            Self::At(time) => u32::try_from(time.as_second()).unwrap_or(u32::MAX),
            Self::SinceStart(seconds) => seconds,
            Self::Unknown => u32::MAX,
        }
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelEntry {
    /// Its id; ids neither begin at 1 nor rise everywhere.
    pub id: u16,
    /// What it says.
    pub record: SelRecord,
}

/// The kinds of entries (§32.1 to §32.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelRecord {
    /// An event of a sensor.
    Event {
        /// When.
        at: EventTime,
        /// Who says so: slave address or software id, and channel and unit.
        generator: u16,
        /// What is sensed (table 42-3).
        sensor_kind: u8,
        /// The sensor's number.
        sensor: u8,
        /// Whether a state was reached; else it was left.
        asserted: bool,
        /// How the data are to be read (table 42-1).
        event_type: u8,
        /// The data; the lower half of the first byte is the state.
        data: [u8; 3],
    },
    /// In the maker's own way, with a time.
    OemTimed {
        /// 0xc0 to 0xdf.
        kind: u8,
        /// When.
        at: EventTime,
        /// The maker's IANA enterprise number.
        manufacturer: u32,
        /// As received.
        data: [u8; 6],
    },
    /// In the maker's own way.
    Oem {
        /// 0xe0 to 0xff, and reserved kinds.
        kind: u8,
        /// As received.
        data: [u8; 13],
    },
}

impl SelEntry {
    /// Reads one of sixteen bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("the SEL entry", bytes);
        let (id, kind) = (reader.u16()?, reader.u8()?);
        let record = match kind {
            0x02 => {
                let at = EventTime::from_seconds(reader.u32()?);
                let generator = reader.u16()?;
                let [_, sensor_kind, sensor, event, a, b, c] = reader.array()?;
                let (asserted, event_type) = (event & 0x80 == 0, event & 0x7f);
                SelRecord::Event { at, generator, sensor_kind, sensor, asserted, event_type, data: [a, b, c] }
            }
            0xc0..=0xdf => SelRecord::OemTimed {
                kind,
                at: EventTime::from_seconds(reader.u32()?),
                manufacturer: reader.u24()?,
                data: reader.array()?,
            },
            _ => SelRecord::Oem { kind, data: reader.array()? },
        };
        Ok(Self { id, record })
    }

    /// The sixteen bytes.
    pub fn encode(&self) -> [u8; 16] {
        let mut bytes = self.id.to_le_bytes().to_vec();
        match &self.record {
            SelRecord::Event { at, generator, sensor_kind, sensor, asserted, event_type, data } => {
                bytes.push(0x02);
                bytes.extend_from_slice(&at.seconds().to_le_bytes());
                bytes.extend_from_slice(&generator.to_le_bytes());
                let event = u8::from(!asserted) << 7 | event_type & 0x7f;
                bytes.extend_from_slice(&[0x04, *sensor_kind, *sensor, event]);
                bytes.extend_from_slice(data);
            }
            SelRecord::OemTimed { kind, at, manufacturer, data } => {
                bytes.push(*kind);
                bytes.extend_from_slice(&at.seconds().to_le_bytes());
                bytes.extend_from_slice(manufacturer.to_le_bytes().get(..3).unwrap_or_default());
                bytes.extend_from_slice(data);
            }
            SelRecord::Oem { kind, data } => {
                bytes.push(*kind);
                bytes.extend_from_slice(data);
            }
        }
        bytes.try_into().unwrap_or_default()
    }
}

/// Some entries, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelPage {
    /// In the log's order.
    pub entries: Vec<SelEntry>,
    /// The id to go on from; none at the end.
    pub next: Option<u16>,
    /// What could not be read, and why.
    pub problems: Vec<domain::Problem>,
}

pub(crate) fn reserve() -> Command<u16> {
    Command::new("Reserve SEL", NetFn::Storage, 0x42, [], reservation)
}

/// A whole entry.
pub(crate) fn get(reservation: u16, record: u16) -> Command<Part> {
    Command::new("Get SEL Entry", NetFn::Storage, 0x43, part_wanted(reservation, record, 0, 0xff), part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_is_read() {
        let bytes = [1, 0, 2, 0, 0xe4, 0x0b, 0x67, 0x20, 0, 4, 1, 1, 0x81, 0x57, 0x70, 0x60];
        let SelRecord::Event { at, sensor_kind, sensor, asserted, event_type, data, .. } =
            SelEntry::decode(&bytes).unwrap().record
        else {
            panic!("an event")
        };
        assert_eq!(at, EventTime::At("2024-10-13T15:15:12Z".parse().unwrap()));
        assert_eq!((sensor_kind, sensor, asserted, event_type), (1, 1, false, 1));
        assert_eq!(data, [0x57, 0x70, 0x60]);
    }

    #[test]
    fn a_bmc_without_clock_counts_from_its_start() {
        assert_eq!(EventTime::from_seconds(90), EventTime::SinceStart(90));
        assert_eq!(EventTime::from_seconds(u32::MAX), EventTime::Unknown);
    }

    proptest! {
        #[test]
        fn whatever_entry_comes_in_goes_out_the_same(mut bytes: [u8; 16]) {
            // The version of the event's format is not kept: there is one.
            if bytes[2] == 2 {
                bytes[9] = 4;
            }
            prop_assert_eq!(SelEntry::decode(&bytes).unwrap().encode(), bytes);
        }

        #[test]
        fn whatever_bytes_come_in_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            prop_assert_eq!(SelEntry::decode(&bytes).is_ok(), bytes.len() >= 16);
        }
    }
}
