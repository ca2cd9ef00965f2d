//! The whole way: a simulated machine with GPUs becomes a real node, its agent enrols by what the machine was given and sees them,
//! the cell publishes what all views agree on, the real scheduler gives one, or a part of one, to a claim, and the pod sees that one
//! and no other.

use crate::agent::{Door, OpenDoor};
use crate::node::{CELL_USER, Real, kubectl, text};
use crate::support::document;
use agent::cell::StateDir;
use agent::run::{DeviceRoot, Options, ScrubMode};
use bailiwick_cell::{AgentSettings, SinkSettings};
use domain::agent::ENROLMENT_FILE;
use domain::probe::{Mig, MigProfile, Placement};
use dra::plugin::Claims;
use nvml_stand_in::{Description, Event, Installed, mig_minors};
use serde_json::{Value, json};
use sim::Model;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Generous: the machine may be compiling at the same time.
const PATIENCE: Duration = Duration::from_mins(2);
/// What the controller of Kubernetes says that evicts pods from tainted devices.
const EVICTED: &str = "reason=DeviceTaintManagerEviction,involvedObject.name=trains";
/// Half of a GPU.
const PROFILE: &str = "3g.40gb";

/// Waits until an object is so; fails with what the cell says of its publishing too.
async fn until(real: &Real, kind: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = real.plane.until(kind, name, wanted).await;
    let published = real.line.client.get("/api/v1/publications").await;
    found.unwrap_or_else(|error| panic!("{error}\n{published:#}"))
}

/// A host on which the driver tells what the machine's BMC does, with device files like `/dev/null`. Its first GPU is in MIG mode.
async fn host(real: &Real, machine: &str, uuid: &str, files: &Path) -> Installed {
    let mut probe = real.line.client.probe_of(machine, uuid).await;
    for (minor, gpu) in (0..).zip(&mut probe.gpus) {
        gpu.minor = Some(minor);
    }
    let profile = MigProfile {
        id: 9,
        name: PROFILE.to_owned(),
        slices: 3,
        memory_bytes: 40 << 30,
        multiprocessors: 60,
        max_instances: 2,
        placements: vec![Placement { start: 0, size: 4 }, Placement { start: 4, size: 4 }],
        ..MigProfile::default()
    };
    probe.gpus[0].mig =
        Some(Mig { enabled: true, pending: true, profiles: vec![profile], instances: vec![] });
    testbed::make_gpu_files(&files.join("dev"), probe.gpus.len()).unwrap();
    let described = Description::parse(&serde_json::to_string(&probe).unwrap()).unwrap();
    Installed::into(&files.join("driver"), &described).unwrap()
}

/// Prints what it sees of GPUs, and lives on.
fn pod(name: &str) -> Value {
    let command = "env | grep ^BAILIWICK_GPU; ls /dev /dev/nvidia-caps 2>&1 | grep ^nvidia; echo end; trap 'exit 0' TERM; while :; do sleep 1; done";
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", command],
            }],
        },
    })
}

fn claim_and_pod(name: &str, class: &str) -> [Value; 2] {
    let claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "devices": { "requests": [{ "name": "gpu", "exactly": { "deviceClassName": class } }] } },
    });
    let mut pod = pod(name);
    pod["spec"]["resourceClaims"] = json!([{ "name": "gpu", "resourceClaimName": name }]);
    pod["spec"]["containers"][0]["resources"] = json!({ "claims": [{ "name": "gpu" }] });
    [claim, pod]
}

/// One that has no claim, and wants so many GPUs of a class.
fn pod_by_extended_resource(name: &str, class: &str, gpus: usize) -> Value {
    let mut pod = pod(name);
    let limits = json!({ format!("gpu.bailiwick.dev/{class}"): gpus });
    pod["spec"]["containers"][0]["resources"] = json!({ "limits": limits });
    pod
}

