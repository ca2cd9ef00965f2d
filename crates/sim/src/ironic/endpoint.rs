//! The endpoint: how it is made, asked and moved by its owner.

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use ::http::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::Notify;

use super::clock::Clock;
use super::fault::{NodeFault, NodeFaultId};
use super::fleet::{Fleet, Settings};
use super::hook::NodeEvent;
use super::http::{self, Call};
use super::inventory::NodeFacts;
use super::job::{Delays, Step};
use super::node::Node;
use super::record::{Cleaning, RequestEntry, VerbCount};
use super::states::{Power, ProvisionState, Verb};
use super::version::Microversion;
use crate::bmc::Counting;
use crate::error::Error;
use crate::fault::Faults;
use crate::server::{Tasks, listen_on};

type Hook = Box<dyn Fn(NodeEvent) + Send + Sync>;

/// What connections and the owner share.
pub(crate) struct Shared {
    fleet: Mutex<Fleet>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) base: String,
    pub(crate) newest: Microversion,
    /// User and password of `http_basic`.
    pub(crate) credentials: Option<(String, String)>,
    pub(crate) faults: Faults,
    pub(crate) counting: Counting,
    log: Mutex<Option<VecDeque<RequestEntry>>>,
    hooks: Vec<Hook>,
    delivering: Mutex<()>,
    wake: Notify,
}

impl Shared {
    pub(crate) fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a request, if requests are kept.
    pub(crate) fn log(&self, entry: impl FnOnce() -> RequestEntry) {
        if let Some(log) = self.log.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            log.push_back(entry());
        }
    }

    /// After anything that may have moved nodes: tells the owner, and the task that waits for the next alarm.
    pub(crate) fn moved(&self) {
        let (happened, alarmed) = {
            let mut fleet = self.fleet();
            (!fleet.events.is_empty(), std::mem::take(&mut fleet.has_new_alarm))
        };
        if happened {
            self.deliver();
        }
        if alarmed {
            self.wake.notify_one();
        }
    }

    /// Tells the owner what has happened, in order and outside the lock, so that hooks may ask the endpoint.
    fn deliver(&self) {
        loop {
            let turn = match self.delivering.try_lock() {
                Ok(guard) => guard,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // Whoever delivers now looks again before it leaves.
                Err(TryLockError::WouldBlock) => return,
            };
            while let Some(event) = self.next_event() {
                for hook in &self.hooks {
                    hook(event.clone());
                }
            }
            drop(turn);
            if self.fleet().events.is_empty() {
                return;
            }
        }
    }

    fn next_event(&self) -> Option<NodeEvent> {
        self.fleet().events.pop_front()
    }

    /// Carries out what becomes due while nobody asks.
    async fn keep_time(self: Arc<Self>) {
        loop {
            let next = self.fleet().next_alarm();
            let Some(next) = next else {
                self.wake.notified().await;
                continue;
            };
            let left = next.saturating_sub(self.clock.now());
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = self.wake.notified() => {}
            }
            self.fleet().settle();
            self.deliver();
        }
    }
}

/// How an endpoint is made.
pub struct IronicBuilder {
    address: SocketAddr,
    clock: Clock,
    delays: Delays,
    newest: Microversion,
    credentials: Option<(String, String)>,
    settings: Settings,
    hooks: Vec<Hook>,
}

/// It holds a password.
impl fmt::Debug for IronicBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IronicBuilder").field("delays", &self.delays).finish_non_exhaustive()
    }
}

impl IronicBuilder {
    /// Listens here instead of on a free port of 127.0.0.1.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// With these delays.
    #[must_use]
    pub fn delays(mut self, delays: Delays) -> Self {
        self.delays = delays;
        self
    }

    /// Time stands still until [`IronicEndpoint::advance`] or [`IronicEndpoint::step`] moves it.
    #[must_use]
    pub fn stepped(mut self) -> Self {
        self.clock = Clock::stepped();
        self
    }

    /// Asks for this user and password (`auth_strategy = http_basic`) everywhere but at `/` and `/v1`.
    #[must_use]
    pub fn http_basic(mut self, username: &str, password: &str) -> Self {
        self.credentials = Some((username.to_owned(), password.to_owned()));
        self
    }

