//! The whole way: a simulated machine with GPUs becomes a real node, its agent sees them, the cell publishes what all views agree on, the
//! real scheduler gives one to a claim, and the pod sees that one and no other.

use crate::agent::enrolled;
use crate::node::{CELL_USER, Real, kubectl};
use crate::support::document;
use agent::run::{DeviceRoot, Options, ScrubMode};
use bailiwick_cell::{AgentSettings, SinkSettings};
use nvml_stand_in::{Description, Installed};
use serde_json::{Value, json};
use sim::Model;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Generous: the machine may be compiling at the same time.
const PATIENCE: Duration = Duration::from_mins(2);

/// Waits until an object is so; fails with what the cell says of its publishing too.
async fn until(real: &Real, kind: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = real.plane.until(kind, name, wanted).await;
    let published = real.line.client.get("/api/v1/publications").await;
    found.unwrap_or_else(|error| panic!("{error}\n{published:#}"))
}

/// A host on which the driver tells what the machine's BMC does, with device files like `/dev/null`.
async fn host(real: &Real, machine: &str, uuid: &str, files: &Path) -> Installed {
    let mut probe = real.line.client.probe_of(machine, uuid).await;
    for (minor, gpu) in (0..).zip(&mut probe.gpus) {
        gpu.minor = Some(minor);
    }
    testbed::make_gpu_files(&files.join("dev"), probe.gpus.len()).unwrap();
    let described = Description::parse(&serde_json::to_string(&probe).unwrap()).unwrap();
    Installed::into(&files.join("driver"), &described).unwrap()
}

fn claim_and_pod(name: &str) -> [Value; 2] {
    let command = "env | grep ^BAILIWICK_GPU; ls /dev | grep nvidia; echo end; trap 'exit 0' TERM; while :; do sleep 1; done";
    [
        json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": { "name": name, "namespace": "default" },
            "spec": { "devices": { "requests": [{ "name": "gpu", "exactly": { "deviceClassName": "probed" } }] } },
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

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_sees_the_gpu_of_its_claim_which_bmc_and_driver_agree_on() {
    let mut real = Real::of(Model::PowerEdgeXe, 1, |settings, plane| {
        let mut agents = AgentSettings::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        agents.report_interval = Duration::from_secs(1);
        settings.agents = Some(agents);
        let kubeconfig = Some(plane.kubeconfig_for(CELL_USER, &[]).unwrap());
        settings.sinks = vec![SinkSettings::Cluster { kubeconfig, context: None }];
        settings.cluster_user = CELL_USER.to_owned();
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
    let class = document("GpuClass", "probed", json!({ "jurisdiction": "de", "requires": ["probed"] }));
    real.line.client.apply(vec![class], &[]).await;

    let (machine, uuid) = (real.line.names()[0].clone(), real.line.site.machines()[0].uuid.clone());
    let user_data = real.deploy(&machine).await;
    let node = real.boot(&machine, &uuid, &user_data).await;
    real.line.until(&machine, |machine| machine["state"] == "in-service").await;

    let files = tempfile::tempdir().unwrap();
    for name in ["dev", "driver", "static-cdi"] {
        std::fs::create_dir(files.path().join(name)).unwrap();
    }
    // What the kernel says of the machine that this one stands for.
    let said = [
        ("proc/sys/kernel/random", "boot_id", "7e57ab1e-0000-4000-8000-000000000001"),
        ("sys/class/dmi/id", "product_uuid", uuid.as_str()),
    ];
    for (folder, file, text) in said {
        let folder = files.path().join("host").join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(file), text).unwrap();
    }
    let installed = host(&real, &machine, &uuid, files.path()).await;
    let cell = real.line.cell.agents_address().unwrap();
    let (dir, _) =
        enrolled(&real.line.client, cell, &machine, &uuid, &files.path().join("state")).await.unwrap();
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

    for object in claim_and_pod("trains") {
        real.plane.apply(&object).await.unwrap();
    }
    let pod = until(&real, "pod", "trains", |pod| pod["status"]["phase"] == "Running").await;
    let claim = real.plane.object("resourceclaim", "trains").await.unwrap();
    let device =
        claim["status"]["allocation"]["devices"]["results"][0]["device"].as_str().unwrap().to_owned();
    let slices: Value =
        serde_json::from_str(&kubectl(&real.plane, &["get", "resourceslices", "-o", "json"]).await).unwrap();
    let devices = slices["items"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|slice| slice["spec"]["devices"].as_array().unwrap());
    let given = devices.clone().find(|given| given["name"] == device.as_str()).unwrap();
    assert_eq!(devices.count(), Model::PowerEdgeXe.gpu_count());
    assert_eq!(given["attributes"]["jurisdiction"]["string"], "de");
    assert_eq!(given["attributes"]["machine"]["string"], machine.as_str());

    let seen = node.output(&pod).await.unwrap();
    let variables: Vec<_> = seen.iter().filter_map(|line| line.strip_prefix("BAILIWICK_GPU_")).collect();
    let uuid = given["attributes"]["uuid"]["string"].as_str().unwrap();
    assert!(matches!(variables[..], [only] if only.ends_with(&format!("={uuid}"))), "{uuid} in {seen:?}");
    let nodes = seen.iter().filter(|line| line.starts_with("nvidia") && *line != "nvidiactl");
    assert_eq!(nodes.count(), 1, "{seen:?}");
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
    kubectl(&real.plane, &["delete", "pod", "trains", "--wait=false"]).await;
    until(&real, "pod", "trains", Value::is_null).await;
    stop.cancel();
    agent.await.unwrap();
}
