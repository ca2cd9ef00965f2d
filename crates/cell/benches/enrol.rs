//! How many machines a cell enrols in a second, cell and simulator on the same cores.
//!
//! `cargo bench -p bailiwick-cell --bench enrol`. The simulator is a process of its own, so that the memory reported is the cell's.
//! Reported: machines a second for 100 and for 1,000 BMCs, the ratio of the two times (bars: at least 20 a second, ratio at most
//! 11), requests, and peak resident memory.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic)] // a benchmark prints and may fail by panicking

use bailiwick_cell::{Cell, RunningCell, Settings, SinkSettings};
use serde_json::{Value, json};
use sim::{Model, Site};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SIMULATOR: &str = "--simulator";

fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(at) = arguments.iter().position(|argument| argument == SIMULATOR) {
        let (directory, count) = (&arguments[at + 1], arguments[at + 2].parse().unwrap());
        return runtime.block_on(simulate(directory, count));
    }
    let small = runtime.block_on(enrol(100));
    let large = runtime.block_on(enrol(1000));
    println!(
        "time for 1,000 / time for 100: {:.1} (bar: at most 11)",
        large.as_secs_f64() / small.as_secs_f64()
    );
}

/// Serves until standard input closes: the parent is gone then.
async fn simulate(directory: &str, count: usize) {
    // A third of each model, the remainder without GPUs.
    let (dgx, dell) = (count / 10, count * 3 / 10);
    let site = Site::builder(directory)
        .machines(Model::DgxH100, dgx)
        .machines(Model::PowerEdgeXe, dell)
        .machines(Model::CpuNode, count - dgx - dell)
        .build();
    let site = site.start().await.unwrap();
    let machines: Vec<Value> = site
        .machines()
        .iter()
        .map(|machine| {
            let address = format!("{}:{}", machine.address, machine.port);
            json!({ "name": machine.name, "address": address, "username": machine.username, "password": machine.password })
        })
        .collect();
    println!("{}", Value::from(machines));
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await.unwrap().unwrap();
    let requests: u64 =
        site.machines().iter().map(|machine| site.bmc(&machine.name).unwrap().counters().requests).sum();
    println!("{requests}");
    site.shutdown().await;
}

async fn enrol(count: usize) -> Duration {
    let directory = TempDir::new().unwrap();
    let mut simulator = Command::new(std::env::current_exe().unwrap())
        .args([SIMULATOR, directory.path().join("site").to_str().unwrap(), &count.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(simulator.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let machines: Vec<Value> = serde_json::from_str(&line).unwrap();

    let cell = Cell::start(Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        jurisdiction: Some("eu".parse().unwrap()),
        sinks: vec![SinkSettings::Directory(directory.path().join("publish"))],
        ..Settings::new(directory.path().join("data"))
    });
    let cell = cell.await.unwrap();
    let api = Api::of(&cell);
    let began = Instant::now();
    api.declare(&machines).await;
    api.wait_for(count).await;
    let took = began.elapsed();
    api.wait_until_published().await;
    let published = began.elapsed();
    let requests = stop(simulator, &mut output);
    cell.shutdown().await;
    println!(
        "{count} machines: {:.1} s, {:.1} a second (bar: 20); published after {:.1} s; {requests} requests, {} a machine; \
         cell's peak resident memory {}",
        took.as_secs_f64(),
        f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64(),
        published.as_secs_f64(),
        requests / u64::try_from(count).unwrap(),
        peak_memory(),
    );
    took
}

fn stop(mut simulator: Child, output: &mut impl std::io::BufRead) -> u64 {
    drop(simulator.stdin.take());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    simulator.wait().unwrap();
    line.trim().parse().unwrap()
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown").trim().to_owned()
}

struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    fn of(cell: &RunningCell) -> Self {
        let token = std::fs::read_to_string(cell.settings().admin_token_file()).unwrap().trim().to_owned();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, base: format!("http://{}", cell.address()), token }
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
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

    async fn declare(&self, machines: &[Value]) {
        let document = |kind: &str, name: &str, spec: Value| json!({ "apiVersion": "bailiwick.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec });
        let mut apply = vec![
            document("Jurisdiction", "eu", json!({})),
            document("LegalEntity", "acme", json!({ "legalName": "Acme", "country": "DE" })),
            document(
                "Site",
                "fra1",
                json!({ "jurisdiction": "eu", "operator": "acme", "country": "DE", "bmcNetworks": ["127.0.0.0/8"] }),
            ),
            document("GpuClass", "trial", json!({ "jurisdiction": "eu", "requires": ["inventoried"] })),
        ];
        let mut passwords = serde_json::Map::new();
        for machine in machines {
            let name = machine["name"].as_str().unwrap();
            let bmc = json!({ "address": machine["address"], "username": machine["username"], "passwordFile": "pw" });
            apply.push(document("Machine", name, json!({ "site": "fra1", "bmc": bmc })));
            passwords.insert(name.to_owned(), machine["password"].clone());
        }
        let plan =
            self.call("POST", "/api/v1/plans", Some(json!({ "apply": apply, "passwords": passwords }))).await;
        self.call("POST", &format!("/api/v1/plans/{}/apply", plan["digest"].as_str().unwrap()), None).await;
    }

    async fn wait_for(&self, count: usize) {
        let request = self.http.get(format!("{}/api/v1/watch", self.base)).bearer_auth(&self.token);
        let mut stream = request.send().await.unwrap();
        let (mut enrolled, mut rest) = (0, Vec::new());
        while enrolled < count {
            rest.extend_from_slice(&stream.chunk().await.unwrap().unwrap());
            let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines = String::from_utf8(rest.drain(..whole).collect()).unwrap();
            for line in lines.lines() {
                enrolled += usize::from(line == "event: machine.enrolled");
                assert!(line != "event: machine.waiting", "a machine waits: {lines}");
            }
        }
    }

    async fn wait_until_published(&self) {
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
