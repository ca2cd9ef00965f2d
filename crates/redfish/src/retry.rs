//! When to ask again: bounded attempts, back-off with jitter, and what the BMC says in Retry-After.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, SystemTime};

use http::StatusCode;

use crate::message::{Meaning, Messages};

/// The longest wait that is ever computed; [`RetryPolicy::cap`] is far below in practice.
const DAY: Duration = Duration::from_hours(24);

/// How often and how patiently a request that changes nothing is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// Wait before the second attempt; doubles with every further one.
    pub base: Duration,
    /// The longest wait, whatever the BMC asks for.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 3, base: Duration::from_millis(500), cap: Duration::from_secs(30) }
    }
}

impl RetryPolicy {
    /// How long to wait after attempt number `attempt` (counted from 1). `asked` is what Retry-After asked for.
    pub(crate) fn wait(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        self.wait_with(attempt, asked, random_fraction())
    }

    /// `fraction` in 0..1 spreads clients that failed together: between half of the back-off and all of it.
    fn wait_with(&self, attempt: u32, asked: Option<Duration>, fraction: f64) -> Duration {
        let back_off =
            self.base.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(self.cap).min(DAY);
        let spread = back_off.mul_f64(0.5 + fraction / 2.0);
        asked.map_or(spread, |asked| asked.max(spread)).min(self.cap)
    }
}

/// A number in 0..1; std's hasher keys are random, and spreading needs no more than that.
fn random_fraction() -> f64 {
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    f64::from((bits >> 32) as u32) / f64::from(u32::MAX)
}

/// Reads Retry-After: seconds, an HTTP date, or garbage, which says nothing (quirk 31: bmcweb may put a URL there).
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return (seconds.is_finite() && seconds >= 0.0)
            .then(|| Duration::from_secs_f64(seconds.min(86_400.0)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

/// Whether the same request may succeed a little later: by status, or by the table of messages (quirk 16).
pub(crate) fn is_transient(status: StatusCode, messages: &Messages) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    ) || messages.mean(Meaning::NotNow)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RetryPolicy =
        RetryPolicy { attempts: 3, base: Duration::from_secs(1), cap: Duration::from_secs(30) };

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777) // Sun, 06 Nov 1994 08:49:37 GMT
    }

    #[test]
    fn quirk_31_retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("10", now()), Some(Duration::from_secs(10)));
        assert_eq!(retry_after(" 1.5 ", now()), Some(Duration::from_millis(1500)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now()), Some(Duration::from_mins(1)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now()), Some(Duration::ZERO));
    }

    #[test]
    fn quirk_31_garbage_in_retry_after_says_nothing() {
        for garbage in ["/redfish/v1/UpdateService", "soon", "", "-5", "NaN", "inf"] {
            assert_eq!(retry_after(garbage, now()), None, "{garbage}");
        }
    }

    #[test]
    fn quirk_31_no_wait_is_longer_than_the_cap() {
        assert_eq!(POLICY.wait_with(1, retry_after("1e300", now()), 0.0), POLICY.cap);
        assert_eq!(POLICY.wait_with(u32::MAX, None, 1.0), POLICY.cap);
    }

    #[test]
    fn waits_double_and_are_spread() {
        assert_eq!(POLICY.wait_with(1, None, 0.0), Duration::from_millis(500));
        assert_eq!(POLICY.wait_with(1, None, 1.0), Duration::from_secs(1));
        assert_eq!(POLICY.wait_with(3, None, 1.0), Duration::from_secs(4));
    }

    #[test]
    fn a_longer_wait_that_the_bmc_asks_for_is_obeyed_and_a_shorter_one_is_not() {
        assert_eq!(POLICY.wait_with(1, Some(Duration::from_secs(7)), 1.0), Duration::from_secs(7));
        assert_eq!(POLICY.wait_with(1, Some(Duration::ZERO), 1.0), Duration::from_secs(1));
    }

    #[test]
    fn quirk_16_messages_that_mean_later_are_transient_under_any_status() {
        let messages = |id: &str| {
            Messages::of_json(&serde_json::json!({"error": {"@Message.ExtendedInfo": [{"MessageId": id}]}}))
        };
        assert!(is_transient(StatusCode::BAD_REQUEST, &messages("iLO.2.14.InvalidOperationForSystemState")));
        assert!(is_transient(StatusCode::INTERNAL_SERVER_ERROR, &messages("IDRAC.2.8.SYS518")));
        assert!(!is_transient(StatusCode::BAD_REQUEST, &messages("Base.1.8.QueryParameterValueFormatError")));
    }

    proptest! {
        #[test]
        fn quirk_31_whatever_retry_after_says_the_wait_is_within_the_cap(
            value in ".{0,40}|[0-9.eE+-]{0,12}", attempt in 0_u32..100, cap in 0_u64..=u64::MAX,
        ) {
            let policy = RetryPolicy { cap: Duration::from_secs(cap), ..POLICY };
            prop_assert!(policy.wait(attempt, retry_after(&value, now())) <= policy.cap);
        }
    }
}
