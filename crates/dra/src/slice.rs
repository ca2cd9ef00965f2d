//! The ResourceSlices of one machine: one pool, named after it, for the Node of the same name.

use crate::DRIVER;
use crate::object::{Object, label, metadata};
use domain::Name;
use k8s_openapi::api::resource::v1::{
    CounterSet, Device, DeviceTaint, ResourcePool, ResourceSlice, ResourceSliceSpec,
};

/// Most devices a slice where one of them has taints or counters (facts: dra §3). Also where none has: a taint that comes or goes
/// moves no device to another slice.
const MAX_DEVICES: usize = 64;

/// Most counter sets a slice. Since 1.35 a slice holds devices or counters, and never both (facts: dra §1).
const MAX_COUNTER_SETS: usize = 8;

/// Slices of a machine's devices, which come sorted, and of their counters. Names sort as the slices are numbered: the allocator's
/// order is ours.
pub(crate) fn slices(
    cell: &Name,
    machine: &Name,
    mut devices: Vec<Device>,
    counters: &[CounterSet],
    taint: Option<&DeviceTaint>,
) -> Vec<Object> {
    if let Some(taint) = taint {
        for device in &mut devices {
            device.taints.get_or_insert_default().push(taint.clone());
        }
    }
    let counted = counters.chunks(MAX_COUNTER_SETS).enumerate().map(|(at, sets)| {
        let spec = ResourceSliceSpec { shared_counters: Some(sets.to_vec()), ..ResourceSliceSpec::default() };
        (format!("-counters-{at:02x}"), spec)
    });
    let given = devices.chunks(MAX_DEVICES).enumerate().map(|(at, devices)| {
        let spec = ResourceSliceSpec { devices: Some(devices.to_vec()), ..ResourceSliceSpec::default() };
        (format!("-gpu-{at:02x}"), spec)
    });
    let specs: Vec<_> = counted.chain(given).collect();
    let resource_slice_count = i64::try_from(specs.len()).unwrap_or(i64::MAX);
    let render = |(ending, spec): (String, ResourceSliceSpec)| {
        let slice = ResourceSlice {
            metadata: metadata(cell, &label(machine.as_str(), &ending)),
            spec: ResourceSliceSpec {
                driver: DRIVER.to_owned(),
                node_name: Some(machine.to_string()),
                pool: ResourcePool { name: machine.to_string(), generation: 1, resource_slice_count },
                ..spec
            },
        };
        Object::new(&slice, Some(machine))
    };
    specs.into_iter().map(render).collect()
}
