//! JSON patches (RFC 6902) of a node. `add` replaces what is there, so one verb serves for both.

use serde_json::{Value, json};

use crate::secret::Secret;

/// Changes of one node that take effect together.
#[derive(Clone, Default, PartialEq)]
pub struct Patch {
    changes: Vec<Change>,
}

#[derive(Clone, PartialEq)]
enum Change {
    Set { path: String, value: Value },
    SetSecret { path: String, value: Secret },
    Remove { path: String },
}

impl Patch {
    /// No change yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a member, whether it is there or not. The path's parts are names, not yet escaped.
    #[must_use]
    pub fn set(mut self, path: &[&str], value: impl Into<Value>) -> Self {
        self.changes.push(Change::Set { path: pointer(path), value: value.into() });
        self
    }

    /// Sets a member that is never shown.
    #[must_use]
    pub fn set_secret(mut self, path: &[&str], value: &Secret) -> Self {
        self.changes.push(Change::SetSecret { path: pointer(path), value: value.clone() });
        self
    }

    /// Removes a member, which must be there.
    #[must_use]
    pub fn remove(mut self, path: &[&str]) -> Self {
        self.changes.push(Change::Remove { path: pointer(path) });
        self
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What is changed, for people: `/driver_info/redfish_address`, …
    pub fn paths(&self) -> Vec<&str> {
        self.changes
            .iter()
            .map(|change| match change {
                Change::Set { path, .. } | Change::SetSecret { path, .. } | Change::Remove { path } => {
                    path.as_str()
                }
            })
            .collect()
    }

    /// The body of the request.
    pub(crate) fn body(&self) -> Value {
        self.changes
            .iter()
            .map(|change| match change {
                Change::Set { path, value } => json!({"op": "add", "path": path, "value": value}),
                Change::SetSecret { path, value } => {
                    json!({"op": "add", "path": path, "value": value.reveal()})
                }
                Change::Remove { path } => json!({"op": "remove", "path": path}),
            })
            .collect()
    }

    pub(crate) fn secrets(&self) -> Vec<Secret> {
        self.changes
            .iter()
            .filter_map(|change| match change {
                Change::SetSecret { value, .. } => Some(value.clone()),
                _ => None,
            })
            .collect()
    }
}

impl std::fmt::Debug for Patch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.paths()).finish()
    }
}

/// A JSON pointer (RFC 6901).
fn pointer(path: &[&str]) -> String {
    path.iter()
        .fold(String::new(), |pointer, part| pointer + "/" + &part.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_a_list_of_operations() {
        let patch =
            Patch::new().set(&["extra", "a/b~c"], 1).set_secret(&["p"], &Secret::new("x")).remove(&["q"]);
        assert_eq!(
            patch.body(),
            json!([
                {"op": "add", "path": "/extra/a~1b~0c", "value": 1},
                {"op": "add", "path": "/p", "value": "x"},
                {"op": "remove", "path": "/q"},
            ])
        );
    }

    #[test]
    fn a_patch_shows_paths_and_no_values() {
        let patch = Patch::new().set_secret(&["driver_info", "redfish_password"], &Secret::new("hunter2"));
        assert_eq!(format!("{patch:?}"), r#"["/driver_info/redfish_password"]"#);
    }
}
