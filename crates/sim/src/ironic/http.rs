//! Connections and HTTP.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{self, HeaderName, HeaderValue};
use ::http::{HeaderMap, Method, Request, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::api::{self, Reply};
use super::endpoint::Shared;
use super::fault::Effect;
use super::node::masked;
use super::record::RequestEntry;
use super::refusal::Refusal;
use super::version::{self, Microversion};
use crate::body::SimBody;
use crate::fault::{Action, Plan, merge};
use crate::handler::Abort;
use crate::server::Tasks;

/// Config drives are the largest thing that clients send.
const REQUEST_LIMIT: usize = 64 << 20;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const MINIMUM: HeaderName = HeaderName::from_static("x-openstack-ironic-api-minimum-version");
const MAXIMUM: HeaderName = HeaderName::from_static("x-openstack-ironic-api-maximum-version");
const VERSION: HeaderName = HeaderName::from_static(version::HEADER);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");

/// Serves connections until the tasks end.
pub(crate) fn serve(tasks: &Tasks, listener: TcpListener, shared: &Arc<Shared>) {
    let (connections, shared) = (tasks.handle(), Arc::clone(shared));
    tasks.spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        if let Err(error) = connection(&shared, stream).await {
                            tracing::debug!(%error, "a connection of the simulated Ironic ended");
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, mostly: waiting lets connections end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
}

async fn connection(
    shared: &Arc<Shared>,
    stream: TcpStream,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let service = service_fn(|request| handle(shared, request));
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

/// One request, read and with its version known.
pub(crate) struct Call {
    method: Method,
    path: Vec<String>,
    query: Vec<(String, String)>,
    body: Vec<u8>,
    version: Microversion,
}

impl Call {
    /// A request for a path with query.
    pub(crate) fn new(method: Method, target: &str, body: Vec<u8>, version: Microversion) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(&key.replace('+', " ")), decoded(&value.replace('+', " ")))
        });
        Self { method, path: segments.map(decoded).collect(), query: pairs.collect(), body, version }
    }

    /// The answer, by the fleet.
    pub(crate) fn answer(&self, shared: &Shared) -> Reply {
        let request = api::Request {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            body: &self.body,
            version: self.version,
            base: &shared.base,
            clock: &shared.clock,
            newest: shared.newest,
        };
        let answered = api::answer(&mut shared.fleet(), &request);
        answered.unwrap_or_else(|refusal| Reply {
            status: refusal.status(),
            body: Some(refusal.body()),
            location: None,
            refused_by_router: matches!(refusal, Refusal::NoSuchPath | Refusal::MethodNotAllowed { .. }),
        })
    }

    fn writes(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD)
    }

    /// The node that the path or the answer is about: UUID and name.
    fn node(&self, shared: &Shared, reply: Option<&Value>) -> Option<(String, Option<String>)> {
        let fleet = shared.fleet();
        let ident = match self.path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["v1", "nodes", ident, ..] => *ident,
            ["v1", "nodes"] => reply?.get("uuid")?.as_str()?,
            ["v1", "ports", ..] => reply?.get("node_uuid")?.as_str()?,
            _ => return None,
        };
        let node = fleet.node(fleet.find(ident)?)?;
        Some((node.uuid.clone(), node.name().map(str::to_owned)))
    }

    /// The path as rules see it: with the node's UUID.
    fn canonical(&self, uuid: Option<&str>) -> String {
        let mut path = String::new();
        for (index, segment) in self.path.iter().enumerate() {
            path.push('/');
            path.push_str(uuid.filter(|_| index == 2).unwrap_or(segment));
        }
        path
    }
}

/// A percent-encoded text; what is no encoding stays as it is.
fn decoded(text: &str) -> String {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let pair = || Some(digit(*bytes.get(at + 1)?)? << 4 | digit(*bytes.get(at + 2)?)?);
        let (value, length) =
            if *byte == b'%' { pair().map_or((*byte, 1), |value| (value, 3)) } else { (*byte, 1) };
        out.push(value);
        at += length;
    }
    String::from_utf8_lossy(&out).into_owned()
}

