//! Who has our devices: read from the ResourceClaims of a cluster.

use crate::api::types::Allocation;
use crate::error::coded;
use domain::Problem;
use domain::base_cluster::GpuDriver;
use k8s_openapi::api::resource::v1::{
    DeviceRequestAllocationResult, ResourceClaim, ResourceClaimConsumerReference,
};
use kube::Client;
use kube::api::{Api, ListParams};
use std::collections::BTreeMap;

/// By pool and device.
pub(crate) type Allocations = BTreeMap<(String, String), Vec<Allocation>>;

/// A pod that holds one of our devices, or one of NVIDIA's by a class of ours.
#[derive(Debug, PartialEq)]
pub(super) struct Holder {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub driver: GpuDriver,
    pub pool: String,
    pub device: String,
    /// It asked for it by an extended resource. Such claims are the scheduler's own, and stand in no pod's spec.
    pub by_extended_resource: bool,
}

/// Mark of a claim that the scheduler made for an extended resource (`k8s.io/api` resource/v1, `ExtendedResourceClaimAnnotation`).
const EXTENDED: &str = "resource.kubernetes.io/extended-resource-claim";

/// Reads all claims. From the API server's cache: a moment old is good enough.
pub(super) async fn read(client: &Client) -> Result<Vec<ResourceClaim>, Problem> {
    let claims = Api::<ResourceClaim>::all(client.clone()).list(&ListParams::default().match_any()).await;
    let claims = claims.map_err(|error| {
        coded("publish.claims-unread", format!("who has which GPU cannot be read from the cluster: {error}"))
    })?;
    Ok(claims.items)
}

/// The devices that a claim has.
fn all_devices(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let status = claim.status.as_ref();
    let devices = status.and_then(|status| status.allocation.as_ref()?.devices.as_ref());
    devices.and_then(|devices| devices.results.as_ref()).into_iter().flatten()
}

/// Those that are ours.
fn devices(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    all_devices(claim).filter(|result| result.driver == dra::DRIVER)
}

/// Those that are ours to judge, and whose they are: our own, and NVIDIA's where a class of ours gave them out.
fn judged<'c>(
    claim: &'c ResourceClaim,
    is_class: &impl Fn(&str) -> bool,
) -> impl Iterator<Item = (GpuDriver, &'c DeviceRequestAllocationResult)> {
    all_devices(claim).filter_map(move |result| match result.driver.as_str() {
        dra::DRIVER => Some((GpuDriver::Bailiwick, result)),
        dra::NVIDIA => class_of(claim, &result.request)
            .filter(|class| is_class(class))
            .map(|_| (GpuDriver::Nvidia, result)),
        _ => None,
    })
}

/// The class that a request names; `main/sub` is an alternative of one.
fn class_of<'c>(claim: &'c ResourceClaim, name: &str) -> Option<&'c str> {
    let (main, sub) = name.split_once('/').map_or((name, None), |(main, sub)| (main, Some(sub)));
    let mut requests = claim.spec.devices.as_ref()?.requests.as_ref()?.iter();
    let request = requests.find(|request| request.name == main)?;
    match sub {
        None => request.exactly.as_ref().map(|exactly| exactly.device_class_name.as_str()),
        Some(sub) => {
            let mut alternatives = request.first_available.iter().flatten();
            alternatives.find(|one| one.name == sub).map(|one| one.device_class_name.as_str())
        }
    }
}

/// The pods that a claim is reserved for.
fn pods(claim: &ResourceClaim) -> impl Iterator<Item = &ResourceClaimConsumerReference> {
    let reserved = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
    reserved.filter(|holder| holder.resource == "pods")
}

/// Who has which device, for people.
pub(super) fn allocations(claims: &[ResourceClaim]) -> Allocations {
    let mut found = Allocations::new();
    for claim in claims {
        for result in devices(claim) {
            let allocation = Allocation {
                namespace: claim.metadata.namespace.clone().unwrap_or_default(),
                claim: claim.metadata.name.clone().unwrap_or_default(),
                uid: claim.metadata.uid.clone().unwrap_or_default(),
                device: result.device.clone(),
                pods: pods(claim).map(|holder| holder.name.clone()).collect(),
            };
            found.entry((result.pool.clone(), result.device.clone())).or_default().push(allocation);
        }
    }
    found
}

