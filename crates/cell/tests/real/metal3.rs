//! Through baremetal-operator.

use std::time::Duration;

use serde_json::{Value, json};
use sim::{Action, Fault, PowerState};

use crate::stage::{Scenario, Stage, Subject};

/// What goes wrong: minutes.
pub fn faults(stage: &Stage) -> Vec<(&'static str, Scenario<'_>)> {
    vec![
        ("checksum", Box::pin(checksum(stage.subject(0)))),
        ("media", Box::pin(media(stage.subject(1)))),
        ("hand", Box::pin(hand(stage.subject(2)))),
        ("gone", Box::pin(gone(stage.subject(3)))),
    ]
}

impl Subject<'_> {
    async fn host(&self) -> Value {
        let host = self.stage.management().kubectl(&["get", "bmh", self.name(), "-o", "json"]).await;
        serde_json::from_str(&host).unwrap()
    }

    /// A person changes it.
    async fn edit(&self, patch: &Value) {
        let patch = patch.to_string();
        let by = "--field-manager=kubectl-edit";
        self.stage
            .management()
            .kubectl(&["patch", "bmh", self.name(), "--type=merge", by, "-p", &patch])
            .await;
    }

    async fn detach(&self, by_hand: Value) {
        self.edit(&json!({ "metadata": { "annotations": { "baremetalhost.metal3.io/detached": by_hand } } }))
            .await;
    }

    async fn is_out_of_ironic(&self) {
        let node = format!("{}~{}", self.stage.management().namespace(), self.name());
        self.comes_true("out of Ironic", async || self.stage.node(&node).await.is_null()).await;
    }

    /// How many disks were erased so far.
    fn erased_by_its_agent(&self) -> usize {
        self.bmc.erasures().iter().filter(|erasure| erasure.step == "erase_devices").count()
    }
}

fn disks(record: &Value) -> Vec<Value> {
    record["items"].as_array().unwrap().iter().filter(|item| item["part"] == "disk").cloned().collect()
}

/// What goes well.
pub async fn disk(subject: Subject<'_>) {
    subject.declare().await;
    subject.becomes("available").await;
    // The operator cleans when it takes something off, and says nothing of what was there before.
    let before = subject.erasures().await.swap_remove(0);
    let found = disks(&before);
    assert!(!found.is_empty() && found.iter().all(|disk| disk["result"] == "not-erased"), "{before:#}");
    subject.serve("disk").await;
    subject.in_service().await;
    let host = subject.host().await;
    assert_eq!(host["status"]["provisioning"]["state"], "provisioned");
    assert_eq!(host["metadata"]["labels"]["bailiwick.dev/jurisdiction"], "de");

    let before = subject.erased_by_its_agent();
    subject.release().await;
    subject.becomes("available").await;
    assert_eq!((subject.node(), subject.bmc.disk()), (None, None));
    let record = subject.erasures().await.swap_remove(0);
    assert_eq!((&record["baseCluster"], &record["by"]), (&json!("disk"), &json!("metal3")));
    let found = disks(&record);
    assert!(!found.is_empty() && found.iter().all(|disk| disk["result"] == "erased"), "{record:#}");
    assert_eq!(subject.erased_by_its_agent(), before + found.len());
    // The record is of the disks that there were at its end.
    let history = subject.host().await["status"]["operationHistory"].clone();
    let ended = |operation: &str| history[operation]["end"].as_str().unwrap().to_owned();
    assert!(ended("inspect") >= ended("deprovision"), "{history:#}");

    subject.assign(json!({ "retire": true })).await;
    subject.becomes("retired").await;
    let left = subject.stage.management().kubectl(&["get", "bmh,secrets", "-o", "name"]).await;
    assert!(!left.contains(&format!("/{}", subject.name())), "{left}");
}

async fn checksum(subject: Subject<'_>) {
    subject.declare().await;
    subject.becomes("available").await;
    subject.serve("live").await;
    subject.waits_for("metal3.no-config-drive").await;
    subject.serve("bad").await;
    // Ironic forgets the error soon, and then the operator says nothing: what the cell tells is how long it usually takes, and
    // later that it is stuck.
    let silent =
        format!("failed but error message not available\t{{\"host\": \"metal3~{}\"}}", subject.name());
    let management = subject.stage.management();
    let failed = |machine: &Value| {
        machine["waiting"]["problem"]["code"] == "metal3.provisioning-error"
            || management.log().contains(&silent)
    };
    let told = subject.until("fail", failed).await;
    assert!(told["waiting"]["problem"]["hint"].is_string(), "{told}");
    assert_eq!((subject.bmc.disk(), subject.node()), (None, None));
    subject.release().await;
    subject.becomes("available").await;
}

