//! As much of a client of Ironic as the scenarios need.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// What a scenario ends with: nothing, or what went wrong.
pub type Outcome<T = ()> = Result<T, String>;

/// A state is waited for no longer; machines share two processors with whatever else is built.
const LIMIT: Duration = Duration::from_mins(6);
/// More often, and Ironic does little else.
const POLL: Duration = Duration::from_millis(700);
/// What is looked at while a state is waited for.
const WATCHED: &str =
    "fields=provision_state,target_provision_state,provision_updated_at,last_error,reservation";

#[derive(Clone, Debug)]
pub struct Api {
    pub base: String,
    pub http: Client,
}

impl Api {
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Outcome<Value> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
            request = request.header("X-OpenStack-Ironic-API-Version", "1.95");
            if let Some(body) = body {
                request = request.header("Content-Type", "application/json").body(body.to_string());
            }
            let answer = request.send().await.map_err(|error| format!("{method} {path}: {error}"))?;
            let status = answer.status();
            let text = answer.text().await.map_err(|error| format!("{method} {path}: {error}"))?;
            // Locked by a conductor's own work: later it is not.
            if status == StatusCode::CONFLICT && Instant::now() < deadline {
                tokio::time::sleep(POLL).await;
                continue;
            }
            if !status.is_success() {
                return Err(format!("{method} {path}: {status} {text}"));
            }
            return Ok(serde_json::from_str(&text).unwrap_or(Value::Null));
        }
    }

    /// A node with a port.
    pub async fn create(&self, node: &Value, mac: &str) -> Outcome<Node> {
        let created = self.call(Method::POST, "/v1/nodes", Some(node)).await?;
        let uuid = created["uuid"].as_str().ok_or("a node without uuid")?.to_owned();
        let port = json!({"node_uuid": uuid, "address": mac, "pxe_enabled": true});
        self.call(Method::POST, "/v1/ports", Some(&port)).await?;
        Ok(Node { api: self.clone(), path: format!("/v1/nodes/{uuid}") })
    }
}

/// A node of Ironic.
#[derive(Debug)]
pub struct Node {
    api: Api,
    path: String,
}

impl Node {
    /// The part of it that tells how it fares.
    pub async fn show(&self) -> Outcome<Value> {
        self.api.call(Method::GET, &format!("{}?{WATCHED}", self.path), None).await
    }

    /// What has gone wrong with it so far.
    pub async fn history(&self) -> Outcome<Value> {
        self.api.call(Method::GET, &format!("{}/history?detail=true", self.path), None).await
    }

    pub async fn inventory(&self) -> Outcome<Value> {
        let answer = self.api.call(Method::GET, &format!("{}/inventory", self.path), None).await?;
        Ok(answer["inventory"].clone())
    }

    /// Asks for a target and waits for this state. Any state of failure ends that too.
    pub async fn go(&self, target: &str, state: &str) -> Outcome {
        self.go_with(json!({"target": target}), state).await
    }

    pub async fn go_with(&self, body: Value, state: &str) -> Outcome {
        let before = self.show().await?["provision_updated_at"].clone();
        self.api.call(Method::PUT, &format!("{}/states/provision", self.path), Some(&body)).await?;
        let (deadline, wanted) = (Instant::now() + LIMIT, state.to_owned());
        loop {
            let node = self.show().await?;
            let now = node["provision_state"].as_str().unwrap_or_default();
            let moved = node["provision_updated_at"] != before && node["target_provision_state"].is_null();
            // A deploy that failed keeps its target: it may be tried again.
            let failed = now.ends_with("failed") || now == "error";
            let arrived = now == wanted && (moved || failed);
            if arrived && node["reservation"].is_null() {
                return Ok(());
            }
            // Verification that failed leads back to where it came from.
            let back = now == "enroll" && moved;
            if (!arrived && (failed || back)) || Instant::now() > deadline {
                return Err(format!("{body} led to {now}, not {wanted}: {}", node["last_error"]));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Says what is to be deployed, and as which instance.
    pub async fn set_instance(&self, info: &Value) -> Outcome {
        let patch = json!([
            {"op": "add", "path": "/instance_info", "value": info},
            {"op": "add", "path": "/instance_uuid", "value": uuid::Uuid::new_v4().to_string()},
        ]);
        self.api.call(Method::PATCH, &self.path, Some(&patch)).await.map(drop)
    }
}
