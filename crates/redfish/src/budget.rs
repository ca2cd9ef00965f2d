//! Never so many failed logins that a BMC locks an account, counted over everything that logs in there (quirks 3 and 42).
//!
//! A BMC counts by account: each refusal adds one, a login that is taken starts anew, and so does a time without refusals
//! (`AccountLockoutCounterResetAfter`). [`LoginBudget`] keeps the same count and stops before the BMC's threshold. What
//! is under way counts as failed until it is known not to be, so that clients which start together cannot exceed it together.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::error::Error;

/// How many logins may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginLimit {
    /// Failures in a row.
    pub failures: u32,
    /// The row ends when so long no login failed.
    pub window: Duration,
}

impl Default for LoginLimit {
    /// Two failures: lock-out thresholds begin at three. Fifteen minutes, longer than the times by which BMCs forget.
    fn default() -> Self {
        Self { failures: 2, window: Duration::from_mins(15) }
    }
}

/// Logins of one account that failed in a row, as a database may keep them. No failure is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedLogins {
    /// How many.
    pub count: NonZeroU32,
    /// When the first failed.
    pub first: Timestamp,
    /// When the last failed.
    pub last: Timestamp,
}

/// Why no login is tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// Logins that failed in a row.
    pub failures: u32,
    /// How long until one may be tried.
    pub retry_in: Duration,
}

impl From<Withheld> for Error {
    fn from(Withheld { failures, retry_in }: Withheld) -> Self {
        Self::LoginWithheld { failures, retry_in }
    }
}

impl LoginLimit {
    /// Whether another login may be tried after these failures. A failure in the future counts as one of now.
    pub fn may_try(&self, failed: Option<&FailedLogins>, now: Timestamp) -> Result<(), Withheld> {
        let Some(failed) = failed.filter(|failed| self.counts(failed, now)) else { return Ok(()) };
        let failures = failed.count.get();
        if failures < self.failures {
            return Ok(());
        }
        Err(Withheld { failures, retry_in: self.window.saturating_sub(since(failed.last, now)) })
    }

    /// The failures after one more.
    pub fn after_failure(&self, failed: Option<FailedLogins>, now: Timestamp) -> FailedLogins {
        match failed.filter(|failed| self.counts(failed, now)) {
            Some(failed) => {
                FailedLogins { count: failed.count.saturating_add(1), last: failed.last.max(now), ..failed }
            }
            None => FailedLogins { count: NonZeroU32::MIN, first: now, last: now },
        }
    }

    /// Whether the row has not ended yet. It ends by the time since its *last* failure, as on BMCs.
    fn counts(&self, failed: &FailedLogins, now: Timestamp) -> bool {
        since(failed.last, now) < self.window
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

/// When the BMC itself locks an account (`AccountService`); what it does not say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lockout {
    /// Failures that lock the account; 0 for never.
    pub threshold: Option<u32>,
    /// For how long it is locked.
    pub duration: Option<Duration>,
    /// After how long without failures the count starts anew; `Duration::MAX` for never.
    pub reset_after: Option<Duration>,
}

/// Writes down the failures of one account before a password is sent, so that a crash forgets none.
pub type Recorder = Box<dyn Fn(Option<FailedLogins>) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Bounds the failed logins of one account at one BMC, over all that log in there: clients, pollers, rotation, IPMI.
/// [`crate::guard::BmcGuard::budget`] gives the one to share.
///
/// A login without an answer counts as failed, unless its password is the one that was taken last: a slow BMC must not shut us
/// out.
pub struct LoginBudget {
    state: Mutex<State>,
    freed: Notify,
    recorder: OnceLock<Recorder>,
    recording: tokio::sync::Mutex<()>,
    salt: [u8; 32],
}

/// What tells passwords apart without holding them: a salted digest, never stored.
type Print = [u8; 32];

struct State {
    limit: LoginLimit,
    failed: Option<FailedLogins>,
    /// Failures ever; tells which of them came after an attempt began.
    ever: u64,
    /// Attempts under way, and those of them whose password was not taken before.
    flying: u32,
    unproven: u32,
    /// The password taken last.
    proven: Option<Print>,
    /// Passwords refused since.
    refused: Vec<Print>,
    /// Passwords that were replaced; they are never tried again.
    superseded: Vec<Print>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Accepted,
    Refused,
    Unsaid,
    Doubt,
}

impl Default for LoginBudget {
    fn default() -> Self {
        let limit = LoginLimit::default();
        Self::new(limit.failures, limit.window)
    }
}

impl fmt::Debug for LoginBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let mut shown = f.debug_struct("LoginBudget");
        shown.field("limit", &state.limit).field("failed", &state.failed).field("flying", &state.flying);
        shown.finish_non_exhaustive()
    }
}

