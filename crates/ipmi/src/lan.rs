//! The LAN channel's configuration (IPMI 2.0 §23.2).

use crate::command::Command;
use crate::message::NetFn;

/// Parameter 5 of table 23-4.
const MAC_ADDRESS: u8 = 5;

/// The MAC address of the BMC's own interface on this channel, as `b8:ca:3a:01:02:03`. All zeros are none.
pub(crate) fn mac_address(channel: u8) -> Command<Option<String>> {
    let data = [channel & 0x0f, MAC_ADDRESS, 0, 0];
    Command::new("Get LAN Configuration Parameters", NetFn::Transport, 0x02, data, |reader| {
        reader.u8()?; // revision of the parameter
        let bytes: [u8; 6] = reader.array()?;
        let pairs = bytes.map(|byte| format!("{byte:02x}"));
        Ok((bytes != [0; 6] && bytes != [0xff; 6]).then(|| pairs.join(":")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_is_shown_as_elsewhere() {
        let command = mac_address(1);
        assert_eq!(command.data, [1, 5, 0, 0]);
        let decode = |bytes: &[u8]| command.decode(bytes).unwrap();
        assert_eq!(decode(&[0x11, 0xb8, 0xca, 0x3a, 1, 2, 3]).as_deref(), Some("b8:ca:3a:01:02:03"));
        assert_eq!(decode(&[0x11, 0, 0, 0, 0, 0, 0]), None);
        assert!(command.decode(&[0x11, 0xb8]).is_err());
    }
}
