//! A Kubernetes control plane: etcd, API server, scheduler and controller manager, with no nodes but
//! those that a test makes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::https::{Client, on_free_port};
use crate::kubectl::{run, write_kubeconfig, write_private};
use crate::pki::Authority;
use crate::process::{Process, Program};
use crate::shared::Shared;
use crate::{Error, Output, Part};

/// Off by default in 1.36, and wanted by the taint rules on all three programs.
const FEATURE_GATES: &str = "--feature-gates=DRADeviceTaintRules=true";
/// Generous: the machine may be compiling at the same time.
const START_WITHIN: Duration = Duration::from_mins(2);

/// Which programs a [`ControlPlane`] runs beside etcd and the API server. All, unless told otherwise.
#[derive(Clone, Copy, Debug)]
pub struct ControlPlaneOptions {
    scheduler: bool,
    controller_manager: bool,
    node_lifecycle: bool,
    without: Option<&'static str>,
}

impl Default for ControlPlaneOptions {
    fn default() -> Self {
        Self { scheduler: true, controller_manager: true, node_lifecycle: false, without: None }
    }
}

impl ControlPlaneOptions {
    /// Whether pods and claims are scheduled.
    #[must_use]
    pub fn scheduler(mut self, wanted: bool) -> Self {
        self.scheduler = wanted;
        self
    }

    /// Whether controllers run: service accounts, claims from templates, garbage collection, eviction by
    /// device taints. Without service accounts no pod can be created.
    #[must_use]
    pub fn controller_manager(mut self, wanted: bool) -> Self {
        self.controller_manager = wanted;
        self
    }

    /// Whether a controller watches the heartbeats of nodes: it lifts the taints that admission sets on
    /// every new one, and sets them again on one that falls silent. Off unless told otherwise, for the
    /// nodes of [`ControlPlane::create_node`] have no kubelet; a real [`Node`](crate::Node) wants it.
    #[must_use]
    pub fn node_lifecycle(mut self, wanted: bool) -> Self {
        self.node_lifecycle = wanted;
        self
    }

    /// The API server has this feature gate off, which is on by default: it drops the gate's fields silently.
    #[must_use]
    pub fn without(mut self, gate: &'static str) -> Self {
        self.without = Some(gate);
        self
    }

    /// Starts the control plane and waits until its API server is ready.
    pub async fn start(self) -> Result<ControlPlane, Error> {
        let etcd = Part::Etcd.programs().await?.join("etcd");
        let programs = Part::Kubernetes.programs().await?;
        let directory = tempfile::Builder::new()
            .prefix("bailiwick-kubernetes-")
            .tempdir()
            .map_err(Error::file("make", "a temporary directory"))?;
        let here = directory.path();
        let authority = Authority::new("bailiwick-testbed")?;
        write_keys(here, &authority)?;

        let etcd = start_etcd(etcd, here).await?;
        let client = administrator(&authority)?;
        let (server, port) =
            on_free_port(async |port| start_api_server(&programs, here, port, self.without, &client).await)
                .await?;
        let server_url = format!("https://127.0.0.1:{port}");
        let authority_pem = authority.certificate_pem();
        let admin = authority.client("bailiwick-testbed-admin", &["system:masters"])?;
        let kubeconfig_admin =
            write_kubeconfig(&here.join("admin.kubeconfig"), &server_url, &authority_pem, &admin)?;

        let mut control_plane = ControlPlane {
            others: Vec::new(),
            server: Some(server),
            client,
            _etcd: etcd,
            programs: programs.clone(),
            port,
            without: self.without,
            kubeconfig_admin,
            server_url,
            authority,
            authority_pem,
            issued: AtomicU32::new(0),
            directory,
        };
        // Both start at once; each has done something visible when it is ready.
        let mut awaited = Vec::new();
        if self.controller_manager {
            // Without this account no pod can be created.
            awaited.push((
                control_plane.controller_manager(&programs, self.node_lifecycle)?,
                "/api/v1/namespaces/default/serviceaccounts/default",
            ));
        }
        if self.scheduler {
            // Taken once all its caches are filled.
            let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler";
            awaited.push((control_plane.scheduler(&programs)?, lease));
        }
        for (mut process, evidence) in awaited {
            let is_there = async || control_plane.client.answers(port, evidence).await;
            process.wait_until(START_WITHIN, is_there).await?;
            control_plane.others.push(process);
        }
        Ok(control_plane)
    }
}

