//! A rack, an Ironic, a base cluster, all simulated, and a cell that brings machines through them.

use crate::support::{Client, crypto, document, settings, world};
use bailiwick_cell::{Cell, IronicSettings, ProvisionerSettings, RunningCell, ServiceSettings, Settings};
use serde_json::{Value, json};
use sim::ironic::{IronicBuilder, IronicEndpoint, NodeEvent};
use sim::{Cluster, Model, RunningSite, Site};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Everything between a rack and a base cluster. Goes with the test.
pub(crate) struct Line {
    pub dir: TempDir,
    pub site: RunningSite,
    pub ironic: IronicEndpoint,
    pub cluster: Cluster,
    pub hosts: Hosts,
    /// Runs as long as the line is there.
    pub cell: RunningCell,
    pub client: Client,
}

/// What a simulated host does when Ironic has deployed it, told its name, its system UUID and its user data.
pub(crate) type Boot = Box<dyn Fn(&Cluster, &str, &str, &str) + Send + Sync>;

/// What all hosts do from now on.
pub(crate) type Hosts = Arc<Mutex<Boot>>;

/// Unless told otherwise, a host's kubelet joins with what the configuration drive holds.
pub(crate) fn boots(
    cluster: &Cluster,
    uuids: BTreeMap<String, String>,
    hosts: &Hosts,
) -> impl Fn(NodeEvent) + Send + Sync + 'static {
    let (cluster, hosts) = (cluster.clone(), Arc::clone(hosts));
    move |event| match event {
        NodeEvent::Deployed(instance) => {
            let name = instance.name.unwrap_or_default();
            let drive = instance.config_drive.as_ref();
            let user_data = drive.and_then(|drive| drive.user_data()).unwrap_or_default();
            let uuid = uuids.get(&name).map_or("", String::as_str);
            (hosts.lock().unwrap())(&cluster, &name, uuid, user_data);
        }
        NodeEvent::Undeployed(instance) => cluster.switch_off(&instance.name.unwrap_or_default()),
        _ => {}
    }
}

/// Its kubelet joins.
pub(crate) fn joins(cluster: &Cluster, name: &str, uuid: &str, user_data: &str) {
    cluster.boot(name, uuid, user_data);
}

impl Line {
    pub(crate) async fn start(machines: usize) -> Self {
        Self::with(machines, |ironic| ironic, |_| {}).await
    }

    /// With another Ironic, or other settings.
    pub(crate) async fn with(
        machines: usize,
        ironic: impl FnOnce(IronicBuilder) -> IronicBuilder,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        Self::of(Model::CpuNode, machines, ironic, change).await
    }

    /// Of another model.
    pub(crate) async fn of(
        model: Model,
        machines: usize,
        ironic: impl FnOnce(IronicBuilder) -> IronicBuilder,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        crypto();
        let dir = TempDir::new().unwrap();
        let site = Site::builder(dir.path().join("site")).machines(model, machines).build();
        let site = site.start().await.unwrap();
        let cluster = Cluster::start().await.unwrap();
        let uuids =
            site.machines().iter().map(|machine| (machine.name.clone(), machine.uuid.clone())).collect();
        let hosts: Hosts = Arc::new(Mutex::new(Box::new(joins)));
        let ironic =
            ironic(IronicEndpoint::builder()).on_event(boots(&cluster, uuids, &hosts)).start().unwrap();
        let secrets = dir.path().join("secrets");
        std::fs::create_dir_all(secrets.join("pool")).unwrap();
        std::fs::write(secrets.join("pool/kubeconfig"), cluster.kubeconfig()).unwrap();
        let mut settings = Settings { secrets_dir: Some(secrets), ..settings(&dir) };
        settings.provisioners = vec![ProvisionerSettings {
            name: "ironic".into(),
            sites: Vec::new(),
            at_once: 32,
            service: ServiceSettings::Ironic(IronicSettings {
                url: ironic.url().to_owned(),
                ..IronicSettings::default()
            }),
        }];
        change(&mut settings);
        let cell = Cell::start(settings).await.unwrap();
        let client = Client::of(&cell);
        Self { dir, site, ironic, cluster, hosts, cell, client }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.site.machines().iter().map(|machine| machine.name.clone()).collect()
    }

    /// Declares site, profile, machines and base cluster.
    pub(crate) async fn declare(&self) {
        self.declare_with(&json!({})).await;
    }

    /// The same; the BMCs are declared with these fields more.
    pub(crate) async fn declare_with(&self, more: &Value) {
        self.declare_machines(more, None).await;
    }

    /// Once more, with other fields and another password.
    pub(crate) async fn redeclare(&self, more: &Value, password: &str) {
        self.declare_machines(more, Some(password)).await;
    }

    async fn declare_machines(&self, more: &Value, password: Option<&str>) {
        let mut all = world();
        all.extend(profiles());
        all.extend(self.site.machines().iter().map(|machine| {
            let mut bmc = json!({
                "address": format!("{}:{}", machine.address, machine.port), "username": machine.username,
                "passwordFile": "pw",
            });
            bmc.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            document("Machine", &machine.name, json!({ "site": "fra1", "bmc": bmc }))
        }));
        all.push(pool());
        let passwords: Vec<_> = self
            .site
            .machines()
            .iter()
            .map(|machine| (machine.name.clone(), password.unwrap_or(&machine.password).to_owned()))
            .collect();
        self.client.apply(all, &passwords).await;
    }

