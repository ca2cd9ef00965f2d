//! Running kubectl, and the kubeconfig files that it and other clients take.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::Error;
use crate::pki::Identity;
use crate::process::command_as;

/// What a command left behind, whether it succeeded or not: a refusal is often what a test wants.
#[derive(Clone, Debug)]
pub struct Output {
    command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output of a command that succeeded; the error says how it failed otherwise.
    pub fn success(self) -> Result<String, Error> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        Err(Error::Command { command: self.command, status: self.status.to_string(), stderr: self.stderr })
    }
}

/// Runs a program to its end, with `stdin` if any, in an environment of its own.
pub(crate) async fn run(
    user: Option<&str>,
    program: &Path,
    arguments: &[&str],
    home: &Path,
    stdin: Option<&str>,
) -> Result<Output, Error> {
    let spawn_error = |source| Error::Spawn { program: program.display().to_string(), source };
    let mut command = command_as(user, program);
    command
        .args(arguments)
        .env("HOME", home)
        .current_dir(home)
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = Command::from(command).kill_on_drop(true).spawn().map_err(spawn_error)?;
    let input = child.stdin.take();
    let feed = async {
        if let (Some(mut input), Some(text)) = (input, stdin) {
            // A program that ends without reading closes the pipe; its status tells more than that.
            let _ = input.write_all(text.as_bytes()).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output.map_err(spawn_error)?;
    Ok(Output {
        command: format!(
            "{} {}",
            program.file_name().unwrap_or_default().to_string_lossy(),
            arguments.join(" ")
        ),
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Writes a kubeconfig with everything inside it, readable by this user alone.
pub(crate) fn write_kubeconfig(
    path: &Path,
    server: &str,
    authority_pem: &str,
    identity: &Identity,
) -> Result<PathBuf, Error> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "testbed", "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(authority_pem),
        }}],
        "users": [{ "name": "client", "user": {
            "client-certificate-data": STANDARD.encode(&identity.certificate_pem),
            "client-key-data": STANDARD.encode(identity.key_pem()),
        }}],
        "contexts": [{ "name": "testbed", "context": { "cluster": "testbed", "user": "client" } }],
        "current-context": "testbed",
    });
    write_private(path, &format!("{config:#}\n"))?;
    Ok(path.to_path_buf())
}

/// Writes a file that this user alone can read.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<(), Error> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .map_err(Error::file("write", path))
}
