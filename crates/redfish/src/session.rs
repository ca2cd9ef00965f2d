//! Being somebody to a BMC: credentials, sessions, Basic authentication.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use zeroize::Zeroizing;

use crate::budget::LoginBudget;
use crate::error::Error;
use crate::transport::{Login, Request};

/// The header that carries a session's token (DSP0266 §13.3.4).
pub(crate) const X_AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// A user of a BMC. Shows its name at most, and wipes the password from memory.
#[derive(Clone)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Zeroizing<String>,
}

impl Credentials {
    /// A user and a password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: Zeroizing::new(password.into()) }
    }

    fn basic(&self) -> Option<HeaderValue> {
        let pair = Zeroizing::new(format!("{}:{}", self.username, *self.password));
        let value = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        sensitive(&value)
    }

    /// The body of a login. Built by hand around escaped strings, so that the password is in one buffer that is wiped.
    pub(crate) fn login_body(&self) -> Zeroizing<Vec<u8>> {
        let quoted = |text: &str| Zeroizing::new(serde_json::Value::from(text).to_string());
        let (name, password) = (quoted(&self.username), quoted(&self.password));
        Zeroizing::new(format!(r#"{{"UserName":{},"Password":{}}}"#, *name, *password).into_bytes())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

pub(crate) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// How to authenticate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authentication {
    /// One session where the BMC offers them and has one left, else Basic.
    #[default]
    Session,
    /// Basic with every request.
    Basic,
}

/// What goes with a request.
#[derive(Debug)]
pub(crate) enum Scheme {
    Nobody,
    Basic(HeaderValue),
    Session(Session),
}

/// A session that the BMC opened for us.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) token: HeaderValue,
    /// Where it is deleted; `None` where the BMC did not say.
    pub(crate) uri: Option<String>,
}

impl Scheme {
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::Nobody => {}
            Self::Basic(value) => {
                headers.insert(header::AUTHORIZATION, value.clone());
            }
            Self::Session(session) => {
                headers.insert(X_AUTH_TOKEN, session.token.clone());
            }
        }
    }
}

/// Who we are to one BMC, and how often it refused us.
pub(crate) struct Identity {
    pub(crate) credentials: Option<Credentials>,
    current: RwLock<Arc<Scheme>>,
    /// Held while logging in, so that requests refused together cause one login together.
    pub(crate) login: tokio::sync::Mutex<()>,
    pub(crate) budget: Arc<LoginBudget>,
    /// Refusals in a row; any success ends the row.
    strikes: AtomicU32,
    /// Refusals in a row that are believed.
    limit: u32,
    /// Whether these credentials were ever taken.
    proven: AtomicBool,
    /// Logins beyond the first.
    pub(crate) relogins: AtomicU32,
}

impl Identity {
    pub(crate) fn new(credentials: Option<Credentials>, budget: Arc<LoginBudget>, limit: u32) -> Self {
        Self {
            credentials,
            current: RwLock::new(Arc::new(Scheme::Nobody)),
            login: tokio::sync::Mutex::new(()),
            budget,
            strikes: AtomicU32::new(0),
            limit: limit.max(1),
            proven: AtomicBool::new(false),
            relogins: AtomicU32::new(0),
        }
    }

    pub(crate) fn scheme(&self) -> Arc<Scheme> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn adopt(&self, scheme: Scheme) -> Arc<Scheme> {
        std::mem::replace(
            &mut *self.current.write().unwrap_or_else(PoisonError::into_inner),
            Arc::new(scheme),
        )
    }

    /// Basic authentication, if the credentials fit into a header.
    pub(crate) fn basic(&self) -> Option<Scheme> {
        self.credentials.as_ref()?.basic().map(Scheme::Basic)
    }

    /// What tells the login budget about a request that carries the password.
    pub(crate) fn as_login(&self) -> Option<Login<'_>> {
        let password = self.credentials.as_ref()?.password.as_str();
        Some(Login { budget: &self.budget, password })
    }

    /// Gives a request what authenticates it.
    pub(crate) fn dress<'a>(&'a self, request: &mut Request<'a>, scheme: &Scheme) {
        scheme.apply(&mut request.headers);
        if matches!(scheme, Scheme::Basic(_)) {
            request.login = self.as_login();
        }
    }

    /// Whether another login is tried after `refused` refusals just now: when the budget ends, those are believed.
    pub(crate) fn may_log_in(&self, refused: u32) -> Result<(), Error> {
        self.budget.check().map_err(|withheld| believed(refused, withheld.into()))
    }

    /// The BMC took us.
    pub(crate) fn accepted(&self) {
        self.proven.store(true, Ordering::Relaxed);
        self.strikes.store(0, Ordering::Relaxed);
    }

    /// Whether the BMC ever took us.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// The BMC refused us. Credentials that never worked are believed wrong sooner: after one repetition.
    pub(crate) fn refused(&self) -> Result<(), Error> {
        let strikes = self.strikes.fetch_add(1, Ordering::Relaxed) + 1;
        let limit = if self.proven.load(Ordering::Relaxed) { self.limit } else { self.limit.min(2) };
        if strikes >= limit { Err(Error::Unauthorized) } else { Ok(()) }
    }
}

/// What a refusal to try again means after `refused` refusals: the first of them are then believed.
pub(crate) fn believed(refused: u32, error: Error) -> Error {
    match error {
        Error::LoginWithheld { .. } if refused > 0 => Error::Unauthorized,
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_show_no_password() {
        let shown = format!("{:?}", Credentials::new("root", "calvin"));
        assert!(shown.contains("root") && !shown.contains("calvin"), "{shown}");
    }

    #[test]
    fn a_scheme_shows_no_secret() {
        let basic = Credentials::new("root", "calvin").basic().map(Scheme::Basic);
        assert!(format!("{basic:?}").contains("Sensitive"));
    }

    #[test]
    fn a_login_is_json_whatever_the_password_holds() {
        let body = Credentials::new("a\"b", "c\\d\n\u{1f511}").login_body();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json, serde_json::json!({"UserName": "a\"b", "Password": "c\\d\n\u{1f511}"}));
    }

    #[test]
    fn quirk_03_proven_credentials_need_more_strikes_than_new_ones() {
        let identity = |proven| {
            let identity = Identity::new(None, Arc::default(), 3);
            if proven {
                identity.accepted();
            }
            (1..=3).find(|_| identity.refused().is_err())
        };
        assert_eq!((identity(false), identity(true)), (Some(2), Some(3)));
    }
}
