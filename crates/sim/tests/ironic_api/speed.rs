//! How many nodes go through the whole cycle in a second.

use std::time::Instant;

use bailiwick_sim::ironic::{IronicEndpoint, Verb};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// The requests of one machine's life, from nothing to nothing.
fn life(n: usize) -> Vec<(Method, String, Option<Value>, u16)> {
    let uuid = format!("00000000-0000-4000-8000-{n:012}");
    let mac = format!("02:00:00:{:02x}:{:02x}:{:02x}", n >> 16 & 0xff, n >> 8 & 0xff, n & 0xff);
    let node = format!("/v1/nodes/{uuid}");
    let (verb, poll) =
        (format!("{node}/states/provision"), format!("{node}?fields=provision_state,last_error"));
    let info = json!({"redfish_address": "https://127.0.0.1:1", "redfish_password": "x"});
    let instance = json!([
        {"op": "add", "path": "/instance_info", "value": {"boot_iso": "http://127.0.0.1:1/a.iso"}},
        {"op": "add", "path": "/instance_uuid", "value": uuid},
    ]);
    let drive = json!({"user_data": "#cloud-config", "meta_data": {}});
    let ask = |target: &str| (Method::PUT, verb.clone(), Some(json!({"target": target})), 202);
    let get = || (Method::GET, poll.clone(), None, 200);
    let made = json!({"uuid": uuid, "name": format!("m{n}"), "driver": "redfish", "deploy_interface": "ramdisk",
        "driver_info": info});
    vec![
        (Method::POST, "/v1/nodes".to_owned(), Some(made), 201),
        (Method::POST, "/v1/ports".to_owned(), Some(json!({"node_uuid": uuid, "address": mac})), 201),
        ask("manage"),
        get(),
        ask("inspect"),
        get(),
        (Method::GET, format!("{node}/inventory"), None, 200),
        ask("provide"),
        get(),
        (Method::PATCH, node.clone(), Some(instance), 200),
        (Method::PUT, verb.clone(), Some(json!({"target": "active", "configdrive": drive})), 202),
        get(),
        ask("deleted"),
        get(),
        ask("manage"),
        (Method::DELETE, node.clone(), None, 204),
    ]
}

/// What an optimised build must reach; a build for debugging, beside other tests, is given leave.
const WANTED: f64 = if cfg!(debug_assertions) { 50.0 } else { 500.0 };

/// The endpoint itself must keep up with 500 machines a second, whatever its clients do.
#[tokio::test]
async fn a_thousand_nodes_live_and_go_at_the_wanted_rate() {
    const NODES: usize = 1_000;
    let endpoint = IronicEndpoint::builder().start().unwrap();
    let lives: Vec<_> = (0..NODES).map(life).collect();
    let began = Instant::now();
    for (method, path, body, expected) in lives.into_iter().flatten() {
        let (status, answer) = endpoint.request(method, &path, body.as_ref());
        assert_eq!(status, StatusCode::from_u16(expected).unwrap(), "{path}: {answer}");
    }
    let rate = f64::from(u32::try_from(NODES).unwrap()) / began.elapsed().as_secs_f64();
    println!("without sockets: {rate:.0} nodes/s, {:.0} requests/s", rate * 16.0);
    assert_eq!(endpoint.verbs_of_all(Verb::Active).accepted, 1_000);
    assert!(endpoint.nodes().is_empty());
    assert!(rate > WANTED, "{rate:.0} nodes/s");
}

/// A client that costs next to nothing, so that the endpoint is what is measured.
struct Wire(BufReader<TcpStream>);

impl Wire {
    async fn ask(&mut self, method: &Method, path: &str, body: Option<&Value>) -> u16 {
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-OpenStack-Ironic-API-Version: 1.115\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(head.as_bytes()).await.unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        self.0.read_exact(&mut vec![0; length]).await.unwrap();
        status
    }
}

/// The same through sockets, by eight clients at once: prints a figure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_share_the_endpoint() {
    const CLIENTS: usize = 8;
    const NODES: usize = 50;
    let endpoint = IronicEndpoint::builder().start().unwrap();
    let began = Instant::now();
    let clients = (0..CLIENTS).map(|client| {
        let address = endpoint.address();
        tokio::spawn(async move {
            let mut wire = Wire(BufReader::new(TcpStream::connect(address).await.unwrap()));
            for (method, path, body, expected) in (0..NODES).flat_map(|n| life(client * NODES + n)) {
                assert_eq!(wire.ask(&method, &path, body.as_ref()).await, expected, "{path}");
            }
        })
    });
    for client in futures_util::future::join_all(clients).await {
        client.unwrap();
    }
    let rate = f64::from(u32::try_from(CLIENTS * NODES).unwrap()) / began.elapsed().as_secs_f64();
    println!("through sockets: {rate:.0} nodes/s, {:.0} requests/s", rate * 16.0);
    assert_eq!(endpoint.requests(), 16 * 400);
    assert_eq!(endpoint.verbs_of_all(Verb::Active).accepted, 400);
    assert!(endpoint.nodes().is_empty());
}
