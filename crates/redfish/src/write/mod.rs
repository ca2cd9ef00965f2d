//! Changing things on a BMC: PATCH, POST and DELETE with the preconditions that BMCs want (quirks 5 to 8), and what they answer.
//!
//! What is sent once too often does harm: a POST never goes out again unless the BMC said that it did not act, or nothing was
//! sent. When that cannot be known the error is [`WriteError::Unsure`], and the caller looks at the effect.

mod error;

use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::client::{Client, Inner};
use crate::error::Error;
use crate::etag;
use crate::guard::Kind;
use crate::limits;
use crate::message::{Meaning, Messages};
use crate::reader::{ReadError, Reader as _};
use crate::retry;
use crate::transport::{Answer, Failure, Request};

pub use error::{Fault, PropertyProblem, WriteError};

/// What came of a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is done.
    Done {
        /// The answer's body, where it had one.
        body: Option<Value>,
        /// What was made, after a POST to a collection.
        location: Option<String>,
    },
    /// The BMC works on it ([`crate::task::follow`]).
    Accepted(Receipt),
}

/// What a BMC gives for work that goes on (202). Everything may be missing (quirk 18).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The task, where the body is one.
    pub task: Option<String>,
    /// The task monitor, from the Location header.
    pub monitor: Option<String>,
    /// When to ask for the first time.
    pub retry_after: Option<Duration>,
}

/// A body to send. It is wiped from memory, for it may hold a password.
pub(crate) struct Payload {
    bytes: Zeroizing<Vec<u8>>,
    /// The names of the properties in it; no other names are ever repeated from an answer.
    names: Vec<String>,
    /// Texts that nothing told to people may contain.
    secrets: Vec<Zeroizing<String>>,
}

impl Payload {
    pub(crate) fn of(body: &Value) -> Self {
        let mut names = Vec::new();
        collect_names(body, &mut names);
        Self { bytes: Zeroizing::new(body.to_string().into_bytes()), names, secrets: Vec::new() }
    }

    /// Plain members and one secret one, written by hand so that the secret is in buffers that are wiped.
    pub(crate) fn with_secret(plain: &[(&str, Value)], name: &str, secret: &str) -> Self {
        let quoted = Zeroizing::new(Value::from(secret).to_string());
        let members: serde_json::Map<String, Value> =
            plain.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let open = Value::Object(members).to_string();
        let comma = if plain.is_empty() { "" } else { "," };
        let start = open.strip_suffix('}').unwrap_or(&open);
        let text = Zeroizing::new(format!("{start}{comma}{}:{}}}", Value::from(name), *quoted));
        let mut names: Vec<String> = plain.iter().map(|(name, _)| (*name).to_owned()).collect();
        names.push(name.to_owned());
        Self {
            bytes: Zeroizing::new(text.as_bytes().to_vec()),
            names,
            secrets: vec![Zeroizing::new(secret.to_owned())],
        }
    }
}

fn collect_names(body: &Value, names: &mut Vec<String>) {
    for (name, value) in body.as_object().into_iter().flatten() {
        names.push(name.clone());
        collect_names(value, names);
    }
}

/// How often a change may go out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Again where the BMC says "not now", and where the connection was lost: the change sets absolute values.
    Freely,
    /// Again where the BMC says "not now"; never after a lost connection.
    UnlessUnsure,
    /// The caller repeats.
    Never,
}

/// One change.
pub(crate) struct Change<'a> {
    pub(crate) method: Method,
    pub(crate) uri: &'a str,
    pub(crate) payload: Option<&'a Payload>,
    pub(crate) repeat: Repeat,
}

impl Client {
    /// Changes properties of a resource, with the precondition that the BMC wants (quirks 5 to 8). Values must be absolute: after a
    /// lost connection the change goes out once more.
    pub async fn patch(&self, uri: &str, body: &Value) -> Result<Outcome, WriteError> {
        let payload = Payload::of(body);
        self.change(Change { method: Method::PATCH, uri, payload: Some(&payload), repeat: Repeat::Freely })
            .await
    }

