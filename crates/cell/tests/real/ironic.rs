//! Through Ironic's own API.

use std::time::Duration;

use serde_json::{Value, json};
use sim::{Action, Fault};

use crate::stage::{Scenario, Stage, Subject};

pub fn scenarios(stage: &Stage) -> Vec<(&'static str, Scenario<'_>)> {
    vec![
        ("direct", Box::pin(direct(stage.subject(0)))),
        ("live", Box::pin(live(stage.subject(1)))),
        ("checksum", Box::pin(checksum(stage.subject(2)))),
        ("media", Box::pin(media(stage.subject(3)))),
        ("power", Box::pin(power(stage.subject(4)))),
    ]
}

/// How often it was asked to deploy.
async fn deploys(subject: &Subject<'_>) -> usize {
    subject.acted().await.iter().filter(|action| *action == "provision: active").count()
}

/// Every disk is named in the record as erased, and was.
fn erased(subject: &Subject<'_>, record: &Value) {
    let done = subject.bmc.erasures();
    let disks: Vec<_> =
        record["items"].as_array().unwrap().iter().filter(|item| item["part"] == "disk").collect();
    assert!(!disks.is_empty(), "{record:#}");
    for disk in disks {
        assert_eq!(disk["result"], "erased", "{record:#}");
        let did = done.iter().any(|one| one.step == "erase_devices" && disk["serial"] == one.serial.as_str());
        assert!(did, "{disk} {done:?}");
    }
    // The agent has a step for the TPM, which Ironic does not run by itself, and these machines have no GPU to have one for.
    let part = |name: &str| {
        let found = record["items"].as_array().unwrap().iter().find(|item| item["part"] == name);
        found.unwrap_or_else(|| panic!("{record:#}")).clone()
    };
    assert_eq!(part("tpm")["method"], "deploy.clear_tpm", "{record:#}");
    assert!(done.iter().any(|one| one.step == "clear_tpm"), "{done:?}");
    assert_eq!(part("gpu-memory")["reason"], "the agent offers no clean step for it", "{record:#}");
}

async fn direct(subject: Subject<'_>) {
    subject.declare().await;
    subject.becomes("available").await;
    let first = subject.bmc.erasures().len();
    assert!(first > 0, "erased before its first use");
    subject.serve("disk").await;
    subject.in_service().await;
    let digest = format!("sha256:{}", subject.stage.ironic.disk_image_sha256());
    assert_eq!(subject.bmc.disk().map(|disk| disk.digest), Some(digest));

    subject.release().await;
    subject.becomes("available").await;
    assert_eq!((subject.node(), subject.bmc.disk()), (None, None));
    assert!(subject.bmc.erasures().len() > first, "erased after it");
    let records = subject.erasures().await;
    assert_eq!((records.len(), &records[0]["by"]), (2, &json!("ironic")), "{records:#?}");
    assert_eq!(records[0]["baseCluster"], "disk");
    erased(&subject, &records[0]);
    assert_eq!(deploys(&subject).await, 1);

    subject.assign(json!({ "retire": true })).await;
    subject.becomes("retired").await;
    assert_eq!(subject.stage.node(subject.name()).await, Value::Null);
}

async fn live(subject: Subject<'_>) {
    subject.declare().await;
    subject.becomes("available").await;
    subject.bmc.set_behaviour(|behaviour| behaviour.restart.takes = Duration::from_secs(10));
    subject.bmc.add_fault(Fault::on("**/Systems/*", Action::RestartBmc).method("GET").times(1));
    subject.serve("live").await;
    subject.in_service().await;
    assert_eq!(subject.bmc.counters().restarts, 1);

    subject.release().await;
    subject.becomes("available").await;
    assert_eq!(subject.node(), None);
    erased(&subject, &subject.erasures().await[0]);
}

async fn checksum(subject: Subject<'_>) {
    subject.declare().await;
    subject.becomes("available").await;
    subject.serve("bad").await;
    let told = subject.waits_for("ironic.deploy-failed").await;
    assert!(told.contains("checksum"), "{told}");
    assert_eq!((subject.bmc.disk(), subject.node()), (None, None));
    subject.release().await;
    subject.becomes("available").await;
    subject.serve("disk").await;
    subject.in_service().await;
    subject.release().await;
    subject.becomes("available").await;
    erased(&subject, &subject.erasures().await[0]);
}

async fn media(subject: Subject<'_>) {
    let refused = Action::status(400, r#"{"error": {"code": "Base.1.18.GeneralError", "message": "no"}}"#);
    let fault = subject.bmc.add_fault(Fault::on("**/VirtualMedia.InsertMedia", refused.clone()));
    subject.declare().await;
    subject.waits_for("ironic.inspect-failed").await;
    subject.bmc.remove_fault(fault);
    subject.refresh().await;
    subject.becomes("available").await;
    assert_eq!(subject.acted().await.iter().filter(|action| *action == "create the node").count(), 1);
}

async fn power(subject: Subject<'_>) {
    subject.declare().await;
    subject.becomes("available").await;
    // It says that it has done it.
    let fault = subject.bmc.add_fault(Fault::on("**/ComputerSystem.Reset", Action::status(204, "")));
    subject.serve("disk").await;
    let told = subject.waits_for("ironic.deploy-failed").await;
    assert!(told.contains("power"), "{told}");
    assert_eq!((subject.bmc.disk(), subject.node()), (None, None));
    subject.bmc.remove_fault(fault);
    subject.in_service().await;
    assert!(subject.bmc.disk().is_some());
}
