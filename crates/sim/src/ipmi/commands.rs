//! What a simulated BMC does with a command. Requests are taken apart here byte by byte, after the specification, so that they
//! are not read by what wrote them.

use ipmi::message::{Completion, NetFn, Request};
use ipmi::{BootDevice, Power};

use super::machine::{IpmiMachine, IpmiSensor};

type Answer = (Completion, Vec<u8>);

fn refuse(completion: Completion) -> Answer {
    (completion, Vec::new())
}

fn done() -> Answer {
    refuse(Completion::OK)
}

impl IpmiMachine {
    /// Carries a command out; its completion code, and data if that is success.
    pub(super) fn execute(&mut self, request: &Request) -> Answer {
        self.counters.commands += 1;
        if self.faults.busy > 0 {
            self.faults.busy -= 1;
            return refuse(Completion::BUSY);
        }
        let data = request.data.as_slice();
        match (request.correlation.netfn, request.correlation.command) {
            (NetFn::App, 0x01) => (Completion::OK, device_id()),
            (NetFn::App, 0x37) => (Completion::OK, self.guid.to_vec()),
            (NetFn::App, 0x38) => (Completion::OK, self.auth_capabilities()),
            (NetFn::App, 0x54) => (Completion::OK, self.cipher_suites(data)),
            (NetFn::App, 0x3b) => self.set_privilege(data),
            (NetFn::App, 0x3c) => done(),
            (NetFn::Chassis, 0x01) => (Completion::OK, vec![u8::from(self.power() == Power::On), 0, 0, 0]),
            (NetFn::Chassis, 0x02) => self.control(data),
            (NetFn::Chassis, 0x08) => self.set_boot_option(data),
            (NetFn::Chassis, 0x09) => self.get_boot_option(data),
            (NetFn::Storage, 0x10) => self.fru_info(data),
            (NetFn::Storage, 0x11) => self.read_fru(data),
            (NetFn::Storage, 0x20) => (Completion::OK, self.repository_info()),
            (NetFn::Storage, 0x22) => (Completion::OK, self.sdr_reservation.take().to_vec()),
            (NetFn::Storage, 0x42) => (Completion::OK, self.sel_reservation.take().to_vec()),
            (NetFn::Storage, 0x23) => self.read_sdr(data),
            (NetFn::Storage, 0x40) => (Completion::OK, self.sel_info()),
            (NetFn::Storage, 0x43) => self.read_sel(data),
            (NetFn::Transport, 0x02) => self.lan_parameter(data),
            (NetFn::SensorEvent, 0x2d) => self.sensor(data, reading),
            (NetFn::SensorEvent, 0x27) => self.sensor(data, thresholds),
            _ => refuse(Completion::INVALID_COMMAND),
        }
    }

    fn set_privilege(&self, data: &[u8]) -> Answer {
        match data {
            // 0: tell the present level.
            [0] => (Completion::OK, vec![self.privilege.number()]),
            [level] if *level <= self.privilege.number() => (Completion::OK, vec![*level]),
            [_] => refuse(Completion(0x81)),
            _ => refuse(Completion::LENGTH_INVALID),
        }
    }

    fn control(&mut self, data: &[u8]) -> Answer {
        let [order] = data else { return refuse(Completion::LENGTH_INVALID) };
        if *order == 1 && self.faults.refuse_on > 0 {
            self.faults.refuse_on -= 1;
            return refuse(Completion::WRONG_STATE);
        }
        if matches!(order, 2 | 3) && self.power() == Power::Off {
            return refuse(Completion::WRONG_STATE);
        }
        if self.faults.deaf {
            return done();
        }
        match order {
            0 | 5 => self.set_power(Power::Off),
            1 => self.set_power(Power::On),
            2 => self.cycle_power(),
            3 => {}
            _ => return refuse(Completion::INVALID_DATA),
        }
        self.counters.power_orders += 1;
        self.counters.resets += u64::from(matches!(order, 2 | 3));
        done()
    }

