//! The decisions, state by state.

use std::time::Duration;

use uuid::Uuid;

use super::{Action, Next, Task, Wait, Wish};
use crate::client::Provision;
use crate::deployment::Deployment;
use crate::lenient::Shown;
use crate::node::{Node, ProvisionState as State};
use crate::patch::Patch;
use crate::port::Port;
use crate::refusal::Refusal;
use crate::registration::{CleanMark, Marks, Scope};

/// The fault that Ironic notes when cleaning fails (ironic/common/faults.py).
const CLEAN_FAILURE: &str = "clean failure";

/// Deploy interfaces without and with an agent.
const WITHOUT_AGENT: &str = "ramdisk";
const WITH_AGENT: &str = "direct";

/// Why a node that is removed by force goes through maintenance: Ironic deletes in any state then.
const REMOVAL: &str = "Bailiwick removes this node";

fn provision(provision: Provision) -> Next {
    Next::Do(Action::Provision(provision))
}

fn wait(what: &'static str, poll_after: u64, usual: u64) -> Next {
    Next::Wait(Wait { what, poll_after: Duration::from_secs(poll_after), usual: Duration::from_secs(usual) })
}

/// There is no such node.
pub(super) fn absent(task: &Task) -> Next {
    match task.wish {
        Wish::Registered | Wish::Inspected { .. } | Wish::Available => {
            Next::Do(Action::CreateNode(task.registration.new_node()))
        }
        // To create it again would hide that what is on the machine's disks is in nobody's hands.
        Wish::Deployed(_) | Wish::Cleaned { .. } | Wish::Released => Next::Refuse(Refusal::NodeGone),
        Wish::Removed { .. } => Next::Reached,
    }
}

/// There is one.
pub(super) fn present(node: &Node, ports: &[Port], task: &Task) -> Next {
    let case = Case { node, ports, task };
    if let Some(refusal) = case.foreign() {
        return Next::Refuse(refusal);
    }
    if let Wish::Removed { force: true } = task.wish {
        return case.remove_by_force();
    }
    let clean_failure =
        node.provision_state == State::CleanFailed && node.fault.as_deref() == Some(CLEAN_FAILURE);
    if node.maintenance && !clean_failure {
        return Next::Refuse(Refusal::Maintenance {
            reason: node.maintenance_reason.clone(),
            fault: node.fault.clone(),
        });
    }
    case.by_state()
}

struct Case<'a> {
    node: &'a Node,
    ports: &'a [Port],
    task: &'a Task,
}

