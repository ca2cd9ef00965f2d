//! From request to answer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::access::{LoginRefused, session_resource};
use crate::actions;
use crate::behaviour::{Behaviour, Etags};
use crate::bmc::Bmc;
use crate::body::SimBody;
use crate::expand::{self, Query, QueryRefused};
use crate::fault::{Action, Plan, merge};
use crate::messages;
use crate::power::ResetRefused;
use crate::tree::{ROOT, canonical};

/// How a connection ends when a rule says so.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Abort {
    /// By TCP RST.
    #[error("a rule resets this connection")]
    Reset,
    /// By TCP FIN, without an answer.
    #[error("a rule closes this connection")]
    Close,
}

/// An answer before faults change it.
pub(crate) struct Answer {
    status: StatusCode,
    body: Bytes,
    headers: HeaderMap,
    restarts: bool,
}

/// On an answer after which the BMC restarts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restarts;

/// Status and body of a refusal.
pub(crate) type Refusal = (StatusCode, Value);

/// Requests larger than this are refused: no Redfish request that is served here is.
const REQUEST_LIMIT: usize = 1 << 20;
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const ODATA_VERSION: HeaderName = HeaderName::from_static("odata-version");

impl Answer {
    pub(crate) fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(ODATA_VERSION, HeaderValue::from_static("4.0"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, JSON);
        }
        Self { status, body, headers, restarts: false }
    }

    pub(crate) fn json(status: StatusCode, body: &Value) -> Self {
        Self::new(status, body.to_string())
    }

    pub(crate) fn with(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        // A value that is no header value is left out: rules may hold anything.
        if let Ok(value) = HeaderValue::from_bytes(value.as_ref().as_bytes()) {
            self.headers.insert(name, value);
        }
        self
    }

    /// The same answer, after which the BMC restarts.
    pub(crate) fn then_restart(mut self) -> Self {
        self.restarts = true;
        self.with(header::CONNECTION, "close")
    }

    fn unauthorized() -> Self {
        Self::json(StatusCode::UNAUTHORIZED, &messages::no_valid_session())
            .with(header::WWW_AUTHENTICATE, "Basic realm=\"Redfish\"")
    }

    fn not_allowed(allow: &str) -> Self {
        Self::json(StatusCode::METHOD_NOT_ALLOWED, &messages::operation_not_allowed())
            .with(header::ALLOW, allow)
    }
}

/// Answers one request.
pub(crate) async fn handle(
    bmc: &Bmc,
    request: Request<Incoming>,
    reused: bool,
) -> Result<Response<SimBody>, Abort> {
    let _in_flight = bmc.counting.enter();
    bmc.record(request.method(), request.uri(), request.headers());
    let path = decoded(canonical(request.uri().path()));
    let path = canonical(&path).to_owned();
    let query = request.uri().query().map(decoded);
    let plan = bmc.plan(request.method(), &path, query.as_deref(), reused);
    wait(bmc, plan.delay_ms).await;
    match &plan.answer {
        Some(Action::Reset) => return Err(Abort::Reset),
        Some(Action::Close) => return Err(Abort::Close),
        Some(Action::RestartBmc) => {
            bmc.restart();
            return Err(Abort::Reset);
        }
        Some(Action::Status { code, body, headers }) => {
            return Ok(finish(bmc, &plan, injected(*code, body, headers)));
        }
        Some(Action::Redirect { code, location }) => {
            let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::TEMPORARY_REDIRECT);
            return Ok(finish(bmc, &plan, Answer::new(status, "").with(header::LOCATION, location)));
        }
        _ => {}
    }
    let behaviour = bmc.behaviour();
    if !open(bmc, &behaviour, request.method(), &path) {
        let Some(who) = bmc.access.admits(request.headers(), &behaviour) else {
            return Ok(finish(bmc, &plan, Answer::unauthorized()));
        };
        if let Some(refused) = actions::forbidden(bmc, &behaviour, &who, request.method(), &path) {
            return Ok(finish(bmc, &plan, Answer::json(StatusCode::FORBIDDEN, &refused)));
        }
    }
    match &plan.answer {
        Some(Action::Replace { body, content_type }) => {
            let answer =
                Answer::new(StatusCode::OK, body.clone()).with(header::CONTENT_TYPE, content_type.as_str());
            return Ok(finish(bmc, &plan, answer));
        }
        Some(Action::Endless { bytes }) => {
            let mut response = Response::new(SimBody::endless(*bytes));
            response.headers_mut().insert(header::CONTENT_TYPE, JSON);
            return Ok(response);
        }
        _ => {}
    }
    let offers_gzip = offers_gzip(request.headers());
    let mut answer = match *request.method() {
        Method::GET | Method::HEAD => get(bmc, &behaviour, &path, query.as_deref(), request.headers()),
        Method::POST => post(bmc, &behaviour, &path, request).await,
        Method::PATCH => patch(bmc, &behaviour, &path, request).await,
        Method::DELETE => delete(bmc, &behaviour, &path),
        _ => Answer::not_allowed("GET, HEAD, POST, PATCH, DELETE"),
    };
    if behaviour.compresses && offers_gzip {
        compress(&mut answer);
    }
    Ok(finish(bmc, &plan, answer))
}

