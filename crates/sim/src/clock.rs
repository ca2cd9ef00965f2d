//! The clock of a BMC, which may be wrong (quirk 41).

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// How far the clock is from the right time, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicI64);

impl Clock {
    pub(crate) fn skew(&self) -> SignedDuration {
        SignedDuration::from_millis(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set_skew(&self, skew: SignedDuration) {
        self.0.store(i64::try_from(skew.as_millis()).unwrap_or_default(), Ordering::Relaxed);
    }

    /// Sets it to this time.
    pub(crate) fn set(&self, time: Timestamp) {
        self.set_skew(time.duration_since(Timestamp::now()));
    }

    /// What it says now; the right time where that would be out of range.
    pub(crate) fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        now.checked_add(self.skew()).unwrap_or(now)
    }

    /// As `DateTime` of a manager: whole seconds, UTC.
    pub(crate) fn date_time(&self) -> String {
        self.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// As the `Date` header.
    pub(crate) fn http_date(&self) -> String {
        self.now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_as_wrong_as_it_was_set() {
        let clock = Clock::default();
        clock.set("2001-02-03T04:05:06Z".parse().unwrap());
        assert!(clock.date_time().starts_with("2001-02-03T04:05:0"), "{}", clock.date_time());
        assert!(clock.http_date().starts_with("Sat, 03 Feb 2001 04:05:0"), "{}", clock.http_date());
    }
}
