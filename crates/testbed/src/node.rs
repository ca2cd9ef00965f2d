//! A real node: kubelet, containerd and runc, in process and mount namespaces of their own, so that
//! containers and mounts go with them, however the test ends. Their files are in one temporary directory,
//! which has the same path inside and outside; several nodes may run at the same time. Inside, `/etc`, `/run`
//! and `/var/lib` are the node's own, so that everything on it has its usual place.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Signal, geteuid};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::https::free_port;
use crate::kubectl::{run, write_private};
use crate::process::{Process, Program};
use crate::{ControlPlane, Error, Part};

const INIT: &str = include_str!("node.sh");
const START_WITHIN: Duration = Duration::from_mins(2);
const READY_WITHIN: Duration = Duration::from_mins(2);

/// What a [`Node`] is started with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    name: String,
    bootstrap_kubeconfig: String,
    kubelet_configuration: String,
    system_uuid: Option<String>,
    mounts: Vec<(PathBuf, PathBuf)>,
    arguments: Vec<String>,
}

impl NodeOptions {
    /// A node of this name; what its kubelet finds on the machine: a kubeconfig to bootstrap from, and a
    /// `KubeletConfiguration`, each as YAML or JSON.
    pub fn new(name: &str, bootstrap_kubeconfig: &str, kubelet_configuration: &str) -> Self {
        Self {
            name: name.to_owned(),
            bootstrap_kubeconfig: bootstrap_kubeconfig.to_owned(),
            kubelet_configuration: kubelet_configuration.to_owned(),
            system_uuid: None,
            mounts: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// The system UUID that the kubelet finds on its machine; that of the real machine unless told
    /// otherwise.
    #[must_use]
    pub fn system_uuid(mut self, uuid: &str) -> Self {
        self.system_uuid = Some(uuid.to_owned());
        self
    }

    /// Shows a directory of the real machine at another place of the node, below `/etc`, `/run` or `/var/lib`.
    #[must_use]
    pub fn mount(mut self, directory: &Path, at: &Path) -> Self {
        self.mounts.push((directory.to_owned(), at.to_owned()));
        self
    }

    /// One more argument of the kubelet, `--node-labels=…`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts containerd and then the kubelet. Whether that one is let in, and when, is seen in the control
    /// plane.
    pub async fn start(self, control_plane: &ControlPlane) -> Result<Node, Error> {
        if !geteuid().is_root() {
            return Err(Error::NeedsRoot("a node"));
        }
        let part = Part::Node.directory().await?;
        let kubernetes = Part::Kubernetes.programs().await?;
        let directory = tempfile::Builder::new()
            // Short: sockets below it have at most 107 bytes.
            .prefix("node-")
            .tempdir()
            .map_err(Error::file("make", "a temporary directory"))?;
        let here = directory.path();
        let port = free_port()?;
        write_files(here, &part, port)?;
        write_private(&here.join("ca.pem"), control_plane.ca_pem())?;
        write_private(&here.join("bootstrap.kubeconfig"), &self.bootstrap_kubeconfig)?;
        let configuration = in_sandbox(&self.kubelet_configuration, here, port)?;
        write_private(&here.join("kubelet.json"), &configuration.to_string())?;

        let process = self.boot(here, &part, &kubernetes).await?;
        Ok(Node { process: Some(process), options: self, directory })
    }

    /// Starts the programs of a machine with these files.
    async fn boot(&self, directory: &Path, part: &Path, kubernetes: &Path) -> Result<Process, Error> {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{}:{path}", part.join("bin").display(), kubernetes.display());
        let mut process = Process::start(Program {
            name: "node",
            path: "unshare".into(),
            arguments: self.command(directory, part),
            environment: vec![("PATH", path)],
            directory,
            user: None,
            // Ends process 1 of the namespaces; the kernel ends the others before that is gone.
            stop: Signal::TERM,
        })?;
        let started = directory.join("started");
        process.wait_until(START_WITHIN, async || started.exists()).await?;
        Ok(process)
    }

    fn command(&self, directory: &Path, part: &Path) -> Vec<String> {
        let namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
        let part = part.display().to_string();
        let uuid = self.system_uuid.as_deref().unwrap_or_default();
        let mut command: Vec<String> = namespaces.map(str::to_owned).to_vec();
        command.extend(["sh", "-c", INIT, "node", &part, uuid].map(str::to_owned));
        let mounts = self.mounts.iter().flat_map(|(directory, at)| [directory, at]);
        command.extend(mounts.map(|path| path.display().to_string()));
        command.extend([
            "--".to_owned(),
            format!("--hostname-override={}", self.name),
            format!("--cert-dir={}", directory.join("pki").display()),
            "--config=kubelet.json".to_owned(),
            "--kubeconfig=kubelet.kubeconfig".to_owned(),
            "--bootstrap-kubeconfig=bootstrap.kubeconfig".to_owned(),
        ]);
        command.extend(self.arguments.iter().cloned());
        command
    }
}

/// A running node. Dropping it ends its kubelet and all its containers; the `Node` object and its pods
/// stay in the control plane, as when a machine loses power.
#[derive(Debug)]
pub struct Node {
    // `None` only while it is dropped or off.
    process: Option<Process>,
    options: NodeOptions,
    directory: TempDir,
}

impl Node {
    /// The name under which it registers.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// What the node has as `/var/lib`.
    pub fn var_lib(&self) -> PathBuf {
        self.directory.path().join("lib")
    }

    /// What the node has as `/etc`: a copy of the real machine's.
    pub fn etc(&self) -> PathBuf {
        self.directory.path().join("etc")
    }

    /// The kubelet's directory, on the node `/var/lib/kubelet`: plugins register in `plugins_registry` below it.
    pub fn kubelet_dir(&self) -> PathBuf {
        self.var_lib().join("kubelet")
    }

    /// Where containerd looks for CDI specifications, beside `/etc/cdi`; on the node `/run/cdi`.
    pub fn cdi_dir(&self) -> PathBuf {
        self.directory.path().join("cdi")
    }

    /// Where the logs of containers are: `NAMESPACE_POD_UID/CONTAINER/0.log`.
    pub fn pod_logs_dir(&self) -> PathBuf {
        self.directory.path().join("pod-logs")
    }

    /// The kubelet's log so far.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }

    /// A command that runs what it is given on the node: it sees the node's files and processes. It ends with the node.
    pub fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        // `unshare` is in the node's mount namespace itself; its children alone are in that of processes.
        if let Some(pid) = self.process.as_ref().map(Process::id) {
            let namespace = |name: &str| format!("/proc/{pid}/ns/{name}");
            command.arg(format!("--mount={}", namespace("mnt")));
            command.arg(format!("--pid={}", namespace("pid_for_children")));
        }
        command.arg("--");
        command
    }

    /// Gives containerd an image: an OCI image layout as a tar. Pods use it with `imagePullPolicy: Never`.
    pub async fn import(&self, image: &Path) -> Result<(), Error> {
        let ctr = Part::Node.programs().await?.join("ctr");
        let address = self.directory.path().join("containerd.sock").display().to_string();
        let image = image.display().to_string();
        let import = ["--address", &address, "--namespace", "k8s.io", "images", "import", "--local"];
        let arguments = [&import[..], &["--snapshotter", "native", &image]].concat();
        run(None, &ctr, &arguments, self.directory.path(), None).await?.success()?;
        Ok(())
    }

    /// Kills the kubelet, and starts another; containers live on. Returns when the old one is dead.
    pub async fn restart_kubelet(&self) -> Result<(), Error> {
        let here = self.directory.path();
        let pid = here.join("kubelet.pid");
        let dead = std::fs::read(&pid).map_err(Error::file("read", &pid))?;
        self.signal_kubelet("KILL").await?;
        let process = self.process.as_ref();
        while process.is_some() && std::fs::read(&pid).is_ok_and(|now| now == dead) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Stops the kubelet in the middle of whatever it does; containers live on.
    pub async fn freeze_kubelet(&self) -> Result<(), Error> {
        self.signal_kubelet("STOP").await
    }

    /// A kubelet that was frozen goes on.
    pub async fn thaw_kubelet(&self) -> Result<(), Error> {
        self.signal_kubelet("CONT").await
    }

    async fn signal_kubelet(&self, signal: &str) -> Result<(), Error> {
        let control = self.directory.path().join("control");
        tokio::fs::write(&control, format!("{signal}\n")).await.map_err(Error::file("write", &control))
    }

    /// Cuts the power and boots again: all processes are gone, and what is in memory on a real machine, the
    /// state of containerd and CDI specifications.
    pub async fn reboot(&mut self) -> Result<(), Error> {
        self.power_off();
        let here = self.directory.path();
        for name in ["containerd-state", "cdi", "started", "again", "control"] {
            let path = here.join(name);
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", &path)(error));
                }
                _ => {}
            }
        }
        let cdi = self.cdi_dir();
        std::fs::create_dir(&cdi).map_err(Error::file("make", &cdi))?;
        let (part, kubernetes) = (Part::Node.directory().await?, Part::Kubernetes.programs().await?);
        self.process = Some(self.options.boot(here, &part, &kubernetes).await?);
        Ok(())
    }

