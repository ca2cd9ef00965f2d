//! IPMI messages as they travel over LAN (IPMI 2.0 §13.8), and the IPMI 1.5 session header around those that go without a
//! session (§13.6).

use crate::wire::{Malformed, Reader, checksum, intact};

/// The BMC's slave address.
const BMC: u8 = 0x20;
/// The remote console's software id (§5.5): system management software.
const CONSOLE: u8 = 0x81;

/// A group of commands (§5.1). Requests have the even number given here, responses the next odd one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetFn {
    /// Power and boot.
    Chassis,
    /// Sensors and device SDRs.
    SensorEvent,
    /// Device, sessions.
    App,
    /// FRU, SDR repository, SEL.
    Storage,
    /// The LAN channel's configuration.
    Transport,
    /// Any other.
    Other(
        /// Even.
        u8,
    ),
}

impl NetFn {
    /// The number of its requests.
    pub fn number(self) -> u8 {
        match self {
            Self::Chassis => 0x00,
            Self::SensorEvent => 0x04,
            Self::App => 0x06,
            Self::Storage => 0x0a,
            Self::Transport => 0x0c,
            Self::Other(number) => number & 0x3e,
        }
    }

    /// From the number of a request or response.
    pub fn from_number(number: u8) -> Self {
        match number & 0x3e {
            0x00 => Self::Chassis,
            0x04 => Self::SensorEvent,
            0x06 => Self::App,
            0x0a => Self::Storage,
            0x0c => Self::Transport,
            other => Self::Other(other),
        }
    }
}

/// What a response belongs to. A number of 64 repeats soon; the session's own sequence numbers tell old answers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correlation {
    /// Group of the command.
    pub netfn: NetFn,
    /// The command.
    pub command: u8,
    /// Logical unit of the BMC, 0 to 3: sensors may live on another than 0.
    pub lun: u8,
    /// The request's number, 0 to 63.
    pub sequence: u8,
}

impl Correlation {
    fn encode(self, to: u8, from: u8, netfn: u8, body: &[u8]) -> Vec<u8> {
        let response = netfn & 1 == 1;
        let (to_lun, from_lun) = if response { (0, self.lun & 3) } else { (self.lun & 3, 0) };
        let mut bytes = vec![to, netfn << 2 | to_lun];
        bytes.push(checksum(&bytes));
        bytes.extend_from_slice(&[from, self.sequence << 2 | from_lun, self.command]);
        bytes.extend_from_slice(body);
        bytes.push(checksum(bytes.get(3..).unwrap_or_default()));
        bytes
    }

    /// Reads a message and returns its network function, as sent, with what follows the command.
    fn decode<'a>(what: &'static str, message: &'a [u8]) -> Result<(Self, u8, Reader<'a>), Malformed> {
        let mut reader = Reader::new(what, message);
        let head: [u8; 3] = reader.array()?;
        let tail = reader.rest();
        if !intact(&head) || !intact(tail) {
            return Err(reader.malformed("fails its checksum"));
        }
        let body = tail.split_last().map_or(tail, |(_, body)| body);
        let mut reader = Reader::new(what, body);
        let [_, sequence_lun, command] = reader.array()?;
        let [_, netfn_lun, _] = head;
        let netfn = netfn_lun >> 2;
        let lun = if netfn & 1 == 1 { sequence_lun & 3 } else { netfn_lun & 3 };
        let correlation =
            Self { netfn: NetFn::from_number(netfn), command, lun, sequence: sequence_lun >> 2 };
        Ok((correlation, netfn, reader))
    }
}

/// A command for the BMC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What the response will carry too.
    pub correlation: Correlation,
    /// The command's parameters.
    pub data: Vec<u8>,
}

impl Request {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.correlation.encode(BMC, CONSOLE, self.correlation.netfn.number(), &self.data)
    }

    /// Reads one, as a BMC does.
    pub fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let (correlation, netfn, mut reader) = Correlation::decode("the request", message)?;
        if netfn & 1 == 1 {
            return Err(reader.malformed("is a response"));
        }
        Ok(Self { correlation, data: reader.rest().to_vec() })
    }
}

/// The BMC's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's.
    pub correlation: Correlation,
    /// Whether it was done (§5.2).
    pub completion: Completion,
    /// Empty unless it was.
    pub data: Vec<u8>,
}

impl Response {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![self.completion.0];
        body.extend_from_slice(&self.data);
        self.correlation.encode(CONSOLE, BMC, self.correlation.netfn.number() | 1, &body)
    }

    /// Reads one.
    pub fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let (correlation, netfn, mut reader) = Correlation::decode("the response", message)?;
        if netfn & 1 == 0 {
            return Err(reader.malformed("is a request"));
        }
        let completion = Completion(reader.u8()?);
        Ok(Self { correlation, completion, data: reader.rest().to_vec() })
    }
}

/// A completion code (§5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Completion(
    /// As the BMC sent it; 0 is success.
    pub u8,
);

