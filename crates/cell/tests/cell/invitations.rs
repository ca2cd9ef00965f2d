//! Machines that the cell provisions enrol their own agents.

use crate::agent::{Agent, Door, OpenDoor, host};
use crate::line::{Line, pool};
use agent::cell::{StateDir, enrol, enrol_by_file};
use bailiwick_cell::AgentSettings;
use domain::Diagnose as _;
use domain::agent::{ENROLMENT_FILE, Enrolment};
use serde_json::{Value, json};
use sim::Model;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A cell that knows where machines call it, and a machine.
struct Rack {
    line: Line,
    machine: String,
    uuid: String,
    /// User data of each deployment.
    deployed: Arc<Mutex<Vec<String>>>,
    _door: OpenDoor,
}

impl Rack {
    async fn start() -> Self {
        let door = Door::new().await;
        let mut agents = AgentSettings::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        agents.report_interval = Duration::from_secs(1);
        agents.url = Some(door.url());
        let settings = |settings: &mut bailiwick_cell::Settings| settings.agents = Some(agents);
        let line = Line::of(Model::PowerEdgeXe, 1, |ironic| ironic, settings).await;
        let door = door.open(line.cell.agents_address().unwrap());
        let deployed = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&deployed);
        line.hosts_do(move |cluster, name, uuid, user_data| {
            seen.lock().unwrap().push(user_data.to_owned());
            cluster.boot(name, uuid, user_data);
        });
        line.declare().await;
        line.arrive("available").await;
        let (machine, uuid) = (line.site.machines()[0].name.clone(), line.site.machines()[0].uuid.clone());
        Self { line, machine, uuid, deployed, _door: door }
    }

    async fn in_service() -> Self {
        let rack = Self::start().await;
        rack.provision().await;
        rack
    }

    async fn provision(&self) {
        self.line.assign(json!({ "baseCluster": "pool" }), "in-service").await;
    }

    /// The file that cloud-init writes on the machine for its agent.
    fn file(&self) -> Value {
        let user_data = self.deployed.lock().unwrap().last().unwrap().clone();
        let config = user_data.strip_prefix("#cloud-config\n").unwrap();
        let config: Value = serde_saphyr::from_str(config).unwrap();
        let path = format!("/var/lib/bailiwick-agent/{ENROLMENT_FILE}");
        config["write_files"].as_array().unwrap().iter().find(|file| file["path"] == path).unwrap().clone()
    }

    fn enrolment(&self) -> Enrolment {
        serde_json::from_str(self.file()["content"].as_str().unwrap()).unwrap()
    }

    fn dir(&self, name: &str) -> StateDir {
        StateDir::open(self.line.dir.path().join(name)).unwrap()
    }

    /// What the cell says to somebody with this token, on this machine.
    async fn refused(&self, enrolment: &Enrolment) -> String {
        let (cell, uuid) = (enrolment.cell.to_string(), Some(self.uuid.clone()));
        let refused = enrol(&self.dir("another"), &cell, &enrolment.token, uuid).await;
        refused.unwrap_err().problem().code
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_provisioned_enrols_its_own_agent_once_and_its_gpus_are_probed() {
    let rack = Rack::in_service().await;
    let file = rack.file();
    assert_eq!(file["permissions"], "0600");
    let dir = rack.dir("agent");
    let path = dir.path().join(ENROLMENT_FILE);
    std::fs::write(&path, file["content"].as_str().unwrap()).unwrap();
    enrol_by_file(&dir, Some(rack.uuid.clone()), &CancellationToken::new()).await;
    assert_eq!(dir.identity().unwrap().machine, rack.machine.parse().unwrap());
    assert!(!path.exists());

    let probe = rack.line.client.probe_of(&rack.machine, &rack.uuid).await;
    let agent = Agent::run(dir, host(probe));
    let gpus = rack.line.client.get("/api/v1/gpus").await;
    agent.until(gpus["items"][0]["device"].as_str().unwrap(), None).await;
    assert_eq!(rack.refused(&rack.enrolment()).await, "agent.token-used");
    let made = rack.line.history(&rack.machine).await;
    assert_eq!(made.iter().filter(|kind| *kind == "agent.token-created").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_machine_that_was_released_is_refused_and_the_next_use_has_another() {
    let rack = Rack::in_service().await;
    let first = rack.enrolment();
    rack.line.release().await;
    assert_eq!(rack.refused(&first).await, "agent.token-unknown");
    rack.provision().await;
    let second = rack.enrolment();
    assert_ne!(first.token, second.token);
    assert_eq!(rack.refused(&first).await, "agent.token-unknown");
    let (cell, uuid) = (second.cell.to_string(), Some(rack.uuid.clone()));
    enrol(&rack.dir("agent"), &cell, &second.token, uuid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_set_aside_while_it_is_provisioned_lets_no_agent_in() {
    let rack = Rack::start().await;
    let deployed = Arc::clone(&rack.deployed);
    // It boots and joins nothing.
    rack.line.hosts_do(move |_, _, _, user_data| deployed.lock().unwrap().push(user_data.to_owned()));
    rack.line.want(&rack.machine, json!({ "baseCluster": "pool" })).await;
    rack.line.until(&rack.machine, |_| !rack.deployed.lock().unwrap().is_empty()).await;
    assert_eq!(rack.refused(&rack.enrolment()).await, "agent.not-allowed");
    rack.line.want(&rack.machine, json!({ "quarantine": { "reason": "odd" } })).await;
    rack.line.until(&rack.machine, |machine| machine["state"] == "quarantined").await;
    assert_eq!(rack.refused(&rack.enrolment()).await, "agent.token-unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_does_not_name_the_enrolment_has_no_token_made_for_it() {
    let rack = Rack::start().await;
    for (user_data, tokens) in [("{{token}}", 0), ("{{token}} {{ agentEnrolment.base64 }}", 1)] {
        let mut pool = pool();
        pool["spec"]["join"] = json!({ "template": { "userData": user_data } });
        rack.line.client.apply(vec![pool], &[]).await;
        let deployed = rack.deployed.lock().unwrap().len();
        rack.line.want(&rack.machine, json!({ "baseCluster": "pool" })).await;
        rack.line.until(&rack.machine, |_| rack.deployed.lock().unwrap().len() > deployed).await;
        let history = rack.line.history(&rack.machine).await;
        assert_eq!(
            history.iter().filter(|kind| *kind == "agent.token-created").count(),
            tokens,
            "{history:?}"
        );
        rack.line.release().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_names_the_enrolment_waits_for_a_cell_that_knows_its_address() {
    let line = Line::start(1).await;
    line.declare().await;
    line.arrive("available").await;
    let mut pool = pool();
    pool["spec"]["join"] = json!({ "template": { "userData": "{{token}} {{agentEnrolment}}" } });
    line.client.apply(vec![pool], &[]).await;
    let name = &line.names()[0];
    line.want(name, json!({ "baseCluster": "pool" })).await;
    line.waits_for(name, "join.agent-url").await;
}
