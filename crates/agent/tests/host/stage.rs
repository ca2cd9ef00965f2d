//! A host with eight GPUs, whose agents are processes, and a test that talks to them as a kubelet does.

use crate::api_server::ApiServer;
use domain::Name;
use domain::permit::{Permit, Permits, PublicKey, SignedPermits};
use dra::plugin::wire::{
    Claim, ClaimsRequest, InfoRequest, PluginInfo, PrepareResponse, RegistrationStatus,
    RegistrationStatusResponse, UnprepareResponse,
};
use jiff::Timestamp;
use nvml_stand_in::{Description, Installed};
use prost::Message;
use rcgen::{CertificateParams, KeyPair};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

/// Generous: the machine may be compiling at the same time.
const PATIENCE: Duration = Duration::from_mins(2);
pub(crate) const MACHINE: &str = "machine-1";
const GPUS: usize = 8;

/// As `nvidia-smi` does, it refuses while anybody has the driver open.
const RESET: &str = r#"#!/bin/sh
here=$(dirname "$0")
flock --nonblock --exclusive "$here/driver/clients" true || { echo "GPU is in use by another client"; exit 3; }
echo "$3" >>"$here/reset"
"#;

fn described() -> Description {
    Description::parse(nvml_stand_in::host("h100").unwrap()).unwrap()
}

