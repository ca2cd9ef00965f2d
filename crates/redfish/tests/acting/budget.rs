//! The login budget: whatever clients do in whatever order, no account is locked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use redfish::budget::{Attempt, FailedLogins, LoginLimit};
use redfish::{Guards, LoginBudget, Options, Reader as _};

use crate::machine::{Running, SYSTEM, as_user};
use crate::server::{PASSWORD, USER};

/// What happens next at the BMC or among its clients.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A client sends a password; `true` is the right one.
    Begin(bool),
    /// The BMC looks at the oldest request that it has not seen.
    Arrive,
    /// The answer to one of the requests seen comes back.
    Answer(usize),
    /// The answer to one of them is lost, or its client goes away.
    Lose(usize),
    /// The process dies and another takes over what was recorded.
    Crash,
}

/// A BMC that locks the account at the third refusal in a row.
#[derive(Default)]
struct Counting {
    row: u32,
    worst: u32,
}

impl Counting {
    fn judge(&mut self, right: bool) -> bool {
        self.row = if right { 0 } else { self.row + 1 };
        self.worst = self.worst.max(self.row);
        right
    }
}

fn begin(budget: &Arc<LoginBudget>, right: bool) -> Option<Attempt> {
    let password = if right { "right" } else { "wrong" };
    // Pending: others under way could use up the budget; this client waits.
    futures_util::FutureExt::now_or_never(budget.attempt(password))?.ok()
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any::<bool>().prop_map(Event::Begin),
        4 => Just(Event::Arrive),
        4 => (0_usize..4).prop_map(Event::Answer),
        1 => (0_usize..4).prop_map(Event::Lose),
        1 => Just(Event::Crash),
    ]
}

fn worst_row(events: &[Event], lossy_after_success: bool) -> u32 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let new = || Arc::new(LoginBudget::new(2, Duration::from_hours(1)));
        let (mut budget, mut bmc) = (new(), Counting::default());
        let mut sent: VecDeque<(Attempt, bool)> = VecDeque::new();
        let mut seen: Vec<(Attempt, bool)> = Vec::new();
        for event in events {
            match *event {
                Event::Begin(right) => {
                    if let Some(attempt) = begin(&budget, right) {
                        sent.push_back((attempt, right));
                    }
                }
                Event::Arrive => {
                    if let Some((attempt, right)) = sent.pop_front() {
                        bmc.judge(right);
                        seen.push((attempt, right));
                    }
                }
                Event::Answer(at) if !seen.is_empty() => {
                    let (attempt, right) = seen.swap_remove(at % seen.len());
                    if right { attempt.accepted().await } else { attempt.refused().await }
                }
                Event::Lose(at) if !seen.is_empty() && lossy_after_success => {
                    drop(seen.swap_remove(at % seen.len()));
                }
                Event::Crash => {
                    let recorded: Option<FailedLogins> = budget.export();
                    // What was under way still reaches the BMC.
                    for (_, right) in sent.drain(..) {
                        bmc.judge(right);
                    }
                    seen.clear();
                    budget = new();
                    budget.import(recorded);
                }
                Event::Answer(_) | Event::Lose(_) => {}
            }
        }
        for (_, right) in sent {
            bmc.judge(right);
        }
        bmc.worst
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_clients_do_the_bmc_never_sees_more_refusals_in_a_row_than_the_budget(
        events in prop::collection::vec(event(), 0..120),
    ) {
        prop_assert!(worst_row(&events, true) <= 2);
    }

    #[test]
    fn the_decision_by_stored_failures_never_lets_a_row_grow_beyond_the_limit(
        waits in prop::collection::vec(0_i64..40, 1..60), failures in 1_u32..5,
    ) {
        let limit = LoginLimit { failures, window: Duration::from_secs(30) };
        let (mut now, mut failed) = (jiff::Timestamp::UNIX_EPOCH, None);
        let (mut row, mut last) = (0_u32, None::<jiff::Timestamp>);
        for wait in waits {
            now += jiff::SignedDuration::from_secs(wait);
            if limit.may_try(failed.as_ref(), now).is_err() {
                continue;
            }
            // A BMC forgets after the window without a failure, not before.
            let quiet = last.is_none_or(|last| now.duration_since(last).as_secs() >= 30);
            row = if quiet { 1 } else { row + 1 };
            last = Some(now);
            failed = Some(limit.after_failure(failed, now));
            prop_assert!(row <= failures);
        }
    }
}

#[tokio::test]
async fn quirk_42_another_password_gives_no_new_budget() {
    let running = Running::good().await;
    let guards = Guards::default();
    let with = |password: &str| Options {
        guard: Some(guards.of(&running.bmc.url()).unwrap()),
        ..as_user(USER, password)
    };
    let mut codes = Vec::new();
    for password in ["a", "b", "c", PASSWORD] {
        codes.push(running.bmc.connect_with(with(password)).await.unwrap_err().code());
    }
    assert_eq!(codes[1..], ["bmc.login-withheld"; 3]);
    assert_eq!(running.machine().strikes[USER], 2);
}

#[tokio::test]
async fn quirk_42_clients_that_log_in_together_with_a_wrong_password_do_not_lock_the_account() {
    for basic in [false, true] {
        let running = Running::good().await;
        let guards = Guards::default();
        let connects = (0..12).map(|n| {
            let options = Options {
                guard: Some(guards.of(&running.bmc.url()).unwrap()),
                authentication: if basic {
                    redfish::Authentication::Basic
                } else {
                    redfish::Authentication::Session
                },
                ..as_user(USER, &format!("wrong-{n}"))
            };
            running.bmc.connect_with(options)
        });
        assert!(futures_util::future::join_all(connects).await.iter().all(Result::is_err));
        assert!(running.machine().strikes[USER] <= 2, "{:?}", running.machine().strikes);
    }
}

#[tokio::test]
async fn a_password_changed_under_basic_requests_in_flight_does_not_lock_the_account() {
    let running = Running::good().await;
    let basic = Options { authentication: redfish::Authentication::Basic, ..as_user(USER, PASSWORD) };
    let client = running.bmc.connect_with(basic).await.unwrap();
    let account = running.machine().passwords.keys().next().cloned().unwrap();
    running.machine().passwords.insert(account, "changed".to_owned());
    let reads = futures_util::future::join_all((0..8).map(|_| client.get(SYSTEM))).await;
    assert!(reads.iter().all(Result::is_err));
    assert!(running.machine().strikes[USER] <= 2, "{:?}", running.machine().strikes);
}

#[tokio::test]
async fn a_login_whose_answer_is_lost_counts() {
    let running = Running::start(|machine, seen| {
        seen.target.ends_with("/Sessions").then(|| {
            let _ = machine.answer(seen);
            crate::server::Reply::Cut(Vec::new())
        })
    })
    .await;
    let guard = Guards::default().of(&running.bmc.url()).unwrap();
    for _ in 0..3 {
        let options = Options { guard: Some(Arc::clone(&guard)), ..as_user(USER, "wrong") };
        assert!(running.bmc.connect_with(options).await.is_err());
    }
    assert!(running.machine().strikes[USER] <= 2, "{:?}", running.machine().strikes);
}
