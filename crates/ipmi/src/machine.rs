//! The machine behind the BMC: who it is, its power, what it boots from.

use std::time::Duration;

use domain::Problem;
use domain::placeholder::{is_filler, is_placeholder};
use tokio::time::{Instant, sleep};

use crate::chassis::{
    BootDevice, BootFlags, ChassisStatus, Power, PowerAction, flags_are_new, keep_boot_flags,
};
use crate::client::Client;
use crate::device::{AuthCapabilities, DeviceId, SystemGuid, THIS_CHANNEL};
use crate::error::Error;
use crate::fru::{Board, Fru, Product};
use crate::lan;
use crate::message::Completion;
use crate::rakp::Privilege;
use crate::socket::pause;

/// How often a command is given that the BMC refuses without saying why.
const ATTEMPTS: u32 = 3;

/// Who the machine is, as its BMC says.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The BMC itself.
    pub device: DeviceId,
    /// The system's GUID, if it has one.
    pub guid: Option<SystemGuid>,
    /// MAC address of the BMC's interface that was asked, lower case with colons.
    pub mac: Option<String>,
    /// The machine's FRU inventory; empty where it has none.
    pub fru: Fru,
    /// What is wrong with the inventory.
    pub problems: Vec<Problem>,
}

impl Identity {
    /// The machine's maker: the product's, else the board's.
    pub fn manufacturer(&self) -> Option<&str> {
        self.of(|product| &product.manufacturer, |board| &board.manufacturer)
    }

    /// The model: the product's name, else the board's.
    pub fn model(&self) -> Option<&str> {
        self.of(|product| &product.name, |board| &board.product)
    }

    /// The part number: the product's, else the board's.
    pub fn part_number(&self) -> Option<&str> {
        self.of(|product| &product.part, |board| &board.part)
    }

    /// The machine's serial number: the product's, else the board's. Which of them is on the label differs by maker (quirk 27).
    pub fn serial(&self) -> Option<&str> {
        self.of(|product| &product.serial, |board| &board.serial)
    }

    /// The chassis' serial number.
    pub fn chassis_serial(&self) -> Option<&str> {
        self.fru.chassis.as_ref()?.serial.as_deref().filter(|serial| !is_placeholder(serial))
    }

    /// The owner's asset tag.
    pub fn asset_tag(&self) -> Option<&str> {
        self.fru.product.as_ref()?.asset_tag.as_deref().filter(|tag| !is_filler(tag))
    }

    fn of(
        &self,
        product: fn(&Product) -> &Option<String>,
        board: fn(&Board) -> &Option<String>,
    ) -> Option<&str> {
        let says = |text: &&str| !is_placeholder(text);
        let from_product = self.fru.product.as_ref().and_then(|area| product(area).as_deref()).filter(says);
        from_product.or_else(|| self.fru.board.as_ref().and_then(|area| board(area).as_deref()).filter(says))
    }
}

/// What became of a power command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerChange {
    /// Before.
    pub before: Power,
    /// As read last.
    pub after: Power,
    /// What shows that it was done.
    pub evidence: Evidence,
}

/// How sure we are that a power command had its effect (quirk 38).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The power state changed as it must, and was read.
    Seen,
    /// It was as wanted before; nothing was sent.
    NotNeeded,
    /// The BMC agreed, and nothing that IPMI shows could confirm it: a reset leaves power on, and a cycle may be too short.
    Agreed,
}

impl Client {
    /// Who the machine is.
    pub async fn identity(&self) -> Result<Identity, Error> {
        let device = self.run(&DeviceId::get()).await?;
        let guid = self.run_if_supported(&SystemGuid::get()).await?.filter(|guid| guid.is_set());
        let listing = self.fru().await?.unwrap_or_default();
        let fru = listing.items.into_iter().next().unwrap_or_default();
        let mac = self.mac_address().await?;
        Ok(Identity { device, guid, mac, fru, problems: listing.problems })
    }

    /// The MAC address of the BMC's interface that this session comes in by.
    async fn mac_address(&self) -> Result<Option<String>, Error> {
        // Not every BMC takes "this channel" for the number of one here, so the number is asked for where it is told.
        let capabilities = AuthCapabilities::get(Privilege::Administrator, true);
        let capabilities = self.run_if_supported(&capabilities).await?;
        let channel = capabilities.map_or(THIS_CHANNEL, |capabilities| capabilities.channel);
        let command = lan::mac_address(channel);
        let mut attempt = 1;
        loop {
            match self.run(&command).await {
                // It may have been at work for somebody else: it is asked again, since "not told" would be a wrong answer.
                Err(Error::Refused { completion: Completion::UNSPECIFIED, .. }) if attempt < ATTEMPTS => {
                    sleep(pause(self.options().busy_pause, attempt)).await;
                    attempt += 1;
                }
                // Not every BMC has it, nor is an account told that may only look.
                Err(Error::Unsupported { .. } | Error::Refused { .. } | Error::Forbidden { .. }) => {
                    return Ok(None);
                }
                other => return other,
            }
        }
    }

    /// Power and its faults.
    pub async fn chassis_status(&self) -> Result<ChassisStatus, Error> {
        self.run(&ChassisStatus::get()).await
    }

    /// Whether the host has power.
    pub async fn power(&self) -> Result<Power, Error> {
        Ok(self.chassis_status().await?.power)
    }

