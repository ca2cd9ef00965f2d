//! What everything in a process that talks to one BMC shares: the login budgets of its accounts, its pace (quirk 39), and a
//! fence that keeps the others out while credentials are changed (quirk 42).
//!
//! One [`Guards`] a process; `guards.of(address)` gives the guard of a BMC. HTTP clients take it through
//! [`crate::Options::guard`]; others, such as IPMI, call [`BmcGuard::turn`] before each command and [`BmcGuard::budget`] before
//! each login. Between processes a lease in the database does what the fence does here.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::address::Origin;
use crate::budget::{LoginBudget, LoginLimit};
use crate::client::lock;
use crate::error::Error;

/// How fast a BMC may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Requests at once, over all clients; at least 1.
    pub at_once: usize,
    /// From the end of a command to the start of the next; commands then go one by one. Reading is not slowed.
    pub command_gap: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        crate::quirks::PLAIN.pace
    }
}

/// What a turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Changes nothing.
    Read,
    /// Changes something, or is heavy for the BMC: actions, settings, IPMI commands.
    Command,
}

/// The guards of all BMCs of a process.
#[derive(Debug, Default)]
pub struct Guards {
    limit: LoginLimit,
    guards: Mutex<HashMap<String, Arc<BmcGuard>>>,
}

impl Guards {
    /// Guards whose accounts may fail so often until the BMC says how much it bears.
    pub fn new(limit: LoginLimit) -> Self {
        Self { limit, guards: Mutex::default() }
    }

    /// The guard of the BMC at an address, `https://HOST[:PORT]` or `HOST[:PORT]`; all spellings of one address share it.
    /// A machine reached by Redfish and by IPMI has one BMC: both ask with its Redfish address.
    pub fn of(&self, address: &str) -> Result<Arc<BmcGuard>, Error> {
        let authority = Origin::parse(address)?.authority();
        let mut guards = lock(&self.guards);
        let guard = guards.entry(authority.clone()).or_insert_with(|| BmcGuard::new(authority, self.limit));
        Ok(Arc::clone(guard))
    }
}

/// What is shared about one BMC.
pub struct BmcGuard {
    address: String,
    limit: LoginLimit,
    budgets: Mutex<HashMap<String, Arc<LoginBudget>>>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    /// The pace was given by people, so that what the table of quirks says no longer counts.
    fixed: bool,
    running: usize,
    commands: usize,
    last_command: Option<Instant>,
    fence: Option<Pass>,
    passes: u64,
}

impl fmt::Debug for BmcGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BmcGuard").field("address", &self.address).finish_non_exhaustive()
    }
}

