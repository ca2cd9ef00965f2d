//! FRU inventory: who made the machine and what its numbers are (Platform Management FRU Information Storage Definition 1.0,
//! revision 1.3). Real inventories lie about lengths and checksums, so each flaw costs one diagnostic and as little else as
//! possible.

use domain::Problem;

use crate::command::Command;
use crate::error;
use crate::message::NetFn;
use crate::text::Encoding;
use crate::wire::{Reader, checksum, intact};

/// Closes the fields of an area.
const END: u8 = 0xc1;
/// Offsets and lengths count in units of as many bytes.
const UNIT: usize = 8;
/// 1996-01-01T00:00:00Z, from which board dates count minutes.
const EPOCH: i64 = 820_454_400;

/// What an inventory says. All strings are trimmed; empty ones are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fru {
    /// The chassis info area.
    pub chassis: Option<Chassis>,
    /// The board info area.
    pub board: Option<Board>,
    /// The product info area: the machine as it is sold.
    pub product: Option<Product>,
}

/// The chassis info area (§10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chassis {
    /// SMBIOS's number for the form (23 is a rack-mounted chassis).
    pub kind: u8,
    /// Part number.
    pub part: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
}

/// The board info area (§11).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// When it was made.
    pub made: Option<jiff::Timestamp>,
    /// Maker.
    pub manufacturer: Option<String>,
    /// Product name.
    pub product: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Part number.
    pub part: Option<String>,
}

/// The product info area (§12).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Product {
    /// Maker.
    pub manufacturer: Option<String>,
    /// Product name.
    pub name: Option<String>,
    /// Part or model number.
    pub part: Option<String>,
    /// Version.
    pub version: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// The owner's asset tag.
    pub asset_tag: Option<String>,
}

/// Get FRU Inventory Area Info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AreaInfo {
    pub(crate) size: u16,
    /// Offsets and counts are in words of two bytes.
    pub(crate) by_words: bool,
}

pub(crate) fn area_info(device: u8) -> Command<AreaInfo> {
    Command::new("Get FRU Inventory Area Info", NetFn::Storage, 0x10, [device], |reader| {
        Ok(AreaInfo {
            size: reader.u16()?,
            by_words: reader.optional_u8().is_some_and(|flags| flags & 1 != 0),
        })
    })
}

/// The count returned is not asked for: what came is what there is.
pub(crate) fn read(device: u8, offset: u16, count: u8) -> Command<Vec<u8>> {
    let [low, high] = offset.to_le_bytes();
    Command::new("Read FRU Data", NetFn::Storage, 0x11, [device, low, high, count], |reader| {
        reader.u8()?;
        Ok(reader.rest().to_vec())
    })
}

impl Fru {
    /// Reads an inventory as far as it can be read; what is wrong with it is told beside.
    pub fn decode(bytes: &[u8]) -> (Self, Vec<Problem>) {
        let mut parser = Parser { bytes, problems: Vec::new() };
        let fru = parser.fru();
        (fru, parser.problems)
    }

    /// An inventory that says this. Strings are cut at 63 bytes, and areas hold at most 2040.
    pub fn encode(&self) -> Vec<u8> {
        let chassis =
            self.chassis.as_ref().map(|chassis| area(&[chassis.kind], &[&chassis.part, &chassis.serial]));
        let board = self.board.as_ref().map(|board| {
            let minutes = board.made.map_or(0, |made| (made.as_second() - EPOCH) / 60);
            let [a, b, c, _] = u32::try_from(minutes).unwrap_or_default().to_le_bytes();
            let fields = [&board.manufacturer, &board.product, &board.serial, &board.part, &None];
            area(&[0, a, b, c], &fields)
        });
        let product = self.product.as_ref().map(|product| {
            let Product { manufacturer, name, part, version, serial, asset_tag } = product;
            area(&[0], &[manufacturer, name, part, version, serial, asset_tag, &None])
        });
        let mut header = vec![1, 0];
        let mut areas = Vec::new();
        for found in [chassis, board, product] {
            let offset = found.as_ref().map_or(0, |_| UNIT + areas.len());
            header.push(u8::try_from(offset / UNIT).unwrap_or_default());
            areas.extend(found.unwrap_or_default());
        }
        header.extend_from_slice(&[0, 0]);
        header.push(checksum(&header));
        header.extend(areas);
        header
    }
}

fn area(head: &[u8], fields: &[&Option<String>]) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    bytes.extend_from_slice(head);
    for field in fields {
        let mut text = field.as_deref().unwrap_or_default().as_bytes().to_vec();
        text.truncate(63);
        // A length of one would be the end mark.
        if text.len() == 1 {
            text.push(b' ');
        }
        bytes.push(0xc0 | u8::try_from(text.len()).unwrap_or_default());
        bytes.extend(text);
    }
    bytes.push(END);
    bytes.resize((bytes.len() + 1).next_multiple_of(UNIT) - 1, 0);
    let units = u8::try_from((bytes.len() + 1) / UNIT).unwrap_or(u8::MAX);
    if let Some(length) = bytes.get_mut(1) {
        *length = units;
    }
    bytes.push(checksum(&bytes));
    bytes
}

