//! The ResourceSlices of one machine: one pool, named after it, for the Node of the same name.

use crate::DRIVER;
use crate::object::{Object, label, metadata};
use domain::Name;
use k8s_openapi::api::resource::v1::{
    CounterSet, DeviceTaint, ResourcePool, ResourceSlice, ResourceSliceSpec,
};
use serde_json::{Value, json};

/// Most devices a slice, and where one of them has taints or consumes counters (facts: dra §3).
const MAX_DEVICES: usize = 128;
const MAX_OF_MANY_WORDS: usize = 64;

/// Most counter sets a slice. From 1.35 on a slice holds devices or counters, never both; 1.36 is the oldest that we know.
const MAX_COUNTER_SETS: usize = 8;

/// Slices of a machine's devices, which come as JSON and sorted, and of the counters that they share. Names sort as the slices are numbered:
/// the allocator's order is ours.
pub(crate) fn slices(
    cell: &Name,
    machine: &Name,
    mut devices: Vec<Value>,
    counters: Vec<CounterSet>,
    taint: Option<&DeviceTaint>,
) -> Vec<Object> {
    if let Some(taint) = taint {
        let taint = json!(taint);
        for fields in devices.iter_mut().filter_map(Value::as_object_mut) {
            if let Value::Array(taints) = fields.entry("taints").or_insert_with(|| json!([])) {
                taints.push(taint.clone());
            }
        }
    }
    let has = |word| devices.iter().any(|device| device.get(word).is_some());
    let many = has("taints") || has("consumesCounters");
    let most = if many { MAX_OF_MANY_WORDS } else { MAX_DEVICES };
    let contents: Vec<_> = chunks(devices, most)
        .map(|devices| (Some(devices), None))
        .chain(chunks(counters, MAX_COUNTER_SETS).map(|counters| (None, Some(counters))))
        .collect();
    let count = i64::try_from(contents.len()).unwrap_or(i64::MAX);
    let render = |(at, (devices, shared_counters)): (usize, (Option<Vec<Value>>, Option<_>))| {
        let slice = ResourceSlice {
            metadata: metadata(cell, &label(machine.as_str(), &format!("-gpu-{at:02x}"))),
            spec: ResourceSliceSpec {
                driver: DRIVER.to_owned(),
                node_name: Some(machine.to_string()),
                pool: ResourcePool { name: machine.to_string(), generation: 1, resource_slice_count: count },
                devices: devices.as_ref().map(|_| Vec::new()),
                shared_counters,
                ..ResourceSliceSpec::default()
            },
        };
        let mut object = Object::new(&slice, Some(machine));
        if let (Some(field), Some(devices)) = (object.json.pointer_mut("/spec/devices"), devices) {
            *field = Value::Array(devices);
        }
        object
    };
    contents.into_iter().enumerate().map(render).collect()
}

/// A list in pieces of at most so many.
fn chunks<T>(list: Vec<T>, most: usize) -> impl Iterator<Item = Vec<T>> {
    let mut rest = list.into_iter();
    std::iter::from_fn(move || {
        Some(rest.by_ref().take(most).collect::<Vec<_>>()).filter(|piece| !piece.is_empty())
    })
}
