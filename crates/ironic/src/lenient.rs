//! Decoding that one odd field cannot spoil: servers of other versions and proxies send what they like.

use std::fmt;
use std::ops::Deref;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::secret::MASK;

/// A field of the wrong type, or `null`, is as good as absent.
pub(crate) fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(d: D) -> Result<T, D::Error> {
    let value = Value::deserialize(d)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// A list without the members that do not read.
pub(crate) fn lenient_list<'de, D: Deserializer<'de>, T: DeserializeOwned>(d: D) -> Result<Vec<T>, D::Error> {
    Ok(match Value::deserialize(d)? {
        Value::Array(members) => {
            members.into_iter().filter_map(|member| serde_json::from_value(member).ok()).collect()
        }
        _ => Vec::new(),
    })
}

/// A free-form object of Ironic (`driver_info`, `instance_info`, `properties`, `extra`). `Debug` hides what may be secret:
/// a server whose policy allows it sends passwords in the clear.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Info(pub Map<String, Value>);

impl Info {
    /// A member as text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// Whether a member is what we want it to be, as far as the server lets us see.
    pub(crate) fn shows(&self, key: &str, wanted: &Value) -> Shown {
        match self.0.get(key) {
            Some(Value::String(found)) if found == MASK && wanted.as_str() != Some(MASK) => Shown::Masked,
            Some(found) if found == wanted => Shown::Same,
            None if wanted.is_null() => Shown::Same,
            _ => Shown::Other,
        }
    }
}

/// What can be seen of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Same,
    Other,
    /// The server has a value and does not show it.
    Masked,
}

impl Deref for Info {
    type Target = Map<String, Value>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl From<Map<String, Value>> for Info {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

/// Parts of names whose values are not shown.
const SENSITIVE: [&str; 8] =
    ["password", "passphrase", "secret", "token", "key", "configdrive", "url", "auth"];

impl fmt::Debug for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |key: &str| SENSITIVE.iter().any(|part| key.to_ascii_lowercase().contains(part));
        let mut map = f.debug_map();
        for (key, value) in &self.0 {
            match value {
                Value::Bool(_) | Value::Null => map.entry(key, &format_args!("{value}")),
                _ if hidden(key) => map.entry(key, &format_args!("{MASK}")),
                Value::Object(members) => map.entry(key, &Self(members.clone())),
                _ => map.entry(key, &format_args!("{value}")),
            };
        }
        map.finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn info(value: Value) -> Info {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let shown = format!(
            "{:?}",
            info(json!({
                "redfish_password": "hunter2", "snmp_auth_key": "hunter2", "redfish_username": "root",
                "nested": {"agent_secret_token": "hunter2"},
            }))
        );
        assert!(!shown.contains("hunter2") && shown.contains("root"), "{shown}");
    }

    #[test]
    fn a_masked_member_is_neither_the_same_nor_another() {
        let info = info(json!({"a": "******", "b": 1}));
        assert_eq!(info.shows("a", &json!("x")), Shown::Masked);
        assert_eq!(info.shows("b", &json!(1)), Shown::Same);
        assert_eq!(info.shows("b", &json!(2)), Shown::Other);
        assert_eq!(info.shows("c", &json!(2)), Shown::Other);
    }
}
