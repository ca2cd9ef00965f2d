//! Out of service: cordon, move pods away, leave the cluster; or given up as it is.

use super::case::Case;
use crate::error::coded;
use crate::join::Token;
use crate::trouble::Trouble;
use domain::lifecycle::MachineState;
use domain::{Erasure, Goal, Kind, Outcome, Spec, erasure};
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

    /// Lost: cluster and provisioning service forget it, and the record says of everything in it that it was not erased, and by
    /// whose word. Its use stays with it.
    pub(crate) async fn write_off(&self) -> Result<Outcome, Trouble> {
        let (reason, by) = self.word_of_loss().await?;
        if self.record.instance.is_some() {
            self.leave_cluster().await?;
        }
        // It was made known there when it was inspected, whatever became of it since.
        if let Some(provisioner) = self.provisioner().filter(|_| self.inventory.is_some()) {
            let account = self.account().await?;
            if let Err(outcome) = self.go_on(provisioner.forget(&self.subject(&account)).await?).await? {
                return Ok(outcome);
            }
        }
        let (mut disks, listed) = self.known_disks().await?;
        disks.extend(listed);
        let gpus = self.inventory.iter().flat_map(|inventory| &inventory.gpus);
        let gpus: Vec<_> = gpus.map(|gpu| gpu.serial.clone()).collect();
        let instance = self.record.instance.as_ref();
        let erasure = Erasure {
            machine: self.machine().clone(),
            instance: instance.map(|instance| instance.id),
            base_cluster: instance.map(|instance| instance.base_cluster.clone()),
            zone: instance.and_then(|instance| instance.zone.clone()),
            by: by.clone(),
            at: self.now,
            items: erasure::of_lost(&disks, &gpus, &reason),
        };
        self.advance(MachineState::Retired, |advance| {
            advance.erasure = Some(erasure);
            advance.data = json!({ "lost": reason, "by": by });
        })
        .await
    }

    /// Why it is lost, and who said so.
    async fn word_of_loss(&self) -> Result<(String, String), Trouble> {
        let store = &self.life.store;
        let declared = store.declaration(Kind::Assignment, self.machine()).await?;
        let lost = match declared.map(|declared| declared.spec) {
            Some(Spec::Assignment(spec)) => spec.lost,
            _ => None,
        };
        let about = format!("{}/{}", Kind::Assignment, self.machine());
        let says_so = |event: &store::Event| {
            let fields = event.data["fields"].as_array().into_iter().flatten();
            let paths = fields.filter_map(|field| field["path"].as_str());
            paths.into_iter().any(|path| path.starts_with("spec.lost"))
        };
        let said = store.events_about(&about, u32::MAX).await?.into_iter().find(says_so);
        let (Some(lost), Some(said)) = (lost, said) else {
            return Err(Trouble::Lasting(coded(
                "api.internal",
                format!("nobody has said that {about} is lost"),
            )));
        };
        Ok((lost.reason, said.actor))
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