impl BmcGuard {
    fn new(address: String, limit: LoginLimit) -> Arc<Self> {
        Arc::new(Self {
            address,
            limit,
            budgets: Mutex::default(),
            state: Mutex::new(State {
                pace: Pace::default(),
                fixed: false,
                running: 0,
                commands: 0,
                last_command: None,
                fence: None,
                passes: 0,
            }),
            changed: Notify::new(),
        })
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The login budget of an account. Spellings that differ in case share one, since some BMCs do not tell them apart.
    pub fn budget(&self, account: &str) -> Arc<LoginBudget> {
        let mut budgets = lock(&self.budgets);
        let new = || Arc::new(LoginBudget::new(self.limit.failures, self.limit.window));
        Arc::clone(budgets.entry(account.trim().to_lowercase()).or_insert_with(new))
    }

    /// Sets the pace; what the table of quirks says no longer counts.
    pub fn set_pace(&self, pace: Pace) {
        let mut state = lock(&self.state);
        (state.pace, state.fixed) = (pace, true);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Takes the pace of the table of quirks, unless one was set.
    pub(crate) fn learn_pace(&self, pace: Pace) {
        let mut state = lock(&self.state);
        if !state.fixed {
            state.pace = pace;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The pace that holds now.
    pub fn pace(&self) -> Pace {
        lock(&self.state).pace
    }

    /// Waits for a turn to send one request, `patience` at most for a fence. `pass` lets the holder of the fence through.
    pub async fn turn(
        self: &Arc<Self>,
        kind: Kind,
        pass: Option<Pass>,
        patience: Duration,
    ) -> Result<Turn, Error> {
        let fenced_until = Instant::now().checked_add(patience);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.ask(kind, pass) {
                Ok(turn) => return Ok(turn),
                Err(Wait::Place) => changed.await,
                Err(Wait::Until(gap)) => tokio::time::sleep_until(gap.into()).await,
                Err(Wait::Fence) => {
                    let Some(until) = fenced_until else {
                        changed.await;
                        continue;
                    };
                    if tokio::time::timeout_at(until.into(), changed).await.is_err() {
                        return Err(Error::Fenced { address: self.address.clone(), after: patience });
                    }
                }
            }
        }
    }

    fn ask(self: &Arc<Self>, kind: Kind, pass: Option<Pass>) -> Result<Turn, Wait> {
        let mut state = lock(&self.state);
        if state.fence.is_some() && state.fence != pass {
            return Err(Wait::Fence);
        }
        if state.running >= state.pace.at_once.max(1) {
            return Err(Wait::Place);
        }
        let gap = state.pace.command_gap;
        if kind == Kind::Command && !gap.is_zero() {
            if state.commands > 0 {
                return Err(Wait::Place);
            }
            let ready = state.last_command.and_then(|last| last.checked_add(gap));
            if let Some(ready) = ready.filter(|ready| *ready > Instant::now()) {
                return Err(Wait::Until(ready));
            }
        }
        state.running += 1;
        state.commands += usize::from(kind == Kind::Command);
        Ok(Turn { guard: Arc::clone(self), kind })
    }

    /// Keeps everybody else out, once what is under way has ended. Waits `patience` at most; requests have their own
    /// time-outs, so that a fence never takes longer than the slowest of them.
    pub async fn fence(self: &Arc<Self>, patience: Duration) -> Result<Fence, Error> {
        let closed = async {
            let fence = loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if let Some(fence) = self.close() {
                    break fence;
                }
                changed.await;
            };
            // From here on dropping `fence` opens it again, also when this future is dropped.
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if lock(&self.state).running == 0 {
                    return fence;
                }
                changed.await;
            }
        };
        let late = |_| Error::Fenced { address: self.address.clone(), after: patience };
        tokio::time::timeout(patience, closed).await.map_err(late)
    }

    fn close(self: &Arc<Self>) -> Option<Fence> {
        let mut state = lock(&self.state);
        if state.fence.is_some() {
            return None;
        }
        state.passes += 1;
        let pass = Pass(state.passes);
        state.fence = Some(pass);
        Some(Fence { guard: Arc::clone(self), pass })
    }
}

/// Why a turn must wait.
enum Wait {
    Place,
    Until(Instant),
    Fence,
}

/// Leave to send one request; ends when dropped.
#[must_use = "the turn ends when this is dropped"]
#[derive(Debug)]
pub struct Turn {
    guard: Arc<BmcGuard>,
    kind: Kind,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = lock(&self.guard.state);
        state.running = state.running.saturating_sub(1);
        if self.kind == Kind::Command {
            state.commands = state.commands.saturating_sub(1);
            state.last_command = Some(Instant::now());
        }
        drop(state);
        self.guard.changed.notify_waiters();
    }
}

/// What lets the holder of a fence through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass(u64);

/// A closed fence: only who shows its pass gets a turn. Opens when dropped.
#[must_use = "the fence opens when this is dropped"]
#[derive(Debug)]
pub struct Fence {
    guard: Arc<BmcGuard>,
    pass: Pass,
}

impl Fence {
    /// What lets through.
    pub fn pass(&self) -> Pass {
        self.pass
    }

