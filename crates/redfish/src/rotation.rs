//! Replacing the credentials of a BMC so that at every moment, also after a crash, one known pair works (quirk 42).
//!
//! The caller keeps the two pairs and the [`Phase`] durably:
//!
//! 1. Store both pairs and [`Phase::Prepared`]. Tell the service that provisions the machine, if it has this account too.
//! 2. [`Rotation::rotate_noting`]: everybody else is fenced out, the old pair logs in, [`Phase::Given`] is stored, the BMC is given the
//!    new password, and a fresh login proves it.
//! 3. Store [`Phase::Proven`] with the new pair, and forget the old one.
//!
//! After a crash, or whenever rotating failed, a caller that finds `Given` calls [`Rotation::settle`] before anybody else logs in: it
//! finds out which pair works. One that finds `Prepared` begins anew: the old pair is in force, and to try the new one would be one
//! failed login more. A BMC reset to its factory settings is found the same way: the old pair works again.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{Diagnose, Problem};
use serde::{Deserialize, Serialize};

use crate::accounts::{ADMINISTRATOR, AccountError, Accounts};
use crate::client::{Client, Options, Target};
use crate::error::{self, Error};
use crate::guard::{BmcGuard, Fence};
use crate::reader::ReadError;
use crate::session::Credentials;
use crate::write::WriteError;

/// How far a rotation is, for the caller to store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Both pairs are kept; the old one is in force.
    Prepared,
    /// The BMC was, or is just being, given the new one: either may be in force.
    Given,
    /// The new pair logged in; the old one may be forgotten.
    Proven,
}

/// Which pair works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The old one: nothing was changed, or the BMC was reset to it.
    Old,
    /// The new one.
    New,
    /// Neither: somebody else changed the password, or the BMC refuses for other reasons. Keep both and try later.
    Neither,
}

/// The new pair has logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The BMC demands that this password is changed again (accounts made by others, on some).
    pub must_change: bool,
}

/// How patient a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For what others have under way at the BMC.
    pub fence: Duration,
    /// For the new password to be in force after the BMC took it.
    pub effect: Duration,
    /// Between two proofs.
    pub every: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { fence: Duration::from_mins(5), effect: Duration::from_mins(1), every: Duration::from_secs(5) }
    }
}

/// Why a rotation did not come to its end. Both pairs are to be kept, whatever it says.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The old pair does not log in: settle first.
    #[error("the BMC refuses the old password")]
    OldRefused,
    /// The account could not be changed.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The BMC took the new password and still wants the old one.
    #[error("the BMC took the new password, but does not log in with it after {after:?}")]
    NoEffect {
        /// How long we waited.
        after: Duration,
    },
    /// What works could not be found out.
    #[error("which password is in force is not known: {reason}")]
    Unsettled {
        /// Why.
        reason: &'static str,
    },
    /// The BMC cannot be talked to now.
    #[error(transparent)]
    Bmc(#[from] Error),
}

impl RotationError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OldRefused => "bmc.unauthorized",
            Self::Account(error) => error.code(),
            Self::NoEffect { .. } => "bmc.rotation-no-effect",
            Self::Unsettled { .. } => "bmc.rotation-unsettled",
            Self::Bmc(error) => error.code(),
        }
    }
}

impl Diagnose for RotationError {
    fn problem(&self) -> Problem {
        match self {
            Self::Account(error) => error.problem(),
            Self::Bmc(error) => error.problem(),
            _ => error::problem(self.code(), self.to_string()),
        }
    }
}

/// One rotation: from which pair to which, where. With another user name an account is made with the new pair; the old account
/// stays until [`Accounts::remove`] or [`Accounts::disable`].
pub struct Rotation<'a> {
    /// The BMC.
    pub target: &'a Target,
    /// How to talk to it; credentials, guard, pass and strikes are set here.
    pub options: &'a Options,
    /// What everybody at this BMC shares.
    pub guard: &'a Arc<BmcGuard>,
    /// The pair in force until now.
    pub old: &'a Credentials,
    /// The pair to come.
    pub new: &'a Credentials,
    /// How patient to be.
    pub patience: Patience,
}

impl fmt::Debug for Rotation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotation").field("bmc", &self.guard.address()).finish_non_exhaustive()
    }
}

