//! The accounts of a BMC: who may log in, lock-out, and AccountService's view of them (DSP0268, `ManagerAccount`).

use std::collections::BTreeMap;
use std::time::Instant;

use base64::Engine as _;
use http::StatusCode;
use serde_json::{Value, json};

use crate::behaviour::{AccountStyle, Behaviour};
use crate::handler::Refusal;
use crate::messages;

/// Who asks, after credentials were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) id: String,
    pub(crate) role: Role,
    /// Whether the password was changed since the factory.
    pub(crate) changed: bool,
}

/// What an account may do: read, change, or change accounts too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    ReadOnly,
    Operator,
    Administrator,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "ReadOnly",
            Self::Operator => "Operator",
            Self::Administrator => "Administrator",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::ReadOnly, Self::Operator, Self::Administrator].into_iter().find(|role| role.name() == text)
    }
}

/// All accounts of a BMC.
#[derive(Debug)]
pub(crate) struct Accounts {
    list: Vec<Account>,
    factory: Account,
    next: u32,
    /// Logins refused, by the name that was given.
    failed: BTreeMap<String, u64>,
    /// The most that any account has seen in a row.
    longest_row: u32,
}

#[derive(Clone)]
struct Account {
    id: String,
    username: String,
    password: String,
    /// The `Authorization` header that opens this account, so that a request costs one comparison.
    basic: String,
    role: Role,
    enabled: bool,
    changed: bool,
    strikes: u32,
    locked_at: Option<Instant>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("id", &self.id)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Names counted apart; those of a client that tries more are not.
const NAMES: usize = 256;
const SHORTEST_PASSWORD: usize = 8;
const LONGEST_PASSWORD: usize = 64;
/// The first slot that a client may take: the two before are the BMC's own (quirk 29).
const FIRST_SLOT: u32 = 3;

impl Accounts {
    pub(crate) fn new(username: &str, password: &str, style: AccountStyle) -> Self {
        let id = match style {
            AccountStyle::Created => "1",
            AccountStyle::Slots(_) => "2",
        };
        let factory = Account::new(id, username, password, Role::Administrator);
        Self {
            list: vec![factory.clone()],
            factory,
            next: FIRST_SLOT,
            failed: BTreeMap::new(),
            longest_row: 0,
        }
    }

    /// The account that the BMC was given at the start, or what became of it.
    fn first(&self) -> &Account {
        self.list.iter().find(|account| account.id == self.factory.id).unwrap_or(&self.factory)
    }

    pub(crate) fn username(&self) -> &str {
        &self.first().username
    }

    pub(crate) fn password(&self) -> &str {
        &self.first().password
    }

    pub(crate) fn set_password(&mut self, password: &str) {
        let id = self.factory.id.clone();
        if let Some(account) = self.list.iter_mut().find(|account| account.id == id) {
            account.set_password(password);
        }
    }

    /// One more that may do everything, as an operator would make it at the device.
    pub(crate) fn add(&mut self, username: &str, password: &str) {
        let id = self.next.to_string();
        self.next += 1;
        self.list.push(Account::new(&id, username, password, Role::Administrator));
    }

    /// What leaves the factory again: one account, with its first password.
    pub(crate) fn reset(&mut self) {
        self.list = vec![self.factory.clone()];
    }

    pub(crate) fn unlock(&mut self) {
        for account in &mut self.list {
            (account.strikes, account.locked_at) = (0, None);
        }
    }

    /// The names of those that are enabled.
    pub(crate) fn usernames(&self) -> Vec<String> {
        self.list.iter().filter(|account| account.enabled).map(|account| account.username.clone()).collect()
    }

    pub(crate) fn longest_row(&self) -> u32 {
        self.longest_row
    }

    pub(crate) fn failed(&self, username: &str) -> u64 {
        self.failed.get(username).copied().unwrap_or_default()
    }

    /// Whether this `Authorization` header opens an account.
    pub(crate) fn basic(&mut self, header: &[u8], behaviour: &Behaviour) -> Option<Who> {
        if let Some(at) = self.list.iter().position(|account| account.basic.as_bytes() == header) {
            return self.judge(Some(at), true, behaviour);
        }
        let text = std::str::from_utf8(header).ok().and_then(|text| text.strip_prefix("Basic "));
        let decoded = text.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
        let given = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let username = given.split(':').next().unwrap_or_default();
        self.refuse(username, behaviour)
    }

