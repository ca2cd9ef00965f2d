//! Why a step came to nothing, and when it is tried again.

use domain::{Diagnose, Problem};
use std::time::Duration;
use store::{MachineRecord, StoreError};

/// Shortest and longest time between two tries.
const SHORTEST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// Longest time until a machine looks again whether there is a place for it.
const LONGEST_WITHOUT_PLACE: Duration = Duration::from_secs(30);

/// Time until the next try after credentials were refused: long enough that no lock-out window sees three of them (quirk 3).
const AFTER_REFUSAL: Duration = Duration::from_mins(15);

/// Why a step came to nothing, and whether time alone may help.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Nothing is wrong: what was begun goes on, and is looked at again then.
    UnderWay(Problem, Duration),
    /// A limit is reached, which the problem names: the machine steps back, and holds nothing while it waits.
    NoPlace(Problem),
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
    /// What is told of the machine.
    pub(crate) fn told(&self) -> Option<&Problem> {
        match self {
            Self::UnderWay(problem, _)
            | Self::NoPlace(problem)
            | Self::Passing(problem)
            | Self::Refused(problem)
            | Self::Lasting(problem) => Some(problem),
            Self::Store(_) => None,
        }
    }

    /// What is told. The database's own troubles are no machine's.
    pub(crate) fn problem(self) -> Problem {
        match self {
            Self::UnderWay(problem, _)
            | Self::NoPlace(problem)
            | Self::Passing(problem)
            | Self::Refused(problem)
            | Self::Lasting(problem) => problem,
            Self::Store(error) => error.problem(),
        }
    }

    /// What is told, and after which time it is tried again; `None`: only once something changes.
    pub(crate) fn wait(self, record: &MachineRecord) -> Result<(Problem, Option<Duration>), StoreError> {
        let back_off = |problem: &Problem| back_off(attempts(record, problem), random());
        Ok(match self {
            Self::Store(error) => return Err(error),
            Self::UnderWay(problem, pause) => (problem, Some(pause)),
            Self::NoPlace(problem) => {
                let pause = back_off(&problem).min(LONGEST_WITHOUT_PLACE);
                (problem, Some(pause))
            }
            Self::Passing(problem) => {
                let pause = back_off(&problem);
                (problem, Some(pause))
            }
            Self::Refused(problem) => (problem, Some(AFTER_REFUSAL)),
            Self::Lasting(problem) => (problem, None),
        })
    }
}

/// How often it was tried in vain before, for the same reason.
fn attempts(record: &MachineRecord, problem: &Problem) -> u32 {
    let same = record.waiting.as_ref().filter(|waiting| waiting.problem.code == problem.code);
    same.map_or(0, |waiting| waiting.attempts)
}

/// Exponential, with up to a quarter of jitter taken off so that machines do not march in step.
fn back_off(attempts: u32, random: u8) -> Duration {
    let full = SHORTEST_WAIT.saturating_mul(1 << attempts.min(9)).min(LONGEST_WAIT);
    full.saturating_sub(full / 1024 * u32::from(random))
}

fn random() -> u8 {
    let mut random = [0];
    // Without randomness there is no jitter.
    let _ = getrandom::fill(&mut random);
    random[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_from_two_seconds_to_ten_minutes_and_no_further() {
        let pauses: Vec<_> = (0..40).map(|attempts| back_off(attempts, 0)).collect();
        assert_eq!(pauses[0], Duration::from_secs(2));
        assert!(pauses[..10].windows(2).all(|two| two[1] > two[0]), "{pauses:?}");
        assert!(pauses[9..].iter().all(|pause| *pause == Duration::from_mins(10)), "{pauses:?}");
        assert_eq!(back_off(u32::MAX, 0), Duration::from_mins(10));
    }

    #[test]
    fn jitter_spreads_a_pause_over_a_quarter_of_it_and_never_lengthens_it() {
        for attempts in [0, 3, 9, 30] {
            let full = back_off(attempts, 0);
            let spread: Vec<_> = (0..=u8::MAX).map(|random| back_off(attempts, random)).collect();
            assert!(spread.windows(2).all(|two| two[1] < two[0]), "{spread:?}");
            assert!(spread[255] >= full * 3 / 4 && spread[255] < full * 4 / 5, "{full:?} {:?}", spread[255]);
        }
    }
}
