//! What an answer of Ironic means: statuses, and the texts by which one status is told from itself.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, StatusCode, header};
use serde_json::Value;

use crate::error::Error;
use crate::secret::{Secret, redact};
use crate::version::Microversion;

/// The version asked for, and in an answer the version spoken.
pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-openstack-ironic-api-version");
/// The newest version that the server speaks.
pub(crate) const MAXIMUM: HeaderName = HeaderName::from_static("x-openstack-ironic-api-maximum-version");

/// The longest text of a server that we repeat, in characters.
const LONGEST: usize = 400;

/// One answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// What was sent, credentials included, and must not be repeated from this.
    pub(crate) secrets: Vec<Secret>,
}

impl Answer {
    /// The newest version that the server says it speaks.
    pub(crate) fn newest_version(&self) -> Option<Microversion> {
        self.headers.get(MAXIMUM)?.to_str().ok()?.parse().ok()
    }

    /// The body of a success.
    pub(crate) fn json(&self) -> Result<Value, Error> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Error::Unreadable { reason: format!("it is not JSON: {error}") })
    }

    /// The error that a status other than 2xx means.
    pub(crate) fn error(&self) -> Error {
        let said = Said::read(&self.body);
        let message = clean(&said.text, &self.secrets);
        let status = self.status.as_u16();
        match status {
            401 => Error::Unauthorized,
            403 => Error::Forbidden { message },
            406 => Error::NotAcceptable { message },
            404 => not_found(&said, message),
            409 => conflict(message),
            429 | 502..=504 => Error::Busy { message, retry_after: retry_after(&self.headers) },
            400..=499 => refused(message),
            500.. => Error::Server { status, message },
            _ => Error::NotIronic { reason: format!("status {status}") },
        }
    }
}

/// The text of an error and whether it came in Ironic's own wrapping.
struct Said {
    text: String,
    by_ironic: bool,
}

impl Said {
    /// Ironic wraps an error as `{"error_message": "{\"faultstring\": …}"}`: JSON in a text in JSON. Its middleware for
    /// basic authentication and proxies have forms of their own.
    fn read(body: &[u8]) -> Self {
        let plain = || String::from_utf8_lossy(body).into_owned();
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            return Self { text: plain(), by_ironic: false };
        };
        if let Some(wrapped) = value.get("error_message") {
            let inner = wrapped.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
            let text = fault(inner.as_ref().unwrap_or(wrapped))
                .or_else(|| wrapped.as_str().map(ToOwned::to_owned))
                .unwrap_or_else(plain);
            return Self { text, by_ironic: true };
        }
        Self { text: fault(&value).unwrap_or_else(plain), by_ironic: value.get("faultstring").is_some() }
    }
}

fn fault(value: &Value) -> Option<String> {
    let text = value
        .get("faultstring")
        .or_else(|| value.get("error")?.get("message"))
        .or_else(|| value.get("title"))?
        .as_str()?;
    Some(text.to_owned())
}

