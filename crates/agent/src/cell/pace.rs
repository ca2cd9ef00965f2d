//! How often changes are reported: at once, unless they come without end. What comes and goes all the time, such as a kubelet that
//! restarts in a loop, then waits and is reported as it stands.

use std::time::Duration;
use tokio::time::Instant;

/// So many changes are reported at once, one after the other.
const BURST: u32 = 10;
/// Each of them is made good again by so long a time.
const REFILL: Duration = Duration::from_secs(10);

/// What is left of the changes that may be reported at once.
#[derive(Debug)]
pub(super) struct Pace {
    /// From then on all of them are.
    full: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { full: now }
    }

    /// How long a change has to wait now.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.full.saturating_duration_since(now).saturating_sub(REFILL * (BURST - 1))
    }

    /// A change is reported.
    pub(super) fn spend(&mut self, now: Instant) {
        self.full = self.full.max(now) + REFILL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_reported_at_once_until_they_come_without_end() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..BURST {
            assert_eq!(pace.wait(start), Duration::ZERO);
            pace.spend(start);
        }
        assert_eq!(pace.wait(start), REFILL);
        let later = start + REFILL;
        assert_eq!(pace.wait(later), Duration::ZERO);
        pace.spend(later);
        assert_eq!(pace.wait(later), REFILL);
        assert_eq!(pace.wait(later + REFILL * BURST), Duration::ZERO);
    }
}
