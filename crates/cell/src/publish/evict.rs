//! Who holds a device whose gate has closed goes (DESIGN §3.3).
//!
//! Kubernetes evicts by itself whoever named a claim in its spec when its device gets a taint of effect NoExecute. It leaves who got its
//! device by extended resource (`k8s.io/kubernetes` v1.36.3, devicetainteviction, `podEvictionTime`), and whoever holds a device that
//! is not published any more: those are the cell's to evict, by the API that asks disruption budgets.
//!
//! The same holds of a device of NVIDIA's driver that a class of ours gave out: its list of GPUs is the gate. Who got one by another
//! class got it from others, and stays unless a taint evicts it.

use super::Written;
use super::claims::Holder;
use super::cluster::refused;
use super::nodes;
use crate::error::coded;
use crate::gpus::Closed;
use crate::world::World;
use domain::Name;
use domain::base_cluster::GpuDriver;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, EvictParams, Preconditions};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Until a pod that could not be evicted is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// UIDs of pods that are on their way.
#[derive(Debug, Default)]
pub(super) struct Evictions(BTreeSet<String>);

impl Evictions {
    /// Asks those to go who hold a device whose gate has closed. What fails is told, and tried again.
    pub(super) async fn evict(
        &mut self,
        client: &Client,
        holders: Vec<Holder>,
        world: &World,
        written: &mut Written,
    ) {
        self.0.retain(|uid| holders.iter().any(|holder| holder.uid == *uid));
        for holder in known(client, holders, world, written).await {
            let Some(closed) = must_go(&holder, world) else { continue };
            if self.0.contains(&holder.uid) {
                continue;
            }
            match ask(client, &holder).await {
                Ok(()) => written.evicted.push((
                    format!("Machine/{}", holder.pool),
                    json!({
                        "namespace": holder.namespace, "pod": holder.pod, "device": holder.device, "code": closed.code(),
                    }),
                )),
                Err(error) if is_gone(&error) => continue,
                Err(error) => {
                    written.left_out.push(stays(&holder, closed.code(), &error));
                    written.again = Some(AGAIN);
                    continue;
                }
            }
            self.0.insert(holder.uid);
        }
    }
}

/// Why a pod must go, where nobody else sees to it.
fn must_go(holder: &Holder, world: &World) -> Option<Closed> {
    let machine = Name::new(holder.pool.clone()).ok()?;
    let (closed, bears_taint) = match holder.driver {
        GpuDriver::Bailiwick => (world.reconciled().closed(&machine, &holder.device)?, true),
        // Rules name whole GPUs.
        GpuDriver::Nvidia => {
            let (minor, is_whole) = dra::nvidia_device(&holder.device)?;
            (world.reconciled().closed_at(&machine, minor)?, is_whole)
        }
    };
    match closed {
        Closed::Unfit(_) => (holder.by_extended_resource || !bears_taint).then_some(closed),
        Closed::Contradicted(_) => Some(closed),
    }
}

/// Those whose pools are what the cell takes them for. A pool of NVIDIA's driver is what a Node of that name says.
async fn known(client: &Client, holders: Vec<Holder>, world: &World, written: &mut Written) -> Vec<Holder> {
    if holders.iter().all(|holder| holder.driver == GpuDriver::Bailiwick) {
        return holders;
    }
    let uuids = nodes::system_uuids(client).await.unwrap_or_else(|problem| {
        written.left_out.push(problem);
        BTreeMap::new()
    });
    let is_known = |holder: &Holder| {
        holder.driver == GpuDriver::Bailiwick
            || Name::new(holder.pool.clone()).is_ok_and(|name| {
                let machine = world.machines.get(&name);
                machine.is_some_and(|machine| world.gpu_driver_of(machine) == GpuDriver::Nvidia)
                    && nodes::node_of(&name, world, &uuids).is_ok()
            })
    };
    holders.into_iter().filter(is_known).collect()
}

/// Asks for this very pod: another of its name has another UID.
async fn ask(client: &Client, holder: &Holder) -> Result<(), kube::Error> {
    let preconditions = Preconditions { uid: Some(holder.uid.clone()), resource_version: None };
    let delete = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    let params = EvictParams { delete_options: Some(delete), ..EvictParams::default() };
    let pods = Api::<Pod>::namespaced(client.clone(), &holder.namespace);
    pods.evict(&holder.pod, &params).await.map(drop)
}

/// There is no such pod, or not this one.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}

fn stays(holder: &Holder, code: &str, error: &kube::Error) -> domain::Problem {
    let pod = format!("{}/{}", holder.namespace, holder.pod);
    if let kube::Error::Api(status) = error
        && status.code == 429
    {
        let message =
            format!("Pod/{pod} keeps {} of Machine/{}: {}", holder.device, holder.pool, status.message);
        return coded("publish.holder-stays", message)
            .difference(format!("a pod on a device with {code}"), "none")
            .at(format!("Machine/{} Pod/{pod}", holder.pool));
    }
    match refused("evict", "Pod", &pod, error) {
        Ok(problem) | Err(problem) => problem.at(format!("Machine/{} Pod/{pod}", holder.pool)),
    }
}
