//! How a permitted device gets into a container: by a CDI device that `nvidia-ctk cdi generate` has described, libraries included,
//! where there is one of that UUID; otherwise by its device nodes alone.

use domain::probe::{MigInstance, ProbedGpu};
use dra::plugin::{Access, DeviceNode};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The kind that `nvidia-ctk` writes.
const NVIDIA: &str = "nvidia.com/gpu";
/// Nodes that every CUDA program opens.
const COMMON: &[&str] = &["nvidiactl"];
/// Nodes that are there or not, by the driver's modules that are loaded.
const OPTIONAL: &[&str] = &["nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];

/// Where device nodes are.
#[derive(Clone, Debug)]
pub struct DeviceRoot {
    /// As the container runtime sees it: `/dev`, or the `dev` of a driver container.
    pub runtime: PathBuf,
    /// The same directory as this process sees it.
    pub own: PathBuf,
}

impl DeviceRoot {
    /// The access to a GPU, or to an instance of it; or which node is missing.
    pub(super) fn access(
        &self,
        gpu: &ProbedGpu,
        instance: Option<&MigInstance>,
        described: &BTreeSet<String>,
    ) -> Result<Access, String> {
        let uuid = instance.map_or(&gpu.uuid, |instance| &instance.uuid);
        if let Some(uuid) = uuid.as_ref().filter(|uuid| described.contains(*uuid)) {
            return Ok(Access::Reference(format!("{NVIDIA}={uuid}")));
        }
        let minor = gpu.minor.ok_or("the driver does not tell its minor number")?;
        let mut names = vec![format!("nvidia{minor}")];
        if let Some(instance) = instance {
            let caps = [instance.gpu_instance_minor, instance.compute_instance_minor];
            for minor in caps {
                let minor = minor.ok_or("the driver does not tell the minor numbers of its MIG instance")?;
                names.push(format!("nvidia-caps/nvidia-cap{minor}"));
            }
        }
        names.extend(COMMON.iter().map(|name| (*name).to_owned()));
        if let Some(missing) = names.iter().find(|name| !self.own.join(name).exists()) {
            return Err(format!("{} is missing", self.runtime.join(missing).display()));
        }
        let there = OPTIONAL.iter().filter(|name| self.own.join(name).exists());
        names.extend(there.map(|name| (*name).to_owned()));
        Ok(Access::Nodes(names.iter().map(|name| self.node(name)).collect()))
    }

    fn node(&self, name: &str) -> DeviceNode {
        let (path, host) = (Path::new("/dev").join(name), self.runtime.join(name));
        let host_path = (host != path).then(|| host.display().to_string());
        DeviceNode { path: path.display().to_string(), host_path }
    }
}

#[derive(Deserialize)]
struct Specification {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    devices: Vec<Described>,
}

#[derive(Deserialize)]
struct Described {
    name: String,
}

/// Names of the NVIDIA devices that specifications in these directories describe. One that cannot be read describes none: the
/// runtime takes none of it either.
pub(super) fn described(directories: &[PathBuf]) -> BTreeSet<String> {
    let files =
        directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
    let paths = files
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json" || extension == "yaml"));
    let specifications = paths.filter_map(|path| {
        serde_saphyr::from_str::<Specification>(&std::fs::read_to_string(path).ok()?).ok()
    });
    let nvidia = specifications.filter(|specification| specification.kind == NVIDIA);
    nvidia.flat_map(|specification| specification.devices).map(|device| device.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu() -> ProbedGpu {
        ProbedGpu { uuid: Some("GPU-1".to_owned()), minor: Some(3), ..ProbedGpu::default() }
    }

    fn root(names: &[&str]) -> (tempfile::TempDir, DeviceRoot) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("nvidia-caps")).unwrap();
        for name in names {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let own = directory.path().to_owned();
        (directory, DeviceRoot { runtime: PathBuf::from("/dev"), own })
    }

    fn paths(access: Access) -> Vec<String> {
        let Access::Nodes(nodes) = access else { panic!("{access:?}") };
        nodes.into_iter().map(|node| node.path).collect()
    }

    #[test]
    fn a_gpu_is_its_node_and_those_that_every_program_opens() {
        let (_directory, root) = root(&["nvidia3", "nvidiactl", "nvidia-uvm"]);
        let access = root.access(&gpu(), None, &BTreeSet::new()).unwrap();
        assert_eq!(paths(access), ["/dev/nvidia3", "/dev/nvidiactl", "/dev/nvidia-uvm"]);
    }

    #[test]
    fn a_part_of_a_gpu_opens_its_capabilities_too() {
        let names = ["nvidia3", "nvidiactl", "nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13"];
        let (_directory, root) = root(&names);
        let instance = MigInstance {
            gpu_instance_minor: Some(12),
            compute_instance_minor: Some(13),
            ..MigInstance::default()
        };
        let access = root.access(&gpu(), Some(&instance), &BTreeSet::new()).unwrap();
        assert_eq!(
            paths(access),
            [
                "/dev/nvidia3",
                "/dev/nvidia-caps/nvidia-cap12",
                "/dev/nvidia-caps/nvidia-cap13",
                "/dev/nvidiactl"
            ]
        );
        let unknown = MigInstance::default();
        assert!(root.access(&gpu(), Some(&unknown), &BTreeSet::new()).is_err());
    }

    #[test]
    fn a_missing_node_is_named() {
        let (_directory, root) = root(&["nvidia3"]);
        let missing = root.access(&gpu(), None, &BTreeSet::new()).unwrap_err();
        assert_eq!(missing, "/dev/nvidiactl is missing");
    }

    #[test]
    fn what_nvidia_describes_is_referenced_by_uuid_and_by_no_index() {
        let directory = tempfile::tempdir().unwrap();
        let yaml = "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: '0'\n- name: GPU-1\n  containerEdits: {}\n";
        std::fs::write(directory.path().join("nvidia.yaml"), yaml).unwrap();
        let other = r#"{"cdiVersion":"0.6.0","kind":"gpu.bailiwick.dev/claim","devices":[{"name":"GPU-2"}]}"#;
        std::fs::write(directory.path().join("claim.json"), other).unwrap();
        std::fs::write(directory.path().join("broken.yaml"), ":\n  - [").unwrap();
        let described = described(&[directory.path().to_owned(), PathBuf::from("/nonexistent")]);
        assert_eq!(described, BTreeSet::from(["0".to_owned(), "GPU-1".to_owned()]));
        let (_dev, root) = root(&[]);
        let access = root.access(&gpu(), None, &described).unwrap();
        assert_eq!(access, Access::Reference("nvidia.com/gpu=GPU-1".to_owned()));
    }
}
