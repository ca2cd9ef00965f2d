//! A plain client for the tests of the simulator: it trusts any certificate.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::path::PathBuf;
use std::sync::Once;

use bailiwick_sim::{Bmc, RunningBmc};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response};
use serde_json::Value;

pub fn builder() -> ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
    Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
}

pub fn client() -> Client {
    builder().build().unwrap()
}

/// A BMC under test with a client that knows its password.
pub struct Subject {
    pub bmc: RunningBmc,
    pub client: Client,
}

impl Subject {
    pub async fn start(bmc: bailiwick_sim::BmcBuilder) -> Self {
        Self { bmc: bmc.start().await.unwrap(), client: client() }
    }

    /// A BMC with a small tree of its own.
    pub async fn small() -> Self {
        Self::start(Bmc::builder(small_tree())).await
    }

    pub fn anonymous(&self, method: Method, target: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{target}", self.bmc.url()))
    }

    pub fn request(&self, method: Method, target: &str) -> RequestBuilder {
        self.anonymous(method, target).basic_auth(self.bmc.username(), Some(self.bmc.password()))
    }

    pub async fn get(&self, target: &str) -> Response {
        self.request(Method::GET, target).send().await.unwrap()
    }

    pub async fn status(&self, target: &str) -> u16 {
        self.get(target).await.status().as_u16()
    }

    pub async fn json(&self, target: &str) -> Value {
        body(self.get(target).await).await
    }

    pub async fn post(&self, target: &str, value: &Value) -> Response {
        self.request(Method::POST, target).body(value.to_string()).send().await.unwrap()
    }

    pub async fn patch(&self, target: &str, value: &Value) -> Response {
        self.request(Method::PATCH, target).body(value.to_string()).send().await.unwrap()
    }

    pub async fn log_in(&self, username: &str, password: &str) -> Response {
        let credentials = serde_json::json!({"UserName": username, "Password": password});
        let request = self.anonymous(Method::POST, "/redfish/v1/SessionService/Sessions");
        request.body(credentials.to_string()).send().await.unwrap()
    }
}

/// Serves the same content to every GET, until it is dropped.
pub struct File {
    pub url: String,
    serving: tokio::task::JoinHandle<()>,
}

impl File {
    pub async fn serve(content: Vec<u8>) -> Self {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/image", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let length = content.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.write_all(&content).await;
            }
        });
        Self { url, serving }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub async fn body(response: Response) -> Value {
    let text = response.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

pub fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

pub fn small_tree() -> bailiwick_sim::Tree {
    use serde_json::json;
    let resource = |path: &str, more: Value| {
        let mut value =
            json!({"@odata.id": path, "@odata.type": "#Thing.v1_0_0.Thing", "Id": "x", "Name": "x"});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (path.to_owned(), value)
    };
    let things: Vec<Value> =
        (0..5).map(|n| json!({"@odata.id": format!("/redfish/v1/Things/{n}")})).collect();
    let mut all = vec![
        resource(
            "/redfish/v1",
            json!({"RedfishVersion": "1.17.0", "Systems": {"@odata.id": "/redfish/v1/Systems"},
                "ProtocolFeaturesSupported": {"ExpandQuery": {"ExpandAll": true, "Levels": true, "NoLinks": true, "MaxLevels": 2}}}),
        ),
        resource(
            "/redfish/v1/Systems",
            json!({"Members": [{"@odata.id": "/redfish/v1/Systems/1"}], "Members@odata.count": 1}),
        ),
        resource(
            "/redfish/v1/Systems/1",
            json!({"PowerState": "On", "@odata.etag": "\"tag-1\"", "Boot": {}, "Bios": {}, "SerialNumber": "S1",
                "Links": {"Chassis": [{"@odata.id": "/redfish/v1/Chassis/1"}]}}),
        ),
        resource("/redfish/v1/Chassis/1", json!({"Up": {"@odata.id": "/redfish/v1/Systems/1"}})),
        resource("/redfish/v1/Things", json!({"Members": things, "Members@odata.count": 5})),
    ];
    all.extend((0..5).map(|n| resource(&format!("/redfish/v1/Things/{n}"), json!({"Number": n}))));
    bailiwick_sim::Tree::from_values(all)
}

/// The recording of this name. Absent recordings fail in CI; elsewhere one line names what was not run.
pub fn recording(name: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/redfish-recordings");
    let directory = std::env::var_os("BAILIWICK_RECORDINGS").map_or_else(beside, PathBuf::from);
    let path = directory.join(format!("{name}.tar.gz"));
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", path.display());
    println!("not run: no recording {}", path.display());
    None
}

/// A port that nothing listens on.
pub fn unused_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
