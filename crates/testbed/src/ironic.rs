//! Ironic, OpenStack's bare metal service: API and conductor in one process, SQLite, no other service of
//! OpenStack. What it publishes for BMCs, and images for machines, come from a static file server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::https::{Client, on_free_port};
use crate::images::{iso9660, raw_disk};
use crate::kubectl::write_private;
use crate::passwords::{new_password, write_passwords};
use crate::process::{Process, Program};
use crate::{Error, Part};

const USERNAME: &str = "testbed";
const START_WITHIN: Duration = Duration::from_mins(2);
/// The master says so and starts the worker again, for ever.
const WORKER_ENDED: &str = "exited with status";

/// What Ironic's own defaults make slow for a test, or impossible without other services.
const SETTINGS: &[(&str, &[(&str, &str)])] = &[
    (
        "DEFAULT",
        &[
            ("rpc_transport", "none"),
            ("enabled_hardware_types", "redfish,ipmi,fake-hardware"),
            ("enabled_bios_interfaces", "redfish,no-bios,fake"),
            ("enabled_boot_interfaces", "redfish-virtual-media,ipxe,pxe,fake"),
            ("enabled_console_interfaces", "no-console"),
            ("enabled_deploy_interfaces", "direct,ramdisk,custom-agent,fake"),
            ("enabled_firmware_interfaces", "redfish,no-firmware,fake"),
            ("enabled_inspect_interfaces", "agent,redfish,no-inspect,fake"),
            ("enabled_management_interfaces", "redfish,ipmitool,noop,fake"),
            ("enabled_network_interfaces", "noop"),
            ("enabled_power_interfaces", "redfish,ipmitool,fake"),
            ("enabled_raid_interfaces", "redfish,agent,no-raid,fake"),
            ("enabled_rescue_interfaces", "no-rescue"),
            ("enabled_storage_interfaces", "noop"),
            ("enabled_vendor_interfaces", "redfish,ipmitool,no-vendor,fake"),
            ("default_inspect_interface", "agent"),
            ("default_network_interface", "noop"),
            // A worker whose master is killed ends by itself, after so many seconds.
            ("graceful_shutdown_timeout", "1"),
            ("minimum_memory_warning_only", "true"),
        ],
    ),
    (
        "conductor",
        &[
            ("send_sensor_data", "false"),
            ("sync_power_state_interval", "5"),
            ("power_failure_recovery_interval", "5"),
            ("check_provision_state_interval", "5"),
        ],
    ),
    (
        "deploy",
        &[
            ("default_boot_mode", "uefi"),
            ("erase_devices_priority", "0"),
            ("erase_devices_metadata_priority", "10"),
            ("fast_track", "false"),
        ],
    ),
    ("dhcp", &[("dhcp_provider", "none")]),
    ("inspector", &[("require_managed_boot", "true")]),
    (
        "agent",
        &[
            // Simulated agents answer without TLS, on loopback.
            ("require_tls", "false"),
            ("deploy_logs_collect", "never"),
            ("command_wait_interval", "1"),
            ("post_deploy_get_power_state_retry_interval", "1"),
        ],
    ),
    (
        "redfish",
        &[
            ("use_swift", "false"),
            ("connection_retry_interval", "1"),
            ("post_boot_retry_delay", "1"),
            ("power_on_conflict_retry_interval", "1"),
            ("vmedia_insert_poll_interval", "1"),
        ],
    ),
    ("ipmi", &[("min_command_interval", "1")]),
];

/// What its Python runs first. At every call to a BMC its `redfish` driver derives the key of the session from the password anew,
/// with 600,000 rounds (`SessionCache` in ironic/drivers/modules/redfish/utils.py): half a second of CPU, most of what it then does.
/// What was derived once is remembered.
const SITE_CUSTOMIZE: &str = "\
import functools
import hashlib

hashlib.pbkdf2_hmac = functools.lru_cache(maxsize=None)(hashlib.pbkdf2_hmac)
";

