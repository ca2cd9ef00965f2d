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

use bailiwick_cell::{AgentSettings, Metal3Settings, ServiceSettings, Settings};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use line::Line;
use serde_json::{Value, json};
use sim::ironic::{NodeFacts, NodeFault, Operation};
use sim::{Action, Fault};
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

/// What must not be found anywhere, and what it is.
type Planted = Vec<(&'static str, String)>;

/// What the cell has told, logged aside: by its API, in what it publishes, in its database.
async fn told(line: &Line, name: &str) -> Vec<(String, Vec<u8>)> {
    let mut shown = String::new();
    for path in [
        "/api/v1/machines".to_owned(),
        format!("/api/v1/machines/{name}"),
        format!("/api/v1/machines/{name}/why"),
        format!("/api/v1/machines/{name}/facts"),
        format!("/api/v1/machines/{name}/history"),
        "/api/v1/events?limit=1000".to_owned(),
        "/api/v1/declarations".to_owned(),
        "/api/v1/publications".to_owned(),
    ] {
        shown += &line.client.get(&path).await.to_string();
    }
    let (_, erasures) = line.client.call("GET", &format!("/api/v1/machines/{name}/erasures"), None).await;
    let mut other = line::pool();
    other["spec"]["kubernetesVersion"] = "1.36.4".into();
    let (made, plan) = line.client.plan(vec![other], &[]).await;
    let (refused, problem) = line.client.plan(vec![json!({ "kind": "Machine" })], &[]).await;
    assert!(made == 200 && refused >= 400, "{plan} {problem}");
    line.client.wait_until_published().await;
    let mut files =
        vec![("the answers".to_owned(), format!("{shown}{erasures}{plan}{problem}").into_bytes())];
    read_all(&publish_dir(&line.dir), &mut files);
    read_all(&line.dir.path().join("data"), &mut files);
    assert!(files.len() > 3);
    files
}

/// The cell's way into the base cluster, with a key and a token of its own. The simulated one asks for neither.
fn plant_kubeconfig(line: &Line) -> Planted {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["cell".to_owned()]).unwrap().self_signed(&key).unwrap();
    let encoded = STANDARD.encode(key.serialize_pem());
    let token = "kubeconfig-token-7h1s-1s-pl4nt3d";
    let mut kubeconfig: Value = serde_json::from_str(&line.cluster.kubeconfig()).unwrap();
    kubeconfig["users"][0]["user"] = json!({
        "token": token, "client-key-data": encoded, "client-certificate-data": STANDARD.encode(certificate.pem()),
    });
    std::fs::write(line.dir.path().join("secrets/pool/kubeconfig"), kubeconfig.to_string()).unwrap();
    let inner = key.serialize_pem().lines().nth(1).unwrap().to_owned();
    vec![
        ("the kubeconfig's token", token.to_owned()),
        ("the kubeconfig's key", inner),
        ("the kubeconfig's key, encoded", encoded[60..100].to_owned()),
    ]
}

