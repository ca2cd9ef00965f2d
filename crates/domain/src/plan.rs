//! Plans: every change is first shown, and only what was shown is applied (DESIGN §3.6).
//!
//! A plan is immutable and addressed by the digest of its content, the state it starts from included: if that state has
//! changed by the time it is applied, it is stale and refused.

use crate::check::check;
use crate::declaration::{Declaration, Kind};
use crate::name::{Digest, Name};
use crate::problem::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a plan does to one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is new.
    Create,
    /// It changes.
    Update,
    /// It goes.
    Delete,
}

/// One changed value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldChange {
    /// Path in the document, such as `spec.bmc.address`.
    pub path: String,
    /// Before; `null` where it was absent.
    pub from: Value,
    /// After; `null` where it goes.
    pub to: Value,
}

/// What happens to one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// What is done.
    pub action: Action,
    /// The kind of the object.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// Which values change, sorted by path.
    pub fields: Vec<FieldChange>,
    /// The document as it will be; `null` for a deletion.
    pub after: Value,
}

/// An immutable set of changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Digest of everything below.
    pub digest: Digest,
    /// Digest of the objects it starts from.
    pub base: Digest,
    /// The changes: creations and updates in the order in which kinds refer to each other, deletions last and in reverse.
    pub changes: Vec<Change>,
    /// How many of the objects given stay as they are.
    pub unchanged: usize,
}

/// What a person asks for: these objects shall be so, those shall go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// Objects as they shall be. Objects not named stay.
    pub apply: Vec<Declaration>,
    /// Objects that shall go.
    pub delete: Vec<(Kind, Name)>,
    /// Machines that get a new password, each with a mark that no other plan has: so what was reviewed for one password is
    /// never applied for another. The mark tells nothing of the password.
    pub new_passwords: BTreeMap<Name, String>,
}

pub(crate) type Key = (Kind, Name);
pub(crate) type Objects = BTreeMap<Key, Declaration>;

/// The path by which a plan shows that a password changes.
pub const PASSWORD: &str = "(password)";

fn new_password<'w>(wish: &'w Wish, (kind, name): &Key) -> Option<&'w String> {
    wish.new_passwords.get(name).filter(|_| *kind == Kind::Machine)
}

impl Plan {
    /// Works out the changes from `current` to what the wish says, or every reason why that must not be.
    /// `home` is the cell's jurisdiction; `None` only before the first jurisdiction is known.
    pub fn make(current: &[Declaration], wish: &Wish, home: Option<&Name>) -> Result<Self, Vec<Problem>> {
        let before: Objects = keyed(current);
        let mut after = before.clone();
        let mut problems = Vec::new();
        let mut seen = BTreeSet::new();
        for declaration in &wish.apply {
            let key = (declaration.kind(), declaration.name().clone());
            if !seen.insert(key.clone()) {
                problems.push(
                    Problem::new(
                        "declaration.duplicate",
                        format!("{} is declared twice", declaration.reference()),
                    )
                    .hint("keep one of the two")
                    .at(declaration.reference()),
                );
            }
            after.insert(key, declaration.clone());
        }
        for (kind, name) in &wish.delete {
            if after.remove(&(*kind, name.clone())).is_none() {
                problems.push(
                    Problem::new("declaration.not-found", format!("there is no {kind}/{name} to delete"))
                        .hint(format!(
                            "`bailiwick get {}` lists what there is",
                            kind.as_str().to_lowercase()
                        )),
                );
            }
        }
        problems.extend(check(&after, &wish.delete, home));
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut changes = Vec::new();
        for (key, declaration) in &after {
            let (action, old) = match before.get(key) {
                None => (Action::Create, Value::Null),
                Some(old) if old == declaration && new_password(wish, key).is_none() => continue,
                Some(old) => (Action::Update, old.to_json()),
            };
            let new = declaration.to_json();
            let mut fields = differences(&old, &new);
            if let Some(mark) = new_password(wish, key) {
                let from = if action == Action::Update { "sealed".into() } else { Value::Null };
                fields.push(FieldChange { path: PASSWORD.into(), from, to: format!("new, {mark}").into() });
            }
            changes.push(Change { action, kind: key.0, name: key.1.clone(), fields, after: new });
        }
        for (key, old) in before.iter().rev().filter(|(key, _)| !after.contains_key(*key)) {
            let fields = differences(&old.to_json(), &Value::Null);
            changes.push(Change {
                action: Action::Delete,
                kind: key.0,
                name: key.1.clone(),
                fields,
                after: Value::Null,
            });
        }
        let is_changed =
            |key: &Key| changes.iter().any(|change| (change.kind, &change.name) == (key.0, &key.1));
        let unchanged = seen.iter().filter(|key| !is_changed(key)).count();
        Ok(Self::seal(state_digest(current), changes, unchanged))
    }

    fn seal(base: Digest, changes: Vec<Change>, unchanged: usize) -> Self {
        let content = serde_json::json!({ "base": base, "changes": changes, "unchanged": unchanged });
        Self { digest: Digest::of_json(&content), base, changes, unchanged }
    }

    /// Whether the digest is that of the content: what is taken from outside is checked.
    pub fn is_genuine(&self) -> bool {
        Self::seal(self.base, self.changes.clone(), self.unchanged).digest == self.digest
    }

