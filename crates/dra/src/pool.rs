//! What a sink writes and deletes so that a pool's ResourceSlices change as one.
//!
//! Consumers look at the slices of a pool's highest generation alone, and use them only once there are `resourceSliceCount` of
//! them (`k8s.io/dynamic-resource-allocation`, pools). So a changed pool is written whole at the next generation, from the first
//! write on it is incomplete, and it is complete again with the last; what is left over goes afterwards, lowest generation first,
//! so that nothing old ever looks like a whole pool.

use crate::DRIVER;
use crate::object::Object;
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
pub fn reconcile(existing: &[Value], desired: &[Object]) -> Vec<Step> {
    let desired: Vec<_> = desired.iter().filter(|object| object.kind == "ResourceSlice").collect();
    let wanted: BTreeMap<_, _> =
        desired.iter().map(|object| (object.name.as_str(), fixed(&object.json))).collect();
    let mut steps = Vec::new();
    let mut pools: BTreeMap<&str, (Vec<Existing<'_>>, Vec<&Object>)> = BTreeMap::new();
    for slice in existing.iter().filter_map(Existing::read) {
        let in_the_way = wanted.get(slice.name).is_some_and(|wanted| *wanted != fixed(slice.whole));
        if in_the_way {
            steps.push(slice.delete());
        } else if slice.driver == DRIVER {
            pools.entry(slice.pool).or_default().0.push(slice);
        }
    }
    for object in desired {
        let pool = object.json.pointer("/spec/pool/name").and_then(Value::as_str).unwrap_or_default();
        pools.entry(pool).or_default().1.push(object);
    }
    steps.extend(pools.into_values().flat_map(|(existing, desired)| reconcile_pool(existing, &desired)));
    steps
}

/// What of a slice cannot be changed (facts: dra §2): a slice of our name that differs in it must go first.
fn fixed(slice: &Value) -> [Option<&Value>; 3] {
    ["/spec/driver", "/spec/pool/name", "/spec/nodeName"].map(|pointer| slice.pointer(pointer))
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

    fn holds(&self, desired: &Object) -> bool {
        self.name == desired.name
            && same("", self.whole.get("spec").unwrap_or(&Value::Null), &desired.json["spec"])
            && has_labels(self.whole, &desired.json)
    }

    fn delete(&self) -> Step {
        Step::Delete { name: self.name.to_owned() }
    }
}

fn reconcile_pool(mut existing: Vec<Existing<'_>>, desired: &[&Object]) -> Vec<Step> {
    existing.sort_by_key(|slice| (slice.generation, slice.name));
    let newest = existing.last().map_or(0, |slice| slice.generation);
    let stands = |slice: &Existing<'_>| desired.iter().any(|object| slice.holds(object));
    // If all that is at the newest generation is wanted as it is, only the rest is missing: nothing, or what an interruption
    // or a kubelet's wiping left out.
    let mut latest = existing.iter().filter(|slice| slice.generation == newest).peekable();
    let goes_on = latest.peek().is_some() && latest.all(stands);
    let mut steps = Vec::new();
    let generation = if goes_on {
        newest
    } else if let Some(next) = newest.checked_add(1) {
        next
    } else {
        // Somebody else's doing, and nothing can follow it: begin anew.
        steps.extend(existing.drain(..).map(|slice| slice.delete()));
        1
    };
    for object in desired {
        let done = goes_on && existing.iter().any(|slice| slice.generation == newest && slice.holds(object));
        if !done {
            steps.push(Step::Apply(Box::new(at_generation(object, generation))));
        }
    }
    let wanted: BTreeSet<_> = desired.iter().map(|object| object.name.as_str()).collect();
    steps.extend(existing.iter().filter(|slice| !wanted.contains(slice.name)).map(Existing::delete));
    steps
}

fn at_generation(object: &Object, generation: i64) -> Object {
    let mut object = object.clone();
    if let Some(place) = object.json.pointer_mut("/spec/pool/generation") {
        *place = generation.into();
    }
    object
}

/// Whether two values of a field are the same but for what a write or a server adds: the pool's generation, the time of a taint,
/// and nulls.
fn same(field: &str, found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            let counts = |(key, value): &(&String, &Value)| {
                !value.is_null()
                    && !matches!((field, key.as_str()), ("pool", "generation") | ("taints", "timeAdded"))
            };
            found.iter().filter(counts).count() == wanted.iter().filter(counts).count()
                && wanted.iter().filter(counts).all(|(key, wanted)| {
                    found.get(key).is_some_and(|found| !found.is_null() && same(key, found, wanted))
                })
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len()
                && found.iter().zip(wanted).all(|(found, wanted)| same(field, found, wanted))
        }
        _ => found == wanted,
    }
}

fn has_labels(slice: &Value, desired: &Value) -> bool {
    let wanted = desired.pointer("/metadata/labels").and_then(Value::as_object);
    let found = slice.pointer("/metadata/labels").and_then(Value::as_object);
    wanted.into_iter().flatten().all(|(key, value)| found.and_then(|map| map.get(key)) == Some(value))
}
