//! The commands of a machine's life as people see them, on the quickstart's rack: what each prints, word for word.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Stdio;

use serde_json::Value;
use support::{Desk, Run, interrupt};
use tokio::process::Child;

/// A quickstart that serves, and what the commands need to reach it.
struct Rack {
    desk: Desk,
    child: Child,
    server: String,
}

impl Rack {
    async fn start() -> Self {
        let desk = Desk::new();
        let mut command = desk.command(&["quickstart", "--listen", "127.0.0.1:0"]);
        let (child, server, said) = support::serving(command.stdout(Stdio::null())).await;
        support::drain(said);
        Self { desk, child, server }
    }

    async fn run(&self, words: &str) -> Run {
        self.run_with("bailiwick-data/admin.token", words).await
    }

    async fn run_with(&self, token_file: &str, words: &str) -> Run {
        let token = self.desk.path(token_file).display().to_string();
        let mut all = vec!["--server", &self.server, "--token-file", &token];
        all.extend(words.split(' '));
        self.desk.run(&all).await
    }

    /// The commands and what they print, standard error after standard output, as a person would copy it from a terminal.
    async fn transcript(&self, commands: &[&str]) -> String {
        let mut text = String::new();
        for command in commands {
            let run = self.run(command).await;
            write!(text, "$ bailiwick {command}\n{}{}", settled(&run.stdout), settled(&run.stderr)).unwrap();
            if run.code != 0 {
                writeln!(text, "[{}]", run.code).unwrap();
            }
        }
        text
    }
}

/// Without what differs from run to run: digests, times, spans.
fn settled(text: &str) -> String {
    let mut lines = String::new();
    for line in text.lines() {
        let words: Vec<String> = line.split(' ').map(word).collect();
        lines += words.join(" ").trim_end();
        lines.push('\n');
    }
    lines
}

