//! Accounts of a BMC: made and deleted, or slots made beforehand that are filled and disabled (quirk 29).

use std::time::Duration;

use domain::{Diagnose, Problem};
use http::Method;
use serde_json::{Value, json};

use crate::budget::Lockout;
use crate::client::Client;
use crate::decode::{Log, Node, bare_path};
use crate::error;
use crate::host::{link, member_links};
use crate::quirks;
use crate::reader::{ReadError, Reader as _, Resource};
use crate::session::Credentials;
use crate::task;
use crate::write::{Change, Fault, Payload, PropertyProblem, Repeat, WriteError};

/// Slots are looked through up to this number where they cannot be listed.
const SLOTS: u32 = 16;

/// The role that may do everything (DSP0266, "Roles").
pub const ADMINISTRATOR: &str = "Administrator";

/// One account, or an empty slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its path.
    pub uri: String,
    /// Its Id; a number where accounts are slots.
    pub id: String,
    /// User name; `None` for an empty slot.
    pub username: Option<String>,
    /// RoleId.
    pub role: Option<String>,
    /// Whether it may log in; BMCs that do not say mean yes.
    pub enabled: bool,
    /// Whether the BMC has locked it.
    pub locked: bool,
    /// Whether its password must be changed first (quirk 4).
    pub password_change_required: bool,
}

impl Account {
    fn of(resource: &Resource) -> Self {
        let log = Log::default();
        let node = Node::new(&resource.body, &resource.uri, &log);
        let text =
            |name| node.body().get(name).and_then(Value::as_str).map(str::trim).filter(|t| !t.is_empty());
        Self {
            uri: bare_path(&resource.uri).to_owned(),
            id: node.id(),
            username: text("UserName").map(ToOwned::to_owned),
            role: text("RoleId").map(ToOwned::to_owned),
            enabled: node.truth("Enabled").unwrap_or(true),
            locked: node.truth("Locked").unwrap_or(false),
            password_change_required: node.truth("PasswordChangeRequired").unwrap_or(false),
        }
    }

    fn is(&self, username: &str) -> bool {
        self.username.as_deref() == Some(username)
    }
}

/// Why accounts are not as asked for.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// No account of this name.
    #[error("the BMC shows no account {username}")]
    NotFound {
        /// The name.
        username: String,
    },
    /// No slot is free.
    #[error("all account slots of the BMC are taken")]
    NoSlot,
    /// The BMC does not take the password.
    #[error("the BMC does not accept the new password")]
    PasswordUnacceptable,
    /// The account used to ask.
    #[error("{username} is the account in use; it is not taken away from ourselves")]
    Own {
        /// Its name.
        username: String,
    },
    /// Taken by the BMC, but not to be seen.
    #[error("the BMC took the change of account {username}, but does not show it")]
    NoEffect {
        /// The account.
        username: String,
    },
    /// The change was refused.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<ReadError> for AccountError {
    fn from(error: ReadError) -> Self {
        Self::Write(error.into())
    }
}

impl AccountError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "bmc.account-not-found",
            Self::NoSlot => "bmc.account-no-slot",
            Self::PasswordUnacceptable => "bmc.password-unacceptable",
            Self::Own { .. } => "bmc.account-own",
            Self::NoEffect { .. } => "bmc.account-no-effect",
            Self::Write(error) => error.code(),
        }
    }
}

impl Diagnose for AccountError {
    fn problem(&self) -> Problem {
        match self {
            Self::Write(error) => error.problem(),
            _ => error::problem(self.code(), self.to_string()),
        }
    }
}

/// The accounts of one BMC.
#[derive(Debug)]
pub struct Accounts<'a> {
    client: &'a Client,
    service: String,
    first_slot: Option<u32>,
}

impl<'a> Accounts<'a> {
    /// Finds them by the service root.
    pub async fn of(client: &'a Client) -> Result<Self, ReadError> {
        let root = client.get("/redfish/v1/").await?.body;
        let first_slot = quirks::profile(&root, None).first_account_slot;
        Ok(Self { client, service: link(&root, "AccountService"), first_slot })
    }

