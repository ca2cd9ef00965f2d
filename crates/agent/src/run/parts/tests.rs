//! Parts over a driver that is stood in for.

use super::super::access::Described;
use super::super::driver_lock::DriverLock;
use super::super::scrub::{ScrubMode, Scrubber};
use super::*;
use domain::agent::ScrubMethod;
use dra::plugin::{Access, HeldDevice, Scrub as _};
use gpu::{HostRoot, Nvml};
use nvml_stand_in::{Description, Installed};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

const GPU: &str = "GPU-2044406b-f64b-ea2d-f8a5-d4363b4d404c";

/// 1g.10gb, its twin with media engines of which there is one, 2g.20gb, 3g.40gb.
const fn one(start: u32) -> Placed {
    Placed { profile: 19, start, size: 1 }
}
const fn media(start: u32) -> Placed {
    Placed { profile: 20, start, size: 1 }
}
const fn two(start: u32) -> Placed {
    Placed { profile: 14, start, size: 2 }
}
const fn three(start: u32) -> Placed {
    Placed { profile: 9, start, size: 4 }
}

/// Whoever keeps the records has kept it.
fn recorded() -> Begin {
    Box::new(|| Ok(()))
}

/// One that may have been made.
fn begun(placed: Placed) -> Partition {
    Partition { begun: true, ..Partition::of(placed) }
}

/// One that was.
fn made(placed: Placed, made: &Made) -> Partition {
    Partition { uuid: Some(made.uuid.clone()), ..Partition::of(placed) }
}

