//! What was written survives; what cannot be written is not handed out.

use crate::node::{Host, code};

#[tokio::test]
async fn a_corrupted_checkpoint_is_set_aside_and_made_anew() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    host.allocate("b", &["gpu-0"]);
    host.prepare("a").await.unwrap();
    let whole = std::fs::read_to_string(host.checkpoint()).unwrap();
    std::fs::write(host.checkpoint(), whole.replace("gpu-0", "gpu-1")).unwrap();
    let host = host.restarted();
    host.preparer.restore().await.unwrap();
    assert_eq!(code(host.prepare("b").await), "plugin.device.held");
    let aside = std::fs::read_dir(host.files.path().join("state")).unwrap();
    let aside = aside.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("checkpoint.corrupted-")
    });
    assert_eq!(aside.count(), 1);
    assert_eq!(std::fs::read_to_string(host.checkpoint()).unwrap(), whole);
}

#[tokio::test]
async fn a_checkpoint_and_a_specification_that_are_both_unreadable_stop_everything() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    host.allocate("b", &["gpu-1"]);
    host.prepare("a").await.unwrap();
    std::fs::write(host.checkpoint(), "{").unwrap();
    std::fs::write(host.cdi("a"), "{").unwrap();
    let refused = host.prepare("b").await.unwrap_err();
    assert_eq!(refused.code(), "plugin.checkpoint.failed");
    assert!(refused.to_string().contains("uid-a.json"), "{refused}");
    std::fs::remove_file(host.cdi("a")).unwrap();
    host.prepare("b").await.unwrap();
}

#[tokio::test]
async fn a_missing_cdi_directory_is_told_and_the_claim_works_once_it_is_there() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    std::fs::remove_dir(host.files.path().join("cdi")).unwrap();
    let refused = host.prepare("a").await.unwrap_err();
    assert_eq!(refused.code(), "plugin.cdi.failed");
    assert!(refused.to_string().contains("No such file"), "{refused}");
    std::fs::create_dir(host.files.path().join("cdi")).unwrap();
    host.prepare("a").await.unwrap();
    assert!(host.cdi("a").exists());
}

/// A host with a claim that stays, and some that lose their right to what they hold while no agent is there.
async fn deserted() -> Host {
    let host = Host::new();
    for (claim, device) in
        [("stays", "gpu-0"), ("deleted", "gpu-1"), ("anew", "gpu-2"), ("moved", "gpu-3"), ("more", "gpu-5")]
    {
        host.allocate(claim, &[device]);
        host.prepare(claim).await.unwrap();
    }
    host.delete("deleted");
    host.world.claims.lock().unwrap().get_mut("anew").unwrap()["metadata"]["uid"] = "uid-other".into();
    host.allocate("moved", &["gpu-4"]);
    host.allocate("more", &["gpu-5", "gpu-6"]);
    host
}

#[tokio::test]
async fn claims_that_went_stay_reserved_and_are_told_while_their_containers_may_live() {
    let host = deserted().await.restarted();
    for claim in ["moved", "more"] {
        assert_eq!(code(host.prepare(claim).await), "plugin.claim.reallocated");
    }
    *host.world.unreachable.lock().unwrap() = Some("connection refused".to_owned());
    host.preparer.collect().await.unwrap();
    assert!(host.preparer.orphans().is_empty(), "nobody knows what has gone");
    *host.world.unreachable.lock().unwrap() = None;

    host.preparer.collect().await.unwrap();
    let orphans = || host.preparer.orphans().into_iter().map(|orphan| orphan.name).collect::<Vec<_>>();
    assert_eq!(orphans(), ["anew", "deleted", "more", "moved"]);
    assert!(host.preparer.orphans()[1].reason.contains("does not exist"));
    assert_eq!(host.held().await.len(), 5);
    assert!(host.world.scrubbed.lock().unwrap().is_empty());
    host.allocate("next", &["gpu-1"]);
    assert_eq!(code(host.prepare("next").await), "plugin.device.held");

    // The kubelet has seen its containers end.
    host.unprepare("deleted").await.unwrap();
    assert_eq!(orphans(), ["anew", "more", "moved"]);
    host.prepare("next").await.unwrap();
    host.unprepare("more").await.unwrap();
    host.prepare("more").await.unwrap();
    host.preparer.collect().await.unwrap();
    assert_eq!(orphans(), ["anew", "moved"]);
}

