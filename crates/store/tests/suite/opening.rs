//! Opening a database that is there already, or should not be opened.

use crate::bench::{Bench, at, name, server};
use crate::faults::{dump, fail_with, mend};
use bailiwick_store::{SCHEMA_VERSION, Store, StoreError, StoreOptions};
use sqlx::Executor as _;

pub(crate) async fn what_was_written_is_there_after_opening_again(bench: Bench) {
    bench.declare(&["m1"]).await;
    bench.discover("m1").await;
    bench.enrol("m1", &server("S1", &["G1"]), at(0)).await.unwrap();
    let before = dump(&bench).await;
    let newest = bench.last().await;
    let bench = bench.reopen().await;
    assert_eq!(dump(&bench).await, before);
    assert_eq!(*bench.store.changed().borrow(), newest);
    assert!(bench.store.password_equals(&name("m1"), "hunter2").await.unwrap());
}

pub(crate) async fn a_database_of_a_newer_version_is_refused_and_left_as_it_is(bench: Bench) {
    let newer = SCHEMA_VERSION + 1;
    let sql = if bench.is_postgres() {
        format!("INSERT INTO _sqlx_migrations VALUES ({newer}, 'later', now(), true, '\\x00', 0)")
    } else {
        format!("INSERT INTO _sqlx_migrations VALUES ({newer}, 'later', '2027-01-01', 1, x'00', 0)")
    };
    bench.raw().await.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    let before = dump(&bench).await;
    let error = bench.fail_to_reopen(|_| {}).await;
    assert!(
        matches!(error, StoreError::NewerVersion { found, expected }
            if found == newer && expected == SCHEMA_VERSION),
        "{error:?}"
    );
    assert_eq!(dump(&bench).await, before);
}

pub(crate) async fn another_key_is_recognised_before_anything_is_changed(bench: Bench) {
    bench.declare(&["m1"]).await;
    let before = dump(&bench).await;
    let other = bench.directory.path().join("other/key");
    let text = format!("bailiwick-key-v1:{}\n", "ab".repeat(32));
    std::fs::create_dir(other.parent().unwrap()).unwrap();
    std::fs::write(&other, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&other, mode).unwrap();
    let error = bench.fail_to_reopen(|options| options.key_file = other).await;
    assert_eq!(error.code(), "store.key-wrong");
    assert_eq!(dump(&bench).await, before);
}

pub(crate) async fn a_missing_key_is_not_replaced_by_a_new_one(bench: Bench) {
    let nowhere = bench.directory.path().join("nowhere/key");
    let path = nowhere.clone();
    let error = bench.fail_to_reopen(|options| options.key_file = path).await;
    assert_eq!(error.code(), "store.key-missing");
    assert!(!nowhere.exists());
}

pub(crate) async fn a_value_set_once_stays(bench: Bench) {
    assert_eq!(bench.store.meta("jurisdiction").await.unwrap(), None);
    bench.store.set_meta_once("jurisdiction", "eu").await.unwrap();
    bench.store.set_meta_once("jurisdiction", "eu").await.unwrap();
    let error = bench.store.set_meta_once("jurisdiction", "us").await.unwrap_err();
    assert_eq!(error.code(), "store.meta-conflict");
    assert_eq!(bench.store.meta("jurisdiction").await.unwrap().as_deref(), Some("eu"));
}

pub(crate) async fn replicas_share_postgres_and_no_two_cells_share_a_file(bench: Bench) {
    let again = Store::open(bench.options.clone()).await;
    if bench.is_postgres() {
        let other = again.unwrap();
        let id = other.append_event("a.b", "c", "d", &serde_json::json!({})).await.unwrap();
        assert_eq!(bench.last().await, id);
        other.close().await;
    } else {
        assert_eq!(again.unwrap_err().code(), "store.locked");
        bench.store.append_event("a.b", "c", "d", &serde_json::json!({})).await.unwrap();
    }
}

/// PostgreSQL only: SQLSTATEs as the server sends them. What SQLite sends is tested beside the code that writes.
pub(crate) async fn a_disk_that_is_full_or_read_only_has_its_own_code(bench: Bench) {
    for (state, code) in
        [("53100", "store.full"), ("25006", "store.read-only"), ("57P03", "store.unreachable")]
    {
        fail_with(&bench, "events", "INSERT", state).await;
        let error = bench.store.append_event("a.b", "c", "d", &serde_json::json!({})).await.unwrap_err();
        assert_eq!(error.code(), code);
        mend(&bench, "events").await;
    }
    bench.store.append_event("a.b", "c", "d", &serde_json::json!({})).await.unwrap();
}

/// PostgreSQL only.
pub(crate) async fn of_replicas_with_different_keys_that_open_a_new_database_at_once_one_wins(bench: Bench) {
    bench.raw().await.execute("CREATE DATABASE fresh").await.unwrap();
    let mut opening = tokio::task::JoinSet::new();
    for replica in 0..4 {
        let (path, query) = bench.options.url.split_once('?').unwrap();
        let server = path.rsplit_once('/').unwrap().0;
        opening.spawn(Store::open(StoreOptions {
            url: format!("{server}/fresh?{query}"),
            key_file: bench.directory.path().join(format!("key-{replica}")),
            max_connections: 1,
        }));
    }
    let outcomes = opening.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let codes: Vec<_> = outcomes.into_iter().filter_map(|outcome| Some(outcome.err()?.code())).collect();
    assert_eq!(codes, ["store.key-wrong"; 3]);
}

/// PostgreSQL only.
pub(crate) async fn replicas_with_one_key_open_a_new_database_at_once(bench: Bench) {
    bench.raw().await.execute("CREATE DATABASE fresh_too").await.unwrap();
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (path, query) = bench.options.url.split_once('?').unwrap();
        let server = path.rsplit_once('/').unwrap().0;
        opening.spawn(Store::open(StoreOptions {
            url: format!("{server}/fresh_too?{query}"),
            key_file: bench.directory.path().join("one-key"),
            max_connections: 1,
        }));
    }
    for outcome in opening.join_all().await {
        outcome.unwrap();
    }
}
