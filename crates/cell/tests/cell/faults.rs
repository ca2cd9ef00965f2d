//! What goes wrong on the way: each time the machine waits with a code and a remedy, nothing is lost or doubled, and it goes
//! on once the cause is gone.

use crate::line::{Line, joins, pool};
use serde_json::{Value, json};
use sim::ironic::{Effect, NodeFacts, NodeFault, Operation, ProvisionState};
use sim::{Action, Fault};
use std::sync::{Arc, Mutex};

pub(crate) const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";

/// One machine on the shelf.
pub(crate) async fn shelved() -> (Line, String) {
    let line = Line::start(1).await;
    line.declare().await;
    line.arrive("available").await;
    let name = line.names().remove(0);
    (line, name)
}

pub(crate) fn serve() -> Value {
    json!({ "baseCluster": "pool" })
}

pub(crate) fn deploys(line: &Line, name: &str) -> u32 {
    line.ironic.deploys(&line.ironic.node(name).unwrap().uuid)
}

pub(crate) fn node(line: &Line, name: &str) -> Option<Value> {
    line.cluster.object(&format!("/api/v1/nodes/{name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ironic_that_fails_or_is_away_is_waited_for() {
    let (line, name) = shelved().await;
    let status = |code, body: &str| Action::Status { code, body: body.into(), headers: [].into() };
    let rounds = [
        (status(500, "boom"), "ironic.server-error"),
        (status(503, "{}"), "ironic.busy"),
        (Action::Reset, "ironic.unreachable"),
    ];
    let uses = rounds.len();
    for (done, (action, code)) in rounds.into_iter().enumerate() {
        line.ironic.faults().add(Fault::on("**", action));
        line.want(&name, serve()).await;
        line.waits_for(&name, code).await;
        assert_eq!(deploys(&line, &name), u32::try_from(done).unwrap());
        line.ironic.faults().clear();
        line.mended(&name, "in-service").await;
        line.release().await;
    }
    assert_eq!(deploys(&line, &name), u32::try_from(uses).unwrap());
    line.erased(&name, uses).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_another_conductor_has_locked_is_waited_for() {
    let (line, name) = shelved().await;
    assert!(line.ironic.reserve(&name, "another-conductor"));
    line.want(&name, serve()).await;
    let why = line.waits_for(&name, "machine.under-way").await;
    assert!(why["waiting"]["problem"]["message"].as_str().unwrap().contains("lock"), "{why}");
    assert_eq!(deploys(&line, &name), 0);
    assert!(line.ironic.release(&name));
    line.mended(&name, "in-service").await;
    assert_eq!(deploys(&line, &name), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_ironic_refuses_because_a_node_is_locked_are_made_again() {
    let (line, name) = shelved().await;
    line.ironic.add_node_fault(NodeFault::new(Effect::Locked));
    line.want(&name, serve()).await;
    let why = line.waits_for(&name, "machine.under-way").await;
    assert!(why["waiting"]["problem"]["message"].as_str().unwrap().contains("lock"), "{why}");
    assert_eq!(deploys(&line, &name), 0);
    line.ironic.clear_node_faults();
    line.heals(&name, "in-service").await;
    assert_eq!(deploys(&line, &name), 1);

    // What is to be taken up again has to be told so before anything else.
    line.want(&name, json!({ "quarantine": { "reason": "smoke" } })).await;
    line.arrive("quarantined").await;
    line.ironic.add_node_fault(NodeFault::new(Effect::Locked));
    line.unassign().await;
    line.waits_for(&name, "ironic.node-locked").await;
    line.ironic.clear_node_faults();
    line.heals(&name, "available").await;
    line.erased(&name, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_or_an_undeploy_that_fails_is_told_and_made_again_until_it_does_not() {
    let (line, name) = shelved().await;
    for (done, operation, code) in
        [(0, Operation::Clean, "ironic.clean-failed"), (1, Operation::Undeploy, "ironic.undeploy-failed")]
    {
        line.assign(serve(), "in-service").await;
        line.ironic.add_node_fault(NodeFault::fails(operation, Some("the disk is worn out")));
        line.unassign().await;
        let why = line.waits_for(&name, code).await;
        assert_eq!(why["state"], "wiping");
        assert!(why["waiting"]["problem"]["message"].as_str().unwrap().contains("worn out"), "{why}");
        line.erased(&name, done).await;
        line.ironic.clear_node_faults();
        line.heals(&name, "available").await;
        line.erased(&name, done + 1).await;
    }
}

/// A machine in service whose disks can be hidden from the agent: all that there are, and those that it sees.
pub(crate) async fn in_service_with_disks() -> (Line, String, Vec<String>, Arc<Mutex<Vec<String>>>) {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let disks = Arc::clone(&shown);
    let inventory = move |_: &NodeFacts<'_>| {
        let disk = |serial: &String| json!({ "name": "/dev/sda", "serial": serial, "size": 1 << 30 });
        let disks: Vec<_> = disks.lock().unwrap().iter().map(disk).collect();
        Some(json!({ "inventory": { "disks": disks, "interfaces": [] }, "plugin_data": {} }))
    };
    let line = Line::with(1, |ironic| ironic.inventory(inventory), |_| {}).await;
    let name = line.names().remove(0);
    let drives = drives_of(line.site.bmc(&name).unwrap());
    assert!(drives.len() > 1, "{drives:?}");
    shown.lock().unwrap().clone_from(&drives);
    line.declare().await;
    line.arrive("available").await;
    line.assign(serve(), "in-service").await;
    (line, name, drives, shown)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hides_keeps_its_machine_until_it_shows_itself_and_is_erased() {
    let (line, name, drives, shown) = in_service_with_disks().await;
    shown.lock().unwrap().truncate(1);
    line.unassign().await;
    let why = line.waits_for(&name, "erasure.disk-not-erased").await;
    assert!(why["waiting"]["problem"]["message"].as_str().unwrap().contains(&drives[1]), "{why}");
    assert!(why["waiting"]["problem"]["hint"].as_str().unwrap().contains("--lost"), "{why}");
    line.erased(&name, 0).await;
    let cleaned = |line: &Line| line.ironic.cleanings(&line.ironic.node(&name).unwrap().uuid).len();
    let before = cleaned(&line);
    shown.lock().unwrap().clone_from(&drives);
    line.heals(&name, "available").await;
    assert!(cleaned(&line) > before, "what was not there when the others were erased is erased");
    line.erased(&name, 1).await;
}

/// Serial numbers of the drives that a BMC shows.
fn drives_of(bmc: &sim::Bmc) -> Vec<String> {
    let get = |path: &Value| bmc.resource(path.as_str().unwrap()).unwrap();
    let system = get(&json!(bmc.tree().host_system().unwrap()));
    let storage = get(&system["Storage"]["@odata.id"]);
    let controllers = storage["Members"].as_array().unwrap().iter().map(|member| get(&member["@odata.id"]));
    let drives = controllers.flat_map(|one| one["Drives"].as_array().cloned().unwrap_or_default());
    drives.map(|drive| get(&drive["@odata.id"])["SerialNumber"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_lost_is_retired_as_it_is_and_erased_before_another_use_should_it_be_found() {
    let (line, name) = shelved().await;
    line.assign(serve(), "in-service").await;
    line.ironic.add_node_fault(NodeFault::fails(Operation::Undeploy, Some("the BMC does not answer")));
    line.unassign().await;
    line.waits_for(&name, "ironic.undeploy-failed").await;
    line.assign(json!({ "retire": true, "lost": { "reason": "stolen, case 4711" } }), "retired").await;
    assert!(line.ironic.node(&name).is_none() && node(&line, &name).is_none());
    assert!(line.cluster.list(SECRETS).is_empty());
    line.erased(&name, 1).await;
    let erasures = async || line.client.get(&format!("/api/v1/machines/{name}/erasures")).await;
    let record = erasures().await[0].clone();
    assert_eq!(
        (&record["by"], &record["baseCluster"]),
        (&json!("first-admin"), &json!("pool")),
        "{record:#}"
    );
    let items = record["items"].as_array().unwrap();
    for part in ["disk", "gpu-memory", "tpm"] {
        assert!(items.iter().any(|item| item["part"] == part), "{record:#}");
    }
    assert!(items.iter().any(|item| item["part"] == "disk" && item["serial"].is_string()), "{record:#}");
    for item in items {
        assert_eq!(item["result"], "not-erased", "{item}");
        assert!(item["reason"].as_str().unwrap().contains("stolen, case 4711"), "{item}");
    }

    // Found again, it is erased as after any other use; until it is, it is nobody's.
    line.ironic.clear_node_faults();
    line.ironic.add_node_fault(NodeFault::fails(Operation::Clean, Some("the disk is worn out")));
    line.unassign().await;
    line.waits_for(&name, "ironic.clean-failed").await;
    line.erased(&name, 1).await;
    line.ironic.clear_node_faults();
    line.heals(&name, "available").await;
    line.erased(&name, 2).await;
    let again = erasures().await[0].clone();
    assert_eq!((&again["by"], &again["instance"]), (&json!("ironic"), &record["instance"]), "{again:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_machine_can_be_forgotten_and_its_record_stays() {
    let (line, name) = shelved().await;
    line.assign(serve(), "in-service").await;
    let lost = json!({ "retire": true, "lost": { "reason": "burnt" } });
    line.assign(lost, "retired").await;
    line.delete(&[("Assignment", &name), ("Machine", &name)]).await;
    line.erased(&name, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_a_foreign_state_or_in_maintenance_is_left_alone_until_it_is_back() {
    let (line, name) = shelved().await;
    line.ironic.set_state(&name, ProvisionState::Rescue);
    line.want(&name, serve()).await;
    line.waits_for(&name, "ironic.state-foreign").await;
    line.ironic.set_state(&name, ProvisionState::Available);
    line.ironic.set_maintenance(&name, "a disk is exchanged", None);
    let (status, _) = line.client.call("POST", &format!("/api/v1/machines/{name}/refresh"), None).await;
    assert_eq!(status, 200);
    let why = line.waits_for(&name, "ironic.maintenance").await;
    assert!(why.to_string().contains("a disk is exchanged"), "{why}");
    assert_eq!(deploys(&line, &name), 0);
    let path = format!("/v1/nodes/{name}/maintenance");
    line.ironic.request(http::Method::DELETE, &path, None);
    line.mended(&name, "in-service").await;
    assert_eq!(deploys(&line, &name), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_deleted_behind_our_back_is_told_and_never_taken_for_erased() {
    let (line, name) = shelved().await;
    line.assign(serve(), "in-service").await;
    line.ironic.delete_node(&name);
    let delete = json!({ "delete": [{ "kind": "Assignment", "name": name }] });
    let (_, plan) = line.client.call("POST", "/api/v1/plans", Some(delete)).await;
    let digest = plan["digest"].as_str().unwrap();
    line.client.call("POST", &format!("/api/v1/plans/{digest}/apply"), None).await;
    let why = line.waits_for(&name, "ironic.node-gone").await;
    assert_eq!(why["state"], "wiping");
    assert!(why["unblock"].is_string(), "{why}");
    line.erased(&name, 0).await;

    // The way out: set aside and let back in, it is made known to Ironic anew, looked at, and erased whole.
    line.want(&name, json!({ "quarantine": { "reason": "its node is gone" } })).await;
    line.arrive("quarantined").await;
    line.release().await;
    line.erased(&name, 1).await;
    let history = line.history(&name).await;
    assert!(history.iter().filter(|kind| *kind == "machine.inspected").count() == 2, "{history:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_fails_without_a_reason_is_made_anew_and_people_are_asked_after_three() {
    let (line, name) = shelved().await;
    line.ironic.add_node_fault(NodeFault::fails(Operation::Deploy, None).times(1));
    line.assign(serve(), "in-service").await;
    assert_eq!(deploys(&line, &name), 2);
    let failed =
        |history: Vec<String>| history.into_iter().filter(|kind| kind == "machine.deployment-failed").count();
    assert_eq!(failed(line.history(&name).await), 1);
    line.release().await;

    line.ironic.add_node_fault(NodeFault::fails(Operation::Deploy, None).times(3));
    line.want(&name, serve()).await;
    let asked = line.until(&name, |machine| {
        machine["waiting"]["problem"]["code"] == "ironic.deploy-failed"
            && machine["waiting"]["until"].is_null()
    });
    asked.await;
    let why = line.waits_for(&name, "ironic.deploy-failed").await;
    assert!(why["unblock"].as_str().unwrap().contains("bailiwick release"), "{why}");
    assert_eq!(deploys(&line, &name), 5);
    line.release().await;
    line.assign(serve(), "in-service").await;
    assert_eq!(deploys(&line, &name), 6);
    assert!(line.cluster.list(SECRETS).is_empty());
}

/// The machine is quarantined for this; once people say so it is erased, on the shelf, and can be used again.
async fn quarantined_and_back(line: &Line, name: &str, code: &str) {
    let apart = |machine: &Value| {
        let cordoned = node(line, name).is_none_or(|node| node["spec"]["unschedulable"] == true);
        machine["state"] == "quarantined" && cordoned && line.ironic.node(name).unwrap().maintenance
    };
    let machine = line.until(name, apart).await;
    let declared = line.client.get(&format!("/api/v1/declarations/assignment/{name}")).await;
    let reason = declared.to_string();
    assert!(reason.contains(code), "{reason} {machine}");
    let why = line.client.get(&format!("/api/v1/machines/{name}/why")).await;
    assert!(why["unblock"].as_str().unwrap().contains("unquarantine"), "{why}");
    line.hosts_do(joins);
    line.release().await;
    line.erased(name, 1).await;
    assert!(node(line, name).is_none());
    assert!(line.cluster.list(SECRETS).is_empty());
    line.assign(serve(), "in-service").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_certificate_asked_for_with_the_same_token_quarantines_the_machine() {
    let (line, name) = shelved().await;
    line.hosts_do(|cluster, name, uuid, user_data| {
        cluster.boot(name, uuid, user_data);
        cluster.boot(name, "00000000-0000-0000-0000-00000000beef", user_data);
    });
    line.want(&name, serve()).await;
    quarantined_and_back(&line, &name, "join.token-reused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_runs_on_another_machine_is_quarantined() {
    let (line, name) = shelved().await;
    line.hosts_do(|cluster, name, _, user_data| {
        cluster.boot(name, "00000000-0000-0000-0000-00000000beef", user_data);
    });
    line.want(&name, serve()).await;
    quarantined_and_back(&line, &name, "node.other-machine").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_claims_another_jurisdiction_by_its_label_is_quarantined() {
    let (line, name) = shelved().await;
    line.assign(serve(), "in-service").await;
    let path = format!("/api/v1/nodes/{name}");
    let mut liar = line.cluster.object(&path).unwrap();
    liar["metadata"]["labels"]["bailiwick.dev/jurisdiction"] = "fr".into();
    line.cluster.put(&path, liar);
    line.mended(&name, "quarantined").await;
    quarantined_and_back(&line, &name, "node.false-claim").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_released_while_it_is_provisioned_is_erased_and_its_token_serves_no_more() {
    let (line, name) = shelved().await;
    line.hosts_do(|_, _, _, _| {});
    line.want(&name, serve()).await;
    line.until(&name, |machine| {
        machine["waiting"]["problem"]["message"].as_str().is_some_and(|told| told.contains("certificate"))
    })
    .await;
    assert_eq!(line.cluster.list(SECRETS).len(), 1);
    line.release().await;
    assert!(line.cluster.list(SECRETS).is_empty());
    assert_eq!(deploys(&line, &name), 1);
    line.erased(&name, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_machine_keeps_its_node_loses_its_pods_and_comes_back_without_a_deployment() {
    let (line, name) = shelved().await;
    line.assign(serve(), "in-service").await;
    let uid = node(&line, &name).unwrap()["metadata"]["uid"].clone();
    let pod = |owner: Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "default", "ownerReferences": owner },
            "spec": { "nodeName": name, "containers": [] }, "status": { "phase": "Running" },
        })
    };
    let daemon = json!([{ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "1", "controller": true }]);
    line.cluster.put("/api/v1/namespaces/default/pods/work", pod(json!([])));
    line.cluster.put("/api/v1/namespaces/default/pods/daemon", pod(daemon));
    line.want(&name, json!({ "baseCluster": "pool", "drain": true })).await;
    line.until(&name, |machine| machine["state"] == "draining" && machine["waiting"].is_null()).await;
    line.until(&name, |_| line.cluster.object("/api/v1/namespaces/default/pods/work").is_none()).await;
    assert!(line.cluster.object("/api/v1/namespaces/default/pods/daemon").is_some());
    assert_eq!(node(&line, &name).unwrap()["spec"]["unschedulable"], true);

    line.assign(serve(), "in-service").await;
    let back = node(&line, &name).unwrap();
    assert_eq!((&back["metadata"]["uid"], &back["spec"]["unschedulable"]), (&uid, &Value::Null));
    assert_eq!(deploys(&line, &name), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_base_cluster_is_reached_through_wiping_alone() {
    let (line, name) = shelved().await;
    let mut other = pool();
    other["metadata"]["name"] = "other".into();
    line.client.apply(vec![other], &[]).await;
    line.assign(serve(), "in-service").await;
    let label = |line: &Line| {
        node(line, &name)
            .map(|node| node["metadata"]["labels"]["node-restriction.kubernetes.io/base-cluster"].clone())
    };
    assert_eq!(label(&line), Some(json!("pool")));
    line.want(&name, json!({ "baseCluster": "other" })).await;
    line.until(&name, |machine| machine["state"] == "in-service" && label(&line) == Some(json!("other")))
        .await;
    let history = line.history(&name).await;
    let place = |kind: &str| history.iter().rposition(|seen| seen == kind).unwrap();
    assert!(place("machine.draining") < place("machine.wiping"));
    assert!(place("machine.wiping") < place("machine.erased"));
    assert!(place("machine.erased") < place("machine.provisioning"));
    line.erased(&name, 1).await;
    assert_eq!(deploys(&line, &name), 2);
}
