//! What a ResourceClaim says about devices of ours. Pure.

use super::error::Refusal;
use super::wire;
use crate::DRIVER;
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceAllocationConfiguration, ResourceClaim};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Group and version of our opaque parameters.
pub const CONFIG_API_VERSION: &str = "gpu.bailiwick.dev/v1alpha1";
/// Their kind.
pub const CONFIG_KIND: &str = "GpuConfig";

/// Parameters that a claim or class may give with our devices. There are none so far: what nobody understands is refused rather
/// than ignored.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GpuConfig {
    api_version: String,
    kind: String,
}

/// A device that was allocated to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AllocatedDevice {
    pub(super) pool: String,
    pub(super) device: String,
    /// Requests that it serves, without alternatives' names.
    pub(super) requests: Vec<String>,
}

/// The devices of ours that were allocated to the claim the kubelet means, sorted by pool and name.
pub(super) fn allocated(
    asked: &wire::Claim,
    found: Option<&ResourceClaim>,
) -> Result<Vec<AllocatedDevice>, Refusal> {
    let gone = || Refusal::ClaimGone { namespace: asked.namespace.clone(), name: asked.name.clone() };
    let claim = found.ok_or_else(gone)?;
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    if uid != asked.uid {
        return Err(Refusal::ClaimReplaced { found: uid.to_owned(), expected: asked.uid.clone() });
    }
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let allocation = allocation.ok_or(Refusal::ClaimNotAllocated)?;
    let devices = devices(allocation)?;
    for config in allocation.devices.iter().flat_map(|devices| devices.config.iter().flatten()) {
        check_config(config, &devices)?;
    }
    Ok(devices)
}

fn devices(allocation: &AllocationResult) -> Result<Vec<AllocatedDevice>, Refusal> {
    let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
    let mut devices: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for result in results.filter(|result| result.driver == DRIVER) {
        if result.admin_access == Some(true) {
            return Err(Refusal::AdminAccess { device: result.device.clone() });
        }
        // `main/sub` for an alternative: containers name the main request (facts: dra §5).
        let request = result.request.split('/').next().unwrap_or_default().to_owned();
        devices.entry((result.pool.clone(), result.device.clone())).or_default().push(request);
    }
    if devices.is_empty() {
        return Err(Refusal::ClaimWithoutDevices);
    }
    let device = |((pool, device), requests)| AllocatedDevice { pool, device, requests };
    Ok(devices.into_iter().map(device).collect())
}

