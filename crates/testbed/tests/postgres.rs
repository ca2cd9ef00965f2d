//! PostgreSQL starts, answers sqlx, and is gone after drop, or after the test process was killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test, in helpers too"
)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bailiwick_testbed::Postgres;
use sqlx::{Connection, PgConnection};

/// The directory of a server, out of its URL.
fn directory_of(url: &str) -> PathBuf {
    url.trim().split_once("?host=").expect("the URL names a socket directory").1.replace("%2F", "/").into()
}

#[tokio::test]
async fn a_created_database_answers_sqlx() {
    let postgres = Postgres::shared().await.unwrap();
    postgres.create_database("answers").await.unwrap();
    let mut connection = PgConnection::connect(&postgres.url("answers")).await.unwrap();
    let name: String =
        sqlx::query_scalar("SELECT current_database()").fetch_one(&mut connection).await.unwrap();
    assert_eq!(name, "answers");
}

#[tokio::test]
async fn a_durable_server_waits_for_the_disk() {
    let postgres = Postgres::options().durable(true).start().await.unwrap();
    let mut connection = PgConnection::connect(&postgres.url("postgres")).await.unwrap();
    let fsync: String = sqlx::query_scalar("SHOW fsync").fetch_one(&mut connection).await.unwrap();
    assert_eq!(fsync, "on");
}

#[tokio::test]
async fn the_server_listens_on_no_network_address() {
    let postgres = Postgres::shared().await.unwrap();
    let mut connection = PgConnection::connect(&postgres.url("postgres")).await.unwrap();
    let addresses: String =
        sqlx::query_scalar("SHOW listen_addresses").fetch_one(&mut connection).await.unwrap();
    assert_eq!(addresses, "");
}

#[tokio::test]
async fn a_second_database_of_the_same_name_is_an_error_that_says_so() {
    let postgres = Postgres::shared().await.unwrap();
    postgres.create_database("twice").await.unwrap();
    let error = postgres.create_database("twice").await.unwrap_err();
    assert_eq!(error.code(), "testbed.command");
    assert!(error.to_string().contains("already exists"), "{error}");
}

#[tokio::test]
async fn a_dropped_server_leaves_no_process_and_no_file() {
    let postgres = Postgres::start().await.unwrap();
    let directory = directory_of(&postgres.url("postgres"));
    assert!(!common::processes_in(&directory).is_empty());
    drop(postgres);
    assert!(common::nothing_is_left_in(&directory));
    assert!(!directory.exists());
}

/// A test that is killed drops nothing; the kernel must end what it started.
#[test]
fn a_killed_test_process_leaves_no_process() {
    let mut holder = Command::new(env!("CARGO_BIN_EXE_bailiwick-testbed"))
        .arg("postgresql")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let directory = directory_of(&line);
    assert!(!common::processes_in(&directory).is_empty(), "{line}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    let left = !common::nothing_is_left_in(&directory);
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(!left);
}
