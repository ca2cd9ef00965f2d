//! What was written survives; what cannot be written is not handed out.

use crate::node::{Host, code, part};

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
    assert_eq!(host.held().await, ["a"]);
}

/// A host whose checkpoint is corrupted after the scrub of `gpu-0` failed; `gpu-1` is in use.
async fn corrupted_after_a_failed_scrub() -> Host {
    let host = Host::new();
    for (claim, device) in [("a", "gpu-0"), ("stays", "gpu-1"), ("rival", "gpu-0"), ("other", "gpu-2")] {
        host.allocate(claim, &[device]);
    }
    host.prepare("a").await.unwrap();
    host.prepare("stays").await.unwrap();
    *host.world.stuck.lock().unwrap() = Some("process 4711 still uses it".to_owned());
    host.unprepare("a").await.unwrap_err();
    std::fs::write(host.checkpoint(), "{").unwrap();
    host
}

#[tokio::test]
async fn a_device_whose_scrub_failed_stays_reserved_when_the_checkpoint_is_corrupted() {
    let host = corrupted_after_a_failed_scrub().await.restarted();
    host.preparer.restore().await.unwrap();
    for claim in ["a", "rival"] {
        assert_eq!(code(host.prepare(claim).await), "plugin.device.unscrubbed");
    }
    host.prepare("stays").await.unwrap();
    host.preparer.collect().await.unwrap();
    assert_eq!(code(host.prepare("other").await), "plugin.device.unaccounted");
    *host.world.stuck.lock().unwrap() = None;
    host.preparer.collect().await.unwrap();
    for claim in ["rival", "other"] {
        host.prepare(claim).await.unwrap();
    }
    assert_eq!(*host.world.scrubbed.lock().unwrap(), ["gpu-0"], "as what its claim had");
    let rests: Vec<_> = host.world.rests.lock().unwrap().iter().map(|(gpu, _)| gpu.clone()).collect();
    assert!(rests.contains(&"GPU-2".to_owned()) && !rests.contains(&"GPU-1".to_owned()), "{rests:?}");
}

#[tokio::test]
async fn a_corrupted_checkpoint_after_a_restart_of_the_host_has_every_gpu_scrubbed_before_anybody_gets_it() {
    let host = corrupted_after_a_failed_scrub().await.rebooted();
    for _ in 0..2 {
        for claim in ["a", "rival", "stays", "other"] {
            let refused = host.prepare(claim).await.unwrap_err();
            assert_eq!(refused.code(), "plugin.device.unaccounted", "{claim}");
        }
        host.preparer.collect().await.unwrap();
    }
    let reasons = host.preparer.unaccounted().await.unwrap();
    assert_eq!(reasons["GPU-0"], "process 4711 still uses it");
    *host.world.stuck.lock().unwrap() = None;
    host.preparer.collect().await.unwrap();
    assert!(host.preparer.unaccounted().await.unwrap().is_empty());
    for claim in ["rival", "stays", "other"] {
        host.prepare(claim).await.unwrap();
    }
    let records = host.preparer.scrubs().await.unwrap();
    let records = records.iter().filter(|record| record.gpu == "GPU-0").map(|record| record.failure.clone());
    assert_eq!(
        records.collect::<Vec<_>>(),
        [Some("process 4711 still uses it".to_owned()), Some("process 4711 still uses it".to_owned()), None]
    );
    // Once is enough.
    host.preparer.collect().await.unwrap();
    assert_eq!(host.world.rests.lock().unwrap().len(), 8);
}

#[tokio::test]
async fn a_corrupted_checkpoint_without_the_directory_of_specifications_gives_no_unscrubbed_device_out() {
    let host = corrupted_after_a_failed_scrub().await;
    std::fs::remove_dir_all(host.files.path().join("cdi")).unwrap();
    let host = host.restarted();
    assert_eq!(code(host.prepare("rival").await), "plugin.checkpoint.failed");
    // As whoever starts the agent makes it.
    std::fs::create_dir(host.files.path().join("cdi")).unwrap();
    assert_eq!(code(host.prepare("rival").await), "plugin.device.unaccounted");
    *host.world.stuck.lock().unwrap() = None;
    host.preparer.collect().await.unwrap();
    host.prepare("rival").await.unwrap();
}

#[tokio::test]
async fn parts_that_claims_are_known_to_hold_stay_when_the_rest_of_their_gpu_is_scrubbed() {
    let host = Host::new();
    for (claim, device) in [("a", "gpu-3-mig-0-2"), ("b", "gpu-3-mig-2-2")] {
        host.allocate(claim, &[device]);
        host.prepare(claim).await.unwrap();
    }
    std::fs::write(host.checkpoint(), "{").unwrap();
    std::fs::remove_file(host.cdi("b")).unwrap();
    let host = host.restarted();
    assert_eq!(code(host.prepare("b").await), "plugin.device.unaccounted");
    host.preparer.collect().await.unwrap();
    assert!(host.world.rests.lock().unwrap().contains(&("GPU-3".to_owned(), vec![part(0, 2)])));
    host.prepare("b").await.unwrap();
    assert_eq!(host.held().await, ["a", "b"]);
}

