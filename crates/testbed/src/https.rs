//! Waiting for a server on a port of the loopback interface.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use crate::Error;
use crate::process::Process;

const PORT_ATTEMPTS: u32 = 5;
/// Generous: the machine may be compiling at the same time.
const DOCUMENT_WITHIN: Duration = Duration::from_mins(1);

/// A client that trusts one certificate alone, so an answer also proves that the port belongs to the server
/// that was just started.
#[derive(Debug)]
pub(crate) struct Client(reqwest::Client);

impl Client {
    /// With `identity`, it shows a certificate of its own.
    pub(crate) fn new(
        root: CertificateDer<'static>,
        identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> Result<Self, Error> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root).map_err(other)?;
        Self::with_roots(roots, identity)
    }

    /// One for servers without TLS; they must prove otherwise whose they are.
    pub(crate) fn plain() -> Result<Self, Error> {
        Self::with_roots(rustls::RootCertStore::empty(), None)
    }

    fn with_roots(
        roots: rustls::RootCertStore,
        identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> Result<Self, Error> {
        // The provider by name: whether the process has a default one is its own affair.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(other)?
            .with_root_certificates(roots);
        let tls = match identity {
            Some((certificate, key)) => {
                builder.with_client_auth_cert(vec![certificate], key).map_err(other)?
            }
            None => builder.with_no_client_auth(),
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()
            .map_err(other)?;
        Ok(Self(client))
    }

    /// Whether this path is answered with success.
    pub(crate) async fn answers(&self, port: u16, path: &str) -> bool {
        let answer = self.0.get(format!("https://127.0.0.1:{port}{path}")).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// The document at this URL; `null` where there is none.
    pub(crate) async fn document(&self, url: &str) -> Result<Value, Error> {
        let answer = self.0.get(url).timeout(DOCUMENT_WITHIN).send().await.map_err(other)?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(Value::Null);
        }
        let text = answer.error_for_status().map_err(other)?.text().await.map_err(other)?;
        serde_json::from_str(&text).map_err(other)
    }

    /// What is at this URL, for this user if any; `None` unless it is answered with success.
    pub(crate) async fn text(&self, url: &str, user: Option<(&str, &str)>) -> Option<String> {
        let mut request = self.0.get(url);
        if let Some((name, password)) = user {
            request = request.basic_auth(name, Some(password));
        }
        request.send().await.ok()?.error_for_status().ok()?.text().await.ok()
    }
}

/// Starts a server that insists on being told its port. Between finding a free one and the server's taking
/// it somebody else may: then another is tried.
pub(crate) async fn on_free_port(
    mut start: impl AsyncFnMut(u16) -> Result<Process, Error>,
) -> Result<(Process, u16), Error> {
    let mut attempt = 1;
    loop {
        let port = free_port()?;
        match start(port).await {
            Ok(process) => return Ok((process, port)),
            Err(error) if error.is_port_taken() && attempt < PORT_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn free_port() -> Result<u16, Error> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Error::file("find a free port on", "127.0.0.1"))
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Client(Box::new(error))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::process::Signal;

    use super::*;
    use crate::process::Program;

    fn shell(script: &str, directory: &Path) -> Process {
        Process::start(Program {
            name: "server",
            path: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            environment: Vec::new(),
            directory,
            user: None,
            stop: Signal::KILL,
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_server_whose_port_was_taken_is_started_on_another() {
        let directory = tempfile::tempdir().unwrap();
        let mut starts = 0;
        on_free_port(async |_port| {
            starts += 1;
            let taken = "echo 'listen tcp: bind: address already in use'; exit 1";
            let mut process = shell(if starts < 3 { taken } else { "exec sleep 600" }, directory.path());
            process.wait_until(Duration::from_mins(1), async || starts == 3).await?;
            Ok(process)
        })
        .await
        .unwrap();
        assert_eq!(starts, 3);
    }

    #[tokio::test]
    async fn a_server_that_ends_for_another_reason_is_not_started_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut starts = 0;
        let error = on_free_port(async |_port| {
            starts += 1;
            let mut process = shell("echo 'no such certificate'; exit 1", directory.path());
            process.wait_until(Duration::from_mins(1), async || false).await?;
            Ok(process)
        })
        .await
        .unwrap_err();
        assert!(error.to_string().contains("no such certificate"), "{error}");
        assert_eq!(starts, 1);
    }
}
