//! Logging in and out: sessions first, Basic where there is none to be had (quirk 2), and patience with a BMC that refuses
//! valid credentials now and then (quirk 3).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{Method, StatusCode, header};
use serde_json::Value;

use crate::address::Origin;
use crate::client::{Inner, refused_for_good};
use crate::error::Error;
use crate::message::{Meaning, Messages};
use crate::reader::ReadError;
use crate::session::{Authentication, Scheme, Session, X_AUTH_TOKEN, believed, sensitive};
use crate::transport::{Answer, Failure, Request, Transport};

/// Logins beyond the first that one client makes: a BMC that forgets sessions faster is not worth filling its pool.
const RELOGINS: u32 = 5;

/// Where sessions are made if the service root could not be read without credentials.
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

/// What asking for a session led to.
enum Attempt {
    Opened(Session),
    Refused,
    /// No session is left.
    Busy,
    /// There are no sessions here, or the way to them is broken.
    NotOffered,
}

impl Inner {
    /// The first login.
    pub(crate) async fn login(&self) -> Result<(), Error> {
        if self.identity.credentials.is_none() {
            return Ok(());
        }
        let _guard = self.identity.login.lock().await;
        self.log_in().await
    }

    /// Logs in until it works or the refusals are believed. The caller holds the login lock.
    async fn log_in(&self) -> Result<(), Error> {
        let mut attempt = 0;
        loop {
            let opened = self.open_session().await.map_err(|error| believed(attempt, error))?;
            attempt += 1;
            match opened {
                Attempt::Opened(session) => {
                    self.identity.accepted();
                    self.identity.adopt(Scheme::Session(session));
                    return Ok(());
                }
                Attempt::Refused => {
                    self.identity.refused()?;
                    self.transport.pause(self.retry.wait(attempt, None)).await?;
                }
                Attempt::Busy => {
                    let message =
                        "the BMC gives no session for now; Basic authentication is used instead".to_owned();
                    self.note("bmc.sessions-exhausted", self.sessions_uri(), message);
                    return self.use_basic().await;
                }
                Attempt::NotOffered => return self.use_basic().await,
            }
        }
    }

    fn sessions_uri(&self) -> &str {
        self.sessions.get().map_or(SESSIONS, String::as_str)
    }

    async fn open_session(&self) -> Result<Attempt, Error> {
        let uri = self.sessions_uri();
        let (Authentication::Session, Some(credentials)) = (self.authentication, &self.identity.credentials)
        else {
            return Ok(Attempt::NotOffered);
        };
        // The credentials go into this request: the URI must be the BMC's own (quirk 40).
        let Ok(url) = self.origin.own(uri) else { return Ok(Attempt::NotOffered) };
        let body = credentials.login_body();
        let post = |fresh| {
            let mut request = Request::get(url.clone());
            request.method = Method::POST;
            request.body = Some(&body);
            request.login = self.identity.as_login();
            self.transport.exchange(request, fresh)
        };
        let outcome = match post(false).await {
            // A kept connection was closed under us, before the BMC could act on the request (quirk 1).
            Err(Failure::Lost(_)) => post(true).await,
            outcome => outcome,
        };
        match outcome {
            Ok(answer) => self.judge_login(answer).await,
            Err(Failure::Connect(error) | Failure::Spent(error)) => Err(error),
            Err(Failure::Timeout(after)) => {
                Err(Error::Timeout { address: self.transport.authority().to_owned(), after })
            }
            Err(Failure::Lost(_) | Failure::TooLarge(_)) => Ok(Attempt::NotOffered),
        }
    }

    async fn judge_login(&self, mut answer: Answer) -> Result<Attempt, Error> {
        let messages = Messages::of_body(&answer.body.bytes);
        let token = answer.header(&X_AUTH_TOKEN).and_then(sensitive);
        let opened = token
            .filter(|_| answer.status.is_success())
            .map(|token| Session { token, uri: self.session_uri(&answer) });
        let verdict = login_verdict(answer.status, &messages, opened.is_some());
        if let Some(login) = answer.attempt.take() {
            match verdict {
                Verdict::Accepted => login.accepted().await,
                Verdict::Refused => login.refused().await,
                Verdict::Busy | Verdict::Unsaid => login.unsaid().await,
            }
        }
        if let Some(session) = opened {
            if let Err(error) = self.refused_unless_limited(&messages) {
                // The session exists, though it is good for nothing but changing the password (DSP0266 §13.2.3).
                end_session(&self.transport, &self.origin, &session).await;
                return Err(error);
            }
            return Ok(Attempt::Opened(session));
        }
        self.refused_unless_limited(&messages)?;
        match (verdict, answer.status) {
            (Verdict::Busy, _) => Ok(Attempt::Busy),
            // Some say so to wrong credentials, others to sessions as such. Basic will tell, and this counts.
            (Verdict::Refused, StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN)
                if !messages.mean(Meaning::BadCredentials) =>
            {
                self.identity.refused()?;
                Ok(Attempt::NotOffered)
            }
            (Verdict::Refused, _) => Ok(Attempt::Refused),
            _ => Ok(Attempt::NotOffered),
        }
    }

    /// Messages that end every attempt; where a limited session will do, a password to be changed is none of them.
    pub(crate) fn refused_unless_limited(&self, messages: &Messages) -> Result<(), Error> {
        match refused_for_good(messages) {
            Err(Error::PasswordChangeRequired) if self.limited => {
                let _ = self.change_demanded.set(messages.account_uri());
                Ok(())
            }
            other => other,
        }
    }

