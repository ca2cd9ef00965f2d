//! Events are appended, in order, and never changed.

use crate::bench::Bench;
use crate::faults::{dump, fail_on};
use serde_json::json;
use sqlx::Executor as _;
use std::collections::BTreeSet;

pub(crate) async fn an_event_reads_back(bench: Bench) {
    let last = bench.last().await;
    let data = json!({ "files": 3, "nul": "a\u{0}b" });
    let id = bench.store.append_event("publish.done", "Cell/fra", "cell", &data).await.unwrap();
    let events = bench.store.events(last, 10).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].id, events[0].kind.as_str()), (id, "publish.done"));
    assert_eq!((events[0].subject.as_str(), events[0].actor.as_str()), ("Cell/fra", "cell"));
    assert_eq!(events[0].data, data);
    assert_eq!(bench.last().await, id);
}

pub(crate) async fn no_statement_changes_an_event(bench: Bench) {
    bench.store.append_event("a.b", "c", "d", &json!({})).await.unwrap();
    let before = dump(&bench).await;
    let mut raw = bench.raw().await;
    assert!(raw.execute("UPDATE events SET actor = 'eve'").await.is_err());
    assert!(raw.execute("DELETE FROM events").await.is_err());
    if bench.is_postgres() {
        assert!(raw.execute("TRUNCATE events").await.is_err());
    }
    assert_eq!(dump(&bench).await, before);
}

pub(crate) async fn listeners_hear_of_what_was_written_and_of_nothing_else(bench: Bench) {
    let mut listener = bench.store.changed();
    let id = bench.store.append_event("a.b", "c", "d", &json!({})).await.unwrap();
    assert!(listener.has_changed().unwrap());
    assert_eq!(*listener.borrow_and_update(), id);
    fail_on(&bench, "events", "INSERT").await;
    assert!(bench.store.append_event("a.b", "c", "d", &json!({})).await.is_err());
    assert!(!listener.has_changed().unwrap());
}

/// Whoever follows by asking for what comes after the last event it knows misses none, whatever writers do.
pub(crate) async fn a_follower_misses_nothing_while_many_write(bench: Bench) {
    const WRITERS: usize = 8;
    const EACH: usize = 25;
    let start = bench.last().await;
    let follows = bench.store.clone();
    let follower = tokio::spawn(async move {
        let mut seen = Vec::new();
        let mut last = start;
        loop {
            for event in follows.events(last, 1000).await.unwrap() {
                if event.kind == "test.end" {
                    return seen;
                }
                last = event.id;
                seen.push(event.id);
            }
        }
    });
    // On PostgreSQL half of them are another cell, as far as the database can tell.
    let other = if bench.is_postgres() {
        bailiwick_store::Store::open(bench.options.clone()).await.unwrap()
    } else {
        bench.store.clone()
    };
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = if writer % 2 == 0 { bench.store.clone() } else { other.clone() };
        writers.spawn(async move {
            let mut written = Vec::new();
            for _ in 0..EACH {
                let subject = format!("Writer/{writer}");
                written.push(store.append_event("a.b", &subject, "d", &json!({})).await.unwrap());
            }
            written
        });
    }
    let written: BTreeSet<_> = writers.join_all().await.into_iter().flatten().collect();
    bench.store.append_event("test.end", "c", "d", &json!({})).await.unwrap();
    let seen = follower.await.unwrap();
    assert!(seen.is_sorted());
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), written);
    assert_eq!(written.len(), WRITERS * EACH);
}