fn failed(outcome: Result<Made, NotMade>) -> String {
    match outcome {
        Err(NotMade::Failed(reason) | NotMade::Nothing(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// A host whose first GPU is parted, and whose kernel has made all nodes.
struct Host {
    description: Description,
    installed: Installed,
    parter: Parter,
    files: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let mut description = Description::parse(nvml_stand_in::host("h100").unwrap()).unwrap();
        description.gpus[0]["mig"] = json!({ "enabled": true, "pending": true });
        let files = tempfile::tempdir().unwrap();
        let [driver, root, dev] = ["driver", "root", "dev"].map(|name| files.path().join(name));
        std::fs::create_dir(&driver).unwrap();
        let caps = root.join("proc/driver/nvidia-caps");
        std::fs::create_dir_all(&caps).unwrap();
        std::fs::write(caps.join("mig-minors"), nvml_stand_in::mig_minors(1)).unwrap();
        std::fs::create_dir_all(dev.join("nvidia-caps")).unwrap();
        for number in 0..nvml_stand_in::mig_node_minors(1, 0, 0)[0] {
            std::fs::write(dev.join(format!("nvidia-caps/nvidia-cap{number}")), "").unwrap();
        }
        for name in ["nvidia0", "nvidiactl"] {
            std::fs::write(dev.join(name), "").unwrap();
        }
        let installed = Installed::into(&driver, &description).unwrap();
        let lock = DriverLock::of(files.path()).unwrap();
        let parter = Parter {
            driver: Driver::new(Some(installed.library()), HostRoot::at(root), lock),
            devices: DeviceRoot { runtime: PathBuf::from("/dev"), own: dev },
            sight: watch::channel(None).1,
            tips: Tips::default(),
        };
        Self { description, installed, parter, files }
    }

    fn nvml(&self) -> Nvml {
        self.parter.driver.open().unwrap()
    }

    /// What there is, as the driver has it.
    fn parts(&self) -> Vec<Placed> {
        let mut parts: Vec<_> = self.nvml().parts(GPU).unwrap().iter().map(placed).collect();
        parts.sort_unstable();
        parts
    }

    /// Somebody makes an instance of whom the agent knows nothing.
    fn left(&self, place: Placed) -> Part {
        let at = Placement { start: place.start, size: place.size };
        self.nvml().make(GPU, place.profile, at).unwrap()
    }

    /// Describes the first GPU otherwise, instances as they are now.
    fn gpu(&mut self, field: &str, value: Value) {
        let text = std::fs::read_to_string(self.installed.description()).unwrap();
        self.description = Description::parse(&text).unwrap();
        self.description.gpus[0][field] = value;
        self.installed.describe(&self.description).unwrap();
    }

    /// Lets these functions fail.
    fn faults(&mut self, faults: &[Value]) {
        let faults = faults.iter().map(|fault| serde_json::from_value(fault.clone()).unwrap());
        self.description.faults = faults.collect();
        self.installed.describe(&self.description).unwrap();
    }

    /// A part of which nothing was made so far.
    async fn make(&self, part: Placed, others: &[Placed]) -> Result<Made, NotMade> {
        self.make_known(&Partition::of(part), others).await
    }

    async fn make_known(&self, part: &Partition, others: &[Placed]) -> Result<Made, NotMade> {
        let held = [&[part.placed], others].concat();
        self.parter.make(GPU, part, &held, recorded()).await
    }

    /// Why one is not made.
    async fn refused(&self, part: Placed, others: &[Placed]) -> String {
        failed(self.make(part, others).await)
    }
}

#[tokio::test]
async fn two_parts_of_one_gpu_are_made_and_destroyed_each_by_itself() {
    let host = Host::new();
    let first = host.make(two(0), &[]).await.unwrap();
    let second = host.make(three(4), &[two(0)]).await.unwrap();
    assert_ne!(first.uuid, second.uuid);
    let [gi, ci] = nvml_stand_in::mig_node_minors(0, 1, 0);
    let Access::Nodes(nodes) = &first.access else { panic!("{first:?}") };
    let paths: Vec<_> = nodes.iter().map(|node| node.path.as_str()).collect();
    let caps = [gi, ci].map(|minor| format!("/dev/nvidia-caps/nvidia-cap{minor}"));
    assert_eq!(paths, ["/dev/nvidia0", caps[0].as_str(), caps[1].as_str(), "/dev/nvidiactl"]);
    let low = made(two(0), &first);
    assert_eq!(host.make_known(&low, &[three(4)]).await.unwrap(), first, "asked again, it is the same");
    host.parter.destroy(GPU, &low).await.unwrap();
    assert_eq!(host.parts(), [three(4)]);
    host.parter.destroy(GPU, &low).await.unwrap();
    host.make(one(1), &[three(4)]).await.unwrap();
    host.parter.destroy(GPU, &made(three(4), &second)).await.unwrap();
    assert_eq!(host.parts(), [one(1)]);
}

#[tokio::test]
async fn the_probe_is_taken_anew_after_a_part_was_made_or_destroyed() {
    use super::super::watching::Watching;
    let host = Host::new();
    let library = Some(host.installed.library());
    let root = host.parter.driver.root.clone();
    let interval = Duration::from_hours(1);
    let watch = gpu::Watch { library, host: root, interval };
    let lock = DriverLock::of(host.files.path()).unwrap();
    let watching = Watching::start(watch, Vec::new(), lock).unwrap();
    let parter = Parter { tips: watching.tips(), ..host.parter.clone() };
    let mut sight = watching.sight();
    let mut until = async |count: usize| {
        let instances = |sight: &Option<Sight>| {
            let gpu = sight.as_ref().and_then(|sight| sight.probe.gpu(GPU).cloned());
            gpu.and_then(|gpu| gpu.mig).map_or(0, |mig| mig.instances.len())
        };
        let seen = sight.wait_for(|sight| sight.is_some() && instances(sight) == count);
        drop(tokio::time::timeout(Duration::from_mins(1), seen).await.unwrap().unwrap());
    };
    until(0).await;
    parter.make(GPU, &Partition::of(one(3)), &[one(3)], recorded()).await.unwrap();
    until(1).await;
    parter.destroy(GPU, &begun(one(3))).await.unwrap();
    until(0).await;
}

#[tokio::test]
async fn what_somebody_left_in_the_way_goes_and_what_is_beside_stays() {
    let host = Host::new();
    for place in [one(0), one(3), two(4)] {
        host.left(place);
    }
    host.make(three(0), &[]).await.unwrap();
    assert_eq!(host.parts(), [three(0), two(4)]);
}

#[tokio::test]
async fn what_is_in_the_way_and_held_or_used_stays_and_is_named() {
    let mut host = Host::new();
    let left = host.left(three(0));
    let refused = host.refused(one(0), &[one(2)]).await;
    assert!(
        refused.contains("profile 9 at slice 0 is in the way, where another claim holds a part"),
        "{refused}"
    );
    host.gpu("instanceProcesses", json!({ left.gpu_instance.to_string(): 1 }));
    let refused = host.refused(one(0), &[]).await;
    assert!(refused.contains("nobody's, but stays: processes still use it"), "{refused}");
    assert_eq!(host.parts(), [three(0)]);
}

#[tokio::test]
async fn what_takes_an_engine_elsewhere_and_is_nobodys_goes_too() {
    let host = Host::new();
    host.left(media(6));
    host.left(one(3));
    host.make(media(0), &[one(3)]).await.unwrap();
    assert_eq!(host.parts(), [one(3), media(0)]);
    let refused = host.refused(media(5), &[media(0), one(3)]).await;
    assert!(refused.contains("leave no room"), "{refused}");
    assert_eq!(host.parts(), [one(3), media(0)]);
}

#[tokio::test]
async fn an_agent_that_was_killed_in_between_leaves_nothing_that_stops_the_next() {
    let mut host = Host::new();
    // after it was made: the same is found
    let left = host.left(two(2));
    assert_eq!(Some(host.make_known(&begun(two(2)), &[]).await.unwrap().uuid), left.uuid);
    host.parter.destroy(GPU, &begun(two(2))).await.unwrap();
    assert!(host.parts().is_empty());
    // between the GPU instance and its compute instance
    host.gpu(
        "emptyInstances",
        json!([{"gpuInstance": 4, "profile": 14, "placement": {"start": 2, "size": 2}}]),
    );
    host.make_known(&begun(two(2)), &[]).await.unwrap();
    assert_eq!(host.parts(), [two(2)]);
    // one of which only the place is known
    host.gpu(
        "emptyInstances",
        json!([{"gpuInstance": 5, "profile": 19, "placement": {"start": 0, "size": 1}}]),
    );
    host.parter.destroy(GPU, &begun(one(0))).await.unwrap();
    assert_eq!(host.parts(), [two(2)]);
}

#[tokio::test]
async fn what_somebody_else_made_at_the_very_place_is_not_taken_for_ours_and_stays() {
    let mut host = Host::new();
    let first = host.make(two(2), &[]).await.unwrap();
    let ours = made(two(2), &first);
    host.parter.destroy(GPU, &ours).await.unwrap();
    let left = host.left(two(2));
    // Within one boot nothing tells it from ours; after another start of the host nothing of ours is known of the place.
    assert_eq!(left.uuid.as_ref(), Some(&first.uuid));
    assert_eq!(host.make_known(&ours, &[]).await.unwrap(), first);
    let instance = format!("MIG instance {} of profile 14 at slice 2", left.gpu_instance);
    let part = Partition::of(two(2));
    assert_eq!(host.make_known(&part, &[]).await.unwrap_err(), NotMade::Foreign(instance));
    host.parter.destroy(GPU, &part).await.unwrap();
    assert_eq!(host.parts(), [two(2)], "its scrub leaves it");
    // One that is not a device yet.
    host.gpu(
        "emptyInstances",
        json!([{"gpuInstance": 5, "profile": 19, "placement": {"start": 0, "size": 1}}]),
    );
    let refused = host.make(one(0), &[]).await.unwrap_err();
    assert!(matches!(refused, NotMade::Foreign(_)), "{refused:?}");
}

#[tokio::test]
async fn an_instance_in_which_somebody_else_made_compute_instances_is_not_taken_for_ours_and_stays() {
    let mut host = Host::new();
    let first = host.make(two(2), &[]).await.unwrap();
    let text = std::fs::read_to_string(host.installed.description()).unwrap();
    let mut mig = Description::parse(&text).unwrap().gpus[0]["mig"].clone();
    let mut second = mig["instances"][0].clone();
    second["computeInstance"] = 1.into();
    second["uuid"] = "MIG-2044406b-f64b-ea2d-f8a5-000001000001".into();
    mig["instances"].as_array_mut().unwrap().push(second);
    host.gpu("mig", mig);
    assert_eq!(host.nvml().parts(GPU).unwrap()[0].compute_instances, 2);
    for part in [made(two(2), &first), begun(two(2))] {
        let refused = host.make_known(&part, &[]).await.unwrap_err();
        assert!(matches!(refused, NotMade::Foreign(_)), "{refused:?}");
        host.parter.destroy(GPU, &part).await.unwrap();
        assert_eq!(host.parts(), [two(2)], "its scrub leaves it");
    }
}

#[tokio::test]
async fn nothing_is_made_before_it_is_recorded_and_what_is_made_already_needs_no_record() {
    let host = Host::new();
    let unwritable = || -> Begin { Box::new(|| Err("no space left on device".to_owned())) };
    let make = async |part: &Partition| host.parter.make(GPU, part, &[two(2)], unwritable()).await;
    assert_eq!(failed(make(&Partition::of(two(2))).await), "no space left on device");
    assert!(host.parts().is_empty());
    let first = host.make(two(2), &[]).await.unwrap();
    assert_eq!(make(&made(two(2), &first)).await.unwrap(), first);
}

#[tokio::test]
async fn what_the_driver_refuses_is_told_and_leaves_nothing() {
    let mut host = Host::new();
    host.faults(&[json!({"function": "nvmlDeviceCreateGpuInstanceWithPlacement", "error": 4})]);
    let refused = host.refused(one(0), &[]).await;
    assert!(refused.contains("not permitted"), "{refused}");
    let half_way = json!({"function": "nvmlGpuInstanceCreateComputeInstance", "error": 999});
    host.faults(std::slice::from_ref(&half_way));
    let refused = host.make(one(0), &[]).await.unwrap_err();
    assert!(matches!(refused, NotMade::Nothing(_)), "{refused:?}");
    assert!(host.parts().is_empty());
    host.faults(&[half_way, json!({"function": "nvmlGpuInstanceDestroy", "error": 999})]);
    let refused = host.make(one(0), &[]).await.unwrap_err();
    assert!(matches!(refused, NotMade::Failed(_)), "what is left of it is ours: {refused:?}");
    // As it is now, with what was left.
    host.gpu("instanceProcesses", json!({}));
    host.faults(&[]);
    assert_eq!(host.parts(), [one(0)]);
    host.make_known(&begun(one(0)), &[]).await.unwrap();
    let second = host.description.gpus().unwrap()[1].gpu.uuid.clone().unwrap();
    let refused = failed(host.parter.make(&second, &Partition::of(one(0)), &[one(0)], recorded()).await);
    assert!(refused.contains("MIG mode is off"), "{refused}");
    host.parter.destroy(&second, &begun(one(0))).await.unwrap();
}

#[tokio::test]
async fn a_part_whose_nodes_are_missing_is_not_handed_out() {
    let host = Host::new();
    let [_, ci] = nvml_stand_in::mig_node_minors(0, 1, 0);
    std::fs::remove_file(host.parter.devices.own.join(format!("nvidia-caps/nvidia-cap{ci}"))).unwrap();
    let refused = host.refused(one(0), &[]).await;
    assert_eq!(refused, format!("/dev/nvidia-caps/nvidia-cap{ci} is missing"));
}

#[tokio::test]
async fn a_part_that_is_described_by_its_uuid_is_referenced() {
    let host = Host::new();
    let part = host.make(one(0), &[]).await.unwrap();
    let [gi, ci] = nvml_stand_in::mig_node_minors(0, 1, 0);
    let cdi = tempfile::tempdir().unwrap();
    let nodes = [
        "/dev/nvidia0".to_owned(),
        format!("/dev/nvidia-caps/nvidia-cap{gi}"),
        format!("/dev/nvidia-caps/nvidia-cap{ci}"),
    ];
    let nodes: Vec<_> = nodes.iter().map(|path| json!({ "path": path })).collect();
    let device = json!({ "name": part.uuid, "containerEdits": { "deviceNodes": nodes } });
    let specification = json!({ "cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [device] });
    std::fs::write(cdi.path().join("nvidia.json"), specification.to_string()).unwrap();
    let described: Described = super::super::access::described(&[cdi.path().to_owned()]);
    let probe = Arc::new(host.parter.driver.probe().unwrap());
    let sight = watch::channel(Some(Sight { probe, described, began: crate::cell::uptime() })).1;
    let parter = Parter { sight, ..host.parter.clone() };
    let again = parter.make(GPU, &made(one(0), &part), &[one(0)], recorded()).await.unwrap();
    assert_eq!(again.access, Access::Reference(format!("nvidia.com/gpu={}", part.uuid)));
}

#[tokio::test(start_paused = true)]
async fn a_part_is_destroyed_by_its_scrub_in_every_mode_once_its_last_process_has_left() {
    for mode in [ScrubMode::Reset, ScrubMode::Processes, ScrubMode::Never] {
        let mut host = Host::new();
        let part = host.make(one(0), &[]).await.unwrap();
        let driver = host.parter.driver.clone();
        let scrubber = Scrubber {
            mode,
            probe: Arc::new(move || driver.probe()),
            nvidia_smi: PathBuf::from("/nonexistent"),
            parter: host.parter.clone(),
        };
        let partition = Some(made(one(0), &part));
        let device = HeldDevice {
            pool: "m1".to_owned(),
            device: "gpu-1-mig-19-0".to_owned(),
            gpu: GPU.to_owned(),
            partition,
            requests: Vec::new(),
            access: None,
        };
        host.gpu("instanceProcesses", json!({ "1": 1 }));
        let refused = scrubber.scrub(&device).await;
        assert_eq!(refused.method, ScrubMethod::Destroyed);
        assert_eq!(refused.outcome.unwrap_err(), "processes still use it");
        assert_eq!(host.parts(), [one(0)]);
        host.gpu("instanceProcesses", json!({}));
        scrubber.scrub(&HeldDevice { partition: Some(begun(one(0))), ..device }).await.outcome.unwrap();
        assert!(host.parts().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_is_known_to_hold_of_a_parted_gpu_is_destroyed_and_one_that_is_not_parted_is_left_to_a_reset()
 {
    let mut host = Host::new();
    for place in [two(0), two(2), three(4)] {
        host.left(place);
    }
    host.gpu("instanceProcesses", json!({ "1": 1 }));
    assert!(host.parter.destroy_rest(GPU, &[three(4)]).await.unwrap_err().contains("still use it"));
    host.gpu("instanceProcesses", json!({}));
    assert_eq!(host.parter.destroy_rest(GPU, &[three(4)]).await, Ok(Rest::Destroyed));
    assert_eq!(host.parts(), [three(4)]);
    host.gpu("mig", json!({ "enabled": false }));
    assert_eq!(host.parter.destroy_rest(GPU, &[]).await, Ok(Rest::Whole));
}
