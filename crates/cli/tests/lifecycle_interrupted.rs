//! Following machines, interrupted: the cell goes on, and the command given again takes up following.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking and read well"
)]

mod support;

use std::process::Stdio;

use sim::ironic::{Verb, VerbCount};
use sim::{Action, Fault};
use support::stage::Stage;
use support::{Run, interrupt};
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[tokio::test(flavor = "multi_thread")]
async fn provisioning_that_is_interrupted_goes_on_in_the_cell_and_is_followed_again() {
    let stage = Stage::new(1).await;
    let cell = stage.serve(&[]).await;
    stage.apply(&cell, &stage.everything_in_service()).await;
    stage.until_all(&cell, |machine| machine["state"] == "in-service").await;
    stage.apply(&cell, &stage.back_to_the_shelf()).await;
    stage.until_all(&cell, |machine| machine["state"] == "available").await;
    let machine = stage.names()[0].to_owned();
    let provision = || {
        let token = stage.token_file().display().to_string();
        let words = [
            "--server",
            &cell.server,
            "--token-file",
            &token,
            "provision",
            &machine,
            "--to",
            "pool",
            "--yes",
        ];
        stage.desk.command(&words)
    };

    // No machine gets any further, so the command follows for as long as it is let.
    stage.ironic.faults().add(Fault::on("/v1/nodes/**", Action::status(503, "")));
    let mut following = provision().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(following.stderr.take().unwrap()).lines();
    let waits = loop {
        let line = said.next_line().await.unwrap().expect("it follows until it is interrupted");
        if line.contains("waits") {
            break line;
        }
    };
    assert!(waits.contains(&machine) && waits.contains("[ironic.busy]"), "{waits}");
    interrupt(&following);
    let output = following.wait_with_output().await.unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(told.contains("Plan: 1 to create") && !told.contains("machines are"), "{told}");

    stage.ironic.faults().clear();
    let again = Run::of(provision().output().await.unwrap()).ends(0);
    assert_eq!(again.stdout.lines().last(), Some("1 of 1 machines are in-service."), "{again:?}");
    assert_eq!(stage.ironic.verbs_of_all(Verb::Active), VerbCount { accepted: 2, refused: 0 });
    cell.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_each_machine_has_a_bar_that_goes_when_all_have_arrived() {
    let stage = Stage::new(2).await;
    let cell = stage.serve(&[]).await;
    let mut declared = stage.everything_in_service();
    declared["apply"].as_array_mut().unwrap().retain(|document| document["kind"] != "Assignment");
    stage.apply(&cell, &declared).await;
    stage.until_all(&cell, |machine| machine["state"] == "available").await;
    let line = format!(
        "stty cols 100 rows 30; exec {} --server {} --token-file {} provision '*' --to pool --yes",
        env!("CARGO_BIN_EXE_bailiwick"),
        cell.server,
        stage.token_file().display()
    );
    // util-linux's script(1) runs it on a terminal of its own.
    let mut terminal = tokio::process::Command::new("script");
    terminal.args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"]).env("TERM", "xterm");
    let shown = Run::of(terminal.stdin(Stdio::null()).output().await.unwrap()).ends(0).stdout;
    for machine in stage.names() {
        let bar = shown.split(['\r', '\n']).find(|line| line.contains(machine) && line.contains('/'));
        assert!(bar.is_some(), "{machine} has no bar in {shown:?}");
    }
    assert!(shown.trim_end().ends_with("2 of 2 machines are in-service."), "{shown:?}");
    cell.kill().await;
}