#[tokio::test]
async fn a_checkpoint_that_is_gone_is_one_that_was_lost() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    std::fs::remove_file(host.checkpoint()).unwrap();
    let host = host.restarted();
    assert_eq!(code(host.prepare("a").await), "plugin.device.unaccounted");
    host.preparer.collect().await.unwrap();
    host.prepare("a").await.unwrap();
}

#[tokio::test]
async fn a_directory_that_somebody_takes_away_makes_no_host_new_on_which_claims_hold_devices() {
    let host = Host::new();
    for (claim, device) in [("a", "gpu-0"), ("rival", "gpu-0"), ("other", "gpu-1")] {
        host.allocate(claim, &[device]);
    }
    host.prepare("a").await.unwrap();
    std::fs::remove_dir_all(host.checkpoint().parent().unwrap()).unwrap();
    let host = host.restarted();
    assert_eq!(host.held().await, ["a"]);
    assert_eq!(code(host.prepare("rival").await), "plugin.device.held");
    assert_eq!(code(host.prepare("other").await), "plugin.device.unaccounted");
    host.preparer.collect().await.unwrap();
    host.prepare("other").await.unwrap();
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
    host.preparer.collect().await.unwrap();
    host.prepare("b").await.unwrap();
}

#[tokio::test]
async fn a_corrupted_checkpoint_without_the_directory_of_specifications_stops_everything() {
    let host = Host::new();
    for (claim, device) in [("a", "gpu-0"), ("rival", "gpu-0"), ("b", "gpu-1")] {
        host.allocate(claim, &[device]);
    }
    host.prepare("a").await.unwrap();
    std::fs::write(host.checkpoint(), "{").unwrap();
    let (there, away) = (host.files.path().join("cdi"), host.files.path().join("away"));
    std::fs::rename(&there, &away).unwrap();
    for claim in ["b", "b", "rival"] {
        assert_eq!(code(host.prepare(claim).await), "plugin.checkpoint.failed");
    }
    assert_eq!(code(host.preparer.restore().await), "plugin.checkpoint.failed");
    std::fs::rename(&away, &there).unwrap();
    // With the API server away nothing is handed out either, whatever is known.
    *host.world.unreachable.lock().unwrap() = Some("connection refused".to_owned());
    assert_eq!(code(host.prepare("b").await), "plugin.claim.unread");
    *host.world.unreachable.lock().unwrap() = None;
    host.preparer.collect().await.unwrap();
    host.prepare("b").await.unwrap();
    assert_eq!(code(host.prepare("rival").await), "plugin.device.held");
}

#[tokio::test]
async fn a_directory_of_specifications_that_cannot_be_read_is_not_an_empty_one() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    let cdi = host.files.path().join("cdi");
    std::fs::remove_dir(&cdi).unwrap();
    std::fs::write(&cdi, "").unwrap();
    std::fs::remove_file(host.checkpoint()).unwrap();
    assert_eq!(code(host.prepare("a").await), "plugin.checkpoint.failed");
}

#[tokio::test]
async fn what_was_made_anew_stays_known_when_the_specifications_go_too() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    host.allocate("rival", &["gpu-0"]);
    host.prepare("a").await.unwrap();
    std::fs::write(host.checkpoint(), "{").unwrap();
    // Only looked at, not changed.
    assert_eq!(host.held().await, ["a"]);
    std::fs::remove_dir_all(host.files.path().join("cdi")).unwrap();
    assert_eq!(code(host.prepare("rival").await), "plugin.device.held");
}

#[tokio::test]
async fn a_specification_that_cannot_be_restored_does_not_keep_others_from_it() {
    let host = Host::new();
    for (claim, device) in [("a", "gpu-0"), ("b", "gpu-1")] {
        host.allocate(claim, &[device]);
        host.prepare(claim).await.unwrap();
        std::fs::remove_file(host.cdi(claim)).unwrap();
    }
    let full = host.files.path().join("cdi/.gpu.bailiwick.dev-claim_uid-a.json.tmp");
    std::os::unix::fs::symlink("/dev/full", full).unwrap();
    let host = host.restarted();
    assert_eq!(code(host.preparer.restore().await), "plugin.cdi.failed");
    assert!(!host.cdi("a").exists() && host.cdi("b").exists());
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
    assert!(host.held().await.is_empty() && !host.cdi("a").exists());
    full("cdi/.gpu.bailiwick.dev-claim_uid-a.json.tmp");
    let refused = host.prepare("a").await.unwrap_err();
    assert_eq!(refused.code(), "plugin.cdi.failed");
    assert!(refused.to_string().contains("No space left"), "{refused}");
    assert!(!host.cdi("a").exists());
    host.prepare("a").await.unwrap();
    assert!(host.cdi("a").exists());
}
