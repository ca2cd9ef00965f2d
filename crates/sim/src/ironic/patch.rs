//! JSON Patch (RFC 6902) as far as Ironic takes it: `add`, `replace`, `remove`, with Ironic's sentences.

use serde_json::{Map, Value};

use super::refusal::{Refusal, python};

/// One operation of a patch.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    kind: Kind,
    segments: Vec<&'a str>,
    value: Option<&'a Value>,
    source: &'a Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Add,
    Replace,
    Remove,
}

impl Change<'_> {
    /// The field that it changes.
    pub(crate) fn field(&self) -> &str {
        self.segments.first().copied().unwrap_or_default()
    }

    /// Whether it removes `/field` itself.
    pub(crate) fn removes(&self, field: &str) -> bool {
        self.kind == Kind::Remove && self.segments == [field]
    }

    fn refusal(&self, reason: impl std::fmt::Display) -> Refusal {
        Refusal::invalid(format!("Couldn't apply patch '{}'. Reason: {reason}", python(self.source)))
    }
}

/// Reads a patch; what Ironic's schema refuses is refused.
pub(crate) fn parse(body: &Value) -> Result<Vec<Change<'_>>, Refusal> {
    let wrong = |sentence: String| Refusal::Invalid(format!("Schema error for patch: {sentence}"));
    let items = body.as_array().ok_or_else(|| wrong(format!("{} is not of type 'array'", python(body))))?;
    items.iter().map(|item| change(item).map_err(wrong)).collect()
}

fn change(item: &Value) -> Result<Change<'_>, String> {
    let map = item.as_object().ok_or_else(|| format!("{} is not of type 'object'", python(item)))?;
    if let Some(unknown) = map.keys().find(|key| !matches!(key.as_str(), "op" | "path" | "value")) {
        return Err(format!("Additional properties are not allowed ('{unknown}' was unexpected)"));
    }
    let path = map.get("path").ok_or("'path' is a required property")?;
    let op = map.get("op").ok_or("'op' is a required property")?;
    let text = path.as_str().ok_or_else(|| format!("{} is not of type 'string'", python(path)))?;
    let kind = match op.as_str() {
        Some("add") => Kind::Add,
        Some("replace") => Kind::Replace,
        Some("remove") => Kind::Remove,
        _ => return Err(format!("{} is not one of ['add', 'replace', 'remove']", python(op))),
    };
    let segments: Vec<_> = text.split('/').skip(1).collect();
    let word = |segment: &&str| {
        !segment.is_empty() && segment.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
    };
    if !text.starts_with('/') || segments.is_empty() || !segments.iter().all(word) {
        return Err(format!("'{text}' does not match '^(/[\\\\w-]+)+$'"));
    }
    Ok(Change { kind, segments, value: map.get("value"), source: item })
}

/// Applies a patch to a record; on a refusal the record is as it was. A removed field becomes what `blank` says.
pub(crate) fn apply(
    record: &Map<String, Value>,
    changes: &[Change<'_>],
    blank: impl Fn(&str) -> Value,
) -> Result<Map<String, Value>, Refusal> {
    let mut changed = record.clone();
    for change in changes {
        if change.kind != Kind::Remove && change.value.is_none() {
            // Ironic's own code stumbles over it.
            return Err(Refusal::Crash("'value'".to_owned()));
        }
        match change.segments.as_slice() {
            [] => {}
            [field] => {
                let value = change.value.filter(|_| change.kind != Kind::Remove);
                let blanked = || blank(field);
                changed.insert((*field).to_owned(), value.cloned().unwrap_or_else(blanked));
            }
            [field, within @ .., last] => {
                let top = changed.entry((*field).to_owned()).or_insert_with(|| blank(field));
                put(change, descend(change, top, within)?, last)?;
            }
        }
    }
    Ok(changed)
}

fn descend<'v>(
    change: &Change<'_>,
    mut target: &'v mut Value,
    within: &[&str],
) -> Result<&'v mut Value, Refusal> {
    for segment in within {
        let shown = python(target);
        let inner = match &mut *target {
            Value::Object(map) => map.get_mut(*segment),
            Value::Array(items) => segment.parse().ok().and_then(|index: usize| items.get_mut(index)),
            _ => None,
        };
        target = inner.ok_or_else(|| change.refusal(format!("member '{segment}' not found in {shown}")))?;
    }
    Ok(target)
}