    /// Whether this name and password open an account.
    pub(crate) fn log_in(&mut self, username: &str, password: &str, behaviour: &Behaviour) -> Option<Who> {
        let of_name = |account: &Account| !username.is_empty() && account.username == username;
        match self.list.iter().position(of_name) {
            Some(at) if self.list[at].password == password => self.judge(Some(at), true, behaviour),
            _ => self.refuse(username, behaviour),
        }
    }

    /// Whether this pair would log in, were the account not locked.
    pub(crate) fn opens(&self, username: &str, password: &str) -> bool {
        let mut named = self.list.iter().filter(|account| account.username == username && account.enabled);
        !password.is_empty() && named.any(|account| account.password == password)
    }

    fn refuse(&mut self, username: &str, behaviour: &Behaviour) -> Option<Who> {
        if self.failed.len() < NAMES || self.failed.contains_key(username) {
            *self.failed.entry(username.to_owned()).or_default() += 1;
        }
        let at = self.list.iter().position(|account| account.username == username);
        self.judge(at, false, behaviour)
    }

    /// Counts a login to this account and says whether it is let in.
    fn judge(&mut self, at: Option<usize>, right: bool, behaviour: &Behaviour) -> Option<Who> {
        let account = self.list.get_mut(at?)?;
        let locked = account.is_locked(behaviour);
        // A slot that was named and given no password yet opens nothing.
        if right && !locked && account.enabled && !account.password.is_empty() {
            (account.strikes, account.locked_at) = (0, None);
            return Some(account.who());
        }
        if right {
            *self.failed.entry(account.username.clone()).or_default() += 1;
        }
        account.strikes = account.strikes.saturating_add(1);
        self.longest_row = self.longest_row.max(account.strikes);
        if behaviour.lockout_after.is_some_and(|limit| account.strikes >= limit) && !locked {
            account.locked_at = Some(Instant::now());
        }
        None
    }

    /// Who an account of this id is, for a session of it.
    pub(crate) fn who(&self, id: &str) -> Option<Who> {
        self.list.iter().find(|account| account.id == id).map(Account::who)
    }

    pub(crate) fn is_locked(&mut self, username: &str, behaviour: &Behaviour) -> bool {
        let account = self.list.iter_mut().find(|account| account.username == username);
        account.is_some_and(|account| account.is_locked(behaviour))
    }

    /// The collection (`rest` empty) or an account (`rest` is `/ID`).
    pub(crate) fn show(&mut self, path: &str, rest: &str, behaviour: &Behaviour) -> Option<Value> {
        if rest.is_empty() {
            let ids: Vec<String> = match behaviour.accounts {
                AccountStyle::Created => self.list.iter().map(|account| account.id.clone()).collect(),
                AccountStyle::Slots(slots) => (1..=slots).map(|slot| slot.to_string()).collect(),
            };
            let members: Vec<Value> =
                ids.iter().map(|id| json!({"@odata.id": format!("{path}/{id}")})).collect();
            return Some(json!({
                "@odata.id": path, "@odata.type": "#ManagerAccountCollection.ManagerAccountCollection",
                "Name": "Accounts", "Members@odata.count": members.len(), "Members": members,
            }));
        }
        let id = rest.strip_prefix('/')?;
        let roles = path.strip_suffix("/Accounts").unwrap_or(path);
        match self.list.iter_mut().find(|account| account.id == id) {
            Some(account) => Some(account.show(path, roles, behaviour)),
            None if is_slot(id, behaviour.accounts, 1) => {
                Some(Account::empty(id).show(path, roles, behaviour))
            }
            None => None,
        }
    }

    /// Creates an account; its id.
    pub(crate) fn create(&mut self, body: &Value, style: AccountStyle) -> Result<String, Refusal> {
        if style != AccountStyle::Created {
            return Err((StatusCode::METHOD_NOT_ALLOWED, messages::operation_not_allowed()));
        }
        for property in ["UserName", "Password", "RoleId"] {
            if body[property].as_str().is_none_or(str::is_empty) {
                return Err((StatusCode::BAD_REQUEST, messages::property_missing(property)));
            }
        }
        let id = self.next.to_string();
        let mut account = Account { enabled: true, ..Account::empty(&id) };
        self.change(&mut account, body)?;
        self.next += 1;
        self.list.push(account);
        Ok(id)
    }

