//! Why a step came to nothing, and when it is tried again.

use domain::{Diagnose, Problem};
use jiff::SignedDuration;
use std::time::Duration;
use store::{MachineRecord, StoreError};

/// Longest time between two tries.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(10);

/// Time until the next try after credentials were refused: long enough that no lock-out window sees three of them (quirk 3).
const AFTER_REFUSAL: SignedDuration = SignedDuration::from_mins(15);

/// Why a step came to nothing, and whether time alone may help.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Nothing is wrong: what was begun goes on, and is looked at again then.
    UnderWay(Problem, Duration),
    /// Try again, later each time.
    Passing(Problem),
    /// The BMC refused the credentials.
    Refused(Problem),
    /// Only a changed declaration helps.
    Lasting(Problem),
    /// The database: nothing was recorded, so nothing is known to be wrong with the machine.
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::PinChanged { .. }
            | StoreError::DuplicateSerial { .. }
            | StoreError::DuplicateUuid { .. } => Self::Passing(error.problem()),
            other => Self::Store(other),
        }
    }
}

impl From<Problem> for Trouble {
    /// By what the BMC's client says.
    fn from(problem: Problem) -> Self {
        match problem.code.as_str() {
            "bmc.unauthorized"
            | "bmc.locked-out"
            | "bmc.login-withheld"
            | "bmc.password-change-required"
            | "bmc.rotation-unsettled" => Self::Refused(problem),
            "bmc.address-outside-networks" | "bmc.address-invalid" => Self::Lasting(problem),
            _ => Self::Passing(problem),
        }
    }
}

impl Trouble {
    /// What is told, and after which time it is tried again; `None`: only once something changes.
    pub(crate) fn wait(
        self,
        record: &MachineRecord,
    ) -> Result<(Problem, Option<SignedDuration>), StoreError> {
        Ok(match self {
            Self::Store(error) => return Err(error),
            Self::UnderWay(problem, pause) => {
                (problem, Some(SignedDuration::try_from(pause).unwrap_or(LONGEST_WAIT)))
            }
            Self::Passing(problem) => {
                let pause = pause_after(record, &problem);
                (problem, Some(pause))
            }
            Self::Refused(problem) => (problem, Some(AFTER_REFUSAL)),
            Self::Lasting(problem) => (problem, None),
        })
    }
}

/// Exponential back-off from two seconds, with up to a quarter of jitter taken off so that machines do not march in step.
fn pause_after(record: &MachineRecord, problem: &Problem) -> SignedDuration {
    let same = record.waiting.as_ref().filter(|waiting| waiting.problem.code == problem.code);
    let attempts = same.map_or(0, |waiting| waiting.attempts);
    let full = SignedDuration::from_secs(2).saturating_mul(1 << attempts.min(9)).min(LONGEST_WAIT);
    let mut random = [0];
    let _ = getrandom::fill(&mut random);
    full - full / 1024 * i32::from(random[0])
}
