//! Who has set what: `metadata.managedFields` (Kubernetes "Server-Side Apply").
//!
//! A field that another manager changed leaves our set and enters its own, so it tells by whom a host was edited by hand.

use crate::MANAGER;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::Value;
use std::collections::BTreeSet;

/// A path into an object: field names.
pub(crate) type Path = Vec<String>;

/// One writer of an object.
#[derive(Clone, Debug)]
pub(crate) struct Manager {
    pub(crate) name: String,
    /// When its set of fields changed last.
    pub(crate) at: Option<Timestamp>,
    /// Whether this is what we applied ourselves.
    ours: bool,
    fields: Value,
}

/// Every writer of an object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Managers(Vec<Manager>);

impl Managers {
    pub(crate) fn read(entries: &[ManagedFieldsEntry]) -> Self {
        let read = |entry: &ManagedFieldsEntry| {
            // The status is its own subresource, and nobody but the operator writes it.
            if entry.subresource.as_deref().is_some_and(|name| !name.is_empty()) {
                return None;
            }
            let name = entry.manager.clone().unwrap_or_default();
            Some(Manager {
                ours: name == MANAGER && entry.operation.as_deref() == Some("Apply"),
                at: entry.time.as_ref().map(|time| time.0),
                fields: entry.fields_v1.as_ref().map(|fields| fields.0.clone()).unwrap_or_default(),
                name,
            })
        };
        Self(entries.iter().filter_map(read).collect())
    }

    /// The others who hold this field, or all of which it is a part.
    pub(crate) fn others<'a>(&'a self, path: &'a [String]) -> impl Iterator<Item = &'a Manager> {
        // What we wrote by other means than applying, such as an annotation, is no foreign hand.
        self.0.iter().filter(|manager| manager.name != MANAGER && holds(&manager.fields, path))
    }

    /// The others who hold this field, or a part of it, without us. A field that both hold has the value that we gave it: whoever
    /// changes it takes it from us, and we hold it again once it has its value back and was applied.
    pub(crate) fn others_alone<'a>(
        &'a self,
        path: &'a [String],
        ours: &'a BTreeSet<Path>,
    ) -> impl Iterator<Item = &'a Manager> {
        self.others(path).filter(|manager| {
            let mut held = BTreeSet::new();
            collect(&manager.fields, &mut Vec::new(), &mut held);
            held.iter()
                .any(|field| (field.starts_with(path) || path.starts_with(field)) && !ours.contains(field))
        })
    }

    /// Whether anything is told of who has set what. Who lists objects through a cache may get them without, and an administrator may
    /// take it away.
    pub(crate) fn are_told(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether we have ever applied this object.
    pub(crate) fn ours_there(&self) -> bool {
        self.0.iter().any(|manager| manager.ours)
    }

    /// Every field that we hold by applying.
    pub(crate) fn ours(&self) -> BTreeSet<Path> {
        let mut paths = BTreeSet::new();
        for manager in self.0.iter().filter(|manager| manager.ours) {
            collect(&manager.fields, &mut Vec::new(), &mut paths);
        }
        paths
    }

    /// When what we apply changed last.
    pub(crate) fn ours_at(&self) -> Option<Timestamp> {
        self.0.iter().filter(|manager| manager.ours).filter_map(|manager| manager.at).max()
    }

    /// When any other writer wrote last.
    pub(crate) fn newest_other(&self) -> Option<Timestamp> {
        self.0.iter().filter(|manager| manager.name != MANAGER).filter_map(|manager| manager.at).max()
    }
}

fn holds(fields: &Value, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    match fields.get(format!("f:{first}")) {
        // A field without parts stands for everything below it: an atomic structure.
        Some(Value::Object(parts)) if parts.is_empty() => true,
        Some(parts) => holds(parts, rest),
        None => false,
    }
}

fn collect(fields: &Value, at: &mut Path, into: &mut BTreeSet<Path>) {
    let Value::Object(parts) = fields else { return };
    for (key, below) in parts {
        let Some(name) = key.strip_prefix("f:") else { continue };
        at.push(name.to_owned());
        let leaf = below.as_object().is_none_or(|parts| parts.keys().all(|key| !key.starts_with("f:")));
        if leaf {
            into.insert(at.clone());
        } else {
            collect(below, at, into);
        }
        at.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    pub(crate) fn path(text: &str) -> Path {
        text.split('/').map(str::to_owned).collect()
    }

    fn managers() -> Managers {
        let entries = json!([
            { "manager": "bailiwick", "operation": "Apply", "time": "2026-11-21T10:00:00Z", "fieldsType": "FieldsV1",
              "fieldsV1": { "f:spec": { "f:bmc": { "f:address": {} }, "f:consumerRef": {} } } },
            { "manager": "kubectl-edit", "operation": "Update", "time": "2026-11-21T11:00:00Z", "fieldsType": "FieldsV1",
              "fieldsV1": { "f:spec": { "f:online": {}, "f:userData": {} } } },
            { "manager": "baremetal-operator", "operation": "Update", "subresource": "status",
              "fieldsV1": { "f:status": { "f:poweredOn": {} } } },
        ]);
        Managers::read(&serde_json::from_value::<Vec<_>>(entries).unwrap())
    }

    #[test]
    fn a_field_is_held_by_whoever_set_it_last() {
        let managers = managers();
        let holder = |text| managers.others(&path(text)).map(|m| m.name.clone()).collect::<Vec<_>>();
        assert_eq!(holder("spec/online"), ["kubectl-edit"]);
        assert_eq!(holder("spec/userData/name"), ["kubectl-edit"]);
        assert!(holder("spec/bmc/address").is_empty());
        assert!(holder("status/poweredOn").is_empty());
        assert_eq!(managers.ours(), BTreeSet::from([path("spec/bmc/address"), path("spec/consumerRef")]));
        assert_eq!(managers.newest_other(), "2026-11-21T11:00:00Z".parse().ok());
        assert!(managers.ours_there());
    }

    proptest! {
        #[test]
        fn any_set_of_fields_is_read_without_harm(name in ".*", text in "[f:{}\"a-z,]{0,40}") {
            let fields: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            let mut paths = BTreeSet::new();
            collect(&fields, &mut Vec::new(), &mut paths);
            holds(&fields, &[name]);
        }
    }
}
