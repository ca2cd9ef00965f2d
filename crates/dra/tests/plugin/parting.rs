//! Parts of GPUs are made when they are prepared, and whoever ends in between leaves nothing that nobody knows of.

use crate::node::{Host, POOL, code, part, prepare, unprepare, until};
use bailiwick_dra::plugin::wire::Device;
use bailiwick_dra::plugin::{Held, HeldState, Partition, Refusal};
use domain::permit::PermitError;
use tokio::sync::MutexGuard;
use tokio::task::JoinHandle;

const LOW: &str = "gpu-0-mig-0-4";
const HIGH: &str = "gpu-0-mig-4-4";

/// A host with a claim for the lower half of a GPU.
fn host() -> Host {
    let host = Host::new();
    host.allocate("low", &[LOW]);
    host
}

async fn only(host: &Host) -> Held {
    let [(_, held)] = host.preparer.held().await.unwrap().try_into().unwrap();
    held
}

fn uuid(held: &Held) -> Option<&str> {
    held.devices[0].partition.as_ref().unwrap().uuid.as_deref()
}

/// Has a part made that never gets done, and ends the process: what it waits for goes with it, its locks too.
fn killed_while_making(host: &Host) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let preparer = host.preparer.clone();
    let making = host.world.making.try_lock().unwrap();
    runtime.spawn(async move { prepare(&preparer, "low").await });
    runtime.block_on(until(|| !host.world.parts.lock().unwrap().is_empty()));
    runtime.shutdown_timeout(std::time::Duration::from_mins(1));
    drop(making);
}

/// Has the part of claim `low` made; it is not done before the guard is dropped.
async fn being_made(host: &Host) -> (MutexGuard<'_, ()>, JoinHandle<Result<Vec<Device>, Refusal>>) {
    let making = host.world.making.lock().await;
    let preparer = host.preparer.clone();
    let preparing = tokio::spawn(async move { prepare(&preparer, "low").await });
    until(|| !host.world.parts.lock().unwrap().is_empty()).await;
    (making, preparing)
}

#[tokio::test]
async fn a_part_is_known_to_be_held_before_it_is_made_and_answered_after_that() {
    let host = host();
    let (making, preparing) = being_made(&host).await;
    let held = only(&host).await;
    assert_eq!(
        (held.state.clone(), uuid(&held), &held.devices[0].access),
        (HeldState::Preparing, None, &None)
    );
    assert!(held.devices[0].partition.as_ref().unwrap().begun);
    assert!(!host.cdi("low").exists());
    drop(making);
    let devices = preparing.await.unwrap().unwrap();
    assert_eq!((devices[0].pool_name.as_str(), devices[0].device_name.as_str()), (POOL, LOW));
    let held = only(&host).await;
    assert_eq!((held.state.clone(), uuid(&held)), (HeldState::Prepared, Some("MIG-0-0")));
    assert!(!held.devices[0].partition.as_ref().unwrap().begun);
    let written = std::fs::read_to_string(host.cdi("low")).unwrap();
    assert!(
        written.contains("BAILIWICK_GPU_0_MIG_0_4=MIG-0-0") && written.contains("/dev/nvidia0"),
        "{written}"
    );
}

#[test]
fn whoever_is_killed_while_making_it_leaves_a_claim_that_is_prepared_when_it_is_asked_for_again() {
    let host = host();
    killed_while_making(&host);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let host = host.restarted();
        host.preparer.restore().await.unwrap();
        host.preparer.collect().await.unwrap();
        assert_eq!(only(&host).await.state, HeldState::Preparing);
        assert!(!host.cdi("low").exists());
        host.prepare("low").await.unwrap();
        let held = only(&host).await;
        assert_eq!((held.state.clone(), uuid(&held)), (HeldState::Prepared, Some("MIG-0-0")));
    });
}

#[test]
fn whoever_is_killed_while_making_it_leaves_a_place_that_is_scrubbed_when_the_claim_goes() {
    let host = host();
    killed_while_making(&host);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let host = host.restarted();
        host.delete("low");
        host.preparer.collect().await.unwrap();
        assert!(host.held().await.is_empty());
        assert_eq!(*host.world.scrubbed.lock().unwrap(), [LOW]);
        assert_eq!(*host.world.destroyed.lock().unwrap(), [None]);
    });
}