/// The UUID of a GPU.
pub(crate) fn gpu(index: usize) -> String {
    described().gpus().unwrap()[index].gpu.uuid.clone().unwrap()
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not so: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) struct Stage {
    agents: BTreeMap<String, Child>,
    pub(crate) api: ApiServer,
    installed: Installed,
    files: TempDir,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for agent in self.agents.values_mut() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

impl Stage {
    pub(crate) async fn start() -> Self {
        let api = ApiServer::start().await;
        let files = tempfile::tempdir().unwrap();
        for name in ["dev", "state", "driver", "cdi", "static-cdi", "kubelet"] {
            std::fs::create_dir(files.path().join(name)).unwrap();
        }
        let installed = Installed::into(&files.path().join("driver"), &described()).unwrap();
        for name in (0..GPUS).map(|index| format!("nvidia{index}")).chain(["nvidiactl".to_owned()]) {
            std::fs::write(files.path().join("dev").join(name), "").unwrap();
        }
        let write = |name: &str, text: &str| std::fs::write(files.path().join(name), text).unwrap();
        write("driver/clients", "");
        write("nvidia-smi", RESET);
        write("token", "t");
        write("ca.pem", &api.ca);
        let cluster =
            json!({ "server": format!("https://{}", api.address), "certificate-authority": "ca.pem" });
        let kubeconfig = json!({
            "current-context": "a", "contexts": [{ "name": "a", "context": { "cluster": "c", "user": "u" } }],
            "clusters": [{ "name": "c", "cluster": cluster }],
            "users": [{ "name": "u", "user": { "tokenFile": "token" } }],
        });
        write("kubeconfig", &kubeconfig.to_string());
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(files.path().join("nvidia-smi"), executable).unwrap();
        enrol(&files.path().join("state"));
        Self { agents: BTreeMap::new(), api, installed, files }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(crate) fn start_agent(&mut self, instance: &str) {
        let log = std::fs::File::options().create(true).append(true).open(self.file("agent.log")).unwrap();
        let path = |name: &str| self.file(name).display().to_string();
        let options = [
            ("--instance", instance.to_owned()),
            ("--state-dir", path("state")),
            ("--kubeconfig", path("kubeconfig")),
            ("--kubelet-dir", path("kubelet")),
            ("--cdi-dir", path("cdi")),
            ("--static-cdi-dir", path("static-cdi")),
            ("--nvml", self.installed.library().display().to_string()),
            ("--dev-root", path("dev")),
            ("--nvidia-smi", path("nvidia-smi")),
            ("--probe-interval", "1".to_owned()),
        ];
        // It dies with us, also when we are killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_bailiwick-agent"), "run"]);
        command.args(options.iter().flat_map(|(name, value)| [*name, value.as_str()]));
        let agent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.agents.insert(instance.to_owned(), agent);
    }

    /// Tells an agent to end, and waits until it has.
    pub(crate) async fn end_agent(&mut self, instance: &str) {
        let mut agent = self.agents.remove(instance).unwrap();
        assert!(Command::new("kill").arg(agent.id().to_string()).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        while agent.try_wait().unwrap().is_none() {
            if Instant::now() >= deadline {
                let _ = agent.kill();
                panic!("it does not end\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.file("agent.log")).unwrap_or_default()
    }

    /// A call of the driver does not return any more, or does again.
    pub(crate) fn hang(&self, hang: bool) {
        let fault = json!({ "function": "nvmlDeviceGetSerial", "hangs": true });
        let faults = if hang { vec![serde_json::from_value(fault).unwrap()] } else { Vec::new() };
        self.installed.describe(&Description { faults, ..described() }).unwrap();
    }

    /// The socket at which an agent makes itself known.
    pub(crate) fn registration(&self, instance: &str) -> PathBuf {
        self.file(&format!("kubelet/plugins_registry/{instance}@{}-reg.sock", dra::DRIVER))
    }

    /// The socket at which an agent prepares.
    pub(crate) fn socket(&self, instance: &str) -> PathBuf {
        self.file(&format!("kubelet/plugins/{}/dra-{instance}.sock", dra::DRIVER))
    }

    /// As the kubelet does when it finds a socket: asks who that is, and takes it.
    pub(crate) async fn until_registered(&self, instance: &str) {
        let socket = self.registration(instance);
        until(&format!("{instance} makes itself known"), || socket.exists()).await;
        let who: PluginInfo = call(&socket, "/pluginregistration.Registration/GetInfo", InfoRequest {}).await;
        assert_eq!(Path::new(&who.endpoint), self.socket(instance));
        let taken = RegistrationStatus { plugin_registered: true, error: String::new() };
        let _: RegistrationStatusResponse =
            call(&socket, "/pluginregistration.Registration/NotifyRegistrationStatus", taken).await;
    }

    /// Names of the devices that are prepared, or why none is.
    pub(crate) async fn prepare(&self, instance: &str, claim: &str) -> Result<Vec<String>, String> {
        let method = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources";
        let mut answer: PrepareResponse = call(&self.socket(instance), method, asked(claim)).await;
        let answer = answer.claims.remove(&format!("uid-{claim}")).unwrap();
        if !answer.error.is_empty() {
            return Err(answer.error);
        }
        Ok(answer.devices.into_iter().map(|device| device.device_name).collect())
    }

    pub(crate) async fn unprepare(&self, instance: &str, claim: &str) -> Result<(), String> {
        let method = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources";
        let mut answer: UnprepareResponse = call(&self.socket(instance), method, asked(claim)).await;
        let answer = answer.claims.remove(&format!("uid-{claim}")).unwrap();
        if answer.error.is_empty() { Ok(()) } else { Err(answer.error) }
    }

    /// UUIDs of the GPUs that were reset, in that order.
    pub(crate) fn reset(&self) -> Vec<String> {
        let reset = std::fs::read_to_string(self.file("reset")).unwrap_or_default();
        reset.lines().map(str::to_owned).collect()
    }

    /// How many claims have a CDI specification.
    pub(crate) fn specifications(&self) -> usize {
        std::fs::read_dir(self.file("cdi")).unwrap().count()
    }
}

fn asked(claim: &str) -> ClaimsRequest {
    let (namespace, uid) = ("default".to_owned(), format!("uid-{claim}"));
    ClaimsRequest { claims: vec![Claim { namespace, uid, name: claim.to_owned() }] }
}

async fn call<Q, A>(socket: &Path, method: &'static str, question: Q) -> A
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap();
    let mut client = Grpc::new(endpoint.connect().await.unwrap());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(method);
    let answer = client.unary(tonic::Request::new(question), path, ProstCodec::<Q, A>::default()).await;
    answer.unwrap().into_inner()
}

/// What enrolment and the cell's last report leave, for a cell that nobody reaches: permits for all GPUs.
fn enrol(state: &Path) {
    let signer = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap().pem();
    let identity = json!({
        "cell": "https://127.0.0.1:1", "machine": MACHINE, "key": key.serialize_pem(), "certificate": certificate,
        "ca": certificate, "received": Timestamp::now(),
        "permitKey": PublicKey::new(signer.public_key().as_ref().try_into().unwrap()),
    });
    std::fs::write(state.join("cell.json"), identity.to_string()).unwrap();
    let issued = Timestamp::now();
    let permit = |index| Permit {
        device: Name::new(format!("gpu-{index}")).unwrap(),
        gpu: gpu(index),
        partition: None,
        verdict: None,
        valid_until: issued + Duration::from_hours(1),
    };
    let machine = Name::new(MACHINE).unwrap();
    let permits = Permits { machine, issued, permits: (0..GPUS).map(permit).collect() };
    let sign = |bytes: &[u8]| Ok::<_, Infallible>(signer.sign(bytes).as_ref().to_vec());
    let signed = SignedPermits::seal(&permits, sign).unwrap();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let received = u64::try_from(agent::cell::uptime().as_millis()).unwrap();
    let kept = json!({ "bootId": boot_id.trim(), "received": received, "signed": signed });
    std::fs::write(state.join("permits.json"), kept.to_string()).unwrap();
}