fn word(word: &str) -> String {
    let is_span = |text: &str| {
        let number = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
        number.len() < text.len() && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    if word.starts_with("sha256:") {
        "sha256:[DIGEST]".to_owned()
    } else if word.len() == 20 && word.ends_with('Z') && word.starts_with("20") {
        "[AT]".to_owned()
    } else if is_span(word.trim_end_matches([':', '.'])) {
        format!("[SPAN]{}", &word[word.trim_end_matches([':', '.']).len()..])
    } else {
        word.to_owned()
    }
}

#[tokio::test]
async fn a_machine_is_released_and_provisioned_again_and_each_command_says_what_it_does() {
    let mut rack = Rack::start().await;
    let seen = rack
        .transcript(&[
            "why r1-u06",
            "release r1-u06",
            "release r1-u06 --yes",
            "why r1-u06",
            "provision r1-u06 --to nowhere",
            "provision r1-u06 --to fra1-oficial",
            "provision r1-u66 --to fra1-official",
            "provision site=muc1,state=available --to fra1-official",
            "get base-cluster",
            "apply --plan sha256:0000000000000000000000000000000000000000000000000000000000000000",
            "provision r1-u06 --to fra1-official --yes",
            "provision r1-u06 --to fra1-official --yes",
            "drain r1-u06 --yes",
            "release r1-u06 --yes -o json",
            "quarantine r1-u06 --reason smoke --yes",
            "why r1-u06",
            "unquarantine r1-u06 --yes",
            "retire r1-u06 --yes",
            "why r1-u06",
            "retire r1-u05 --lost --reason burnt --yes",
            "why r1-u05",
        ])
        .await;
    let wanted = include_str!("cmd/lifecycle.golden");
    if std::env::var("TRYCMD").as_deref() == Ok("overwrite") {
        let golden = support::repository().join("crates/cli/tests/cmd/lifecycle.golden");
        std::fs::write(golden, &seen).unwrap();
    } else {
        assert!(seen == wanted, "TRYCMD=overwrite writes what is printed now:\n{seen}");
    }
    interrupt(&rack.child);
    assert_eq!(rack.child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn history_tells_the_whole_life_in_its_order() {
    let mut rack = Rack::start().await;
    let history = rack.run("history r1-u06 -o json").await.ends(0).json();
    let told: Vec<&str> = history["history"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["subject"] == "Machine/r1-u06")
        .map(|event| event["kind"].as_str().unwrap())
        .filter(|kind| {
            !matches!(*kind, "machine.acted" | "machine.waiting" | "machine.resumed" | "machine.facts")
        })
        .collect();
    let life = [
        "declaration.created",
        "machine.discovered",
        "machine.enrolled",
        "machine.inspected",
        "machine.compliant",
        "machine.erased",
        "machine.available",
        "machine.provisioning",
        "machine.token-made",
        "machine.deployed",
        "machine.certificate-approved",
        "machine.verifying",
        "machine.in-service",
    ];
    assert_eq!(told, life);
    interrupt(&rack.child);
    assert_eq!(rack.child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_base_cluster_is_rendered_as_objects_for_a_repository() {
    let mut rack = Rack::start().await;
    let yaml = rack.run("render basecluster fra1-official --workers 3").await.ends(0).stdout;
    let kinds = yaml.lines().filter_map(|line| line.strip_prefix("kind: "));
    let kinds: Vec<_> = kinds.map(|kind| kind.trim_matches('\'')).collect();
    for kind in ["Cluster", "Metal3Cluster", "MachineDeployment", "Metal3MachineTemplate"] {
        assert!(kinds.contains(&kind), "{kind} is missing in {kinds:?}");
    }
    let json = rack.run("render basecluster fra1-official --workers 3 -o json").await.ends(0).json();
    let items = json["items"].as_array().unwrap();
    assert_eq!(items.iter().map(|item| item["kind"].as_str().unwrap()).collect::<Vec<_>>(), kinds);
    let workers = items.iter().find(|item| item["kind"] == "MachineDeployment").unwrap();
    assert_eq!(workers["spec"]["replicas"], 3);
    rack.run("render basecluster nowhere").await.ends(4);
    interrupt(&rack.child);
    assert_eq!(rack.child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn history_names_who_ordered_what_the_cell_did() {
    let mut rack = Rack::start().await;
    let token = rack.run("token create alice --role operator").await.ends(0).stdout;
    rack.desk.write("alice.token", &token);
    rack.run_with("alice.token", "drain r1-u06 --yes").await.ends(0);
    let history = settled(&rack.run("history r1-u06").await.ends(0).stdout);
    let columns = |line: &str| {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    let lines: Vec<Vec<String>> = history.lines().map(columns).collect();
    let by = |kind: &str| lines.iter().rfind(|line| line[1] == kind).map(|line| line[2].as_str());
    assert_eq!(by("machine.enrolled"), Some("cell"), "{history}");
    assert_eq!(by("machine.in-service"), Some("cell for first-admin"), "{history}");
    assert_eq!(by("machine.draining"), Some("cell for alice"), "{history}");
    let ordered = lines.iter().rfind(|line| line[1] == "declaration.updated").unwrap();
    assert_eq!(ordered[2..], ["alice", "spec.drain: true (new)"], "{history}");
    interrupt(&rack.child);
    assert_eq!(rack.child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn each_disk_that_the_bmc_of_a_machine_lists_is_in_the_record_of_its_erasure() {
    let mut rack = Rack::start().await;
    let serials = |items: &Value| {
        let of =
            items.as_array().unwrap().iter().filter_map(|item| item["serial"].as_str().map(str::to_owned));
        of.collect::<BTreeSet<_>>()
    };
    for machine in ["r1-u01", "r1-u06"] {
        let detail = rack.run(&format!("get machine {machine} -o json")).await.ends(0).json();
        let listed = serials(&detail["inventory"]["drives"]);
        assert!(listed.len() > 1, "{detail}");
        let erasures = rack.run(&format!("history {machine} --erasures -o json")).await.ends(0).json();
        let items = erasures["erasures"][0]["items"].as_array().unwrap().iter();
        let disks = items.filter(|item| item["part"] == "disk").cloned().collect();
        assert_eq!(serials(&disks), listed, "{erasures:#}");
    }
    interrupt(&rack.child);
    assert_eq!(rack.child.wait().await.unwrap().code(), Some(0));
}
