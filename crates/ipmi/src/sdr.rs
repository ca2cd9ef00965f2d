//! Sensor data records (IPMI 2.0 §33, §35, §43): which sensors there are, and what their raw readings mean.

use crate::command::{Command, Part, part, part_wanted, reservation};
use crate::message::NetFn;
use crate::text::Encoding;
use crate::unit::Unit;
use crate::wire::{Malformed, Reader};

/// Bytes of a record's header, its length the last of them.
pub(crate) const HEADER: usize = 5;

/// Where records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// The repository, which most BMCs have.
    Repository,
    /// The sensor device's own list.
    Device,
}

impl Store {
    pub(crate) fn reserve(self) -> Command<u16> {
        match self {
            Self::Repository => Command::new("Reserve SDR Repository", NetFn::Storage, 0x22, [], reservation),
            Self::Device => {
                Command::new("Reserve Device SDR Repository", NetFn::SensorEvent, 0x22, [], reservation)
            }
        }
    }

    pub(crate) fn read(self, reservation: u16, record: u16, offset: u8, count: u8) -> Command<Part> {
        let data = part_wanted(reservation, record, offset, count);
        match self {
            Self::Repository => Command::new("Get SDR", NetFn::Storage, 0x23, data, part),
            Self::Device => Command::new("Get Device SDR", NetFn::SensorEvent, 0x21, data, part),
        }
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The record's own id; never where in the list it was asked for.
    pub(crate) id: u16,
    pub(crate) kind: u8,
    /// Bytes that follow.
    pub(crate) length: u8,
}

impl Header {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("the SDR header", bytes);
        let id = reader.u16()?;
        let [_, kind, length] = reader.array()?;
        Ok(Self { id, kind, length })
    }
}

/// How the bits of a raw reading are a number (table 43-1, "Sensor Units 1").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 0 to 255.
    Unsigned,
    /// One's complement.
    OnesComplement,
    /// Two's complement.
    TwosComplement,
}

/// How raw readings of a sensor become values (§36.3): `L((M·x + B·10^b)·10^r)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conversion {
    /// What `x` is.
    pub format: Format,
    /// M, −512 to 511.
    pub multiplier: i16,
    /// B, −512 to 511.
    pub offset: i16,
    /// b, −8 to 7.
    pub offset_exponent: i8,
    /// r, −8 to 7.
    pub result_exponent: i8,
    /// L: 0 is none.
    pub linearization: u8,
}

impl Conversion {
    /// The value of a raw reading, in the sensor's unit. None where it needs factors of its own (non-linear sensors), and where
    /// the function has no value.
    pub fn value(self, raw: u8) -> Option<f64> {
        let x = match self.format {
            Format::OnesComplement if raw & 0x80 != 0 => -f64::from(!raw),
            Format::Unsigned | Format::OnesComplement => f64::from(raw),
            Format::TwosComplement => f64::from(raw.cast_signed()),
        };
        let ten_to = |exponent: i8| 10_f64.powi(i32::from(exponent));
        let offset = f64::from(self.offset) * ten_to(self.offset_exponent);
        // Dividing by a power of ten is exact where multiplying by its inverse is not: 61 · 10⁻³ shall be 0.061.
        let sum = f64::from(self.multiplier) * x + offset;
        let linear = match self.result_exponent {
            0.. => sum * ten_to(self.result_exponent),
            exponent => sum / ten_to(exponent.saturating_neg()),
        };
        let value = match self.linearization {
            0x00 => linear,
            0x01 => linear.ln(),
            0x02 => linear.log10(),
            0x03 => linear.log2(),
            0x04 => linear.exp(),
            0x05 => 10_f64.powf(linear),
            0x06 => linear.exp2(),
            0x07 => linear.recip(),
            0x08 => linear.powi(2),
            0x09 => linear.powi(3),
            0x0a => linear.sqrt(),
            0x0b => linear.cbrt(),
            _ => return None,
        };
        value.is_finite().then_some(value)
    }
}

