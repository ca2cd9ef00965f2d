//! Real kubelets join a real control plane with what the cell gives their machines, and with nothing else.

use crate::line::{Line, pool};
use crate::support::document;
use bailiwick_cell::Settings;
use serde_json::{Value, json};
use sim::Model;
use sim::ironic::NodeEvent;
use testbed::{ControlPlane, Node, NodeOptions};
use tokio::sync::mpsc;

pub(crate) const CELL_USER: &str = "bailiwick-cell";

/// What the image of the tests reads: both files of the kubelet, as JSON, and that of an agent that is to enrol by itself.
fn user_data(with_agent: bool) -> String {
    let mut files = json!({
        "kubeconfig": "{{bootstrapKubeconfig.base64}}", "kubelet": "{{kubeletConfiguration.base64}}",
    });
    if with_agent {
        files["agent"] = "{{agentEnrolment.base64}}".into();
    }
    files.to_string()
}

/// A line whose base cluster is a real control plane.
pub(crate) struct Real {
    pub plane: ControlPlane,
    pub line: Line,
    /// User data of machines that were deployed.
    deployed: mpsc::UnboundedReceiver<(String, String)>,
}

/// A file in the user data.
pub(crate) fn text(user_data: &Value, key: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(user_data[key].as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

pub(crate) async fn kubectl(plane: &ControlPlane, arguments: &[&str]) -> String {
    plane.kubectl(arguments, None).await.unwrap().success().unwrap()
}

impl Real {
    async fn start(machines: usize) -> Self {
        Self::of(Model::CpuNode, machines, |_, _| {}).await
    }

    /// Of another model, with other settings.
    pub(crate) async fn of(
        model: Model,
        machines: usize,
        change: impl FnOnce(&mut Settings, &ControlPlane),
    ) -> Self {
        // Real nodes have heartbeats, and a new one is tainted until somebody looks at them.
        let plane = ControlPlane::options().node_lifecycle(true).start().await.unwrap();
        let roles = testbed::repository_root().join("manifests/basecluster-clusterrole.yaml");
        kubectl(&plane, &["apply", "-f", roles.to_str().unwrap()]).await;
        let user = format!("--user={CELL_USER}");
        kubectl(&plane, &["create", "clusterrolebinding", "nodes", "--clusterrole=bailiwick-nodes", &user])
            .await;
        let tokens =
            ["create", "rolebinding", "tokens", "-n", "kube-system", "--role=bailiwick-tokens", &user];
        kubectl(&plane, &tokens).await;
        let kubeconfig = std::fs::read_to_string(plane.kubeconfig_for(CELL_USER, &[]).unwrap()).unwrap();
        let (sender, deployed) = mpsc::unbounded_channel();
        let hook = move |event| {
            if let NodeEvent::Deployed(instance) = event {
                let user_data = instance.config_drive.as_ref().and_then(|drive| drive.user_data());
                let sent = (instance.name.unwrap_or_default(), user_data.unwrap_or_default().to_owned());
                // Nobody listens once the test is over.
                let _ = sender.send(sent);
            }
        };
        let line = Line::of(
            model,
            machines,
            |ironic| ironic.on_event(hook),
            |settings| {
                let secret = settings.secrets_dir.as_ref().unwrap().join("pool/kubeconfig");
                std::fs::write(secret, kubeconfig).unwrap();
                change(settings, &plane);
            },
        )
        .await;
        line.declare().await;
        let mut pool = pool();
        pool["spec"]["endpoint"] = plane.server_url().into();
        let agents = line.cell.settings().agents.as_ref();
        let user_data = user_data(agents.is_some_and(|agents| agents.url.is_some()));
        pool["spec"]["join"] = json!({ "template": { "userData": user_data } });
        line.client.apply(vec![pool], &[]).await;
        line.arrive("available").await;
        Self { plane, line, deployed }
    }

    /// Has a machine provisioned; gives its user data once it is deployed.
    pub(crate) async fn deploy(&mut self, name: &str) -> Value {
        let assignment = document("Assignment", name, json!({ "baseCluster": "pool" }));
        self.line.client.apply(vec![assignment], &[]).await;
        let (deployed, user_data) = self.deployed.recv().await.unwrap();
        assert_eq!(deployed, name);
        serde_json::from_str(&user_data).unwrap()
    }

    /// A kubelet of this name, on a machine with this UUID, with what a machine was given.
    pub(crate) async fn boot(&self, name: &str, uuid: &str, user_data: &Value) -> Node {
        options(name, uuid, user_data).start(&self.plane).await.unwrap()
    }

    /// The machine is set aside for this, its node keeps the taint, and the cell gives it no label.
    async fn is_set_aside(&self, name: &str, code: &str) {
        self.line.until(name, |machine| machine["state"] == "quarantined").await;
        let shown = kubectl(&self.plane, &["get", "node", name, "-o", "json"]).await;
        assert!(shown.contains("bailiwick.dev/unverified"), "{shown}");
        assert!(!shown.contains("node-restriction.kubernetes.io/"), "{shown}");
        let assignment = self.line.client.get(&format!("/api/v1/declarations/Assignment/{name}")).await;
        let reason = assignment["spec"]["quarantine"]["reason"].as_str().unwrap();
        assert!(reason.contains(code), "{assignment}");
    }
}

fn options(name: &str, uuid: &str, user_data: &Value) -> NodeOptions {
    let (kubeconfig, configuration) = (text(user_data, "kubeconfig"), text(user_data, "kubelet"));
    NodeOptions::new(name, &kubeconfig, &configuration).system_uuid(uuid)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_joins_is_verified_labelled_and_ready_and_its_token_serves_no_other() {
    let mut real = Real::start(1).await;
    let name = real.line.names()[0].clone();
    let uuid = real.line.site.machines()[0].uuid.clone();
    let user_data = real.deploy(&name).await;
    let node = real.boot(&name, &uuid, &user_data).await;
    real.line.until(&name, |machine| machine["state"] == "in-service").await;

    let shown: Value =
        serde_json::from_str(&kubectl(&real.plane, &["get", "node", &name, "-o", "json"]).await).unwrap();
    assert_eq!(shown["metadata"]["labels"]["node-restriction.kubernetes.io/jurisdiction"], "de");
    assert_eq!(shown["metadata"]["labels"]["node-restriction.kubernetes.io/machine"], name.as_str());
    assert!(!shown["spec"]["taints"].to_string().contains("unverified"), "{}", shown["spec"]);
    let ready = shown["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .any(|c| c["type"] == "Ready" && c["status"] == "True");
    assert!(ready, "{}", shown["status"]["conditions"]);
    drop(node);

    // The token was used once: a copy of it lets nobody in any more.
    let copy = real.line.dir.path().join("copied-kubeconfig");
    std::fs::write(&copy, text(&user_data, "kubeconfig")).unwrap();
    // The API server believes a token for ten seconds after it was deleted; asked for a certificate meanwhile, nobody approves.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        let answer = real.plane.kubectl_as(&copy, &["get", "csr"], None).await.unwrap();
        if !answer.status.success() {
            let refused = answer.stderr.contains("Unauthorized") || answer.stderr.contains("logged in");
            assert!(refused, "{}", answer.stderr);
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the copied token is still taken: {}", answer.stdout);
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_another_machine_is_quarantined_and_never_loses_its_taint() {
    let mut real = Real::start(1).await;
    let name = real.line.names()[0].clone();
    let user_data = real.deploy(&name).await;
    let _node = real.boot(&name, "11111111-2222-3333-4444-555555555555", &user_data).await;
    real.is_set_aside(&name, "node.other-machine").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_claims_another_jurisdiction_is_set_aside_and_does_not_start_with_a_restricted_label()
{
    let mut real = Real::start(1).await;
    let name = real.line.names()[0].clone();
    let uuid = real.line.site.machines()[0].uuid.clone();
    let user_data = real.deploy(&name).await;
    let claims = |label: &str| options(&name, &uuid, &user_data).argument(&format!("--node-labels={label}"));

    // The labels that the cell gives to verified nodes are no kubelet's to set: it ends before it asks for anything.
    let ended = |said: &str| said.contains("labels specified with --node-labels");
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    match claims("node-restriction.kubernetes.io/jurisdiction=fr").start(&real.plane).await {
        // It may have ended before anybody looked.
        Err(error) => assert!(ended(&error.to_string()), "{error}"),
        Ok(node) => {
            while !ended(&node.log()) {
                assert!(tokio::time::Instant::now() < deadline, "{}", node.log());
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
    assert_eq!(kubectl(&real.plane, &["get", "csr,nodes", "-o", "name"]).await, "");

    // Any other label is: the right machine, with its own token, that says it stands elsewhere.
    let _liar = claims("bailiwick.dev/jurisdiction=fr").start(&real.plane).await.unwrap();
    real.is_set_aside(&name, "node.false-claim").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_used_for_another_machines_name_is_denied_and_its_machine_quarantined() {
    let mut real = Real::start(2).await;
    let (name, other) = (real.line.names()[0].clone(), real.line.names()[1].clone());
    let user_data = real.deploy(&name).await;
    let _thief = real.boot(&other, "11111111-2222-3333-4444-555555555555", &user_data).await;
    real.line.until(&name, |machine| machine["state"] == "quarantined").await;
    let requests = kubectl(&real.plane, &["get", "csr", "-o", "json"]).await;
    assert!(requests.contains("BailiwickDenied") && !requests.contains("\"Approved\""), "{requests}");
    assert!(!kubectl(&real.plane, &["get", "nodes", "-o", "name"]).await.contains(&other));
}
