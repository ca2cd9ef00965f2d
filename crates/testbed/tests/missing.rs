//! A counterpart that was never built fails whoever needs it, and the message says what to run.
#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::process::Command;

#[test]
fn a_part_that_is_not_built_is_an_error_that_names_the_command() {
    let empty_cache = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bailiwick-testbed"))
        .arg("sushy-tools")
        .env("BAILIWICK_CACHE", empty_cache.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("run hack/testbed/build sushy-tools"), "{said}");
}