/// A cell whose agents enrol by themselves and report often, publishing to the real cluster.
async fn cell_with_agents() -> (Real, OpenDoor) {
    let door = Door::new().await;
    let url = door.url();
    let real = Real::of(Model::PowerEdgeXe, 1, |settings, plane| {
        let mut agents = AgentSettings::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        agents.report_interval = Duration::from_secs(1);
        agents.url = Some(url);
        settings.agents = Some(agents);
        let kubeconfig = Some(plane.kubeconfig_for(CELL_USER, &[]).unwrap());
        settings.sinks = vec![SinkSettings::Cluster { kubeconfig, context: None }];
        CELL_USER.clone_into(&mut settings.cluster_user);
    })
    .await;
    for (role, user) in [("cell", CELL_USER), ("agent", "agent")] {
        let manifests = testbed::repository_root().join("manifests");
        let manifest = match role {
            "cell" => manifests.join("cell-clusterrole.yaml"),
            _ => manifests.join("agent/clusterrole.yaml"),
        };
        kubectl(&real.plane, &["apply", "-f", manifest.to_str().unwrap()]).await;
        let (name, user) = (format!("--clusterrole=bailiwick-{role}"), format!("--user={user}"));
        kubectl(&real.plane, &["create", "clusterrolebinding", &format!("gpu-{role}"), &name, &user]).await;
    }
    let door = door.open(real.line.cell.agents_address().unwrap());
    (real, door)
}

/// Classes of whole GPUs and of parts, and a machine whose GPUs may be parted.
async fn declare(real: &Real) {
    let whole = json!({ "jurisdiction": "de", "requires": ["probed"], "extendedResource": true });
    let whole = document("GpuClass", "probed", whole);
    let spec = json!({ "jurisdiction": "de", "requires": ["probed"], "partition": PROFILE });
    let machine = &real.line.site.machines()[0];
    let bmc = json!({
        "address": format!("{}:{}", machine.address, machine.port), "username": machine.username,
        "passwordFile": "pw",
    });
    let parted = json!({ "site": "fra1", "bmc": bmc, "partitions": ["*"] });
    let all = vec![whole, document("GpuClass", "parts", spec), document("Machine", &machine.name, parted)];
    real.line.client.apply(all, &[(machine.name.clone(), machine.password.clone())]).await;
}

/// What the kernel says of the machine that this one stands for.
fn write_host(files: &Path, uuid: &str) {
    for name in ["dev", "driver", "static-cdi"] {
        std::fs::create_dir(files.join(name)).unwrap();
    }
    let minors = mig_minors(1);
    let said = [
        ("proc/sys/kernel/random", "boot_id", "7e57ab1e-0000-4000-8000-000000000001"),
        ("sys/class/dmi/id", "product_uuid", uuid),
        ("proc", "devices", "Character devices:\n  1 mem\n510 nvidia-caps\n"),
        ("proc/driver/nvidia-caps", "mig-minors", &minors),
    ];
    for (folder, file, text) in said {
        let folder = files.join("host").join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(file), text).unwrap();
    }
}

/// A claim's device, as it is published.
async fn given(real: &Real, claim: &str) -> (String, Value) {
    let claim = real.plane.object("resourceclaim", claim).await.unwrap();
    let device = claim["status"]["allocation"]["devices"]["results"][0]["device"].as_str().unwrap();
    let slices = kubectl(&real.plane, &["get", "resourceslices", "-o", "json"]).await;
    let slices: Value = serde_json::from_str(&slices).unwrap();
    let all =
        slices["items"].as_array().unwrap().iter().filter_map(|slice| slice["spec"]["devices"].as_array());
    let found = all.flatten().find(|given| given["name"] == device).cloned();
    (device.to_owned(), found.unwrap_or_else(|| panic!("{device} is not in {slices:#}")))
}

