//! The account that the cell and the provisioning service share, where the service has none of its own (`spec.bmc.rotate`): the BMC
//! counts the failed logins of both together, and locks out both.
//!
//! - What the service fails at may have been a login. It counts as one, until a login of the cell's own is taken.
//! - A service whose account is refused goes on trying it at each poll. It is held as soon as the cell sees a refusal, and let go once
//!   a login is taken.
//!
//! Between a change on the BMC and the first refusal that the cell sees a service polls by itself: only an account of its own does
//! away with that.

use super::Life;
use super::case::Case;
use crate::error::coded;
use crate::trouble::Trouble;
use domain::lifecycle::{MachineState, Step};
use domain::{Diagnose as _, Outcome, Problem};
use jiff::Timestamp;
use redfish::budget::LoginBudget;
use std::sync::Arc;
use std::time::Duration;
use store::{Lease, MachineRecord};

/// Why the service is held.
const REASON: &str = "the BMC refuses the account that it shares with the cell";

/// Codes of a BMC that does not take the account, or is not asked for fear that it would not.
const REFUSED: [&str; 3] = ["bmc.unauthorized", "bmc.login-withheld", "bmc.locked-out"];

/// How long until the service is told once more, where it did not hear.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// How often it is told at most in one step: only what is seen is confirmed.
const TURNS: usize = 3;

impl Life {
    /// Counts what the service failed at, and holds it where the account is refused. Gives what is to be told.
    pub(super) async fn heed(
        &self,
        record: &MachineRecord,
        lease: &Lease,
        now: Timestamp,
        trouble: Trouble,
    ) -> Trouble {
        if !trouble.told().is_some_and(|problem| is_service_failure(problem) || is_refusal(problem)) {
            return trouble;
        }
        match Box::pin(self.try_to_heed(record, lease, now, &trouble)).await {
            Ok(None) => trouble,
            Ok(Some(refused)) => Trouble::Refused(refused),
            // The budget bounds the cell's own logins meanwhile.
            Err(error) => {
                let why = error.problem();
                tracing::warn!(machine = %record.name, code = why.code, "the service is not held: {}", why.message);
                Trouble::UnderWay(trouble.problem(), TELL_AGAIN)
            }
        }
    }

    /// `None`: what was told stays as it is.
    async fn try_to_heed(
        &self,
        record: &MachineRecord,
        lease: &Lease,
        now: Timestamp,
        trouble: &Trouble,
    ) -> Result<Option<Problem>, Trouble> {
        let (guard, goal) = (lease.guard(record.generation), self.goal(&record.name).await?);
        let case = Case::open(self, record, guard, Step::Watch, goal, now).await?;
        let Some(problem) = trouble.told() else { return Ok(None) };
        if !case.shares_account().await? {
            return Ok(None);
        }
        if is_service_failure(problem) {
            case.budget().await?.presume_failed().await.map_err(unrecorded)?;
            if !speaks_of_credentials(problem) {
                return Ok(None);
            }
        }
        case.tell_service(Some(REASON)).await?;
        let by_service = || coded(REFUSED[0], format!("the BMC refuses the service: {}", problem.message));
        Ok(Some(if is_refusal(problem) { problem.clone() } else { by_service() }))
    }

    /// Whether the BMC may refuse the declared account, as far as it is known here, before a step that needs it.
    pub(super) async fn is_in_doubt(
        &self,
        record: &MachineRecord,
        step: Option<Step>,
    ) -> Result<bool, Trouble> {
        let needs_none = matches!(
            step,
            Some(Step::SetAside | Step::WriteOff | Step::Leave | Step::Drain | Step::Isolate | Step::Retire)
        );
        if needs_none || !record.state.is_enrolled() || record.rotating {
            return Ok(false);
        }
        if waits_for_login(record) {
            return Ok(true);
        }
        self.has_failed(record).await
    }