    /// Speaks no microversion after this one, as an older Ironic.
    #[must_use]
    pub fn newest(mut self, version: Microversion) -> Self {
        self.newest = version.min(Microversion::MAX);
        self
    }

    /// Whether nodes that say nothing are cleaned between uses (`[conductor]automated_clean`); they are by default.
    #[must_use]
    pub fn automated_clean(mut self, on: bool) -> Self {
        self.settings.automated_clean = on;
        self
    }

    /// Whether `provide` is accepted in maintenance (`[conductor]allow_provisioning_in_maintenance`); it is by default.
    #[must_use]
    pub fn provisioning_in_maintenance(mut self, allowed: bool) -> Self {
        self.settings.provisioning_in_maintenance = allowed;
        self
    }

    /// The steps of automated cleaning; `deploy.erase_devices_metadata` by default.
    #[must_use]
    pub fn clean_steps(mut self, steps: Vec<Step>) -> Self {
        self.settings.clean_steps = steps;
        self
    }

    /// The clean steps that agents have, whether or not automated cleaning runs them; those that erase disks by default. Clients see
    /// them while an agent runs.
    #[must_use]
    pub fn agent_steps(mut self, steps: Vec<Step>) -> Self {
        self.settings.agent_steps = steps.into();
        self
    }

    /// What inspections find; `None` for a small server made up from the node's ports. It must not call the endpoint.
    #[must_use]
    pub fn inventory(
        mut self,
        source: impl Fn(&NodeFacts<'_>) -> Option<Value> + Send + Sync + 'static,
    ) -> Self {
        self.settings.inventory = Some(Arc::new(source));
        self
    }

    /// Tries the credentials of each node that is verified; the error becomes part of `last_error`. It must not call the endpoint.
    #[must_use]
    pub fn credential_check(
        mut self,
        check: impl Fn(&NodeFacts<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.settings.credentials = Some(Arc::new(check));
        self
    }

    /// Tells this function what happens to nodes' machines. It is called in order, one event at a time, and may ask the endpoint.
    #[must_use]
    pub fn on_event(mut self, hook: impl Fn(NodeEvent) + Send + Sync + 'static) -> Self {
        self.hooks.push(Box::new(hook));
        self
    }

    /// The conductor's name; `sim-conductor` by default.
    #[must_use]
    pub fn conductor(mut self, name: &str) -> Self {
        name.clone_into(&mut self.settings.conductor);
        self
    }

    /// Starts to listen. Must be called within a Tokio runtime; the endpoint ends when it is dropped.
    pub fn start(self) -> Result<IronicEndpoint, Error> {
        let listener = listen_on(self.address)?;
        let address = listener.local_addr().map_err(|source| Error::Listen {
            address: self.address,
            hint: "the socket has no address",
            source,
        })?;
        let clock = Arc::new(self.clock);
        let shared = Arc::new(Shared {
            fleet: Mutex::new(Fleet::new(self.settings, self.delays, Arc::clone(&clock))),
            clock,
            base: format!("http://{address}"),
            newest: self.newest,
            credentials: self.credentials,
            faults: Faults::default(),
            counting: Counting::default(),
            log: Mutex::default(),
            hooks: self.hooks,
            delivering: Mutex::default(),
            wake: Notify::new(),
        });
        let tasks = Tasks::new();
        http::serve(&tasks, listener, &shared);
        if !shared.clock.is_stepped() {
            tasks.spawn(Arc::clone(&shared).keep_time());
        }
        Ok(IronicEndpoint { shared, address, tasks })
    }
}

/// A running endpoint; dropping it ends it.
pub struct IronicEndpoint {
    shared: Arc<Shared>,
    address: SocketAddr,
    tasks: Tasks,
}

impl fmt::Debug for IronicEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IronicEndpoint").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A node as its owner sees it: what Ironic shows, and what is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSnapshot {
    /// The UUID.
    pub uuid: String,
    /// The name.
    pub name: Option<String>,
    /// `provision_state`.
    pub provision_state: ProvisionState,
    /// `target_provision_state`.
    pub target_provision_state: Option<ProvisionState>,
    /// The power that Ironic believes in.
    pub power_state: Option<Power>,
    /// The machine's power.
    pub hardware_power: Power,
    /// Whether it is in maintenance.
    pub maintenance: bool,
    /// `last_error`.
    pub last_error: Option<String>,
    /// `instance_uuid`.
    pub instance_uuid: Option<String>,
    /// The image that a client has attached as virtual media.
    pub attached_image: Option<String>,
    /// Every state that it was in, in order.
    pub states: Vec<ProvisionState>,
    /// The MAC addresses of its ports.
    pub macs: Vec<String>,
}

impl IronicEndpoint {
    /// An endpoint without nodes, on a free port, without delays, without authentication.
    pub fn builder() -> IronicBuilder {
        IronicBuilder {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            clock: Clock::of_the_machine(),
            delays: Delays::none(),
            newest: Microversion::MAX,
            credentials: None,
            settings: Settings {
                conductor: "sim-conductor".to_owned(),
                automated_clean: true,
                provisioning_in_maintenance: true,
                clean_steps: vec![Step::new("deploy", "erase_devices_metadata")],
                agent_steps: ["erase_devices", "erase_devices_metadata", "erase_devices_express"]
                    .map(|step| Step::new("deploy", step))
                    .into(),
                inventory: None,
                credentials: None,
            },
            hooks: Vec::new(),
        }
    }

