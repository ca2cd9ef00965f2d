//! A command: what is sent, how the answer is read, and whether it may be sent twice.

use crate::message::NetFn;
use crate::wire::{Malformed, Reader};

/// What happens when no answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Sent again: doing it twice is the same as doing it once.
    Yes,
    /// Not sent again: a BMC that froze for a while (quirk 39) would reset the host once for each datagram.
    Never,
}

/// A command whose answer is a `T`.
#[derive(Clone, Debug)]
pub(crate) struct Command<T> {
    /// Its name in the specification, for messages.
    pub(crate) name: &'static str,
    pub(crate) netfn: NetFn,
    pub(crate) number: u8,
    pub(crate) lun: u8,
    pub(crate) data: Vec<u8>,
    pub(crate) repeat: Repeat,
    pub(crate) read: fn(&mut Reader<'_>) -> Result<T, Malformed>,
}

impl<T> Command<T> {
    /// For logical unit 0, and harmless when sent twice.
    pub(crate) fn new(
        name: &'static str,
        netfn: NetFn,
        number: u8,
        data: impl Into<Vec<u8>>,
        read: fn(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Self {
        Self { name, netfn, number, lun: 0, data: data.into(), repeat: Repeat::Yes, read }
    }

    /// Reads the answer's data.
    pub(crate) fn decode(&self, data: &[u8]) -> Result<T, Malformed> {
        (self.read)(&mut Reader::new(self.name, data))
    }
}

/// For commands that answer with nothing.
#[expect(clippy::unnecessary_wraps, reason = "the other readers may fail, and all have one type")]
pub(crate) fn nothing(_: &mut Reader<'_>) -> Result<(), Malformed> {
    Ok(())
}

/// For commands that answer with one byte.
pub(crate) fn byte(reader: &mut Reader<'_>) -> Result<u8, Malformed> {
    reader.u8()
}

/// A reservation's number.
pub(crate) fn reservation(reader: &mut Reader<'_>) -> Result<u16, Malformed> {
    reader.u16()
}

/// A part of a record, with the id of the record that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) next: u16,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn part(reader: &mut Reader<'_>) -> Result<Part, Malformed> {
    Ok(Part { next: reader.u16()?, bytes: reader.rest().to_vec() })
}

/// The parameters of Get SDR and Get SEL Entry.
pub(crate) fn part_wanted(reservation: u16, record: u16, offset: u8, count: u8) -> Vec<u8> {
    let ([a, b], [c, d]) = (reservation.to_le_bytes(), record.to_le_bytes());
    vec![a, b, c, d, offset, count]
}