/// What a record of a sensor says. Records shared by several sensors are one of these for each.
#[derive(Clone, Debug, PartialEq)]
pub struct SensorRecord {
    /// Its name: "Inlet Temp".
    pub name: String,
    /// The controller that has it; 0x20 is the BMC.
    pub owner: u8,
    /// The owner's logical unit.
    pub lun: u8,
    /// Its number there.
    pub number: u8,
    /// What it is a sensor of: entity id (table 43-13) and instance.
    pub entity: (u8, u8),
    /// What it senses (table 42-3).
    pub kind: u8,
    /// How its states are to be read: 1 is thresholds, 0x6f is by `kind` (table 42-1).
    pub event_type: u8,
    /// Unit of its values.
    pub unit: Unit,
    /// How raw readings become values; none for sensors that have states alone.
    pub conversion: Option<Conversion>,
}

impl SensorRecord {
    /// Whether its states are crossed thresholds.
    pub fn has_thresholds(&self) -> bool {
        self.event_type == 0x01
    }

    /// The sensors of a whole record, header included; none for other kinds of records.
    pub fn decode(bytes: &[u8]) -> Result<Vec<Self>, Malformed> {
        let header = Header::decode(bytes)?;
        let body = bytes.get(HEADER..).unwrap_or_default();
        match header.kind {
            0x01 => Self::full(body).map(|sensor| vec![sensor]),
            0x02 => Self::compact(body),
            _ => Ok(Vec::new()),
        }
    }

    /// What full and compact records begin with.
    fn key(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let [owner, lun, number, entity, instance] = reader.array()?;
        let [_, _, kind, event_type] = reader.array()?;
        reader.take(6)?; // which events it makes
        let [flags, base, modifier] = reader.array()?;
        Ok(Self {
            name: String::new(),
            owner,
            lun: lun & 0x03,
            number,
            entity: (entity, instance),
            kind,
            event_type,
            unit: Unit::new(flags, base, modifier),
            conversion: match flags >> 6 {
                0 => Some(Format::Unsigned),
                1 => Some(Format::OnesComplement),
                2 => Some(Format::TwosComplement),
                _ => None,
            }
            .map(|format| Conversion {
                format,
                multiplier: 1,
                offset: 0,
                offset_exponent: 0,
                result_exponent: 0,
                linearization: 0,
            }),
        })
    }

    /// §43.1.
    fn full(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("the full sensor record", body);
        let sensor = Self::key(&mut reader)?;
        let [linearization, m, m_high, b, b_high, _, exponents] = reader.array()?;
        reader.take(16)?; // nominal, normal, extreme readings; thresholds, hysteresis, reserved
        reader.u8()?; // OEM
        let name = name(&mut reader)?;
        let conversion = sensor.conversion.map(|conversion| Conversion {
            multiplier: ten_bits(m, m_high),
            offset: ten_bits(b, b_high),
            result_exponent: four_bits(exponents >> 4),
            offset_exponent: four_bits(exponents),
            linearization: linearization & 0x7f,
            ..conversion
        });
        Ok(Self { name, conversion, ..sensor })
    }

    /// §43.2: sensors of states, one record for up to sixteen of them.
    fn compact(body: &[u8]) -> Result<Vec<Self>, Malformed> {
        let mut reader = Reader::new("the compact sensor record", body);
        let sensor = Self { conversion: None, ..Self::key(&mut reader)? };
        let [sharing, modifier] = reader.array()?;
        reader.take(6)?; // hysteresis, reserved, OEM
        let name = name(&mut reader)?;
        let share = (sharing & 0x0f).max(1);
        let first = modifier & 0x7f;
        let instances_differ = modifier & 0x80 != 0;
        let labelled = |at: u8| match (share, sharing >> 4 & 0x03) {
            (1, _) => name.clone(),
            (_, 1) => format!("{name}{}", char::from(b'A'.saturating_add(first.saturating_add(at)))),
            _ => format!("{name}{}", u16::from(first) + u16::from(at)),
        };
        let one = |at: u8| Self {
            name: labelled(at),
            number: sensor.number.wrapping_add(at),
            entity: (
                sensor.entity.0,
                if instances_differ { sensor.entity.1.wrapping_add(at) } else { sensor.entity.1 },
            ),
            ..sensor.clone()
        };
        Ok((0..share).map(one).collect())
    }