    /// The guard it belongs to.
    pub fn guard(&self) -> &Arc<BmcGuard> {
        &self.guard
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        lock(&self.guard.state).fence = None;
        self.guard.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    fn guard() -> Arc<BmcGuard> {
        let guard = Guards::default().of("https://bmc").unwrap();
        guard.set_pace(Pace { at_once: 2, command_gap: Duration::ZERO });
        guard
    }

    #[test]
    fn every_spelling_of_an_address_has_one_guard() {
        let guards = Guards::default();
        let first = guards.of("https://BMC.example:443/redfish/v1").unwrap();
        assert!(Arc::ptr_eq(&first, &guards.of("bmc.example").unwrap()));
        assert!(!Arc::ptr_eq(&first, &guards.of("bmc.example:8443").unwrap()));
        assert!(Arc::ptr_eq(&first.budget("Root "), &first.budget("root")));
        assert!(!Arc::ptr_eq(&first.budget("root"), &first.budget("admin")));
    }

    #[tokio::test]
    async fn quirk_39_no_more_requests_than_the_pace_allows_run_at_once() {
        let guard = guard();
        let first = guard.turn(Kind::Read, None, LONG).await.unwrap();
        let _second = guard.turn(Kind::Read, None, LONG).await.unwrap();
        let mut third = std::pin::pin!(guard.turn(Kind::Read, None, LONG));
        assert!(poll!(third.as_mut()).is_pending());
        drop(first);
        let _third = third.await.unwrap();
    }

    #[tokio::test]
    async fn quirk_39_commands_keep_their_distance_and_reads_do_not_wait_for_it() {
        let guard = guard();
        let gap = Duration::from_millis(30);
        guard.set_pace(Pace { at_once: 2, command_gap: gap });
        let first = guard.turn(Kind::Command, None, LONG).await.unwrap();
        let mut second = std::pin::pin!(guard.turn(Kind::Command, None, LONG));
        assert!(poll!(second.as_mut()).is_pending());
        let ended = Instant::now();
        drop(first);
        drop(guard.turn(Kind::Read, None, LONG).await.unwrap());
        drop(second.await.unwrap());
        assert!(ended.elapsed() >= gap);
    }

    #[tokio::test]
    async fn a_pace_that_people_set_is_not_replaced_by_the_table_of_quirks() {
        let guard = Guards::default().of("bmc").unwrap();
        let slow = Pace { at_once: 1, command_gap: LONG };
        guard.learn_pace(slow);
        assert_eq!(guard.pace(), slow);
        guard.set_pace(Pace::default());
        guard.learn_pace(slow);
        assert_eq!(guard.pace(), Pace::default());
    }

    #[tokio::test]
    async fn quirk_42_a_fence_waits_for_what_runs_and_keeps_others_out_until_it_is_dropped() {
        let guard = guard();
        let running = guard.turn(Kind::Read, None, LONG).await.unwrap();
        let mut fencing = std::pin::pin!(guard.fence(LONG));
        assert!(poll!(fencing.as_mut()).is_pending());
        let mut other = std::pin::pin!(guard.turn(Kind::Read, None, LONG));
        assert!(poll!(other.as_mut()).is_pending());
        drop(running);
        let fence = fencing.await.unwrap();
        assert!(poll!(other.as_mut()).is_pending());
        drop(guard.turn(Kind::Command, Some(fence.pass()), LONG).await.unwrap());
        drop(fence);
        drop(other.await.unwrap());
    }

    #[tokio::test]
    async fn quirk_42_who_waits_too_long_at_a_fence_is_told() {
        let guard = guard();
        let _fence = guard.fence(LONG).await.unwrap();
        let code = guard.turn(Kind::Read, None, Duration::from_millis(1)).await.map_err(|error| error.code());
        assert_eq!(code.err(), Some("bmc.fenced"));
        let second = guard.fence(Duration::from_millis(1)).await.map_err(|error| error.code());
        assert_eq!(second.err(), Some("bmc.fenced"));
    }

    #[tokio::test]
    async fn a_fence_given_up_while_it_was_waiting_is_open() {
        let guard = guard();
        let running = guard.turn(Kind::Read, None, LONG).await.unwrap();
        assert!(guard.fence(Duration::from_millis(1)).await.is_err());
        drop(guard.turn(Kind::Read, None, Duration::ZERO).await.unwrap());
        drop(running);
    }
}
