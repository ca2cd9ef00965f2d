//! A node of a real cluster on a host with eight GPUs, whose driver is stood in for: as a driver container would have it, below
//! `/run/nvidia/driver` of the node.

use crate::root;
use domain::Name;
use domain::permit::{Permit, Permits, PublicKey, SignedPermits};
use jiff::Timestamp;
use nvml_stand_in::{Description, Installed};
use rcgen::{CertificateParams, KeyPair};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testbed::{ControlPlane, Node, NodeOptions};

/// Generous: the machine may be compiling at the same time.
const PATIENCE: Duration = Duration::from_mins(2);
const NODE: &str = "node-1";
const MACHINE: &str = "machine-1";
const GPUS: usize = 8;
/// Where the node shows the root directory of its driver.
pub(crate) const DRIVER_ROOT: &str = "/run/nvidia/driver";
/// Where the agent makes itself known, in the kubelet's directory.
const REGISTRATION: &str = "plugins_registry/gpu@gpu.bailiwick.dev-reg.sock";

fn described() -> Description {
    Description::parse(nvml_stand_in::host("h100").unwrap()).unwrap()
}

/// The UUID of a GPU.
pub(crate) fn gpu(index: usize) -> String {
    described().gpus().unwrap()[index].gpu.uuid.clone().unwrap()
}

pub(crate) struct Stage {
    // Dropped in this order: clients before what they talk to.
    agent: Option<Child>,
    /// How often.
    started: usize,
    pub(crate) node: Node,
    /// What the agent takes for the kubelet's directory.
    kubelet_dir: PathBuf,
    pub(crate) plane: ControlPlane,
    kubeconfig: PathBuf,
    signer: Ed25519KeyPair,
    installed: Installed,
    files: TempDir,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kill_agent();
    }
}

