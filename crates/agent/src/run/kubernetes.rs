//! How to reach the API server: by a kubeconfig, or as a pod.

use crate::Error;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dra::plugin::{ApiServer, Credential, Token};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where a pod finds its account (`kubernetes.io/docs/tasks/run-application/access-api-from-pod`).
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The API server that a kubeconfig names, or the one of the cluster that this is a pod of.
pub(super) fn api_server(kubeconfig: Option<&Path>) -> Result<ApiServer, Error> {
    match kubeconfig {
        Some(path) => by_kubeconfig(path),
        None => as_pod(Path::new(ACCOUNT), |name| std::env::var(name).ok()),
    }
}

fn as_pod(account: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<ApiServer, Error> {
    let known = |name: &str| {
        let why = format!("{name} is not set, so this is no pod; give --kubeconfig");
        variable(name).ok_or(Error::Kubernetes(why))
    };
    let (host, port) = (known("KUBERNETES_SERVICE_HOST")?, known("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let ca = read(&account.join("ca.crt"))?;
    let token = Credential::Token(Token::File(account.join("token")));
    Ok(ApiServer::new(&format!("https://{host}:{port}"), &ca, token)?)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    current_context: String,
    contexts: Vec<Named<ContextOf>>,
    clusters: Vec<Named<ClusterOf>>,
    users: Vec<Named<UserOf>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(flatten)]
    value: T,
}

#[derive(Deserialize)]
struct ContextOf {
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct ClusterOf {
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct UserOf {
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
}

fn by_kubeconfig(path: &Path) -> Result<ApiServer, Error> {
    let wrong = |why: &dyn std::fmt::Display| Error::Kubernetes(format!("{}: {why}", path.display()));
    let text = String::from_utf8(read(path)?).map_err(|error| wrong(&error))?;
    // Not with the lines around the mistake: there may be a token in them.
    let config: Config = serde_saphyr::from_str(&text).map_err(|error| wrong(&error.without_snippet()))?;
    let context =
        named(config.contexts, &config.current_context).ok_or_else(|| wrong(&"no current context"))?;
    let cluster =
        named(config.clusters, &context.context.cluster).ok_or_else(|| wrong(&"no such cluster"))?;
    let user = named(config.users, &context.context.user).ok_or_else(|| wrong(&"no such user"))?;
    let (cluster, user) = (cluster.cluster, user.user);
    // Relative to the file they stand in, as kubectl takes them.
    let beside = path.parent().unwrap_or(Path::new("."));
    let content = |data: Option<String>, file: Option<PathBuf>| match (data, file) {
        (Some(data), _) => BASE64.decode(data).map(Some).map_err(|error| wrong(&error)),
        (None, Some(file)) => read(&beside.join(file)).map(Some),
        (None, None) => Ok(None),
    };
    let ca = content(cluster.certificate_authority_data, cluster.certificate_authority)?
        .ok_or_else(|| wrong(&"no certificate authority"))?;
    // Of a token and a file with one, the file's, which may have been renewed; as kubectl takes them.
    let token = match (user.token_file, user.token) {
        (Some(file), _) => Some(Token::File(beside.join(file))),
        (None, token) => token.map(Token::Text),
    };
    let credential = match token {
        Some(token) => Credential::Token(token),
        None => Credential::Certificate {
            certificate: content(user.client_certificate_data, user.client_certificate)?.ok_or_else(
                || wrong(&"neither a token nor a client certificate; programs that fetch one are not run"),
            )?,
            key: content(user.client_key_data, user.client_key)?.ok_or_else(|| wrong(&"no client key"))?,
        },
    };
    Ok(ApiServer::new(&cluster.server, &ca, credential)?)
}

fn named<T>(all: Vec<Named<T>>, name: &str) -> Option<T> {
    all.into_iter().find(|one| one.name == name).map(|one| one.value)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::Kubernetes(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_that_lacks_something_says_what() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        let config = |cluster: &str, user: &str| {
            format!(
                "{{ current-context: a, contexts: [{{ name: a, context: {{ cluster: c, user: u }} }}],\n\
                 clusters: [{{ name: c, cluster: {{ server: 'https://127.0.0.1:1'{cluster} }} }}],\n\
                 users: [{{ name: u, user: {{ {user} }} }}] }}"
            )
        };
        let code = |text: &str| {
            std::fs::write(&path, text).unwrap();
            api_server(Some(&path)).unwrap_err().to_string()
        };
        assert!(code("[").contains("kubeconfig"));
        assert!(code(&config("", "")).ends_with("no certificate authority"));
        assert!(
            code(&config(", certificate-authority-data: ''", ""))
                .contains("neither a token nor a client certificate")
        );
        assert!(code(&config(", certificate-authority: ca.pem", "")).contains("ca.pem"));
        assert!(
            code(&config(", certificate-authority-data: ''", "client-certificate-data: ''"))
                .ends_with("no client key")
        );
    }

    #[test]
    fn what_is_no_pod_and_has_no_kubeconfig_is_told_so() {
        let account = tempfile::tempdir().unwrap();
        let told = as_pod(account.path(), |_| None).unwrap_err().to_string();
        assert!(told.contains("--kubeconfig"), "{told}");
        std::fs::write(account.path().join("ca.crt"), "").unwrap();
        assert!(as_pod(account.path(), |_| Some("1".to_owned())).is_ok());
    }
}
