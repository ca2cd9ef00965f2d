//! The account that the cell and the provisioning service share, where the service has none of its own (`spec.bmc.rotate`): the BMC
//! counts the failed logins of both together, and locks out both.
//!
//! - What the service fails at may have been a login. It counts as one, until a login of the cell's own is taken.
//! - A service whose account is refused goes on trying it at each poll. It is held as soon as the cell sees a refusal, and let go once
//!   a login is taken. That it is held is kept in the database (`MachineRecord::held`), whatever is declared meanwhile.
//!
//! Between a change on the BMC and the first refusal that the cell sees a service polls by itself: only an account of its own does
//! away with that.

use super::Life;
use super::case::Case;
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
const REFUSED: [&str; 4] = ["bmc.unauthorized", "bmc.login-withheld", "bmc.locked-out", "ipmi.unauthorized"];

/// How long until the service is told once more, where it did not hear.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// How often it is told at most in one step: only what is seen is confirmed.
const TURNS: usize = 3;

/// Whether the service is held and the step cannot do without a BMC that takes the account.
pub(super) fn holds_up(record: &MachineRecord, step: Option<Step>) -> bool {
    let needs_none = matches!(
        step,
        Some(Step::SetAside | Step::WriteOff | Step::Leave | Step::Drain | Step::Isolate | Step::Retire)
    );
    record.held && !needs_none && record.state.is_enrolled() && !record.rotating
}

impl Life {
    /// Counts what the service failed at, and holds it where the account is refused. Gives what is to be told.
    pub(super) async fn heed(
        &self,
        record: &MachineRecord,
        lease: &Lease,
        now: Timestamp,
        trouble: Trouble,
    ) -> Trouble {
        let (Trouble::Passing(problem) | Trouble::Refused(problem) | Trouble::Lasting(problem)) = &trouble
        else {
            return trouble;
        };
        if !is_service_failure(problem) && !is_refusal(problem) {
            return trouble;
        }
        match (Box::pin(self.try_to_heed(record, lease, now, problem)).await, trouble) {
            // It is not the service's next try that finds out, but a login of the cell's own.
            (Ok(true), Trouble::Passing(problem)) => Trouble::Refused(problem),
            (Ok(_), trouble) => trouble,
            // The budget bounds the cell's own logins meanwhile.
            (Err(error), trouble) => {
                warn(record, error);
                Trouble::UnderWay(trouble.problem(), TELL_AGAIN)
            }
        }
    }

    /// Whether the service is held for it.
    async fn try_to_heed(
        &self,
        record: &MachineRecord,
        lease: &Lease,
        now: Timestamp,
        problem: &Problem,
    ) -> Result<bool, Trouble> {
        let (guard, goal) = (lease.guard(record.generation), self.goal(&record.name).await?);
        let case = Case::open(self, record, guard, Step::Watch, goal, now).await?;
        if !case.shares_account().await? {
            return Ok(false);
        }
        if is_service_failure(problem) {
            case.budget().await?.presume_failed().await.map_err(unrecorded)?;
            if !speaks_of_credentials(problem) {
                return Ok(false);
            }
        }
        case.mark_held(true).await?;
        case.tell_service(Some(REASON)).await?;
        Ok(true)
    }
}

fn warn(record: &MachineRecord, error: Trouble) {
    let why = error.problem();
    tracing::warn!(machine = %record.name, code = why.code, "the service is not held: {}", why.message);
}

