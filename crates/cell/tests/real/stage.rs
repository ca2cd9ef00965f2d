//! The counterparts, the cell between them, and the few moves that all scenarios are made of.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailiwick_cell::{
    Cell, IronicSettings, Metal3Settings, ProvisionerSettings, RunningCell, ServiceSettings, Settings,
};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use sim::{Bmc, Cluster, RunningSite, SimMachine};
use tempfile::TempDir;
use testbed::{BaremetalOperator, ControlPlane, Ironic};

use crate::rack::{Kubelets, rack};
use crate::support::{Client, crypto, document, settings, world};

/// A scenario's end, or why it failed.
pub type Outcome = Result<(), String>;

pub type Scenario<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Longest wait for one thing.
const PATIENCE: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(200);

/// Which of them is the cell's provisioning service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Ironic,
    Metal3,
}

impl Service {
    /// What the cell calls it, and what the names of its machines begin with.
    fn name(self) -> &'static str {
        match self {
            Self::Ironic => "ironic",
            Self::Metal3 => "metal3",
        }
    }
}

/// baremetal-operator and the cluster that its objects are in.
pub struct Management {
    // Dropped in this order.
    operator: BaremetalOperator,
    plane: ControlPlane,
}

pub struct Stage {
    pub ironic: Ironic,
    management: Option<Management>,
    pub cluster: Cluster,
    pub kubelets: Arc<Kubelets>,
    pub client: Client,
    http: reqwest::Client,
    site: RunningSite,
    _cell: RunningCell,
    begun: Instant,
    /// A plan is stale once another one was applied: the scenarios take turns.
    turn: tokio::sync::Mutex<()>,
    _directory: TempDir,
}

impl Stage {
    pub async fn start(service: Service, machines: usize) -> Self {
        crypto();
        let begun = Instant::now();
        let ironic = Ironic::options()
            .setting("conductor", "power_state_change_timeout", "20")
            // It asks every BMC for its power state, and that is most of what it then does.
            .setting("conductor", "sync_power_state_interval", "600")
            // As the settings of the cell say: automated cleaning erases whole disks.
            .setting("deploy", "erase_devices_priority", "20")
            .start()
            .await
            .unwrap();
        let management = match service {
            Service::Ironic => None,
            Service::Metal3 => Some(Management::start(&ironic, machines).await),
        };
        let cluster = Cluster::start().await.unwrap();
        let kubelets = Kubelets::new(&cluster);
        let directory = TempDir::new().unwrap();
        let site = directory.path().join("site");
        let site = rack(&site, &ironic, Arc::clone(&kubelets), service.name(), machines).await;

        let secrets = directory.path().join("secrets");
        std::fs::create_dir_all(secrets.join("pool")).unwrap();
        std::fs::write(secrets.join("pool/kubeconfig"), cluster.kubeconfig()).unwrap();
        let provisioner = ProvisionerSettings {
            name: service.name().to_owned(),
            sites: Vec::new(),
            at_once: 32,
            service: match &management {
                Some(management) => ServiceSettings::Metal3(management.settings().await),
                None => ServiceSettings::Ironic(IronicSettings {
                    url: ironic.url().to_owned(),
                    agent_iso: Some(ironic.agent_iso_url()),
                    ..IronicSettings::default()
                }),
            },
        };
        let settings =
            Settings { secrets_dir: Some(secrets), provisioners: vec![provisioner], ..settings(&directory) };
        let cell = Cell::start(settings).await.unwrap();
        let client = Client::of(&cell);
        let stage = Self {
            ironic,
            management,
            cluster,
            kubelets,
            client,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            site,
            _cell: cell,
            begun,
            turn: tokio::sync::Mutex::default(),
            _directory: directory,
        };
        stage.apply(stage.declarations(), &[]).await;
        figure("all counterparts", "up", begun);
        stage
    }

    /// A site, the published profile of the simulated machine, and a base cluster for each image.
    fn declarations(&self) -> Vec<Value> {
        let mut all = world();
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../firmware-profiles/simulated-sn-2u-epyc.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        all.extend(
            domain::manifest::read("profile", &text).unwrap().iter().map(|one| one.declaration.to_json()),
        );
        let disk = |checksum: &str| json!({ "disk": { "url": self.ironic.disk_image_url(), "checksum": checksum, "format": "raw" } });
        let good = disk(self.ironic.disk_image_sha256());
        let (bad, live) = (disk(&"0".repeat(64)), json!({ "live": { "iso": self.ironic.live_iso_url() } }));
        for (name, image) in [("disk", &good), ("bad", &bad), ("live", &live)] {
            all.push(document("BaseCluster", name, json!({
                "jurisdiction": "de", "site": "fra1", "kubernetesVersion": "1.36.3", "controlPlane": "external",
                "endpoint": "https://127.0.0.1:6443", "kubeconfig": { "name": "pool", "key": "kubeconfig" },
                "join": "kubeadm", "image": image,
            })));
        }
        all
    }