    /// Waits until the control plane has the node and says that it is ready; fails as soon as the kubelet
    /// ends. Somebody must approve its certificate meanwhile.
    pub async fn wait_until_ready(&mut self, control_plane: &ControlPlane) -> Result<(), Error> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let name = &self.options.name;
        let is_ready = async || {
            let node = control_plane.object("node", name).await.unwrap_or_default();
            let conditions = node["status"]["conditions"].as_array();
            conditions
                .is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
        };
        process.wait_until(READY_WITHIN, is_ready).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.power_off();
    }
}

impl Node {
    fn power_off(&mut self) {
        // Named before the files go; a cgroup can be removed once its processes are gone.
        let tasks = self.directory.path().join("containerd-state/io.containerd.runtime.v2.task/k8s.io");
        let containers: Vec<_> = entries(&tasks).collect();
        self.process = None;
        // cgroup v1 has one hierarchy for each controller, v2 a single one.
        let hierarchies = Path::new("/sys/fs/cgroup");
        for hierarchy in entries(hierarchies).chain([hierarchies.to_path_buf()]) {
            for container in &containers {
                let Some(name) = container.file_name() else { continue };
                let _ = std::fs::remove_dir(hierarchy.join("k8s.io").join(name));
            }
        }
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

/// What the caller wants of the kubelet, with what differs where it does not own its machine: no cgroups
/// above its containers, swap, version 1 of cgroups; its own files and sockets, and no port but one.
fn in_sandbox(configuration: &str, directory: &Path, port: u16) -> Result<Value, Error> {
    let path = |name: &str| directory.join(name).display().to_string();
    let mut configuration: Value = serde_saphyr::from_str(configuration)
        .map_err(|error| Error::KubeletConfiguration(error.to_string()))?;
    let Some(fields) = configuration.as_object_mut() else {
        return Err(Error::KubeletConfiguration("it is no mapping".to_owned()));
    };
    for (name, value) in [
        ("failCgroupV1", json!(false)),
        ("cgroupDriver", json!("cgroupfs")),
        ("cgroupsPerQOS", json!(false)),
        ("enforceNodeAllocatable", json!([])),
        ("localStorageCapacityIsolation", json!(false)),
        ("failSwapOn", json!(false)),
        ("containerRuntimeEndpoint", json!(format!("unix://{}", path("containerd.sock")))),
        ("podLogsDir", json!(path("pod-logs"))),
        ("volumePluginDir", json!(path("volume-plugins"))),
        // What /etc/resolv.conf is a link to may be hidden.
        ("resolvConf", json!("")),
        ("address", json!("127.0.0.1")),
        ("port", json!(port)),
        ("healthzPort", json!(0)),
        ("readOnlyPort", json!(0)),
    ] {
        fields.insert(name.to_owned(), value);
    }
    // A file that provisioning writes beside the configuration.
    if let Some(file) = configuration.pointer_mut("/authentication/x509/clientCAFile") {
        *file = json!(path("ca.pem"));
    }
    Ok(configuration)
}

/// Directories, the configuration of containerd (version 3 of its format), and a network for pods.
fn write_files(directory: &Path, part: &Path, port: u16) -> Result<(), Error> {
    for name in ["lib/kubelet", "cdi", "cni"] {
        let path = directory.join(name);
        std::fs::create_dir_all(&path).map_err(Error::file("make", &path))?;
    }
    let here = directory.display();
    let part = part.display();
    // Snapshots are copies: overlays do not work upon overlays, and the images are small. Without
    // restrict_oom_score_adj no sandbox starts where CAP_SYS_RESOURCE is missing.
    let containerd = format!(
        "version = 3
root = '{here}/containerd'
state = '{here}/containerd-state'
imports = []
disabled_plugins = ['io.containerd.internal.v1.opt', 'io.containerd.nri.v1.nri']
[grpc]
  address = '{here}/containerd.sock'
[ttrpc]
  address = '{here}/containerd.sock.ttrpc'
[plugins.'io.containerd.cri.v1.runtime']
  cdi_spec_dirs = ['/etc/cdi', '/run/cdi']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['{part}/cni']
    conf_dir = '{here}/cni'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = '{part}/bin/runc'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'native'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = 'localhost/pause:1'
"
    );
    write_private(&directory.join("containerd.toml"), &containerd)?;
    // The kubelet's port is nobody else's, and so is a network made of its two bytes.
    let [high, low] = port.to_be_bytes();
    let network = json!({ "cniVersion": "1.0.0", "name": "testbed", "plugins": [{
        "type": "ptp",
        "ipam": {
            "type": "host-local",
            "ranges": [[{ "subnet": format!("10.{high}.{low}.0/24") }]],
            "dataDir": directory.join("networks"),
        },
    }]});
    write_private(&directory.join("cni/10-testbed.conflist"), &network.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_wants_stays_and_what_a_sandbox_cannot_do_is_changed() {
        let given = "kind: KubeletConfiguration
registerWithTaints: [{key: example, effect: NoSchedule}]
cgroupsPerQOS: true
authentication: {x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}
";
        let written = in_sandbox(given, Path::new("/tmp/n"), 40000).unwrap();
        assert_eq!(written["registerWithTaints"], json!([{ "key": "example", "effect": "NoSchedule" }]));
        assert_eq!(written["cgroupsPerQOS"], false);
        assert_eq!(written["authentication"]["x509"]["clientCAFile"], "/tmp/n/ca.pem");
    }

    #[test]
    fn a_configuration_that_is_no_mapping_is_refused() {
        let refused = in_sandbox("- a list", Path::new("/tmp/n"), 40000).unwrap_err();
        assert_eq!(refused.code(), "testbed.kubelet-configuration");
    }
}
