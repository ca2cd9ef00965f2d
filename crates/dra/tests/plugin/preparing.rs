//! What is handed out, to whom, and what is refused.

use crate::node::{Host, asked, code, prepare};
use bailiwick_dra::plugin::Refusal;
use domain::permit::PermitError;
use serde_json::{Value, json};

#[tokio::test]
async fn a_specification_holds_the_devices_of_the_claim_and_nothing_else() {
    let host = Host::new();
    host.allocate("a", &["gpu-0", "gpu-1"]);
    let devices = host.prepare("a").await.unwrap();
    let ids: Vec<_> = devices.iter().flat_map(|device| device.cdi_device_ids.clone()).collect();
    assert_eq!(ids, ["gpu.bailiwick.dev/claim=uid-a-gpu-0", "gpu.bailiwick.dev/claim=uid-a-gpu-1"]);
    assert_eq!(devices[0].request_names, ["gpu"]);

    let mut written: Value = serde_json::from_slice(&std::fs::read(host.cdi("a")).unwrap()).unwrap();
    written.as_object_mut().unwrap().remove("annotations");
    let device = |number: usize| {
        json!({ "name": format!("uid-a-gpu-{number}"), "containerEdits": {
            "env": [format!("BAILIWICK_GPU_{number}=GPU-{number}"), "NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": [{ "path": format!("/dev/nvidia{number}") }],
        } })
    };
    let expected = json!({
        "cdiVersion": "0.6.0", "kind": "gpu.bailiwick.dev/claim", "devices": [device(0), device(1)],
    });
    assert_eq!(written, expected);
}

#[tokio::test]
async fn preparing_and_giving_back_may_be_repeated() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    let first = host.prepare("a").await.unwrap();
    let written = std::fs::metadata(host.cdi("a")).unwrap().modified().unwrap();
    assert_eq!(host.prepare("a").await.unwrap(), first);
    assert_eq!(std::fs::metadata(host.cdi("a")).unwrap().modified().unwrap(), written);
    host.unprepare("a").await.unwrap();
    host.unprepare("a").await.unwrap();
    assert!(!host.cdi("a").exists() && host.held().await.is_empty());
    assert_eq!(code(host.unprepare("never seen").await), "plugin.claim.bad-uid");
    assert_eq!(host.preparer.unprepare(vec![asked("never-seen")]).await["uid-never-seen"], Ok(()));
}

#[tokio::test]
async fn a_device_is_handed_to_one_claim_at_a_time() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    host.allocate("b", &["gpu-0"]);
    host.prepare("a").await.unwrap();
    let refused = host.prepare("b").await.unwrap_err();
    assert_eq!(refused.code(), "plugin.device.held");
    assert!(refused.to_string().contains("ns/a"), "{refused}");
    host.unprepare("a").await.unwrap();
    host.prepare("b").await.unwrap();
}

#[tokio::test]
async fn parts_of_a_gpu_go_to_different_claims_unless_they_overlap() {
    let host = Host::new();
    for (claim, device) in [
        ("low", "gpu-0-mig-0-4"),
        ("high", "gpu-0-mig-4-4"),
        ("middle", "gpu-0-mig-3-2"),
        ("whole", "gpu-0"),
        ("other", "gpu-1"),
    ] {
        host.allocate(claim, &[device]);
    }
    for claim in ["low", "high", "other"] {
        host.prepare(claim).await.unwrap();
    }
    assert_eq!(code(host.prepare("middle").await), "plugin.device.held");
    assert_eq!(code(host.prepare("whole").await), "plugin.device.held");
}

#[tokio::test]
async fn without_a_permit_nothing_is_handed_out_not_even_again() {
    let host = Host::new();
    host.allocate("a", &["gpu-0"]);
    host.prepare("a").await.unwrap();
    let none = PermitError::None { device: "gpu-0".to_owned() };
    *host.world.refused.lock().unwrap() = Some(Refusal::NoPermit(none));
    assert_eq!(code(host.prepare("a").await), "permit.none");
    // What runs goes on, and is given back when it ends.
    assert!(host.cdi("a").exists());
    host.unprepare("a").await.unwrap();
}

#[tokio::test]
async fn a_claim_that_cannot_be_read_is_refused() {
    let host = Host::new();
    assert_eq!(code(host.prepare("a").await), "plugin.claim.gone");
    *host.world.unreachable.lock().unwrap() = Some("connection refused".to_owned());
    let refused = host.prepare("a").await.unwrap_err();
    assert_eq!(refused.told(), "plugin.claim.unread: the claim could not be read: connection refused");
}

#[tokio::test]
async fn a_uid_that_leaves_the_directory_is_refused() {
    let host = Host::new();
    let mut claim = asked("a");
    claim.uid = "../../etc/x".to_owned();
    let refused = host.preparer.prepare(vec![claim.clone()]).await.remove(&claim.uid).unwrap();
    assert_eq!(code(refused), "plugin.claim.bad-uid");
    let refused = host.preparer.unprepare(vec![claim.clone()]).await.remove(&claim.uid).unwrap();
    assert_eq!(code(refused), "plugin.claim.bad-uid");
}

#[tokio::test]
async fn one_refused_claim_does_not_hold_up_the_others_of_its_request() {
    let host = Host::new();
    host.allocate("good", &["gpu-0"]);
    host.allocate("elsewhere", &["gpu-1"]);
    host.world.claims.lock().unwrap().get_mut("elsewhere").unwrap()["status"]["allocation"]["devices"]["results"]
        [0]["pool"] = "m2".into();
    let claims = ["good", "elsewhere", "gone"].map(asked).to_vec();
    let answer = host.preparer.prepare(claims).await;
    assert!(answer["uid-good"].is_ok());
    assert_eq!(code(answer["uid-elsewhere"].clone()), "plugin.device.unknown");
    assert_eq!(code(answer["uid-gone"].clone()), "plugin.claim.gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_claims_at_once_in_two_plugins_get_a_device_each() {
    let host = Host::new();
    let plugins = [host.preparer.clone(), host.another()];
    let names: Vec<_> = (0..100).map(|number| format!("c{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        // Two claims for each device: one of them is refused.
        host.allocate(name, &[&format!("gpu-{}", number / 2)]);
    }
    let mut calls = tokio::task::JoinSet::new();
    for (number, name) in names.into_iter().enumerate() {
        let plugin = plugins[number % 2].clone();
        calls.spawn(async move { prepare(&plugin, &name).await });
    }
    let answers = calls.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 50);
    assert_eq!(host.held().await.len(), 50);
    let refused = answers.into_iter().filter_map(Result::err);
    assert!(refused.into_iter().all(|refusal| refusal.code() == "plugin.device.held"));
}
