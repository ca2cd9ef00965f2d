//! The passwords of a BMC that the cell makes itself (`spec.bmc.rotate`, quirk 42): one for the cell, and an account of its own
//! for the service that provisions the machine.
//!
//! 1. Both passwords are kept, sealed, beside the one in force ([`store::BmcAccount`]).
//! 2. The provisioning service leaves the machine alone: its logins with a password that is just being replaced would lock
//!    the account.
//! 3. The BMC is given each password, and a fresh login proves it; the cell's other readers are fenced out meanwhile.
//! 4. The service is told its account, and takes the machine up again.
//!
//! Each is a step of its own that may be repeated. A BMC that was reset to its factory password is led the same way again.

use super::case::{Account, Case};
use crate::enrol::Enroller;
use crate::error::coded;
use crate::trouble::Trouble;
use domain::declaration::{MachineSpec, SiteSpec};
use domain::{Diagnose, MachineState, Outcome};
use redfish::accounts::Accounts;
use redfish::rotation::{Patience, Rotation, RotationError, Which};
use redfish::{Client, Credentials, Options};
use serde_json::json;
use store::{BmcAccount, Guard, Holder, MachineRecord, Phase, Zeroizing};

/// The account of the provisioning service. At most sixteen characters: IPMI 2.0 has no place for more (section 22.28).
const SERVICE: &str = "bw-provisioner";

/// Why the service is held.
const REASON: &str = "the passwords of its BMC are being replaced";

impl Case<'_> {
    /// Whether there is something to do before the machine is handed over; then its passwords are made.
    pub(crate) async fn prepare_accounts(&self) -> Result<bool, Trouble> {
        if !self.spec.bmc.rotate {
            return Ok(false);
        }
        let known = self.life.store.bmc_accounts(self.machine()).await?;
        let wanted = [Some(Holder::Cell), self.provisioner().map(|_| Holder::Provisioner)];
        let missing = |holder: &Holder| known.iter().all(|account| account.holder != *holder);
        let missing: Vec<_> = wanted.into_iter().flatten().filter(missing).collect();
        if !missing.is_empty() {
            self.life.enroller.prepare(self.record, self.guard, &self.spec, &missing).await?;
        }
        Ok(!missing.is_empty())
    }

    /// One step toward accounts that are all in use.
    pub(crate) async fn rotate(&self) -> Result<Outcome, Trouble> {
        let accounts = self.life.store.bmc_accounts(self.machine()).await?;
        let here = Ok(Outcome::Advance(self.record.state));
        let of = |holder| accounts.iter().find(|account| account.holder == holder);
        let Some(own) = of(Holder::Cell) else { return here };
        if let Some(outcome) = self.hold_service(Some(REASON)).await? {
            return Ok(outcome);
        }
        if own.phase == Phase::Prepared {
            let before = own.previous.as_ref().unwrap_or(&own.password);
            let old = Credentials::new(own.username.clone(), before.as_str());
            self.give(&old, own, Phase::InUse).await?;
            return here;
        }
        let Some(service) = of(Holder::Provisioner) else { return here };
        if service.phase == Phase::Prepared {
            let old = Credentials::new(own.username.clone(), own.password.as_str());
            self.give(&old, service, Phase::Proven).await?;
            return here;
        }
        if let Some(outcome) = self.hold_service(None).await? {
            return Ok(outcome);
        }
        let (kind, data) = ("machine.credentials-in-use", json!({ "holder": Holder::Provisioner }));
        let store = &self.life.store;
        store
            .advance_bmc_account(self.machine(), self.guard, Holder::Provisioner, Phase::InUse, kind, &data)
            .await?;
        here
    }

    /// Before the machine leaves for good its BMC gets the declared password back: nobody else knows ours. `None` once it has.
    pub(crate) async fn restore_account(&self) -> Result<Option<Outcome>, Trouble> {
        let accounts = self.life.store.bmc_accounts(self.machine()).await?;
        // Who takes the wish back keeps what is: also the way out where the BMC does not answer any more.
        if accounts.is_empty() || !self.spec.bmc.rotate {
            return Ok(None);
        }
        let enroller = &self.life.enroller;
        let declared = enroller.declared_password(self.machine(), &self.spec).await?;
        for account in &accounts {
            match account.holder {
                Holder::Cell => {
                    let ours = Credentials::new(account.username.clone(), account.password.as_str());
                    let new = Credentials::new(account.username.clone(), declared.as_str());
                    enroller.replace(self.record, &self.spec, &self.site, &ours, &new).await?;
                }
                Holder::Provisioner => {
                    let declared = Credentials::new(self.spec.bmc.username.clone(), declared.as_str());
                    enroller.remove(self.record, &self.spec, &self.site, declared, &account.username).await?;
                }
            }
        }
        let data =
            json!({ "accounts": accounts.iter().map(|account| &account.username).collect::<Vec<_>>() });
        self.life.store.forget_bmc_accounts(self.machine(), self.guard, &data).await?;
        Ok(Some(Outcome::Advance(self.record.state)))
    }

    /// What people have set aside stays held by them.
    async fn hold_service(&self, reason: Option<&str>) -> Result<Option<Outcome>, Trouble> {
        if self.record.state == MachineState::Quarantined {
            return Ok(None);
        }
        let Some(provisioner) = self.provisioner() else { return Ok(None) };
        let account = self.account().await?;
        let held = provisioner.hold(&self.subject(&account), reason).await?;
        Ok(self.go_on(held).await?.err())
    }

    /// The BMC is given one password; a login proves it.
    async fn give(&self, old: &Credentials, account: &BmcAccount, then: Phase) -> Result<(), Trouble> {
        let new = Credentials::new(account.username.clone(), account.password.as_str());
        self.life.enroller.replace(self.record, &self.spec, &self.site, old, &new).await?;
        let data = json!({ "holder": account.holder, "username": account.username });
        let kind = "machine.credentials-rotated";
        let store = &self.life.store;
        Ok(store.advance_bmc_account(self.machine(), self.guard, account.holder, then, kind, &data).await?)
    }

    /// The account that the provisioning service has at the BMC: its own once that is proven.
    pub(crate) async fn account(&self) -> Result<Account, Trouble> {
        let accounts = self.life.store.bmc_accounts(self.machine()).await?;
        let own = accounts.into_iter().find(|account| account.holder == Holder::Provisioner);
        let (username, password) = match own.filter(|account| account.phase != Phase::Prepared) {
            Some(account) => (account.username, account.password),
            None => {
                let login = self.life.enroller.login(self.machine(), &self.spec).await?;
                (login.username, login.password)
            }
        };
        let subject = Zeroizing::new(format!("{username}\n{}", password.as_str()));
        let credentials = hex::encode(&self.life.store.derive("credentials", &subject)[..8]);
        Ok(Account { username, password, credentials })
    }
}