    /// Where the session can be deleted. Some BMCs write a Location with a name of their own: only its path counts, since
    /// requests go to the BMC's address anyway.
    fn session_uri(&self, answer: &Answer) -> Option<String> {
        let body: Option<Value> = serde_json::from_slice(&answer.body.bytes).ok();
        let in_body = body.as_ref().and_then(|session| session.get("@odata.id")?.as_str());
        let location = answer.header(&header::LOCATION).or(in_body)?;
        let url = self.origin.root().join(location).ok()?;
        Some(url.path().to_owned())
    }

    /// Proves Basic authentication with one request, alone: several at once with a wrong password would lock the account.
    async fn use_basic(&self) -> Result<(), Error> {
        let Some(basic) = self.identity.basic() else { return Err(Error::Unauthorized) };
        let uri = self.protected_uri();
        let Ok(url) = self.origin.own(&uri) else { return Ok(()) };
        let mut attempt = 0;
        let outcome = loop {
            let mut request = Request::get(url.clone());
            self.identity.dress(&mut request, &basic);
            let mut answer = match self.transport.exchange(request, attempt > 0).await {
                Ok(answer) => answer,
                Err(Failure::Connect(error) | Failure::Spent(error)) => return Err(believed(attempt, error)),
                // Slow or odd: the reading will meet it again and say so.
                Err(_) => break None,
            };
            attempt += 1;
            answer.settle_login().await;
            if answer.status.is_success() {
                break Some(answer);
            }
            self.refused_unless_limited(&Messages::of_body(&answer.body.bytes))?;
            if answer.status != StatusCode::UNAUTHORIZED {
                if self.change_demanded.get().is_some() {
                    // The password was taken, though only to be changed.
                    self.identity.accepted();
                }
                break None;
            }
            self.identity.refused()?;
            self.transport.pause(self.retry.wait(attempt, None)).await?;
        };
        if let Some(answer) = outcome {
            self.identity.accepted();
            if let Ok(resource) = self.resource(&uri, &answer) {
                self.keep_ready(resource);
            }
        }
        self.identity.adopt(basic);
        Ok(())
    }

    /// A resource that needs credentials and that every reading wants anyway.
    fn protected_uri(&self) -> String {
        let link = self.with_root(|root| {
            let links = ["Systems", "Chassis", "Managers"];
            links.iter().find_map(|name| Some(root.get(name)?.get("@odata.id")?.as_str()?.to_owned()))
        });
        link.unwrap_or_else(|| "/redfish/v1/Systems".to_owned())
    }

    /// What a 401 for one resource leads to: `Ok` to try again. `refusals` counts those of this request.
    pub(crate) async fn after_refusal(
        &self,
        uri: &str,
        used: &Arc<Scheme>,
        refusals: u32,
    ) -> Result<(), ReadError> {
        let give_up = || ReadError::Unauthorized { uri: uri.to_owned() };
        match **used {
            Scheme::Nobody => Err(give_up()),
            Scheme::Basic(_) => {
                let _guard = self.identity.login.lock().await;
                self.identity.refused()?;
                if refusals > 1 {
                    return Err(give_up());
                }
                self.identity.may_log_in(refusals)?;
                self.transport.pause(self.retry.wait(refusals, None)).await?;
                Ok(())
            }
            // The same token first: some BMCs forget it for a moment (quirk 3), and that costs no login.
            Scheme::Session(_) if refusals == 1 => {
                self.transport.pause(self.retry.wait(refusals, None)).await?;
                Ok(())
            }
            Scheme::Session(_) if refusals == 2 => {
                self.log_in_again(used).await.map_err(|error| match error {
                    Some(error) => error.into(),
                    None => give_up(),
                })
            }
            Scheme::Session(_) => {
                // A token made a moment ago is refused: it is this resource, unless it goes on.
                self.identity.refused()?;
                Err(give_up())
            }
        }
    }

    /// Logs in anew, unless somebody did meanwhile. `None`: not again.
    async fn log_in_again(&self, used: &Arc<Scheme>) -> Result<(), Option<Error>> {
        let _guard = self.identity.login.lock().await;
        if !Arc::ptr_eq(&self.identity.scheme(), used) {
            return Ok(());
        }
        if self.identity.relogins.fetch_add(1, Ordering::Relaxed) >= RELOGINS {
            return Err(None);
        }
        if let Scheme::Session(old) = &**used {
            // It may be alive on a BMC that refuses now and then, and pools are small.
            end_session(&self.transport, &self.origin, old).await;
        }
        self.log_in().await.map_err(Some)
    }
}

/// What an answer to a login says about the password.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Refused,
    /// No session is left, or not now.
    Busy,
    Unsaid,
}

fn login_verdict(status: StatusCode, messages: &Messages, opened: bool) -> Verdict {
    if opened {
        return Verdict::Accepted;
    }
    if messages.mean(Meaning::PasswordChangeRequired) {
        return Verdict::Unsaid;
    }
    if messages.mean(Meaning::LockedOut) {
        return Verdict::Refused;
    }
    if messages.mean(Meaning::SessionsExhausted) {
        return Verdict::Busy;
    }
    if messages.mean(Meaning::BadCredentials) {
        return Verdict::Refused;
    }
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => Verdict::Refused,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Verdict::Busy,
        _ => Verdict::Unsaid,
    }
}

/// Ends a session. Whatever the BMC answers: some say 401 and have ended it (quirk 2).
pub(crate) async fn end_session(transport: &Transport, origin: &Origin, session: &Session) {
    let Some(url) = session.uri.as_deref().and_then(|uri| origin.own(uri).ok()) else { return };
    let delete = |fresh| {
        let mut request = Request::get(url.clone());
        request.method = Method::DELETE;
        request.headers.insert(X_AUTH_TOKEN, session.token.clone());
        transport.farewell(request, fresh)
    };
    if let Err(Failure::Lost(_)) = delete(false).await {
        let _ = delete(true).await;
    }
}
