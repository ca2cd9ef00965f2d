//! A cell killed at any moment: nothing is lost, nothing is doubled, no published file is half written.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::format_push_string,
    reason = "tests fail by panicking and read well"
)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use sim::{Action, Fault, Model, RunningSite, Site};
use support::{Desk, PLACES, Run};
use tokio::process::{Child, Command};

/// A site of two machines whose BMCs take a moment for each answer, and a desk with their declarations.
struct Stage {
    site: RunningSite,
    desk: Desk,
}

/// A running cell and how to reach it.
struct Running {
    child: Child,
    server: String,
}

impl Stage {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let desk = Desk::new();
        let site = Site::builder(desk.path("site"))
            .machines(Model::DgxH100, 1)
            .machines(Model::PowerEdgeXe, 1)
            .fault(Fault::on("**", Action::latency(Duration::from_millis(2))))
            .build();
        let stage = Self { site: site.start().await.unwrap(), desk };
        stage.write_declarations();
        stage
    }

    fn write_declarations(&self) {
        let mut text = format!(
            "{PLACES}---
apiVersion: bailiwick.dev/v1alpha1
kind: GpuClass
metadata: {{name: trial}}
spec: {{jurisdiction: eu, requires: [inventoried]}}
"
        );
        for machine in self.site.machines() {
            let (name, address, port, username) =
                (&machine.name, machine.address, machine.port, &machine.username);
            text += &format!(
                "---\napiVersion: bailiwick.dev/v1alpha1\nkind: Machine\nmetadata: {{name: {name}}}\n\
                 spec: {{site: lab, bmc: {{address: '{address}:{port}', username: {username}, passwordFile: bmc.password}}}}\n"
            );
            self.desk.write("inventory/bmc.password", &machine.password);
        }
        self.desk.write("inventory/all.yaml", &text);
    }

    /// A cell on the data of this run.
    async fn serve(&self, run: &str) -> Running {
        let words = ["serve", "--listen", "127.0.0.1:0", "--jurisdiction", "eu", "--log-level", "error"];
        let mut command = self.desk.command(&words);
        command.arg("--data-dir").arg(self.data(run)).arg("--publish-directory").arg(self.published(run));
        let (child, server, log) = support::serving(&mut command).await;
        support::drain(log);
        Running { child, server }
    }

    fn data(&self, run: &str) -> PathBuf {
        self.desk.path(&format!("{run}/data"))
    }

    fn published(&self, run: &str) -> PathBuf {
        self.desk.path(&format!("{run}/publish"))
    }

    fn ask(&self, run: &str, cell: &Running, words: &[&str]) -> Command {
        let mut command = self.desk.command(words);
        command
            .env("BAILIWICK_SERVER", &cell.server)
            .env("BAILIWICK_TOKEN_FILE", self.data(run).join("admin.token"));
        command
    }

    async fn json(&self, run: &str, cell: &Running, path: &str) -> Value {
        let token = std::fs::read_to_string(self.data(run).join("admin.token")).unwrap();
        let url = format!("{}{path}", cell.server);
        let response = reqwest::Client::new().get(url).bearer_auth(token.trim()).send().await.unwrap();
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    }

    async fn apply(&self, run: &str, cell: &Running) {
        let output = self.ask(run, cell, &["apply", "-f", "inventory", "--yes"]).output().await.unwrap();
        Run::of(output).ends(0);
    }

    /// Waits until both machines are enrolled and that is published.
    async fn until_done(&self, run: &str, cell: &Running) {
        loop {
            let machines = self.json(run, cell, "/api/v1/machines").await;
            let done = machines["items"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|machine| machine["state"] == "enrolled")
                .count();
            let last = self.json(run, cell, "/api/v1/events?limit=1000").await;
            let last =
                last["items"].as_array().unwrap().last().map_or(0, |event| event["id"].as_i64().unwrap());
            let publication = self.json(run, cell, "/api/v1/publications").await;
            if done == 2 && publication[0]["through"].as_i64() >= Some(last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn requests(&self) -> u64 {
        self.site
            .machines()
            .iter()
            .map(|machine| self.site.bmc(&machine.name).unwrap().counters().requests)
            .sum()
    }

    /// Kills the cell once this holds, or at the end if it never does. Says whether that was before the end.
    async fn kill_when(&self, run: &str, mut cell: Running, moment: impl Fn() -> bool) -> bool {
        let done = self.until_done(run, &cell);
        let reached = async {
            while !moment() {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        };
        let early = tokio::select! { () = done => false, () = reached => true };
        cell.child.start_kill().unwrap();
        cell.child.wait().await.unwrap();
        early
    }

    /// After a kill: every file is whole, and a cell started again brings everything to the same end.
    async fn recovers(&self, run: &str, expected: &BTreeMap<String, String>) {
        for (name, text) in files(&self.published(run)) {
            let whole: Value =
                serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{run}: {name}: {error}"));
            assert!(whole["kind"].is_string(), "{run}: {name}");
        }
        let cell = self.serve(run).await;
        self.completes(run, cell, expected).await;
    }

    /// The same with the cell that serves already.
    async fn completes(&self, run: &str, mut cell: Running, expected: &BTreeMap<String, String>) {
        if self.json(run, &cell, "/api/v1/machines").await["items"].as_array().unwrap().is_empty() {
            self.apply(run, &cell).await;
        }
        self.until_done(run, &cell).await;
        let events = self.json(run, &cell, "/api/v1/events?limit=1000").await;
        for machine in self.site.machines() {
            let subject = format!("Machine/{}", machine.name);
            let times = |kind: &str| {
                let events = events["items"].as_array().unwrap().iter();
                events.filter(|event| event["kind"] == kind && event["subject"] == subject.as_str()).count()
            };
            assert_eq!((times("machine.discovered"), times("machine.enrolled")), (1, 1), "{run}: {subject}");
        }
        assert_eq!(generations_aside(&files(&self.published(run))), *expected, "{run}");
        cell.child.start_kill().unwrap();
        cell.child.wait().await.unwrap();
    }

    /// What an undisturbed cell publishes, and how many requests its BMCs see.
    async fn undisturbed(&self) -> (BTreeMap<String, String>, u64) {
        let before = self.requests();
        let mut cell = self.serve("undisturbed").await;
        self.apply("undisturbed", &cell).await;
        self.until_done("undisturbed", &cell).await;
        cell.child.start_kill().unwrap();
        cell.child.wait().await.unwrap();
        (generations_aside(&files(&self.published("undisturbed"))), self.requests() - before)
    }
}

fn files(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for folder in ["declared", "observed"] {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        for entry in entries.map(Result::unwrap) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                found.insert(format!("{folder}/{name}"), std::fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    found
}

/// A pool's generation counts how often it was written, which depends on when the cell was killed.
fn generations_aside(files: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let line = |line: &&str| !line.trim_start().starts_with("generation:");
    files
        .iter()
        .map(|(name, text)| (name.clone(), text.lines().filter(line).collect::<Vec<_>>().join("\n")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_killed_after_any_request_of_an_enrolment_ends_where_an_undisturbed_one_does() {
    let stage = Stage::new().await;
    let (expected, requests) = stage.undisturbed().await;
    assert!(requests > 50 && expected.len() > 5);
    let mut early = 0;
    for nth in (0..=requests).step_by(8) {
        let run = format!("request-{nth}");
        let cell = stage.serve(&run).await;
        stage.apply(&run, &cell).await;
        let from = stage.requests();
        early += u64::from(stage.kill_when(&run, cell, || stage.requests() >= from + nth).await);
        stage.recovers(&run, &expected).await;
    }
    assert!(early > requests / 16, "only {early} kills came before the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_killed_after_any_published_file_leaves_whole_files_and_completes_them() {
    let stage = Stage::new().await;
    let (expected, _) = stage.undisturbed().await;
    for count in 1..=expected.len() {
        let run = format!("file-{count}");
        let cell = stage.serve(&run).await;
        stage.apply(&run, &cell).await;
        let published = stage.published(&run);
        stage.kill_when(&run, cell, || files(&published).len() >= count).await;
        stage.recovers(&run, &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_killed_while_a_plan_is_applied_has_applied_all_of_it_or_nothing() {
    let stage = Stage::new().await;
    let (expected, _) = stage.undisturbed().await;
    for wait in 0..8 {
        let run = format!("apply-{wait}");
        let mut cell = stage.serve(&run).await;
        let mut apply = stage.ask(&run, &cell, &["apply", "-f", "inventory", "--yes"]);
        let apply = apply.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(wait * 6)).await;
        cell.child.start_kill().unwrap();
        cell.child.wait().await.unwrap();
        drop(apply.wait_with_output().await);
        // Not killed once more: each time it might be at a login, and two that came to nothing are as many as a BMC is asked for.
        let cell = stage.serve(&run).await;
        let count = stage.json(&run, &cell, "/api/v1/declarations").await["items"].as_array().unwrap().len();
        assert!(count == 0 || count == 6, "{run}: {count} of 6 declarations");
        stage.completes(&run, cell, &expected).await;
    }
}
