//! Strings as FRU areas and SDRs hold them: a type, a length, and one of four encodings (Platform Management FRU Information
//! Storage Definition §13; IPMI 2.0 §43.15).

/// The encodings that a type/length byte names in its upper two bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Binary in FRU areas. In SDRs the same number means Unicode, which nobody sends.
    Binary,
    BcdPlus,
    SixBit,
    /// Latin-1 in English areas, else UTF-16.
    EightBit,
}

impl Encoding {
    pub(crate) fn of(type_length: u8) -> Self {
        match type_length >> 6 {
            0 => Self::Binary,
            1 => Self::BcdPlus,
            2 => Self::SixBit,
            _ => Self::EightBit,
        }
    }

    /// Bytes that so many characters take: SDRs count characters where FRU areas count bytes.
    pub(crate) fn bytes_for(self, characters: usize) -> usize {
        match self {
            Self::Binary | Self::EightBit => characters,
            Self::BcdPlus => characters.div_ceil(2),
            Self::SixBit => (characters * 6).div_ceil(8),
        }
    }

    /// The text, without what pads it; none when nothing is left.
    pub(crate) fn decode(self, bytes: &[u8], english: bool) -> Option<String> {
        let text = match self {
            Self::Binary if bytes.iter().all(|byte| *byte == 0) => String::new(),
            Self::Binary => hex::encode(bytes),
            Self::BcdPlus => bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]).map(bcd_plus).collect(),
            Self::SixBit => six_bit(bytes),
            Self::EightBit => eight_bit(bytes, english),
        };
        clean(&text)
    }
}

fn bcd_plus(digit: u8) -> char {
    match digit {
        0..=9 => char::from(b'0' + digit),
        10 => ' ',
        11 => '-',
        12 => '.',
        _ => char::REPLACEMENT_CHARACTER,
    }
}

/// Three bytes hold four characters, the first in the lowest bits; 0 is a space.
fn six_bit(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in bytes {
        bits |= u32::from(*byte) << count;
        count += 8;
        while count >= 6 {
            text.push(char::from(u8::try_from(bits & 0x3f).unwrap_or_default() + b' '));
            bits >>= 6;
            count -= 6;
        }
    }
    text
}

/// UTF-8 is what makers write who never read the specification; Latin-1 is what it says for English.
fn eight_bit(bytes: &[u8], english: bool) -> String {
    // Many areas claim another language and hold ASCII all the same.
    let ascii = bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | 0 if *byte != 0 || english));
    if !english && !ascii && bytes.len().is_multiple_of(2) {
        let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        return char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    }
    std::str::from_utf8(bytes)
        .map_or_else(|_| bytes.iter().map(|byte| char::from(*byte)).collect(), ToOwned::to_owned)
}

/// Padding off both ends; control characters, which could move a terminal's cursor, replaced.
fn clean(text: &str) -> Option<String> {
    let is_padding = |c: char| c.is_whitespace() || c == '\0' || c == '\u{ff}' || c == '\u{ffff}';
    let text = text.trim_matches(is_padding);
    let text: String =
        text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn six_bit_text_of_the_specification() {
        // The example of FRU Information Storage Definition §13.3.
        assert_eq!(Encoding::SixBit.decode(&[0x29, 0xdc, 0xa6], true).unwrap(), "IPMI");
    }

    #[test]
    fn bcd_plus_has_spaces_dashes_and_points() {
        assert_eq!(Encoding::BcdPlus.decode(&[0x12, 0xb3, 0xc4], true).unwrap(), "12-3.4");
    }

    #[test]
    fn latin_1_and_utf_8_are_told_apart() {
        assert_eq!(Encoding::EightBit.decode(b"M\xfcller", true).unwrap(), "Müller");
        assert_eq!(Encoding::EightBit.decode("Müller".as_bytes(), true).unwrap(), "Müller");
    }

    #[test]
    fn other_languages_are_utf_16_unless_they_are_plainly_ascii() {
        let utf_16: Vec<u8> = "联想".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(Encoding::EightBit.decode(&utf_16, false).unwrap(), "联想");
        let wide_ascii: Vec<u8> = "AB".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(Encoding::EightBit.decode(&wide_ascii, false).unwrap(), "AB");
        assert_eq!(Encoding::EightBit.decode(b"Lenovo", false).unwrap(), "Lenovo");
    }

    #[test]
    fn padding_is_no_text() {
        for bytes in [&b""[..], b"   ", b"\0\0", b"\xff\xff"] {
            assert_eq!(Encoding::EightBit.decode(bytes, true), None, "{bytes:?}");
        }
        assert_eq!(Encoding::EightBit.decode(b" SN1 \0\xff", true).unwrap(), "SN1");
    }

    #[test]
    fn control_characters_do_not_come_through() {
        assert_eq!(Encoding::EightBit.decode(b"a\x1b[2Jb", true).unwrap(), "a\u{fffd}[2Jb");
    }

    proptest! {
        #[test]
        fn whatever_bytes_come_in_nothing_panics(kind: u8, english: bool, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let text = Encoding::of(kind).decode(&bytes, english);
            prop_assert!(text.is_none_or(|text| !text.is_empty() && !text.chars().any(char::is_control)));
        }
    }
}
