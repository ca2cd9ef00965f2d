//! A site, a cell, and a client of it.

use bailiwick_cell::{Cell, RunningCell, Settings, SinkSettings};
use serde_json::{Value, json};
use sim::{RunningSite, Site};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// Everything that a test of a cell needs. Goes with the test.
pub(crate) struct Rig {
    pub dir: TempDir,
    pub site: RunningSite,
    pub cell: RunningCell,
    pub client: Client,
}

pub(crate) fn crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub(crate) fn settings(dir: &TempDir) -> Settings {
    Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        jurisdiction: Some("eu".parse().unwrap()),
        sinks: vec![SinkSettings::Directory(publish_dir(dir))],
        ..Settings::new(dir.path().join("data"))
    }
}

pub(crate) fn publish_dir(dir: &TempDir) -> PathBuf {
    dir.path().join("publish")
}

impl Rig {
    /// A cell and this site; nothing is declared yet.
    pub(crate) async fn start(site: impl FnOnce(PathBuf) -> Site) -> Self {
        crypto();
        let dir = TempDir::new().unwrap();
        let site = site(dir.path().join("site")).start().await.unwrap();
        let cell = Cell::start(settings(&dir)).await.unwrap();
        let client = Client::of(&cell);
        Self { dir, site, cell, client }
    }

    /// Declarations of everything in the site.
    pub(crate) fn declarations(&self) -> Vec<Value> {
        let mut all = world();
        all.extend(self.site.machines().iter().map(|machine| {
            document("Machine", &machine.name, json!({
                "site": "fra1",
                "rack": { "name": machine.rack },
                "bmc": { "address": format!("{}:{}", machine.address, machine.port), "username": machine.username, "passwordFile": "pw" },
            }))
        }));
        all
    }

    /// Declares them and waits until every machine is enrolled.
    pub(crate) async fn enrol_all(&self) {
        self.client.apply(self.declarations(), &self.passwords()).await;
        for machine in self.site.machines() {
            self.client.wait_for_event("machine.enrolled", &machine.name).await;
        }
    }

    pub(crate) fn passwords(&self) -> Vec<(String, String)> {
        self.site.machines().iter().map(|machine| (machine.name.clone(), machine.password.clone())).collect()
    }

    /// Stops the cell and starts it again on the same data.
    pub(crate) async fn restart(self) -> Self {
        let Self { dir, site, cell, .. } = self;
        cell.shutdown().await;
        let cell = Cell::start(settings(&dir)).await.unwrap();
        let client = Client::of(&cell);
        Self { dir, site, cell, client }
    }
}

#[allow(clippy::needless_pass_by_value)] // made where it is called
pub(crate) fn document(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "bailiwick.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// Jurisdictions, an operator, a site on loopback, and two classes.
pub(crate) fn world() -> Vec<Value> {
    vec![
        document("Jurisdiction", "eu", json!({})),
        document("Jurisdiction", "de", json!({ "within": ["eu"] })),
        document("LegalEntity", "acme", json!({ "legalName": "Acme GmbH", "country": "DE" })),
        document(
            "Site",
            "fra1",
            json!({ "jurisdiction": "de", "operator": "acme", "country": "DE", "bmcNetworks": ["127.0.0.0/8"] }),
        ),
        document("GpuClass", "proven", json!({ "jurisdiction": "eu" })),
        document("GpuClass", "trial", json!({ "jurisdiction": "eu", "requires": ["inventoried"] })),
    ]
}

/// A client of the API with the first token.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    pub token: String,
}

impl Client {
    pub(crate) fn of(cell: &RunningCell) -> Self {
        crypto();
        let token = std::fs::read_to_string(cell.settings().admin_token_file()).unwrap().trim().to_owned();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, base: format!("http://{}", cell.address()), token }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method.parse().unwrap(), format!("{}{path}", self.base))
            .timeout(Duration::from_mins(1))
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.request(method, path).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(crate) async fn plan(&self, apply: Vec<Value>, passwords: &[(String, String)]) -> (u16, Value) {
        let passwords: serde_json::Map<_, _> =
            passwords.iter().map(|(name, word)| (name.clone(), word.clone().into())).collect();
        self.call("POST", "/api/v1/plans", Some(json!({ "apply": apply, "passwords": passwords }))).await
    }

    /// Plans and applies; gives the plan.
    pub(crate) async fn apply(&self, documents: Vec<Value>, passwords: &[(String, String)]) -> Value {
        let (status, plan) = self.plan(documents, passwords).await;
        assert_eq!(status, 200, "{plan}");
        if !plan["changes"].as_array().unwrap().is_empty() {
            let digest = plan["digest"].as_str().unwrap();
            let (status, applied) = self.call("POST", &format!("/api/v1/plans/{digest}/apply"), None).await;
            assert_eq!(status, 200, "{applied}");
        }
        plan
    }

    /// Waits, by the watch, for an event about a machine that is or was written; gives it.
    pub(crate) async fn wait_for_event(&self, kind: &str, machine: &str) -> Value {
        let subject = format!("Machine/{machine}");
        self.wait_for(|event| event["kind"] == kind && event["subject"] == subject).await
    }

    /// Waits for an event, from the first on.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut response =
            self.request("GET", "/api/v1/watch").bearer_auth(&self.token).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        let mut text = String::new();
        while let Some(chunk) = response.chunk().await.expect("no such event within the time a test has") {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some(end) = text.find("\n\n") {
                let message: String = text.drain(..end + 2).collect();
                let data = message.lines().find_map(|line| line.strip_prefix("data:"));
                let event: Value =
                    data.and_then(|data| serde_json::from_str(data.trim()).ok()).unwrap_or_default();
                if wanted(&event) {
                    return event;
                }
            }
        }
        panic!("the watch ended without the event");
    }

    /// Waits until everything that happened so far is published.
    pub(crate) async fn wait_until_published(&self) -> Value {
        let events = self.get("/api/v1/events?limit=1000").await;
        let last = events["items"].as_array().unwrap().last().unwrap()["id"].as_i64().unwrap();
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
        loop {
            let publications = self.get("/api/v1/publications").await;
            if publications[0]["through"].as_i64().unwrap_or(0) >= last {
                return publications;
            }
            assert!(tokio::time::Instant::now() < deadline, "nothing is published: {publications:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