    /// A full record of this sensor, as a BMC would keep it, with this id.
    pub fn encode(&self, id: u16) -> Vec<u8> {
        let [low, high] = id.to_le_bytes();
        let conversion = self.conversion;
        let format = match conversion.map(|conversion| conversion.format) {
            Some(Format::Unsigned) => 0,
            Some(Format::OnesComplement) => 1,
            Some(Format::TwosComplement) => 2,
            None => 3,
        };
        let [flags, base, modifier] = self.unit.encode();
        let (m, b) = conversion.map_or((1, 0), |c| (c.multiplier, c.offset));
        let (r, e) = conversion.map_or((0, 0), |c| (c.result_exponent, c.offset_exponent));
        let ([m, m_high], [b, b_high]) = (m.to_le_bytes(), b.to_le_bytes());
        let mut name = self.name.as_bytes().to_vec();
        name.truncate(16);
        let mut bytes = vec![low, high, 0x51, 0x01, 0];
        bytes.extend_from_slice(&[self.owner, self.lun, self.number, self.entity.0, self.entity.1]);
        bytes.extend_from_slice(&[0x40, 0, self.kind, self.event_type, 0, 0, 0, 0, 0x3f, 0x3f]);
        bytes.extend_from_slice(&[format << 6 | flags, base, modifier]);
        bytes.push(conversion.map_or(0, |c| c.linearization));
        bytes.extend_from_slice(&[m, m_high << 6, b, b_high << 6, 0]);
        bytes.push((r.cast_unsigned() & 0x0f) << 4 | e.cast_unsigned() & 0x0f);
        bytes.extend_from_slice(&[0; 17]);
        bytes.push(0xc0 | u8::try_from(name.len()).unwrap_or_default());
        bytes.extend(name);
        let length = u8::try_from(bytes.len() - HEADER).unwrap_or(u8::MAX);
        if let Some(place) = bytes.get_mut(4) {
            *place = length;
        }
        bytes
    }
}

/// The id string: its length counts characters (§43.15). A BMC may send fewer bytes than it says.
fn name(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let type_length = reader.u8()?;
    let encoding = match Encoding::of(type_length) {
        // Unicode, says the specification; nobody knows which kind, and nobody sends it.
        Encoding::Binary => Encoding::EightBit,
        other => other,
    };
    let length = encoding.bytes_for(usize::from(type_length & 0x1f));
    let rest = reader.rest();
    let bytes = rest.get(..length).unwrap_or(rest);
    Ok(encoding.decode(bytes, true).unwrap_or_default())
}

/// Ten bits in two's complement: eight in one byte, the upper two at the top of another.
fn ten_bits(low: u8, high: u8) -> i16 {
    let bits = i16::from(low) | i16::from(high >> 6) << 8;
    if bits & 0x200 == 0 { bits } else { bits - 0x400 }
}

