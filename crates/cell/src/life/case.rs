//! One machine as a step finds it.

use super::Life;
use crate::base_cluster::BaseCluster;
use crate::error::coded;
use crate::provision::{Progress, Provisioner, Subject, Wait};
use crate::trouble::Trouble;
use domain::base_cluster::BaseClusterSpec;
use domain::declaration::{MachineSpec, SiteSpec, Zone};
use domain::lifecycle::{MachineState, Step};
use domain::{Goal, Instance, Inventory, Kind, Name, Outcome, Spec};
use jiff::Timestamp;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
use store::{Advance, Guard, MachineRecord, StoreError, Zeroizing};

/// A machine, what is declared of it, and the right to take its next step.
pub(crate) struct Case<'a> {
    pub life: &'a Life,
    pub record: &'a MachineRecord,
    pub guard: Guard,
    pub step: Step,
    pub goal: Goal,
    pub spec: MachineSpec,
    pub site: SiteSpec,
    pub inventory: Option<Inventory>,
    /// When the step began, by the database's clock.
    pub now: Timestamp,
    started: Instant,
}

/// The account that a provisioning service has at a BMC.
pub(crate) struct Account {
    pub username: String,
    pub password: Zeroizing<String>,
    /// Tells which they are, and nothing of them.
    pub credentials: String,
}

impl<'a> Case<'a> {
    pub(crate) async fn open(
        life: &'a Life,
        record: &'a MachineRecord,
        guard: Guard,
        step: Step,
        goal: Goal,
        now: Timestamp,
    ) -> Result<Self, Trouble> {
        let (spec, site) = life.enroller.declared(&record.name).await?;
        let inventory = life.store.inventory(&record.name).await?.map(|(inventory, _)| inventory);
        Ok(Self { life, record, guard, step, goal, spec, site, inventory, now, started: Instant::now() })
    }

    pub(crate) fn machine(&self) -> &Name {
        &self.record.name
    }

    pub(crate) fn zone(&self) -> Option<&Zone> {
        self.spec.zone.as_ref().or(self.site.zone.as_ref())
    }

    /// The service that takes machines of this site.
    pub(crate) fn provisioner(&self) -> Option<&'a Provisioner> {
        self.life.services.of(&self.spec.site).ok()
    }

    /// The same, where the step cannot do without.
    pub(crate) fn service(&self) -> Result<&'a Provisioner, Trouble> {
        self.life.services.of(&self.spec.site).map_err(Trouble::Lasting)
    }

    pub(crate) fn subject<'s>(&'s self, account: &'s Account) -> Subject<'s> {
        Subject {
            cell: &self.life.cell,
            machine: self.machine(),
            spec: &self.spec,
            site: &self.site,
            zone: self.zone(),
            inventory: self.inventory.as_ref(),
            username: &account.username,
            password: &account.password,
            credentials: account.credentials.clone(),
        }
    }

    /// The base cluster of the present use, with the way into it. `None` where it is not declared any more: then there is
    /// nothing in it to care for.
    pub(crate) async fn cluster(
        &self,
        instance: &Instance,
    ) -> Result<Option<(BaseClusterSpec, Arc<BaseCluster>)>, Trouble> {
        let name = &instance.base_cluster;
        let declared = self.life.store.declaration(Kind::BaseCluster, name).await?;
        let Some(Spec::BaseCluster(spec)) = declared.map(|declared| declared.spec) else { return Ok(None) };
        let cluster = self.life.clusters.of(name, &spec).await?;
        Ok(Some((*spec, cluster)))
    }

    /// The same, where the step cannot do without. An assignment refers to what is declared: where that has gone, both were changed
    /// since the step began, and the change has put the machine back into the queue.
    pub(crate) async fn needed_cluster(
        &self,
        instance: &Instance,
    ) -> Result<(BaseClusterSpec, Arc<BaseCluster>), Trouble> {
        let gone = || StoreError::NotFound { kind: Kind::BaseCluster, name: instance.base_cluster.clone() };
        self.cluster(instance).await?.ok_or_else(|| Trouble::Store(gone()))
    }

    /// The present use; its absence in a state that needs one is a mistake of ours.
    pub(crate) fn instance(&self) -> Result<&'a Instance, Trouble> {
        self.record.instance.as_ref().ok_or_else(|| {
            Trouble::Lasting(coded("api.internal", format!("Machine/{} has no instance", self.machine())))
        })
    }

    /// What a provisioning service came to: what it was asked for, or what the step ends in for now.
    pub(crate) async fn go_on<T>(&self, progress: Progress<T>) -> Result<Result<T, Outcome>, Trouble> {
        match progress {
            Progress::Reached(reached) => Ok(Ok(reached)),
            Progress::Acted(action) => {
                let by = self.provisioner().map(|provisioner| provisioner.name.as_str());
                self.note(None, "machine.acted", &json!({ "step": self.step, "by": by, "action": action }))
                    .await?;
                Ok(Err(Outcome::Advance(self.record.state)))
            }
            Progress::Waiting(wait) => Err(self.under_way(&wait)),
        }
    }

    /// Nothing is wrong; it takes its time.
    pub(crate) fn under_way(&self, wait: &Wait) -> Trouble {
        let usual = wait.usual.as_secs();
        let usual = if usual < 120 { format!("{usual} s") } else { format!("{} min", usual / 60) };
        let doing = self.step.info(self.record.state).map_or("", |info| info.doing);
        let message = format!("{doing}: {} (usually about {usual})", wait.what);
        Trouble::UnderWay(coded("machine.under-way", message), wait.poll)
    }

    pub(crate) async fn note(
        &self,
        instance: Option<&Instance>,
        kind: &str,
        data: &serde_json::Value,
    ) -> Result<(), Trouble> {
        Ok(self.life.store.note(self.machine(), self.guard, instance, kind, data).await?)
    }

    /// The machine moves on.
    pub(crate) async fn advance(
        &self,
        to: MachineState,
        change: impl FnOnce(&mut Advance),
    ) -> Result<Outcome, Trouble> {
        let mut advance = Advance { took: self.started.elapsed(), ..Advance::new(self.step, to) };
        change(&mut advance);
        self.life.store.advance(self.machine(), self.guard, &advance).await?;
        Ok(Outcome::Advance(to))
    }
}
