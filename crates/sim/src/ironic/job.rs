//! What Ironic is doing to a node: the states that it goes through, how long each lasts, how it ends.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::fault::Ending;
use super::node::Node;
use super::states::{Operation, ProvisionState as S};

/// How long nodes stay in each passing state. Zero by default: a node is where it was sent before its client reads the answer.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    by_state: HashMap<S, Duration>,
    power: Duration,
}

impl Delays {
    /// None at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// About what real Ironic 39 takes with a BMC that answers at once (facts, metal3-ironic.md §6).
    pub fn measured() -> Self {
        let seconds = |seconds: f64| Duration::from_secs_f64(seconds);
        Self::none()
            .with(S::Verifying, seconds(4.5))
            .with(S::Inspecting, seconds(1.1))
            .with(S::InspectWait, seconds(12.0))
            .with(S::Cleaning, seconds(3.0))
            .with(S::CleanWait, seconds(11.0))
            .with(S::Deploying, seconds(13.0))
            .with(S::WaitCallBack, seconds(9.0))
            .with(S::Deleting, seconds(6.3))
            .with(S::Adopting, seconds(5.0))
            .with_power(seconds(1.0))
    }

    /// The same delay for every passing state and for power.
    pub fn uniform(delay: Duration) -> Self {
        let passing = S::ALL.iter().filter(|state| state.is_locked() || state.waits_for_agent());
        passing.fold(Self::none().with_power(delay), |delays, state| delays.with(*state, delay))
    }

    /// With this delay in this state.
    #[must_use]
    pub fn with(mut self, state: S, delay: Duration) -> Self {
        self.by_state.insert(state, delay);
        self
    }

    /// With this delay between a power request and its effect.
    #[must_use]
    pub fn with_power(mut self, delay: Duration) -> Self {
        self.power = delay;
        self
    }

    /// All delays multiplied.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Self {
        for delay in self.by_state.values_mut().chain([&mut self.power]) {
            *delay = delay.mul_f64(factor.max(0.0));
        }
        self
    }

    pub(crate) fn of(&self, state: S) -> Duration {
        self.by_state.get(&state).copied().unwrap_or_default()
    }

    pub(crate) fn power(&self) -> Duration {
        self.power
    }
}

/// A step of a clean, a deploy or a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Such as `deploy`.
    pub interface: String,
    /// Such as `erase_devices_metadata`.
    pub step: String,
    /// As a client gave it, arguments included.
    given: Option<Value>,
}

impl Step {
    /// A step by its two names.
    pub fn new(interface: &str, step: &str) -> Self {
        Self { interface: interface.to_owned(), step: step.to_owned(), given: None }
    }

    /// A step of a request; the key that it misses where it is none.
    pub(crate) fn read(given: &Value) -> Result<Self, &'static str> {
        let text = |key: &'static str| given.get(key).and_then(Value::as_str).ok_or(key);
        Ok(Self { given: Some(given.clone()), ..Self::new(text("interface")?, text("step")?) })
    }

    /// Whether they are the same, whatever their arguments.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (&self.interface, &self.step) == (&other.interface, &other.step)
    }

    fn is_hold(&self) -> bool {
        self.step == "hold"
    }

    pub(crate) fn show(&self) -> Value {
        let made_up = || json!({"interface": self.interface, "step": self.step});
        self.given.clone().unwrap_or_else(made_up)
    }
}

/// What is under way.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) operation: Operation,
    /// The states still to come, the present one first.
    pub(crate) phases: VecDeque<S>,
    /// Tells this job's alarms from those of jobs that were ended.
    pub(crate) ticket: u64,
    pub(crate) steps: Vec<Step>,
    /// A clean that was asked for ends in `manageable`.
    pub(crate) manual: bool,
    /// What a rule makes of it.
    pub(crate) ending: Option<Ending>,
    /// The clean steps that the agent tells of.
    pub(crate) offered: Arc<[Step]>,
}

impl Job {
    pub(crate) fn new(
        operation: Operation,
        node: &Node,
        steps: Vec<Step>,
        manual: bool,
        ending: Option<Ending>,
        offered: Arc<[Step]>,
    ) -> Self {
        let phases = phases(operation, node, &steps);
        Self { operation, phases, ticket: 0, steps, manual, ending, offered }
    }

