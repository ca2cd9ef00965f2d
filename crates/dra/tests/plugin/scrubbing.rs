//! Between two claims a device is scrubbed, or nobody gets it.

use crate::node::{Host, code, unprepare, until};
use bailiwick_dra::plugin::HeldState;
use domain::agent::{ScrubMethod, ScrubRecord};
use std::sync::atomic::Ordering;

#[tokio::test]
async fn a_device_whose_scrub_fails_stays_reserved_and_says_why() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    host.allocate("b", &["gpu-0"]);
    host.prepare("a").await.unwrap();
    *host.world.stuck.lock().unwrap() = Some("process 4711 still uses it".to_owned());
    let refused = host.unprepare("a").await.unwrap_err();
    assert_eq!(
        refused.told(),
        "plugin.scrub.failed: scrubbing failed, the devices stay reserved: gpu-0: process 4711 still uses it"
    );
    // Also after a restart, and for the same claim.
    let host = host.restarted();
    for claim in ["a", "b"] {
        let refused = host.prepare(claim).await.unwrap_err();
        assert_eq!(refused.code(), "plugin.device.unscrubbed");
        assert!(refused.to_string().contains("process 4711"), "{refused}");
    }
    *host.world.stuck.lock().unwrap() = None;
    host.preparer.collect().await.unwrap();
    host.prepare("b").await.unwrap();
}

#[tokio::test]
async fn each_scrub_leaves_a_record_and_without_one_the_device_stays_reserved() {
    let host = Host::new();
    host.allocate("a", &["gpu-0", "gpu-1"]);
    host.prepare("a").await.unwrap();
    *host.world.stuck.lock().unwrap() = Some("busy".to_owned());
    for _ in 0..2 {
        host.unprepare("a").await.unwrap_err();
    }
    *host.world.stuck.lock().unwrap() = None;
    let obstacle = host.files.path().join("state/.scrubs.json.tmp");
    std::os::unix::fs::symlink("/dev/full", obstacle).unwrap();
    assert_eq!(code(host.unprepare("a").await), "plugin.scrub.records");
    assert_eq!(host.held().await, ["a"]);
    host.unprepare("a").await.unwrap();
    let records = host.restarted().preparer.scrubs().await.unwrap();
    let told = |record: &ScrubRecord| (record.device.clone(), record.failure.clone());
    let told: Vec<_> = records.iter().map(told).collect();
    let [first, second] = ["gpu-0", "gpu-1"].map(str::to_owned);
    assert_eq!(told, [(first.clone(), Some("busy".to_owned())), (first, None), (second, None)]);
    let record = &records[1];
    assert_eq!((record.gpu.as_str(), record.claim.as_ref().unwrap().uid.as_str()), ("GPU-0", "uid-a"));
    assert_eq!((record.method, record.ecc_before, record.ecc_after), (ScrubMethod::Reset, Some(1), Some(0)));
}

#[tokio::test]
async fn a_scrub_that_takes_long_goes_on_when_nobody_waits_and_runs_once() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    host.prepare("a").await.unwrap();
    let (hold, hurried) = (host.world.hold.lock().await, host.hurried());
    assert_eq!(code(unprepare(&hurried, "a").await), "plugin.scrub.under-way");
    assert_eq!(code(unprepare(&hurried, "a").await), "plugin.scrub.under-way");
    let held = host.preparer.held().await.unwrap();
    assert_eq!(held[0].1.state, HeldState::Scrubbing { failure: None });
    assert!(host.cdi("a").exists(), "its specification is the last trace if the checkpoint is lost");
    drop(hold);
    until(|| !host.cdi("a").exists()).await;
    while host.unprepare("a").await.is_err() {}
    host.unprepare("a").await.unwrap();
    assert_eq!(*host.world.scrubbed.lock().unwrap(), ["gpu-0"]);
    assert!(!host.cdi("a").exists());
}

#[tokio::test]
async fn a_claim_that_is_prepared_anew_while_another_is_collected_keeps_its_device() {
    let host = Host::new();
    for (claim, device) in [("a", "gpu-0"), ("b", "gpu-1")] {
        host.allocate(claim, &[device]);
        host.prepare(claim).await.unwrap();
    }
    *host.world.stuck.lock().unwrap() = Some("for now".to_owned());
    host.unprepare("a").await.unwrap_err();
    host.unprepare("b").await.unwrap_err();
    *host.world.stuck.lock().unwrap() = None;
    // Collecting has seen both, and waits at the first; the kubelet gives the second back and has it prepared for the next pod.
    let hold = host.world.hold.lock().await;
    let collecting = tokio::spawn({
        let preparer = host.preparer.clone();
        async move { preparer.collect().await }
    });
    until(|| host.world.asked.load(Ordering::Relaxed) == 3).await;
    host.unprepare("b").await.unwrap();
    host.prepare("b").await.unwrap();
    drop(hold);
    collecting.await.unwrap().unwrap();
    assert!(host.held().await.contains(&"b".to_owned()) && host.cdi("b").exists());
    let scrubs = host.world.scrubbed.lock().unwrap().iter().filter(|device| *device == "gpu-1").count();
    assert_eq!(scrubs, 1);
}

#[tokio::test]
async fn a_scrub_that_a_crash_cut_off_is_done_again() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    host.prepare("a").await.unwrap();
    *host.world.stuck.lock().unwrap() = Some("cut off".to_owned());
    host.unprepare("a").await.unwrap_err();
    // The checkpoint is lost too: the specification says that the claim holds it.
    std::fs::remove_file(host.checkpoint()).unwrap();
    *host.world.stuck.lock().unwrap() = None;
    let host = host.restarted();
    host.unprepare("a").await.unwrap();
    assert_eq!(*host.world.scrubbed.lock().unwrap(), ["gpu-0"]);
    assert!(host.held().await.is_empty() && !host.cdi("a").exists());
}
