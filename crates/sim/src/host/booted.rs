//! What a simulated host has booted, and who wants to know.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use serde_json::Value;

/// What a host runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Booted {
    /// Nothing: it is off, starts, or found nothing that boots.
    #[default]
    Nothing,
    /// Ironic's agent.
    Agent {
        /// The URL of the ISO that it came from.
        iso: String,
    },
    /// An ISO that is no agent.
    LiveIso {
        /// Its URL.
        url: String,
        /// What a second virtual medium told it, if one was inserted.
        config: Option<ConfigDrive>,
    },
    /// What was written to its disk.
    Disk(Disk),
}

/// What an agent wrote to a disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    /// Where the image came from.
    pub image: String,
    /// `sha256:` or `sha512:` and hex of what was fetched.
    pub digest: String,
    /// What Ironic gave the instance.
    pub config: ConfigDrive,
}

/// What a configdrive holds under `openstack/latest`. Its user data hold secrets, so that `Debug` shows sizes alone.
#[derive(Clone, Default, PartialEq)]
pub struct ConfigDrive {
    /// `user_data`.
    pub user_data: Option<Bytes>,
    /// `meta_data.json`.
    pub meta_data: Option<Value>,
    /// `network_data.json`.
    pub network_data: Option<Value>,
}

impl fmt::Debug for ConfigDrive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigDrive")
            .field("user_data_bytes", &self.user_data.as_ref().map(Bytes::len))
            .field("meta_data", &self.meta_data.is_some())
            .field("network_data", &self.network_data.is_some())
            .finish()
    }
}

/// A record of one erasure that the agent did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Erasure {
    /// The clean step.
    pub step: String,
    /// What was erased: `/dev/nvme0n1`, `GPU 1`, `TPM`.
    pub device: String,
    /// Its serial number; empty where it has none.
    pub serial: String,
    /// How.
    pub method: String,
    /// `erased`.
    pub result: String,
}

/// A host that has booted something of its owner's.
#[derive(Clone, Debug, PartialEq)]
pub struct BootedHost {
    /// The machine's name in the site.
    pub machine: String,
    /// `SerialNumber` of the system, as its firmware tells it to what it boots.
    pub serial: String,
    /// `UUID` of the system.
    pub uuid: String,
    /// MAC addresses of its interfaces.
    pub macs: Vec<String>,
    /// A live ISO or a disk.
    pub booted: Booted,
}

/// Plays the operating system of hosts.
pub trait OnBoot: fmt::Debug + Send + Sync {
    /// Runs on a host that has booted a live ISO or its disk, within the host's task: what it returns is dropped when the power goes.
    fn run(&self, host: BootedHost) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}
