//! An API server that knows claims and nothing else.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

type Claims = Arc<Mutex<BTreeMap<String, Value>>>;

pub(crate) struct ApiServer {
    pub(crate) address: SocketAddr,
    /// Who signed its certificate, in PEM.
    pub(crate) ca: String,
    claims: Claims,
    task: JoinHandle<()>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = config.with_single_cert(vec![certificate.der().clone()], private).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let claims = Claims::default();
        let task = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&claims)));
        Self { address, ca: certificate.pem(), claims, task }
    }

    /// There is a claim of this name, in the namespace `default`, to which the scheduler has given this device.
    pub(crate) fn allocate(&self, claim: &str, device: &str) {
        let result = json!({ "request": "gpu", "driver": dra::DRIVER, "pool": crate::stage::MACHINE, "device": device });
        let object = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "spec": {},
            "metadata": { "name": claim, "namespace": "default", "uid": format!("uid-{claim}") },
            "status": { "allocation": { "devices": { "results": [result] } } },
        });
        self.claims.lock().unwrap().insert(claim.to_owned(), object);
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, claims: Claims) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, claims) = (tls.clone(), Arc::clone(&claims));
        connections.spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let answer = hyper::service::service_fn(|request| {
                let answer = answer(&request, &claims);
                async { Ok::<_, Infallible>(answer) }
            });
            // An error is a client that ended.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

fn answer(request: &Request<Incoming>, claims: &Claims) -> Response<Full<Bytes>> {
    let name = request.uri().path().rsplit('/').next().unwrap();
    let found = claims.lock().unwrap().get(name).cloned();
    let (status, body) =
        found.map_or((StatusCode::INTERNAL_SERVER_ERROR, json!({})), |claim| (StatusCode::OK, claim));
    Response::builder().status(status).body(Full::new(Bytes::from(body.to_string()))).unwrap()
}
