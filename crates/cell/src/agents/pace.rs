//! How often somebody may do something.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Those that are remembered at most before those that may do everything anyway are forgotten.
const REMEMBERED: usize = 4096;

/// When each may do it again, if it had used up its burst (a generic cell rate algorithm).
#[derive(Debug)]
pub(super) struct Pace<K> {
    /// Once in so long, on average.
    every: Duration,
    /// So often at once, after a pause.
    burst: u32,
    next: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash + Clone> Pace<K> {
    pub(super) fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst, next: Mutex::default() }
    }

    /// Does it, or says how long that one has to wait.
    pub(super) fn take(&self, who: &K, now: Instant) -> Result<(), Duration> {
        self.may(who, now)?;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.len() >= REMEMBERED {
            next.retain(|_, due| *due > now);
        }
        let due = next.get(who).copied().unwrap_or(now).max(now);
        next.insert(who.clone(), due + self.every);
        Ok(())
    }

    /// Whether that one may do it, without doing it.
    pub(super) fn may(&self, who: &K, now: Instant) -> Result<(), Duration> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = next.get(who).copied().unwrap_or(now).max(now);
        let wait = (due - now).saturating_sub(self.every * (self.burst - 1));
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(500);
    const BURST: u32 = 20;

    #[test]
    fn one_may_call_often_for_a_while_and_others_do_not_pay_for_it() {
        let (pace, now) = (Pace::new(EVERY, BURST), Instant::now());
        let (m1, m2) = ("m1", "m2");
        for _ in 0..BURST {
            assert_eq!(pace.take(&m1, now), Ok(()));
        }
        assert_eq!(pace.may(&m1, now), Err(EVERY));
        assert_eq!(pace.take(&m1, now), Err(EVERY));
        assert_eq!(pace.take(&m2, now), Ok(()));
        assert_eq!(pace.take(&m1, now + EVERY), Ok(()));
        assert!(pace.take(&m1, now + EVERY).is_err());
    }

    #[test]
    fn those_that_have_paused_are_forgotten() {
        let (pace, now) = (Pace::new(EVERY, BURST), Instant::now());
        for who in 0..REMEMBERED {
            pace.take(&who, now).unwrap();
        }
        pace.take(&REMEMBERED, now + EVERY * 2).unwrap();
        assert_eq!(pace.next.lock().unwrap().len(), 1);
    }
}
