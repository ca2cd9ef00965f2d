//! A typed client of the cell's API.

use std::time::Duration;

use cell::api::types::{
    AcceptRequest, Acceptance, AgentTokenRequest, Applied, ClassItem, EventItem, FirmwareCheck, GpuDetail,
    GpuItem, Machine, MachineDetail, NewAgentToken, NewToken, Page, PlanRequest, Publication, Secret,
    TokenItem, TokenRequest, Version, Why,
};
use domain::{Digest, Kind, Name, Plan, Problem};
use reqwest::{Method, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::args::Global;
use crate::context::{self, Place};
use crate::errors::{self, Failure, Outcome};
use crate::exit::Exit;

/// For all calls but watches.
const PATIENCE: Duration = Duration::from_mins(1);
const CONNECT: Duration = Duration::from_secs(5);

/// Talks to one cell.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<header::HeaderValue>,
}

/// What the cell answers when it refuses (RFC 9457, with our codes).
#[derive(Deserialize)]
struct Details {
    #[serde(flatten)]
    first: Option<Problem>,
    #[serde(default)]
    problems: Vec<Problem>,
}

impl Client {
    /// The cell that flags, environment and contexts name.
    pub(crate) fn of(global: &Global) -> Outcome<Self> {
        Self::new(&context::place(global)?)
    }

    /// The cell at a place.
    pub(crate) fn new(place: &Place) -> Outcome<Self> {
        let wrong = |why: &str| {
            Failure::new("input.address", format!("{:?} is not the address of a cell: {why}", place.server))
        };
        let base = Url::parse(&place.server).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(wrong("write http://HOST:PORT or https://HOST"));
        }
        if base.scheme() == "http" && place.token.is_some() && !is_loopback(&base) {
            errors::warn(&errors::problem(
                "cell.plain-http",
                format!("the token goes to {base} unencrypted"),
            ));
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("bailiwick/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT);
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        if let Some(pem) = &place.ca {
            let authorities = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| {
                Failure::new("context.malformed", format!("the CA file cannot be used: {error}"))
            })?;
            builder = builder.tls_certs_only(authorities);
        }
        let http =
            builder.build().map_err(|error| Failure::new("runtime", format!("no HTTP client: {error}")))?;
        let token = match &place.token {
            Some(token) => Some(bearer(token)?),
            None => None,
        };
        Ok(Self { http, base, token })
    }

    /// Sends a request; a refusal of the cell becomes a failure.
    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Vec<u8>>,
        patience: Option<Duration>,
    ) -> Outcome<Response> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token.clone());
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        if let Some(patience) = patience {
            request = request.timeout(patience);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Outcome<T> {
        let response = self.send(method, path, query, body, Some(PATIENCE)).await?;
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.strange(&format!("an answer that does not read: {error}")))
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Outcome<T> {
        self.call(Method::GET, path, &[], None).await
    }

    async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &[&str], body: &B) -> Outcome<T> {
        let body = serde_json::to_vec(body).map_err(|error| {
            Failure::new("input.unreadable", format!("the request cannot be written: {error}"))
        })?;
        self.call(Method::POST, path, &[], Some(body)).await
    }

    /// All items of a list, page by page.
    async fn list<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Outcome<Vec<T>> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            query.push(("limit", "1000"));
            query.extend(after.as_deref().map(|after| ("after", after)));
            let Page { items, next } = self.call(Method::GET, path, &query, None).await?;
            all.extend(items);
            if next.is_none() || next == after {
                return Ok(all);
            }
            after = next;
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut reason: &dyn std::error::Error = error;
        while let Some(source) = reason.source() {
            reason = source;
        }
        let place = place(&self.base);
        if error.is_timeout() && !error.is_connect() {
            return Failure::new("cell.timeout", format!("the cell at {place} did not answer in time"));
        }
        Failure::new("cell.unreachable", format!("no cell answers at {place}: {reason}"))
    }

    fn strange(&self, what: &str) -> Failure {
        Failure::new("cell.answer", format!("{} gave {what}", place(&self.base)))
    }

    async fn refusal(&self, response: Response) -> Failure {
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        let Ok(Details { first, problems }) = serde_json::from_slice(&body) else {
            return self.strange(&format!("status {status} without problem details"));
        };
        let problems = if problems.is_empty() { first.into_iter().collect() } else { problems };
        if problems.is_empty() {
            return self.strange(&format!("status {status} without a code"));
        }
        match Failure::all(problems) {
            Failure::Problems { problems, exit: Exit::Failed } => {
                Failure::Problems { problems, exit: by_status(status) }
            }
            failure => failure,
        }
    }
}

