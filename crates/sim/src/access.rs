//! Who may ask: Basic authentication, sessions, lock-out.

use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use http::{HeaderMap, header};
use serde_json::{Value, json};

use crate::behaviour::Behaviour;

/// The account of a BMC and its sessions.
#[derive(Debug)]
pub(crate) struct Access(Mutex<State>);

#[derive(Debug)]
struct State {
    username: String,
    password: String,
    /// The `Authorization` header that opens this BMC, so that a request costs one comparison.
    basic: String,
    sessions: Vec<Session>,
    next_session: u64,
    strikes: u32,
    counts: Counts,
}

#[derive(Debug)]
struct Session {
    id: u64,
    token: String,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) logins: u64,
    pub(crate) failed_logins: u64,
    pub(crate) live: usize,
    pub(crate) peak: usize,
}

/// A session just made.
pub(crate) struct NewSession {
    pub(crate) id: u64,
    pub(crate) token: String,
    pub(crate) username: String,
}

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoginRefused {
    Credentials,
    PoolExhausted,
}

impl Access {
    pub(crate) fn new(username: String, password: String) -> Self {
        let basic = basic(&username, &password);
        Self(Mutex::new(State {
            username,
            password,
            basic,
            sessions: Vec::new(),
            next_session: 1,
            strikes: 0,
            counts: Counts::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn username(&self) -> String {
        self.lock().username.clone()
    }

    pub(crate) fn password(&self) -> String {
        self.lock().password.clone()
    }

    pub(crate) fn set_password(&self, password: &str) {
        let mut state = self.lock();
        password.clone_into(&mut state.password);
        state.basic = basic(&state.username, &state.password);
    }

    pub(crate) fn unlock(&self) {
        self.lock().strikes = 0;
    }

    pub(crate) fn expire_sessions(&self) {
        self.lock().sessions.clear();
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.lock();
        Counts { live: state.sessions.len(), ..state.counts }
    }

    /// Whether these headers open the BMC.
    pub(crate) fn admits(&self, headers: &HeaderMap, behaviour: &Behaviour) -> bool {
        let mut state = self.lock();
        if let Some(token) = headers.get("x-auth-token") {
            return state.sessions.iter().any(|session| session.token.as_bytes() == token.as_bytes());
        }
        let Some(given) = headers.get(header::AUTHORIZATION) else { return false };
        let right = given.as_bytes() == state.basic.as_bytes();
        state.judge(right, behaviour)
    }

    pub(crate) fn log_in(
        &self,
        username: &str,
        password: &str,
        behaviour: &Behaviour,
    ) -> Result<NewSession, LoginRefused> {
        let mut state = self.lock();
        let right = state.username == username && state.password == password;
        if !state.judge(right, behaviour) {
            return Err(LoginRefused::Credentials);
        }
        if state.sessions.len() >= behaviour.max_sessions {
            return Err(LoginRefused::PoolExhausted);
        }
        let mut random = [0; 16];
        // A token that repeats is worse than a login that is refused.
        getrandom::fill(&mut random).map_err(|_| LoginRefused::PoolExhausted)?;
        let session = Session { id: state.next_session, token: hex::encode(random) };
        let new =
            NewSession { id: session.id, token: session.token.clone(), username: state.username.clone() };
        state.next_session += 1;
        state.sessions.push(session);
        state.counts.logins += 1;
        state.counts.peak = state.counts.peak.max(state.sessions.len());
        Ok(new)
    }

    /// Ends a session; false if there is none of this id.
    pub(crate) fn log_out(&self, id: &str) -> bool {
        let mut state = self.lock();
        let before = state.sessions.len();
        state.sessions.retain(|session| session.id.to_string() != id);
        state.sessions.len() != before
    }

    /// The collection of sessions (`rest` empty) or one of them (`rest` is `/ID`).
    pub(crate) fn show_sessions(&self, path: &str, rest: &str) -> Option<Value> {
        let state = self.lock();
        if rest.is_empty() {
            let members: Vec<Value> =
                state.sessions.iter().map(|s| json!({"@odata.id": format!("{path}/{}", s.id)})).collect();
            return Some(json!({
                "@odata.id": path, "@odata.type": "#SessionCollection.SessionCollection", "Name": "Sessions",
                "Members@odata.count": members.len(), "Members": members,
            }));
        }
        let id = rest.strip_prefix('/')?;
        let session = state.sessions.iter().find(|session| session.id.to_string() == id)?;
        Some(session_resource(path, session.id, &state.username))
    }
}

impl State {
    /// Counts a login and says whether it is let in.
    fn judge(&mut self, right: bool, behaviour: &Behaviour) -> bool {
        let locked = behaviour.lockout_after.is_some_and(|limit| self.strikes >= limit);
        if right && !locked {
            self.strikes = 0;
            return true;
        }
        self.strikes = self.strikes.saturating_add(1);
        self.counts.failed_logins += 1;
        false
    }
}

/// A session as a resource.
pub(crate) fn session_resource(path: &str, id: u64, username: &str) -> Value {
    json!({
        "@odata.id": format!("{path}/{id}"), "@odata.type": "#Session.v1_5_0.Session", "Id": id.to_string(),
        "Name": "User session", "UserName": username,
    })
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")))
}
