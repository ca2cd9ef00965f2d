//! RMCP+ packets (IPMI 2.0 §13.6): plain while a session is being made, signed and encrypted within one.

use crate::suite::{Keys, same};
use crate::wire::{Malformed, Reader};

/// "RMCP+" in the authentication type's place.
const FORMAT: u8 = 0x06;
const ENCRYPTED: u8 = 0x80;
const AUTHENTICATED: u8 = 0x40;
/// Closes the integrity padding (§13.28.4).
const NEXT_HEADER: u8 = 0x07;

/// What a packet carries (table 13-16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadType {
    /// An IPMI message.
    Ipmi,
    /// Open Session Request.
    OpenSessionRequest,
    /// Open Session Response.
    OpenSessionResponse,
    /// RAKP message 1.
    Rakp1,
    /// RAKP message 2.
    Rakp2,
    /// RAKP message 3.
    Rakp3,
    /// RAKP message 4.
    Rakp4,
}

impl PayloadType {
    fn number(self) -> u8 {
        match self {
            Self::Ipmi => 0x00,
            Self::OpenSessionRequest => 0x10,
            Self::OpenSessionResponse => 0x11,
            Self::Rakp1 => 0x12,
            Self::Rakp2 => 0x13,
            Self::Rakp3 => 0x14,
            Self::Rakp4 => 0x15,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [
            Self::Ipmi,
            Self::OpenSessionRequest,
            Self::OpenSessionResponse,
            Self::Rakp1,
            Self::Rakp2,
            Self::Rakp3,
            Self::Rakp4,
        ]
        .into_iter()
        .find(|kind| kind.number() == number)
    }
}

/// A packet of a session's making: no session, no signature.
pub fn encode_plain(kind: PayloadType, payload: &[u8]) -> Vec<u8> {
    let mut packet = header(kind.number(), 0, 0, payload.len());
    packet.extend_from_slice(payload);
    packet
}

/// Kind and payload of a packet of a session's making.
pub fn decode_plain(packet: &[u8]) -> Result<(PayloadType, &[u8]), Malformed> {
    let (header, mut reader) = Header::decode(packet)?;
    if header.kind & (ENCRYPTED | AUTHENTICATED) != 0 || header.session != 0 {
        return Err(reader.malformed("belongs to a session"));
    }
    let kind =
        PayloadType::from_number(header.kind).ok_or_else(|| reader.malformed("is of no known type"))?;
    Ok((kind, reader.take(header.length)?))
}

/// An IPMI message within a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The receiver's session id.
    pub session: u32,
    /// Never 0; each packet of a session has its own.
    pub sequence: u32,
    /// The message.
    pub message: Vec<u8>,
}

impl Sealed {
    /// Encrypts and signs. The vector must be random and new for every packet.
    pub fn encode(&self, keys: &Keys, vector: [u8; 16]) -> Vec<u8> {
        let payload = keys.encrypt(&self.message, vector);
        let kind = PayloadType::Ipmi.number() | ENCRYPTED | AUTHENTICATED;
        let mut packet = header(kind, self.session, self.sequence, payload.len());
        packet.extend_from_slice(&payload);
        // What is signed must be a multiple of four long, pad length and next header included.
        let padding = (4 - (packet.len() + 2) % 4) % 4;
        packet.extend(std::iter::repeat_n(0xff, padding));
        packet.extend_from_slice(&[u8::try_from(padding).unwrap_or_default(), NEXT_HEADER]);
        let code = keys.sign(&packet);
        packet.extend_from_slice(&code);
        packet
    }

    /// Checks the signature before anything else is believed, then decrypts.
    pub fn decode(keys: &Keys, packet: &[u8]) -> Result<Self, Malformed> {
        let (header, mut reader) = Header::decode(packet)?;
        if header.kind != PayloadType::Ipmi.number() | ENCRYPTED | AUTHENTICATED {
            return Err(reader.malformed("is not a signed and encrypted IPMI message"));
        }
        let split = packet.len().saturating_sub(keys.suite().short_code_length());
        let (signed, code) = packet.split_at_checked(split).unwrap_or_default();
        if !same(&keys.sign(signed), code) {
            return Err(reader.malformed("is not signed with the session's key"));
        }
        let message = keys.decrypt(reader.take(header.length)?)?;
        Ok(Self { session: header.session, sequence: header.sequence, message })
    }

