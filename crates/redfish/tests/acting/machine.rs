//! A server with a BMC that acts: power, clock, accounts, sessions, lock-out. It behaves well unless a test says otherwise.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use redfish::host::Host;
use redfish::{Client, Credentials, Options};
use serde_json::{Value, json};

use crate::server::{Bmc, PASSWORD, Reply, Seen, USER, options};

pub(crate) const SYSTEM: &str = "/redfish/v1/Systems/Host";
pub(crate) const RESET: &str = "/redfish/v1/Systems/Host/Actions/ComputerSystem.Reset";
pub(crate) const MANAGER: &str = "/redfish/v1/Managers/Bmc";
pub(crate) const MANAGER_RESET: &str = "/redfish/v1/Managers/Bmc/Actions/Manager.Reset";
pub(crate) const ACCOUNTS: &str = "/redfish/v1/AccountService/Accounts";
pub(crate) const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

/// What a reset kind makes of the power state.
pub(crate) fn effect(kind: &str, now: &str) -> Option<&'static str> {
    match (kind, now) {
        ("On" | "ForceOn" | "ForceRestart" | "GracefulRestart", _) | ("PushPowerButton", "Off") => Some("On"),
        ("ForceOff" | "GracefulShutdown" | "PushPowerButton", _) => Some("Off"),
        _ => None,
    }
}

/// The state of the machine and its BMC.
pub(crate) struct Machine {
    pub(crate) tree: BTreeMap<String, Value>,
    /// Passwords by path of the account.
    pub(crate) passwords: HashMap<String, String>,
    /// Open sessions: token to user name.
    pub(crate) sessions: HashMap<String, String>,
    opened: usize,
    /// Refusals in a row by user name; three lock the account for good.
    pub(crate) strikes: HashMap<String, u32>,
    /// How far the BMC's clock is ahead.
    pub(crate) skew: SignedDuration,
    pub(crate) etags: bool,
    /// Accounts are slots: no POST, no DELETE.
    pub(crate) slots: bool,
    resets: usize,
}

fn link(path: &str) -> Value {
    json!({"@odata.id": path})
}