    async fn apply(&self, documents: Vec<Value>, passwords: &[(String, String)]) {
        let _turn = self.turn.lock().await;
        self.client.apply(documents, passwords).await;
    }

    pub fn subject(&self, n: usize) -> Subject<'_> {
        let machine = &self.site.machines()[n];
        let bmc = Arc::clone(self.site.bmc(&machine.name).unwrap());
        Subject { stage: self, machine, bmc }
    }

    /// Plays all scenarios at once; of a failed one, what the services said is shown.
    pub async fn play(
        &self,
        scenarios: Vec<(&'static str, Scenario<'_>)>,
    ) -> BTreeMap<&'static str, Outcome> {
        let played = scenarios.into_iter().map(|(name, scenario)| async move {
            let outcome = AssertUnwindSafe(scenario).catch_unwind().await;
            figure(name, "done", self.begun);
            (name, outcome.map_err(|panic| said(panic.as_ref())))
        });
        let outcomes: BTreeMap<_, _> = futures_util::future::join_all(played).await.into_iter().collect();
        if outcomes.values().any(Result::is_err) {
            let log = self.ironic.log();
            let errors = log.lines().filter(|line| line.contains(" ERROR ")).collect::<Vec<_>>().join("\n");
            println!("Ironic's errors:\n{errors}");
            if let Some(management) = &self.management {
                println!("the operator's last words:\n{}", management.log());
            }
        }
        outcomes
    }

    /// Ironic's node of this name; `null` where there is none.
    pub async fn node(&self, name: &str) -> Value {
        let request = self.http.get(format!("{}/v1/nodes/{name}", self.ironic.url()));
        let answer = request.header("X-OpenStack-Ironic-API-Version", "1.95").send().await.unwrap();
        if answer.status() == 404 {
            return Value::Null;
        }
        answer.error_for_status().unwrap().json().await.unwrap()
    }

    pub fn management(&self) -> &Management {
        self.management.as_ref().unwrap()
    }
}

impl Management {
    async fn start(ironic: &Ironic, machines: usize) -> Self {
        let plane = ControlPlane::options().scheduler(false).start().await.unwrap();
        let operator = BaremetalOperator::options().concurrency(u32::try_from(machines).unwrap());
        let operator = operator.start(&plane, ironic).await.unwrap();
        Self { operator, plane }
    }

    async fn settings(&self) -> Metal3Settings {
        Metal3Settings {
            kubeconfig: cells_kubeconfig(&self.plane, self.namespace()).await,
            namespace: self.namespace().to_owned(),
            inspect: true,
            clean: true,
            erases_disks: true,
            verify_bmc: false,
        }
    }

    pub fn namespace(&self) -> &str {
        self.operator.namespace()
    }

    /// For what goes well alone: a failure that is tried again at once is hard to see.
    pub async fn hurry(&self) {
        self.operator.hurry(&self.plane, Duration::from_secs(2)).await;
    }

    /// What the operator said so far.
    pub fn log(&self) -> String {
        self.operator.log()
    }

    /// What kubectl prints for the administrator, in the namespace of the hosts.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        let namespace = format!("--namespace={}", self.namespace());
        let arguments: Vec<_> = arguments.iter().copied().chain([namespace.as_str()]).collect();
        self.plane.kubectl(&arguments, None).await.unwrap().success().unwrap()
    }
}

/// Shows what was measured.
fn figure(who: &str, what: &str, begun: Instant) {
    println!("{who}: {what} {:.1} s", begun.elapsed().as_secs_f64());
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
}

/// A kubeconfig of a user who may do what `docs/how-to/provision-machines.md` lists, and nothing else.
async fn cells_kubeconfig(plane: &ControlPlane, namespace: &str) -> std::path::PathBuf {
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs });
    let rules = [
        rule("metal3.io", "baremetalhosts", &["get", "list", "create", "patch", "delete"]),
        rule("metal3.io", "hardwaredata", &["get"]),
        rule("", "secrets", &["get", "create", "patch", "delete"]),
    ];
    let group = "rbac.authorization.k8s.io";
    let (version, metadata) = (format!("{group}/v1"), json!({ "name": "cell", "namespace": namespace }));
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": version, "kind": "Role", "metadata": metadata, "rules": rules },
        { "apiVersion": version, "kind": "RoleBinding", "metadata": metadata,
            "roleRef": { "apiGroup": group, "kind": "Role", "name": "cell" },
            "subjects": [{ "apiGroup": group, "kind": "User", "name": "cell" }] },
    ]});
    plane.kubectl(&["create", "-f", "-"], Some(&list.to_string())).await.unwrap().success().unwrap();
    plane.kubeconfig_for("cell", &[]).unwrap()
}