/// A running control plane; dropping it ends all its programs and removes their files.
#[derive(Debug)]
pub struct ControlPlane {
    // Dropped in this order: clients before what they talk to, files last.
    others: Vec<Process>,
    // `None` while it is killed.
    server: Option<Process>,
    client: Client,
    _etcd: Process,
    programs: PathBuf,
    port: u16,
    without: Option<&'static str>,
    kubeconfig_admin: PathBuf,
    server_url: String,
    authority: Authority,
    authority_pem: String,
    issued: AtomicU32,
    directory: TempDir,
}

impl ControlPlane {
    /// Starts a control plane with everything in it.
    pub async fn start() -> Result<Self, Error> {
        Self::options().start().await
    }

    /// To start one with less in it.
    pub fn options() -> ControlPlaneOptions {
        ControlPlaneOptions::default()
    }

    /// The control plane that all tests of this process which run at the same time use together. Names in
    /// it must be each test's own.
    pub async fn shared() -> Result<Arc<Self>, Error> {
        static SHARED: Shared<ControlPlane> = Shared::new();
        SHARED.get(Self::start()).await
    }

    /// The address of the API server, with scheme and port.
    pub fn server_url(&self) -> &str {
        &self.server_url
    }

    /// The certificate that signed the API server's and all clients' certificates.
    pub fn ca_pem(&self) -> &str {
        &self.authority_pem
    }

    /// A kubeconfig for a member of `system:masters`, whom no authorisation stops.
    pub fn kubeconfig_admin(&self) -> &Path {
        &self.kubeconfig_admin
    }

    /// Issues a client certificate for any user in at most two groups, and returns a kubeconfig with it:
    /// `("system:node:n1", &["system:nodes"])` is the kubelet of node `n1`.
    pub fn kubeconfig_for(&self, user: &str, groups: &[&str]) -> Result<PathBuf, Error> {
        let identity = self.authority.client(user, groups)?;
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.path().join(format!("client-{number}.kubeconfig"));
        write_kubeconfig(&path, &self.server_url, &self.authority_pem, &identity)
    }

    /// Runs kubectl as the administrator.
    pub async fn kubectl(&self, arguments: &[&str], stdin: Option<&str>) -> Result<Output, Error> {
        self.kubectl_as(&self.kubeconfig_admin, arguments, stdin).await
    }

    /// Runs kubectl with this kubeconfig.
    pub async fn kubectl_as(
        &self,
        kubeconfig: &Path,
        arguments: &[&str],
        stdin: Option<&str>,
    ) -> Result<Output, Error> {
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        let arguments: Vec<&str> =
            std::iter::once(kubeconfig.as_str()).chain(arguments.iter().copied()).collect();
        run(None, &self.programs.join("kubectl"), &arguments, self.directory.path(), stdin).await
    }