#[tokio::test]
async fn what_somebody_else_made_at_the_place_of_a_part_is_neither_handed_out_nor_taken_away() {
    let host = host();
    let foreign = ("GPU-0".to_owned(), part(0, 4));
    host.world.instances.lock().unwrap().push(foreign.clone());
    let host = host.restarted();
    for _ in 0..2 {
        let refused = host.prepare("low").await.unwrap_err();
        assert_eq!(
            refused.told(),
            format!(
                "plugin.part.foreign: device {LOW}, a part of a GPU, is not handed out: MIG-0-0 at its place was not made here"
            )
        );
    }
    let held = only(&host).await;
    assert_eq!(
        (held.state.clone(), &held.devices[0].partition),
        (HeldState::Preparing, &Some(Partition::of(part(0, 4))))
    );
    assert!(!host.cdi("low").exists());
    host.unprepare("low").await.unwrap();
    assert!(host.held().await.is_empty());
    assert_eq!(*host.world.instances.lock().unwrap(), [foreign]);

    host.world.instances.lock().unwrap().clear();
    host.prepare("low").await.unwrap();
}

#[tokio::test]
async fn what_somebody_made_where_a_part_could_not_be_made_is_not_ours() {
    let host = host();
    *host.world.unmakable.lock().unwrap() = Some("no room".to_owned());
    assert_eq!(code(host.prepare("low").await), "plugin.part.failed");
    assert_eq!(only(&host).await.devices[0].partition, Some(Partition::of(part(0, 4))));
    *host.world.unmakable.lock().unwrap() = None;
    let foreign = ("GPU-0".to_owned(), part(0, 4));
    host.world.instances.lock().unwrap().push(foreign.clone());
    assert_eq!(code(host.prepare("low").await), "plugin.part.foreign");
    host.unprepare("low").await.unwrap();
    assert_eq!(*host.world.instances.lock().unwrap(), [foreign]);
}

#[tokio::test]
async fn what_stands_after_a_reboot_where_a_part_was_made_is_not_ours_though_it_bears_the_same_uuid() {
    for killed in [false, true] {
        let host = host();
        if killed {
            // Its part may have been made, and nobody knows.
            *host.world.unmakable_gpu.lock().unwrap() = Some("GPU-0".to_owned());
            assert_eq!(code(host.prepare("low").await), "plugin.part.failed");
        } else {
            host.prepare("low").await.unwrap();
        }
        let host = host.rebooted();
        let foreign = ("GPU-0".to_owned(), part(0, 4));
        host.world.instances.lock().unwrap().push(foreign.clone());
        host.delete("low");
        host.preparer.collect().await.unwrap();
        assert!(host.held().await.is_empty());
        assert_eq!(*host.world.scrubbed.lock().unwrap(), [LOW]);
        assert_eq!(*host.world.instances.lock().unwrap(), [foreign]);
    }
}

#[tokio::test]
async fn a_part_that_was_made_is_restored_and_answered_the_same_again() {
    let host = host();
    let first = host.prepare("low").await.unwrap();
    let written = std::fs::read(host.cdi("low")).unwrap();
    // Killed after the second checkpoint.
    std::fs::remove_file(host.cdi("low")).unwrap();
    let host = host.restarted();
    host.preparer.restore().await.unwrap();
    assert_eq!(std::fs::read(host.cdi("low")).unwrap(), written);
    let checkpoint = std::fs::read(host.checkpoint()).unwrap();
    assert_eq!(host.prepare("low").await.unwrap(), first);
    assert_eq!(std::fs::read(host.checkpoint()).unwrap(), checkpoint);
}

#[tokio::test]
async fn a_part_that_cannot_be_made_stays_held_and_says_why_until_it_can() {
    let host = host();
    host.allocate("rival", &["gpu-0-mig-0-1"]);
    *host.world.unmakable.lock().unwrap() = Some("no room".to_owned());
    let refused = host.prepare("low").await.unwrap_err();
    assert_eq!(
        refused.told(),
        format!("plugin.part.failed: device {LOW}, a part of a GPU, could not be made: no room")
    );
    assert_eq!(only(&host).await.state, HeldState::Preparing);
    assert!(!host.cdi("low").exists());
    assert_eq!(code(host.prepare("rival").await), "plugin.device.held");
    *host.world.unmakable.lock().unwrap() = None;
    host.prepare("low").await.unwrap();
    assert!(host.cdi("low").exists());

    host.unprepare("low").await.unwrap();
    assert_eq!(*host.world.destroyed.lock().unwrap(), [Some("MIG-0-0".to_owned())]);
    *host.world.unmakable.lock().unwrap() = Some("no room".to_owned());
    host.prepare("low").await.unwrap_err();
    host.unprepare("low").await.unwrap();
    assert_eq!(host.world.destroyed.lock().unwrap()[1], None);
    assert!(host.held().await.is_empty());
}