    /// Where it is: `http://127.0.0.1:port`, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.shared.base
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it, and waits until its connections are closed.
    pub async fn shut_down(self) {
        self.tasks.shut_down().await;
    }

    /// Asks it without a socket, in the newest version and without faults or credentials: for what a test prepares. `target` is a path with
    /// query.
    pub fn request(&self, method: Method, target: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let call = Call::new(method, target, body.into_bytes(), self.shared.newest);
        let reply = call.answer(&self.shared);
        self.shared.moved();
        (reply.status, reply.body.unwrap_or_default())
    }

    // What it has seen

    /// How many requests have come over the network.
    pub fn requests(&self) -> u64 {
        self.shared.counting.requests.load(Ordering::Relaxed)
    }

    /// The greatest number of requests that were being answered at once.
    pub fn peak_concurrency(&self) -> u64 {
        self.shared.counting.peak.load(Ordering::Relaxed)
    }

    /// How many deploys of this node were accepted (`active` and `rebuild`), deleted nodes included.
    pub fn deploys(&self, uuid: &str) -> u32 {
        self.verbs(uuid, Verb::Active).accepted + self.verbs(uuid, Verb::Rebuild).accepted
    }

    /// How often a verb was asked of this node.
    pub fn verbs(&self, uuid: &str, verb: Verb) -> VerbCount {
        self.shared.fleet().records.verb(uuid, verb)
    }

    /// How often a verb was asked of all nodes together.
    pub fn verbs_of_all(&self, verb: Verb) -> VerbCount {
        self.shared.fleet().records.total(verb)
    }

    /// The cleans of this node, in order: what was erased between its uses.
    pub fn cleanings(&self, uuid: &str) -> Vec<Cleaning> {
        self.shared.fleet().records.cleanings(uuid)
    }

    /// Keeps every request from now on; secrets in bodies are masked.
    pub fn record_requests(&self) {
        *self.shared.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(VecDeque::new());
    }

    /// The requests kept since [`Self::record_requests`].
    pub fn recorded_requests(&self) -> Vec<RequestEntry> {
        let log = self.shared.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().flatten().cloned().collect()
    }

    /// A node by UUID or name.
    pub fn node(&self, ident: &str) -> Option<NodeSnapshot> {
        let fleet = self.settled();
        fleet.node(fleet.find(ident)?).map(|node| snapshot(&fleet, node))
    }

    /// All nodes, in the order in which they were made.
    pub fn nodes(&self) -> Vec<NodeSnapshot> {
        let fleet = self.settled();
        fleet.nodes().map(|node| snapshot(&fleet, node)).collect()
    }

    fn settled(&self) -> MutexGuard<'_, Fleet> {
        let mut fleet = self.shared.fleet();
        fleet.settle();
        fleet
    }

    // Faults

    /// Rules for requests. Paths are matched as `/v1/nodes/{uuid}/…`, whatever name the client has used.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Adds a rule for nodes.
    pub fn add_node_fault(&self, fault: NodeFault) -> NodeFaultId {
        self.shared.fleet().faults.add(fault)
    }

