//! The steps that bring a machine from declared to enrolled (DESIGN §5.2). Each observes, does one thing, records.

use crate::error::coded;
use crate::life::Login;
use crate::secrets::Secrets;
use crate::trouble::Trouble;
use domain::declaration::{MachineSpec, SiteSpec};
use domain::inventory::Inventory;
use domain::{Diagnose, Digest, Kind, MachineState, Name, Outcome, Spec, fact};
use redfish::{BmcGuard, Client, Credentials, Guards, Options, SpkiPin, Target, Trust, WalkOptions};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::{Guard, Holder, MachineRecord, Store, StoreError};
use tokio::sync::Semaphore;

/// What all steps share.
#[derive(Debug)]
pub(crate) struct Enroller {
    pub store: Store,
    pub secrets: Secrets,
    pub guards: Guards,
    pub requests_per_bmc: usize,
    pub requests: Requests,
}

/// Places for requests to the BMCs of each site: BMCs that hang hold up those of no other site.
#[derive(Debug)]
pub(crate) struct Requests {
    per_site: usize,
    sites: Mutex<HashMap<Name, Arc<Semaphore>>>,
}

impl Requests {
    pub(crate) fn new(per_site: usize) -> Self {
        Self { per_site: per_site.max(1), sites: Mutex::default() }
    }

    fn of(&self, site: &Name) -> Arc<Semaphore> {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let places = sites.entry(site.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.per_site)));
        Arc::clone(places)
    }
}

/// How one BMC is talked to.
pub(crate) struct Reach {
    pub target: Target,
    pub options: Options,
    pub guard: Arc<BmcGuard>,
}

impl Reach {
    /// A client that logs in so, and believes that many refusals.
    pub(crate) async fn client(
        self,
        credentials: Option<Credentials>,
        strikes: u32,
    ) -> Result<Client, Trouble> {
        let options = Options { credentials, guard: Some(self.guard), strikes, ..self.options };
        Client::connect(self.target, options).await.map_err(|error| Trouble::from(error.problem()))
    }
}

/// A machine that takes longer than this to read is not read.
pub(crate) const DEADLINE: Duration = Duration::from_mins(10);

impl Enroller {
    /// Declared → discovered → enrolled, or what an enrolled machine says now.
    pub(crate) async fn step(&self, record: &MachineRecord, guard: Guard) -> Result<Outcome, Trouble> {
        let (spec, site) = self.declared(&record.name).await?;
        if let Some(address) = spec.bmc.ipmi() {
            return self.ipmi_step(record, guard, &spec, &site, &address).await;
        }
        match record.state {
            MachineState::Declared => self.discover(record, guard, &spec, &site).await,
            _ => self.enrol(record, guard, &spec, &site).await,
        }
    }

    pub(crate) async fn declared(&self, machine: &Name) -> Result<(MachineSpec, SiteSpec), Trouble> {
        let gone = |kind, name: &Name| Trouble::Store(StoreError::NotFound { kind, name: name.clone() });
        let Some(Spec::Machine(spec)) = self.store.declaration(Kind::Machine, machine).await?.map(|d| d.spec)
        else {
            return Err(gone(Kind::Machine, machine));
        };
        let Some(Spec::Site(site)) = self.store.declaration(Kind::Site, &spec.site).await?.map(|d| d.spec)
        else {
            return Err(gone(Kind::Site, &spec.site));
        };
        Ok((*spec, site))
    }

    /// Declared → discovered: who answers at the address, and which key it shows. No credentials are sent.
    async fn discover(
        &self,
        record: &MachineRecord,
        guard: Guard,
        spec: &MachineSpec,
        site: &SiteSpec,
    ) -> Result<Outcome, Trouble> {
        let trust = match spec.bmc.pin.or(record.pin) {
            Some(pin) => Trust::Pin(spki(&pin)?),
            None => Trust::FirstUse,
        };
        let client = self.reach(spec, site, trust, &[]).await?.client(None, 1).await?;
        let pin = client.peer_pin();
        client.close().await;
        let pin = pin.ok_or_else(|| Trouble::Passing(coded("api.internal", "the BMC showed no key")))?;
        self.store.record_discovery(&record.name, guard, &digest(pin)?).await?;
        Ok(Outcome::Advance(MachineState::Discovered))
    }

