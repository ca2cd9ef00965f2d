//! Out of service: cordon, move pods away, leave the cluster.

use super::case::Case;
use crate::error::coded;
use crate::join::Token;
use crate::trouble::Trouble;
use domain::lifecycle::MachineState;
use domain::{Goal, Outcome};
use serde_json::{Value, json};
use std::time::Duration;
use store::MachineRecord;

/// How long until pods that were asked to go are looked for again.
const LEAVING: Duration = Duration::from_secs(3);

/// What is remembered of a machine that is drained, and stays so.
fn drained() -> Value {
    json!({ "drained": true })
}

/// Whether no pods are left on a machine that is to be drained.
pub(crate) fn is_drained(record: &MachineRecord) -> bool {
    record.state == MachineState::Draining && record.work.as_ref() == Some(&drained())
}

impl Case<'_> {
    /// Gives up what was begun; a node that may have pods is drained first.
    pub(crate) async fn leave(&self) -> Result<Outcome, Trouble> {
        let to = match self.record.state {
            MachineState::Provisioning => MachineState::Wiping,
            _ => MachineState::Draining,
        };
        self.advance(to, |_| {}).await
    }

    /// Draining: no new pods, and those there move away. Then the machine is wiped, goes back into service, or stays so.
    pub(crate) async fn drain(&self) -> Result<Outcome, Trouble> {
        let instance = self.instance()?;
        let stays = matches!(&self.goal, Goal::Serve(cluster) if *cluster == instance.base_cluster);
        let Some((_, cluster)) = self.cluster(instance).await? else {
            return self.advance(MachineState::Wiping, |_| {}).await;
        };
        let Some(node) = cluster.node(self.machine()).await? else {
            return self.advance(MachineState::Wiping, |_| {}).await;
        };
        let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default();
        if stays {
            if cordoned {
                cluster.patch_node(self.machine(), &json!({ "spec": { "unschedulable": null } })).await?;
            }
            return self.advance(MachineState::Verifying, |_| {}).await;
        }
        if !cordoned {
            cluster.patch_node(self.machine(), &json!({ "spec": { "unschedulable": true } })).await?;
        }
        let left = cluster.evict(self.machine()).await?;
        if !left.is_empty() {
            let shown = left.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!("{} pods are still on Node/{}: {shown}", left.len(), self.machine());
            return Err(Trouble::UnderWay(coded("node.pods-left", message), LEAVING));
        }
        if matches!(&self.goal, Goal::Drained(cluster) if *cluster == instance.base_cluster) {
            if self.record.waiting.is_some() {
                self.life.store.clear_waiting(self.machine(), self.guard).await?;
            }
            // What is told before the first pod was looked for would tell nothing.
            let drained = drained();
            if self.record.work.as_ref() != Some(&drained) {
                self.life.store.remember(self.machine(), self.guard, Some(&drained)).await?;
            }
            return Ok(Outcome::Done);
        }
        self.advance(MachineState::Wiping, |_| {}).await
    }

    /// Wiping: out of the cluster first, so that nothing comes back while it is erased.
    pub(crate) async fn wipe(&self) -> Result<Outcome, Trouble> {
        self.leave_cluster().await?;
        self.erase().await
    }

    /// Neither node nor token is left in the base cluster.
    pub(crate) async fn leave_cluster(&self) -> Result<(), Trouble> {
        let instance = self.instance()?;
        let Some((_, cluster)) = self.cluster(instance).await? else { return Ok(()) };
        cluster.forget_token(&Token::of(&self.life.store, instance)).await?;
        // Of a machine that never joined, a node of its name is somebody else's.
        if instance.approved.is_some() || instance.node_uid.is_some() {
            cluster.delete_node(self.machine()).await?;
        }
        Ok(())
    }
}
