//! A test that is killed drops nothing; the kernel must end what it started, however that divides itself
//! into processes. PostgreSQL's own test is with its others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed expectation is a failed test, in helpers too"
)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Starts a part by hand, kills whoever started it, and tells whether all that it started is gone.
fn nothing_outlives_the_one_who_started(part: &str) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let mut holder = Command::new(env!("CARGO_BIN_EXE_bailiwick-testbed"))
        .arg(part)
        .env("TMPDIR", directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said: Vec<String> = BufReader::new(holder.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .take_while(|line| !line.starts_with("running"))
        .collect();
    assert!(!common::processes_in(directory.path()).is_empty(), "{said:?}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    common::nothing_is_left_in(directory.path())
}

#[test]
fn ironic_and_its_worker_and_its_file_server_end() {
    assert!(nothing_outlives_the_one_who_started("ironic"));
}

#[test]
fn a_node_and_its_control_plane_end() {
    assert!(nothing_outlives_the_one_who_started("node"));
}
