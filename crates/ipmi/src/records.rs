//! Records that are read in parts under a reservation: FRU inventory, SDRs, SEL entries.

use std::collections::BTreeSet;

use domain::Problem;

use crate::client::Client;
use crate::command::{Command, Part};
use crate::device::DeviceId;
use crate::error::{self, Error};
use crate::fru::{self, Fru};
use crate::message::Completion;
use crate::sdr::{HEADER, Header, SensorRecord, Store};
use crate::sel::{self, SelEntry, SelInfo, SelPage};
use crate::sensor::{RawReading, Reading, Sensor, Thresholds, get_thresholds};

/// Bytes read at once, to begin with: fits every LAN channel; less is tried when a BMC refuses.
const CHUNK: u8 = 32;
/// Less than this is not tried.
const SMALLEST_CHUNK: u8 = 8;
/// How often a record is begun again because the reservation was lost.
const RESERVATIONS: u32 = 5;
/// The BMC's own slave address, in a sensor's record.
const BMC: u8 = 0x20;

/// What a list of records holds, and what in it could not be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing<T> {
    /// In the BMC's order.
    pub items: Vec<T>,
    /// One for each flaw.
    pub problems: Vec<Problem>,
}

/// A reservation, and how much the BMC gives at once.
struct Access {
    store: Store,
    reservation: u16,
    chunk: u8,
}

impl Client {
    /// FRU inventory 0, the machine's own: none where the BMC has none. Reads the areas that are understood and no more.
    pub async fn fru(&self) -> Result<Option<Listing<Fru>>, Error> {
        let Some(info) = self.run_if_supported(&fru::area_info(0)).await? else { return Ok(None) };
        let size = usize::from(info.size);
        let mut reader = FruReader { client: self, by_words: info.by_words, chunk: CHUNK };
        let mut bytes = reader.read(0, HEADER_SIZE.min(size)).await?;
        let mut end = bytes.len();
        for offset in bytes.get(2..5).unwrap_or_default().to_vec() {
            let start = usize::from(offset) * 8;
            if (HEADER_SIZE..size).contains(&start) {
                let head = reader.read(start, 2.min(size - start)).await?;
                let length = head.get(1).map_or(0, |units| usize::from(*units) * 8);
                end = end.max(start + length.max(HEADER_SIZE));
            }
        }
        bytes.extend(reader.read(bytes.len(), end.min(size).saturating_sub(bytes.len())).await?);
        let (fru, problems) = Fru::decode(&bytes);
        Ok(Some(Listing { items: vec![fru], problems }))
    }

    /// The sensors that the BMC lists. Costs several commands for each; keep the result while the BMC's firmware stays.
    pub async fn sensor_records(&self) -> Result<Listing<SensorRecord>, Error> {
        let device = self.run(&DeviceId::get()).await?;
        let store = if device.has_sdr_repository() || !device.device_sdrs {
            Store::Repository
        } else {
            Store::Device
        };
        let reservation = self.run_if_supported(&store.reserve()).await?.unwrap_or(0);
        let mut access = Access { store, reservation, chunk: CHUNK };
        let mut listing = Listing { items: Vec::new(), problems: Vec::new() };
        let (mut id, mut seen) = (0, BTreeSet::from([0]));
        loop {
            let record = match self.record(&mut access, id).await {
                // An empty repository has not even a first record.
                Err(Error::Refused { completion: Completion::NOT_PRESENT, .. }) if id == 0 => break,
                other => other?,
            };
            match SensorRecord::decode(&record.bytes) {
                Ok(sensors) => listing.items.extend(sensors),
                Err(malformed) => {
                    let message = format!("sensor record {id:#06x}: {malformed}");
                    listing
                        .problems
                        .push(error::problem("ipmi.record.malformed", message).at(format!("sdr/{id:#06x}")));
                }
            }
            if record.next == u16::MAX {
                break;
            }
            if !seen.insert(record.next) {
                let message = format!("after sensor record {id:#06x} comes {:#06x} again", record.next);
                listing
                    .problems
                    .push(error::problem("ipmi.record.malformed", message).at(format!("sdr/{id:#06x}")));
                break;
            }
            id = record.next;
        }
        Ok(listing)
    }

    /// What these sensors say now, with their thresholds. One command a sensor, two where it has thresholds.
    pub async fn readings(&self, records: &[SensorRecord]) -> Result<Listing<Sensor>, Error> {
        let mut listing = Listing { items: Vec::new(), problems: Vec::new() };
        for record in records {
            let mut sensor = Sensor {
                record: record.clone(),
                reading: Reading::Elsewhere,
                thresholds: Thresholds::default(),
            };
            if record.owner == BMC {
                sensor.reading = self.reading(record, &mut listing.problems).await?;
                if record.has_thresholds() && matches!(sensor.reading, Reading::Value { .. }) {
                    let raw = self.run_if_supported(&get_thresholds(record)).await?.unwrap_or_default();
                    sensor.thresholds = Thresholds::convert(raw, record);
                }
            }
            listing.items.push(sensor);
        }
        Ok(listing)
    }

    /// All sensors of the BMC and what they say.
    pub async fn sensors(&self) -> Result<Listing<Sensor>, Error> {
        let records = self.sensor_records().await?;
        let mut sensors = self.readings(&records.items).await?;
        sensors.problems.splice(0..0, records.problems);
        Ok(sensors)
    }

