//! Faults by rule: which requests go wrong, how, and how often.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

/// One rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which requests.
    #[serde(default)]
    pub selector: Selector,
    /// What happens to them.
    pub action: Action,
    /// How many times more; `None` is without end. A rule whose count is used up does nothing.
    #[serde(default)]
    pub remaining: Option<u32>,
}

/// Which requests a rule applies to. Everything that is given must match.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Selector {
    /// The method, such as `GET`; any if absent.
    pub method: Option<String>,
    /// A glob over the canonical path: `*` stands for anything within a segment, `**` for anything. It is matched with the query where
    /// it contains a `?`. Any if absent.
    pub path: Option<String>,
    /// Only requests that are not the first of their connection (quirk 1).
    pub reused_connection: bool,
}

/// What a rule does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Action {
    /// Answers with this status before credentials are looked at.
    Status {
        /// The status code.
        code: u16,
        /// The body; empty if absent.
        #[serde(default)]
        body: String,
        /// Further headers, such as `Retry-After`.
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// Waits first, `mean` ± up to `jitter`, both in milliseconds.
    #[serde(rename_all = "kebab-case")]
    Latency {
        /// Milliseconds.
        mean_ms: u64,
        /// Milliseconds.
        #[serde(default)]
        jitter_ms: u64,
    },
    /// Answers 200 with this body in place of the resource.
    #[serde(rename_all = "kebab-case")]
    Replace {
        /// The body.
        body: String,
        /// `application/json` if absent.
        #[serde(default = "json_type")]
        content_type: String,
    },
    /// Merges this into the answer (RFC 7396: `null` removes).
    Merge(Value),
    /// Closes the connection after this many bytes of the body.
    Truncate {
        /// Bytes of body that are still sent.
        after: usize,
    },
    /// Resets the TCP connection without an answer.
    Reset,
    /// Closes the TCP connection without an answer.
    Close,
    /// Restarts the BMC in place of an answer: connections end, sessions are lost.
    RestartBmc,
    /// Sends the body this slowly.
    #[serde(rename_all = "kebab-case")]
    Drip {
        /// Bytes in a second.
        bytes_per_second: usize,
    },
    /// Answers with a valid JSON document of about this size, generated while it is sent.
    Endless {
        /// Bytes.
        bytes: u64,
    },
    /// Answers with a redirection.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        #[serde(default = "temporary_redirect")]
        code: u16,
        /// Where to; may be another origin.
        location: String,
    },
}

fn json_type() -> String {
    "application/json".to_owned()
}

fn temporary_redirect() -> u16 {
    307
}

impl Fault {
    /// A rule for requests of any method whose path matches the glob.
    pub fn on(path: &str, action: Action) -> Self {
        let selector = Selector { path: Some(path.to_owned()), ..Selector::default() };
        Self { selector, action, remaining: None }
    }

    /// The same rule for this method only.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.selector.method = Some(method.to_owned());
        self
    }

    /// The same rule, so many times only.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.remaining = Some(count);
        self
    }

    /// The same rule for requests that reuse a connection.
    #[must_use]
    pub fn on_reused_connections(mut self) -> Self {
        self.selector.reused_connection = true;
        self
    }
}

impl Action {
    /// A status with a body and no further headers.
    pub fn status(code: u16, body: impl Into<String>) -> Self {
        Self::Status { code, body: body.into(), headers: BTreeMap::new() }
    }

    /// A status with one header and no body, such as 503 with `Retry-After`.
    pub fn status_with_header(code: u16, name: &str, value: &str) -> Self {
        let headers = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        Self::Status { code, body: String::new(), headers }
    }

    /// A body of any kind in place of the resource.
    pub fn replace(body: impl Into<String>, content_type: &str) -> Self {
        Self::Replace { body: body.into(), content_type: content_type.to_owned() }
    }

    /// A JSON document of this many objects within each other in place of the resource.
    pub fn nested(depth: usize) -> Self {
        Self::replace(format!("{}null{}", "{\"a\":".repeat(depth), "}".repeat(depth)), "application/json")
    }

    /// A latency without jitter.
    pub fn latency(duration: Duration) -> Self {
        Self::Latency { mean_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), jitter_ms: 0 }
    }
}