    /// Discovered → enrolled, and every refresh after: identity, checks, inventory.
    async fn enrol(
        &self,
        record: &MachineRecord,
        guard: Guard,
        spec: &MachineSpec,
        site: &SiteSpec,
    ) -> Result<Outcome, Trouble> {
        let login = self.login(&record.name, spec).await?;
        let inventory = match self.read(record, spec, site, &login).await {
            Err(trouble @ (Trouble::Refused(_) | Trouble::Passing(_))) => {
                let code = trouble.told().map_or("", |problem| problem.code.as_str());
                let holders = match code {
                    // Nothing can be read with a factory password that has to be changed first (quirk 4).
                    "bmc.password-change-required" if spec.bmc.rotate && !login.own => vec![Holder::Cell],
                    // Somebody changed it, the BMC was reset to its factory settings, or it has its declared one back and is not
                    // retired after all: the declared one may be in force.
                    "bmc.unauthorized" | "bmc.credentials-superseded" if login.own => {
                        let known = self.store.bmc_accounts(&record.name).await?;
                        known.iter().map(|account| account.holder).collect()
                    }
                    _ => return Err(trouble),
                };
                let problem = trouble.problem();
                tracing::warn!(machine = %record.name, code = problem.code, "its BMC is given a password: {}", problem.message);
                self.prepare(record, guard, spec, &holders).await?;
                return Ok(Outcome::Advance(record.state));
            }
            read => read?,
        };
        check_identity(spec, &inventory)?;
        let at = self.store.clock().await?;
        let facts = fact::from_inventory(&inventory, at);
        self.store.record_enrolment(&record.name, guard, &inventory, &facts, at).await?;
        Ok(Outcome::Advance(record.state.max(MachineState::Enrolled)))
    }

    /// Logs in with the declared account, once, and out again. A BMC that does not say whether it takes the password has not taken it.
    pub(crate) async fn check_login(
        &self,
        record: &MachineRecord,
        spec: &MachineSpec,
        site: &SiteSpec,
    ) -> Result<(), Trouble> {
        if let Some(address) = spec.bmc.ipmi() {
            return self.ipmi_login(record, spec, site, &address).await;
        }
        let login = self.login(&record.name, spec).await?;
        let credentials = Credentials::new(login.username.clone(), login.password.as_str());
        let reach = self.reach(spec, site, pinned(record, spec)?, &[&login.username]).await?;
        let client = reach.client(Some(credentials), 1).await?;
        let is_taken = client.is_authenticated();
        client.close().await;
        if is_taken { Ok(()) } else { Err(Trouble::from(redfish::Error::Busy.problem())) }
    }

    async fn read(
        &self,
        record: &MachineRecord,
        spec: &MachineSpec,
        site: &SiteSpec,
        login: &Login,
    ) -> Result<Inventory, Trouble> {
        let credentials = Credentials::new(login.username.clone(), login.password.as_str());
        let reach = self.reach(spec, site, pinned(record, spec)?, &[&login.username]).await?;
        // A password that never worked is believed wrong at its first refusal, so that the right one may still be tried, and so
        // is one of our making: the declared one is tried next. One that did may be refused now and then (quirk 3); but where a
        // provisioning service may have it too, that is held before it is tried again.
        let is_new = reach.guard.budget(&login.username).took_another(&login.password);
        let is_alone = record.state.is_enrolled() && !record.state.is_handed_over();
        let strikes = if is_alone && !login.own && !is_new { 2 } else { 1 };
        let client = reach.client(Some(credentials), strikes).await?;
        let read = Box::pin(redfish::inventory(&client, &WalkOptions::default())).await;
        client.close().await;
        read.map_err(|error| Trouble::from(error.problem()))
    }

    /// How the BMC of a machine is talked to by who logs in with these accounts.
    pub(crate) async fn reach(
        &self,
        spec: &MachineSpec,
        site: &SiteSpec,
        trust: Trust,
        accounts: &[&str],
    ) -> Result<Reach, Trouble> {
        let networks = Some(site.bmc_networks.clone());
        let target = Target { url: spec.bmc.address.clone(), trust, networks };
        let options = Options {
            concurrency: self.requests_per_bmc,
            shared: Some(self.requests.of(&spec.site)),
            deadline: Some(DEADLINE),
            ..Options::default()
        };
        Ok(Reach { target, options, guard: self.guard(spec, accounts).await? })
    }

