//! The life of an agent on a host: it tells Ironic of itself, then does what it is told until the power goes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::Host;
use super::agents::{Reachable, VERSION};
use super::commands::{Agent, Job, Outcome, Work};
use super::hardware::Hardware;
use super::steps::{self, Done};
use crate::bmc::Bmc;

/// The API version that the agent speaks: `continue_inspection` returns node and configuration since 1.95.
const API_VERSION: &str = "1.95";
/// Ironic answers a lookup only when it has the node's lock.
const ANSWER: Duration = Duration::from_mins(1);

/// Ironic, as its agent knows it.
#[derive(Clone, Debug)]
struct Ironic {
    http: reqwest::Client,
    base: String,
}

/// What Ironic made of an agent that told it of itself.
enum Introduced {
    /// It was inspected; Ironic switches it off.
    Inspected,
    /// It is this node's.
    Known { node: String },
}

/// Runs the agent; returns only if there is no way to.
pub(super) async fn live(host: &Host, bmc: &Arc<Bmc>, api: &str) {
    let hardware = Hardware::read(bmc);
    let (agent, work) = Agent::new(hardware);
    let agent = Arc::new(agent);
    let agents = match host.services.agents() {
        Ok(agents) => agents,
        Err(error) => {
            tracing::warn!(%error, "a simulated agent cannot listen");
            return;
        }
    };
    let reachable = agents.add(bmc.name(), &agent);
    let base = api.trim_end_matches('/').trim_end_matches("/v1").to_owned();
    let ironic = Ironic { http: host.services.fetcher.client().clone(), base };
    match introduce(&ironic, &agent, host.pause()).await {
        Introduced::Inspected => std::future::pending().await,
        Introduced::Known { node } => serve(host, bmc, &ironic, &agent, &reachable, &node, work).await,
    }
}

/// Tells Ironic of this machine until it is wanted for something: a node may still be on its way to a state that waits for its agent.
async fn introduce(ironic: &Ironic, agent: &Agent, pause: Duration) -> Introduced {
    loop {
        if ironic.inspected(agent).await {
            return Introduced::Inspected;
        }
        if let Some(found) = ironic.lookup(&agent.hardware).await
            && let Some(node) = found["node"]["uuid"].as_str()
        {
            // The node may have come to wait for its inspection between the two: a heartbeat would then lead nowhere, for ever.
            if ironic.inspected(agent).await {
                return Introduced::Inspected;
            }
            agent.set_token(found["config"]["agent_token"].as_str().map(str::to_owned));
            return Introduced::Known { node: node.to_owned() };
        }
        tokio::time::sleep(pause).await;
    }
}

type Doing = Pin<Box<dyn Future<Output = (Job, Outcome)> + Send>>;

async fn serve(
    host: &Host,
    bmc: &Arc<Bmc>,
    ironic: &Ironic,
    agent: &Arc<Agent>,
    reachable: &Reachable,
    node: &str,
    mut work: UnboundedReceiver<Job>,
) {
    let mut next_heartbeat = Instant::now();
    let mut doing: FuturesUnordered<Doing> = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next_heartbeat) => {
                let heard = ironic.heartbeat(node, agent, reachable).await;
                next_heartbeat = Instant::now() + if heard { host.heartbeat() } else { host.pause() };
            }
            Some(job) = work.recv() => {
                if job.work == Work::PowerOff {
                    bmc.switched_off_by_host();
                    return;
                }
                doing.push(Box::pin(carry_out(Arc::clone(bmc), Arc::clone(agent), job)));
            }
            Some((job, outcome)) = doing.next(), if !doing.is_empty() => {
                agent.finish(&job, outcome);
                // Ironic goes on when it hears of it.
                next_heartbeat = Instant::now();
            }
        }
    }
}

async fn carry_out(bmc: Arc<Bmc>, agent: Arc<Agent>, job: Job) -> (Job, Outcome) {
    let Some(host) = bmc.host() else { return (job, Err("there is no host".to_owned())) };
    tokio::time::sleep(host.step()).await;
    let outcome = match &job.work {
        Work::Bootloader => Ok(json!("the boot loader was installed")),
        Work::PowerOff => Ok(Value::Null),
        Work::Step { kind, step } => {
            let done = match host.failing_step(step["step"].as_str().unwrap_or_default()) {
                Some(why) => Err(why),
                None => steps::execute(step, &agent.hardware, &host.services.fetcher).await,
            };
            done.map(|done| {
                let Done { result, erased, disk } = done;
                host.record(erased, disk);
                json!({format!("{kind}_result"): result, format!("{kind}_step"): step})
            })
        }
    };
    (job, outcome)
}

impl Ironic {
    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base)).timeout(ANSWER);
        request.header("X-OpenStack-Ironic-API-Version", API_VERSION).header("Accept", "application/json")
    }

    async fn post(&self, path: &str, body: &Value) -> Option<reqwest::Response> {
        let request = self.request(reqwest::Method::POST, path).header("Content-Type", "application/json");
        match request.body(body.to_string()).send().await {
            Ok(response) => Some(response),
            Err(error) => {
                tracing::debug!(%error, path, "a simulated agent does not reach Ironic");
                None
            }
        }
    }

    /// Whether the node waited to be inspected, and now has been.
    async fn inspected(&self, agent: &Agent) -> bool {
        let response = self.post("/v1/continue_inspection", &agent.hardware.inventory()).await;
        response.is_some_and(|response| response.status().is_success())
    }

    async fn lookup(&self, hardware: &Hardware) -> Option<Value> {
        let path = format!("/v1/lookup?addresses={}", hardware.macs.join(","));
        let response = self.request(reqwest::Method::GET, &path).send().await.ok()?;
        let found = response.error_for_status().ok()?.bytes().await.ok()?;
        serde_json::from_slice(&found).ok()
    }

    async fn heartbeat(&self, node: &str, agent: &Agent, reachable: &Reachable) -> bool {
        let mut body =
            json!({"callback_url": reachable.url, "agent_version": VERSION, "agent_token": agent.token()});
        if let Some(certificate) = &reachable.certificate {
            body["agent_verify_ca"] = json!(certificate);
        }
        let response = self.post(&format!("/v1/heartbeat/{node}"), &body).await;
        response.is_some_and(|response| response.status().is_success())
    }
}
