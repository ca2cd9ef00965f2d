//! What clients may write into nodes and ports: Ironic's schema, with Ironic's sentences.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Refusal, Request, boolean};
use crate::ironic::drivers::hardware_type;
use crate::ironic::node::{blank, first_version};
use crate::ironic::refusal::python;

/// The kind of a value.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Flag,
    Object,
    Uuid,
}

fn kind(field: &str) -> Kind {
    match field {
        "automated_clean"
        | "console_enabled"
        | "disable_power_off"
        | "maintenance"
        | "protected"
        | "retired"
        | "secure_boot"
        | "pxe_enabled"
        | "is_smartnic"
        | "available_for_dynamic_portgroup" => Kind::Flag,
        "driver_info"
        | "extra"
        | "instance_info"
        | "local_link_connection"
        | "network_data"
        | "properties" => Kind::Object,
        "chassis_uuid" | "instance_uuid" | "uuid" | "node_uuid" | "portgroup_uuid" => Kind::Uuid,
        _ => Kind::Text,
    }
}

/// A value in the shape that is kept, or why it cannot be. `subject` is `node`, `port` or `patch`.
pub(super) fn conform(subject: &str, field: &str, value: Value) -> Result<Value, Refusal> {
    let of_type = |types: &str| {
        Refusal::invalid(format!("Schema error for {subject}: {} is not of type {types}", python(&value)))
    };
    match (kind(field), &value) {
        (Kind::Text, Value::String(text)) => {
            if field == "resource_class" && text.chars().count() > 80 {
                return Err(Refusal::invalid(format!("Schema error for {subject}: '{text}' is too long")));
            }
            Ok(value)
        }
        (Kind::Text, _) if field == "driver" => Err(of_type("'string'")),
        (Kind::Flag, Value::String(text)) => boolean(field, text).map(Value::Bool),
        (Kind::Flag, Value::Bool(_) | Value::Null)
        | (Kind::Object, Value::Object(_))
        | (Kind::Text | Kind::Uuid, Value::Null) => Ok(value),
        // A null object is an empty one.
        (Kind::Object, Value::Null) => Ok(Value::Object(Map::new())),
        (Kind::Uuid, Value::String(text)) => match Uuid::try_parse(text) {
            Ok(uuid) => Ok(Value::from(uuid.to_string())),
            Err(_) => Err(Refusal::invalid(format!("Expected UUID for {field}: {text}"))),
        },
        (Kind::Text | Kind::Uuid, _) => Err(of_type("'string', 'null'")),
        (Kind::Flag, _) => Err(of_type("'string', 'boolean', 'null'")),
        (Kind::Object, _) => Err(of_type("'object', 'null'")),
    }
}

/// The refusal of properties that no schema knows.
pub(super) fn unexpected<'a>(subject: &str, unknown: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let mut unknown: Vec<_> = unknown.map(|key| format!("'{key}'")).collect();
    unknown.sort();
    let verb = match unknown.len() {
        0 => return Ok(()),
        1 => "was",
        _ => "were",
    };
    Err(Refusal::invalid(format!(
        "Schema error for {subject}: Additional properties are not allowed ({} {verb} unexpected)",
        unknown.join(", ")
    )))
}

/// A new node's fields: known, of their kinds, of the request's version.
pub(super) fn new_node(request: &Request<'_>, body: Value) -> Result<Map<String, Value>, Refusal> {
    let given = match body {
        Value::Object(map) => map,
        Value::Null => Map::new(),
        other => {
            let shown = python(&other);
            return Err(Refusal::invalid(format!("Schema error for node: {shown} is not of type 'object'")));
        }
    };
    let settable = |key: &str| {
        matches!(key, "uuid" | "console_enabled")
            || (blank(key).is_some() && !matches!(key, "protected" | "protected_reason"))
    };
    unexpected("node", given.keys().map(String::as_str).filter(|key| !settable(key)))?;
    if !given.contains_key("driver") {
        return Err(Refusal::invalid("Schema error for node: 'driver' is a required property"));
    }
    let conformed = given
        .into_iter()
        .map(|(key, value)| Ok((key.clone(), conform("node", &key, value)?)))
        .collect::<Result<Map<_, _>, Refusal>>()?;
    for (key, _) in conformed.iter().filter(|(_, value)| !value.is_null()) {
        in_version(request, key)?;
    }
    Ok(conformed)
}

/// Refuses a field that the request's version does not know.
pub(super) fn in_version(request: &Request<'_>, field: &str) -> Result<(), Refusal> {
    match first_version(field) {
        Some(since) => request.since(since.0),
        None => Ok(()),
    }
}

/// Refuses names that Ironic refuses: those that are no names in a URL, look like a UUID, or are words of its paths.
pub(super) fn name(name: &str, invalid: impl FnOnce() -> String) -> Result<(), Refusal> {
    const RESERVED: &[&str] =
        &["maintenance", "management", "states", "vendor_passthru", "detail", "validate"];
    if RESERVED.contains(&name) {
        return Err(Refusal::invalid(format!(
            "The word \"{name}\" is reserved and can not be used as a node name. Reserved words are: {}.",
            RESERVED.join(", ")
        )));
    }
    let unreserved = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~');
    if name.is_empty() || !name.chars().all(unreserved) || Uuid::try_parse(name).is_ok() {
        return Err(Refusal::Invalid(invalid()));
    }
    Ok(())
}

/// Checks a record's driver and interfaces, and completes the latter.
pub(super) fn driver(record: &mut Map<String, Value>) -> Result<(), Refusal> {
    let name = record.get("driver").and_then(Value::as_str).unwrap_or_default();
    let Some(hardware) = hardware_type(name) else {
        return Err(Refusal::invalid(format!(
            "No valid host was found. Reason: No conductor service registered which supports driver {name} for conductor \
             group \"\". Ensure the driver is valid and enabled."
        )));
    };
    hardware.complete(record).map_err(Refusal::Invalid)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_stand_for_booleans_where_ironic_takes_them() {
        assert_eq!(conform("node", "automated_clean", json!("yes")).unwrap(), true);
        assert!(conform("node", "automated_clean", json!("x")).is_err());
        assert!(conform("node", "automated_clean", json!(5)).is_err());
    }

    #[test]
    fn values_of_the_wrong_kind_are_named() {
        let sentence = |field, value| conform("node", field, value).unwrap_err().to_string();
        assert_eq!(sentence("driver", json!(5)), "Schema error for node: 5 is not of type 'string'");
        assert_eq!(
            sentence("driver_info", json!("x")),
            "Schema error for node: 'x' is not of type 'object', 'null'"
        );
        assert_eq!(sentence("instance_uuid", json!("xyz")), "Expected UUID for instance_uuid: xyz");
    }

    #[test]
    fn names_are_what_fits_in_a_url_and_is_no_uuid() {
        let check = |text| name(text, || "invalid".to_owned());
        assert!(check("metal3~node-1.rack_2").is_ok());
        for wrong in ["", "a b", "a/b", "detail", "aaaaaaaa-1111-1111-1111-111111111155"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
