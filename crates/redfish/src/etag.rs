//! Whether a resource changed: by ETag where BMCs have honest ones (quirks 5 and 6), else by the body (quirk 9).

use http::HeaderValue;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::reader::Resource;

/// What is kept of a resource to tell later whether it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its ETag, where it had one.
    pub etag: Option<String>,
    /// The digest of its body.
    pub digest: [u8; 32],
}

impl Known {
    /// What to keep of a resource just read.
    pub fn of(resource: &Resource) -> Self {
        Self { etag: resource.etag.clone(), digest: digest(&resource.body) }
    }
}

/// The forms of an ETag to try, best first: as given, then without what BMCs add and do not take back.
pub(crate) fn forms(etag: &str) -> Vec<HeaderValue> {
    let bare = etag.strip_prefix("W/").unwrap_or(etag);
    let bare = match bare.strip_suffix("-gzip\"") {
        Some(start) => format!("{start}\""),
        None => bare.strip_suffix("-gzip").unwrap_or(bare).to_owned(),
    };
    let mut forms = vec![etag];
    if bare != etag {
        forms.push(&bare);
    }
    forms.retain(|form| !form.trim_matches('"').is_empty());
    forms.into_iter().filter_map(|form| HeaderValue::from_str(form).ok()).collect()
}

/// An ETag that says something: an empty one does not (quirk 6).
pub(crate) fn meaningful(etag: &str) -> Option<String> {
    let etag = etag.trim();
    let inner = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    (!inner.is_empty()).then(|| etag.to_owned())
}

/// A digest of a body that does not depend on the order of its members.
pub fn digest(body: &Value) -> [u8; 32] {
    let mut hasher = Sha256::new();
    feed(&mut hasher, body);
    hasher.finalize().into()
}

/// Every value begins with its kind, and every text with its length, so that no two different bodies feed the same bytes.
fn feed(hasher: &mut Sha256, value: &Value) {
    let mut text = |kind: u8, text: &str| {
        hasher.update([kind]);
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text);
    };
    match value {
        Value::Null => hasher.update(b"0"),
        Value::Bool(true) => hasher.update(b"t"),
        Value::Bool(false) => hasher.update(b"f"),
        Value::Number(number) => text(b'n', &number.to_string()),
        Value::String(string) => text(b's', string),
        Value::Array(items) => {
            hasher.update(b"a");
            hasher.update((items.len() as u64).to_be_bytes());
            for item in items {
                feed(hasher, item);
            }
        }
        Value::Object(members) => {
            hasher.update(b"o");
            hasher.update((members.len() as u64).to_be_bytes());
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            for (name, member) in members {
                hasher.update((name.len() as u64).to_be_bytes());
                hasher.update(name);
                feed(hasher, member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quirk_05_a_weak_etag_is_tried_as_given_and_then_stripped() {
        assert_eq!(forms("W/\"abc\""), ["W/\"abc\"", "\"abc\""]);
        assert_eq!(forms("\"abc-gzip\""), ["\"abc-gzip\"", "\"abc\""]);
        assert_eq!(forms("W/\"abc-gzip\""), ["W/\"abc-gzip\"", "\"abc\""]);
        assert_eq!(forms("\"abc\""), ["\"abc\""]);
    }

    #[test]
    fn quirk_06_an_empty_etag_is_none() {
        for empty in ["", "\"\"", "W/\"\"", "  "] {
            assert_eq!(meaningful(empty), None, "{empty}");
        }
        assert_eq!(meaningful("\"1\"").as_deref(), Some("\"1\""));
    }

    #[test]
    fn quirk_09_the_digest_of_a_body_changes_with_its_content_and_not_with_its_order() {
        let body = json!({"a": [1, {"b": null}], "c": "d"});
        assert_eq!(digest(&body), digest(&json!({"c": "d", "a": [1, {"b": null}]})));
        for other in [
            json!({"a": [1, {"b": null}], "c": "e"}),
            json!({"a": [{"b": null}, 1], "c": "d"}),
            json!({"a": [1, {"b": "null"}], "c": "d"}),
            json!({"a": ["1", {"b": null}], "c": "d"}),
        ] {
            assert_ne!(digest(&body), digest(&other), "{other}");
        }
    }
}
