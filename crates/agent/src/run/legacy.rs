//! What else on this host hands out GPUs. Whoever asks that way passes by claims, permits and scrubs.
//!
//! Configurations are searched and not parsed: templates of k3s are no TOML, and what counts is whether NVIDIA's runtime is named.

use domain::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const CODE: &str = "plugin.legacy-runtime";
const HINT: &str =
    "Take it off this host, or take the host out of the cell: devices are handed out by claims alone.";

/// Where container runtimes are configured, one row a runtime, for files of one may name what others define. A path that ends with a
/// slash is a directory of which every file counts.
const RUNTIMES: [&[&str]; 7] = [
    &["etc/containerd/config.toml", "etc/containerd/conf.d/"],
    // k3s and RKE2 write the first at each start, NVIDIA's runtime included where it is installed; the others are what it is made of.
    &[
        "var/lib/rancher/k3s/agent/etc/containerd/config.toml",
        "var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl",
        "var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl",
        "var/lib/rancher/k3s/agent/etc/containerd/config.toml.d/",
        "var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d/",
    ],
    &[
        "var/lib/rancher/rke2/agent/etc/containerd/config.toml",
        "var/lib/rancher/rke2/agent/etc/containerd/config.toml.tmpl",
        "var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.tmpl",
        "var/lib/rancher/rke2/agent/etc/containerd/config.toml.d/",
        "var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.d/",
    ],
    &["etc/k0s/containerd.toml", "etc/k0s/containerd.d/", "run/k0s/containerd-cri.toml"],
    &[
        "var/snap/microk8s/current/args/containerd.toml",
        "var/snap/microk8s/current/args/containerd-template.toml",
    ],
    &["etc/crio/crio.conf", "etc/crio/crio.conf.d/", "etc/crio/config.toml", "etc/crio/conf.d/"],
    &["etc/docker/daemon.json"],
];
/// How NVIDIA's runtimes are called: with `.cdi`, `.legacy` and the like behind it, too.
const RUNTIME: &str = "nvidia-container-runtime";
/// Keys that name the runtime of containers that ask for none: of containerd, Docker and CRI-O.
const DEFAULTS: [&str; 3] = ["default_runtime_name", "default-runtime", "default_runtime"];
/// Hooks that run for every container and look at its environment.
const HOOKS: [&str; 2] = [
    "usr/share/containers/oci/hooks.d/oci-nvidia-hook.json",
    "etc/containers/oci/hooks.d/oci-nvidia-hook.json",
];
/// Files that import files that import files.
const DEEPEST: usize = 4;
/// No configuration is larger.
const LARGEST: u64 = 1 << 20;

/// One problem for each way past us. `root` is the host's root directory, `kubelet` the kubelet's directory.
pub(super) fn found(root: &Path, kubelet: &Path) -> Vec<Problem> {
    let runtimes = RUNTIMES.iter().flat_map(|places| runtimes(root, places));
    let hooks = HOOKS.iter().map(|name| root.join(name)).filter(|path| path.exists());
    let hooks =
        hooks.map(|path| problem("a hook gives GPUs to every container that asks by environment", &path));
    let plugins = device_plugins(kubelet);
    let plugins =
        plugins.iter().map(|path| problem("NVIDIA's device plugin hands out GPUs on this node too", path));
    runtimes.chain(hooks).chain(plugins).collect()
}

fn problem(what: &str, path: &Path) -> Problem {
    Problem::new(CODE, format!("{what} ({})", path.display())).hint(HINT).at(path.display().to_string())
}

/// What the files of one runtime say together.
fn runtimes(root: &Path, places: &[&str]) -> Vec<Problem> {
    let mut files = BTreeMap::new();
    for place in places {
        let path = root.join(place);
        let all = if place.ends_with('/') { entries(&path, "*") } else { vec![path] };
        for path in all {
            read(root, &path, DEEPEST, &mut files);
        }
    }
    let named: BTreeSet<_> = files.values().flat_map(|file| file.handlers.iter().cloned()).collect();
    let problems = files.iter().flat_map(|(path, file)| {
        let is_theirs = |name: &&String| name.as_str() == "nvidia" || named.contains(*name);
        let default = file.default.as_ref().filter(is_theirs).map(|name| {
            format!(
                "every container runs in NVIDIA's runtime ({name}), which gives GPUs to whoever asks by environment"
            )
        });
        let chosen = file.handlers.iter().map(|name| {
            format!(
                "a pod may choose NVIDIA's runtime by a RuntimeClass with the handler {name}, and then asks for GPUs by environment"
            )
        });
        default.into_iter().chain(chosen).map(|what| problem(&what, path)).collect::<Vec<_>>()
    });
    problems.collect()
}