/// An entry without requests is for all of them, and whoever is not its driver ignores it; one that names a request of ours can
/// only be meant for us.
fn check_config(config: &DeviceAllocationConfiguration, devices: &[AllocatedDevice]) -> Result<(), Refusal> {
    let Some(opaque) = &config.opaque else { return Ok(()) };
    let named = config.requests.as_deref().unwrap_or_default();
    let main = |request: &String| request.split('/').next().unwrap_or_default().to_owned();
    let ours = named.iter().find(|name| devices.iter().any(|device| device.requests.contains(&main(name))));
    if opaque.driver != DRIVER {
        return match ours {
            None => Ok(()),
            Some(request) => {
                Err(Refusal::ConfigForeign { request: request.clone(), driver: opaque.driver.clone() })
            }
        };
    }
    let invalid = |reason: String| Refusal::ConfigInvalid {
        request: named.first().cloned().unwrap_or_else(|| "*".to_owned()),
        reason,
    };
    let parameters: GpuConfig =
        serde_json::from_value(opaque.parameters.0.clone()).map_err(|error| invalid(error.to_string()))?;
    if parameters.api_version != CONFIG_API_VERSION || parameters.kind != CONFIG_KIND {
        let found = format!("{} {}", parameters.api_version, parameters.kind);
        return Err(invalid(format!("{CONFIG_API_VERSION} {CONFIG_KIND} is known, not {found}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn asked() -> wire::Claim {
        wire::Claim { namespace: "ns".into(), uid: "u-1".into(), name: "c".into() }
    }

    fn claim(status: &Value) -> ResourceClaim {
        let claim = json!({ "metadata": { "uid": "u-1", "name": "c", "namespace": "ns" }, "spec": {}, "status": status });
        serde_json::from_value(claim).unwrap()
    }

    fn result(request: &str, driver: &str, device: &str) -> Value {
        json!({ "request": request, "driver": driver, "pool": "m1", "device": device })
    }

    fn with_config(config: &Value) -> Result<Vec<AllocatedDevice>, Refusal> {
        let results = [result("gpu", DRIVER, "gpu-1"), result("nic", "nic.example", "eth0")];
        let status = json!({ "allocation": { "devices": { "results": results, "config": [config] } } });
        allocated(&asked(), Some(&claim(&status)))
    }

    fn opaque(driver: &str, requests: &Value, parameters: &Value) -> Value {
        let opaque = json!({ "driver": driver, "parameters": parameters });
        json!({ "source": "FromClaim", "requests": requests, "opaque": opaque })
    }

    #[test]
    fn only_our_devices_count_and_an_alternative_serves_its_main_request() {
        let results = [
            result("gpu/large", DRIVER, "gpu-2"),
            result("other", DRIVER, "gpu-1"),
            result("nic", "nic.example", "eth0"),
        ];
        let status = json!({ "allocation": { "devices": { "results": results } } });
        let found = allocated(&asked(), Some(&claim(&status))).unwrap();
        let found: Vec<_> = found.iter().map(|d| (d.device.as_str(), d.requests.join(","))).collect();
        assert_eq!(found, [("gpu-1", "other".to_owned()), ("gpu-2", "gpu".to_owned())]);
    }

    #[test]
    fn a_claim_that_is_gone_replaced_unallocated_or_without_our_devices_is_refused() {
        let code =
            |claim: Option<&ResourceClaim>, asked: &wire::Claim| allocated(asked, claim).unwrap_err().code();
        let nothing = claim(&json!({}));
        let foreign =
            json!({ "allocation": { "devices": { "results": [result("nic", "nic.example", "eth0")] } } });
        assert_eq!(code(None, &asked()), "plugin.claim.gone");
        assert_eq!(code(Some(&nothing), &asked()), "plugin.claim.not-allocated");
        assert_eq!(code(Some(&claim(&foreign)), &asked()), "plugin.claim.without-devices");
        let other = wire::Claim { uid: "u-2".into(), ..asked() };
        assert_eq!(code(Some(&nothing), &other), "plugin.claim.replaced");
    }

    #[test]
    fn administrative_access_is_refused() {
        let mut device = result("gpu", DRIVER, "gpu-1");
        device["adminAccess"] = true.into();
        let status = json!({ "allocation": { "devices": { "results": [device] } } });
        let refused = allocated(&asked(), Some(&claim(&status))).unwrap_err();
        assert_eq!(refused.code(), "plugin.device.admin-access");
    }

    #[test]
    fn parameters_of_ours_are_taken_when_every_field_is_known() {
        let known = json!({ "apiVersion": CONFIG_API_VERSION, "kind": CONFIG_KIND });
        assert!(with_config(&opaque(DRIVER, &json!(["gpu"]), &known)).is_ok());
        let mut unknown = known.clone();
        unknown["sharing"] = "TimeSlicing".into();
        let refused = with_config(&opaque(DRIVER, &json!([]), &unknown)).unwrap_err();
        assert_eq!(refused.code(), "plugin.config.invalid");
        assert!(refused.to_string().contains("sharing"), "{refused}");
        let other = json!({ "apiVersion": "gpu.nvidia.com/v1beta1", "kind": CONFIG_KIND });
        let refused = with_config(&opaque(DRIVER, &json!(["gpu"]), &other)).unwrap_err();
        assert_eq!(refused.code(), "plugin.config.invalid");
    }

    #[test]
    fn parameters_of_another_driver_are_refused_at_our_request_alone() {
        let nothing = json!({});
        let refused = with_config(&opaque("gpu.nvidia.com", &json!(["gpu"]), &nothing)).unwrap_err();
        assert_eq!(refused.code(), "plugin.config.foreign");
        assert!(with_config(&opaque("nic.example", &json!(["nic"]), &nothing)).is_ok());
        assert!(with_config(&opaque("nic.example", &json!([]), &nothing)).is_ok());
    }
}