#[tokio::test]
async fn claims_that_went_are_collected_once_no_container_of_them_can_live() {
    let host = deserted().await.rebooted();
    host.preparer.collect().await.unwrap();
    assert_eq!(host.held().await, ["stays"]);
    assert!(host.preparer.orphans().is_empty());
    assert_eq!(*host.world.scrubbed.lock().unwrap(), ["gpu-2", "gpu-1", "gpu-5", "gpu-3"]);
    for claim in ["moved", "more"] {
        host.prepare(claim).await.unwrap();
    }
}

#[tokio::test]
async fn a_boot_that_cannot_be_told_is_neither_the_same_nor_another() {
    let host = Host::new();
    for (claim, device) in [("gone", "gpu-0"), ("stays", "gpu-1")] {
        host.allocate(claim, &[device]);
        host.prepare(claim).await.unwrap();
    }
    host.delete("gone");
    std::fs::remove_file(host.cdi("stays")).unwrap();
    let host = host.restarted_without_boot_id();
    host.preparer.restore().await.unwrap();
    assert!(!host.cdi("stays").exists());
    host.preparer.collect().await.unwrap();
    assert_eq!(host.held().await, ["gone", "stays"]);
    // What was prepared then is of no known boot either.
    host.prepare("stays").await.unwrap();
    std::fs::remove_file(host.cdi("stays")).unwrap();
    let host = host.restarted_without_boot_id();
    host.preparer.restore().await.unwrap();
    host.delete("stays");
    host.preparer.collect().await.unwrap();
    assert!(!host.cdi("stays").exists());
    assert_eq!(host.preparer.orphans().len(), 2);
}

#[tokio::test]
async fn missing_specifications_are_written_again_in_the_same_boot() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    host.prepare("a").await.unwrap();
    let written = std::fs::read(host.cdi("a")).unwrap();
    std::fs::remove_file(host.cdi("a")).unwrap();
    let host = host.restarted();
    host.preparer.restore().await.unwrap();
    assert_eq!(std::fs::read(host.cdi("a")).unwrap(), written);
}

#[tokio::test]
async fn after_a_reboot_specifications_wait_for_the_kubelet_to_ask() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    host.prepare("a").await.unwrap();
    let host = host.rebooted();
    host.preparer.restore().await.unwrap();
    assert!(!host.cdi("a").exists());
    assert_eq!(host.held().await, ["a"]);
    host.prepare("a").await.unwrap();
    assert!(host.cdi("a").exists());
}

#[tokio::test]
async fn a_full_disk_is_told_and_the_claim_works_once_there_is_space() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    // What is written there, says the kernel, has no space left.
    let full = |name: &str| std::os::unix::fs::symlink("/dev/full", host.files.path().join(name)).unwrap();
    full("state/.checkpoint.json.tmp");
    let refused = host.prepare("a").await.unwrap_err();
    assert_eq!(refused.code(), "plugin.checkpoint.failed");
    assert!(refused.to_string().contains("No space left"), "{refused}");
    assert!(!host.checkpoint().exists() && !host.cdi("a").exists());
    full("cdi/.gpu.bailiwick.dev-claim_uid-a.json.tmp");
    let refused = host.prepare("a").await.unwrap_err();
    assert_eq!(refused.code(), "plugin.cdi.failed");
    assert!(refused.to_string().contains("No space left"), "{refused}");
    assert!(!host.cdi("a").exists());
    host.prepare("a").await.unwrap();
    assert!(host.cdi("a").exists());
}
