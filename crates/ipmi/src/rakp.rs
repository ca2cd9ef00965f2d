//! How a session is made (IPMI 2.0 §13.15 to §13.24): Open Session, then four messages in which both sides prove that they
//! know the password.
//!
//! RAKP message 2 is made from the password and given to whoever asks with a user name that exists, so anybody on the network can
//! guess at it in peace (a weakness of IPMI 2.0 itself): BMC passwords must be random.

use zeroize::Zeroizing;

use crate::suite::{Algorithms, CipherSuite, same};
use crate::wire::{Malformed, Reader};

/// User names are no longer (§13.20).
pub const USERNAME_LENGTH: usize = 16;
/// Passwords are no longer (§22.30).
pub const PASSWORD_LENGTH: usize = 20;
/// "Find the user by name alone", in the role's byte.
const NAME_ONLY: u8 = 0x10;

/// What a session may do (§6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Privilege {
    /// Read.
    User,
    /// Power and boot too.
    Operator,
    /// Everything.
    Administrator,
}

impl Privilege {
    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            Self::User => 2,
            Self::Operator => 3,
            Self::Administrator => 4,
        }
    }

    /// From a number; none for callback, OEM and reserved ones.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::User, Self::Operator, Self::Administrator].into_iter().find(|level| level.number() == number)
    }
}

impl std::fmt::Display for Privilege {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        })
    }
}

/// Why a BMC refuses to go on (table 13-15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(
    /// As sent; never 0.
    pub u8,
);

impl Status {
    /// No memory for another session.
    pub const INSUFFICIENT_RESOURCES: Self = Self(0x01);
    /// No such session.
    pub const INVALID_SESSION: Self = Self(0x02);
    /// No such authentication algorithm.
    pub const INVALID_AUTHENTICATION: Self = Self(0x04);
    /// No such integrity algorithm.
    pub const INVALID_INTEGRITY: Self = Self(0x05);
    /// The role is not for this user.
    pub const UNAUTHORIZED_ROLE: Self = Self(0x0a);
    /// No such user.
    pub const UNAUTHORIZED_NAME: Self = Self(0x0d);
    /// The proof is wrong.
    pub const INVALID_CODE: Self = Self(0x0f);
    /// No such combination of algorithms.
    pub const NO_CIPHER_SUITE: Self = Self(0x11);
    /// A parameter that it does not know.
    pub const ILLEGAL_PARAMETER: Self = Self(0x12);

    /// Whether another cipher suite may be taken.
    pub fn is_about_algorithms(self) -> bool {
        matches!(self.0, 0x04..=0x07 | 0x10 | 0x11)
    }

    /// Whether the role asked for is the reason.
    pub fn is_about_privilege(self) -> bool {
        matches!(self.0, 0x09 | 0x0a)
    }

    /// Whether another session has to end first.
    pub fn is_about_resources(self) -> bool {
        matches!(self.0, 0x01 | 0x0b)
    }

    /// Whether user name or password are the reason.
    pub fn is_about_credentials(self) -> bool {
        matches!(self.0, 0x0c..=0x0f)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self.0 {
            0x01 | 0x0b => "no resources for another session",
            0x02 => "no such session",
            0x03 => "no such payload type",
            0x04 => "no such authentication algorithm",
            0x05 => "no such integrity algorithm",
            0x06 | 0x07 => "no such payload",
            0x08 => "the session is not active",
            0x09 => "no such role",
            0x0a => "the role is not for this user",
            0x0c => "bad length of the name",
            0x0d => "no such user",
            0x0e => "another BMC was meant",
            0x0f => "wrong proof of the password",
            0x10 => "no such encryption algorithm",
            0x11 => "no such cipher suite",
            0x12 => "illegal parameter",
            _ => "unknown status",
        };
        write!(f, "{text} ({:#04x})", self.0)
    }
}

/// A BMC's answer on the way to a session: what it is about, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<T> {
    /// The tag of the message answered.
    pub tag: u8,
    /// The answer.
    pub outcome: Result<T, Status>,
}

