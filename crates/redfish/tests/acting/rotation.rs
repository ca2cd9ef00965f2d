//! Replacing credentials, with a power cut at every request.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use redfish::budget::FailedLogins;
use redfish::rotation::{Patience, Proven, Rotation, RotationError, Which};
use redfish::{BmcGuard, Credentials, Guards, Options, Reader as _, Target, Trust};

use crate::machine::{ACCOUNTS, MANAGER, Machine, Running, SYSTEM, as_user};
use crate::server::{PASSWORD, Reply, Seen, USER, options};

const NEW: &str = "own-password-1";

fn patience() -> Patience {
    let ms = Duration::from_millis;
    Patience { fence: Duration::from_secs(20), effect: Duration::from_secs(20), every: ms(5) }
}

struct Site {
    target: Target,
    options: Options,
    guard: Arc<BmcGuard>,
    old: Credentials,
    new: Credentials,
}

impl Site {
    fn of(running: &Running, guards: &Guards) -> Self {
        Self {
            target: Target::new(running.bmc.url(), Trust::Pin(running.bmc.shown.pin)),
            options: Options { credentials: None, ..options() },
            guard: guards.of(&running.bmc.url()).unwrap(),
            old: Credentials::new(USER, PASSWORD),
            new: Credentials::new(USER, NEW),
        }
    }

    fn rotation(&self) -> Rotation<'_> {
        Rotation {
            target: &self.target,
            options: &self.options,
            guard: &self.guard,
            old: &self.old,
            new: &self.new,
            patience: patience(),
        }
    }
}

async fn rotate(running: &Running) -> Result<Proven, RotationError> {
    Site::of(running, &Guards::default()).rotation().rotate().await
}

fn account() -> String {
    format!("{ACCOUNTS}/1")
}

#[tokio::test]
async fn quirk_42_a_rotation_ends_with_the_new_password_proven_by_a_login() {
    let running = Running::good().await;
    let guards = Guards::default();
    let site = Site::of(&running, &guards);
    assert_eq!(site.rotation().rotate().await.unwrap(), Proven { must_change: false });
    assert!(running.machine().knows(USER, NEW) && !running.machine().knows(USER, PASSWORD));
    assert_eq!(running.machine().sessions.len(), 0);
    assert_eq!(running.machine().strikes[USER], 0);
}

#[tokio::test]
async fn quirk_42_a_password_is_given_only_once_it_is_noted_that_the_bmc_may_have_it() {
    let running = Running::good().await;
    let site = Site::of(&running, &Guards::default());
    let cut = || RotationError::Unsettled { reason: "the power was cut" };
    let noted = async {
        assert_eq!(running.machine().sessions.len(), 1, "the old pair has logged in");
        Err::<(), _>(cut())
    };
    assert_eq!(site.rotation().rotate_noting(noted).await.unwrap_err().to_string(), cut().to_string());
    assert!(running.machine().knows(USER, PASSWORD) && !running.machine().knows(USER, NEW));
    assert_eq!(running.machine().sessions.len(), 0);
}

#[tokio::test]
async fn quirk_42_who_still_has_the_old_password_does_not_bother_the_bmc_with_it() {
    let running = Running::good().await;
    let guards = Guards::default();
    let site = Site::of(&running, &guards);
    let poller = Options { guard: Some(Arc::clone(&site.guard)), ..as_user(USER, PASSWORD) };
    let (client, _) = running.connect_with(poller.clone()).await;
    site.rotation().rotate().await.unwrap();
    running.machine().sessions.clear();
    assert_eq!(client.get(SYSTEM).await.unwrap_err().code(), "bmc.credentials-superseded");
    assert_eq!(running.bmc.connect_with(poller).await.unwrap_err().code(), "bmc.credentials-superseded");
    assert_eq!(running.machine().strikes[USER], 0);
}

