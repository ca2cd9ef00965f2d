//! Whether a slice that is there is the one that is wanted: the wanted text is read against what was found, and no values are made
//! of it. A whole fleet is compared each time somebody looks.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;

/// Whether a slice has the labels and the content of the wanted one, but for what a write or a server adds: the pool's generation, the
/// time of a taint, other labels, and nulls.
pub(crate) fn holds(found: &Value, wanted: &str) -> bool {
    let mut wanted = serde_json::Deserializer::from_str(wanted);
    Against { found, field: "", how: How::Slice }.deserialize(&mut wanted).is_ok()
}

/// What is found at a place. Reading the wanted value there fails where the two differ.
#[derive(Clone, Copy)]
struct Against<'f> {
    found: &'f Value,
    /// The member that it is, or that the array is which holds it.
    field: &'f str,
    how: How,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    /// The whole object: its specification, and some of its metadata.
    Slice,
    /// Of the metadata only the labels.
    Metadata,
    /// What is wanted is there; more may be.
    Within,
    /// The same.
    Same,
}

/// The name of a member.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

fn unlike<T, E: Error>() -> Result<T, E> {
    Err(E::custom("they differ"))
}

fn if_same<E: Error>(same: bool) -> Result<(), E> {
    if same { Ok(()) } else { unlike() }
}

impl Against<'_> {
    /// How a member counts; `None` where it does not.
    fn of(self, key: &str) -> Option<How> {
        match (self.how, key) {
            (How::Slice, "metadata") => Some(How::Metadata),
            (How::Metadata, "labels") | (How::Within, _) => Some(How::Within),
            (How::Slice, "spec") => Some(How::Same),
            (How::Same, _) if !is_added(self.field, key) => Some(How::Same),
            (How::Slice | How::Metadata | How::Same, _) => None,
        }
    }
}

/// What a write or a server adds to this object.
fn is_added(object: &str, member: &str) -> bool {
    matches!((object, member), ("pool", "generation") | ("taints", "timeAdded"))
}

impl<'de> DeserializeSeed<'de> for Against<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, wanted: D) -> Result<(), D::Error> {
        wanted.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Against<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what was found")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if_same(self.found.is_null())
    }

    fn visit_bool<E: Error>(self, wanted: bool) -> Result<(), E> {
        if_same(self.found.as_bool() == Some(wanted))
    }

    fn visit_u64<E: Error>(self, wanted: u64) -> Result<(), E> {
        if_same(self.found.as_u64() == Some(wanted))
    }

    fn visit_i64<E: Error>(self, wanted: i64) -> Result<(), E> {
        if_same(self.found.as_i64() == Some(wanted))
    }

    fn visit_str<E: Error>(self, wanted: &str) -> Result<(), E> {
        if_same(self.found.as_str() == Some(wanted))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut wanted: A) -> Result<(), A::Error> {
        let Some(found) = self.found.as_array() else { return unlike() };
        let mut read = 0;
        // After the last of those found anything wanted differs from the null in its place.
        let at = |read| Against { found: found.get(read).unwrap_or(&Value::Null), ..self };
        while wanted.next_element_seed(at(read))?.is_some() {
            read += 1;
        }
        if_same(read == found.len())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut wanted: A) -> Result<(), A::Error> {
        let Some(found) = self.found.as_object() else { return unlike() };
        let mut counted = 0;
        while let Some(Key(key)) = wanted.next_key()? {
            match (self.of(&key), found.get(key.as_ref())) {
                (None, _) => drop(wanted.next_value::<IgnoredAny>()?),
                (Some(_), None) => return unlike(),
                (Some(how), Some(found)) => {
                    counted += 1;
                    wanted.next_value_seed(Against { found, field: &key, how })?;
                }
            }
        }
        let there =
            || found.iter().filter(|(key, value)| !value.is_null() && !is_added(self.field, key)).count();
        if_same(self.how != How::Same || there() == counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wanted() -> Value {
        json!({
            "apiVersion": "resource.k8s.io/v1",
            "metadata": { "name": "s", "labels": { "a": "b" } },
            "spec": {
                "pool": { "generation": 1, "name": "p" },
                "devices": [
                    { "name": "d", "attributes": { "x": { "int": -1 }, "y": { "bool": true } }, "taints": [{ "key": "k" }] },
                    { "name": "e\"" },
                ],
            },
        })
    }

    #[test]
    fn what_a_write_or_a_server_adds_is_no_difference() {
        let mut found = wanted();
        found["metadata"]["labels"]["more"] = "c".into();
        found["metadata"]["uid"] = "u".into();
        found["spec"]["pool"]["generation"] = 7.into();
        found["spec"]["allNodes"] = Value::Null;
        found["spec"]["devices"][0]["taints"][0]["timeAdded"] = "now".into();
        assert!(holds(&found, &wanted().to_string()));
    }

    #[test]
    fn whatever_else_changes_is_a_difference() {
        let changes: [(&str, Value); 10] = [
            ("/metadata/labels", json!({})),
            ("/metadata/labels/a", json!("c")),
            ("/spec/pool/name", json!("q")),
            ("/spec/pool", json!({ "name": "p", "more": 1 })),
            ("/spec/devices", json!([])),
            ("/spec/devices/1", Value::Null),
            ("/spec/devices/1", json!({ "name": "e\"", "more": {} })),
            ("/spec/devices/0/attributes/x/int", json!(1)),
            ("/spec/devices/0/attributes/y", json!({ "bool": true, "timeAdded": "now" })),
            ("/spec/devices/0/taints", json!([{ "key": "k" }, { "key": "l" }])),
        ];
        for (at, value) in changes {
            let mut found = wanted();
            *found.pointer_mut(at).unwrap() = value.clone();
            assert!(!holds(&found, &wanted().to_string()), "{at} {value}");
        }
        assert!(!holds(&json!({ "metadata": wanted()["metadata"] }), &wanted().to_string()));
    }
}
