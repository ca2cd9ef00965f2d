//! A cell that publishes to a real API server, and what its real scheduler gives to claims.

use crate::agent::Agent;
use crate::line::profiles;
use crate::support::{Client, Rig, crypto, document, settings};
use bailiwick_cell::{AgentSettings, Cell, Settings, SinkSettings};
use serde_json::{Value, json};
use sim::{Model, Site};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testbed::ControlPlane;

const CELL_USER: &str = "bailiwick-cell";

/// A control plane with a cell's user in it, a simulated DGX H100, and a cell that publishes there.
struct Base {
    plane: ControlPlane,
    rig: Rig,
    machine: String,
    uuid: String,
    agent: Option<Agent>,
}

/// So long a change of a registration takes to reach the cluster, at most.
const SOON: Duration = Duration::from_secs(2);

impl Base {
    async fn start() -> Self {
        Self::on(ControlPlane::start().await.unwrap()).await
    }

    async fn on(plane: ControlPlane) -> Self {
        let role = testbed::repository_root().join("manifests/cell-clusterrole.yaml");
        kubectl(&plane, &["apply", "-f", role.to_str().unwrap()]).await;
        kubectl(
            &plane,
            &[
                "create",
                "clusterrolebinding",
                "cell",
                "--clusterrole=bailiwick-cell",
                &format!("--user={CELL_USER}"),
            ],
        )
        .await;
        let kubeconfig = plane.kubeconfig_for(CELL_USER, &[]).unwrap();
        crypto();
        let dir = TempDir::new().unwrap();
        let site =
            Site::builder(dir.path().join("site")).machines(Model::DgxH100, 1).build().start().await.unwrap();
        let (machine, uuid) = (site.machines()[0].name.clone(), site.machines()[0].uuid.clone());
        let cell = Cell::start(cluster_settings(&dir, kubeconfig)).await.unwrap();
        let client = Client::of(&cell);
        let rig = Rig { dir, site, cell, client };
        rig.enrol_all().await;
        Self { plane, rig, machine, uuid, agent: None }
    }

    /// The machine has a Node that says its UUID, and an agent that the kubelet has registered.
    async fn with_node_and_agent() -> Self {
        let mut base = Self::start().await;
        base.plane.create_node(&base.machine, &base.uuid).await.unwrap();
        base.start_agent().await.register(true);
        base
    }

    async fn start_agent(&mut self) -> &Agent {
        let (cell, path) = (self.rig.cell.agents_address().unwrap(), self.rig.dir.path().join("agent"));
        let agent = Agent::start(&self.rig.client, cell, &self.machine, &self.uuid, &path).await;
        self.agent.insert(agent)
    }

    /// Waits until there are slices, or none. Gives the time that took.
    async fn slices(&self, wanted: bool) -> Duration {
        let began = Instant::now();
        self.eventually(&["get", "resourceslices", "-o", "name"], |text| text.is_empty() != wanted).await;
        began.elapsed()
    }

    async fn why(&self, code: &str) {
        let why = self.rig.client.get(&format!("/api/v1/machines/{}/why", self.machine)).await;
        assert!(why["gpus"].to_string().contains(code), "{why}");
    }

    /// Asks until the answer is what is wanted; the cell looks at the cluster again after each event.
    async fn eventually(&self, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        for _ in 0..600 {
            let answer = kubectl(&self.plane, arguments).await;
            if wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!(
            "{arguments:?}: {} {:?}",
            kubectl(&self.plane, arguments).await,
            self.rig.client.get("/api/v1/publications").await
        );
    }

    /// Has the cell look at the cluster now.
    async fn nudge(&self, class: &str) {
        let class = document("GpuClass", class, json!({ "jurisdiction": "de" }));
        self.rig.client.apply(vec![class], &[]).await;
        self.rig.client.wait_until_published().await;
    }
}

fn cluster_settings(dir: &TempDir, kubeconfig: PathBuf) -> Settings {
    Settings {
        sinks: vec![SinkSettings::Cluster { kubeconfig: Some(kubeconfig), context: None }],
        cluster_user: CELL_USER.to_owned(),
        agents: Some(AgentSettings::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))),
        ..settings(dir)
    }
}

async fn kubectl(plane: &ControlPlane, arguments: &[&str]) -> String {
    plane.kubectl(arguments, None).await.unwrap().success().unwrap()
}