impl Machine {
    fn new() -> Self {
        let mut machine = Self {
            tree: BTreeMap::new(),
            passwords: HashMap::new(),
            sessions: HashMap::new(),
            opened: 0,
            strikes: HashMap::new(),
            skew: SignedDuration::ZERO,
            etags: true,
            slots: false,
            resets: 0,
        };
        machine.put("/redfish/v1", json!({
            "RedfishVersion": "1.11.0", "Vendor": "Contoso", "UUID": "A0A0A0A0-0000-4000-8000-000000000001",
            "Systems": link("/redfish/v1/Systems"), "Managers": link("/redfish/v1/Managers"),
            "AccountService": link("/redfish/v1/AccountService"),
            "SessionService": link("/redfish/v1/SessionService"), "Links": {"Sessions": link(SESSIONS)},
        }));
        machine.put("/redfish/v1/Systems", json!({"Members": [link(SYSTEM)]}));
        machine.put("/redfish/v1/Managers", json!({"Members": [link(MANAGER)]}));
        machine.put(SYSTEM, json!({
            "Id": "Host", "Model": "Model 1", "SerialNumber": "HOST-1", "SystemType": "Physical", "PowerState": "Off",
            "BiosVersion": "1.0", "Links": {"ManagedBy": [link(MANAGER)]},
            "Boot": {"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None",
                "BootSourceOverrideMode": "UEFI",
                "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Cd", "Hdd"]},
            "Actions": {"#ComputerSystem.Reset": {"target": RESET, "ResetType@Redfish.AllowableValues":
                ["On", "ForceOff", "GracefulShutdown", "ForceRestart", "GracefulRestart"]}},
        }));
        machine.put(
            MANAGER,
            json!({
                "Id": "Bmc", "ManagerType": "BMC", "FirmwareVersion": "2.0", "DateTimeLocalOffset": "+00:00",
                "NetworkProtocol": link("/redfish/v1/Managers/Bmc/NetworkProtocol"),
                "Links": {"ManagerForServers": [link(SYSTEM)]},
                "Actions": {"#Manager.Reset": {"target": MANAGER_RESET,
                    "ResetType@Redfish.AllowableValues": ["GracefulRestart", "ForceRestart"]}},
            }),
        );
        machine.put(
            "/redfish/v1/Managers/Bmc/NetworkProtocol",
            json!({"NTP": {"ProtocolEnabled": false, "NTPServers": [null, ""]}}),
        );
        machine.put(
            "/redfish/v1/AccountService",
            json!({"Accounts": link(ACCOUNTS), "AccountLockoutThreshold": 3,
            "AccountLockoutDuration": 300, "AccountLockoutCounterResetAfter": 60}),
        );
        machine.put_account("1", USER, PASSWORD);
        machine
    }

    pub(crate) fn put(&mut self, path: &str, mut body: Value) {
        body.as_object_mut().unwrap().insert("@odata.id".to_owned(), json!(path));
        self.tree.insert(path.to_owned(), body);
    }

    pub(crate) fn set(&mut self, path: &str, change: &Value) {
        merge(self.tree.get_mut(path).unwrap_or_else(|| panic!("no {path}")), change);
    }

    pub(crate) fn put_account(&mut self, id: &str, username: &str, password: &str) {
        let path = format!("{ACCOUNTS}/{id}");
        let enabled = !username.is_empty();
        self.put(
            &path,
            json!({"Id": id, "UserName": username, "Enabled": enabled, "RoleId": "Administrator"}),
        );
        self.passwords.insert(path, password.to_owned());
    }

    pub(crate) fn power(&self) -> &str {
        self.tree[SYSTEM]["PowerState"].as_str().unwrap()
    }

    /// Whether this pair would be let in, whatever the strikes.
    pub(crate) fn knows(&self, username: &str, password: &str) -> bool {
        self.tree.iter().any(|(path, account)| {
            path.starts_with(ACCOUNTS)
                && account["UserName"] == username
                && account["Enabled"] == true
                && self.passwords.get(path).is_some_and(|known| known == password)
        })
    }

    fn judge(&mut self, username: &str, password: &str) -> bool {
        let strikes = self.strikes.get(username).copied().unwrap_or_default();
        let right = strikes < 3 && self.knows(username, password);
        self.strikes.insert(username.to_owned(), if right { 0 } else { strikes + 1 });
        right
    }

    fn admits(&mut self, seen: &Seen) -> bool {
        if let Some(token) = seen.header("x-auth-token") {
            return self.sessions.contains_key(token);
        }
        let Some(basic) = seen.header("authorization").and_then(|value| value.strip_prefix("Basic ")) else {
            return false;
        };
        let pair = base64::engine::general_purpose::STANDARD.decode(basic).unwrap();
        let pair = String::from_utf8(pair).unwrap();
        let (username, password) = pair.split_once(':').unwrap();
        self.judge(username, password)
    }

    pub(crate) fn answer(&mut self, seen: &Seen) -> Reply {
        let path = seen.target.split('?').next().unwrap().trim_end_matches('/').to_owned();
        let body: Value = serde_json::from_str(&seen.body).unwrap_or_default();
        let open = path == "/redfish/v1" || (seen.method == "POST" && path == SESSIONS);
        if !open && !self.admits(seen) {
            return Reply::message(401, "Base.1.8.NoValidSession");
        }
        match (seen.method.as_str(), path.as_str()) {
            ("GET", path) => self.show(path),
            ("POST", SESSIONS) => self.open_session(&body),
            ("POST", RESET) => self.reset(body["ResetType"].as_str().unwrap()),
            ("POST", MANAGER_RESET) => {
                self.resets += 1;
                self.sessions.clear();
                let time = format!("2026-11-21T10:00:{:02}Z", self.resets);
                self.set(MANAGER, &json!({"LastResetTime": time}));
                Reply::new(204, &[], "")
            }
            ("POST" | "DELETE", path) if path.starts_with(ACCOUNTS) && self.slots => {
                Reply::message(405, "Base.1.8.OperationNotAllowed")
            }
            ("POST", ACCOUNTS) => {
                let id = (1..=99)
                    .map(|n: u32| n.to_string())
                    .find(|id| !self.tree.contains_key(&format!("{ACCOUNTS}/{id}")));
                let id = id.unwrap();
                self.put_account(&id, body["UserName"].as_str().unwrap(), body["Password"].as_str().unwrap());
                self.set(&format!("{ACCOUNTS}/{id}"), &json!({"RoleId": body["RoleId"]}));
                Reply::new(201, &[("Location", &format!("{ACCOUNTS}/{id}"))], "")
            }
            ("PATCH", path) if self.tree.contains_key(path) => self.patch(path, body),
            ("DELETE", path) if path.starts_with(SESSIONS) => {
                let token = seen.header("x-auth-token").unwrap_or_default();
                self.sessions.remove(token);
                Reply::new(204, &[], "")
            }
            ("DELETE", path) if self.tree.remove(path).is_some() => Reply::new(204, &[], ""),
            _ => Reply::message(404, "Base.1.8.ResourceMissingAtURI"),
        }
    }

    fn show(&mut self, path: &str) -> Reply {
        if path == ACCOUNTS {
            let members: Vec<Value> = self
                .tree
                .keys()
                .filter(|path| path.starts_with(&format!("{ACCOUNTS}/")))
                .map(|p| link(p))
                .collect();
            return Reply::json(200, &json!({"@odata.id": ACCOUNTS, "Members": members}));
        }
        let Some(mut body) = self.tree.get(path).cloned() else {
            return Reply::message(404, "Base.1.8.ResourceMissingAtURI");
        };
        if path == MANAGER && body.get("DateTime").is_none() {
            let now = Timestamp::now() + self.skew;
            body["DateTime"] = json!(now.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string());
        }
        let etag = format!("\"{}\"", self.etag(path));
        let headers: &[(&str, &str)] = if self.etags { &[("ETag", &etag)] } else { &[] };
        Reply::new(200, headers, &body.to_string())
    }

    pub(crate) fn etag(&self, path: &str) -> String {
        let text = self.tree.get(path).map(ToString::to_string).unwrap_or_default();
        format!("{:x}", text.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())))
    }

    fn open_session(&mut self, body: &Value) -> Reply {
        let (username, password) = (body["UserName"].as_str().unwrap(), body["Password"].as_str().unwrap());
        if !self.judge(username, password) {
            return Reply::message(401, "Base.1.8.ResourceAtUriUnauthorized");
        }
        self.opened += 1;
        let (token, uri) = (format!("token-{}", self.opened), format!("{SESSIONS}/{}", self.opened));
        self.sessions.insert(token.clone(), username.to_owned());
        Reply::new(201, &[("X-Auth-Token", &token), ("Location", &uri)], "{}")
    }

    pub(crate) fn reset(&mut self, kind: &str) -> Reply {
        let Some(after) = effect(kind, self.power()) else {
            return Reply::message(400, "Base.1.8.ActionParameterNotSupported");
        };
        self.resets += 1;
        let time = format!("2026-11-21T10:00:{:02}Z", self.resets);
        let tells = self.tree[SYSTEM].get("LastResetTime").is_some();
        self.set(SYSTEM, &json!({"PowerState": after}));
        if tells && after == "On" {
            self.set(SYSTEM, &json!({"LastResetTime": time}));
        }
        Reply::new(204, &[], "")
    }

    fn patch(&mut self, path: &str, mut body: Value) -> Reply {
        if let Some(password) = body.as_object_mut().unwrap().remove("Password") {
            self.passwords.insert(path.to_owned(), password.as_str().unwrap().to_owned());
        }
        if let Some(time) = body.as_object_mut().unwrap().remove("DateTime") {
            let time: Timestamp = time.as_str().unwrap().parse().unwrap();
            self.skew = time.duration_since(Timestamp::now());
        }
        self.set(path, &body);
        Reply::new(204, &[], "")
    }
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (name, value) in change {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, change) => change.clone_into(into),
    }
}

