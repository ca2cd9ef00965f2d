//! Claims from the API server. One kind of request, so no client library: it would be most of the agent.

use super::preparer::Claims;
use futures_util::future::BoxFuture;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use reqwest::{Client, StatusCode};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The kubelet gives up after 45 s, and calls again; an answer that takes longer than this is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the agent proves to the API server who it is.
#[derive(Clone)]
pub enum Credential {
    /// A token.
    Token(Token),
    /// A client certificate with its chain, and its key; both PEM.
    Certificate {
        /// The chain.
        certificate: Vec<u8>,
        /// The key.
        key: Vec<u8>,
    },
}

/// A token of an account.
#[derive(Clone)]
pub enum Token {
    /// In a file, which somebody renews, as the kubelet does for pods: read for each request.
    File(PathBuf),
    /// Itself.
    Text(String),
}

impl Token {
    async fn read(&self) -> Result<String, String> {
        match self {
            Self::Text(token) => Ok(token.clone()),
            Self::File(path) => match tokio::fs::read_to_string(path).await {
                Ok(token) => Ok(token.trim().to_owned()),
                Err(error) => Err(format!("token {}: {error}", path.display())),
            },
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ApiServerError {
    /// A certificate or key cannot be used.
    #[error("the API server's credentials cannot be used: {0}")]
    Credential(String),
    /// The client cannot be made.
    #[error("no client for the API server")]
    Client(#[from] reqwest::Error),
}

impl ApiServerError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Credential(_) => "plugin.api-server.credential",
            Self::Client(_) => "plugin.api-server.client",
        }
    }
}

/// The API server of the base cluster.
#[derive(Clone)]
pub struct ApiServer {
    client: Client,
    url: String,
    token: Option<Token>,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("url", &self.url).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// `url` with scheme and port; `ca` is the PEM of who signed its certificate.
    pub fn new(url: &str, ca: &[u8], credential: Credential) -> Result<Self, ApiServerError> {
        let unusable = |error: &dyn std::fmt::Display| ApiServerError::Credential(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            roots.add(certificate.map_err(|e| unusable(&e))?).map_err(|e| unusable(&e))?;
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable(&e))?
            .with_root_certificates(roots);
        let (tls, token) = match credential {
            Credential::Token(token) => (tls.with_no_client_auth(), Some(token)),
            Credential::Certificate { certificate, key } => {
                let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<_, _>>();
                let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| unusable(&e))?;
                let tls = tls.with_client_auth_cert(chain.map_err(|e| unusable(&e))?, key);
                (tls.map_err(|e| unusable(&e))?, None)
            }
        };
        let client = Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(PATIENCE).build()?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), token })
    }

    async fn get(&self, namespace: &str, name: &str) -> Result<Option<ResourceClaim>, String> {
        // Both are DNS names, or the kubelet would not know them; nothing else gets into the path.
        if ![namespace, name].into_iter().all(is_dns_name) {
            return Err(format!("{namespace}/{name} is no name of a claim"));
        }
        let url =
            format!("{}/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims/{name}", self.url);
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.read().await?);
        }
        let response = request.send().await.map_err(|error| chain(&error))?;
        match response.status() {
            StatusCode::OK => {
                let body = response.bytes().await.map_err(|error| chain(&error))?;
                serde_json::from_slice(&body).map(Some).map_err(|error| error.to_string())
            }
            StatusCode::NOT_FOUND => {
                let body = response.bytes().await.map_err(|error| chain(&error))?;
                // A server that does not know the resource, or a proxy before it, says nothing of the claim.
                match serde_json::from_slice::<Status>(&body) {
                    Ok(status) if is_gone(&status, name) => Ok(None),
                    _ => Err("the API server does not serve claims".to_owned()),
                }
            }
            status => Err(format!("the API server answers {status}")),
        }
    }
}

impl Claims for ApiServer {
    fn claim<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<ResourceClaim>, String>> {
        Box::pin(self.get(namespace, name))
    }
}

fn is_gone(status: &Status, name: &str) -> bool {
    let details = status.details.as_ref();
    let of = details.map(|details| (details.kind.as_deref(), details.name.as_deref()));
    status.reason.as_deref() == Some("NotFound") && of == Some((Some("resourceclaims"), Some(name)))
}

fn is_dns_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
}

/// An error with its causes: the first alone says "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_api_servers_word_on_this_claim_says_that_it_is_gone() {
        let says = |status: serde_json::Value| is_gone(&serde_json::from_value(status).unwrap(), "c");
        let details =
            |kind: &str, name: &str| json!({ "kind": kind, "name": name, "group": "resource.k8s.io" });
        let status = |details| json!({ "kind": "Status", "reason": "NotFound", "details": details });
        assert!(says(status(details("resourceclaims", "c"))));
        assert!(!says(status(details("resourceclaims", "d"))));
        assert!(!says(status(json!({}))), "a server that does not serve claims");
        assert!(!says(json!({})), "a proxy");
    }
}
