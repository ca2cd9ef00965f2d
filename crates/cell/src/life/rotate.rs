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
use crate::enrol::{Enroller, Reach, pinned};
use crate::error::coded;
use crate::trouble::Trouble;
use domain::declaration::MachineSpec;
use domain::{Diagnose, MachineState, Outcome};
use redfish::Credentials;
use redfish::accounts::Accounts;
use redfish::rotation::{Patience, Rotation, RotationError, Which};
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
        let service = of(Holder::Provisioner);
        if !self.spec.bmc.rotate && (is_open(own) || service.is_some_and(is_open)) {
            return self.give_up(own, service).await;
        }
        if let Some(outcome) = self.hold_service(Some(REASON)).await? {
            return Ok(outcome);
        }
        if is_open(own) {
            self.give_own(own).await?;
            return here;
        }
        if let Some(service) = service.filter(|account| is_open(account)) {
            let old = Credentials::new(own.username.clone(), own.password.as_str());
            self.give(&old, service).await?;
            return here;
        }
        if let Some(outcome) = self.hold_service(None).await? {
            return Ok(outcome);
        }
        let data = json!({ "accounts": names(&accounts) });
        self.life.store.use_bmc_accounts(self.machine(), self.guard, &data).await?;
        here
    }

    /// The cell's own account. Where the BMC takes neither password, people may have declared the one that it has.
    async fn give_own(&self, own: &BmcAccount) -> Result<(), Trouble> {
        let before = own.previous.as_ref().unwrap_or(&own.password);
        let old = Credentials::new(own.username.clone(), before.as_str());
        let given = self.give(&old, own).await;
        let Err(Trouble::Refused(_)) = &given else { return given };
        let declared = self.declared_password().await?;
        if declared != *before {
            self.life.enroller.prepare(self.record, self.guard, &self.spec, &[Holder::Cell]).await?;
            return Ok(());
        }
        given
    }

    /// People have taken the wish back before it was fulfilled: what is in force stays, and the service is told of it.
    async fn give_up(&self, own: &BmcAccount, service: Option<&BmcAccount>) -> Result<Outcome, Trouble> {
        let declared = self.declared_password().await?;
        let old = Credentials::new(own.username.clone(), declared.as_str());
        let new = Credentials::new(own.username.clone(), own.password.as_str());
        let in_force = match own.phase {
            Phase::Prepared | Phase::Given => {
                settle(&self.reach(&[&own.username]).await?, &old, &new).await?
            }
            _ => Which::New,
        };
        let mut forgotten = Vec::new();
        if service.is_some_and(is_open) {
            forgotten.push(Holder::Provisioner);
        }
        let password = if in_force == Which::Old { declared } else { own.password.clone() };
        if in_force == Which::Old {
            forgotten.push(Holder::Cell);
        }
        let account = match service.filter(|account| !is_open(account)) {
            Some(_) => self.account().await?,
            None => self.account_of(own.username.clone(), password),
        };
        if let Some(outcome) = self.hold_as(None, &account).await? {
            return Ok(outcome);
        }
        let data = json!({ "reason": "rotate is false" });
        let store = &self.life.store;
        store.forget_bmc_accounts(self.machine(), self.guard, &forgotten, &data).await?;
        store.use_bmc_accounts(self.machine(), self.guard, &data).await?;
        Ok(Outcome::Advance(self.record.state))
    }

    /// Before the machine leaves for good its BMC gets the declared password back: nobody else knows ours. `None` once it has.
    pub(crate) async fn restore_account(&self) -> Result<Option<Outcome>, Trouble> {
        let accounts = self.life.store.bmc_accounts(self.machine()).await?;
        // Who takes the wish back keeps what is: also the way out where the BMC does not answer any more.
        let own = accounts.iter().find(|account| account.holder == Holder::Cell);
        let Some(own) = own.filter(|_| self.spec.bmc.rotate) else { return Ok(None) };
        let declared = self.declared_password().await?;
        let ours = Credentials::new(own.username.clone(), own.password.as_str());
        let declared = Credentials::new(own.username.clone(), declared.as_str());
        let was_given = own.phase == Phase::Returned;
        self.replace(&ours, &declared, was_given, self.noted(Holder::Cell, Phase::Returned)).await?;
        for account in accounts.iter().filter(|account| account.holder == Holder::Provisioner) {
            self.remove(&declared, &account.username).await?;
        }
        let data = json!({ "accounts": names(&accounts) });
        let all = [Holder::Cell, Holder::Provisioner];
        self.life.store.forget_bmc_accounts(self.machine(), self.guard, &all, &data).await?;
        Ok(Some(Outcome::Advance(self.record.state)))
    }

    async fn declared_password(&self) -> Result<Zeroizing<String>, Trouble> {
        self.life.enroller.declared_password(self.machine(), &self.spec).await
    }

    /// What people have set aside stays held by them.
    async fn hold_service(&self, reason: Option<&str>) -> Result<Option<Outcome>, Trouble> {
        self.hold_as(reason, &self.account().await?).await
    }

    pub(super) async fn hold_as(
        &self,
        reason: Option<&str>,
        account: &Account,
    ) -> Result<Option<Outcome>, Trouble> {
        let Some(provisioner) = self.provisioner() else { return Ok(None) };
        if self.record.state == MachineState::Quarantined {
            return Ok(None);
        }
        let held = provisioner.hold(&self.subject(account), reason, None).await?;
        let to_come = self.go_on(held).await?.err();
        if reason.is_none() && to_come.is_none() {
            self.mark_held(false).await?;
        }
        Ok(to_come)
    }

    /// The BMC, for somebody who logs in with these accounts.
    async fn reach(&self, accounts: &[&str]) -> Result<Reach, Trouble> {
        let trust = pinned(self.record, &self.spec)?;
        self.life.enroller.reach(&self.spec, &self.site, trust, accounts).await
    }

    /// Before the BMC is given a password it is known that it may have it.
    async fn noted(&self, holder: Holder, phase: Phase) -> Result<(), Stopped> {
        let noted = self.life.store.note_bmc_account_given(self.machine(), self.guard, holder, phase);
        noted.await.map_err(|error| Stopped::Store(error.into()))
    }

    /// One password, or account, in place of another. Where the BMC may have been given the new one, that is tried first: each
    /// wrong guess is a failed login, and a crash must not add up to a lock-out.
    async fn replace(
        &self,
        old: &Credentials,
        new: &Credentials,
        was_given: bool,
        noted: impl Future<Output = Result<(), Stopped>>,
    ) -> Result<(), Trouble> {
        let reach = self.reach(&[&old.username, &new.username]).await?;
        if was_given && settle(&reach, old, new).await? == Which::New {
            return Ok(());
        }
        match Box::pin(rotation(&reach, old, new).rotate_noting(noted)).await {
            Ok(_) => return Ok(()),
            Err(Stopped::Rotation(RotationError::OldRefused)) => {}
            Err(Stopped::Rotation(error)) => return Err(Trouble::from(error.problem())),
            Err(Stopped::Store(trouble)) => return Err(trouble),
        }
        if settle(&reach, old, new).await? == Which::New {
            return Ok(());
        }
        let message = "the BMC took the old password again; it is replaced once more";
        Err(Trouble::Passing(coded("bmc.rotation-unsettled", message.to_owned())))
    }

    /// Takes an account away from the BMC.
    async fn remove(&self, credentials: &Credentials, username: &str) -> Result<(), Trouble> {
        let reach = self.reach(&[&credentials.username]).await?;
        let client = reach.client(Some(credentials.clone()), 1).await?;
        let removed = async {
            let accounts = Accounts::of(&client).await.map_err(|error| Trouble::from(error.problem()))?;
            accounts.remove(username).await.map_err(|error| Trouble::from(error.problem()))
        };
        let removed = removed.await;
        client.close().await;
        removed
    }

    /// The BMC is given one password; a login proves it.
    async fn give(&self, old: &Credentials, account: &BmcAccount) -> Result<(), Trouble> {
        let new = Credentials::new(account.username.clone(), account.password.as_str());
        let noted = self.noted(account.holder, Phase::Given);
        self.replace(old, &new, account.phase == Phase::Given, noted).await?;
        let data = json!({ "holder": account.holder, "username": account.username });
        let store = &self.life.store;
        Ok(store.prove_bmc_account(self.machine(), self.guard, account.holder, &data).await?)
    }

    /// The account that the provisioning service has at the BMC: its own once that is proven.
    pub(crate) async fn account(&self) -> Result<Account, Trouble> {
        let accounts = self.life.store.bmc_accounts(self.machine()).await?;
        let own = accounts.into_iter().find(|account| account.holder == Holder::Provisioner);
        let own = own.filter(|account| !is_open(account));
        let (username, password) = if let Some(account) = own {
            (account.username, account.password)
        } else {
            let login = self.life.enroller.login(self.machine(), &self.spec).await?;
            (login.username, login.password)
        };
        Ok(self.account_of(username, password))
    }

    fn account_of(&self, username: String, password: Zeroizing<String>) -> Account {
        let subject = Zeroizing::new(format!("{username}\n{}", password.as_str()));
        let credentials = hex::encode(&self.life.store.derive("credentials", &subject)[..8]);
        Account { username, password, credentials }
    }
}