impl<T> Reply<T> {
    /// The first two bytes of every answer, then the rest if it is no refusal: refusals come in any length (ipmi_sim's
    /// Open Session Response has two bytes; the same program's RAKP message 2 all of them).
    fn decode(
        what: &'static str,
        payload: &[u8],
        rest: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<Self, Malformed> {
        let mut reader = Reader::new(what, payload);
        let (tag, status) = (reader.u8()?, reader.u8()?);
        let outcome = if status == 0 { Ok(rest(&mut reader)?) } else { Err(Status(status)) };
        Ok(Self { tag, outcome })
    }

    fn head(&self) -> Vec<u8> {
        vec![self.tag, self.outcome.as_ref().err().map_or(0, |status| status.0)]
    }
}

/// Asks for a session (§13.17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSessionRequest {
    /// Echoed in the answer.
    pub tag: u8,
    /// The highest level asked for; none means "the highest there is".
    pub privilege: Option<Privilege>,
    /// Our name for the session.
    pub console_session: u32,
    /// The algorithms proposed.
    pub algorithms: Algorithms,
}

impl OpenSessionRequest {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.tag, self.privilege.map_or(0, Privilege::number), 0, 0];
        bytes.extend_from_slice(&self.console_session.to_le_bytes());
        encode_algorithms(self.algorithms, &mut bytes);
        bytes
    }

    /// Reads one, as a BMC does.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("the Open Session Request", payload);
        let [tag, privilege, _, _] = reader.array()?;
        let console_session = reader.u32()?;
        let algorithms = decode_algorithms(&mut reader)?;
        Ok(Self { tag, privilege: Privilege::from_number(privilege & 0x0f), console_session, algorithms })
    }
}

/// What the BMC grants (§13.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSession {
    /// Our name for the session.
    pub console_session: u32,
    /// The BMC's name for it.
    pub managed_session: u32,
    /// The algorithms chosen.
    pub algorithms: Algorithms,
}

impl Reply<OpenSession> {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.head();
        if let Ok(granted) = &self.outcome {
            bytes.extend_from_slice(&[Privilege::Administrator.number(), 0]);
            bytes.extend_from_slice(&granted.console_session.to_le_bytes());
            bytes.extend_from_slice(&granted.managed_session.to_le_bytes());
            encode_algorithms(granted.algorithms, &mut bytes);
        }
        bytes
    }

    /// Reads one.
    pub fn decode_open_session(payload: &[u8]) -> Result<Self, Malformed> {
        Self::decode("the Open Session Response", payload, |reader| {
            reader.take(2)?; // the highest level, and a reserved byte
            Ok(OpenSession {
                console_session: reader.u32()?,
                managed_session: reader.u32()?,
                algorithms: decode_algorithms(reader)?,
            })
        })
    }
}

fn encode_algorithms(algorithms: Algorithms, bytes: &mut Vec<u8>) {
    for (kind, number) in
        [algorithms.authentication, algorithms.integrity, algorithms.confidentiality].into_iter().enumerate()
    {
        bytes.extend_from_slice(&[u8::try_from(kind).unwrap_or_default(), 0, 0, 8, number, 0, 0, 0]);
    }
}

fn decode_algorithms(reader: &mut Reader<'_>) -> Result<Algorithms, Malformed> {
    let mut number = |wanted: u8| {
        let [kind, _, _, length, number, _, _, _] = reader.array()?;
        let known = kind == wanted && length == 8;
        if known { Ok(number & 0x3f) } else { Err(reader.malformed("has unknown algorithm payloads")) }
    };
    Ok(Algorithms { authentication: number(0)?, integrity: number(1)?, confidentiality: number(2)? })
}

/// The console's half of the challenge (§13.20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rakp1 {
    /// Echoed in the answer.
    pub tag: u8,
    /// The BMC's name for the session.
    pub managed_session: u32,
    /// Our random number.
    pub random: [u8; 16],
    /// Level and how to find the user, as one byte that goes into the proofs.
    pub role: u8,
    /// At most 16 bytes.
    pub username: Vec<u8>,
}

impl Rakp1 {
    /// The role's byte for a level, the user to be found by name alone.
    pub fn role(privilege: Privilege) -> u8 {
        NAME_ONLY | privilege.number()
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.tag, 0, 0, 0];
        bytes.extend_from_slice(&self.managed_session.to_le_bytes());
        bytes.extend_from_slice(&self.random);
        bytes.extend_from_slice(&[self.role, 0, 0, u8::try_from(self.username.len()).unwrap_or(u8::MAX)]);
        bytes.extend_from_slice(&self.username);
        bytes
    }

    /// Reads one, as a BMC does.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("RAKP message 1", payload);
        let [tag, _, _, _] = reader.array()?;
        let (managed_session, random) = (reader.u32()?, reader.array()?);
        let [role, _, _, length] = reader.array()?;
        if usize::from(length) > USERNAME_LENGTH {
            return Err(reader.malformed("has a user name that is too long"));
        }
        let username = reader.take(usize::from(length))?.to_vec();
        Ok(Self { tag, managed_session, random, role, username })
    }
}