    /// Changes an account or, where there are slots, takes one or gives it back.
    pub(crate) fn patch(&mut self, id: &str, body: &Value, style: AccountStyle) -> Result<(), Refusal> {
        let known = self.list.iter().position(|account| account.id == id);
        let mut account = match known {
            Some(at) => self.list[at].clone(),
            None if is_slot(id, style, FIRST_SLOT) => Account::empty(id),
            None => return Err((StatusCode::NOT_FOUND, messages::not_found(id))),
        };
        self.change(&mut account, body)?;
        match known {
            Some(at) if account.username.is_empty() => drop(self.list.remove(at)),
            Some(at) => self.list[at] = account,
            None => self.list.push(account),
        }
        Ok(())
    }

    fn change(&self, account: &mut Account, body: &Value) -> Result<(), Refusal> {
        let refuse = |property: &str, value: &str| {
            Err((StatusCode::BAD_REQUEST, messages::property_value(property, value)))
        };
        if let Some(username) = body["UserName"].as_str() {
            if self.list.iter().any(|other| other.id != account.id && other.username == username) {
                return refuse("UserName", username);
            }
            username.clone_into(&mut account.username);
        }
        if let Some(role) = body["RoleId"].as_str() {
            match Role::parse(role) {
                Some(role) => account.role = role,
                None => return refuse("RoleId", role),
            }
        }
        if let Some(enabled) = body["Enabled"].as_bool() {
            account.enabled = enabled;
        }
        if body["Locked"] == false {
            (account.strikes, account.locked_at) = (0, None);
        }
        if let Some(password) = body["Password"].as_str() {
            if !(SHORTEST_PASSWORD..=LONGEST_PASSWORD).contains(&password.len()) {
                return refuse("Password", "of this length");
            }
            account.set_password(password);
            account.changed = true;
        }
        // The name is in it too.
        account.basic = basic(&account.username, &account.password);
        Ok(())
    }

    pub(crate) fn delete(&mut self, id: &str, style: AccountStyle) -> Result<(), Refusal> {
        if style != AccountStyle::Created || id == self.factory.id {
            return Err((StatusCode::METHOD_NOT_ALLOWED, messages::operation_not_allowed()));
        }
        let before = self.list.len();
        self.list.retain(|account| account.id != id);
        if self.list.len() == before {
            return Err((StatusCode::NOT_FOUND, messages::not_found(id)));
        }
        Ok(())
    }
}

fn is_slot(id: &str, style: AccountStyle, first: u32) -> bool {
    let AccountStyle::Slots(slots) = style else { return false };
    id.parse::<u32>().is_ok_and(|slot| (first..=slots).contains(&slot) && slot.to_string() == id)
}

/// What AccountService says of lock-out.
pub(crate) fn service(behaviour: &Behaviour) -> Value {
    json!({"AccountLockoutThreshold": behaviour.lockout_after.unwrap_or(0),
        "AccountLockoutDuration": behaviour.lockout_for.map_or(0, |time| time.as_secs()),
        "MinPasswordLength": SHORTEST_PASSWORD, "MaxPasswordLength": LONGEST_PASSWORD})
}

impl Account {
    fn new(id: &str, username: &str, password: &str, role: Role) -> Self {
        Self {
            id: id.to_owned(),
            username: username.to_owned(),
            password: password.to_owned(),
            basic: basic(username, password),
            role,
            enabled: true,
            changed: false,
            strikes: 0,
            locked_at: None,
        }
    }

    fn empty(id: &str) -> Self {
        Self { enabled: false, ..Self::new(id, "", "", Role::ReadOnly) }
    }

    fn set_password(&mut self, password: &str) {
        password.clone_into(&mut self.password);
        self.basic = basic(&self.username, password);
    }

    fn who(&self) -> Who {
        Who { id: self.id.clone(), role: self.role, changed: self.changed }
    }

    /// Ends a lock-out whose time is over.
    fn is_locked(&mut self, behaviour: &Behaviour) -> bool {
        let over = |since: Instant| behaviour.lockout_for.is_some_and(|time| since.elapsed() >= time);
        if self.locked_at.is_some_and(over) {
            (self.strikes, self.locked_at) = (0, None);
        }
        self.locked_at.is_some()
    }