struct Parser<'a> {
    bytes: &'a [u8],
    problems: Vec<Problem>,
}

/// The fields of one area, one after the other.
struct Fields<'a> {
    reader: Reader<'a>,
    english: bool,
    place: &'static str,
    ended: bool,
}

impl<'a> Parser<'a> {
    fn note(&mut self, code: &'static str, place: &str, message: String) {
        self.problems.push(error::problem(code, message).at(place));
    }

    fn fru(&mut self) -> Fru {
        let Some(header) = self.bytes.first_chunk::<8>().copied() else {
            self.note(
                "ipmi.fru.header",
                "header",
                format!("the FRU inventory has only {} bytes", self.bytes.len()),
            );
            return Fru::default();
        };
        let [version, _, chassis, board, product, ..] = header;
        if version & 0x0f != 1 {
            let message = format!("the FRU inventory has format {version:#04x} instead of 0x01");
            self.note("ipmi.fru.header", "header", message);
            return Fru::default();
        }
        if !intact(&header) {
            self.note("ipmi.fru.checksum", "header", "the header's checksum is wrong".to_owned());
        }
        Fru { chassis: self.chassis(chassis), board: self.board(board), product: self.product(product) }
    }

    fn chassis(&mut self, offset: u8) -> Option<Chassis> {
        let mut reader = self.area(offset, "chassis")?;
        let kind = reader.u8().ok()?;
        let mut fields = Fields::new(reader, 0, "chassis");
        Some(Chassis { kind, part: self.next(&mut fields), serial: self.next(&mut fields) })
    }

    fn board(&mut self, offset: u8) -> Option<Board> {
        let mut reader = self.area(offset, "board")?;
        let language = reader.u8().ok()?;
        let minutes = reader.u24().ok()?;
        let mut fields = Fields::new(reader, language, "board");
        let made = (minutes != 0).then(|| EPOCH + i64::from(minutes) * 60);
        Some(Board {
            made: made.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()),
            manufacturer: self.next(&mut fields),
            product: self.next(&mut fields),
            serial: self.next(&mut fields),
            part: self.next(&mut fields),
        })
    }

    fn product(&mut self, offset: u8) -> Option<Product> {
        let mut reader = self.area(offset, "product")?;
        let language = reader.u8().ok()?;
        let mut fields = Fields::new(reader, language, "product");
        Some(Product {
            manufacturer: self.next(&mut fields),
            name: self.next(&mut fields),
            part: self.next(&mut fields),
            version: self.next(&mut fields),
            serial: self.next(&mut fields),
            asset_tag: self.next(&mut fields),
        })
    }

    /// An area without its version and length. One that reaches beyond the end, or has no length, is read as far as there
    /// are bytes.
    fn area(&mut self, offset: u8, place: &'static str) -> Option<Reader<'a>> {
        let start = usize::from(offset) * UNIT;
        if start == 0 {
            return None;
        }
        let rest = self.bytes.get(start..).filter(|rest| rest.len() > 2);
        let Some((rest, length)) = rest.and_then(|rest| Some((rest, usize::from(*rest.get(1)?) * UNIT)))
        else {
            let message =
                format!("the area is said to begin at {start}, there are {} bytes", self.bytes.len());
            self.note("ipmi.fru.area", place, message);
            return None;
        };
        let area = if let Some(area) = rest.get(..length).filter(|_| length > 0) {
            if !intact(area) {
                self.note("ipmi.fru.checksum", place, "the area's checksum is wrong".to_owned());
            }
            area
        } else {
            let message = format!("the area is said to have {length} bytes, there are {}", rest.len());
            self.note("ipmi.fru.area", place, message);
            rest
        };
        Some(Reader::new(place, area.get(2..)?))
    }

    fn next(&mut self, fields: &mut Fields<'a>) -> Option<String> {
        if fields.ended {
            return None;
        }
        let type_length = fields.reader.u8().ok().filter(|byte| *byte != END);
        let Some(type_length) = type_length else {
            fields.ended = true;
            return None;
        };
        let length = usize::from(type_length & 0x3f);
        let bytes = fields.reader.take(length).unwrap_or_else(|_| {
            fields.ended = true;
            fields.reader.rest()
        });
        if bytes.len() < length {
            let message = format!("a field is said to have {length} bytes, there are {}", bytes.len());
            self.note("ipmi.fru.field", fields.place, message);
        }
        Encoding::of(type_length).decode(bytes, fields.english)
    }
}

