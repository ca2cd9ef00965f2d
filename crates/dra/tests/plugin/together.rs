//! Several calls, or two plugins of one node, at once.

use crate::node::{Host, code, prepare, unprepare, until};
use bailiwick_dra::plugin::Refusal;
use domain::permit::PermitError;
use std::fs::File;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The checkpoint's lock, as another process has it.
fn lock(host: &Host) -> File {
    let path = host.files.path().join("state/checkpoint.lock");
    let file = File::options().create(true).truncate(false).write(true).open(path).unwrap();
    file.lock().unwrap();
    file
}

#[tokio::test]
async fn a_permit_that_ends_while_a_call_waits_for_others_is_no_permit() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    let locked = lock(&host);
    let preparing = tokio::spawn({
        let preparer = host.preparer.clone();
        async move { prepare(&preparer, "a").await }
    });
    until(|| host.world.read.load(Ordering::Relaxed) == 1).await;
    let none = PermitError::None { device: "gpu-0".to_owned() };
    *host.world.refused.lock().unwrap() = Some(Refusal::NoPermit(none));
    drop(locked);
    assert_eq!(code(preparing.await.unwrap()), "permit.none");
    assert!(host.held().await.is_empty());
}

#[tokio::test]
async fn a_lock_that_others_keep_is_not_waited_for_for_ever() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    let plugin = host.impatient(Duration::from_millis(20));
    let locked = lock(&host);
    assert_eq!(code(prepare(&plugin, "a").await), "plugin.checkpoint.busy");
    assert_eq!(code(unprepare(&plugin, "a").await), "plugin.checkpoint.busy");
    drop(locked);
    prepare(&plugin, "a").await.unwrap();
}

#[tokio::test]
async fn nothing_of_a_gpu_is_made_or_scrubbed_while_another_plugin_scrubs_some_of_it() {
    let host = Host::new();
    for (claim, device) in [("a", "gpu-0-mig-0-1"), ("b", "gpu-0-mig-1-1"), ("c", "gpu-0-mig-2-1")] {
        host.allocate(claim, &[device]);
    }
    let (other, hurried) = (host.another(), host.hurried());
    host.prepare("a").await.unwrap();
    prepare(&other, "b").await.unwrap();
    let hold = host.world.hold.lock().await;
    let scrubbing = tokio::spawn({
        let preparer = host.preparer.clone();
        async move { unprepare(&preparer, "a").await }
    });
    until(|| host.world.asked.load(Ordering::Relaxed) == 1).await;
    assert_eq!(code(unprepare(&hurried, "b").await), "plugin.scrub.under-way");
    assert_eq!(code(prepare(&hurried, "c").await), "plugin.part.under-way");
    assert_eq!(host.world.asked.load(Ordering::Relaxed), 1);
    assert_eq!(host.world.parts.lock().unwrap().len(), 2);
    drop(hold);
    scrubbing.await.unwrap().unwrap();
    prepare(&other, "c").await.unwrap();
    // The call that did not wait goes on.
    while unprepare(&other, "b").await.is_err() {}
    assert_eq!(host.held().await, ["c"]);
    assert_eq!(host.world.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn specifications_follow_what_is_held_however_calls_of_two_plugins_mix() {
    let host = Host::new();
    host.allocate("a", &["gpu-1"]);
    let plugins = [host.preparer.clone(), host.another()];
    for round in 0..30 {
        let mut calls = tokio::task::JoinSet::new();
        for call in 0..6 {
            let plugin = plugins[call % 2].clone();
            calls.spawn(async move {
                match (call + round) % 3 {
                    0 => unprepare(&plugin, "a").await.err(),
                    _ => prepare(&plugin, "a").await.err(),
                }
            });
        }
        for refused in calls.join_all().await.into_iter().flatten() {
            let expected = ["plugin.device.unscrubbed", "plugin.scrub.under-way"];
            assert!(expected.contains(&refused.code()), "{refused}");
        }
        assert_eq!(host.held().await.len(), usize::from(host.cdi("a").exists()));
        let names = std::fs::read_dir(host.files.path().join("cdi")).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| name.to_string_lossy().ends_with(".json")), "{names:?}");
    }
}