/// A pod that waits for one GPU of a class.
fn claim_and_pod(name: &str, class: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": { "name": name, "namespace": "default" },
          "spec": { "devices": { "requests": [{ "name": "gpu", "exactly": { "deviceClassName": class } }] } } },
        { "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" }, "spec": {
            "containers": [{ "name": "c", "image": "example.com/none", "resources": { "claims": [{ "name": "gpu" }] } }],
            "resourceClaims": [{ "name": "gpu", "resourceClaimName": name }] } },
    ]})
}

#[tokio::test(flavor = "multi_thread")]
async fn gpus_of_a_verified_node_can_be_claimed_by_a_trial_class_and_by_no_other() {
    let mut base = Base::start().await;
    base.rig.client.wait_until_published().await;
    let publication = base.rig.client.get("/api/v1/publications").await;
    assert_eq!(publication[0]["problem"], Value::Null, "{publication}");

    // Without a verified Node the classes are there and no slice is; `why` says so.
    assert!(kubectl(&base.plane, &["get", "deviceclass", "-o", "name"]).await.contains("trial"));
    assert_eq!(kubectl(&base.plane, &["get", "resourceslices", "-o", "name"]).await, "");
    base.why("publish.node-missing").await;

    // A Node of that name with another UUID is not verified.
    base.plane.create_node(&base.machine, "00000000-0000-0000-0000-00000000beef").await.unwrap();
    base.nudge("nudge-1").await;
    assert_eq!(kubectl(&base.plane, &["get", "resourceslices", "-o", "name"]).await, "");
    base.why("publish.node-mismatch").await;

    kubectl(&base.plane, &["delete", "node", &base.machine]).await;
    base.plane.create_node(&base.machine, &base.uuid).await.unwrap();
    base.nudge("nudge-2").await;
    base.why("publish.agent-missing").await;
    base.start_agent().await;
    base.rig.client.wait_for_event("agent.probed", &base.machine).await;
    base.nudge("nudge-3").await;
    base.why("publish.plugin-missing").await;
    assert_eq!(kubectl(&base.plane, &["get", "resourceslices", "-o", "name"]).await, "");
    base.agent.as_ref().unwrap().register(true);
    let slices =
        base.eventually(&["get", "resourceslices", "-o", "json"], |text| text.contains("\"devices\"")).await;
    let slices: Value = serde_json::from_str(&slices).unwrap();
    assert_eq!(slices["items"][0]["spec"]["devices"].as_array().unwrap().len(), 8);

    for (name, class) in [("hopeful", "trial"), ("hopeless", "proven")] {
        let objects = claim_and_pod(name, class).to_string();
        base.plane.kubectl(&["create", "-f", "-"], Some(&objects)).await.unwrap().success().unwrap();
    }
    let device = "jsonpath={.status.allocation.devices.results[0].device}";
    let got =
        base.eventually(&["get", "resourceclaim", "hopeful", "-o", device], |text| !text.is_empty()).await;
    base.nudge("nudge-4").await;
    let gpus = base.rig.client.get("/api/v1/gpus").await;
    let gpu = gpus["items"].as_array().unwrap().iter().find(|gpu| gpu["device"] == got.as_str()).unwrap();
    assert_eq!((gpu["jurisdiction"].as_str(), gpu["allocatableBy"].clone()), (Some("de"), json!(["trial"])));
    assert_eq!(
        (&gpu["allocatedTo"][0]["namespace"], &gpu["allocatedTo"][0]["claim"]),
        (&json!("default"), &json!("hopeful"))
    );
    let refused = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}";
    base.eventually(&["get", "pod", "hopeless", "-o", refused], |text| text.contains("cannot allocate"))
        .await;
    assert_eq!(kubectl(&base.plane, &["get", "resourceclaim", "hopeless", "-o", device]).await, "");

    // A second look writes nothing, and a restarted cell neither.
    let versions = [
        "get",
        "resourceslices,deviceclasses,validatingadmissionpolicybindings",
        "-o",
        "jsonpath={.items[*].metadata.resourceVersion}",
    ];
    let before = kubectl(&base.plane, &versions).await;
    // No agent reports to the cell that is started again, at its new address, and none is blamed for that yet.
    let Base { plane, rig, .. } = base;
    let Rig { dir, site, cell, .. } = rig;
    let kubeconfig = cell.settings().sinks.clone();
    cell.shutdown().await;
    let cell =
        Cell::start(Settings { sinks: kubeconfig, ..cluster_settings(&dir, PathBuf::new()) }).await.unwrap();
    let client = Client::of(&cell);
    client.wait_until_published().await;
    assert_eq!(kubectl(&plane, &versions).await, before);
    drop(site);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_cannot_write_our_slices_and_what_others_take_away_is_back_within_two_seconds() {
    let base = Base::with_node_and_agent().await;
    let slices =
        base.eventually(&["get", "resourceslices", "-o", "json"], |text| text.contains("\"devices\"")).await;
    let slices: Value = serde_json::from_str(&slices).unwrap();
    let mut slice = slices["items"][0].clone();
    let name = slice["metadata"]["name"].as_str().unwrap().to_owned();
    slice["metadata"] = json!({ "name": "forged" });
    let kubelet =
        base.plane.kubeconfig_for(&format!("system:node:{}", base.machine), &["system:nodes"]).unwrap();
    let forged =
        base.plane.kubectl_as(&kubelet, &["create", "-f", "-"], Some(&slice.to_string())).await.unwrap();
    assert!(!forged.status.success());
    assert!(forged.stderr.contains("bailiwick-slices"), "{}", forged.stderr);

    // A kubelet may wipe its node's slices, an administrator may delete all. Nothing else happens that the cell would look for.
    base.rig.client.wait_until_published().await;
    let admin = base.plane.kubeconfig_admin().to_owned();
    for (who, kind, name) in [
        (&kubelet, "resourceslice", name.as_str()),
        (&admin, "deviceclass", "trial"),
        (&admin, "validatingadmissionpolicy", "bailiwick-claims"),
        (&admin, "validatingadmissionpolicybinding", "bailiwick-claims"),
    ] {
        let uid = ["get", kind, name, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}"];
        let before = kubectl(&base.plane, &uid).await;
        let delete = base.plane.kubectl_as(who, &["delete", kind, name], None).await.unwrap();
        let deleted = Instant::now();
        delete.success().unwrap();
        base.eventually(&uid, |uid| !uid.is_empty() && uid != before).await;
        let took = deleted.elapsed();
        println!("{kind}/{name} is back {took:?} after somebody deleted it");
        assert!(took < SOON, "{kind}/{name}: {took:?}");
    }
}

