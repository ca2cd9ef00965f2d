//! No secret is in a log, an answer, an event, a plan, a published file, or in clear text in the database.

//!
//! A process of its own: what is logged in it is logged by this test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking and read well"
)]

#[allow(dead_code, reason = "shared with the other tests")]
#[path = "cell/line.rs"]
mod line;
#[allow(dead_code, reason = "shared with the other tests")]
#[path = "cell/support.rs"]
mod support;

use bailiwick_cell::AgentSettings;
use base64::Engine as _;
use line::Line;
use serde_json::json;
use sim::ironic::{NodeFault, Operation};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use support::publish_dir;

const TOKENS: &str = "/api/v1/namespaces/kube-system/secrets";

/// Everything that is logged, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read_all(directory: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, files);
        } else if path.extension().is_none_or(|extension| extension != "token") {
            files.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_secret_is_in_a_log_an_answer_an_event_a_plan_a_published_file_or_the_database() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    subscriber.with_writer(move || writer.clone()).init();

    let mut agents = AgentSettings::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    agents.url = Some("https://cell.example".parse().unwrap());
    let line = Line::with(1, |ironic| ironic, |settings| settings.agents = Some(agents)).await;
    let machine = &line.site.machines()[0];
    let (name, factory) = (machine.name.clone(), machine.password.clone());
    line.declare_with(&json!({ "rotate": true })).await;
    line.arrive("available").await;
    let own = line.site.bmc(&name).unwrap().password();
    assert_ne!(own, factory);
    let given = Arc::<Mutex<String>>::default();
    let seen = Arc::clone(&given);
    line.hosts_do(move |_, _, _, user_data| user_data.clone_into(&mut seen.lock().unwrap()));
    line.want(&name, json!({ "baseCluster": "pool" })).await;
    line.until(&name, |_| !line.cluster.list(TOKENS).is_empty()).await;
    let token =
        line.cluster.list(TOKENS).remove(0)["stringData"]["token-secret"].as_str().unwrap().to_owned();
    assert_eq!(token.len(), 16);
    line.until(&name, |_| !given.lock().unwrap().is_empty()).await;
    let agents = given.lock().unwrap().split_once("bwa_").unwrap().1[..43].to_owned();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&agents).unwrap();
    line.ironic.add_node_fault(NodeFault::fails(Operation::Undeploy, Some("it does not go")).times(1));
    line.release().await;

    let mut shown = String::new();
    for path in [
        "/api/v1/machines".to_owned(),
        format!("/api/v1/machines/{name}"),
        format!("/api/v1/machines/{name}/why"),
        format!("/api/v1/machines/{name}/facts"),
        format!("/api/v1/machines/{name}/history"),
        format!("/api/v1/machines/{name}/erasures"),
        "/api/v1/events?limit=1000".to_owned(),
        "/api/v1/declarations".to_owned(),
        "/api/v1/publications".to_owned(),
    ] {
        shown += &line.client.get(&path).await.to_string();
    }
    let (_, plan) = line.client.plan(vec![line::pool()], &[]).await;
    shown += &plan.to_string();
    line.client.wait_until_published().await;
    let mut files = Vec::new();
    read_all(&publish_dir(&line.dir), &mut files);
    read_all(&line.dir.path().join("data"), &mut files);
    assert!(files.len() > 3);
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(logged.contains(&name), "nothing was logged of the machine");
    files.push(("the log".to_owned(), logged.into_bytes()));
    files.push(("the answers".to_owned(), shown.into_bytes()));
    for (what, secret) in [
        ("the factory's password", &factory),
        ("our password", &own),
        ("the token", &token),
        ("the agent's token", &agents),
        ("the agent's token in hexadecimal digits", &hex::encode(bytes)),
    ] {
        let found =
            files.iter().find(|(_, bytes)| bytes.windows(secret.len()).any(|part| part == secret.as_bytes()));
        assert_eq!(found.map(|(path, _)| path), None, "{what}");
    }
}