async fn handle(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Response<SimBody>, Abort> {
    let _in_flight = shared.counting.enter();
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", ::http::uri::PathAndQuery::as_str).to_owned();
    let negotiated = Microversion::negotiate(&parts.headers, shared.newest);
    let body = match Limited::new(body, REQUEST_LIMIT).collect().await {
        Ok(body) => body.to_bytes().to_vec(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Ok(respond(StatusCode::PAYLOAD_TOO_LARGE, None, &HeaderMap::new()));
        }
        // The client went away.
        Err(_) => return Err(Abort::Close),
    };
    let version = negotiated.as_ref().copied().unwrap_or(Microversion::MIN);
    let call = Call::new(parts.method, &target, body, version);
    let outcome = outcome(shared, &call, &parts.headers, negotiated).await;
    shared.log(|| RequestEntry {
        method: call.method.to_string(),
        target,
        version: parts.headers.get(&VERSION).and_then(|v| v.to_str().ok()).map(str::to_owned),
        body: logged(&call.body),
        status: outcome.as_ref().map_or(0, |response| response.status().as_u16()),
    });
    outcome
}

/// A body without its secrets.
fn logged(body: &[u8]) -> Value {
    let mut value = masked(Some(&serde_json::from_slice(body).unwrap_or_default()));
    if let Some(drive) = value.get_mut("configdrive") {
        *drive = Value::from("******");
    }
    if let Value::Array(changes) = &mut value {
        // A patch: its path tells that the value is a secret.
        for change in changes {
            let path = change.get("path").and_then(Value::as_str).unwrap_or_default().to_owned();
            let value = change.get("value").cloned().unwrap_or_default();
            let wrapped = Value::Object([(path, value)].into_iter().collect());
            if let Some(hidden) = masked(Some(&wrapped)).as_object().and_then(|map| map.values().next()) {
                change["value"] = hidden.clone();
            }
        }
    }
    value
}

async fn outcome(
    shared: &Arc<Shared>,
    call: &Call,
    headers: &HeaderMap,
    negotiated: Result<Microversion, Refusal>,
) -> Result<Response<SimBody>, Abort> {
    let node = call.node(shared, None);
    let mut plan = Plan::default();
    let path = call.canonical(node.as_ref().map(|(uuid, _)| uuid.as_str()));
    shared.faults.take(&mut plan, &call.method, &path, None, false);
    if plan.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(plan.delay_ms)).await;
    }
    match &plan.answer {
        Some(Action::Reset | Action::Close) => return Err(Abort::Close),
        Some(Action::Status { code, body, headers }) => return Ok(injected(*code, body, headers)),
        Some(Action::Redirect { code, location }) => {
            let headers = [("location".to_owned(), location.clone())].into_iter().collect();
            return Ok(injected(*code, "", &headers));
        }
        Some(Action::Replace { body, content_type }) => {
            let headers = [("content-type".to_owned(), content_type.clone())].into_iter().collect();
            return Ok(injected(200, body, &headers));
        }
        Some(Action::Endless { bytes }) => {
            let mut response = Response::new(SimBody::endless(*bytes));
            response.headers_mut().insert(header::CONTENT_TYPE, JSON);
            return Ok(response);
        }
        _ => {}
    }
    if let Err(refusal) = authorise(shared, call, headers) {
        let mut headers = HeaderMap::new();
        if refusal.status() == StatusCode::UNAUTHORIZED {
            headers
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Baremetal API\""));
        }
        return Ok(finish(&plan, refusal.status(), Some(refusal.body()), &headers));
    }
    let versions = match &negotiated {
        Err(Refusal::VersionSyntax) => HeaderMap::new(),
        _ => version_headers(shared, negotiated.as_ref().ok().copied()),
    };
    if let Err(refusal) = negotiated
        && call.path.first().is_some_and(|first| first == "v1")
    {
        return Ok(finish(&plan, refusal.status(), Some(refusal.body()), &versions));
    }
    let reply = call.answer(shared);
    let subject = node.or_else(|| call.node(shared, reply.body.as_ref()));
    shared.moved();
    if call.writes() && answer_is_lost(shared, subject) {
        return Err(Abort::Close);
    }
    // The router answers before the versions are known to the answer.
    let mut headers = if reply.refused_by_router { HeaderMap::new() } else { versions };
    if let Some(location) = reply.location.and_then(|location| HeaderValue::try_from(location).ok()) {
        headers.insert(header::LOCATION, location);
    }
    Ok(finish(&plan, reply.status, reply.body, &headers))
}

