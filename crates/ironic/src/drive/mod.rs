//! What to do next with one node, given what it is and what it should be. Pure: no I/O, no clock, no memory but what is at
//! the node, so a crash at any point loses nothing and the next call goes on.
//!
//! How an instance is deployed once at most: in `available`, one patch assigns `instance_uuid` and notes the instance in
//! our marks (`extra.bailiwick.instance`); `active` is asked for only in `available` with that instance assigned. Ironic
//! leaves `available` before it answers and clears `instance_uuid` when it takes an instance away, so a node that is
//! `available`, carries no instance and has the mark has seen that instance already.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::client::Provision;
use crate::deployment::Deployment;
use crate::node::{Node, ProvisionState, Step};
use crate::patch::Patch;
use crate::port::{Mac, Port};
use crate::refusal::Refusal;
use crate::registration::{NewNode, Registration, Trait};

mod decide;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

/// What the caller wants of one node.
#[derive(Clone, Debug)]
pub struct Task {
    /// The machine as Ironic is to know it.
    pub registration: Registration,
    /// Every instance that the caller ever gave this machine. With the one of [`Wish::Deployed`] and the node's mark they are
    /// ours; any other instance is foreign and never touched.
    pub instances: Vec<Uuid>,
    /// Where the node should go.
    pub wish: Wish,
    /// Whether a failed state may be left. Each failure is refused once all the same ([`Refusal::VerifyFailed`] and its kin),
    /// so that the caller counts it and stays away for a while; the call after that tries again. Without it a failure is
    /// refused every time. A failed deploy is left by wishing for another instance instead.
    pub retry: bool,
}

/// Where a node should go.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// Known to Ironic, as registered, and its BMC verified.
    Registered,
    /// Inspected, and after that point in time if one is given (a point of Ironic's clock: `inspection_finished_at`).
    Inspected {
        /// An inspection that ended before does not count.
        after: Option<Timestamp>,
    },
    /// Ready for an instance, cleaned as Ironic is configured. Takes no instance away.
    Available,
    /// Carries this instance, `active`. An older instance of ours is taken away first.
    Deployed(Box<Deployment>),
    /// `manageable`, after these clean steps were asked for and ended without error. Takes no instance away.
    Cleaned {
        /// The caller's name for this cleaning: another name cleans again.
        request: Uuid,
        /// In this order.
        steps: Vec<Step>,
    },
    /// Without instance, cleaned as Ironic is configured, `available`.
    Released,
    /// Not in Ironic any more.
    Removed {
        /// Also out of maintenance, a failed state, or with our instance on it; then nothing is cleaned.
        force: bool,
    },
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// This, then observe again.
    Do(Action),
    /// Nothing for a while.
    Wait(Wait),
    /// Nothing: the wish holds.
    Reached,
    /// Nothing: see why.
    Refuse(Refusal),
    /// The same, and note at the node that this failure was told, so that the next call may leave it.
    Tell {
        /// Why nothing is done now.
        refusal: Refusal,
        /// The note.
        note: Patch,
    },
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// One clause: "the agent boots and cleans".
    pub what: &'static str,
    /// When it is worth looking again.
    pub poll_after: Duration,
    /// How long it usually takes from beginning to end.
    pub usual: Duration,
}

/// One change, of one request; [`Action::Reconnect`] of two.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the node.
    CreateNode(NewNode),
    /// Create a port.
    CreatePort {
        /// Its address.
        mac: Mac,
        /// Whether the node boots from it.
        pxe_enabled: bool,
    },
    /// Replace the traits.
    SetTraits(Vec<Trait>),
    /// Change fields together.
    Patch(Patch),
    /// Change how the BMC is reached after a failed verification, and verify again.
    Reconnect(Patch),
    /// Ask for a transition.
    Provision(Provision),
    /// Begin maintenance.
    BeginMaintenance {
        /// Why.
        reason: String,
    },
    /// End maintenance, and with it the fault.
    EndMaintenance,
    /// Delete the node.
    DeleteNode,
}

impl Action {
    /// For people and for the record, without secrets: `provision: active`.
    pub fn summary(&self) -> String {
        match self {
            Self::CreateNode(_) => "create the node".to_owned(),
            Self::CreatePort { mac, .. } => format!("create port {mac}"),
            Self::SetTraits(traits) => {
                let names: Vec<&str> = traits.iter().map(Trait::as_str).collect();
                format!("set traits {}", names.join(", "))
            }
            Self::Patch(patch) => format!("patch {}", patch.paths().join(", ")),
            Self::Reconnect(patch) => format!("patch {} and verify again", patch.paths().join(", ")),
            Self::Provision(provision) => format!("provision: {}", provision.verb()),
            Self::BeginMaintenance { reason } => format!("begin maintenance: {reason}"),
            Self::EndMaintenance => "end maintenance".to_owned(),
            Self::DeleteNode => "delete the node".to_owned(),
        }
    }
}

/// What to do next. `node` is the node as just read, `None` if Ironic says that there is none; `ports` are its ports, which
/// matter in the states of [`needs_ports`] only.
pub fn next(node: Option<&Node>, ports: &[Port], task: &Task) -> Next {
    let Some(node) = node else { return decide::absent(task) };
    match decide::present(node, ports, task) {
        // Whoever holds the lock changes the node: decide again when it is done. A failure's reason and its maintenance come
        // after its state.
        Next::Do(_) | Next::Tell { .. } if node.reservation.is_some() => Next::Wait(locked()),
        Next::Refuse(refusal) if refusal.is_failure() && node.reservation.is_some() => Next::Wait(locked()),
        next => next,
    }
}

/// What is waited for while the node is locked.
pub(crate) fn locked() -> Wait {
    Wait {
        what: "another operation of Ironic holds the node's lock",
        poll_after: Duration::from_secs(1),
        usual: Duration::from_secs(5),
    }
}

/// Whether [`next`] looks at the ports of a node in this state.
pub fn needs_ports(state: &ProvisionState) -> bool {
    matches!(state, ProvisionState::Enroll | ProvisionState::Manageable | ProvisionState::Available)
}