    /// What the API server has at this path, as the administrator sees it; `null` where there is nothing. For what is asked again and
    /// again: a kubectl takes a third of a second of processor.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.client.document(&format!("{}{path}", self.server_url)).await
    }

    /// Makes a Node that is ready and has this system UUID, as its kubelet would report it; there is no
    /// kubelet, so pods that are scheduled to it never run.
    pub async fn create_node(&self, name: &str, system_uuid: &str) -> Result<(), Error> {
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": {
            "kubernetes.io/hostname": name,
        }}});
        self.kubectl(&["create", "-f", "-"], Some(&node.to_string())).await?.success()?;
        let resources = json!({ "cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi" });
        let status = json!({ "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [{ "type": "Ready", "status": "True", "reason": "Testbed", "message": "made by a test" }],
            "nodeInfo": { "systemUUID": system_uuid, "machineID": "", "bootID": "", "kernelVersion": "", "osImage": "",
                "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "", "operatingSystem": "linux",
                "architecture": "amd64" },
        }});
        let patch = ["patch", "node", name, "--subresource=status", "--type=merge", "-p"];
        self.kubectl(&[&patch[..], &[&status.to_string()]].concat(), None).await?.success()?;
        // Admission taints every new Node; the controller that would lift it is off (see below).
        let untaint = r#"{"spec":{"taints":null}}"#;
        self.kubectl(&["patch", "node", name, "--type=merge", "-p", untaint], None).await?.success()?;
        Ok(())
    }

    /// Kills the API server, as a power cut would; what it stored stays. Nothing answers at its address
    /// until [`start_api_server_again`](Self::start_api_server_again). The scheduler ends by itself when
    /// that takes more than 10 seconds; the controller manager waits.
    pub fn kill_api_server(&mut self) {
        self.server = None;
    }

    /// Starts the API server at its address again, after [`kill_api_server`](Self::kill_api_server).
    pub async fn start_api_server_again(&mut self) -> Result<(), Error> {
        self.kill_api_server();
        let started =
            start_api_server(&self.programs, self.directory.path(), self.port, self.without, &self.client);
        self.server = Some(started.await?);
        Ok(())
    }

    /// Applies all definitions of resources in this folder, and waits until the API server serves them.
    pub async fn apply_crds(&self, folder: &Path) -> Result<(), Error> {
        let folder = folder.display().to_string();
        // Some are too large for the annotation that a client-side apply leaves.
        let apply = ["apply", "--server-side", "--output=name", "--filename", &folder];
        let applied = self.kubectl(&apply, None).await?.success()?;
        let mut wait = vec!["wait", "--for=condition=Established", "--timeout=60s"];
        wait.extend(applied.lines());
        self.kubectl(&wait, None).await?.success()?;
        Ok(())
    }

    /// Makes this namespace if it is not there.
    pub async fn create_namespace(&self, name: &str) -> Result<(), Error> {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        let apply = ["apply", "--server-side", "--filename=-"];
        self.kubectl(&apply, Some(&namespace.to_string())).await?.success()?;
        Ok(())
    }

    fn controller_manager(&self, programs: &Path, node_lifecycle: bool) -> Result<Process, Error> {
        let kubeconfig = self.kubeconfig_for("system:kube-controller-manager", &[])?;
        // Both bootstrap controllers are off by default. What approves certificate requests by itself does
        // so for requestors that a binding allows it, and there is none.
        let controllers = "--controllers=*,bootstrap-signer-controller,token-cleaner-controller";
        // Nodes without a kubelet have no heartbeats that would keep them ready.
        let without = if node_lifecycle { "" } else { ",-node-lifecycle-controller" };
        let fixed = [
            "--secure-port=0",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            "--root-ca-file=ca.pem",
            "--cluster-signing-cert-file=ca.pem",
            "--cluster-signing-key-file=ca.key",
            "--service-account-private-key-file=service-account.key",
            FEATURE_GATES,
        ];
        let mut arguments =
            vec![format!("--kubeconfig={}", kubeconfig.display()), format!("{controllers}{without}")];
        arguments.extend(fixed.into_iter().map(str::to_owned));
        let path = programs.join("kube-controller-manager");
        Process::start(kubernetes("kube-controller-manager", path, arguments, self.directory.path()))
    }

    fn scheduler(&self, programs: &Path) -> Result<Process, Error> {
        let kubeconfig = self.kubeconfig_for("system:kube-scheduler", &[])?;
        let arguments = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            "--secure-port=0".to_owned(),
            // It competes with nobody; its lease is how it shows that it is ready.
            "--leader-elect=true".to_owned(),
            FEATURE_GATES.to_owned(),
        ];
        let path = programs.join("kube-scheduler");
        Process::start(kubernetes("kube-scheduler", path, arguments, self.directory.path()))
    }
}

