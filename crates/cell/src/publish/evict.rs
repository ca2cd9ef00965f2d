//! Who holds a device whose gate has closed goes (DESIGN §3.3).
//!
//! Kubernetes evicts by itself whoever named a claim in its spec when its device gets a taint of effect NoExecute. It leaves who got its
//! device by extended resource (`k8s.io/kubernetes` v1.36.3, devicetainteviction, `podEvictionTime`), and whoever holds a device that
//! is not published any more: those are the cell's to evict, by the API that asks disruption budgets.
//!
//! The same holds of a device of NVIDIA's driver that a class of ours gave out: its list of GPUs is the gate. A part of a GPU that
//! fails bears no taint there, and where the server serves no taint rules nothing does. Who got one by another class got it from
//! others, and stays unless a taint evicts it.

use super::Written;
use super::claims::Holder;
use super::cluster::refused;
use super::nodes;
use super::server::Seen;
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
        seen: &Seen,
        world: &World,
        written: &mut Written,
    ) {
        self.0.retain(|uid| holders.iter().any(|holder| holder.uid == *uid));
        for holder in holders {
            let Some(closed) = must_go(&holder, seen, world) else { continue };
            if self.0.contains(&holder.uid) || !is_known(&holder, seen, world) {
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
fn must_go(holder: &Holder, seen: &Seen, world: &World) -> Option<Closed> {
    let machine = Name::new(holder.pool.clone()).ok()?;
    let closed = match holder.driver {
        GpuDriver::Bailiwick => world.reconciled().closed(&machine, &holder.device)?,
        GpuDriver::Nvidia => {
            let (minor, _) = dra::nvidia_device(&holder.device)?;
            world.reconciled().closed_at(&machine, minor)?
        }
    };
    match closed {
        // Where nobody knows what is served, the round fails, and the next one knows.
        Closed::Unfit(_) => !is_evicted_by_taint(holder, !matches!(seen.taint_rules, Ok(None))),
        Closed::Contradicted(_) => true,
    }
    .then_some(closed)
}

/// Whether Kubernetes evicts a pod by itself whose device fails.
fn is_evicted_by_taint(holder: &Holder, has_taint_rules: bool) -> bool {
    let bears_taint = match holder.driver {
        // In its slice.
        GpuDriver::Bailiwick => true,
        // By a rule, which names a whole GPU.
        GpuDriver::Nvidia => {
            has_taint_rules && dra::nvidia_device(&holder.device).is_some_and(|(_, is_whole)| is_whole)
        }
    };
    bears_taint && !holder.by_extended_resource
}

/// Whether a pool is what the cell takes it for. One of NVIDIA's driver is what a Node of that name says.
fn is_known(holder: &Holder, seen: &Seen, world: &World) -> bool {
    let of_nvidia = |uuids: &BTreeMap<_, _>| {
        Name::new(holder.pool.clone()).is_ok_and(|name| {
            let machine = world.machines.get(&name);
            machine.is_some_and(|machine| world.gpu_driver_of(machine) == GpuDriver::Nvidia)
                && nodes::node_of(&name, world, uuids).is_ok()
        })
    };
    holder.driver == GpuDriver::Bailiwick || seen.uuids.as_ref().is_ok_and(of_nvidia)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_evicts_who_named_a_claim_of_a_device_that_bears_a_taint_and_nobody_else() {
        let evicts = |driver, device: &str, has_taint_rules, by_extended_resource| {
            let holder = Holder {
                namespace: "team".into(),
                pod: "train-0".into(),
                uid: "p1".into(),
                driver,
                pool: "m1".into(),
                device: device.into(),
                by_extended_resource,
            };
            is_evicted_by_taint(&holder, has_taint_rules)
        };
        let part = "gpu-0-mig-1g10gb-19-0";
        for has_taint_rules in [true, false] {
            assert!(evicts(GpuDriver::Bailiwick, "gpu-1", has_taint_rules, false), "its slice bears it");
            assert_eq!(evicts(GpuDriver::Nvidia, "gpu-0", has_taint_rules, false), has_taint_rules);
            assert!(!evicts(GpuDriver::Nvidia, part, has_taint_rules, false), "rules name whole GPUs");
            assert!(!evicts(GpuDriver::Bailiwick, "gpu-1", has_taint_rules, true));
            assert!(!evicts(GpuDriver::Nvidia, "gpu-0", has_taint_rules, true));
        }
    }
}