impl LoginBudget {
    /// At most `failures` in a row, which `window` without a failure ends.
    pub fn new(failures: u32, window: Duration) -> Self {
        let mut salt = [0; 32];
        // Without randomness the digests are still in this process's memory only.
        let _ = getrandom::fill(&mut salt);
        let limit = LoginLimit { failures: failures.max(1), window };
        Self {
            state: Mutex::new(State {
                limit,
                failed: None,
                ever: 0,
                flying: 0,
                unproven: 0,
                proven: None,
                refused: Vec::new(),
                superseded: Vec::new(),
            }),
            freed: Notify::new(),
            recorder: OnceLock::new(),
            recording: tokio::sync::Mutex::default(),
            salt,
        }
    }

    /// Begins a login; waits while others under way could use up what is left. Whoever gets an [`Attempt`] sends the password
    /// once and says what came of it.
    pub async fn attempt(self: &Arc<Self>, password: &str) -> Result<Attempt, Error> {
        let print = self.print(password);
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(attempt) = self.begin(print)? {
                if !attempt.proven {
                    self.record().await.map_err(|reason| Error::LoginUnrecorded { reason })?;
                }
                return Ok(attempt);
            }
            freed.await;
        }
    }

    /// Whether a login would be tried now.
    pub fn check(&self) -> Result<(), Withheld> {
        let state = self.state();
        state.limit.may_try(state.failed.as_ref(), now())
    }

    /// Forgets the failures: somebody unlocked the account on the BMC. Another password is no reason: the BMC counts by account.
    pub fn reset(&self) {
        self.state().failed = None;
        self.freed.notify_waiters();
    }

    /// Somebody else who has the password may have been refused. That counts as a failure, and the password as not taken, until a
    /// login is.
    pub async fn presume_failed(&self) -> Result<(), String> {
        {
            let mut state = self.state();
            state.fail();
            state.proven = None;
        }
        self.record().await
    }

    /// Whether a login failed, or may have, since one was taken.
    pub fn is_in_doubt(&self) -> bool {
        self.state().failed.is_some()
    }

    /// Whether this password is the one that was taken last, as far as this process knows, and nobody failed since.
    pub fn takes(&self, password: &str) -> bool {
        let print = self.print(password);
        let state = self.state();
        state.failed.is_none() && state.proven == Some(print)
    }

    /// Lowers the limit to what the BMC says of itself: one failure below its threshold, over the longest of its times.
    pub fn learn(&self, lockout: &Lockout) {
        let mut state = self.state();
        if let Some(threshold) = lockout.threshold.filter(|threshold| *threshold > 0) {
            state.limit.failures = state.limit.failures.min(threshold - 1).max(1);
        }
        for time in [lockout.duration, lockout.reset_after].into_iter().flatten() {
            state.limit.window = state.limit.window.max(time);
        }
    }

    /// The limit that holds now.
    pub fn limit(&self) -> LoginLimit {
        self.state().limit
    }

    /// Never tries this password again: it was replaced. Clients that still have it fail without bothering the BMC.
    pub fn supersede(&self, password: &str) {
        let print = self.print(password);
        let mut state = self.state();
        if !state.superseded.contains(&print) {
            state.superseded.push(print);
        }
    }

    /// Takes [`LoginBudget::supersede`] back: the password may be in force again.
    pub fn reinstate(&self, password: &str) {
        let print = self.print(password);
        self.state().superseded.retain(|known| *known != print);
    }

    /// Whether this password was refused since one was last taken.
    pub fn was_refused(&self, password: &str) -> bool {
        let print = self.print(password);
        self.state().refused.contains(&print)
    }

    /// Whether the password that was taken last, as far as this process knows, is another one.
    pub fn took_another(&self, password: &str) -> bool {
        let print = self.print(password);
        self.state().proven.is_some_and(|proven| proven != print)
    }

    /// The failures as they are to be stored; logins under way count, in case nobody lives to see how they end.
    pub fn export(&self) -> Option<FailedLogins> {
        let state = self.state();
        let ours = now();
        let mut failed = state.failed.filter(|failed| state.limit.counts(failed, ours));
        for _ in 0..state.unproven {
            failed = Some(state.limit.after_failure(failed, ours));
        }
        failed.map(|failed| shifted(failed, Timestamp::now().duration_since(ours)))
    }

    /// Takes over what was stored, by an earlier process or by another replica. Never lowers the count.
    pub fn import(&self, stored: Option<FailedLogins>) {
        let Some(stored) = stored else { return };
        let ours = now();
        let stored = shifted(stored, ours.duration_since(Timestamp::now()));
        let stored = FailedLogins { last: stored.last.min(ours), first: stored.first.min(ours), ..stored };
        let mut state = self.state();
        let merged = match state.failed.filter(|failed| state.limit.counts(failed, ours)) {
            Some(own) => FailedLogins {
                count: own.count.max(stored.count),
                first: own.first.min(stored.first),
                last: own.last.max(stored.last),
            },
            None => stored,
        };
        state.failed = Some(merged);
    }

    /// Has every change written down, the first before any password is sent. Only the first recorder given counts.
    pub fn record_with(&self, recorder: Recorder) {
        let _ = self.recorder.set(recorder);
    }

    /// Writes down what counts now. One at a time, so that the last one written is the last one true.
    async fn record(&self) -> Result<(), String> {
        let Some(recorder) = self.recorder.get() else { return Ok(()) };
        let _alone = self.recording.lock().await;
        recorder(self.export()).await
    }

    fn begin(self: &Arc<Self>, print: Print) -> Result<Option<Attempt>, Error> {
        let mut state = self.state();
        if state.superseded.contains(&print) {
            return Err(Error::Superseded);
        }
        let now = now();
        state.limit.may_try(state.failed.as_ref(), now)?;
        let limit = state.limit;
        state.failed = state.failed.filter(|failed| limit.counts(failed, now));
        let failures = state.failed.map_or(0, |failed| failed.count.get());
        if failures + state.flying >= limit.failures {
            return Ok(None);
        }
        let proven = state.proven == Some(print);
        state.flying += 1;
        state.unproven += u32::from(!proven);
        let ever = state.ever;
        Ok(Some(Attempt { budget: Arc::clone(self), print, proven, ever, open: true, sent: true }))
    }

    /// Whether what was written down before is not true any more.
    fn end(&self, attempt: &Attempt, end: End) -> bool {
        let mut state = self.state();
        let had_failed = state.failed.is_some();
        state.flying = state.flying.saturating_sub(1);
        state.unproven = state.unproven.saturating_sub(u32::from(!attempt.proven));
        match end {
            End::Accepted => {
                // The BMC may have met failures that came meanwhile after this login: those stay.
                let later = u32::try_from(state.ever - attempt.ever).unwrap_or(u32::MAX);
                state.failed = state.failed.and_then(|failed| {
                    Some(FailedLogins { count: failed.count.min(NonZeroU32::new(later)?), ..failed })
                });
                state.proven = Some(attempt.print);
                state.refused.clear();
            }
            End::Refused => {
                state.fail();
                if state.proven == Some(attempt.print) {
                    state.proven = None;
                }
                if !state.refused.contains(&attempt.print) {
                    state.refused.push(attempt.print);
                }
            }
            End::Doubt if state.proven != Some(attempt.print) => state.fail(),
            End::Doubt | End::Unsaid => {}
        }
        drop(state);
        self.freed.notify_waiters();
        !attempt.proven || end == End::Refused || (had_failed && end == End::Accepted)
    }

    fn print(&self, password: &str) -> Print {
        Sha256::new().chain_update(self.salt).chain_update(password).finalize().into()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fail(&mut self) {
        self.failed = Some(self.limit.after_failure(self.failed, now()));
        self.ever += 1;
    }
}

