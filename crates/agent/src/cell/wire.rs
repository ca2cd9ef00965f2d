//! Calls to the cell: HTTP/1.1 over TLS 1.3, one connection kept as long as it lasts. No proxies: nobody stands between.

use super::error::Error;
use super::identity::Identity;
use bytes::Bytes;
use domain::Problem;
use domain::agent::{AgentToken, CellUrl, SERVER_NAME};
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_cert::der::{Decode as _, Encode as _};

/// Time for a connection, and for a call on it.
const CONNECT: Duration = Duration::from_secs(10);
const CALL: Duration = Duration::from_secs(30);

/// Most bytes of an answer: permits for 64 GPUs in 7 partitions each take some 100 KiB.
const LARGEST_ANSWER: usize = 4 << 20;

/// Calls one cell.
pub(super) struct Client {
    server: CellUrl,
    tls: TlsConnector,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(super) fn new(server: CellUrl, config: Arc<ClientConfig>) -> Self {
        Self { server, tls: TlsConnector::from(config), connection: None }
    }

    /// Sends a document and reads the answer.
    pub(super) async fn call<A: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Answer(error.to_string()))?;
        let answer = timeout(CALL, self.exchange(path, body.into())).await;
        let answer = answer.unwrap_or_else(|_| Err(self.unreachable(&"no answer in time")));
        if answer.is_err() {
            // Whatever is left on this connection would be taken for the next answer.
            self.connection = None;
        }
        let (parts, body) = answer?;
        if parts.status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| Error::Answer(error.to_string()));
        }
        let retry_after =
            parts.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let problem: Problem = serde_json::from_slice(&body)
            .map_err(|_| Error::Answer(format!("status {} without a problem", parts.status)))?;
        Err(Error::Refused { problem: Box::new(problem), retry_after: retry_after.map(Duration::from_secs) })
    }

    async fn exchange(&mut self, path: &str, body: Bytes) -> Result<(http::response::Parts, Bytes), Error> {
        let kept = self.connection.take().filter(|kept| !kept.is_closed());
        let (mut sender, fresh) = match kept {
            Some(kept) => (kept, false),
            None => (self.connect().await?, true),
        };
        let response = match self.send(&mut sender, path, body.clone()).await {
            // The cell may have ended a connection that was idle just as we used it. Calls may be repeated.
            Err(_) if !fresh => {
                sender = self.connect().await?;
                self.send(&mut sender, path, body).await?
            }
            other => other?,
        };
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| Error::Answer(error.to_string()))?.to_bytes();
        self.connection = Some(sender);
        Ok((parts, body))
    }

    async fn send(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let request = Request::post(path)
            .header(header::HOST, SERVER_NAME)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Error::Answer(error.to_string()))?;
        sender.ready().await.map_err(|error| self.unreachable(&error))?;
        sender.send_request(request).await.map_err(|error| self.unreachable(&error))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let name = ServerName::try_from(SERVER_NAME).map_err(|error| Error::Key(error.to_string()))?;
        let connect = async {
            let stream = TcpStream::connect((self.server.host(), self.server.port())).await?;
            stream.set_nodelay(true)?;
            self.tls.connect(name, stream).await
        };
        let stream =
            timeout(CONNECT, connect).await.map_err(|_| self.unreachable(&"no connection in time"))?;
        let stream = stream.map_err(|error| {
            let certificate = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match certificate {
                Some(rustls::Error::InvalidCertificate(why)) => {
                    Error::Untrusted { cell: self.address(), why: why.to_string() }
                }
                _ => self.unreachable(&error),
            }
        })?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(&error))?;
        // Ends with the sender.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    fn address(&self) -> String {
        format!("{}:{}", self.server.host(), self.server.port())
    }

    fn unreachable(&self, why: &impl ToString) -> Error {
        Error::Unreachable { cell: self.address(), why: why.to_string() }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn key_error(error: impl std::fmt::Display) -> Error {
    Error::Key(error.to_string())
}

/// For an agent with a certificate: it trusts the cell's authority and no other.
pub(super) fn by_certificate(identity: &Identity) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(identity.ca.as_bytes()).map_err(key_error)?)
        .map_err(key_error)?;
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).map_err(key_error)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(key_error)?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(key_error)?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .map_err(key_error)?;
    Ok(Arc::new(config))
}

/// For an agent with a token: it trusts a cell whose chain holds the authority that the token names.
pub(super) fn by_pin(token: AgentToken) -> Result<Arc<ClientConfig>, Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(key_error)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { token, provider: provider() }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Checks a cell's certificate by the authority of the token, once it is found in the chain.
#[derive(Debug)]
struct Pinned {
    token: AgentToken,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn is_authority(&self, certificate: &CertificateDer<'_>) -> bool {
        let key = x509_cert::Certificate::from_der(certificate)
            .and_then(|certificate| certificate.tbs_certificate().subject_public_key_info().to_der());
        key.is_ok_and(|key| self.token.is_authority(&key))
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = intermediates.iter().find(|one| self.is_authority(one)).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
