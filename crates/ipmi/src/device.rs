//! What the BMC is and what it offers (IPMI 2.0 §20.1, §20.8, §22.13).

use uuid::Uuid;

use crate::command::{Command, byte, nothing};
use crate::message::NetFn;
use crate::rakp::Privilege;
use crate::wire::{Malformed, Reader};

/// "The channel that this comes in by".
pub(crate) const THIS_CHANNEL: u8 = 0x0e;
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

    /// The UUID, where only one order of its bytes gives one: of the variant of RFC 9562 and of a version that exists. Where
    /// both SMBIOS' order and the plain one do, it is SMBIOS': they differ in three fields alone, whoever compares system
    /// UUIDs has to bear either (DSP0134 §7.2.1), and [`SystemGuid::is_ambiguous`] tells. None where nothing tells.
    pub fn likely_uuid(self) -> Option<Uuid> {
        let fitting = self.fitting();
        match fitting.as_slice() {
            [(_, uuid)] | [(GuidLayout::Smbios, uuid), (GuidLayout::Rfc9562, _)] => Some(*uuid),
            _ => None,
        }
    }

    /// Whether not exactly one order of its bytes gives a UUID.
    pub fn is_ambiguous(self) -> bool {
        self.fitting().len() != 1
    }

    fn fitting(self) -> Vec<(GuidLayout, Uuid)> {
        let fits = |uuid: &Uuid| {
            uuid.get_variant() == uuid::Variant::RFC4122 && (1..=8).contains(&uuid.get_version_num())
        };
        self.readings().into_iter().filter(|(_, uuid)| fits(uuid)).collect()
    }

    /// Whether it says anything: BMCs without one send all zeros or all ones.
    pub fn is_set(self) -> bool {
        self.0 != [0; 16] && self.0 != [0xff; 16]
    }

    pub(crate) fn get() -> Command<Self> {
        Command::new("Get System GUID", NetFn::App, 0x37, [], |reader| reader.array().map(Self))
    }
}

/// A maker by its IANA enterprise number: those that make BMCs of servers.
pub fn maker(number: u32) -> Option<&'static str> {
    Some(match number {
        2 | 20301 => "IBM",
        11 => "HP",
        343 => "Intel",
        674 => "Dell",
        2011 => "Huawei",
        5703 => "NVIDIA",
        7244 => "Quanta",
        10368 => "Fujitsu",
        10876 => "Supermicro",
        15370 => "GIGABYTE",
        19046 => "Lenovo",
        20974 => "AMI",
        37945 => "Inspur",
        47196 => "HPE",
        _ => return None,
    })
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

    #[test]
    fn the_one_order_that_gives_a_uuid_is_taken() {
        let uuid: Uuid = "4c4c4544-0042-4a0f-8053-c2c04f4a3956".parse().unwrap();
        let mut backwards = *uuid.as_bytes();
        backwards.reverse();
        for bytes in [uuid.to_bytes_le(), backwards, *uuid.as_bytes()] {
            let guid = SystemGuid(bytes);
            assert_eq!((guid.likely_uuid(), guid.is_ambiguous()), (Some(uuid), false));
        }
    }

    #[test]
    fn what_two_orders_could_mean_is_read_as_smbios_does_and_said_to_be_ambiguous() {
        // The third field reads the same in either order.
        let uuid: Uuid = "4c4c4544-0042-4141-8053-c2c04f4a3956".parse().unwrap();
        let guid = SystemGuid(uuid.to_bytes_le());
        assert_eq!((guid.likely_uuid(), guid.is_ambiguous()), (Some(uuid), true));
    }

    #[test]
    fn a_guid_that_is_a_uuid_in_no_order_is_none() {
        let guid = SystemGuid(*b"\0\0\0\0\0\0\0\0\0\0\xac\x1f\x6b\x01\x02\x03");
        assert_eq!((guid.likely_uuid(), guid.is_ambiguous()), (None, true));
    }

    proptest! {
        #[test]
        fn whatever_bytes_come_in_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            let _ = (device(&bytes), AuthCapabilities::read(&mut Reader::new("", &bytes)));
        }
    }
}