/// A pod that asks for one GPU by an extended resource, and ends at once when it has to.
fn pod_by_extended_resource(name: &str, resource: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": name } },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "c", "image": "example.com/none", "resources": { "limits": { resource: 1 } } }],
        },
    })
}

impl Base {
    async fn create(&self, object: &Value) {
        let created = self.plane.kubectl(&["create", "-f", "-"], Some(&object.to_string())).await;
        created.unwrap().success().unwrap();
    }

    /// Where among the GPUs of the machine the one is that the scheduler gave to a pod.
    async fn gpu_of(&self, pod: &str) -> usize {
        let holds = |claim: &Value| claim["status"]["reservedFor"][0]["name"] == pod;
        let claims = ["get", "resourceclaims", "-o", "json"];
        let of = |text: &str| -> Value {
            let all: Value = serde_json::from_str(text).unwrap();
            let mut claims = all["items"].as_array().unwrap().iter();
            claims.find(|claim| holds(claim)).cloned().unwrap_or_default()
        };
        let claim = of(&self.eventually(&claims, |text| !of(text).is_null()).await);
        let device = &claim["status"]["allocation"]["devices"]["results"][0]["device"];
        let gpus = self.rig.client.get("/api/v1/gpus").await;
        gpus["items"].as_array().unwrap().iter().position(|gpu| gpu["device"] == *device).unwrap()
    }

    /// The driver tells something else of a GPU.
    fn change_gpu(&self, at: usize, change: impl FnOnce(&mut domain::probe::ProbedGpu)) {
        self.agent.as_ref().unwrap().host.send_modify(|host| {
            change(&mut std::sync::Arc::make_mut(&mut host.probe).gpus[at]);
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_a_gpu_whose_gate_has_closed_is_evicted_as_disruption_budgets_allow() {
    let base = Base::with_node_and_agent().await;
    let spec = json!({ "jurisdiction": "de", "requires": ["probed"], "extendedResource": true });
    let class = document("GpuClass", "counted", spec);
    base.rig.client.apply([profiles(), vec![class]].concat(), &[]).await;
    for pod in ["fails", "moves", "stays"] {
        base.create(&pod_by_extended_resource(pod, "gpu.bailiwick.dev/counted")).await;
    }
    let (fails, moves) = (base.gpu_of("fails").await, base.gpu_of("moves").await);
    assert_ne!(fails, moves);
    assert_ne!(base.gpu_of("stays").await, fails);
    // As a kubelet would say; a pod that does not run yet is not protected by a budget.
    let running =
        ["patch", "pod", "fails", "--subresource=status", "-p", r#"{"status":{"phase":"Running"}}"#];
    kubectl(&base.plane, &running).await;
    base.create(&json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "budget", "namespace": "default" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "fails" } } },
    }))
    .await;