#[tokio::test]
async fn quirk_42_others_are_kept_out_while_the_password_is_changed() {
    let running = Running::good().await;
    let guards = Guards::default();
    let site = Site::of(&running, &guards);
    let poller = Options {
        guard: Some(Arc::clone(&site.guard)),
        fence_wait: Duration::from_millis(1),
        ..as_user(USER, PASSWORD)
    };
    let (client, _) = running.connect_with(poller).await;
    let fence = site.guard.fence(Duration::from_secs(1)).await.unwrap();
    assert_eq!(client.get(MANAGER).await.unwrap_err().code(), "bmc.fenced");
    let before = running.bmc.log().len();
    drop(fence);
    assert!(client.get(MANAGER).await.is_ok());
    assert_eq!(running.bmc.log().len(), before + 1);
}

#[tokio::test]
async fn another_user_name_gets_an_account_of_its_own() {
    let running = Running::good().await;
    let guards = Guards::default();
    let mut site = Site::of(&running, &guards);
    site.new = Credentials::new("bailiwick", NEW);
    site.rotation().rotate().await.unwrap();
    assert!(running.machine().knows("bailiwick", NEW) && running.machine().knows(USER, PASSWORD));
}

#[tokio::test]
async fn a_password_that_takes_effect_late_is_waited_for() {
    let (mut pending, mut logins) = (None, 0);
    let running = Running::start(move |machine, seen| {
        if seen.is("PATCH", &account()) {
            pending = Some(());
            return Some(Reply::new(204, &[], ""));
        }
        if seen.target.ends_with("/Sessions") && pending.is_some() {
            logins += 1;
            // New, old, new: the third login is the first with the new password that works.
            if logins == 3 {
                machine.passwords.insert(account(), NEW.to_owned());
            }
        }
        None
    })
    .await;
    rotate(&running).await.unwrap();
    assert!(running.machine().knows(USER, NEW));
}