impl Case<'_> {
    /// Before the service is asked for something new: where a login failed, or may have, since one was taken, the cell logs in
    /// itself first.
    pub(super) async fn prove_before_asking(&self) -> Result<Option<Outcome>, Trouble> {
        let asks = matches!(self.step, Step::Inspect | Step::Provide | Step::Deploy | Step::Wipe);
        // What the service was asked for and goes on with is only looked at.
        let goes_on =
            self.record.waiting.as_ref().is_some_and(|waiting| waiting.problem.code == "machine.under-way");
        if !asks || goes_on || self.record.held || !self.budget().await?.is_in_doubt() {
            return Ok(None);
        }
        self.prove_shared().await
    }

    /// While it is in doubt that the BMC takes the shared account, nothing is asked of the service: a login of the cell's own finds
    /// out, and then a service that is held is let go.
    pub(super) async fn prove_shared(&self) -> Result<Option<Outcome>, Trouble> {
        if !self.shares_account().await? {
            return Ok(None);
        }
        let login = self.life.enroller.login(self.machine(), &self.spec).await?;
        // Once taken is enough: a service that does not hear that it is let go costs no login more.
        if !self.budget().await?.takes(&login.password) {
            if self.record.held
                && let Err(error) = self.tell_service(Some(REASON)).await
            {
                return Err(Trouble::UnderWay(
                    self.waits_for().unwrap_or_else(|| error.problem()),
                    TELL_AGAIN,
                ));
            }
            match self.life.enroller.check_login(self.record, &self.spec, &self.site).await {
                // Taken, and to be changed: whoever reads the BMC sees to that.
                Err(Trouble::Refused(problem)) if problem.code == "bmc.password-change-required" => {
                    return Ok(None);
                }
                taken => taken?,
            }
        }
        if self.record.held {
            self.tell_service(None).await?;
            self.life.store.clear_waiting(self.machine(), self.guard).await?;
        }
        Ok(Some(Outcome::Advance(self.record.state)))
    }

    /// What it waits for already stays told.
    fn waits_for(&self) -> Option<Problem> {
        self.record.waiting.as_ref().map(|waiting| waiting.problem.clone())
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

    /// Noted before the service is held, and until it was seen to have been let go.
    pub(super) async fn mark_held(&self, held: bool) -> Result<(), Trouble> {
        if self.record.held != held {
            self.life.store.mark_held(self.machine(), self.guard, held).await?;
        }
        Ok(())
    }

    async fn budget(&self) -> Result<Arc<LoginBudget>, Trouble> {
        let username = &self.spec.bmc.username;
        Ok(self.life.enroller.guard(&self.spec, &[username]).await?.budget(username))
    }

    /// The service is held, or let go and told the account that there is now.
    async fn tell_service(&self, held: Option<&str>) -> Result<(), Trouble> {
        let account = self.account().await?;
        for _ in 0..TURNS {
            match self.hold_as(held, &account).await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(Trouble::UnderWay(..)) if held.is_some() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_refusal(problem: &Problem) -> bool {
    REFUSED.contains(&problem.code.as_str())
}

/// Whether a service began something at the BMC and failed.
fn is_service_failure(problem: &Problem) -> bool {
    let code = problem.code.as_str();
    (code.starts_with("ironic.") && code.ends_with("-failed"))
        || (code.starts_with("metal3.") && code.ends_with("-error"))
        || ["metal3.error", "metal3.credentials-refused"].contains(&code)
}

/// Whether what a service says of its failure leaves no doubt that the BMC refused it. Servers of images refuse accounts too: what is
/// not in the words that sushy has for Redfish, or ipmitool for IPMI, is found out by a login of the cell's own.
fn speaks_of_credentials(problem: &Problem) -> bool {
    let said = problem.message.to_ascii_lowercase();
    let has = |word: &str| said.contains(word);
    problem.code == "metal3.credentials-refused"
        || (has("returned code 401") && has("/redfish"))
        || has("rakp 2 hmac is invalid")
        || has("unauthorized name")
}

fn unrecorded(reason: String) -> Trouble {
    Trouble::from(redfish::Error::LoginUnrecorded { reason }.problem())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::coded;

    #[test]
    fn what_either_service_fails_at_counts_and_only_a_refusal_by_the_bmc_holds_it() {
        let sushy = "HTTP GET https://10.0.0.5/redfish/v1/Systems/1 returned code 401. unknown error";
        let images = "Got HTTP code 401 instead of 200 in response to HEAD request.";
        for (code, message, counts, holds) in [
            ("ironic.verify-failed", sushy, true, true),
            ("ironic.deploy-failed", images, true, false),
            ("ironic.clean-failed", "ipmitool: Error in RAKP 2 HMAC is invalid", true, true),
            ("metal3.power-error", sushy, true, true),
            ("metal3.error", "who knows", true, false),
            ("metal3.credentials-refused", "the BMC refuses the account", true, true),
            ("metal3.provisioning", "the image is put on", false, false),
            ("ironic.unauthorized", "Ironic refuses the user name", false, false),
        ] {
            let problem = coded(code, message);
            assert_eq!(is_service_failure(&problem), counts, "{code}");
            assert_eq!(speaks_of_credentials(&problem), holds, "{code}");
        }
    }

    #[test]
    fn a_login_that_ipmi_refuses_is_a_refusal() {
        let refused = ipmi::Error::Unauthorized.problem();
        assert!(is_refusal(&refused), "{refused:?}");
    }
}
