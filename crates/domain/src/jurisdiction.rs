//! The partial order of jurisdictions: `eu` contains `de`, and everything contains itself.

use crate::name::Name;
use std::collections::{BTreeMap, BTreeSet};

/// Who lies directly within whom. Built once from declarations; containment questions are answered from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Containment {
    within: BTreeMap<Name, BTreeSet<Name>>,
}

/// A set of declarations that is no partial order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnOrder {
    /// A jurisdiction names a parent that nobody declares.
    #[error("jurisdiction {child} lies within {parent}, which is not declared")]
    UnknownParent {
        /// The one that names it.
        child: Name,
        /// The one that is missing.
        parent: Name,
    },
    /// A jurisdiction lies within itself.
    #[error("jurisdictions contain each other in a circle: {}", .0.iter().map(Name::as_str).collect::<Vec<_>>().join(" within "))]
    Circle(Vec<Name>),
}

impl Containment {
    /// Takes every jurisdiction with those it lies directly within.
    pub fn new(declared: impl IntoIterator<Item = (Name, Vec<Name>)>) -> Result<Self, NotAnOrder> {
        let within: BTreeMap<Name, BTreeSet<Name>> =
            declared.into_iter().map(|(child, parents)| (child, parents.into_iter().collect())).collect();
        for (child, parents) in &within {
            for parent in parents {
                if !within.contains_key(parent) {
                    return Err(NotAnOrder::UnknownParent { child: child.clone(), parent: parent.clone() });
                }
            }
        }
        let order = Self { within };
        for child in order.within.keys() {
            let mut trail = vec![child.clone()];
            order.find_circle(child, &mut trail, &mut BTreeSet::new())?;
        }
        Ok(order)
    }

    fn find_circle(
        &self,
        at: &Name,
        trail: &mut Vec<Name>,
        seen: &mut BTreeSet<Name>,
    ) -> Result<(), NotAnOrder> {
        for parent in self.within.get(at).into_iter().flatten() {
            if Some(parent) == trail.first() {
                trail.push(parent.clone());
                return Err(NotAnOrder::Circle(trail.clone()));
            }
            if seen.insert(parent.clone()) {
                trail.push(parent.clone());
                self.find_circle(parent, trail, seen)?;
                trail.pop();
            }
        }
        Ok(())
    }

    /// Whether the jurisdiction is declared.
    pub fn knows(&self, name: &Name) -> bool {
        self.within.contains_key(name)
    }

    /// Whether `outer` contains `inner` (or is it). Unknown names are contained in nothing and contain nothing.
    pub fn contains(&self, outer: &Name, inner: &Name) -> bool {
        self.knows(outer) && self.knows(inner) && (outer == inner || self.ancestors(inner).contains(outer))
    }

    /// Everything a jurisdiction lies within, itself left out.
    fn ancestors(&self, inner: &Name) -> BTreeSet<Name> {
        let mut found = BTreeSet::new();
        let mut todo = vec![inner];
        while let Some(at) = todo.pop() {
            for parent in self.within.get(at).into_iter().flatten() {
                if found.insert(parent.clone()) {
                    todo.push(parent);
                }
            }
        }
        found
    }

    /// The closed set of a jurisdiction and all it contains, sorted: what a class selector lists (DESIGN §5.6).
    pub fn descendants(&self, outer: &Name) -> Vec<Name> {
        self.within.keys().filter(|inner| self.contains(outer, inner)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn order(pairs: &[(&str, &[&str])]) -> Result<Containment, NotAnOrder> {
        Containment::new(
            pairs.iter().map(|(child, parents)| (name(child), parents.iter().map(|p| name(p)).collect())),
        )
    }

    #[test]
    fn europe_contains_germany_and_not_the_other_way_round() {
        let order = order(&[("eu", &[]), ("de", &["eu"]), ("de-he", &["de"]), ("us", &[])]).unwrap();
        assert!(order.contains(&name("eu"), &name("de-he")));
        assert!(!order.contains(&name("de"), &name("eu")));
        assert!(!order.contains(&name("us"), &name("de")));
        assert_eq!(order.descendants(&name("eu")), [name("de"), name("de-he"), name("eu")]);
    }

    #[test]
    fn an_unknown_jurisdiction_is_contained_nowhere_not_even_in_itself() {
        let order = order(&[("eu", &[])]).unwrap();
        assert!(!order.contains(&name("atlantis"), &name("atlantis")));
    }

    #[test]
    fn a_circle_is_refused_and_shown() {
        let error = order(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"])]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "jurisdictions contain each other in a circle: a within b within c within a"
        );
    }

    #[test]
    fn a_missing_parent_is_refused() {
        assert!(matches!(order(&[("de", &["eu"])]), Err(NotAnOrder::UnknownParent { .. })));
    }

    proptest! {
        /// Any graph whose edges point to smaller numbers is acyclic, so it must be a partial order.
        #[test]
        fn containment_is_a_partial_order(edges in prop::collection::vec((1usize..12, 0usize..12), 0..30)) {
            let names: Vec<Name> = (0..12).map(|n| name(&format!("j{n}"))).collect();
            let order = Containment::new((0..12).map(|child| {
                let parents = edges.iter().filter(|(c, p)| *c == child && p < c).map(|(_, p)| names[*p].clone()).collect();
                (names[child].clone(), parents)
            })).unwrap();
            for a in &names {
                prop_assert!(order.contains(a, a));
                for b in &names {
                    prop_assert!(a == b || !(order.contains(a, b) && order.contains(b, a)), "antisymmetric");
                    prop_assert_eq!(order.contains(a, b), order.descendants(a).contains(b));
                    for c in &names {
                        prop_assert!(!(order.contains(a, b) && order.contains(b, c)) || order.contains(a, c), "transitive");
                    }
                }
            }
        }
    }
}