/// Whether this may be asked by anyone (DSP0266, "Resource and operation authentication requirements").
fn open(bmc: &Bmc, behaviour: &Behaviour, method: &Method, path: &str) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match path {
        "/redfish" => true,
        ROOT | "/redfish/v1/odata" | "/redfish/v1/$metadata" => reads && !behaviour.root_requires_credentials,
        _ => *method == Method::POST && is_session_collection(bmc, path),
    }
}

fn is_session_collection(bmc: &Bmc, path: &str) -> bool {
    let sessions = bmc.tree().sessions_path();
    path == sessions || path.strip_suffix("/Members") == Some(sessions)
}

async fn wait(bmc: &Bmc, milliseconds: u64) {
    if milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(milliseconds).mul_f64(bmc.latency_scale())).await;
    }
}

fn injected(code: u16, body: &str, headers: &std::collections::BTreeMap<String, String>) -> Answer {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = Answer::new(status, body.to_owned());
    for (name, value) in headers {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            answer = answer.with(name, value);
        }
    }
    answer
}

fn finish(bmc: &Bmc, plan: &Plan, mut answer: Answer) -> Response<SimBody> {
    if !plan.merges.is_empty()
        && let Ok(mut value) = serde_json::from_slice::<Value>(&answer.body)
    {
        plan.merges.iter().for_each(|patch| merge(&mut value, patch));
        answer.body = Bytes::from(value.to_string());
    }
    bmc.counting.bytes.fetch_add(answer.body.len() as u64, Ordering::Relaxed);
    let body = match (plan.truncate, plan.drip) {
        (Some(after), _) => SimBody::truncated(&answer.body, after),
        (None, Some(bytes_per_second)) => SimBody::drip(answer.body, bytes_per_second),
        (None, None) => SimBody::Full(Some(answer.body)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    if answer.restarts {
        response.extensions_mut().insert(Restarts);
    }
    if !bmc.clock_skew().is_zero()
        && let Ok(date) = HeaderValue::from_str(&bmc.clock.http_date())
    {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

fn get(bmc: &Bmc, behaviour: &Behaviour, path: &str, query: Option<&str>, headers: &HeaderMap) -> Answer {
    let found = match query {
        // Recorded pages are found by their query; anything else is worked out.
        Some(query) => {
            bmc.shown(&format!("{path}?{query}")).map(Ok).or_else(|| queried(bmc, behaviour, path, query))
        }
        None => bmc.shown(path).map(Ok),
    };
    let (body, recorded) = match found {
        Some(Ok(found)) => found,
        Some(Err(QueryRefused::Unsupported(name))) => {
            return Answer::json(StatusCode::NOT_IMPLEMENTED, &messages::query_not_supported(&name));
        }
        Some(Err(QueryRefused::Invalid(name))) => {
            return Answer::json(StatusCode::BAD_REQUEST, &messages::query_not_supported(&name));
        }
        None => return well_known(path),
    };
    let etag = etag(behaviour.etags, &body, recorded);
    let mut answer = Answer::new(StatusCode::OK, body);
    if let Some(etag) = etag {
        if headers.get(header::IF_NONE_MATCH).is_some_and(|known| lists(known, &etag)) {
            answer = Answer::new(StatusCode::NOT_MODIFIED, "");
        }
        answer = answer.with(header::ETAG, etag);
    }
    match actions::allow(bmc, behaviour, path) {
        Some(methods) => answer.with(header::ALLOW, methods),
        None => answer,
    }
}

type Found<'a> = Result<(Bytes, Option<&'a str>), QueryRefused>;

fn queried<'a>(bmc: &'a Bmc, behaviour: &Behaviour, path: &str, query: &str) -> Option<Found<'a>> {
    let (plain, etag) = bmc.shown(path)?;
    let query = match Query::parse(query) {
        Ok(query) if query == Query::default() => return Some(Ok((plain, etag))),
        Ok(query) => query,
        Err(refused) => return Some(Err(refused)),
    };
    // A recorded body that is no JSON has nothing to expand.
    let Ok(value) = serde_json::from_slice(&plain) else { return Some(Ok((plain, etag))) };
    let applied = expand::apply(bmc, behaviour, path, value, &query);
    Some(applied.map(|value| (Bytes::from(value.to_string()), None)))
}

/// What every service has and no recording holds.
fn well_known(path: &str) -> Answer {
    match path {
        "/redfish" => Answer::json(StatusCode::OK, &json!({"v1": "/redfish/v1/"})),
        "/redfish/v1/odata" => Answer::json(
            StatusCode::OK,
            &json!({"@odata.context": "/redfish/v1/$metadata", "value": [
                {"name": "Service", "kind": "Singleton", "url": "/redfish/v1/"}
            ]}),
        ),
        "/redfish/v1/$metadata" => {
            let edmx = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
                <edmx:Edmx xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\" Version=\"4.0\"></edmx:Edmx>";
            Answer::new(StatusCode::OK, edmx).with(header::CONTENT_TYPE, "application/xml")
        }
        _ => Answer::json(StatusCode::NOT_FOUND, &messages::not_found(path)),
    }
}

async fn body_of(request: Request<Incoming>) -> Option<Value> {
    sent(request).await.map(|body| body.unwrap_or_else(|| json!({})))
}

/// The body, if there is one; `None` where it is no JSON object.
async fn sent(request: Request<Incoming>) -> Option<Option<Value>> {
    let body = Limited::new(request.into_body(), REQUEST_LIMIT).collect().await.ok()?.to_bytes();
    if body.is_empty() {
        return Some(None);
    }
    serde_json::from_slice(&body).ok().filter(Value::is_object).map(Some)
}

async fn post(bmc: &Bmc, behaviour: &Behaviour, path: &str, request: Request<Incoming>) -> Answer {
    if is_session_collection(bmc, path) {
        return match body_of(request).await {
            Some(body) => log_in(bmc, behaviour, &body),
            None => Answer::json(StatusCode::BAD_REQUEST, &messages::malformed()),
        };
    }
    if let Some(system) = path.strip_suffix("/Actions/ComputerSystem.Reset") {
        if bmc.shown(system).is_none() {
            return Answer::json(StatusCode::NOT_FOUND, &messages::not_found(path));
        }
        return match body_of(request).await {
            Some(body) => reset(bmc, system, &body),
            None => Answer::json(StatusCode::BAD_REQUEST, &messages::malformed()),
        };
    }
    if actions::takes(bmc, path) {
        return match sent(request).await {
            Some(body) => actions::post(bmc, behaviour, path, body.as_ref()),
            None => Answer::json(StatusCode::BAD_REQUEST, &messages::malformed()),
        };
    }
    match bmc.shown(path) {
        Some(_) => Answer::not_allowed("GET, HEAD, PATCH"),
        None => Answer::json(StatusCode::NOT_FOUND, &messages::not_found(path)),
    }
}

fn log_in(bmc: &Bmc, behaviour: &Behaviour, body: &Value) -> Answer {
    let (Some(username), Some(password)) = (body["UserName"].as_str(), body["Password"].as_str()) else {
        return Answer::json(StatusCode::BAD_REQUEST, &messages::malformed());
    };
    let path = bmc.tree().sessions_path();
    match bmc.access.log_in(username, password, behaviour) {
        Ok(session) => {
            Answer::json(StatusCode::CREATED, &session_resource(path, session.id, &session.username))
                .with(HeaderName::from_static("x-auth-token"), &session.token)
                .with(header::LOCATION, format!("{path}/{}", session.id))
        }
        Err(LoginRefused::Credentials) => Answer::unauthorized(),
        Err(LoginRefused::PoolExhausted) => {
            Answer::json(StatusCode::SERVICE_UNAVAILABLE, &messages::too_many_sessions())
        }
    }
}

fn reset(bmc: &Bmc, system: &str, body: &Value) -> Answer {
    let kind = body["ResetType"].as_str().unwrap_or("ForceRestart");
    match bmc.reset(system, kind) {
        Ok(()) => Answer::new(StatusCode::NO_CONTENT, ""),
        Err(ResetRefused::Conflict) => Answer::json(StatusCode::CONFLICT, &messages::invalid_for_state()),
        Err(ResetRefused::UnknownKind) => {
            Answer::json(StatusCode::BAD_REQUEST, &messages::parameter_not_supported(kind, "ResetType"))
        }
    }
}

async fn patch(bmc: &Bmc, behaviour: &Behaviour, path: &str, request: Request<Incoming>) -> Answer {
    let Some((body, recorded)) = bmc.shown(path) else {
        return Answer::json(StatusCode::NOT_FOUND, &messages::not_found(path));
    };
    let etag = etag(behaviour.etags, &body, recorded);
    match request.headers().get(header::IF_MATCH) {
        // If-Match compares strongly (RFC 9110 §13.1.1): a weak or empty ETag matches nothing (quirks 5, 6).
        Some(known) => {
            let strong = etag.as_deref().filter(|etag| !etag.starts_with("W/") && *etag != "\"\"");
            if known.as_bytes() != b"*" && !strong.is_some_and(|etag| lists(known, etag)) {
                return Answer::json(StatusCode::PRECONDITION_FAILED, &messages::precondition_failed());
            }
        }
        None if behaviour.requires_if_match => {
            return Answer::json(StatusCode::PRECONDITION_REQUIRED, &messages::precondition_required());
        }
        None => {}
    }
    let Some(patch) = body_of(request).await else {
        return Answer::json(StatusCode::BAD_REQUEST, &messages::malformed());
    };
    if let Some(answer) = actions::patch(bmc, behaviour, path, &patch) {
        return answer;
    }
    bmc.merge_resource(path, &patch);
    match bmc.resource(path) {
        Some(value) => Answer::json(StatusCode::OK, &value),
        None => Answer::json(StatusCode::NOT_FOUND, &messages::not_found(path)),
    }
}

fn delete(bmc: &Bmc, behaviour: &Behaviour, path: &str) -> Answer {
    if let Some(answer) = actions::delete(bmc, behaviour, path) {
        return answer;
    }
    if let Some(id) = path.strip_prefix(bmc.tree().sessions_path()).and_then(|rest| rest.strip_prefix('/')) {
        return if bmc.access.log_out(id) {
            Answer::new(StatusCode::NO_CONTENT, "")
        } else {
            Answer::json(StatusCode::NOT_FOUND, &messages::not_found(path))
        };
    }
    match bmc.shown(path) {
        Some(_) => Answer::not_allowed("GET, HEAD, PATCH"),
        None => Answer::json(StatusCode::NOT_FOUND, &messages::not_found(path)),
    }
}

fn etag(style: Etags, body: &[u8], recorded: Option<&str>) -> Option<String> {
    use std::hash::{DefaultHasher, Hasher as _};
    let tag = || {
        let mut hasher = DefaultHasher::new();
        hasher.write(body);
        format!("{:016x}", hasher.finish())
    };
    match style {
        Etags::Recorded => recorded.map(str::to_owned),
        Etags::Strong => Some(format!("\"{}\"", tag())),
        Etags::Weak => Some(format!("W/\"{}\"", tag())),
        Etags::Empty => Some("\"\"".to_owned()),
        Etags::None => None,
    }
}

/// Whether a list of ETags, or `*`, names this one.
fn lists(header: &HeaderValue, etag: &str) -> bool {
    let Ok(list) = header.to_str() else { return false };
    list.split(',').map(str::trim).any(|known| known == etag || known == "*")
}

fn offers_gzip(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|v| v.contains("gzip"))
}

fn compress(answer: &mut Answer) {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let Ok(body) = encoder.write_all(&answer.body).and_then(|()| encoder.finish()) else { return };
    answer.body = Bytes::from(body);
    answer.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    if let Some(etag) = answer.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok()) {
        // As Apache's mod_deflate does, which BMC vendors put in front (quirk 5).
        let suffixed = etag.strip_suffix('"').map(|open| format!("{open}-gzip\""));
        if let Some(value) = suffixed.and_then(|text| HeaderValue::from_str(&text).ok()) {
            answer.headers.insert(header::ETAG, value);
        }
    }
}

/// A path or query with its percent signs undone; as it is where they mean nothing.
fn decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while i < bytes.len() {
        let code = bytes
            .get(i + 1..i + 3)
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (bytes[i], code) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}