#[tokio::test]
async fn of_several_parts_those_that_were_made_are_known_though_another_could_not_be() {
    let host = Host::new();
    host.allocate("both", &["gpu-0-mig-0-1", "gpu-1-mig-0-1"]);
    *host.world.unmakable_gpu.lock().unwrap() = Some("GPU-1".to_owned());
    assert_eq!(code(host.prepare("both").await), "plugin.part.failed");
    let held = only(&host).await;
    let uuids: Vec<_> =
        held.devices.iter().map(|device| device.partition.as_ref().unwrap().uuid.as_deref()).collect();
    assert_eq!(uuids, [Some("MIG-0-0"), None]);
    assert_eq!(held.state, HeldState::Preparing);
}

#[tokio::test]
async fn whoever_makes_a_part_is_told_what_claims_hold_of_the_gpu_and_nothing_else() {
    let host = host();
    for (claim, device) in [("high", HIGH), ("other", "gpu-1-mig-0-4")] {
        host.allocate(claim, &[device]);
    }
    for claim in ["other", "low", "high"] {
        host.prepare(claim).await.unwrap();
    }
    let told = || {
        let (gpu, part, mut held) = host.world.parts.lock().unwrap().last().unwrap().clone();
        held.sort();
        (gpu, part, held)
    };
    assert_eq!(told(), ("GPU-0".to_owned(), part(4, 4), vec![part(0, 4), part(4, 4)]));
    // What waits for its scrub is still held.
    *host.world.stuck.lock().unwrap() = Some("busy".to_owned());
    host.unprepare("low").await.unwrap_err();
    host.prepare("high").await.unwrap();
    assert_eq!(told().2, [part(0, 4), part(4, 4)]);
    *host.world.stuck.lock().unwrap() = None;
    host.unprepare("low").await.unwrap();
    host.prepare("high").await.unwrap();
    assert_eq!(told().2, [part(4, 4)]);
}

#[tokio::test]
async fn parts_that_overlap_are_refused_also_within_one_claim() {
    let host = Host::new();
    host.allocate("overlapping", &["gpu-0-mig-0-4", "gpu-0-mig-2-4"]);
    host.allocate("both", &["gpu-0", "gpu-0-mig-4-4"]);
    for claim in ["overlapping", "both"] {
        assert_eq!(code(host.prepare(claim).await), "plugin.device.held");
    }
    assert!(host.held().await.is_empty() && host.world.parts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_claim_that_is_given_back_while_its_part_is_made_leaves_nothing() {
    let host = host();
    let (making, preparing) = being_made(&host).await;
    assert_eq!(code(unprepare(&host.hurried(), "low").await), "plugin.scrub.under-way");
    assert_eq!(
        host.world.asked.load(std::sync::atomic::Ordering::Relaxed),
        0,
        "it is scrubbed once it is made"
    );
    drop(making);
    preparing.await.unwrap().unwrap_err();
    while host.unprepare("low").await.is_err() {}
    assert_eq!(*host.world.destroyed.lock().unwrap(), [Some("MIG-0-0".to_owned())]);
    assert!(host.held().await.is_empty() && !host.cdi("low").exists());
}

#[tokio::test]
async fn a_permit_that_ends_while_a_part_is_made_is_no_permit() {
    let host = host();
    let (making, preparing) = being_made(&host).await;
    let none = PermitError::None { device: LOW.to_owned() };
    *host.world.refused.lock().unwrap() = Some(Refusal::NoPermit(none));
    drop(making);
    assert_eq!(code(preparing.await.unwrap()), "permit.none");
    assert!(!host.cdi("low").exists());
    assert_eq!(only(&host).await.state, HeldState::Preparing);
}

#[tokio::test]
async fn a_part_is_made_anew_after_a_reboot() {
    let host = host();
    host.prepare("low").await.unwrap();
    let host = host.rebooted();
    host.preparer.restore().await.unwrap();
    *host.world.unmakable.lock().unwrap() = Some("not yet".to_owned());
    host.prepare("low").await.unwrap_err();
    let held = only(&host).await;
    assert_eq!((held.state.clone(), uuid(&held)), (HeldState::Preparing, None));
    *host.world.unmakable.lock().unwrap() = None;
    host.prepare("low").await.unwrap();
    assert!(host.cdi("low").exists());
}

#[tokio::test]
async fn what_takes_longer_than_the_kubelet_waits_is_told_and_goes_on() {
    let host = host();
    let making = host.world.making.lock().await;
    assert_eq!(code(prepare(&host.hurried(), "low").await), "plugin.part.under-way");
    drop(making);
    until(|| host.cdi("low").exists()).await;
    assert_eq!(host.prepare("low").await.unwrap().len(), 1);
}
