//! How often one agent may call.

use domain::Name;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One call in so long, on average.
const EVERY: Duration = Duration::from_millis(500);

/// So many at once, after a pause: a host whose GPUs, claims and registration change together.
const BURST: u32 = 20;

/// When each agent may call again, if it had used up its burst (a generic cell rate algorithm).
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<Name, Instant>>);

impl Pace {
    /// Takes a call of an agent, or says how long it has to wait.
    pub(super) fn take(&self, machine: &Name, now: Instant) -> Result<(), Duration> {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = next.get(machine).copied().unwrap_or(now).max(now);
        let wait = (due - now).saturating_sub(EVERY * (BURST - 1));
        if !wait.is_zero() {
            return Err(wait);
        }
        next.insert(machine.clone(), due + EVERY);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_may_call_often_for_a_while_and_others_do_not_pay_for_it() {
        let (pace, now) = (Pace::default(), Instant::now());
        let (m1, m2) = (Name::new("m1").unwrap(), Name::new("m2").unwrap());
        for _ in 0..BURST {
            assert_eq!(pace.take(&m1, now), Ok(()));
        }
        assert_eq!(pace.take(&m1, now), Err(EVERY));
        assert_eq!(pace.take(&m2, now), Ok(()));
        assert_eq!(pace.take(&m1, now + EVERY), Ok(()));
        assert!(pace.take(&m1, now + EVERY).is_err());
    }
}
