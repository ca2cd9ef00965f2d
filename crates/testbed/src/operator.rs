//! Metal3's baremetal-operator, outside the cluster, on an Ironic of the testbed or on another one. Without its webhooks:
//! the API server has its resources' schemas and nothing else of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::https::{Client, on_free_port};
use crate::kubectl::write_private;
use crate::process::{Process, Program};
use crate::{ControlPlane, Error, Ironic, Part};

const START_WITHIN: Duration = Duration::from_mins(2);

/// Where an operator finds its Ironic.
#[derive(Clone)]
pub struct IronicAddress {
    /// Without the version.
    pub url: String,
    /// The image of the agent, as Ironic reaches it.
    pub agent_iso_url: String,
    /// User and password of `http_basic`.
    pub credentials: Option<(String, String)>,
}

impl From<&Ironic> for IronicAddress {
    fn from(ironic: &Ironic) -> Self {
        let credentials = ironic.credentials();
        Self {
            url: ironic.url().to_owned(),
            agent_iso_url: ironic.agent_iso_url(),
            credentials: credentials.map(|(username, password)| (username.to_owned(), password.to_owned())),
        }
    }
}

/// How a [`BaremetalOperator`] is started.
#[derive(Clone, Debug)]
pub struct BaremetalOperatorOptions {
    namespace: String,
    concurrency: u32,
}

impl Default for BaremetalOperatorOptions {
    fn default() -> Self {
        Self { namespace: "metal3".to_owned(), concurrency: 2 }
    }
}

impl BaremetalOperatorOptions {
    /// The one namespace in which it looks for hosts, which is made if it is not there; `metal3` unless
    /// told otherwise.
    #[must_use]
    pub fn namespace(mut self, name: &str) -> Self {
        name.clone_into(&mut self.namespace);
        self
    }

    /// How many hosts it works on at the same time; 2 unless told otherwise.
    #[must_use]
    pub fn concurrency(mut self, hosts: u32) -> Self {
        self.concurrency = hosts;
        self
    }

    /// Applies the definitions of its resources, starts it and waits until it is ready.
    pub async fn start(
        self,
        control_plane: &ControlPlane,
        ironic: impl Into<IronicAddress>,
    ) -> Result<BaremetalOperator, Error> {
        let ironic = ironic.into();
        let directory = tempfile::Builder::new()
            .prefix("bailiwick-operator-")
            .tempdir()
            .map_err(Error::file("make", "a temporary directory"))?;
        control_plane.apply_crds(&BaremetalOperator::crds().await?).await?;
        control_plane.create_namespace(&self.namespace).await?;
        write_credentials(directory.path(), &ironic)?;
        let path = Part::BaremetalOperator.programs().await?.join("baremetal-operator");
        let environment = environment(directory.path(), control_plane, &ironic);
        let client = Client::plain()?;
        let (process, _) = on_free_port(async |port| {
            let mut process = Process::start(Program {
                name: "baremetal-operator",
                path: path.clone(),
                arguments: self.arguments(port),
                environment: environment.clone(),
                directory: directory.path(),
                user: None,
                stop: Signal::KILL,
            })?;
            let ready = format!("http://127.0.0.1:{port}/readyz");
            process.wait_until(START_WITHIN, async || client.text(&ready, None).await.is_some()).await?;
            Ok(process)
        })
        .await?;
        Ok(BaremetalOperator { process, namespace: self.namespace, _directory: directory })
    }

    fn arguments(&self, port: u16) -> Vec<String> {
        vec![
            "-dev".to_owned(),
            format!("-namespace={}", self.namespace),
            format!("-controller-concurrency={}", self.concurrency),
            format!("-health-addr=127.0.0.1:{port}"),
            "-metrics-addr=0".to_owned(),
            "-webhook-port=0".to_owned(),
        ]
    }
}

/// A running operator; dropping it stops it. Its resources stay in the control plane.
#[derive(Debug)]
pub struct BaremetalOperator {
    // Dropped in this order: the program before its files.
    process: Process,
    namespace: String,
    _directory: TempDir,
}

impl BaremetalOperator {
    /// Starts one that looks after the hosts of the namespace `metal3`.
    pub async fn start(control_plane: &ControlPlane, ironic: &Ironic) -> Result<Self, Error> {
        Self::options().start(control_plane, ironic).await
    }

    /// To start one otherwise.
    pub fn options() -> BaremetalOperatorOptions {
        BaremetalOperatorOptions::default()
    }

    /// Where it looks for hosts.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Makes it look at its hosts this often, instead of every ten seconds: any annotation wakes it. For as long as this is awaited.
    pub async fn hurry(&self, control_plane: &ControlPlane, every: Duration) {
        let namespace = format!("--namespace={}", self.namespace);
        for turn in 0_u64.. {
            tokio::time::sleep(every).await;
            let woken = format!("example.com/woken={turn}");
            let arguments = ["annotate", "bmh", "--all", "--overwrite", &woken, &namespace];
            // There may be none yet.
            drop(control_plane.kubectl(&arguments, None).await);
        }
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// The folder with the definitions of its resources, for [`ControlPlane::apply_crds`] where no
    /// operator is wanted.
    pub async fn crds() -> Result<PathBuf, Error> {
        Ok(Part::BaremetalOperator.directory().await?.join("crds"))
    }
}

fn environment(
    directory: &Path,
    control_plane: &ControlPlane,
    ironic: &IronicAddress,
) -> Vec<(&'static str, String)> {
    vec![
        ("KUBECONFIG", control_plane.kubeconfig_admin().display().to_string()),
        ("IRONIC_ENDPOINT", format!("{}/v1/", ironic.url)),
        ("DEPLOY_ISO_URL", ironic.agent_iso_url.clone()),
        ("METAL3_AUTH_ROOT_DIR", directory.join("auth").display().to_string()),
    ]
}

/// It takes the user and the password from files, and where there are none asks without.
fn write_credentials(directory: &Path, ironic: &IronicAddress) -> Result<(), Error> {
    let Some((username, password)) = &ironic.credentials else { return Ok(()) };
    let folder = directory.join("auth/ironic");
    std::fs::create_dir_all(&folder).map_err(Error::file("make", &folder))?;
    write_private(&folder.join("username"), username)?;
    write_private(&folder.join("password"), password)
}
