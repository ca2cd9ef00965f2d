//! The pace of a BMC, over all that talk to it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redfish::guard::{Kind, Pace};
use redfish::{Guards, Options, Reader as _};
use serde_json::json;

use crate::machine::{RESET, Running, SYSTEM};
use crate::server::options;

#[tokio::test]
async fn quirk_39_commands_of_all_clients_keep_their_distance() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let seen_at = Arc::clone(&times);
    let running = Running::start(move |_, seen| {
        if seen.is("POST", RESET) {
            seen_at.lock().unwrap().push(Instant::now());
        }
        None
    })
    .await;
    let gap = Duration::from_millis(40);
    let guard = Guards::default().of(&running.bmc.url()).unwrap();
    let paced = || Options {
        guard: Some(Arc::clone(&guard)),
        pace: Some(Pace { at_once: 4, command_gap: gap }),
        ..options()
    };
    let ((first, _), (second, _)) =
        (running.connect_with(paced()).await, running.connect_with(paced()).await);
    let on = json!({"ResetType": "On"});
    let (a, b, c) = tokio::join!(first.post(RESET, &on), second.post(RESET, &on), first.post(RESET, &on));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    // IPMI takes its turn the same way.
    let command = guard.turn(Kind::Command, None, Duration::from_secs(10)).await.unwrap();
    times.lock().unwrap().push(Instant::now());
    drop(command);
    let times = times.lock().unwrap().clone();
    assert_eq!(times.len(), 4);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= gap), "{times:?}");
}

#[tokio::test]
async fn quirk_39_requests_of_all_clients_together_are_few_at_once() {
    let running = Running::good().await;
    let guard = Guards::default().of(&running.bmc.url()).unwrap();
    let pace = Pace { at_once: 1, command_gap: Duration::ZERO };
    let paced = || Options { guard: Some(Arc::clone(&guard)), pace: Some(pace), ..options() };
    let ((first, _), (second, _)) =
        (running.connect_with(paced()).await, running.connect_with(paced()).await);
    let reads = (0..10).map(|n| if n % 2 == 0 { first.get(SYSTEM) } else { second.get(SYSTEM) });
    assert!(futures_util::future::join_all(reads).await.iter().all(Result::is_ok));
    assert_eq!(running.bmc.busiest(), 1);
}

#[tokio::test]
async fn quirk_39_the_pace_of_a_vendor_comes_from_the_table() {
    let running = Running::good().await;
    running.machine().set("/redfish/v1", &json!({"Vendor": "Dell"}));
    let guard = Guards::default().of(&running.bmc.url()).unwrap();
    let (client, host) = running.connect_with(Options { guard: Some(Arc::clone(&guard)), ..options() }).await;
    assert_eq!(guard.pace(), host.profile.pace);
    assert!(guard.pace().command_gap >= Duration::from_secs(1));
    client.close().await;
}