    async fn reading(&self, record: &SensorRecord, problems: &mut Vec<Problem>) -> Result<Reading, Error> {
        match self.run(&RawReading::get(record)).await {
            Ok(raw) => Ok(Reading::new(record, raw)),
            // Records of parts that are not fitted are common.
            Err(Error::Refused { completion: Completion::NOT_PRESENT | Completion::WRONG_STATE, .. }) => {
                Ok(Reading::Unavailable)
            }
            Err(error @ (Error::Refused { .. } | Error::Malformed { .. } | Error::Unsupported { .. })) => {
                let message = format!("sensor {}: {error}", record.name);
                problems.push(
                    error::problem("ipmi.sensor.unreadable", message).at(format!("sensor/{}", record.number)),
                );
                Ok(Reading::Unavailable)
            }
            Err(error) => Err(error),
        }
    }

    /// One SDR, from its beginning again when the reservation is lost.
    async fn record(&self, access: &mut Access, id: u16) -> Result<Part, Error> {
        for _ in 0..RESERVATIONS {
            match self.record_once(access, id).await {
                Err(Error::Refused { completion: Completion::RESERVATION_CANCELLED, .. }) => {
                    access.reservation = self.run(&access.store.reserve()).await?;
                }
                other => return other,
            }
        }
        Err(Error::Unstable { what: "the sensor data repository" })
    }

    async fn record_once(&self, access: &mut Access, id: u16) -> Result<Part, Error> {
        let header = u8::try_from(HEADER).unwrap_or(u8::MAX);
        let mut record = self.run(&access.store.read(access.reservation, id, 0, header)).await?;
        let wanted = Header::decode(&record.bytes).map_or(0, |header| HEADER + usize::from(header.length));
        while record.bytes.len() < wanted {
            let Ok(offset) = u8::try_from(record.bytes.len()) else { break };
            let left = u8::try_from(wanted - record.bytes.len()).unwrap_or(u8::MAX);
            let read = |count: u8| access.store.read(access.reservation, id, offset, count);
            let part = self.chunk(left, &mut access.chunk, read).await?;
            if part.bytes.is_empty() {
                break;
            }
            record.bytes.extend(part.bytes);
        }
        Ok(record)
    }

    /// Reads at most `left` bytes; asks for less at once when the BMC finds it too much, and remembers.
    async fn chunk<T>(&self, left: u8, chunk: &mut u8, read: impl Fn(u8) -> Command<T>) -> Result<T, Error> {
        loop {
            match self.run(&read(left.min(*chunk))).await {
                Err(Error::Refused { completion, .. })
                    if completion.read_too_long() && left.min(*chunk) > SMALLEST_CHUNK =>
                {
                    *chunk = (left.min(*chunk) / 2).max(SMALLEST_CHUNK);
                }
                other => return other,
            }
        }
    }

    /// How full the system event log is.
    pub async fn sel_info(&self) -> Result<SelInfo, Error> {
        self.run(&SelInfo::get()).await
    }

    /// At most `limit` entries of the log, from the one with this id, or from the oldest. An id that is gone is
    /// [`Error::Refused`] with [`Completion::NOT_PRESENT`]: the log was cleared.
    pub async fn sel_page(&self, from: Option<u16>, limit: usize) -> Result<SelPage, Error> {
        let mut page = SelPage::default();
        let mut reservation = self.run_if_supported(&sel::reserve()).await?.unwrap_or(0);
        let mut id = from.unwrap_or(0);
        let mut seen = BTreeSet::from([id]);
        while page.entries.len() + page.problems.len() < limit {
            let part = match self.sel_entry(&mut reservation, id).await {
                Err(Error::Refused { completion: Completion::NOT_PRESENT, .. }) if id == 0 => {
                    return Ok(page);
                }
                other => other?,
            };
            match SelEntry::decode(&part.bytes) {
                Ok(entry) => page.entries.push(entry),
                Err(malformed) => {
                    let message = format!("log entry {id:#06x}: {malformed}");
                    page.problems
                        .push(error::problem("ipmi.record.malformed", message).at(format!("sel/{id:#06x}")));
                }
            }
            // An end, and a list that bites its own tail, end the reading.
            if part.next == u16::MAX || !seen.insert(part.next) {
                return Ok(page);
            }
            id = part.next;
        }
        page.next = Some(id);
        Ok(page)
    }

    /// The whole log, oldest entry first.
    pub async fn sel(&self) -> Result<Listing<SelEntry>, Error> {
        let page = self.sel_page(None, usize::MAX).await?;
        Ok(Listing { items: page.entries, problems: page.problems })
    }

    async fn sel_entry(&self, reservation: &mut u16, id: u16) -> Result<Part, Error> {
        for _ in 0..RESERVATIONS {
            match self.run(&sel::get(*reservation, id)).await {
                Err(Error::Refused { completion: Completion::RESERVATION_CANCELLED, .. }) => {
                    *reservation = self.run(&sel::reserve()).await?;
                }
                other => return other,
            }
        }
        Err(Error::Unstable { what: "the system event log" })
    }
}

/// Bytes of a FRU inventory's header.
const HEADER_SIZE: usize = 8;

struct FruReader<'a> {
    client: &'a Client,
    by_words: bool,
    chunk: u8,
}

impl FruReader<'_> {
    /// So many bytes from here; fewer where the inventory ends before it says.
    async fn read(&mut self, start: usize, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let left = u8::try_from(length - bytes.len()).unwrap_or(u8::MAX);
            let (by_words, at) = (self.by_words, start + bytes.len());
            let unit = if by_words { 2 } else { 1 };
            let Ok(offset) = u16::try_from(at / unit) else { break };
            // What is read begins on a whole unit; areas do, being multiples of eight.
            let read = |count: u8| fru::read(0, offset, if by_words { count.div_ceil(2) } else { count });
            let part = match self.client.chunk(left, &mut self.chunk, read).await {
                Err(Error::Refused { completion: Completion::OUT_OF_RANGE, .. }) => break,
                other => other?,
            };
            if part.is_empty() {
                break;
            }
            bytes.extend(part);
        }
        bytes.truncate(length);
        Ok(bytes)
    }
}
