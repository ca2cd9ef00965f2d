//! Configurations such as the tools of each distribution leave them.

use super::*;

/// Files of a host, and for each way past us the end of its place and a word of its text.
struct Case {
    files: &'static [(&'static str, &'static str)],
    wanted: &'static [(&'static str, &'static str)],
}

const RUNC: &str = r#"
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    BinaryName = "/usr/bin/runc"
"#;

const CASES: &[Case] = &[
    Case {
        files: &[("etc/containerd/config.toml", RUNC), ("kubelet/device-plugins/kubelet.sock", "")],
        wanted: &[],
    },
    Case {
        files: &[(
            "etc/containerd/config.toml",
            "# default_runtime_name = \"nvidia\"\n#BinaryName = \"/usr/bin/nvidia-container-runtime\"\n",
        )],
        wanted: &[],
    },
    // As `nvidia-ctk runtime configure --set-as-default` leaves it.
    Case {
        files: &[(
            "etc/containerd/config.toml",
            r#"
version = 2
[plugins]
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "nvidia"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
        BinaryName = "/usr/bin/nvidia-container-runtime" # theirs
"#,
        )],
        wanted: &[
            ("containerd/config.toml", "every container"),
            ("containerd/config.toml", "handler nvidia,"),
        ],
    },
    // Not the default, and by another name: a pod may choose it.
    Case {
        files: &[(
            "etc/containerd/config.toml",
            r"
version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'gpu-legacy'.options]
  BinaryName = '/usr/local/nvidia/toolkit/nvidia-container-runtime.legacy'
",
        )],
        wanted: &[("containerd/config.toml", "handler gpu-legacy,")],
    },
    // In a file that the first imports, or that lies where the toolkit of NVIDIA's operator puts it.
    Case {
        files: &[
            (
                "etc/containerd/config.toml",
                "version = 2\nimports = [\n  \"/opt/gpu/*.toml\", # more\n  'beside.toml',\n]\n",
            ),
            ("opt/gpu/10-runc.toml", RUNC),
            (
                "opt/gpu/99-nvidia.toml",
                "imports = [\"/opt/deeper/x.toml\"]\n[plugins.x.containerd.runtimes.nvidia.options]\nBinaryName = \"nvidia-container-runtime\"",
            ),
            ("opt/gpu/readme.txt", "nvidia-container-runtime"),
            (
                "opt/deeper/x.toml",
                "default_runtime_name = \"nvidia\"\nimports = [\"/opt/gpu/99-nvidia.toml\"]",
            ),
            (
                "etc/containerd/beside.toml",
                "[plugins.x.containerd.runtimes.cdi.options]\nBinaryName = \"/usr/bin/nvidia-container-runtime.cdi\"",
            ),
            (
                "etc/containerd/conf.d/99-nvidia.toml",
                "[plugins.x.containerd.runtimes.nvidia.options]\nBinaryName = \"/x/nvidia-container-runtime\"",
            ),
        ],
        wanted: &[
            ("etc/containerd/beside.toml", "handler cdi,"),
            ("etc/containerd/conf.d/99-nvidia.toml", "handler nvidia,"),
            ("opt/deeper/x.toml", "every container"),
            ("opt/gpu/99-nvidia.toml", "handler nvidia,"),
        ],
    },
    // k3s finds the runtime by itself and writes it down; its templates are no TOML.
    Case {
        files: &[
            (
                "var/lib/rancher/k3s/agent/etc/containerd/config.toml",
                "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.\"nvidia\"]\n  runtime_type = \"io.containerd.runc.v2\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.\"nvidia\".options]\n  BinaryName = \"/usr/bin/nvidia-container-runtime\"\n  SystemdCgroup = true\n",
            ),
            (
                "var/lib/rancher/rke2/agent/etc/containerd/config.toml.tmpl",
                "{{ template \"base\" . }}\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  default_runtime_name = \"nvidia\"\n",
            ),
            (
                "var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.d/gpu.toml",
                "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia.options]\n  BinaryName = \"/usr/bin/nvidia-container-runtime\"",
            ),
        ],
        wanted: &[
            ("k3s/agent/etc/containerd/config.toml", "handler nvidia,"),
            ("rke2/agent/etc/containerd/config-v3.toml.d/gpu.toml", "handler nvidia,"),
            ("rke2/agent/etc/containerd/config.toml.tmpl", "every container"),
        ],
    },
    Case {
        files: &[
            (
                "etc/crio/crio.conf.d/99-nvidia.conf",
                "[crio]\n  [crio.runtime]\n    default_runtime = \"nvidia\"\n    [crio.runtime.runtimes]\n      [crio.runtime.runtimes.nvidia]\n        runtime_path = \"/usr/bin/nvidia-container-runtime\"\n        runtime_type = \"oci\"\n",
            ),
            (
                "etc/docker/daemon.json",
                "{\n  \"default-runtime\": \"nvidia\",\n  \"runtimes\": {\n    \"nvidia\": {\n      \"args\": [],\n      \"path\": \"nvidia-container-runtime\"\n    }\n  }\n}",
            ),
        ],
        wanted: &[
            ("99-nvidia.conf", "every container"),
            ("99-nvidia.conf", "handler nvidia,"),
            ("daemon.json", "every container"),
            ("daemon.json", "handler nvidia,"),
        ],
    },
    Case {
        files: &[
            ("usr/share/containers/oci/hooks.d/oci-nvidia-hook.json", "{}"),
            ("kubelet/device-plugins/nvidia-gpu.sock", ""),
        ],
        wanted: &[("oci-nvidia-hook.json", "a hook"), ("nvidia-gpu.sock", "device plugin")],
    },
];

#[test]
fn each_way_past_the_claims_is_a_problem_of_its_own() {
    for case in CASES {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in case.files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = found(root.path(), &root.path().join("kubelet"));
        let told: Vec<_> =
            found.iter().map(|problem| (problem.at.clone().unwrap(), &problem.message)).collect();
        assert_eq!(told.len(), case.wanted.len(), "{told:#?}");
        for ((place, message), (wanted, word)) in told.iter().zip(case.wanted) {
            assert!(place.ends_with(wanted) && message.contains(word), "{wanted}, {word}: {told:#?}");
        }
    }
}

#[test]
fn a_docker_configuration_on_one_line_names_its_runtime_too() {
    let text = r#"{"runtimes":{"nvidia":{"path":"/usr/bin/nvidia-container-runtime"}}}"#;
    assert_eq!(configured(text).handlers.len(), 1);
}
