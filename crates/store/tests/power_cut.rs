//! The power goes while `SQLite` writes: what is found afterwards is what some committed transaction left, never less than
//! half of one, and it goes on.
//!
//! The write-ahead log is cut at every frame boundary and inside frames (sqlite.org/fileformat2.html §4): those are the files
//! that a disk holds that got the log's writes in order and then nothing more. Each is opened by the store as after a crash.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use bailiwick_store::{Advance, Guard, Store, StoreOptions};
use domain::plan::Wish;
use domain::{Digest, MachineState, Name, Plan, Problem, Step};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Length of the log's header, and of a frame's (sqlite.org/fileformat2.html §4.1).
const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

const WORLD: &str = "apiVersion: bailiwick.dev/v1alpha1
kind: Jurisdiction
metadata: {name: eu}
spec: {}
---
apiVersion: bailiwick.dev/v1alpha1
kind: LegalEntity
metadata: {name: acme}
spec: {legalName: Acme, country: DE}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Site
metadata: {name: fra1}
spec: {jurisdiction: eu, operator: acme, country: DE, bmcNetworks: [10.0.0.0/24]}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Machine
metadata: {name: m1}
spec: {site: fra1, bmc: {address: 10.0.0.5, username: root, passwordFile: pw}}
";

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn options(directory: &Path) -> StoreOptions {
    StoreOptions {
        url: format!("sqlite://{}", directory.join("cell.db").display()),
        key_file: directory.join("key"),
        max_connections: 1,
    }
}

/// All that the store shows. Two states that show the same are the same.
async fn shown(store: &Store) -> String {
    let machines = store.machines().await.unwrap();
    let work: Vec<_> = machines.iter().map(|machine| machine.work.clone()).collect();
    let kinds: Vec<_> =
        store.events(0, 1000).await.unwrap().into_iter().map(|event| (event.id, event.kind)).collect();
    let declared: Vec<_> =
        store.declarations().await.unwrap().iter().map(domain::Declaration::to_json).collect();
    let erasures = store.erasures(&name("m1")).await.unwrap();
    format!("{machines:?} {work:?} {kinds:?} {declared:?} {erasures:?}")
}

/// A life of transactions; what each left, in order. Events and rows of one transaction are never apart.
async fn live(store: &Store) -> Vec<String> {
    let mut states = vec![shown(store).await];
    let read = domain::manifest::read("world", WORLD).unwrap();
    let apply = read.into_iter().map(|located| located.declaration).collect();
    let plan = Plan::make(&[], &Wish { apply, ..Wish::default() }, None).unwrap();
    let passwords = BTreeMap::from([(name("m1"), "hunter2".to_owned().into())]);
    store.save_plan(&plan, &passwords, "ada").await.unwrap();
    states.push(shown(store).await);
    store.apply_plan(&plan.digest, "ada").await.unwrap();
    states.push(shown(store).await);

    let machine = name("m1");
    let generation = store.machine(&machine).await.unwrap().unwrap().generation;
    store.record_discovery(&machine, generation, &Digest::of(b"key")).await.unwrap();
    states.push(shown(store).await);
    store.live("a", Duration::from_mins(10)).await.unwrap();
    for round in 0..3 {
        let lease = store.claim("a", &name("fra1"), 1).await.unwrap().remove(0);
        let guard: Guard = lease.guard(generation);
        let problem = Problem::new(&format!("round.{round}"), "x".repeat(3000));
        store.record_waiting(&machine, guard, &problem, None).await.unwrap();
        states.push(shown(store).await);
        store.remember(&machine, guard, Some(&json!({ "round": round }))).await.unwrap();
        states.push(shown(store).await);
        store.note(&machine, guard, None, "machine.acted", &json!({ "round": round })).await.unwrap();
        states.push(shown(store).await);
        store.release(&[(lease, None)]).await.unwrap();
        store.refresh(&machine, "ada").await.unwrap();
        states.push(shown(store).await);
    }
    let problem = Problem::new("node.false-claim", "it lies");
    store.set_aside(&machine, generation, &problem).await.unwrap();
    states.push(shown(store).await);
    let back = Advance::new(Step::Readmit, MachineState::Discovered);
    store.advance(&machine, generation, &back).await.unwrap();
    states.push(shown(store).await);
    states
}