/// With what the cell logs in.
pub(crate) struct Login {
    pub username: String,
    pub password: Zeroizing<String>,
    /// The password is of our making.
    pub own: bool,
}

impl Enroller {
    /// What is in force, as far as is known.
    pub(crate) async fn login(&self, machine: &domain::Name, spec: &MachineSpec) -> Result<Login, Trouble> {
        let accounts = self.store.bmc_accounts(machine).await?;
        if let Some(account) = accounts.into_iter().find(|account| account.holder == Holder::Cell) {
            let (password, own) = match (account.phase, account.previous) {
                (Phase::Prepared, Some(previous)) => (previous, false),
                _ => (account.password, true),
            };
            return Ok(Login { username: account.username, password, own });
        }
        let password = self.declared_password(machine, spec).await?;
        Ok(Login { username: spec.bmc.username.clone(), password, own: false })
    }

    /// Makes the passwords and keeps them beside the declared one. Where there are some, as after a reset of the BMC to its
    /// factory settings, they are given to it again: then the service has to learn nothing new.
    pub(crate) async fn prepare(
        &self,
        record: &MachineRecord,
        guard: Guard,
        spec: &MachineSpec,
        holders: &[Holder],
    ) -> Result<(), Trouble> {
        let known = self.store.bmc_accounts(&record.name).await?;
        let mut accounts = Vec::new();
        for &holder in holders {
            let (username, previous) = match holder {
                Holder::Cell => {
                    let declared = self.declared_password(&record.name, spec).await?;
                    (spec.bmc.username.clone(), Some(declared))
                }
                Holder::Provisioner => (SERVICE.to_owned(), None),
            };
            let known = known.iter().find(|account| account.holder == holder);
            let password = match known.filter(|account| account.username == username) {
                Some(known) => known.password.clone(),
                None => new_password()?,
            };
            accounts.push(BmcAccount { holder, username, password, previous, phase: Phase::Prepared });
        }
        let data =
            json!({ "accounts": accounts.iter().map(|account| &account.username).collect::<Vec<_>>() });
        Ok(self.store.prepare_bmc_accounts(&record.name, guard, &accounts, &data).await?)
    }

