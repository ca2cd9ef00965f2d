//! From enrolled to available, and out of service for good.

use super::case::Case;
use crate::error::coded;
use crate::provision::Use;
use crate::trouble::Trouble;
use domain::base_cluster::Image;
use domain::declaration::Spec;
use domain::erasure::{self, Item};
use domain::fact::Source;
use domain::lifecycle::MachineState;
use domain::{Erasure, Fact, Goal, Kind, Name, Outcome, firmware};
use serde_json::json;
use uuid::Uuid;

impl Case<'_> {
    /// Enrolled → inspected.
    pub(crate) async fn inspect(&self) -> Result<Outcome, Trouble> {
        if self.prepare_accounts().await? {
            return Ok(Outcome::Advance(self.record.state));
        }
        if self.provisioner().is_none() && self.goal == Goal::Shelf {
            return Ok(Outcome::Done);
        }
        let provisioner = self.service()?;
        let account = self.account().await?;
        let facts = match self.go_on(provisioner.inspect(&self.subject(&account)).await?).await? {
            Ok(facts) => facts,
            Err(outcome) => return Ok(outcome),
        };
        self.life.store.record_facts(self.machine(), self.guard, Source::Ironic, &facts).await?;
        let data = json!({ "by": provisioner.name, "facts": facts.len() });
        self.advance(MachineState::Inspected, |advance| advance.data = data).await
    }

    /// Inspected → compliant: what the inventory shows against what the model's profile wants.
    pub(crate) async fn check(&self) -> Result<Outcome, Trouble> {
        let data = json!({ "profile": self.compliance().await? });
        self.advance(MachineState::Compliant, |advance| advance.data = data).await
    }

    /// The profile that the machine meets as it was last read. Asked again before each use: profiles are tightened while
    /// machines lie on the shelf.
    pub(crate) async fn compliance(&self) -> Result<Option<Name>, Trouble> {
        let declared = self.life.store.declarations_of(Kind::FirmwareProfile).await?;
        let profiles: Vec<_> = declared
            .into_iter()
            .filter_map(|declaration| match declaration.spec {
                Spec::FirmwareProfile(spec) => Some((declaration.metadata.name, *spec)),
                _ => None,
            })
            .collect();
        let Some(inventory) = &self.inventory else {
            return Err(Trouble::Passing(coded("firmware.no-inventory", "the machine was never read")));
        };
        let compliance = firmware::assess(&profiles, inventory);
        if let Some(problem) = compliance.problem() {
            // A changed profile wakes the machine; a changed inventory is found by reading it again.
            return Err(Trouble::UnderWay(problem, self.life.refresh));
        }
        Ok(compliance.profile().cloned())
    }

    /// Compliant → available, and wiping → available: nothing runs on it, and all that remembers is erased or accounted for.
    pub(crate) async fn erase(&self) -> Result<Outcome, Trouble> {
        let provisioner = self.service()?;
        let account = self.account().await?;
        let instance = self.record.instance.as_ref();
        let image = self.image_of_use().await?;
        let use_of = Use {
            since: instance.map(|instance| instance.since),
            image: image.as_ref(),
            id: instance.map_or_else(|| self.first_use(), |instance| instance.id),
            is_first: instance.is_none(),
            has_joined: instance
                .is_some_and(|instance| instance.approved.is_some() || instance.node_uid.is_some()),
        };
        let mut work = self.record.work.clone();
        let progress = provisioner.erase(&self.subject(&account), use_of, &mut work).await;
        if work != self.record.work {
            self.life.store.remember(self.machine(), self.guard, work.as_ref()).await?;
        }
        let mut items = match self.go_on(progress?).await? {
            Ok(items) => items,
            Err(outcome) => return Ok(outcome),
        };
        if instance.is_some() {
            self.add_unseen_disks(&mut items).await?;
        }
        let erasure = Erasure {
            machine: self.machine().clone(),
            instance: instance.map(|instance| instance.id),
            base_cluster: instance.map(|instance| instance.base_cluster.clone()),
            zone: instance.and_then(|instance| instance.zone.clone()),
            by: provisioner.name.clone(),
            at: self.now,
            items,
        };
        // Before its first use a machine holds nothing of anybody here: then the record tells, and keeps nobody waiting.
        if instance.is_some() {
            if let Some(problem) = erasure.gap() {
                return Err(Trouble::Passing(problem));
            }
            self.leave_cluster().await?;
        }
        self.advance(MachineState::Available, |advance| advance.erasure = Some(erasure)).await
    }

    /// What the base cluster of the present use deploys, as long as it is declared.
    async fn image_of_use(&self) -> Result<Option<Image>, Trouble> {
        let Some(instance) = &self.record.instance else { return Ok(None) };
        let declared = self.life.store.declaration(Kind::BaseCluster, &instance.base_cluster).await?;
        Ok(match declared.map(|declared| declared.spec) {
            Some(Spec::BaseCluster(spec)) => Some(spec.image),
            _ => None,
        })
    }

    /// Disks that the service saw when it first looked at the machine are accounted for too.
    async fn add_unseen_disks(&self, items: &mut Vec<Item>) -> Result<(), Trouble> {
        let (before, listed) = self.known_disks().await?;
        erasure::add_unseen_disks(items, &before, &listed);
        Ok(())
    }

    /// Serial numbers of the disks that the service saw when it first looked at the machine, and of those that its BMC lists.
    pub(crate) async fn known_disks(&self) -> Result<(Vec<String>, Vec<String>), Trouble> {
        let facts = self.life.store.facts(self.machine()).await?;
        let is_serial = |fact: &&Fact| {
            fact.source == Source::Ironic && fact.key.starts_with("drives/") && fact.key.ends_with("/serial")
        };
        let before: Vec<_> = facts
            .iter()
            .filter(is_serial)
            .filter_map(|fact| fact.value.as_str().map(str::to_owned))
            .collect();
        let drives = self.inventory.iter().flat_map(|inventory| &inventory.drives);
        Ok((before, drives.filter_map(|drive| drive.serial.clone()).collect()))
    }

    /// Names the cleaning before the first use: another one each time the machine comes to this state.
    fn first_use(&self) -> Uuid {
        let name = format!("{}\n{}\n{}", self.life.cell, self.machine(), self.record.since.as_millisecond());
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
    }

    /// Out of the provisioning service, for good.
    pub(crate) async fn retire(&self) -> Result<Outcome, Trouble> {
        if let Some(provisioner) = self.provisioner() {
            let account = self.account().await?;
            let subject = self.subject(&account);
            // One that is held because the BMC refuses its account cannot do anything there, and has nothing left to do.
            let is_held = self.record.held && self.shares_account().await?;
            let gone = if is_held {
                provisioner.forget(&subject).await?
            } else {
                provisioner.remove(&subject).await?
            };
            if let Err(outcome) = self.go_on(gone).await? {
                return Ok(outcome);
            }
        }
        if let Some(outcome) = self.restore_account().await? {
            return Ok(outcome);
        }
        self.advance(MachineState::Retired, |_| {}).await
    }

    /// Back from quarantine, to be checked and erased anew; back from retirement, to be enrolled anew.
    pub(crate) async fn readmit(&self) -> Result<Outcome, Trouble> {
        if self.record.state == MachineState::Retired || self.inventory.is_none() {
            return self.advance(MachineState::Discovered, |_| {}).await;
        }
        if let Some(provisioner) = self.provisioner() {
            // The service polls as soon as it is let go.
            if self.record.held {
                self.life.enroller.check_login(self.record, &self.spec, &self.site).await?;
            }
            let account = self.account().await?;
            let held = provisioner.hold(&self.subject(&account), None, self.record.work.as_ref()).await?;
            let held = self.go_on(held).await?;
            if held.is_ok() {
                self.mark_held(false).await?;
            }
            match held {
                Ok(true) => {}
                // Somebody took it from the service: it is made known there anew, looked at, and erased by what is found.
                Ok(false) => return self.advance(MachineState::Discovered, |_| {}).await,
                Err(outcome) => return Ok(outcome),
            }
        }
        self.advance(MachineState::Inspected, |_| {}).await
    }
}