    fn set_boot_option(&mut self, data: &[u8]) -> Answer {
        match data {
            [3, bits] => self.boot.kept = bits & 0x08 != 0,
            [0 | 4, ..] => {}
            [5, bytes @ ..] if bytes.len() >= 5 => {
                if !self.faults.deaf {
                    self.boot.bytes.copy_from_slice(bytes.get(..5).unwrap_or(&[0; 5]));
                    self.boot.device = device(bytes.get(1).copied().unwrap_or_default());
                }
            }
            _ => return refuse(Completion::INVALID_DATA),
        }
        done()
    }

    fn get_boot_option(&self, data: &[u8]) -> Answer {
        match data {
            [5, _, _] => (Completion::OK, [&[1, 5][..], &self.boot.bytes].concat()),
            [_, _, _] => refuse(Completion(0x80)),
            _ => refuse(Completion::LENGTH_INVALID),
        }
    }

    /// Channel 1 is the only one; parameter 5 is the MAC address (§23.2).
    fn lan_parameter(&self, data: &[u8]) -> Answer {
        match data {
            [1 | 0x0e, 5, 0, 0] => (Completion::OK, [&[0x11][..], &self.mac].concat()),
            [1 | 0x0e, _, _, _] => refuse(Completion(0x80)),
            [_, _, _, _] => refuse(Completion::INVALID_DATA),
            _ => refuse(Completion::LENGTH_INVALID),
        }
    }

    fn fru_info(&self, data: &[u8]) -> Answer {
        match (data, &self.fru) {
            ([0], Some(fru)) => {
                let [low, high] = u16::try_from(fru.len()).unwrap_or(u16::MAX).to_le_bytes();
                (Completion::OK, vec![low, high, 0])
            }
            _ => refuse(Completion::NOT_PRESENT),
        }
    }

    fn read_fru(&self, data: &[u8]) -> Answer {
        let ([0, low, high, count], Some(fru)) = (data, &self.fru) else {
            return refuse(Completion::NOT_PRESENT);
        };
        match self.slice(fru, usize::from(u16::from_le_bytes([*low, *high])), *count) {
            Ok(bytes) => {
                let count = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
                (Completion::OK, [&[count], bytes].concat())
            }
            Err(completion) => refuse(completion),
        }
    }

    fn repository_info(&self) -> Vec<u8> {
        let [low, high] = u16::try_from(self.sensors.len()).unwrap_or(u16::MAX).to_le_bytes();
        // Version 1.5, room, two times, "reservations are supported".
        vec![0x51, low, high, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x02]
    }

    fn read_sdr(&mut self, data: &[u8]) -> Answer {
        let [r_low, r_high, low, high, offset, count] = data else {
            return refuse(Completion::LENGTH_INVALID);
        };
        let disturbed = self.disturbed();
        if !self.sdr_reservation.holds([*r_low, *r_high], *offset, disturbed) {
            return refuse(Completion::RESERVATION_CANCELLED);
        }
        let position = usize::from(u16::from_le_bytes([*low, *high]));
        let Some(sensor) = self.sensors.get(position) else { return refuse(Completion::NOT_PRESENT) };
        let record = sensor.record.encode(u16::try_from(position).unwrap_or(u16::MAX));
        let next = match u16::try_from(position + 1) {
            Ok(next) if usize::from(next) < self.sensors.len() => next,
            _ if self.faults.endless_sensors => 0,
            _ => u16::MAX,
        };
        self.part(next, &record, *offset, *count)
    }

    fn sel_info(&self) -> Vec<u8> {
        let [low, high] = u16::try_from(self.sel.len()).unwrap_or(u16::MAX).to_le_bytes();
        vec![0x51, low, high, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x02]
    }