/// A machine on its way through one of the services.
pub struct Subject<'a> {
    pub stage: &'a Stage,
    pub machine: &'a SimMachine,
    pub bmc: Arc<Bmc>,
}

impl Subject<'_> {
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    pub async fn declare(&self) {
        let machine = self.machine;
        let address = format!("{}:{}", machine.address, machine.port);
        let declared = document(
            "Machine",
            &machine.name,
            json!({
                "site": "fra1", "bmc": { "address": address, "username": machine.username, "passwordFile": "pw" },
            }),
        );
        self.stage.apply(vec![declared], &[(machine.name.clone(), machine.password.clone())]).await;
    }

    /// Asks for it to be a node of this base cluster, named after its image.
    pub async fn serve(&self, cluster: &str) {
        self.assign(json!({ "baseCluster": cluster })).await;
    }

    pub async fn assign(&self, spec: Value) {
        self.stage.apply(vec![document("Assignment", self.name(), spec)], &[]).await;
    }

    /// Takes its assignment away.
    pub async fn release(&self) {
        let delete = json!({ "delete": [{ "kind": "Assignment", "name": self.name() }] });
        let _turn = self.stage.turn.lock().await;
        let (status, plan) = self.stage.client.call("POST", "/api/v1/plans", Some(delete)).await;
        assert_eq!(status, 200, "{plan}");
        let path = format!("/api/v1/plans/{}/apply", plan["digest"].as_str().unwrap());
        let (status, applied) = self.stage.client.call("POST", &path, None).await;
        assert_eq!(status, 200, "{applied}");
    }

    /// Somebody says that what was wrong is mended: nobody waits for the next try.
    pub async fn refresh(&self) {
        let (status, answer) = self.stage.client.call("POST", &self.path("refresh"), None).await;
        assert!(status < 300, "{answer}");
    }

    fn path(&self, what: &str) -> String {
        format!("/api/v1/machines/{}/{what}", self.name())
    }

    pub async fn becomes(&self, state: &str) {
        let begun = Instant::now();
        self.until(&format!("become {state}"), |machine| machine["state"] == state).await;
        figure(self.name(), state, begun);
    }

    /// Waits until the machine waits with this code, and `why` tells it with a remedy; gives what it tells.
    pub async fn waits_for(&self, code: &str) -> String {
        let begun = Instant::now();
        loop {
            self.until(&format!("wait for {code}"), |machine| machine["waiting"]["problem"]["code"] == code)
                .await;
            let why = self.stage.client.get(&self.path("why")).await;
            // It may have gone on between the two questions.
            let problem = &why["waiting"]["problem"];
            if problem["code"] == code {
                assert!(problem["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{why}");
                assert!(why["waiting"]["until"].is_string() || why["unblock"].is_string(), "{why}");
                figure(self.name(), code, begun);
                return problem["message"].as_str().unwrap().to_owned();
            }
        }
    }

    pub async fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let machine = self.stage.client.get(&format!("/api/v1/machines/{}", self.name())).await;
            if wanted(&machine) {
                return machine;
            }
            if Instant::now() > deadline {
                let history = self.stage.client.get(&self.path("history")).await;
                panic!(
                    "{} did not {what}: {} {:#}\n{history:#}",
                    self.name(),
                    machine["state"],
                    machine["waiting"]
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until something is true that nobody tells of.
    pub async fn comes_true(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let (begun, deadline) = (Instant::now(), Instant::now() + PATIENCE);
        while !is_so().await {
            assert!(Instant::now() < deadline, "{}: never {what}", self.name());
            tokio::time::sleep(POLL).await;
        }
        figure(self.name(), what, begun);
    }

    /// What the service was asked to do, in order.
    pub async fn acted(&self) -> Vec<String> {
        let history = self.stage.client.get(&self.path("history")).await;
        let acted = history.as_array().unwrap().iter().filter(|event| event["kind"] == "machine.acted");
        acted.map(|event| event["data"]["action"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The records of its erasures, the newest first.
    pub async fn erasures(&self) -> Vec<Value> {
        self.stage.client.get(&self.path("erasures")).await.as_array().unwrap().clone()
    }

    /// The node in the base cluster.
    pub fn node(&self) -> Option<Value> {
        self.stage.cluster.object(&format!("/api/v1/nodes/{}", self.name()))
    }

    /// It is in service, and its node is verified.
    pub async fn in_service(&self) {
        self.becomes("in-service").await;
        let node = self.node().unwrap();
        let labels = &node["metadata"]["labels"];
        assert_eq!(labels["node-restriction.kubernetes.io/machine"], self.name(), "{node}");
        assert_eq!(node["spec"]["taints"], json!([]), "{node}");
    }
}