/// The BMC's half of the challenge, with its proof (§13.21).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rakp2 {
    /// Our name for the session.
    pub console_session: u32,
    /// The BMC's random number.
    pub random: [u8; 16],
    /// The BMC's GUID.
    pub guid: [u8; 16],
    /// That the BMC knows the password.
    pub proof: Vec<u8>,
}

impl Reply<Rakp2> {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend_from_slice(&[0, 0]);
        if let Ok(message) = &self.outcome {
            bytes.extend_from_slice(&message.console_session.to_le_bytes());
            bytes.extend_from_slice(&message.random);
            bytes.extend_from_slice(&message.guid);
            bytes.extend_from_slice(&message.proof);
        }
        bytes
    }

    /// Reads one.
    pub fn decode_rakp2(payload: &[u8]) -> Result<Self, Malformed> {
        Self::decode("RAKP message 2", payload, |reader| {
            reader.take(2)?;
            Ok(Rakp2 {
                console_session: reader.u32()?,
                random: reader.array()?,
                guid: reader.array()?,
                proof: reader.rest().to_vec(),
            })
        })
    }
}

/// The console's proof, or why it gives up (§13.22).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rakp3 {
    /// Echoed in the answer.
    pub tag: u8,
    /// The BMC's name for the session.
    pub managed_session: u32,
    /// That we know the password; or that the BMC does not, whereupon it forgets the session.
    pub proof: Result<Vec<u8>, Status>,
}

impl Rakp3 {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.tag, self.proof.as_ref().err().map_or(0, |status| status.0), 0, 0];
        bytes.extend_from_slice(&self.managed_session.to_le_bytes());
        bytes.extend_from_slice(self.proof.as_deref().unwrap_or_default());
        bytes
    }

    /// Reads one, as a BMC does.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("RAKP message 3", payload);
        let [tag, status, _, _] = reader.array()?;
        let managed_session = reader.u32()?;
        let proof = if status == 0 { Ok(reader.rest().to_vec()) } else { Err(Status(status)) };
        Ok(Self { tag, managed_session, proof })
    }
}

/// The BMC's word that the session stands (§13.23).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rakp4 {
    /// Our name for the session.
    pub console_session: u32,
    /// That the BMC has the session integrity key.
    pub proof: Vec<u8>,
}

impl Reply<Rakp4> {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend_from_slice(&[0, 0]);
        if let Ok(message) = &self.outcome {
            bytes.extend_from_slice(&message.console_session.to_le_bytes());
            bytes.extend_from_slice(&message.proof);
        }
        bytes
    }

    /// Reads one.
    pub fn decode_rakp4(payload: &[u8]) -> Result<Self, Malformed> {
        Self::decode("RAKP message 4", payload, |reader| {
            reader.take(2)?;
            Ok(Rakp4 { console_session: reader.u32()?, proof: reader.rest().to_vec() })
        })
    }
}

/// All that the proofs of one session's making are made from (§13.31).
#[derive(Clone, Debug)]
pub struct Transcript {
    /// The suite agreed.
    pub suite: CipherSuite,
    /// Our name for the session.
    pub console_session: u32,
    /// The BMC's name for it.
    pub managed_session: u32,
    /// Our random number.
    pub console_random: [u8; 16],
    /// The BMC's.
    pub managed_random: [u8; 16],
    /// The BMC's GUID.
    pub guid: [u8; 16],
    /// The role's byte of RAKP message 1.
    pub role: u8,
    /// The user's name.
    pub username: Vec<u8>,
}

impl Transcript {
    fn user(&self) -> Vec<u8> {
        let mut bytes = vec![self.role, u8::try_from(self.username.len()).unwrap_or(u8::MAX)];
        bytes.extend_from_slice(&self.username);
        bytes
    }

    /// The BMC's proof in RAKP message 2.
    pub fn rakp2_proof(&self, password: &[u8]) -> Zeroizing<Vec<u8>> {
        self.suite.code(
            password,
            &[
                &self.console_session.to_le_bytes(),
                &self.managed_session.to_le_bytes(),
                &self.console_random,
                &self.managed_random,
                &self.guid,
                &self.user(),
            ],
        )
    }

    /// The console's proof in RAKP message 3.
    pub fn rakp3_proof(&self, password: &[u8]) -> Zeroizing<Vec<u8>> {
        let session = self.console_session.to_le_bytes();
        self.suite.code(password, &[&self.managed_random, &session, &self.user()])
    }

