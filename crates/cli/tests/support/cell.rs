//! A cell as `bailiwick serve` runs it.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use super::{Desk, Run};

/// A running cell with a desk beside it.
pub struct Served {
    pub desk: Desk,
    pub server: String,
    pub token_file: PathBuf,
    pub child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Served {
    /// A new cell for the jurisdiction `eu`.
    pub async fn start() -> Self {
        let desk = Desk::new();
        let words = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--jurisdiction",
            "eu",
            "--data-dir",
            "data",
            "--log-level",
            "warn",
        ];
        let (command, token_file) = (desk.command(&words), desk.path("data/admin.token"));
        Self::of(desk, command, token_file).await
    }

    /// A cell that this command serves.
    pub async fn of(desk: Desk, mut command: Command, token_file: PathBuf) -> Self {
        let (child, server, log) = super::serving(&mut command).await;
        Self { desk, server, token_file, child, log }
    }

    /// The next line that it says.
    pub async fn said(&mut self) -> String {
        self.log.next_line().await.unwrap().expect("it ended")
    }

    /// A command that knows this cell.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.desk.command(words);
        command.env("BAILIWICK_SERVER", &self.server).env("BAILIWICK_TOKEN_FILE", &self.token_file);
        command
    }

    pub async fn run(&self, words: &[&str]) -> Run {
        Run::of(self.command(words).output().await.unwrap())
    }

    /// Runs `get machines --watch` until every machine is enrolled.
    pub async fn until_enrolled(&self, names: &[&str]) {
        let mut child = self.command(&["get", "machines", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = names.to_vec();
        while !left.is_empty() {
            let line = lines.next_line().await.unwrap().expect("the list ended early");
            let words: Vec<&str> = line.split_whitespace().collect();
            left.retain(|name| !(words.first() == Some(name) && words.get(1) == Some(&"enrolled")));
        }
        child.kill().await.unwrap();
    }

    /// Asks it to end; tells how it ended and what it said meanwhile.
    pub async fn end(mut self) -> (i32, String) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut said = String::new();
        while let Some(line) = self.log.next_line().await.unwrap() {
            said += &line;
            said.push('\n');
        }
        (self.child.wait().await.unwrap().code().unwrap_or(-1), said)
    }
}