fn copy(from: &Path, to: &Path, log: &[u8]) {
    std::fs::create_dir_all(to).unwrap();
    for file in ["cell.db", "key"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    std::fs::write(to.join("cell.db-wal"), log).unwrap();
}

/// Where a log of this length is cut: at the end of each frame, and within its header and its page.
fn cuts(log: &[u8]) -> Vec<usize> {
    let page = u32::from_be_bytes(log[8..12].try_into().unwrap());
    let frame = FRAME_HEADER + usize::try_from(page).unwrap();
    let mut cuts = vec![0, HEADER / 2];
    for start in (HEADER..=log.len()).step_by(frame) {
        cuts.extend([
            start,
            start + FRAME_HEADER / 2,
            start + FRAME_HEADER,
            start + frame / 2,
            start + frame - 1,
        ]);
    }
    cuts.retain(|cut| *cut <= log.len());
    cuts
}

/// The files of a store that is still open: nothing has been moved from the log into the database since `since` was taken.
struct Crashed {
    _dir: tempfile::TempDir,
    files: PathBuf,
    log: Vec<u8>,
    states: Vec<String>,
}

async fn crashed() -> Crashed {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("live");
    std::fs::create_dir_all(&files).unwrap();
    // Made and closed, so that the schema is in the database and the log begins with the first transaction.
    Store::open(options(&files)).await.unwrap().close().await;
    let store = Store::open(options(&files)).await.unwrap();
    let before = std::fs::read(files.join("cell.db")).unwrap();
    let states = live(&store).await;
    // SQLite moves the log into the database after 1,000 frames: until then a cut log loses the newest alone.
    assert_eq!(std::fs::read(files.join("cell.db")).unwrap(), before, "the log was moved meanwhile");
    let log = std::fs::read(files.join("cell.db-wal")).unwrap();
    let copied = dir.path().join("copied");
    copy(&files, &copied, &log);
    store.close().await;
    Crashed { _dir: dir, files: copied, log, states }
}

#[tokio::test]
async fn a_log_cut_anywhere_shows_what_a_committed_transaction_left_and_goes_on() {
    let crashed = crashed().await;
    let cuts = cuts(&crashed.log);
    assert!(cuts.len() > 100, "{}", cuts.len());
    let mut newest = 0;
    let mut seen = vec![false; crashed.states.len()];
    for cut in cuts {
        let target = tempfile::tempdir().unwrap();
        copy(&crashed.files, target.path(), &crashed.log[..cut]);
        let store = Store::open(options(target.path())).await.unwrap();
        let found = shown(&store).await;
        let place = crashed.states.iter().position(|state| *state == found);
        let place = place.unwrap_or_else(|| panic!("cut at {cut}: no transaction left this: {found}"));
        assert!(place >= newest, "cut at {cut}: less is left than of a shorter log");
        newest = place;
        seen[place] = true;
        let last = store.last_event().await.unwrap();
        let next = store.append_event("a.b", "c", "d", &json!({})).await.unwrap();
        assert!(next > last);
        store.close().await;
    }
    assert!(seen.iter().all(|seen| *seen), "each transaction is found at some cut: {seen:?}");
}

#[tokio::test]
async fn a_log_with_a_damaged_frame_ends_before_it() {
    let crashed = crashed().await;
    for place in cuts(&crashed.log).into_iter().filter(|place| *place > HEADER).step_by(7) {
        let mut log = crashed.log.clone();
        let Some(byte) = log.get_mut(place) else { continue };
        *byte ^= 0x55;
        let target = tempfile::tempdir().unwrap();
        copy(&crashed.files, target.path(), &log);
        let store = Store::open(options(target.path())).await.unwrap();
        let found = shown(&store).await;
        assert!(crashed.states.contains(&found), "damaged at {place}: no transaction left this: {found}");
        store.close().await;
    }
}