/// Asks as one, without a process for each question.
fn administrator(authority: &Authority) -> Result<Client, Error> {
    let identity = authority.client("bailiwick-testbed-readiness", &["system:masters"])?;
    Client::new(authority.certificate(), Some((identity.certificate.clone(), identity.key())))
}

fn kubernetes<'a>(
    name: &'static str,
    path: PathBuf,
    arguments: Vec<String>,
    directory: &'a Path,
) -> Program<'a> {
    Program { name, path, arguments, environment: Vec::new(), directory, user: None, stop: Signal::KILL }
}

fn write_keys(directory: &Path, authority: &Authority) -> Result<(), Error> {
    let server = authority.server("kube-apiserver")?;
    // Not a certificate's, but a key pair like the others; the server reads its public half apart.
    let service_account = authority.client("service-account-tokens", &[])?;
    for (name, content) in [
        ("ca.pem", authority.certificate_pem()),
        ("ca.key", authority.key_pem()),
        ("server.pem", server.certificate_pem.clone()),
        ("server.key", server.key_pem()),
        ("service-account.key", service_account.key_pem()),
        ("service-account.pub", service_account.public_key_pem()),
    ] {
        write_private(&directory.join(name), &content)?;
    }
    Ok(())
}

/// etcd listens on Unix sockets in its directory: they cannot clash with anybody's. It insists on
/// `name:port` and takes that for a relative path, so the sockets are called `client:0` and `peer:0`.
async fn start_etcd(path: PathBuf, directory: &Path) -> Result<Process, Error> {
    let arguments = [
        "--data-dir=etcd",
        "--listen-client-urls=unix://client:0",
        "--advertise-client-urls=unix://client:0",
        "--listen-peer-urls=unix://peer:0",
        "--initial-advertise-peer-urls=unix://peer:0",
        "--initial-cluster=default=unix://peer:0",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ];
    let arguments = arguments.into_iter().map(str::to_owned).collect();
    let mut process = Process::start(kubernetes("etcd", path, arguments, directory))?;
    let socket = directory.join("client:0");
    process.wait_until(START_WITHIN, async || tokio::net::UnixStream::connect(&socket).await.is_ok()).await?;
    Ok(process)
}

async fn start_api_server(
    programs: &Path,
    directory: &Path,
    port: u16,
    without: Option<&'static str>,
    client: &Client,
) -> Result<Process, Error> {
    let path = programs.join("kube-apiserver");
    let mut arguments = api_server_arguments(directory, port);
    let off = without.map(|gate| format!(",{gate}=false")).unwrap_or_default();
    arguments.push(format!("{FEATURE_GATES}{off}"));
    let mut process = Process::start(kubernetes("kube-apiserver", path, arguments, directory))?;
    process.wait_until(START_WITHIN, async || client.answers(port, "/readyz").await).await?;
    Ok(process)
}

fn api_server_arguments(directory: &Path, port: u16) -> Vec<String> {
    let etcd = directory.join("client:0");
    let mut arguments =
        vec![format!("--etcd-servers=unix://{}", etcd.display()), format!("--secure-port={port}")];
    let fixed = [
        "--bind-address=127.0.0.1",
        // Endpoints must not be loopback addresses. Nothing connects to this one (TEST-NET-1, RFC 5737).
        "--advertise-address=192.0.2.1",
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--tls-cert-file=server.pem",
        "--tls-private-key-file=server.key",
        "--client-ca-file=ca.pem",
        "--enable-bootstrap-token-auth",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-account-key-file=service-account.pub",
        "--service-account-signing-key-file=service-account.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--runtime-config=resource.k8s.io/v1beta2=true,resource.k8s.io/v1alpha3=true",
    ];
    arguments.extend(fixed.into_iter().map(str::to_owned));
    arguments
}
