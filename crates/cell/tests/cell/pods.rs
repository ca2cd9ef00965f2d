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
use nvml_stand_in::{Description, Event, Installed, mig_minors};
use serde_json::{Value, json};
use sim::Model;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Generous: the machine may be compiling at the same time.
const PATIENCE: Duration = Duration::from_mins(2);
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

fn claim_and_pod(name: &str, class: &str) -> [Value; 2] {
    let command = "env | grep ^BAILIWICK_GPU; ls /dev /dev/nvidia-caps 2>&1 | grep ^nvidia; echo end; trap 'exit 0' TERM; while :; do sleep 1; done";
    [
        json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": { "name": name, "namespace": "default" },
            "spec": { "devices": { "requests": [{ "name": "gpu", "exactly": { "deviceClassName": class } }] } },
        }),
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
            "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 5,
                "resourceClaims": [{ "name": "gpu", "resourceClaimName": name }],
                "containers": [{
                    "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
                    "command": ["/bin/sh", "-c", command], "resources": { "claims": [{ "name": "gpu" }] },
                }],
            },
        }),
    ]
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
    let whole = document("GpuClass", "probed", json!({ "jurisdiction": "de", "requires": ["probed"] }));
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

/// What the container of a pod sees of GPUs: the UUID in its environment, and files below `/dev`.
async fn seen(node: &testbed::Node, pod: &Value) -> (String, Vec<String>) {
    let lines = node.output(pod).await.unwrap();
    let mut variables = lines.iter().filter_map(|line| line.strip_prefix("BAILIWICK_GPU_"));
    let uuid = variables.next().unwrap().split_once('=').unwrap().1.to_owned();
    assert_eq!(variables.next(), None, "{lines:?}");
    (uuid, lines.into_iter().filter(|line| line.starts_with("nvidia") && line != "nvidiactl").collect())
}

/// Has the driver tell of an XID error; how long until the device is tainted, and how many objects were written for that.
async fn an_xid_is_published(real: &Real, installed: &Installed) -> (Duration, u64) {
    let events = async || real.line.client.get("/api/v1/events?limit=1000").await["items"].clone();
    let last = events().await.as_array().unwrap().last().unwrap()["id"].as_i64();
    let mut host = Description::parse(&std::fs::read_to_string(installed.description()).unwrap()).unwrap();
    host.events.push(Event { gpu: 1, xid: 119 });
    installed.describe(&host).unwrap();
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
async fn pods_see_the_gpu_or_the_part_of_their_claim_which_bmc_and_driver_agree_on() {
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
    let stop = CancellationToken::new();
    let agent = tokio::spawn({
        let stop = stop.clone();
        async move { agent::run::run(&options, claims, dir, stop).await.unwrap() }
    });

    for object in [claim_and_pod("trains", "probed"), claim_and_pod("infers", "parts")].into_iter().flatten()
    {
        real.plane.apply(&object).await.unwrap();
    }
    let pod = until(&real, "pod", "trains", |pod| pod["status"]["phase"] == "Running").await;
    let (device, whole) = given(&real, "trains").await;
    assert_eq!(whole["attributes"]["jurisdiction"]["string"], "de");
    assert_eq!(whole["attributes"]["machine"]["string"], machine.as_str());
    let (uuid, nodes) = seen(&node, &pod).await;
    assert_eq!(whole["attributes"]["uuid"]["string"], uuid.as_str());
    assert_eq!(nodes.len(), 1, "{nodes:?}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = real.line.client.get("/api/v1/gpus").await;
        let mut gpus = told["items"].as_array().unwrap().iter();
        let held = |gpu: &Value| {
            gpu["allocatedTo"][0]["pods"] == json!(["trains"]) && gpu["preparedFor"][0].is_string()
        };
        if gpus.any(|gpu| gpu["device"] == device.as_str() && held(gpu)) {
            break;
        }
        assert!(Instant::now() < deadline, "nobody is told to have {device}: {told:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // The part did not exist before its claim, and does not after it.
    let pod = until(&real, "pod", "infers", |pod| pod["status"]["phase"] == "Running").await;
    let (_, part) = given(&real, "infers").await;
    assert_eq!(part["attributes"]["profile"]["string"], PROFILE);
    let (uuid, nodes) = seen(&node, &pod).await;
    let instances = || {
        let text = std::fs::read_to_string(installed.description()).unwrap();
        Description::parse(&text).unwrap().gpus[0]["mig"]["instances"].clone()
    };
    assert!(uuid.starts_with("MIG-") && instances()[0]["uuid"] == uuid.as_str(), "{uuid} {}", instances());
    let caps = nodes.iter().filter(|node| node.starts_with("nvidia-cap") && *node != "nvidia-caps").count();
    assert!(nodes.contains(&"nvidia0".to_owned()) && caps == 2 && nodes.len() == 4, "{nodes:?}");
    for pod in ["trains", "infers"] {
        kubectl(&real.plane, &["delete", "pod", pod, "--wait=false"]).await;
        until(&real, "pod", pod, Value::is_null).await;
    }
    assert_eq!(instances(), json!([]));

    let (took, written) = an_xid_is_published(&real, &installed).await;
    println!("a GPU's XID error is a taint in the API server after {took:?}, {written} objects written");
    // Its pool has two: that of the counters, and that of the devices.
    assert_eq!(written, 2);
    stop.cancel();
    agent.await.unwrap();
}
