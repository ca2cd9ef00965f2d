//! Reading what others write: a field of the wrong type is read as absent, so that it never costs the whole object.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// For `#[serde(default, deserialize_with = …)]`: the field, or its default where it cannot be read or is `null`.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    match Value::deserialize(deserializer)? {
        // A structure could be read from a list, by position: nobody means that.
        Value::Array(_) => Ok(T::default()),
        value => Ok(serde_json::from_value(value).unwrap_or_default()),
    }
}

/// The same for lists: what can be read of it.
pub(crate) fn items<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let Value::Array(items) = Value::deserialize(deserializer)? else { return Ok(Vec::new()) };
    Ok(items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect())
}
