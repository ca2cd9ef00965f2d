//! Conditions of a node in which we do not act, told apart so that people and the caller's back-off can.

use domain::{Diagnose, Problem};
use uuid::Uuid;

use crate::error::problem;
use crate::node::ProvisionState;

/// Why nothing is done to a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The node is in maintenance, by people or by a fault that Ironic found.
    #[error("the node is in maintenance{}{}", because(reason.as_ref()), fault_of(fault.as_ref()))]
    Maintenance {
        /// `maintenance_reason`.
        reason: Option<String>,
        /// `fault`: `power failure`, `clean failure`, …
        fault: Option<String>,
    },
    /// The node was deleted while the machine had an instance on it.
    #[error("the node does not exist any more")]
    NodeGone,
    /// The node carries an instance of somebody else.
    #[error("the node carries an instance that is not ours{}", instance_of(found.as_ref()))]
    InstanceForeign {
        /// `instance_uuid`; `None` for a node that is active without one.
        found: Option<String>,
    },
    /// The instance was on the node once and is not any more, though nobody here took it away.
    #[error("instance {instance} was on the node and is not any more")]
    InstanceSpent {
        /// The instance.
        instance: Uuid,
    },
    /// The node's marks in `extra` name another cell or machine.
    #[error("the node belongs to machine {machine} of cell {cell}")]
    OwnedElsewhere {
        /// The cell named.
        cell: String,
        /// The machine named.
        machine: String,
    },
    /// Several nodes look like the machine.
    #[error("several nodes look like this machine: {}", nodes.join(", "))]
    Ambiguous {
        /// Their names and UUIDs.
        nodes: Vec<String>,
    },
    /// Verification failed: back in `enroll`.
    #[error("Ironic cannot manage the BMC: {}", told(last_error.as_ref()))]
    VerifyFailed {
        /// `last_error`.
        last_error: Option<String>,
    },
    /// In `inspect failed`.
    #[error("inspection failed: {}", told(last_error.as_ref()))]
    InspectFailed {
        /// `last_error`.
        last_error: Option<String>,
    },
    /// In `clean failed`.
    #[error("cleaning failed: {}", told(last_error.as_ref()))]
    CleanFailed {
        /// `last_error`.
        last_error: Option<String>,
    },
    /// In `deploy failed`; Ironic may lose the reason (facts/metal3-ironic §8.3).
    #[error("deploying failed: {}", told(last_error.as_ref()))]
    DeployFailed {
        /// `last_error`.
        last_error: Option<String>,
    },
    /// In `error`: tearing down failed.
    #[error("taking the instance away failed: {}", told(last_error.as_ref()))]
    UndeployFailed {
        /// `last_error`.
        last_error: Option<String>,
    },
    /// In a state that we never bring a node into.
    #[error("the node is in state `{state}`, into which somebody else brought it")]
    StateForeign {
        /// The state.
        state: ProvisionState,
    },
    /// The node carries our instance, and the wish does not say to take it away.
    #[error("the node carries an instance (state `{state}`)")]
    InUse {
        /// The state.
        state: ProvisionState,
    },
    /// `protected` is set.
    #[error("the node is protected{}", because(reason.as_ref()))]
    Protected {
        /// `protected_reason`.
        reason: Option<String>,
    },
    /// `retired` is set.
    #[error("the node is marked as retired{}", because(reason.as_ref()))]
    Retired {
        /// `retired_reason`.
        reason: Option<String>,
    },
}

fn because(reason: Option<&String>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

fn fault_of(fault: Option<&String>) -> String {
    fault.map(|fault| format!(" (fault: {fault})")).unwrap_or_default()
}

fn instance_of(found: Option<&String>) -> String {
    found.map(|found| format!(": {found}")).unwrap_or_default()
}

fn told(last_error: Option<&String>) -> &str {
    last_error.map_or("Ironic tells no reason", String::as_str)
}

impl Refusal {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Maintenance { .. } => "ironic.maintenance",
            Self::NodeGone => "ironic.node-gone",
            Self::InstanceForeign { .. } => "ironic.instance-foreign",
            Self::InstanceSpent { .. } => "ironic.instance-spent",
            Self::OwnedElsewhere { .. } => "ironic.owned-elsewhere",
            Self::Ambiguous { .. } => "ironic.node-ambiguous",
            Self::VerifyFailed { .. } => "ironic.verify-failed",
            Self::InspectFailed { .. } => "ironic.inspect-failed",
            Self::CleanFailed { .. } => "ironic.clean-failed",
            Self::DeployFailed { .. } => "ironic.deploy-failed",
            Self::UndeployFailed { .. } => "ironic.undeploy-failed",
            Self::StateForeign { .. } => "ironic.state-foreign",
            Self::InUse { .. } => "ironic.in-use",
            Self::Protected { .. } => "ironic.protected",
            Self::Retired { .. } => "ironic.retired",
        }
    }

    /// Whether something that Ironic tried has failed.
    pub fn is_failure(&self) -> bool {
        self.last_error().is_some()
    }

    /// Where Ironic's reason stands, in a failure.
    fn last_error(&self) -> Option<&Option<String>> {
        match self {
            Self::VerifyFailed { last_error }
            | Self::InspectFailed { last_error }
            | Self::CleanFailed { last_error }
            | Self::DeployFailed { last_error }
            | Self::UndeployFailed { last_error } => Some(last_error),
            _ => None,
        }
    }

    /// Whether it is a failure whose reason Ironic has lost.
    pub(crate) fn lacks_reason(&self) -> bool {
        self.last_error().is_some_and(Option::is_none)
    }

    /// The same failure with a reason.
    pub(crate) fn with_reason(mut self, reason: String) -> Self {
        match &mut self {
            Self::VerifyFailed { last_error }
            | Self::InspectFailed { last_error }
            | Self::CleanFailed { last_error }
            | Self::DeployFailed { last_error }
            | Self::UndeployFailed { last_error } => *last_error = Some(reason),
            _ => {}
        }
        self
    }

    /// Whether it may pass by itself, or by a try that the caller decides on. What does not needs people.
    pub fn is_passing(&self) -> bool {
        self.is_failure() || matches!(self, Self::Maintenance { .. } | Self::StateForeign { .. })
    }
}

impl Diagnose for Refusal {
    fn problem(&self) -> Problem {
        problem(self.code(), self.to_string())
    }
}