fn answer_is_lost(shared: &Shared, node: Option<(String, Option<String>)>) -> bool {
    let Some((uuid, name)) = node else { return false };
    let wanted = |effect: &Effect| (*effect == Effect::AnswerLost).then_some(());
    shared.fleet().faults.take(&uuid, name.as_deref(), wanted).is_some()
}

fn version_headers(shared: &Shared, version: Option<Microversion>) -> HeaderMap {
    let number = |version: Microversion| HeaderValue::try_from(version.to_string()).ok();
    let values = [
        (MINIMUM, number(Microversion::MIN)),
        (MAXIMUM, number(shared.newest)),
        (VERSION, version.and_then(number)),
    ];
    values.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// `http_basic` guards everything but the roots, which tell the versions.
fn authorise(shared: &Shared, call: &Call, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some((username, password)) = &shared.credentials else { return Ok(()) };
    if call.path.is_empty() || call.path == ["v1"] {
        return Ok(());
    }
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (kind, token) = header.ok_or(Refusal::CredentialsMissing)?.split_once(' ').unwrap_or_default();
    if !kind.eq_ignore_ascii_case("basic") {
        return Err(Refusal::CredentialsKind(kind.to_owned()));
    }
    let given = STANDARD.decode(token.trim()).map_err(|_| Refusal::CredentialsWrong)?;
    if given == format!("{username}:{password}").into_bytes() {
        Ok(())
    } else {
        Err(Refusal::CredentialsWrong)
    }
}

fn injected(
    code: u16,
    body: &str,
    headers: &std::collections::BTreeMap<String, String>,
) -> Response<SimBody> {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let parsed = headers.iter().filter_map(|(name, value)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    });
    let body = (!body.is_empty()).then(|| Bytes::from(body.to_owned()));
    respond(status, body.map(|body| SimBody::Full(Some(body))), &parsed.collect())
}

/// The answer as rules leave it.
fn finish(plan: &Plan, status: StatusCode, body: Option<Value>, headers: &HeaderMap) -> Response<SimBody> {
    let body = body.map(|mut body| {
        for patch in &plan.merges {
            merge(&mut body, patch);
        }
        let bytes = Bytes::from(body.to_string());
        match (plan.truncate, plan.drip) {
            (Some(after), _) => SimBody::truncated(&bytes, after),
            (None, Some(rate)) => SimBody::drip(bytes, rate),
            (None, None) => SimBody::Full(Some(bytes)),
        }
    });
    respond(status, body, headers)
}

fn respond(status: StatusCode, body: Option<SimBody>, headers: &HeaderMap) -> Response<SimBody> {
    let with_body = body.is_some();
    let mut response = Response::new(body.unwrap_or(SimBody::Full(None)));
    *response.status_mut() = status;
    let map = response.headers_mut();
    if with_body {
        map.insert(header::CONTENT_TYPE, JSON);
    }
    map.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    if let Ok(id) = HeaderValue::try_from(format!("req-{}", Uuid::new_v4())) {
        map.insert(REQUEST_ID, id);
    }
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn targets_are_decoded() {
        let call = Call::new(
            Method::GET,
            "/v1/nodes/a%7Eb/?fault=power+failure&fields=uuid%2Cname",
            Vec::new(),
            Microversion::MAX,
        );
        assert_eq!(call.path, ["v1", "nodes", "a~b"]);
        assert_eq!(call.query[0], ("fault".to_owned(), "power failure".to_owned()));
        assert_eq!(call.query[1].1, "uuid,name");
        assert_eq!(decoded("100%"), "100%");
    }

    #[test]
    fn logged_bodies_hold_no_secrets() {
        for body in [
            json!({"driver_info": {"redfish_password": "planted"}}),
            json!({"target": "active", "configdrive": {"user_data": "planted"}}),
            json!([{"op": "add", "path": "/driver_info/redfish_password", "value": "planted"}]),
            json!([{"op": "add", "path": "/driver_info", "value": {"redfish_password": "planted"}}]),
        ] {
            let shown = logged(body.to_string().as_bytes()).to_string();
            assert!(!shown.contains("planted"), "{shown}");
        }
    }
}
