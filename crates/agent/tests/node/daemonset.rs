//! The agent as a DaemonSet: `manifests/agent/*.yaml`, and the image of the Containerfile beside them.

use crate::image::image_of_agent;
use crate::root;
use crate::stage::{DRIVER_ROOT, Stage, claim, gpu, pod_of_claim};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The name in the manifest, as containerd completes it.
const IMAGE: &str = "docker.io/library/bailiwick-agent:0.1.0";
const AGENT: &str = "daemonset/bailiwick-agent";

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

    /// Waits until the DaemonSet's pods are those of its last change, and have been ready for as long as it wants.
    async fn until_rolled_out(&self) {
        let done = ["rollout", "status", AGENT, "--namespace=bailiwick-system", "--timeout=120s"];
        let output = self.plane.kubectl(&done, None).await.unwrap();
        assert!(output.status.success(), "{}{}\n{}", output.stdout, output.stderr, self.log());
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

#[tokio::test]
async fn an_update_of_the_daemonset_keeps_slices_and_pods_and_the_new_agent_hands_out_gpus() {
    let mut stage = Stage::start().await;
    stage.permit(Duration::from_hours(1));
    stage.apply_daemonset().await;
    stage.publish_once_registered().await;
    stage.create(&claim("before")).await;
    stage.create(&pod_of_claim("before")).await;
    stage.until_running("before").await;
    let slice = stage.object("resourceslice", "node-1-gpus").await["metadata"]["uid"].clone();

    stage.until_rolled_out().await;
    stage.kubectl(&["rollout", "restart", AGENT, "--namespace=bailiwick-system"]).await;
    stage.agent_was_started();
    stage.until_rolled_out().await;
    stage.create(&claim("after")).await;
    stage.create(&pod_of_claim("after")).await;
    stage.until_running("after").await;
    assert_eq!(stage.object("pod", "before").await["status"]["phase"], "Running");
    assert_eq!(stage.object("resourceslice", "node-1-gpus").await["metadata"]["uid"], slice);
    for name in ["before", "after"] {
        stage.delete_pod(name).await;
    }
    assert_eq!(stage.reset().len(), 2);
}

impl Stage {
    /// The DaemonSet's pods, oldest first: their names, and whether they are ready and stay.
    async fn agents(&self) -> Vec<(String, bool)> {
        let get = [
            "get",
            "pods",
            "--namespace=bailiwick-system",
            "--sort-by=.metadata.creationTimestamp",
            "-o",
            "json",
        ];
        let pods: Value = serde_json::from_str(&self.kubectl(&get).await).unwrap();
        let agent = |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
            let stays = pod["metadata"]["deletionTimestamp"].is_null();
            (
                pod["metadata"]["name"].as_str().unwrap().to_owned(),
                stays && ready.any(|condition| condition["status"] == "True"),
            )
        };
        pods["items"].as_array().unwrap().iter().map(agent).collect()
    }

    /// Waits until they are so.
    async fn until_agents(&self, wanted: impl Fn(&[(String, bool)]) -> bool) -> Vec<(String, bool)> {
        let start = Instant::now();
        loop {
            let agents = self.agents().await;
            if wanted(&agents) {
                return agents;
            }
            assert!(start.elapsed() < Duration::from_mins(2), "{agents:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Whether the agent of this pod says that the kubelet took its plugin.
    fn has_registered(&self, pod: &str) -> bool {
        let below = |directory: &Path| std::fs::read_dir(directory).into_iter().flatten().flatten();
        let logs = self.node.pod_logs_dir();
        let of_pod = below(&logs).filter(|of| of.file_name().to_string_lossy().contains(&format!("_{pod}_")));
        let mut logs = of_pod.flat_map(|of| below(&of.path().join("agent")).collect::<Vec<_>>());
        logs.any(|log| std::fs::read_to_string(log.path()).unwrap().contains("registered with the kubelet"))
    }

    /// Waits until the readiness of a pod of the DaemonSet was asked for and denied.
    async fn until_not_ready(&self, pod: &str) {
        let events = ["get", "events", "--namespace=bailiwick-system", "-o", "json"];
        let denied = format!("--field-selector=reason=Unhealthy,involvedObject.name={pod}");
        let start = Instant::now();
        while !self.kubectl(&[&events[..], &[&denied]].concat()).await.contains("agent.not-ready") {
            assert!(start.elapsed() < Duration::from_mins(2), "{:?}\n{}", self.agents().await, self.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test]
async fn a_pod_is_ready_once_its_plugin_is_registered_and_an_update_goes_on_only_then() {
    let mut stage = Stage::start().await;
    stage.permit(Duration::from_hours(1));
    stage.apply_daemonset().await;
    stage.until_rolled_out().await;
    let old = stage.until_agents(|agents| matches!(agents, [(_, true)])).await.remove(0).0;
    assert!(stage.has_registered(&old), "it was ready before");

    // The new agent has no permit, and does not register.
    stage.permit(Duration::ZERO);
    stage.kubectl(&["rollout", "restart", AGENT, "--namespace=bailiwick-system"]).await;
    let new = stage.until_agents(|agents| agents.len() == 2).await[1].0.clone();
    stage.until_not_ready(&new).await;
    assert_eq!(stage.agents().await, [(old.clone(), true), (new.clone(), false)]);
    assert!(!stage.has_registered(&new));

    stage.permit(Duration::from_hours(1));
    stage.kubectl(&["delete", "pod", &new, "--namespace=bailiwick-system", "--wait=false"]).await;
    stage.until_rolled_out().await;
    let last = stage.until_agents(|agents| matches!(agents, [(_, true)])).await.remove(0).0;
    assert!(last != old && last != new, "{last}");
    assert!(stage.has_registered(&last));
}

/// A host's `nvidia-smi`, where Debian's alternatives have it: links from the host's own root directory.
fn install_nvidia_smi(root: &Path, says: &str) {
    root::install(root, "/bin/sh");
    for directory in ["usr/bin", "etc/alternatives", "usr/lib/nvidia"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    root::write_program(&root.join("usr/lib/nvidia/nvidia-smi"), &format!("#!/bin/sh\necho {says} \"$@\"\n"));
    symlink("/usr/lib/nvidia/nvidia-smi", root.join("etc/alternatives/nvidia-smi")).unwrap();
    symlink("/etc/alternatives/nvidia-smi", root.join("usr/bin/nvidia-smi")).unwrap();
}

#[test]
fn in_its_image_the_agent_resets_gpus_by_the_program_of_the_driver_container_else_of_the_host() {
    let host = tempfile::tempdir().unwrap();
    let program = testbed::repository_root().join("manifests/agent/nvidia-smi");
    let asked = || {
        let mut command = Command::new(&program);
        command.args(["--gpu-reset", "--id", "GPU-1"]).env("BAILIWICK_HOST_ROOT", host.path());
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let (done, said) = asked();
    assert!(!done && said.contains("there is no nvidia-smi"), "{said}");
    install_nvidia_smi(host.path(), "host");
    assert_eq!(asked(), (true, "host --gpu-reset --id GPU-1\n".to_owned()));
    install_nvidia_smi(&host.path().join("run/nvidia/driver"), "container");
    assert_eq!(asked(), (true, "container --gpu-reset --id GPU-1\n".to_owned()));
}
