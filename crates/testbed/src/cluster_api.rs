//! The definitions of Cluster API's resources, without its controllers and webhooks: enough for the API
//! server to say whether an object is well formed.

use std::path::{Path, PathBuf};

use crate::{ControlPlane, Error, Part};

/// Definitions of Cluster API: core, kubeadm bootstrap and control plane, and those of infrastructure
/// providers that could be had.
#[derive(Debug)]
pub struct ClusterApiCrds {
    folder: PathBuf,
}

impl ClusterApiCrds {
    /// Finds them.
    pub async fn find() -> Result<Self, Error> {
        Ok(Self { folder: Part::ClusterApiCrds.directory().await?.join("crds") })
    }

    /// Where they are, one YAML file each.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Applies them, and waits until the API server serves their resources.
    pub async fn apply(&self, control_plane: &ControlPlane) -> Result<(), Error> {
        control_plane.apply_crds(&self.folder).await
    }

    /// Why the kinds of `infrastructure.cluster.x-k8s.io` that Metal3 defines (`Metal3Cluster`,
    /// `Metal3MachineTemplate`, …) are not among them; `None` when they are.
    pub fn metal3_left_out(&self) -> Option<&'static str> {
        let present = self.folder.join("infrastructure.cluster.x-k8s.io_metal3clusters.yaml").exists();
        (!present).then_some(
            "the module proxy serves no version of github.com/metal3-io/cluster-api-provider-metal3 that the \
             checksum database knows (hack/testbed/cluster-api-crds/recipe.sh)",
        )
    }
}
