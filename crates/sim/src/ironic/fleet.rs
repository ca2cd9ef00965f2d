//! All nodes and ports, and what becomes of them as time goes on. Pure but for the clock: no sockets, no tasks.

mod outcome;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::clock::Clock;
use super::fault::{Ending, NodeFaults};
use super::hook::{ConfigDrive, NodeEvent};
use super::inventory::{CredentialCheck, InventorySource};
use super::job::{Delays, Job, Step};
use super::node::Node;
use super::port::Ports;
use super::record::{CleaningOutcome, Records};
use super::states::{Operation, Power, ProvisionState as S};

/// What an endpoint is configured with.
pub(crate) struct Settings {
    pub(crate) conductor: String,
    pub(crate) automated_clean: bool,
    pub(crate) provisioning_in_maintenance: bool,
    /// What automated cleaning does.
    pub(crate) clean_steps: Vec<Step>,
    /// What agents have, of whatever priority.
    pub(crate) agent_steps: Arc<[Step]>,
    pub(crate) inventory: Option<InventorySource>,
    pub(crate) credentials: Option<CredentialCheck>,
}

pub(crate) use outcome::missing_power_info;

/// When something is due.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Alarm {
    at: Duration,
    ticket: u64,
    node: u64,
    /// The power that the machine has by then; otherwise a phase of the node's job ends.
    power: Option<Power>,
}

/// Everything that the endpoint knows.
pub(crate) struct Fleet {
    pub(crate) settings: Settings,
    pub(crate) delays: Delays,
    pub(crate) faults: NodeFaults,
    pub(crate) records: Records,
    pub(crate) ports: Ports,
    /// What the owner is still to be told.
    pub(crate) events: VecDeque<NodeEvent>,
    /// Whether something became due that the keeper of time does not know of.
    pub(crate) has_new_alarm: bool,
    clock: Arc<Clock>,
    nodes: BTreeMap<u64, Node>,
    last_id: u64,
    by_uuid: HashMap<String, u64>,
    by_name: HashMap<String, u64>,
    by_instance: HashMap<String, u64>,
    alarms: BinaryHeap<Reverse<Alarm>>,
    last_ticket: u64,
}

