//! One node of a real cluster with GPUs that are device files, and the plugin on it.

use bailiwick_dra::DRIVER;
use bailiwick_dra::plugin::wire::HealthStatus;
use bailiwick_dra::plugin::{
    Access, ApiServer, Begin, Credential, DeviceNode, Gate, Health, HeldDevice, Made, NotMade, Partition,
    Parts, Permitted, PermittedDevice, Placed, Plugin, Preparer, PreparerOptions, Refusal, RegistrationState,
    Scrub, Scrubbed,
};
use domain::agent::ScrubMethod;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use testbed::{ControlPlane, Node, NodeOptions};
use tokio::sync::watch;

/// Generous: the machine may be compiling at the same time.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
pub(crate) const NODE: &str = "node-1";
pub(crate) const POOL: &str = "node-1";
pub(crate) const CLASS: &str = "gpu";
pub(crate) const EXTENDED: &str = "gpu.bailiwick.dev/any";
const BOOT_ID: &str = "11111111-2222-3333-4444-555555555555";

/// The name of a device in its pool.
pub(crate) fn device(index: usize) -> String {
    format!("gpu-{index:016x}")
}

/// The UUID that NVML would give.
pub(crate) fn uuid(index: usize) -> String {
    format!("GPU-00000000-0000-0000-0000-{index:012}")
}

/// Permits that a test gives and takes; what is in `without` has none.
pub(crate) struct Permits {
    dev: PathBuf,
    gpus: usize,
    pub(crate) without: Mutex<BTreeMap<String, Refusal>>,
}

impl Gate for Permits {
    fn permit(&self, pool: &str, name: &str) -> Result<PermittedDevice, Refusal> {
        if let Some(refusal) = self.without.lock().unwrap().get(name) {
            return Err(refusal.clone());
        }
        let unknown = || Refusal::DeviceUnknown { pool: pool.to_owned(), device: name.to_owned() };
        let index =
            (0..self.gpus).find(|index| device(*index) == name && pool == POOL).ok_or_else(unknown)?;
        let node = |name: &str| DeviceNode {
            path: format!("/dev/{name}"),
            host_path: Some(self.dev.join(name).display().to_string()),
        };
        Ok(PermittedDevice {
            gpu: uuid(index),
            extent: Permitted::Whole(Access::Nodes(vec![node(&format!("nvidia{index}")), node("nvidiactl")])),
        })
    }
}

/// These GPUs are handed out whole.
impl Parts for Permits {
    fn make<'a>(
        &'a self,
        gpu: &'a str,
        _: &'a Partition,
        _: &'a [Placed],
        _: Begin,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Made, NotMade>> + Send + 'a>> {
        Box::pin(async move { Err(format!("{gpu} has no MIG mode").into()) })
    }
}

/// Remembers what it scrubbed; fails for devices that a test names.
#[derive(Default)]
pub(crate) struct Scrubber {
    pub(crate) stuck: Mutex<BTreeSet<String>>,
    pub(crate) done: Mutex<Vec<String>>,
}

impl Scrub for Scrubber {
    fn scrub<'a>(&'a self, device: &'a HeldDevice) -> Answer<'a, Scrubbed> {
        let outcome = if self.stuck.lock().unwrap().contains(&device.device) {
            Err(format!("a process still uses {}", device.device))
        } else {
            self.done.lock().unwrap().push(device.device.clone());
            Ok(())
        };
        let method = ScrubMethod::Reset;
        Box::pin(async move { Scrubbed { method, ecc_before: None, ecc_after: None, outcome } })
    }

    fn scrub_rest<'a>(&'a self, gpu: &'a str, _: &'a [Placed]) -> Answer<'a, Scrubbed> {
        let (method, outcome) = (ScrubMethod::Reset, Err(format!("{gpu} is not to be scrubbed here")));
        Box::pin(async move { Scrubbed { method, ecc_before: None, ecc_after: None, outcome } })
    }

    fn gpus(&self) -> Answer<'_, Result<Vec<String>, String>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