    /// The session that a packet claims, before anything was checked: a BMC needs it to find the keys.
    pub fn claimed_session(packet: &[u8]) -> Option<u32> {
        Header::decode(packet).ok().map(|(header, _)| header.session)
    }
}

struct Header {
    kind: u8,
    session: u32,
    sequence: u32,
    length: usize,
}

impl Header {
    fn decode(packet: &[u8]) -> Result<(Self, Reader<'_>), Malformed> {
        let mut reader = Reader::new("the RMCP+ packet", packet);
        if reader.u8()? != FORMAT {
            return Err(reader.malformed("is not RMCP+"));
        }
        let kind = reader.u8()?;
        let (session, sequence) = (reader.u32()?, reader.u32()?);
        let length = usize::from(reader.u16()?);
        Ok((Self { kind, session, sequence, length }, reader))
    }
}

fn header(kind: u8, session: u32, sequence: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![FORMAT, kind];
    bytes.extend_from_slice(&session.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    bytes
}

/// Which sequence numbers came already (§6.12.13): each counts once, and none that is far behind the newest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    newest: u32,
    /// Bit n: `newest - n` came.
    seen: u32,
}

impl Window {
    /// Takes a number; false when it came before, is too old, or is 0, which no packet of a session has.
    pub fn take(&mut self, sequence: u32) -> bool {
        if sequence > self.newest {
            let ahead = sequence - self.newest;
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.newest = sequence;
            return true;
        }
        let behind = self.newest - sequence;
        let Some(bit) = 1_u32.checked_shl(behind) else { return false };
        let fresh = sequence != 0 && self.seen & bit == 0;
        self.seen |= bit;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::suite::tests::suites;

    proptest! {
        #[test]
        fn plain_packets_come_back_as_they_were(payload in prop::collection::vec(any::<u8>(), 0..100)) {
            let packet = encode_plain(PayloadType::Rakp1, &payload);
            prop_assert_eq!(decode_plain(&packet), Ok((PayloadType::Rakp1, &payload[..])));
        }

        #[test]
        fn sealed_packets_come_back_as_they_were(
            suite in suites(), session: u32, sequence: u32, vector: [u8; 16],
            message in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let keys = Keys::derive(suite, b"key");
            let sealed = Sealed { session, sequence, message };
            let packet = sealed.encode(&keys, vector);
            prop_assert_eq!((packet.len() - suite.short_code_length()) % 4, 0);
            prop_assert_eq!(Sealed::decode(&keys, &packet), Ok(sealed));
        }

        #[test]
        fn a_sealed_packet_with_one_wrong_byte_is_refused(
            suite in suites(), message in prop::collection::vec(any::<u8>(), 0..40), at: prop::sample::Index, by in 1_u8..,
        ) {
            let keys = Keys::derive(suite, b"key");
            let mut packet = Sealed { session: 1, sequence: 1, message }.encode(&keys, [3; 16]);
            let at = at.index(packet.len());
            packet[at] ^= by;
            prop_assert!(Sealed::decode(&keys, &packet).is_err());
        }

        #[test]
        fn a_packet_of_another_session_is_refused(suite in suites(), message in prop::collection::vec(any::<u8>(), 0..40)) {
            let packet = Sealed { session: 1, sequence: 1, message }.encode(&Keys::derive(suite, b"theirs"), [3; 16]);
            prop_assert!(Sealed::decode(&Keys::derive(suite, b"ours"), &packet).is_err());
        }

        #[test]
        fn whatever_bytes_come_in_nothing_panics(suite in suites(), bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let keys = Keys::derive(suite, b"key");
            let mut ours = bytes.clone();
            ours.splice(0..0, [FORMAT, ENCRYPTED | AUTHENTICATED]);
            let _ = (decode_plain(&bytes), Sealed::decode(&keys, &bytes), Sealed::decode(&keys, &ours));
            // Signed by whoever has the key, and nonsense all the same.
            ours.extend_from_slice(&keys.sign(&ours));
            let _ = Sealed::decode(&keys, &ours);
        }

        #[test]
        fn each_number_is_taken_once_and_only_near_the_newest(numbers in prop::collection::vec(0_u32..80, 0..200)) {
            let (mut window, mut taken, mut newest) = (Window::default(), BTreeSet::new(), 0);
            for number in numbers {
                let expected = number != 0 && !taken.contains(&number) && (number > newest || newest - number < 32);
                prop_assert_eq!(window.take(number), expected, "{} after {:?}", number, taken);
                newest = newest.max(number);
                if expected {
                    taken.insert(number);
                }
            }
        }
    }
}