impl Completion {
    /// Done.
    pub const OK: Self = Self(0x00);
    /// Busy: not even begun.
    pub const BUSY: Self = Self(0xc0);
    /// No such command here.
    pub const INVALID_COMMAND: Self = Self(0xc1);
    /// Timeout while processing; whether anything was done is unknown.
    pub const TIMEOUT: Self = Self(0xc3);
    /// Somebody else took the reservation (or what is reserved has changed).
    pub const RESERVATION_CANCELLED: Self = Self(0xc5);
    /// A wrong number of bytes in the request.
    pub const LENGTH_INVALID: Self = Self(0xc7);
    /// An offset or record beyond the end.
    pub const OUT_OF_RANGE: Self = Self(0xc9);
    /// More bytes asked for than it can return.
    pub const TOO_MANY_BYTES: Self = Self(0xca);
    /// No such sensor, record or device.
    pub const NOT_PRESENT: Self = Self(0xcb);
    /// A parameter that it does not take.
    pub const INVALID_DATA: Self = Self(0xcc);
    /// The SDR repository is being written.
    pub const REPOSITORY_UPDATING: Self = Self(0xd0);
    /// The firmware is being written.
    pub const FIRMWARE_UPDATING: Self = Self(0xd1);
    /// The BMC is starting.
    pub const STARTING: Self = Self(0xd2);
    /// The session's privilege is too low.
    pub const PRIVILEGE: Self = Self(0xd4);
    /// Not in the present state.
    pub const WRONG_STATE: Self = Self(0xd5);
    /// Anything else.
    pub const UNSPECIFIED: Self = Self(0xff);

    /// Whether the command was not begun and may be sent again soon.
    pub fn not_yet(self) -> bool {
        matches!(self, Self::BUSY | Self::REPOSITORY_UPDATING | Self::FIRMWARE_UPDATING | Self::STARTING)
    }

    /// Whether fewer bytes at once may help: BMCs say in many ways that a read was too long.
    pub fn read_too_long(self) -> bool {
        matches!(self, Self::TOO_MANY_BYTES | Self::LENGTH_INVALID | Self(0xc8) | Self::UNSPECIFIED)
    }
}

impl std::fmt::Display for Completion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

/// A message without session: the IPMI 1.5 header with authentication type, sequence and session all zero.
pub fn encode_sessionless(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 9];
    bytes.push(u8::try_from(message.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(message);
    bytes
}

/// The message in an IPMI 1.5 packet without session. Legacy pad bytes may follow it.
pub fn decode_sessionless(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new("the session header", bytes);
    let authentication = reader.u8()?;
    let session: [u8; 8] = reader.array()?;
    if authentication != 0 || session != [0; 8] {
        return Err(reader.malformed("belongs to a session"));
    }
    let length = reader.u8()?;
    reader.take(usize::from(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn correlations() -> impl Strategy<Value = Correlation> {
        (0_u8..0x20, any::<u8>(), 0_u8..4, 0_u8..64).prop_map(|(netfn, command, lun, sequence)| Correlation {
            netfn: NetFn::from_number(netfn << 1),
            command,
            lun,
            sequence,
        })
    }

    #[test]
    fn get_device_id_is_what_ipmitool_sends() {
        let request = Request {
            correlation: Correlation { netfn: NetFn::App, command: 0x01, lun: 0, sequence: 2 },
            data: vec![],
        };
        assert_eq!(request.encode(), [0x20, 0x18, 0xc8, 0x81, 0x08, 0x01, 0x76]);
    }

    #[test]
    fn a_request_is_no_response() {
        let correlation = Correlation { netfn: NetFn::App, command: 1, lun: 0, sequence: 0 };
        let request = Request { correlation, data: vec![0] }.encode();
        assert!(Response::decode(&request).is_err());
        let response = Response { correlation, completion: Completion::OK, data: vec![] }.encode();
        assert!(Request::decode(&response).is_err());
    }

    proptest! {
        #[test]
        fn messages_come_back_as_they_were(
            correlation in correlations(), code: u8, data in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let request = Request { correlation, data: data.clone() };
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
            let response = Response { correlation, completion: Completion(code), data };
            prop_assert_eq!(Response::decode(&response.encode()), Ok(response));
        }

        #[test]
        fn one_wrong_byte_is_noticed(
            correlation in correlations(), data in prop::collection::vec(any::<u8>(), 0..16), at: prop::sample::Index,
            by in 1_u8..,
        ) {
            let mut message = Response { correlation, completion: Completion::OK, data }.encode();
            let at = at.index(message.len());
            message[at] = message[at].wrapping_add(by);
            prop_assert!(Response::decode(&message).is_err());
        }

        #[test]
        fn whatever_bytes_come_in_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = (Request::decode(&bytes), Response::decode(&bytes), decode_sessionless(&bytes));
        }

        #[test]
        fn a_sessionless_packet_holds_its_message(message in prop::collection::vec(any::<u8>(), 0..200)) {
            let packet = encode_sessionless(&message);
            prop_assert_eq!(decode_sessionless(&packet), Ok(&message[..]));
        }
    }
}
