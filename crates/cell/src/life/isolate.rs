//! Quarantine. The state changes at once, and with it all that is decided by it here; what has to be done outside, in the base
//! cluster and by the provisioning service, is tried until it is confirmed.

use super::case::Case;
use crate::error::coded;
use crate::provision::Progress;
use crate::trouble::Trouble;
use domain::declaration::Spec;
use domain::lifecycle::MachineState;
use domain::{Instance, Kind, Outcome, Problem};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use std::time::Duration;

/// While this is what a machine waits for, it is set aside by name only.
const CODE: &str = "machine.not-isolated";

impl Case<'_> {
    /// What does not belong is set aside, and people are told.
    pub(crate) async fn quarantine(&self, problem: Problem) -> Result<Outcome, Trouble> {
        tracing::warn!(machine = %self.machine(), code = problem.code, "quarantined: {}", problem.message);
        self.life.store.set_aside(self.machine(), self.guard, &problem).await?;
        Ok(Outcome::Advance(MachineState::Quarantined))
    }

    /// People set it aside.
    pub(crate) async fn set_aside(&self) -> Result<Outcome, Trouble> {
        let data = json!({ "reason": self.reason().await? });
        self.advance(MachineState::Quarantined, |advance| advance.data = data).await
    }

    /// Quarantined: no pod goes there, and the provisioning service leaves it alone. Each is tried whatever became of the other.
    pub(crate) async fn isolate(&self) -> Result<Outcome, Trouble> {
        let mut acted = false;
        let mut missing = Vec::new();
        // How long until it is looked at again, where nothing is wrong with any.
        let mut poll = Some(Duration::MAX);
        let cluster = self.record.instance.as_ref().map(|instance| instance.base_cluster.to_string());
        let service = self.provisioner().map(|provisioner| provisioner.name.clone());
        for (by, tried) in [(cluster, self.cordon().await), (service, self.detach().await)] {
            match tried {
                Ok(Progress::Reached(())) => {}
                Ok(Progress::Acted(action)) => {
                    self.note(
                        None,
                        "machine.acted",
                        &json!({ "step": self.step, "by": by, "action": action }),
                    )
                    .await?;
                    acted = true;
                }
                Ok(Progress::Waiting(wait)) => {
                    missing.push(wait.what);
                    poll = poll.map(|poll| poll.min(wait.poll));
                }
                Err(Trouble::Store(error)) => return Err(Trouble::Store(error)),
                Err(Trouble::NoPlace(problem)) => {
                    missing.push(format!("{} [{}]", problem.message, problem.code));
                    poll = poll.map(|poll| poll.min(super::WITHOUT_PLACE));
                }
                Err(trouble) => {
                    let problem = trouble.problem();
                    missing.push(format!("{} [{}]", problem.message, problem.code));
                    poll = None;
                }
            }
        }
        if !missing.is_empty() {
            let message = format!("set aside, and not kept apart yet: {}", missing.join("; "));
            let problem = coded(CODE, message);
            return Err(match poll {
                Some(poll) => Trouble::UnderWay(problem, poll),
                None => Trouble::Passing(problem),
            });
        }
        if acted {
            // What was asked for is looked at once more.
            return Ok(Outcome::Advance(self.record.state));
        }
        if self.record.waiting.as_ref().is_some_and(|waiting| waiting.problem.code == CODE) {
            self.life.store.clear_waiting(self.machine(), self.guard).await?;
        }
        Ok(Outcome::Done)
    }

    /// A node that registers later bears the taint of those that are not verified.
    async fn cordon(&self) -> Result<Progress<()>, Trouble> {
        let Some(instance) = &self.record.instance else { return Ok(Progress::Reached(())) };
        let Some((_, cluster)) = self.cluster(instance).await? else { return Ok(Progress::Reached(())) };
        let node = cluster.node(self.machine()).await?;
        let Some(node) = node.filter(|node| self.is_own(node, instance)) else {
            return Ok(Progress::Reached(()));
        };
        if node.spec.is_some_and(|spec| spec.unschedulable == Some(true)) {
            return Ok(Progress::Reached(()));
        }
        cluster.patch_node(self.machine(), &json!({ "spec": { "unschedulable": true } })).await?;
        Ok(Progress::Acted(format!("cordon Node/{}", self.machine())))
    }

    /// A node of the machine's name may be somebody else's: ours is the one that joined, that the cell has labelled, or that says that it
    /// runs on this machine.
    fn is_own(&self, node: &Node, instance: &Instance) -> bool {
        let uid = node.metadata.uid.as_deref();
        let labels = node.metadata.labels.as_ref();
        let label = labels.and_then(|labels| labels.get("node-restriction.kubernetes.io/machine"));
        let system = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        instance.approved.is_some()
            || (uid.is_some() && uid == instance.node_uid.as_deref())
            || label.is_some_and(|label| label == self.machine().as_str())
            || system
                .zip(self.record.uuid.as_ref())
                .is_some_and(|(found, uuid)| found.system_uuid.eq_ignore_ascii_case(uuid))
    }

    /// A machine that was never read was never made known to a service.
    async fn detach(&self) -> Result<Progress<()>, Trouble> {
        let Some(provisioner) = self.provisioner().filter(|_| self.inventory.is_some()) else {
            return Ok(Progress::Reached(()));
        };
        let (account, reason) = (self.account().await?, self.reason().await?);
        Ok(provisioner.hold(&self.subject(&account), Some(&reason), None).await?.map(drop))
    }

    /// Why, as it stands in the machine's assignment.
    async fn reason(&self) -> Result<String, Trouble> {
        let declared = self.life.store.declaration(Kind::Assignment, self.machine()).await?;
        Ok(match declared.map(|declared| declared.spec) {
            Some(Spec::Assignment(spec)) => spec.quarantine.map(|quarantine| quarantine.reason),
            _ => None,
        }
        .unwrap_or_default())
    }
}