    /// Performs an action or makes a member of a collection. It goes out once; see [`WriteError::Unsure`].
    pub async fn post(&self, uri: &str, body: &Value) -> Result<Outcome, WriteError> {
        let payload = Payload::of(body);
        let repeat = Repeat::UnlessUnsure;
        self.change(Change { method: Method::POST, uri, payload: Some(&payload), repeat }).await
    }

    /// Deletes a resource. One that is not there is deleted.
    pub async fn delete(&self, uri: &str) -> Result<Outcome, WriteError> {
        let change = Change { method: Method::DELETE, uri, payload: None, repeat: Repeat::Freely };
        match self.change(change).await {
            Err(WriteError::Read(ReadError::NotFound { .. })) => {
                Ok(Outcome::Done { body: None, location: None })
            }
            outcome => outcome,
        }
    }

    /// Sends a change with every form of precondition until one is taken.
    pub(crate) async fn change(&self, change: Change<'_>) -> Result<Outcome, WriteError> {
        let mut known = match change.method {
            // The member itself is read: what its collection shows of it may lack the ETag (quirk 8).
            Method::PATCH => self.etag(change.uri).await?,
            // Actions refuse If-Match on some BMCs (quirk 7); only where one asks for it is it sent.
            _ => None,
        };
        let mut conditions = conditions(known.as_deref(), change.method == Method::PATCH);
        let mut next = 0;
        let mut reread = false;
        while let Some(condition) = conditions.get(next) {
            let answer = self.inner.send(&change, condition.as_ref()).await?;
            if !matches!(answer.status, StatusCode::PRECONDITION_FAILED | StatusCode::PRECONDITION_REQUIRED) {
                return self.inner.judge(&change, &answer);
            }
            next += 1;
            if !reread {
                reread = true;
                // Somebody may really have changed the resource meanwhile.
                let fresh = self.etag(owner(change.uri)).await?;
                if fresh.is_some() && fresh != known {
                    known = fresh;
                    (conditions, next) = (self::conditions(known.as_deref(), true), 0);
                }
            }
        }
        Err(WriteError::Precondition { uri: change.uri.to_owned() })
    }

    /// The ETag of a resource, where it has one and may be read.
    async fn etag(&self, uri: &str) -> Result<Option<String>, ReadError> {
        match self.get(uri).await {
            Ok(resource) => Ok(resource.etag),
            Err(error @ (ReadError::Bmc(_) | ReadError::NotFound { .. } | ReadError::CrossOrigin { .. })) => {
                Err(error)
            }
            Err(_) => Ok(None),
        }
    }
}

/// The resource that an action belongs to.
fn owner(uri: &str) -> &str {
    uri.split_once("/Actions/").map_or(uri, |(owner, _)| owner)
}

/// What to send as If-Match, best first. The ETag as given, without what BMCs add, without its quotes (quirk 7), then nothing.
fn conditions(etag: Option<&str>, wanted: bool) -> Vec<Option<HeaderValue>> {
    let Some(etag) = etag else {
        let any = wanted.then(|| Some(HeaderValue::from_static("*")));
        return std::iter::once(None).chain(any).collect();
    };
    let mut forms = etag::forms(etag);
    let bare =
        forms.last().and_then(|form| form.to_str().ok()).unwrap_or_default().trim_matches('"').to_owned();
    if let Ok(bare) = HeaderValue::from_str(&bare)
        && !forms.contains(&bare)
    {
        forms.push(bare);
    }
    forms.into_iter().map(Some).chain(std::iter::once(None)).collect()
}