async fn media(subject: Subject<'_>) {
    let refused = Action::status(400, r#"{"error": {"code": "Base.1.18.GeneralError", "message": "no"}}"#);
    let fault = subject.bmc.add_fault(Fault::on("**/VirtualMedia.InsertMedia", refused));
    subject.declare().await;
    subject.waits_for("metal3.inspection-error").await;
    // The operator goes on trying, more and more seldom; any annotation wakes it.
    subject.bmc.remove_fault(fault);
    subject.edit(&json!({ "metadata": { "annotations": { "example.com/woken": "by hand" } } })).await;
    subject.refresh().await;
    subject.becomes("available").await;
    subject.bmc.set_behaviour(|behaviour| behaviour.restart.takes = Duration::from_secs(10));
    subject.bmc.add_fault(Fault::on("**/Systems/*", Action::RestartBmc).method("GET").times(1));
    subject.serve("disk").await;
    subject.in_service().await;
    assert_eq!(subject.bmc.counters().restarts, 1);
}

async fn hand(subject: Subject<'_>) {
    let name = subject.name().to_owned();
    subject.stage.kubelets.hold(&name);
    subject.declare().await;
    subject.becomes("available").await;
    subject.serve("disk").await;
    let boots = |machine: &Value| {
        machine["waiting"]["problem"]["message"].as_str().is_some_and(|told| told.contains("certificate"))
    };
    subject.until("boot", boots).await;
    let uid = subject.host().await["metadata"]["uid"].clone();

    subject.edit(&json!({ "spec": { "online": false } })).await;
    let told = subject.waits_for("metal3.edited-by-hand").await;
    assert!(told.contains("kubectl-edit") && told.contains("spec.online"), "{told}");
    // The operator does what the person wrote.
    subject.comes_true("off by hand", async || subject.bmc.power_state() == Some(PowerState::Off)).await;
    subject.edit(&json!({ "spec": { "online": true } })).await;
    subject.refresh().await;
    subject.until("boot again", boots).await;

    subject.detach(json!("by hand")).await;
    subject.waits_for("metal3.detached").await;
    subject.is_out_of_ironic().await;
    subject.detach(Value::Null).await;
    subject.refresh().await;
    subject.until("go on", boots).await;
    subject.stage.kubelets.let_go(&name);
    subject.in_service().await;
    assert_eq!(subject.host().await["metadata"]["uid"], uid);

    // Whoever sets a machine aside may cut its power: nobody puts it back.
    subject.assign(json!({ "quarantine": { "reason": "a fan is loud" } })).await;
    subject.becomes("quarantined").await;
    subject.is_out_of_ironic().await;
    subject.release().await;
    subject.becomes("available").await;
    assert_eq!(subject.bmc.disk(), None);
}

/// Somebody deletes the host of a machine that is being deployed, and of one in service: the operator takes everything off and forgets
/// the machine. The cell does not take that for an erasure, and makes the host anew only once the machine is released.
async fn gone(subject: Subject<'_>) {
    subject.declare().await;
    subject.becomes("available").await;
    let management = subject.stage.management();
    subject.stage.kubelets.hold(subject.name());
    subject.serve("disk").await;
    subject.comes_true("put on", async || subject.bmc.disk().is_some()).await;
    subject.is_deleted_by_hand().await;
    subject.refresh().await;
    let told = subject.waits_for("metal3.host-gone").await;
    assert!(told.contains(subject.name()), "{told}");
    let listed = management.kubectl(&["get", "bmh", "-o", "name"]).await;
    assert!(!listed.contains(&format!("/{}", subject.name())), "it is not made anew unasked: {listed}");
    subject.is_erased_once_released().await;

    subject.stage.kubelets.let_go(subject.name());
    subject.serve("disk").await;
    subject.in_service().await;
    subject.is_deleted_by_hand().await;
    subject.is_erased_once_released().await;
}

impl Subject<'_> {
    async fn is_deleted_by_hand(&self) {
        let management = self.stage.management();
        management.kubectl(&["delete", "bmh", self.name(), "--wait=false"]).await;
        let listed = async || management.kubectl(&["get", "bmh", "-o", "name"]).await;
        self.comes_true("deleted", async || !listed().await.contains(&format!("/{}", self.name()))).await;
        self.is_out_of_ironic().await;
    }

    /// Made known anew, and cleaned by putting something on and taking it off: what was there before counts for nothing.
    async fn is_erased_once_released(&self) {
        let before = (self.erased_by_its_agent(), self.erasures().await.len());
        self.release().await;
        self.becomes("available").await;
        let records = self.erasures().await;
        let (record, found) = (&records[0], disks(&records[0]));
        assert_eq!((&record["baseCluster"], &record["by"]), (&json!("disk"), &json!("metal3")));
        assert!(!found.is_empty() && found.iter().all(|disk| disk["result"] == "erased"), "{record:#}");
        // Before it puts the image on, the operator cleans too.
        assert!(self.erased_by_its_agent() >= before.0 + found.len(), "{record:#}");
        assert_eq!(records.len(), before.1 + 1);
        assert_eq!((self.node(), self.bmc.disk()), (None, None));
    }
}