impl Case<'_> {
    fn by_state(&self) -> Next {
        match &self.node.provision_state {
            State::Enroll => self.enroll(),
            State::Manageable => self.idle().unwrap_or_else(|| self.manageable()),
            State::Available => self.idle().unwrap_or_else(|| self.available()),
            State::Active => self.active(),
            State::Verifying => wait("Ironic verifies the BMC", 1, 15),
            State::Inspecting => wait("Ironic inspects the machine", 2, 120),
            State::InspectWait => wait("the agent boots and inspects the machine", 5, 600),
            State::Cleaning => wait("Ironic cleans the machine", 2, 300),
            State::CleanWait => wait("the agent boots and cleans the machine", 5, 1800),
            State::Deploying => wait("Ironic deploys the instance", 2, 600),
            State::DeployWait => self.deploy_wait(),
            State::Deleting | State::Deleted => wait("Ironic takes the instance away", 2, 120),
            State::InspectFailed => self.inspect_failed(),
            State::CleanFailed => self.clean_failed(),
            State::DeployFailed => self.deploy_failed(),
            State::Error => self.undeploy_failed(),
            state => Next::Refuse(Refusal::StateForeign { state: state.clone() }),
        }
    }

    /// What is not ours is not touched, whatever is wished.
    fn foreign(&self) -> Option<Refusal> {
        let registration = &self.task.registration;
        if let Some(Marks { cell, machine, .. }) = Marks::of(self.node)
            && !(cell.is_empty() && machine.is_empty())
            && (&cell, &machine) != (&registration.cell, &registration.machine)
        {
            return Some(Refusal::OwnedElsewhere { cell, machine });
        }
        let carries = matches!(
            self.node.provision_state,
            State::Active | State::Deploying | State::DeployWait | State::DeployFailed | State::DeployHold
        );
        let foreign = match self.node.instance() {
            Some(instance) => !self.is_ours(instance),
            None => self.node.has_instance() || carries,
        };
        foreign.then(|| Refusal::InstanceForeign { found: self.node.instance_uuid.clone() })
    }

    fn is_ours(&self, instance: Uuid) -> bool {
        self.task.instances.contains(&instance)
            || matches!(&self.task.wish, Wish::Deployed(deployment) if deployment.instance_uuid == instance)
            || Marks::of(self.node).is_some_and(|marks| marks.instance == Some(instance))
    }

    fn has(&self, deployment: &Deployment) -> bool {
        self.node.instance() == Some(deployment.instance_uuid)
    }

    /// Brings the node in line with its registration, one request at a time.
    fn prepare(&self) -> Option<Action> {
        let registration = &self.task.registration;
        let patch = registration.differences(self.node, Scope::All);
        if !patch.is_empty() {
            let failed = self.node.provision_state == State::Enroll && self.node.last_error.is_some();
            let reconnects = patch.paths().iter().any(|path| path.starts_with("/driver"));
            return Some(if failed && reconnects { Action::Reconnect(patch) } else { Action::Patch(patch) });
        }
        for (position, mac) in registration.macs.iter().enumerate() {
            if !self.ports.iter().any(|port| port.address.as_ref() == Some(mac)) {
                return Some(Action::CreatePort { mac: mac.clone(), pxe_enabled: position == 0 });
            }
        }
        registration.traits_for(self.node).map(Action::SetTraits)
    }

    /// The same where only how the BMC is reached may be changed.
    fn reconnect(&self) -> Option<Next> {
        let patch = self.task.registration.differences(self.node, Scope::Access);
        (!patch.is_empty()).then_some(Next::Do(Action::Patch(patch)))
    }

    fn enroll(&self) -> Next {
        if matches!(self.task.wish, Wish::Removed { .. }) {
            return self.delete();
        }
        if let Some(action) = self.prepare() {
            return Next::Do(action);
        }
        let manage = provision(Provision::Manage);
        match &self.node.last_error {
            None => manage,
            last_error => self.failed(Refusal::VerifyFailed { last_error: last_error.clone() }, manage),
        }
    }

    /// What is common to `manageable` and `available`.
    fn idle(&self) -> Option<Next> {
        if matches!(self.task.wish, Wish::Removed { .. }) {
            return None;
        }
        if let Some(action) = self.prepare() {
            return Some(Next::Do(action));
        }
        // An instance that was assigned and never deployed. A caller that was asleep for long may wish for what was reached, and an
        // instance assigned since: it must not be taken from who deploys it now.
        let stays = match &self.task.wish {
            Wish::Registered => true,
            Wish::Available => self.node.provision_state == State::Available,
            Wish::Deployed(deployment) => self.has(deployment),
            _ => false,
        };
        (self.node.has_instance() && !stays)
            .then(|| Next::Do(Action::Patch(Patch::new().remove(&["instance_uuid"]))))
    }

    fn manageable(&self) -> Next {
        match &self.task.wish {
            Wish::Registered => Next::Reached,
            Wish::Inspected { .. } if self.is_inspected() => Next::Reached,
            Wish::Inspected { .. } => self.inspect(),
            Wish::Cleaned { request, .. } => self.clean(*request),
            Wish::Removed { .. } => self.delete(),
            Wish::Available | Wish::Released | Wish::Deployed(_) if self.node.retired => {
                Next::Refuse(Refusal::Retired { reason: self.node.retired_reason.clone() })
            }
            Wish::Available | Wish::Released | Wish::Deployed(_) => provision(Provision::Provide),
        }
    }

    fn available(&self) -> Next {
        match &self.task.wish {
            Wish::Registered | Wish::Available | Wish::Released => Next::Reached,
            Wish::Inspected { .. } if self.is_inspected() => Next::Reached,
            Wish::Inspected { .. } | Wish::Cleaned { .. } | Wish::Removed { .. } => {
                provision(Provision::Manage)
            }
            Wish::Deployed(deployment) => self.deploy(deployment),
        }
    }

    /// In `manageable`.
    fn inspect(&self) -> Next {
        let patch = self.with_an_agent();
        if patch.is_empty() { provision(Provision::Inspect) } else { Next::Do(Action::Patch(patch)) }
    }

    fn is_inspected(&self) -> bool {
        let Wish::Inspected { after } = self.task.wish else { return false };
        match (self.node.inspection_finished_at, after) {
            (Some(finished), Some(after)) => finished > after,
            (finished, _) => finished.is_some(),
        }
    }

    /// In `available`: assign, then deploy.
    fn deploy(&self, deployment: &Deployment) -> Next {
        let marks = self.task.registration.marks_for(self.node);
        if !self.node.has_instance() {
            if marks.instance == Some(deployment.instance_uuid) {
                return Next::Refuse(Refusal::InstanceSpent { instance: deployment.instance_uuid });
            }
            let patch = Patch::new().set(&["instance_uuid"], deployment.instance_uuid.to_string());
            let marks = Marks { instance: Some(deployment.instance_uuid), ..marks };
            return Next::Do(Action::Patch(marks.set(assign(deployment, patch))));
        }
        if self.is_assigned(deployment) && marks.instance == Some(deployment.instance_uuid) {
            return provision(Provision::Active { config_drive: deployment.config_drive.clone() });
        }
        let marks = Marks { instance: Some(deployment.instance_uuid), ..marks };
        Next::Do(Action::Patch(marks.set(assign(deployment, Patch::new()))))
    }

    /// Whether the node will be deployed as wished, as far as Ironic shows it.
    fn is_assigned(&self, deployment: &Deployment) -> bool {
        let info = deployment.instance_info();
        self.node.deploy_interface.as_deref() == Some(deployment.deploy_interface())
            && info.iter().all(|(key, value)| self.node.instance_info.shows(key, value) != Shown::Other)
    }

    /// In `manageable`: note what is to be cleaned, clean, and know that it was. The node's `provision_updated_at` has
    /// changed since the note exactly if a transition took place, and a cleaning that fails leaves `last_error`, which only
    /// the beginning of the next transition clears.
    fn clean(&self, request: Uuid) -> Next {
        let Wish::Cleaned { steps, .. } = &self.task.wish else { return Next::Reached };
        let marks = self.task.registration.marks_for(self.node);
        let now = &self.node.provision_updated_at;
        match &marks.clean {
            Some(mark) if mark.request == request && mark.from == *now => {
                provision(Provision::Clean { steps: steps.clone() })
            }
            Some(mark) if mark.request == request && self.node.last_error.is_none() => Next::Reached,
            _ => {
                let clean = Some(CleanMark { request, from: now.clone() });
                Next::Do(Action::Patch(Marks { clean, ..marks }.set(self.with_an_agent())))
            }
        }
    }

    /// A node that was deployed with a live ISO boots no agent, and can be neither inspected nor cleaned on demand
    /// (`needs_agent_ramdisk` in ironic/drivers/modules/deploy_utils.py: "Unable to find kernel, ramdisk for building ISO").
    fn with_an_agent(&self) -> Patch {
        let patch = Patch::new();
        if self.node.deploy_interface.as_deref() == Some(WITHOUT_AGENT) {
            patch.set(&["deploy_interface"], WITH_AGENT)
        } else {
            patch
        }
    }

    fn active(&self) -> Next {
        if let Some(next) = self.reconnect() {
            return next;
        }
        match &self.task.wish {
            Wish::Deployed(deployment) if self.has(deployment) => Next::Reached,
            Wish::Registered => Next::Reached,
            Wish::Deployed(_) | Wish::Released => self.undeploy(),
            Wish::Inspected { .. } if self.is_inspected() => Next::Reached,
            _ => self.in_use(),
        }
    }

    fn deploy_wait(&self) -> Next {
        let waits = wait("the agent boots and writes the image", 5, 900);
        match &self.task.wish {
            Wish::Deployed(deployment) if self.has(deployment) => waits,
            Wish::Deployed(_) | Wish::Released => self.undeploy(),
            _ => waits,
        }
    }

    fn inspect_failed(&self) -> Next {
        match &self.task.wish {
            Wish::Inspected { .. } if !self.is_inspected() => {
                let refusal = Refusal::InspectFailed { last_error: self.node.last_error.clone() };
                let again =
                    if self.with_an_agent().is_empty() { Provision::Inspect } else { Provision::Manage };
                self.reconnect().unwrap_or_else(|| self.failed(refusal, provision(again)))
            }
            _ => provision(Provision::Manage),
        }
    }

    /// Most failures of cleaning put the node into maintenance, but not all: a step that does not exist fails without.
    fn clean_failed(&self) -> Next {
        let leave = if self.node.maintenance {
            Next::Do(Action::EndMaintenance)
        } else {
            provision(Provision::Manage)
        };
        let refusal = Refusal::CleanFailed { last_error: self.node.last_error.clone() };
        self.reconnect().unwrap_or_else(|| self.failed(refusal, leave))
    }

    /// A failure is told once before it is left, and that is noted at the node with the failure's time: a caller that allows
    /// every try still hears of every failure, and none is repeated without a pause.
    fn failed(&self, refusal: Refusal, leave: Next) -> Next {
        if !self.task.retry {
            return Next::Refuse(refusal);
        }
        let failed_at = self.node.provision_updated_at.as_ref();
        let marks = self.task.registration.marks_for(self.node);
        if failed_at.is_none() || marks.told.as_ref() == failed_at {
            return leave;
        }
        // A cleaning that was noted did not come to pass: it begins anew.
        let clean = marks.clean.filter(|_| self.node.provision_state != State::CleanFailed);
        let marks = Marks { told: failed_at.cloned(), clean, ..marks };
        Next::Tell { refusal, note: marks.set(Patch::new()) }
    }

    fn deploy_failed(&self) -> Next {
        if let Some(next) = self.reconnect() {
            return next;
        }
        match &self.task.wish {
            Wish::Deployed(deployment) if self.has(deployment) => {
                Next::Refuse(Refusal::DeployFailed { last_error: self.node.last_error.clone() })
            }
            Wish::Deployed(_) | Wish::Released => self.undeploy(),
            Wish::Registered => Next::Reached,
            _ => self.in_use(),
        }
    }

    fn undeploy_failed(&self) -> Next {
        let refusal = Refusal::UndeployFailed { last_error: self.node.last_error.clone() };
        self.reconnect().unwrap_or_else(|| match self.task.wish {
            Wish::Deployed(_) | Wish::Released => self.failed(refusal, self.undeploy()),
            _ => Next::Refuse(refusal),
        })
    }

    fn undeploy(&self) -> Next {
        self.unless_protected(provision(Provision::Deleted))
    }

    /// Ironic deletes no node that an instance is assigned to, unless it is in maintenance.
    fn delete(&self) -> Next {
        let action = if self.node.has_instance() && !self.node.maintenance {
            Action::Patch(Patch::new().remove(&["instance_uuid"]))
        } else {
            Action::DeleteNode
        };
        self.unless_protected(Next::Do(action))
    }

    fn unless_protected(&self, next: Next) -> Next {
        if self.node.protected {
            return Next::Refuse(Refusal::Protected { reason: self.node.protected_reason.clone() });
        }
        next
    }

    fn in_use(&self) -> Next {
        Next::Refuse(Refusal::InUse { state: self.node.provision_state.clone() })
    }

    fn remove_by_force(&self) -> Next {
        let deletable = matches!(self.node.provision_state, State::Enroll | State::Manageable)
            && !self.node.has_instance();
        if self.node.maintenance || deletable {
            return self.delete();
        }
        self.unless_protected(Next::Do(Action::BeginMaintenance { reason: REMOVAL.to_owned() }))
    }
}

/// What the node is to be deployed with.
fn assign(deployment: &Deployment, patch: Patch) -> Patch {
    patch
        .set(&["instance_info"], deployment.instance_info())
        .set(&["deploy_interface"], deployment.deploy_interface())
}