/// What the container of a pod sees of GPUs: UUIDs in its environment, and files below `/dev`.
async fn seen(node: &testbed::Node, pod: &Value) -> (Vec<String>, Vec<String>) {
    let lines = node.output(pod).await.unwrap();
    let variables = lines.iter().filter_map(|line| line.strip_prefix("BAILIWICK_GPU_"));
    let uuids = variables.map(|variable| variable.split_once('=').unwrap().1.to_owned()).collect();
    (uuids, lines.into_iter().filter(|line| line.starts_with("nvidia") && line != "nvidiactl").collect())
}

/// All that an agent begins with.
type Begin = (Options, Arc<dyn Claims>, StateDir);

/// An agent at work.
struct RunningAgent {
    stop: CancellationToken,
    work: JoinHandle<Begin>,
}

impl RunningAgent {
    fn start(begin: Begin) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let work = tokio::spawn(async move {
            let (options, claims, dir) = &begin;
            agent::run::run(options, Arc::clone(claims), dir.clone(), stopped).await.unwrap();
            begin
        });
        Self { stop, work }
    }

    /// What another begins with, once this one has ended.
    async fn stopped(self) -> Begin {
        self.stop.cancel();
        self.work.await.unwrap()
    }
}

/// UIDs of the slices in the cluster.
async fn slices(real: &Real) -> BTreeSet<String> {
    let all = kubectl(&real.plane, &["get", "resourceslices", "-o", "json"]).await;
    let all: Value = serde_json::from_str(&all).unwrap();
    let uid = |slice: &Value| slice["metadata"]["uid"].as_str().unwrap().to_owned();
    all["items"].as_array().unwrap().iter().map(uid).collect()
}

/// Since when the kubelet has the plugin registered, as the cell knows it.
async fn registered(real: &Real, machine: &str) -> Option<String> {
    let told = real.line.client.get(&format!("/api/v1/machines/{machine}")).await;
    told["agent"]["registered"].as_str().map(str::to_owned)
}