impl Fleet {
    pub(crate) fn new(settings: Settings, delays: Delays, clock: Arc<Clock>) -> Self {
        Self {
            settings,
            delays,
            faults: NodeFaults::default(),
            records: Records::default(),
            ports: Ports::default(),
            events: VecDeque::new(),
            has_new_alarm: false,
            clock,
            nodes: BTreeMap::new(),
            last_id: 0,
            by_uuid: HashMap::new(),
            by_name: HashMap::new(),
            by_instance: HashMap::new(),
            alarms: BinaryHeap::new(),
            last_ticket: 0,
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    // Nodes

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub(crate) fn node(&self, id: u64) -> Option<&Node> {
        self.nodes.get(&id)
    }

    pub(crate) fn node_mut(&mut self, id: u64) -> Option<&mut Node> {
        self.nodes.get_mut(&id)
    }

    pub(crate) fn by_uuid(&self, uuid: &str) -> Option<u64> {
        self.by_uuid.get(&uuid.to_ascii_lowercase()).copied()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn by_instance(&self, instance: &str) -> Option<u64> {
        self.by_instance.get(instance).copied()
    }

    /// By UUID or name.
    pub(crate) fn find(&self, ident: &str) -> Option<u64> {
        self.by_uuid(ident).or_else(|| self.by_name(ident))
    }

    /// Adds a node whose UUID, name and instance are free.
    pub(crate) fn add(&mut self, uuid: String, given: Map<String, Value>) -> u64 {
        self.last_id += 1;
        let node = Node::new(self.last_id, uuid, given, self.now());
        self.by_uuid.insert(node.uuid.clone(), node.id);
        self.nodes.insert(node.id, node);
        self.index(self.last_id);
        self.last_id
    }

    /// Replaces what a client may set.
    pub(crate) fn replace_record(&mut self, id: u64, record: Map<String, Value>) {
        let now = self.now();
        self.unindex(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.record = record;
            node.updated = Some(now);
        }
        self.index(id);
    }

    /// Removes a node with its ports.
    pub(crate) fn remove(&mut self, id: u64) {
        self.unindex(id);
        let Some(node) = self.nodes.remove(&id) else { return };
        self.by_uuid.remove(&node.uuid);
        for port in node.ports {
            self.ports.remove(port);
        }
    }

    fn index(&mut self, id: u64) {
        let Some(node) = self.nodes.get(&id) else { return };
        if let Some(name) = node.name() {
            self.by_name.insert(name.to_owned(), id);
        }
        if let Some(instance) = node.text("instance_uuid") {
            self.by_instance.insert(instance.to_owned(), id);
        }
    }

    fn unindex(&mut self, id: u64) {
        let Some(node) = self.nodes.get(&id) else { return };
        if let Some(name) = node.name() {
            self.by_name.remove(name);
        }
        if let Some(instance) = node.text("instance_uuid") {
            self.by_instance.remove(instance);
        }
    }

    /// The MAC addresses of a node.
    pub(crate) fn macs(&self, node: &Node) -> Vec<String> {
        let ports = node.ports.iter().filter_map(|id| self.ports.get(*id));
        ports.map(|port| port.address().to_owned()).collect()
    }

    // Time

    /// Carries out what is due by now.
    pub(crate) fn settle(&mut self) {
        let now = self.now();
        while self.alarms.peek().is_some_and(|Reverse(alarm)| alarm.at <= now) {
            if let Some(Reverse(alarm)) = self.alarms.pop() {
                self.ring(&alarm);
            }
        }
    }

    /// When the next thing is due; what was ended meanwhile is not.
    pub(crate) fn next_alarm(&mut self) -> Option<Duration> {
        while self.alarms.peek().is_some_and(|Reverse(alarm)| !self.is_live(alarm)) {
            self.alarms.pop();
        }
        self.alarms.peek().map(|Reverse(alarm)| alarm.at)
    }

    fn is_live(&self, alarm: &Alarm) -> bool {
        let Some(node) = self.nodes.get(&alarm.node) else { return false };
        match alarm.power {
            Some(power) => node.target_power == Some(power),
            None => node.job.as_ref().is_some_and(|job| job.ticket == alarm.ticket),
        }
    }

    fn ring(&mut self, alarm: &Alarm) {
        if !self.is_live(alarm) {
            return;
        }
        if let Some(power) = alarm.power {
            return self.reach_power(alarm.node, power);
        }
        self.pass(alarm.node, alarm.at);
        self.run(alarm.node, alarm.at);
    }

    fn set_alarm(&mut self, node: u64, ticket: u64, at: Duration, power: Option<Power>) {
        self.alarms.push(Reverse(Alarm { at, ticket, node, power }));
        self.has_new_alarm = true;
    }

    fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    // Operations

    /// Begins an operation; the state machine has been asked already.
    pub(crate) fn begin(&mut self, id: u64, operation: Operation, steps: Vec<Step>, manual: bool) {
        let now = self.now();
        self.begin_at(id, operation, steps, manual, now);
        self.run(id, now);
    }

    fn begin_at(&mut self, id: u64, operation: Operation, steps: Vec<Step>, manual: bool, now: Duration) {
        let ticket = self.ticket();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let ending = self.faults.ending(&node.uuid, node.name(), operation);
        let offered = Arc::clone(&self.settings.agent_steps);
        let mut job = Job::new(operation, node, steps, manual, ending, offered);
        job.ticket = ticket;
        node.last_error = None;
        node.target = Some(job.target());
        match operation {
            Operation::Inspect => {
                node.inspection_started = Some(now);
                node.inspection_finished = None;
            }
            Operation::Clean if !job.steps.is_empty() => {
                let kind = if manual { "manual" } else { "automated" };
                node.remember(
                    "INFO",
                    format!("Starting {kind} cleaning with steps={}", outcome::listed(&job.steps)),
                    now,
                );
            }
            Operation::Deploy => node.remember("INFO", "Starting deployment with steps=[]".to_owned(), now),
            _ => {}
        }
        if let Some(first) = job.phases.front() {
            node.enter(*first, now);
        }
        node.job = Some(job);
    }

    /// Goes through the phases that take no time, and waits in the first that does.
    fn run(&mut self, id: u64, now: Duration) {
        while let Some((ticket, state, stalls)) = self.nodes.get(&id).and_then(|node| {
            let job = node.job.as_ref()?;
            Some((job.ticket, node.state, job.phases.len() == 1 && job.stalls()))
        }) {
            if stalls || state.accepts(super::states::Verb::Unhold) {
                return;
            }
            let delay = self.delays.of(state);
            if !delay.is_zero() {
                self.set_alarm(id, ticket, now.saturating_add(delay), None);
                return;
            }
            self.pass(id, now);
        }
    }

    /// Ends the present phase.
    fn pass(&mut self, id: u64, now: Duration) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(job) = node.job.as_mut() else { return };
        job.phases.pop_front();
        if let Some(next) = job.phases.front().copied() {
            node.enter(next, now);
            if next.waits_for_agent() {
                self.boot_agent(id);
            }
        } else if let Some(job) = node.job.take() {
            self.finish(id, job, now);
        }
    }

    fn finish(&mut self, id: u64, mut job: Job, now: Duration) {
        match job.ending.take() {
            Some(Ending::Fails { last_error }) => self.fail(id, &job, last_error, now),
            Some(Ending::Vanishes) => self.remove(id),
            Some(Ending::EndsIn(state)) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.target = None;
                    node.enter(state, now);
                }
            }
            Some(Ending::Maintenance { reason, fault }) => {
                self.succeed(id, job, now);
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.set_maintenance(true, Some(reason));
                    node.fault = fault;
                }
            }
            Some(Ending::Stalls) | None => self.succeed(id, job, now),
        }
    }

    fn fail(&mut self, id: u64, job: &Job, last_error: Option<String>, now: Duration) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.target = match job.operation {
            Operation::Verify | Operation::Undeploy => None,
            _ => Some(job.target()),
        };
        if let Some(text) = &last_error {
            node.remember("ERROR", text.clone(), now);
        }
        if job.operation == Operation::Clean && !job.steps.is_empty() {
            // cleaning_error_handler: only while a step was under way.
            let reason = node.maintenance_reason.take().or_else(|| last_error.clone());
            node.set_maintenance(true, reason);
            node.fault = Some("clean failure".to_owned());
        }
        node.last_error = last_error;
        node.enter(job.operation.fails_to(), now);
        match job.operation {
            Operation::Clean => self.record_cleaning(id, job, CleaningOutcome::Failed),
            Operation::Undeploy => self.clear_instance(id),
            _ => {}
        }
    }

    fn succeed(&mut self, id: u64, job: Job, now: Duration) {
        match job.operation {
            Operation::Verify => {
                if let Err(sentence) = self.try_credentials(id) {
                    return self.fail(id, &job, Some(sentence), now);
                }
                self.read_power(id);
            }
            Operation::Inspect => self.inspected(id, now),
            Operation::Clean => {
                if let Some(sentence) = self.unsupported_step(id, &job) {
                    let job = Job { steps: Vec::new(), ..job };
                    return self.fail(id, &job, Some(sentence), now);
                }
                self.cleaned(id, &job, now);
            }
            Operation::Deploy => self.deployed(id, now),
            Operation::Undeploy => return self.undeployed(id, now),
            Operation::Adopt | Operation::Rescue | Operation::Unrescue | Operation::Service => {}
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.target = None;
            node.enter(job.target(), now);
        }
    }

    // Requests that end or continue operations

    /// Ends what waits.
    pub(crate) fn abort(&mut self, id: u64) {
        let now = self.now();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(state) = node.state.aborts_to() else { return };
        let job = node.job.take();
        node.last_error = match state {
            S::CleanFailed => Some("By request, the clean operation was aborted".to_owned()),
            S::DeployFailed => Some(
                "By request, the deploy operation was aborted during or after the completion of step \"deploy.deploy\""
                    .to_owned(),
            ),
            S::InspectFailed => Some("Inspection was aborted by request.".to_owned()),
            S::ServiceFailed => Some("By request, the service operation was aborted".to_owned()),
            _ => None,
        };
        node.target = job.as_ref().map(Job::target).filter(|_| state != S::Active);
        node.enter(state, now);
        let Some(job) = job else { return };
        if job.operation == Operation::Clean {
            self.record_cleaning(id, &job, CleaningOutcome::Aborted);
        }
        if matches!(job.operation, Operation::Clean | Operation::Inspect) {
            self.switch(id, Power::Off);
        }
    }

    /// Goes on after a `hold` step.
    pub(crate) fn unhold(&mut self, id: u64) {
        let now = self.now();
        self.pass(id, now);
        self.run(id, now);
    }

    /// Keeps the config drive for the next deploy.
    pub(crate) fn give_config_drive(&mut self, id: u64, drive: Option<ConfigDrive>) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.config_drive = drive;
        }
    }

    /// Moves at once, without an operation.
    pub(crate) fn move_to(&mut self, id: u64, state: S) {
        let now = self.now();
        if let Some(node) = self.nodes.get_mut(&id) {
            node.job = None;
            node.target = None;
            node.enter(state, now);
        }
    }
}
