//! The agent as the systemd unit `manifests/agent/bailiwick-agent.service`. No systemd runs here: `systemd-analyze` reads the unit, and
//! the agent runs on the node as the unit says, in what systemd would put it in.

use crate::stage::{DRIVER_ROOT, Stage, claim, gpu, pod_of_claim};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use testbed::{Part, repository_root};

const AGENT: &str = env!("CARGO_BIN_EXE_bailiwick-agent");

fn unit() -> PathBuf {
    repository_root().join("manifests/agent/bailiwick-agent.service")
}

/// What a shell does before it becomes the service, and what it becomes.
#[derive(Default)]
struct Service {
    setup: Vec<String>,
    environment: Vec<String>,
    setpriv: Vec<String>,
    command: String,
}

impl Service {
    /// Nothing of the unit is passed over: a setting that is not known here may forbid what the agent needs, and fails the test.
    fn read(unit: &Path) -> Self {
        let mut service = Self::default();
        let text = std::fs::read_to_string(unit).unwrap();
        let (_, section) = text.split_once("[Service]\n").unwrap();
        let lines = section.lines().take_while(|line| !line.starts_with('['));
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line.split_once('=').unwrap();
            service.apply(key, value);
        }
        service
    }

    fn apply(&mut self, key: &str, value: &str) {
        let setup = match (key, value) {
            ("ExecStart", _) => {
                value.clone_into(&mut self.command);
                return;
            }
            ("Environment", _) => return self.environment.push(value.to_owned()),
            ("NoNewPrivileges", "yes") => return self.setpriv.push("--no-new-privs".to_owned()),
            // What systemd does when the service ends.
            ("Restart" | "RestartSec" | "RuntimeDirectoryPreserve", _) => return,
            ("RuntimeDirectory", _) => format!("mkdir -p /run/{value}"),
            ("StateDirectory", _) => format!("state=/var/lib/{value}; mkdir -p $state"),
            ("StateDirectoryMode", _) => format!("chmod {value} $state"),
            // systemd.exec(5).
            ("ProtectHome", "yes") => {
                "mkdir -p /run/user; for at in /home /root /run/user; do mount -t tmpfs -o ro,mode=000 tmpfs $at; done"
                    .to_owned()
            }
            ("PrivateTmp", "yes") => "for at in /tmp /var/tmp; do mount -t tmpfs tmpfs $at; done".to_owned(),
            _ => panic!("what does {key}={value} do to the agent?"),
        };
        self.setup.push(setup);
    }

    /// The agent on the node, which has it where the unit looks for it.
    fn agent(&self, stage: &Stage, more: &[&str]) -> Command {
        let program = self.command.split(' ').next().unwrap();
        let place = Path::new(program).parent().unwrap().display();
        let installed =
            format!("mount -t tmpfs tmpfs {place}; touch {program}; mount --bind {AGENT} {program}");
        self.restricted(stage, more, &installed, &self.command)
    }

    /// A command on the node in the place of the agent, after something else.
    fn restricted(&self, stage: &Stage, more: &[&str], first: &str, command: &str) -> Command {
        let run = format!("exec setpriv --pdeathsig KILL {} -- {command}", self.setpriv.join(" "));
        let script = [&["set -e".to_owned(), first.to_owned()], &self.setup[..], &[run]].concat().join("\n");
        let mut command = stage.node.command();
        command.args(["unshare", "--mount", "--propagation", "slave", "--", "env", "-i"]);
        command.args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
        command.args(&self.environment).args(more).args(["sh", "-c", &script]);
        command
    }
}

#[tokio::test]
async fn systemd_understands_the_whole_unit() {
    let analyze = Part::Systemd.programs().await.unwrap().join("systemd-analyze");
    // It looks whether the program is there.
    let installed =
        "mount -t tmpfs tmpfs /usr/local/bin; cp /bin/true /usr/local/bin/bailiwick-agent; exec \"$@\"";
    let verified = Command::new("unshare")
        .args(["--mount", "--", "sh", "-ec", installed, "sh"])
        .arg(analyze)
        .args(["verify", "--man=no"])
        .arg(unit())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}

