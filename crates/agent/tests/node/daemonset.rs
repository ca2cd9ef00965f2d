//! The agent as a DaemonSet: `manifests/agent/*.yaml`, and the image of the Containerfile beside them.

use crate::image::image_of_agent;
use crate::stage::{DRIVER_ROOT, Stage, claim, gpu, pod_of_claim};
use serde_json::{Value, json};
use std::time::Duration;

/// The name in the manifest, as containerd completes it.
const IMAGE: &str = "docker.io/library/bailiwick-agent:0.1.0";

/// The DaemonSet, with what a test host lacks: there is no network of services, and device nodes of GPUs cannot be put into `/dev`.
fn daemonset(server: &str) -> Value {
    let path = testbed::repository_root().join("manifests/agent/daemonset.yaml");
    let mut daemonset: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let pod = &mut daemonset["spec"]["template"]["spec"];
    let (host, port) = server.strip_prefix("https://").unwrap().split_once(':').unwrap();
    pod["hostNetwork"] = true.into();
    for (name, value) in [
        ("KUBERNETES_SERVICE_HOST", host),
        ("KUBERNETES_SERVICE_PORT", port),
        ("BAILIWICK_DEV_ROOT", &format!("{DRIVER_ROOT}/dev")),
    ] {
        let env = pod["containers"][0]["env"].as_array_mut().unwrap();
        env.push(json!({ "name": name, "value": value }));
    }
    daemonset
}

impl Stage {
    async fn apply_daemonset(&mut self) {
        let folder = tempfile::tempdir().unwrap();
        self.node.import(&image_of_agent(IMAGE, folder.path())).await.unwrap();
        let manifests = testbed::repository_root().join("manifests/agent");
        for name in ["account.yaml", "clusterrole.yaml"] {
            self.kubectl(&["apply", "-f", manifests.join(name).to_str().unwrap()]).await;
        }
        // The cell labels nodes whose machine it has verified.
        self.kubectl(&["label", "node", "node-1", "node-restriction.kubernetes.io/machine=machine-1"]).await;
        self.create(&daemonset(self.plane.server_url())).await;
        self.agent_was_started();
    }
}

#[tokio::test]
async fn the_daemonset_runs_from_its_image_finds_the_driver_and_hands_out_and_resets_gpus() {
    let mut stage = Stage::start().await;
    stage.permit(Duration::from_hours(1));
    stage.apply_daemonset().await;
    stage.publish_once_registered().await;
    stage.create(&claim("claimed")).await;
    stage.create(&pod_of_claim("claimed")).await;
    let running = stage.until_running("claimed").await;
    let [(_, devices)] = stage.held().try_into().unwrap();
    let index = devices[0].strip_prefix("gpu-").unwrap();
    let uuid = gpu(index.parse().unwrap());
    let seen = stage.output(&running).await;
    assert_eq!(
        seen,
        [&format!("BAILIWICK_GPU_{index}={uuid}"), &format!("nvidia{index}"), "nvidiactl", "end"]
    );
    stage.delete_pod("claimed").await;
    assert_eq!(stage.reset(), [uuid]);
    assert!(stage.specifications().is_empty());
}
