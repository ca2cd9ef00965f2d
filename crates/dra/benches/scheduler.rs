//! What the real kube-scheduler takes for a claim in a fleet of 1,250 Nodes and 10,000 GPUs: whole ones, and partitions.
//!
//! No criterion: a claim that got its device is another state of the cluster, so each is measured once. The Nodes have no kubelet;
//! what is measured ends with the pod's Node.
#![allow(clippy::unwrap_used, reason = "a measurement that fails is none")]
#![allow(clippy::print_stdout, reason = "the figures are its output")]

mod fleet;

use bailiwick_dra::{Input, publish};
use fleet::{MACHINES, probed};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::{Duration, Instant};
use testbed::ControlPlane;

/// Claims one after the other, and then as many at once; fewer where they take longer than [`LONG_ENOUGH`].
const CLAIMS: usize = 200;

/// So long claims are made one after the other.
const LONG_ENOUGH: Duration = Duration::from_mins(1);

/// So many seconds a claim may take.
const PATIENCE: u32 = 120;

/// So many writes at a time while the fleet is made.
const WRITERS: usize = 32;

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let tenth = MACHINES / 10;
    measure("all GPUs whole", &probed(0, &[]), &[WHOLE]).await;
    measure(
        "a tenth of the machines in partitions of one profile",
        &probed(tenth, &["1g.10gb"]),
        &[PART, WHOLE],
    )
    .await;
    measure("all machines in partitions of one profile", &probed(MACHINES, &["1g.10gb"]), &[PART]).await;
    measure("all machines in a layout of three sizes", &probed(MACHINES, LAYOUT), &[PART]).await;
    // What overlaps has counters.
    measure("a hundredth of the machines in all partitions", &probed(MACHINES / 100, &["*"]), &[PART, WHOLE])
        .await;
    measure("a tenth of the machines in all partitions", &probed(tenth, &["*"]), &[PART]).await;
}

/// A class's name and its profile.
type Class = (&'static str, Option<&'static str>);

const WHOLE: Class = ("whole", None);
const PART: Class = ("part", Some("1g.10gb"));

/// Fits on a GPU at once.
const LAYOUT: &[&str] = &["3g.40gb@0", "2g.20gb@4", "1g.10gb@6"];

async fn measure(kind: &str, fleet: &Input, classes: &[Class]) {
    let plane = ControlPlane::start().await.unwrap();
    let file = Kubeconfig::read_from(plane.kubeconfig_admin()).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let began = Instant::now();
    let devices = make(&client, fleet, classes).await;
    println!("{kind}: {MACHINES} Nodes, {devices} devices, made in {:.0?}", began.elapsed());
    for (class, _) in classes {
        if let Err(why) = claims(&client, class).await {
            println!("  {class}: a claim got no device within {PATIENCE} s: {why}");
        }
    }
}