    /// Whether a login failed, or may have, since one was taken.
    pub(super) async fn has_failed(&self, record: &MachineRecord) -> Result<bool, Trouble> {
        let (spec, _) = self.enroller.declared(&record.name).await?;
        let guard = self.enroller.guard(&spec, &[&spec.bmc.username]).await?;
        Ok(guard.budget(&spec.bmc.username).is_in_doubt())
    }
}

impl Case<'_> {
    /// While it is in doubt that the BMC takes the shared account, nothing is asked of the service: a login of the cell's own finds
    /// out, and then the service is let go.
    pub(super) async fn prove_shared(&self) -> Result<Option<Outcome>, Trouble> {
        if !self.shares_account().await? {
            return Ok(None);
        }
        let waits = waits_for_login(self.record);
        if waits && let Err(error) = self.tell_service(Some(REASON)).await {
            let why = error.problem();
            tracing::warn!(machine = %self.machine(), code = why.code, "the service is not held: {}", why.message);
        }
        match self.life.enroller.check_login(self.record, &self.spec, &self.site).await {
            // Taken, and to be changed: whoever reads the BMC sees to that.
            Err(Trouble::Refused(problem)) if problem.code == "bmc.password-change-required" => {
                return Ok(None);
            }
            taken => taken?,
        }
        if let Err(error) = self.tell_service(None).await {
            // So that it is told once more.
            self.budget().await?.presume_failed().await.map_err(unrecorded)?;
            return Err(error);
        }
        if waits {
            self.life.store.clear_waiting(self.machine(), self.guard).await?;
        }
        Ok(Some(Outcome::Advance(self.record.state)))
    }

    /// Whether a service that knows the machine logs in to its BMC with the account that people have declared.
    pub(super) async fn shares_account(&self) -> Result<bool, Trouble> {
        let state = self.record.state;
        let knows = state.is_handed_over() || (state == MachineState::Enrolled && !self.spec.bmc.rotate);
        if !knows
            || self.record.rotating
            || state == MachineState::Quarantined
            || self.provisioner().is_none()
        {
            return Ok(false);
        }
        // Passwords of the cell's making are mended otherwise (`rotate`), where one of them is refused.
        Ok(self.life.store.bmc_accounts(self.machine()).await?.is_empty())
    }

    pub(super) async fn budget(&self) -> Result<Arc<LoginBudget>, Trouble> {
        let username = &self.spec.bmc.username;
        Ok(self.life.enroller.guard(&self.spec, &[username]).await?.budget(username))
    }

    /// The service is held, or let go and told the account that there is now.
    async fn tell_service(&self, held: Option<&str>) -> Result<(), Trouble> {
        let Some(provisioner) = self.provisioner() else { return Ok(()) };
        let account = self.account().await?;
        for _ in 0..TURNS {
            let told = provisioner.hold(&self.subject(&account), held, None).await?;
            match self.go_on(told).await {
                Ok(Err(_)) => {}
                Ok(Ok(_)) => break,
                Err(Trouble::UnderWay(..)) if held.is_some() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn waits_for_login(record: &MachineRecord) -> bool {
    record.waiting.as_ref().is_some_and(|waiting| is_refusal(&waiting.problem))
}

fn is_refusal(problem: &Problem) -> bool {
    REFUSED.contains(&problem.code.as_str())
}

/// Whether a service began something at the BMC and failed.
fn is_service_failure(problem: &Problem) -> bool {
    let code = problem.code.as_str();
    (code.starts_with("ironic.") && code.ends_with("-failed"))
        || (code.starts_with("metal3.") && code.ends_with("-error"))
}

/// Whether what a service says of its failure leaves no doubt. Where it says nothing, a login of the cell's own finds out.
fn speaks_of_credentials(problem: &Problem) -> bool {
    let said = problem.message.to_ascii_lowercase();
    ["code 401", "unauthorized", "credential"].iter().any(|word| said.contains(word))
}

fn unrecorded(reason: String) -> Trouble {
    Trouble::from(redfish::Error::LoginUnrecorded { reason }.problem())
}