impl Inner {
    /// Sends one request with the patience that is due, until an answer is to be judged. Reads go through here where their status
    /// matters.
    pub(crate) async fn send(
        &self,
        change: &Change<'_>,
        condition: Option<&HeaderValue>,
    ) -> Result<Answer, WriteError> {
        let url = self.origin.own(change.uri)?;
        let (mut attempts, mut refusals) = (0, 0);
        // A kept connection may be dead without our knowing (quirk 1): what must not go out twice takes a new one.
        let mut fresh = change.repeat != Repeat::Freely;
        loop {
            attempts += 1;
            let scheme = self.identity.scheme();
            let mut request = Request::get(url.clone());
            request.method = change.method.clone();
            request.body = change.payload.map(|payload| payload.bytes.as_slice());
            request.kind = if change.method == Method::GET { Kind::Read } else { Kind::Command };
            self.identity.dress(&mut request, &scheme);
            if let Some(condition) = condition {
                request.headers.insert(header::IF_MATCH, condition.clone());
            }
            let mut answer = match self.transport.exchange(request, fresh).await {
                Ok(answer) => answer,
                Err(failure) => {
                    self.after_lost_change(change, failure, attempts, &mut fresh).await?;
                    continue;
                }
            };
            answer.settle_login().await;
            if answer.status == StatusCode::UNAUTHORIZED {
                let messages = Messages::of_body(&answer.body.bytes);
                self.refused_unless_limited(&messages)?;
                refusals += 1;
                self.after_refusal(change.uri, &scheme, refusals).await?;
                continue;
            }
            if answer.status.is_success() {
                self.identity.accepted();
            }
            if !self.wait_if_not_now(change, &answer, attempts).await? {
                return Ok(answer);
            }
        }
    }

    /// What a request without an answer leads to: `Ok` to send it again.
    async fn after_lost_change(
        &self,
        change: &Change<'_>,
        failure: Failure,
        attempts: u32,
        fresh: &mut bool,
    ) -> Result<(), WriteError> {
        let unsure = |reason| Err(WriteError::Unsure { uri: change.uri.to_owned(), reason });
        match failure {
            // Nothing was sent.
            Failure::Connect(Error::Unreachable { .. })
                if change.repeat != Repeat::Never && attempts < self.retry.attempts =>
            {
                Ok(self.transport.pause(self.retry.wait(attempts, None)).await?)
            }
            Failure::Connect(error) | Failure::Spent(error) => Err(error.into()),
            Failure::Lost(_) if change.repeat == Repeat::Freely && attempts < self.retry.attempts => {
                *fresh = true;
                Ok(())
            }
            Failure::Lost(reason) => unsure(reason),
            Failure::Timeout(after) => unsure(format!("nothing came within {after:?}")),
            Failure::TooLarge(limit) => unsure(format!("the answer is larger than {limit} bytes")),
        }
    }

    /// Waits where the BMC says "not now" and the change may go out again; tells whether it does.
    async fn wait_if_not_now(
        &self,
        change: &Change<'_>,
        answer: &Answer,
        attempts: u32,
    ) -> Result<bool, WriteError> {
        if answer.status.is_success() || change.repeat == Repeat::Never || attempts >= self.retry.attempts {
            return Ok(false);
        }
        let by_gateway = matches!(answer.status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT);
        if by_gateway && change.repeat != Repeat::Freely {
            return Ok(false);
        }
        if !retry::is_transient(answer.status, &Messages::of_body(&answer.body.bytes)) {
            return Ok(false);
        }
        let asked =
            answer.header(&header::RETRY_AFTER).and_then(|v| retry::retry_after(v, SystemTime::now()));
        self.transport.pause(self.retry.wait(attempts, asked)).await?;
        Ok(true)
    }