    /// Asks for all machines to be this, and waits until they are.
    pub(crate) async fn assign(&self, spec: Value, state: &str) {
        let all = self.names().iter().map(|name| document("Assignment", name, spec.clone())).collect();
        self.client.apply(all, &[]).await;
        self.arrive(state).await;
    }

    /// Takes all assignments away, and waits until the machines are on the shelf.
    pub(crate) async fn release(&self) {
        self.unassign().await;
        self.arrive("available").await;
    }

    /// Takes all assignments away.
    pub(crate) async fn unassign(&self) {
        let delete: Vec<_> =
            self.names().iter().map(|name| json!({ "kind": "Assignment", "name": name })).collect();
        let (status, plan) =
            self.client.call("POST", "/api/v1/plans", Some(json!({ "delete": delete }))).await;
        assert_eq!(status, 200, "{plan}");
        let digest = plan["digest"].as_str().unwrap();
        let (status, applied) =
            self.client.call("POST", &format!("/api/v1/plans/{digest}/apply"), None).await;
        assert_eq!(status, 200, "{applied}");
    }

    /// Waits until every machine is in this state.
    pub(crate) async fn arrive(&self, state: &str) {
        for name in self.names() {
            self.until(&name, |machine| machine["state"] == state).await;
        }
    }

    /// Waits until a machine is so; the list is looked at after each event.
    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_mins(3);
        loop {
            let machine = self.client.get(&format!("/api/v1/machines/{name}")).await;
            if wanted(&machine) {
                return machine;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{name} did not get there: {} {:#}\n{:#}",
                machine["state"],
                machine["waiting"],
                self.client.get(&format!("/api/v1/machines/{name}/history")).await,
            );
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Hosts that boot from now on do this.
    pub(crate) fn hosts_do(&self, boot: impl Fn(&Cluster, &str, &str, &str) + Send + Sync + 'static) {
        *self.hosts.lock().unwrap() = Box::new(boot);
    }

    /// Asks for one machine to be this, and does not wait.
    pub(crate) async fn want(&self, name: &str, spec: Value) {
        self.client.apply(vec![document("Assignment", name, spec)], &[]).await;
    }

    /// Waits until a machine waits with this code; `why` says so, and what helps.
    pub(crate) async fn waits_for(&self, name: &str, code: &str) -> Value {
        self.until(name, |machine| machine["waiting"]["problem"]["code"] == code).await;
        let why = self.client.get(&format!("/api/v1/machines/{name}/why")).await;
        let waiting = &why["waiting"];
        // It may go on between the two questions; what is told then is of the next try.
        if waiting["problem"]["code"] == code {
            assert!(waiting["problem"]["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{why}");
            assert!(waiting["until"].is_string() || why["unblock"].is_string(), "{why}");
        }
        why
    }

    /// What was wrong is mended, and somebody says so: nobody waits for the next try.
    pub(crate) async fn mended(&self, name: &str, state: &str) {
        let (status, answer) =
            self.client.call("POST", &format!("/api/v1/machines/{name}/refresh"), None).await;
        assert!(status < 300, "{answer}");
        self.until(name, |machine| machine["state"] == state).await;
    }

    /// Each use ended with one whole record, and there was one before the first.
    pub(crate) async fn erased(&self, name: &str, uses: usize) {
        let erasures = self.client.get(&format!("/api/v1/machines/{name}/erasures")).await;
        assert_eq!(erasures.as_array().unwrap().len(), uses + 1, "{erasures:#}");
    }

    /// Kinds of what happened to a machine, in order.
    pub(crate) async fn history(&self, name: &str) -> Vec<String> {
        let history = self.client.get(&format!("/api/v1/machines/{name}/history")).await;
        let kinds =
            history.as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap().to_owned());
        kinds.collect()
    }
}

pub(crate) fn pool() -> Value {
    document(
        "BaseCluster",
        "pool",
        json!({
            "jurisdiction": "de", "site": "fra1", "kubernetesVersion": "1.36.3", "controlPlane": "external",
            "endpoint": "https://127.0.0.1:6443", "kubeconfig": { "name": "pool", "key": "kubeconfig" },
            "join": "kubeadm", "image": { "live": { "iso": "http://images.example/node.iso" } },
        }),
    )
}

/// The published profiles of the simulated machines.
pub(crate) fn profiles() -> Vec<Value> {
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../firmware-profiles");
    let read = |file: &str| {
        let text = std::fs::read_to_string(profiles.join(file)).unwrap();
        let read = domain::manifest::read(file, &text).unwrap();
        read.iter().map(|one| one.declaration.to_json()).collect::<Vec<_>>()
    };
    let files = ["simulated-sn-2u-epyc.yaml", "simulated-poweredge-xe7740.yaml", "nvidia-dgx-h100.yaml"];
    files.into_iter().flat_map(read).collect()
}
