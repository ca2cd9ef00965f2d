//! RMCP, the envelope of every datagram on UDP port 623 (DSP0136 §3.2.2; IPMI 2.0 §13.1), and the ASF presence ping in it.

use crate::wire::{Malformed, Reader};

/// The UDP port of the primary RMCP bus.
pub const PORT: u16 = 623;

const VERSION: u8 = 0x06;
/// "No acknowledgement wanted": IPMI messages always carry it, and BMCs answer pings with it too.
const NO_ACK: u8 = 0xff;
/// ASF's IANA enterprise number, big-endian as ASF is.
const ASF_ENTERPRISE: [u8; 4] = 4542_u32.to_be_bytes();
const PING: u8 = 0x80;
const PONG: u8 = 0x40;
/// "IPMI supported" in a pong's entities.
const IPMI_SUPPORTED: u8 = 0x80;

/// What an RMCP datagram carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Alert Standard Format: pings and pongs.
    Asf,
    /// IPMI messages.
    Ipmi,
}

impl Class {
    fn byte(self) -> u8 {
        match self {
            Self::Asf => 0x06,
            Self::Ipmi => 0x07,
        }
    }
}

/// A datagram of this class.
pub fn encode(class: Class, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![VERSION, 0, NO_ACK, class.byte()];
    datagram.extend_from_slice(payload);
    datagram
}

/// What a datagram carries. Acknowledgements (bit 7 of the class) carry nothing and are malformed here.
pub fn decode(datagram: &[u8]) -> Result<(Class, &[u8]), Malformed> {
    let mut reader = Reader::new("the RMCP header", datagram);
    let [version, _, _, class] = reader.array()?;
    if version != VERSION {
        return Err(reader.malformed("has an unknown version"));
    }
    match class {
        0x06 => Ok((Class::Asf, reader.rest())),
        0x07 => Ok((Class::Ipmi, reader.rest())),
        _ => Err(reader.malformed("is of a class that is not ours")),
    }
}

/// The ASF message that asks "is anybody there?" (DSP0136 §3.2.4.2). Needs no session and no password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Echoed in the pong; 255 means that no answer is wanted.
    pub tag: u8,
}

impl Ping {
    /// The whole datagram.
    pub fn encode(self) -> Vec<u8> {
        let [a, b, c, d] = ASF_ENTERPRISE;
        encode(Class::Asf, &[a, b, c, d, PING, self.tag, 0, 0])
    }

    /// Reads an ASF payload.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let (tag, _) = asf(payload, PING, "the presence ping")?;
        Ok(Self { tag })
    }
}

/// The answer to a [`Ping`] (DSP0136 §3.2.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The ping's tag.
    pub tag: u8,
    /// Whether whoever answers says that it speaks IPMI.
    pub ipmi: bool,
}

impl Pong {
    /// The whole datagram.
    pub fn encode(self) -> Vec<u8> {
        let [a, b, c, d] = ASF_ENTERPRISE;
        let mut payload = vec![a, b, c, d, PONG, self.tag, 0, 16];
        payload.extend_from_slice(&ASF_ENTERPRISE);
        payload.extend_from_slice(&[0; 4]); // no OEM data
        // Entities: IPMI, ASF 1.0; then no interactions and six reserved bytes.
        payload.push(if self.ipmi { IPMI_SUPPORTED | 0x01 } else { 0x01 });
        payload.extend_from_slice(&[0; 7]);
        encode(Class::Asf, &payload)
    }

    /// Reads an ASF payload.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let (tag, mut data) = asf(payload, PONG, "the presence pong")?;
        data.take(8)?; // enterprise number and OEM data
        let entities = data.u8()?;
        Ok(Self { tag, ipmi: entities & IPMI_SUPPORTED != 0 })
    }
}

/// Tag and data of an ASF message of this type.
fn asf<'a>(payload: &'a [u8], kind: u8, what: &'static str) -> Result<(u8, Reader<'a>), Malformed> {
    let mut reader = Reader::new(what, payload);
    let enterprise: [u8; 4] = reader.array()?;
    let [message, tag, _, length] = reader.array()?;
    if enterprise != ASF_ENTERPRISE || message != kind {
        return Err(reader.malformed("is another ASF message"));
    }
    let data = reader.take(usize::from(length))?;
    Ok((tag, Reader::new(what, data)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ping_is_what_the_specification_prints() {
        assert_eq!(Ping { tag: 1 }.encode(), [6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x80, 1, 0, 0]);
    }

    #[test]
    fn a_pong_of_ipmi_sim_is_read() {
        let datagram = [
            6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x40, 9, 0, 16, 0, 0, 0x11, 0xbe, 0, 0, 0, 0, 0x81, 0, 0, 0, 0,
            0, 0, 0,
        ];
        let (class, payload) = decode(&datagram).unwrap();
        assert_eq!((class, Pong::decode(payload)), (Class::Asf, Ok(Pong { tag: 9, ipmi: true })));
    }

    #[test]
    fn a_ping_is_no_pong() {
        let ping = Ping { tag: 1 }.encode();
        assert!(Pong::decode(decode(&ping).unwrap().1).is_err());
    }

    proptest! {
        #[test]
        fn pings_and_pongs_come_back_as_they_were(tag: u8, ipmi: bool) {
            let (ping, pong) = (Ping { tag }, Pong { tag, ipmi });
            prop_assert_eq!(Ping::decode(decode(&ping.encode()).unwrap().1), Ok(ping));
            prop_assert_eq!(Pong::decode(decode(&pong.encode()).unwrap().1), Ok(pong));
        }

        #[test]
        fn whatever_bytes_come_in_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((_, payload)) = decode(&bytes) {
                let _ = (Ping::decode(payload), Pong::decode(payload));
            }
            let _ = (Ping::decode(&bytes), Pong::decode(&bytes));
        }
    }
}
