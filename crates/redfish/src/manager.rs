//! Restarting the BMC itself, and waiting until it is itself again.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use domain::{Diagnose, Problem};
use http::StatusCode;
use serde_json::Value;

use crate::action::Reset;
use crate::client::{Client, Inner, is_service_root};
use crate::error;
use crate::host::Host;
use crate::reader::{ReadError, Reader as _};
use crate::transport::Request;
use crate::write::WriteError;

/// How patiently a restart of the BMC is waited for. Ironic wants three good answers 30 s apart within 480 s (quirk 34).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Between two looks.
    pub every: Duration,
    /// For the BMC to go down.
    pub effect: Duration,
    /// For it to be back.
    pub back: Duration,
    /// Good answers in a row that prove it.
    pub good: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(10),
            effect: Duration::from_mins(2),
            back: Duration::from_mins(10),
            good: 3,
        }
    }
}

/// Why the BMC has not restarted.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// There is no reset action.
    #[error("the BMC offers no way to restart it")]
    NoAction,
    /// Taken, but nothing shows that it restarted (quirk 38).
    #[error("the BMC took the command to restart, but did not within {after:?}")]
    NoEffect {
        /// How long we waited.
        after: Duration,
    },
    /// It went down and is not back.
    #[error("the BMC restarted, but does not answer consistently after {after:?}")]
    NotBack {
        /// How long we waited.
        after: Duration,
    },
    /// Refused.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<ReadError> for ResetError {
    fn from(error: ReadError) -> Self {
        Self::Write(error.into())
    }
}

impl ResetError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoAction => "bmc.action-missing",
            Self::NoEffect { .. } => "bmc.reset-no-effect",
            Self::NotBack { .. } => "bmc.reset-not-back",
            Self::Write(error) => error.code(),
        }
    }
}

impl Diagnose for ResetError {
    fn problem(&self) -> Problem {
        match self {
            Self::Write(error) => error.problem(),
            _ => error::problem(self.code(), self.to_string()),
        }
    }
}

/// Restarts the BMC and waits until it has answered well several times in a row. How long that took.
pub async fn reset(client: &Client, host: &Host, patience: Patience) -> Result<Duration, ResetError> {
    let manager = host.manager.as_deref().ok_or(ResetError::NoAction)?;
    let before = client.get(manager).await?.body;
    let action = Reset::of(client, &before, "#Manager.Reset").await?.ok_or(ResetError::NoAction)?;
    let kinds = action.among(&["GracefulRestart", "ForceRestart"]);
    let kind = kinds.first().ok_or(ResetError::NoAction)?;
    let logins = client.inner.identity.relogins.load(Ordering::Relaxed);
    match action.send(client, kind).await {
        // A BMC may go down before it answers.
        Ok(_) | Err(WriteError::Unsure { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let started = Instant::now();
    let (mut went, mut good) = (false, 0);
    loop {
        tokio::time::sleep(patience.every).await;
        match look(client, manager).await? {
            None => (went, good) = (true, 0),
            Some(now) => {
                // Fast BMCs go down and come back between two looks; they forget sessions, or tell when they started.
                went |= last_reset(&now) != last_reset(&before)
                    || client.inner.identity.relogins.load(Ordering::Relaxed) != logins;
                good += u32::from(went);
            }
        }
        if good >= patience.good {
            return Ok(started.elapsed());
        }
        if !went && started.elapsed() >= patience.effect {
            return Err(ResetError::NoEffect { after: patience.effect });
        }
        if started.elapsed() >= patience.back.max(patience.effect) {
            return Err(ResetError::NotBack { after: patience.back });
        }
    }
}

/// The manager, if the BMC answers well. Credentials are sent only to one whose service root answers: a BMC that starts may
/// refuse what is right, and that must not use up the logins (quirk 3).
async fn look(client: &Client, manager: &str) -> Result<Option<Value>, ReadError> {
    if !client.inner.answers_openly().await {
        return Ok(None);
    }
    match client.get(manager).await {
        Ok(manager) => Ok(Some(manager.body)),
        Err(error) if error.is_passing() || error.is_about_login() => Ok(None),
        Err(error) => Err(error),
    }
}

fn last_reset(manager: &Value) -> Option<&str> {
    manager.get("LastResetTime").and_then(Value::as_str)
}

impl Inner {
    /// Whether the service root comes, without credentials and over a new connection.
    async fn answers_openly(&self) -> bool {
        let Ok(answer) = self.transport.exchange(Request::get(self.origin.root().clone()), true).await else {
            return false;
        };
        let is_root = || serde_json::from_slice(&answer.body.bytes).is_ok_and(|body| is_service_root(&body));
        // Some want credentials even for the root.
        answer.status == StatusCode::UNAUTHORIZED || (answer.status.is_success() && is_root())
    }
}
