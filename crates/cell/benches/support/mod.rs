//! What the benchmarks of a cell share: a client of it, and a simulator that is a process of its own.
#![allow(dead_code)] // each benchmark uses a part

use bailiwick_cell::RunningCell;
use serde_json::{Value, json};
use sim::RunningSite;
use std::io::Read as _;
use std::process::Child;
use std::time::{Duration, Instant};

#[allow(clippy::needless_pass_by_value)] // made where it is called
pub(crate) fn document(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "bailiwick.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// A site on loopback and what it needs.
pub(crate) fn world() -> Vec<Value> {
    vec![
        document("Jurisdiction", "eu", json!({})),
        document("LegalEntity", "acme", json!({ "legalName": "Acme", "country": "DE" })),
        document(
            "Site",
            "fra1",
            json!({ "jurisdiction": "eu", "operator": "acme", "country": "DE", "bmcNetworks": ["127.0.0.0/8"] }),
        ),
    ]
}

/// How the machines of a site are reached.
pub(crate) fn machines_of(site: &RunningSite) -> Vec<Value> {
    let machines = site.machines().iter().map(|machine| {
        let address = format!("{}:{}", machine.address, machine.port);
        json!({ "name": machine.name, "address": address, "username": machine.username, "password": machine.password })
    });
    machines.collect()
}

/// Returns when standard input closes.
pub(crate) async fn until_parent_is_gone() {
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await.unwrap().unwrap();
}

/// Ends the simulator; gives the number that it prints last.
pub(crate) fn stop(mut simulator: Child, output: &mut impl std::io::BufRead) -> u64 {
    drop(simulator.stdin.take());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    simulator.wait().unwrap();
    line.trim().parse().unwrap()
}

/// Peak resident memory of this process.
pub(crate) fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown").trim().to_owned()
}

/// Milliseconds of CPU that a process has used (`utime` and `stime` of proc(5), in hundredths of a second on Linux).
pub(crate) fn cpu(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<f64>().unwrap() * 10.0).sum()
}

/// A client of the cell.
pub(crate) struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    pub(crate) fn of(cell: &RunningCell) -> Self {
        let token = std::fs::read_to_string(cell.settings().admin_token_file()).unwrap().trim().to_owned();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, base: format!("http://{}", cell.address()), token }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let mut request = self
            .http
            .request(method.parse().unwrap(), format!("{}{path}", self.base))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert!(status.is_success(), "{path}: {body}");
        body
    }

    /// Plans and applies.
    pub(crate) async fn apply(&self, apply: Vec<Value>, passwords: serde_json::Map<String, Value>) {
        let plan =
            self.call("POST", "/api/v1/plans", Some(json!({ "apply": apply, "passwords": passwords }))).await;
        self.call("POST", &format!("/api/v1/plans/{}/apply", plan["digest"].as_str().unwrap()), None).await;
    }

    /// Declares a world and its machines.
    pub(crate) async fn declare(&self, mut apply: Vec<Value>, machines: &[Value]) {
        let mut passwords = serde_json::Map::new();
        for machine in machines {
            let name = machine["name"].as_str().unwrap();
            let bmc = json!({ "address": machine["address"], "username": machine["username"], "passwordFile": "pw" });
            apply.push(document("Machine", name, json!({ "site": "fra1", "bmc": bmc })));
            passwords.insert(name.to_owned(), machine["password"].clone());
        }
        self.apply(apply, passwords).await;
    }

    /// Number of the newest event.
    pub(crate) async fn last_event(&self) -> i64 {
        let mut last = 0;
        loop {
            let page = self.call("GET", &format!("/api/v1/events?limit=1000&after={last}"), None).await;
            match page["items"].as_array().unwrap().last() {
                Some(event) => last = event["id"].as_i64().unwrap(),
                None => return last,
            }
        }
    }

    /// Waits for so many events of a kind after an event. Gives how many machines waited for something meanwhile.
    pub(crate) async fn wait_for(&self, kind: &str, count: usize, after: i64) -> usize {
        let request =
            self.http.get(format!("{}/api/v1/watch?after={after}", self.base)).bearer_auth(&self.token);
        let mut stream = request.send().await.unwrap();
        let (mut seen, mut waiting, mut rest) = (0, 0, Vec::new());
        let wanted = format!("event: {kind}");
        while seen < count {
            rest.extend_from_slice(&stream.chunk().await.unwrap().unwrap());
            let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines = String::from_utf8(rest.drain(..whole).collect()).unwrap();
            for line in lines.lines() {
                seen += usize::from(line == wanted);
                waiting += usize::from(line == "event: machine.waiting");
            }
        }
        waiting
    }

    pub(crate) async fn wait_until_published(&self) {
        let page = self.call("GET", "/api/v1/events?after=latest", None).await;
        assert!(page["items"].as_array().unwrap().is_empty());
        let last = Instant::now();
        loop {
            let publication = &self.call("GET", "/api/v1/publications", None).await[0];
            if publication["written"] == 0 && publication["problem"].is_null()
                || last.elapsed() > Duration::from_secs(30)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
