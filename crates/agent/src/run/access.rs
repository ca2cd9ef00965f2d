//! How a permitted device gets into a container: by a CDI device that `nvidia-ctk cdi generate` has described, libraries included,
//! where there is one of that UUID; otherwise by its device nodes alone.

use domain::probe::{MigInstance, ProbedGpu};
use dra::plugin::{Access, DeviceNode};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
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
        described: &Described,
    ) -> Result<Access, String> {
        let own = own_names(gpu, instance);
        let uuid = instance.map_or(&gpu.uuid, |instance| &instance.uuid);
        if let (Some(uuid), Ok(own)) = (uuid, &own)
            && self.is_current(described.get(uuid), own)
        {
            return Ok(Access::Reference(format!("{NVIDIA}={uuid}")));
        }
        let mut names = own?;
        names.extend(COMMON.iter().map(|name| (*name).to_owned()));
        if let Some(missing) = names.iter().find(|name| !self.own.join(name).exists()) {
            return Err(format!("{} is missing", self.runtime.join(missing).display()));
        }
        let there = OPTIONAL.iter().filter(|name| self.own.join(name).exists());
        names.extend(there.map(|name| (*name).to_owned()));
        Ok(Access::Nodes(names.iter().map(|name| self.node(name)).collect()))
    }

    /// Makes nodes of MIG capabilities that are missing. The driver's own programs make them by `nvidia-modprobe`, which a
    /// container need not have; the numbers are the kernel's either way.
    pub(super) fn make_caps(
        &self,
        major: Option<u32>,
        minors: impl Iterator<Item = u32>,
    ) -> Result<(), String> {
        for minor in minors {
            let name = format!("nvidia-caps/nvidia-cap{minor}");
            let path = self.own.join(&name);
            let (Some(major), false) = (major, path.exists()) else { continue };
            let number = rustix::fs::makedev(major, minor);
            let kind = rustix::fs::FileType::CharacterDevice;
            // Read by everybody, as nvidia-modprobe makes those of instances: containers' cgroups are what keeps others out.
            let mode = rustix::fs::Mode::from_raw_mode(0o444);
            std::fs::create_dir_all(self.own.join("nvidia-caps"))
                .and_then(|()| Ok(rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, number)?))
                .map_err(|error| format!("{} cannot be made: {error}", self.runtime.join(&name).display()))?;
        }
        Ok(())
    }

    /// Whether NVIDIA's description is of today: a GPU may have had another minor number when it was written, before a restart of the
    /// host, and its node would be another GPU's now. Two descriptions of one name are what the runtime may take either of.
    fn is_current(&self, described: Option<&Vec<Nodes>>, own: &[String]) -> bool {
        let Some([nodes]) = described.map(Vec::as_slice) else { return false };
        let own: BTreeSet<_> = own.iter().map(String::as_str).collect();
        nodes.of_gpus() == Some(own) && nodes.0.iter().all(|node| self.exists(node))
    }

    /// Whether a described node is there.
    fn exists(&self, node: &Node) -> bool {
        let path = node.host_path.as_deref().unwrap_or(&node.path);
        path.strip_prefix(&self.runtime).is_ok_and(|name| self.own.join(name).exists())
    }

    fn node(&self, name: &str) -> DeviceNode {
        let (path, host) = (Path::new("/dev").join(name), self.runtime.join(name));
        let host_path = (host != path).then(|| host.display().to_string());
        DeviceNode { path: path.display().to_string(), host_path }
    }
}

/// Names below `/dev` of the nodes that are a GPU's or an instance's alone.
fn own_names(gpu: &ProbedGpu, instance: Option<&MigInstance>) -> Result<Vec<String>, String> {
    let minor = gpu.minor.ok_or("the driver does not tell its minor number")?;
    let mut names = vec![format!("nvidia{minor}")];
    if let Some(instance) = instance {
        let caps = [instance.gpu_instance_minor, instance.compute_instance_minor];
        for minor in caps {
            let minor = minor.ok_or("the driver does not tell the minor numbers of its MIG instance")?;
            names.push(format!("nvidia-caps/nvidia-cap{minor}"));
        }
    }
    Ok(names)
}

