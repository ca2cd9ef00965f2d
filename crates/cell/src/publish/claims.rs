//! Who has our devices: read from the ResourceClaims of a cluster.

use crate::api::types::Allocation;
use crate::error::coded;
use domain::Problem;
use k8s_openapi::api::resource::v1::{
    DeviceRequestAllocationResult, ResourceClaim, ResourceClaimConsumerReference,
};
use kube::Client;
use kube::api::{Api, ListParams};
use std::collections::BTreeMap;

/// By pool and device.
pub(crate) type Allocations = BTreeMap<(String, String), Vec<Allocation>>;

/// A pod that holds one of our devices.
#[derive(Debug, PartialEq)]
pub(super) struct Holder {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
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

/// The devices of ours that a claim has.
fn devices(claim: &ResourceClaim) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let status = claim.status.as_ref();
    let devices = status.and_then(|status| status.allocation.as_ref()?.devices.as_ref());
    let results = devices.and_then(|devices| devices.results.as_ref());
    results.into_iter().flatten().filter(|result| result.driver == dra::DRIVER)
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

/// Every pod that holds a device, once for each.
pub(super) fn holders(claims: &[ResourceClaim]) -> Vec<Holder> {
    let of = |claim| devices(claim).flat_map(move |result| pods(claim).map(move |pod| (claim, result, pod)));
    let holder = |(claim, result, pod): (
        &ResourceClaim,
        &DeviceRequestAllocationResult,
        &ResourceClaimConsumerReference,
    )| {
        let annotations = claim.metadata.annotations.as_ref();
        Holder {
            namespace: claim.metadata.namespace.clone().unwrap_or_default(),
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            pool: result.pool.clone(),
            device: result.device.clone(),
            by_extended_resource: annotations.is_some_and(|all| all.contains_key(EXTENDED)),
        }
    };
    claims.iter().flat_map(of).map(holder).collect()
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
        let [holder] = holders(&claims).try_into().unwrap();
        assert_eq!((holder.pod.as_str(), holder.uid.as_str()), ("train-0", "p1"));
        assert_eq!((holder.device.as_str(), holder.by_extended_resource), ("gpu-1", false));
    }
}