    /// One password, or account, in place of another. Where the old one is refused, the new one may be in force already.
    async fn replace(
        &self,
        record: &MachineRecord,
        spec: &MachineSpec,
        site: &SiteSpec,
        old: &Credentials,
        new: &Credentials,
    ) -> Result<(), Trouble> {
        let (target, options, guard) = self.reach(record, spec, site).await?;
        let rotation = Rotation {
            target: &target,
            options: &options,
            guard: &guard,
            old,
            new,
            patience: Patience::default(),
        };
        let error = match Box::pin(rotation.rotate()).await {
            Ok(_) => return Ok(()),
            Err(RotationError::OldRefused) => match Box::pin(rotation.settle()).await {
                Ok(Which::New) => return Ok(()),
                Ok(Which::Old) => {
                    let message = "the BMC took the old password again; it is replaced once more";
                    return Err(Trouble::Passing(coded("bmc.rotation-unsettled", message.to_owned())));
                }
                Ok(Which::Neither) => RotationError::Unsettled {
                    reason: "the BMC refuses both the password of our making and the one before it",
                },
                Err(error) => error,
            },
            Err(error) => error,
        };
        Err(Trouble::from(error.problem()))
    }

    /// Takes an account away from the BMC.
    async fn remove(
        &self,
        record: &MachineRecord,
        spec: &MachineSpec,
        site: &SiteSpec,
        credentials: Credentials,
        username: &str,
    ) -> Result<(), Trouble> {
        let (target, options, guard) = self.reach(record, spec, site).await?;
        let options = Options { credentials: Some(credentials), guard: Some(guard), ..options };
        let client =
            Client::connect(target, options).await.map_err(|error| Trouble::from(error.problem()))?;
        let removed = async {
            let accounts = Accounts::of(&client).await.map_err(|error| Trouble::from(error.problem()))?;
            accounts.remove(username).await.map_err(|error| Trouble::from(error.problem()))
        };
        let removed = removed.await;
        client.close().await;
        removed
    }
}

/// Ninety-five random bits that BMCs take: sixteen characters, which IPMI 1.5 bears too, with a capital, a small letter, a
/// digit and a sign, none of which means anything to a shell or in XML.
fn new_password() -> Result<Zeroizing<String>, Trouble> {
    const CLASSES: [&[u8]; 4] =
        [b"ABCDEFGHJKLMNPQRSTUVWXYZ", b"abcdefghijkmnpqrstuvwxyz", b"23456789", b"-_."];
    let all: Vec<u8> = CLASSES.concat();
    loop {
        let mut random = Zeroizing::new([0_u8; 64]);
        getrandom::fill(random.as_mut()).map_err(|error| {
            Trouble::Passing(coded("api.internal", format!("no random numbers: {error}")))
        })?;
        // Bytes above the last multiple are passed over, so that no character is likelier than another.
        let limit = 256 / all.len() * all.len();
        let picked = random.iter().filter(|byte| usize::from(**byte) < limit).take(16);
        let password: Zeroizing<String> =
            Zeroizing::new(picked.map(|byte| char::from(all[usize::from(*byte) % all.len()])).collect());
        let has = |class: &&[u8]| password.bytes().any(|byte| class.contains(&byte));
        if password.len() == 16 && CLASSES.iter().all(has) {
            return Ok(password);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn passwords_are_such_as_bmcs_demand_and_never_the_same() {
        let many: BTreeSet<String> = (0..500).map(|_| new_password().unwrap().to_string()).collect();
        assert_eq!(many.len(), 500);
        for password in many {
            assert_eq!(password.len(), 16);
            let has = |is: fn(char) -> bool| password.chars().any(is);
            assert!(has(|c| c.is_ascii_uppercase()) && has(|c| c.is_ascii_lowercase()));
            assert!(has(|c| c.is_ascii_digit()) && has(|c| "-_.".contains(c)), "{password}");
        }
    }
}
