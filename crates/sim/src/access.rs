//! Who may ask: Basic authentication, sessions, lock-out.

use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, header};
use serde_json::{Value, json};

use crate::accounts::{Accounts, Who};
use crate::behaviour::{AccountStyle, Behaviour};

/// The accounts of a BMC and its sessions.
#[derive(Debug)]
pub(crate) struct Access(Mutex<State>);

#[derive(Debug)]
struct State {
    accounts: Accounts,
    sessions: Vec<Session>,
    next_session: u64,
    counts: Counts,
}

#[derive(Debug)]
struct Session {
    id: u64,
    token: String,
    account: String,
    username: String,
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
    pub(crate) fn new(username: &str, password: &str, style: AccountStyle) -> Self {
        Self(Mutex::new(State {
            accounts: Accounts::new(username, password, style),
            sessions: Vec::new(),
            next_session: 1,
            counts: Counts::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn username(&self) -> String {
        self.lock().accounts.username().to_owned()
    }

    pub(crate) fn password(&self) -> String {
        self.lock().accounts.password().to_owned()
    }

    /// Reads or changes the accounts.
    pub(crate) fn accounts<T>(&self, use_them: impl FnOnce(&mut Accounts) -> T) -> T {
        use_them(&mut self.lock().accounts)
    }

    pub(crate) fn expire_sessions(&self) {
        self.lock().sessions.clear();
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.lock();
        Counts { live: state.sessions.len(), ..state.counts }
    }

    /// Whom these headers let in.
    pub(crate) fn admits(&self, headers: &HeaderMap, behaviour: &Behaviour) -> Option<Who> {
        let mut state = self.lock();
        if let Some(token) = headers.get("x-auth-token") {
            let of_token = |session: &&Session| session.token.as_bytes() == token.as_bytes();
            let account = state.sessions.iter().find(of_token)?.account.clone();
            return state.accounts.who(&account);
        }
        let given = headers.get(header::AUTHORIZATION)?;
        let who = state.accounts.basic(given.as_bytes(), behaviour);
        state.count(who)
    }

    pub(crate) fn log_in(
        &self,
        username: &str,
        password: &str,
        behaviour: &Behaviour,
    ) -> Result<NewSession, LoginRefused> {
        let mut state = self.lock();
        let who = state.accounts.log_in(username, password, behaviour);
        let who = state.count(who).ok_or(LoginRefused::Credentials)?;
        if state.sessions.len() >= behaviour.max_sessions {
            return Err(LoginRefused::PoolExhausted);
        }
        let mut random = [0; 16];
        // A token that repeats is worse than a login that is refused.
        getrandom::fill(&mut random).map_err(|_| LoginRefused::PoolExhausted)?;
        let (id, token, username) = (state.next_session, hex::encode(random), username.to_owned());
        let new = NewSession { id, token: token.clone(), username: username.clone() };
        let session = Session { id, token, username, account: who.id };
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
        Some(session_resource(path, session.id, &session.username))
    }
}

impl State {
    fn count(&mut self, who: Option<Who>) -> Option<Who> {
        self.counts.failed_logins += u64::from(who.is_none());
        who
    }
}

/// A session as a resource.
pub(crate) fn session_resource(path: &str, id: u64, username: &str) -> Value {
    json!({
        "@odata.id": format!("{path}/{id}"), "@odata.type": "#Session.v1_5_0.Session", "Id": id.to_string(),
        "Name": "User session", "UserName": username,
    })
}