impl Rotation<'_> {
    /// [`Rotation::rotate_noting`], for a caller that outlives it or settles after every crash.
    pub async fn rotate(&self) -> Result<Proven, RotationError> {
        self.rotate_noting(std::future::ready(Ok(()))).await
    }

    /// Changes the password and proves the new one by a fresh login. Call it with [`Phase::Prepared`] stored. `given` is awaited once
    /// the old pair has logged in, and before it is replaced: it stores [`Phase::Given`], and where it fails nothing is changed.
    pub async fn rotate_noting<E: From<RotationError>>(
        &self,
        given: impl Future<Output = Result<(), E>>,
    ) -> Result<Proven, E> {
        let fence = self.guard.fence(self.patience.fence).await.map_err(RotationError::from)?;
        self.change(&fence, given).await?;
        Ok(self.prove(&fence).await?)
    }

    /// Finds out which pair works: the new one is tried first, unless it was refused lately. Costs at most one failed login for
    /// each, and none that the budget does not allow (`bmc.login-withheld`: try again later).
    pub async fn settle(&self) -> Result<Which, RotationError> {
        let fence = self.guard.fence(self.patience.fence).await?;
        let refused = |pair: &Credentials| self.guard.budget(&pair.username).was_refused(&pair.password);
        // Where both were, one of the refusals was false (quirk 3), and it may have been that of the new one.
        let refused_lately = refused(self.new) && !refused(self.old);
        let order = if refused_lately { [Which::Old, Which::New] } else { [Which::New, Which::Old] };
        for which in order {
            let pair = if which == Which::Old { self.old } else { self.new };
            let budget = self.guard.budget(&pair.username);
            budget.reinstate(&pair.password);
            if let Some(client) = self.log_in(&fence, pair).await? {
                client.close().await;
                if which == Which::New {
                    self.forget_old();
                }
                return Ok(which);
            }
        }
        Ok(Which::Neither)
    }

    fn same_account(&self) -> bool {
        self.old.username == self.new.username
    }

    /// From now on nobody here sends the old password any more.
    fn forget_old(&self) {
        if self.same_account() && self.old.password != self.new.password {
            self.guard.budget(&self.old.username).supersede(&self.old.password);
        }
    }

    async fn change<E: From<RotationError>>(
        &self,
        fence: &Fence,
        given: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        // Replaced once, and in force again: the BMC was reset.
        self.guard.budget(&self.old.username).reinstate(&self.old.password);
        let client = self.log_in(fence, self.old).await?.ok_or(RotationError::OldRefused)?;
        if let Err(error) = given.await {
            client.close().await;
            return Err(error);
        }
        let outcome = self.change_with(&client).await;
        client.close().await;
        match outcome {
            // It may have been changed: the proof tells.
            Ok(()) | Err(AccountError::Write(WriteError::Unsure { .. })) => Ok(()),
            Err(error) => Err(RotationError::from(error).into()),
        }
    }

    async fn change_with(&self, client: &Client) -> Result<(), AccountError> {
        let accounts = Accounts::of(client).await?;
        match accounts.learn_lockout().await {
            Ok(lockout) => self.guard.budget(&self.new.username).learn(&lockout),
            Err(error @ ReadError::Bmc(_)) => return Err(error.into()),
            // Not every account may read it; the careful default holds.
            Err(_) => {}
        }
        if self.same_account() {
            let own = accounts.own().await?;
            accounts.change_password(&own, &self.new.password).await
        } else {
            accounts.create(self.new, ADMINISTRATOR).await.map(|_| ())
        }
    }

    /// Logs in with the new pair until it works. Each refusal is followed by a login with the old pair, which shows that the
    /// change is not in force yet and ends the row of failures.
    async fn prove(&self, fence: &Fence) -> Result<Proven, RotationError> {
        self.guard.budget(&self.new.username).reinstate(&self.new.password);
        let (started, mut refused) = (Instant::now(), false);
        loop {
            match self.log_in(fence, self.new).await {
                Ok(Some(client)) => {
                    let must_change = client.must_change_password();
                    client.close().await;
                    self.forget_old();
                    return Ok(Proven { must_change });
                }
                Ok(None) => {
                    refused = true;
                    let Some(client) = self.log_in(fence, self.old).await? else {
                        return Err(RotationError::Unsettled { reason: "the BMC refuses both passwords" });
                    };
                    client.close().await;
                }
                // The account just made is refused as often as the budget bears.
                Err(RotationError::Bmc(Error::LoginWithheld { .. })) if refused => {
                    return Err(RotationError::NoEffect { after: started.elapsed() });
                }
                Err(RotationError::Bmc(error)) if error.is_passing() => {}
                Err(error) => return Err(error),
            }
            if started.elapsed() >= self.patience.effect {
                return Err(RotationError::NoEffect { after: self.patience.effect });
            }
            tokio::time::sleep(self.patience.every).await;
        }
    }

    /// One login with one pair; `None` if the BMC refuses it. One refusal is believed: the budget is small, and a mistake is
    /// put right by settling again.
    async fn log_in(&self, fence: &Fence, pair: &Credentials) -> Result<Option<Client>, RotationError> {
        let options = Options {
            credentials: Some(pair.clone()),
            guard: Some(Arc::clone(self.guard)),
            pass: Some(fence.pass()),
            strikes: 1,
            limited: true,
            ..self.options.clone()
        };
        match Client::connect(self.target.clone(), options).await {
            Ok(client) if client.is_authenticated() => Ok(Some(client)),
            Ok(client) => {
                client.close().await;
                Err(RotationError::Unsettled {
                    reason: "the BMC answers, but not whether it takes the password",
                })
            }
            Err(Error::Unauthorized) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
