//! Parts of GPUs: made, found and destroyed through the library, as a driver would let it be.

use crate::{Host, diagnostics};
use bailiwick_gpu::{Nvml, PartError, Parting as _};
use domain::probe::Placement;
use serde_json::json;

const UUID: &str = "GPU-2044406b-f64b-ea2d-f8a5-d4363b4d404c";

/// Id of 1g.10gb, 2g.20gb and 3g.40gb.
const ONE: u32 = 19;
const TWO: u32 = 14;
const THREE: u32 = 9;

const fn at(start: u32, size: u32) -> Placement {
    Placement { start, size }
}

/// A host with MIG mode on at its first GPU.
fn parted() -> Host {
    let mut host = Host::of("h100");
    host.gpu(0, &json!({"mig": {"enabled": true, "pending": true}}));
    host
}

fn places(nvml: &Nvml) -> Vec<(u32, u32)> {
    let mut places: Vec<_> =
        nvml.parts(UUID).unwrap().iter().map(|part| (part.profile, part.placement.start)).collect();
    places.sort_unstable();
    places
}

#[test]
fn a_part_is_made_with_all_its_compute_slices_and_seen_by_every_process_and_probe() {
    let host = parted();
    let nvml = host.open();
    let one = nvml.make(UUID, TWO, at(2, 2)).unwrap();
    let two = nvml.make(&UUID.to_lowercase(), THREE, at(4, 4)).unwrap();
    assert_ne!((one.gpu_instance, &one.uuid), (two.gpu_instance, &two.uuid));
    assert_eq!((one.profile, one.placement, one.processes), (TWO, at(2, 2), 0));
    // a copy of the library is another process's
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("libnvidia-ml.so.1");
    std::fs::copy(host.installed.library(), &copy).unwrap();
    std::os::unix::fs::symlink(host.installed.description(), folder.path().join("description.yaml")).unwrap();
    let other = Nvml::open(Some(&copy)).unwrap();
    assert_eq!(other.parts(UUID).unwrap(), [one.clone(), two]);
    let probe = host.probe();
    let instances = &probe.gpus[0].mig.as_ref().unwrap().instances;
    assert_eq!(instances.len(), 2);
    assert_eq!(instances[0].uuid, one.uuid);
    assert_eq!((instances[0].profile, instances[0].placement), (Some(TWO), Some(at(2, 2))));
    assert!(diagnostics(&probe).is_empty());
}

#[test]
fn a_part_that_was_destroyed_leaves_its_place_to_others_and_may_be_destroyed_again() {
    let host = parted();
    let nvml = host.open();
    let one = nvml.make(UUID, THREE, at(0, 4)).unwrap();
    nvml.make(UUID, ONE, at(4, 1)).unwrap();
    assert_eq!(nvml.make(UUID, ONE, at(3, 1)).unwrap_err(), PartError::NoRoom);
    nvml.destroy(UUID, one.gpu_instance).unwrap();
    nvml.destroy(UUID, one.gpu_instance).unwrap();
    nvml.make(UUID, ONE, at(3, 1)).unwrap();
    assert_eq!(places(&nvml), [(ONE, 3), (ONE, 4)]);
}

#[test]
fn a_part_with_a_process_on_it_tells_so_and_stays() {
    let mut host = parted();
    let nvml = host.open();
    let made = nvml.make(UUID, ONE, at(0, 1)).unwrap();
    host.gpu(0, &json!({"mig": {"instances": instances(&host)}, "instanceProcesses": {"1": 2}}));
    assert_eq!(nvml.parts(UUID).unwrap()[0].processes, 2);
    assert_eq!(nvml.destroy(UUID, made.gpu_instance).unwrap_err(), PartError::InUse);
    assert_eq!(nvml.parts(UUID).unwrap()[0].uuid, made.uuid);
}

/// Instances as the library has written them.
fn instances(host: &Host) -> serde_json::Value {
    let text = std::fs::read_to_string(host.installed.description()).unwrap();
    let described: serde_json::Value = serde_json::from_str(&text).unwrap();
    described["gpus"][0]["mig"]["instances"].clone()
}

#[test]
fn a_part_that_cannot_be_finished_leaves_nothing() {
    let mut host = parted();
    host.fault(&json!({"function": "nvmlGpuInstanceCreateComputeInstance", "error": 999, "count": 1}));
    let nvml = host.open();
    assert!(matches!(nvml.make(UUID, ONE, at(0, 1)), Err(PartError::Failed(_))));
    assert!(places(&nvml).is_empty());
    nvml.make(UUID, ONE, at(0, 1)).unwrap();
}

/// Whoever made it was killed between two calls.
#[test]
fn an_instance_without_a_compute_instance_is_found_without_a_uuid_and_destroyed() {
    let mut host = parted();
    let empty = json!([{"gpuInstance": 5, "profile": TWO, "placement": {"start": 0, "size": 2}}]);
    host.gpu(0, &json!({ "emptyInstances": empty }));
    let nvml = host.open();
    let parts = nvml.parts(UUID).unwrap();
    assert_eq!((parts[0].gpu_instance, &parts[0].uuid), (5, &None));
    nvml.destroy(UUID, 5).unwrap();
    assert!(places(&nvml).is_empty());
}

#[test]
fn a_gpu_instance_with_several_compute_instances_is_no_part_of_ours_and_goes_with_them() {
    let mut host = parted();
    let instance = |compute: u32| json!({"uuid": format!("MIG-{compute}"), "gpuInstance": 3, "computeInstance": compute, "profile": TWO, "placement": {"start": 0, "size": 2}});
    host.gpu(0, &json!({"mig": {"instances": [instance(0), instance(1)]}}));
    let nvml = host.open();
    let parts = nvml.parts(UUID).unwrap();
    assert_eq!((parts.len(), &parts[0].uuid), (1, &None));
    nvml.destroy(UUID, 3).unwrap();
    assert!(places(&nvml).is_empty());
}

#[test]
fn why_nothing_is_made_is_told() {
    let host = parted();
    let nvml = host.open();
    let second = host.description.gpus().unwrap()[1].gpu.uuid.clone().unwrap();
    assert_eq!(nvml.make(&second, ONE, at(0, 1)).unwrap_err(), PartError::NotParted);
    assert_eq!(nvml.parts(&second).unwrap_err(), PartError::NotParted);
    let none = "GPU-00000000-0000-0000-0000-000000000000";
    assert_eq!(nvml.make(none, ONE, at(0, 1)).unwrap_err(), PartError::NoGpu(none.to_owned()));
    let nowhere = nvml.make(UUID, TWO, at(1, 2)).unwrap_err();
    assert_eq!(nowhere, PartError::NoPlace { profile: TWO, start: 1 });
    let mut host = parted();
    host.fault(&json!({"function": "nvmlDeviceCreateGpuInstanceWithPlacement", "error": 4}));
    assert_eq!(host.open().make(UUID, ONE, at(0, 1)).unwrap_err(), PartError::NotPermitted);
}