impl Stage {
    pub(crate) async fn start() -> Self {
        let plane = ControlPlane::options().node_lifecycle(true).start().await.unwrap();
        let admin = std::fs::read_to_string(plane.kubeconfig_admin()).unwrap();
        let configuration = "{ apiVersion: kubelet.config.k8s.io/v1beta1, kind: KubeletConfiguration }";
        let files = tempfile::tempdir().unwrap();
        let installed = install_driver(&files.path().join("driver"));
        let mut node = NodeOptions::new(NODE, &admin, configuration)
            .mount(&files.path().join("driver"), Path::new(DRIVER_ROOT))
            .start(&plane)
            .await
            .unwrap();
        node.wait_until_ready(&plane).await.unwrap();
        for directory in [node.var_lib().join("bailiwick-agent"), node.etc().join("cdi")] {
            std::fs::create_dir(directory).unwrap();
        }
        let kubeconfig = plane.kubeconfig_for("agent", &[]).unwrap();
        let signer = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let kubelet_dir = node.kubelet_dir();
        let stage =
            Self { agent: None, started: 0, node, kubelet_dir, plane, kubeconfig, signer, installed, files };
        stage.enrol();
        let role = testbed::repository_root().join("manifests/agent/clusterrole.yaml");
        stage.kubectl(&["apply", "-f", role.to_str().unwrap()]).await;
        let agent =
            ["create", "clusterrolebinding", "agent", "--clusterrole=bailiwick-agent", "--user=agent"];
        stage.kubectl(&agent).await;
        let class = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": { "name": "gpu" },
            "spec": { "extendedResourceName": "gpu.bailiwick.dev/any", "selectors": [
                { "cel": { "expression": format!("device.driver == '{}'", dra::DRIVER) } },
            ] },
        });
        stage.create(&class).await;
        stage
    }

    /// What enrolment leaves, for a cell that nobody reaches.
    fn enrol(&self) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap().pem();
        let permit_key = PublicKey::new(self.signer.public_key().as_ref().try_into().unwrap());
        let identity = json!({
            "cell": "https://127.0.0.1:1", "machine": MACHINE, "key": key.serialize_pem(),
            "certificate": certificate, "ca": certificate, "permitKey": permit_key, "received": Timestamp::now(),
        });
        std::fs::write(self.state_dir().join("cell.json"), identity.to_string()).unwrap();
    }

    /// Where the agent keeps what it has to remember; on the node `/var/lib/bailiwick-agent`.
    fn state_dir(&self) -> PathBuf {
        self.node.var_lib().join("bailiwick-agent")
    }

    /// The root directory of the driver, on the node [`DRIVER_ROOT`].
    pub(crate) fn driver_root(&self) -> PathBuf {
        self.files.path().join("driver")
    }

    /// Where others describe devices to the runtime; on the node `/etc/cdi`.
    pub(crate) fn static_cdi_dir(&self) -> PathBuf {
        self.node.etc().join("cdi")
    }

    /// What the cell's last report leaves: permits for all GPUs, from now on.
    pub(crate) fn permit(&self, life: Duration) {
        let issued = Timestamp::now();
        let permit = |index| Permit {
            device: Name::new(format!("gpu-{index}")).unwrap(),
            gpu: gpu(index),
            partition: None,
            verdict: None,
            valid_until: issued + life,
        };
        let machine = Name::new(MACHINE).unwrap();
        let permits = Permits { machine, issued, permits: (0..GPUS).map(permit).collect() };
        let sign = |bytes: &[u8]| Ok::<_, Infallible>(self.signer.sign(bytes).as_ref().to_vec());
        let signed = SignedPermits::seal(&permits, sign).unwrap();
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let received = u64::try_from(agent::cell::uptime().as_millis()).unwrap();
        let kept = json!({ "bootId": boot_id.trim(), "received": received, "signed": signed });
        std::fs::write(self.state_dir().join("permits.json"), kept.to_string()).unwrap();
    }

    pub(crate) fn start_agent(&mut self) {
        let path = |path: PathBuf| path.display().to_string();
        let options = [
            ("--state-dir", path(self.state_dir())),
            ("--kubeconfig", path(self.kubeconfig.clone())),
            ("--kubelet-dir", path(self.kubelet_dir.clone())),
            ("--cdi-dir", path(self.node.cdi_dir())),
            ("--static-cdi-dir", path(self.static_cdi_dir())),
            ("--nvml", path(self.installed.library())),
            ("--dev-root", path(self.driver_root().join("dev"))),
            ("--nvidia-smi", path(self.driver_root().join("usr/bin/nvidia-smi"))),
            ("--probe-interval", "1".to_owned()),
        ];
        // It dies with us, also when we are killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_bailiwick-agent"), "run"]);
        command.args(options.iter().flat_map(|(name, value)| [*name, value.as_str()]));
        self.run_agent(command);
    }

    /// Runs a command that is the agent.
    pub(crate) fn run_agent(&mut self, mut command: Command) {
        let log = self.files.path().join("agent.log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        self.started += 1;
        self.agent = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Somebody else has started the agent: the kubelet.
    pub(crate) fn agent_was_started(&mut self) {
        self.started += 1;
    }

    /// From now on the agent works beside the kubelet's directory, and the kubelet knows of it when it is introduced.
    pub(crate) fn keep_agent_apart(&mut self) {
        self.kubelet_dir = self.files.path().join("kubelet");
    }

    /// Waits until an agent that is kept apart listens at its socket of registration, and so at all of its sockets.
    pub(crate) async fn until_listening(&self) {
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.kubelet_dir.join(REGISTRATION)).is_err() {
            assert!(start.elapsed() < PATIENCE, "{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The kubelet gets to know an agent that is kept apart.
    pub(crate) fn introduce_agent(&self) {
        let link = self.node.kubelet_dir().join(REGISTRATION);
        // What an agent that was killed had there.
        let _ = std::fs::remove_file(&link);
        std::fs::hard_link(self.kubelet_dir.join(REGISTRATION), link).unwrap();
    }

    /// The directory of the agent's checkpoint and socket.
    pub(crate) fn plugin_dir(&self) -> PathBuf {
        self.kubelet_dir.join("plugins").join(dra::DRIVER)
    }

    /// What the checkpoint says that claims hold: the names of devices, by the claim's UID.
    pub(crate) fn held(&self) -> Vec<(String, Vec<String>)> {
        let text = std::fs::read_to_string(self.plugin_dir().join("checkpoint.json")).unwrap();
        let checkpoint: Value = serde_json::from_str(&text).unwrap();
        let device = |device: &Value| device["device"].as_str().unwrap().to_owned();
        let claims = checkpoint["content"]["claims"].as_object().unwrap();
        let devices = |held: &Value| held["devices"].as_array().unwrap().iter().map(device).collect();
        claims.iter().map(|(uid, held)| (uid.clone(), devices(held))).collect()
    }

    /// By SIGKILL.
    pub(crate) fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// What agents have said: the one that was started here, and those in pods.
    pub(crate) fn log(&self) -> String {
        let below = |directory: PathBuf| std::fs::read_dir(directory).into_iter().flatten().flatten();
        let pods = below(self.node.pod_logs_dir())
            .filter(|pod| pod.file_name().to_string_lossy().starts_with("bailiwick-system_"));
        let in_pods = pods.flat_map(|pod| below(pod.path().join("agent"))).map(|log| log.path());
        let logs = std::iter::once(self.files.path().join("agent.log")).chain(in_pods);
        logs.map(|log| std::fs::read_to_string(log).unwrap_or_default()).collect()
    }

    /// A row of memory of the first GPUs could not be remapped.
    pub(crate) fn gpus_fall_ill(&self, count: usize) {
        let mut host = described();
        for gpu in host.gpus.iter_mut().take(count) {
            let failed = json!({ "correctable": 0, "uncorrectable": 1, "pending": false, "failed": true });
            gpu.as_object_mut().unwrap().insert("remappedRows".to_owned(), failed);
        }
        self.installed.describe(&host).unwrap();
    }

    /// The last GPU has fallen off the bus.
    pub(crate) fn gpu_is_gone(&self) {
        let mut host = described();
        host.gpus.pop();
        self.installed.describe(&host).unwrap();
    }

    /// GPUs that were reset, in that order.
    pub(crate) fn reset(&self) -> Vec<String> {
        let asked = std::fs::read_to_string(self.driver_root().join("usr/bin/asked")).unwrap_or_default();
        asked.lines().map(|line| line.strip_prefix("--gpu-reset --id ").unwrap().to_owned()).collect()
    }

    /// What the cell does: slices once the kubelet has the plugin, since it wipes those of before.
    pub(crate) async fn publish_once_registered(&self) {
        let start = Instant::now();
        while self.log().matches("registered with the kubelet").count() < self.started {
            assert!(start.elapsed() < PATIENCE, "{}\n{}", self.log(), self.node.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let devices: Vec<_> = (0..GPUS).map(|index| json!({ "name": format!("gpu-{index}") })).collect();
        let slice = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": { "name": "node-1-gpus" },
            "spec": {
                "driver": dra::DRIVER, "nodeName": NODE, "devices": devices,
                "pool": { "name": MACHINE, "generation": 1, "resourceSliceCount": 1 },
            },
        });
        self.create(&slice).await;
    }

    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        self.plane.kubectl(arguments, None).await.unwrap().success().unwrap()
    }

    pub(crate) async fn create(&self, object: &Value) {
        self.plane.apply(object).await.unwrap();
    }

    pub(crate) async fn object(&self, kind: &str, name: &str) -> Value {
        self.plane.object(kind, name).await.unwrap()
    }

    /// Waits until an object is so, and gives it.
    pub(crate) async fn until(&self, kind: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = self.plane.until(kind, name, wanted).await;
        found.unwrap_or_else(|error| panic!("{error}\n{}\n{}", self.log(), self.node.log()))
    }

    pub(crate) async fn until_running(&self, pod: &str) -> Value {
        self.until("pod", pod, |pod| pod["status"]["phase"] == "Running").await
    }

    /// Waits until an event about this object says so.
    pub(crate) async fn until_told(&self, name: &str, what: &str) -> String {
        let told = self.plane.until_told(name, what).await;
        told.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Deletes a pod, and waits until it is gone: its containers ended, its claims given back.
    pub(crate) async fn delete_pod(&self, pod: &str) {
        self.kubectl(&["delete", "pod", pod, "--wait=false"]).await;
        self.until("pod", pod, Value::is_null).await;
    }

    /// What the container of a pod printed, once it has printed `end`.
    pub(crate) async fn output(&self, pod: &Value) -> Vec<String> {
        self.node.output(pod).await.unwrap()
    }

    /// CDI specifications of claims.
    pub(crate) fn specifications(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.node.cdi_dir()).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// What a driver container has: the library where Debian keeps it, device nodes, `nvidia-smi` with the shell that this one needs.
fn install_driver(at: &Path) -> Installed {
    let library = at.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    for directory in [library.clone(), at.join("usr/bin"), at.join("dev")] {
        std::fs::create_dir_all(directory).unwrap();
    }
    testbed::make_gpu_files(&at.join("dev"), GPUS).unwrap();
    root::install(at, "/bin/sh");
    // It writes beside itself what it is asked.
    let script = "#!/bin/sh\necho \"$@\" >>\"${0%/*}/asked\"\n";
    root::write_program(&at.join("usr/bin/nvidia-smi"), script);
    Installed::into(&library, &described()).unwrap()
}

/// A pod that asks for some GPUs by extended resource, prints those that it sees and waits.
pub(crate) fn pod(name: &str, gpus: usize) -> Value {
    let command = "env | grep BAILIWICK_ | sort; ls /dev | grep nvidia; echo end; \
        trap 'exit 0' TERM; while :; do sleep 1; done";
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", command],
                "resources": { "limits": { "gpu.bailiwick.dev/any": gpus } },
            }],
        },
    })
}

/// A claim for one GPU.
pub(crate) fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "devices": { "requests": [{ "name": "gpu", "exactly": { "deviceClassName": "gpu" } }] } },
    })
}

/// The same pod, with the GPU of the claim of its name.
pub(crate) fn pod_of_claim(name: &str) -> Value {
    let mut pod = pod(name, 0);
    pod["spec"]["resourceClaims"] = json!([{ "name": name, "resourceClaimName": name }]);
    pod["spec"]["containers"][0]["resources"] = json!({ "claims": [{ "name": name }] });
    pod
}
