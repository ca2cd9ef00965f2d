//! The BMC's clock.

use std::time::Duration;

use jiff::SignedDuration;
use redfish::clock::{self, ClockError, Patience, Report};
use serde_json::json;

use crate::machine::{MANAGER, Running};
use crate::server::Reply;

const TOLERANCE: Duration = Duration::from_secs(5);

fn patience() -> Patience {
    Patience { effect: Duration::from_secs(1), every: Duration::from_millis(10) }
}

async fn set(running: &Running) -> Result<Report, ClockError> {
    let (client, host) = running.connect().await;
    clock::set(&client, &host, TOLERANCE, patience()).await
}

fn is_slow(running: &Running, seconds: i64) {
    running.machine().skew = SignedDuration::from_secs(-seconds);
}

#[tokio::test]
async fn quirk_41_the_skew_is_measured_within_its_uncertainty() {
    let running = Running::good().await;
    let (client, host) = running.connect().await;
    for seconds in [-3_600, 0, 90] {
        is_slow(&running, -seconds);
        let reading = clock::read(&client, &host).await.unwrap();
        let error = (reading.skew - SignedDuration::from_secs(seconds)).unsigned_abs();
        assert!(error <= reading.uncertainty, "{reading:?}");
        assert!(reading.uncertainty < Duration::from_secs(5), "{reading:?}");
        assert_eq!(reading.ntp, Some(false));
    }
}

#[tokio::test]
async fn quirk_41_a_wrong_clock_is_set_and_read_again() {
    let running = Running::good().await;
    is_slow(&running, 3_600);
    let Report::Set { before, after } = set(&running).await.unwrap() else { panic!("not set") };
    assert!(before.is_off(TOLERANCE) && !after.is_off(TOLERANCE), "{before:?} {after:?}");
    assert_eq!(running.sent("PATCH", MANAGER).len(), 1);
}

#[tokio::test]
async fn quirk_41_a_clock_that_is_right_is_left_alone() {
    let running = Running::good().await;
    assert!(matches!(set(&running).await.unwrap(), Report::Right(_)));
    assert!(running.sent("PATCH", MANAGER).is_empty());
}

#[tokio::test]
async fn quirk_41_a_wrong_clock_that_follows_ntp_is_told_and_not_set() {
    let running = Running::good().await;
    is_slow(&running, 3_600);
    running
        .machine()
        .set("/redfish/v1/Managers/Bmc/NetworkProtocol", &json!({"NTP": {"ProtocolEnabled": true}}));
    assert_eq!(set(&running).await.unwrap_err().code(), "bmc.clock-ntp");
    assert!(running.sent("PATCH", MANAGER).is_empty());
}

#[tokio::test]
async fn a_clock_that_cannot_be_set_is_told() {
    for reply in [(400, "Base.1.8.PropertyNotWritable"), (405, "Base.1.8.OperationNotAllowed")] {
        let running = Running::start(move |_, seen| {
            seen.is("PATCH", MANAGER).then(|| Reply::message(reply.0, reply.1))
        })
        .await;
        is_slow(&running, 3_600);
        assert_eq!(set(&running).await.unwrap_err().code(), "bmc.clock-read-only");
    }
}

#[tokio::test]
async fn quirk_38_a_clock_that_stays_wrong_after_a_success_is_told() {
    let running = Running::start(|_, seen| seen.is("PATCH", MANAGER).then(|| Reply::new(204, &[], ""))).await;
    is_slow(&running, 3_600);
    assert_eq!(set(&running).await.unwrap_err().code(), "bmc.clock-no-effect");
}

#[tokio::test]
async fn a_bmc_that_does_not_tell_the_time_is_told_apart() {
    let running = Running::good().await;
    running.machine().set(MANAGER, &json!({"DateTime": "0000-00-00T00:00:00Z"}));
    assert_eq!(set(&running).await.unwrap_err().code(), "bmc.clock-unknown");
}
