//! Runs the built command, and simulated BMCs for it.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

pub mod cell;
pub mod stage;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use sim::ipmi::{IpmiBmc, IpmiMachine};
use sim::{Bmc, BmcBuilder, Model, RunningBmc};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

/// Where the machines of a test stand: site `lab` in `eu`. More documents may follow.
pub const PLACES: &str = "\
apiVersion: bailiwick.dev/v1alpha1
kind: Jurisdiction
metadata: {name: eu}
spec: {}
---
apiVersion: bailiwick.dev/v1alpha1
kind: LegalEntity
metadata: {name: acme}
spec: {legalName: Acme GmbH, country: DE}
---
apiVersion: bailiwick.dev/v1alpha1
kind: Site
metadata: {name: lab}
spec: {jurisdiction: eu, operator: acme, country: DE, bmcNetworks: [127.0.0.0/8]}
";

/// The command with an environment of its own: no context, no setting of the person who runs the tests.
pub fn bailiwick(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bailiwick"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BAILIWICK_") {
            command.env_remove(name);
        }
    }
    command.env("HOME", home).env("XDG_CONFIG_HOME", home.join("config")).env("NO_COLOR", "1");
    command.current_dir(home).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What a run printed and how it ended.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Fails unless it ended so; shows all of it then.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Fails unless it ended with this code and told of this problem.
    #[track_caller]
    pub fn refuses(self, code: i32, problem: &str) -> Self {
        assert!(self.stderr.contains(&format!("error[{problem}]")), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        self.ends(code)
    }
}

/// A directory with a password file, and the command run in it.
pub struct Desk {
    pub dir: tempfile::TempDir,
}

impl Desk {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let desk = Self { dir };
        desk.write("pw", "simulated\n");
        desk.write("wrong", "not-it\n");
        desk
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = bailiwick(self.dir.path());
        command.args(words);
        command
    }

    pub async fn run(&self, words: &[&str]) -> Run {
        Run::of(self.command(words).output().await.unwrap())
    }
}

/// A DGX H100 as the simulator models it.
pub fn dgx() -> BmcBuilder {
    Bmc::builder(Model::DgxH100.tree()).behaviour(Model::DgxH100.behaviour())
}

pub async fn start(builder: BmcBuilder) -> RunningBmc {
    builder.start().await.unwrap()
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// Starts what serves, and waits until it does: the process, where it serves, and what else it says. What nobody reads there keeps
/// it waiting once the pipe is full: see [`drain`].
pub async fn serving(command: &mut Command) -> (Child, String, Lines<BufReader<ChildStderr>>) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    loop {
        let line = said.next_line().await.unwrap().expect("it ended before it served");
        if let Some(serving) = line.strip_prefix("serving on ").or(line.strip_prefix("Serving on ")) {
            let server = serving.split(' ').next().unwrap().to_owned();
            return (child, server, said);
        }
    }
}

/// Reads what a process still says, until it ends.
pub fn drain(mut said: Lines<BufReader<ChildStderr>>) {
    tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
}

/// Presses Ctrl-C.
pub fn interrupt(child: &tokio::process::Child) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// A BMC without Redfish; its password is the one that a desk's password file holds.
pub async fn ipmi() -> IpmiBmc {
    IpmiBmc::start(IpmiMachine::new("admin", "simulated")).await.unwrap()
}

/// An address where nobody listens on TCP.
pub fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
