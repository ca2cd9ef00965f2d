//! The HTTPS client that waits for readiness. It trusts one certificate alone, so an answer also proves
//! that the port still belongs to the server that was just started.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;

/// A client that trusts `root` alone and, with `identity`, shows a certificate of its own.
pub(crate) fn client(
    root: CertificateDer<'static>,
    identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> Result<reqwest::Client, Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).map_err(other)?;
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(other)?
            .with_root_certificates(roots);
    let tls = match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).map_err(other)?,
        None => builder.with_no_client_auth(),
    };
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .map_err(other)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Client(Box::new(error))
}

/// A port of the loopback interface that is free now. Whoever takes it must be ready to lose the race
/// for it and ask again.
pub(crate) fn free_port() -> Result<u16, Error> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Error::file("find a free port on", "127.0.0.1"))
}