    /// What the conductor keeps of a clean while it runs (`driver_internal_info`); the agent's steps from its first heartbeat on.
    pub(crate) fn internal_info(&self) -> Value {
        if self.operation != Operation::Clean || self.steps.is_empty() {
            return json!({});
        }
        let mut info = json!({ "clean_steps": shown(&self.steps) });
        let agent_runs = self.phases.front().is_some_and(|state| state.waits_for_agent());
        if agent_runs {
            info["clean_step_index"] = json!(0);
            info["agent_cached_clean_steps"] = json!({ "deploy": shown(&self.offered) });
        }
        info
    }

    /// Where it leads when all goes well.
    pub(crate) fn target(&self) -> S {
        match self.operation {
            Operation::Verify | Operation::Inspect => S::Manageable,
            Operation::Clean if self.manual => S::Manageable,
            Operation::Clean | Operation::Undeploy => S::Available,
            Operation::Deploy | Operation::Adopt | Operation::Unrescue | Operation::Service => S::Active,
            Operation::Rescue => S::Rescue,
        }
    }

    /// Whether a rule keeps it from ending.
    pub(crate) fn stalls(&self) -> bool {
        self.ending == Some(Ending::Stalls)
    }

    /// The node's field that shows the step under way.
    pub(crate) fn step_field(&self) -> &'static str {
        match self.operation {
            Operation::Deploy => "deploy_step",
            Operation::Service => "service_step",
            _ => "clean_step",
        }
    }

    /// The step under way.
    pub(crate) fn step(&self) -> Value {
        self.steps.first().map_or_else(|| json!({}), Step::show)
    }
}

fn shown(steps: &[Step]) -> Value {
    steps.iter().map(Step::show).collect()
}

/// The states that an operation leads through: with an agent it waits for the agent in between.
fn phases(operation: Operation, node: &Node, steps: &[Step]) -> VecDeque<S> {
    let agent_deploys = matches!(node.interface("deploy"), "direct" | "custom-agent");
    let agent_inspects = node.interface("inspect") == "agent";
    let holds = steps.iter().any(Step::is_hold);
    let phases: &[S] = match operation {
        Operation::Verify => &[S::Verifying],
        Operation::Inspect if agent_inspects => &[S::Inspecting, S::InspectWait, S::Inspecting],
        Operation::Inspect => &[S::Inspecting],
        Operation::Clean if holds => &[S::Cleaning, S::CleanHold, S::CleanWait, S::Cleaning],
        // Ramdisk deploys clean with the agent too.
        Operation::Clean if !steps.is_empty() && !node.is_fake("deploy") => {
            &[S::Cleaning, S::CleanWait, S::Cleaning]
        }
        Operation::Clean => &[S::Cleaning],
        Operation::Deploy if holds => &[S::Deploying, S::DeployHold, S::WaitCallBack, S::Deploying],
        Operation::Deploy if agent_deploys => &[S::Deploying, S::WaitCallBack, S::Deploying],
        Operation::Deploy => &[S::Deploying],
        Operation::Undeploy => &[S::Deleting],
        Operation::Adopt => &[S::Adopting],
        Operation::Rescue => &[S::Rescuing, S::RescueWait, S::Rescuing],
        Operation::Unrescue => &[S::Unrescuing],
        Operation::Service if holds => &[S::Servicing, S::ServiceHold, S::ServiceWait, S::Servicing],
        Operation::Service => &[S::Servicing, S::ServiceWait, S::Servicing],
    };
    phases.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    #[test]
    fn a_uniform_delay_holds_in_every_passing_state_and_in_no_other() {
        let second = Duration::from_secs(1);
        let delays = Delays::uniform(second);
        assert_eq!(delays.of(S::WaitCallBack), second);
        assert_eq!(delays.of(S::Active), Duration::ZERO);
        assert_eq!(delays.of(S::CleanHold), Duration::ZERO);
    }

    #[test]
    fn measured_delays_can_be_scaled() {
        assert_eq!(Delays::measured().scaled(0.1).of(S::Verifying), Duration::from_millis(450));
    }

    #[test]
    fn a_direct_deploy_waits_for_the_agent_and_a_ramdisk_deploy_does_not() {
        let node = |deploy: &str| {
            let record = Map::from_iter([("deploy_interface".to_owned(), Value::from(deploy))]);
            Node::new(1, "u".to_owned(), record, Duration::ZERO)
        };
        assert_eq!(
            phases(Operation::Deploy, &node("direct"), &[]),
            [S::Deploying, S::WaitCallBack, S::Deploying]
        );
        assert_eq!(phases(Operation::Deploy, &node("ramdisk"), &[]), [S::Deploying]);
    }
}
