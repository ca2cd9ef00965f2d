//! GPUs that `nvidia-ctk cdi generate` has described: the pod gets what it describes, and who it is from us.

use crate::stage::{Stage, claim, gpu, pod_of_claim};
use serde_json::json;
use std::time::Duration;

/// A specification for the first two GPUs of the stage's driver, of the form that NVIDIA Container Toolkit 1.17 writes with
/// `--device-name-strategy=uuid` for a driver container, without its hooks: a node of each GPU and its render node, and for all what the
/// driver's programs open and its libraries.
fn specification(stage: &Stage) -> String {
    let root = stage.driver_root().display().to_string();
    let node =
        |name: &str| json!({ "path": format!("/dev/{name}"), "hostPath": format!("{root}/dev/{name}") });
    let device = |index: usize| {
        let nodes = [node(&format!("nvidia{index}")), node(&format!("dri/renderD{}", 128 + index))];
        json!({ "name": gpu(index), "containerEdits": { "deviceNodes": nodes } })
    };
    json!({
        "cdiVersion": "0.5.0", "kind": "nvidia.com/gpu",
        "devices": [device(0), device(1)],
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": [node("nvidiactl"), node("nvidia-uvm")],
            "mounts": [{
                "hostPath": format!("{root}/usr/lib/libcuda.so.580.95.05"),
                "containerPath": "/usr/lib/libcuda.so.580.95.05",
                "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"],
            }],
        },
    })
    .to_string()
}

#[tokio::test]
async fn a_pod_gets_what_nvidias_tool_has_described_and_our_environment_with_it() {
    let mut stage = Stage::start().await;
    let root = stage.driver_root();
    std::fs::create_dir(root.join("dev/dri")).unwrap();
    for (name, like) in
        [("dri/renderD128", "nvidia0"), ("dri/renderD129", "nvidia1"), ("nvidia-uvm", "nvidiactl")]
    {
        std::fs::hard_link(root.join("dev").join(like), root.join("dev").join(name)).unwrap();
    }
    std::fs::write(root.join("usr/lib/libcuda.so.580.95.05"), "").unwrap();
    std::fs::write(stage.static_cdi_dir().join("nvidia.yaml"), specification(&stage)).unwrap();
    stage.permit(Duration::from_hours(1));
    stage.start_agent();
    stage.publish_once_registered().await;
    stage.create(&claim("described")).await;
    let mut pod = pod_of_claim("described");
    let command = "env | grep -e BAILIWICK_ -e NVIDIA_ | sort; ls /dev | grep nvidia; ls /dev/dri /usr/lib; echo end; \
        trap 'exit 0' TERM; while :; do sleep 1; done";
    pod["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", command]);
    stage.create(&pod).await;
    let running = stage.until_running("described").await;
    let [(_, devices)] = stage.held().try_into().unwrap();
    let index: usize = devices[0].strip_prefix("gpu-").unwrap().parse().unwrap();
    let seen = stage.output(&running).await;
    assert_eq!(
        seen,
        [
            &format!("BAILIWICK_GPU_{index}={}", gpu(index)),
            "NVIDIA_VISIBLE_DEVICES=void",
            "nvidia-uvm",
            &format!("nvidia{index}"),
            "nvidiactl",
            "/dev/dri:",
            &format!("renderD{}", 128 + index),
            "",
            "/usr/lib:",
            "libcuda.so.580.95.05",
            "end",
        ]
    );
    stage.delete_pod("described").await;
    assert_eq!(stage.reset(), [gpu(index)]);
}