/// How an [`Ironic`] is started. Without authentication or automated cleaning, unless told otherwise.
#[derive(Clone, Debug, Default)]
pub struct IronicOptions {
    http_basic: bool,
    automated_clean: bool,
    debug: bool,
    settings: Vec<(String, String, String)>,
}

impl IronicOptions {
    /// Whether the API wants a user and a password (`auth_strategy=http_basic`).
    #[must_use]
    pub fn http_basic(mut self, wanted: bool) -> Self {
        self.http_basic = wanted;
        self
    }

    /// Whether machines are cleaned (metadata of disks) before they become available, where a node
    /// does not say otherwise. It needs an agent that answers.
    #[must_use]
    pub fn automated_clean(mut self, wanted: bool) -> Self {
        self.automated_clean = wanted;
        self
    }

    /// Whether the log tells every request and step.
    #[must_use]
    pub fn debug(mut self, wanted: bool) -> Self {
        self.debug = wanted;
        self
    }

    /// Any setting of `ironic.conf`; the last one given for a name holds, before what the testbed sets by
    /// itself.
    #[must_use]
    pub fn setting(mut self, section: &str, name: &str, value: &str) -> Self {
        self.settings.push((section.to_owned(), name.to_owned(), value.to_owned()));
        self
    }

    /// Starts Ironic and its file server and waits until the API and the conductor answer.
    pub async fn start(self) -> Result<Ironic, Error> {
        let programs = Part::Ironic.programs().await?;
        let directory = tempfile::Builder::new()
            .prefix("bailiwick-ironic-")
            .tempdir()
            .map_err(Error::file("make", "a temporary directory"))?;
        let here = directory.path();
        let image_sha256 = write_files(&programs, here)?;
        let password = self.http_basic.then(new_password);
        if let Some(password) = &password {
            let python = programs.join("../venv/bin/python");
            write_passwords(&python, &here.join("passwords"), USERNAME, password).await?;
        }
        let (files, files_port) = start_files(&programs, here).await?;
        let (process, port) = on_free_port(async |port| {
            self.start_on(&programs, here, port, files_port, password.as_deref()).await
        })
        .await?;
        Ok(Ironic {
            process: Some(process),
            _files: files,
            url: format!("http://127.0.0.1:{port}"),
            port,
            files_port,
            password,
            image_sha256,
            options: self,
            programs,
            directory,
        })
    }

    async fn start_on(
        &self,
        programs: &Path,
        directory: &Path,
        port: u16,
        files_port: u16,
        password: Option<&str>,
    ) -> Result<Process, Error> {
        // Ironic tells its host's name to whoever asks: so the one that answers is this one.
        let host = format!("testbed-{}", new_password());
        let configuration = directory.join("ironic.conf");
        write_private(&configuration, &self.configuration(directory, &host, port, files_port))?;
        let mut process = Process::start(Program {
            name: "ironic",
            path: programs.join("ironic"),
            arguments: vec!["--config-file".to_owned(), configuration.display().to_string()],
            environment: vec![
                ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
                // Says at every start that it is deprecated.
                ("PYTHONWARNINGS", "ignore".to_owned()),
                ("TMPDIR", directory.display().to_string()),
                ("PYTHONPATH", directory.join("python").display().to_string()),
                // At each connection to a BMC it would load all authorities that the system trusts. The tests' servers have
                // certificates of their own making.
                ("SSL_CERT_FILE", "/dev/null".to_owned()),
                ("SSL_CERT_DIR", directory.join("state").display().to_string()),
            ],
            directory,
            user: None,
            stop: Signal::KILL,
        })?;
        let client = Client::plain()?;
        let user = password.map(|password| (USERNAME, password));
        // Empty of drivers until the conductor has registered.
        let drivers = format!("http://127.0.0.1:{port}/v1/drivers");
        let log = directory.join("ironic.log");
        process
            .wait_until(START_WITHIN, async || {
                client.text(&drivers, user).await.is_some_and(|text| text.contains(&host))
                    || std::fs::read_to_string(&log).is_ok_and(|text| text.contains(WORKER_ENDED))
            })
            .await?;
        if process.has_said(WORKER_ENDED) {
            return Err(process.failed("its worker"));
        }
        Ok(process)
    }

