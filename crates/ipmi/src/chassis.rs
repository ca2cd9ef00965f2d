//! Power and boot device (IPMI 2.0 §28).

use crate::command::{Command, Repeat, nothing};
use crate::message::NetFn;

/// Boot option parameters (table 28-14).
const VALID_BIT_CLEARING: u8 = 3;
const INFO_ACKNOWLEDGE: u8 = 4;
const BOOT_FLAGS: u8 = 5;

/// Whether the host has power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Power {
    /// It has.
    On,
    /// It has not (soft off and standby included).
    Off,
}

impl std::fmt::Display for Power {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// What to do with the host's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PowerAction {
    /// Switch on.
    On,
    /// Switch off at once.
    Off,
    /// Off, and on again. Not for a host that is off.
    Cycle,
    /// Reset without taking power away. Not for a host that is off.
    Reset,
    /// Ask the operating system to shut down.
    SoftOff,
}

impl PowerAction {
    /// The state it must lead to.
    pub fn leads_to(self) -> Power {
        match self {
            Self::On | Self::Cycle | Self::Reset => Power::On,
            Self::Off | Self::SoftOff => Power::Off,
        }
    }

    pub(crate) fn command(self) -> Command<()> {
        let (number, repeat) = match self {
            Self::Off => (0, Repeat::Yes),
            Self::On => (1, Repeat::Yes),
            Self::Cycle => (2, Repeat::Never),
            Self::Reset => (3, Repeat::Never),
            // Some operating systems take a second press of the button as "at once".
            Self::SoftOff => (5, Repeat::Never),
        };
        Command { repeat, ..Command::new("Chassis Control", NetFn::Chassis, 0x02, [number], nothing) }
    }
}

impl std::fmt::Display for PowerAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Cycle => "cycle",
            Self::Reset => "reset",
            Self::SoftOff => "soft off",
        })
    }
}

/// Get Chassis Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChassisStatus {
    /// Whether the host has power.
    pub power: Power,
    /// A fault of the main power subsystem.
    pub power_fault: bool,
    /// The BMC tried to switch power and could not.
    pub control_fault: bool,
    /// Power was shut down by an overload.
    pub overload: bool,
    /// Power was shut down because a panel is open.
    pub interlock: bool,
}

impl ChassisStatus {
    pub(crate) fn get() -> Command<Self> {
        Command::new("Get Chassis Status", NetFn::Chassis, 0x01, [], |reader| {
            let state = reader.u8()?;
            Ok(Self {
                power: if state & 0x01 == 0 { Power::Off } else { Power::On },
                overload: state & 0x02 != 0,
                interlock: state & 0x04 != 0,
                power_fault: state & 0x08 != 0,
                control_fault: state & 0x10 != 0,
            })
        })
    }
}

/// What the host boots from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BootDevice {
    /// No override: what the firmware is set to.
    None,
    /// The network.
    Pxe,
    /// The default disk.
    Disk,
    /// CD or DVD, virtual ones on most BMCs too.
    Cdrom,
    /// The firmware's set-up.
    Bios,
    /// Another of table 28-14; never set by us.
    Other(
        /// 0 to 15.
        u8,
    ),
}

impl BootDevice {
    fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Pxe => 1,
            Self::Disk => 2,
            Self::Cdrom => 5,
            Self::Bios => 6,
            Self::Other(number) => number & 0x0f,
        }
    }

    fn from_number(number: u8) -> Self {
        match number & 0x0f {
            0 => Self::None,
            1 => Self::Pxe,
            2 => Self::Disk,
            5 => Self::Cdrom,
            6 => Self::Bios,
            other => Self::Other(other),
        }
    }
}

impl std::fmt::Display for BootDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("no override"),
            Self::Pxe => f.write_str("pxe"),
            Self::Disk => f.write_str("disk"),
            Self::Cdrom => f.write_str("cdrom"),
            Self::Bios => f.write_str("bios"),
            Self::Other(number) => write!(f, "device {number}"),
        }
    }
}

/// The boot flags, as read or as wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootFlags {
    /// What to boot from.
    pub device: BootDevice,
    /// For every boot, not for the next one alone.
    pub persistent: bool,
    /// By UEFI, not by legacy BIOS.
    pub uefi: bool,
    /// Whether the flags hold. Cleared when they were used; some BMCs never set it when read.
    pub valid: bool,
}

impl BootFlags {
    pub(crate) fn get() -> Command<Self> {
        let name = "Get System Boot Options";
        Command::new(name, NetFn::Chassis, 0x09, [BOOT_FLAGS, 0, 0], |reader| {
            let [_, parameter, flags, device] = reader.array()?;
            let locked = parameter & 0x80 != 0;
            Ok(Self {
                device: BootDevice::from_number(device >> 2),
                persistent: flags & 0x40 != 0,
                uefi: flags & 0x20 != 0,
                valid: flags & 0x80 != 0 && !locked,
            })
        })
    }

    pub(crate) fn set(self) -> Command<()> {
        let flags = u8::from(self.valid) << 7 | u8::from(self.persistent) << 6 | u8::from(self.uefi) << 5;
        set_option(&[BOOT_FLAGS, flags, self.device.number() << 2, 0, 0, 0])
    }
}

/// Keeps the flags although no power command follows within a minute: deploying takes longer (table 28-14, parameter 3).
pub(crate) fn keep_boot_flags() -> Command<()> {
    set_option(&[VALID_BIT_CLEARING, 0x08])
}

/// Tells the firmware that nobody has handled the flags yet (parameter 4).
pub(crate) fn flags_are_new() -> Command<()> {
    set_option(&[INFO_ACKNOWLEDGE, 0x01, 0x01])
}

fn set_option(data: &[u8]) -> Command<()> {
    Command::new("Set System Boot Options", NetFn::Chassis, 0x08, data, nothing)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flags() -> impl Strategy<Value = BootFlags> {
        (0_u8..16, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(device, persistent, uefi, valid)| BootFlags {
                device: BootDevice::from_number(device),
                persistent,
                uefi,
                valid,
            },
        )
    }

    #[test]
    fn only_what_is_the_same_twice_is_sent_twice() {
        let repeated = |action: PowerAction| action.command().repeat == Repeat::Yes;
        assert!(repeated(PowerAction::On) && repeated(PowerAction::Off));
        assert!(![PowerAction::Cycle, PowerAction::Reset, PowerAction::SoftOff].into_iter().any(repeated));
    }

    #[test]
    fn pxe_once_by_uefi_is_what_ipmitool_sends() {
        let wanted = BootFlags { device: BootDevice::Pxe, persistent: false, uefi: true, valid: true };
        assert_eq!(wanted.set().data, [5, 0xa0, 0x04, 0, 0, 0]);
    }

    #[test]
    fn power_and_faults_are_read() {
        let status = ChassisStatus::get().decode(&[0x19, 0, 0, 0]).unwrap();
        assert_eq!((status.power, status.power_fault, status.control_fault), (Power::On, true, true));
        assert_eq!(ChassisStatus::get().decode(&[0x60]).unwrap().power, Power::Off);
    }

    proptest! {
        #[test]
        fn boot_flags_are_read_as_they_were_set(flags in flags()) {
            let set = flags.set().data;
            let answer = [&[1][..], &set].concat();
            prop_assert_eq!(BootFlags::get().decode(&answer), Ok(flags));
        }

        #[test]
        fn whatever_bytes_come_in_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            let _ = (BootFlags::get().decode(&bytes), ChassisStatus::get().decode(&bytes));
        }
    }
}