/// Measures claims of one class.
async fn claims(client: &Client, class: &str) -> Result<(), String> {
    // The first tells that the scheduler has seen the fleet.
    bound(client, class, "first", 1).await?;
    let (mut took, began) = (Vec::new(), Instant::now());
    while took.len() < CLAIMS && began.elapsed() < LONG_ENOUGH {
        took.push(bound(client, class, &format!("single-{}", took.len()), 1).await?);
    }
    let count = took.len();
    took.sort_unstable();
    let percentile = |percent: usize| took[(count * percent).div_ceil(100).max(1) - 1];
    println!(
        "  {class}: {count} claims one after the other, each from its creation to the pod's Node: p50 {:.1?}, p99 {:.1?}, most {:.1?}",
        percentile(50),
        percentile(99),
        percentile(100)
    );
    let all = bound(client, class, "together", count).await?;
    println!(
        "  {class}: {count} claims at once: {all:.1?}, {:.1?} for each",
        all / u32::try_from(count).unwrap()
    );
    Ok(())
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Makes Nodes, classes and slices; gives the number of devices.
async fn make(client: &Client, fleet: &Input, classes: &[Class]) -> usize {
    let names = fleet.machines.iter().map(|machine| machine.name.as_str());
    in_parallel(names.map(|name| make_node(Api::all(client.clone()), name))).await;
    let class = |(name, partition): &Class| {
        let spec = json!({ "jurisdiction": "eu", "requires": ["probed"], "partition": partition });
        (domain::Name::new(*name).unwrap(), read(spec))
    };
    let output = publish(&Input { classes: classes.iter().map(class).collect(), ..fleet.clone() });
    for class in output.declared.iter().filter(|object| object.kind == "DeviceClass") {
        create(&Api::<DeviceClass>::all(client.clone()), &read(class.json())).await;
    }
    let slices = Api::<ResourceSlice>::all(client.clone());
    let writes = output.observed.iter().map(async |object| {
        let slice: ResourceSlice = serde_json::from_str(object.text()).unwrap();
        create(&slices, &slice).await;
        slice.spec.devices.map_or(0, |devices| devices.len())
    });
    in_parallel(writes).await.into_iter().sum()
}

async fn in_parallel<T>(work: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    stream::iter(work).buffer_unordered(WRITERS).collect().await
}

async fn create<K>(api: &Api<K>, object: &K)
where
    K: Clone + Debug + DeserializeOwned + serde::Serialize,
{
    api.create(&PostParams::default(), object).await.unwrap();
}

/// A Node that is ready. Admission taints each new one, and the controller that would lift that wants a kubelet.
async fn make_node(nodes: Api<Node>, name: &str) {
    let labels = json!({ "kubernetes.io/hostname": name });
    create(&nodes, &read(json!({ "metadata": { "name": name, "labels": labels } }))).await;
    let resources = json!({ "cpu": "64", "memory": "1Ti", "pods": "500", "ephemeral-storage": "100Gi" });
    let ready =
        json!({ "type": "Ready", "status": "True", "reason": "Bench", "message": "made by a benchmark" });
    let status =
        json!({ "status": { "capacity": resources, "allocatable": resources, "conditions": [ready] } });
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let untaint = json!({ "spec": { "taints": null } });
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(untaint)).await.unwrap();
}

/// Creates so many claims, each with its pod, and waits until all pods have a Node. Gives the time from the first creation on, or why
/// some have none.
async fn bound(client: &Client, class: &str, batch: &str, count: usize) -> Result<Duration, String> {
    let batch = &format!("{class}-{batch}");
    let pods = Api::<Pod>::default_namespaced(client.clone());
    let claims = Api::<ResourceClaim>::default_namespaced(client.clone());
    let mine = WatchParams::default().labels(&format!("batch={batch}")).timeout(PATIENCE);
    let mut seen = pods.watch(&mine, "0").await.unwrap().boxed();
    let began = Instant::now();
    let asking = in_parallel((0..count).map(async |at| {
        let name = format!("{batch}-{at}");
        create(&claims, &claim(&name, class)).await;
        create(&pods, &pod(&name, batch)).await;
    }));
    let waiting = async {
        let mut scheduled = BTreeSet::new();
        while scheduled.len() < count {
            match seen.try_next().await.unwrap() {
                Some(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => {
                    if pod.spec.is_some_and(|spec| spec.node_name.is_some()) {
                        scheduled.insert(pod.metadata.name);
                    }
                }
                Some(_) => {}
                None => return Err(why(&pods).await.join("; ")),
            }
        }
        Ok(began.elapsed())
    };
    futures_util::future::join(asking, waiting).await.1
}

/// What the scheduler says of pods that have no Node.
async fn why(pods: &Api<Pod>) -> Vec<String> {
    let all = pods.list(&ListParams::default()).await.unwrap().items.into_iter();
    let conditions = all.filter_map(|pod| pod.status?.conditions).flatten();
    conditions
        .filter(|condition| condition.status == "False")
        .filter_map(|condition| condition.message)
        .collect()
}

fn claim(name: &str, class: &str) -> ResourceClaim {
    let request = json!({ "name": "gpu", "exactly": { "deviceClassName": class, "allocationMode": "ExactCount", "count": 1 } });
    read(json!({ "metadata": { "name": name }, "spec": { "devices": { "requests": [request] } } }))
}

fn pod(name: &str, batch: &str) -> Pod {
    let container =
        json!({ "name": "c", "image": "example.com/none", "resources": { "claims": [{ "name": "gpu" }] } });
    read(json!({
        "metadata": { "name": name, "labels": { "batch": batch } },
        "spec": { "containers": [container], "resourceClaims": [{ "name": "gpu", "resourceClaimName": name }] },
    }))
}