/// Through an Ironic that asks for a password, and repeats what it was sent in what it says.
async fn by_ironic() -> (Planted, Vec<(String, Vec<u8>)>) {
    let basic = "http-basic-7h1s-1s-pl4nt3d";
    let passwords = tempfile::TempDir::new().unwrap();
    let file = passwords.path().join("ironic");
    std::fs::write(&file, basic).unwrap();
    let sent = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&sent);
    let check = move |node: &NodeFacts<'_>| {
        node.driver_info["redfish_password"].as_str().unwrap().clone_into(&mut seen.lock().unwrap());
        Ok(())
    };
    let mut agents = AgentSettings::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    agents.url = Some("https://cell.example".parse().unwrap());
    let line = Line::with(
        1,
        |ironic| ironic.http_basic("cell", basic).credential_check(check),
        |settings| {
            let ServiceSettings::Ironic(ironic) = &mut settings.provisioners[0].service else { panic!() };
            (ironic.username, ironic.password_file) = (Some("cell".to_owned()), Some(file));
            settings.agents = Some(agents);
        },
    )
    .await;
    let mut planted = plant_kubeconfig(&line);
    let machine = &line.site.machines()[0];
    let name = machine.name.clone();
    planted.push(("the factory's password", machine.password.clone()));
    planted.push(("Ironic's own password", basic.to_owned()));
    planted.push(("Ironic's own password, as it is sent", STANDARD.encode(format!("cell:{basic}"))));
    line.declare_with(&json!({ "rotate": true })).await;
    line.arrive("available").await;
    let own = line.site.bmc(&name).unwrap().password();
    let provisioners = sent.lock().unwrap().clone();
    assert!(own != machine.password && provisioners != own && provisioners.len() > 8, "{own} {provisioners}");
    assert!(line.site.bmc(&name).unwrap().opens("bw-provisioner", &provisioners));
    planted.push(("our password", own));

    let given = Arc::<Mutex<String>>::default();
    let seen = Arc::clone(&given);
    line.hosts_do(move |_, _, _, user_data| user_data.clone_into(&mut seen.lock().unwrap()));
    line.want(&name, json!({ "baseCluster": "pool" })).await;
    line.until(&name, |_| !line.cluster.list(TOKENS).is_empty()).await;
    let token =
        line.cluster.list(TOKENS).remove(0)["stringData"]["token-secret"].as_str().unwrap().to_owned();
    assert_eq!(token.len(), 16);
    planted.push(("the token", token));
    line.until(&name, |_| !given.lock().unwrap().is_empty()).await;
    let agents = given.lock().unwrap().split_once("bwa_").unwrap().1[..43].to_owned();
    let bytes = URL_SAFE_NO_PAD.decode(&agents).unwrap();
    planted.push(("the agent's token in hexadecimal digits", hex::encode(bytes)));
    planted.push(("the agent's token", agents));
    line.ironic.add_node_fault(NodeFault::fails(Operation::Undeploy, Some("it does not go")).times(1));
    line.release().await;

    // A server may repeat whatever it was sent.
    let echo = json!({ "error_message": { "faultstring": format!("who is cell:{basic}?") } }).to_string();
    line.ironic.faults().add(Fault::on("**", Action::status(500, &echo)));
    line.want(&name, json!({ "baseCluster": "pool" })).await;
    line.waits_for(&name, "ironic.server-error").await;
    planted.push(("the provisioning service's password", provisioners));
    (planted, told(&line, &name).await)
}

/// Through Secrets and BareMetalHosts that no operator looks at.
async fn by_metal3() -> (Planted, Vec<(String, Vec<u8>)>) {
    let cluster = sim::Cluster::start().await.unwrap();
    let directory = tempfile::TempDir::new().unwrap();
    let kubeconfig = directory.path().join("metal3");
    std::fs::write(&kubeconfig, cluster.kubeconfig()).unwrap();
    let metal3 = Metal3Settings { kubeconfig, namespace: "metal3".into(), ..Metal3Settings::default() };
    let service =
        |settings: &mut Settings| settings.provisioners[0].service = ServiceSettings::Metal3(metal3);
    let line = Line::with(1, |ironic| ironic, service).await;
    line.declare_with(&json!({ "rotate": true })).await;
    let name = line.names().remove(0);
    let secret = format!("/api/v1/namespaces/metal3/secrets/{name}-bmc");
    line.until(&name, |_| cluster.object(&secret).is_some()).await;
    cluster.set_forbidden(true);
    line.waits_for(&name, "metal3.forbidden").await;
    let encoded = cluster.object(&secret).unwrap()["data"]["password"].as_str().unwrap().to_owned();
    let password = String::from_utf8(STANDARD.decode(&encoded).unwrap()).unwrap();
    assert!(line.site.bmc(&name).unwrap().opens("bw-provisioner", &password));
    let planted = vec![("Metal3's password", password), ("Metal3's password, encoded", encoded)];
    (planted, told(&line, &name).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_secret_is_in_a_log_an_answer_an_event_a_plan_a_published_file_or_the_database() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    subscriber.with_writer(move || writer.clone()).init();

    let (mut planted, mut files) = by_ironic().await;
    let (more, of_metal3) = by_metal3().await;
    planted.extend(more);
    files.extend(of_metal3);
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(logged.contains("ironic.server-error"), "nothing was logged of what went wrong");
    files.push(("the log".to_owned(), logged.into_bytes()));
    let texts: Vec<_> = files.iter().map(|(path, bytes)| (path, String::from_utf8_lossy(bytes))).collect();
    for (what, secret) in planted {
        let found = texts.iter().find(|(_, text)| text.contains(&secret)).map(|(path, _)| path);
        assert_eq!(found, None, "{what}");
    }
}