    /// What an answer means for the change.
    pub(crate) fn judge(&self, change: &Change<'_>, answer: &Answer) -> Result<Outcome, WriteError> {
        let messages = Messages::of_change(&answer.body.bytes);
        let uri = || change.uri.to_owned();
        self.refused_unless_limited(&messages)?;
        let problems = property_problems(&messages, change.payload);
        if !problems.is_empty() {
            return Err(WriteError::Property { uri: uri(), problems });
        }
        let message_id = self.shown_id(&messages, change.payload);
        match answer.status {
            StatusCode::ACCEPTED => Ok(Outcome::Accepted(self.receipt(answer))),
            status if status.is_success() => {
                let body = limits::decode(change.uri, None, &answer.body).ok().map(|decoded| decoded.value);
                Ok(Outcome::Done { body, location: self.path_of(answer.header(&header::LOCATION)) })
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Err(ReadError::NotFound { uri: uri() }.into()),
            StatusCode::FORBIDDEN => Err(ReadError::Forbidden { uri: uri(), message_id }.into()),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                Err(WriteError::Unsupported { uri: uri() })
            }
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Err(WriteError::Unsure {
                uri: uri(),
                reason: format!("the answer is {}", answer.status.as_u16()),
            }),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                Err(ReadError::Busy { uri: uri(), message_id }.into())
            }
            StatusCode::CONFLICT => Err(WriteError::Conflict { uri: uri(), message_id }),
            _ if messages.mean(Meaning::NotNow) => Err(WriteError::Conflict { uri: uri(), message_id }),
            status => Err(WriteError::Refused { uri: uri(), status: status.as_u16(), message_id }),
        }
    }

    /// What to follow. Only the path of a Location counts: some BMCs write a name of their own (as for sessions).
    fn receipt(&self, answer: &Answer) -> Receipt {
        let body: Option<Value> = serde_json::from_slice(&answer.body.bytes).ok();
        let text = |name: &str| body.as_ref().and_then(|body| body.get(name)?.as_str());
        let is_task =
            text("TaskState").is_some() || text("@odata.type").is_some_and(|kind| kind.contains("Task"));
        let monitor = answer.header(&header::LOCATION).or_else(|| text("TaskMonitor"));
        Receipt {
            task: self.path_of(text("@odata.id").filter(|_| is_task)),
            monitor: self.path_of(monitor),
            retry_after: answer
                .header(&header::RETRY_AFTER)
                .and_then(|value| retry::retry_after(value, SystemTime::now())),
        }
    }

    fn path_of(&self, location: Option<&str>) -> Option<String> {
        let url = self.origin.root().join(location?).ok()?;
        let path = url.path();
        Some(url.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")))
    }

    /// The first MessageId if it looks like one and holds no secret: a BMC may put there what it was sent.
    pub(crate) fn shown_id(&self, messages: &Messages, payload: Option<&Payload>) -> Option<String> {
        let id = messages.first()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let own = self.identity.credentials.as_ref().map(|credentials| &credentials.password);
        let mut secrets = own.into_iter().chain(payload.into_iter().flat_map(|payload| &payload.secrets));
        let fits = id.len() <= 120 && id.chars().all(plain);
        let leaks = secrets.any(|secret| !secret.is_empty() && id.contains(secret.as_str()));
        (fits && !leaks).then_some(id)
    }
}

/// What MessageIds of the Base registry say about single properties and parameters of actions.
const FAULTS: &[(&str, Fault)] = &[
    ("PropertyNotWritable", Fault::NotWritable),
    ("PropertyUnknown", Fault::Unknown),
    ("PropertyNotUpdated", Fault::NotWritable),
    ("ActionParameterNotSupported", Fault::Unknown),
    ("ActionParameterUnknown", Fault::Unknown),
    ("PropertyValueNotInList", Fault::Value),
    ("PropertyValueFormatError", Fault::Value),
    ("PropertyValueTypeError", Fault::Value),
    ("PropertyValueOutOfRange", Fault::Value),
    ("PropertyValueConflict", Fault::Value),
    ("PropertyValueIncorrect", Fault::Value),
    ("PropertyValueError", Fault::Value),
    ("PropertyValueExternalConflict", Fault::Value),
    ("StringValueTooLong", Fault::Value),
    ("StringValueTooShort", Fault::Value),
    ("ActionParameterValueNotInList", Fault::Value),
    ("ActionParameterValueFormatError", Fault::Value),
    ("ActionParameterValueTypeError", Fault::Value),
    ("ActionParameterValueOutOfRange", Fault::Value),
    ("PropertyMissing", Fault::Missing),
    ("ActionParameterMissing", Fault::Missing),
];

