//! What others do to our objects in a cluster, seen when it happens: a kubelet wipes slices, people edit and delete.
//!
//! The publisher looks at everything now and then; this only tells it to look at once. What it did itself is told from what others
//! do by the `resourceVersion` that it left an object with.

use super::refusals::Key;
use futures_util::{StreamExt as _, pin_mut};
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Changes of one kind that may wait for the publisher; the API server keeps those after them.
const WAITING: usize = 256;

/// Until a watch that failed is opened again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// It is never longer.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// So long a watch takes at least until the next one is asked for.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// What the publisher left in the cluster: `resourceVersion`s.
pub(super) type Left = BTreeMap<Key, String>;

/// What was seen.
enum Seen {
    /// An object has this version now, or is gone.
    Now(Key, Option<String>),
    /// Something may have been missed.
    Gap,
}

/// Objects of one kind to watch.
pub(super) struct Watched {
    pub kind: &'static str,
    pub api: Api<DynamicObject>,
    pub selector: ListParams,
}

/// Watches some kinds until it is dropped.
pub(super) struct Watch {
    seen: mpsc::Receiver<Seen>,
    pace: Pace,
    _tasks: JoinSet<()>,
}

impl Watch {
    pub(super) fn start(kinds: impl IntoIterator<Item = Watched>) -> Self {
        let (sender, seen) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        for kind in kinds {
            tasks.spawn(follow(kind, sender.clone()));
        }
        Self { seen, pace: Pace::default(), _tasks: tasks }
    }

    /// Forgets what was seen so far: everything is looked at now.
    pub(super) fn forget(&mut self) {
        while self.seen.try_recv().is_ok() {}
    }

    /// Returns when something is otherwise than it was left, and it is time to put it right.
    pub(super) async fn differs(&mut self, left: &Left) {
        let mut due: Option<Instant> = None;
        loop {
            let mut next = tokio::select! {
                seen = self.seen.recv() => seen,
                () = until(due) => return,
            };
            let mut batch = Vec::new();
            while let Some(seen) = next {
                batch.push(seen);
                next = self.seen.try_recv().ok();
            }
            if batch.is_empty() {
                // Nobody watches any more.
                return std::future::pending().await;
            }
            due = self.pace.due(left, batch, Instant::now()).into_iter().chain(due).min();
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// How soon what somebody did to an object is undone: at once, and ever more rarely while it happens again and again.
#[derive(Debug, Default)]
struct Pace(BTreeMap<Key, (Instant, Duration)>);

impl Pace {
    /// What happens within this time is put right together: a kubelet that wipes deletes one slice after the other.
    const SHORTEST: Duration = Duration::from_millis(100);
    /// No object waits longer.
    const LONGEST: Duration = Duration::from_mins(1);
    /// An object that was left in peace for so long is put right at once again.
    const CALM: Duration = Duration::from_mins(2);

    /// When to put right what was seen to be otherwise than it was left; `None` where nothing is.
    fn due(&mut self, left: &Left, seen: Vec<Seen>, now: Instant) -> Option<Instant> {
        // Of an object that was deleted and is there again only the last counts.
        let (mut last, mut gap) = (BTreeMap::new(), None);
        for seen in seen {
            match seen {
                Seen::Now(key, version) => drop(last.insert(key, version)),
                Seen::Gap => gap = Some(Self::SHORTEST),
            }
        }
        let differing = last.into_iter().filter(|(key, version)| left.get(key) != version.as_ref());
        let pauses = differing.map(|(key, _)| self.pause(key, now)).chain(gap);
        pauses.min().map(|pause| now + pause)
    }

    fn pause(&mut self, key: Key, now: Instant) -> Duration {
        self.0.retain(|_, (last, _)| now.duration_since(*last) < Self::CALM);
        let pause = match self.0.get(&key) {
            Some((_, pause)) => (*pause * 2).min(Self::LONGEST),
            None => Self::SHORTEST,
        };
        self.0.insert(key, (now, pause));
        pause
    }
}

/// Tells of one kind for ever; gives up each connection that fails, and is slower to open the next.
async fn follow(kind: Watched, seen: mpsc::Sender<Seen>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let opened = Instant::now();
        match stream(&kind, &seen).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(kind = kind.kind, "a watch has ended: {error}"),
        }
        pause = if opened.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::time::sleep(pause).await;
    }
}

/// `Ok` when nobody listens any more.
async fn stream(kind: &Watched, seen: &mpsc::Sender<Seen>) -> Result<(), kube::Error> {
    let newest = kind.api.list_metadata(&kind.selector.clone().limit(1)).await?;
    let mut version = newest.metadata.resource_version.unwrap_or_default();
    let params = WatchParams {
        label_selector: kind.selector.label_selector.clone(),
        field_selector: kind.selector.field_selector.clone(),
        ..WatchParams::default()
    };
    let mut first = true;
    // The server ends each watch after some minutes; the next one goes on where it ended.
    loop {
        let began = Instant::now();
        let events = kind.api.watch_metadata(&params, &version).await?;
        pin_mut!(events);
        if std::mem::take(&mut first) && seen.send(Seen::Gap).await.is_err() {
            return Ok(());
        }
        while let Some(event) = events.next().await {
            let (metadata, gone) = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object.metadata, false),
                WatchEvent::Deleted(object) => (object.metadata, true),
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                // Most often too old a version (410): listed anew.
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            };
            if let Some(newer) = &metadata.resource_version {
                version.clone_from(newer);
            }
            let key = (kind.kind.to_owned(), metadata.name.unwrap_or_default());
            let now = (!gone).then(|| metadata.resource_version.unwrap_or_default());
            if seen.send(Seen::Now(key, now)).await.is_err() {
                return Ok(());
            }
        }
        // Something in between may end each at once.
        tokio::time::sleep(SHORTEST_WATCH.saturating_sub(began.elapsed())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("ResourceSlice".to_owned(), name.to_owned())
    }

    fn now(name: &str, version: Option<&str>) -> Seen {
        Seen::Now(key(name), version.map(str::to_owned))
    }

    #[test]
    fn what_we_left_so_is_no_news_and_what_others_made_of_it_is() {
        let left = Left::from([(key("a"), "7".to_owned())]);
        let due = |seen: Vec<Seen>| {
            let at = Instant::now();
            Pace::default().due(&left, seen, at).map(|due| due - at)
        };
        // Deleted, and there again by ourselves; and one that we took away.
        assert_eq!(due(vec![now("a", None), now("a", Some("7")), now("b", None)]), None);
        for news in [now("a", None), now("a", Some("8")), now("b", Some("9")), Seen::Gap] {
            assert_eq!(due(vec![news]), Some(Pace::SHORTEST));
        }
    }

    #[test]
    fn an_object_that_somebody_keeps_deleting_is_put_right_ever_more_rarely_and_others_at_once() {
        let left = Left::from([(key("a"), "7".to_owned()), (key("b"), "8".to_owned())]);
        let (mut pace, mut at) = (Pace::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let due = pace.due(&left, vec![now("a", None)], at).unwrap();
            pauses.push(due - at);
            at = due;
        }
        assert_eq!(pauses[..3], [1, 2, 4].map(|times| Pace::SHORTEST * times));
        assert_eq!(pauses[11], Pace::LONGEST);
        let both = vec![now("a", None), now("b", None)];
        assert_eq!(pace.due(&left, both, at), Some(at + Pace::SHORTEST));
        at += Pace::CALM;
        assert_eq!(pace.due(&left, vec![now("a", None)], at), Some(at + Pace::SHORTEST));
    }
}