    /// Whether the plan still starts from what there is.
    pub fn fits(&self, current: &[Declaration]) -> bool {
        self.base == state_digest(current)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

fn keyed(declarations: &[Declaration]) -> Objects {
    declarations.iter().map(|d| ((d.kind(), d.name().clone()), d.clone())).collect()
}

fn state_digest(current: &[Declaration]) -> Digest {
    Digest::of_json(&keyed(current).values().map(Declaration::to_json).collect())
}

/// Changed leaves of two documents, sorted by path.
fn differences(from: &Value, to: &Value) -> Vec<FieldChange> {
    fn leaves(value: &Value, path: &str, out: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    leaves(value, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, out);
                }
            }
            Value::Null => {}
            leaf => {
                out.insert(path.to_owned(), leaf.clone());
            }
        }
    }
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    leaves(from, "", &mut old);
    leaves(to, "", &mut new);
    let paths: BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
    let take = |side: &BTreeMap<String, Value>, path: &str| side.get(path).cloned().unwrap_or_default();
    paths
        .into_iter()
        .map(|path| FieldChange { from: take(&old, &path), to: take(&new, &path), path })
        .filter(|change| change.from != change.to && !matches!(change.path.as_str(), "apiVersion" | "kind"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: &str = "
apiVersion: bailiwick.dev/v1alpha1
kind: Jurisdiction
metadata: {name: eu}
spec: {}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Jurisdiction
metadata: {name: us}
spec: {}
---
apiVersion: bailiwick.dev/v1alpha1
kind: LegalEntity
metadata: {name: acme}
spec: {legalName: Acme, country: DE}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Site
metadata: {name: fra1}
spec: {jurisdiction: eu, operator: acme, country: DE, bmcNetworks: [10.0.0.0/24]}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Machine
metadata: {name: m1}
spec: {site: fra1, bmc: {address: 10.0.0.5, username: root, passwordFile: pw}}
";

    fn world(text: &str) -> Vec<Declaration> {
        crate::manifest::read("w", text).unwrap().into_iter().map(|l| l.declaration).collect()
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn codes(result: Result<Plan, Vec<Problem>>) -> Vec<String> {
        result.unwrap_err().into_iter().map(|p| p.code).collect()
    }

    #[test]
    fn a_first_plan_creates_in_the_order_of_reference_and_a_second_is_empty() {
        let wish = Wish { apply: world(WORLD), ..Wish::default() };
        let plan = Plan::make(&[], &wish, Some(&name("eu"))).unwrap();
        let order: Vec<_> = plan.changes.iter().map(|c| c.kind).collect();
        assert_eq!(
            order,
            [Kind::Jurisdiction, Kind::Jurisdiction, Kind::LegalEntity, Kind::Site, Kind::Machine]
        );
        assert!(plan.is_genuine() && plan.fits(&[]));
        let second = Plan::make(&world(WORLD), &wish, Some(&name("eu"))).unwrap();
        assert!(second.is_empty());
        assert_eq!(second.unchanged, 5);
    }

    #[test]
    fn an_update_names_just_the_fields_that_change() {
        let wish = Wish { apply: world(&WORLD.replace("10.0.0.5", "10.0.0.6")), ..Wish::default() };
        let plan = Plan::make(&world(WORLD), &wish, None).unwrap();
        assert_eq!(plan.changes.len(), 1);
        let expected =
            FieldChange { path: "spec.bmc.address".into(), from: "10.0.0.5".into(), to: "10.0.0.6".into() };
        assert_eq!(plan.changes[0].fields, [expected]);
    }

    #[test]
    fn a_site_outside_the_cells_jurisdiction_is_refused() {
        let wish = Wish { apply: world(WORLD), ..Wish::default() };
        assert_eq!(codes(Plan::make(&[], &wish, Some(&name("us")))), ["jurisdiction.outside-cell"]);
    }

    #[test]
    fn deleting_what_others_refer_to_is_refused() {
        let wish = Wish { delete: vec![(Kind::Site, name("fra1"))], ..Wish::default() };
        assert_eq!(codes(Plan::make(&world(WORLD), &wish, None)), ["declaration.in-use"]);
    }

    #[test]
    fn a_plan_is_stale_once_the_state_it_starts_from_has_changed() {
        let wish = Wish { delete: vec![(Kind::Machine, name("m1"))], ..Wish::default() };
        let plan = Plan::make(&world(WORLD), &wish, None).unwrap();
        assert!(plan.fits(&world(WORLD)));
        assert!(!plan.fits(&world(&WORLD.replace("10.0.0.5", "10.0.0.9"))));
    }

    #[test]
    fn a_plan_changed_on_the_way_is_not_genuine() {
        let wish = Wish { apply: world(WORLD), ..Wish::default() };
        let mut plan = Plan::make(&[], &wish, None).unwrap();
        plan.changes.pop();
        assert!(!plan.is_genuine());
    }

    #[test]
    fn a_new_password_alone_is_a_change_that_does_not_show_it() {
        let wish = Wish {
            apply: world(WORLD),
            new_passwords: [(name("m1"), "a1".to_owned())].into(),
            ..Wish::default()
        };
        let plan = Plan::make(&world(WORLD), &wish, None).unwrap();
        assert_eq!(plan.changes.len(), 1);
        assert_eq!((plan.changes[0].fields[0].path.as_str(), plan.unchanged), (PASSWORD, 4));
    }

    #[test]
    fn two_plans_for_two_passwords_are_two_plans() {
        let plan = |mark: &str| {
            let new_passwords = [(name("m1"), mark.to_owned())].into();
            Plan::make(&[], &Wish { apply: world(WORLD), new_passwords, ..Wish::default() }, None).unwrap()
        };
        assert_ne!(plan("a1").digest, plan("b2").digest);
    }
}
