use super::*;

const HOUR: Duration = Duration::from_hours(1);

fn budget(failures: u32) -> Arc<LoginBudget> {
    Arc::new(LoginBudget::new(failures, HOUR))
}

async fn refuse(budget: &Arc<LoginBudget>) {
    budget.attempt("wrong").await.unwrap().refused().await;
}

async fn code(budget: &Arc<LoginBudget>, password: &str) -> Option<&'static str> {
    match budget.attempt(password).await {
        Ok(attempt) => {
            attempt.unsaid().await;
            None
        }
        Err(error) => Some(error.code()),
    }
}

fn failed(count: u32, last: i64) -> FailedLogins {
    let time = |second| Timestamp::from_second(second).unwrap();
    FailedLogins { count: NonZeroU32::new(count).unwrap(), first: time(0), last: time(last) }
}

#[tokio::test]
async fn quirk_03_no_login_is_tried_once_the_shared_budget_is_spent() {
    let budget = budget(2);
    refuse(&budget).await;
    assert_eq!(code(&budget, "right").await, None);
    refuse(&budget).await;
    assert_eq!(code(&budget, "right").await, Some("bmc.login-withheld"));
    budget.reset();
    assert_eq!(code(&budget, "right").await, None);
}

#[test]
fn quirk_03_a_row_of_failures_ends_by_the_time_since_its_last_one() {
    let limit = LoginLimit { failures: 2, window: Duration::from_secs(100) };
    let at = |second| limit.may_try(Some(&failed(2, 90)), Timestamp::from_second(second).unwrap());
    assert_eq!(at(120), Err(Withheld { failures: 2, retry_in: Duration::from_secs(70) }));
    assert_eq!(at(189).map_err(|withheld| withheld.retry_in), Err(Duration::from_secs(1)));
    assert_eq!(at(190), Ok(()));
    assert_eq!(limit.after_failure(Some(failed(2, 90)), Timestamp::from_second(190).unwrap()).count.get(), 1);
}

#[test]
fn a_failure_in_the_future_withholds_no_longer_than_the_window() {
    let limit = LoginLimit { failures: 1, window: Duration::from_secs(100) };
    let withheld = limit.may_try(Some(&failed(1, 5_000)), Timestamp::from_second(10).unwrap());
    assert_eq!(withheld.map_err(|withheld| withheld.retry_in), Err(Duration::from_secs(100)));
}

#[tokio::test]
async fn a_login_that_is_taken_clears_the_failures_before_it_but_none_that_came_meanwhile() {
    let budget = budget(3);
    refuse(&budget).await;
    let good = budget.attempt("right").await.unwrap();
    good.accepted().await;
    assert_eq!(budget.export(), None);
    let good = budget.attempt("right").await.unwrap();
    refuse(&budget).await;
    good.accepted().await;
    assert_eq!(budget.export().map(|failed| failed.count.get()), Some(1));
}

#[tokio::test]
async fn what_somebody_else_may_have_failed_at_counts_until_a_login_is_taken() {
    let budget = budget(2);
    budget.attempt("right").await.unwrap().accepted().await;
    assert!(!budget.is_in_doubt());
    assert!(budget.takes("right") && !budget.takes("wrong"));
    budget.presume_failed().await.unwrap();
    assert!(budget.is_in_doubt() && !budget.takes("right"));
    // Also a password that was taken last is counted before it is sent.
    let again = budget.attempt("right").await.unwrap();
    assert_eq!(budget.export().map(|failed| failed.count.get()), Some(2));
    again.refused().await;
    assert_eq!(code(&budget, "right").await, Some("bmc.login-withheld"));
    budget.reset();
    budget.presume_failed().await.unwrap();
    budget.attempt("right").await.unwrap().accepted().await;
    assert!(!budget.is_in_doubt());
}

#[tokio::test]
async fn a_login_waits_while_those_under_way_could_use_up_the_budget() {
    let budget = budget(1);
    let first = budget.attempt("a").await.unwrap();
    let second = budget.attempt("b");
    let mut second = std::pin::pin!(second);
    assert!(futures_util::poll!(second.as_mut()).is_pending());
    first.accepted().await;
    second.await.unwrap().unsaid().await;
}

#[tokio::test]
async fn a_login_without_an_answer_counts_unless_its_password_was_taken_last() {
    let budget = budget(2);
    drop(budget.attempt("right").await.unwrap());
    assert_eq!(budget.export().map(|failed| failed.count.get()), Some(1));
    budget.attempt("right").await.unwrap().accepted().await;
    drop(budget.attempt("right").await.unwrap());
    assert_eq!(budget.export(), None);
}