#[tokio::test]
async fn quirk_38_a_password_that_is_taken_and_never_in_force_is_an_error_and_the_old_one_works() {
    let running =
        Running::start(|_, seen| (seen.method == "PATCH").then(|| Reply::new(200, &[], "{}"))).await;
    let guards = Guards::default();
    let site = Site::of(&running, &guards);
    let soon = Patience { effect: Duration::from_millis(50), ..patience() };
    let rotation = Rotation { patience: soon, ..site.rotation() };
    assert_eq!(rotation.rotate().await.unwrap_err().code(), "bmc.rotation-no-effect");
    assert_eq!(site.rotation().settle().await.unwrap(), Which::Old);
    assert!(running.machine().strikes[USER] < 3);
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_settled_by_the_proof() {
    let running = Running::start(|machine, seen| {
        seen.is("PATCH", &account()).then(|| {
            machine.answer(seen);
            Reply::Cut(Vec::new())
        })
    })
    .await;
    rotate(&running).await.unwrap();
    assert_eq!(running.bmc.count("PATCH", &account()), 1);
}

#[tokio::test]
async fn quirk_42_a_bmc_reset_to_its_factory_password_is_found() {
    let running = Running::good().await;
    let guards = Guards::default();
    let site = Site::of(&running, &guards);
    site.rotation().rotate().await.unwrap();
    running.machine().passwords.insert(account(), PASSWORD.to_owned());
    assert_eq!(site.rotation().settle().await.unwrap(), Which::Old);
    assert_eq!(site.rotation().rotate().await.unwrap(), Proven { must_change: false });
    assert_eq!(site.rotation().settle().await.unwrap(), Which::New);
}

#[tokio::test]
async fn a_password_changed_by_somebody_else_is_neither_and_locks_nothing() {
    let running = Running::good().await;
    running.machine().passwords.insert(account(), "somebody's".to_owned());
    let guards = Guards::default();
    let site = Site::of(&running, &guards);
    assert_eq!(site.rotation().settle().await.unwrap(), Which::Neither);
    for _ in 0..3 {
        assert_eq!(site.rotation().settle().await.unwrap_err().code(), "bmc.login-withheld");
    }
    assert_eq!(running.machine().strikes[USER], 2);
}

#[tokio::test]
async fn settling_begins_with_the_old_password_where_the_new_one_was_refused_lately() {
    let running = Running::good().await;
    let guards = Guards::default();
    let site = Site::of(&running, &guards);
    site.guard.budget(USER).attempt(NEW).await.unwrap().refused().await;
    assert_eq!(site.rotation().settle().await.unwrap(), Which::Old);
    assert_eq!(running.bmc.logins(), 1);
}

/// A machine whose `cut`th request from the start tells the test to pull the plug: before the BMC acts, or after.
async fn cut_at(cut: usize, acts: bool) -> (Running, Arc<tokio::sync::Notify>) {
    let plug = Arc::new(tokio::sync::Notify::new());
    let (pull, mut count) = (Arc::clone(&plug), 0);
    let running = Running::start(move |machine: &mut Machine, seen: &Seen| {
        count += 1;
        if count != cut {
            return None;
        }
        if acts {
            let _ = machine.answer(seen);
        }
        pull.notify_one();
        Some(Reply::Silence)
    })
    .await;
    (running, plug)
}

/// What a cell keeps: the pairs, whether the new one is proven, and the failures recorded.
#[derive(Clone, Default)]
struct Kept {
    proven: bool,
    failed: Arc<Mutex<Option<FailedLogins>>>,
}

/// A process as it starts: new guards, with what was recorded.
fn start(running: &Running, kept: &Kept) -> Site {
    let site = Site::of(running, &Guards::default());
    let budget = site.guard.budget(USER);
    budget.import(*kept.failed.lock().unwrap());
    let failed = Arc::clone(&kept.failed);
    budget.record_with(Box::new(move |now| {
        *failed.lock().unwrap() = now;
        Box::pin(async { Ok(()) })
    }));
    site
}

/// The time passes that ends a row of failures, here and at the BMC.
fn wait_a_window(running: &Running, kept: &Kept) {
    let window = jiff::SignedDuration::from_mins(16);
    let earlier = |failed: FailedLogins| FailedLogins {
        first: failed.first - window,
        last: failed.last - window,
        ..failed
    };
    let mut failed = kept.failed.lock().unwrap();
    *failed = failed.map(earlier);
    running.machine().strikes.insert(USER.to_owned(), 0);
}

#[tokio::test]
async fn quirk_42_after_a_crash_at_any_request_one_known_pair_works_and_no_account_is_locked() {
    let mut cuts = 0;
    for cut in 1.. {
        let mut finished = 0;
        for acts in [false, true] {
            let (running, plug) = cut_at(cut, acts).await;
            let mut kept = Kept::default();
            let site = start(&running, &kept);
            let rotation = site.rotation();
            // Dropped like a process that is killed: nothing of it goes on.
            let done = tokio::select! {
                outcome = rotation.rotate() => { outcome.unwrap(); true }
                () = plug.notified() => false,
            };
            if done {
                finished += 1;
                kept.proven = true;
            } else {
                cuts += 1;
            }
            drop(site);
            let mut rounds = 0;
            while !kept.proven {
                rounds += 1;
                assert!(rounds < 5, "cut {cut} acts {acts}");
                let site = start(&running, &kept);
                match site.rotation().settle().await {
                    Ok(Which::New) => kept.proven = true,
                    Ok(Which::Old) => kept.proven = site.rotation().rotate().await.is_ok(),
                    Ok(Which::Neither) => panic!("neither works: cut {cut} acts {acts}"),
                    Err(error) => {
                        assert_eq!(error.code(), "bmc.login-withheld");
                        wait_a_window(&running, &kept);
                    }
                }
                assert!(running.machine().strikes[USER] <= 2, "cut {cut} acts {acts}");
            }
            assert!(running.machine().knows(USER, NEW) && !running.machine().knows(USER, PASSWORD));
            assert!(running.machine().strikes[USER] <= 2);
            // The plug was pulled already, so that nothing cuts this login.
            if !done {
                let login = running.bmc.connect_with(as_user(USER, NEW)).await;
                assert!(login.is_ok(), "locked: cut {cut} acts {acts}");
            }
        }
        if finished == 2 {
            break;
        }
    }
    assert!(cuts >= 10, "only {cuts} cuts");
}

#[tokio::test]
async fn quirk_42_crashing_again_and_again_never_locks_the_account() {
    // The worst case: each process dies right after a login with a wrong password was sent.
    let running = Running::good().await;
    running.machine().passwords.insert(account(), "somebody's".to_owned());
    let kept = Kept::default();
    for _ in 0..10 {
        let site = start(&running, &kept);
        let _ = site.rotation().settle().await;
    }
    assert_eq!(running.machine().strikes[USER], 2);
}
