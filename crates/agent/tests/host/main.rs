//! `bailiwick-agent run` on a host whose driver is stood in for, with a kubelet and an API server that the test plays: what becomes of
//! several agents, and of a driver that hangs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation is a failed test, in helpers too"
)]

mod api_server;
mod stage;

use std::os::unix::net::UnixStream;

use stage::{Stage, gpu, until};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_during_an_update_either_gives_back_and_resets_what_the_other_prepared() {
    let mut stage = Stage::start().await;
    stage.api.allocate("claim", "gpu-0");
    for instance in ["old", "new"] {
        stage.start_agent(instance);
        stage.until_registered(instance).await;
    }
    assert_eq!(stage.prepare("old", "claim").await, Ok(vec!["gpu-0".to_owned()]));
    assert_eq!(stage.specifications(), 1);
    assert_eq!(stage.unprepare("new", "claim").await, Ok(()));
    assert_eq!(stage.reset(), [gpu(0)]);
    assert_eq!(stage.specifications(), 0);
    // Both have the driver again, and what the one has given back the other may prepare.
    assert_eq!(stage.prepare("old", "claim").await, Ok(vec!["gpu-0".to_owned()]));
    stage.end_agent("new").await;
    assert_eq!(stage.unprepare("old", "claim").await, Ok(()));
    assert_eq!(stage.reset(), [gpu(0), gpu(0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_driver_hangs_nothing_is_handed_out_and_the_agent_ends_when_it_is_told_to() {
    let mut stage = Stage::start().await;
    stage.api.allocate("used", "gpu-0");
    stage.api.allocate("next", "gpu-1");
    stage.start_agent("gpu");
    stage.until_registered("gpu").await;
    stage.prepare("gpu", "used").await.unwrap();

    stage.hang(true);
    until("the registration is closed", || !stage.registration("gpu").exists()).await;
    let refused = stage.prepare("gpu", "next").await.unwrap_err();
    assert!(refused.starts_with("plugin.device.probe-stale: "), "{refused}");
    // It hangs in a scrub too when it is told to end.
    let unprepare = stage.unprepare("gpu", "used");
    let giving_back = tokio::time::timeout(std::time::Duration::from_secs(1), unprepare).await;
    assert!(giving_back.is_err(), "{giving_back:?}");
    stage.end_agent("gpu").await;
    assert!(stage.reset().is_empty());

    // Started anew while the driver hangs, it serves all the same, and works once the driver does.
    stage.start_agent("gpu");
    // Its file is there a moment before it is listened on.
    until("the plugin serves", || UnixStream::connect(stage.socket("gpu")).is_ok()).await;
    let refused = stage.prepare("gpu", "next").await.unwrap_err();
    assert!(refused.starts_with("plugin.device.probe-stale: "), "{refused}");
    assert!(!stage.registration("gpu").exists());
    stage.hang(false);
    stage.until_registered("gpu").await;
    stage.prepare("gpu", "next").await.unwrap();
    for claim in ["used", "next"] {
        assert_eq!(stage.unprepare("gpu", claim).await, Ok(()), "{claim}");
    }
    assert_eq!(stage.reset(), [gpu(0), gpu(1)]);
}
