//! The machine behind the BMC: who it is, its power, what it boots from.

use std::time::Duration;

use domain::Problem;
use domain::fact::{Fact, Source};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::chassis::{
    BootDevice, BootFlags, ChassisStatus, Power, PowerAction, flags_are_new, keep_boot_flags,
};
use crate::client::Client;
use crate::device::{DeviceId, SystemGuid};
use crate::error::Error;
use crate::fru::{Board, Fru, Product};
use crate::message::Completion;

/// Who the machine is, as its BMC says.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The BMC itself.
    pub device: DeviceId,
    /// The system's GUID, if it has one.
    pub guid: Option<SystemGuid>,
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
        self.fru.chassis.as_ref()?.serial.as_deref()
    }

    /// The owner's asset tag.
    pub fn asset_tag(&self) -> Option<&str> {
        self.fru.product.as_ref()?.asset_tag.as_deref()
    }

    fn of(
        &self,
        product: fn(&Product) -> &Option<String>,
        board: fn(&Board) -> &Option<String>,
    ) -> Option<&str> {
        let from_product = self.fru.product.as_ref().and_then(|area| product(area).as_deref());
        from_product.or_else(|| self.fru.board.as_ref().and_then(|area| board(area).as_deref()))
    }

    /// What is known, as facts of source `ipmi`. The GUID is none: nothing says how its bytes are laid out.
    pub fn facts(&self, at: Timestamp) -> Vec<Fact> {
        let device = "Get Device ID";
        let inventory = "FRU 0";
        [
            ("identity.manufacturer", inventory, self.manufacturer()),
            ("identity.model", inventory, self.model()),
            ("identity.partNumber", inventory, self.part_number()),
            ("identity.serial", inventory, self.serial()),
            ("identity.chassisSerial", inventory, self.chassis_serial()),
            ("identity.assetTag", inventory, self.asset_tag()),
            ("bmc.firmwareVersion", device, Some(self.device.firmware.as_str())),
        ]
        .into_iter()
        .filter_map(|(key, path, value)| {
            let (key, path, value) = (key.to_owned(), path.to_owned(), value?.into());
            Some(Fact { key, value, source: Source::Ipmi, path, at })
        })
        .collect()
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
        Ok(Identity { device, guid, fru, problems: listing.problems })
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
    /// on is no error (quirk 15). After [`Error::OutcomeUnknown`] look before doing it again.
    pub async fn set_power(&self, action: PowerAction) -> Result<PowerChange, Error> {
        let before = self.power().await?;
        let wanted = action.leads_to();
        let only_a_state = matches!(action, PowerAction::On | PowerAction::Off | PowerAction::SoftOff);
        if only_a_state && before == wanted {
            return Ok(PowerChange { before, after: before, evidence: Evidence::NotNeeded });
        }
        let deadline = Instant::now() + self.options().power_within;
        self.order(action, deadline).await?;
        let evidence = match action {
            PowerAction::Cycle if before == Power::On => self.see_off(deadline).await?,
            PowerAction::Reset if before == Power::On => Evidence::Agreed,
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
                    sleep(self.options().power_poll).await;
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
                _ => sleep(self.options().power_poll).await,
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
        Identity { device, guid: None, fru, problems: Vec::new() }
    }

    #[test]
    fn the_product_speaks_before_the_board() {
        let board = Board { serial: Some("B1".into()), part: Some("BP".into()), ..Board::default() };
        let product = Product { serial: Some("P1".into()), ..Product::default() };
        let found = identity(Fru { chassis: None, board: Some(board), product: Some(product) });
        assert_eq!((found.serial(), found.part_number(), found.model()), (Some("P1"), Some("BP"), None));
    }

    #[test]
    fn only_what_is_known_is_a_fact() {
        let keys = |identity: &Identity| -> Vec<String> {
            identity.facts(Timestamp::UNIX_EPOCH).into_iter().map(|fact| fact.key).collect()
        };
        assert_eq!(keys(&identity(Fru::default())), ["bmc.firmwareVersion"]);
    }
}