impl Selector {
    fn matches(&self, method: &Method, path: &str, query: Option<&str>, reused: bool) -> bool {
        if self.reused_connection && !reused {
            return false;
        }
        if self.method.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(method.as_str())) {
            return false;
        }
        match (&self.path, query) {
            (None, _) => true,
            (Some(glob), Some(query)) if glob.contains('?') => glob_matches(glob, &format!("{path}?{query}")),
            (Some(glob), _) => glob_matches(glob, path),
        }
    }
}

/// Whether a text matches a glob of `*` (within a segment) and `**` (across segments).
pub(crate) fn glob_matches(glob: &str, text: &str) -> bool {
    fn go(glob: &[u8], text: &[u8]) -> bool {
        match glob {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=text.len()).any(|skip| go(rest, &text[skip..])),
            [b'*', rest @ ..] => {
                let segment = text.iter().take_while(|b| **b != b'/').count();
                (0..=segment).any(|skip| go(rest, &text[skip..]))
            }
            [first, rest @ ..] => {
                text.split_first().is_some_and(|(head, tail)| head == first && go(rest, tail))
            }
        }
    }
    go(glob.as_bytes(), text.as_bytes())
}

/// Names a rule, to remove it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultId(u64);

/// The rules of a BMC or a site; changed while it runs.
#[derive(Debug, Default)]
pub struct Faults {
    /// Read first: most BMCs have no rule at all.
    count: AtomicUsize,
    rules: RwLock<Rules>,
}

#[derive(Debug, Default)]
struct Rules {
    next: u64,
    list: Vec<(FaultId, Fault)>,
}

impl Faults {
    /// Adds a rule; rules apply in the order in which they were added.
    pub fn add(&self, fault: Fault) -> FaultId {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let id = FaultId(rules.next);
        rules.next += 1;
        rules.list.push((id, fault));
        self.count.store(rules.list.len(), Ordering::Release);
        id
    }

    /// Removes a rule; false if there was none.
    pub fn remove(&self, id: FaultId) -> bool {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        let before = rules.list.len();
        rules.list.retain(|(other, _)| *other != id);
        self.count.store(rules.list.len(), Ordering::Release);
        rules.list.len() != before
    }

    /// Removes all rules.
    pub fn clear(&self) {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        rules.list.clear();
        self.count.store(0, Ordering::Release);
    }

    /// The rules as they stand, counts included.
    pub fn list(&self) -> Vec<(FaultId, Fault)> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).list.clone()
    }

    /// Takes what applies to this request into the plan, and counts it down. After an answer is decided, later rules that would decide it
    /// otherwise are left for the next request.
    pub(crate) fn take(
        &self,
        plan: &mut Plan,
        method: &Method,
        path: &str,
        query: Option<&str>,
        reused: bool,
    ) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        for (_, fault) in &mut rules.list {
            if fault.remaining == Some(0) || !fault.selector.matches(method, path, query, reused) {
                continue;
            }
            if plan.accept(&fault.action) {
                fault.remaining = fault.remaining.map(|left| left - 1);
            }
        }
    }
}

/// What the rules make of one request.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) delay_ms: u64,
    pub(crate) answer: Option<Action>,
    pub(crate) merges: Vec<Value>,
    pub(crate) truncate: Option<usize>,
    pub(crate) drip: Option<usize>,
}

impl Plan {
    fn accept(&mut self, action: &Action) -> bool {
        match action {
            Action::Latency { mean_ms, jitter_ms } => self.delay_ms += jittered(*mean_ms, *jitter_ms),
            Action::Merge(patch) => self.merges.push(patch.clone()),
            Action::Truncate { after } => self.truncate = Some(*after),
            Action::Drip { bytes_per_second } => self.drip = Some(*bytes_per_second),
            decided if self.answer.is_none() => self.answer = Some(decided.clone()),
            _ => return false,
        }
        true
    }
}

fn jittered(mean: u64, jitter: u64) -> u64 {
    if jitter == 0 {
        return mean;
    }
    let mut bytes = [0; 8];
    // Without randomness there is no jitter; a latency is still a latency.
    if getrandom::fill(&mut bytes).is_err() {
        return mean;
    }
    (mean + u64::from_le_bytes(bytes) % (2 * jitter + 1)).saturating_sub(jitter)
}

/// Applies a JSON merge patch (RFC 7396).
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(map) = target {
        for (key, value) in patch {
            if value.is_null() {
                map.remove(key);
            } else {
                merge(map.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

/// The filler of an endless answer.
pub(crate) fn endless_chunk() -> Bytes {
    static FILLER: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    Bytes::from_static(&FILLER)
}
