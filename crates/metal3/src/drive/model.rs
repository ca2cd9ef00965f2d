//! A namespace of a cluster as far as one host needs it: server-side apply with its owners, and an operator that does what
//! baremetal-operator does when all goes well.

use super::{Next, Object, Snapshot};
use crate::hardware::Hardware;
use crate::host::BareMetalHost;
use crate::managed::Path;
use crate::registration::Registration;
use crate::secret::SeenSecret;
use crate::{KIND_HOST, MANAGER};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Default)]
struct Owned {
    /// `(manager, operation)` to fields and time.
    by: BTreeMap<(String, &'static str), (BTreeSet<Path>, Timestamp)>,
}

#[derive(Clone)]
pub(super) struct Model {
    objects: BTreeMap<(String, String), (Value, Owned)>,
    pub(super) hardware: Option<Hardware>,
    pub(super) now: Timestamp,
    /// Nobody tells who has set what.
    pub(super) untold: bool,
    made: u64,
}

const ATOMIC: &[&str] = &["consumerRef", "userData", "networkData", "metaData", "ownerReferences"];

impl Model {
    pub(super) fn new() -> Self {
        let now = "2026-11-21T10:00:00Z".parse().unwrap();
        Self { objects: BTreeMap::new(), hardware: None, now, untold: false, made: 0 }
    }

    pub(super) fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn key(kind: &str, name: &str) -> (String, String) {
        (kind.to_owned(), name.to_owned())
    }

    pub(super) fn host_names(&self) -> Vec<&str> {
        self.objects.keys().filter(|(kind, _)| kind == KIND_HOST).map(|(_, name)| name.as_str()).collect()
    }

    pub(super) fn secret_names(&self) -> Vec<&str> {
        self.objects.keys().filter(|(kind, _)| kind == "Secret").map(|(_, name)| name.as_str()).collect()
    }

    pub(super) fn host(&self, name: &str) -> Option<BareMetalHost> {
        self.object(KIND_HOST, name).and_then(BareMetalHost::read)
    }

    fn object(&self, kind: &str, name: &str) -> Option<Value> {
        let (object, owned) = self.objects.get(&Self::key(kind, name))?;
        let mut object = object.clone();
        if self.untold {
            return Some(object);
        }
        let entries: Vec<_> = owned
            .by
            .iter()
            .map(|((manager, operation), (paths, at))| {
                let mut fields = json!({});
                for path in paths {
                    let mut place = &mut fields;
                    for part in path {
                        place = &mut place[format!("f:{part}")];
                        if place.is_null() {
                            *place = json!({});
                        }
                    }
                }
                json!({ "manager": manager, "operation": operation, "time": at.to_string(), "fieldsV1": fields })
            })
            .collect();
        object["metadata"]["managedFields"] = Value::from(entries);
        Some(object)
    }

    pub(super) fn snapshot(&self, registration: &Registration) -> Snapshot {
        let hosts: Vec<_> = self.host_names().into_iter().filter_map(|name| self.host(name)).collect();
        let host = super::find(registration, &hosts).unwrap().cloned();
        let secrets = self.secret_names().into_iter().map(|name| {
            let secret = self.object("Secret", name).unwrap();
            (name.to_owned(), SeenSecret::read(serde_json::from_value(secret).unwrap()))
        });
        Snapshot { secrets: secrets.collect(), hardware: self.hardware.clone(), now: self.now, host }
    }

    /// Does what was answered; `false` where nothing was to be written. A conflict that was not foreseen fails the test.
    pub(super) fn carry_out(&mut self, next: &Next) -> bool {
        match next {
            Next::Apply(Object::Host(host)) => {
                self.apply(KIND_HOST, &host.name, &host.to_object("metal3"), host.force);
            }
            Next::Apply(Object::Secret(secret)) => {
                self.apply("Secret", &secret.name, &secret.to_object("metal3"), false);
            }
            Next::Delete(target) => {
                let key = Self::key(target.kind, &target.name);
                assert_eq!(self.objects[&key].0["metadata"]["uid"], target.uid.as_str());
                if target.kind == KIND_HOST && self.host(&target.name).unwrap().taken_up {
                    self.set(&target.name, "/metadata/deletionTimestamp", json!(self.now.to_string()));
                } else {
                    self.objects.remove(&key);
                }
            }
            Next::Patch { host, resource_version, patch, .. } => {
                assert_eq!(&self.host(host).unwrap().resource_version, resource_version);
                self.edit(host, MANAGER, patch);
            }
            Next::Wait(_) | Next::Reached | Next::Refuse { .. } => return false,
        }
        true
    }

