//! Cells that are killed while machines go into service and back: each machine is deployed once a use, known once, and has
//! one record of erasure a use and one before the first. Killed after each recorded step; between requests to Ironic and to
//! the base cluster; and two replicas on one PostgreSQL, killed in turn.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking and read well"
)]

mod support;

use std::cell::Cell as Count;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sim::ironic::{Delays, IronicEndpoint, NodeEvent, Verb, VerbCount};
use sim::{Action, Cluster, Fault, Model, RunningSite, Site};
use support::Desk;
use testbed::Postgres;
use tokio::process::Child;
use tokio::time::Instant;

/// A rack, an Ironic, a base cluster, all simulated and in this process; the cells are processes of their own.
struct Stage {
    desk: Desk,
    site: RunningSite,
    ironic: IronicEndpoint,
    cluster: Cluster,
    http: reqwest::Client,
}

/// A running cell and how to reach it.
struct Running {
    child: Child,
    server: String,
}

impl Running {
    async fn kill(mut self) {
        self.child.start_kill().unwrap();
        self.child.wait().await.unwrap();
    }

    fn send(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

/// A database that replicas share. It goes with the first value.
async fn database() -> (Postgres, String) {
    let server = Postgres::start().await.unwrap();
    server.create_database("cells").await.unwrap();
    let url = server.url("cells");
    (server, url)
}

fn document(kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "bailiwick.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// What hosts do when Ironic has deployed them: their kubelets join with what the configuration drive holds.
fn boots(cluster: &Cluster, uuids: BTreeMap<String, String>) -> impl Fn(NodeEvent) + Send + Sync + 'static {
    let cluster = cluster.clone();
    move |event| match event {
        NodeEvent::Deployed(instance) => {
            let name = instance.name.unwrap_or_default();
            let user_data = instance.config_drive.as_ref().and_then(|drive| drive.user_data());
            let uuid = uuids.get(&name).map_or("", String::as_str);
            cluster.boot(&name, uuid, user_data.unwrap_or_default());
        }
        NodeEvent::Undeployed(instance) => cluster.switch_off(&instance.name.unwrap_or_default()),
        _ => {}
    }
}

impl Stage {
    /// An Ironic that takes a few milliseconds for each answer, so that what is recorded is seen before the next step ends.
    async fn new(machines: usize) -> Self {
        let stage = Self::with(machines, Delays::none()).await;
        stage.ironic.faults().add(Fault::on("**", Action::latency(Duration::from_millis(4))));
        stage
    }

    /// An Ironic whose work takes so long.
    async fn with(machines: usize, delays: Delays) -> Self {
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
        Self { desk, site, ironic, cluster, http }
    }

    fn names(&self) -> Vec<&str> {
        self.site.machines().iter().map(|machine| machine.name.as_str()).collect()
    }

    fn token_file(&self) -> PathBuf {
        self.desk.path("data/admin.token")
    }

    /// A cell on the one database of this stage.
    async fn serve(&self, more: &[&str]) -> Running {
        let mut command = self.desk.command(&["serve", "--listen", "127.0.0.1:0", "--jurisdiction", "eu"]);
        command.args(["--log-level", "error", "--data-dir", "data", "--secrets-dir", "secrets"]);
        command.args(["--ironic-url", self.ironic.url()]).args(more);
        command.args(["--agent-listen", "127.0.0.1:0", "--agent-url", "https://cell.example"]);
        let (child, server, log) = support::serving(&mut command).await;
        support::drain(log);
        Running { child, server }
    }

    async fn ask(&self, cell: &Running, method: &str, path: &str, body: &Value) -> Option<Value> {
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

    async fn get(&self, cell: &Running, path: &str) -> Value {
        self.ask(cell, "GET", path, &Value::Null).await.unwrap_or_else(|| panic!("{path} was not answered"))
    }

    async fn apply(&self, cell: &Running, wish: &Value) {
        let plan = self.ask(cell, "POST", "/api/v1/plans", wish).await.unwrap();
        let path = format!("/api/v1/plans/{}/apply", plan["digest"].as_str().unwrap());
        self.ask(cell, "POST", &path, &Value::Null).await.unwrap();
    }

    /// All that is declared, and all machines wanted in service.
    fn everything_in_service(&self) -> Value {
        let profile = support::repository().join("firmware-profiles/simulated-sn-2u-epyc.yaml");
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
                "join": "kubeadm", "image": { "live": { "iso": "http://images.example/node.iso" } },
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

    fn back_to_the_shelf(&self) -> Value {
        let assignments = self.names().into_iter().map(|name| json!({ "kind": "Assignment", "name": name }));
        json!({ "delete": assignments.collect::<Vec<_>>() })
    }

    /// How many machines are in which state. `None` where the cell does not answer.
    async fn states(&self, cell: &Running) -> Option<BTreeMap<String, usize>> {
        let machines = self.ask(cell, "GET", "/api/v1/machines?limit=1000", &Value::Null).await?;
        let mut states = BTreeMap::new();
        for machine in machines["items"].as_array()? {
            *states.entry(machine["state"].as_str()?.to_owned()).or_default() += 1;
        }
        Some(states)
    }

    async fn until_all(&self, cell: &Running, state: &str) {
        let wanted = BTreeMap::from([(state.to_owned(), self.names().len())]);
        while self.states(cell).await.as_ref() != Some(&wanted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What was recorded of machines after this event, and its number.
    async fn recorded(&self, cell: &Running, after: i64) -> Vec<(i64, String)> {
        let events = self.get(cell, &format!("/api/v1/events?limit=1000&after={after}")).await;
        let events = events["items"].as_array().unwrap().iter();
        events
            .map(|event| (event["id"].as_i64().unwrap(), event["kind"].as_str().unwrap().to_owned()))
            .filter(|(_, kind)| kind.starts_with("machine."))
            .collect()
    }

    /// A whole life, in which the cell is killed at each of these moments and started again. Gives the number of kills.
    async fn live_through(&self, moment: impl AsyncFn(&Running, usize)) -> usize {
        let deadline = Instant::now() + Duration::from_mins(8);
        let mut kills = 0;
        for (wish, state) in
            [(self.everything_in_service(), "in-service"), (self.back_to_the_shelf(), "available")]
        {
            let mut cell = self.serve(&[]).await;
            self.apply(&cell, &wish).await;
            loop {
                let done = tokio::select! {
                    () = self.until_all(&cell, state) => true,
                    () = moment(&cell, kills) => false,
                    () = tokio::time::sleep_until(deadline) => {
                        panic!("after {kills} kills: {:#}", self.get(&cell, "/api/v1/machines").await)
                    }
                };
                cell.kill().await;
                if done {
                    break;
                }
                kills += 1;
                cell = self.serve(&[]).await;
            }
        }
        kills
    }

    /// A cell on a database that others share with it.
    async fn replica(&self, url: &str) -> Running {
        self.serve(&["--database-url", url, "--lease", "1s"]).await
    }

    /// Two of them, which bring everything into service.
    async fn two_replicas(&self, url: &str) -> Vec<Running> {
        let replicas = vec![self.replica(url).await, self.replica(url).await];
        self.apply(&replicas[0], &self.everything_in_service()).await;
        replicas
    }

    /// Nothing is lost, nothing is doubled.
    async fn is_as_if_undisturbed(&self, cell: &Running, uses: u32) {
        let nodes = self.ironic.nodes();
        assert_eq!(nodes.len(), self.names().len(), "one node each");
        for node in nodes {
            let asked = self.ironic.verbs(&node.uuid, Verb::Active);
            assert_eq!(asked, VerbCount { accepted: uses, refused: 0 }, "{:?}", node.name);
        }
        for name in self.names() {
            let history = self.get(cell, &format!("/api/v1/machines/{name}/history")).await;
            let times = |kind: &str| {
                let events = history.as_array().unwrap().iter();
                u32::try_from(events.filter(|event| event["kind"] == kind).count()).unwrap()
            };
            let told = ["machine.enrolled", "machine.inspected", "machine.in-service"].map(times);
            assert_eq!(told, [1, 1, uses], "{name}: {history:#}");
            let made =
                ["machine.token-made", "machine.certificate-approved", "agent.token-created"].map(times);
            assert_eq!(made, [uses; 3], "{name}: {history:#}");
            assert_eq!(times("machine.deployment-failed") + times("machine.quarantined"), 0, "{name}");
        }
        // Each token went with its use.
        assert!(self.cluster.list("/api/v1/namespaces/kube-system/secrets").is_empty());
    }

    async fn are_erased(&self, cell: &Running, uses: usize) {
        for name in self.names() {
            let erasures = self.get(cell, &format!("/api/v1/machines/{name}/erasures")).await;
            assert_eq!(erasures.as_array().unwrap().len(), uses + 1, "{name}: {erasures:#}");
        }
        assert!(self.cluster.list("/api/v1/nodes").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_killed_after_each_recorded_step_ends_where_an_undisturbed_one_does() {
    let stage = Stage::new(1).await;
    let known = Count::new(0);
    let kills = stage
        .live_through(async |cell, _| {
            loop {
                if let Some((newest, _)) = stage.recorded(cell, known.get()).await.pop() {
                    return known.set(newest);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    let cell = stage.serve(&[]).await;
    let steps = stage.recorded(&cell, 0).await;
    // Two that follow each other at once are seen together.
    assert!(kills * 3 >= steps.len() * 2, "only {kills} kills for {steps:?}");
    stage.is_as_if_undisturbed(&cell, 1).await;
    stage.are_erased(&cell, 1).await;
    cell.kill().await;
}

/// Killed whenever this number has grown: by two in the first life of the cell, by three in the second, and so on. Were it
/// always by one, no life would get anywhere.
async fn killed_between_requests(requests: impl Fn(&Stage) -> u64, at_least: usize) {
    let stage = Stage::new(2).await;
    let kills = stage
        .live_through(async |_, kills| {
            let until = requests(&stage) + 2 + u64::try_from(kills % 23).unwrap();
            while requests(&stage) < until {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        })
        .await;
    assert!(kills >= at_least, "only {kills} kills came before the end");
    let cell = stage.serve(&[]).await;
    stage.is_as_if_undisturbed(&cell, 1).await;
    stage.are_erased(&cell, 1).await;
    cell.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_killed_between_any_two_requests_to_ironic_ends_where_an_undisturbed_one_does() {
    killed_between_requests(|stage| stage.ironic.requests(), 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_killed_between_any_two_requests_to_a_base_cluster_ends_where_an_undisturbed_one_does() {
    killed_between_requests(|stage| stage.cluster.requests(), 4).await;
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "a long run says how it went")]
async fn two_replicas_killed_in_turn_bring_every_machine_into_service_once() {
    // Few machines unless more are asked for, and Ironic's work takes part of what it really does.
    let asked = std::env::var("BAILIWICK_REPLICAS_MACHINES").ok().map(|number| number.parse().unwrap());
    let (machines, share, every) = match asked {
        None => (20, 0.1, Duration::from_millis(1500)),
        Some(machines) => (machines, 0.5, Duration::from_secs(3)),
    };
    let stage = Stage::with(machines, Delays::measured().scaled(share)).await;
    let (_database, url) = database().await;
    let mut replicas = stage.two_replicas(&url).await;
    let began = Instant::now();
    let all = BTreeMap::from([("in-service".to_owned(), machines)]);
    let (mut kills, mut while_provisioning) = (0, 0);
    loop {
        // The one that was started last goes on; the other is killed while it works: at the latest when its time
        // has come, and earlier where a machine is provisioned, which is soon over.
        tokio::time::sleep(every / 4).await;
        let last_moment = Instant::now() + every * 3 / 4;
        let states = loop {
            let states = stage.states(&replicas[1]).await.unwrap();
            if states == all || states.contains_key("provisioning") || Instant::now() > last_moment {
                break states;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        if states == all {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_mins(9),
            "after {kills} kills: {:#}",
            stage.get(&replicas[1], "/api/v1/machines?limit=1000").await
        );
        kills += 1;
        while_provisioning += u32::from(states.contains_key("provisioning"));
        replicas.remove(0).kill().await;
        replicas.push(stage.replica(&url).await);
    }
    println!(
        "{machines} machines in service after {:.1?} and {kills} kills, {while_provisioning} of them while machines were \
         provisioned; {} deployments",
        began.elapsed(),
        stage.ironic.verbs_of_all(Verb::Active).accepted
    );
    assert!(while_provisioning > 1, "{while_provisioning} kills came while machines were provisioned");
    stage.is_as_if_undisturbed(&replicas[1], 1).await;
    for replica in replicas {
        replica.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_that_sleep_in_turn_past_their_leases_double_nothing() {
    let stage = Stage::with(12, Delays::measured().scaled(0.05)).await;
    let (_database, url) = database().await;
    let replicas = stage.two_replicas(&url).await;
    let all = BTreeMap::from([("in-service".to_owned(), 12)]);
    let deadline = Instant::now() + Duration::from_mins(3);
    let mut while_provisioning = 0;
    for (asleep, awake) in [(0, 1), (1, 0)].into_iter().cycle() {
        // Awake for a moment together: who slept goes on with what is not its own any more.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let states = stage.states(&replicas[awake]).await.unwrap();
        if states == all {
            break;
        }
        assert!(Instant::now() < deadline, "{:#}", stage.get(&replicas[awake], "/api/v1/machines").await);
        while_provisioning += u32::from(states.contains_key("provisioning"));
        replicas[asleep].send(Signal::STOP);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        replicas[asleep].send(Signal::CONT);
    }
    assert!(while_provisioning > 0, "nothing was provisioned while a replica slept");
    stage.is_as_if_undisturbed(&replicas[0], 1).await;
    for replica in replicas {
        replica.kill().await;
    }
}
