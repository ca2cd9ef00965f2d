//! Requests on objects.

use super::Shared;
use crate::server::Tasks;
use ::http::{Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;

const LARGEST: usize = 4 << 20;

/// Serves connections until the tasks end.
pub(super) fn serve(tasks: &Tasks, listener: TcpListener, shared: &Arc<Shared>) {
    let (connections, shared) = (tasks.handle(), Arc::clone(shared));
    tasks.spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, mostly: waiting lets connections end.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let shared = Arc::clone(&shared);
            connections.spawn(async move {
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = served.await {
                    tracing::debug!(%error, "a connection of the simulated cluster ended");
                }
            });
        }
    });
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let mut answer = answer_undated(&shared, request).await;
    let now = shared.objects().now();
    if let Ok(date) = header::HeaderValue::from_str(&now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()) {
        answer.headers_mut().insert(header::DATE, date);
    }
    Ok(answer)
}

async fn answer_undated(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, LARGEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => {
            return reply(StatusCode::BAD_REQUEST, &status(400, "BadRequest", "the body cannot be read"));
        }
    };
    if shared.away.load(Ordering::Relaxed) {
        return reply(StatusCode::SERVICE_UNAVAILABLE, &status(503, "ServiceUnavailable", "away"));
    }
    if shared.forbidden.load(Ordering::Relaxed) {
        return reply(StatusCode::FORBIDDEN, &status(403, "Forbidden", "the user may not do that"));
    }
    let query = head.uri.query().unwrap_or_default();
    let apply =
        head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/apply-patch+yaml");
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (code, document) = handle(shared, &head.method, head.uri.path(), query, apply, &body);
    reply(code, &document)
}

fn handle(
    shared: &Shared,
    method: &Method,
    path: &str,
    query: &str,
    apply: bool,
    body: &Value,
) -> (StatusCode, Value) {
    let mut objects = shared.objects();
    let found = |object: Option<Value>| match object {
        Some(object) => (StatusCode::OK, object),
        None => (StatusCode::NOT_FOUND, status(404, "NotFound", "there is no such object")),
    };
    let patched = |patched: Result<Option<Value>, ()>| match patched {
        Ok(object) => found(object),
        Err(()) => (StatusCode::CONFLICT, status(409, "Conflict", "the object has been modified")),
    };
    match (method, path) {
        (&Method::POST, "/apis/authorization.k8s.io/v1/subjectaccessreviews") => {
            let mut review = body.clone();
            review["apiVersion"] = json!("authorization.k8s.io/v1");
            review["kind"] = json!("SubjectAccessReview");
            review["status"] = json!({ "allowed": shared.approves.load(Ordering::Relaxed) });
            (StatusCode::CREATED, review)
        }
        (&Method::POST, path) => match path.strip_suffix("/eviction") {
            Some(_) if shared.undisturbed.load(Ordering::Relaxed) => {
                let reason = "Cannot evict pod as it would violate the pod's disruption budget.";
                (StatusCode::TOO_MANY_REQUESTS, status(429, "TooManyRequests", reason))
            }
            Some(pod) if objects.delete(pod) => (StatusCode::CREATED, status(201, "", "evicted")),
            _ => found(None),
        },
        (&Method::GET, "/api/v1/pods") => {
            let node = selected(query, "spec.nodeName");
            let mut pods = objects.pods();
            pods.retain(|pod| node.as_deref().is_none_or(|node| pod["spec"]["nodeName"] == node));
            (StatusCode::OK, list("v1", "PodList", &pods))
        }
        (&Method::GET, "/api/v1/nodes") => (StatusCode::OK, list("v1", "NodeList", &objects.list(path))),
        (&Method::GET, "/apis/certificates.k8s.io/v1/certificatesigningrequests") => {
            let kind = "CertificateSigningRequestList";
            (StatusCode::OK, list("certificates.k8s.io/v1", kind, &objects.list(path)))
        }
        // Nobody acts on them here: they are as when the operator is away.
        (&Method::GET, path) if path.ends_with("/baremetalhosts") => {
            (StatusCode::OK, list("metal3.io/v1alpha1", "BareMetalHostList", &objects.list(path)))
        }
        (&Method::GET, path) => found(objects.get(path)),
        (&Method::DELETE, path) => {
            if objects.delete(path) {
                let deleted =
                    json!({ "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success" });
                (StatusCode::OK, deleted)
            } else {
                found(None)
            }
        }
        (&Method::PATCH, path) => match path.strip_suffix("/approval") {
            Some(request) => patched(objects.decide(request, body)),
            None => patched(objects.patch(path, body, apply)),
        },
        _ => (StatusCode::METHOD_NOT_ALLOWED, status(405, "MethodNotAllowed", "not simulated")),
    }
}

/// The value of a term of the field selector.
fn selected(query: &str, field: &str) -> Option<String> {
    let selector = query.split('&').find_map(|part| part.strip_prefix("fieldSelector="))?;
    let selector = selector.replace("%3D", "=").replace("%3d", "=").replace("%2C", ",");
    selector.split(',').find_map(|term| term.strip_prefix(&format!("{field}="))).map(str::to_owned)
}

fn list(version: &str, kind: &str, items: &[Value]) -> Value {
    json!({ "apiVersion": version, "kind": kind, "metadata": { "resourceVersion": "0" }, "items": items })
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "code": code, "reason": reason, "message": message,
        "status": if code < 300 { "Success" } else { "Failure" },
    })
}

fn reply(code: StatusCode, document: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(document.to_string())));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