    fn apply(&mut self, kind: &str, name: &str, body: &Value, force: bool) {
        let key = Self::key(kind, name);
        let mut wished = BTreeMap::new();
        for part in ["spec", "data"] {
            if let Some(value) = body.get(part) {
                leaves(value, &mut vec![part.to_owned()], &mut wished);
            }
        }
        for part in ["labels", "annotations", "ownerReferences"] {
            if let Some(value) = body["metadata"].get(part) {
                leaves(value, &mut vec!["metadata".to_owned(), part.to_owned()], &mut wished);
            }
        }
        let (mut object, mut owned) = self.objects.remove(&key).unwrap_or_else(|| {
            let metadata =
                json!({ "name": name, "uid": format!("uid-{}", self.made), "creationTimestamp": self.now.to_string() });
            (json!({ "metadata": metadata }), Owned::default())
        });
        let ours = (MANAGER.to_owned(), "Apply");
        for (path, value) in &wished {
            if get(&object, path) == Some(value) {
                continue;
            }
            for ((manager, operation), (paths, _)) in &mut owned.by {
                if (manager.as_str(), *operation) != (MANAGER, "Apply") && paths.remove(path) {
                    assert!(force, "conflict with {manager} over {path:?}");
                }
            }
            put(&mut object, path, value.clone());
        }
        let paths: BTreeSet<_> = wished.into_keys().collect();
        let before = owned.by.remove(&ours).map(|(paths, _)| paths).unwrap_or_default();
        for gone in before.difference(&paths) {
            let others = owned.by.values().any(|(paths, _)| paths.contains(gone));
            if !others {
                assert_ne!(gone.last().map(String::as_str), Some("online"), "a required field cannot go");
                take(&mut object, gone);
            }
        }
        owned.by.insert(ours, (paths, self.now));
        self.store(key, object, owned);
    }

    fn store(&mut self, key: (String, String), mut object: Value, owned: Owned) {
        self.made += 1;
        object["metadata"]["resourceVersion"] = json!(self.made.to_string());
        self.objects.insert(key, (object, owned));
    }

    /// A merge patch by any manager; the fields become that one's.
    pub(super) fn edit(&mut self, host: &str, manager: &str, patch: &Value) {
        let mut patched = BTreeMap::new();
        leaves(patch, &mut Vec::new(), &mut patched);
        let key = Self::key(KIND_HOST, host);
        let (mut object, mut owned) = self.objects.remove(&key).unwrap_or_else(|| {
            let metadata = json!({ "name": host, "uid": format!("uid-{}", self.made) });
            (json!({ "metadata": metadata, "spec": {} }), Owned::default())
        });
        let mut set = BTreeSet::new();
        for (path, value) in patched {
            for (paths, _) in owned.by.values_mut() {
                paths.retain(|held| !held.starts_with(&path));
            }
            if value.is_null() {
                take(&mut object, &path);
            } else {
                put(&mut object, &path, value);
                set.insert(path);
            }
        }
        let entry = owned.by.entry((manager.to_owned(), "Update")).or_insert((BTreeSet::new(), self.now));
        entry.0.extend(set);
        entry.1 = self.now;
        self.store(key, object, owned);
    }

    /// Writes what the operator writes: nobody's field.
    pub(super) fn set(&mut self, host: &str, pointer: &str, value: Value) {
        let path: Path = pointer.split('/').skip(1).map(|part| part.replace("~1", "/")).collect();
        let (mut object, owned) = self.objects.remove(&Self::key(KIND_HOST, host)).unwrap();
        put(&mut object, &path, value);
        self.store(Self::key(KIND_HOST, host), object, owned);
    }

