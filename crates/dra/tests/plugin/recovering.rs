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

#[tokio::test]
async fn claims_that_went_while_nobody_was_there_are_collected() {
    let host = Host::new();
    for (claim, device) in [("stays", "gpu-0"), ("deleted", "gpu-1"), ("anew", "gpu-2"), ("moved", "gpu-3")] {
        host.allocate(claim, &[device]);
        host.prepare(claim).await.unwrap();
    }
    let host = host.restarted();
    host.delete("deleted");
    host.world.claims.lock().unwrap().get_mut("anew").unwrap()["metadata"]["uid"] = "uid-other".into();
    host.allocate("moved", &["gpu-4"]);
    assert_eq!(code(host.prepare("moved").await), "plugin.claim.reallocated");

    *host.world.unreachable.lock().unwrap() = Some("connection refused".to_owned());
    host.preparer.collect().await.unwrap();
    assert_eq!(host.held().await.len(), 4, "nobody knows what has gone");
    *host.world.unreachable.lock().unwrap() = None;
    host.preparer.collect().await.unwrap();
    assert_eq!(host.held().await, ["stays"]);
    assert_eq!(*host.world.scrubbed.lock().unwrap(), ["gpu-2", "gpu-1", "gpu-3"]);
    host.prepare("moved").await.unwrap();
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