/// A login under way. Dropped without a word, it counts as one without an answer.
#[must_use = "a login whose end is not told counts as failed"]
pub struct Attempt {
    budget: Arc<LoginBudget>,
    print: Print,
    proven: bool,
    ever: u64,
    open: bool,
    sent: bool,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("proven", &self.proven).finish_non_exhaustive()
    }
}

impl Attempt {
    /// The BMC took the password: failures before it no longer count.
    pub async fn accepted(self) {
        self.close(End::Accepted).await;
    }

    /// The BMC refused the password.
    pub async fn refused(self) {
        self.close(End::Refused).await;
    }

    /// The password was not sent, or the answer says nothing about it.
    pub async fn unsaid(self) {
        self.close(End::Unsaid).await;
    }

    /// The password waits for something else before it is sent: dropped until [`Attempt::sending`], nothing has happened.
    pub(crate) fn not_yet(mut self) -> Self {
        self.sent = false;
        self
    }

    /// The password is sent now.
    pub(crate) fn sending(&mut self) {
        self.sent = true;
    }

    async fn close(mut self, end: End) {
        self.open = false;
        // What was written before the attempt holds the worst; to write the better is worth one try.
        if self.budget.end(&self, end) {
            let _ = self.budget.record().await;
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.open {
            self.budget.end(self, if self.sent { End::Doubt } else { End::Unsaid });
        }
    }
}

/// The time by a clock that nobody sets: failures must not be forgotten because the wall clock was put right.
fn now() -> Timestamp {
    static START: OnceLock<(Instant, Timestamp)> = OnceLock::new();
    let (instant, timestamp) = START.get_or_init(|| (Instant::now(), Timestamp::now()));
    let passed = SignedDuration::try_from(instant.elapsed()).unwrap_or(SignedDuration::MAX);
    timestamp.saturating_add(passed).unwrap_or(Timestamp::MAX)
}

fn shifted(failed: FailedLogins, by: SignedDuration) -> FailedLogins {
    let shift = |time: Timestamp| time.saturating_add(by).unwrap_or(time);
    FailedLogins { first: shift(failed.first), last: shift(failed.last), ..failed }
}

#[cfg(test)]
mod tests;