    base.change_gpu(fails, |gpu| {
        gpu.health.push(domain::probe::Finding {
            severity: domain::probe::Severity::Critical,
            code: "gpu.health.xid".into(),
            message: "the driver reported XID 119".into(),
        });
    });
    let stays = format!("Machine/{} Pod/default/fails", base.machine);
    let deadline = Instant::now() + Duration::from_mins(1);
    while left_out(&base, "publish.holder-stays").await != [stays.clone()] {
        assert!(Instant::now() < deadline, "{:#}", base.rig.client.get("/api/v1/publications").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    base.why("publish.holder-stays").await;
    kubectl(&base.plane, &["delete", "pdb", "budget"]).await;
    let pods = ["get", "pods", "-o", "name"];
    base.eventually(&pods, |pods| !pods.contains("pod/fails")).await;
    let event = base.rig.client.wait_for_event("pod.evicted", &base.machine).await;
    assert_eq!((&event["data"]["pod"], &event["data"]["code"]), (&json!("fails"), &json!("gpu.health.xid")));

    // It is another GPU than it was taken for, and in no slice any more.
    base.change_gpu(moves, |gpu| gpu.serial = Some("1650000000000".into()));
    base.eventually(&pods, |pods| !pods.contains("pod/moves")).await;
    assert_eq!(kubectl(&base.plane, &pods).await.trim(), "pod/stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_resource_that_the_server_drops_is_told_as_long_as_it_does() {
    let plane = ControlPlane::options().scheduler(false).without("DRAExtendedResource");
    let base = Base::on(plane.start().await.unwrap()).await;
    let spec = json!({ "jurisdiction": "de", "extendedResource": true });
    base.rig.client.apply(vec![document("GpuClass", "counted", spec)], &[]).await;
    for nudge in ["nudge-1", "nudge-2"] {
        base.nudge(nudge).await;
        assert_eq!(left_out(&base, "publish.fields-dropped").await, ["DeviceClass/counted"]);
    }
    assert!(kubectl(&base.plane, &["get", "deviceclasses", "-o", "name"]).await.contains("/counted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_took_the_name_of_an_extended_resource_before_the_policies_is_told() {
    let plane = ControlPlane::options().scheduler(false).start().await.unwrap();
    let rival = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": { "name": "rival" },
        "spec": { "extendedResourceName": "gpu.bailiwick.dev/counted" },
    });
    plane.kubectl(&["create", "-f", "-"], Some(&rival.to_string())).await.unwrap().success().unwrap();
    let base = Base::on(plane).await;
    let spec = json!({ "jurisdiction": "de", "extendedResource": true });
    base.rig.client.apply(vec![document("GpuClass", "counted", spec)], &[]).await;
    base.rig.client.wait_until_published().await;
    assert_eq!(left_out(&base, "publish.extended-resource-taken").await, ["DeviceClass/rival"]);
    let name = ["get", "deviceclass", "counted", "-o", "jsonpath={.spec.extendedResourceName}"];
    assert_eq!(kubectl(&base.plane, &name).await, "gpu.bailiwick.dev/counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_follow_the_registration_of_the_nodes_plugin_within_two_seconds() {
    let base = Base::with_node_and_agent().await;
    let agent = base.agent.as_ref().unwrap();
    base.slices(true).await;
    base.rig.client.wait_until_published().await;
    agent.register(false);
    let gone = base.slices(false).await;
    // Also when the cell publishes something else meanwhile.
    base.nudge("while-away").await;
    assert_eq!(kubectl(&base.plane, &["get", "resourceslices", "-o", "name"]).await, "");
    agent.register(true);
    let back = base.slices(true).await;
    // As a kubelet that is started again: it wipes, and registers the plugin anew.
    kubectl(&base.plane, &["delete", "resourceslices", "--all"]).await;
    agent.register(true);
    let again = base.slices(true).await;
    println!("slices gone after {gone:?}, back after {back:?}, back after a wipe {again:?}");
    assert!(gone < SOON && back < SOON && again < SOON, "{gone:?} {back:?} {again:?}");
}

/// What the cell says was left out of a cluster, with this code: the objects.
async fn left_out(base: &Base, code: &str) -> Vec<String> {
    let publications = base.rig.client.get("/api/v1/publications").await;
    let left_out = publications[0]["leftOut"].as_array().unwrap();
    let of_code = left_out.iter().filter(|problem| problem["code"] == code);
    of_code.map(|problem| problem["at"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_refuses_is_told_and_tried_again_and_stops_nothing_else() {
    let base = Base::with_node_and_agent().await;
    base.slices(true).await;
    // An administrator's policy: one class is not wanted, and slices from none but nodes. Where it refused the proof's dry run too, the
    // API server would name either policy as it likes.
    let policy = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": { "name": "picky" },
          "spec": {
              "matchConstraints": { "resourceRules": [{
                  "apiGroups": ["resource.k8s.io"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
                  "resources": ["deviceclasses", "resourceslices"] }] },
              "validations": [{
                  "expression": "object.kind == 'ResourceSlice' ? object.spec.driver != 'gpu.bailiwick.dev' || request.userInfo.username.startsWith('system:node:') : object.metadata.name != 'a-refused'",
                  "message": "not here" }] } },
        { "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": { "name": "picky" },
          "spec": { "policyName": "picky", "validationActions": ["Deny"] } },
    ]});
    base.plane.kubectl(&["create", "-f", "-"], Some(&policy.to_string())).await.unwrap().success().unwrap();
    let probe = json!({ "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": { "name": "a-refused" }, "spec": {} });
    loop {
        let arguments = ["create", "--dry-run=server", "-f", "-"];
        let answer = base.plane.kubectl(&arguments, Some(&probe.to_string())).await.unwrap();
        if answer.stderr.contains("not here") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    kubectl(&base.plane, &["delete", "resourceslices", "--all"]).await;
    base.nudge("a-refused").await;
    base.nudge("b-taken").await;
    let classes = kubectl(&base.plane, &["get", "deviceclasses", "-o", "name"]).await;
    assert!(classes.contains("/b-taken") && !classes.contains("/a-refused"), "{classes}");
    let refused = left_out(&base, "publish.refused").await;
    assert_eq!(
        refused,
        ["DeviceClass/a-refused".to_owned(), format!("Machine/{0} ResourceSlice/{0}-gpu-00", base.machine)]
    );
    base.why("publish.refused").await;

    kubectl(&base.plane, &["delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "picky"])
        .await;
    base.eventually(&["get", "deviceclasses", "-o", "name"], |text| text.contains("/a-refused")).await;
    base.slices(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_rights_to_prove_the_policy_nothing_is_published() {
    let base = Base::start().await;
    base.plane.create_node(&base.machine, &base.uuid).await.unwrap();
    base.rig.client.wait_until_published().await;
    // The cell may no longer impersonate the kubelet, so nothing is proven any more.
    let rules = r#"[{"op":"remove","path":"/rules/5"},{"op":"remove","path":"/rules/5"}]"#;
    kubectl(&base.plane, &["patch", "clusterrole", "bailiwick-cell", "--type=json", "-p", rules]).await;
    let class = document("GpuClass", "late", json!({ "jurisdiction": "de" }));
    base.rig.client.apply(vec![class], &[]).await;
    loop {
        let publication = base.rig.client.get("/api/v1/publications").await;
        if publication[0]["problem"]["code"] == "publish.policy-unproven" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!kubectl(&base.plane, &["get", "deviceclass", "-o", "name"]).await.contains("late"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_whose_user_is_not_the_one_that_may_write_writes_nothing() {
    let plane = ControlPlane::start().await.unwrap();
    crypto();
    let dir = TempDir::new().unwrap();
    let settings =
        cluster_settings(&dir, plane.kubeconfig_for("somebody-else", &["system:masters"]).unwrap());
    let cell = Cell::start(settings).await.unwrap();
    let client = Client::of(&cell);
    loop {
        let publication = client.get("/api/v1/publications").await;
        let problem = &publication[0]["problem"];
        if !problem.is_null() {
            assert_eq!(
                (problem["code"].as_str(), problem["found"].as_str()),
                (Some("publish.cluster-user"), Some("somebody-else"))
            );
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(kubectl(&plane, &["get", "validatingadmissionpolicies", "-o", "name"]).await, "");
}