/// A running machine.
pub(crate) struct Running {
    pub(crate) bmc: Bmc,
    machine: Arc<Mutex<Machine>>,
}

impl Running {
    pub(crate) async fn good() -> Self {
        Self::start(|_, _| None).await
    }

    /// A machine that misbehaves where `hook` gives a reply.
    pub(crate) async fn start(
        mut hook: impl FnMut(&mut Machine, &Seen) -> Option<Reply> + Send + 'static,
    ) -> Self {
        let machine = Arc::new(Mutex::new(Machine::new()));
        let shared = Arc::clone(&machine);
        let bmc = Bmc::start(move |_, seen| {
            let machine = &mut *shared.lock().unwrap();
            Some(hook(machine, seen).unwrap_or_else(|| machine.answer(seen)))
        })
        .await;
        Self { bmc, machine }
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap()
    }

    pub(crate) async fn connect(&self) -> (Client, Host) {
        self.connect_with(options()).await
    }

    pub(crate) async fn connect_with(&self, options: Options) -> (Client, Host) {
        let client = self.bmc.connect_with(options).await.unwrap();
        let host = Host::find(&client, None).await.unwrap();
        (client, host)
    }

    /// The bodies of the requests of this kind.
    pub(crate) fn sent(&self, method: &str, target: &str) -> Vec<Value> {
        let of = |seen: &Seen| seen.is(method, target);
        self.bmc
            .log()
            .iter()
            .filter(|seen| of(seen))
            .map(|s| serde_json::from_str(&s.body).unwrap())
            .collect()
    }

    /// The reset kinds sent to the system.
    pub(crate) fn resets(&self) -> Vec<String> {
        self.sent("POST", RESET).iter().map(|body| body["ResetType"].as_str().unwrap().to_owned()).collect()
    }
}

pub(crate) fn as_user(username: &str, password: &str) -> Options {
    Options { credentials: Some(Credentials::new(username, password)), ..options() }
}
