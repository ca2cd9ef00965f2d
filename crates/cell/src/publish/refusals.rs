//! What a cluster does not take: told, left alone for a while, and tried again. Nothing else waits for it.

use domain::{Digest, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Until an object that was refused is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// It is never longer.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// Kind and name.
pub(super) type Key = (String, String);

/// Objects that a cluster refused.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<Key, Refusal>);

#[derive(Debug)]
struct Refusal {
    /// Of what was sent: something else is tried at once.
    sent: Digest,
    problem: Problem,
    pause: Duration,
    again: Instant,
}

impl Refusals {
    /// Why an object is not to be tried now: the cluster refused just this one, a short while ago.
    pub(super) fn standing(&self, key: &Key, sent: Digest, now: Instant) -> Option<Problem> {
        let refusal = self.0.get(key).filter(|refusal| refusal.sent == sent && now < refusal.again)?;
        Some(refusal.problem.clone())
    }

    /// The cluster refused this.
    pub(super) fn refused(&mut self, key: Key, sent: Digest, problem: Problem, now: Instant) {
        let before = self.0.get(&key).filter(|refusal| refusal.sent == sent).map(|refusal| refusal.pause);
        let pause = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        self.0.insert(key, Refusal { sent, problem, pause, again: now + pause });
    }

    /// The cluster took it.
    pub(super) fn taken(&mut self, key: &Key) {
        self.0.remove(key);
    }

    /// Forgets what is no longer wanted.
    pub(super) fn retain(&mut self, wanted: &BTreeSet<(&str, &str)>) {
        self.0.retain(|(kind, name), _| wanted.contains(&(kind.as_str(), name.as_str())));
    }

    /// Until the first of them is to be tried again.
    pub(super) fn next(&self, now: Instant) -> Option<Duration> {
        self.0.values().map(|refusal| refusal.again.saturating_duration_since(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        ("DeviceClass".to_owned(), "c".to_owned())
    }

    #[test]
    fn a_refused_object_rests_longer_each_time_and_another_one_of_its_name_is_tried_at_once() {
        let (mut refusals, began) = (Refusals::default(), Instant::now());
        let (sent, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let problem = || Problem::new("publish.refused", "no");
        refusals.refused(key(), sent, problem(), began);
        assert_eq!(refusals.standing(&key(), sent, began + FIRST_PAUSE / 2), Some(problem()));
        assert_eq!(refusals.standing(&key(), other, began), None);
        assert_eq!(refusals.standing(&key(), sent, began + FIRST_PAUSE), None);
        refusals.refused(key(), sent, problem(), began);
        assert_eq!(refusals.next(began), Some(FIRST_PAUSE * 2));
        (0..20).for_each(|_| refusals.refused(key(), sent, problem(), began));
        assert_eq!(refusals.next(began), Some(LONGEST_PAUSE));
        refusals.refused(key(), other, problem(), began);
        assert_eq!(refusals.next(began), Some(FIRST_PAUSE));
        refusals.taken(&key());
        assert_eq!((refusals.next(began), refusals.standing(&key(), other, began)), (None, None));
    }
}