    fn configuration(&self, directory: &Path, host: &str, port: u16, files_port: u16) -> String {
        let path = |name: &str| directory.join(name).display().to_string();
        let own = |section: &str, name: &str, value: String| (section.to_owned(), name.to_owned(), value);
        let url = format!("http://127.0.0.1:{port}");
        let strategy = if self.http_basic { "http_basic" } else { "noauth" };
        let mut settings: Vec<(String, String, String)> = SETTINGS
            .iter()
            .flat_map(|(section, settings)| {
                settings.iter().map(move |(name, value)| own(section, name, (*value).to_owned()))
            })
            .collect();
        settings.extend([
            own("DEFAULT", "auth_strategy", strategy.to_owned()),
            own("DEFAULT", "http_basic_auth_user_file", path("passwords")),
            own("DEFAULT", "debug", self.debug.to_string()),
            own("DEFAULT", "host", host.to_owned()),
            own("DEFAULT", "state_path", path("state")),
            own("DEFAULT", "tempdir", path("state")),
            // One writer at a time: the others wait. A file that goes with the test need not outlive a power cut.
            own("database", "connection", format!("sqlite:///{}?timeout=60", path("ironic.sqlite"))),
            own("database", "sqlite_synchronous", "false".to_owned()),
            own("api", "host_ip", "127.0.0.1".to_owned()),
            own("api", "port", port.to_string()),
            own("service_catalog", "auth_type", "none".to_owned()),
            own("service_catalog", "endpoint_override", url),
            own("conductor", "automated_clean", self.automated_clean.to_string()),
            own("deploy", "http_root", path("http")),
            own("deploy", "http_url", format!("http://127.0.0.1:{files_port}")),
            own("pxe", "tftp_root", path("tftp")),
            own("pxe", "images_path", path("state/images")),
            // Otherwise below /var/lib/ironic and /tftpboot.
            own("pxe", "instance_master_path", String::new()),
            own("pxe", "tftp_master_path", String::new()),
        ]);
        settings.extend(self.settings.iter().cloned());
        ini(&settings)
    }
}

/// The settings by section, in order of name; the last one of each name.
fn ini(settings: &[(String, String, String)]) -> String {
    let mut sections: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for (section, name, value) in settings {
        sections.entry(section).or_default().insert(name, value);
    }
    let mut text = String::new();
    for (section, settings) in sections {
        text.extend(["[", section, "]\n"]);
        for (name, value) in settings {
            text.extend([name, " = ", value, "\n"]);
        }
    }
    text
}

/// A running Ironic; dropping it stops it and its file server and removes all files.
#[derive(Debug)]
pub struct Ironic {
    // Dropped in this order: servers before their files. `None` while it is stopped.
    process: Option<Process>,
    _files: Process,
    url: String,
    port: u16,
    files_port: u16,
    password: Option<String>,
    image_sha256: String,
    options: IronicOptions,
    programs: PathBuf,
    directory: TempDir,
}

impl Ironic {
    /// Starts Ironic without authentication or automated cleaning.
    pub async fn start() -> Result<Self, Error> {
        Self::options().start().await
    }

    /// To start one otherwise.
    pub fn options() -> IronicOptions {
        IronicOptions::default()
    }

    /// The address of its API, with scheme and port, without `/v1`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The user and the password that it wants; `None` when it wants none.
    pub fn credentials(&self) -> Option<(&'static str, &str)> {
        self.password.as_deref().map(|password| (USERNAME, password))
    }

    /// Files in this directory are served below [`images_url`](Self::images_url), to HEAD and GET.
    pub fn images_dir(&self) -> PathBuf {
        self.directory.path().join("http/images")
    }

