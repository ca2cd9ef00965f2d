//! Restarting the BMC.

use std::time::Duration;

use redfish::manager::{self, Patience, ResetError};
use serde_json::json;

use crate::machine::{MANAGER, MANAGER_RESET, Running, SESSIONS};
use crate::server::Reply;

fn patience() -> Patience {
    let ms = Duration::from_millis;
    Patience { every: ms(1), effect: ms(20_000), back: ms(20_000), good: 3 }
}

async fn reset(running: &Running, patience: Patience) -> Result<(), ResetError> {
    let (client, host) = running.connect().await;
    manager::reset(&client, &host, patience).await.map(|_| ())
}

#[tokio::test]
async fn quirk_34_a_bmc_is_back_after_three_good_answers_in_a_row() {
    let (mut down, mut looks) = (None, 0);
    let running = Running::start(move |machine, seen| {
        if seen.is("POST", MANAGER_RESET) {
            down = Some(5);
            return None;
        }
        let left = down?;
        if left > 0 {
            down = Some(left - 1);
            return Some(Reply::Cut(Vec::new()));
        }
        if !seen.is("GET", MANAGER) {
            return None;
        }
        looks += 1;
        // Once good, then not yet: the row begins anew.
        let reply = (looks == 2).then(|| Reply::html(500));
        machine.set(MANAGER, &json!({"looks": looks}));
        reply
    })
    .await;
    reset(&running, patience()).await.unwrap();
    let looks = running.machine().tree[MANAGER]["looks"].as_i64().unwrap();
    // One good, one bad, three good.
    assert!(looks >= 5, "{looks}");
    assert!(running.bmc.count("POST", SESSIONS) <= 2);
}

#[tokio::test]
async fn a_bmc_that_restarts_between_two_looks_is_noticed_by_what_it_forgot() {
    let running = Running::good().await;
    reset(&running, patience()).await.unwrap();
    assert_eq!(running.sent("POST", MANAGER_RESET), [json!({"ResetType": "GracefulRestart"})]);
}

#[tokio::test]
async fn quirk_38_a_restart_that_is_ignored_is_an_error() {
    let running =
        Running::start(|_, seen| seen.is("POST", MANAGER_RESET).then(|| Reply::new(200, &[], "{}"))).await;
    let soon = Patience { effect: Duration::from_millis(100), ..patience() };
    assert_eq!(reset(&running, soon).await.unwrap_err().code(), "bmc.reset-no-effect");
}

#[tokio::test]
async fn a_bmc_that_does_not_come_back_is_an_error() {
    let mut down = false;
    let running = Running::start(move |_, seen| {
        down |= seen.is("POST", MANAGER_RESET);
        down.then(|| Reply::Cut(Vec::new()))
    })
    .await;
    let soon = Duration::from_millis(200);
    let hurried = Patience { effect: soon, back: soon, ..patience() };
    assert_eq!(reset(&running, hurried).await.unwrap_err().code(), "bmc.reset-not-back");
}

#[tokio::test]
async fn quirk_03_a_bmc_that_starts_and_refuses_the_right_password_is_not_asked_until_it_locks_the_account() {
    let mut refusing = 0;
    let running = Running::start(move |machine, seen| {
        if seen.is("POST", MANAGER_RESET) {
            refusing = 1;
        }
        if refusing > 0 && seen.is("POST", SESSIONS) {
            refusing -= 1;
            *machine.strikes.entry("root".to_owned()).or_default() += 1;
            return Some(Reply::message(401, "Base.1.8.ResourceAtUriUnauthorized"));
        }
        None
    })
    .await;
    reset(&running, patience()).await.unwrap();
    assert_eq!(running.machine().strikes["root"], 0);
}