/// Every pod that holds a device that is ours to judge, once for each.
pub(super) fn holders(claims: &[ResourceClaim], is_class: impl Fn(&str) -> bool) -> Vec<Holder> {
    let mut holders = Vec::new();
    for claim in claims {
        let annotations = claim.metadata.annotations.as_ref();
        let by_extended_resource = annotations.is_some_and(|all| all.contains_key(EXTENDED));
        for (driver, result) in judged(claim, &is_class) {
            holders.extend(pods(claim).map(|pod| Holder {
                namespace: claim.metadata.namespace.clone().unwrap_or_default(),
                pod: pod.name.clone(),
                uid: pod.uid.clone(),
                driver,
                pool: result.pool.clone(),
                device: result.device.clone(),
                by_extended_resource,
            }));
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_device_of_ours_is_told_with_its_claim_and_pods_and_those_of_others_are_not() {
        let claim: ResourceClaim = serde_json::from_value(json!({
            "metadata": { "namespace": "team", "name": "train", "uid": "u1" }, "spec": {},
            "status": {
                "reservedFor": [{ "resource": "pods", "name": "train-0", "uid": "p1" }],
                "allocation": { "devices": { "results": [
                    { "driver": dra::DRIVER, "pool": "m1", "device": "gpu-1", "request": "gpu" },
                    { "driver": "other.example", "pool": "m1", "device": "gpu-2", "request": "gpu" },
                ] } },
            },
        }))
        .unwrap();
        let pending: ResourceClaim =
            serde_json::from_value(json!({ "metadata": { "name": "waits" }, "spec": {} })).unwrap();
        let claims = [claim, pending];
        let found = allocations(&claims);
        let keys: Vec<_> = found.keys().map(|(pool, device)| (pool.as_str(), device.as_str())).collect();
        assert_eq!(keys, [("m1", "gpu-1")]);
        let allocation = &found[&("m1".to_owned(), "gpu-1".to_owned())][0];
        assert_eq!((allocation.namespace.as_str(), allocation.claim.as_str()), ("team", "train"));
        assert_eq!(allocation.pods, ["train-0"]);
        let [holder] = holders(&claims, |_| true).try_into().unwrap();
        assert_eq!((holder.pod.as_str(), holder.uid.as_str()), ("train-0", "p1"));
        assert_eq!((holder.device.as_str(), holder.by_extended_resource), ("gpu-1", false));
        assert_eq!(holder.driver, GpuDriver::Bailiwick);
    }

    #[test]
    fn devices_of_nvidias_driver_are_ours_to_judge_where_a_class_of_ours_gave_them_out() {
        let results = ["one", "other", "some/first", "some/second"].map(
            |request| json!({ "driver": dra::NVIDIA, "pool": "m1", "device": request, "request": request }),
        );
        let exactly =
            |name: &str, class: &str| json!({ "name": name, "exactly": { "deviceClassName": class } });
        let some = json!({ "name": "some", "firstAvailable": [
            { "name": "first", "deviceClassName": "gpu.nvidia.com" }, { "name": "second", "deviceClassName": "h100" },
        ] });
        let claim: ResourceClaim = serde_json::from_value(json!({
            "metadata": { "annotations": { EXTENDED: "true" } },
            "spec": { "devices": { "requests": [exactly("one", "h100"), exactly("other", "gpu.nvidia.com"), some] } },
            "status": {
                "reservedFor": [{ "resource": "pods", "name": "train-0", "uid": "p1" }],
                "allocation": { "devices": { "results": results } },
            },
        }))
        .unwrap();
        let holders = holders(&[claim], |class| class == "h100");
        let told: Vec<_> = holders.iter().map(|holder| (holder.driver, holder.device.as_str())).collect();
        assert_eq!(told, [(GpuDriver::Nvidia, "one"), (GpuDriver::Nvidia, "some/second")]);
        assert!(holders.iter().all(|holder| holder.by_extended_resource));
    }
}
