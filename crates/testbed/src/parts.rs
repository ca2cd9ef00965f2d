//! Where the built counterparts are. `hack/testbed/build` alone knows how a part's place follows from
//! its recipe; it is asked here.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::Error;

/// A counterpart that `hack/testbed/build` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The API server, scheduler, controller manager, kubectl and kubelet.
    Kubernetes,
    /// What the API server stores in.
    Etcd,
    /// PostgreSQL, server and tools.
    PostgreSql,
    /// The Redfish emulator of OpenStack's sushy-tools.
    SushyTools,
    /// Ironic, OpenStack's bare metal service.
    Ironic,
    /// The simulated BMC of OpenIPMI, and ipmitool.
    OpenIpmi,
    /// Metal3's baremetal-operator, with the definitions of its resources.
    BaremetalOperator,
    /// What a kubelet needs beside itself: containerd, runc, CNI plugins and images.
    Node,
    /// The definitions of Cluster API's resources.
    ClusterApiCrds,
    /// What checks units of systemd.
    Systemd,
}

impl Part {
    /// The name that `hack/testbed/build` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Etcd => "etcd",
            Self::PostgreSql => "postgresql",
            Self::SushyTools => "sushy-tools",
            Self::Ironic => "ironic",
            Self::OpenIpmi => "openipmi",
            Self::BaremetalOperator => "baremetal-operator",
            Self::Node => "node",
            Self::ClusterApiCrds => "cluster-api-crds",
            Self::Systemd => "systemd",
        }
    }

    /// The directory that holds this part's programs.
    pub async fn programs(self) -> Result<PathBuf, Error> {
        let directory = self.directory().await?;
        // PostgreSQL is installed rather than cached; its place is already a directory of programs.
        Ok(if self == Self::PostgreSql { directory } else { directory.join("bin") })
    }

    /// The directory that this part was built as.
    pub(crate) async fn directory(self) -> Result<PathBuf, Error> {
        let script = repository_root().join("hack/testbed/build");
        let output = Command::new(&script)
            .args(["--where", self.name()])
            .output()
            .await
            .map_err(Error::file("run", &script))?;
        if !output.status.success() {
            let details = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::NotBuilt { part: self.name(), details });
        }
        Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end()))
    }
}

/// The root of this repository: cargo tells a test where its crate is when it runs; a program started
/// otherwise falls back on where the crate was built.
pub fn repository_root() -> PathBuf {
    let crate_directory = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    crate_directory
        .ancestors()
        .find(|directory| directory.join("hack/testbed/build").is_file())
        .map_or_else(|| crate_directory.clone(), Path::to_path_buf)
}
