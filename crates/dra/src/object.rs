//! Published objects and their common metadata.

use crate::{LABEL_OWNER, MANAGER};
use domain::{Digest, Name, Problem};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// One object to publish.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata.name`, a DNS label of at most 63 characters. No object is namespaced.
    pub name: String,
    /// The machine it tells of; `None` where it tells of no single one.
    pub machine: Option<Name>,
    text: String,
}

/// Everything to publish, in the order in which to apply it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// For Git: admission policies with their bindings first, then classes.
    pub declared: Vec<Object>,
    /// Only a cell may write these: taint rules, then slices. Slices show generation 1; see [`crate::reconcile`].
    pub observed: Vec<Object>,
    /// What was left out, and why.
    pub diagnostics: Vec<Problem>,
}

impl Object {
    /// Takes a typed or untyped object; serialisation of what this crate builds cannot fail.
    pub(crate) fn new(object: &impl Serialize, machine: Option<&Name>) -> Self {
        let json = serde_json::to_value(object).unwrap_or_default();
        let text = |pointer| json.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            name: text("/metadata/name"),
            machine: machine.cloned(),
            text: json.to_string(),
        }
    }

    /// Takes the text of an object of a machine.
    pub(crate) fn written(api_version: &str, kind: &str, name: String, machine: Name, text: String) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name,
            machine: Some(machine),
            text,
        }
    }

    /// The whole object as JSON; equal objects have equal bytes.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The whole object, read anew each time.
    pub fn json(&self) -> Value {
        // It was written from JSON.
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The same with another value at this pointer, where there is one.
    #[must_use]
    pub(crate) fn with(&self, pointer: &str, value: Value) -> Self {
        let mut json = self.json();
        if let Some(place) = json.pointer_mut(pointer) {
            *place = value;
        }
        Self { text: json.to_string(), ..self.clone() }
    }
}

/// Labels of everything published.
pub(crate) fn labels(cell: &Name) -> [(&'static str, &str); 2] {
    [("app.kubernetes.io/managed-by", MANAGER), (LABEL_OWNER, cell.as_str())]
}

/// Metadata of everything published.
pub(crate) fn metadata(cell: &Name, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels(cell).into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()),
        ..ObjectMeta::default()
    }
}

/// The same as [`metadata`], with annotations.
pub(crate) fn annotated(cell: &Name, name: &str, annotations: &[(&str, String)]) -> ObjectMeta {
    let annotations: BTreeMap<_, _> = annotations.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    ObjectMeta { annotations: Some(annotations), ..metadata(cell, name) }
}

/// `<base><ending>`, shortened to a DNS label of at most 63 characters. A shortened name carries a digest of the base and
/// ends otherwise (`<ending>-x`), so it is never the unshortened name of another base.
pub(crate) fn label(base: &str, ending: &str) -> String {
    if base.len() + ending.len() <= 63 {
        return format!("{base}{ending}");
    }
    let digest = &hex::encode(Digest::of(base.as_bytes()).bytes())[..10];
    let room = 63 - digest.len() - ending.len() - 3;
    let start = base[..room.min(base.len())].trim_end_matches('-');
    format!("{start}-{digest}{ending}-x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_shortened_to_a_label_that_no_short_name_gives() {
        let long = label(&"m".repeat(63), "-gpu-00");
        assert!(long.len() <= 63 && Name::new(&long).is_ok());
        assert!(long.ends_with("-gpu-00-x"));
        assert_ne!(long, label(&format!("{}n", "m".repeat(62)), "-gpu-00"));
        assert_eq!(label("dgx-01", "-gpu-00"), "dgx-01-gpu-00");
    }
}