type Answer<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A cluster of one node with some GPUs, with a class of our devices and a slice that an administrator wrote.
pub(crate) struct Stage {
    // Dropped in this order: clients before what they talk to.
    pub(crate) node: Node,
    pub(crate) plane: ControlPlane,
    pub(crate) permits: Arc<Permits>,
    pub(crate) scrubber: Arc<Scrubber>,
    pub(crate) health: watch::Sender<Vec<Health>>,
    _files: TempDir,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        Self::with(4).await
    }

    pub(crate) async fn with(gpus: usize) -> Self {
        let plane = ControlPlane::options().node_lifecycle(true).start().await.unwrap();
        // The controller manager approves what an administrator asks for by itself.
        let admin = std::fs::read_to_string(plane.kubeconfig_admin()).unwrap();
        let configuration = "{ apiVersion: kubelet.config.k8s.io/v1beta1, kind: KubeletConfiguration }";
        let mut node = NodeOptions::new(NODE, &admin, configuration).start(&plane).await.unwrap();
        node.wait_until_ready(&plane).await.unwrap();
        let files = tempfile::tempdir().unwrap();
        testbed::make_gpu_files(files.path(), gpus).unwrap();
        let stage = Self {
            node,
            plane,
            permits: Arc::new(Permits { dev: files.path().to_owned(), gpus, without: Mutex::default() }),
            scrubber: Arc::default(),
            health: watch::Sender::new((0..gpus).map(|at| health(at, HealthStatus::Healthy, "")).collect()),
            _files: files,
        };
        let role = testbed::repository_root().join("manifests/agent/clusterrole.yaml");
        stage.kubectl(&["apply", "-f", role.to_str().unwrap()]).await;
        let agent =
            ["create", "clusterrolebinding", "agent", "--clusterrole=bailiwick-agent", "--user=agent"];
        stage.kubectl(&agent).await;
        stage.create(&class()).await;
        stage
    }

    /// A preparer, as the agent of this node has it after a boot.
    pub(crate) fn preparer(&self) -> Arc<Preparer> {
        self.preparer_in_boot(BOOT_ID)
    }

    pub(crate) fn preparer_in_boot(&self, boot_id: &str) -> Arc<Preparer> {
        let kubeconfig = self.plane.kubeconfig_for("agent", &[]).unwrap();
        let options = PreparerOptions {
            state_dir: self.state_dir(),
            cdi_dir: self.node.cdi_dir(),
            boot_id: Some(boot_id.to_owned()),
            patience: Duration::from_secs(40),
            lock_patience: Duration::from_secs(10),
        };
        let api_server = Arc::new(api_server(&kubeconfig));
        let (gate, parts) = (self.permits.clone(), self.permits.clone());
        Preparer::new(&options, api_server, gate, parts, self.scrubber.clone()).unwrap()
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.node.kubelet_dir().join("plugins").join(DRIVER)
    }

    /// A plugin that is not registered.
    pub(crate) fn plugin(&self, instance: &str) -> Plugin {
        self.plugin_of(instance, self.preparer())
    }

    pub(crate) fn plugin_of(&self, instance: &str, preparer: Arc<Preparer>) -> Plugin {
        Plugin::start(&self.node.kubelet_dir(), instance, preparer, self.health.subscribe()).unwrap()
    }

    /// A plugin that is registered, and slices: the kubelet wipes those that are there before.
    pub(crate) async fn registered(&self, instance: &str) -> Plugin {
        let mut plugin = self.plugin(instance);
        plugin.registration().open().unwrap();
        self.until_registered(&mut plugin).await;
        self.publish().await;
        plugin
    }

    /// The same with its preparer, for tests that look into it.
    pub(crate) async fn working(&self) -> (Arc<Preparer>, Plugin) {
        let preparer = self.preparer();
        let mut plugin = self.plugin_of("gpu", preparer.clone());
        plugin.registration().open().unwrap();
        self.until_registered(&mut plugin).await;
        self.publish().await;
        (preparer, plugin)
    }

    pub(crate) async fn until_registered(&self, plugin: &mut Plugin) {
        let mut state = plugin.registration().state();
        let registered = state.wait_for(|state| matches!(state, RegistrationState::Registered(_)));
        let answer = tokio::time::timeout(PATIENCE, registered).await.map(drop);
        assert!(answer.is_ok(), "{:?}\n{}", *plugin.registration().state().borrow(), self.node.log());
    }

    /// The slice of this node's GPUs.
    pub(crate) async fn publish(&self) {
        let devices: Vec<_> = (0..self.permits.gpus).map(|index| json!({ "name": device(index) })).collect();
        let slice = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": { "name": "node-1-gpus" },
            "spec": {
                "driver": DRIVER, "nodeName": NODE, "devices": devices,
                "pool": { "name": POOL, "generation": 1, "resourceSliceCount": 1 },
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

    /// Waits until an object is so, and gives it; fails with what it was last, its events and the kubelet's log.
    pub(crate) async fn until(&self, kind: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = self.plane.until(kind, name, wanted).await;
        found.unwrap_or_else(|error| panic!("{error}\n{}", self.node.log()))
    }

    /// Waits until an event about this object says so.
    pub(crate) async fn until_told(&self, name: &str, what: &str) -> String {
        let told = self.plane.until_told(name, what).await;
        told.unwrap_or_else(|error| panic!("{error}\n{}", self.node.log()))
    }

    pub(crate) async fn until_running(&self, pod: &str) -> Value {
        self.until("pod", pod, |pod| pod["status"]["phase"] == "Running").await
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

    /// The CDI specification of a claim.
    pub(crate) fn specification(&self, uid: &str) -> String {
        let path = self.node.cdi_dir().join(format!("{DRIVER}-claim_{uid}.json"));
        std::fs::read_to_string(path).unwrap()
    }

    /// CDI specifications of claims.
    pub(crate) fn specifications(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.node.cdi_dir()).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// The client that the agent uses, with what a kubeconfig says.
fn api_server(kubeconfig: &Path) -> ApiServer {
    use base64::Engine as _;
    let config: Value = serde_json::from_str(&std::fs::read_to_string(kubeconfig).unwrap()).unwrap();
    let decoded =
        |value: &Value| base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap();
    let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
    let credential = Credential::Certificate {
        certificate: decoded(&user["client-certificate-data"]),
        key: decoded(&user["client-key-data"]),
    };
    let ca = decoded(&cluster["certificate-authority-data"]);
    ApiServer::new(cluster["server"].as_str().unwrap(), &ca, credential).unwrap()
}

pub(crate) fn health(index: usize, status: HealthStatus, message: &str) -> Health {
    Health {
        pool: POOL.to_owned(),
        device: device(index),
        status,
        taken: SystemTime::now(),
        timeout: Duration::from_mins(10),
        message: message.to_owned(),
    }
}

fn class() -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": { "name": CLASS },
        "spec": {
            "extendedResourceName": EXTENDED,
            "selectors": [{ "cel": { "expression": format!("device.driver == '{DRIVER}'") } }],
        },
    })
}

/// A claim for some devices of the class.
pub(crate) fn claim(name: &str, count: usize) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "devices": { "requests": [
            { "name": "gpu", "exactly": { "deviceClassName": CLASS, "count": count } },
        ] } },
    })
}

/// A pod with these claims, which prints the GPUs that it sees and waits.
pub(crate) fn pod(name: &str, claims: &[&str]) -> Value {
    let named: Vec<_> =
        claims.iter().map(|claim| json!({ "name": claim, "resourceClaimName": claim })).collect();
    let used: Vec<_> = claims.iter().map(|claim| json!({ "name": claim })).collect();
    let command = "env | grep BAILIWICK_ | sort; ls /dev | grep nvidia; echo end; \
        trap 'exit 0' TERM; while :; do sleep 1; done";
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "resourceClaims": named,
            "containers": [{
                "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", command], "resources": { "claims": used },
            }],
        },
    })
}