/// Why a password was not replaced.
enum Stopped {
    Rotation(RotationError),
    /// Nothing could be recorded.
    Store(Trouble),
}

impl From<RotationError> for Stopped {
    fn from(error: RotationError) -> Self {
        Self::Rotation(error)
    }
}

fn rotation<'a>(reach: &'a Reach, old: &'a Credentials, new: &'a Credentials) -> Rotation<'a> {
    let Reach { target, options, guard } = reach;
    Rotation { target, options, guard, old, new, patience: Patience::default() }
}

/// Which of the two is in force; neither is a trouble.
async fn settle(reach: &Reach, old: &Credentials, new: &Credentials) -> Result<Which, Trouble> {
    match Box::pin(rotation(reach, old, new).settle()).await {
        Ok(Which::Neither) => {
            let reason = "the BMC refuses both the password of our making and the one before it";
            Err(Trouble::from(RotationError::Unsettled { reason }.problem()))
        }
        Ok(which) => Ok(which),
        Err(error) => Err(Trouble::from(error.problem())),
    }
}

/// Whether it is not known yet that the new password is in force.
fn is_open(account: &BmcAccount) -> bool {
    matches!(account.phase, Phase::Prepared | Phase::Given)
}

fn names(accounts: &[BmcAccount]) -> Vec<&String> {
    accounts.iter().map(|account| &account.username).collect()
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
            let is_open = is_open(&account);
            let (password, own) = match account.previous {
                Some(previous) if is_open => (previous, false),
                _ => (account.password, true),
            };
            return Ok(Login { username: account.username, password, own });
        }
        let password = self.declared_password(machine, spec).await?;
        // Another machine may have been here, whose password was replaced.
        self.guard_of(spec)?.budget(&spec.bmc.username).reinstate(&password);
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
            // What is known is kept, name and all, whatever is declared now: it may be what is in force.
            let known = known.iter().find(|account| account.holder == holder);
            let (username, password) = match known {
                Some(known) => (known.username.clone(), known.password.clone()),
                None => (username, new_password()?),
            };
            accounts.push(BmcAccount { holder, username, password, previous, phase: Phase::Prepared });
        }
        let data = json!({ "accounts": names(&accounts) });
        Ok(self.store.prepare_bmc_accounts(&record.name, guard, &accounts, &data).await?)
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