    /// All accounts, empty slots included.
    pub async fn list(&self) -> Result<Vec<Account>, ReadError> {
        let service = self.client.get(&self.service).await?;
        let mut accounts = Vec::new();
        for uri in member_links(self.client, &self.collection(Some(&service.body))).await? {
            accounts.push(Account::of(&self.client.get(&uri).await?));
        }
        Ok(accounts)
    }

    /// When the BMC locks accounts, as far as it says.
    pub async fn lockout(&self) -> Result<Lockout, ReadError> {
        let service = self.client.get(&self.service).await?;
        let number = |name: &str| service.body.get(name).and_then(Value::as_u64);
        let seconds = |name: &str| number(name).map(Duration::from_secs);
        let resets = service.body.get("AccountLockoutCounterResetEnabled").and_then(Value::as_bool);
        Ok(Lockout {
            threshold: number("AccountLockoutThreshold").map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            // Without end only an administrator unlocks: a longer wait would help nobody.
            duration: seconds("AccountLockoutDuration"),
            reset_after: match resets {
                // Only a login that is taken resets the count.
                Some(false) => Some(Duration::from_hours(24)),
                _ => seconds("AccountLockoutCounterResetAfter"),
            },
        })
    }

    /// Lowers the login budget of the client's account to what the BMC says.
    pub async fn learn_lockout(&self) -> Result<Lockout, ReadError> {
        let lockout = self.lockout().await?;
        self.client.login_budget().learn(&lockout);
        Ok(lockout)
    }

    /// The account of this name.
    pub async fn find(&self, username: &str) -> Result<Account, AccountError> {
        let accounts = self.list().await?;
        let missing = || AccountError::NotFound { username: username.to_owned() };
        accounts.into_iter().find(|account| account.is(username)).ok_or_else(missing)
    }

    /// The path of the client's own account; also where the account may read and change nothing but itself (quirk 4).
    pub async fn own(&self) -> Result<String, AccountError> {
        let username = self.client.username().unwrap_or_default().to_owned();
        if let Some(Some(uri)) = self.client.inner.change_demanded.get() {
            return Ok(uri.clone());
        }
        match self.find(&username).await {
            Err(AccountError::Write(WriteError::Read(ReadError::Forbidden { .. }))) => {}
            found => return found.map(|account| account.uri),
        }
        let collection = self.collection(None);
        let slots = (1..=SLOTS).map(|slot| slot.to_string());
        for id in std::iter::once(username.clone()).chain(slots) {
            match self.client.get(&format!("{collection}/{id}")).await {
                Ok(resource) if Account::of(&resource).is(&username) => return Ok(resource.uri),
                Err(error @ ReadError::Bmc(_)) => return Err(error.into()),
                _ => {}
            }
        }
        Err(AccountError::NotFound { username })
    }

    /// Changes the password of an account. Proof that it took effect is a login ([`crate::rotation`]).
    pub async fn change_password(&self, uri: &str, password: &str) -> Result<(), AccountError> {
        let payload = Payload::with_secret(&[], "Password", password);
        self.send(Method::PATCH, uri, &payload).await
    }

    /// Makes an account that may log in, or gives the one of this name that password and role. Done twice it is done once.
    pub async fn create(&self, new: &Credentials, role: &str) -> Result<Account, AccountError> {
        let plain =
            |name: &str| vec![("UserName", json!(name)), ("RoleId", json!(role)), ("Enabled", json!(true))];
        let accounts = self.list().await?;
        if let Some(known) = accounts.iter().find(|account| account.is(&new.username)) {
            let members = plain(&new.username).split_off(1);
            let payload = Payload::with_secret(&members, "Password", &new.password);
            self.send(Method::PATCH, &known.uri, &payload).await?;
            return self.shown(&new.username, |account| account.enabled).await;
        }
        let payload = Payload::with_secret(&plain(&new.username), "Password", &new.password);
        match self.make(&accounts, &payload).await {
            // It may have been made: the list tells.
            Ok(()) | Err(AccountError::Write(WriteError::Unsure { .. })) => {}
            Err(error) => return Err(error),
        }
        self.shown(&new.username, |account| account.enabled).await
    }