    fn show(&mut self, path: &str, roles: &str, behaviour: &Behaviour) -> Value {
        let (id, role, locked) = (&self.id.clone(), self.role.name(), self.is_locked(behaviour));
        json!({
            "@odata.id": format!("{path}/{id}"), "@odata.type": "#ManagerAccount.v1_9_0.ManagerAccount", "Id": id,
            "Name": "User account", "UserName": self.username, "Password": null, "RoleId": role,
            "Enabled": self.enabled, "Locked": locked, "AccountTypes": ["Redfish"],
            "PasswordChangeRequired": behaviour.password_change_required && !self.changed,
            "Links": {"Role": {"@odata.id": format!("{roles}/Roles/{role}")}},
        })
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn accounts(style: AccountStyle) -> Accounts {
        Accounts::new("root", "factory-word", style)
    }

    #[test]
    fn an_account_is_created_changed_and_deleted() {
        let (mut all, behaviour) = (accounts(AccountStyle::Created), Behaviour::default());
        let new = json!({"UserName": "cell", "Password": "first-password", "RoleId": "Operator"});
        let id = all.create(&new, AccountStyle::Created).unwrap();
        assert_eq!(all.log_in("cell", "first-password", &behaviour).unwrap().role, Role::Operator);
        assert!(all.create(&new, AccountStyle::Created).is_err(), "the name is taken");
        all.patch(&id, &json!({"Password": "second-password"}), AccountStyle::Created).unwrap();
        assert!(all.log_in("cell", "first-password", &behaviour).is_none());
        assert!(all.basic(basic("cell", "second-password").as_bytes(), &behaviour).is_some());
        all.delete(&id, AccountStyle::Created).unwrap();
        assert!(all.log_in("cell", "second-password", &behaviour).is_none());
        assert!(all.delete("1", AccountStyle::Created).is_err(), "the last way in stays");
    }

    #[test]
    fn a_short_password_changes_nothing() {
        let (mut all, behaviour) = (accounts(AccountStyle::Created), Behaviour::default());
        let short = json!({"Password": "short", "UserName": "other"});
        assert!(all.patch("1", &short, AccountStyle::Created).is_err());
        assert!(all.log_in("root", "factory-word", &behaviour).is_some());
    }

    #[test]
    fn slots_are_taken_from_the_third_on_and_given_back_by_an_empty_name() {
        let style = AccountStyle::Slots(4);
        let behaviour = Behaviour { accounts: style, ..Behaviour::default() };
        let mut all = accounts(style);
        let new =
            json!({"UserName": "cell", "Password": "first-password", "RoleId": "Operator", "Enabled": true});
        assert!(all.create(&new, style).is_err());
        assert!(all.patch("1", &new, style).is_err());
        assert!(all.patch("5", &new, style).is_err());
        all.patch("3", &new, style).unwrap();
        assert!(all.log_in("cell", "first-password", &behaviour).is_some());
        assert_eq!(all.show("/a", "", &behaviour).unwrap()["Members@odata.count"], 4);
        assert_eq!(all.show("/a", "/4", &behaviour).unwrap()["UserName"], "");
        all.patch("3", &json!({"UserName": ""}), style).unwrap();
        assert!(all.log_in("cell", "first-password", &behaviour).is_none());
        assert!(all.log_in("", "", &behaviour).is_none(), "an empty slot is nobody's");
    }

    #[test]
    fn a_lock_out_is_of_one_account_and_ends_by_itself() {
        let mut behaviour = Behaviour { lockout_after: Some(2), ..Behaviour::default() };
        let mut all = accounts(AccountStyle::Created);
        let new =
            json!({"UserName": "cell", "Password": "first-password", "RoleId": "Operator", "Enabled": true});
        all.create(&new, AccountStyle::Created).unwrap();
        for _ in 0..2 {
            assert!(all.log_in("cell", "wrong", &behaviour).is_none());
        }
        assert!(all.log_in("cell", "first-password", &behaviour).is_none(), "locked");
        assert!(all.log_in("root", "factory-word", &behaviour).is_some());
        assert_eq!((all.failed("cell"), all.failed("root")), (3, 0));
        behaviour.lockout_for = Some(Duration::ZERO);
        assert!(all.log_in("cell", "first-password", &behaviour).is_some());
    }

    #[test]
    fn the_factory_knows_one_account() {
        let (mut all, behaviour) = (accounts(AccountStyle::Created), Behaviour::default());
        all.patch("1", &json!({"Password": "rotated-password"}), AccountStyle::Created).unwrap();
        all.reset();
        assert!(!all.log_in("root", "factory-word", &behaviour).unwrap().changed);
    }
}