/// The commands of the how-to that make a kubeconfig, for this stage's API server.
fn how_to(stage: &Stage, folder: &Path) -> String {
    let text = std::fs::read_to_string(repository_root().join("docs/how-to/hand-out-gpus.md")).unwrap();
    let (_, rest) = text.split_once("year at most:\n\n").unwrap();
    let (commands, _) = rest.split_once("\n\n").unwrap();
    std::fs::write(folder.join("ca.crt"), stage.plane.ca_pem()).unwrap();
    let manifests = repository_root().join("manifests").display().to_string();
    let ours = [
        (" manifests/", format!(" {manifests}/")),
        ("r1-u01", "node-1".to_owned()),
        ("https://api.example:6443", stage.plane.server_url().to_owned()),
    ];
    ours.iter().fold(commands.to_owned(), |commands, (theirs, ours)| {
        assert!(commands.contains(theirs), "{theirs}: {commands}");
        commands.replace(theirs, ours)
    })
}

/// Follows the how-to, and gives the kubeconfig that comes of it.
async fn kubeconfig(stage: &Stage) -> String {
    let folder = tempfile::tempdir().unwrap();
    let programs = Part::Kubernetes.programs().await.unwrap().display().to_string();
    let path = std::env::var("PATH").unwrap();
    let made = Command::new("sh")
        .args(["-euc", &how_to(stage, folder.path())])
        .env("PATH", format!("{programs}:{path}"))
        .env("KUBECONFIG", stage.plane.kubeconfig_admin())
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::read_to_string(folder.path().join("node-1.conf")).unwrap()
}

#[tokio::test]
async fn the_unit_hands_out_and_resets_gpus_with_the_rights_and_restrictions_that_it_names() {
    let mut stage = Stage::start().await;
    stage.permit(Duration::from_hours(1));
    std::fs::create_dir(stage.node.etc().join("kubernetes")).unwrap();
    let conf = stage.node.etc().join("kubernetes/bailiwick-agent.conf");
    std::fs::write(&conf, kubeconfig(&stage).await).unwrap();
    // What this host has elsewhere: device nodes of GPUs cannot be put into its /dev, nor programs into its /usr/bin.
    let elsewhere = [("DEV_ROOT", "dev"), ("NVIDIA_SMI", "usr/bin/nvidia-smi")]
        .map(|(name, path)| format!("BAILIWICK_{name}={DRIVER_ROOT}/{path}"));
    let service = Service::read(&unit());
    let command = service.agent(&stage, &elsewhere.each_ref().map(String::as_str));
    stage.run_agent(command);
    stage.publish_once_registered().await;
    stage.create(&claim("claimed")).await;
    stage.create(&pod_of_claim("claimed")).await;
    stage.until_running("claimed").await;

    // What it does for parts of GPUs and in scrubs: makes and opens device nodes, and sees what containers have open.
    let node = format!("{DRIVER_ROOT}/dev/nvidia-cap1");
    let needs = format!(
        "sh -ec 'mknod {node} c 1 3; : >{node}; rm {node}; chroot {DRIVER_ROOT} /bin/sh -c :
         for at in /proc/[0-9]*; do
           if grep -qs ^BAILIWICK_GPU $at/environ; then ls -l $at/fd $at/root/dev; exit; fi
         done; exit 1'"
    );
    let done = service.restricted(&stage, &[], ":", &needs).output().unwrap();
    let seen = [&done.stdout[..], &done.stderr].map(String::from_utf8_lossy).concat();
    assert!(done.status.success() && seen.contains("nvidiactl"), "{seen}");

    let [(_, devices)] = stage.held().try_into().unwrap();
    let index: usize = devices[0].strip_prefix("gpu-").unwrap().parse().unwrap();
    stage.delete_pod("claimed").await;
    assert_eq!(stage.reset(), [gpu(index)]);

    // It may do nothing else.
    for (verb, resource, allowed) in [
        ("get", "resourceclaims.resource.k8s.io", "yes"),
        ("list", "resourceclaims.resource.k8s.io", "no"),
        ("get", "secrets", "no"),
    ] {
        let answer = stage.plane.kubectl_as(&conf, &["auth", "can-i", verb, resource], None).await.unwrap();
        assert_eq!(answer.stdout.trim(), allowed, "{verb} {resource}: {}", answer.stderr);
    }
}
