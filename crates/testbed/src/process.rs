//! Child processes that cannot outlive the test.
//!
//! Each is the leader of a process group, which is killed when its [`Process`] is dropped. For a test
//! process that is killed before it can drop anything, `setpriv` asks the kernel to kill the child
//! when its parent *thread* ends (prctl(2), `PR_SET_PDEATHSIG`). Test threads end early, so children are
//! started by one thread that lives as long as the test process.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::Error;

const LOG_LINES: usize = 40;
const POLL: Duration = Duration::from_millis(25);

/// What is to be started.
pub(crate) struct Program<'a> {
    /// Its name in messages and of its log file.
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Where it runs and writes its log.
    pub(crate) directory: &'a Path,
    /// Runs as this user instead of ours.
    pub(crate) user: Option<&'static str>,
    /// What makes it end quickly and cleanly; it is killed when that takes too long.
    pub(crate) stop: Signal,
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    stop: Signal,
}

impl Process {
    pub(crate) fn start(program: Program<'_>) -> Result<Self, Error> {
        let log = program.directory.join(format!("{}.log", program.name));
        let output = File::create(&log).map_err(Error::file("write", &log))?;
        let errors = output.try_clone().map_err(Error::file("write", &log))?;

        let mut command = command_as(program.user, &program.path);
        command
            .args(&program.arguments)
            .envs(program.environment)
            .env("HOME", program.directory)
            .current_dir(program.directory)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0);
        let child = start_on_lasting_thread(command)
            .map_err(|source| Error::Spawn { program: program.path.display().to_string(), source })?;
        Ok(Self { name: program.name, child, log, stop: program.stop })
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The error that tells how it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<Error> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(self.failed(&status.to_string()))
    }

    /// Whether this is in its output so far.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        self.output().contains(text)
    }

    /// Its output so far, standard output and error together.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The error of a program that runs and will never work.
    pub(crate) fn failed(&self, status: &str) -> Error {
        Error::Ended { program: self.name, status: status.to_owned(), log: self.last_lines() }
    }

    /// Waits until `probe` says yes; fails as soon as the program ends, or after `within`.
    pub(crate) async fn wait_until(
        &mut self,
        within: Duration,
        mut probe: impl AsyncFnMut() -> bool,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(error) = self.ended() {
                return Err(error);
            }
            if probe().await {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::NotReady { program: self.name, within, log: self.last_lines() });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn last_lines(&self) -> String {
        let text = self.output();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn wait_briefly(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Not yet waited for, so the number still belongs to this child.
            let group = Pid::from_child(&self.child);
            if self.stop != Signal::KILL {
                let _ = kill_process_group(group, self.stop);
                self.wait_briefly(Duration::from_secs(5));
            }
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// A command that is killed with its parent thread and sees nothing of our environment but the PATH:
/// proxies, `PG*` and `KUBECONFIG` of a developer must not reach it.
pub(crate) fn command_as(user: Option<&str>, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = user {
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--init-groups"]);
    }
    command.arg("--").arg(program).env_clear().env("LC_ALL", "C.UTF-8");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

type Request = (Command, mpsc::Sender<io::Result<Child>>);

fn start_on_lasting_thread(command: Command) -> io::Result<Child> {
    static STARTER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, reply) in requests {
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let gone = || io::Error::other("the thread that starts programs has ended");
    let (reply, answer) = mpsc::channel();
    starter.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, directory: &Path) -> Process {
        Process::start(Program {
            name: "shell",
            path: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            environment: Vec::new(),
            directory,
            user: None,
            stop: Signal::KILL,
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_program_that_ends_early_is_told_with_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell("echo 'unknown flag' >&2; exit 3", directory.path());
        let error = process.wait_until(Duration::from_mins(1), async || false).await.unwrap_err();
        assert_eq!(error.code(), "testbed.ended");
        assert!(
            error.to_string().contains("exit status: 3") && error.to_string().contains("unknown flag"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_program_that_never_answers_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell("exec sleep 600", directory.path());
        let error = process.wait_until(Duration::ZERO, async || false).await.unwrap_err();
        assert_eq!(error.code(), "testbed.not-ready");
    }

    #[test]
    fn a_program_outlives_the_thread_that_asked_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().to_path_buf();
        // It says so when it is there; the kernel sends the signal when the thread ends, before `join` returns.
        let mut process = thread::spawn(move || shell("exec sleep 600", &here)).join().unwrap();
        assert!(process.ended().is_none());
    }

    #[test]
    fn a_dropped_program_takes_its_children_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell("sleep 600 & echo $!; wait", directory.path());
        let child = loop {
            assert!(process.ended().is_none());
            let said = std::fs::read_to_string(directory.path().join("shell.log")).unwrap();
            if said.ends_with('\n') {
                break said.trim().to_owned();
            }
            thread::yield_now();
        };
        drop(process);
        // Gone, or dead and waiting for whoever adopts orphans here; dying takes the kernel a moment.
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") {
                break;
            }
            assert!(Instant::now() < deadline, "{state}");
            thread::yield_now();
        }
    }
}