    /// Disables an account.
    pub async fn disable(&self, username: &str) -> Result<(), AccountError> {
        let account = self.other(username).await?;
        self.client.patch(&account.uri, &json!({"Enabled": false})).await?;
        self.shown(username, |account| !account.enabled).await.map(|_| ())
    }

    /// Deletes an account; disables it where accounts are slots (quirk 29).
    pub async fn remove(&self, username: &str) -> Result<(), AccountError> {
        let account = match self.other(username).await {
            Err(AccountError::NotFound { .. }) => return Ok(()),
            account => account?,
        };
        if self.first_slot.is_some() {
            return self.disable(username).await;
        }
        match self.client.delete(&account.uri).await {
            Err(WriteError::Unsupported { .. }) => return self.disable(username).await,
            outcome => outcome?,
        };
        match self.find(username).await {
            Err(AccountError::NotFound { .. }) => Ok(()),
            Ok(_) => Err(AccountError::NoEffect { username: username.to_owned() }),
            Err(error) => Err(error),
        }
    }

    async fn other(&self, username: &str) -> Result<Account, AccountError> {
        if self.client.username() == Some(username) {
            return Err(AccountError::Own { username: username.to_owned() });
        }
        self.find(username).await
    }

    async fn make(&self, accounts: &[Account], payload: &Payload) -> Result<(), AccountError> {
        if let Some(first) = self.first_slot {
            return self.fill_slot(accounts, first, payload).await;
        }
        let service = self.client.get(&self.service).await?;
        match self.send(Method::POST, &self.collection(Some(&service.body)), payload).await {
            Err(AccountError::Write(WriteError::Unsupported { .. })) => {
                self.fill_slot(accounts, 1, payload).await
            }
            outcome => outcome,
        }
    }

    async fn fill_slot(
        &self,
        accounts: &[Account],
        first: u32,
        payload: &Payload,
    ) -> Result<(), AccountError> {
        let number = |account: &&Account| account.id.parse::<u32>().ok().filter(|number| *number >= first);
        let free = accounts.iter().filter(|account| account.username.is_none() && number(account).is_some());
        let slot = free.min_by_key(number).ok_or(AccountError::NoSlot)?;
        self.send(Method::PATCH, &slot.uri, payload).await
    }

    async fn send(&self, method: Method, uri: &str, payload: &Payload) -> Result<(), AccountError> {
        let change = Change { method, uri, payload: Some(payload), repeat: Repeat::UnlessUnsure };
        let is_password = |problem: &PropertyProblem| {
            problem.fault == Fault::Value && problem.property.as_deref().is_none_or(|name| name == "Password")
        };
        match self.client.change(change).await {
            Ok(outcome) => Ok(task::finish(self.client, outcome).await?),
            Err(WriteError::Property { problems, .. }) if problems.iter().any(is_password) => {
                Err(AccountError::PasswordUnacceptable)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Verifies a change by what the BMC shows.
    async fn shown(&self, username: &str, is: impl Fn(&Account) -> bool) -> Result<Account, AccountError> {
        let no_effect = || AccountError::NoEffect { username: username.to_owned() };
        match self.find(username).await {
            Ok(account) if is(&account) => Ok(account),
            Ok(_) | Err(AccountError::NotFound { .. }) => Err(no_effect()),
            Err(error) => Err(error),
        }
    }

    fn collection(&self, service: Option<&Value>) -> String {
        let linked = service.and_then(|service| service.get("Accounts")?.get("@odata.id")?.as_str());
        let usual = || format!("{}/Accounts", self.service.trim_end_matches('/'));
        linked.map_or_else(usual, |link| link.trim_end_matches('/').to_owned())
    }
}
