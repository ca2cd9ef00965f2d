//! What is only so for a database in a file, and for a server that is not there.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking too

use bailiwick_store::{Store, StoreOptions};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn options(directory: &Path) -> StoreOptions {
    StoreOptions {
        url: format!("sqlite://{}", directory.join("data/cell/bailiwick.db").display()),
        key_file: directory.join("data/cell/key"),
        max_connections: 2,
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn directories_and_files_are_for_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(options(directory.path())).await.unwrap();
    store.append_event("a.b", "c", "d", &serde_json::json!({})).await.unwrap();
    let cell = directory.path().join("data/cell");
    assert_eq!((mode(&directory.path().join("data")), mode(&cell)), (0o700, 0o700));
    let files: Vec<_> = fs::read_dir(&cell).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn closing_folds_the_write_ahead_log_into_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(options(directory.path())).await.unwrap();
    store.append_event("a.b", "c", "d", &serde_json::json!({})).await.unwrap();
    let wal = directory.path().join("data/cell/bailiwick.db-wal");
    assert!(wal.exists());
    store.close().await;
    assert!(!wal.exists());
}

#[tokio::test]
async fn a_second_cell_on_one_file_is_refused_until_the_first_has_closed_it() {
    let directory = tempfile::tempdir().unwrap();
    let first = Store::open(options(directory.path())).await.unwrap();
    assert_eq!(Store::open(options(directory.path())).await.unwrap_err().code(), "store.locked");
    first.close().await;
    let second = Store::open(options(directory.path())).await.unwrap();
    drop(second);
    Store::open(options(directory.path())).await.unwrap();
}

#[tokio::test]
async fn a_key_file_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    Store::open(options(directory.path())).await.unwrap().close().await;
    let key = directory.path().join("data/cell/key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(Store::open(options(directory.path())).await.unwrap_err().code(), "store.key-permissions");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data/cell/bailiwick.db");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = "these are not the bytes of a database\n".repeat(100);
    fs::write(&path, &text).unwrap();
    assert_eq!(Store::open(options(directory.path())).await.unwrap_err().code(), "store.corrupt");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_says_which() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("data"), "a file").unwrap();
    let error = Store::open(options(directory.path())).await.unwrap_err();
    assert_eq!(error.code(), "store.file");
    assert!(error.to_string().contains("data/cell"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_has_its_own_code_and_no_password_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    let socket = directory.path().display().to_string().replace('/', "%2F");
    options.url = format!("postgres://cell:hunter2@localhost/bailiwick?host={socket}");
    let error = Store::open(options).await.unwrap_err();
    assert_eq!(error.code(), "store.unreachable");
    let problem = domain::Diagnose::problem(&error);
    assert!(!format!("{error:?} {problem:?}").contains("hunter2"));
    assert!(problem.hint.is_some());
}

/// The promise of `PRAGMA synchronous = FULL` and a lock that dies with its process: what was committed survives SIGKILL, and
/// the file can be opened at once. The cell kills itself at every step in its own tests.
#[tokio::test]
async fn copied_while_open_the_database_has_all_that_was_committed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(options(directory.path())).await.unwrap();
    let last = store.append_event("a.b", "c", "d", &serde_json::json!({})).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir_all(copy.path().join("data/cell")).unwrap();
    for file in ["bailiwick.db", "bailiwick.db-wal", "key"] {
        let path = Path::new("data/cell").join(file);
        fs::copy(directory.path().join(&path), copy.path().join(&path)).unwrap();
    }
    let second = Store::open(options(copy.path())).await.unwrap();
    assert_eq!(second.last_event().await.unwrap(), last);
}
