//! `bailiwick sim`, and what else needs no cell.

mod support;

use std::process::Stdio;

use support::{Desk, interrupt};
use tokio::io::{AsyncBufReadExt as _, BufReader};

const SITE: &str = "\
seed = \"s\"
state-directory = \"state\"

[[rack]]
name = \"a1\"

[[rack.machines]]
model = \"dgx-h100\"
count = 2
";

#[tokio::test]
async fn a_simulated_site_serves_until_interrupted_and_is_inspected_with_what_it_printed() {
    let desk = Desk::new();
    desk.write("site.toml", SITE);
    let mut child = desk
        .command(&["sim", "--site", "site.toml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut machine = Vec::new();
    let password_file = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if line.starts_with("a1-u02") {
            machine = line.split_whitespace().map(str::to_owned).collect();
        }
        if let Some(file) = line.strip_prefix("Password file: ") {
            break file.to_owned();
        }
    };
    let [_, url, _, serial, user, pin] = &machine[..] else { panic!("{machine:?}") };
    let words = ["inspect", url, "--username", user, "--password-file", &password_file, "--pin", pin];
    assert_eq!(desk.run(&words).await.ends(0).json()["identity"]["serial"], **serial);
    interrupt(&child);
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_site_file_with_a_mistake_is_refused() {
    let desk = Desk::new();
    desk.write("site.toml", &SITE.replace("count", "cuont"));
    desk.run(&["sim", "--site", "site.toml"]).await.refuses(3, "sim.site-syntax");
}

#[tokio::test]
async fn every_shell_gets_its_completions() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = desk.run(&["completions", shell]).await.ends(0).stdout;
        assert!(script.contains("quickstart") && script.contains("token-file"), "{shell}");
    }
}