    /// The session integrity key; `key` is the BMC key Kg where one is set, else the password.
    pub fn session_integrity_key(&self, key: &[u8]) -> Zeroizing<Vec<u8>> {
        self.suite.code(key, &[&self.console_random, &self.managed_random, &self.user()])
    }

    /// The BMC's proof in RAKP message 4.
    pub fn rakp4_proof(&self, session_integrity_key: &[u8]) -> Zeroizing<Vec<u8>> {
        let session = self.managed_session.to_le_bytes();
        self.suite.short_code(session_integrity_key, &[&self.console_random, &session, &self.guid])
    }
}

/// Whether a proof is the one expected.
pub fn proven(proof: &[u8], expected: &[u8]) -> bool {
    same(proof, expected)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn algorithms() -> impl Strategy<Value = Algorithms> {
        (0_u8..64, 0_u8..64, 0_u8..64).prop_map(|(authentication, integrity, confidentiality)| Algorithms {
            authentication,
            integrity,
            confidentiality,
        })
    }

    fn outcomes<T: Clone + std::fmt::Debug>(
        message: impl Strategy<Value = T>,
    ) -> impl Strategy<Value = Result<T, Status>> {
        prop_oneof![message.prop_map(Ok), (1_u8..).prop_map(|status| Err(Status(status)))]
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..33)
    }

    #[test]
    fn a_refusal_is_read_whatever_its_length() {
        let reply = Reply::decode_open_session(&[1, 0x11]).unwrap();
        assert_eq!(reply.outcome, Err(Status::NO_CIPHER_SUITE));
        let reply = Reply::decode_rakp2(&[&[1, 0x0d][..], &[0; 58]].concat()).unwrap();
        assert_eq!(reply.outcome, Err(Status::UNAUTHORIZED_NAME));
    }

    #[test]
    fn another_password_gives_another_proof() {
        let transcript = Transcript {
            suite: CipherSuite::Suite17,
            console_session: 1,
            managed_session: 2,
            console_random: [3; 16],
            managed_random: [4; 16],
            guid: [5; 16],
            role: 0x14,
            username: b"admin".to_vec(),
        };
        assert!(proven(&transcript.rakp2_proof(b"right"), &transcript.rakp2_proof(b"right")));
        assert!(!proven(&transcript.rakp2_proof(b"right"), &transcript.rakp2_proof(b"wrong")));
        assert!(!proven(&[], &transcript.rakp2_proof(b"right")));
    }

    proptest! {
        #[test]
        fn open_session_comes_back_as_it_was(
            tag: u8, session: u32, algorithms in algorithms(),
            outcome in outcomes((any::<u32>(), any::<u32>(), algorithms()).prop_map(|(console_session, managed_session, algorithms)|
                OpenSession { console_session, managed_session, algorithms })),
        ) {
            let privilege = Some(Privilege::Operator);
            let request = OpenSessionRequest { tag, privilege, console_session: session, algorithms };
            prop_assert_eq!(OpenSessionRequest::decode(&request.encode()), Ok(request));
            let reply = Reply { tag, outcome };
            prop_assert_eq!(Reply::decode_open_session(&reply.encode()), Ok(reply));
        }

        #[test]
        fn rakp_messages_come_back_as_they_were(
            tag: u8, session: u32, random: [u8; 16], guid: [u8; 16], role: u8,
            username in prop::collection::vec(any::<u8>(), 0..=USERNAME_LENGTH), proof in outcomes(bytes()),
        ) {
            let one = Rakp1 { tag, managed_session: session, random, role, username };
            prop_assert_eq!(Rakp1::decode(&one.encode()), Ok(one));
            let outcome = proof.clone().map(|proof| Rakp2 { console_session: session, random, guid, proof });
            let two = Reply { tag, outcome };
            prop_assert_eq!(Reply::decode_rakp2(&two.encode()), Ok(two));
            let three = Rakp3 { tag, managed_session: session, proof: proof.clone() };
            prop_assert_eq!(Rakp3::decode(&three.encode()), Ok(three));
            let four = Reply { tag, outcome: proof.map(|proof| Rakp4 { console_session: session, proof }) };
            prop_assert_eq!(Reply::decode_rakp4(&four.encode()), Ok(four));
        }

        #[test]
        fn whatever_bytes_come_in_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = (OpenSessionRequest::decode(&bytes), Reply::decode_open_session(&bytes), Rakp1::decode(&bytes));
            let _ = (Reply::decode_rakp2(&bytes), Rakp3::decode(&bytes), Reply::decode_rakp4(&bytes));
        }
    }
}
