//! What is told of whole hosts.

use crate::{Host, kernel_file};
use domain::probe::{Placement, Probe, RemoteKind};
use serde_json::json;

/// Everything that the description has is in the probe, and nothing that it has not.
#[test]
fn every_model_is_told_as_it_is_described() {
    for (model, _) in nvml_stand_in::HOSTS {
        let host = Host::of(model);
        let probe = host.probe();
        let mut described: Vec<_> = host.description.gpus().unwrap().into_iter().map(|d| d.gpu).collect();
        for gpu in &mut described {
            gpu.mig.as_mut().unwrap().profiles.sort_by_key(|profile| profile.id);
        }
        assert_eq!(probe.gpus, described, "{model}");
        assert_eq!(probe.driver, host.description.driver, "{model}");
        assert_eq!(probe.confidential_computing, host.description.confidential_computing, "{model}");
        assert_eq!(probe.diagnostics, [], "{model}");
    }
}

/// A recorded probe is a description: what a host said once can be said again.
#[test]
fn a_probe_of_a_replayed_probe_is_the_same_probe() {
    let first = Host::of("h200").probe();
    let replayed = nvml_stand_in::Description::parse(&serde_json::to_string(&first).unwrap()).unwrap();
    let second = Host::described(replayed).probe();
    assert_eq!(second.digest(), first.digest());
}

#[test]
fn a_mig_profile_has_its_placements_and_its_name_without_the_word_mig() {
    let probe = Host::of("h100").probe();
    let profiles = &probe.gpus[0].mig.as_ref().unwrap().profiles;
    let three = profiles.iter().find(|profile| profile.name == "3g.40gb").unwrap();
    assert_eq!(three.placements, [Placement { start: 0, size: 4 }, Placement { start: 4, size: 4 }]);
}

#[test]
fn mig_instances_are_told_with_their_place_and_their_device_files() {
    let mut host = Host::of("h100");
    host.gpu(0, &json!({"mig": {"enabled": true, "pending": true, "instances": [
        {"uuid": "MIG-1", "gpuInstance": 1, "computeInstance": 0, "profile": 9, "placement": {"start": 4, "size": 4}},
        {"uuid": "MIG-2", "gpuInstance": 7, "computeInstance": 0, "profile": 19, "placement": {"start": 0, "size": 1}},
    ]}}));
    let root = host.folder.path().join("root");
    kernel_file(&root, "proc/driver/nvidia-caps/mig-minors", "gpu0/gi7/access 66\ngpu0/gi7/ci0/access 67\n");
    let probe = host.probe();
    let instances = &probe.gpus[0].mig.as_ref().unwrap().instances;
    assert_eq!(instances[0].uuid.as_deref(), Some("MIG-1"));
    assert_eq!((instances[0].profile, instances[0].gpu_instance_minor), (Some(9), None));
    assert_eq!(instances[1].placement, Some(Placement { start: 0, size: 1 }));
    assert_eq!((instances[1].gpu_instance_minor, instances[1].compute_instance_minor), (Some(66), Some(67)));
    assert!(!probe.gpus[1].mig.as_ref().unwrap().enabled);
}

#[test]
fn links_lead_to_switches_and_say_which() {
    let probe = Host::of("a100").probe();
    let link = &probe.gpus[0].nvlinks[11];
    assert_eq!(
        (link.remote_pci.as_deref(), link.remote_kind),
        (Some("0000:c9:00.0"), Some(RemoteKind::Switch))
    );
}

#[test]
fn where_a_gpu_sits_is_what_the_kernel_says() {
    let host = Host::of("h100");
    let root = host.folder.path().join("root");
    let device = "sys/devices/pci0000:15/0000:15:01.0/0000:1b:00.0";
    kernel_file(&root, &format!("{device}/numa_node"), "0\n");
    let devices = root.join("sys/bus/pci/devices");
    std::fs::create_dir_all(&devices).unwrap();
    let target = "../../../devices/pci0000:15/0000:15:01.0/0000:1b:00.0";
    std::os::unix::fs::symlink(target, devices.join("0000:1b:00.0")).unwrap();
    kernel_file(&root, "proc/sys/kernel/random/boot_id", "00000000-0000-4000-8000-000000000001\n");
    kernel_file(&root, "sys/class/dmi/id/product_uuid", "ABCD\n");
    let probe = host.probe();
    assert_eq!(probe.gpus[0].pci.root.as_deref(), Some("pci0000:15"));
    assert_eq!(probe.gpus[0].numa_node, Some(0));
    assert_eq!(probe.gpus[1].pci.root, None);
    assert_eq!(
        (probe.boot_id.as_deref(), probe.host.system_uuid.as_deref()),
        (Some("00000000-0000-4000-8000-000000000001"), Some("abcd"))
    );
}

#[test]
fn a_probe_survives_json() {
    let probe = Host::of("gb200").probe();
    let text = serde_json::to_string(&probe).unwrap();
    assert_eq!(serde_json::from_str::<Probe>(&text).unwrap(), probe);
}