/// The routes.
impl Client {
    pub(crate) async fn version(&self) -> Outcome<Version> {
        self.get(&["version"]).await
    }

    pub(crate) async fn plan(&self, request: &PlanRequest) -> Outcome<Plan> {
        self.post(&["plans"], request).await
    }

    pub(crate) async fn kept_plan(&self, digest: &Digest) -> Outcome<Plan> {
        self.get(&["plans", &digest.to_string()]).await
    }

    pub(crate) async fn apply(&self, digest: &Digest) -> Outcome<Applied> {
        self.call(Method::POST, &["plans", &digest.to_string(), "apply"], &[], None).await
    }

    pub(crate) async fn machines(&self) -> Outcome<Vec<Machine>> {
        self.list(&["machines"], &[]).await
    }

    pub(crate) async fn machine(&self, name: &str) -> Outcome<MachineDetail> {
        self.get(&["machines", name]).await
    }

    pub(crate) async fn why(&self, name: &str) -> Outcome<Why> {
        self.get(&["machines", name, "why"]).await
    }

    pub(crate) async fn history(&self, name: &str) -> Outcome<Vec<EventItem>> {
        self.get(&["machines", name, "history"]).await
    }

    pub(crate) async fn erasures(&self, name: &str) -> Outcome<Vec<domain::Erasure>> {
        self.get(&["machines", name, "erasures"]).await
    }

    pub(crate) async fn refresh(&self, name: &str) -> Outcome {
        let _: Value = self.call(Method::POST, &["machines", name, "refresh"], &[], None).await?;
        Ok(())
    }

    pub(crate) async fn acceptable_gpus(&self, machine: &Name) -> Outcome<Acceptance> {
        self.get(&["machines", machine.as_str(), "accepted-gpus"]).await
    }

    pub(crate) async fn accept_gpus(&self, machine: &Name, request: &AcceptRequest) -> Outcome<Acceptance> {
        self.post(&["machines", machine.as_str(), "accepted-gpus"], request).await
    }

    pub(crate) async fn gpus(&self) -> Outcome<Vec<GpuItem>> {
        self.list(&["gpus"], &[]).await
    }

    pub(crate) async fn gpu(&self, name: &str) -> Outcome<GpuDetail> {
        self.get(&["gpus", name]).await
    }

    pub(crate) async fn classes(&self) -> Outcome<Vec<ClassItem>> {
        self.list(&["classes"], &[]).await
    }

    pub(crate) async fn declarations(&self, kind: Kind) -> Outcome<Vec<Value>> {
        self.list(&["declarations"], &[("kind", kind.as_str())]).await
    }

    pub(crate) async fn declaration(&self, kind: Kind, name: &str) -> Outcome<Value> {
        self.get(&["declarations", kind.as_str(), name]).await
    }

    pub(crate) async fn publications(&self) -> Outcome<Vec<Publication>> {
        self.get(&["publications"]).await
    }

    pub(crate) async fn firmware_check(&self, selector: &str) -> Outcome<Vec<FirmwareCheck>> {
        self.list(&["firmware", "check"], &[("selector", selector)]).await
    }