/// What a configuration says of NVIDIA's runtime.
#[derive(Debug, Default, PartialEq, Eq)]
struct Configured {
    /// Names under which it can be asked for.
    handlers: BTreeSet<String>,
    /// The runtime of containers that ask for none.
    default: Option<String>,
    /// Other files that belong to it.
    imports: Vec<String>,
}

/// Reads a file, and what it imports, unless that was read already.
fn read(root: &Path, path: &Path, depth: usize, files: &mut BTreeMap<PathBuf, Configured>) {
    let is_small = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= LARGEST);
    if files.contains_key(path) || !is_small {
        return;
    }
    let configured = configured(&String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()));
    let imports = configured.imports.clone();
    files.insert(path.to_owned(), configured);
    if depth == 0 {
        return;
    }
    for import in imports {
        // An absolute path is one of the host.
        let import = match import.strip_prefix('/') {
            Some(below) => root.join(below),
            None => path.parent().unwrap_or(root).join(&import),
        };
        let (Some(directory), Some(name)) = (import.parent(), import.file_name()) else { continue };
        for imported in entries(directory, &name.to_string_lossy()) {
            read(root, &imported, depth - 1, files);
        }
    }
}

/// The files of a directory with names like this, in which one `*` stands for anything.
fn entries(directory: &Path, pattern: &str) -> Vec<PathBuf> {
    let (head, tail) = pattern.split_once('*').unwrap_or((pattern, ""));
    let fits = |name: &str| {
        name == pattern
            || pattern.contains('*')
                && name.len() >= head.len() + tail.len()
                && name.starts_with(head)
                && name.ends_with(tail)
    };
    let all = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut all: Vec<_> =
        all.filter(|entry| fits(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect();
    all.sort();
    all
}

fn configured(text: &str) -> Configured {
    let mut configured = Configured::default();
    // Tables of TOML and keys of JSON: the last that may be a runtime's name.
    let mut handler = String::new();
    let mut importing = false;
    for line in text.lines().map(without_comment) {
        if let Some(name) = runtime_of(line) {
            handler = name;
        }
        let key = line.split(['=', ':']).next().unwrap_or_default().trim().trim_matches('"');
        if DEFAULTS.contains(&key) {
            configured.default =
                strings(line).into_iter().find(|text| !DEFAULTS.contains(text)).map(str::to_owned);
        }
        importing |= key == "imports";
        if importing {
            configured.imports.extend(strings(line).into_iter().map(str::to_owned));
            importing = !line.contains(']');
            continue;
        }
        if strings(line).iter().any(|text| is_runtime(text)) {
            configured.handlers.insert(handler.clone());
        }
    }
    configured
}

/// Whether a program is NVIDIA's runtime.
fn is_runtime(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or_default();
    name.strip_prefix(RUNTIME).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The runtime that a line begins to define: `[plugins.….runtimes.NAME.options]`, `[crio.runtime.runtimes.NAME]`, `"NAME": {`.
fn runtime_of(line: &str) -> Option<String> {
    let line = line.trim();
    let bare = |name: &str| name.trim_matches(['"', '\'', '[', ']', ' ']).to_owned();
    if line.starts_with('[') {
        let name = line.split_once("runtimes.")?.1.split('.').next()?;
        return Some(bare(name));
    }
    let (name, rest) = line.split_once(':')?;
    let name = bare(name.rsplit('{').next()?);
    (rest.trim_start().starts_with('{') && name != "runtimes").then_some(name)
}

/// What stands before a `#` that is in no string.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') => return &line[..at],
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    line
}

/// The strings of a line, in either kind of quotes.
fn strings(line: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.find(['"', '\'']) {
        let quote = if rest[start..].starts_with('"') { '"' } else { '\'' };
        let Some(length) = rest[start + 1..].find(quote) else { break };
        all.push(&rest[start + 1..start + 1 + length]);
        rest = &rest[start + length + 2..];
    }
    all
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
mod tests;
