//! The ResourceSlices of one machine: one pool, named after it, for the Node of the same name.

use crate::DRIVER;
use crate::json::{Chunk, Items, Text};
use crate::object::{Object, label, labels};
use domain::Name;

/// Most devices a slice where one of them has taints or counters (facts: dra §3). Also where none has: a taint that comes or goes
/// moves no device to another slice.
const MAX_DEVICES: usize = 64;

/// Most counter sets a slice. Since 1.35 a slice holds devices or counters, and never both (facts: dra §1).
const MAX_COUNTER_SETS: usize = 8;

/// `apiVersion` of a slice.
const API_VERSION: &str = "resource.k8s.io/v1";

/// What a slice says besides its devices or counters takes no more bytes.
const ROOM: usize = 1024;

/// Slices of a machine's devices and of their counters, both sorted. Names sort as the slices are numbered: the allocator's order
/// is ours.
pub(crate) fn slices(cell: &Name, machine: &Name, devices: &Items, counters: &Items) -> Vec<Object> {
    let counted = counters
        .chunks(MAX_COUNTER_SETS)
        .enumerate()
        .map(|(at, sets)| (format!("-counters-{at:02x}"), "sharedCounters", sets));
    let given = devices
        .chunks(MAX_DEVICES)
        .enumerate()
        .map(|(at, devices)| (format!("-gpu-{at:02x}"), "devices", devices));
    let all: Vec<_> = counted.chain(given).collect();
    let count = all.len();
    all.into_iter()
        .map(|(ending, field, items)| {
            slice(cell, machine, label(machine.as_str(), &ending), count, field, items)
        })
        .collect()
}

fn slice(cell: &Name, machine: &Name, name: String, count: usize, field: &str, items: Chunk<'_>) -> Object {
    let text = Text::object_of(items.bytes() + ROOM, |slice| {
        slice.string("apiVersion", API_VERSION);
        slice.string("kind", "ResourceSlice");
        slice.object("metadata", |metadata| {
            metadata.string("name", &name);
            let labels = labels(cell);
            metadata.object("labels", |text| labels.iter().for_each(|(key, value)| text.string(key, value)));
        });
        slice.object("spec", |spec| {
            spec.string("driver", DRIVER);
            spec.string("nodeName", machine.as_str());
            spec.object("pool", |pool| {
                pool.string("name", machine.as_str());
                pool.number("generation", 1);
                pool.number("resourceSliceCount", u64::try_from(count).unwrap_or(u64::MAX));
            });
            spec.array(field, |list| items.write(list));
        });
    });
    Object::written(API_VERSION, "ResourceSlice", name, machine.clone(), text)
}