/// NVIDIA's devices that specifications describe, by name; more than once where several do.
pub(super) type Described = BTreeMap<String, Vec<Nodes>>;

/// The nodes that come with a described device, those that come with every device of its specification included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nodes(Vec<Node>);

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: PathBuf,
    #[serde(default)]
    host_path: Option<PathBuf>,
    /// Where it is written, the runtime does not look at the node.
    #[serde(default)]
    minor: Option<u32>,
}

impl Nodes {
    /// Names below `/dev` of those that are a GPU's or an instance's alone; `None` where name, path on the host and minor number of
    /// one do not agree.
    fn of_gpus(&self) -> Option<BTreeSet<&str>> {
        let named = self.0.iter().filter_map(|node| Some((node, node.numbered()?)));
        named.map(|(node, (name, number))| node.agrees(name, number).then_some(name)).collect()
    }
}

impl Node {
    /// Name below `/dev` and minor number in it, of a GPU's or an instance's node.
    fn numbered(&self) -> Option<(&str, u32)> {
        let name = self.path.strip_prefix("/dev").ok()?.to_str()?;
        let number = name.strip_prefix("nvidia-caps/nvidia-cap").or_else(|| name.strip_prefix("nvidia"))?;
        Some((name, number.parse().ok()?))
    }

    fn agrees(&self, name: &str, number: u32) -> bool {
        self.host_path.as_ref().is_none_or(|host| host.ends_with(name))
            && self.minor.is_none_or(|minor| minor == number)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Specification {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Edits {
    #[serde(default)]
    device_nodes: Vec<Node>,
}

/// NVIDIA's devices that specifications in these directories describe. A specification that cannot be read describes none: the
/// runtime takes none of it either.
pub(super) fn described(directories: &[PathBuf]) -> Described {
    let files =
        directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
    let paths = files
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json" || extension == "yaml"));
    let specifications = paths.filter_map(|path| {
        serde_saphyr::from_str::<Specification>(&std::fs::read_to_string(path).ok()?).ok()
    });
    let mut described = Described::new();
    for specification in specifications.filter(|specification| specification.kind == NVIDIA) {
        for device in specification.devices {
            let nodes =
                [device.container_edits.device_nodes, specification.container_edits.device_nodes.clone()];
            described.entry(device.name).or_default().push(Nodes(nodes.concat()));
        }
    }
    described
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
        let access = root.access(&gpu(), None, &Described::new()).unwrap();
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
        let access = root.access(&gpu(), Some(&instance), &Described::new()).unwrap();
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
        assert!(root.access(&gpu(), Some(&unknown), &Described::new()).is_err());
    }

    #[test]
    fn a_missing_node_is_named() {
        let (_directory, root) = root(&["nvidia3"]);
        let missing = root.access(&gpu(), None, &Described::new()).unwrap_err();
        assert_eq!(missing, "/dev/nvidiactl is missing");
    }

    /// What `nvidia-ctk cdi generate --device-name-strategy=uuid` writes for a GPU of this minor number.
    fn specification(minor: u32, more: &str) -> String {
        format!(
            "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ncontainerEdits: {{deviceNodes: [{{path: /dev/nvidiactl}}]}}\n\
             devices:\n- name: '0'\n- name: GPU-1\n  containerEdits:\n    deviceNodes:\n    - path: /dev/nvidia{minor}\n{more}"
        )
    }

    fn described_by(specifications: &[&str]) -> Described {
        let directory = tempfile::tempdir().unwrap();
        for (at, text) in specifications.iter().enumerate() {
            std::fs::write(directory.path().join(format!("{at}.yaml")), text).unwrap();
        }
        described(&[directory.path().to_owned(), PathBuf::from("/nonexistent")])
    }

    /// By the numbers of `/dev/zero`, since no other will do everywhere. It takes root, as the tests with real nodes do.
    #[test]
    fn a_missing_node_of_a_capability_is_made_where_the_kernel_tells_its_numbers() {
        use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
        let (directory, root) = root(&["nvidia-caps/nvidia-cap3"]);
        root.make_caps(None, [12, 13].into_iter()).unwrap();
        assert!(!directory.path().join("nvidia-caps/nvidia-cap12").exists());
        root.make_caps(Some(1), [3, 5].into_iter()).unwrap();
        let made = std::fs::metadata(directory.path().join("nvidia-caps/nvidia-cap5")).unwrap();
        assert!(made.file_type().is_char_device());
        assert_eq!(made.rdev(), rustix::fs::makedev(1, 5));
        let there = std::fs::metadata(directory.path().join("nvidia-caps/nvidia-cap3")).unwrap();
        assert!(there.is_file(), "what is there stays");
    }

    #[test]
    fn what_nvidia_describes_is_referenced_by_uuid_and_by_no_index() {
        let other = r#"{"cdiVersion":"0.6.0","kind":"gpu.bailiwick.dev/claim","devices":[{"name":"GPU-2"}]}"#;
        let described = described_by(&[&specification(3, ""), other, ":\n  - ["]);
        assert_eq!(described.keys().collect::<Vec<_>>(), ["0", "GPU-1"]);
        let (_dev, root) = root(&["nvidia3", "nvidiactl"]);
        let access = root.access(&gpu(), None, &described).unwrap();
        assert_eq!(access, Access::Reference("nvidia.com/gpu=GPU-1".to_owned()));
    }

    #[test]
    fn a_description_that_names_nodes_of_before_a_restart_is_passed_over() {
        let (_dev, root) = root(&["nvidia3", "nvidia4", "nvidiactl"]);
        let current = specification(3, "");
        let stale = [
            // another GPU's node now
            specification(4, ""),
            // another GPU's beside ours
            specification(3, "    - path: /dev/nvidia4\n"),
            // another GPU's under the name of ours
            specification(3, "      hostPath: /dev/nvidia4\n"),
            specification(3, "      minor: 4\n"),
            // a node that is gone
            specification(3, "    - path: /dev/dri/renderD129\n"),
        ];
        for text in &stale {
            let access = root.access(&gpu(), None, &described_by(&[text])).unwrap();
            assert_eq!(paths(access), ["/dev/nvidia3", "/dev/nvidiactl"], "{text}");
        }
        let twice = described_by(&[&current, &current]);
        assert_eq!(paths(root.access(&gpu(), None, &twice).unwrap()), ["/dev/nvidia3", "/dev/nvidiactl"]);
    }

    #[test]
    fn a_described_part_of_a_gpu_is_referenced_only_with_its_own_capabilities() {
        let names = ["nvidia3", "nvidiactl", "nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13"];
        let (_directory, root) = root(&names);
        let instance = MigInstance {
            uuid: Some("GPU-1".to_owned()),
            gpu_instance_minor: Some(12),
            compute_instance_minor: Some(13),
            ..MigInstance::default()
        };
        let cap = |minor| format!("    - path: /dev/nvidia-caps/nvidia-cap{minor}\n");
        let whole = described_by(&[&specification(3, &(cap(12) + &cap(13)))]);
        let access = root.access(&gpu(), Some(&instance), &whole).unwrap();
        assert_eq!(access, Access::Reference("nvidia.com/gpu=GPU-1".to_owned()));
        let other = described_by(&[&specification(3, &(cap(12) + &cap(14)))]);
        assert!(matches!(root.access(&gpu(), Some(&instance), &other).unwrap(), Access::Nodes(_)));
    }
}
