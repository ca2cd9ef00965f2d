//! Cells that are killed while machines go into service and back through the real baremetal-operator, on the real API server, with a
//! simulated Ironic behind it that counts what it is asked for. The operator looks again every few seconds, so that this takes
//! minutes: `hack/full.d/40-real` runs it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    dead_code,
    reason = "tests fail by panicking, and so do their helpers, which two suites share"
)]

mod lives;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use lives::{Wish, is_available, is_in_service, killed_after_each_step};
use serde_json::json;
use sim::ironic::{Delays, Verb, VerbCount};
use support::stage::Stage;
use testbed::{BaremetalOperator, ControlPlane, IronicAddress};

/// The operator and its cluster.
struct Management {
    operator: BaremetalOperator,
    plane: ControlPlane,
}

impl Management {
    async fn kubectl(&self, arguments: &[&str]) -> String {
        let namespace = format!("--namespace={}", self.operator.namespace());
        let arguments: Vec<_> = arguments.iter().copied().chain([namespace.as_str()]).collect();
        self.plane.kubectl(&arguments, None).await.unwrap().success().unwrap()
    }

    async fn hurry(&self) {
        self.operator.hurry(&self.plane, Duration::from_secs(1)).await;
    }
}

async fn stage() -> (Stage, Management) {
    let mut stage = Stage::with(1, Delays::none()).await;
    let plane = ControlPlane::options().scheduler(false).start().await.unwrap();
    let ironic = IronicAddress {
        url: stage.ironic.url().to_owned(),
        agent_iso_url: "http://images.example/agent.iso".to_owned(),
        credentials: None,
    };
    let operator = BaremetalOperator::options().start(&plane, ironic).await.unwrap();
    let kubeconfig = plane.kubeconfig_admin().display().to_string();
    stage.provisioner =
        ["--metal3-kubeconfig", &kubeconfig, "--metal3-erases-disks"].map(str::to_owned).to_vec();
    let (url, checksum) = ("http://images.example/node.raw", "0".repeat(64));
    stage.image = json!({ "disk": { "url": url, "checksum": checksum, "format": "raw" } });
    (stage, Management { operator, plane })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_killed_after_each_recorded_step_by_metal3_ends_where_an_undisturbed_one_does() {
    let (stage, management) = stage().await;
    let cell = tokio::select! {
        cell = killed_after_each_step(&stage, stage.one_use()) => cell,
        () = management.hurry() => unreachable!(),
    };
    stage.is_as_if_undisturbed(&cell, 1).await;
    stage.are_erased(&cell, 1).await;
    let left = management.kubectl(&["get", "bmh,secrets", "-o", "name"]).await;
    // One host, and the Secret with its BMC's account: what it had joined with is gone.
    assert_eq!(left.lines().count(), 2, "{left}");
    cell.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_killed_after_each_step_of_a_quarantine_and_a_retirement_by_metal3_leaves_nothing_there() {
    let (stage, management) = stage().await;
    let suspect = json!({ "baseCluster": "pool", "quarantine": { "reason": "smoke" } });
    let wishes: Vec<Wish> = vec![
        (stage.everything_in_service(), is_in_service),
        (stage.assigned(&suspect), |machine| machine["state"] == "quarantined"),
        (stage.back_to_the_shelf(), is_available),
        (stage.assigned(&json!({ "retire": true })), |machine| machine["state"] == "retired"),
    ];
    let cell = tokio::select! {
        cell = killed_after_each_step(&stage, wishes) => cell,
        () = management.hurry() => unreachable!(),
    };
    assert_eq!(stage.ironic.verbs_of_all(Verb::Active), VerbCount { accepted: 1, refused: 0 });
    assert_eq!(stage.ironic.nodes().len(), 0);
    stage.are_erased(&cell, 1).await;
    assert_eq!(management.kubectl(&["get", "bmh,secrets", "-o", "name"]).await, "");
    cell.kill().await;
}