/// Waits until as many slices are there as before, all new, after the plugin was registered anew. Gives how long that took, at most:
/// counted from when it was last seen not to be, or from now.
async fn slices_once_registered_anew(
    real: &Real,
    machine: &str,
    before: &BTreeSet<String>,
    was: Option<&String>,
) -> Duration {
    let began = Instant::now();
    let mut last_without = began;
    loop {
        // In this order: what is seen of the slices was there before the registration is read.
        let now = slices(real).await;
        let asked = Instant::now();
        let since = registered(real, machine).await;
        let fresh = now.difference(before).count();
        if since.is_none() || since.as_ref() == was {
            assert_eq!(fresh, 0, "slices were written while the plugin was not registered: {since:?}");
            last_without = asked;
        } else if fresh == before.len() && now.len() == fresh {
            return last_without.elapsed();
        }
        assert!(began.elapsed() < PATIENCE, "{now:?} {since:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A kubelet that starts anew wipes the slices of its node, and they come back once it has registered the plugin again.
async fn slices_after_a_restart_of_the_kubelet(real: &Real, node: &testbed::Node, machine: &str) {
    let (before, was) = (slices(real).await, registered(real, machine).await);
    node.restart_kubelet().await.unwrap();
    let back = slices_once_registered_anew(real, machine, &before, was.as_ref()).await;
    println!("slices are back {back:?} after a kubelet that started anew has registered the plugin");
    assert!(back <= Duration::from_secs(2), "{back:?}\n{}", node.log());
}

/// Without its agent a node has no slices, whatever the cell publishes; with it, it has them again.
async fn slices_come_and_go_with_the_agent(real: &Real, machine: &str, agent: RunningAgent) -> RunningAgent {
    let (before, was) = (slices(real).await, registered(real, machine).await);
    let options = agent.stopped().await;
    let began = Instant::now();
    while !slices(real).await.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{:#}", real.line.client.get("/api/v1/publications").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for name in ["while-away", "still-away"] {
        let class = document("GpuClass", name, json!({ "jurisdiction": "de" }));
        real.line.client.apply(vec![class], &[]).await;
        real.line.client.wait_until_published().await;
        assert!(kubectl(&real.plane, &["get", "deviceclasses", "-o", "name"]).await.contains(name));
        assert!(slices(real).await.is_empty(), "slices were written for a node without an agent");
    }
    let agent = RunningAgent::start(options);
    let back = slices_once_registered_anew(real, machine, &before, was.as_ref()).await;
    println!("slices are back {back:?} after the plugin of an agent that was away is registered");
    assert!(back <= Duration::from_secs(2), "{back:?}");
    real.line.client.wait_until_published().await;
    agent
}

/// Who got a GPU of NVIDIA's driver by a class of the cell, without a claim of its own, goes when the GPU fails.
async fn holders_of_nvidias_devices_go_too(real: &Real, machine: &str, installed: &Installed, uuid: &str) {
    let pool = real.line.client.get("/api/v1/declarations/BaseCluster/pool").await;
    let mut spec = pool["spec"].clone();
    spec["gpuDriver"] = json!("nvidia");
    real.line.client.apply(vec![document("BaseCluster", "pool", spec)], &[]).await;
    until(real, "deviceclass", "probed", |class| class.to_string().contains(uuid)).await;
    let host = Description::parse(&std::fs::read_to_string(installed.description()).unwrap()).unwrap();
    let minor = &host.gpus.iter().find(|gpu| gpu["uuid"] == uuid).unwrap()["minor"];
    let slice = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": { "name": "nvidias" },
        "spec": {
            "driver": dra::NVIDIA, "nodeName": machine,
            "pool": { "name": machine, "generation": 1, "resourceSliceCount": 1 },
            "devices": [
                { "name": format!("gpu-{minor}"), "attributes": { "uuid": { "string": uuid } } },
                { "name": format!("gpu-{minor}-mig-3g40gb-9-0"), "attributes": { "parentUUID": { "string": uuid } } },
            ],
        },
    });
    real.plane.apply(&slice).await.unwrap();
    real.plane.apply(&pod_by_extended_resource("theirs", "probed", 1)).await.unwrap();
    until(real, "pod", "theirs", |pod| pod["spec"]["nodeName"].is_string()).await;
    others_give_out_a_part(real).await;
    has_an_xid(installed, uuid);
    // Nobody prepares it here, so how it ends is not looked at.
    until(real, "pod", "theirs", |pod| pod.is_null() || !pod["metadata"]["deletionTimestamp"].is_null())
        .await;
    let began = Instant::now();
    loop {
        let events = real.line.client.get("/api/v1/events?limit=1000").await;
        let mut events = events["items"].as_array().unwrap().iter();
        let of_pod = |event: &&Value| event["kind"] == "pod.evicted" && event["data"]["pod"] == "theirs";
        if let Some(evicted) = events.find(of_pod) {
            assert_eq!(evicted["data"]["code"], "gpu.health.xid");
            break;
        }
        assert!(began.elapsed() < PATIENCE, "something else has evicted it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let keeps = real.plane.object("pod", "keeps").await.unwrap();
    let stays = keeps["metadata"]["uid"].is_string() && keeps["metadata"]["deletionTimestamp"].is_null();
    assert!(stays, "no class of the cell gave it out: {keeps:#}");
    // Nobody is given it again.
    until(real, "deviceclass", "probed", |class| !class.to_string().contains(uuid)).await;
}

/// A pod has a part of a GPU of NVIDIA's driver by somebody else's class, whose name the cell declares for one of its own.
async fn others_give_out_a_part(real: &Real) {
    let expression =
        format!("device.driver == '{0}' && has(device.attributes['{0}'].parentUUID)", dra::NVIDIA);
    let class = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": { "name": "taken" },
        "spec": { "selectors": [{ "cel": { "expression": expression } }] },
    });
    real.plane.apply(&class).await.unwrap();
    real.line.client.apply(vec![document("GpuClass", "taken", json!({ "jurisdiction": "de" }))], &[]).await;
    for object in claim_and_pod("keeps", "taken") {
        real.plane.apply(&object).await.unwrap();
    }
    until(real, "pod", "keeps", |pod| pod["spec"]["nodeName"].is_string()).await;
}

/// Has the driver tell of an XID error of a GPU.
fn has_an_xid(installed: &Installed, uuid: &str) {
    let mut host = Description::parse(&std::fs::read_to_string(installed.description()).unwrap()).unwrap();
    let gpu = host.gpus.iter().position(|gpu| gpu["uuid"] == uuid).unwrap();
    host.events.push(Event { gpu: gpu.try_into().unwrap(), xid: 119 });
    installed.describe(&host).unwrap();
}

/// Has the driver tell of one; how long until the device is tainted, and how many objects were written for that.
async fn an_xid_is_published(real: &Real, installed: &Installed, uuid: &str) -> (Duration, u64) {
    let events = async || real.line.client.get("/api/v1/events?limit=1000").await["items"].clone();
    let last = events().await.as_array().unwrap().last().unwrap()["id"].as_i64();
    has_an_xid(installed, uuid);
    let began = Instant::now();
    while !kubectl(&real.plane, &["get", "resourceslices", "-o", "json"]).await.contains("gpu.health.xid") {
        assert!(began.elapsed() < PATIENCE, "{:#}", events().await);
    }
    let took = began.elapsed();
    loop {
        let all = events().await;
        let mut since = all.as_array().unwrap().iter().filter(|event| event["id"].as_i64() > last);
        if let Some(published) = since.find(|event| event["kind"] == "publication.written") {
            return (took, published["data"]["written"].as_u64().unwrap());
        }
        assert!(began.elapsed() < PATIENCE, "{all:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_see_the_gpus_or_the_part_that_bmc_and_driver_agree_on_and_go_when_those_fail() {
    let (mut real, _door) = cell_with_agents().await;
    declare(&real).await;
    let (machine, uuid) = (real.line.names()[0].clone(), real.line.site.machines()[0].uuid.clone());
    let user_data = real.deploy(&machine).await;
    let node = real.boot(&machine, &uuid, &user_data).await;
    real.line.until(&machine, |machine| machine["state"] == "in-service").await;

    let files = tempfile::tempdir().unwrap();
    write_host(files.path(), &uuid);
    let installed = host(&real, &machine, &uuid, files.path()).await;
    // What cloud-init leaves for the agent; nobody enrols it.
    let dir = StateDir::open(files.path().join("state")).unwrap();
    std::fs::write(dir.path().join(ENROLMENT_FILE), text(&user_data, "agent")).unwrap();
    let options = Options {
        kubelet_dir: node.kubelet_dir(),
        cdi_dir: node.cdi_dir(),
        static_cdi_dir: files.path().join("static-cdi"),
        instance: "gpu".to_owned(),
        nvml: Some(installed.library()),
        host_root: files.path().join("host"),
        devices: DeviceRoot { runtime: files.path().join("dev"), own: files.path().join("dev") },
        probe_interval: Duration::from_secs(1),
        scrub: ScrubMode::Never,
        nvidia_smi: "/nonexistent".into(),
    };
    let claims = agent::run::api_server(Some(&real.plane.kubeconfig_for("agent", &[]).unwrap())).unwrap();
    let agent = RunningAgent::start((options, claims, dir));

    let pods = [claim_and_pod("trains", "probed"), claim_and_pod("infers", "parts")];
    let counts = pod_by_extended_resource("counts", "probed", 2);
    for object in pods.into_iter().flatten().chain([counts]) {
        real.plane.apply(&object).await.unwrap();
    }
    let pod = until(&real, "pod", "trains", |pod| pod["status"]["phase"] == "Running").await;
    let (device, whole) = given(&real, "trains").await;
    assert_eq!(whole["attributes"]["jurisdiction"]["string"], "de");
    assert_eq!(whole["attributes"]["machine"]["string"], machine.as_str());
    let (trains, nodes) = seen(&node, &pod).await;
    assert_eq!(whole["attributes"]["uuid"]["string"], trains[0].as_str());
    assert_eq!((trains.len(), nodes.len()), (1, 1), "{trains:?} {nodes:?}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = real.line.client.get("/api/v1/gpus").await;
        let mut gpus = told["items"].as_array().unwrap().iter();
        let held = |gpu: &Value| {
            gpu["allocatedTo"][0]["pods"] == json!(["trains"]) && gpu["preparedFor"][0].is_string()
        };
        if gpus.any(|gpu| gpu["device"] == device.as_str() && gpu["state"] == "allocated" && held(gpu)) {
            break;
        }
        assert!(Instant::now() < deadline, "nobody is told to have {device}: {told:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // By a number alone, of a class that the cell has published so.
    let pod = until(&real, "pod", "counts", |pod| pod["status"]["phase"] == "Running").await;
    let (counts, nodes) = seen(&node, &pod).await;
    assert_eq!((counts.len(), nodes.len()), (2, 2), "{counts:?} {nodes:?}");
    assert!(counts[0] != counts[1] && !counts.contains(&trains[0]), "{counts:?} {trains:?}");

    // The part did not exist before its claim, and does not after it.
    let pod = until(&real, "pod", "infers", |pod| pod["status"]["phase"] == "Running").await;
    let (_, part) = given(&real, "infers").await;
    assert_eq!(part["attributes"]["profile"]["string"], PROFILE);
    let (uuid, nodes) = seen(&node, &pod).await;
    let instances = || {
        let text = std::fs::read_to_string(installed.description()).unwrap();
        Description::parse(&text).unwrap().gpus[0]["mig"]["instances"].clone()
    };
    let made = instances();
    assert!(uuid[0].starts_with("MIG-") && made[0]["uuid"] == uuid[0].as_str(), "{uuid:?} {made}");
    let caps = nodes.iter().filter(|node| node.starts_with("nvidia-cap") && *node != "nvidia-caps").count();
    assert!(nodes.contains(&"nvidia0".to_owned()) && caps == 2 && nodes.len() == 4, "{nodes:?}");
    kubectl(&real.plane, &["delete", "pod", "infers", "--wait=false"]).await;
    until(&real, "pod", "infers", Value::is_null).await;
    assert_eq!(instances(), json!([]));

    slices_after_a_restart_of_the_kubelet(&real, &node, &machine).await;
    let agent = slices_come_and_go_with_the_agent(&real, &machine, agent).await;

    let (took, written) = an_xid_is_published(&real, &installed, &trains[0]).await;
    println!("a GPU's XID error is a taint in the API server after {took:?}, {written} objects written");
    // Its pool has two: that of the counters, and that of the devices.
    assert_eq!(written, 2);
    // Kubernetes evicts who named a claim.
    until(&real, "pod", "trains", Value::is_null).await;
    let by = ["get", "events", "-o", "name", "--field-selector", EVICTED];
    assert_ne!(kubectl(&real.plane, &by).await, "", "something else has evicted it");
    // The cell evicts who did not.
    has_an_xid(&installed, &counts[1]);
    until(&real, "pod", "counts", Value::is_null).await;
    let evicted = real.line.client.wait_for_event("pod.evicted", &machine).await;
    assert_eq!(
        (&evicted["data"]["pod"], &evicted["data"]["code"]),
        (&json!("counts"), &json!("gpu.health.xid"))
    );
    holders_of_nvidias_devices_go_too(&real, &machine, &installed, &counts[0]).await;
    agent.stopped().await;
}