    /// The guard of a machine's BMC. One that is reached by Redfish and by IPMI is one BMC.
    pub(crate) fn guard_of(&self, spec: &MachineSpec) -> Result<Arc<BmcGuard>, Trouble> {
        let address = spec.bmc.ipmi().map_or_else(|| spec.bmc.address.clone(), |ipmi| ipmi.shared());
        self.guards.of(&address).map_err(|error| Trouble::from(error.problem()))
    }

    /// What all that talk to this BMC share: pace, fence, and how many logins may still fail. The count of failures is kept
    /// in the database before a password is sent, so that neither a crash nor another replica forgets one.
    pub(crate) async fn guard(
        &self,
        spec: &MachineSpec,
        accounts: &[&str],
    ) -> Result<Arc<BmcGuard>, Trouble> {
        let guard = self.guard_of(spec)?;
        for account in accounts {
            let budget = guard.budget(account);
            let (bmc, account) = (guard.address().to_owned(), account.to_lowercase());
            let stored = self.store.failed_logins(&bmc, &account).await?;
            budget.import(stored.and_then(|stored| serde_json::from_value(stored).ok()));
            let store = self.store.clone();
            budget.record_with(Box::new(move |failed| {
                let (store, bmc, account) = (store.clone(), bmc.clone(), account.clone());
                Box::pin(async move {
                    let failed = failed.and_then(|failed| serde_json::to_value(failed).ok());
                    let recorded = store.record_failed_logins(&bmc, &account, failed.as_ref()).await;
                    recorded.map_err(|error| error.to_string())
                })
            }));
        }
        Ok(guard)
    }

    /// The password that people have declared.
    pub(crate) async fn declared_password(
        &self,
        machine: &Name,
        spec: &MachineSpec,
    ) -> Result<store::Zeroizing<String>, Trouble> {
        let missing = |why: String| Trouble::Passing(coded("machine.no-password", why));
        let Some(reference) = &spec.bmc.secret_ref else {
            let sealed = self.store.credentials(machine).await?;
            return sealed.ok_or_else(|| missing(format!("no password is sealed for Machine/{machine}")));
        };
        self.secrets.read(reference).await.map_err(missing)
    }
}

/// Only who has the key of the machine's BMC is sent a password: the declared one, or the one seen first.
pub(crate) fn pinned(record: &MachineRecord, spec: &MachineSpec) -> Result<Trust, Trouble> {
    let pin = spec.bmc.pin.or(record.pin);
    let pin = pin.ok_or_else(|| Trouble::Passing(coded("api.internal", "the machine has no pin")))?;
    Ok(Trust::Pin(spki(&pin)?))
}

pub(crate) fn check_identity(spec: &MachineSpec, inventory: &Inventory) -> Result<(), Trouble> {
    let identity = &inventory.identity;
    let nothing = || "nothing".to_owned();
    if let Some(expected) = &spec.serial
        && identity.serial.as_deref() != Some(expected.trim())
    {
        let problem = coded("machine.serial-mismatch", "another machine answers at this address");
        return Err(Trouble::Passing(
            problem.difference(identity.serial.clone().unwrap_or_else(nothing), expected),
        ));
    }
    if let Some(expected) = &spec.mac {
        let wanted = expected.to_ascii_lowercase().replace('-', ":");
        let mut macs = inventory.nics.iter().map(|nic| &nic.mac).chain(&inventory.bmc.macs);
        if !macs.any(|mac| *mac == wanted) {
            let found = inventory
                .nics
                .iter()
                .map(|nic| nic.mac.as_str())
                .chain(inventory.bmc.macs.iter().map(String::as_str));
            let found = found.collect::<Vec<_>>().join(", ");
            let problem = coded("machine.mac-mismatch", "another machine answers at this address");
            return Err(Trouble::Passing(
                problem.difference(if found.is_empty() { nothing() } else { found }, wanted),
            ));
        }
    }
    if identity.serial.is_none() && identity.uuid.is_none() {
        return Err(Trouble::Passing(coded(
            "machine.unidentified",
            "the BMC tells neither serial number nor UUID of its machine",
        )));
    }
    Ok(())
}

/// Both types hold the same 32 bytes and write them in the same form.
fn spki(digest: &Digest) -> Result<SpkiPin, Trouble> {
    digest.to_string().parse().map_err(|_| Trouble::Lasting(coded("api.internal", "the pin is malformed")))
}

fn digest(pin: SpkiPin) -> Result<Digest, Trouble> {
    pin.to_string().parse().map_err(|_| Trouble::Lasting(coded("api.internal", "the pin is malformed")))
}
