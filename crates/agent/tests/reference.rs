//! `docs/reference/agent-cli.md` is what the program says of itself, and shells can complete its commands.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;
use std::process::{Command, Output};

fn agent(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bailiwick-agent")).args(args).output().unwrap()
}

#[test]
fn the_reference_page_is_not_stale() {
    let folder = tempfile::tempdir().unwrap();
    assert!(agent(&["reference", "--dir", folder.path().to_str().unwrap()]).status.success());
    let now = std::fs::read_to_string(folder.path().join("agent-cli.md")).unwrap();
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/agent-cli.md");
    let published = std::fs::read_to_string(published).unwrap_or_default();
    let command = "cargo run -p bailiwick-agent -- reference --dir docs/reference";
    assert!(now == published, "agent-cli.md is stale: run `{command}`");
    for command in ["probe", "enrol", "run", "ready", "completions"] {
        assert!(now.contains(&format!("\n## bailiwick-agent {command}\n")), "{command} is not in it");
    }
}

#[test]
fn shells_get_a_script_that_knows_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = agent(&["completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && ["probe", "enrol", "run"].iter().all(|word| script.contains(word)),
            "{shell}"
        );
    }
}