    /// The address of the images, without a slash at its end.
    pub fn images_url(&self) -> String {
        format!("http://127.0.0.1:{}/images", self.files_port)
    }

    /// An ISO 9660 image whose volume identifier is `AGENT`: what a machine boots for inspection,
    /// cleaning and `direct` deploys.
    pub fn agent_iso_url(&self) -> String {
        format!("{}/agent.iso", self.images_url())
    }

    /// An ISO 9660 image whose volume identifier is `LIVE`: what a machine boots for good in `ramdisk`
    /// deploys.
    pub fn live_iso_url(&self) -> String {
        format!("{}/live.iso", self.images_url())
    }

    /// A raw disk image of 1 MiB.
    pub fn disk_image_url(&self) -> String {
        format!("{}/disk.raw", self.images_url())
    }

    /// The disk image's SHA-256, in hexadecimal digits.
    pub fn disk_image_sha256(&self) -> &str {
        &self.image_sha256
    }

    /// Its log so far, since it was started last.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.directory.path().join("ironic.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Kills it, as a power cut would; its database and its files stay. Nothing answers at its
    /// address until [`start_again`](Self::start_again).
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it on its database and at its address again, after [`kill`](Self::kill).
    pub async fn start_again(&mut self) -> Result<(), Error> {
        self.kill();
        let started = self.options.start_on(
            &self.programs,
            self.directory.path(),
            self.port,
            self.files_port,
            self.password.as_deref(),
        );
        self.process = Some(started.await?);
        Ok(())
    }
}

/// Makes the database, the directories and the images; returns the disk image's checksum.
fn write_files(programs: &Path, directory: &Path) -> Result<String, Error> {
    for name in ["state", "tftp", "python", "http/images"] {
        let path = directory.join(name);
        std::fs::create_dir_all(&path).map_err(Error::file("make", &path))?;
    }
    let schema = programs.join("../schema.sqlite");
    std::fs::copy(&schema, directory.join("ironic.sqlite")).map_err(Error::file("copy", &schema))?;
    write_private(&directory.join("python/sitecustomize.py"), SITE_CUSTOMIZE)?;
    let disk = raw_disk();
    let sha256 = hex::encode(Sha256::digest(&disk));
    for (name, content) in
        [("agent.iso", iso9660("AGENT")), ("live.iso", iso9660("LIVE")), ("disk.raw", disk)]
    {
        let path = directory.join("http/images").join(name);
        std::fs::write(&path, content).map_err(Error::file("write", &path))?;
    }
    Ok(sha256)
}

/// Python's own static file server. What it serves first proves whose it is.
async fn start_files(programs: &Path, directory: &Path) -> Result<(Process, u16), Error> {
    let proof = new_password();
    let file = directory.join("http/proof");
    write_private(&file, &proof)?;
    let client = Client::plain()?;
    on_free_port(async |port| {
        let root = directory.join("http").display().to_string();
        let arguments = ["-m", "http.server", "--bind", "127.0.0.1", "--directory", &root, &port.to_string()]
            .map(str::to_owned)
            .to_vec();
        let mut process = Process::start(Program {
            name: "file-server",
            path: programs.join("../venv/bin/python"),
            arguments,
            environment: vec![("PYTHONUNBUFFERED", "1".to_owned())],
            directory,
            user: None,
            stop: Signal::KILL,
        })?;
        let url = format!("http://127.0.0.1:{port}/proof");
        process
            .wait_until(START_WITHIN, async || {
                client.text(&url, None).await.is_some_and(|text| text == proof)
            })
            .await?;
        Ok(process)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_given_twice_is_written_once_with_its_last_value() {
        let given = |name: &str, value: &str| ("api".to_owned(), name.to_owned(), value.to_owned());
        let text = ini(&[given("port", "1"), given("host_ip", "::"), given("port", "2")]);
        assert_eq!(text, "[api]\nhost_ip = ::\nport = 2\n");
    }
}
