//! Who has our devices: read from the ResourceClaims of a cluster, for people to see. Nothing is decided by it.

use crate::api::types::Allocation;
use crate::error::coded;
use domain::Problem;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::Client;
use kube::api::{Api, ListParams};
use std::collections::BTreeMap;

/// By pool and device.
pub(crate) type Allocations = BTreeMap<(String, String), Vec<Allocation>>;

/// Reads them. From the API server's cache: a moment old is good enough.
pub(super) async fn read(client: &Client) -> Result<Allocations, Problem> {
    let claims = Api::<ResourceClaim>::all(client.clone()).list(&ListParams::default().match_any()).await;
    let claims = claims.map_err(|error| {
        coded("publish.claims-unread", format!("who has which GPU cannot be read from the cluster: {error}"))
    })?;
    Ok(collect(&claims.items))
}

fn collect(claims: &[ResourceClaim]) -> Allocations {
    let mut found = Allocations::new();
    for claim in claims {
        let Some(status) = &claim.status else { continue };
        let devices = status.allocation.as_ref().and_then(|allocation| allocation.devices.as_ref());
        let results = devices.and_then(|devices| devices.results.as_ref());
        let reserved = status.reserved_for.iter().flatten();
        let pods: Vec<String> =
            reserved.filter(|holder| holder.resource == "pods").map(|holder| holder.name.clone()).collect();
        for result in results.into_iter().flatten().filter(|result| result.driver == dra::DRIVER) {
            let allocation = Allocation {
                namespace: claim.metadata.namespace.clone().unwrap_or_default(),
                claim: claim.metadata.name.clone().unwrap_or_default(),
                uid: claim.metadata.uid.clone().unwrap_or_default(),
                device: result.device.clone(),
                pods: pods.clone(),
            };
            found.entry((result.pool.clone(), result.device.clone())).or_default().push(allocation);
        }
    }
    found
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
        let found = collect(&[claim, pending]);
        let keys: Vec<_> = found.keys().map(|(pool, device)| (pool.as_str(), device.as_str())).collect();
        assert_eq!(keys, [("m1", "gpu-1")]);
        let allocation = &found[&("m1".to_owned(), "gpu-1".to_owned())][0];
        assert_eq!((allocation.namespace.as_str(), allocation.claim.as_str()), ("team", "train"));
        assert_eq!(allocation.pods, ["train-0"]);
    }
}
