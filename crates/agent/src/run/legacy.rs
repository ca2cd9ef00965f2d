//! What else on this host hands out GPUs. Whoever asks that way passes by claims, permits and scrubs.

use domain::Problem;
use std::path::{Path, PathBuf};

const CODE: &str = "plugin.legacy-runtime";
const HINT: &str =
    "Take it off this host, or take the host out of the cell: devices are handed out by claims alone.";

/// Configurations of runtimes that can be told to put every container through NVIDIA's.
const RUNTIMES: [&str; 3] =
    ["etc/containerd/config.toml", "etc/docker/daemon.json", "etc/crio/crio.conf.d/99-nvidia.toml"];
/// What such a configuration says, without spaces.
const DEFAULT: [&str; 3] =
    ["default_runtime_name=\"nvidia\"", "\"default-runtime\":\"nvidia\"", "default_runtime=\"nvidia\""];
/// Hooks that run for every container and look at its environment.
const HOOKS: [&str; 2] = [
    "usr/share/containers/oci/hooks.d/oci-nvidia-hook.json",
    "etc/containers/oci/hooks.d/oci-nvidia-hook.json",
];

/// One problem for each way past us. `root` is the host's root directory, `kubelet` the kubelet's directory.
pub(super) fn found(root: &Path, kubelet: &Path) -> Vec<Problem> {
    let runtimes = RUNTIMES.iter().map(|name| root.join(name)).filter(|path| is_default(path));
    let hooks = HOOKS.iter().map(|name| root.join(name)).filter(|path| path.exists());
    let problem = |what: &'static str| {
        move |path: PathBuf| {
            Problem::new(CODE, format!("{what} ({})", path.display()))
                .hint(HINT)
                .at(path.display().to_string())
        }
    };
    runtimes
        .map(problem(
            "every container runs in NVIDIA's runtime, which gives GPUs to whoever asks by environment",
        ))
        .chain(hooks.map(problem("a hook gives GPUs to every container that asks by environment")))
        .chain(
            device_plugins(kubelet)
                .into_iter()
                .map(problem("NVIDIA's device plugin hands out GPUs on this node too")),
        )
        .collect()
}

fn is_default(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let text: String = lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect();
    DEFAULT.iter().any(|wanted| text.contains(wanted))
}

fn device_plugins(kubelet: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(kubelet.join("device-plugins")).into_iter().flatten().flatten();
    let nvidia = |path: &PathBuf| {
        path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with("nvidia") && name.ends_with(".sock")
        })
    };
    entries.map(|entry| entry.path()).filter(nvidia).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_past_the_claims_is_a_problem_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let kubelet = root.path().join("kubelet");
        let put = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("etc/containerd/config.toml", "[x]\n# default_runtime_name = \"nvidia\"\n");
        put("kubelet/device-plugins/kubelet.sock", "");
        assert!(found(root.path(), &kubelet).is_empty());
        put("etc/containerd/config.toml", "[x]\n  default_runtime_name = \"nvidia\"\n");
        put("etc/docker/daemon.json", "{\n \"default-runtime\": \"nvidia\"\n}");
        put("usr/share/containers/oci/hooks.d/oci-nvidia-hook.json", "{}");
        put("kubelet/device-plugins/nvidia-gpu.sock", "");
        let places: Vec<_> =
            found(root.path(), &kubelet).into_iter().filter_map(|problem| problem.at).collect();
        let wanted = ["config.toml", "daemon.json", "oci-nvidia-hook.json", "nvidia-gpu.sock"];
        assert_eq!(places.len(), wanted.len(), "{places:?}");
        assert!(places.iter().zip(wanted).all(|(place, wanted)| place.ends_with(wanted)), "{places:?}");
    }
}