    /// Removes a rule; false if there was none.
    pub fn remove_node_fault(&self, id: NodeFaultId) -> bool {
        self.shared.fleet().faults.remove(id)
    }

    /// Removes all rules for nodes.
    pub fn clear_node_faults(&self) {
        self.shared.fleet().faults.clear();
    }

    // Behind the clients' back. Each is false where there is no such node.

    /// Moves a node to a state, whatever it was doing.
    pub fn set_state(&self, ident: &str, state: ProvisionState) -> bool {
        self.change(ident, |fleet, id| fleet.move_to(id, state))
    }

    /// Puts a node into maintenance as Ironic itself does, with a `fault` such as `power failure`.
    pub fn set_maintenance(&self, ident: &str, reason: &str, fault: Option<&str>) -> bool {
        self.change_node(ident, |node| {
            node.set_maintenance(true, Some(reason.to_owned()));
            node.fault = fault.map(str::to_owned);
        })
    }

    /// Deletes a node with its ports, whatever it was doing.
    pub fn delete_node(&self, ident: &str) -> bool {
        self.change(ident, Fleet::remove)
    }

    /// Holds a node's lock in the name of this host until [`Self::release`].
    pub fn reserve(&self, ident: &str, host: &str) -> bool {
        self.change_node(ident, |node| node.held_by = Some(host.to_owned()))
    }

    /// Lets a node's lock go.
    pub fn release(&self, ident: &str) -> bool {
        self.change_node(ident, |node| node.held_by = None)
    }

    /// Switches the machine itself: Ironic does not know of it.
    pub fn set_hardware_power(&self, ident: &str, power: Power) -> bool {
        self.change_node(ident, |node| node.hardware_power = power)
    }

    fn change_node(&self, ident: &str, change: impl FnOnce(&mut Node)) -> bool {
        self.change(ident, |fleet, id| {
            if let Some(node) = fleet.node_mut(id) {
                change(node);
            }
        })
    }

    fn change(&self, ident: &str, change: impl FnOnce(&mut Fleet, u64)) -> bool {
        let mut fleet = self.settled();
        let found = fleet.find(ident);
        if let Some(id) = found {
            change(&mut fleet, id);
        }
        drop(fleet);
        self.shared.moved();
        found.is_some()
    }

    // Time

    /// Changes the delays of phases that begin from now on.
    pub fn set_delays(&self, delays: Delays) {
        self.shared.fleet().delays = delays;
    }

    /// Moves the time of a stepped endpoint forward; whatever becomes due happens, in order.
    pub fn advance(&self, by: Duration) {
        let to = self.shared.clock.now().saturating_add(by);
        while let Some(due) = self.next_alarm().filter(|due| *due <= to) {
            self.arrive(due);
        }
        self.arrive(to);
    }

    /// Moves the time of a stepped endpoint to the next thing that is due; false if nothing is.
    pub fn step(&self) -> bool {
        match self.next_alarm() {
            Some(due) if self.shared.clock.is_stepped() => {
                self.arrive(due);
                true
            }
            _ => false,
        }
    }

    /// Whether a node is under way with something that will end by itself.
    pub fn is_busy(&self) -> bool {
        self.next_alarm().is_some()
    }

    fn next_alarm(&self) -> Option<Duration> {
        self.shared.fleet().next_alarm()
    }

    fn arrive(&self, time: Duration) {
        self.shared.clock.move_to(time);
        self.shared.fleet().settle();
        self.shared.deliver();
    }
}

fn snapshot(fleet: &Fleet, node: &Node) -> NodeSnapshot {
    NodeSnapshot {
        uuid: node.uuid.clone(),
        name: node.name().map(str::to_owned),
        provision_state: node.state,
        target_provision_state: node.target,
        power_state: node.power,
        hardware_power: node.hardware_power,
        maintenance: node.flag("maintenance"),
        last_error: node.last_error.clone(),
        instance_uuid: node.text("instance_uuid").map(str::to_owned),
        attached_image: node.attached_image.clone(),
        states: node.seen.clone(),
        macs: fleet.macs(node),
    }
}
