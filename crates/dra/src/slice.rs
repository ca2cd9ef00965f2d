//! The ResourceSlices of one machine: one pool, named after it, for the Node of the same name.

use crate::DRIVER;
use crate::object::{Object, label, metadata};
use domain::Name;
use k8s_openapi::api::resource::v1::{Device, DeviceTaint, ResourcePool, ResourceSlice, ResourceSliceSpec};

/// Most devices a slice, without and with taints (facts: dra §3).
const MAX_DEVICES: usize = 128;
const MAX_TAINTED: usize = 64;

/// Slices of a machine's devices, which come sorted. Names sort as the slices are numbered: the allocator's order is ours.
pub(crate) fn slices(
    cell: &Name,
    machine: &Name,
    mut devices: Vec<Device>,
    taint: Option<&DeviceTaint>,
) -> Vec<Object> {
    for device in &mut devices {
        device.taints = taint.map(|taint| vec![taint.clone()]);
    }
    let chunks: Vec<_> = devices.chunks(if taint.is_some() { MAX_TAINTED } else { MAX_DEVICES }).collect();
    let count = i64::try_from(chunks.len()).unwrap_or(i64::MAX);
    let render = |(at, devices): (usize, &&[Device])| {
        let slice = ResourceSlice {
            metadata: metadata(cell, &label(machine.as_str(), &format!("-gpu-{at:02x}"))),
            spec: ResourceSliceSpec {
                driver: DRIVER.to_owned(),
                node_name: Some(machine.to_string()),
                pool: ResourcePool { name: machine.to_string(), generation: 1, resource_slice_count: count },
                devices: Some(devices.to_vec()),
                ..ResourceSliceSpec::default()
            },
        };
        Object::new(&slice, Some(machine))
    };
    chunks.iter().enumerate().map(render).collect()
}
