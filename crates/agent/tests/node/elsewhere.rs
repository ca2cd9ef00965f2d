//! Claims that were allocated what is not on this node: an old slice, or one that somebody else has written.

use crate::stage::{Stage, claim, pod_of_claim};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_device_that_is_not_on_this_node_is_refused_in_the_pods_events() {
    let mut stage = Stage::start().await;
    stage.permit(Duration::from_hours(1));
    // The driver shows seven GPUs: the last one has fallen off the bus.
    stage.gpu_is_gone();
    stage.start_agent();
    stage.publish_once_registered().await;
    for (pool, device, code, told) in [
        ("machine-2", "gpu-0", "plugin.device.unknown", "machine-2"),
        ("machine-1", "gpu-8", "permit.none", "gpu-8"),
        ("machine-1", "gpu-7", "plugin.device.gate-closed", "the driver does not show"),
    ] {
        let name = format!("{pool}-{device}");
        let elsewhere = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": { "name": "node-1-gpus" },
            "spec": {
                "driver": dra::DRIVER, "nodeName": "node-1", "devices": [{ "name": device }],
                "pool": { "name": pool, "generation": 2, "resourceSliceCount": 1 },
            },
        });
        stage.kubectl(&["delete", "resourceslices", "--all"]).await;
        stage.create(&elsewhere).await;
        stage.create(&claim(&name)).await;
        stage.create(&pod_of_claim(&name)).await;
        let event = stage.until_told(&name, code).await;
        assert!(event.contains(told) && event.contains(&name), "{event}");
        assert!(stage.specifications().is_empty() && stage.held().is_empty());
        stage.delete_pod(&name).await;
    }
}
