//! sushy-emulator: a Redfish BMC that nobody here wrote, with the links missing that it lacks by itself
//! (its systems have no Processors).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::https::{Client, on_free_port};
use crate::kubectl::write_private;
use crate::passwords::{new_password, write_passwords};
use crate::pki::Identity;
use crate::process::{Process, Program};
use crate::{Error, Part};

const USERNAME: &str = "testbed";
const START_WITHIN: Duration = Duration::from_mins(1);

/// The systems that the emulator shows, as `(UUID, name, MAC address)`.
const SYSTEMS: [(&str, &str, &str); 2] = [
    ("4f2b7a90-6f0e-4e35-9a53-6f1d8c0a1e01", "fake-1", "02:00:5e:10:00:01"),
    ("4f2b7a90-6f0e-4e35-9a53-6f1d8c0a1e02", "fake-2", "02:00:5e:10:00:02"),
];

/// A running emulator over HTTPS with Basic authentication; dropping it stops it.
#[derive(Debug)]
pub struct SushyEmulator {
    // Dropped in this order: the server before its files.
    _process: Process,
    address: SocketAddr,
    password: String,
    certificate_pem: String,
    _directory: TempDir,
}

impl SushyEmulator {
    /// Starts an emulator with two systems, a certificate of its own and a new password.
    pub async fn start() -> Result<Self, Error> {
        let programs = Part::SushyTools.programs().await?;
        let directory = tempfile::Builder::new()
            .prefix("bailiwick-sushy-")
            .tempdir()
            .map_err(Error::file("make", "a temporary directory"))?;
        let here = directory.path();
        let identity = Identity::self_signed_server("sushy-emulator")?;
        let password = new_password();
        write_private(&here.join("server.pem"), &identity.certificate_pem)?;
        write_private(&here.join("server.key"), &identity.key_pem())?;
        let python = programs.join("../venv/bin/python");
        write_passwords(&python, &here.join("passwords"), USERNAME, &password).await?;
        let (process, port) = start_server(&programs, here, &identity).await?;
        Ok(Self {
            _process: process,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            password,
            certificate_pem: identity.certificate_pem,
            _directory: directory,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The one user that it knows.
    pub fn username(&self) -> &'static str {
        USERNAME
    }

    /// The user's password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The self-signed certificate that it shows.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The UUIDs of its systems.
    pub fn system_uuids(&self) -> impl Iterator<Item = &'static str> {
        SYSTEMS.into_iter().map(|(uuid, ..)| uuid)
    }
}

async fn start_server(
    programs: &Path,
    directory: &Path,
    identity: &Identity,
) -> Result<(Process, u16), Error> {
    let client = Client::new(identity.certificate.clone(), None)?;
    on_free_port(async |port| {
        let configuration = write_configuration(directory, port)?;
        let mut process = Process::start(Program {
            name: "sushy-emulator",
            path: programs.join("sushy-emulator"),
            arguments: vec!["--config".to_owned(), configuration.display().to_string()],
            environment: vec![
                ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
                ("TMPDIR", directory.display().to_string()),
            ],
            directory,
            user: None,
            stop: Signal::KILL,
        })?;
        // The service root answers without credentials.
        process.wait_until(START_WITHIN, async || client.answers(port, "/redfish/v1/").await).await?;
        Ok(process)
    })
    .await
}

/// The configuration is a Python file; JSON's strings and lists are Python's too.
fn write_configuration(directory: &Path, port: u16) -> Result<PathBuf, Error> {
    let systems: Vec<_> = SYSTEMS
        .into_iter()
        .map(|(uuid, name, mac)| {
            json!({ "uuid": uuid, "name": name, "power_state": "Off", "nics": [{ "mac": mac, "ip": "192.0.2.10" }] })
        })
        .collect();
    let file = |name: &str| json!(directory.join(name).display().to_string());
    let text = format!(
        "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\n\
         SUSHY_EMULATOR_LISTEN_PORT = {port}\n\
         SUSHY_EMULATOR_SSL_CERT = {}\n\
         SUSHY_EMULATOR_SSL_KEY = {}\n\
         SUSHY_EMULATOR_AUTH_FILE = {}\n\
         SUSHY_EMULATOR_STATE_DIR = {}\n\
         SUSHY_EMULATOR_FAKE_DRIVER = True\n\
         SUSHY_EMULATOR_FAKE_SYSTEMS = {}\n",
        file("server.pem"),
        file("server.key"),
        file("passwords"),
        file(""),
        json!(systems),
    );
    let path = directory.join("emulator.py");
    write_private(&path, &text)?;
    Ok(path)
}