    fn read_sel(&mut self, data: &[u8]) -> Answer {
        let [r_low, r_high, low, high, offset, count] = data else {
            return refuse(Completion::LENGTH_INVALID);
        };
        let disturbed = self.disturbed();
        if !self.sel_reservation.holds([*r_low, *r_high], *offset, disturbed) {
            return refuse(Completion::RESERVATION_CANCELLED);
        }
        let wanted = u16::from_le_bytes([*low, *high]);
        let position = match wanted {
            0 => Some(0),
            u16::MAX => self.sel.len().checked_sub(1),
            id => self.sel.iter().position(|entry| entry.id == id),
        };
        let Some(entry) = position.and_then(|position| self.sel.get(position)) else {
            return refuse(Completion::NOT_PRESENT);
        };
        let next =
            position.and_then(|position| self.sel.get(position + 1)).map_or(u16::MAX, |entry| entry.id);
        self.part(next, &entry.encode(), *offset, *count)
    }

    /// Whether somebody else takes the reservation now.
    fn disturbed(&mut self) -> bool {
        let disturbed = self.faults.reservations_lost > 0;
        self.faults.reservations_lost -= u32::from(disturbed);
        disturbed
    }

    fn part(&self, next: u16, record: &[u8], offset: u8, count: u8) -> Answer {
        match self.slice(record, usize::from(offset), count) {
            Ok(bytes) => (Completion::OK, [&next.to_le_bytes()[..], bytes].concat()),
            Err(completion) => refuse(completion),
        }
    }

    /// Some bytes; 255 of them are "all".
    fn slice<'a>(&self, bytes: &'a [u8], offset: usize, count: u8) -> Result<&'a [u8], Completion> {
        let rest = bytes.get(offset..).filter(|rest| !rest.is_empty()).ok_or(Completion::OUT_OF_RANGE)?;
        let wanted = rest.get(..usize::from(count)).unwrap_or(rest);
        match self.faults.largest_read {
            Some(largest) if wanted.len() > usize::from(largest) => Err(Completion::TOO_MANY_BYTES),
            _ => Ok(wanted),
        }
    }

    fn sensor(&self, data: &[u8], answer: fn(&IpmiSensor) -> Option<Vec<u8>>) -> Answer {
        let sensor = data.first().and_then(|number| self.sensors.iter().find(|s| s.record.number == *number));
        match sensor.and_then(answer) {
            Some(data) => (Completion::OK, data),
            None => refuse(Completion::NOT_PRESENT),
        }
    }
}

/// Who may read records in parts. Only the last one who asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reservation(u16);

impl Reservation {
    /// A new one; those before hold no more.
    fn take(&mut self) -> [u8; 2] {
        self.0 = self.0.wrapping_add(1).max(1);
        self.0.to_le_bytes()
    }

    /// Whether it is the last one given. 0 is none, with which a record may be read from its beginning (§33.12).
    fn holds(&mut self, reservation: [u8; 2], offset: u8, disturbed: bool) -> bool {
        if disturbed {
            self.take();
        }
        let reservation = u16::from_le_bytes(reservation);
        reservation == self.0 || reservation == 0 && offset == 0
    }
}

/// A BMC with everything: SDR repository, SEL, FRU inventory, chassis, sensors.
fn device_id() -> Vec<u8> {
    vec![0x20, 0x01, 0x02, 0x17, 0x02, 0x8f, 0, 0, 0, 1, 0]
}

fn device(byte: u8) -> BootDevice {
    match byte >> 2 & 0x0f {
        0 => BootDevice::None,
        1 => BootDevice::Pxe,
        2 => BootDevice::Disk,
        5 => BootDevice::Cdrom,
        6 => BootDevice::Bios,
        other => BootDevice::Other(other),
    }
}

fn reading(sensor: &IpmiSensor) -> Option<Vec<u8>> {
    let [low, high] = sensor.states.to_le_bytes();
    // Events and scanning are on.
    Some(vec![sensor.raw?, 0xc0, low | 0xc0, high])
}

fn thresholds(sensor: &IpmiSensor) -> Option<Vec<u8>> {
    // A sensor that is not there has none either.
    sensor.raw?;
    let mut answer = vec![0];
    for (bit, threshold) in sensor.thresholds.iter().enumerate() {
        if let Some(readable) = answer.first_mut() {
            *readable |= u8::from(threshold.is_some()) << bit;
        }
        answer.push(threshold.unwrap_or_default());
    }
    Some(answer)
}
