//! A server that answers as a test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Response};
use bailiwick_ironic::{Authentication, Client, Endpoint, Options, Trust};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The value of a query parameter.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let query = self.target.split_once('?')?.1;
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Said {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let newest = ("x-openstack-ironic-api-maximum-version", "1.115".to_owned());
        Self { status, headers: vec![newest], body: body.into() }
    }

    pub(crate) fn json(body: &Value) -> Self {
        Self::new(200, body.to_string())
    }

    /// An error as Ironic wraps it.
    pub(crate) fn error(status: u16, text: &str) -> Self {
        let inner = json!({"faultcode": "Client", "faultstring": text, "debuginfo": null}).to_string();
        Self::new(status, json!({ "error_message": inner }).to_string())
    }

    pub(crate) fn newest(mut self, version: &str) -> Self {
        self.headers = vec![("x-openstack-ironic-api-maximum-version", version.to_owned())];
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// A running server; dropping it ends it.
pub(crate) struct Scripted {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Scripted {
    /// Answers each request by `script`. `GET /v1/` names version 1.115 unless the script answers it.
    pub(crate) async fn start(script: impl Fn(&Asked) -> Option<Said> + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (script, record) = (Arc::new(script), Arc::clone(&asked));
        let router = Router::new().fallback(move |request: Request| {
            let (script, record) = (Arc::clone(&script), Arc::clone(&record));
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, 1 << 20).await.unwrap();
                let asked = Asked {
                    method: parts.method.to_string(),
                    target: parts.uri.to_string(),
                    headers: parts.headers,
                    body: String::from_utf8(body.to_vec()).unwrap(),
                };
                let said =
                    script(&asked).or_else(|| (asked.target == "/v1/").then(|| Said::json(&json!({}))));
                record.lock().unwrap().push(asked);
                let Some(said) = said else {
                    // Never answered: the client's patience ends it.
                    return std::future::pending().await;
                };
                let mut response = Response::builder().status(said.status);
                for (name, value) in said.headers {
                    response = response.header(name, value);
                }
                response.body(Body::from(said.body)).unwrap()
            }
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, asked, task }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint {
            url: format!("http://{}", self.address),
            authentication: Authentication::None,
            trust: Trust::Ca(Vec::new()),
        }
    }

    /// A client that does not wait between attempts.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.endpoint(), quick()).unwrap()
    }

    /// All requests but the negotiation of the version.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.target != "/v1/").cloned().collect()
    }

    pub(crate) fn negotiations(&self) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.target == "/v1/").count()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn quick() -> Options {
    Options {
        pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(2),
        page: 2,
        ..Options::default()
    }
}