    /// Switches power, and reads it until it is as wanted: that the BMC agreed proves nothing (quirk 38). Switching on what is
    /// on is no error (quirk 15); to reset or cycle what is off is one, at once: BMCs differ in what they do then, and some
    /// answer "not in this state" for as long as they are asked. After [`Error::OutcomeUnknown`] look before doing it again.
    pub async fn set_power(&self, action: PowerAction) -> Result<PowerChange, Error> {
        let before = self.power().await?;
        let wanted = action.leads_to();
        let only_a_state = matches!(action, PowerAction::On | PowerAction::Off | PowerAction::SoftOff);
        if only_a_state && before == wanted {
            return Ok(PowerChange { before, after: before, evidence: Evidence::NotNeeded });
        }
        if before == Power::Off && matches!(action, PowerAction::Cycle | PowerAction::Reset) {
            return Err(Error::HostOff { action });
        }
        let deadline = Instant::now() + self.options().power_within;
        self.order(action, deadline).await?;
        let evidence = match action {
            PowerAction::Cycle => self.see_off(deadline).await?,
            PowerAction::Reset => Evidence::Agreed,
            _ => Evidence::Seen,
        };
        let after = self.await_power(wanted, deadline).await?;
        Ok(PowerChange { before, after, evidence })
    }

    /// Gives the order; again while the BMC says "not in this state", as some do for a while after power changed (quirk 14).
    async fn order(&self, action: PowerAction, deadline: Instant) -> Result<(), Error> {
        loop {
            match self.run(&action.command()).await {
                Err(Error::Refused { completion: Completion::WRONG_STATE, .. })
                    if Instant::now() < deadline =>
                {
                    sleep(pause(self.options().power_poll, 1)).await;
                }
                other => return other,
            }
        }
    }

    /// Watches for the moment without power of a cycle, for a quarter of the time that is left.
    async fn see_off(&self, deadline: Instant) -> Result<Evidence, Error> {
        let patience = deadline.saturating_duration_since(Instant::now()) / 4;
        let seen = self.await_power(Power::Off, Instant::now() + patience).await;
        match seen {
            Ok(_) => Ok(Evidence::Seen),
            Err(Error::PowerUnchanged { .. }) => Ok(Evidence::Agreed),
            Err(error) => Err(error),
        }
    }

    /// Reads power until it is as wanted. A BMC that does not answer in between is asked again.
    async fn await_power(&self, wanted: Power, deadline: Instant) -> Result<Power, Error> {
        let started = Instant::now();
        loop {
            let found = self.power().await;
            match found {
                Ok(found) if found == wanted => return Ok(found),
                Ok(found) if Instant::now() >= deadline => {
                    let after: Duration = started.elapsed();
                    return Err(Error::PowerUnchanged { found, expected: wanted, after });
                }
                Err(error) if !error.is_transient() || Instant::now() >= deadline => return Err(error),
                _ => sleep(pause(self.options().power_poll, 1)).await,
            }
        }
    }

    /// What the host will boot from, as the BMC says.
    pub async fn boot_device(&self) -> Result<BootFlags, Error> {
        self.run(&BootFlags::get()).await
    }

    /// Sets what the host boots from, at its next boot or at every one, and reads it back. The flags returned are those read:
    /// BMCs that keep the device but neither persistence nor UEFI are not rare, so compare what matters.
    pub async fn set_boot_device(
        &self,
        device: BootDevice,
        persistent: bool,
        uefi: bool,
    ) -> Result<BootFlags, Error> {
        // Without either the flags vanish after a minute, or the firmware overlooks them; BMCs that know neither do neither.
        self.run_if_supported(&keep_boot_flags()).await?;
        self.run_if_supported(&flags_are_new()).await?;
        let wanted = BootFlags { device, persistent, uefi, valid: device != BootDevice::None };
        self.run(&wanted.set()).await?;
        let found = self.boot_device().await?;
        if found.device != device {
            return Err(Error::BootDeviceUnchanged { found: found.device, expected: device });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(fru: Fru) -> Identity {
        let device = DeviceId {
            device: 0,
            revision: 0,
            device_sdrs: false,
            available: true,
            firmware: "2.17".to_owned(),
            version: "2.0".to_owned(),
            support: 0,
            manufacturer: 0,
            product: 0,
            auxiliary: None,
        };
        Identity { device, guid: None, mac: None, fru, problems: Vec::new() }
    }

    #[test]
    fn what_firmware_writes_where_it_knows_nothing_is_nothing() {
        let board = Board { serial: Some("B1".into()), part: Some("0000".into()), ..Board::default() };
        let product = Product { serial: Some("To be filled by O.E.M.".into()), ..Product::default() };
        let found = identity(Fru { chassis: None, board: Some(board), product: Some(product) });
        assert_eq!((found.serial(), found.part_number()), (Some("B1"), None));
    }

    #[test]
    fn the_product_speaks_before_the_board() {
        let board = Board { serial: Some("B1".into()), part: Some("BP".into()), ..Board::default() };
        let product = Product { serial: Some("P1".into()), ..Product::default() };
        let found = identity(Fru { chassis: None, board: Some(board), product: Some(product) });
        assert_eq!((found.serial(), found.part_number(), found.model()), (Some("P1"), Some("BP"), None));
    }
}