fn put(change: &Change<'_>, target: &mut Value, last: &str) -> Result<(), Refusal> {
    let missing = |verb: &str| change.refusal(format!("can't {verb} a non-existent object '{last}'"));
    let value = change.value.cloned().unwrap_or_default();
    match target {
        Value::Object(map) => match change.kind {
            Kind::Add => {
                map.insert(last.to_owned(), value);
            }
            Kind::Replace => *map.get_mut(last).ok_or_else(|| missing("replace"))? = value,
            Kind::Remove => {
                map.shift_remove(last).ok_or_else(|| missing("remove"))?;
            }
        },
        Value::Array(items) => {
            let index = if last == "-" { Some(items.len()) } else { last.parse::<usize>().ok() };
            let index = index.ok_or_else(|| change.refusal(format!("invalid array index '{last}'")))?;
            match change.kind {
                Kind::Add if index <= items.len() => items.insert(index, value),
                Kind::Replace if index < items.len() => items[index] = value,
                Kind::Remove if index < items.len() => {
                    items.remove(index);
                }
                _ => return Err(change.refusal("can't insert outside of list")),
            }
        }
        other => {
            let shown = python(other);
            return Err(change.refusal(format!("member '{last}' not found in {shown}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn patched(record: &Value, patch: &Value) -> Result<Value, String> {
        let record = record.as_object().unwrap();
        parse(patch)
            .and_then(|changes| apply(record, &changes, |_| Value::Null))
            .map(Value::Object)
            .map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn fields_are_added_replaced_and_removed() {
        let patch = json!([
            {"op": "add", "path": "/extra/new", "value": 1},
            {"op": "replace", "path": "/extra/old", "value": 2},
            {"op": "remove", "path": "/extra/gone"},
            {"op": "remove", "path": "/name"},
        ]);
        let record = json!({"name": "n", "extra": {"old": 1, "gone": 1}});
        assert_eq!(patched(&record, &patch).unwrap(), json!({"name": null, "extra": {"old": 2, "new": 1}}));
    }

    #[test]
    fn lists_take_indexes() {
        let patch = json!([
            {"op": "add", "path": "/extra/l/-", "value": 3},
            {"op": "replace", "path": "/extra/l/0", "value": 9},
            {"op": "remove", "path": "/extra/l/1"},
        ]);
        assert_eq!(
            patched(&json!({"extra": {"l": [1, 2]}}), &patch).unwrap(),
            json!({"extra": {"l": [9, 3]}})
        );
    }

    #[test]
    fn refusals_have_ironics_sentences() {
        let record = json!({"extra": {}});
        for (patch, sentence) in [
            (
                json!([{"op": "replace", "path": "/extra/bar", "value": 1}]),
                "Couldn't apply patch '{'op': 'replace', 'path': '/extra/bar', 'value': 1}'. \
                 Reason: can't replace a non-existent object 'bar'",
            ),
            (
                json!([{"op": "add", "path": "/extra/a/b", "value": "x"}]),
                "Couldn't apply patch '{'op': 'add', 'path': '/extra/a/b', 'value': 'x'}'. \
                 Reason: member 'a' not found in {}",
            ),
            (
                json!([{"op": "test", "path": "/extra", "value": 1}]),
                "Schema error for patch: 'test' is not one of ['add', 'replace', 'remove']",
            ),
            (
                json!([{"op": "add", "path": "extra", "value": 1}]),
                "Schema error for patch: 'extra' does not match '^(/[\\\\w-]+)+$'",
            ),
            (json!({"op": "add"}), "Schema error for patch: {'op': 'add'} is not of type 'array'"),
        ] {
            assert_eq!(patched(&record, &patch).unwrap_err(), sentence);
        }
    }

    proptest! {
        #[test]
        fn what_was_added_is_there_and_removing_it_restores_the_record(key in "[a-z]{1,8}", number in 0..99_u32) {
            let record = json!({"extra": {"KEPT": 1}});
            let path = format!("/extra/{key}");
            let with = patched(&record, &json!([{"op": "add", "path": path, "value": number}])).unwrap();
            prop_assert_eq!(&with["extra"][&key], &json!(number));
            prop_assert_eq!(patched(&with, &json!([{"op": "remove", "path": path}])).unwrap(), record);
        }

        #[test]
        fn no_patch_is_a_reason_to_fall_over(op in "add|replace|remove|x", path in ".{0,12}", value in "[a-z]{0,3}") {
            let _ = patched(&json!({"extra": {"l": [1]}}), &json!([{"op": op, "path": path, "value": value}]));
        }
    }
}