#[tokio::test]
async fn a_login_given_up_before_it_was_sent_does_not_count() {
    let budget = budget(2);
    drop(budget.attempt("x").await.unwrap().not_yet());
    assert_eq!(budget.export(), None);
    let mut attempt = budget.attempt("x").await.unwrap().not_yet();
    attempt.sending();
    drop(attempt);
    assert_eq!(budget.export().map(|failed| failed.count.get()), Some(1));
}

#[tokio::test]
async fn what_is_under_way_is_stored_as_failed() {
    let budget = budget(2);
    let attempt = budget.attempt("x").await.unwrap();
    let stored = budget.export();
    attempt.unsaid().await;
    assert_eq!((stored.map(|failed| failed.count.get()), budget.export()), (Some(1), None));
    let after_crash = Arc::new(LoginBudget::new(1, HOUR));
    after_crash.import(stored);
    assert_eq!(code(&after_crash, "x").await, Some("bmc.login-withheld"));
}

#[tokio::test]
async fn no_password_is_sent_before_the_recorder_has_written_it_down() {
    let written = Arc::new(Mutex::new(Vec::new()));
    let budget = budget(2);
    let log = Arc::clone(&written);
    budget.record_with(Box::new(move |failed| {
        log.lock().unwrap().push(failed.map_or(0, |failed| failed.count.get()));
        Box::pin(async { Ok(()) })
    }));
    let attempt = budget.attempt("x").await.unwrap();
    assert_eq!(*written.lock().unwrap(), [1]);
    attempt.accepted().await;
    budget.attempt("x").await.unwrap().accepted().await;
    assert_eq!(*written.lock().unwrap(), [1, 0]);
}

#[tokio::test]
async fn failures_that_another_replica_wrote_down_go_with_a_login_that_is_taken_here() {
    let written = Arc::new(Mutex::new(Some(failed(1, 0))));
    let budget = budget(2);
    budget.attempt("right").await.unwrap().accepted().await;
    let row = Arc::clone(&written);
    budget.record_with(Box::new(move |failed| {
        *row.lock().unwrap() = failed;
        Box::pin(async { Ok(()) })
    }));
    budget.import(Some(failed(1, Timestamp::now().as_second())));
    assert!(budget.is_in_doubt());
    budget.attempt("right").await.unwrap().accepted().await;
    assert_eq!(*written.lock().unwrap(), None);
}

#[tokio::test]
async fn a_login_that_cannot_be_written_down_is_not_tried() {
    let budget = budget(2);
    budget.record_with(Box::new(|_| Box::pin(async { Err("disk full".to_owned()) })));
    assert_eq!(code(&budget, "x").await, Some("bmc.login-unrecorded"));
}

#[tokio::test]
async fn quirk_42_a_superseded_password_is_never_sent_again() {
    let budget = budget(2);
    budget.supersede("old");
    assert_eq!(code(&budget, "old").await, Some("bmc.credentials-superseded"));
    assert_eq!(code(&budget, "new").await, None);
    budget.reinstate("old");
    assert_eq!(code(&budget, "old").await, None);
}

#[tokio::test]
async fn the_limit_stays_one_below_the_threshold_that_the_bmc_tells() {
    let budget = budget(4);
    budget.learn(&Lockout { threshold: Some(0), ..Lockout::default() });
    assert_eq!(budget.limit().failures, 4);
    budget.learn(&Lockout { threshold: Some(3), duration: Some(HOUR * 2), reset_after: Some(HOUR * 3) });
    assert_eq!(budget.limit(), LoginLimit { failures: 2, window: HOUR * 3 });
    budget.learn(&Lockout { threshold: Some(9), ..Lockout::default() });
    assert_eq!(budget.limit().failures, 2);
    budget.learn(&Lockout { threshold: Some(1), ..Lockout::default() });
    assert_eq!(budget.limit().failures, 1);
}

#[tokio::test]
async fn neither_a_budget_nor_an_attempt_shows_a_password() {
    let budget = budget(2);
    let attempt = budget.attempt("hunter2").await.unwrap();
    let shown = format!("{budget:?} {attempt:?}");
    attempt.unsaid().await;
    assert!(!shown.contains("hunter2"), "{shown}");
}
