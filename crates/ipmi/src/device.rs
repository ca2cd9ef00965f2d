//! What the BMC is and what it offers (IPMI 2.0 §20.1, §20.8, §22.13).

use uuid::Uuid;

use crate::command::{Command, byte, nothing};
use crate::message::NetFn;
use crate::rakp::Privilege;
use crate::wire::{Malformed, Reader};

/// "The channel that this comes in by".
const THIS_CHANNEL: u8 = 0x0e;
/// In Get Channel Authentication Capabilities: "tell of IPMI 2.0 too".
const EXTENDED: u8 = 0x80;

/// Get Device ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceId {
    /// The maker's number for the kind of controller.
    pub device: u8,
    /// Its revision.
    pub revision: u8,
    /// Whether SDRs are asked of the sensor device instead of a repository.
    pub device_sdrs: bool,
    /// Whether it is at work; false while it starts or is being updated.
    pub available: bool,
    /// Firmware, as "2.17".
    pub firmware: String,
    /// The IPMI version it speaks, as "2.0".
    pub version: String,
    /// What else it is: bit 0 sensors, 1 SDR repository, 2 SEL, 3 FRU inventory, 7 chassis.
    pub support: u8,
    /// The maker's IANA enterprise number.
    pub manufacturer: u32,
    /// The maker's number for the product.
    pub product: u16,
    /// More about the firmware, in the maker's own way.
    pub auxiliary: Option<[u8; 4]>,
}

impl DeviceId {
    /// Whether it has an SDR repository.
    pub fn has_sdr_repository(&self) -> bool {
        self.support & 0x02 != 0
    }

    pub(crate) fn get() -> Command<Self> {
        Command::new("Get Device ID", NetFn::App, 0x01, [], Self::read)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let [device, revision, major, minor, version, support] = reader.array()?;
        Ok(Self {
            device,
            revision: revision & 0x0f,
            device_sdrs: revision & 0x80 != 0,
            available: major & 0x80 == 0,
            // The minor number is two decimal digits in BCD.
            firmware: format!("{}.{minor:02x}", major & 0x7f),
            // 0x51 is 1.5, 0x02 is 2.0: the digits are swapped.
            version: format!("{}.{}", version & 0x0f, version >> 4),
            support,
            manufacturer: reader.u24()?,
            product: reader.u16()?,
            auxiliary: reader.array().ok(),
        })
    }
}

/// The system's GUID, in whatever order of bytes the BMC chose: makers disagree, and nothing says which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemGuid(
    /// As received.
    pub [u8; 16],
);

/// How a GUID may be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuidLayout {
    /// As SMBIOS does: the first three fields little-endian.
    Smbios,
    /// As IPMI demands: all sixteen bytes backwards (§20.8).
    Ipmi,
    /// As RFC 9562 does: every field big-endian.
    Rfc9562,
}

impl SystemGuid {
    /// Read in one way.
    pub fn uuid(self, layout: GuidLayout) -> Uuid {
        match layout {
            GuidLayout::Smbios => Uuid::from_bytes_le(self.0),
            GuidLayout::Ipmi => {
                let mut bytes = self.0;
                bytes.reverse();
                Uuid::from_bytes(bytes)
            }
            GuidLayout::Rfc9562 => Uuid::from_bytes(self.0),
        }
    }

    /// All three readings, the most common one first. Compare a UUID known from elsewhere (Redfish, SMBIOS) with each.
    pub fn readings(self) -> [(GuidLayout, Uuid); 3] {
        [GuidLayout::Smbios, GuidLayout::Ipmi, GuidLayout::Rfc9562].map(|layout| (layout, self.uuid(layout)))
    }

    /// Whether it says anything: BMCs without one send all zeros or all ones.
    pub fn is_set(self) -> bool {
        self.0 != [0; 16] && self.0 != [0xff; 16]
    }

    pub(crate) fn get() -> Command<Self> {
        Command::new("Get System GUID", NetFn::App, 0x37, [], |reader| reader.array().map(Self))
    }
}

