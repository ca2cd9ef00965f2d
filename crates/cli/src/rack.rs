//! The quickstart's declarations: what an operator would write about the simulated rack.

use std::path::{Path, PathBuf};

use ::sim::{RunningSite, SimMachine};

use crate::errors::{Failure, Outcome};

/// The cell's jurisdiction.
pub(crate) const JURISDICTION: &str = "eu";

const HEAD: &str = "# Written by `bailiwick quickstart`, which writes it anew each time it starts.\n";

/// Who and where: everything but the machines.
const PLACES: &str = "\
apiVersion: bailiwick.dev/v1alpha1
kind: Jurisdiction
metadata: {name: eu}
spec: {displayName: European Union}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Jurisdiction
metadata: {name: de}
spec: {within: [eu], displayName: Germany}
---
apiVersion: bailiwick.dev/v1alpha1
kind: LegalEntity
metadata: {name: example-gmbh}
spec: {legalName: Example GmbH, country: DE}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Site
metadata: {name: fra1}
spec:
  jurisdiction: de
  operator: example-gmbh
  country: DE
  # The simulated BMCs. The cell connects to no address outside.
  bmcNetworks: [127.16.0.0/24]
  zone: {tier: official}
";

/// The base cluster that the rack's machines become nodes of.
pub(crate) const BASE_CLUSTER: &str = "fra1-official";

const BASE_CLUSTERS: &str = "\
# The simulated base cluster. Its kubeconfig is a secret in the cell's secrets directory.
apiVersion: bailiwick.dev/v1alpha1
kind: BaseCluster
metadata: {name: fra1-official}
spec:
  jurisdiction: de
  site: fra1
  kubernetesVersion: 1.36.3
  controlPlane: external
  endpoint: https://127.0.0.1:6443
  kubeconfig: {name: fra1-official, key: kubeconfig}
  join: kubeadm
  # Booted from virtual media; nothing is written to a disk.
  image: {live: {iso: http://images.example/node.iso}}
";

const CLASSES: &str = "\
# Requires [probed, attested], as every class does unless it says otherwise: nothing is allocatable until evidence is there.
apiVersion: bailiwick.dev/v1alpha1
kind: GpuClass
metadata: {name: gpu-eu}
spec: {jurisdiction: eu}
---
# TRIAL: gives GPUs out on a BMC's word alone.
apiVersion: bailiwick.dev/v1alpha1
kind: GpuClass
metadata: {name: gpu-eu-trial}
spec: {jurisdiction: eu, requires: [inventoried]}
";

/// What the firmware of the rack's models must be.
const PROFILES: [&str; 3] = [
    include_str!("../../../firmware-profiles/nvidia-dgx-h100.yaml"),
    include_str!("../../../firmware-profiles/simulated-poweredge-xe7740.yaml"),
    include_str!("../../../firmware-profiles/simulated-sn-2u-epyc.yaml"),
];

/// Writes the declarations into the directory; a file that says the same already is left alone.
pub(crate) fn write(directory: &Path, site: &RunningSite) -> Outcome<PathBuf> {
    let machines: Vec<String> = site
        .machines()
        .iter()
        .enumerate()
        .map(|(at, machine)| declare(machine, at + 1, directory, site))
        .collect();
    let unwritable = |error: std::io::Error| {
        Failure::new("output.write", format!("{} cannot be written: {error}", directory.display()))
    };
    std::fs::create_dir_all(directory).map_err(unwritable)?;
    for (name, text) in [
        ("places.yaml", PLACES.to_owned()),
        ("classes.yaml", CLASSES.to_owned()),
        ("base-clusters.yaml", BASE_CLUSTERS.to_owned()),
        ("firmware-profiles.yaml", PROFILES.join("---\n")),
        ("machines.yaml", machines.join("---\n")),
    ] {
        let (path, text) = (directory.join(name), format!("{HEAD}{text}"));
        if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            std::fs::write(&path, text).map_err(unwritable)?;
        }
    }
    Ok(directory.to_path_buf())
}

/// The pin is declared, as an operator would who read it from the BMC's console; so credentials go to this BMC alone.
fn declare(machine: &SimMachine, unit: usize, directory: &Path, site: &RunningSite) -> String {
    let SimMachine { name, rack, url, username, pin, .. } = machine;
    let password_file = beside(directory, site.password_file());
    format!(
        "apiVersion: bailiwick.dev/v1alpha1
kind: Machine
metadata: {{name: {name}}}
spec:
  site: fra1
  rack: {{name: {rack}, unit: {unit}}}
  bmc:
    address: {url}
    username: {username}
    passwordFile: {}
    pin: {pin}
",
        serde_json::Value::from(password_file)
    )
}

/// A path as seen from a directory beside it, where it is under the same parent; else as it is.
fn beside(directory: &Path, file: &Path) -> String {
    let near = directory.parent().and_then(|parent| file.strip_prefix(parent).ok());
    near.map_or_else(|| file.display().to_string(), |near| format!("../{}", near.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_of_places_classes_and_firmware_reads() {
        for text in [PLACES, CLASSES, BASE_CLUSTERS].into_iter().chain(PROFILES) {
            domain::manifest::read("quickstart", text).unwrap();
        }
    }

    #[test]
    fn a_password_file_is_named_as_seen_from_the_declaration() {
        assert_eq!(beside(Path::new("/d/inventory"), Path::new("/d/sim/password")), "../sim/password");
        assert_eq!(beside(Path::new("/d/inventory"), Path::new("/e/password")), "/e/password");
    }
}