/// One line, of bounded length, without control characters and without what we sent in secret.
fn clean(text: &str, secrets: &[Secret]) -> String {
    let redacted = redact(text, secrets);
    let words: Vec<&str> = redacted
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    let line = words.join(" ");
    if line.is_empty() {
        return "no reason is told".to_owned();
    }
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// A 404 counts as "there is none" only in Ironic's own words: a proxy's 404 while Ironic restarts must make nobody believe
/// that a node is gone, and create it a second time. No conductor for a driver is a 404 too (`NoValidHost`).
fn not_found(said: &Said, message: String) -> Error {
    if is_no_conductor(&message) {
        Error::NoConductor { message }
    } else if said.by_ironic && message.contains("could not be found") {
        Error::NotFound { message }
    } else {
        Error::NotIronic { reason: format!("status 404: {message}") }
    }
}

fn is_no_conductor(message: &str) -> bool {
    message.contains("No valid host was found") || message.contains("No conductor service registered")
}

/// The classes of Ironic's exceptions with status 409 have no name in the answer (ironic/common/exception.py), only a text.
fn conflict(message: String) -> Error {
    let says = |part: &str| message.contains(part);
    if says("locked by host") || says("is presently locked") {
        Error::NodeLocked { message }
    } else if says("is associated with instance") || says("is already associated with") {
        Error::InstanceAssociated { message }
    } else if says("already exists") {
        Error::Duplicate { message }
    } else if says("provision state") || says("unless it is in one of") || says("Invalid resource state") {
        Error::InvalidState { message }
    } else {
        Error::Conflict { message }
    }
}

/// 400 and its kin: a state that does not allow it is not our request's fault.
fn refused(message: String) -> Error {
    let says = |part: &str| message.contains(part);
    if says("can not be performed on node") && says("while it is in state")
        || says("in maintenance mode")
        || says("while node is in state")
    {
        Error::InvalidState { message }
    } else if is_no_conductor(&message) {
        Error::NoConductor { message }
    } else {
        Error::Invalid { message }
    }
}

/// Seconds, or an HTTP date; anything else says nothing.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds).min(86_400)));
    }
    httpdate::parse_http_date(text)
        .ok()
        .map(|date| date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        let (status, headers) = (StatusCode::from_u16(status).unwrap(), HeaderMap::new());
        Answer { status, headers, body: body.into(), secrets: Vec::new() }
    }

    /// An error as Ironic wraps it.
    fn ironic(status: u16, text: &str) -> Answer {
        let inner = json!({"faultcode": "Client", "faultstring": text, "debuginfo": null}).to_string();
        answer(status, json!({ "error_message": inner }).to_string())
    }

    fn code(answer: &Answer) -> &'static str {
        answer.error().code()
    }

    #[test]
    fn one_status_means_several_things_by_its_text() {
        let cases = [
            (
                409,
                "Node n is locked by host bench, please retry after the current operation is completed.",
                "ironic.node-locked",
            ),
            (
                409,
                "Node a parent_node b is presently locked and we are unable to perform any action",
                "ironic.node-locked",
            ),
            (409, "A node with name n already exists.", "ironic.duplicate"),
            (409, "A port with MAC address 02:00:00:00:00:01 already exists.", "ironic.duplicate"),
            (
                409,
                "Instance i is already associated with a node, it cannot be associated with this other node n",
                "ironic.instance-associated",
            ),
            (409, "Node n is associated with instance i.", "ironic.instance-associated"),
            (409, "Node n can not be updated while a state transition is in progress.", "ironic.conflict"),
            (
                409,
                "Can not delete node \"n\" while it is in provision state \"available\".",
                "ironic.invalid-state",
            ),
            (
                400,
                "The requested action \"active\" can not be performed on node \"n\" while it is in state \"enroll\".",
                "ironic.invalid-state",
            ),
            (
                400,
                "The provisioning operation can't be performed on node n because it's in maintenance mode.",
                "ironic.invalid-state",
            ),
            (400, "Expected a UUID but received x.", "ironic.invalid-request"),
            (404, "Node n could not be found.", "ironic.not-found"),
            (
                404,
                "No valid host was found. Reason: No conductor service registered which supports driver redfish for conductor group \"\".",
                "ironic.no-conductor",
            ),
            (
                400,
                "No valid host was found. Reason: No conductor service registered which supports driver redfish",
                "ironic.no-conductor",
            ),
            (401, "Incorrect username or password", "ironic.unauthorized"),
            (403, "Access was denied to the following resource: x", "ironic.forbidden"),
            (406, "Request not acceptable.", "ironic.not-acceptable"),
            (
                503,
                "Requested action cannot be performed due to lack of free conductor workers.",
                "ironic.busy",
            ),
            (500, "Boom", "ironic.server-error"),
            (301, "", "ironic.not-ironic"),
        ];
        for (status, text, expected) in cases {
            assert_eq!(code(&ironic(status, text)), expected, "{text}");
        }
    }

    #[test]
    fn a_404_of_a_proxy_does_not_say_that_a_node_is_gone() {
        for body in
            ["<html>default backend - 404 could not be found</html>", "", r#"{"detail": "Not Found"}"#]
        {
            assert_eq!(code(&answer(404, body)), "ironic.not-ironic", "{body}");
        }
    }

    #[test]
    fn the_text_is_found_in_every_wrapping() {
        let bodies = [
            r#"{"error_message": "{\"faultstring\": \"text\"}"}"#,
            r#"{"error_message": {"faultstring": "text"}}"#,
            r#"{"error_message": "text"}"#,
            r#"{"error": {"message": "text", "code": 400}}"#,
            r#"{"faultstring": "text"}"#,
            "text",
        ];
        for body in bodies {
            assert_eq!(answer(400, body).error().to_string(), "Ironic refuses the request: text", "{body}");
        }
    }

    #[test]
    fn a_patch_that_ironic_quotes_does_not_show_the_password() {
        let text = "Couldn't apply patch '[{'op': 'add', 'path': '/driver_info/redfish_password', 'value': 'hunter2'}]'.";
        let error = Answer { secrets: vec![Secret::new("hunter2")], ..ironic(400, text) }.error();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn retry_after_is_seconds_or_nothing() {
        let with = |value: &str| {
            let mut answer = answer(503, "");
            answer.headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            answer.error().retry_after()
        };
        assert_eq!(with("7"), Some(Duration::from_secs(7)));
        assert_eq!(with("soon"), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_error_in_one_short_line(
            status in 300_u16..600, body in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let text = answer(status, body).error().to_string();
            prop_assert!(text.chars().count() < LONGEST + 120 && !text.contains(char::is_control), "{text:?}");
        }
    }
}
