//! What a sink writes and deletes so that a pool's ResourceSlices change as one.
//!
//! Consumers look at the slices of a pool's highest generation alone, and use them only once there are `resourceSliceCount` of
//! them (`k8s.io/dynamic-resource-allocation`, pools). So a changed pool is written whole at the next generation, from the first
//! write on it is incomplete, and it is complete again with the last; what is left over goes afterwards, lowest generation first,
//! so that nothing old ever looks like a whole pool.

use crate::DRIVER;
use crate::compare::holds;
use crate::object::Object;
use domain::Name;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// One thing for a sink to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write this slice, with the generation it carries.
    Apply(Box<Object>),
    /// Delete the slice of this name.
    Delete {
        /// Its name.
        name: String,
    },
}

/// What leads from the slices that are there to those that are wanted. Nothing is written for a pool whose content is as wanted;
/// an interrupted run is taken up where it ended.
///
/// `existing` are the ResourceSlices of our driver as the API server or files give them, whoever wrote them: what a kubelet
/// wrote while no policy was in force goes away. Slices of other drivers may be among them, and are touched only where they
/// bear a name of ours. `desired` is [`crate::Output::observed`], of which other kinds are ignored. Write with force:
/// whoever holds a field of these slices, it is ours.
pub fn reconcile<'d>(existing: &[Value], desired: impl IntoIterator<Item = &'d Object>) -> Vec<Step> {
    let desired: Vec<_> = desired.into_iter().filter(|object| object.kind == "ResourceSlice").collect();
    let wanted: BTreeMap<_, _> =
        desired.iter().map(|object| (object.name.as_str(), pool_of(object))).collect();
    let mut steps = Vec::new();
    let mut pools: BTreeMap<&str, (Vec<Existing<'_>>, Vec<&Object>)> = BTreeMap::new();
    for slice in existing.iter().filter_map(Existing::read) {
        let in_the_way = wanted.get(slice.name).is_some_and(|pool| !slice.is_fixed_to(pool));
        if in_the_way {
            steps.push(slice.delete());
        } else if slice.driver == DRIVER {
            pools.entry(slice.pool).or_default().0.push(slice);
        }
    }
    for object in desired {
        pools.entry(pool_of(object)).or_default().1.push(object);
    }
    steps.extend(pools.into_values().flat_map(|(existing, desired)| reconcile_pool(existing, &desired)));
    steps
}

/// The pool of one of our slices is named after its machine.
fn pool_of(slice: &Object) -> &str {
    slice.machine.as_ref().map_or("", Name::as_str)
}

struct Existing<'a> {
    name: &'a str,
    driver: &'a str,
    pool: &'a str,
    generation: i64,
    whole: &'a Value,
}

impl<'a> Existing<'a> {
    /// `None` for what is no slice.
    fn read(whole: &'a Value) -> Option<Self> {
        let text = |pointer| whole.pointer(pointer).and_then(Value::as_str);
        Some(Self {
            name: text("/metadata/name")?,
            driver: text("/spec/driver")?,
            pool: text("/spec/pool/name")?,
            generation: whole.pointer("/spec/pool/generation").and_then(Value::as_i64).unwrap_or(0),
            whole,
        })
    }

    /// Whether what of a slice cannot be changed (facts: dra §2) is as in ours of this pool: one of our name that differs in it must
    /// go first.
    fn is_fixed_to(&self, pool: &str) -> bool {
        let node = self.whole.pointer("/spec/nodeName").and_then(Value::as_str);
        self.driver == DRIVER && self.pool == pool && node == Some(pool)
    }

    fn holds(&self, desired: &Object) -> bool {
        self.name == desired.name && holds(self.whole, desired.text())
    }

    fn delete(&self) -> Step {
        Step::Delete { name: self.name.to_owned() }
    }
}

fn reconcile_pool(mut existing: Vec<Existing<'_>>, desired: &[&Object]) -> Vec<Step> {
    existing.sort_by_key(|slice| (slice.generation, slice.name));
    let newest = existing.last().map_or(0, |slice| slice.generation);
    // If all that is at the newest generation is wanted as it is, only the rest is missing: nothing, or what an interruption
    // or a kubelet's wiping left out.
    let latest = existing.iter().filter(|slice| slice.generation == newest);
    let standing: Option<BTreeSet<&str>> =
        latest.map(|slice| desired.iter().any(|object| slice.holds(object)).then_some(slice.name)).collect();
    let standing = standing.filter(|names| !names.is_empty());
    let mut steps = Vec::new();
    let generation = if standing.is_some() {
        newest
    } else if let Some(next) = newest.checked_add(1) {
        next
    } else {
        // Somebody else's doing, and nothing can follow it: begin anew.
        steps.extend(existing.drain(..).map(|slice| slice.delete()));
        1
    };
    let standing = standing.unwrap_or_default();
    for object in desired.iter().filter(|object| !standing.contains(object.name.as_str())) {
        steps.push(Step::Apply(Box::new(object.with("/spec/pool/generation", generation.into()))));
    }
    let wanted: BTreeSet<_> = desired.iter().map(|object| object.name.as_str()).collect();
    steps.extend(existing.iter().filter(|slice| !wanted.contains(slice.name)).map(Existing::delete));
    steps
}
