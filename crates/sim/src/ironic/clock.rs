//! The endpoint's time: the machine's, or one that a test moves.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Time since the endpoint was made.
#[derive(Debug)]
pub(crate) struct Clock {
    began: Timestamp,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Machine(Instant),
    Stepped(Mutex<Duration>),
}

impl Clock {
    /// The machine's time.
    pub(crate) fn of_the_machine() -> Self {
        Self { began: Timestamp::now(), source: Source::Machine(Instant::now()) }
    }

    /// A time that stands still until it is moved.
    pub(crate) fn stepped() -> Self {
        Self { began: Timestamp::now(), source: Source::Stepped(Mutex::default()) }
    }

    pub(crate) fn is_stepped(&self) -> bool {
        matches!(self.source, Source::Stepped(_))
    }

    pub(crate) fn now(&self) -> Duration {
        match &self.source {
            Source::Machine(began) => began.elapsed(),
            Source::Stepped(now) => *now.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Moves a stepped clock forward to this time; time never goes back.
    pub(crate) fn move_to(&self, time: Duration) {
        if let Source::Stepped(now) = &self.source {
            let mut now = now.lock().unwrap_or_else(PoisonError::into_inner);
            *now = time.max(*now);
        }
    }

    /// A time as Ironic writes it: `2026-11-21T13:31:34.450870+00:00`.
    pub(crate) fn write(&self, time: Duration) -> String {
        let at = self.began.checked_add(time).unwrap_or(Timestamp::MAX);
        at.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stepped_clock_stands_until_it_is_moved_and_never_goes_back() {
        let clock = Clock::stepped();
        assert_eq!(clock.now(), Duration::ZERO);
        clock.move_to(Duration::from_secs(7));
        clock.move_to(Duration::from_secs(3));
        assert_eq!(clock.now(), Duration::from_secs(7));
    }

    #[test]
    fn times_have_microseconds_and_an_offset() {
        let text = Clock::stepped().write(Duration::ZERO);
        assert_eq!(text.len(), "2026-11-21T13:31:34.450870+00:00".len());
        assert!(text.ends_with("+00:00"));
    }
}