impl<'a> Fields<'a> {
    /// Language codes 0 and 25 are English (§15).
    fn new(reader: Reader<'a>, language: u8, place: &'static str) -> Self {
        Self { reader, english: matches!(language, 0 | 25), place, ended: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strings() -> impl Strategy<Value = Option<String>> {
        prop::option::of("[!-~]([ -~]{0,61}[!-~])?")
    }

    fn frus() -> impl Strategy<Value = Fru> {
        let chassis = (any::<u8>(), strings(), strings()).prop_map(|(kind, part, serial)| Chassis {
            kind,
            part,
            serial,
        });
        let board = (1_i64..1 << 24, strings(), strings(), strings(), strings()).prop_map(
            |(minutes, manufacturer, product, serial, part)| Board {
                made: jiff::Timestamp::from_second(EPOCH + minutes * 60).ok(),
                manufacturer,
                product,
                serial,
                part,
            },
        );
        let product = (strings(), strings(), strings(), strings(), strings(), strings()).prop_map(
            |(manufacturer, name, part, version, serial, asset_tag)| Product {
                manufacturer,
                name,
                part,
                version,
                serial,
                asset_tag,
            },
        );
        (prop::option::of(chassis), prop::option::of(board), prop::option::of(product))
            .prop_map(|(chassis, board, product)| Fru { chassis, board, product })
    }

    fn server() -> Fru {
        Fru {
            chassis: Some(Chassis { kind: 23, part: Some("CH-1".into()), serial: Some("CHS123".into()) }),
            board: None,
            product: Some(Product {
                manufacturer: Some("Example".into()),
                name: Some("GPU Server 8".into()),
                serial: Some("PS123".into()),
                ..Product::default()
            }),
        }
    }

    fn codes(problems: &[Problem]) -> Vec<(&str, &str)> {
        problems.iter().map(|p| (p.code.as_str(), p.at.as_deref().unwrap_or_default())).collect()
    }

    #[test]
    fn a_wrong_checksum_of_an_area_costs_one_diagnostic() {
        let mut bytes = server().encode();
        *bytes.last_mut().unwrap() ^= 0x55;
        let (found, problems) = Fru::decode(&bytes);
        assert_eq!(found, server());
        assert_eq!(codes(&problems), [("ipmi.fru.checksum", "product")]);
    }

    #[test]
    fn an_area_that_claims_too_much_is_read_as_far_as_there_are_bytes() {
        let mut bytes = server().encode();
        let product = usize::from(bytes[4]) * UNIT;
        bytes[product + 1] = 200;
        let (found, problems) = Fru::decode(&bytes);
        assert_eq!(found, server());
        assert_eq!(codes(&problems), [("ipmi.fru.area", "product")]);
    }

    #[test]
    fn an_area_beyond_the_end_costs_that_area() {
        let mut bytes = server().encode();
        bytes[2] = 250;
        bytes[7] = checksum(&bytes[..7]);
        let (found, problems) = Fru::decode(&bytes);
        assert_eq!((found.chassis, found.product), (None, server().product));
        assert_eq!(codes(&problems), [("ipmi.fru.area", "chassis")]);
    }

    #[test]
    fn a_field_that_claims_too_much_costs_the_fields_behind_it() {
        let mut bytes = server().encode();
        let product = usize::from(bytes[4]) * UNIT;
        bytes[product + 3] = 0xff; // the maker's field: 63 bytes
        let (found, problems) = Fru::decode(&bytes);
        assert_eq!(found.chassis, server().chassis);
        assert_eq!(found.product.unwrap().serial, None);
        assert_eq!(codes(&problems), [("ipmi.fru.checksum", "product"), ("ipmi.fru.field", "product")]);
    }

    #[test]
    fn an_erased_inventory_says_so_once() {
        for bytes in [vec![0xff; 256], vec![0; 256], vec![]] {
            let (found, problems) = Fru::decode(&bytes);
            assert_eq!((found, codes(&problems)), (Fru::default(), vec![("ipmi.fru.header", "header")]));
        }
    }

    proptest! {
        #[test]
        fn inventories_come_back_as_they_were(fru in frus()) {
            prop_assert_eq!(Fru::decode(&fru.encode()), (fru, vec![]));
        }

        #[test]
        fn whatever_is_wrong_nothing_panics_and_areas_untouched_are_whole(
            fru in frus(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
        ) {
            let mut bytes = fru.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let product = usize::from(bytes[4]) * UNIT;
            if at >= 8 && at < product {
                prop_assert_eq!(Fru::decode(&bytes).0.product, fru.product);
            }
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(Fru::decode(&bytes).1.len() < 16);
        }

        #[test]
        fn whatever_bytes_come_in_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut ours = bytes.clone();
            ours.splice(0..0, [1, 0, 1, 2, 5, 0, 0, 0]);
            let _ = (Fru::decode(&bytes), Fru::decode(&ours));
        }
    }
}