/// Get Channel Authentication Capabilities: what a BMC says before any login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthCapabilities {
    /// The channel asked.
    pub channel: u8,
    /// Whether it takes IPMI 2.0 sessions (RMCP+).
    pub ipmi_2_0: bool,
    /// Whether it takes IPMI 1.5 sessions, which nobody should have open.
    pub ipmi_1_5: bool,
    /// Whether a BMC key (Kg) is set, so that a login needs it beside the password.
    pub key_set: bool,
    /// Whether anybody may log in without name and password. A finding, not a convenience.
    pub anonymous: bool,
    /// The maker's IANA enterprise number where it tells; 0 where not.
    pub manufacturer: u32,
}

impl AuthCapabilities {
    pub(crate) fn get(privilege: Privilege, extended: bool) -> Command<Self> {
        let channel = THIS_CHANNEL | if extended { EXTENDED } else { 0 };
        let name = "Get Channel Authentication Capabilities";
        Command::new(name, NetFn::App, 0x38, [channel, privilege.number()], Self::read)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let [channel, types, status] = reader.array()?;
        // An IPMI 1.5 BMC may end here, or leave the rest zero.
        let extended = reader.optional_u8().unwrap_or(0);
        let manufacturer = reader.u24().unwrap_or(0);
        let tells_versions = types & 0x80 != 0;
        Ok(Self {
            channel: channel & 0x0f,
            ipmi_2_0: tells_versions && extended & 0x02 != 0,
            ipmi_1_5: !tells_versions || extended & 0x01 != 0,
            key_set: status & 0x20 != 0,
            anonymous: status & 0x01 != 0,
            manufacturer,
        })
    }
}

/// Raises or lowers what the session may do. Sessions begin at the user's level at most (§22.18).
pub(crate) fn set_session_privilege(privilege: Privilege) -> Command<u8> {
    Command::new("Set Session Privilege Level", NetFn::App, 0x3b, [privilege.number()], byte)
}

pub(crate) fn close_session(session: u32) -> Command<()> {
    Command::new("Close Session", NetFn::App, 0x3c, session.to_le_bytes(), nothing)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device(bytes: &[u8]) -> Result<DeviceId, Malformed> {
        DeviceId::read(&mut Reader::new("Get Device ID", bytes))
    }

    #[test]
    fn a_device_is_read() {
        let found = device(&[0x20, 0x81, 2, 0x17, 2, 0x9f, 0x91, 0x12, 0, 2, 0x0f]).unwrap();
        assert_eq!((found.firmware.as_str(), found.version.as_str()), ("2.17", "2.0"));
        assert_eq!((found.manufacturer, found.product), (4753, 3842));
        assert!(found.device_sdrs && found.has_sdr_repository() && found.available);
        assert_eq!((found.revision, found.auxiliary), (1, None));
    }

    #[test]
    fn a_controller_under_update_is_not_available() {
        assert!(!device(&[0x20, 1, 0x82, 0, 2, 0, 0, 0, 0, 0, 0]).unwrap().available);
    }

    #[test]
    fn an_old_bmc_offers_no_ipmi_2_0() {
        let bytes = [1, 0x15, 4, 0, 0, 0, 0, 0];
        let found = AuthCapabilities::read(&mut Reader::new("", &bytes)).unwrap();
        assert!(!found.ipmi_2_0 && found.ipmi_1_5);
    }

    #[test]
    fn one_guid_has_three_readings() {
        let guid = SystemGuid(*b"\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff");
        let [(_, smbios), (_, ipmi), (_, plain)] = guid.readings();
        assert_eq!(smbios.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(ipmi.to_string(), "ffeeddcc-bbaa-9988-6677-445500112233");
        assert_eq!(plain.to_string(), "33221100-5544-7766-8899-aabbccddeeff");
    }

    proptest! {
        #[test]
        fn whatever_bytes_come_in_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            let _ = (device(&bytes), AuthCapabilities::read(&mut Reader::new("", &bytes)));
        }
    }
}