    pub(crate) async fn tokens(&self) -> Outcome<Vec<TokenItem>> {
        self.get(&["tokens"]).await
    }

    pub(crate) async fn create_token(&self, request: &TokenRequest) -> Outcome<NewToken> {
        self.post(&["tokens"], request).await
    }

    pub(crate) async fn agent_token(
        &self,
        machine: &Name,
        request: &AgentTokenRequest,
    ) -> Outcome<NewAgentToken> {
        self.post(&["machines", machine.as_str(), "agent-token"], request).await
    }

    pub(crate) async fn revoke_token(&self, name: &str) -> Outcome {
        self.send(Method::DELETE, &["tokens", name], &[], None, Some(PATIENCE)).await.map(drop)
    }

    /// Id of the last event whose kind begins so; 0 where there is none.
    pub(crate) async fn last_event_of(&self, prefix: &str) -> Outcome<i64> {
        let events: Vec<EventItem> = self.list(&["events"], &[]).await?;
        Ok(events.iter().rev().find(|event| event.kind.starts_with(prefix)).map_or(0, |event| event.id))
    }

    /// Events from now on.
    pub(crate) async fn watch(&self) -> Outcome<Events> {
        let response = self.send(Method::GET, &["watch"], &[("after", "latest")], None, None).await?;
        Ok(Events { response, pending: Vec::new() })
    }
}

/// A stream of server-sent events.
pub(crate) struct Events {
    response: Response,
    pending: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the cell ends the stream.
    pub(crate) async fn next(&mut self) -> Outcome<Option<EventItem>> {
        loop {
            while let Some(message) = take_message(&mut self.pending) {
                if let Some(event) = data(&message).and_then(|data| serde_json::from_str(&data).ok()) {
                    return Ok(Some(event));
                }
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.pending.extend_from_slice(&chunk),
                Ok(None) => return Ok(None),
                Err(error) => {
                    return Err(Failure::new("cell.unreachable", format!("the cell went away: {error}")));
                }
            }
        }
    }
}

/// Takes one whole message off the buffer: they end with an empty line.
fn take_message(pending: &mut Vec<u8>) -> Option<String> {
    let end = pending.windows(2).position(|pair| pair == b"\n\n")?;
    let rest = pending.split_off(end + 2);
    let message = std::mem::replace(pending, rest);
    Some(String::from_utf8_lossy(&message).into_owned())
}

/// The data of a message; comments (keep-alives) have none.
fn data(message: &str) -> Option<String> {
    let lines: Vec<&str> = message
        .lines()
        .filter_map(|line| line.strip_prefix("data:").map(|data| data.strip_prefix(' ').unwrap_or(data)))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn bearer(token: &Secret) -> Outcome<header::HeaderValue> {
    let text = Secret(format!("Bearer {}", token.0));
    let mut value = header::HeaderValue::from_str(&text.0)
        .map_err(|_| Failure::new("context.malformed", "the token file does not hold a token"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn by_status(status: StatusCode) -> Exit {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => Exit::Refused,
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => {
            Exit::BadInput
        }
        StatusCode::SERVICE_UNAVAILABLE => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Scheme, host and port, for people.
fn place(base: &Url) -> String {
    base.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_whole_however_the_bytes_are_cut() {
        let stream = b": keep-alive\n\nid: 7\nevent: machine.enrolled\ndata: {\"id\":\ndata: 7}\n\nid: 8\n";
        let mut pending = Vec::new();
        let mut found = Vec::new();
        for byte in stream {
            pending.push(*byte);
            found.extend(take_message(&mut pending).map(|message| data(&message)));
        }
        assert_eq!(found, [None, Some("{\"id\":\n7}".to_owned())]);
        assert_eq!(pending, b"id: 8\n");
    }

    #[test]
    fn only_loopback_is_loopback() {
        for (url, expected) in [
            ("http://127.0.0.1:8460", true),
            ("http://[::1]:1", true),
            ("http://localhost", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