/// Four bits in two's complement.
fn four_bits(bits: u8) -> i8 {
    (bits << 4).cast_signed() >> 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> impl Strategy<Value = SensorRecord> {
        let conversion = (
            prop_oneof![Just(Format::Unsigned), Just(Format::OnesComplement), Just(Format::TwosComplement)],
            -512_i16..512,
            -512_i16..512,
            -8_i8..8,
            -8_i8..8,
            0_u8..0x80,
        )
            .prop_map(
                |(format, multiplier, offset, offset_exponent, result_exponent, linearization)| Conversion {
                    format,
                    multiplier,
                    offset,
                    offset_exponent,
                    result_exponent,
                    linearization,
                },
            );
        let place = (any::<u8>(), 0_u8..4, any::<u8>(), any::<(u8, u8)>(), any::<u8>(), any::<u8>());
        let unit = (0_u8..0x40, any::<u8>(), any::<u8>())
            .prop_map(|(flags, base, modifier)| Unit::new(flags, base, modifier));
        ("[!-~]([ -~]{0,14}[!-~])?", place, unit, prop::option::of(conversion)).prop_map(
            |(name, (owner, lun, number, entity, kind, event_type), unit, conversion)| SensorRecord {
                name,
                owner,
                lun,
                number,
                entity,
                kind,
                event_type,
                unit,
                conversion,
            },
        )
    }

    fn conversion() -> Conversion {
        Conversion {
            format: Format::Unsigned,
            multiplier: 61,
            offset: 0,
            offset_exponent: 0,
            result_exponent: -3,
            linearization: 0,
        }
    }

    #[test]
    fn a_voltage_is_converted_without_a_tail_of_digits() {
        assert_eq!(conversion().value(200), Some(12.2));
    }

    #[test]
    fn negative_temperatures_are_below_zero() {
        let twos =
            Conversion { format: Format::TwosComplement, multiplier: 1, result_exponent: 0, ..conversion() };
        assert_eq!(twos.value(0xf6), Some(-10.0));
        let ones = Conversion { format: Format::OnesComplement, ..twos };
        assert_eq!(ones.value(0xf5), Some(-10.0));
        let shifted = Conversion { offset: -5, offset_exponent: 1, ..twos };
        assert_eq!(shifted.value(10), Some(-40.0));
    }

    #[test]
    fn what_needs_other_factors_has_no_value() {
        assert_eq!(Conversion { linearization: 0x70, ..conversion() }.value(1), None);
        assert_eq!(Conversion { linearization: 0x07, ..conversion() }.value(0), None);
    }

    /// Made by sdrcomp of OpenIPMI: its six-bit name has four characters in three bytes.
    #[test]
    fn a_name_in_six_bits_counts_characters() {
        let body = [
            0x20, 0, 2, 0x0a, 1, 0x45, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0x3d, 0, 0, 1, 1, 0xd0, 0, 0,
            0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x84, 0x70, 0x24, 0xd9,
        ];
        let record = [&[3, 0, 0x51, 1, 0x2e][..], &body].concat();
        let sensors = SensorRecord::decode(&record).unwrap();
        assert_eq!((sensors.len(), sensors[0].name.as_str()), (1, "P12V"));
        assert_eq!(sensors[0].conversion.unwrap().value(200), Some(12.2));
        assert_eq!(sensors[0].unit.to_string(), "Volts");
    }

    #[test]
    fn a_shared_record_is_as_many_sensors() {
        let mut record = vec![9, 0, 0x51, 2, 0, 0x20, 0, 0x30, 0x20, 1, 0, 0, 0x25, 0x6f];
        record.extend([0; 6]);
        record.extend([0xc0, 0, 0, 0x03, 0x81, 0, 0, 0, 0, 0, 0]);
        record.extend(b"\xc4DIMM");
        let sensors = SensorRecord::decode(&record).unwrap();
        let found: Vec<_> = sensors.iter().map(|s| (s.name.as_str(), s.number, s.entity)).collect();
        assert_eq!(
            found,
            [("DIMM1", 0x30, (0x20, 1)), ("DIMM2", 0x31, (0x20, 2)), ("DIMM3", 0x32, (0x20, 3))]
        );
        record[23] |= 0x10;
        assert_eq!(SensorRecord::decode(&record).unwrap()[0].name, "DIMMB");
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_were(id: u16, record in records()) {
            let bytes = record.encode(id);
            prop_assert_eq!(Header::decode(&bytes).unwrap().id, id);
            prop_assert_eq!(SensorRecord::decode(&bytes), Ok(vec![record]));
        }

        #[test]
        fn whatever_bytes_come_in_nothing_panics(kind in 0_u8..4, raw: u8, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut ours = bytes.clone();
            ours.splice(0..0, [1, 0, 0x51, kind, 0]);
            for sensor in [SensorRecord::decode(&bytes), SensorRecord::decode(&ours)].into_iter().flatten().flatten() {
                prop_assert!(sensor.conversion.and_then(|c| c.value(raw)).is_none_or(f64::is_finite));
            }
        }
    }
}
