//! A rack, an Ironic and a base cluster, all simulated, and cells that work with them, each a process of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sim::ironic::{Delays, IronicEndpoint, NodeEvent};
use sim::{Action, Cluster, Fault, Model, RunningSite, Site};
use tokio::process::Child;

use super::Desk;

/// A rack, an Ironic, a base cluster, all simulated and in this process; the cells are processes of their own.
pub struct Stage {
    pub desk: Desk,
    pub site: RunningSite,
    pub ironic: IronicEndpoint,
    pub cluster: Cluster,
    /// How a cell reaches its provisioning service.
    pub provisioner: Vec<String>,
    /// What nodes of the base cluster run.
    pub image: Value,
    http: reqwest::Client,
}

/// A running cell and how to reach it.
pub struct Running {
    child: Child,
    pub server: String,
}

impl Running {
    pub async fn kill(mut self) {
        self.child.start_kill().unwrap();
        self.child.wait().await.unwrap();
    }

    pub fn send(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

pub fn document(kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "bailiwick.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// What hosts do when Ironic has deployed them: their kubelets join with what the configuration drive holds. Baremetal-operator puts
/// its namespace before the name of a node, and `~`.
fn boots(cluster: &Cluster, uuids: BTreeMap<String, String>) -> impl Fn(NodeEvent) + Send + Sync + 'static {
    let cluster = cluster.clone();
    let named = |name: Option<String>| {
        let name = name.unwrap_or_default();
        name.rsplit_once('~').map_or(name.clone(), |(_, name)| name.to_owned())
    };
    move |event| match event {
        NodeEvent::Deployed(instance) => {
            let name = named(instance.name);
            let user_data = instance.config_drive.as_ref().and_then(|drive| drive.user_data());
            let uuid = uuids.get(&name).map_or("", String::as_str);
            cluster.boot(&name, uuid, user_data.unwrap_or_default());
        }
        NodeEvent::Undeployed(instance) => cluster.switch_off(&named(instance.name)),
        _ => {}
    }
}

impl Stage {
    /// An Ironic that takes a few milliseconds for each answer, so that what is recorded is seen before the next step ends.
    pub async fn new(machines: usize) -> Self {
        let stage = Self::with(machines, Delays::none()).await;
        stage.ironic.faults().add(Fault::on("**", Action::latency(Duration::from_millis(4))));
        stage
    }

    /// An Ironic whose work takes so long.
    pub async fn with(machines: usize, delays: Delays) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let desk = Desk::new();
        let site = Site::builder(desk.path("site")).machines(Model::CpuNode, machines).build();
        let site = site.start().await.unwrap();
        let cluster = Cluster::start().await.unwrap();
        desk.write("secrets/pool/kubeconfig", &cluster.kubeconfig());
        let uuids =
            site.machines().iter().map(|machine| (machine.name.clone(), machine.uuid.clone())).collect();
        let ironic =
            IronicEndpoint::builder().delays(delays).on_event(boots(&cluster, uuids)).start().unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        let provisioner = vec!["--ironic-url".to_owned(), ironic.url().to_owned()];
        let image = json!({ "live": { "iso": "http://images.example/node.iso" } });
        Self { desk, site, ironic, cluster, provisioner, image, http }
    }

    pub fn names(&self) -> Vec<&str> {
        self.site.machines().iter().map(|machine| machine.name.as_str()).collect()
    }

    pub fn token_file(&self) -> PathBuf {
        self.desk.path("data/admin.token")
    }

    /// A cell on the one database of this stage.
    pub async fn serve(&self, more: &[&str]) -> Running {
        let mut command = self.desk.command(&["serve", "--listen", "127.0.0.1:0", "--jurisdiction", "eu"]);
        command.args(["--log-level", "error", "--data-dir", "data", "--secrets-dir", "secrets"]);
        command.args(&self.provisioner).args(more);
        command.args(["--agent-listen", "127.0.0.1:0", "--agent-url", "https://cell.example"]);
        let (child, server, log) = super::serving(&mut command).await;
        super::drain(log);
        Running { child, server }
    }

    pub async fn ask(&self, cell: &Running, method: &str, path: &str, body: &Value) -> Option<Value> {
        let token = std::fs::read_to_string(self.token_file()).unwrap();
        let request = self.http.request(method.parse().unwrap(), format!("{}{path}", cell.server));
        let request = request.bearer_auth(token.trim()).header("content-type", "application/json");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = request.body(body).send().await.ok()?;
        let status = answer.status();
        let text = answer.text().await.ok()?;
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).ok()
    }

    pub async fn get(&self, cell: &Running, path: &str) -> Value {
        self.ask(cell, "GET", path, &Value::Null).await.unwrap_or_else(|| panic!("{path} was not answered"))
    }

    pub async fn apply(&self, cell: &Running, wish: &Value) {
        let plan = self.ask(cell, "POST", "/api/v1/plans", wish).await.unwrap();
        let path = format!("/api/v1/plans/{}/apply", plan["digest"].as_str().unwrap());
        self.ask(cell, "POST", &path, &Value::Null).await.unwrap();
    }

