//! A plain client of an Ironic API.

use std::sync::Once;
use std::time::{Duration, Instant};

use bailiwick_sim::ironic::{IronicBuilder, IronicEndpoint};
use reqwest::{Client, Method};
use serde_json::{Value, json};

/// Nothing here takes as long, on the real thing neither.
const DEADLINE: Duration = Duration::from_mins(3);

/// An API, simulated or real.
pub(crate) struct Api {
    client: Client,
    base: String,
    credentials: Option<(String, String)>,
    pub(crate) version: &'static str,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) location: Option<String>,
    pub(crate) version: Option<String>,
}

impl Answer {
    /// The error within the body's string: `faultstring`, or `description` of the router's.
    pub(crate) fn error(&self) -> Value {
        self.body["error_message"].as_str().map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
    }

    /// The sentence of a refusal.
    pub(crate) fn sentence(&self) -> String {
        self.error()["faultstring"].as_str().unwrap_or_default().to_owned()
    }
}

impl Api {
    pub(crate) fn new(base: &str) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
        let client = Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
        Self { client, base: base.to_owned(), credentials: None, version: "1.115" }
    }

    pub(crate) fn with_credentials(mut self, username: &str, password: &str) -> Self {
        self.credentials = Some((username.to_owned(), password.to_owned()));
        self
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) async fn try_ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .header("Accept", "application/json")
            .header("Content-Type", "application/json");
        if !self.version.is_empty() {
            request = request.header("X-OpenStack-Ironic-API-Version", self.version);
        }
        if let Some((username, password)) = &self.credentials {
            request = request.basic_auth(username, Some(password));
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await?;
        let header = |name: &str| {
            response.headers().get(name).map(|value| value.to_str().unwrap().replace(&self.base, ""))
        };
        let (location, version) = (header("location"), header("x-openstack-ironic-api-version"));
        let status = response.status().as_u16();
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, body, location, version })
    }

    /// Asks again while the real one's SQLite is busy with its conductor: an answer that tells of nothing else.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let began = Instant::now();
        loop {
            let answer = self.try_ask(method.clone(), path, body).await.unwrap();
            let busy = answer.status == 500 && answer.sentence().contains("database is locked");
            if !busy || began.elapsed() > DEADLINE {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, None).await
    }

    /// Asks a verb of a node.
    pub(crate) async fn verb(&self, node: &str, verb: &str) -> Answer {
        self.put(&format!("/v1/nodes/{node}/states/provision"), &json!({"target": verb})).await
    }

    pub(crate) async fn node(&self, node: &str) -> Value {
        self.get(&format!("/v1/nodes/{node}")).await.body
    }

    pub(crate) async fn state(&self, node: &str) -> String {
        self.node(node).await["provision_state"].as_str().unwrap_or_default().to_owned()
    }

    /// A node for tests, with a port.
    pub(crate) async fn make_node(&self, name: &str, mac: &str) -> String {
        let info = json!({"redfish_address": "https://127.0.0.1:1", "redfish_password": "planted-secret"});
        let node =
            json!({"name": name, "driver": "redfish", "deploy_interface": "ramdisk", "driver_info": info});
        let made = self.post("/v1/nodes", &node).await;
        assert_eq!(made.status, 201, "{made:?}");
        let uuid = made.body["uuid"].as_str().unwrap().to_owned();
        let port = self.post("/v1/ports", &json!({"node_uuid": uuid, "address": mac})).await;
        assert_eq!(port.status, 201, "{port:?}");
        uuid
    }

    /// Brings a node to `available`, ready for a ramdisk deploy.
    pub(crate) async fn make_available(&self, name: &str, mac: &str) -> String {
        let uuid = self.make_node(name, mac).await;
        for verb in ["manage", "provide"] {
            assert_eq!(self.verb(&uuid, verb).await.status, 202);
        }
        let image = json!([{"op": "add", "path": "/instance_info", "value": {"boot_iso": "http://127.0.0.1:1/a.iso"}}]);
        assert_eq!(self.patch(&format!("/v1/nodes/{uuid}"), &image).await.status, 200);
        assert_eq!(self.state(&uuid).await, "available");
        uuid
    }

    /// Waits until nothing is under way with a node, and returns it.
    pub(crate) async fn settled(&self, node: &str) -> Value {
        self.until(node, |node| {
            let target = node["target_provision_state"].as_str();
            let failed = node["provision_state"].as_str().is_some_and(|state| state.ends_with(" failed"));
            let powered = node["target_power_state"].is_null();
            node["reservation"].is_null() && powered && (target.is_none() || failed)
        })
        .await
    }

    /// Waits until a node is so, and returns it.
    pub(crate) async fn until(&self, node: &str, so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let shown = self.node(node).await;
            if so(&shown) {
                return shown;
            }
            assert!(began.elapsed() < DEADLINE, "{node} does not come so far: {shown}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A simulated endpoint with a client.
pub(crate) fn start(builder: IronicBuilder) -> (IronicEndpoint, Api) {
    let endpoint = builder.start().unwrap();
    let api = Api::new(endpoint.url());
    (endpoint, api)
}