fn property_problems(messages: &Messages, payload: Option<&Payload>) -> Vec<PropertyProblem> {
    let names = payload.map(|payload| payload.names.as_slice()).unwrap_or_default();
    let mut problems: Vec<PropertyProblem> = Vec::new();
    for message in &messages.all {
        let Some((_, fault)) = FAULTS.iter().find(|(key, _)| message.key().eq_ignore_ascii_case(key)) else {
            continue;
        };
        let told = message.related.iter().chain(&message.args);
        let property = told
            .filter_map(|text| text.rsplit(['/', '.', '#']).next())
            .find_map(|text| names.iter().find(|name| *name == text))
            .cloned();
        let problem = PropertyProblem { property, fault: *fault };
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    // An entry that names the property says more than the same without.
    let named = problems.iter().any(|problem| problem.property.is_some());
    problems.retain(|problem| !named || problem.property.is_some());
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(etag: Option<&str>) -> Vec<String> {
        let text = |form: &Option<HeaderValue>| match form {
            Some(form) => form.to_str().unwrap().to_owned(),
            None => "nothing".to_owned(),
        };
        conditions(etag, true).iter().map(text).collect()
    }

    #[test]
    fn quirk_07_an_etag_is_tried_as_given_then_stripped_then_unquoted_then_not_at_all() {
        assert_eq!(shown(Some("W/\"a-gzip\"")), ["W/\"a-gzip\"", "\"a\"", "a", "nothing"]);
        assert_eq!(shown(Some("\"a\"")), ["\"a\"", "a", "nothing"]);
        assert_eq!(shown(Some("946684846")), ["946684846", "nothing"]);
        assert_eq!(shown(None), ["nothing", "*"]);
    }

    #[test]
    fn a_property_refused_is_named_once_and_only_by_a_name_that_was_sent() {
        let payload = Payload::of(&json!({"Boot": {"BootSourceOverrideTarget": "Pxe"}}));
        let of = |body: Value| {
            property_problems(&Messages::of_change(body.to_string().as_bytes()), Some(&payload))
        };
        let entry = |args: Value| {
            json!({"error": {"@Message.ExtendedInfo": [
                {"MessageId": "Base.1.8.PropertyNotWritable", "MessageArgs": args}]}})
        };
        let named = PropertyProblem {
            property: Some("BootSourceOverrideTarget".to_owned()),
            fault: Fault::NotWritable,
        };
        assert_eq!(of(entry(json!(["BootSourceOverrideTarget"]))), std::slice::from_ref(&named));
        assert_eq!(of(entry(json!(["#/Boot/BootSourceOverrideTarget"]))), [named]);
        let unnamed = PropertyProblem { property: None, fault: Fault::NotWritable };
        assert_eq!(of(entry(json!(["calvin"]))), [unnamed]);
        assert_eq!(of(json!({"error": {"code": "Base.1.8.Success"}})), []);
    }

    #[test]
    fn a_property_annotated_in_an_answer_of_success_is_refused() {
        let payload = Payload::of(&json!({"DateTime": "x"}));
        let body =
            json!({"DateTime@Message.ExtendedInfo": [{"MessageId": "Base.1.2.PropertyValueFormatError"}]});
        let problems = property_problems(&Messages::of_change(body.to_string().as_bytes()), Some(&payload));
        assert_eq!(
            problems,
            [PropertyProblem { property: Some("DateTime".to_owned()), fault: Fault::Value }]
        );
    }

    #[test]
    fn a_body_with_a_secret_is_json_whatever_the_secret_holds() {
        let payload = Payload::with_secret(
            &[("UserName", json!("a\"b")), ("Enabled", json!(true))],
            "Password",
            "c\\\"d\n",
        );
        let body: Value = serde_json::from_slice(&payload.bytes).unwrap();
        assert_eq!(body, json!({"UserName": "a\"b", "Enabled": true, "Password": "c\\\"d\n"}));
    }
}