    /// All that is declared, and all machines wanted in service.
    pub fn everything_in_service(&self) -> Value {
        let profile = super::repository().join("firmware-profiles/simulated-sn-2u-epyc.yaml");
        let text = std::fs::read_to_string(profile).unwrap();
        let profile = domain::manifest::read("profile", &text).unwrap();
        let mut all: Vec<_> = profile.iter().map(|one| one.declaration.to_json()).collect();
        all.extend([
            document("Jurisdiction", "eu", &json!({})),
            document("LegalEntity", "acme", &json!({ "legalName": "Acme GmbH", "country": "DE" })),
            document("Site", "fra1", &json!({
                "jurisdiction": "eu", "operator": "acme", "country": "DE", "bmcNetworks": ["127.0.0.0/8"],
            })),
            document("BaseCluster", "pool", &json!({
                "jurisdiction": "eu", "site": "fra1", "kubernetesVersion": "1.36.3", "controlPlane": "external",
                "endpoint": "https://127.0.0.1:6443", "kubeconfig": { "name": "pool", "key": "kubeconfig" },
                "join": "kubeadm", "image": self.image,
            })),
        ]);
        let mut passwords = serde_json::Map::new();
        for machine in self.site.machines() {
            let address = format!("{}:{}", machine.address, machine.port);
            let bmc = json!({ "address": address, "username": machine.username, "passwordFile": "pw" });
            all.push(document("Machine", &machine.name, &json!({ "site": "fra1", "bmc": bmc })));
            all.push(document("Assignment", &machine.name, &json!({ "baseCluster": "pool" })));
            passwords.insert(machine.name.clone(), machine.password.clone().into());
        }
        json!({ "apply": all, "passwords": passwords })
    }

    /// The same; the passwords of the BMCs are replaced by ones of the cell's making.
    pub fn rotating(mut wish: Value) -> Value {
        for one in wish["apply"].as_array_mut().unwrap().iter_mut().filter(|one| one["kind"] == "Machine") {
            one["spec"]["bmc"]["rotate"] = true.into();
        }
        wish
    }

    /// BMCs that lock an account after so many wrong passwords in a row, until somebody unlocks it.
    pub fn bmcs_lock_out_after(&self, failures: u32) {
        for name in self.names() {
            self.site.bmc(name).unwrap().set_behaviour(|behaviour| behaviour.lockout_after = Some(failures));
        }
    }

    /// Logins, logouts and changes that the BMCs were asked for.
    pub fn bmc_changes(&self) -> u64 {
        self.names().into_iter().map(|name| self.site.bmc(name).unwrap().counters().changes).sum()
    }

    /// Whose names open the BMC.
    pub fn accounts(&self, name: &str) -> Vec<String> {
        self.site.bmc(name).unwrap().usernames()
    }

    /// The BMC opens with what the cell has made, for the cell and for Ironic, and with nothing else. No cell runs meanwhile.
    pub async fn bmc_has_passwords_of_the_cells_making(&self, name: &str) {
        let machine = self.site.machines().iter().find(|machine| machine.name == name).unwrap();
        let bmc = self.site.bmc(name).unwrap();
        assert!(!bmc.opens(&machine.username, &machine.password), "the factory's password still opens");
        let shown =
            self.desk.run(&["bmc-password", name, "--data-dir", "data", "-o", "json"]).await.ends(0).json();
        let accounts = shown.as_array().unwrap();
        let text = |account: &Value, key: &str| account[key].as_str().unwrap().to_owned();
        let names: Vec<_> = accounts.iter().map(|account| text(account, "username")).collect();
        assert_eq!(names, [machine.username.as_str(), "bw-provisioner"]);
        assert_eq!(self.accounts(name), names);
        for account in accounts {
            assert!(bmc.opens(&text(account, "username"), &text(account, "password")), "{account}");
        }
    }

    pub fn back_to_the_shelf(&self) -> Value {
        let assignments = self.names().into_iter().map(|name| json!({ "kind": "Assignment", "name": name }));
        json!({ "delete": assignments.collect::<Vec<_>>() })
    }

    /// How many machines are in which state. `None` where the cell does not answer.
    pub async fn states(&self, cell: &Running) -> Option<BTreeMap<String, usize>> {
        let machines = self.ask(cell, "GET", "/api/v1/machines?limit=1000", &Value::Null).await?;
        let mut states = BTreeMap::new();
        for machine in machines["items"].as_array()? {
            *states.entry(machine["state"].as_str()?.to_owned()).or_default() += 1;
        }
        Some(states)
    }

    /// Waits until all machines are as they should be.
    pub async fn until_all(&self, cell: &Running, is_there: impl Fn(&Value) -> bool) {
        loop {
            let machines = self.ask(cell, "GET", "/api/v1/machines?limit=1000", &Value::Null).await;
            let machines = machines.as_ref().and_then(|machines| machines["items"].as_array());
            if machines.is_some_and(|all| all.len() == self.names().len() && all.iter().all(&is_there)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What is wished of the use of all machines.
    pub fn assigned(&self, spec: &Value) -> Value {
        let all = self.names().into_iter().map(|name| document("Assignment", name, spec));
        json!({ "apply": all.collect::<Vec<_>>() })
    }

    /// What was recorded of machines after this event, and its number.
    pub async fn recorded(&self, cell: &Running, after: i64) -> Vec<(i64, String)> {
        let events = self.get(cell, &format!("/api/v1/events?limit=1000&after={after}")).await;
        let events = events["items"].as_array().unwrap().iter();
        events
            .map(|event| (event["id"].as_i64().unwrap(), event["kind"].as_str().unwrap().to_owned()))
            .filter(|(_, kind)| kind.starts_with("machine."))
            .collect()
    }
}