    pub(super) fn secret_changed_by(&mut self, secret: &str, manager: &str, key: &str, value: &str) {
        let path: Path = vec!["data".to_owned(), key.to_owned()];
        let (mut object, mut owned) = self.objects.remove(&Self::key("Secret", secret)).unwrap();
        put(&mut object, &path, json!(value));
        for (paths, _) in owned.by.values_mut() {
            paths.remove(&path);
        }
        owned.by.insert((manager.to_owned(), "Update"), ([path].into(), self.now));
        self.store(Self::key("Secret", secret), object, owned);
    }

    /// One transition of the operator, as `host_state_machine.go` has them.
    pub(super) fn operate(&mut self, name: &str) {
        let Some(host) = self.host(name) else { return };
        self.pass(10);
        if !host.taken_up {
            self.set(name, "/metadata/finalizers", json!(["baremetalhost.metal3.io"]));
            return;
        }
        let spec = &host.spec;
        let cancelled = !spec.has_deployment();
        let next = match (host.state().as_str(), host.deleting_since.is_some()) {
            ("deleting", true) => {
                self.objects.remove(&Self::key(KIND_HOST, name));
                return;
            }
            ("" | "registering" | "powering off before delete", true) => "deleting",
            ("provisioning" | "provisioned", true) => "deprovisioning",
            (_, true) => "powering off before delete",
            ("", _) => "registering",
            ("registering" | "available", _) if spec.externally_provisioned => "externally provisioned",
            ("registering", _) if spec.inspection_mode == "disabled" => "preparing",
            ("registering", _) => "inspecting",
            ("inspecting", _) => {
                self.hardware = Some(Hardware::default());
                "preparing"
            }
            ("preparing", _) => "available",
            ("available", _) if host.annotations.contains_key("inspect.metal3.io") => {
                self.edit(
                    name,
                    "operator",
                    &json!({ "metadata": { "annotations": { "inspect.metal3.io": null } } }),
                );
                "inspecting"
            }
            ("available", _) if !cancelled && spec.online => "provisioning",
            ("provisioning" | "provisioned", _) if cancelled => "deprovisioning",
            ("provisioning", _) => {
                let image =
                    serde_json::to_value(&self.object(KIND_HOST, name).unwrap()["spec"]["image"]).unwrap();
                self.set(name, "/status/provisioning/image", image);
                "provisioned"
            }
            ("deprovisioning", _) => {
                self.set(name, "/status/provisioning/image", json!({ "url": "" }));
                "available"
            }
            (state, _) => state,
        };
        let steady = matches!(next, "available" | "provisioned" | "externally provisioned");
        if steady && host.state().as_str() == next {
            self.set(name, "/status/poweredOn", json!(spec.online));
        }
        self.set(name, "/status/provisioning/state", json!(next));
        self.set(name, "/status/lastUpdated", json!(self.now.to_string()));
    }
}

fn leaves(value: &Value, path: &mut Path, into: &mut BTreeMap<Path, Value>) {
    match value {
        Value::Object(parts) if !path.last().is_some_and(|part| ATOMIC.contains(&part.as_str())) => {
            for (name, below) in parts {
                path.push(name.clone());
                leaves(below, path, into);
                path.pop();
            }
        }
        leaf => {
            into.insert(path.clone(), leaf.clone());
        }
    }
}

fn get<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, part| value.get(part))
}

fn put(object: &mut Value, path: &[String], value: Value) {
    let mut place = object;
    for part in path {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[part.as_str()];
    }
    *place = value;
}

/// Removes a field, and structures that are left empty by that, as the server does.
fn take(object: &mut Value, path: &[String]) {
    let Some((first, rest)) = path.split_first() else { return };
    let Some(parts) = object.as_object_mut() else { return };
    if rest.is_empty() {
        parts.remove(first);
    } else if let Some(below) = parts.get_mut(first) {
        take(below, rest);
        if below.as_object().is_some_and(Map::is_empty) {
            parts.remove(first);
        }
    }
}
